"""Verdicts: what asks for a review whatever the mean, by which thresholds, and what is said without a reference."""

import math

import pandas as pd
import pytest
from tiny_scores import SCORES, score_table_of

from medunet.records.config import ReportConfig
from medunet.records.scores import Note
from medunet.reporting.verdict import describe_thresholds, find_asking, judge_case, judge_new
from medunet.scoring.notes import BORDER

DEFAULTS = ReportConfig()


def rows_of(**columns: list) -> pd.DataFrame:
    """Return the rows of a case with good scores, where the columns do not say otherwise."""
    count = len(next(iter(columns.values())))
    good = {
        **{"label": ["liver", "tumour", "cyst"][:count], "status": "ok", "dice": 0.95},
        **{"hd95_mm": 2.0, "reference_ml": 10.0, "predicted_ml": 10.5, "surface": "area"},
        **{"reason": "", "notes": [()] * count},
    }
    return pd.DataFrame({**good, **columns}, index=range(count)).assign(case="one")


def lesions_of(*rows: tuple[str, str, bool, float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["label", "status", "counted", "reference_ml", "predicted_ml"])


@pytest.mark.parametrize(
    ("case", "severity", "sentence"),
    [
        ("good", "good", "Within the thresholds: Dice 0.900"),
        ("gone", "failed", "Missing: there is no prediction"),
        ("broken", "failed", "Failed: the case could not be scored"),
        ("missed", "review", "Review: missed: tumour"),
        ("apart", "review", "Review: Dice 0, the masks do not overlap: tumour, and 1 more reason"),
        ("empty", "none", "Nothing to find, and nothing was predicted"),
    ],
)
def test_verdicts(case: str, severity: str, sentence: str) -> None:
    verdict = judge_case(SCORES[SCORES["case"] == case], None, DEFAULTS)
    assert (verdict.severity, verdict.sentence) == (severity, sentence)


def test_a_whole_case_within_the_thresholds_is_good() -> None:
    verdict = judge_case(rows_of(dice=[0.95, 0.81]), None, DEFAULTS)
    assert (verdict.severity, verdict.headline) == (
        "good",
        "Within the thresholds: lowest Dice 0.810 (tumour)",
    )
    found = lesions_of(("tumour", "matched", True, 1.0, 1.0), ("tumour", "missed", False, 0.01, 0.0))
    verdict = judge_case(rows_of(dice=[0.95, 0.81]), found, DEFAULTS)
    assert verdict.headline.endswith("(tumour), 1 of 1 lesion found")


def test_every_lesion_missed_is_a_review_whatever_the_mean() -> None:
    lesions = lesions_of(
        ("tumour", "missed", True, 0.2, 0.0),
        ("tumour", "missed", True, 1.25, 0.0),
        ("tumour", "matched", True, 9.0, 9.0),
        ("tumour", "false_positive", True, 0.0, 0.3),
        ("tumour", "missed", False, 0.001, 0.0),  # too small to count
    )
    verdict = judge_case(rows_of(dice=[0.99, 0.98]), lesions, DEFAULTS)
    assert verdict.severity == "review"
    assert verdict.reasons == (
        "lesions of tumour: 2 of 3 missed (up to 1.25 ml)",
        "lesions of tumour: 1 invented (0.30 ml)",
    )
    objects = judge_case(rows_of(dice=[0.99, 0.98]), lesions, DEFAULTS, "px", noun="object")
    assert objects.reasons[0] == "objects of tumour: 2 of 3 missed (up to 1250 px)"


def test_whole_targets_come_first_with_the_largest_in_front() -> None:
    rows = rows_of(
        status=["missed", "missed", "ok"],
        dice=[0.0, 0.0, 0.0],
        reference_ml=[0.5, 3.0, 1.0],
        predicted_ml=[0.0, 0.0, 1.0],
        hd95_mm=[math.inf, math.inf, 50.0],
    )
    verdict = judge_case(rows, None, DEFAULTS)
    assert verdict.reasons == (
        "missed: tumour (3.00 ml), liver (0.50 ml)",
        "Dice 0, the masks do not overlap: cyst (1.00 ml)",
        "HD95 above 20 mm: cyst 50.0 mm",
    )
    assert find_asking(rows, DEFAULTS, "mm") == {"liver", "tumour", "cyst"}


def test_thresholds_are_those_of_the_configuration() -> None:
    rows = rows_of(dice=[0.69, 0.69], hd95_mm=[21.0, 2.0], predicted_ml=[10.0, 4.0])
    assert judge_case(rows, None, DEFAULTS).reasons == (
        "Dice below 0.7: liver 0.690, tumour 0.690",
        "HD95 above 20 mm: liver 21.0 mm",
        "volume off by more than 50%: tumour −60%",
    )
    assert find_asking(rows, DEFAULTS, "mm") == {"liver", "tumour"}
    own = ReportConfig(min_dice=0.9, target_min_dice={"tumour": 0.5}, max_hd95_mm=None, max_volume_error=None)
    assert judge_case(rows, None, own).reasons == ("Dice below 0.9: liver 0.690",)
    assert find_asking(rows, own, "mm") == {"liver"}
    none = ReportConfig(min_dice=None, max_hd95_mm=None, max_volume_error=None)
    assert judge_case(rows, None, none).severity == "good"
    # In pictures, distances are in pixels, which no threshold in mm is for.
    assert not any("HD95" in reason for reason in judge_case(rows, None, DEFAULTS, "px").reasons)


def test_the_thresholds_are_printed() -> None:
    own = ReportConfig(target_min_dice={"tumour": 0.5}, may_be_cut=("aorta",))
    assert describe_thresholds(own) == (
        "These ask for a review: Dice below 0.7; Dice of tumour below 0.5; robust HD above 20 mm; volume off by more "
        "than 50%; a target or lesion missed or invented; a mask cut by the border of the scan (allowed for aorta)."
    )
    assert "mm" not in describe_thresholds(own, "px")
    assert "Dice" not in describe_thresholds(own, has_reference=False)
    assert "cut" not in describe_thresholds(ReportConfig(may_be_cut="all"))
    assert "a target or object missed" in describe_thresholds(own, noun="object")


def test_a_cut_organ_is_a_review_unless_it_may_be() -> None:
    rows = rows_of(notes=[(BORDER,), ()])
    assert judge_case(rows, None, DEFAULTS).reasons == ("cut by the border of the scan: liver",)
    cut = {"liver": "both masks: left", "tumour": "reference: superior"}
    verdict = judge_case(rows, None, ReportConfig(may_be_cut=("liver",)), cut=cut)
    assert verdict.reasons == ("cut by the border of the scan: tumour (reference: superior)",)
    assert judge_case(rows, None, ReportConfig(may_be_cut="all"), cut=cut).severity == "good"


def test_swapped_labels_and_old_scores_come_before_all() -> None:
    rows = rows_of(dice=[0.1, 0.2, 0.9])
    swapped = (Note("swapped", "liver and tumour look swapped: IoU 0.90"),)
    rows["notes"] = pd.Series([swapped, swapped, ()], dtype=object)
    verdict = judge_case(
        rows, None, DEFAULTS, stale=["The predicted mask was replaced: these scores are old."]
    )
    assert verdict.reasons[0].startswith("The predicted mask was replaced")
    assert verdict.reasons[1] == "labels look swapped: liver, tumour"


def test_many_targets_are_counted() -> None:
    rows = score_table_of(*(("one", f"t{n}", "ok", n / 100, 1.0) for n in range(1, 31)))
    (reason,) = judge_case(rows, None, DEFAULTS).reasons
    assert reason == "Dice below 0.7: t1 0.010, t2 0.020, t3 0.030, t4 0.040 and 26 more"


def test_without_a_reference_there_is_no_score_to_judge() -> None:
    verdict = judge_new({"liver": 1500.0, "tumour": 0.0}, DEFAULTS, cut={}, agreement={})
    assert (verdict.severity, verdict.sentence) == ("none", "Found: liver 1500.00 ml")
    nothing = judge_new({"liver": 0.0}, DEFAULTS, cut={}, agreement={})
    assert (nothing.severity, nothing.reasons) == ("review", ("nothing was found",))
    split = judge_new(
        {"liver": 9.0, "tumour": 1.0}, DEFAULTS, cut={}, agreement={"liver": 0.9, "tumour": 0.4}
    )
    assert split.reasons == ("the networks agree on less than 70% of the voxels of tumour 40%",)
    cut = judge_new({"liver": 9.0}, DEFAULTS, cut={"liver": "prediction: superior"}, agreement={})
    assert cut.reasons == ("cut by the border of the scan: liver (prediction: superior)",)

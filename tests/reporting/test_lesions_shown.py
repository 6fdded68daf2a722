"""Lesions on the pages: each one of a case, counts, sizes and means of a cohort, and the rules by name."""

import html
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from tiny_run import DESCRIPTION, ODD_ID, make_run

from medunet.commands.report import run_report
from medunet.records.config import Config
from medunet.records.description import Description
from medunet.records.manifest import Manifest
from medunet.records.run_folder import RunFolder
from medunet.reporting.case_page import case_page
from medunet.reporting.case_parts import CaseParts
from medunet.reporting.lesions import cohort_measures, describe_rules, summarise_lesions, tabulate_case
from medunet.reporting.page import page_names
from medunet.runs.run import Run
from medunet.scoring.evaluate import ScoreOptions, score_pairs
from medunet.scoring.lesion_presets import PRESETS
from medunet.scoring.pairs import Pair
from medunet.scoring.summary import summarise_table
from medunet.scoring.tables import write_scores

_COLUMNS = [
    *("case", "label", "rules", "lesion", "status", "counted", "dice", "hd95_mm"),
    *("reference_ml", "predicted_ml", "long_axis_mm", "short_axis_mm", "slice"),
]
_RULES = ("tumour", "brats2023")
LESIONS = pd.DataFrame(
    [
        ("one", *_RULES, 1, "matched", True, 0.8, 2.5, 1.25, 1.5, 14.0, 9.5, 31),
        ("one", *_RULES, 2, "missed", False, 0.0, math.inf, 0.01, 0.0, 2.0, 1.0, 4),
        ("one", *_RULES, 3, "missed", True, 0.0, math.inf, 0.2, 0.0, 8.0, 6.0, 12),
        ("one", *_RULES, 4, "false_positive", True, 0.0, math.inf, 0.0, 0.3, 6.0, 5.0, 40),
        ("two", *_RULES, 1, "matched", True, 0.9, 1.0, 0.03, 0.04, 4.0, 3.0, 7),
        ("two", *_RULES, 2, "false_positive", True, 0.0, math.inf, 0.0, 0.1, 5.0, 4.0, 9),
    ],
    columns=_COLUMNS,
)
SCORES = pd.DataFrame(
    [
        ("one", "liver", "ok", 0.9, math.nan, math.nan, math.nan),
        ("two", "liver", "ok", 0.9, math.nan, math.nan, math.nan),
        ("three", "liver", "missing", math.nan, math.nan, math.nan, math.nan),
        ("one", "tumour", "ok", 0.7, 0.5, 0.5, 250.0),
        ("two", "tumour", "ok", 0.8, 1.0, 0.5, 187.5),
        ("three", "tumour", "missing", math.nan, math.nan, math.nan, math.nan),
    ],
    columns=["case", "label", "status", "dice", "lesion_sensitivity", "lesion_precision", "lesion_hd95_mm"],
).assign(surface="area", hd95_mm=1.0, reason="", notes=[()] * 6)
NAMES = ["lesion_sensitivity", "lesion_precision", "lesion_hd95_mm"]
TARGETS = {summary.label: summary for summary in summarise_table(SCORES, NAMES)}


def test_a_cohorts_lesions_are_counted_by_size_and_averaged_over_cases() -> None:
    (summary,) = summarise_lesions(LESIONS, TARGETS, "mm")  # nobody asked for the liver's
    assert (summary.label, summary.rules) == ("tumour", "brats2023")
    counts = summary.counts
    assert counts.text == "2 found, 1 missed, 2 false positives, 1 too small to count"
    assert (counts.num_lesions, counts.sensitivity, counts.precision) == (3, 2 / 3, 2 / 4)
    assert counts.f1 == 4 / 7
    # Spheres of 0.03, 0.2 and 1.25 ml: 3.9, 7.3 and 13.4 mm. The one of 0.01 ml does not count.
    assert [(size.num_detected, size.num_lesions) for size in summary.sizes] == [
        (1, 1),
        (0, 1),
        (1, 1),
        (0, 0),
    ]
    # The missing case is 0 in the sensitivity, and has no precision and no distance.
    sensitivity = summary.means["lesion_sensitivity"]
    assert sensitivity.mean == pytest.approx((0.5 + 1 + 0) / 3)
    assert math.isnan(sensitivity.mean_low)
    assert sensitivity.no_interval == "3 cases, fewer than 10"
    assert summary.means["lesion_precision"].mean == 0.5
    assert summary.means["lesion_hd95_mm"].mean == 218.75
    assert "lesion_f1" not in summary.means  # SCORES has no such column
    assert (summary.num_cases, summary.num_unscored) == (3, 1)


def test_a_cohort_without_lesions_has_none_to_show() -> None:
    assert summarise_lesions(LESIONS.iloc[:0], TARGETS, "mm") == []


def test_rates_of_nothing_are_undefined() -> None:
    ignored = LESIONS[~LESIONS["counted"]]
    (summary,) = summarise_lesions(ignored, TARGETS, "mm")
    assert all(math.isnan(rate) for rate in (summary.counts.sensitivity, summary.counts.precision))
    assert math.isnan(summary.counts.f1)


def test_qualities_of_matches_are_shown_for_panoptic_rules() -> None:
    def headings(rules: str, unit: str = "mm") -> list[str]:
        table = LESIONS.assign(rules=rules).rename(columns={"hd95_mm": "hd90_pooled_mm"})
        summaries = summarise_lesions(table, TARGETS, unit)
        return [measure.heading for measure in cohort_measures(table, summaries, unit)]

    shown = ["Sensitivity", "Precision", "F1", "Dice", "HD90 pooled mm"]
    assert headings("lits") == shown
    assert headings("panoptic") == [*shown, "SQ", "PQ"]
    assert headings("lits", "px")[-1] == "HD90 pooled px"


def test_a_case_lists_its_lesions() -> None:
    own = LESIONS[LESIONS["case"] == "one"]
    (table,) = tabulate_case(own, SCORES[SCORES["case"] == "one"], "mm")
    assert table.counts.text == "1 found, 1 missed, 1 false positive, 1 too small to count"
    assert table.scores == ["Sensitivity 0.500", "Precision 0.500", "HD95 250.00 mm"]
    assert [row["counted"] for row in table.rows] == [True, False, True, True]
    assert table.rows[0] == {
        "number": 1,
        "status": "matched",
        "counted": True,
        "reference": "1.250",
        "predicted": "1.500",
        "dice": "0.800",
        "distance": "2.50",
        "axes": "14.0 × 9.5",
        "slice": "31",
        "finding": None,
    }
    assert (table.rows[3]["distance"], table.rows[3]["predicted"]) == ("∞", "0.300")


def test_of_many_lesions_the_largest_are_listed() -> None:
    many = pd.concat([LESIONS.iloc[:1]] * 120, ignore_index=True)
    many["lesion"] = range(1, 121)
    many["reference_ml"], many["predicted_ml"] = many["lesion"] / 1000, 0.0
    many.loc[0, "predicted_ml"] = 5.0  # the largest of all, in the prediction
    (table,) = tabulate_case(many, SCORES[SCORES["case"] == "one"], "mm")
    assert [row["number"] for row in table.rows] == [1, *range(22, 121)]
    assert table.num_hidden == 20
    assert table.counts.num_found == 120


def page_of(rows: pd.DataFrame, lesions: pd.DataFrame, description: Description = DESCRIPTION) -> str:
    """Return the page of a case whose scan cannot be shown."""
    parts = CaseParts(case_id="one", page="one.html", description=description, rows=rows, lesions=lesions)
    return case_page(parts, "no scan")[0]


def test_the_page_of_a_case_greys_what_does_not_count() -> None:
    rows = SCORES[SCORES["case"] == "one"]
    page = page_of(rows, LESIONS[LESIONS["case"] == "one"])
    assert "<h2>Lesions of tumour</h2>" in page
    assert page.count('<tr class="uncounted">') == page.count("not counted: too small") == 1
    text = _text(page)
    assert "2 − missed not counted: too small 0.010 0.000 0.000 ∞ 2.0 × 1.0 4 3 − missed 0.200" in text
    assert "Rules “brats2023”: 26-connected" in text
    assert "<h2>Lesions of" not in page_of(rows, LESIONS.iloc[:0])


def test_lesions_of_pictures_are_areas_in_pixels() -> None:
    pictures = DESCRIPTION.model_copy(update={"layout": "png"})
    assert pictures.unit == "px"
    lesions = LESIONS.assign(rules="lits", slice=0)
    (summary,) = summarise_lesions(lesions, TARGETS, "px")
    assert summary.sizes == []
    page = page_of(SCORES[SCORES["case"] == "one"], lesions[lesions["case"] == "one"], pictures)
    text = _text(page)
    assert "Reference px Predicted px Dice HD95 px Long × short axis px 1 ✓ matched 1250 1500 0.800" in text
    assert not re.search(r"\bmm\b|\bml\b|axial|[Ss]lice", text)


@pytest.mark.parametrize("name", PRESETS)
def test_rules_are_described_by_name(name: str) -> None:
    assert describe_rules(name, "mm").startswith(f"“{name}”: {PRESETS[name].connectivity}-connected; ")


def test_rules_say_what_counts() -> None:
    assert describe_rules("lits_half", "px") == (
        "“lits_half”: 4-connected; found at an IoU above 0.5; Dice and distance are means over the lesions found"
    )
    assert describe_rules("brats2023_metastases", "mm") == (
        "“brats2023_metastases”: 26-connected; a lesion is found if any prediction touches it; "
        "components joined by 1 dilation are one lesion; lesions up to 2 mm³ do not count; "
        "each miss and false positive counts as Dice 0 and 374 mm in the means"
    )
    assert describe_rules("panoptic", "px", instances=True).startswith(
        "“panoptic”: objects by their numbers (in a prediction without numbers, 8-connected components); matched"
    )
    assert "; each object is dilated on its own; " in describe_rules("brats2023", "mm", instances=True)
    assert all("lesion" not in describe_rules(name, "mm", instances=True) for name in PRESETS)
    assert describe_rules("of_a_later_version", "mm") == "“of_a_later_version”"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A tiny run, its tumours scored as lesions and reported: one found, one missed, one invented."""
    folder, data_root = make_run(tmp_path_factory.mktemp("lesions"))
    pairs = []
    for case in Manifest.read(folder.manifest).cases:
        prediction = folder.predictions / f"{case.id}.nii.gz"
        assert case.label
        pairs.append(Pair(case.id, data_root / case.label, prediction if prediction.exists() else None))
    targets = DESCRIPTION.targets
    scores = score_pairs(pairs, targets, targets, ScoreOptions(lesions={"tumour": "lits"}))
    write_scores(scores, folder.root, about={}, targets=targets)
    run_report(Run(folder, Config(dataset="tiny"), data_root))
    return folder


def test_an_index_shows_lesions_and_penalties(made: RunFolder) -> None:
    text = _text((made.report / "index.html").read_text())
    assert "tumour 2 lesions together 1 found, 1 missed, 1 false positive 0.500 0.500 0.500" in text
    # Sensitivity 1, 0 and the missing case's 0; precision 1 and 0; F1 1, 0, 0 and 0; Dice 1 and 0; HD95 0.
    number = r"(0\.\d{3})"
    means = re.search(rf"mean over 5 cases 95% interval {number} – {number} – {number} –", text)
    assert means
    assert means.groups() == ("0.333", "0.500", "0.250")
    assert "The lesions of failed and missing cases are unknown" in text
    assert "Rules “lits”: 6-connected; found at an IoU above 0;" in text
    # Boxes of 120 voxels of 8 and of 15 mm³ are spheres of 12 and 15 mm.
    assert "under 5 mm 5 to 10 mm 10 to 20 mm 20 mm or more tumour none none 1 of 2 50% none" in text
    # Tumour: 0 for ras_good, diagonals of 60×51×100 mm for lps_poor and of 60×68×40 mm for the other two.
    penalised = (0 + math.hypot(60, 51, 100) + 2 * math.hypot(60, 68, 40)) / 4
    assert f"HD mm 0.00 – 0.00 {penalised:.2f} 5 1 1 2 1 0" in text


def test_case_pages_show_each_finding_with_its_sign(made: RunFolder) -> None:
    names = page_names(case.id for case in Manifest.read(made.manifest).cases)
    pages = {case: (made.report / "cases" / name).read_text() for case, name in names.items()}
    assert "1 ✓ matched 0.960 0.960 1.000 0.00" in _text(pages["ras_good"])
    assert "1 − missed 1.800 0.000 0.000 ∞" in _text(pages["lps_poor"])
    assert "1 + false positive 0.000 0.960 0.000 ∞" in _text(pages[ODD_ID])
    for case in ("oblique_healthy", "no_prediction"):
        assert "Lesions of" not in pages[case]


def test_a_run_without_lesions_says_nothing_of_them(tmp_path: Path) -> None:
    folder, data_root = make_run(tmp_path)
    index = run_report(Run(folder, Config(dataset="tiny"), data_root)).read_text()
    assert "Penalised mean" in index
    assert "<h2>Lesions</h2>" not in index
    (folder.root / "scores.json").unlink()
    assert "Penalised" not in run_report(Run(folder, Config(dataset="tiny"), data_root)).read_text()


def _text(page: str) -> str:
    """Return a page's visible text in one line."""
    body = page[page.index("<body>") :]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))

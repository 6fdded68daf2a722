"""Numbers as reports show them, ranking, verdicts and safe file names."""

import math
from pathlib import Path

import pandas as pd
import pytest
from tiny_run import DESCRIPTION
from tiny_scores import SCORES

from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.reporting.page import flat_items, interval_text, number_text, page_names
from medunet.reporting.scans import default_channel, load_scan
from medunet.reporting.scores import dice_by_case, measures, rank_cases


def test_ranking_puts_failures_then_the_worst_first() -> None:
    assert rank_cases(SCORES) == ["broken", "gone", "missed", "apart", "good", "empty"]


def test_cases_to_review_come_before_those_that_are_fine() -> None:
    severities = {"broken": "failed", "gone": "failed", "good": "review", "empty": "none"}
    verdicts = {**severities, "missed": "review", "apart": "good"}
    assert rank_cases(SCORES, verdicts) == ["broken", "gone", "missed", "good", "apart", "empty"]


def test_dice_of_a_case_is_the_mean_over_its_targets() -> None:
    # apart, broken, gone, good, missed; `empty` has no defined Dice.
    wanted = {"apart": 0.25, "broken": 0.0, "gone": 0.0, "good": 0.9, "missed": 0.475}
    assert dice_by_case(SCORES) == pytest.approx(wanted)


def test_measures_follow_the_columns_with_their_own_percentile_and_tolerance() -> None:
    columns = ["nsd_3mm", "iou", "assd_mm", "dice", "hd_mm", "hd90_mm", "reference_ml"]
    headings = [measure.heading for measure in measures(pd.DataFrame(columns=columns))]
    assert headings == ["Dice", "HD mm", "HD90 mm", "ASSD mm", "NSD 3 mm"]
    pooled = pd.DataFrame(columns=["hd_mm", "hd95_pooled_mm", "lesion_hd95_mm", "masd_mm"])
    assert [measure.heading for measure in measures(pooled)] == ["HD mm", "HD95 pooled mm"]
    assert measures(pooled, "px")[1].heading == "HD95 pooled px"


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.nan, "–"), (math.inf, "∞"), (-math.inf, "−∞"), (1.005, "1.00"), (-2.5, "−2.50"), (-0.001, "0.00")],
)
def test_numbers(value: float, text: str) -> None:
    assert number_text(value) == text


def test_signed_numbers() -> None:
    assert number_text(1.234, signed=True) == "+1.23"
    assert number_text(-0.0, signed=True) == "0.00"


def test_intervals() -> None:
    assert interval_text(0.25, 1.0, 3) == "0.250 to 1.000"
    assert interval_text(math.nan, math.nan) == "–"


def test_page_names_are_safe_and_unique() -> None:
    ids = [
        "liver_0",
        "Liver_0",
        "a/b",
        "a\\b",
        "../../etc",
        "a b",
        "a_b",
        "",
        "." * 5,
        "ü",
        "x" * 300,
        "x" * 301,
    ]
    names = page_names(ids)
    assert len({name.casefold() for name in names.values()}) == len(ids)
    for name in names.values():
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert not name.startswith(".")
        assert len(name) < 110
    assert names["a_b"] == "a_b.html"
    assert page_names(reversed(ids)) == names


def test_nested_provenance_becomes_rows() -> None:
    nested = {"versions": {"torch": "2.13"}, "threads": [2, 4], "gpu": None, "empty": {}}
    assert flat_items(nested) == [
        ("versions.torch", "2.13"),
        ("threads", "2, 4"),
        ("gpu", "–"),
        ("empty", "–"),
    ]


def test_flair_is_shown_where_there_is_one() -> None:
    channels = {"T1w": {"modality": "MR"}, "FLAIR": {"modality": "MR"}}
    description = Description(
        name="brain", layout="brats", channels=channels, labels={"background": 0, "tumour": 1}
    )
    assert default_channel(description) == "FLAIR"
    assert default_channel(DESCRIPTION) == "CT"


def test_a_channel_of_a_4d_file_is_found_by_its_place(tmp_path: Path) -> None:
    import nibabel as nib
    import numpy as np

    frames = np.stack([np.full((4, 5, 6), value, np.float32) for value in (1, 2, 3)], axis=-1)
    nib.save(nib.Nifti1Image(frames, np.diag([-1.0, 1, 1, 1])), tmp_path / "scan.nii.gz")
    description = Description(
        name="brain",
        layout="msd",
        channels={name: {"modality": "MR"} for name in ("T1w", "FLAIR", "T2w")},
        labels={"background": 0, "tumour": 1},
    )
    case = Case(id="one", patient="one", images=dict.fromkeys(description.channels, "scan.nii.gz"))
    scan = load_scan(case, description, tmp_path, tmp_path / "no_prediction.nii.gz")
    assert np.all(scan.image == 2)
    assert scan.channel == "FLAIR"
    assert scan.reference is None
    assert scan.prediction is None

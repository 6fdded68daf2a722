"""Five readers of one glioma against the consensus: equal to what public libraries gave for the same files."""

import json
from pathlib import Path

import pytest

from medunet.records import CaseScore
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import find_pairs

REGIONS = {"WT": (2, 1, 4), "TC": (1, 4), "ET": (4,)}
FIELDS = {"dice": "dice", "hd": "hd_mm", "hd95": "hd95_mm", "assd": "assd_mm", "masd": "masd_mm"}
TOLERANCES = {"nsd1": 1.0, "nsd2": 2.0}


@pytest.fixture(scope="module")
def rater_scores(shared_data: Path) -> list[CaseScore]:
    folder = shared_data / "brats" / "TCGA-FG-6692"
    pairs, unmatched = find_pairs(folder / "TCGA-FG-6692_seg.nii.gz", folder / "raters")
    assert len(pairs) == 5
    assert unmatched == []
    return score_pairs(pairs, REGIONS, REGIONS)


@pytest.mark.real_data
@pytest.mark.parametrize("library", ["monai", "metricsreloaded"])
def test_five_raters(shared_data: Path, rater_scores: list[CaseScore], library: str) -> None:
    rows = json.loads((shared_data.parent / "metrics" / "reference_values.json").read_text())["rows"]
    by_key = {(score.case, score.label): score for score in rater_scores}
    num_compared = 0
    for row in rows:
        if row["library"] != library or "/raters/" not in row["pair"] or row["region"] not in REGIONS:
            continue
        rater = Path(row["pair"].split(" against ")[0]).name.removesuffix(".nii.gz")
        score = by_key[rater, row["region"]]
        metric = row["metric"]
        got = score.nsd[TOLERANCES[metric]] if metric in TOLERANCES else getattr(score, FIELDS[metric])
        assert got == pytest.approx(row["value"], abs=1e-4), row
        num_compared += 1
    assert num_compared == 5 * 3 * (6 if library == "monai" else 7)


@pytest.mark.real_data
def test_pooled_hd95_is_medpys(shared_data: Path) -> None:
    from medunet.imaging.volumes import read_label
    from medunet.scoring.masks import score_masks

    folder = shared_data / "brats" / "TCGA-FG-6692"
    rows = json.loads((shared_data.parent / "metrics" / "reference_values.json").read_text())["rows"]
    rows = [
        row
        for row in rows
        if (row["library"], row["metric"], row["region"]) == ("medpy", "hd95", "WT")
        and "/raters/" in row["pair"]
    ]
    reference = read_label(folder / "TCGA-FG-6692_seg.nii.gz")
    assert len(rows) == 5
    for row in rows:
        prediction = read_label(shared_data / row["pair"].split(" against ")[0])
        score = score_masks(reference.array > 0, prediction.array > 0, reference.spacing_mm, hd95="pooled")
        assert score.hd95_mm == pytest.approx(row["value"], abs=1e-6), row

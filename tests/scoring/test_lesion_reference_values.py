"""Five readers of one glioma, lesion by lesion: equal to the BraTS 2023 challenge's own code and to panoptica."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medunet.imaging.volumes import read_label
from medunet.records.scores import CaseLesions, LesionPreset
from medunet.scoring.lesions import score_lesions

REGIONS = {"WT": (2, 1, 4), "TC": (1, 4), "ET": (4,)}
BRATS = {
    "brats2023_LesionWise_Score_Dice": "dice",
    "brats2023_LesionWise_Score_HD95": "hd95_mm",
    "brats2023_Num_TP": "num_matched",
    "brats2023_Num_FP": "num_false_positive",
    "brats2023_Num_FN": "num_missed",
}
PANOPTICA = {
    "lesion_tp": "num_matched",
    "lesion_fp": "num_false_positive",
    "lesion_fn": "num_missed",
    "lesion_rq": "rq",
    "lesion_sq": "sq",
    "lesion_sq_dsc": "dice",
    "lesion_pq": "pq",
}


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("library", "preset", "fields"),
    [("BraTS-2023-Metrics@43c9052", "brats2023", BRATS), ("panoptica", "panoptic", PANOPTICA)],
)
def test_five_readers(shared_data: Path, library: str, preset: LesionPreset, fields: dict[str, str]) -> None:
    rows = json.loads((shared_data.parent / "metrics" / "reference_values.json").read_text())["rows"]
    wanted: list[dict[str, Any]] = [
        row
        for row in rows
        if row["library"] == library and row["metric"] in fields and "/raters/" in row["pair"]
    ]
    assert len(wanted) == 5 * 3 * len(fields)
    scored: dict[tuple[str, str], CaseLesions] = {}
    for row in wanted:
        key = row["pair"], row["region"]
        if key not in scored:
            prediction, reference = (
                read_label(shared_data / name) for name in row["pair"].split(" against ")
            )
            masks = [np.isin(volume.array, REGIONS[row["region"]]) for volume in (reference, prediction)]
            scored[key] = score_lesions(masks[0], masks[1], reference.spacing_mm, preset)
        assert getattr(scored[key], fields[row["metric"]]) == pytest.approx(row["value"], abs=1e-6), row


@pytest.mark.real_data
def test_numbered_vertebrae(shared_data: Path) -> None:
    pair = "spine_instances/matched_instance/pred.nii.gz against ref.nii.gz"
    rows = json.loads((shared_data.parent / "metrics" / "reference_values.json").read_text())["rows"]
    wanted = [
        row
        for row in rows
        if (row["library"], row["pair"], row["region"]) == ("panoptica", pair, "all_foreground")
        and row["metric"] in PANOPTICA
    ]
    assert len(wanted) == len(PANOPTICA)
    folder = shared_data / "spine_instances/matched_instance"
    reference, prediction = (read_label(folder / name) for name in ("ref.nii.gz", "pred.nii.gz"))
    found = score_lesions(
        reference.array > 0,
        prediction.array > 0,
        reference.spacing_mm,
        "panoptic",
        numbers_reference=reference.array,
        numbers_prediction=prediction.array,
    )
    for row in wanted:
        assert getattr(found, PANOPTICA[row["metric"]]) == pytest.approx(row["value"], abs=1e-6), row

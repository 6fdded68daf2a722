"""Numbered objects are the lesions that are scored: touching ones apart, several parts of one number as one."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchmetrics.detection import PanopticQuality

from medunet.records.scores import CaseLesions, LesionPreset
from medunet.scoring.labels import ScoreOptions, score_labels
from medunet.scoring.lesion_presets import PRESETS
from medunet.scoring.lesions import score_lesions

SPACING_MM = (1.0, 2.0, 3.0)


def score(
    reference: np.ndarray, prediction: np.ndarray, preset: LesionPreset = "panoptic", **numbers: Any
) -> CaseLesions:
    spacing_mm = SPACING_MM[: reference.ndim]
    return score_lesions(reference > 0, prediction > 0, spacing_mm, preset, **numbers)


def numbered(reference: np.ndarray, prediction: np.ndarray, preset: LesionPreset = "panoptic") -> CaseLesions:
    return score(reference, prediction, preset, numbers_reference=reference, numbers_prediction=prediction)


def draw_cells(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return random balls, many of which touch, numbered in no order and with gaps."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.indices(shape), axis=-1)
    cells = np.zeros(shape, np.int32)
    for number in rng.choice(np.arange(1, 999), 14, replace=False):
        centre = rng.uniform(0, shape)
        cells[np.linalg.norm(grid - centre, axis=-1) < rng.uniform(2, 5)] = number
    return cells


@pytest.mark.parametrize("shape", [(24, 31), (14, 17, 11)])
@pytest.mark.parametrize("seed", range(4))
def test_panoptic_quality_equals_torchmetrics(seed: int, shape: tuple[int, ...]) -> None:
    reference = draw_cells(seed, shape)
    prediction = np.roll(reference, 1, axis=0)
    found = numbered(reference, prediction)
    oracle = PanopticQuality(things={1}, stuffs={0}, return_sq_and_rq=True, return_per_class=True)
    maps = [
        torch.from_numpy(np.stack([cells > 0, cells], axis=-1).astype(np.int64))[None]
        for cells in (prediction, reference)
    ]
    index = list(oracle.cat_id_to_continuous_id).index(1)
    pq, sq, rq = oracle(*maps)[index].tolist()
    assert (found.pq, found.sq, found.rq) == pytest.approx((pq, sq, rq), abs=1e-6)
    num_cells = np.unique(reference).size - 1
    assert found.num_matched + found.num_missed == num_cells
    _, num_components = ndimage.label(reference, np.ones((3,) * len(shape)))
    assert num_components < num_cells  # so that components would be another answer


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_equals_itself_object_by_object(preset: LesionPreset) -> None:
    cells = draw_cells(1, (14, 17, 11))
    found = numbered(cells, cells, preset)
    assert {lesion.status for lesion in found.lesions} == {"matched"}
    assert len(found.lesions) == np.unique(cells).size - 1
    if PRESETS[preset].matching != "touch":  # by touch, a neighbour belongs to an object, too
        assert {lesion.dice for lesion in found.lesions} == {1.0}
    sizes = [lesion.reference_ml for lesion in found.lesions]
    assert sizes == pytest.approx([(cells == number).sum() * 0.006 for number in np.unique(cells)[1:]])


def test_touching_objects_stay_apart_and_parts_together() -> None:
    cells = np.zeros((6, 12, 5), np.int16)
    cells[1:3, 1:4, 1:3], cells[3:5, 1:4, 1:3] = 9, 2  # touch
    cells[1:3, 8:10, 1:3], cells[4, 10:, 4] = 5, 5  # two parts
    assert len(score(cells, cells).lesions) == 3
    found = numbered(cells, cells)
    assert [round(lesion.reference_ml * 1000 / 6) for lesion in found.lesions] == [12, 10, 12]  # 2, 5, 9
    halves = score(cells, cells, numbers_reference=cells)  # the prediction has no numbers
    assert (halves.num_matched, halves.num_missed, halves.num_false_positive) == (1, 2, 2)
    assert len(score(cells, cells, numbers_prediction=cells).lesions) == 5


def test_numbered_components_give_the_scores_of_components() -> None:
    rng = np.random.default_rng(3)
    masks = [ndimage.gaussian_filter(rng.normal(size=(20, 24, 14)), 1.5) > 0.12 for _ in range(2)]
    for preset in ("panoptic", "lits", "lits_half"):
        ranks = {26: 3, 6: 1}[PRESETS[preset].connectivity]  # type: ignore[index]
        structure = ndimage.generate_binary_structure(3, ranks)
        first, second = (ndimage.label(mask, structure)[0] for mask in masks)
        assert repr(numbered(first, second, preset)) == repr(score(first, second, preset))  # type: ignore[arg-type]


def test_dilation_joins_no_objects() -> None:
    cells = np.zeros((20, 12, 8), np.uint8)
    cells[2:5, 2:8, 2:6], cells[6:9, 2:8, 2:6] = 1, 2  # a voxel apart
    prediction = np.zeros_like(cells)
    prediction[9:12, 3:6, 3:5] = 1  # within the reach of the second alone
    found = score(cells, prediction, "brats2023_meningioma", numbers_reference=cells)
    assert [lesion.status for lesion in found.lesions] == ["missed", "matched"]
    joined = score(cells, prediction, "brats2023_meningioma")
    assert [lesion.status for lesion in joined.lesions] == ["matched"]


def test_numbers_go_through_the_scoring_of_label_maps() -> None:
    cells = draw_cells(2, (14, 17, 11))
    merged = (cells > 0).astype(np.uint8)
    (found,) = score_labels(
        merged,
        merged,
        SPACING_MM,
        {"cell": (1,)},
        {"cell": (1,)},
        "a",
        ScoreOptions(lesions={"cell": "panoptic"}),
        numbers_reference=cells,
        numbers_prediction=cells,
    )
    assert found.lesions is not None
    assert found.lesions.pq == 1
    assert len(found.lesions.lesions) == np.unique(cells).size - 1

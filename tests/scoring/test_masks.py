"""Scores of two masks: by hand, empty masks, degenerate grids, cuts, options. Surfaces by hand: test_area.py."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from medunet.base.errors import InputError
from medunet.records.scores import Surface
from medunet.scoring.masks import Crop, score_masks

DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")
SURFACES = ("area", "voxel")


def mask_of(shape: tuple[int, ...], *boxes: tuple[slice | int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask


def test_two_pixels_by_hand() -> None:
    # reference  # # .     prediction  # . #     spacing (2, 1) mm, one row
    reference = mask_of((3, 5), (1, slice(1, 3)))
    prediction = mask_of((3, 5), (1, 1), (1, 3))
    score = score_masks(reference, prediction, (2.0, 1.0), surface="voxel", tolerances_mm=(0.5, 1.0))
    assert (score.tp, score.fp, score.fn, score.tn) == (1, 1, 1, 12)
    assert score.dice == score.f1 == score.precision == score.recall == 0.5
    assert score.iou == pytest.approx(1 / 3)
    assert score.specificity == pytest.approx(12 / 13)
    assert score.accuracy == pytest.approx(13 / 15)
    assert score.hd_mm == 1.0  # reference's second pixel is 1 mm from either; so is prediction's second
    assert score.assd_mm == score.masd_mm == 0.5
    assert score.nsd == {0.5: 0.5, 1.0: 1.0}
    for name in ("reference_ml", "predicted_ml", "difference_ml"):
        assert math.isnan(getattr(score, name))  # a plane has no volume
    assert score.relative_difference == 0.0


def test_counts_and_volumes_by_hand() -> None:
    # Of 20 voxels of 2×1×5 mm the reference holds 5, the prediction 4, both 3.
    reference, prediction = mask_of((20,), (slice(0, 5),)), mask_of((20,), (slice(2, 6),))
    score = score_masks(reference.reshape(2, 2, 5), prediction.reshape(2, 2, 5), (2.0, 1.0, 5.0))
    assert (score.tp, score.fp, score.fn, score.tn) == (3, 1, 2, 14)
    expected = {
        "dice": 6 / 9,
        "iou": 3 / 6,
        "precision": 3 / 4,
        "recall": 3 / 5,
        "f1": 6 / 9,
        "f2": 5 * 3 / (5 * 3 + 4 * 2 + 1),
        "specificity": 14 / 15,
        "accuracy": 17 / 20,
        "balanced_accuracy": (3 / 5 + 14 / 15) / 2,
        "mcc": 1 / math.sqrt(3),  # (3·14 - 1·2) / sqrt(4 · 5 · 15 · 16) = 40 / sqrt(4800)
        "kappa": 4 / 7,  # agreement 0.85, by chance (5·4 + 15·16) / 400 = 0.65: 0.2 / 0.35
        "reference_ml": 0.05,
        "predicted_ml": 0.04,
        "difference_ml": -0.01,
        "relative_difference": -0.2,
    }
    assert {name: getattr(score, name) for name in expected} == pytest.approx(expected)


def test_what_is_scored_unless_asked_otherwise() -> None:
    mask = mask_of((3, 4, 5), (1, 2, 3))
    score = score_masks(mask, mask, (1.0, 1.0, 1.0))
    assert (score.surface, score.hd95, score.percentile, list(score.nsd)) == ("area", "max", 95.0, [1.0, 2.0])


def test_two_voxels_along_each_axis() -> None:
    for axis, step_mm in enumerate((2.0, 1.0, 5.0)):
        index = [2, 2, 2]
        reference = mask_of((5, 6, 7), tuple(index))
        index[axis] += 1
        prediction = mask_of((5, 6, 7), tuple(index))
        score = score_masks(reference, prediction, (2.0, 1.0, 5.0), surface="voxel")
        assert score.status == "ok"
        assert [getattr(score, name) for name in DISTANCES] == [step_mm] * 4
        assert score.reference_ml == pytest.approx(0.01)


def test_directed_and_pooled_percentiles_differ() -> None:
    # Reference: one voxel. Prediction: that voxel and another 10 mm away.
    reference = mask_of((3, 3, 12), (1, 1, 1))
    pair, ones = (reference, reference | mask_of((3, 3, 12), (1, 1, 11))), (1.0, 1.0, 1.0)
    largest = score_masks(*pair, ones, surface="voxel")
    pooled = score_masks(*pair, ones, surface="voxel", hd95="pooled")
    assert (largest.hd95, pooled.hd95) == ("max", "pooled")
    assert largest.hd_mm == pooled.hd_mm == 10.0
    assert largest.hd95_mm == pytest.approx(9.5)  # percentile 95 of [0, 10], the other direction is [0]
    assert pooled.hd95_mm == pytest.approx(9.0)  # of [0, 0, 10]
    assert largest.assd_mm == pytest.approx(10 / 3)  # pooled over three voxels
    assert largest.masd_mm == pytest.approx(2.5)  # mean of 0 and 5
    assert score_masks(*pair, ones, surface="voxel", percentile=50).hd95_mm == pytest.approx(5.0)


@pytest.mark.parametrize("surface", SURFACES)
def test_tolerance_holds_a_shift_of_one_float32_voxel(surface: Surface) -> None:
    reference = mask_of((4, 4, 8), (slice(1, 3), slice(1, 3), 2))
    prediction = np.roll(reference, 1, axis=2)
    spacing_mm = float(np.float32(0.1)) * 10  # 1.0000000149
    assert spacing_mm > 1.0
    score = score_masks(reference, prediction, (1.0, 1.0, spacing_mm), surface=surface)
    assert score.hd_mm > 1.0
    assert score.nsd[1.0] == 1.0


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 4), (6, 9, 1)])
@pytest.mark.parametrize("status", ["both_empty", "missed", "false_positive"])
def test_empty_masks(shape: tuple[int, ...], status: str, surface: Surface) -> None:
    empty = np.zeros(shape, dtype=bool)
    full = mask_of(shape, (slice(2, 4), slice(3, 6), slice(1, 3) if shape[-1] == 4 else ...))
    pair = {"both_empty": (empty, empty), "missed": (full, empty), "false_positive": (empty, full)}[status]
    score = score_masks(*pair, (1.0, 2.0, 3.0)[: len(shape)], surface=surface)
    undefined = {
        "both_empty": {"dice", "iou", "f1", "f2", "precision", "recall"},
        "missed": {"precision"},
        "false_positive": {"recall"},
    }[status]
    assert score.status == status
    for name in ("dice", "iou", "f1", "f2", "precision", "recall"):
        value = getattr(score, name)
        assert math.isnan(value) if name in undefined else value == 0.0, name
    for name in DISTANCES:
        value = getattr(score, name)
        assert math.isnan(value) if status == "both_empty" else value == math.inf, name
    assert list(score.nsd) == [1.0, 2.0]
    for value in score.nsd.values():
        assert math.isnan(value) if status == "both_empty" else value == 0.0
    assert 0 < score.accuracy <= 1
    assert 0 < score.specificity <= 1
    # One side of balanced accuracy is undefined with an empty reference; MCC with any empty mask; kappa with both.
    if status == "missed":
        assert score.balanced_accuracy == 0.5
        assert score.relative_difference == -1.0
    else:
        assert math.isnan(score.balanced_accuracy)
        assert math.isnan(score.relative_difference)  # of nothing
    assert math.isnan(score.mcc)
    assert math.isnan(score.kappa) if status == "both_empty" else score.kappa == 0.0
    assert not score.touches_border
    if len(shape) == 3:
        volume_ml = 0.006 * int(full.sum())
        assert score.reference_ml == pytest.approx(volume_ml * (status == "missed"))
        assert score.predicted_ml == pytest.approx(volume_ml * (status == "false_positive"))
        signs = {"both_empty": 0, "missed": -1, "false_positive": 1}
        assert score.difference_ml == pytest.approx(volume_ml * signs[status])


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_scored_in_its_plane(axis: int, surface: Surface) -> None:
    rng = np.random.default_rng(axis)
    plane_a, plane_b = rng.random((2, 11, 14)) > 0.4
    spacing_mm = (0.7, 1.9)
    plane = score_masks(plane_a, plane_b, spacing_mm, surface=surface)
    spacing_3d = (*spacing_mm[:axis], 4.0, *spacing_mm[axis:])
    volume = score_masks(
        np.expand_dims(plane_a, axis), np.expand_dims(plane_b, axis), spacing_3d, surface=surface
    )
    for name in (*DISTANCES, "nsd", "dice", "accuracy", "touches_border"):
        assert getattr(volume, name) == getattr(plane, name), name
    assert volume.reference_ml == pytest.approx(plane_a.sum() * 0.7 * 1.9 * 4.0 / 1000)


@pytest.mark.parametrize("surface", SURFACES)
def test_masks_that_fill_the_grid(surface: Surface) -> None:
    full = np.ones((4, 5, 6), dtype=bool)
    score = score_masks(full, full, (1.0, 2.0, 3.0), surface=surface)
    assert (score.dice, score.hd_mm, score.nsd[1.0]) == (1.0, 0.0, 1.0)
    assert math.isnan(score.specificity)  # there is no background to leave alone
    assert score.touches_border


def test_touching_the_border_is_flagged_for_either_mask() -> None:
    inside = mask_of((5, 6, 7), (2, 2, 2))
    assert not score_masks(inside, inside, (1.0,) * 3).touches_border
    for edge in ((0, 2, 2), (2, 5, 2), (2, 2, 6)):
        touching = mask_of((5, 6, 7), edge)
        assert score_masks(inside, touching, (1.0,) * 3).touches_border
        assert score_masks(touching, np.zeros_like(inside), (1.0,) * 3).touches_border


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    "box",
    [
        (slice(2, 5), slice(3, 7), slice(1, 9)),  # just what the masks hold
        (slice(1, 6), slice(0, 8), slice(1, 9)),
        (slice(0, 7), slice(3, 7), slice(0, 10)),
    ],
)
def test_a_cut_is_scored_as_its_grid(box: tuple[slice, ...], surface: Surface) -> None:
    reference, prediction = np.zeros((2, 7, 8, 10), dtype=bool)
    reference[2:5, 3:7, 1:9] = np.random.default_rng(1).random((3, 4, 8)) > 0.3
    prediction[2:5, 3:7, 1:9] = np.random.default_rng(2).random((3, 4, 8)) > 0.3
    spacing_mm = (3.0, 1.0, 0.7)
    crop = Crop(tuple(side.start for side in box), reference.shape)
    whole = score_masks(reference, prediction, spacing_mm, surface=surface)
    assert score_masks(reference[box], prediction[box], spacing_mm, surface=surface, crop=crop) == whole
    assert not whole.touches_border
    # Voxels that count for nothing are taken from the background.
    fewer = score_masks(
        reference[box], prediction[box], spacing_mm, surface=surface, crop=Crop(crop.start, crop.shape, 40)
    )
    assert fewer.tn == whole.tn - 40
    assert fewer.specificity == (whole.tn - 40) / (whole.tn - 40 + whole.fp)
    assert fewer.assd_mm == whole.assd_mm


def test_a_cut_of_one_slice_is_scored_as_its_grid() -> None:
    # A volume's only slice that holds anything is a surface above and below; a volume of one slice is not.
    reference, prediction = np.zeros((2, 4, 9, 8), dtype=bool)
    reference[2, 1:6, 1:6] = prediction[2, 2:7, 1:7] = True
    spacing_mm = (5.0, 1.0, 2.0)
    inside, pair = (slice(2, 3), slice(0, 9), slice(1, 8)), (reference, prediction)
    cut = [mask[inside] for mask in pair]
    whole = score_masks(*pair, spacing_mm)
    assert score_masks(*cut, spacing_mm, crop=Crop((2, 0, 1), (4, 9, 8))) == whole
    alone = score_masks(reference[2:3], prediction[2:3], spacing_mm)
    assert alone.assd_mm != pytest.approx(whole.assd_mm)
    assert asdict(score_masks(*cut, spacing_mm, crop=Crop((0, 0, 1), (1, 9, 8)))) == asdict(alone)


def test_a_cut_touches_the_border_of_its_grid_alone() -> None:
    mask = np.ones((2, 2, 2), dtype=bool)
    for start, touches in (((1, 1, 1), False), ((0, 1, 1), True), ((1, 1, 3), True)):
        assert score_masks(mask, mask, (1.0,) * 3, crop=Crop(start, (4, 5, 5))).touches_border is touches


def test_inputs_are_not_changed() -> None:
    rng = np.random.default_rng(0)
    reference, prediction = rng.random((2, 6, 7, 8)) > 0.5
    copies = reference.copy(), prediction.copy()
    score_masks(reference, prediction, (1.0, 2.0, 3.0))
    assert np.array_equal(reference, copies[0])
    assert np.array_equal(prediction, copies[1])


def test_what_cannot_be_scored_is_refused_all_at_once() -> None:
    mask = np.zeros((3, 4, 5), dtype=bool)
    with pytest.raises(InputError, match=r"boolean.*differ"):
        score_masks(mask, np.zeros((3, 4, 6), dtype=np.uint8), (1.0,) * 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"3 axes need as many spacings.*positive"):
        score_masks(mask, mask, (1.0, 0.0))
    with pytest.raises(
        InputError, match=r"surface 'mesh'.*'area' or 'voxel'.*hd95 'mean'.*percentile.*0.*tolerances.*-1"
    ):
        score_masks(
            mask,
            mask,
            (1.0,) * 3,
            surface="mesh",  # type: ignore[arg-type]
            hd95="mean",  # type: ignore[arg-type]
            percentile=0,
            tolerances_mm=(-1.0,),
        )

"""Scores of two masks: by hand, empty masks, degenerate grids, options."""

import math

import numpy as np
import pytest

from medunet.errors import InputError
from medunet.scoring.masks import score_masks
from medunet.scoring.surface import find_surface

DISTANCES = ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")


def mask_of(shape: tuple[int, ...], *boxes: tuple[slice | int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask


def test_two_pixels_by_hand() -> None:
    # reference  # # .     prediction  # . #     spacing (2, 1) mm, one row
    reference = mask_of((3, 5), (1, slice(1, 3)))
    prediction = mask_of((3, 5), (1, 1), (1, 3))
    score = score_masks(reference, prediction, (2.0, 1.0), tolerances_mm=(0.5, 1.0))
    assert (score.tp, score.fp, score.fn, score.tn) == (1, 1, 1, 12)
    assert score.dice == score.f1 == score.precision == score.recall == 0.5
    assert score.iou == pytest.approx(1 / 3)
    assert score.specificity == pytest.approx(12 / 13)
    assert score.accuracy == pytest.approx(13 / 15)
    assert score.hd_mm == 1.0  # reference's second pixel is 1 mm from either; so is prediction's second
    assert score.assd_mm == score.masd_mm == 0.5
    assert score.nsd == {0.5: 0.5, 1.0: 1.0}
    assert math.isnan(score.reference_ml)  # a plane has no volume


def test_two_voxels_along_each_axis() -> None:
    for axis, step_mm in enumerate((2.0, 1.0, 5.0)):
        index = [2, 2, 2]
        reference = mask_of((5, 6, 7), tuple(index))
        index[axis] += 1
        score = score_masks(reference, mask_of((5, 6, 7), tuple(index)), (2.0, 1.0, 5.0))
        assert score.status == "ok"
        assert [getattr(score, name) for name in DISTANCES] == [step_mm] * 4
        assert score.reference_ml == pytest.approx(0.01)


def test_directed_and_pooled_percentiles_differ() -> None:
    # Reference: one voxel. Prediction: that voxel and another 10 mm away.
    reference = mask_of((3, 3, 12), (1, 1, 1))
    prediction = reference | mask_of((3, 3, 12), (1, 1, 11))
    largest = score_masks(reference, prediction, (1.0, 1.0, 1.0))
    pooled = score_masks(reference, prediction, (1.0, 1.0, 1.0), hd95="pooled")
    assert largest.hd_mm == pooled.hd_mm == 10.0
    assert largest.hd95_mm == pytest.approx(9.5)  # percentile 95 of [0, 10], the other direction is [0]
    assert pooled.hd95_mm == pytest.approx(9.0)  # of [0, 0, 10]
    assert largest.assd_mm == pytest.approx(10 / 3)  # pooled over three voxels
    assert largest.masd_mm == pytest.approx(2.5)  # mean of 0 and 5
    assert score_masks(reference, prediction, (1.0,) * 3, percentile=50).hd95_mm == pytest.approx(5.0)


def test_surface_is_what_a_six_connected_erosion_removes() -> None:
    cube = mask_of((5, 5, 5), (slice(0, 3), slice(1, 4), slice(1, 4)))
    surface = find_surface(cube)
    assert surface.sum() == 26  # all but the centre; the face on the grid's edge is surface too
    assert not surface[1, 2, 2]
    assert surface[0, 2, 2]


def test_tolerance_holds_a_shift_of_one_float32_voxel() -> None:
    reference = mask_of((4, 4, 8), (slice(1, 3), slice(1, 3), 2))
    prediction = np.roll(reference, 1, axis=2)
    spacing_mm = float(np.float32(0.1)) * 10  # 1.0000000149
    assert spacing_mm > 1.0
    assert score_masks(reference, prediction, (1.0, 1.0, spacing_mm)).nsd[1.0] == 1.0


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 4), (6, 9, 1)])
@pytest.mark.parametrize("status", ["both_empty", "missed", "false_positive"])
def test_empty_masks(shape: tuple[int, ...], status: str) -> None:
    empty = np.zeros(shape, dtype=bool)
    full = mask_of(shape, (slice(2, 4), slice(3, 6), slice(1, 3) if shape[-1] == 4 else ...))
    pair = {"both_empty": (empty, empty), "missed": (full, empty), "false_positive": (empty, full)}[status]
    score = score_masks(*pair, (1.0, 2.0, 3.0)[: len(shape)])
    undefined = {
        "both_empty": {"dice", "iou", "f1", "precision", "recall"},
        "missed": {"precision"},
        "false_positive": {"recall"},
    }[status]
    assert score.status == status
    for name in ("dice", "iou", "f1", "precision", "recall"):
        value = getattr(score, name)
        assert math.isnan(value) if name in undefined else value == 0.0, name
    for name in DISTANCES:
        value = getattr(score, name)
        assert math.isnan(value) if status == "both_empty" else value == math.inf, name
    for value in score.nsd.values():
        assert math.isnan(value) if status == "both_empty" else value == 0.0
    assert 0 < score.accuracy <= 1
    assert 0 < score.specificity <= 1
    assert not score.touches_border
    if len(shape) == 3:
        voxel_ml, num_voxels = 0.006, int(full.sum())
        assert score.reference_ml == pytest.approx(voxel_ml * num_voxels * (status == "missed"))
        assert score.predicted_ml == pytest.approx(voxel_ml * num_voxels * (status == "false_positive"))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_scored_in_its_plane(axis: int) -> None:
    rng = np.random.default_rng(axis)
    plane_a, plane_b = rng.random((2, 11, 14)) > 0.4
    spacing_mm = (0.7, 1.9)
    plane = score_masks(plane_a, plane_b, spacing_mm)
    spacing_3d = (*spacing_mm[:axis], 4.0, *spacing_mm[axis:])
    volume = score_masks(np.expand_dims(plane_a, axis), np.expand_dims(plane_b, axis), spacing_3d)
    for name in (*DISTANCES, "nsd", "dice", "accuracy", "touches_border"):
        assert getattr(volume, name) == getattr(plane, name), name
    assert volume.reference_ml == pytest.approx(plane_a.sum() * 0.7 * 1.9 * 4.0 / 1000)


def test_masks_that_fill_the_grid() -> None:
    full = np.ones((4, 5, 6), dtype=bool)
    score = score_masks(full, full, (1.0, 2.0, 3.0))
    assert (score.dice, score.hd_mm, score.nsd[1.0]) == (1.0, 0.0, 1.0)
    assert math.isnan(score.specificity)  # there is no background to leave alone
    assert score.touches_border


def test_invariance_to_padding_flips_axes_order_and_memory_layout() -> None:
    rng = np.random.default_rng(3)
    reference, prediction = rng.random((2, 7, 9, 5)) > 0.6
    spacing_mm = (1.0, 0.5, 2.5)
    want = score_masks(reference, prediction, spacing_mm)
    same = {
        "padded": (np.pad(reference, 4), np.pad(prediction, 4), spacing_mm),
        "flipped": (reference[::-1, :, ::-1], prediction[::-1, :, ::-1], spacing_mm),
        "permuted": (reference.transpose(2, 0, 1), prediction.transpose(2, 0, 1), (2.5, 1.0, 0.5)),
        "fortran": (np.asfortranarray(reference), np.asfortranarray(prediction), spacing_mm),
    }
    for name, arguments in same.items():
        got = score_masks(*arguments)
        for metric in (*DISTANCES, "dice", "recall"):
            assert getattr(got, metric) == pytest.approx(getattr(want, metric), abs=1e-12), (name, metric)
        assert got.nsd == want.nsd
    swapped = score_masks(prediction, reference, spacing_mm)
    assert (swapped.precision, swapped.recall) == (want.recall, want.precision)
    assert swapped.hd95_mm == want.hd95_mm
    doubled = score_masks(reference, prediction, (2.0, 1.0, 5.0), tolerances_mm=(2.0, 4.0))
    assert doubled.assd_mm == pytest.approx(2 * want.assd_mm)
    assert list(doubled.nsd.values()) == list(want.nsd.values())


def test_touching_the_border_is_flagged_for_either_mask() -> None:
    inside = mask_of((5, 6, 7), (2, 2, 2))
    assert not score_masks(inside, inside, (1.0,) * 3).touches_border
    for edge in ((0, 2, 2), (2, 5, 2), (2, 2, 6)):
        touching = mask_of((5, 6, 7), edge)
        assert score_masks(inside, touching, (1.0,) * 3).touches_border
        assert score_masks(touching, np.zeros_like(inside), (1.0,) * 3).touches_border


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
    with pytest.raises(InputError, match=r"'area' is not available: choose 'voxel'.*percentile.*tolerances"):
        score_masks(mask, mask, (1.0,) * 3, surface="area", percentile=0, tolerances_mm=(-1.0,))

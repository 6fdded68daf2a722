"""The steps by their names in the configuration: which function each is, and names that are refused."""

from typing import Any

import numpy as np
import pytest

from medunet.base.errors import InputError
from medunet.postprocessing.holes import fill_holes
from medunet.postprocessing.morphology import close_mask, dilate, erode, open_mask
from medunet.postprocessing.smoothing import smooth_gaussian, smooth_median
from medunet.postprocessing.steps import apply_step, check_steps, keep_touching
from medunet.records.config import PostprocessStep

SPACING_MM = (1.0, 2.0, 5.0)  # a voxel is 0.01 ml
TARGETS = {"liver": (1, 2), "tumour": (2,)}


@pytest.fixture
def mask() -> np.ndarray:
    return np.random.default_rng(0).random((14, 11, 8)) < 0.7


@pytest.mark.parametrize(
    ("key", "operation"),
    [
        ("opening_mm", open_mask),
        ("closing_mm", close_mask),
        ("dilation_mm", dilate),
        ("erosion_mm", erode),
        ("median_mm", smooth_median),
        ("gaussian_mm", smooth_gaussian),
    ],
)
def test_steps_by_size(key: str, operation: Any, mask: np.ndarray) -> None:
    before = mask.copy()
    got = apply_step(mask, PostprocessStep(**{key: 2.2}), SPACING_MM)
    assert np.array_equal(got, operation(mask, 2.2, SPACING_MM))
    assert not np.array_equal(got, mask)
    assert np.array_equal(mask, before)


def test_every_step_of_the_configuration_but_inside_is_known(mask: np.ndarray) -> None:
    for key in set(PostprocessStep.model_fields) - {"inside"}:
        value = True if key in ("keep_largest", "fill_holes") else 1.0
        for each in (mask, np.zeros_like(mask)):
            got = apply_step(each, PostprocessStep.model_validate({key: value}), SPACING_MM)
            assert (got.dtype, got.shape) == (bool, each.shape)
        assert not got.any(), f"{key} fills an empty mask"


def test_holes_and_pieces() -> None:
    mask = np.zeros((12, 9, 7), dtype=bool)
    mask[1:6, 1:5, 1:5] = True  # 80 voxels, less a hole
    mask[3, 3, 3] = False
    mask[8:10, 6:8, 5] = True  # 4 voxels, on their own
    largest = apply_step(mask, PostprocessStep(keep_largest=True), SPACING_MM)
    assert largest.sum() == 79
    assert not largest[8:].any()
    assert np.array_equal(apply_step(mask, PostprocessStep(fill_holes=True), SPACING_MM), fill_holes(mask))
    assert apply_step(mask, PostprocessStep(min_volume_ml=0.04), SPACING_MM).sum() == 83
    assert apply_step(mask, PostprocessStep(min_volume_ml=0.041), SPACING_MM).sum() == 79
    rounded = tuple(
        float(np.float32(step)) for step in (0.1, 0.7, 2.3)
    )  # above: 4 voxels have less than 4 × 0.161 µl
    exact_ml = 4 * 0.1 * 0.7 * 2.3 / 1000
    assert apply_step(mask, PostprocessStep(min_volume_ml=exact_ml), rounded).sum() == 83


def test_touching_pieces_by_faces_edges_and_corners() -> None:
    mask, other = np.zeros((2, 9, 6, 5), dtype=bool)
    other[4, 3, 2] = True
    mask[5, 4, 3] = mask[6, 5, 3] = True  # a corner, and what hangs on it
    mask[3, 3, 2] = True  # a face
    mask[4, 1, 2] = mask[0, 0, 0] = True  # two voxels off, and far away
    kept = keep_touching(mask, other)
    assert sorted(map(tuple, np.argwhere(kept))) == [(3, 3, 2), (5, 4, 3), (6, 5, 3)]
    assert not keep_touching(mask, np.zeros_like(mask)).any()


def test_all_wrong_names_are_told_at_once() -> None:
    steps = {
        "livr": (PostprocessStep(keep_largest=True),),
        "tumour": (PostprocessStep(closing_mm=2), PostprocessStep(inside="lung")),
        "liver": (PostprocessStep(inside="liver"),),
    }
    message = (
        "inference.postprocess: there is no target 'livr'; tumour, step 2: inside: there is no target 'lung'; "
        "liver, step 1: inside: a target cannot be inside itself. Choose from ['liver', 'tumour']."
    )
    with pytest.raises(InputError) as caught:
        check_steps(steps, TARGETS)
    assert str(caught.value) == message
    check_steps({"tumour": (PostprocessStep(inside="liver"),)}, TARGETS)

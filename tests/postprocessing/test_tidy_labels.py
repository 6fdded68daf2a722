"""Label maps tidied target by target: exclusive labels, nested regions, what grows and what gives way."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from medunet.base.errors import InputError
from medunet.postprocessing.tidy import tidy_labels
from medunet.records.config import PostprocessStep

SPACING_MM = (1.0, 2.0, 5.0)  # a voxel is 0.01 ml
LARGEST = (PostprocessStep(keep_largest=True),)

EXCLUSIVE = {"anterior": (1,), "posterior": (2,)}
NESTED = {"liver": (1, 2), "tumour": (2,)}
VALUES = {"liver": 1, "tumour": 2}
APART = {"anterior": 1, "posterior": 2}


def steps(**keys: Any) -> tuple[PostprocessStep, ...]:
    """One step for each key, in their order."""
    return tuple(PostprocessStep.model_validate({key: value}) for key, value in keys.items())


@pytest.fixture
def liver() -> np.ndarray:
    """A liver with a large and a small tumour, and a stray liver piece with the largest tumour of all."""
    labels = np.zeros((14, 9, 8), dtype=np.uint8)
    labels[1:8, 1:7, 1:7] = 1
    labels[2:4, 2:4, 2:4] = 2  # 8 voxels
    labels[6, 5, 5] = 2  # 1 voxel
    labels[10:13, 1:4, 1:4] = 1
    labels[10:13, 1:4, 1:3] = 2  # 18 voxels
    return labels


def test_no_rule_changes_nothing(liver: np.ndarray) -> None:
    tidied = tidy_labels(liver, NESTED, VALUES, {}, SPACING_MM)
    assert np.array_equal(tidied, liver)
    assert tidied is not liver
    assert tidied.dtype == np.uint8


def test_brats_regions_are_repainted_as_they_were() -> None:
    labels = np.random.default_rng(0).choice(np.array([0, 1, 2, 4], dtype=np.uint8), size=(5, 6, 7))
    targets = {"WT": (2, 1, 4), "TC": (1, 4), "ET": (4,)}
    assert np.array_equal(tidy_labels(labels, targets, {"WT": 2, "TC": 1, "ET": 4}, {}, SPACING_MM), labels)


def test_exclusive_pieces_become_background() -> None:
    labels = np.zeros((8, 5, 4), dtype=np.uint8)
    labels[0:3, 1:3, 1] = 1
    labels[3:5, 1:3, 1] = 2
    labels[7, 4, 3] = 1
    labels[7, 0, 0] = 2
    want = labels.copy()
    want[7, 4, 3] = 0
    assert np.array_equal(tidy_labels(labels, EXCLUSIVE, APART, {"anterior": LARGEST}, SPACING_MM), want)
    want[7, 0, 0] = 0
    rules = {"anterior": LARGEST, "posterior": LARGEST}
    assert np.array_equal(tidy_labels(labels, EXCLUSIVE, APART, rules, SPACING_MM), want)


def test_a_removed_tumour_piece_becomes_liver(liver: np.ndarray) -> None:
    rules = {"tumour": (PostprocessStep(min_volume_ml=0.08),)}  # 8 voxels stay, 1 goes
    want = liver.copy()
    want[6, 5, 5] = 1
    assert np.array_equal(tidy_labels(liver, NESTED, VALUES, rules, SPACING_MM), want)
    more = {"tumour": (PostprocessStep(min_volume_ml=0.081),)}
    want[2:4, 2:4, 2:4] = 1
    assert np.array_equal(tidy_labels(liver, NESTED, VALUES, more, SPACING_MM), want)


def test_a_removed_liver_piece_takes_its_tumour_along(liver: np.ndarray) -> None:
    before = liver.copy()
    want = liver.copy()
    want[10:13] = 0
    assert np.array_equal(tidy_labels(liver, NESTED, VALUES, {"liver": LARGEST}, SPACING_MM), want)
    # The largest tumour is then sought within the liver that stays.
    want[6, 5, 5] = 1
    rules = {"liver": LARGEST, "tumour": LARGEST}
    assert np.array_equal(tidy_labels(liver, NESTED, VALUES, rules, SPACING_MM), want)
    assert np.array_equal(liver, before)


def test_a_tumour_does_not_split_its_liver() -> None:
    # liver - tumour - liver in a row: one liver with a tumour in its middle, not two pieces
    labels = np.zeros((9, 3, 3), dtype=np.uint8)
    labels[1:8, 1, 1] = (1, 1, 1, 2, 2, 1, 1)
    assert np.array_equal(tidy_labels(labels, NESTED, VALUES, {"liver": LARGEST}, SPACING_MM), labels)


def test_a_rule_for_an_unknown_target_is_refused(liver: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"'spleen'.*Choose from \['liver', 'tumour'\]"):
        tidy_labels(liver, NESTED, VALUES, {"spleen": LARGEST}, SPACING_MM)


def test_steps_are_done_in_their_order() -> None:
    # a 7 mm bar, a gap of 2 mm, a 3 mm bar: joined first, both stay
    labels = np.zeros((20, 6, 3), dtype=np.uint8)
    labels[1:8, 2:5, 1] = labels[10:13, 2:5, 1] = 1
    both = tidy_labels(
        labels, EXCLUSIVE, APART, {"anterior": steps(closing_mm=2, keep_largest=True)}, SPACING_MM
    )
    one = tidy_labels(
        labels, EXCLUSIVE, APART, {"anterior": steps(keep_largest=True, closing_mm=2)}, SPACING_MM
    )
    assert both[8:13, 3, 1].all()
    assert one[:8].sum() == 21
    assert not one[8:].any()


def test_what_grows_leaves_other_targets_alone_and_the_first_painted_takes_the_gap() -> None:
    labels = np.zeros((16, 5, 3), dtype=np.uint8)
    labels[2:4, 2, 1] = 1
    labels[4:6, 2, 1] = 2  # touching
    labels[8:10, 2, 1] = 1  # three voxels off
    rules = {"posterior": steps(dilation_mm=2), "anterior": steps(dilation_mm=2)}
    got = tidy_labels(labels, EXCLUSIVE, APART, rules, SPACING_MM)
    assert got[:, 2, 1].tolist() == [1, 1, 1, 1, 2, 2, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    swapped = tidy_labels(labels, EXCLUSIVE, dict(reversed(APART.items())), rules, SPACING_MM)
    assert swapped[:, 2, 1].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0]


def test_a_target_grows_into_what_one_before_it_left() -> None:
    labels = np.zeros((9, 7, 5), dtype=np.uint8)
    labels[1:8, 1:6, 1:4] = 2
    labels[4, 3, 2] = 1  # stray, within the other
    rules = {"anterior": steps(min_volume_ml=0.02), "posterior": steps(fill_holes=True)}
    got = tidy_labels(labels, EXCLUSIVE, APART, rules, SPACING_MM)
    assert got[4, 3, 2] == 2
    assert (
        tidy_labels(labels, EXCLUSIVE, APART, {"posterior": steps(fill_holes=True)}, SPACING_MM)[4, 3, 2] == 1
    )


def test_an_inner_region_grows_within_the_outer_one_and_the_outer_one_around_it(liver: np.ndarray) -> None:
    got = tidy_labels(liver, NESTED, VALUES, {"tumour": steps(dilation_mm=3)}, SPACING_MM)
    near = ndimage.distance_transform_edt(liver != 2, sampling=SPACING_MM) <= 3
    assert np.array_equal(got, np.where((liver == 1) & near, 2, liver))
    assert np.array_equal(got > 0, liver > 0)
    got = tidy_labels(liver, NESTED, VALUES, {"liver": steps(dilation_mm=3)}, SPACING_MM)
    assert np.array_equal(got == 2, liver == 2)
    assert np.array_equal(got > 0, ndimage.distance_transform_edt(liver == 0, sampling=SPACING_MM) <= 3)
    assert got.dtype == np.uint8


def test_an_eroded_liver_takes_its_tumour_along_and_an_eroded_tumour_becomes_liver(liver: np.ndarray) -> None:
    deep = ndimage.distance_transform_edt(liver, sampling=SPACING_MM) > 2
    got = tidy_labels(liver, NESTED, VALUES, {"liver": steps(erosion_mm=2)}, SPACING_MM)
    assert np.array_equal(got, liver * deep)
    deep = ndimage.distance_transform_edt(liver == 2, sampling=SPACING_MM) > 1
    got = tidy_labels(liver, NESTED, VALUES, {"tumour": steps(erosion_mm=1)}, SPACING_MM)
    assert np.array_equal(got, np.where(deep, 2, liver > 0))


def test_regions_side_by_side_within_another_do_not_take_from_each_other() -> None:
    targets = {"liver": (1, 2, 3), "tumour": (2,), "vessel": (3,)}
    labels = np.zeros((9, 5, 3), dtype=np.uint8)
    labels[1:8, 2, 1] = (1, 2, 3, 1, 1, 1, 1)
    values = {"liver": 1, "tumour": 2, "vessel": 3}
    got = tidy_labels(labels, targets, values, {"tumour": steps(dilation_mm=2)}, SPACING_MM)
    assert got[:, 2, 1].tolist() == [0, 2, 2, 3, 2, 1, 1, 1, 0]


def test_inside_keeps_touching_pieces_of_exclusive_labels(liver: np.ndarray) -> None:
    liver[12, 7, 7] = 2  # far from any liver
    got = tidy_labels(
        liver, {"liver": (1,), "tumour": (2,)}, VALUES, {"tumour": steps(inside="liver")}, SPACING_MM
    )
    want = liver.copy()
    want[12, 7, 7] = 0
    assert np.array_equal(got, want)


def test_inside_follows_what_became_of_the_other_target(liver: np.ndarray) -> None:
    # With its liver piece gone, the tumour in it is outside; nested regions need no rule for that.
    rules = {"liver": LARGEST, "tumour": steps(inside="liver")}
    got = tidy_labels(liver, {"liver": (1,), "tumour": (2,)}, VALUES, rules, SPACING_MM)
    assert not got[10:].any()
    assert np.array_equal(got[:10], liver[:10])


def test_inside_cuts_overlapping_regions_voxel_by_voxel() -> None:
    labels = np.random.default_rng(1).integers(0, 4, (6, 5, 4)).astype(np.uint8)
    targets = {"a": (1, 3), "b": (2, 3), "both": (3,)}
    values = {"a": 1, "b": 2, "both": 3}
    got = tidy_labels(labels, targets, values, {"b": steps(inside="a")}, SPACING_MM)
    assert np.array_equal(got, np.where(labels == 2, 0, labels))


def test_a_small_mask_anywhere_is_tidied_as_if_the_volume_were_small() -> None:
    rng = np.random.default_rng(2)
    small = np.pad((ndimage.gaussian_filter(rng.normal(size=(12, 9, 6)), 1) > 0).astype(np.uint8), 4)
    rules = {"anterior": (*steps(closing_mm=3, dilation_mm=2, median_mm=3), *steps(dilation_mm=2))}
    large = np.zeros((50, 40, 30), dtype=np.uint8)
    large[20:40, 7:24, 9:23] = small
    got = tidy_labels(large, EXCLUSIVE, APART, rules, SPACING_MM)
    assert np.array_equal(got[20:40, 7:24, 9:23], tidy_labels(small, EXCLUSIVE, APART, rules, SPACING_MM))


def test_a_single_slice_and_an_empty_map() -> None:
    flat = np.zeros((12, 9, 1), dtype=np.uint8)
    flat[2:9, 2:8] = 1
    flat[4:6, 4:6] = 0
    got = tidy_labels(flat, EXCLUSIVE, APART, {"anterior": steps(fill_holes=True, erosion_mm=2)}, SPACING_MM)
    assert got.shape == flat.shape
    assert got.sum() == 3 * 4
    empty = np.zeros((5, 4, 3), dtype=np.uint8)
    assert not tidy_labels(empty, EXCLUSIVE, APART, {"anterior": steps(dilation_mm=9)}, SPACING_MM).any()

"""Stray pieces of label maps: exclusive labels, nested regions, rules."""

import numpy as np
import pytest

from medunet.config import PostprocessConfig
from medunet.errors import InputError
from medunet.postprocessing.components import tidy_labels

SPACING_MM = (1.0, 2.0, 5.0)  # a voxel is 0.01 ml
LARGEST = PostprocessConfig(keep_largest=True)

EXCLUSIVE = {"anterior": (1,), "posterior": (2,)}
NESTED = {"liver": (1, 2), "tumour": (2,)}
VALUES = {"liver": 1, "tumour": 2}


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
    values = {"anterior": 1, "posterior": 2}
    want = labels.copy()
    want[7, 4, 3] = 0
    assert np.array_equal(tidy_labels(labels, EXCLUSIVE, values, {"anterior": LARGEST}, SPACING_MM), want)
    want[7, 0, 0] = 0
    rules = {"anterior": LARGEST, "posterior": LARGEST}
    assert np.array_equal(tidy_labels(labels, EXCLUSIVE, values, rules, SPACING_MM), want)


def test_a_removed_tumour_piece_becomes_liver(liver: np.ndarray) -> None:
    rules = {"tumour": PostprocessConfig(min_volume_ml=0.08)}  # 8 voxels stay, 1 goes
    want = liver.copy()
    want[6, 5, 5] = 1
    assert np.array_equal(tidy_labels(liver, NESTED, VALUES, rules, SPACING_MM), want)
    more = {"tumour": PostprocessConfig(min_volume_ml=0.081)}
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
    with pytest.raises(InputError, match=r"\['spleen'\].*Choose from \['liver', 'tumour'\]"):
        tidy_labels(liver, NESTED, VALUES, {"spleen": LARGEST}, SPACING_MM)

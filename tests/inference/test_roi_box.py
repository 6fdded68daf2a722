"""Boxes around labels, checked against the voxels that they hold."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import affine_of

from medunet.inference.roi_box import Box, Face, count_voxels, find_box, name_faces

WHOLE = Box((0, 0, 0), (20, 30, 9))
SPACING_MM = (1.0, 0.7, 5.0)


@given(st.integers(0, 10_000), st.sampled_from(["C", "F"]))
def test_a_box_is_the_range_of_the_wanted_voxels(seed: int, order):
    rng = np.random.default_rng(seed)
    labels = np.zeros((7, 5, 6), np.uint8, order=order)
    count = int(rng.integers(0, 6))
    labels[rng.integers(0, 7, count), rng.integers(0, 5, count), rng.integers(0, 6, count)] = rng.integers(
        1, 4, count
    )
    wanted = np.argwhere((labels == 1) | (labels == 3))
    found = find_box(labels, (1, 3))
    if not len(wanted):
        assert found is None
        return
    assert found is not None
    assert found.starts == tuple(wanted.min(0))
    assert found.stops == tuple(wanted.max(0) + 1)


def test_a_margin_is_rounded_up_to_voxels_and_ends_with_the_scan():
    assert count_voxels(2.1, SPACING_MM) == [3, 3, 1]
    assert count_voxels(0.7 * 3, (0.7, 0.7, 0.7)) == [3, 3, 3]  # 2.0999999999999996
    assert count_voxels(0, SPACING_MM) == [0, 0, 0]
    box = Box((10, 1, 4), (12, 5, 9))
    assert box.enlarge(2.1, SPACING_MM, WHOLE) == Box((7, 0, 3), (15, 8, 9))
    assert box.enlarge(0, SPACING_MM, WHOLE) == box
    assert box.enlarge(1000, SPACING_MM, WHOLE) == WHOLE


def test_a_box_that_lies_outside_keeps_the_nearest_voxels():
    bounds = Box((5, 5, 2), (9, 9, 4))
    assert Box((0, 7, 0), (2, 8, 9)).clip(bounds) == Box((5, 7, 2), (6, 8, 4))
    assert Box((15, 0, 0), (18, 30, 1)).clip(bounds) == Box((8, 5, 2), (9, 9, 3))


def test_a_box_grows_beyond_the_given_faces_alone():
    box = Box((10, 10, 4), (12, 12, 6))
    faces = [Face(0, False), Face(1, True), Face(2, False), Face(2, True)]
    assert box.grow(faces, (3, 4, 5), WHOLE) == Box((7, 10, 0), (12, 16, 9))
    assert box.grow([], (3, 4, 5), WHOLE) == box


@pytest.mark.parametrize(("axis", "is_high"), product(range(3), [False, True]))
def test_labels_touch_a_face(axis: int, is_high: bool):
    box = Box((4, 5, 2), (9, 13, 6))
    labels = np.zeros(box.shape, np.uint8)
    labels[2, 3, 1] = 1
    assert box.reached(labels, WHOLE) == []
    at = [2, 3, 1]
    at[axis] = box.shape[axis] - 1 if is_high else 0
    labels[tuple(at)] = 2
    assert box.reached(labels, WHOLE) == [Face(axis, is_high)]
    ends = [list(span) for span in WHOLE.spans]
    ends[axis][is_high] = box.spans[axis][is_high]  # the face is now one of the scan
    assert box.reached(labels, Box.of((low, high) for low, high in ends)) == []


def test_labels_that_fill_a_box_touch_all_faces():
    box = Box((4, 5, 2), (9, 13, 6))
    assert len(box.reached(np.ones(box.shape, np.uint8), WHOLE)) == 6


def test_faces_have_the_names_of_the_patients_sides():
    faces = [Face(0, True), Face(1, False), Face(2, True)]
    assert name_faces(faces, affine_of("RAS", (1, 2, 3))) == "right, posterior, superior"
    assert name_faces(faces, affine_of("LPS", (1, 2, 3), 12)) == "left, anterior, superior"
    assert name_faces(faces, affine_of("IRP", (1, 2, 3))) == "inferior, left, posterior"

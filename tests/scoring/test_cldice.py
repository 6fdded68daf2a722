"""clDice of tubes whose centrelines are known."""

import math

import numpy as np
import pytest

from medunet.scoring.cldice import compute_cldice

pytest.importorskip("skimage")


def tube(length: int, radius: int = 1, shape: tuple[int, int, int] = (9, 11, 60)) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[4 - radius : 5 + radius, 5 - radius : 6 + radius, 5 : 5 + length] = True
    return mask


def test_equal_tubes_and_thicker_tubes_are_followed() -> None:
    assert compute_cldice(tube(50), tube(50)) == 1.0
    # Twice as thick is a Dice of 0.53, but either centreline lies within the other tube.
    assert compute_cldice(tube(50), tube(50, radius=2)) > 0.97


def test_a_gap_costs_its_share_of_the_centreline() -> None:
    # 10 of the reference's 50 voxels of centreline are not covered; all that is predicted is right: 2·0.8/1.8.
    broken = tube(50)
    broken[:, :, 25:35] = False
    assert compute_cldice(tube(50), broken) == pytest.approx(2 * 0.8 / 1.8, abs=0.03)


def test_empty_masks() -> None:
    empty = np.zeros((9, 11, 60), dtype=bool)
    assert math.isnan(compute_cldice(empty, empty))
    assert compute_cldice(tube(50), empty) == compute_cldice(empty, tube(50)) == 0.0


def test_two_dimensions_and_edges() -> None:
    plane = np.zeros((7, 40), dtype=bool)
    plane[2:5] = True  # from edge to edge
    assert compute_cldice(plane, plane) == 1.0


def test_a_single_slice_is_thinned_in_its_plane() -> None:
    reference, prediction = (np.zeros((12, 40), dtype=bool) for _ in range(2))
    reference[3:8, 2:38], prediction[4:10, 5:30] = True, True
    want = compute_cldice(reference, prediction)
    assert 0 < want < 1
    assert compute_cldice(reference[:, None], prediction[:, None]) == want


def test_a_dot_is_its_own_centreline() -> None:
    # Thinning may take all of 2×2 pixels.
    dot = np.zeros((6, 7), dtype=bool)
    dot[2:4, 3:5] = True
    assert compute_cldice(dot, dot) == 1.0

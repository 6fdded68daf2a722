"""Filled holes: against SimpleITK, and where a hollow is no hole."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from medunet.postprocessing.holes import fill_holes


@pytest.fixture
def shell() -> np.ndarray:
    """A box around a hollow of 3 × 2 × 1 voxels."""
    mask = np.zeros((9, 8, 7), dtype=bool)
    mask[2:7, 2:6, 2:5] = True
    mask[3:6, 3:5, 3] = False
    return mask


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.5, 0.6, 0.7, 0.8])
def test_equals_simpleitk(seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((11, 9, 8)) < share
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    assert np.array_equal(fill_holes(mask), sitk.GetArrayFromImage(sitk.BinaryFillhole(image)).astype(bool))


def test_hollows_shut_in_by_faces_are_filled(shell: np.ndarray) -> None:
    before = shell.copy()
    solid = np.zeros_like(shell)
    solid[2:7, 2:6, 2:5] = True
    assert np.array_equal(fill_holes(shell), solid)
    edge_open = shell.copy()
    edge_open[2, 2, 3] = edge_open[2, 3, 2] = False  # the way in leads over an edge
    assert fill_holes(edge_open)[3:6, 3:5, 3].all()
    assert np.array_equal(shell, before)


def test_hollows_open_to_the_outside_stay(shell: np.ndarray) -> None:
    tunnel = shell.copy()
    tunnel[4, 4, :4] = False
    assert np.array_equal(fill_holes(tunnel), tunnel)
    cut = shell[:, :, 3:]  # the border cuts the hollow
    assert np.array_equal(fill_holes(cut), cut)


def test_rings_are_filled_in_a_single_slice_alone(shell: np.ndarray) -> None:
    ring = shell[:, :, 3:4]
    assert np.array_equal(fill_holes(ring)[:, :, 0], ndimage.binary_fill_holes(ring[:, :, 0]))
    assert fill_holes(ring).sum() == 20
    thin = np.zeros_like(shell)
    thin[:, :, 3] = shell[:, :, 3]
    assert np.array_equal(fill_holes(thin), thin)  # amid other slices the ring is open above and below


def test_full_and_empty_masks() -> None:
    assert fill_holes(np.ones((3, 4, 5), dtype=bool)).all()
    assert not fill_holes(np.zeros((3, 4, 5), dtype=bool)).any()

"""Smoothing of a mask's boundary: against brute force and SimpleITK; flat walls and borders stay put."""

from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from medunet.postprocessing.morphology import make_ball
from medunet.postprocessing.smoothing import smooth_gaussian, smooth_median

SPACING_MM = (0.7, 1.0, 2.5)
Smooth = Callable[[np.ndarray, float, tuple[float, ...]], np.ndarray]
BOTH = [smooth_gaussian, smooth_median]


@pytest.fixture
def rough() -> np.ndarray:
    """A lump with a rough surface, cut by the volume's border, and stray voxels."""
    noise = np.random.default_rng(4).normal(size=(19, 16, 9))
    lump = ndimage.gaussian_filter(noise, 2.5) + 0.03 * noise
    return lump > np.quantile(lump, 0.6)


def test_median_is_the_majority_in_a_ball_counted_one_by_one(rough: np.ndarray) -> None:
    ball = make_ball(2.6, SPACING_MM, rough.shape)
    assert ball.shape == (7, 5, 3)
    padded = np.pad(rough, ((3, 3), (2, 2), (1, 1)), mode="edge")
    want = np.zeros_like(rough)
    for voxel in np.ndindex(rough.shape):
        around = padded[tuple(slice(at, at + size) for at, size in zip(voxel, ball.shape, strict=True))]
        want[voxel] = np.median(around[ball])
    assert np.array_equal(smooth_median(rough, 2.6, SPACING_MM), want)
    assert not np.array_equal(want, rough)


def test_gaussian_equals_that_of_simpleitk_away_from_the_border() -> None:
    noise = np.random.default_rng(7).normal(size=(24, 22, 14))
    mask = ndimage.gaussian_filter(noise, 1.5) > 0.02
    mask[:4] = mask[-4:] = mask[:, :4] = mask[:, -4:] = mask[:, :, :3] = mask[:, :, -3:] = False
    image = sitk.GetImageFromArray(mask.astype(np.float32))
    image.SetSpacing(SPACING_MM[::-1])
    blurred = sitk.GetArrayFromImage(
        sitk.DiscreteGaussian(image, variance=1.5**2, maximumKernelWidth=64, maximumError=1e-4)
    )
    clear = np.abs(blurred - 0.5) > 0.04  # SimpleITK's kernel for discrete grids differs a little
    assert 0 < (~clear).mean() < 0.2
    assert np.array_equal(smooth_gaussian(mask, 1.5, SPACING_MM)[clear], (blurred > 0.5)[clear])


@pytest.mark.parametrize("smooth", BOTH)
def test_walls_stay_and_what_is_small_goes(smooth: Smooth) -> None:
    wall = np.zeros((20, 15, 11), dtype=bool)
    wall[:8] = True  # from the border on, through all others
    assert np.array_equal(smooth(wall, 2.0, SPACING_MM), wall)
    pitted = wall.copy()
    pitted[4, 7, 5] = False
    pitted[14, 7, 5] = True
    assert np.array_equal(smooth(pitted, 2.0, SPACING_MM), wall)
    corner = np.zeros_like(wall)
    corner[12:, 9:, :] = True
    assert smooth(corner, 2.0, SPACING_MM)[-1, -1].all()


@pytest.mark.parametrize("smooth", BOTH)
def test_smoothing_does_not_depend_on_what_lies_far_away(smooth: Smooth, rough: np.ndarray) -> None:
    inner = np.zeros((40, 35, 22), dtype=bool)
    inner[10:29, 9:25, 6:15] = rough
    far = np.zeros((60, 50, 30), dtype=bool)
    far[10:50, 10:45, 5:27] = inner
    assert np.array_equal(smooth(far, 2.0, SPACING_MM)[10:50, 10:45, 5:27], smooth(inner, 2.0, SPACING_MM))
    far[0, 0, 0] = True  # the box is now nearly the whole volume
    assert np.array_equal(smooth(far, 2.0, SPACING_MM)[10:50, 10:45, 5:27], smooth(inner, 2.0, SPACING_MM))


@pytest.mark.parametrize("smooth", BOTH)
def test_single_slice_small_size_full_empty_and_input(smooth: Smooth, rough: np.ndarray) -> None:
    before = rough.copy()
    flat = rough[:, :, 4:5]
    in_plane = smooth(np.repeat(flat, 5, axis=2), 2.0, (0.7, 1.0, 25.0))
    assert np.array_equal(smooth(flat, 2.0, (0.7, 1.0, 0.1))[:, :, 0], in_plane[:, :, 2])
    assert np.array_equal(smooth(rough, 0.1, SPACING_MM), rough)
    assert smooth(np.ones((5, 4, 3), dtype=bool), 2.0, SPACING_MM).all()
    assert not smooth(np.zeros((5, 4, 3), dtype=bool), 2.0, SPACING_MM).any()
    assert np.array_equal(rough, before)

"""Dilation, erosion, opening and closing in mm: against distances, SimpleITK, and their own laws."""

from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from medunet.postprocessing.morphology import close_mask, dilate, erode, make_ball, open_mask

Operation = Callable[[np.ndarray, float, tuple[float, ...]], np.ndarray]
ALL = [dilate, erode, open_mask, close_mask]
SPACING_MM = (0.7, 1.0, 2.5)
masks = arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9))
radii_mm = st.floats(0.1, 4.0)


def distances_mm(mask: np.ndarray, spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Distance of every voxel to the nearest one of the mask, by trying each; infinite for an empty mask."""
    grid = np.stack(np.indices(mask.shape), axis=-1) * np.asarray(spacing_mm)
    points = grid[mask]
    if not len(points):
        return np.full(mask.shape, np.inf)
    return np.sqrt(((grid[..., None, :] - points) ** 2).sum(-1)).min(-1)


def blobs(shape: tuple[int, ...], seed: int, share: float = 0.5) -> np.ndarray:
    """A random mask of lumps, some of them cut by the volume's border."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return noise > np.quantile(noise, 1 - share)


@pytest.mark.parametrize("radius_mm", [0.5, 0.7, 1.3, 2.1, 2.6, 4.0, 50.0])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_dilation_and_erosion_are_thresholded_distances(radius_mm: float, share: float) -> None:
    mask = blobs((13, 11, 7), seed=3, share=share)
    limit = radius_mm + 1e-4
    assert np.array_equal(dilate(mask, radius_mm, SPACING_MM), distances_mm(mask, SPACING_MM) <= limit)
    assert np.array_equal(erode(mask, radius_mm, SPACING_MM), distances_mm(~mask, SPACING_MM) > limit)


@pytest.mark.parametrize("radius_mm", [0.8, 2.1, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_opening_and_closing_see_the_volume_go_on_as_at_its_border(radius_mm: float, seed: int) -> None:
    mask = blobs((12, 10, 7), seed)
    far = np.pad(mask, 9, mode="edge")

    def near(part: np.ndarray) -> np.ndarray:
        return ndimage.distance_transform_edt(~part, sampling=SPACING_MM) <= radius_mm + 1e-4

    inner = (slice(9, -9),) * 3
    assert np.array_equal(close_mask(mask, radius_mm, SPACING_MM), ~near(~near(far))[inner])
    assert np.array_equal(open_mask(mask, radius_mm, SPACING_MM), near(~near(~far))[inner])


@pytest.mark.parametrize("voxels", [1, 2, 3])
def test_dilation_and_erosion_by_whole_voxels_equal_those_of_simpleitk(voxels: int) -> None:
    # SimpleITK's ball holds the voxels within half a voxel more than its radius.
    mask = blobs((15, 13, 11), seed=5)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    radius_mm = (voxels + 0.5) * 0.8
    for operation, peer in ((dilate, sitk.BinaryDilate), (erode, sitk.BinaryErode)):
        peer_mask = sitk.GetArrayFromImage(peer(image, [voxels] * 3, sitk.sitkBall)).astype(bool)
        assert np.array_equal(operation(mask, radius_mm, (0.8, 0.8, 0.8)), peer_mask)


def test_dilation_equals_the_distance_map_of_simpleitk() -> None:
    mask = blobs((15, 13, 11), seed=6, share=0.1)
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing(SPACING_MM[::-1])
    distance = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    outside = sitk.GetArrayFromImage(distance)
    for radius_mm in (1.5, 3.3):
        assert np.array_equal(dilate(mask, radius_mm, SPACING_MM), (outside <= radius_mm) | mask)


def test_spacing_rounded_to_32_bits_loses_no_voxel() -> None:
    assert 3 * float(np.float32(0.7)) < 2.1 < 7 * float(np.float32(0.3)) < 2.1000001
    assert make_ball(2.1, (float(np.float32(0.7)), float(np.float32(0.3)), 3.0), (9, 20, 9)).shape == (
        7,
        15,
        1,
    )


def test_a_radius_below_the_slice_distance_works_in_the_slices_alone() -> None:
    mask = np.zeros((9, 8, 5), dtype=bool)
    mask[4, 4, 2] = True
    grown = dilate(mask, 2.4, SPACING_MM)
    assert grown[:, :, 2].sum() > 1
    assert grown[:, :, [0, 1, 3, 4]].sum() == 0
    assert np.array_equal(dilate(mask, 0.6, SPACING_MM), mask)


@pytest.mark.parametrize("operation", ALL)
def test_a_single_slice_is_treated_in_its_plane(operation: Operation) -> None:
    # The reference: the slice repeated, at a distance from its copies that no ball bridges.
    flat = blobs((14, 11, 1), seed=2)
    plane = np.repeat(flat, 9, axis=2)
    got = operation(flat, 2.0, (0.7, 1.0, 0.1))
    assert np.array_equal(got[:, :, 0], operation(plane, 2.0, (0.7, 1.0, 2.5))[:, :, 4])
    assert got.shape == flat.shape


def test_a_mask_cut_by_the_border_is_neither_eaten_there_nor_drawn_to_it() -> None:
    slab = np.zeros((12, 10, 8), dtype=bool)
    slab[:, :, 6:] = True  # the last two of eight slices
    unit = (1.0, 1.0, 1.0)
    assert np.array_equal(open_mask(slab, 3, unit), slab)
    assert np.array_equal(close_mask(slab, 3, unit), slab)
    eroded = erode(slab, 1, unit)
    assert eroded[:, :, 7].all()
    assert not eroded[:, :, :7].any()
    near = np.zeros((12, 10, 8), dtype=bool)
    near[3:9, 3:7, 2:6] = True  # two slices off the border
    assert not close_mask(near, 3, unit)[:, :, [0, 1, 6, 7]].any()
    full = np.ones((5, 4, 3), dtype=bool)
    for operation in ALL:
        assert operation(full, 2, unit).all()


def test_closing_joins_and_opening_parts() -> None:
    # two 5 mm cubes, 3 mm apart
    cubes = np.zeros((20, 11, 9), dtype=bool)
    cubes[3:8, 3:8, 2:7] = cubes[11:16, 3:8, 2:7] = True
    unit = (1.0, 1.0, 1.0)
    joined = close_mask(cubes, 3, unit)
    assert joined[8:11, 5, 4].all()
    assert ndimage.label(joined)[1] == 1
    bridged = cubes.copy()
    bridged[8:11, 5, 4] = True
    assert ndimage.label(open_mask(bridged, 1, unit))[1] == 2


@given(masks, radii_mm)
@settings(max_examples=150, deadline=None)
def test_laws(mask: np.ndarray, radius_mm: float) -> None:
    before = mask.copy()
    opened, closed = (operation(mask, radius_mm, SPACING_MM) for operation in (open_mask, close_mask))
    eroded, dilated = (operation(mask, radius_mm, SPACING_MM) for operation in (erode, dilate))
    for smaller, larger in ((eroded, opened), (opened, mask), (mask, closed), (closed, dilated)):
        assert not (smaller & ~larger).any()
    if 0 < mask.sum() < mask.size:  # the whole volume has no background to dilate
        assert np.array_equal(eroded, ~dilate(~mask, radius_mm, SPACING_MM))
        assert np.array_equal(opened, ~close_mask(~mask, radius_mm, SPACING_MM))
    assert np.array_equal(mask, before)


@given(masks, radii_mm)
@settings(max_examples=100, deadline=None)
def test_opening_and_closing_again_change_nothing_away_from_the_border(
    mask: np.ndarray, radius_mm: float
) -> None:
    inner = np.pad(mask, 1)
    for operation in (open_mask, close_mask):
        once = operation(inner, radius_mm, SPACING_MM)
        assert np.array_equal(operation(once, radius_mm, SPACING_MM), once)


@pytest.mark.parametrize("operation", ALL)
def test_fortran_order_and_empty_masks(operation: Operation) -> None:
    mask = blobs((9, 8, 7), seed=1)
    assert np.array_equal(
        operation(np.asfortranarray(mask), 2.0, SPACING_MM), operation(mask, 2.0, SPACING_MM)
    )
    empty = operation(np.zeros((5, 4, 3), dtype=bool), 2.0, SPACING_MM)
    assert not empty.any()
    assert empty.dtype == bool

"""Geometry in mm against SciPy: rotations, translations, elastic deformation, and both together."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import BSpline

from medunet.transforms.warp import draw_control_points, warp

MARGIN_SIZE, PATCH, SPACING_MM = (16, 12, 14), (12, 8, 10), (1.0, 2.0, 3.0)
EXTENT_MM = (12.0, 16.0, 30.0)  # control points 7.5 mm apart: 2, 3 and 4 intervals


def smooth_volume(size: tuple[int, ...]) -> NDArray[np.float64]:
    return ndimage.gaussian_filter(np.random.default_rng(0).normal(size=size), 2) * 10


def turn(degrees: float) -> NDArray[np.float64]:
    """In the plane of axes 0 and 2, whose voxels are 1 and 3 mm."""
    matrix = np.eye(3)
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    matrix[np.ix_([0, 2], [0, 2])] = [[cos, -sin], [sin, cos]]
    return matrix


def spline_field(points: NDArray[np.float32], interval_mm: float) -> NDArray[np.float64]:
    """Displacements at the voxel centres by SciPy: knots every interval, support one interval beyond the patch."""
    field = points.astype(float)
    for axis, (n, step) in enumerate(zip(PATCH, SPACING_MM, strict=True), start=1):
        count = field.shape[axis]
        knots = (np.arange(count + 4) - 3) * interval_mm
        at_mm = (np.arange(n) + 0.5) * step
        basis = BSpline.design_matrix(at_mm, knots, 3).toarray()
        field = np.moveaxis(np.tensordot(basis, field, (1, axis)), 0, axis)
    return field


def sampled(
    volume: NDArray[np.float64], matrix: NDArray[np.float64], displaced_mm: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Sample by SciPy at matrix @ (position + displacement), all in mm about the centre."""
    spacing = np.array(SPACING_MM)[:, None, None, None]
    middle_out = (np.array(PATCH)[:, None, None, None] - 1) / 2
    middle_in = (np.array(volume.shape)[:, None, None, None] - 1) / 2
    from_centre_mm = (np.indices(PATCH) - middle_out) * spacing + displaced_mm
    at = np.tensordot(matrix, from_centre_mm, 1) / spacing + middle_in
    return ndimage.map_coordinates(volume, at, order=1, mode="nearest")


def test_rotation_is_scipys_in_mm() -> None:
    volume = smooth_volume(MARGIN_SIZE)
    image = torch.from_numpy(volume).float()[None, None]
    out, out_label = warp(image, (image > 0).byte(), [turn(30)], [None], PATCH, SPACING_MM)
    assert np.abs(out[0, 0].numpy() - sampled(volume, turn(30), 0.0)).max() < 1e-4
    sure = out.abs() > 0.5  # away from the edge of the label
    assert (out_label[sure].bool() == (out[sure] > 0)).float().mean() > 0.99


def test_equal_control_points_shift_by_their_mm() -> None:
    """4 mm along axis 1 are two voxels, 3 mm along axis 2 one: exact for image and label."""
    image = torch.from_numpy(smooth_volume(MARGIN_SIZE)).float()[None, None]
    label = (image > 0).byte() * 255
    points = np.zeros((3, 5, 6, 7), np.float32)
    points[1], points[2] = 4, -3
    out, out_label = warp(image, label, [None], [points], PATCH, SPACING_MM)
    box = (..., slice(2, 14), slice(4, 12), slice(1, 11))
    assert torch.allclose(out, image[box], atol=1e-4)
    assert torch.equal(out_label, label[box])


def test_elastic_before_rotation_is_scipys() -> None:
    volume = smooth_volume(MARGIN_SIZE)
    points = draw_control_points(np.random.default_rng(1), EXTENT_MM, None)
    assert points.shape == (3, 5, 6, 7)
    image = torch.from_numpy(volume).float()[None, None]
    out, _ = warp(image, image.byte(), [1.2 * turn(20)], [points], PATCH, SPACING_MM)
    expected = sampled(volume, 1.2 * turn(20), spline_field(points, 7.5))
    assert np.abs(spline_field(points, 7.5)).max() > 0.3
    assert np.abs(out[0, 0].numpy() - expected).max() < 1e-3


def test_elastic_displacements_are_bounded_and_never_fold() -> None:
    rng = np.random.default_rng(0)
    largest = 0.0
    for _ in range(50):
        points = draw_control_points(rng, EXTENT_MM, None)
        assert np.abs(points).max() <= 3.0  # a tenth of 30 mm
        field = spline_field(points, 7.5)
        largest = max(largest, float(np.abs(field).max()))
        slopes = [np.diff(field[row], axis=axis) / SPACING_MM[axis] for row in range(3) for axis in range(3)]
        core = [slope[tuple(slice(n - 1) for n in PATCH)] for slope in slopes]
        jacobian = np.moveaxis(np.array(core).reshape(3, 3, *core[0].shape), (0, 1), (-2, -1)) + np.eye(3)
        assert np.linalg.det(jacobian).min() > 0
    assert largest > 1.0


def test_elastic_keeps_still_along_the_coarse_axis() -> None:
    points = draw_control_points(np.random.default_rng(0), EXTENT_MM, still_axis=2)
    assert np.all(points[2] == 0)
    assert np.all(points[:2].std(axis=(1, 2, 3)) > 0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.bool])
def test_samples_without_a_move_are_the_exact_centre(dtype: torch.dtype) -> None:
    image = torch.randn(3, 2, *MARGIN_SIZE)
    label = (image[:, :1] * 100).to(dtype)
    out, out_label = warp(image, label, [None, turn(30), np.eye(3)], [None] * 3, PATCH, SPACING_MM)
    box = (..., slice(2, 14), slice(2, 10), slice(2, 12))
    assert torch.equal(out[0], image[0][box])
    assert not torch.allclose(out[1], image[1][box])
    assert torch.allclose(out[2], image[2][box], atol=1e-5)
    assert torch.equal(out_label[0], label[0][box])
    assert torch.equal(out_label[2], label[2][box])
    assert out_label.dtype == dtype


def test_two_dimensions() -> None:
    """A quarter turn of an image with square voxels is `rot90`."""
    image = torch.randn(1, 1, 16, 16)
    quarter = np.array([[0.0, -1.0], [1.0, 0.0]])
    out, out_label = warp(image, image > 0, [quarter], [None], (10, 10), (0.5, 0.5))
    expected = torch.rot90(image[..., 3:13, 3:13], -1, (2, 3))
    assert torch.allclose(out, expected, atol=1e-4)
    assert torch.equal(out_label, expected > 0)
    points = draw_control_points(np.random.default_rng(0), (5.0, 5.0), None)
    assert warp(image, image > 0, [None], [points], (10, 10), (0.5, 0.5))[0].shape == (1, 1, 10, 10)

"""Rotation, scaling and elastic deformation of a batch in one interpolation, with geometry in mm.

Legend: `B` batch, `C` channels, `I J K` voxels; `n` transformed samples, `D` spatial dimensions (2 or 3).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

# Uniform cubic B-splines cannot fold while every control point moves less than this share of their spacing
# (Choi and Lee, "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", 2000: 0.48 and 0.40).
_FOLD_FREE = 0.4
_CONTROL_INTERVALS = 4  # along the longest side; the others take the same spacing in mm


def draw_control_points(
    rng: np.random.Generator, extent_mm: Sequence[float], still_axis: int | None
) -> NDArray[np.float32]:
    """Draw displacements in mm of a grid of B-spline control points `(D, *grid)` over a patch of `extent_mm`.

    The spacing of the control points is a quarter of the longest side. Their displacements are Gaussian, with a size
    drawn for each patch and clipped to a tenth of the longest side, so that the deformation never folds. There is no
    displacement along `still_axis`.
    """
    spacing_mm = max(extent_mm) / _CONTROL_INTERVALS
    grid = [int(np.ceil(side / spacing_mm)) + 3 for side in extent_mm]
    largest_mm = rng.uniform(0, _FOLD_FREE * spacing_mm)
    points = rng.normal(0, largest_mm, (len(grid), *grid)).clip(-largest_mm, largest_mm)
    if still_axis is not None:
        points[still_axis] = 0
    return points.astype(np.float32)


def warp(
    image: torch.Tensor,
    label: torch.Tensor,
    matrices: Sequence[NDArray[np.float64] | None],
    control_points: Sequence[NDArray[np.float32] | None],
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Transform image `(B, C, *margin)` and label `(B, 1, *margin)` and crop them to new tensors of `patch_size`.

    A sample's matrix maps positions in the patch, in mm from its centre, to positions in the image; its control
    points displace the positions before that. A sample with neither is the exact centre crop. Images are interpolated
    linearly, labels by nearest neighbour; border voxels are repeated beyond the image.
    """
    size = image.shape[2:]
    starts = [(long - short) // 2 for long, short in zip(size, patch_size, strict=True)]
    box = [slice(start, start + n) for start, n in zip(starts, patch_size, strict=True)]
    image_out = image[:, :, *box].clone(memory_format=torch.contiguous_format)
    label_out = label[:, :, *box].clone(memory_format=torch.contiguous_format)
    transforms = {
        sample: (np.eye(len(size)) if matrix is None else matrix, points)
        for sample, (matrix, points) in enumerate(zip(matrices, control_points, strict=True))
        if matrix is not None or points is not None
    }
    if transforms:
        index = torch.tensor(list(transforms), device=image.device)
        positions = _positions(list(transforms.values()), size, patch_size, spacing_mm, image.device)
        image_out.index_copy_(0, index, _sample_linear(image.index_select(0, index), positions))
        label_out.index_copy_(0, index, _sample_nearest(label.index_select(0, index), positions))
    return image_out, label_out


def _positions(
    transforms: list[tuple[NDArray[np.float64], NDArray[np.float32] | None]],
    size: Sequence[int],
    patch_size: Sequence[int],
    spacing_mm: Sequence[float],
    device: torch.device,
) -> list[torch.Tensor]:
    """Return the sampling positions in voxels along each axis of the image, each `(n, *patch_size)`."""
    spacing = np.array(spacing_mm)
    voxels = np.stack([matrix * spacing / spacing[:, None] for matrix, _ in transforms])  # in voxels
    factors = torch.from_numpy(voxels.astype(np.float32)).to(device)
    positions = []
    for row, long in enumerate(size):
        position: torch.Tensor | float = (long - 1) / 2
        for axis, short in enumerate(patch_size):
            along = [1] * len(patch_size)
            along[axis] = short
            offsets = torch.arange(short, device=device) - (short - 1) / 2
            position = position + (factors[:, row, axis, None] * offsets).view(-1, *along)
        positions.append(torch.as_tensor(position))
    elastic = [place for place, (_, points) in enumerate(transforms) if points is not None]
    if elastic:
        index = torch.tensor(elastic, device=device)
        displaced = np.stack(
            [
                np.tensordot(matrix / spacing[:, None], points, 1)
                for matrix, points in transforms
                if points is not None
            ]
        )
        field = _evaluate_spline(
            torch.from_numpy(displaced.astype(np.float32)).to(device), patch_size, spacing_mm
        )
        for row, position in enumerate(positions):
            position.index_add_(0, index, field[:, row])
    return positions


def _evaluate_spline(
    points: torch.Tensor, patch_size: Sequence[int], spacing_mm: Sequence[float]
) -> torch.Tensor:
    """Return the cubic B-spline with control points `(n, D, *grid)` at every voxel, `(n, D, *patch_size)`."""
    extent_mm = [n * step for n, step in zip(patch_size, spacing_mm, strict=True)]
    bases = [
        torch.from_numpy(_spline_basis(count, n, step * _CONTROL_INTERVALS / max(extent_mm))).to(points)
        for count, n, step in zip(points.shape[2:], patch_size, spacing_mm, strict=True)
    ]
    equation = "ndabc,ai,bj,ck->ndijk" if len(bases) == 3 else "ndab,ai,bj->ndij"
    return torch.einsum(equation, points, *bases)


def _spline_basis(num_points: int, num_voxels: int, step: float) -> NDArray[np.float64]:
    """Return the weight of each control point at each voxel centre, `(num_points, num_voxels)`.

    `step` is a voxel's side in units of the control points' spacing.
    """
    position = (np.arange(num_voxels) + 0.5) * step
    cell = np.minimum(position.astype(int), num_points - 4)
    t = position - cell
    weights = [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]
    basis = np.zeros((num_points, num_voxels))
    for place, weight in enumerate(weights):
        basis[cell + place, np.arange(num_voxels)] = weight / 6
    return basis


def _sample_linear(image: torch.Tensor, positions: list[torch.Tensor]) -> torch.Tensor:
    """Interpolate `(n, C, *margin)` linearly at positions in voxels; border voxels are repeated."""
    # grid_sample expects coordinates from -1 to 1, last axis first.
    grid = torch.empty((*positions[0].shape, len(positions)), device=image.device)
    for axis, (at, size) in enumerate(zip(positions[::-1], image.shape[:1:-1], strict=True)):
        grid[..., axis] = at * (2 / size) + (1 / size - 1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _sample_nearest(label: torch.Tensor, positions: list[torch.Tensor]) -> torch.Tensor:
    """Return the voxels of `(n, 1, *margin)` nearest to positions in voxels; any dtype, values unchanged."""
    flat = torch.zeros(positions[0].shape, dtype=torch.int64, device=label.device)
    for at, size in zip(positions, label.shape[2:], strict=True):
        flat.mul_(size).add_(at.round().clamp_(0, size - 1).long())
    return label.flatten(1).gather(1, flat.flatten(1)).view(len(label), 1, *flat.shape[1:])

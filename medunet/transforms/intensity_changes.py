"""Intensity augmentations, each computed for many rows at once, so that the number of kernel launches is constant.

A row is one channel of one sample: rows have the shape `(n, S, *spatial)`, where S is 1, or in 2.5D the number of
context slices, which are changed together. Each function takes rows and for each row one value (or one per spatial
axis), and returns new rows.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Values = NDArray[np.float64]  # (n,) or (n, spatial axes)


def blur(rows: torch.Tensor, sigmas: Values) -> torch.Tensor:
    """Blur by a Gaussian with a sigma in voxels per axis, truncated at 3 sigma, borders repeated; equals SciPy's."""
    return _along_axes(rows, sigmas, _blur_matrix)


def scale(rows: torch.Tensor, factors: Values) -> torch.Tensor:
    """Multiply each row by a factor."""
    return rows * _like_rows(factors, rows)


def shift(rows: torch.Tensor, amounts: Values) -> torch.Tensor:
    """Add an amount to each row."""
    return rows + _like_rows(amounts, rows)


def change_contrast(rows: torch.Tensor, factors: Values) -> torch.Tensor:
    """Scale each row about its mean; clip to its old minimum and maximum."""
    flat = rows.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    mean = flat.mean(1, keepdim=True)
    scaled = (flat - mean).mul_(_like_rows(factors, flat)).add_(mean)
    return scaled.clamp_(low, high).view_as(rows)


def lower_resolution(rows: torch.Tensor, zooms: Values) -> torch.Tensor:
    """Downsample each axis by a zoom (0 to 1) to the nearest voxels, then interpolate linearly to the old size."""
    return _along_axes(rows, zooms, _low_resolution_matrix)


def change_gamma(rows: torch.Tensor, exponents: Values) -> torch.Tensor:
    """Raise each row, rescaled to 0..1, to a power; restore its mean and standard deviation."""
    flat = rows.flatten(1)
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    changed = ((flat - low) / (high - low).clamp_min(1e-7)).pow_(_like_rows(exponents, flat))
    mean, centred = flat.mean(1, keepdim=True), changed.sub_(changed.mean(1, keepdim=True))
    # Ratio of the standard deviations; torch.std along an axis takes forty times as long on a CPU.
    ratio = torch.linalg.vector_norm(flat - mean, dim=1, keepdim=True)
    ratio /= torch.linalg.vector_norm(centred, dim=1, keepdim=True).clamp_min(1e-7)
    return centred.mul_(ratio).add_(mean).view_as(rows)


def change_gamma_inverted(rows: torch.Tensor, exponents: Values) -> torch.Tensor:
    """Change the gamma of the negative image."""
    return -change_gamma(-rows, exponents)


def _like_rows(values: Values, rows: torch.Tensor) -> torch.Tensor:
    """Return one number per row, shaped for broadcasting."""
    return torch.from_numpy(values.astype(np.float32)).to(rows.device).view(-1, *[1] * (rows.ndim - 1))


def _along_axes(
    rows: torch.Tensor, values: Values, make_matrix: Callable[[int, float], torch.Tensor]
) -> torch.Tensor:
    """Multiply every row along every spatial axis by its own matrix, made from the axis length and a value.

    Blur and resampling are linear along each axis, so that rows of different sigma or zoom share one matrix product.
    """
    for axis, row_values in enumerate(values.T, start=2):
        matrices = torch.stack([make_matrix(rows.shape[axis], float(value)) for value in row_values])
        lines = rows.movedim(axis, -1)
        products = lines.flatten(1, -2) @ matrices.to(rows.device)
        rows = products.view(lines.shape).movedim(-1, axis)
    return rows


def _blur_matrix(size: int, sigma: float) -> torch.Tensor:
    radius = int(np.ceil(3 * sigma))
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    impulses = F.pad(torch.eye(size)[:, None], (radius, radius), mode="replicate")
    return F.conv1d(impulses, (weights / weights.sum())[None, None])[:, 0]


def _low_resolution_matrix(size: int, zoom: float) -> torch.Tensor:
    coarse = F.interpolate(torch.eye(size)[:, None], max(1, round(size * zoom)), mode="nearest-exact")
    return F.interpolate(coarse, size, mode="linear")[:, 0]

"""nnU-Net's augmentations at its probabilities, as tensor operations on a batch, on any device.

Parameters are drawn apart from being applied, so a sample can be logged and replayed. Geometry is computed in mm,
so that a rotation stays a rotation where spacing is anisotropic.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

MARGIN = 1.25  # patches are cut this much larger, so that turned ones need little border


@dataclass(frozen=True)
class SampleParameters:
    """What happens to one sample; an identity or an empty dict where nothing does."""

    matrix: NDArray[np.float64] | None = None  # from output to input position in mm, about the patch's centre
    mirrored: tuple[int, ...] = ()  # spatial axes
    noise: tuple[float, int] | None = None  # standard deviation, seed
    blur: dict[int, float] = field(default_factory=dict)  # channel -> sigma in voxels
    brightness: dict[int, float] = field(default_factory=dict)  # channel -> factor
    contrast: dict[int, float] = field(default_factory=dict)  # channel -> factor
    low_resolution: dict[int, float] = field(default_factory=dict)  # channel -> zoom
    gamma_inverted: dict[int, float] = field(default_factory=dict)  # channel -> exponent
    gamma: dict[int, float] = field(default_factory=dict)  # channel -> exponent


def margin_size(patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size to cut before augmenting: larger by `MARGIN`, by an even number of voxels an axis."""
    return tuple(size + 2 * int(np.ceil(size * (MARGIN - 1) / 2)) for size in patch_size)


def sample_parameters(
    rng: np.random.Generator,
    *,
    dimensions: int,
    num_channels: int,
    mirror_axes: tuple[int, ...],
    plane_only: int | None = None,
) -> SampleParameters:
    """Draw one sample's parameters with nnU-Net's probabilities.

    `plane_only` names the coarse axis of anisotropic patches: rotations then turn about that axis alone.
    """

    def per_channel(probability: float, low: float, high: float, each: float = 1.0) -> dict[int, float]:
        if rng.random() >= probability:
            return {}
        chosen = [channel for channel in range(num_channels) if rng.random() < each]
        return {channel: float(rng.uniform(low, high)) for channel in chosen}

    rotation = _rotation(rng, dimensions, plane_only) if rng.random() < 0.2 else None
    zoom = float(rng.uniform(0.7, 1.4)) if rng.random() < 0.2 else None
    matrix = None
    if rotation is not None or zoom is not None:
        matrix = (np.eye(dimensions) if rotation is None else rotation) * (zoom or 1.0)
    noise = (float(np.sqrt(rng.uniform(0, 0.1))), int(rng.integers(2**31))) if rng.random() < 0.1 else None
    return SampleParameters(
        matrix=matrix,
        noise=noise,
        blur=per_channel(0.2, 0.5, 1.0, 0.5),
        brightness=per_channel(0.15, 0.75, 1.25),
        contrast=per_channel(0.15, 0.75, 1.25),
        low_resolution=per_channel(0.25, 0.5, 1.0, 0.5),
        gamma_inverted=per_channel(0.1, 0.7, 1.5),
        gamma=per_channel(0.3, 0.7, 1.5),
        mirrored=tuple(axis for axis in mirror_axes if rng.random() < 0.5),
    )


def _rotation(rng: np.random.Generator, dimensions: int, plane_only: int | None) -> NDArray[np.float64]:
    if dimensions == 2:
        return _turn(2, 0, 1, rng.uniform(-np.pi, np.pi))
    planes = [(1, 2), (0, 2), (0, 1)]
    if plane_only is not None:
        return _turn(3, *planes[plane_only], rng.uniform(-np.pi, np.pi))
    matrix = np.eye(3)
    for first, second in planes:
        matrix = matrix @ _turn(3, first, second, rng.uniform(-np.pi / 6, np.pi / 6))
    return matrix


def _turn(size: int, first: int, second: int, angle: float) -> NDArray[np.float64]:
    matrix = np.eye(size)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def apply_parameters(
    image: torch.Tensor,
    label: torch.Tensor,
    parameters: list[SampleParameters],
    patch_size: tuple[int, ...],
    spacing_mm: tuple[float, ...],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment a batch: image `(B, C, *margin_size)` and label `(B, 1, ...)` to `(B, C, *patch_size)`.

    Labels are sampled at the nearest voxel. The inputs are not changed.
    """
    images, labels = [], []
    for sample, target, drawn in zip(image.float(), label, parameters, strict=True):
        moved, moved_label = _move(sample, target, drawn.matrix, patch_size, spacing_mm)
        moved = _change_intensity(moved, drawn)
        if drawn.mirrored:
            axes = [1 + axis for axis in drawn.mirrored]
            moved, moved_label = moved.flip(axes), moved_label.flip(axes)
        images.append(moved)
        labels.append(moved_label)
    return torch.stack(images), torch.stack(labels)


def _move(
    image: torch.Tensor,
    label: torch.Tensor,
    matrix: NDArray[np.float64] | None,
    patch_size: tuple[int, ...],
    spacing_mm: tuple[float, ...],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate and scale about the centre while cutting `(C, *margin)` down to `(C, *patch_size)`."""
    size = np.array(image.shape[1:])
    if matrix is None:
        starts = (size - np.array(patch_size)) // 2
        box = (slice(None), *(slice(s, s + n) for s, n in zip(starts, patch_size, strict=True)))
        return image[box].clone(), label[box]
    spacing = np.diag(spacing_mm)
    voxels = np.linalg.inv(spacing) @ matrix @ spacing  # output offset -> input offset, in voxels
    # grid_sample counts in half sizes, last axis first
    unit = np.diag(2 / size) @ voxels @ np.diag(np.array(patch_size) / 2)
    theta = np.concatenate([unit[::-1, ::-1], np.zeros((len(size), 1))], axis=1)
    grid = F.affine_grid(
        torch.from_numpy(theta.copy()).to(image)[None], [1, 1, *patch_size], align_corners=False
    )
    moved = F.grid_sample(image[None], grid, "bilinear", "border", align_corners=False)[0]
    moved_label = F.grid_sample(label[None].float(), grid, "nearest", "border", align_corners=False)[0]
    return moved, moved_label.to(label.dtype)


def _change_intensity(image: torch.Tensor, drawn: SampleParameters) -> torch.Tensor:
    """Apply noise, blur, brightness, contrast, low resolution and gamma, in nnU-Net's order, to `(C, ...)`."""
    if drawn.noise is not None:
        sigma, seed = drawn.noise
        generator = torch.Generator(image.device).manual_seed(seed)
        image = image + sigma * torch.randn(image.shape, generator=generator, device=image.device)
    for channel, sigma in drawn.blur.items():
        image[channel] = _blur(image[channel], sigma)
    for channel, factor in drawn.brightness.items():
        image[channel] *= factor
    for channel, factor in drawn.contrast.items():
        values = image[channel]
        low, high, mean = values.min(), values.max(), values.mean()
        image[channel] = ((values - mean) * factor + mean).clamp(low, high)
    for channel, zoom in drawn.low_resolution.items():
        values = image[channel][None, None]
        small = [max(1, round(n * zoom)) for n in values.shape[2:]]
        coarse = F.interpolate(values, small, mode="nearest-exact")
        smooth = "trilinear" if values.ndim == 5 else "bilinear"
        image[channel] = F.interpolate(coarse, values.shape[2:], mode=smooth)[0, 0]
    for channel, exponent in drawn.gamma_inverted.items():
        image[channel] = -_gamma(-image[channel], exponent)
    for channel, exponent in drawn.gamma.items():
        image[channel] = _gamma(image[channel], exponent)
    return image


def _blur(values: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of `(I, J[, K])` along each axis, cut at three sigma, borders repeated."""
    radius = int(np.ceil(3 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=values.device, dtype=values.dtype)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    weights = (weights / weights.sum())[None, None]
    for axis in range(values.ndim):
        rows = values.movedim(axis, -1)
        padded = F.pad(rows.reshape(-1, 1, rows.shape[-1]), (radius, radius), mode="replicate")
        values = F.conv1d(padded, weights).reshape(rows.shape).movedim(-1, axis)
    return values


def _gamma(values: torch.Tensor, exponent: float) -> torch.Tensor:
    """Raise the values, scaled to 0..1, to a power; keep their mean and standard deviation."""
    low, extent = values.min(), (values.max() - values.min()).clamp_min(1e-7)
    mean, std = values.mean(), values.std()
    changed = ((values - low) / extent) ** exponent * extent + low
    return (changed - changed.mean()) / changed.std().clamp_min(1e-8) * std + mean

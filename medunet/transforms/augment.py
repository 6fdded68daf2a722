"""nnU-Net's data augmentation: parameters drawn for each sample, applied to a batch on any device.

Parameters are drawn separately from applying them, so that a sample can be logged and reproduced. The list, in the
order of application, is that of `nnUNetTrainer.get_training_transforms` in nnU-Net 2.8 with batchgeneratorsv2 0.3:

| change | probability per sample | value |
|---|---|---|
| rotation | 0.2 | 3D ±30° about each axis; 2D ±180°, or ±15° if one side is over 1.5 times the other; |
| | | coarse slices: ±180° about the slice axis only |
| scaling | 0.2 | 0.7–1.4, larger shows more; not along the axis of coarse slices |
| elastic (option) | 0.2 | displacements up to a tenth of the longest side; not along the axis of coarse slices |
| noise | 0.1 | standard deviation 0–0.1, one for all channels |
| blur | 0.2, then each channel 0.5 | sigma 0.5–1 voxel, drawn for each axis |
| brightness | 0.15 | times 0.75–1.25, drawn for each channel |
| brightness jitter (option) | 0.15 | plus or minus at most `brightness_jitter`, drawn for each channel |
| contrast | 0.15 | times 0.75–1.25 about the mean, clipped to the old range, drawn for each channel |
| low resolution | 0.25, then each channel 0.5 | zoom 0.5–1; not along the axis of coarse slices |
| gamma of the negative | 0.1 | 0.7–1.5, half of them below 1; mean and standard deviation kept |
| gamma | 0.3 | the same |
| mirroring | each axis 0.5 | |

Differences from nnU-Net: the two options (elastic deformation was its default before version 2), border voxels are
repeated instead of filled with 0, and labels are interpolated by nearest neighbour.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from medunet.transforms.intensity_changes import (
    Values,
    blur,
    change_contrast,
    change_gamma,
    change_gamma_inverted,
    lower_resolution,
    scale,
    shift,
)
from medunet.transforms.warp import draw_control_points, warp

BODY_AXES = ("left_right", "posterior_anterior", "inferior_superior")  # of a volume in RAS+ orientation
MARGIN = 1.25  # patches are cut this much larger, so that rotated ones need little border padding

T = TypeVar("T")


@dataclass(frozen=True)
class SampleParameters:
    """Augmentation parameters of one sample; None or empty means no change.

    The keys of the dicts are image channels. In 2.5D each stands for `context_slices` consecutive input channels,
    which are changed together.
    """

    context_slices: int = 1

    matrix: NDArray[np.float64] | None = None  # from output to input position in mm, about the patch's centre
    control_points_mm: NDArray[np.float32] | None = (
        None  # displacements (axes, *grid), applied before the matrix
    )
    noise: tuple[float, int] | None = None  # standard deviation, seed
    blur: Mapping[int, tuple[float, ...]] = field(default_factory=dict)  # sigma in voxels per axis
    brightness: Mapping[int, float] = field(default_factory=dict)  # factor
    brightness_shift: Mapping[int, float] = field(default_factory=dict)
    contrast: Mapping[int, float] = field(default_factory=dict)  # factor
    low_resolution: Mapping[int, tuple[float, ...]] = field(default_factory=dict)  # zoom per axis
    gamma_inverted: Mapping[int, float] = field(default_factory=dict)  # exponent
    gamma: Mapping[int, float] = field(default_factory=dict)  # exponent
    mirrored: tuple[int, ...] = ()  # spatial axes


def margin_size(patch_size: tuple[int, ...]) -> tuple[int, ...]:
    """Return the size to cut before augmentation: larger by `MARGIN`, by an even number of voxels per axis."""
    return tuple(size + 2 * int(np.ceil(size * (MARGIN - 1) / 2)) for size in patch_size)


def allowed_mirror_axes(
    dimensions: int, slice_axis: int, *, sided: bool, mirror: bool | Sequence[str]
) -> tuple[int, ...]:
    """Return the axes of a patch that may be mirrored, as indices of the patch's axes.

    Axis 0 of a volume runs from left to right in RAS: it is never mirrored if labels are `sided`. A 2D patch lacks
    the volume's `slice_axis`. `mirror` lists body axes by name, or is True for all and False for none.
    """
    volume_axes = [axis for axis in range(3) if dimensions == 3 or axis != slice_axis]
    wanted = BODY_AXES if mirror is True else mirror or ()
    return tuple(
        place
        for place, axis in enumerate(volume_axes)
        if BODY_AXES[axis] in wanted and not (sided and axis == 0)
    )


def sample_parameters(
    rng: np.random.Generator,
    *,
    dimensions: int,
    num_channels: int,
    mirror_axes: tuple[int, ...],
    plane_only: int | None = None,
    context_slices: int = 1,
    patch_extent_mm: tuple[float, ...] | None = None,
    elastic: bool = False,
    brightness_jitter: float = 0.0,
) -> SampleParameters:
    """Draw one sample's parameters with the probabilities of the table above.

    Args:
        rng: source of all random numbers.
        dimensions: of the patch, 2 or 3.
        num_channels: input channels of the image, including neighbouring slices.
        mirror_axes: axes of the patch that may be mirrored.
        plane_only: axis of a 3D patch with coarse slices; all geometric changes then stay in-plane.
        context_slices: slices per image channel, which share their intensity changes.
        patch_extent_mm: the patch's sides, voxels times spacing; required by `elastic`.
        elastic: also deform elastically.
        brightness_jitter: largest additive shift in units of the normalised image; 0 for none.
    """
    image_channels = range(num_channels // context_slices)

    def per_channel(probability: float, draw: Callable[[], T], each: float = 1.0) -> dict[int, T]:
        if rng.random() >= probability:
            return {}
        return {channel: draw() for channel in image_channels if each == 1.0 or rng.random() < each}

    def around_one(low: float, high: float) -> float:  # half of the draws below 1, half above
        return float(rng.uniform(low, 1) if rng.random() < 0.5 else rng.uniform(1, high))

    def zooms() -> tuple[float, ...]:
        zoom = float(rng.uniform(0.5, 1))
        return tuple(1.0 if axis == plane_only else zoom for axis in range(dimensions))

    return SampleParameters(
        context_slices=context_slices,
        matrix=_draw_matrix(rng, dimensions, plane_only, patch_extent_mm),
        noise=(float(rng.uniform(0, 0.1)), int(rng.integers(2**31))) if rng.random() < 0.1 else None,
        blur=per_channel(0.2, lambda: tuple(map(float, rng.uniform(0.5, 1, dimensions))), each=0.5),
        brightness=per_channel(0.15, lambda: around_one(0.75, 1.25)),
        contrast=per_channel(0.15, lambda: around_one(0.75, 1.25)),
        low_resolution=per_channel(0.25, zooms, each=0.5),
        gamma_inverted=per_channel(0.1, lambda: around_one(0.7, 1.5)),
        gamma=per_channel(0.3, lambda: around_one(0.7, 1.5)),
        mirrored=tuple(axis for axis in mirror_axes if rng.random() < 0.5),
        # Drawn last, so that an option does not change the values above.
        brightness_shift=per_channel(
            0.15 if brightness_jitter else 0.0,
            lambda: float(rng.uniform(-brightness_jitter, brightness_jitter)),
        ),
        control_points_mm=_draw_elastic(rng, plane_only, patch_extent_mm) if elastic else None,
    )


def _draw_matrix(
    rng: np.random.Generator,
    dimensions: int,
    plane_only: int | None,
    patch_extent_mm: tuple[float, ...] | None,
) -> NDArray[np.float64] | None:
    """Draw a matrix of rotation and scaling; None if there is neither."""
    rotated, scaled = rng.random(2) < 0.2
    matrix = np.eye(dimensions)
    if rotated:
        limit = np.pi / 6 if dimensions == 3 and plane_only is None else np.pi
        if dimensions == 2 and patch_extent_mm and max(patch_extent_mm) > 1.5 * min(patch_extent_mm):
            limit = np.pi / 12
        planes = {0: (1, 2), 1: (0, 2), 2: (0, 1)} if dimensions == 3 else {2: (0, 1)}
        for axis, (first, second) in planes.items():
            if dimensions == 2 or plane_only in (None, axis):
                matrix = matrix @ _rotation(dimensions, first, second, rng.uniform(-limit, limit))
    if scaled:
        zoom = rng.uniform(0.7, 1.4)
        matrix = matrix @ np.diag([1.0 if axis == plane_only else zoom for axis in range(dimensions)])
    return matrix if rotated or scaled else None


def _rotation(size: int, first: int, second: int, angle: float) -> NDArray[np.float64]:
    matrix = np.eye(size)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def _draw_elastic(
    rng: np.random.Generator, plane_only: int | None, patch_extent_mm: tuple[float, ...] | None
) -> NDArray[np.float32] | None:
    assert patch_extent_mm is not None, "elastic deformation needs the patch's extent"
    return draw_control_points(rng, patch_extent_mm, plane_only) if rng.random() < 0.2 else None


def apply_parameters(
    image: torch.Tensor,
    label: torch.Tensor,
    parameters: Sequence[SampleParameters],
    patch_size: tuple[int, ...],
    spacing_mm: tuple[float, ...],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augment a batch: image `(B, C, *margin_size)` and label `(B, 1, ...)` to `(B, C, *patch_size)`.

    Each change is applied to all its samples at once, except noise, which each sample draws from its own seed. In
    2.5D the input channels are all slices of the first image channel, then of the second, and so on. Labels keep
    their dtype and values. The inputs are not modified.
    """
    image, label = warp(
        image.float(),
        label,
        [drawn.matrix for drawn in parameters],
        [drawn.control_points_mm for drawn in parameters],
        patch_size,
        spacing_mm,
    )
    for sample, drawn in zip(image, parameters, strict=True):
        if drawn.noise is not None:
            sigma, seed = drawn.noise
            generator = torch.Generator(sample.device).manual_seed(seed)
            sample.add_(torch.randn(sample.shape, generator=generator, device=sample.device), alpha=sigma)
    rows = image.view(-1, parameters[0].context_slices, *patch_size)
    _change_rows(rows, [drawn.blur for drawn in parameters], blur)
    _change_rows(rows, [drawn.brightness for drawn in parameters], scale)
    _change_rows(rows, [drawn.brightness_shift for drawn in parameters], shift)
    _change_rows(rows, [drawn.contrast for drawn in parameters], change_contrast)
    _change_rows(rows, [drawn.low_resolution for drawn in parameters], lower_resolution)
    _change_rows(rows, [drawn.gamma_inverted for drawn in parameters], change_gamma_inverted)
    _change_rows(rows, [drawn.gamma for drawn in parameters], change_gamma)
    for axes in {drawn.mirrored for drawn in parameters if drawn.mirrored}:
        chosen = [sample for sample, drawn in enumerate(parameters) if drawn.mirrored == axes]
        index = torch.tensor(chosen, device=image.device)
        for batch in (image, label):
            batch.index_copy_(0, index, batch.index_select(0, index).flip([2 + axis for axis in axes]))
    return image, label


def _change_rows(
    rows: torch.Tensor,
    drawn: Sequence[Mapping[int, float] | Mapping[int, tuple[float, ...]]],
    change: Callable[[torch.Tensor, Values], torch.Tensor],
) -> None:
    """Apply one change in place to the rows `(samples x channels, S, *spatial)` for which a value was drawn."""
    num_channels = len(rows) // len(drawn)
    values = {
        sample * num_channels + channel: value
        for sample, by_channel in enumerate(drawn)
        for channel, value in by_channel.items()
    }
    if values:
        index = torch.tensor(list(values), device=rows.device)
        rows.index_copy_(0, index, change(rows.index_select(0, index), np.array(list(values.values()))))

"""From a scan to the network's input by nnU-Net's rules: crop, normalise, resample, and pad to the patch.

Arrays are `(C, I, J, K)` in the axis order of the file or, if the rules reorient, in RAS+ order. nnU-Net works on
reversed and transposed axes; importing a model turned its weights instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.nifti import NiftiHeader
from medunet.imaging.volume import Header, Volume
from medunet.inference.nnunet.resampling import (
    nearest,
    positions,
    resample_image,
    resample_labels,
    separate_axis,
    size_at,
)
from medunet.inference.placement import AxisPlacement, Placement
from medunet.inference.prepare import Prepared
from medunet.postprocessing.holes import fill_holes
from medunet.records.nnunet_rules import NnunetRules, Normalisation
from medunet.records.plan import Plan

_PICTURE_SLICE = 999.0  # spacing across a picture, in pixels
_FLAT_FACTOR = 999.0  # spacing across a volume of one slice, relative to its largest other one
_SAME = 1e-3  # relative difference of spacings that are the same but for rounding
_LEAST_STD = 1e-8
_OUTSIDE = -1  # label of voxels outside the nonzero region
PREPARING_COPIES = 3  # of a scan in float32: as read, and one channel before and after each axis is resampled
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Preprocessed:
    """A scan on the network's grid, before it is padded, and where it was cut out of the scan."""

    image: NDArray[np.float32]  # (C, I, J, K), masks of an earlier stage among the channels
    box: Box  # of the scan's voxels
    spacing_mm: tuple[float, ...]  # of the scan
    target_mm: tuple[float, ...]  # of the network's grid
    turn: NDArray[np.float64]  # axes and flips from the file to the rules' orientation, as NiBabel's
    shape: tuple[int, ...]  # of the scan, turned


def preprocess(
    volume: Volume, plan: Plan, rules: NnunetRules, previous: NDArray[np.uint8] | None = None
) -> Preprocessed:
    """Crop, normalise and resample a scan `(C, I, J, K)`; its array may be changed.

    Args:
        previous: label map `(I, J, K)` of an earlier stage on the scan's grid, for the network of a cascade.

    Raises:
        DataError: the scan has NaN or infinite voxels, is zero everywhere, or its values do not fit the
            normalisation.
    """
    header = volume.header
    turn = nib.io_orientation(header.affine) if rules.reorient else np.array([(0, 1), (1, 1), (2, 1)], float)
    image, mask = _turn(volume.array, turn), None if previous is None else _turn(previous[None], turn)[0]
    spacing_mm = _turn_axes(_spacing_of(header), turn)
    if not np.isfinite(image.sum(dtype=np.float64)):
        raise DataError("has NaN or infinite voxels", where=header.path.name, hint="Export the scan again.")
    nonzero = image[0] != 0
    for channel in image[1:]:
        nonzero |= channel != 0
    box, shape = _bounding_box(nonzero, header), image.shape[1:]
    image, nonzero = image[:, *box], nonzero[box]
    labels = None
    if mask is not None or any(each.inside_only for each in rules.normalisation):
        inside = nonzero if 1 in shape else fill_holes(nonzero)
        labels = np.zeros(inside.shape, np.int16) if mask is None else mask[box].astype(np.int16)
        labels[(labels == 0) & ~inside] = _OUTSIDE
    for channel, rule in zip(image, rules.normalisation, strict=True):
        _normalise(channel, labels, rule, header)
    target_mm = list(plan.spacing_mm)
    if plan.dimensions == 2:
        target_mm[plan.slice_axis] = spacing_mm[plan.slice_axis]
    size = size_at(image.shape[1:], spacing_mm, target_mm, rules.image)
    axis = separate_axis(spacing_mm, target_mm, rules.image)
    channels = [resample_image(channel, size, axis, rules.image) for channel in image]
    if rules.previous is not None:
        assert labels is not None
        mask_rule = rules.previous.resampling
        mask_axis = separate_axis(spacing_mm, target_mm, mask_rule)
        resampled = resample_labels(labels, size, mask_axis, mask_rule)
        channels += [(resampled == value).astype(np.float32) for value in rules.previous.labels]
    return Preprocessed(np.stack(channels), box, spacing_mm, tuple(target_mm), turn, shape)


def prepare_as_nnunet(
    volume: Volume, plan: Plan, rules: NnunetRules, previous: NDArray[np.uint8] | None = None
) -> Prepared:
    """Return a scan that is ready for the network: see `preprocess`; padded with zeros where the patch is larger."""
    done = preprocess(volume, plan, rules, previous)
    sizes = list(plan.patch_size)
    if plan.dimensions == 2:
        sizes.insert(plan.slice_axis, 1)
    missing = [max(0, size - n) for size, n in zip(sizes, done.image.shape[1:], strict=True)]
    pads = [(each // 2, each - each // 2) for each in missing]
    image = np.pad(done.image, [(0, 0), *pads]) if any(missing) else done.image
    placement = _place(done, rules, [low for low, _ in pads], image.shape[1:])
    return Prepared(MetaTensor(torch.from_numpy(image)), volume.header, placement)


def _place(done: Preprocessed, rules: NnunetRules, low: Sequence[int], lengths: Sequence[int]) -> Placement:
    """Return where the scan's voxels lie in the padded grid, for logits that are resampled by the rules."""
    axis = separate_axis(done.target_mm, done.spacing_mm, rules.logits)
    axes = []
    for number, box in enumerate(done.box):
        scan_axis = int(np.flatnonzero(done.turn[:, 0] == number)[0])
        flipped = bool(done.turn[scan_axis, 1] < 0)
        new, old = box.stop - box.start, done.image.shape[1 + number]
        is_nearest = number == axis or rules.logits.order == 0
        places = nearest(old, new).astype(np.float64) if is_nearest else positions(old, new)
        places = places + low[number]
        start, stop = box.start, box.stop
        if flipped:
            start, stop = done.shape[number] - box.stop, done.shape[number] - box.start
        axes.append(AxisPlacement(scan_axis, flipped, start, stop, places))
    shape = [done.shape[int(target)] for target, _ in done.turn]
    return Placement(tuple(shape), tuple(axes), tuple(lengths))  # type: ignore[arg-type]


def _turn(array: NDArray, turn: NDArray[np.float64]) -> NDArray:
    """Return a view of an array `(C, I, J, K)` with its axes permuted and flipped."""
    return np.moveaxis(nib.apply_orientation(np.moveaxis(array, 0, -1), turn), -1, 0)


def _turn_axes(values: Sequence[float], turn: NDArray[np.float64]) -> tuple[float, ...]:
    """Return values of the file's axes in the order of the turned axes."""
    return tuple(float(values[int(np.flatnonzero(turn[:, 0] == number)[0])]) for number in range(3))


def _spacing_of(header: Header) -> tuple[float, ...]:
    """Return the voxel size by which nnU-Net's readers resample: that of the header's field, in mm.

    The affine's may differ in the last digits, and then round to another size.
    """
    if header.is_picture:
        return 1.0, 1.0, _PICTURE_SLICE
    spacing_mm = list(header.spacing_mm[:3])
    if isinstance(header, NiftiHeader):
        stored = [float(step) for step in header.nifti.get_zooms()[:3]]
        if len(stored) == 3 and np.allclose(stored, spacing_mm, rtol=_SAME):
            spacing_mm = stored
        if int(header.nifti["dim"][0]) == 2:
            spacing_mm[2] = _FLAT_FACTOR * max(spacing_mm[:2])
    return tuple(spacing_mm)


def _bounding_box(nonzero: NDArray[np.bool_], header: Header) -> Box:
    ranges = []
    for axis in range(3):
        others = tuple(each for each in range(3) if each != axis)
        found = np.flatnonzero(nonzero.any(axis=others))
        if not found.size:
            raise DataError("all voxels are zero", where=header.path.name, hint="Export the scan again.")
        ranges.append(slice(int(found[0]), int(found[-1]) + 1))
    first, second, third = ranges
    return first, second, third


def _normalise(
    channel: NDArray[np.float32], labels: NDArray[np.int16] | None, rule: Normalisation, header: Header
) -> None:
    """Normalise a channel `(I, J, K)` in place; `labels` tell the nonzero region."""
    if rule.scheme == "zscore" and rule.inside_only:
        assert labels is not None
        inside = labels >= 0
        values = channel[inside]
        channel[inside] = (values - values.mean()) / max(values.std(), _LEAST_STD)
    elif rule.scheme == "zscore":
        mean, std = channel.mean(), channel.std()
        channel -= mean
        channel /= max(std, _LEAST_STD)
    elif rule.scheme == "ct":
        assert rule.mean is not None
        assert rule.std is not None
        np.clip(channel, rule.clip_low, rule.clip_high, out=channel)
        channel -= rule.mean
        channel /= max(rule.std, _LEAST_STD)
    elif rule.scheme == "rescale_to_0_1":
        channel -= channel.min()
        channel /= max(channel.max(), _LEAST_STD)
    elif rule.scheme == "rgb_to_0_1":
        if channel.min() < 0 or channel.max() > 255:
            raise DataError(
                f"values of {channel.min():g} to {channel.max():g} are not those of a colour picture, 0 to 255",
                where=header.path.name,
                hint="The model was trained on pictures of 8 bits a colour.",
            )
        channel /= 255

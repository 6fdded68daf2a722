"""Volumes as a page holds them: cropped, at a stored resolution that fits, as compressed base64 text."""

import base64
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_TEXT_BYTES = 6_000_000  # of all volumes of a page, as base64
_ROOMY_TEXT_BYTES = 3_000_000  # up to this size a page shows more than the smallest margin
_MARGINS = (20.0, 40.0, 80.0, math.inf)  # around the masks, in mm (pixels in pictures)
_INT16 = np.iinfo(np.int16)
_SAMPLED_SLICES = 24  # from which the length of the text is estimated
_BLOCK = 64  # voxels: a large mask is transposed in parts that fit the processor's cache, 3 times as fast
_MAX_TABLE = 1_000_000  # labels below are numbered with a table, which is fast
_STEPS = 65_534  # of the range of values that are not whole numbers

Box = tuple[tuple[int, int], ...]  # voxels [first, end) of each axis


@dataclass(frozen=True)
class Layout:
    """What of a grid is stored: the voxels of `box`, of the images every `step[axis]`-th along each axis."""

    box: Box
    step: tuple[int, int, int]


def encode_images(
    images: Sequence[NDArray], spacing: Sequence[float], important: Box | None
) -> tuple[Layout, list[dict[str, Any]]]:
    """Return what of a scan is stored, and its images, which stay within `MAX_TEXT_BYTES` as far as possible.

    That is all around the important voxels with a margin, which is larger where the text stays small. If the smallest
    margin is too much, every second voxel is stored, in plane first, then along the axis that is stored finest.

    Args:
        images: the channels `(I, J, K)`, or one in colour `(I, J, K, 3)`.
        spacing: of the grid along each axis.
        important: the box that must be shown; None: the whole grid.
    """
    shape = images[0].shape[:3]
    bounds = important or tuple((0, size) for size in shape)
    boxes = [_widen(bounds, [margin / mm for mm in spacing], shape) for margin in _MARGINS]
    layout = Layout(boxes[0], (1, 1, 1))
    text = _estimate_text_bytes(images, layout)
    if text <= MAX_TEXT_BYTES:
        per_voxel = text / _num_voxels(boxes[0])
        roomy = [box for box in boxes if per_voxel * _num_voxels(box) <= _ROOMY_TEXT_BYTES]
        layout = Layout(roomy[-1] if roomy else boxes[0], (1, 1, 1))
    while True:
        if _estimate_text_bytes(images, layout) <= MAX_TEXT_BYTES:
            encoded = [encode_image(image, layout) for image in images]
            if (
                sum(len(image["data"]) for image in encoded) <= MAX_TEXT_BYTES
                or max(_stored_size(layout)) == 1
            ):
                return layout, encoded
        layout = Layout(layout.box, _coarser(layout, spacing))


def _estimate_text_bytes(images: Sequence[NDArray], layout: Layout) -> float:
    """Return about how long the images' text is, from some of the slices."""
    first, end = layout.box[2]
    step = layout.step[2]
    every = max(1, math.ceil((end - first) / step / _SAMPLED_SLICES))
    some = Layout(layout.box, (*layout.step[:2], step * every))
    return every * sum(len(encode_image(image, some)["data"]) for image in images)


def encode_image(image: NDArray, layout: Layout) -> dict[str, Any]:
    """Return an image as a page stores it; `slope * stored + offset` is a voxel's value.

    Whole numbers that fit stay as they are, so that CT is exact; others are stored in 65,534 steps of their range.
    Values that are not finite are stored as the lowest. Colours `(I, J, K, 3)` have 8 bits.
    """
    slices = tuple(
        slice(first, end, step) for (first, end), step in zip(layout.box, layout.step, strict=True)
    )
    values = np.asarray(image[slices], np.float32)
    size = list(values.shape[:3])
    if values.ndim == 4:
        slope = max(1.0, float(values.max(initial=0)) / 255)
        pixels = np.rint(values / slope).clip(0, 255).astype(np.uint8)
        return {
            "type": "rgb",
            "size": size,
            "slope": slope,
            "offset": 0.0,
            "decimals": 0,
            "data": _text(pixels.transpose(2, 1, 0, 3).tobytes()),
        }
    finite = np.isfinite(values)
    if not finite.all():
        values = np.where(finite, values, values[finite].min() if finite.any() else 0)
    low, high = float(values.min()), float(values.max())
    slope, offset, decimals = 1.0, 0.0, 0
    if not (values == np.rint(values)).all() or high - low > _STEPS:
        span = high - low or 1.0
        slope, decimals = span / _STEPS, min(9, max(0, math.ceil(3 - math.log10(span))))
    if slope != 1 or low < _INT16.min or high > _INT16.max:
        offset = (high + low) / 2 if slope != 1 else float(round((high + low) / 2))
    stored = np.rint((values - np.float64(offset)) / slope).astype(np.int16)
    return {
        "type": "int16",
        "size": size,
        "slope": slope,
        "offset": offset,
        "decimals": decimals,
        "data": _text(_predict(stored)),
    }


def encode_mask(labels: NDArray[np.uint8 | np.uint16], box: Box) -> dict[str, Any]:
    """Return a label map as a page stores it: every voxel of `box`, whatever the step of the images."""
    cut = labels[tuple(slice(first, end) for first, end in box)]
    kind = np.uint8 if cut.max(initial=0) < 256 else np.uint16
    data = np.empty(cut.shape[::-1], np.dtype(kind).newbyteorder("<"))
    for i in range(0, cut.shape[0], _BLOCK):
        for k in range(0, cut.shape[2], _BLOCK):
            block = cut[i : i + _BLOCK, :, k : k + _BLOCK]
            data[k : k + _BLOCK, :, i : i + _BLOCK] = block.transpose(2, 1, 0)
    return {"type": np.dtype(kind).name, "data": _text(data.tobytes())}


def number_labels(masks: Mapping[str, NDArray], values: Sequence[int]) -> dict[str, NDArray]:
    """Return label maps with the number of each value in `values`, from 1, instead of the value; all others are 0."""
    kept = np.unique(np.asarray(values, np.int64))
    kind = np.uint8 if len(kept) < 256 else np.uint16
    return {name: _number(labels, kept, kind) for name, labels in masks.items()}


def _number(labels: NDArray, kept: NDArray[np.int64], kind: type[np.uint8 | np.uint16]) -> NDArray:
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low >= 0 and high < _MAX_TABLE:
        table = np.zeros(high + 1, kind)
        within = kept[(kept >= 0) & (kept <= high)]
        table[within] = np.searchsorted(kept, within) + 1
        if labels.dtype == kind and np.array_equal(table, np.arange(high + 1)):
            return labels  # numbered so already
        return table[labels.astype(np.int64, copy=False) if labels.dtype.kind == "f" else labels]
    place = np.searchsorted(kept, labels).clip(0, max(len(kept) - 1, 0))
    found = kept[place] == labels if len(kept) else np.zeros(labels.shape, bool)
    return np.where(found, place + 1, 0).astype(kind)


def _predict(stored: NDArray[np.int16]) -> bytes:
    """Return voxels as differences to their neighbours, small ones first, so that they compress by a fifth better.

    Rows run along the first axis. Each voxel is written less the one before it in its row and slice, as in PNG's
    simplest filters, modulo 65,536; then interleaved (0, -1, 1, -2 ...), and all low bytes before all high ones.
    """
    rows = np.ascontiguousarray(stored.transpose(2, 1, 0)).view(np.uint16)
    upwards = rows.copy()
    upwards[:, 1:] -= rows[:, :-1]
    across = upwards.copy()
    across[:, :, 1:] -= upwards[:, :, :-1]
    signed = across.view(np.int16)
    folded = ((signed << 1) ^ (signed >> 15)).view(np.uint16)
    return (folded & 255).astype(np.uint8).tobytes() + (folded >> 8).astype(np.uint8).tobytes()


def _text(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 6)).decode()


def _widen(box: Box, margin: Sequence[float], shape: Sequence[int]) -> Box:
    wide = [math.ceil(min(voxels, size)) for voxels, size in zip(margin, shape, strict=True)]
    return tuple(
        (max(0, first - more), min(size, end + more))
        for (first, end), more, size in zip(box, wide, shape, strict=True)
    )


def _num_voxels(box: Box) -> int:
    return math.prod(end - first for first, end in box)


def _stored_size(layout: Layout) -> list[int]:
    return [
        math.ceil((end - first) / step) for (first, end), step in zip(layout.box, layout.step, strict=True)
    ]


def _coarser(layout: Layout, spacing: Sequence[float]) -> tuple[int, int, int]:
    """Return the steps after halving: in plane first, then along the axis that is stored finest."""
    through = max(range(3), key=lambda axis: (spacing[axis], axis))
    size = _stored_size(layout)
    stored = [
        mm * step if n > 1 else math.inf for mm, step, n in zip(spacing, layout.step, size, strict=True)
    ]
    halved = [axis for axis in range(3) if stored[axis] <= 1.01 * min(stored)]
    if layout.step == (1, 1, 1):
        halved = [axis for axis in range(3) if axis != through and size[axis] > 1]
    return tuple(step * (2 if axis in halved else 1) for axis, step in enumerate(layout.step))  # type: ignore[return-value]

"""Resample volumes to another size over the same extent: images linearly, label maps by the largest share.

The outer borders of the field of view stay in place (half a voxel beyond the outermost voxel centres): if an axis of
n voxels is resampled to m, new voxel k covers the range from k·n/m to (k + 1)·n/m, in old voxels from the border.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.networks.layers.convutils import gaussian_1d
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.spatial.array import Resize
from monai.transforms.transform import MapTransform
from numpy.typing import NDArray
from scipy import ndimage

from medunet.imaging.geometry import spacing_of
from medunet.records.plan import Plan

_TIE = 1e-5  # shares that differ by less count as equal: rounding of float32 products and sums
_BLOCK = 32  # rows of weights that are multiplied together
_INTEGER = 1e-6  # voxels: a position that is closer to a voxel is at that voxel
_SLICES = 16  # of an image that are interpolated together


class ResampleToPland(MapTransform, InvertibleTransform):
    """Resample "image" `(C, I, J, K)` and "label" `(1, I, J, K)` to the plan's spacing or slice size.

    Both ends of each axis stay in place, as in MONAI's `Resize` with align_corners=False. The new spacing is as close
    to the plan's as a whole number of voxels allows. 2D plans keep each scan's own spacing along the slice axis; with
    `resize_to` images are smoothed before downsampling, in place, as by `skimage.transform.resize`.
    """

    def __init__(self, keys: Sequence[str], plan: Plan) -> None:
        super().__init__(keys)
        self.plan = plan

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        image = case["image"]
        size = self._size(image.shape[1:], spacing_of(image.affine.numpy()))
        if self.plan.resize_to is not None:
            smooth_in_place(image.as_tensor(), size)
        case["image"] = self._resample(image, size)
        if "label" in self.keys:
            label = case["label"]
            array = resample_labels(label.as_tensor()[0].numpy(), size)
            meta = {**label.meta, "affine": case["image"].affine}
            case["label"] = MetaTensor(torch.from_numpy(array)[None], meta=meta)
        return case

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample "image" back to its original size."""
        case = dict(data)
        size = self.pop_transform(case["image"], check=False)["orig_size"]
        back = Resize(size, mode="trilinear", align_corners=False)
        with back.trace_transform(False):
            case["image"] = back(case["image"])
        return case

    def _resample(self, image: MetaTensor, size: tuple[int, ...]) -> MetaTensor:
        """Return an image resampled linearly, with its new affine and what the inverse needs."""
        resampled = MetaTensor(resample_linearly(image.as_tensor(), size), meta=image.meta)
        resampled.applied_operations = image.applied_operations
        before = image.shape[1:]
        zoom = np.diag([*(old / new for old, new in zip(before, size, strict=True)), 1.0])
        zoom[:3, 3] = (zoom.diagonal()[:3] - 1) / 2  # half a voxel of each grid beyond the same border
        return self.push_transform(
            resampled, orig_size=tuple(before), sp_size=size, affine=torch.from_numpy(zoom)
        )

    def _size(self, shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[int, ...]:
        size = list(size_at_spacing(shape, spacing_mm, self.plan.spacing_mm))
        if self.plan.dimensions == 2:
            size[self.plan.slice_axis] = shape[self.plan.slice_axis]
        if self.plan.resize_to is not None:
            size = list(self.plan.resize_to)
            size.insert(self.plan.slice_axis, shape[self.plan.slice_axis])
        return tuple(size)


def smooth_in_place(image: torch.Tensor, size: Sequence[int]) -> None:
    """Smooth an image `(C, I, J, K)` along the axes that are longer than in `size`.

    The result is that of MONAI's `Resize` with `anti_aliasing` before it interpolates, but for rounding. MONAI needs
    25 times the memory of the image for this.
    """
    array = image.numpy()
    for axis, (old, new) in enumerate(zip(image.shape[1:], size, strict=True), start=1):
        if new < old:
            kernel = gaussian_1d(torch.tensor((old / new - 1) / 2)).numpy()
            for channel in array:  # SciPy reads a line of voxels before it writes it
                ndimage.correlate1d(channel, kernel, axis - 1, output=channel, mode="constant")


def resample_linearly(image: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return an image `(C, I, J, K)` interpolated linearly to another size over the same extent.

    The result is that of `torch.nn.functional.interpolate` (trilinear, align_corners=False) but for rounding; and
    where neighbouring voxels are equal, the result is exactly equal to them, so that constant parts stay constant.
    It is computed in blocks of slices, so that little more than the image and the result is in memory. An image of
    this size already is returned as it is where it is contiguous.
    """
    num_channels, *before = image.shape
    if tuple(before) == tuple(size):
        return image.contiguous()
    # In the order of the memory, where rows along the first axes are copied whole.
    strides = image.stride()
    order = sorted(range(4), key=lambda axis: (-strides[axis], axis))
    image = image.permute(order)
    result = torch.empty((num_channels, *size))
    ordered = result.permute(order)
    sizes = ordered.shape
    slow = 1 if order[0] == 0 else 0  # the first axis of the volume
    changed = [axis for axis in range(4) if axis == slow or image.shape[axis] != sizes[axis]]
    changed.sort(key=lambda axis: sizes[axis] > image.shape[axis])  # axes that shrink first
    neighbours = [
        Neighbours.at((np.arange(new, dtype=np.float64) + 0.5) * (old / new) - 0.5, old)
        for old, new in zip(image.shape, sizes, strict=True)
    ]
    slices = neighbours[slow]
    for start in range(0, sizes[slow], _SLICES):
        stop = min(start + _SLICES, sizes[slow])
        first, last = int(slices.low[start]), int(slices.high[stop - 1])
        neighbours[slow] = slices.part(start, stop, first)
        part = image.narrow(slow, first, last + 1 - first)
        for axis in changed:
            part = _interpolate(part, axis, neighbours[axis])
        ordered.narrow(slow, start, stop - start).copy_(part)
    return result


@dataclass(frozen=True)
class Neighbours:
    """For each voxel of a grid along an axis: its two neighbours in another grid, and the upper one's weight."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def at(cls, positions: NDArray[np.float64], length: int) -> "Neighbours":
        """Return the neighbours of positions in a grid of `length` voxels, whose ends continue beyond it."""
        nearest = positions.round()
        positions = np.where(np.abs(positions - nearest) < _INTEGER, nearest, positions).clip(0, length - 1)
        low = np.floor(positions).astype(np.int64)
        weight = (positions - low).astype(np.float32)
        return cls(low, np.where(weight > 0, low + 1, low), weight)

    def part(self, start: int, stop: int, offset: int = 0) -> "Neighbours":
        """Return those of the voxels `start .. stop - 1`, in a grid that begins at `offset`."""
        low, high = self.low[start:stop] - offset, self.high[start:stop] - offset
        return Neighbours(low, high, self.weight[start:stop])


def _interpolate(image: torch.Tensor, axis: int, neighbours: Neighbours) -> torch.Tensor:
    # Indexing is up to 20 times as fast as index_select.
    indices = (torch.from_numpy(each) for each in (neighbours.low, neighbours.high))
    below, above = (image[(slice(None),) * axis + (index,)] for index in indices)
    return below.lerp_(above, torch.from_numpy(neighbours.weight).reshape([-1] + [1] * (3 - axis)))


def size_at_spacing(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """Return the size in voxels that comes closest to a target spacing over the same extent, at least 1 per axis."""
    return tuple(
        max(1, round(n * step / target)) for n, step, target in zip(shape, spacing_mm, target_mm, strict=True)
    )


def resample_labels(labels: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Return a label map `(I, J, K)` at another size: each voxel gets the label with the largest share of it.

    Along an axis that shrinks, a share is the fraction of the voxel that the label fills; along one that grows, it is
    interpolated linearly. In a tie the rarer label wins, and any label wins over background, so that a structure one
    slice thick survives halving. Labels are processed one at a time within their bounding boxes, which needs at most
    three float32 volumes of the larger size at once.
    """
    labels = np.ascontiguousarray(labels)
    if labels.shape == tuple(size):
        return labels
    resampled = np.zeros(tuple(size), dtype=np.uint8)
    boxes = {value: box for value, box in enumerate(ndimage.find_objects(labels), start=1) if box}
    if not boxes:
        return resampled
    weights = [share_weights(old, new) for old, new in zip(labels.shape, size, strict=True)]
    everything = tuple(
        slice(min(s.start for s in axis), max(s.stop for s in axis))
        for axis in zip(*boxes.values(), strict=True)
    )
    counts = np.bincount(labels.ravel())
    best = np.ones(resampled.shape, dtype=np.float32)  # largest share so far, initially that of background
    target_box, share = _resample_share((labels[everything] != 0).astype(np.float32), everything, weights)
    best[target_box] -= share
    del share  # frees memory before the next one
    for value in sorted(boxes, key=lambda value: -counts[value]):
        box = boxes[value]
        target_box, share = _resample_share((labels[box] == value).astype(np.float32), box, weights)
        share += _TIE
        wins = share >= best[target_box]
        share -= _TIE
        resampled[target_box][wins] = value
        np.copyto(best[target_box], share, where=wins)
        del share
    return resampled


def share_weights(old: int, new: int) -> NDArray[np.float32]:
    """Return the weight of each old voxel in each new one along an axis: `(new, old)`, rows sum to 1."""
    ratio = old / new
    index = np.arange(old)
    if ratio > 1:
        start = ratio * np.arange(new)[:, None]
        overlap = np.minimum(start + ratio, index + 1) - np.maximum(start, index)
        return (np.maximum(overlap, 0) / ratio).astype(np.float32)
    centre = np.clip(ratio * (np.arange(new) + 0.5) - 0.5, 0, old - 1)[:, None]
    return np.maximum(1 - np.abs(centre - index), 0).astype(np.float32)


def _resample_share(
    share: NDArray[np.float32], box: tuple[slice, ...], weights: Sequence[NDArray[np.float32]]
) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    """Return the box of the new grid that a label within a box of the old grid affects, and its share of each voxel.

    `share` is 1 where the old voxel has the label, otherwise 0.
    """
    target_box, parts = [], []
    for along, whole in zip(box, weights, strict=True):
        reached = np.flatnonzero(whole[:, along].any(axis=1))
        target_box.append(slice(int(reached[0]), int(reached[-1]) + 1))
        parts.append(whole[target_box[-1], along])
    changed = [axis for axis, whole in enumerate(weights) if len(whole) != whole.shape[1]]
    # Shrink axes first, so that no intermediate array is larger than both input and output.
    for axis in sorted(changed, key=lambda axis: len(parts[axis]) / parts[axis].shape[1]):
        share = _apply_weights(share, parts[axis], axis)
    return tuple(target_box), share


def _apply_weights(
    array: NDArray[np.float32], weights: NDArray[np.float32], axis: int
) -> NDArray[np.float32]:
    """Multiply weights `(new, old)` with a 3D array along one axis, one block of rows at a time.

    Each row has only a few nonzero weights, so that a block needs only part of the array.
    """
    shape = list(array.shape)
    shape[axis] = len(weights)
    result = np.empty(shape, dtype=np.float32)
    for start in range(0, len(weights), _BLOCK):
        block = weights[start : start + _BLOCK]
        needed = np.flatnonzero(block.any(axis=0))
        old, new = slice(needed[0], needed[-1] + 1), slice(start, start + len(block))
        block = block[:, old]
        if axis == 0:
            flat = array[old].reshape(block.shape[1], -1)
            np.matmul(block, flat, out=result[new].reshape(len(block), -1))
        elif axis == 1:
            np.matmul(block, array[:, old], out=result[:, new])
        else:
            np.matmul(array[..., old], block.T, out=result[..., new])
    return result

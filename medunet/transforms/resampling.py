"""Resample volumes to another size over the same extent: images linearly, label maps by the largest share.

The outer borders of the field of view stay in place (half a voxel beyond the outermost voxel centres): if an axis of
n voxels is resampled to m, new voxel k covers the range from k·n/m to (k + 1)·n/m, in old voxels from the border.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.spatial.array import Resize
from monai.transforms.transform import MapTransform
from numpy.typing import NDArray
from scipy import ndimage

from medunet.imaging.geometry import spacing_of
from medunet.records.plan import Plan

_TIE = 1e-5  # shares that differ by less count as equal: rounding of float32 products and sums
_BLOCK = 32  # rows of weights that are multiplied together


class ResampleToPland(MapTransform, InvertibleTransform):
    """Resample "image" `(C, I, J, K)` and "label" `(1, I, J, K)` to the plan's spacing or slice size.

    MONAI's `Resize` interpolates images, aligns both ends of each axis and records what its inverse needs. The new
    spacing is as close to the plan's as a whole number of voxels allows. 2D plans keep each scan's own spacing along
    the slice axis; with `resize_to` images are smoothed before downsampling, as in `skimage.transform.resize`.
    """

    def __init__(self, keys: Sequence[str], plan: Plan) -> None:
        super().__init__(keys)
        self.plan = plan

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        image = case["image"]
        size = self._size(image.shape[1:], spacing_of(image.affine.numpy()))
        smooth = self.plan.resize_to is not None
        resize = Resize(size, mode="trilinear", align_corners=False, anti_aliasing=smooth)
        case["image"] = resize(image)
        if "label" in self.keys:
            label = case["label"]
            array = resample_labels(label.as_tensor()[0].numpy(), size)
            meta = {**label.meta, "affine": case["image"].affine}
            case["label"] = MetaTensor(torch.from_numpy(array)[None], meta=meta)
        return case

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample "image" back to its original size."""
        case = dict(data)
        resize = Resize(1)
        case["image"] = resize.inverse_transform(
            case["image"], resize.pop_transform(case["image"], check=False)
        )
        return case

    def _size(self, shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[int, ...]:
        size = list(size_at_spacing(shape, spacing_mm, self.plan.spacing_mm))
        if self.plan.dimensions == 2:
            size[self.plan.slice_axis] = shape[self.plan.slice_axis]
        if self.plan.resize_to is not None:
            size = list(self.plan.resize_to)
            size.insert(self.plan.slice_axis, shape[self.plan.slice_axis])
        return tuple(size)


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

"""Volumes brought to another size over the same extent: images linearly, label maps by the largest share.

Both ends of the field of view stay where they are, half voxels counted: along an axis of n voxels brought to m, voxel
k covers what lay from k·n/m to (k + 1)·n/m, counted in old voxels from the border.
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

_TIE = 1e-5  # shares that differ by less are equal: float32 sums of products of three weights
_BLOCK = 32  # rows of weights that are multiplied together


class ResampleToPland(MapTransform, InvertibleTransform):
    """Bring "image" `(C, I, J, K)` and "label" `(1, I, J, K)` to the plan's spacing, or its slices to their size.

    MONAI's `Resize` interpolates images, aligns both ends of each axis and records what is needed to go back. The
    voxels are as near to the plan's spacing as a whole number of them allows. 2D plans keep each scan's own spacing
    along the sliced axis; with `resize_to` images are smoothed first where they shrink, as `skimage.transform.resize`
    does.
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
        """Bring "image" back to the size that it had."""
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
    """Return the size whose voxels come nearest to a spacing over the same extent, at least 1 along each axis."""
    return tuple(
        max(1, round(n * step / target)) for n, step, target in zip(shape, spacing_mm, target_mm, strict=True)
    )


def resample_labels(labels: NDArray[np.uint8], size: Sequence[int]) -> NDArray[np.uint8]:
    """Return a label map `(I, J, K)` at another size: each voxel gets the label that has the largest share of it.

    Along an axis that shrinks a share is the part of the voxel that the label fills; along one that grows it is
    interpolated linearly. Where shares tie, background loses to any label and a label to a rarer one, so that a
    structure one slice thick survives halving. Labels are taken in turn, each within its own box, so that there are
    three float32 volumes of the larger size at once at most.
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
    best = np.ones(resampled.shape, dtype=np.float32)  # the share of background, then of the winner
    place, share = _share((labels[everything] != 0).astype(np.float32), everything, weights)
    best[place] -= share
    del share  # before the next is made
    for value in sorted(boxes, key=lambda value: -counts[value]):
        box = boxes[value]
        place, share = _share((labels[box] == value).astype(np.float32), box, weights)
        share += _TIE
        wins = share >= best[place]
        share -= _TIE
        resampled[place][wins] = value
        np.copyto(best[place], share, where=wins)
        del share
    return resampled


def share_weights(old: int, new: int) -> NDArray[np.float32]:
    """Return how much each old voxel counts for each new one along an axis: `(new, old)`, rows sum to 1."""
    ratio = old / new
    index = np.arange(old)
    if ratio > 1:
        start = ratio * np.arange(new)[:, None]
        overlap = np.minimum(start + ratio, index + 1) - np.maximum(start, index)
        return (np.maximum(overlap, 0) / ratio).astype(np.float32)
    centre = np.clip(ratio * (np.arange(new) + 0.5) - 0.5, 0, old - 1)[:, None]
    return np.maximum(1 - np.abs(centre - index), 0).astype(np.float32)


def _share(
    share: NDArray[np.float32], box: tuple[slice, ...], weights: Sequence[NDArray[np.float32]]
) -> tuple[tuple[slice, ...], NDArray[np.float32]]:
    """Return the box of the new grid that a label in a box of the old one reaches, and its share of each voxel there.

    `share` is 1 where the old voxel has the label, else 0.
    """
    place, parts = [], []
    for along, whole in zip(box, weights, strict=True):
        reached = np.flatnonzero(whole[:, along].any(axis=1))
        place.append(slice(int(reached[0]), int(reached[-1]) + 1))
        parts.append(whole[place[-1], along])
    changed = [axis for axis, whole in enumerate(weights) if len(whole) != whole.shape[1]]
    # What shrinks first, so that nothing between is larger than both ends.
    for axis in sorted(changed, key=lambda axis: len(parts[axis]) / parts[axis].shape[1]):
        share = _weigh(share, parts[axis], axis)
    return tuple(place), share


def _weigh(array: NDArray[np.float32], weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the product of weights `(new, old)` with an array along one axis of three, a block of rows at a time.

    A row's weights are 0 but for a few neighbours: a block leaves out what it does not need.
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

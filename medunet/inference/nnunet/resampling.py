"""Resampling as nnU-Net does it, in the time of a few matrix products.

nnU-Net resizes with splines of scikit-image, which are SciPy's `zoom` with repeated borders. They are linear and work
axis by axis, so that one matrix for each axis has the same result.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medunet.records.nnunet_rules import Resampling


def size_at(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float], rule: Resampling
) -> tuple[int, ...]:
    """Return the size of a grid at another spacing; the same size where the rule keeps the grid."""
    if rule.kept:
        return tuple(shape)
    pairs = zip(shape, spacing_mm, target_mm, strict=True)
    return tuple(max(1, round(step / target * n)) for n, step, target in pairs)


def separate_axis(first_mm: Sequence[float], second_mm: Sequence[float], rule: Resampling) -> int | None:
    """Return the axis along which slices are resampled separately between two spacings; None if there is none.

    The first spacing decides if its voxels are anisotropic enough. Of two coarse axes neither is separate.
    """
    if rule.separate == "never":
        return None
    for spacing_mm in (first_mm, second_mm):
        if rule.separate == "always" or max(spacing_mm) / min(spacing_mm) > rule.anisotropy:
            coarse = [axis for axis, step in enumerate(spacing_mm) if max(spacing_mm) / step == 1]
            return coarse[0] if len(coarse) == 1 else None
    return None


def resample_image(
    image: NDArray[np.float32], size: Sequence[int], axis: int | None, rule: Resampling
) -> NDArray[np.float32]:
    """Return one channel `(I, J, K)` at another size, with separate slices along `axis` if it is given."""
    if image.shape == tuple(size) or rule.kept:
        return image
    across = [each for each in range(3) if each != axis]
    source = torch.from_numpy(image.copy() if min(image.strides) < 0 else image)
    result = source
    for each in sorted(across, key=lambda each: size[each] / image.shape[each]):  # axes that shrink first
        result = _apply(result, spline_matrix(image.shape[each], size[each], rule.order), each)
    if rule.clipped:
        low, high = source.amin(dim=across, keepdim=True), source.amax(dim=across, keepdim=True)
        result = torch.minimum(torch.maximum(result, low), high)
    if axis is not None:
        result = result.index_select(axis, torch.from_numpy(nearest(image.shape[axis], size[axis])))
    return result.numpy()


def resample_labels(
    labels: NDArray[np.int16], size: Sequence[int], axis: int | None, rule: Resampling
) -> NDArray[np.int16]:
    """Return a label map `(I, J, K)` at another size: each voxel gets the label whose interpolated mask is largest.

    Where two are equal it is the nearest voxel's label, if that is one of them, otherwise the smaller one. nnU-Net's
    torch function, which does not clip, takes the smaller one at once, and compares in half precision.
    """
    if labels.shape == tuple(size) or rule.kept:
        return labels
    closest = labels
    for each in range(3):
        closest = closest.take(nearest(labels.shape[each], size[each]), each)
    if rule.order == 0:
        return closest
    values = np.unique(labels)
    result = np.full(tuple(size), values[0], np.int16)
    best = is_closest = None
    for value in values:
        share = resample_image((labels == value).astype(np.float32), size, axis, rule)
        if rule.clipped:
            share, here = np.round(share, 6), closest == value  # so that ties are ties
        else:
            share, here = (1000 * share).astype(np.float16), np.zeros(result.shape, bool)
        if best is None or is_closest is None:
            best, is_closest = share, here & (share > 0)
            continue
        wins = share > best
        is_closest = np.where(wins, here, is_closest | ((share == best) & (share > 0) & here))
        result[wins] = value
        np.maximum(best, share, out=best)
    assert is_closest is not None
    return np.where(is_closest, closest, result)


def nearest(old: int, new: int) -> NDArray[np.int64]:
    """Return for each of `new` voxels along an axis the nearest of `old` ones over the same extent."""
    return np.floor(positions(old, new) + 0.5).astype(np.int64).clip(0, old - 1)


def positions(old: int, new: int) -> NDArray[np.float64]:
    """Return where the centres of `new` voxels along an axis lie among `old` ones over the same extent."""
    return (old / new * (np.arange(new) + 0.5) - 0.5).clip(0, old - 1)


@lru_cache(maxsize=16)
def spline_matrix(old: int, new: int, order: int) -> NDArray[np.float32]:
    """Return the weight of each of `old` voxels along an axis in each of `new` ones: `(new, old)`, rows sum to 1."""
    if old == new:
        return np.eye(old, dtype=np.float32)
    factors = (1 / (old / new), 1.0)
    matrix = ndimage.zoom(np.eye(old), factors, order=order, mode="nearest", grid_mode=True)
    return matrix.astype(np.float32)


def _apply(image: torch.Tensor, matrix: NDArray[np.float32], axis: int) -> torch.Tensor:
    if len(matrix) == image.shape[axis]:
        return image
    return torch.tensordot(torch.from_numpy(matrix), image, dims=([1], [axis])).movedim(0, axis)

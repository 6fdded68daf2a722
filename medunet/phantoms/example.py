"""A synthetic scan to try a model on: a phantom of the body or head if it fits the channels, else blobs."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine
from medunet.phantoms.brain import MODALITIES, make_brain
from medunet.phantoms.fields import draw_field, ellipsoid_depth, grid_points
from medunet.phantoms.phantom import make_phantom
from medunet.records.description import Description
from medunet.records.plan import Plan

_MOST_VOXELS = 1_500_000
_BODY_MM, _BRAIN_MM = (290.0, 210.0, 160.0), (152.0, 182.0, 141.0)
_CONTRASTS = {  # the brain's modality for the names that datasets give theirs
    **dict.fromkeys(("flair", "t2f", "t2flair"), "FLAIR"),
    **dict.fromkeys(("t1", "t1w", "t1n"), "T1w"),
    **dict.fromkeys(("t1gd", "t1ce", "t1c"), "T1gd"),
    **dict.fromkeys(("t2", "t2w"), "T2w"),
}
_NUM_BLOBS = 6
_AIR_HU, _TISSUE_HU, _NOISE_HU = -1000.0, 40.0, 12.0
_GREY, _GREY_NOISE = 100.0, 6.0


Example = tuple[NDArray[Any], Affine]  # (I, J, K), or (I, J, K, C) with several channels; to RAS+ mm


def example_kinds(description: Description, plan: Plan) -> dict[str, Callable[[int], Example]]:
    """Return functions that make a synthetic scan from a seed, by what it is; those most like real scans come first.

    A scan has the channels of the description and about the plan's spacing. The last kind is always blobs, on a grid
    of the plan's median shape; of pictures they are `(I, J, 1)` or `(I, J, 1, 3)`.
    """
    kinds: dict[str, Callable[[int], Example]] = {}
    channels = description.channels
    modalities = [channel.modality for channel in channels.values()]
    contrasts = [_CONTRASTS.get(name.lower().replace("-", "").replace("_", ""), "") for name in channels]
    if description.layout != "png" and modalities == ["CT"] and "liver" in description.labels:
        kinds["a synthetic CT of an abdomen"] = partial(_make_body, plan)
    if description.layout != "png" and set(modalities) == {"MR"} and all(contrasts):
        kinds[f"a synthetic MR scan of a head ({', '.join(contrasts)})"] = partial(
            _make_head, plan, contrasts
        )
    return {**kinds, "synthetic blobs": partial(_make_blobs, description, plan)}


def _make_body(plan: Plan, seed: int) -> Example:
    body = make_phantom(seed, spacing_mm=_spacing(plan, _BODY_MM))
    return body.image, body.affine


def _make_head(plan: Plan, contrasts: Sequence[str], seed: int) -> Example:
    head = make_brain(seed, spacing_mm=_spacing(plan, _BRAIN_MM))
    return _squeeze(head.image[..., [MODALITIES.index(name) for name in contrasts]]), head.affine


def _spacing(plan: Plan, size_mm: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the plan's spacing, or a coarser one if a scan of a size would have too many voxels."""
    num_voxels = math.prod(size / step for size, step in zip(size_mm, plan.spacing_mm, strict=True))
    factor = max(1.0, (num_voxels / _MOST_VOXELS) ** (1 / 3))
    i, j, k = (round(step * factor, 3) for step in plan.spacing_mm)
    return i, j, k


def _make_blobs(description: Description, plan: Plan, seed: int) -> Example:
    """Make a body of smooth texture with brighter and darker blobs in it."""
    rng = np.random.default_rng(seed)
    is_picture = description.layout == "png"
    shape = [max(2, size) for size in plan.median_shape]
    if is_picture:
        shape = [*(plan.resize_to or shape[:2]), 1]
    shape = [min(size, 256) for size in shape]
    i, j, k = shape
    affine = np.diag([*((1.0, 1.0, 1.0) if is_picture else plan.spacing_mm), 1.0])
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    points = grid_points((i, j, k), affine)
    half_mm = (np.diag(affine)[:3] * shape / 2).astype(float)
    grain_mm = float(np.median(half_mm)) / 4
    frames = []
    inside = ellipsoid_depth(points, (0.0, 0.0, 0.0), _triple(half_mm * 0.92)) > 0
    blobs = []
    for _ in range(_NUM_BLOBS):
        centre, axes = half_mm * rng.uniform(-0.5, 0.5, 3), half_mm * rng.uniform(0.12, 0.35, 3)
        blobs.append(
            ellipsoid_depth(points, _triple(centre * ([1, 1, 0] if is_picture else 1)), _triple(axes)) > 0
        )
    for name, channel in description.channels.items():
        texture = draw_field(rng, grain_mm).at(points)
        noise = rng.standard_normal((i, j, k), dtype=np.float32)
        if channel.modality == "CT" and not is_picture:
            level = plan.fingerprint.intensities.get(name, {}).get("mean", _TISSUE_HU)
            frame = np.where(inside, _TISSUE_HU + 10 * texture, _AIR_HU)
            for blob in blobs:
                frame[blob & inside] = level
            frames.append(np.rint(frame + _NOISE_HU * noise).clip(-1024, 3071))
            continue
        frame = np.where(inside, _GREY * (1 + 0.15 * texture), 0.1 * _GREY)
        for blob in blobs:
            frame[blob & inside] = _GREY * rng.uniform(0.4, 2.2)
        frames.append(np.rint(np.abs(frame + _GREY_NOISE * noise)).clip(1, 255))
    image = np.stack(frames, axis=-1).astype(np.uint8 if is_picture else np.int16)
    return _squeeze(image), affine


def _squeeze(image: NDArray[Any]) -> NDArray[Any]:
    """Return the frames `(I, J, K, C)` as `(I, J, K)` if there is one."""
    return image[..., 0] if image.shape[3] == 1 else image


def _triple(values: NDArray[np.floating]) -> tuple[float, float, float]:
    i, j, k = (float(value) for value in values)
    return i, j, k

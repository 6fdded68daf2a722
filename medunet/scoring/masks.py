"""Every score of one pair of masks in one call.

Empty masks, everywhere alike:

| | both empty | missed (prediction empty) | false positive (reference empty) |
|---|---|---|---|
| Dice, IoU, F1, NSD | undefined | 0 | 0 |
| precision | undefined | undefined | 0 |
| recall | undefined | 0 | undefined |
| HD, HD95, ASSD, MASD | undefined | infinite | infinite |
| volumes, specificity, accuracy | numbers | numbers | numbers |

Undefined is NaN, infinite is `inf`.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.errors import InputError
from medunet.records import Status, Surface
from medunet.scoring.overlap import Confusion, count_confusion
from medunet.scoring.surface import (
    HD95Mode,
    compute_average_symmetric_distance,
    compute_hausdorff,
    compute_mean_average_distance,
    compute_robust_hausdorff,
    compute_surface_dice,
    measure_distances,
)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class MaskScore:
    """All scores of one pair of masks. NaN is undefined; `nsd` is by tolerance in mm."""

    status: Status
    surface: Surface
    percentile: float  # that hd95_mm is taken at
    dice: float
    iou: float
    precision: float
    recall: float
    f1: float
    specificity: float
    accuracy: float
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    masd_mm: float
    nsd: dict[float, float]
    reference_ml: float
    predicted_ml: float
    tp: int
    fp: int
    fn: int
    tn: int
    touches_border: bool  # either mask reaches the grid's edge, where its surface may be the scan's cut


def score_masks(
    reference: Mask,
    prediction: Mask,
    spacing_mm: tuple[float, ...],
    *,
    surface: Surface = "voxel",
    hd95: HD95Mode = "max",
    percentile: float = 95.0,
    tolerances_mm: tuple[float, ...] = (1.0, 2.0),
) -> MaskScore:
    """Score a prediction against a reference, both boolean `(I, J, K)` or `(I, J)`, on one grid.

    `spacing_mm[i]` belongs to axis i. A 3D array with a single slice is measured in 2D, in that slice's plane,
    its volume with the slice's thickness; a 2D array has no volume, and its ml are NaN. `hd95` is "max" of the
    two directed percentiles or "pooled".

    Raises:
        InputError: masks that are not boolean or differ in shape, or an option that cannot be used.
    """
    _check_input(reference, prediction, spacing_mm)
    check_options(surface, percentile, tolerances_mm, hd95)
    counts = count_confusion(reference, prediction)
    status = _status(counts)
    voxel_ml = math.prod(spacing_mm) / 1000 if reference.ndim == 3 else math.nan

    reference, prediction, spacing_mm = _drop_single_slice(reference, prediction, spacing_mm)
    box = _joint_box(reference, prediction)
    if status == "ok":
        # The crop is exact: outside the joint box both masks are background, as the surface's definition has
        # it outside the grid, so every surface voxel keeps its neighbours and its nearest counterpart.
        between = measure_distances(reference[box], prediction[box], spacing_mm)
        hd_mm = compute_hausdorff(*between)
        hd95_mm = compute_robust_hausdorff(*between, percentile, hd95)
        assd_mm = compute_average_symmetric_distance(*between)
        masd_mm = compute_mean_average_distance(*between)
        nsd = {tolerance: compute_surface_dice(*between, tolerance) for tolerance in tolerances_mm}
    else:
        undefined = status == "both_empty"
        hd_mm = hd95_mm = assd_mm = masd_mm = math.nan if undefined else math.inf
        nsd = dict.fromkeys(tolerances_mm, math.nan if undefined else 0.0)
    return MaskScore(
        status=status,
        surface=surface,
        percentile=percentile,
        dice=counts.dice,
        iou=counts.iou,
        precision=counts.precision,
        recall=counts.recall,
        f1=counts.dice,
        specificity=counts.specificity,
        accuracy=counts.accuracy,
        hd_mm=hd_mm,
        hd95_mm=hd95_mm,
        assd_mm=assd_mm,
        masd_mm=masd_mm,
        nsd=nsd,
        reference_ml=(counts.tp + counts.fn) * voxel_ml,
        predicted_ml=(counts.tp + counts.fp) * voxel_ml,
        tp=counts.tp,
        fp=counts.fp,
        fn=counts.fn,
        tn=counts.tn,
        touches_border=_touches_border(box, reference.shape),
    )


def _status(counts: Confusion) -> Status:
    if counts.tp + counts.fp + counts.fn == 0:
        return "both_empty"
    if counts.tp + counts.fp == 0:
        return "missed"
    if counts.tp + counts.fn == 0:
        return "false_positive"
    return "ok"


def _drop_single_slice(
    reference: Mask, prediction: Mask, spacing_mm: tuple[float, ...]
) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Turn a 3D array with one slice into its plane: else each of its voxels would be a surface in 3D."""
    if reference.ndim != 3 or 1 not in reference.shape:
        return reference, prediction, spacing_mm
    axis = reference.shape.index(1)
    plane_spacing_mm = spacing_mm[:axis] + spacing_mm[axis + 1 :]
    return reference.squeeze(axis), prediction.squeeze(axis), plane_spacing_mm


def _joint_box(reference: Mask, prediction: Mask) -> tuple[slice, ...]:
    """Return the smallest box around both masks; an empty one where both are empty."""
    boxes = ndimage.find_objects((reference | prediction).view(np.uint8), max_label=1)
    return boxes[0] if boxes[0] is not None else (slice(0, 0),) * reference.ndim


def _touches_border(box: tuple[slice, ...], shape: tuple[int, ...]) -> bool:
    spans = [(side, size) for side, size in zip(box, shape, strict=True) if side.stop > side.start]
    return any(side.start == 0 or side.stop == size for side, size in spans)


def _check_input(reference: Mask, prediction: Mask, spacing_mm: tuple[float, ...]) -> None:
    faults = []
    if reference.dtype != np.bool_ or prediction.dtype != np.bool_:
        faults.append(
            f"masks must be boolean, not {reference.dtype} and {prediction.dtype} (write `labels == 1`)"
        )
    if reference.shape != prediction.shape:
        faults.append(f"shapes {reference.shape} and {prediction.shape} differ")
    if reference.ndim not in (2, 3) or reference.size == 0:
        faults.append(f"masks must have 2 or 3 axes and hold voxels, not shape {reference.shape}")
    if len(spacing_mm) != reference.ndim:
        faults.append(f"{reference.ndim} axes need as many spacings, not {tuple(spacing_mm)}")
    if not all(math.isfinite(step) and step > 0 for step in spacing_mm):
        faults.append(f"spacing must be positive, not {tuple(spacing_mm)} mm")
    if faults:
        raise InputError("; ".join(faults))


def check_options(
    surface: Surface, percentile: float, tolerances_mm: tuple[float, ...], hd95: HD95Mode = "max"
) -> None:
    """Refuse options that `score_masks` cannot use, all faults in one message.

    Raises:
        InputError: names each option, its value and what is available.
    """
    faults = []
    if surface != "voxel":
        faults.append(f"surface '{surface}' is not available: choose 'voxel'")
    if hd95 not in ("max", "pooled"):
        faults.append(f"hd95 '{hd95}' is not known: choose 'max' or 'pooled'")
    if not 0 < percentile <= 100:
        faults.append(f"percentile must lie in (0, 100], not {percentile}")
    if not all(math.isfinite(tolerance) and tolerance >= 0 for tolerance in tolerances_mm):
        faults.append(f"tolerances must be 0 mm or more, not {tuple(tolerances_mm)}")
    if faults:
        raise InputError("; ".join(faults))

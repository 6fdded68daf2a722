"""All scores of one pair of masks.

Scores of empty masks:

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

from medunet.base.errors import InputError
from medunet.records.scores import HD95Mode, Status, Surface
from medunet.scoring.bits import find_box, memory_order, pack
from medunet.scoring.overlap import Confusion, count_confusion
from medunet.scoring.surface import (
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
    """All scores of one pair of masks. NaN is undefined; `nsd` is by tolerance in mm.

    Specificity, accuracy, balanced accuracy, MCC and kappa count the background. They grow with the field of view and
    cannot be compared across fields of view.
    """

    status: Status
    surface: Surface
    hd95: HD95Mode
    percentile: float  # of hd95_mm
    dice: float
    iou: float
    precision: float
    recall: float
    f1: float
    f2: float
    specificity: float
    accuracy: float
    balanced_accuracy: float
    mcc: float
    kappa: float
    hd_mm: float
    hd95_mm: float
    assd_mm: float
    masd_mm: float
    nsd: dict[float, float]
    reference_ml: float
    predicted_ml: float
    difference_ml: float  # predicted minus reference
    relative_difference: float  # relative to the reference's volume; undefined where the reference is empty
    tp: int
    fp: int
    fn: int
    tn: int
    touches_border: bool  # either mask reaches the edge of the grid, where the scan may cut off the structure


@dataclass(frozen=True)
class Crop:
    """Position of cropped masks in their grid, where all other voxels are background in both masks."""

    start: tuple[int, ...]
    shape: tuple[int, ...]  # of the whole grid
    num_ignored: int = 0  # voxels of the grid that are left out of all counts


def score_masks(
    reference: Mask,
    prediction: Mask,
    spacing_mm: tuple[float, ...],
    *,
    surface: Surface = "area",
    hd95: HD95Mode = "max",
    percentile: float = 95.0,
    tolerances_mm: tuple[float, ...] = (1.0, 2.0),
    crop: Crop | None = None,
) -> MaskScore:
    """Score a prediction against a reference on one grid, both boolean `(I, J, K)` or `(I, J)`.

    `spacing_mm[i]` belongs to axis i. In a 3D array with a single slice, distances are measured in 2D within the
    slice, and volumes with the slice thickness. A 2D array has no volume: its ml are NaN. `surface` is "area"
    (google-deepmind/surface-distance) or "voxel" (MONAI, MetricsReloaded, MedPy), `hd95` "max" of the two directed
    percentiles or "pooled". With `crop`, the masks are part of a larger grid, and the scores are those of that grid.

    Raises:
        InputError: the masks are not boolean or differ in shape, or an option cannot be used.
    """
    check_masks(reference, prediction, spacing_mm)
    check_options(surface, percentile, tolerances_mm, hd95)
    crop = crop or Crop((0,) * reference.ndim, reference.shape)
    voxel_ml = math.prod(spacing_mm) / 1000 if reference.ndim == 3 else math.nan
    # Cropping does not change the result: outside the box both masks are background, as outside the grid, so every
    # surface element keeps its neighbours and its nearest element of the other surface.
    box = find_box(reference, prediction)
    cropped = [mask[box] for mask in (reference, prediction)]
    if (flat := find_flat_axis(crop.shape)) is not None:
        cropped = [np.asarray(mask.any(axis=flat)) for mask in cropped]
        spacing_mm = spacing_mm[:flat] + spacing_mm[flat + 1 :]
    order = memory_order(cropped[0])
    voxels = [pack(mask.transpose(order)) for mask in cropped]
    counts = count_confusion(voxels[0], voxels[1], math.prod(crop.shape) - crop.num_ignored)
    status = _status(counts)
    if status == "ok":
        steps_mm = tuple(spacing_mm[axis] for axis in order)
        between = measure_distances(voxels[0], voxels[1], steps_mm, surface)
        hd_mm = compute_hausdorff(*between)
        hd95_mm = compute_robust_hausdorff(*between, percentile, hd95, surface)
        assd_mm = compute_average_symmetric_distance(*between)
        masd_mm = compute_mean_average_distance(*between)
        nsd = {tolerance: compute_surface_dice(*between, tolerance) for tolerance in tolerances_mm}
    else:
        undefined = status == "both_empty"
        hd_mm = hd95_mm = assd_mm = masd_mm = math.nan if undefined else math.inf
        nsd = dict.fromkeys(tolerances_mm, math.nan if undefined else 0.0)
    num_reference, num_predicted = counts.tp + counts.fn, counts.tp + counts.fp
    return MaskScore(
        status=status,
        surface=surface,
        hd95=hd95,
        percentile=percentile,
        dice=counts.dice,
        iou=counts.iou,
        precision=counts.precision,
        recall=counts.recall,
        f1=counts.dice,
        f2=counts.f_beta(2),
        specificity=counts.specificity,
        accuracy=counts.accuracy,
        balanced_accuracy=counts.balanced_accuracy,
        mcc=counts.mcc,
        kappa=counts.kappa,
        hd_mm=hd_mm,
        hd95_mm=hd95_mm,
        assd_mm=assd_mm,
        masd_mm=masd_mm,
        nsd=nsd,
        reference_ml=num_reference * voxel_ml,
        predicted_ml=num_predicted * voxel_ml,
        difference_ml=(num_predicted - num_reference) * voxel_ml,
        relative_difference=(num_predicted - num_reference) / num_reference if num_reference else math.nan,
        tp=counts.tp,
        fp=counts.fp,
        fn=counts.fn,
        tn=counts.tn,
        touches_border=_touches_border(box, crop),
    )


def _status(counts: Confusion) -> Status:
    if counts.tp + counts.fp + counts.fn == 0:
        return "both_empty"
    if counts.tp + counts.fp == 0:
        return "missed"
    if counts.tp + counts.fn == 0:
        return "false_positive"
    return "ok"


def find_flat_axis(shape: tuple[int, ...]) -> int | None:
    """Return the axis along which a 3D grid has a single slice, if any.

    Such a grid is measured in 2D: in 3D every voxel would be surface.
    """
    return shape.index(1) if len(shape) == 3 and 1 in shape else None


def _touches_border(box: tuple[slice, ...], crop: Crop) -> bool:
    flat = find_flat_axis(crop.shape)
    spans = [
        (side.start + start, side.stop + start, size)
        for axis, (side, start, size) in enumerate(zip(box, crop.start, crop.shape, strict=True))
        if axis != flat and side.stop > side.start
    ]
    return any(low == 0 or high == size for low, high, size in spans)


def check_masks(reference: Mask, prediction: Mask, spacing_mm: tuple[float, ...]) -> None:
    """Check that masks can be scored.

    Raises:
        InputError: they cannot; the message lists every reason.
    """
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
    """Check that `score_masks` can use these options.

    Raises:
        InputError: it cannot; the message names each option, its value and the allowed values.
    """
    faults = []
    if surface not in ("area", "voxel"):
        faults.append(f"surface '{surface}' does not exist: choose 'area' or 'voxel'")
    if hd95 not in ("max", "pooled"):
        faults.append(f"hd95 '{hd95}' does not exist: choose 'max' or 'pooled'")
    if not 0 < percentile <= 100:
        faults.append(f"percentile must lie in (0, 100], not {percentile}")
    if not all(math.isfinite(tolerance) and tolerance >= 0 for tolerance in tolerances_mm):
        faults.append(f"tolerances must be 0 mm or more, not {tuple(tolerances_mm)}")
    if faults:
        raise InputError("; ".join(faults))

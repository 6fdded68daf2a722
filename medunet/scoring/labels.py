"""Scores of one case: compare a predicted with a reference label map, target by target, matched by name."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from medunet.base.errors import InputError
from medunet.records.scores import CaseLesions, CaseScore, HD95Mode, LesionPreset, Surface
from medunet.scoring.bits import find_box
from medunet.scoring.cldice import check_available, compute_cldice
from medunet.scoring.lesions import score_lesions
from medunet.scoring.masks import Crop, check_options, find_flat_axis, score_masks
from medunet.scoring.notes import BORDER
from medunet.scoring.swaps import find_swaps
from medunet.scoring.target_masks import Labels, find_boxes, mask_of, widen

Targets = Mapping[str, tuple[int, ...]]  # target name -> its label values

_MANY_TARGETS = 8  # from this number on, finding the boxes of all targets in one pass is faster
_CERTAIN_IOU = 0.5  # above this IoU no other mask can overlap better


@dataclass(frozen=True)
class ScoreOptions:
    """Options of `score_masks`, and the targets that also get lesion scores or clDice."""

    surface: Surface = "area"
    hd95: HD95Mode = "max"
    percentile: float = 95.0
    tolerances_mm: tuple[float, ...] = (1.0, 2.0)
    lesions: Mapping[str, LesionPreset] = field(default_factory=dict)  # target name -> lesion rules
    tubes: tuple[str, ...] = ()  # targets that get clDice


def score_labels(
    reference: Labels,
    prediction: Labels,
    spacing_mm: tuple[float, ...],
    targets_reference: Targets,
    targets_prediction: Targets,
    case: str,
    options: ScoreOptions | None = None,
    *,
    ignore_value: int | None = None,
    slice_axis: int = 2,
    numbers_reference: Labels | None = None,
    numbers_prediction: Labels | None = None,
) -> list[CaseScore]:
    """Score every target that both label maps `(I, J, K)` or `(I, J)` have, also if their label values differ.

    Voxels with `ignore_value` in the reference (see `Description.ignore_value`) are left out: they belong to neither
    mask nor to the background, and count as neither correct nor wrong. Where both masks extend into ignored voxels,
    both surfaces run along their border, at a distance of 0. Targets that look swapped get a note. Lesion axes are
    measured in the slices along `slice_axis`, the axial ones. `numbers_...` are maps of the same shape with the
    numbers of a side's objects, which are then its lesions (see `score_lesions`).

    Raises:
        InputError: the maps have no target in common, differ in shape or do not hold integers, or an option cannot be
            used (see `score_masks`).
    """
    options = options or ScoreOptions()
    names = find_common_targets(targets_reference, targets_prediction)
    check_names(options, names)
    _check_labels(reference, prediction)
    box = widen(find_box(reference, prediction), reference.shape)
    truth, predicted = reference[box], prediction[box]
    kept = None if ignore_value is None else truth != ignore_value
    num_ignored = 0 if ignore_value is None else _count_value(reference, truth, ignore_value)
    penalty_mm = field_of_view_mm(reference.shape, spacing_mm)
    find_target_box = find_boxes(truth, predicted) if len(names) >= _MANY_TARGETS else None
    scores = []
    for name in names:
        values = targets_reference[name], targets_prediction[name]
        part = find_target_box(*values) if find_target_box else tuple(slice(0, size) for size in truth.shape)
        part_kept = None if kept is None else kept[part]
        mask_reference = mask_of(truth[part], values[0], part_kept)
        mask_prediction = mask_of(predicted[part], values[1], part_kept)
        crop = Crop(
            tuple(outer.start + inner.start for outer, inner in zip(box, part, strict=True)),
            reference.shape,
            num_ignored,
        )
        score = asdict(
            score_masks(
                mask_reference,
                mask_prediction,
                spacing_mm,
                surface=options.surface,
                hd95=options.hd95,
                percentile=options.percentile,
                tolerances_mm=options.tolerances_mm,
                crop=crop,
            )
        )
        lesions: CaseLesions | None = None
        if rules := options.lesions.get(name):
            numbers = [
                None if each is None else each[box][part] for each in (numbers_reference, numbers_prediction)
            ]
            lesions = score_lesions(
                mask_reference,
                mask_prediction,
                spacing_mm,
                rules,
                numbers_reference=numbers[0],
                numbers_prediction=numbers[1],
                surface=options.surface,
                hd95=options.hd95,
                percentile=options.percentile,
                slice_axis=slice_axis,
            )
            lesions = _shift_slices(lesions, crop.start[slice_axis] if reference.ndim == 3 else 0)
        is_tube = name in options.tubes
        cldice = compute_cldice(mask_reference, mask_prediction) if is_tube else math.nan
        notes = (BORDER,) if score.pop("touches_border") else ()
        scores.append(
            CaseScore(case, name, **score, cldice=cldice, notes=notes, penalty_mm=penalty_mm, lesions=lesions)
        )
    candidates = [score.label for score in scores if score.iou <= _CERTAIN_IOU]
    swaps = find_swaps(
        truth,
        predicted,
        {name: targets_reference[name] for name in candidates},
        {name: targets_prediction[name] for name in candidates},
        ignore_value=ignore_value,
    )
    return [replace(score, notes=(*score.notes, *swaps.get(score.label, ()))) for score in scores]


def find_common_targets(targets_reference: Targets, targets_prediction: Targets) -> list[str]:
    """Return the target names that both sides have, in the order of the reference.

    Raises:
        InputError: there are none.
    """
    names = [name for name in targets_reference if name in targets_prediction]
    if not names:
        raise InputError(
            f"the reference has the targets {list(targets_reference)}, the prediction {list(targets_prediction)}: "
            "no name is common to both",
            hint="Use the same label names in both descriptions.",
        )
    return names


def check_names(options: ScoreOptions, names: list[str]) -> None:
    """Check that the options can be used with targets of these names.

    Raises:
        InputError: they cannot; the message names each option.
    """
    check_options(options.surface, options.percentile, options.tolerances_mm, options.hd95)
    for where, requested in (("lesions", options.lesions), ("tubes", options.tubes)):
        if unknown := [name for name in requested if name not in names]:
            raise InputError(f"no target is named {unknown}", where=where, hint=f"Choose from {names}.")
    if options.tubes:
        check_available()


def field_of_view_mm(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> float:
    """Return the diagonal of the field of view in mm; of a single slice, the diagonal within its plane."""
    sides = [size * step for size, step in zip(shape, spacing_mm, strict=True)]
    if (flat := find_flat_axis(shape)) is not None:
        del sides[flat]
    return math.hypot(*sides)


def _count_value(labels: Labels, cropped: Labels, value: int) -> int:
    """Count the voxels of a value; `cropped` holds all nonzero voxels of `labels`."""
    if value == 0:
        return labels.size - int(np.count_nonzero(cropped))
    return int(np.count_nonzero(cropped == value))


def _shift_slices(lesions: CaseLesions, start: int) -> CaseLesions:
    """Return lesions measured in a box with slice indices of the whole grid; the box starts at slice `start`."""
    moved = (replace(lesion, slice_index=lesion.slice_index + start) for lesion in lesions.lesions)
    return replace(lesions, lesions=tuple(moved))


def _check_labels(reference: Labels, prediction: Labels) -> None:
    faults = []
    if reference.shape != prediction.shape:
        faults.append(f"shapes {reference.shape} and {prediction.shape} differ")
    if reference.ndim not in (2, 3):
        faults.append(f"label maps must have 2 or 3 axes, not shape {reference.shape}")
    if reference.dtype.kind not in "biu" or prediction.dtype.kind not in "biu":
        faults.append(f"label maps must hold integers, not {reference.dtype} and {prediction.dtype}")
    if faults:
        raise InputError("; ".join(faults))

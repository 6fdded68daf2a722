"""Scores of one case: a label map of any tool against a reference label map, target by target, joined by name."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.base.errors import InputError
from medunet.records.scores import CaseLesions, CaseScore, HD95Mode, LesionPreset, Surface
from medunet.scoring.bits import find_box, memory_order
from medunet.scoring.lesions import score_lesions
from medunet.scoring.masks import Cut, check_options, find_flat_axis, score_masks
from medunet.scoring.notes import BORDER
from medunet.scoring.swaps import find_swaps
from medunet.scoring.tubes import check_available, compute_cldice

Targets = Mapping[str, tuple[int, ...]]  # label values that each target unites, by its name
Labels = NDArray[np.integer]
Box = tuple[slice, ...]

_MANY_TARGETS = 8  # from here on one pass that finds all their boxes is quicker
_LARGEST_LISTED = 65_535
_NUM_COMPARED = 4  # label values of a target: for more a table is quicker
_SURE = 0.5  # an IoU above which no other mask can overlap better


@dataclass(frozen=True)
class ScoreOptions:
    """What is measured: as `score_masks` takes it, and the rules for the lesions of the targets that have any."""

    surface: Surface = "area"
    hd95: HD95Mode = "max"
    percentile: float = 95.0
    tolerances_mm: tuple[float, ...] = (1.0, 2.0)
    lesions: Mapping[str, LesionPreset] = field(default_factory=dict)
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
) -> list[CaseScore]:
    """Score every target that both label maps `(I, J, K)` or `(I, J)` declare, whatever value either writes it with.

    Voxels that the reference gives `ignore_value` (see `Description.ignore_value`) are left out: they are taken from
    both masks and from the background, so that they are neither right nor wrong. Where both masks go on into them,
    the cut is a surface of both, at a distance of 0. Targets that look swapped have a note on it. `slice_axis`
    is that of the axial slices, which lesions are measured in.

    Raises:
        InputError: no target is common, the maps differ in shape or hold no integers, or as `score_masks`.
    """
    options = options or ScoreOptions()
    names = find_common_targets(targets_reference, targets_prediction)
    check_names(options, names)
    _check_labels(reference, prediction)
    box = _widen(find_box(reference, prediction), reference.shape)
    inside, found = reference[box], prediction[box]
    kept = None if ignore_value is None else inside != ignore_value
    num_ignored = 0 if ignore_value is None else _count_value(reference, inside, ignore_value)
    penalty_mm = field_of_view_mm(reference.shape, spacing_mm)
    enclose = _find_boxes(inside, found) if len(names) >= _MANY_TARGETS else None
    scores = []
    for name in names:
        values = targets_reference[name], targets_prediction[name]
        part = enclose(*values) if enclose else tuple(slice(0, size) for size in inside.shape)
        part_kept = None if kept is None else kept[part]
        mask_reference = _mask_of(inside[part], values[0], part_kept)
        mask_prediction = _mask_of(found[part], values[1], part_kept)
        cut = Cut(
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
                cut=cut,
            )
        )
        lesions: CaseLesions | None = None
        if rules := options.lesions.get(name):
            lesions = score_lesions(
                mask_reference,
                mask_prediction,
                spacing_mm,
                rules,
                surface=options.surface,
                hd95=options.hd95,
                percentile=options.percentile,
                slice_axis=slice_axis,
            )
            lesions = _shift_slices(lesions, cut.start[slice_axis] if reference.ndim == 3 else 0)
        is_tube = name in options.tubes
        cldice = compute_cldice(mask_reference, mask_prediction) if is_tube else math.nan
        notes = (BORDER,) if score.pop("touches_border") else ()
        scores.append(
            CaseScore(case, name, **score, cldice=cldice, notes=notes, penalty_mm=penalty_mm, lesions=lesions)
        )
    doubtful = [score.label for score in scores if score.iou <= _SURE]
    swaps = find_swaps(
        inside,
        found,
        {name: targets_reference[name] for name in doubtful},
        {name: targets_prediction[name] for name in doubtful},
        ignore_value=ignore_value,
    )
    return [replace(score, notes=(*score.notes, *swaps.get(score.label, ()))) for score in scores]


def find_common_targets(targets_reference: Targets, targets_prediction: Targets) -> list[str]:
    """Return the names that both sides declare, in the reference's order.

    Raises:
        InputError: there is none.
    """
    names = [name for name in targets_reference if name in targets_prediction]
    if not names:
        raise InputError(
            f"the reference declares {list(targets_reference)} and the prediction {list(targets_prediction)}: "
            "no name is common",
            hint="Name the labels alike in both descriptions.",
        )
    return names


def check_names(options: ScoreOptions, names: list[str]) -> None:
    """Refuse options that cannot be used on targets of these names.

    Raises:
        InputError: names each option.
    """
    check_options(options.surface, options.percentile, options.tolerances_mm, options.hd95)
    for where, asked in (("lesions", options.lesions), ("tubes", options.tubes)):
        if unknown := [name for name in asked if name not in names]:
            raise InputError(f"no target is named {unknown}", where=where, hint=f"Choose from {names}.")
    if options.tubes:
        check_available()


def field_of_view_mm(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> float:
    """Return the diagonal of the field of view, in the plane where there is a single slice."""
    sides = [size * step for size, step in zip(shape, spacing_mm, strict=True)]
    if (flat := find_flat_axis(shape)) is not None:
        del sides[flat]
    return math.hypot(*sides)


def _widen(box: Box, shape: tuple[int, ...]) -> Box:
    """Return a box at least two voxels wide where the grid is: lesions in a box of one slice are measured in 2D."""
    sides = []
    for side, size in zip(box, shape, strict=True):
        start, stop = side.start, max(side.stop, side.start + 1)
        if stop - start == 1 and size > 1:
            start, stop = (start, stop + 1) if stop < size else (start - 1, stop)
        sides.append(slice(start, stop))
    return tuple(sides)


def _find_boxes(
    reference: Labels, prediction: Labels
) -> Callable[[tuple[int, ...], tuple[int, ...]], Box] | None:
    """Return what gives the box around some values of each map, each map read once; None where values are too high.

    With many targets, looking for each in the whole map takes longer than all of its scores.
    """
    found = []
    for labels in (reference, prediction):
        if labels.min(initial=0) < 0 or labels.max(initial=0) > _LARGEST_LISTED:  # SciPy's list is as long
            return None
        order = memory_order(labels)
        boxes = ndimage.find_objects(labels.transpose(order).astype(np.int32, copy=False))
        back = np.argsort(order)
        found.append([box and tuple(box[axis] for axis in back) for box in boxes])

    def enclose(*values: tuple[int, ...]) -> Box:
        boxes = [
            listed[value - 1]
            for listed, wanted in zip(found, values, strict=True)
            for value in wanted
            if 0 < value <= len(listed) and listed[value - 1]
        ]
        sides = zip(*boxes, strict=True) if boxes else [[slice(0, 0)]] * reference.ndim
        joined = [slice(min(side.start for side in each), max(side.stop for side in each)) for each in sides]
        return _widen(tuple(joined), reference.shape)

    return enclose


def _mask_of(labels: Labels, values: tuple[int, ...], kept: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    if 0 < len(values) <= _NUM_COMPARED:
        mask = labels == values[0]
        for value in values[1:]:
            mask |= labels == value
    else:
        order = memory_order(labels)  # NumPy's own is C order, and copying to it takes longer than looking
        mask = np.isin(labels.transpose(order), values).transpose(np.argsort(order))
    if kept is not None:
        mask &= kept
    return mask


def _count_value(labels: Labels, inside: Labels, value: int) -> int:
    """Count the voxels of a value, of which those above 0 all lie `inside` the labels' box."""
    if value == 0:
        return labels.size - int(np.count_nonzero(inside))
    return int(np.count_nonzero(inside == value))


def _shift_slices(lesions: CaseLesions, start: int) -> CaseLesions:
    """Return lesions that were measured in a box with the slices of the grid that it was cut from."""
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

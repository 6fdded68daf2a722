"""Scores of single lesions: which are found, how well, and how large they are (rules: `lesion_presets`).

The axes are the diameters that a reader measures in one axial slice: the long axis is the longest diameter, the short
axis the longest diameter perpendicular to it. They end at the midpoints of the outer pixel edges, like the mesh that
PyRadiomics measures: a single pixel of 1 mm is 1 mm long, a straight row of ten is 10 mm long. Both are measured on
the convex hull, so they may cross a notch.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull

from medunet.base.errors import InputError
from medunet.records.scores import CaseLesions, HD95Mode, Lesion, LesionPreset, Surface
from medunet.scoring.lesion_presets import (
    PRESETS,
    Labels,
    LesionRules,
    Mask,
    Match,
    find_lesions_in_box,
    match_lesions,
)
from medunet.scoring.masks import Crop, MaskScore, check_masks, check_options, score_masks

Box = tuple[slice, ...]

SIZE_CLASSES = (  # diameter in mm below which a lesion is in the class, and its name
    (5.0, "under 5 mm"),
    (10.0, "5 to 10 mm"),
    (20.0, "10 to 20 mm"),
    (math.inf, "20 mm or more"),
)


@dataclass(frozen=True)
class Axes:
    """A lesion's diameters in mm in the slice where the long one is longest."""

    long_mm: float
    short_mm: float
    slice_index: int


@dataclass(frozen=True)
class SizeClassDetection:
    """Number of reference lesions of one size class, and how many of them were found."""

    size_class: str
    num_lesions: int
    num_detected: int
    rate: float  # NaN if there are none


def score_lesions(
    reference: Mask,
    prediction: Mask,
    spacing_mm: tuple[float, ...],
    preset: LesionPreset,
    *,
    surface: Surface = "area",
    hd95: HD95Mode = "max",
    percentile: float = 95.0,
    slice_axis: int = 2,
    numbers_reference: Labels | None = None,
    numbers_prediction: Labels | None = None,
) -> CaseLesions:
    """Score the lesions of a predicted mask against a reference on one grid, both boolean `(I, J, K)` or `(I, J)`.

    The lesions of a side are the connected components of its mask or, with `numbers_...`, a map of the same shape,
    the voxels of each number within the mask: touching objects stay apart, and several parts of one number are one
    object.

    `surface`, `hd95` and `percentile` are those of `score_masks`; published BraTS results use the defaults.
    `slice_axis` is the axis along which axial slices are numbered; a 2D image is one slice. Lesions of a 2D image
    have no volume (NaN ml), so rules that leave out small lesions need 3D.

    Lesions are in array order, or by their numbers: first those of the reference, then the false positives. RQ, SQ
    and PQ use the matches of the rules, so RQ equals F1. Without any match SQ is undefined and PQ is 0.

    Raises:
        InputError: the masks are not boolean or differ in shape, or an option cannot be used.
    """
    check_options(surface, percentile, (), hd95)
    check_masks(reference, prediction, spacing_mm)
    _check_rules(preset, reference.ndim, slice_axis)
    rules = PRESETS[preset]
    num_axes, shape = reference.ndim, reference.shape
    maps, start = find_lesions_in_box(reference, prediction, rules, numbers_reference, numbers_prediction)
    boxes = ndimage.find_objects(maps.reference)
    predicted_boxes = ndimage.find_objects(maps.prediction)
    voxel_mm3 = math.prod(spacing_mm) if num_axes == 3 else math.nan
    spacing_3d = (*spacing_mm, *(1.0,) * (3 - num_axes))

    def compare(match: Match) -> MaskScore:
        around = _unite(
            [boxes[n - 1] for n in match.references] + [predicted_boxes[n - 1] for n in match.predictions]
        )
        mask_reference = np.isin(maps.reference[around], match.references)
        mask_prediction = np.isin(maps.prediction[around], match.predictions)
        corner = tuple(offset + side.start for offset, side in zip(start, around, strict=False))
        return score_masks(
            mask_reference.reshape(mask_reference.shape[:num_axes]),
            mask_prediction.reshape(mask_prediction.shape[:num_axes]),
            spacing_mm,
            surface=surface,
            hd95=hd95,
            percentile=percentile,
            tolerances_mm=(),
            crop=Crop(corner, shape),  # a lesion within one slice of many is still measured in 3D
        )

    def measure(mask: Mask, box: Box) -> Axes:
        axes = measure_axes(mask, spacing_3d, slice_axis if num_axes == 3 else 2)
        first = start[slice_axis] + box[slice_axis].start if num_axes == 3 else 0
        return Axes(axes.long_mm, axes.short_mm, first + axes.slice_index)

    scores: dict[int, MaskScore] = {}  # by number of the reference lesion
    found: set[int] = set()
    compared: list[MaskScore] = []
    for match in match_lesions(maps, rules):
        compared.append(compare(match))
        scores |= dict.fromkeys(match.references, compared[-1])
        found |= set(match.predictions)

    lesions = []
    for number, (around, size) in enumerate(zip(boxes, maps.reference_sizes.tolist(), strict=True), start=1):
        axes = measure(maps.reference[around] == number, around)
        score = scores.get(number)
        lesions.append(
            Lesion(
                number=number,
                status="matched" if score else "missed",
                dice=score.dice if score else 0.0,
                hd95_mm=score.hd95_mm if score else math.inf,
                reference_ml=size * voxel_mm3 / 1000,
                predicted_ml=score.predicted_ml if score else 0 * voxel_mm3,
                long_axis_mm=axes.long_mm,
                short_axis_mm=axes.short_mm,
                slice_index=axes.slice_index,
                counted=not size * voxel_mm3 <= rules.ignored_mm3,  # a NaN volume, in 2D, counts
            )
        )
    for component, (around, size) in enumerate(
        zip(predicted_boxes, maps.prediction_sizes.tolist(), strict=True), start=1
    ):
        if component not in found:
            axes = measure(maps.prediction[around] == component, around)
            lesions.append(
                Lesion(
                    number=len(lesions) + 1,
                    status="false_positive",
                    dice=0.0,
                    hd95_mm=math.inf,
                    reference_ml=0 * voxel_mm3,
                    predicted_ml=size * voxel_mm3 / 1000,
                    long_axis_mm=axes.long_mm,
                    short_axis_mm=axes.short_mm,
                    slice_index=axes.slice_index,
                )
            )
    ious = {number: score.iou for number, score in scores.items()}
    return _summarise(preset, rules, lesions, ious, compared)


def measure_axes(mask: Mask, spacing_mm: tuple[float, ...], slice_axis: int = 2) -> Axes:
    """Return the axes of a lesion, a mask `(I, J, K)` that is not empty, in the slice with the longest diameter.

    If several slices are equal, the first is used.
    """
    in_plane_mm = np.array([step for axis, step in enumerate(spacing_mm) if axis != slice_axis])
    longest = Axes(0.0, 0.0, -1)
    for index, plane in enumerate(np.moveaxis(mask, slice_axis, 0)):
        if plane.any():
            long_mm, short_mm = _measure_diameters(_find_hull(plane, in_plane_mm))
            if long_mm > longest.long_mm:
                longest = Axes(long_mm, short_mm, index)
    return longest


def size_class(volume_ml: float) -> str | None:
    """Return the size class of a lesion by the diameter of a sphere of its volume; None for NaN, the volume in 2D."""
    diameter_mm = math.cbrt(6 * volume_ml * 1000 / math.pi)
    return next((name for limit_mm, name in SIZE_CLASSES if diameter_mm < limit_mm), None)


def detection_by_size(lesions: Sequence[Lesion]) -> list[SizeClassDetection]:
    """Count the reference lesions of any number of cases, and those found, in each size class.

    Lesions that the rules leave out, and those of 2D images, which have no volume, are in no class.
    """
    counted = [lesion for lesion in lesions if lesion.counted and lesion.status != "false_positive"]
    rows = []
    for _, name in SIZE_CLASSES:
        own = [lesion.status == "matched" for lesion in counted if size_class(lesion.reference_ml) == name]
        rows.append(SizeClassDetection(name, len(own), sum(own), _ratio(sum(own), len(own))))
    return rows


def _summarise(
    preset: LesionPreset,
    rules: LesionRules,
    lesions: Sequence[Lesion],
    ious: dict[int, float],
    compared: Sequence[MaskScore],
) -> CaseLesions:
    counted = [lesion for lesion in lesions if lesion.counted]
    matched = [lesion for lesion in counted if lesion.status == "matched"]
    num_matched = len(matched)
    num_missed = sum(lesion.status == "missed" for lesion in counted)
    num_false_positive = len(counted) - num_matched - num_missed
    f1 = _ratio(2 * num_matched, 2 * num_matched + num_missed + num_false_positive)
    sum_iou = sum(ious[lesion.number] for lesion in matched)
    # With a penalty, average over all lesions that count; otherwise over the matches, where a group counts once.
    scored: Sequence[MaskScore | Lesion] = compared if rules.penalty_mm is None else counted
    distances_mm = [entry.hd95_mm for entry in scored]
    if rules.penalty_mm is not None:
        distances_mm = [rules.penalty_mm if math.isinf(distance) else distance for distance in distances_mm]
    return CaseLesions(
        rules=preset,
        lesions=tuple(lesions),
        num_matched=num_matched,
        num_missed=num_missed,
        num_false_positive=num_false_positive,
        sensitivity=_ratio(num_matched, num_matched + num_missed),
        precision=_ratio(num_matched, num_matched + num_false_positive),
        f1=f1,
        dice=_ratio(sum(entry.dice for entry in scored), len(scored)) if counted else rules.empty_dice,
        hd95_mm=_ratio(sum(distances_mm), len(scored)) if counted else rules.empty_hd95_mm,
        rq=f1,
        sq=_ratio(sum_iou, num_matched),
        pq=_ratio(sum_iou, num_matched + (num_missed + num_false_positive) / 2),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _unite(boxes: Iterable[Box]) -> Box:
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )


def _find_hull(plane: Mask, spacing_mm: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the vertices `(N, 2)` in mm of the convex hull of the midpoints of all pixel edges."""
    occupied = plane.any(axis=1)
    rows = np.flatnonzero(occupied).astype(np.float64)
    first = plane[occupied].argmax(axis=1).astype(np.float64)
    last = plane.shape[1] - 1.0 - plane[occupied, ::-1].argmax(axis=1)
    # Only the two ends of each row can be vertices of the hull.
    ends = [(rows, first - 0.5), (rows, last + 0.5)]
    sides = [(rows + step, end) for step in (-0.5, 0.5) for end in (first, last)]
    points = np.concatenate([np.stack(pair, axis=1) for pair in ends + sides]) * spacing_mm
    return points[ConvexHull(points).vertices]


def _measure_diameters(hull: NDArray[np.float64]) -> tuple[float, float]:
    """Return the longest diameter of a convex polygon `(N, 2)` and the longest chord perpendicular to it."""
    apart = np.linalg.norm(hull[:, None] - hull, axis=-1)
    start, end = np.unravel_index(apart.argmax(), apart.shape)
    long_mm = float(apart[start, end])
    x, y = (hull[end] - hull[start]) / long_mm
    along, across = ((hull - hull[start]) @ np.array([[x, -y], [y, x]])).T
    inner = np.ones(len(hull), dtype=bool)
    inner[[start, end]] = False

    def height(side: Mask) -> NDArray[np.float64]:
        """Return the extent of the polygon to one side of the diameter, at the position of each vertex along it."""
        corners = np.flatnonzero(side & inner)
        corners = corners[along[corners].argsort()]
        return np.interp(along, [0.0, *along[corners], long_mm], [0.0, *across[corners], 0.0])

    # The length of the chord is linear between vertices, so its maximum is at a vertex.
    return long_mm, float((height(across > 0) - height(across < 0)).max())


def _check_rules(preset: LesionPreset, num_axes: int, slice_axis: int) -> None:
    faults = []
    if preset not in PRESETS:
        faults.append(f"lesion rules '{preset}' do not exist: choose one of {', '.join(PRESETS)}")
    elif num_axes == 2 and PRESETS[preset].ignored_mm3:
        faults.append(f"lesion rules '{preset}' leave out lesions by volume, which a 2D image does not have")
    if slice_axis not in (0, 1, 2):
        faults.append(f"slice_axis must be 0, 1 or 2, not {slice_axis}")
    if faults:
        raise InputError("; ".join(faults))

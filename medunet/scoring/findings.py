"""What a reader should look at on a case: the errors of a predicted label map, worst first.

For each target these are the largest distance between the two surfaces, which is the score HD; every missed and every
false positive lesion, by the rules that scored them; and the largest connected component of the false
negative and of the false positive voxels that are left without these lesions.

The order is: errors of targets that are missed or invented as a whole, by volume; missed and false positive lesions,
by volume; surface distances, by length; components of wrong voxels, by volume. In pictures, area stands for volume.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.imaging.components import label_components
from medunet.records.finding import Finding, FindingKind, Voxel
from medunet.records.scores import LesionPreset, Surface
from medunet.scoring.bits import find_box, memory_order, pack
from medunet.scoring.lesion_presets import PRESETS, Labels, find_lesions_in_box, match_lesions
from medunet.scoring.lesions import measure_axes
from medunet.scoring.masks import Mask, find_flat_axis
from medunet.scoring.stored_order import StoredOrder
from medunet.scoring.surface import WorstDistance, find_worst_distance
from medunet.scoring.target_masks import find_boxes, mask_of, widen

Unit = Literal["mm", "px"]  # px: a 2D picture without position in a patient


class _Ranked(NamedTuple):
    """An error with its place in the order: by `tier`, then by falling `size`."""

    tier: int
    size: float
    finding: Finding


class _Part(NamedTuple):
    """Connected wrong voxels or a lesion: its mask in its own box, which lies at `place` in the target's box."""

    kind: FindingKind
    mask: Mask
    place: tuple[slice, ...]
    size: float  # mm³, px² in pictures
    slice_index: int  # of the mask, along the slice axis: the slice to show
    long_axis_mm: float = math.nan
    lesion: int | None = None


def find_errors(
    reference: Labels,
    prediction: Labels,
    targets: Mapping[str, tuple[int, ...]],
    spacing_mm: tuple[float, float, float],
    *,
    rules: Mapping[str, LesionPreset] | None = None,
    unit: Unit = "mm",
    surface: Surface = "area",
    ignore_value: int | None = None,
    stored_codes: str = "RAS",
    numbers_reference: Labels | None = None,
    numbers_prediction: Labels | None = None,
) -> list[Finding]:
    """Return the errors of a predicted label map, worst first (see above).

    Args:
        reference: label map `(I, J, K)` in RAS+ axis order, not modified.
        prediction: label map on the same grid.
        targets: target name -> its label values.
        spacing_mm: voxel size along each axis; in pictures the size of a pixel, usually 1.
        rules: target name -> lesion rules; targets that are not named have no lesions.
        unit: "px" for a 2D picture `(I, J, 1)`, whose lesions have no volume.
        surface: how distances are measured (see `surface`); the length is `score_masks(...).hd_mm` in this way.
        ignore_value: voxels with this value in the reference belong to no mask.
        stored_codes: axis codes, such as "LPS", of the files that were scored: lesions are numbered in their order,
            as in lesions.csv.
        numbers_reference: map of the numbers of the reference's objects, which are then its lesions.
        numbers_prediction: map of the numbers of the predicted objects.

    Raises:
        AssertionError: the maps differ in shape.
    """
    assert reference.shape == prediction.shape, f"shapes {reference.shape} and {prediction.shape} differ"
    turn = StoredOrder(stored_codes, reference.shape)
    truth, found = turn.to_stored(reference), turn.to_stored(prediction)
    numbers = [
        None if each is None else turn.to_stored(each) for each in (numbers_reference, numbers_prediction)
    ]
    steps_mm = tuple(float(spacing_mm[axis]) for axis in turn.axes)
    slice_axis = turn.axes.index(2)
    box = widen(find_box(truth, found), truth.shape)
    find_target_box = find_boxes(truth[box], found[box])
    ranked: list[_Ranked] = []
    for name, values in targets.items():
        part = box
        if find_target_box:
            inner = find_target_box(values, values)
            part = tuple(
                slice(outer.start + own.start, outer.start + own.stop)
                for outer, own in zip(box, inner, strict=True)
            )
        kept = None if ignore_value is None else truth[part] != ignore_value
        case = _TargetErrors(
            name,
            mask_of(truth[part], values, kept),
            mask_of(found[part], values, kept),
            steps_mm,
            slice_axis,
            unit,
            truth.shape,
            tuple(side.start for side in part),
        )
        ranked += case.find(
            (rules or {}).get(name), surface, *(None if each is None else each[part] for each in numbers)
        )
    ranked.sort(
        key=lambda error: (error.tier, -error.size)
    )  # stable: equal errors in the order of the targets
    return [turn.from_stored(error.finding) for error in ranked]


class _TargetErrors:
    """The errors of one target, in a box of the stored grid that holds both of its masks."""

    def __init__(
        self,
        target: str,
        reference: Mask,
        prediction: Mask,
        spacing_mm: tuple[float, ...],
        slice_axis: int,
        unit: Unit,
        shape: tuple[int, ...],
        start: tuple[int, ...],
    ) -> None:
        self.target, self.reference, self.prediction = target, reference, prediction
        self.spacing_mm, self.slice_axis, self.unit = spacing_mm, slice_axis, unit
        self.shape, self.start = shape, start
        self.voxel_mm3 = math.prod(spacing_mm)

    def find(
        self,
        preset: LesionPreset | None,
        surface: Surface,
        numbers_reference: Labels | None,
        numbers_prediction: Labels | None,
    ) -> Iterator[_Ranked]:
        """Yield the errors in any order."""
        has_truth, has_found = bool(self.reference.any()), bool(self.prediction.any())
        is_whole = has_truth != has_found
        if has_truth and has_found and (distance := self._find_distance(surface)):
            yield _Ranked(2, distance.length_mm, distance)
        # A list, so that the maps of lesions are gone before other masks of this size are made.
        lesions = list(self._find_lesions(preset, numbers_reference, numbers_prediction)) if preset else []
        left: dict[FindingKind, Mask] = {  # wrong voxels that are not those of a listed lesion
            "false_negative": self.reference & ~self.prediction,
            "false_positive": self.prediction & ~self.reference,
        }
        for lesion in lesions:
            yield _Ranked(0 if is_whole else 1, lesion.size, self._describe(lesion))
            wrong = left["false_negative" if lesion.kind == "missed_lesion" else "false_positive"]
            wrong[lesion.place] &= ~lesion.mask
        for kind, wrong in left.items():
            if wrong.any():
                component = self._find_component(kind, wrong)
                yield _Ranked(0 if is_whole else 3, component.size, self._describe(component))

    def _find_distance(self, surface: Surface) -> Finding | None:
        """Return the largest surface distance; None if the masks are equal."""
        box = find_box(self.reference, self.prediction)
        masks = [mask[box] for mask in (self.reference, self.prediction)]
        flat = find_flat_axis(self.shape)
        kept = [axis for axis in range(3) if axis != flat]
        if flat is not None:
            masks = [np.asarray(mask.any(axis=flat)) for mask in masks]
        order = memory_order(masks[0])
        axes = [kept[axis] for axis in order]  # of the stored grid, in the order of the packed masks
        packed = [pack(mask.transpose(order)) for mask in masks]
        worst = find_worst_distance(
            packed[0], packed[1], tuple(self.spacing_mm[axis] for axis in axes), surface
        )
        if worst.mm == 0:
            return None
        start, end = self._choose_ends(worst, surface, axes, tuple(side.start for side in box))
        around = tuple((min(pair), max(pair) + 1) for pair in zip(start, end, strict=True))
        return self._finding("surface_distance", start, around, end=end, length_mm=worst.mm)

    def _choose_ends(
        self, worst: WorstDistance, surface: Surface, axes: list[int], corner: tuple[int, ...]
    ) -> tuple[Voxel, Voxel]:
        """Return voxels at both ends of a distance, as far apart as its elements, the first one a wrong voxel.

        Beside each surface element there are voxels inside and outside of its mask, and one of them is wrong, since
        the element is not on the other surface.
        """
        near = (-1, 0) if surface == "area" else (-1, 0, 1)
        shape = self.reference.shape
        choices = []
        for step in (
            np.stack(np.meshgrid(*[near] * len(axes), indexing="ij"), -1).reshape(-1, len(axes)).tolist()
        ):
            ends = []
            for element in (worst.start, worst.end):
                voxel = [0, 0, 0]
                for axis, index, offset in zip(axes, element, step, strict=True):
                    voxel[axis] = index + offset + corner[axis]
                ends.append(voxel)
            start, end = ends
            inside = [all(0 <= i < n for i, n in zip(voxel, shape, strict=True)) for voxel in ends]
            if inside[0] and self.reference[tuple(start)] != self.prediction[tuple(start)]:
                clipped = [min(max(i, 0), n - 1) for i, n in zip(end, shape, strict=True)]
                choices.append((not inside[1], sum(map(abs, step)), start, clipped))
        _, _, start, end = min(choices)
        return (start[0], start[1], start[2]), (end[0], end[1], end[2])

    def _find_lesions(
        self, preset: LesionPreset, numbers_reference: Labels | None, numbers_prediction: Labels | None
    ) -> Iterator[_Part]:
        """Yield missed lesions that count and false positives, numbered as `score_lesions` does."""
        rules = PRESETS[preset]
        shape = self.reference.shape[:2] if self.unit == "px" else self.reference.shape

        def flatten(array: NDArray) -> NDArray:
            return array.reshape(shape)

        maps, corner = find_lesions_in_box(
            flatten(self.reference),
            flatten(self.prediction),
            rules,
            None if numbers_reference is None else flatten(numbers_reference),
            None if numbers_prediction is None else flatten(numbers_prediction),
        )
        corner = (*corner, 0)[:3]
        matches = match_lesions(maps, rules)
        matched = {number for match in matches for number in match.references}
        found = {number for match in matches for number in match.predictions}
        num_lesions = len(maps.reference_sizes)

        def cut(
            kind: FindingKind, lesions: Labels, box: tuple[slice, ...], component: int, number: int
        ) -> _Part:
            mask = lesions[box] == component
            axes = measure_axes(mask, self.spacing_mm, self.slice_axis)
            place = tuple(
                slice(side.start + first, side.stop + first) for side, first in zip(box, corner, strict=True)
            )
            return _Part(kind, mask, place, self._size(mask), axes.slice_index, axes.long_mm, number)

        for number, box in enumerate(ndimage.find_objects(maps.reference), start=1):
            volume_mm3 = int(maps.reference_sizes[number - 1]) * self.voxel_mm3
            is_counted = self.unit == "px" or not volume_mm3 <= rules.ignored_mm3
            if number not in matched and is_counted:
                yield cut("missed_lesion", maps.reference, box, number, number)
        for component, box in enumerate(ndimage.find_objects(maps.prediction), start=1):
            if component not in found:
                num_lesions += 1
                yield cut("false_positive_lesion", maps.prediction, box, component, num_lesions)

    def _find_component(self, kind: FindingKind, wrong: Mask) -> _Part:
        """Return the largest 26-connected component of a mask that is not empty."""
        box = find_box(wrong)
        components, sizes = label_components(np.ascontiguousarray(wrong[box]), 26)
        is_largest = components == int(np.argmax(sizes)) + 1
        inner = find_box(is_largest)
        mask = is_largest[inner]
        place = tuple(
            slice(outer.start + own.start, outer.start + own.stop)
            for outer, own in zip(box, inner, strict=True)
        )
        others = tuple(axis for axis in range(3) if axis != self.slice_axis)
        return _Part(kind, mask, place, self._size(mask), int(mask.sum(axis=others).argmax()))

    def _size(self, mask: Mask) -> float:
        return int(np.count_nonzero(mask)) * self.voxel_mm3

    def _describe(self, part: _Part) -> Finding:
        """Return the finding of a part, with the centre in the middle of its slice."""
        plane = np.argwhere(np.take(part.mask, part.slice_index, axis=self.slice_axis))
        steps_mm = [step for axis, step in enumerate(self.spacing_mm) if axis != self.slice_axis]
        apart = np.square((plane - plane.mean(axis=0)) * steps_mm).sum(axis=1)
        inner = np.insert(plane[apart.argmin()], self.slice_axis, part.slice_index)
        i, j, k = (int(index) + side.start for index, side in zip(inner, part.place, strict=True))
        return self._finding(
            part.kind,
            (i, j, k),
            tuple((side.start, side.stop) for side in part.place),
            length_mm=part.long_axis_mm,
            volume_ml=math.nan if self.unit == "px" else part.size / 1000,
            lesion=part.lesion,
        )

    def _finding(
        self,
        kind: FindingKind,
        centre: Voxel,
        box: tuple[tuple[int, int], ...],
        *,
        end: Voxel | None = None,
        length_mm: float = math.nan,
        volume_ml: float = math.nan,
        lesion: int | None = None,
    ) -> Finding:
        """Return a finding of the whole stored grid from one of this target's box."""
        return Finding(
            kind=kind,
            target=self.target,
            centre=self._shift(centre),
            end=None if end is None else self._shift(end),
            length_mm=length_mm,
            volume_ml=volume_ml,
            box=tuple(
                (low + offset, high + offset) for (low, high), offset in zip(box, self.start, strict=True)
            ),
            lesion=lesion,
        )

    def _shift(self, voxel: Voxel) -> Voxel:
        i, j, k = (index + offset for index, offset in zip(voxel, self.start, strict=True))
        return i, j, k

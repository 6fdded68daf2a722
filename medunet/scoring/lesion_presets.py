"""Rules that define lesions and match predicted ones to those of the reference: the published ones in `PRESETS`.

- `brats2023` (glioma, Sub-Saharan Africa, paediatric), `brats2023_meningioma`, `brats2023_metastases`: the rules of
  the challenge as in its code, github.com/rachitsaluja/BraTS-2023-Metrics. Reference components that are joined by
  dilation are one lesion. Every predicted component that touches the dilated lesion belongs to it. One component may
  therefore belong to two lesions, and a lesion may be found with a Dice of 0. Small lesions of the reference do not
  count, and components that touch them are not false positives; false positives of any size count. Dice and HD95 are
  means over lesions and false positives, where each miss and false positive counts as 0 and 374 mm.
- `lits`, `lits_half`: the Liver Tumor Segmentation Benchmark (Bilic et al., Medical Image Analysis 2023), matched as
  in its lits-challenge-scoring. Components are face-connected. Lesions with the largest overlap with the same
  predicted component form a group; each predicted component is assigned to the group that it overlaps most. A group
  is found if its IoU with its components is above 0, or above 0.5, and is compared with them as one. Sensitivity and
  precision count single lesions and components. Dice and HD95 are means over the lesions found, as in the benchmark,
  so they mean little without sensitivity. There are two differences: all lesions of a group that is not found are
  missed (in the benchmark one of them), and the reference is not dilated in the axial plane, as in one version of the
  code.
- `panoptic`: Kirillov et al., CVPR 2019. 26-connected components are matched one to one at an IoU above 0.5, which at
  most one pair can reach; RQ, SQ and PQ = RQ·SQ. (panoptica also accepts exactly 0.5.) Dice and HD95 are means over
  the matched pairs, as in panoptica.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.imaging.components import Connectivity, label_components
from medunet.records.scores import LesionPreset
from medunet.scoring.bits import find_box

Matching = Literal["touch", "iou", "one_to_one"]
Mask = NDArray[np.bool_]
Labels = NDArray[np.integer]

_FACES_AND_EDGES = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionRules:
    """Rules for separating, matching and averaging lesions. In 2D, connectivity 6 becomes 4, and all others 8."""

    connectivity: Connectivity
    matching: Matching  # see `match_lesions`
    min_iou: float = 0.0  # "iou" and "one_to_one": a match must be above
    num_dilations: int = 0  # 18-connected: they join components to one lesion and extend its reach
    ignored_mm3: float = 0.0  # reference lesions up to this volume do not count
    penalty_mm: float | None = None  # HD95 of a miss or false positive; None: average over found lesions only
    empty_dice: float = math.nan  # if neither mask has a lesion that counts
    empty_hd95_mm: float = math.nan


_BRATS = LesionRules(
    connectivity=26,
    matching="touch",
    num_dilations=3,
    ignored_mm3=50.0,
    penalty_mm=374.0,
    empty_dice=1.0,
    empty_hd95_mm=0.0,
)
PRESETS: dict[LesionPreset, LesionRules] = {
    "brats2023": _BRATS,
    "brats2023_meningioma": replace(_BRATS, num_dilations=1),
    "brats2023_metastases": replace(_BRATS, num_dilations=1, ignored_mm3=2.0),
    "lits": LesionRules(connectivity=6, matching="iou"),
    "lits_half": LesionRules(connectivity=6, matching="iou", min_iou=0.5),
    "panoptic": LesionRules(connectivity=26, matching="one_to_one", min_iou=0.5),
}


@dataclass(frozen=True)
class LesionMaps:
    """The lesions of both masks as numbered maps `(I, J, K)`, 0 outside, and the number of voxels of each.

    `sizes[n - 1]` belongs to lesion n.
    """

    reference: Labels
    prediction: Labels
    touching: tuple[tuple[int, int], ...]  # each dilated reference lesion and predicted lesion that overlap
    reference_sizes: NDArray[np.integer]
    prediction_sizes: NDArray[np.integer]


@dataclass(frozen=True)
class Match:
    """Numbers of reference lesions and of the predicted lesions matched to them, which are compared as one."""

    references: tuple[int, ...]
    predictions: tuple[int, ...]


def find_lesions(
    reference: Mask,
    prediction: Mask,
    rules: LesionRules,
    numbers_reference: Labels | None = None,
    numbers_prediction: Labels | None = None,
) -> LesionMaps:
    """Number the lesions of two masks `(I, J, K)`: connected components in array order, or given objects.

    With `numbers_...`, the objects of a side are numbered from 1 in ascending order of their numbers there. Dilation
    joins components, but no objects.

    The masks may be cropped to a box that holds both. Dilated lesions that overlap or touch outside the box also do
    so inside it, since the voxel of the box nearest to a voxel of a dilation also belongs to the dilation.
    """
    predicted, predicted_sizes = _number(prediction, numbers_prediction, rules)
    lesions, sizes = _number(reference, numbers_reference, rules)
    if numbers_reference is not None:
        return LesionMaps(
            lesions, predicted, tuple(_touch(lesions, predicted, rules.num_dilations)), sizes, predicted_sizes
        )
    reach = lesions
    if rules.num_dilations:
        reach, _ = label_components(_dilate(reference, lesions, rules.num_dilations), rules.connectivity)
        lesions = np.where(reference, reach, 0)
        sizes = np.bincount(lesions.ravel())[1:]
    touching = tuple((lesion, component) for lesion, component, _ in _count_overlaps(reach, predicted))
    return LesionMaps(lesions, predicted, touching, sizes, predicted_sizes)


def find_lesions_in_box(
    reference: Mask,
    prediction: Mask,
    rules: LesionRules,
    numbers_reference: Labels | None = None,
    numbers_prediction: Labels | None = None,
) -> tuple[LesionMaps, tuple[int, ...]]:
    """Number the lesions of two masks `(I, J, K)` or `(I, J)` in the box that holds both (see `find_lesions`).

    Returns:
        The maps of the box, where 2D is one slice `(I, J, 1)`, and the first voxel of the box. The numbers do not
        depend on the memory order of the masks.
    """
    num_axes = reference.ndim
    box = find_box(reference, prediction)
    if box[0].start == box[0].stop:
        box = (slice(0, 1),) * num_axes  # both masks are empty: one voxel of background

    def crop(array: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(array[box]).reshape(
            *(side.stop - side.start for side in box), *(1,) * (3 - num_axes)
        )

    maps = find_lesions(
        crop(reference),
        crop(prediction),
        rules,
        None if numbers_reference is None else crop(numbers_reference),
        None if numbers_prediction is None else crop(numbers_prediction),
    )
    return maps, tuple(side.start for side in box)


def match_lesions(maps: LesionMaps, rules: LesionRules) -> list[Match]:
    """Return the reference lesions that are found, with the predicted lesions matched to them.

    "touch": every predicted lesion that touches. "iou": in groups, as in LiTS (see above). "one_to_one": pairs by
    descending IoU, each lesion at most once.
    """
    if rules.matching == "touch":
        return _match_by_touch(maps)
    if rules.matching == "iou":
        return _match_in_groups(maps, rules.min_iou)
    return _match_one_to_one(maps, rules.min_iou)


def _number(mask: Mask, numbers: Labels | None, rules: LesionRules) -> tuple[Labels, NDArray[np.integer]]:
    """Return the map of a mask's lesions, numbered from 1, and the number of voxels of each."""
    if numbers is None:
        return label_components(mask, rules.connectivity)
    present, indices, sizes = np.unique(numbers[mask], return_inverse=True, return_counts=True)
    assert present.size == 0 or present[0] > 0, "a voxel of the mask belongs to no object"
    lesions = np.zeros(mask.shape, np.int32)
    lesions[mask] = indices + 1
    return lesions, sizes


def _touch(lesions: Labels, predicted: Labels, num_dilations: int) -> Iterator[tuple[int, int]]:
    """Yield each object and predicted lesion that overlap after the object's own dilation, ascending."""
    for number, box in enumerate(ndimage.find_objects(lesions), start=1):
        wide = tuple(slice(max(side.start - num_dilations, 0), side.stop + num_dilations) for side in box)
        own = lesions[wide] == number
        if num_dilations:
            own = ndimage.binary_dilation(own, _FACES_AND_EDGES, iterations=num_dilations)
        yield from ((number, int(other)) for other in np.unique(predicted[wide][own]) if other)


def _dilate(mask: Mask, components: Labels, num_dilations: int) -> Mask:
    """Dilate a mask, each component within its own box, since most of a CT is empty."""
    dilated = mask.copy()
    for box in ndimage.find_objects(components):  # slicing cuts a box that ends outside the array
        wide = tuple(slice(max(side.start - num_dilations, 0), side.stop + num_dilations) for side in box)
        dilated[wide] |= ndimage.binary_dilation(mask[wide], _FACES_AND_EDGES, iterations=num_dilations)
    return dilated


def _count_overlaps(first: Labels, second: Labels) -> list[tuple[int, int, int]]:
    """Return each pair of numbers that overlap, ascending, and the number of voxels in common."""
    both = np.logical_and(first, second)
    width = int(second.max()) + 1
    codes, shared = np.unique(first[both].astype(np.int64) * width + second[both], return_counts=True)
    return [
        (code // width, code % width, num) for code, num in zip(codes.tolist(), shared.tolist(), strict=True)
    ]


def _match_by_touch(maps: LesionMaps) -> list[Match]:
    touching: dict[int, list[int]] = {}
    for lesion, component in maps.touching:
        touching.setdefault(lesion, []).append(component)
    return [Match((lesion,), tuple(components)) for lesion, components in touching.items()]


def _match_in_groups(maps: LesionMaps, min_iou: float) -> list[Match]:
    overlaps = _count_overlaps(maps.reference, maps.prediction)
    best: dict[
        int, tuple[int, int]
    ] = {}  # by lesion: the component with the largest overlap, and that overlap
    for lesion, component, shared in overlaps:
        if shared > best.get(lesion, (0, 0))[1]:
            best[lesion] = component, shared
    groups: dict[int, list[int]] = {}  # lesions with the same best component, by that component
    for lesion, (component, _) in best.items():
        groups.setdefault(component, []).append(lesion)

    shared_with: Counter[tuple[int, int]] = Counter()  # by component and group
    for lesion, component, shared in overlaps:
        shared_with[component, best[lesion][0]] += shared
    group_of: dict[int, int] = {}  # by component: the group that it overlaps most
    for (component, group), shared in shared_with.items():
        if component not in group_of or shared > shared_with[component, group_of[component]]:
            group_of[component] = group

    matches = []
    for group, lesions in groups.items():
        components = [component for component, assigned in group_of.items() if assigned == group]
        intersection = sum(shared_with[component, group] for component in components)
        union = sum(int(maps.reference_sizes[lesion - 1]) for lesion in lesions) - intersection
        union += sum(int(maps.prediction_sizes[component - 1]) for component in components)
        if intersection > min_iou * union:
            matches.append(Match(tuple(lesions), tuple(components)))
    return matches


def _match_one_to_one(maps: LesionMaps, min_iou: float) -> list[Match]:
    pairs = []
    for lesion, component, shared in _count_overlaps(maps.reference, maps.prediction):
        union = int(maps.reference_sizes[lesion - 1]) + int(maps.prediction_sizes[component - 1]) - shared
        if shared > min_iou * union:
            pairs.append((shared / union, lesion, component))
    matches: list[Match] = []
    taken_lesions: set[int] = set()
    taken_components: set[int] = set()
    for _, lesion, component in sorted(pairs, key=lambda pair: -pair[0]):
        if lesion not in taken_lesions and component not in taken_components:
            taken_lesions.add(lesion)
            taken_components.add(component)
            matches.append(Match((lesion,), (component,)))
    return matches

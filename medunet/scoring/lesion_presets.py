"""What a lesion is and which prediction finds it, by the published rules in `PRESETS`.

- `brats2023` (glioma, Sub-Saharan Africa, paediatric), `brats2023_meningioma`, `brats2023_metastases`: the challenge
  by its own code, github.com/rachitsaluja/BraTS-2023-Metrics. Parts of the reference that its dilation joins are one
  lesion; every predicted component that touches the dilated lesion belongs to it, so that one component may belong to
  two lesions, and a lesion may be found with a Dice of 0. Small lesions of the reference do not count, and what
  touches them is no false positive; false positives count whatever their size. Dice and HD95 are means over the
  lesions and the false positives, with 0 and 374 mm for each miss and false positive.
- `lits`, `lits_half`: the Liver Tumor Segmentation Benchmark (Bilic et al., Medical Image Analysis 2023), as its
  lits-challenge-scoring matches: face-connected components; lesions that share most with the same predicted component
  are taken together; each predicted component goes to the lesions that it shares most with; these are found where
  IoU with all their components is above 0, or above 0.5, and are compared with them as one. Sensitivity and precision
  count the single lesions and components; Dice and HD95 are means over the lesions found, as the benchmark has it,
  so that they say nothing without sensitivity. Two things are ours: all lesions of a
  group that is not found are missed (there: one), and the reference is not dilated in the axial plane, as one version
  of the code does.
- `panoptic`: Kirillov et al., CVPR 2019: 26-connected components matched one to one at an IoU above 0.5, which
  can be one pair only; RQ, SQ and PQ = RQ·SQ. (panoptica takes a pair at exactly 0.5 too.) Dice and HD95 are means
  over the pairs, as in panoptica.
"""

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medunet.imaging.components import Connectivity, label_components
from medunet.records.scores import LesionPreset

Matching = Literal["touch", "iou", "one_to_one"]
Mask = NDArray[np.bool_]
Labels = NDArray[np.integer]

_FACES_AND_EDGES = ndimage.generate_binary_structure(3, 2)


@dataclass(frozen=True)
class LesionRules:
    """How lesions are told apart, matched and averaged. In 2D a connectivity of 6 is 4, all others are 8."""

    connectivity: Connectivity
    matching: Matching  # see `match_lesions`
    min_iou: float = 0.0  # "iou" and "one_to_one": a match lies above
    num_dilations: int = 0  # by faces and edges: what they join is one lesion, what they touch belongs to it
    ignored_mm3: float = 0.0  # lesions of the reference up to this volume do not count
    penalty_mm: float | None = None  # HD95 of a miss or false positive; None: means are over those found
    empty_dice: float = math.nan  # where neither mask holds a lesion that counts
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
    """The lesions of both masks as numbered maps `(I, J, K)`, 0 outside, and the voxels of each.

    `sizes[n - 1]` belongs to lesion n.
    """

    reference: Labels
    prediction: Labels
    reach: Labels  # the reference's lesions dilated: a predicted one that shares a voxel with it touches
    reference_sizes: NDArray[np.integer]
    prediction_sizes: NDArray[np.integer]


@dataclass(frozen=True)
class Match:
    """Lesions of the reference and the predicted ones that found them, by number: compared as one."""

    references: tuple[int, ...]
    predictions: tuple[int, ...]


def find_lesions(reference: Mask, prediction: Mask, rules: LesionRules) -> LesionMaps:
    """Number the lesions of two masks `(I, J, K)` in array order; a box that holds both is all that is needed.

    What two dilated lesions share or touch outside of that box they also do inside it: the dilation of a mask, moved
    to the nearest voxel of the box, stays in the dilation.
    """
    predicted, predicted_sizes = label_components(prediction, rules.connectivity)
    lesions, sizes = label_components(reference, rules.connectivity)
    reach = lesions
    if rules.num_dilations:
        reach, _ = label_components(_dilate(reference, lesions, rules.num_dilations), rules.connectivity)
        lesions = np.where(reference, reach, 0)
        sizes = np.bincount(lesions.ravel())[1:]
    return LesionMaps(lesions, predicted, reach, sizes, predicted_sizes)


def match_lesions(maps: LesionMaps, rules: LesionRules) -> list[Match]:
    """Return which lesions of the reference are found and by which predicted ones; all others are not.

    "touch": by every one that touches, however little. "iou": in groups, as LiTS does (see above). "one_to_one": the
    pair with the highest IoU first, each lesion once.
    """
    if rules.matching == "touch":
        return _match_by_touch(maps)
    if rules.matching == "iou":
        return _match_in_groups(maps, rules.min_iou)
    return _match_one_to_one(maps, rules.min_iou)


def _dilate(mask: Mask, components: Labels, num_dilations: int) -> Mask:
    """Dilate a mask, each component in its own box: the rest of a CT is empty."""
    dilated = mask.copy()
    for box in ndimage.find_objects(components):  # the wide box may end outside
        wide = tuple(slice(max(side.start - num_dilations, 0), side.stop + num_dilations) for side in box)
        dilated[wide] |= ndimage.binary_dilation(mask[wide], _FACES_AND_EDGES, iterations=num_dilations)
    return dilated


def _count_overlaps(first: Labels, second: Labels) -> list[tuple[int, int, int]]:
    """Return each pair of numbers that share voxels, ascending, and how many."""
    both = (first > 0) & (second > 0)
    width = int(second.max()) + 1
    codes, shared = np.unique(first[both].astype(np.int64) * width + second[both], return_counts=True)
    return [
        (code // width, code % width, num) for code, num in zip(codes.tolist(), shared.tolist(), strict=True)
    ]


def _match_by_touch(maps: LesionMaps) -> list[Match]:
    touching: dict[int, list[int]] = {}
    for lesion, component, _ in _count_overlaps(maps.reach, maps.prediction):
        touching.setdefault(lesion, []).append(component)
    return [Match((lesion,), tuple(components)) for lesion, components in touching.items()]


def _match_in_groups(maps: LesionMaps, min_iou: float) -> list[Match]:
    overlaps = _count_overlaps(maps.reference, maps.prediction)
    best: dict[int, tuple[int, int]] = {}  # by lesion: the component that shares most with it, and how much
    for lesion, component, shared in overlaps:
        if shared > best.get(lesion, (0, 0))[1]:
            best[lesion] = component, shared
    groups: dict[int, list[int]] = {}  # lesions with the same best component, by that component
    for lesion, (component, _) in best.items():
        groups.setdefault(component, []).append(lesion)

    shared_with: Counter[tuple[int, int]] = Counter()  # by component and group
    for lesion, component, shared in overlaps:
        shared_with[component, best[lesion][0]] += shared
    goes_to: dict[int, int] = {}  # of each component: the group that it shares most with
    for (component, group), shared in shared_with.items():
        if component not in goes_to or shared > shared_with[component, goes_to[component]]:
            goes_to[component] = group

    matches = []
    for group, lesions in groups.items():
        components = [component for component, chosen in goes_to.items() if chosen == group]
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

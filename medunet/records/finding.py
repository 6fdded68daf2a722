"""What a reader should look at on a case: the worst distance, missed and invented lesions, the largest errors."""

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal[
    "surface_distance", "missed_lesion", "false_positive_lesion", "false_negative", "false_positive", "lesion"
]
Voxel = tuple[int, int, int]


@dataclass(frozen=True)
class Finding:
    """One error of a predicted mask, on the grid of the arrays that it was found in.

    `surface_distance` is the largest distance between the two surfaces, with both ends; `missed_lesion` and
    `false_positive_lesion` are lesions by the rules that scored them; `false_negative` and `false_positive` are the
    largest connected components of wrong voxels. Without a reference, `lesion` is one of the prediction: no error.
    """

    kind: FindingKind
    target: str
    centre: Voxel  # a voxel of the error itself: planes through it show the error
    end: Voxel | None  # the other end of a surface distance
    length_mm: float  # the surface distance; of a lesion its long axis; else NaN
    volume_ml: float  # of the lesion or component; NaN for a distance and in pictures
    box: tuple[tuple[int, int], ...]  # [first, end) along each axis, around the whole error and both its ends
    lesion: int | None = None  # its number in lesions.csv

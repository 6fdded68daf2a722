"""Faults of a label, codes L…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

LABEL_FAULTS: dict[str, FaultKind] = {
    "L001": FaultKind(
        "undeclared label values",
        "error",
        "Every voxel's value against the labels that the description declares.",
        "",
        "Correct the label, or declare its values in the description (`instances: true` for numbered objects).",
    ),
    "L002": FaultKind(
        "label values not whole",
        "error",
        "Every voxel's value against the nearest whole number, where L005 does not explain it.",
        "whole numbers",
        "Resample labels by nearest neighbour.",
    ),
    "L003": FaultKind(
        "empty label",
        "warning",
        "No voxel differs from background and `ignore`.",
        "some foreground",
        "Check that the scan has nothing to outline.",
    ),
    "L004": FaultKind(
        "label stored as floats",
        "note",
        "The type in the header.",
        "an integer type",
        "None needed; uint8 would do.",
    ),
    "L005": FaultKind(
        "interpolated label",
        "error",
        "Ten or more voxels are not whole, and nine of ten of them stand between a smaller and a larger neighbour: a "
        "label resampled by linear or cubic interpolation.",
        "whole numbers",
        "Resample labels by nearest neighbour.",
    ),
    "L006": FaultKind(
        "stray specks in a label",
        "warning",
        "Pieces of the foreground, 26-connected in blocks of 2×2×2 voxels: at most 8 voxels, less than a "
        "thousandth of their label, and none of its larger pieces within 20 mm. More than 20 such "
        "pieces are taken as meant.",
        "no few voxels far from the rest of their label",
        "Look at the places named; remove specks by `medunet predict`'s post-processing rules or by hand.",
    ),
    "L007": FaultKind(
        "label volume far from the others'",
        "warning",
        "Logarithm of each label's volume in ml, over at least ten cases that have it: more than 5 robust standard "
        "deviations (1.4826 MAD) and a factor of 2 from the median.",
        "a volume like the others'",
        "Look at the case: a wrong organ, unit or part of a label.",
    ),
    "L008": FaultKind(
        "labels of another edition",
        "error",
        "BraTS up to 2021 writes enhancing tumour as 4, later as 3: a label whose name begins with `enhancing` is "
        "declared as one, and found as the other with no further value undeclared.",
        "the values of the declared edition",
        "Use the description of the other edition (`brats` or `brats2023`).",
    ),
    "L009": FaultKind(
        "label without background",
        "warning",
        "No voxel is 0.",
        "some background",
        "Look at the label: it may be inverted.",
    ),
}

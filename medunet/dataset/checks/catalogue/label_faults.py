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
        "non-integer label values",
        "error",
        "Every voxel's value against the nearest whole number, if L005 does not apply.",
        "whole numbers",
        "Resample labels by nearest neighbour.",
    ),
    "L003": FaultKind(
        "empty label",
        "warning",
        "All voxels are background or `ignore`.",
        "some foreground",
        "Check that the scan has nothing to segment.",
    ),
    "L004": FaultKind(
        "label stored as floats",
        "note",
        "The data type in the header.",
        "an integer type",
        "None needed; uint8 would be sufficient.",
    ),
    "L005": FaultKind(
        "interpolated label",
        "error",
        "Ten or more voxels are not whole numbers, and at least 90% of them are between a smaller and a larger "
        "neighbour, as after resampling by linear or cubic interpolation.",
        "whole numbers",
        "Resample labels by nearest neighbour.",
    ),
    "L006": FaultKind(
        "small isolated pieces of a label",
        "warning",
        "Connected components of the foreground (26-connected, in blocks of 2×2×2 voxels) with at most 8 voxels, "
        "less than a thousandth of their label, and no larger component of it within 20 mm. More than 20 small "
        "components are taken as intended.",
        "no small pieces far from the rest of their label",
        "Look at the positions given; correct the label if the pieces are annotation errors.",
    ),
    "L007": FaultKind(
        "label volume is an outlier",
        "warning",
        "Logarithm of each label's volume in ml, if at least ten cases have the label: more than 5 robust standard "
        "deviations (1.4826 MAD) and a factor of 2 from the median.",
        "a volume similar to the other cases",
        "Look at the case for a wrong organ, wrong units or an incomplete label.",
    ),
    "L008": FaultKind(
        "labels of another edition",
        "error",
        "Enhancing tumour is 4 in BraTS up to 2021, and 3 later. A label whose name starts with `enhancing` is "
        "declared with one of these values and has the other, and all other values are declared.",
        "the values of the declared edition",
        "Use the description of the other edition (`brats` or `brats2023`).",
    ),
    "L009": FaultKind(
        "label without background",
        "warning",
        "No voxel is 0.",
        "some background",
        "Look at the label, which may be inverted.",
    ),
}

"""Faults of a label, codes L…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

LABEL_FAULTS: dict[str, FaultKind] = {
    "L001": FaultKind(
        "undeclared label values",
        "error",
        "Every voxel's value against the labels that the description declares.",
        "",
        "Correct the label, or declare its values in the description: under `labels`, under `stored_values` if they "
        "are above 255 or negative (`stored_values: {tumour: 2500}`), or by `instances: true` for numbered objects.",
    ),
    "L002": FaultKind(
        "non-integer label values",
        "error",
        "Every voxel's value against the nearest whole number, if neither L005 nor L010 applies.",
        "whole numbers",
        "If each value stands near the number that is meant, round the map and save it as integers; otherwise "
        "resample the original label by nearest neighbour.",
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
        "neighbour, as after resampling by linear or cubic interpolation. Or whole numbers have traces of it, "
        "declared or not: ramps of three or more values where one label should end and the next begin, which "
        "make up half of all change along an axis; or three or more values that fill no area, and lie between their "
        "neighbours' values or next to almost equal ones, as after JPEG.",
        "the values of the labels only",
        "Resample or export the original label by nearest neighbour, as PNG, TIFF or NIfTI. If only this one is "
        "left and it has one label, set its values from half of the largest on to 1, and the others to 0.",
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
    "L010": FaultKind(
        "label values rounded",
        "note",
        "The largest difference from a whole number that is a rounding error: 1e-5 of the value (1e-5 below 1), or "
        "half the slope for integers stored with one of up to 0.5. All stages round such values alike.",
        "whole numbers",
        "None needed; saving the label as uint8 without a slope would avoid it.",
    ),
}

"""The catalogue of faults: each code's meaning, usual severity, what is expected instead, and the mend.

Codes are stable: N… of a volume file, L… of a label, P… of two files of one case, S… of the set and its split.
"""

from dataclasses import dataclass

from medunet.records import Fault, Severity


@dataclass(frozen=True)
class FaultKind:
    """What a code means, and the words for it where a check has none more precise."""

    title: str
    severity: Severity
    expected: str
    mend: str


_EXPORT = "Copy or export the file again."
_HEADER = "Convert the scan again from its source, or set a correct header."
_RESAMPLE = "Resample onto the image's grid, or exclude the case."

FAULT_KINDS: dict[str, FaultKind] = {
    "N001": FaultKind("missing file", "error", "a file", "Restore the file or exclude the case."),
    "N002": FaultKind("not a readable file", "error", "a NIfTI file or picture", _EXPORT),
    "N003": FaultKind("truncated or corrupt voxels", "error", "a stream that is whole", _EXPORT),
    "N004": FaultKind("NaN or infinite voxels", "error", "finite voxels only", _EXPORT),
    "N005": FaultKind("wrong dimensions", "error", "3 axes", "Split the file into 3D volumes."),
    "N006": FaultKind(
        "thin axis", "warning", "2 or more voxels along each axis", "Check that it is a volume."
    ),
    "N007": FaultKind("implausible spacing", "error", "0.1 to 12 mm along each axis", _HEADER),
    "N008": FaultKind("sform and qform disagree", "error", "the same grid from both", _HEADER),
    "N009": FaultKind("singular affine", "error", "three independent finite axes", _HEADER),
    "N010": FaultKind(
        "sheared axes", "warning", "perpendicular axes, within 1°", "Resample to a grid without gantry tilt."
    ),
    "N011": FaultKind("constant image", "error", "more than one value", _EXPORT),
    "N012": FaultKind(
        "intensities far from the other scans'",
        "warning",
        "a scale like the other scans'",
        "Normalise each scan by itself, or apply the scanner's rescale.",
    ),
    "N013": FaultKind(
        "path outside the data root",
        "error",
        "a file below the data root",
        "Move the file into the data root.",
    ),
    "N014": FaultKind(
        "grey picture", "note", "a picture in colour", "None needed: each channel is given the same grey."
    ),
    "N099": FaultKind(
        "the check broke down", "error", "a case that can be checked", "Exclude the case, and report this."
    ),
    "L001": FaultKind(
        "undeclared label values",
        "error",
        "",
        "Mend the label, or declare its values in the description (`instances: true` for numbered objects).",
    ),
    "L002": FaultKind(
        "label values not whole", "error", "whole numbers", "Resample labels by nearest neighbour."
    ),
    "L003": FaultKind(
        "empty label", "warning", "some foreground", "Check that the scan has nothing to outline."
    ),
    "L004": FaultKind("label stored as floats", "note", "an integer type", "None needed; uint8 would do."),
    "P001": FaultKind("label and image differ in shape", "error", "", _RESAMPLE),
    "P002": FaultKind("label and image lie apart", "error", "", _RESAMPLE),
    "P003": FaultKind("label and image lie slightly apart", "note", "", "None needed: the image's is used."),
    "P004": FaultKind("modalities differ in shape", "error", "", "Register the modalities to one grid."),
    "P005": FaultKind("modalities lie apart", "error", "", "Register the modalities to one grid."),
    "P006": FaultKind("modalities lie slightly apart", "note", "", "None needed: the first one's is used."),
    "P007": FaultKind(
        "two files of a case hold the same voxels", "error", "", "Restore the one that is a copy."
    ),
    "S001": FaultKind("one image twice", "error", "an image once", "Exclude one of the two."),
    "S002": FaultKind("one label twice", "error", "a label once", "Find out to which scan it belongs."),
    "S003": FaultKind(
        "one patient in two folds",
        "error",
        "a patient in one fold",
        "Mend the folds, or make them from the seed.",
    ),
    "S004": FaultKind(
        "unmatched file",
        "warning",
        "a file of a case",
        "Complete, rename or remove it; training leaves it out.",
    ),
    "S005": FaultKind(
        "case without a label", "note", "a label", "None needed: it is predicted, not trained on."
    ),
    "S006": FaultKind(
        "labels that never occur",
        "warning",
        "each label in some training case",
        "Leave them out of the labels.",
    ),
    "S007": FaultKind("loss and labels do not fit", "error", "", "Set training.loss to auto."),
    "S008": FaultKind(
        "measured in pixels",
        "note",
        "a spacing in mm",
        "None needed: read every mm as a pixel, and every ml as 1000 of them.",
    ),
}


def make_fault(
    code: str,
    case: str,
    subject: str,
    measured: str,
    *,
    expected: str = "",
    severity: Severity | None = None,
) -> Fault:
    """Return a fault of the catalogue; what is not given stands there."""
    kind = FAULT_KINDS[code]
    return Fault(
        code, severity or kind.severity, case, subject, measured, expected or kind.expected, kind.mend
    )

"""Faults of the set and its split, codes S…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

SET_FAULTS: dict[str, FaultKind] = {
    "S001": FaultKind(
        "one image twice",
        "error",
        "A hash of the voxels' values, over all images of the set and the files of no case; a warning where both are "
        "in one fold, or one of them in no case.",
        "an image once",
        "Exclude one of the two.",
    ),
    "S002": FaultKind(
        "one label twice",
        "error",
        "A hash of the voxels' values, over all labels and the files of no case; empty ones are left out. A warning "
        "where one of them is in no case.",
        "a label once",
        "Find out to which scan it belongs.",
    ),
    "S003": FaultKind(
        "one patient in two folds",
        "error",
        "The patient's part of the case id, by the description's pattern; test cases count as a fold.",
        "a patient in one fold",
        "Correct the folds, or make them from the seed.",
    ),
    "S004": FaultKind(
        "unmatched file",
        "warning",
        "Every volume file below the data root that no case uses.",
        "a file of a case",
        "Complete, rename or remove it; training leaves it out.",
    ),
    "S005": FaultKind(
        "case without a label",
        "note",
        "The case list.",
        "a label",
        "None needed: it is predicted, not trained on.",
    ),
    "S006": FaultKind(
        "labels that never occur",
        "warning",
        "The values that occur in any training label.",
        "each label in some training case",
        "Leave them out of the labels.",
    ),
    "S007": FaultKind(
        "loss and labels do not fit",
        "error",
        "The loss in the configuration against the description: overlapping regions need one sigmoid each.",
        "",
        "Set training.loss to auto.",
    ),
    "S008": FaultKind(
        "measured in pixels",
        "note",
        "The layout is of pictures, which have no spacing.",
        "a spacing in mm",
        "None needed: read every mm as a pixel, and every ml as 1000 of them.",
    ),
    "S009": FaultKind(
        "case lacks a modality",
        "warning",
        "Files of a case by their endings against the description's channels; each file of such a case is named.",
        "a file for each channel",
        "Complete the case; it is left out until then.",
    ),
    "S010": FaultKind(
        "label missing from a fold",
        "warning",
        "The labels that occur in each fold's cases; only labels that as many patients have as there are folds.",
        "each label in each fold",
        "Make the folds stratified (`--stratify`), or use fewer.",
    ),
    "S011": FaultKind(
        "acceptance of a fault that is not there",
        "note",
        "The manifest's `accepted` against the faults found.",
        "a fault of that code and case",
        "Remove the entry from the manifest.",
    ),
}

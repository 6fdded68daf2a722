"""Faults of the dataset and its split, codes S…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

SET_FAULTS: dict[str, FaultKind] = {
    "S001": FaultKind(
        "duplicate image",
        "error",
        "A hash of the voxels' values, over all images of the dataset and unmatched files. A warning if both are in "
        "the same fold, or one of them is unmatched.",
        "each image only once",
        "Exclude one of the two cases.",
    ),
    "S002": FaultKind(
        "duplicate label",
        "error",
        "A hash of the voxels' values, over all labels except empty ones, and unmatched files. A warning if one of "
        "them is unmatched.",
        "each label only once",
        "Find out which scan the label belongs to.",
    ),
    "S003": FaultKind(
        "one patient in two folds",
        "error",
        "The patient of each case, from the case id by the description's pattern or from the table; test cases count "
        "as a fold. A warning if nothing says who the patients are, and case ids are alike up to a last visit, scan, "
        "date or side.",
        "each patient in one fold",
        "Say who the patients are (`medunet manifest --patient`, or a column `patient`); correct the folds file, or "
        "leave it out to draw folds from the seed.",
    ),
    "S004": FaultKind(
        "unmatched file",
        "warning",
        "Every volume file below the data root that belongs to no case.",
        "a file of a case",
        "Add the missing file of its case, or rename or remove it; it is not used for training.",
    ),
    "S005": FaultKind(
        "case without a label",
        "note",
        "The list of cases.",
        "a label",
        "None needed: the case is not used for training.",
    ),
    "S006": FaultKind(
        "labels that never occur",
        "warning",
        "The declared labels against the values in all training labels.",
        "each label in some training case",
        "Remove them from the description's labels.",
    ),
    "S007": FaultKind(
        "loss does not fit the labels",
        "error",
        "The loss in the configuration against the description: overlapping regions need a sigmoid each.",
        "",
        "Set training.loss to auto.",
    ),
    "S008": FaultKind(
        "lengths in pixels",
        "note",
        "The layout is of pictures, which have no spacing.",
        "a spacing in mm",
        "None needed: read 1 mm as 1 pixel, and 1 ml as 1000 pixels.",
    ),
    "S009": FaultKind(
        "case lacks a modality",
        "warning",
        "The endings of a case's files against the description's channels; each file of the case is reported.",
        "a file for each channel",
        "Add the missing file; the case is not used without it.",
    ),
    "S010": FaultKind(
        "label missing from a fold",
        "warning",
        "The labels that occur in each fold's cases, for labels that at least as many patients have as there are "
        "folds.",
        "each label in each fold",
        "Make the folds stratified (`--stratify`), or use fewer.",
    ),
    "S011": FaultKind(
        "accepted fault was not found",
        "note",
        "The manifest's `accepted` against the faults found.",
        "a fault with that code and case",
        "Remove the entry from the manifest.",
    ),
    "S015": FaultKind(
        "class absent from the training cases of a fold",
        "error",
        "The classes (labels, or regions if declared) that occur in held-out or test cases against those in the "
        "cases that the fold trains on. It stops the training of this fold only. A warning if the fold trains on "
        "fewer cases than it holds out.",
        "each class in some training case of each fold",
        "If several patients have the class, make the folds stratified (`--stratify`) or correct the folds file. "
        "Otherwise train another fold or `--fold all`, or accept it with `--accept S015:=REASON`; the fold's model "
        "cannot find the class.",
    ),
    "S016": FaultKind(
        "every training label is empty",
        "error",
        "The values in all training labels: background and `ignore` alone.",
        "some foreground",
        "Check that these are the right label files, and that the description declares their values.",
    ),
    "S017": FaultKind(
        "label without a voxel to judge",
        "warning",
        "Every voxel of the label is `ignore`.",
        "some voxels other than `ignore`",
        "Look at the label, or exclude the case: nothing is learnt from it, and its scores are undefined.",
    ),
    "S018": FaultKind(
        "fold without a voxel to validate on",
        "warning",
        "Every voxel of all labels that the fold holds out is `ignore`.",
        "some held-out voxels other than `ignore`",
        "Use fewer folds or other ones; the fold has no validation Dice, and its final weights are used.",
    ),
}

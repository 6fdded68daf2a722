"""Faults of a DICOM series, codes D…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

DICOM_FAULTS: dict[str, FaultKind] = {
    "D001": FaultKind(
        "not part of a volume",
        "note",
        "The image has no position, orientation or pixels, is a localizer, report, segmentation or in colour; a "
        "warning where the rest of its series is a volume that may miss it.",
        "an image with a place in space",
        "None needed: it is left out.",
    ),
    "D002": FaultKind(
        "slice missing",
        "error",
        "Distances between slices along the normal, against their median: off by more than the larger of 1% and "
        "0.1 mm; then each slice's height against even ones.",
        "slices at equal distances",
        "Get the series again, or import with `--repair`, which interpolates the gap.",
    ),
    "D003": FaultKind(
        "slice twice",
        "error",
        "Two slices at one height along the normal, within 1% of the usual distance, that no echo time, b-value or "
        "the like tells apart.",
        "one slice at each position",
        "Get the series again, or remove the copy named.",
    ),
    "D004": FaultKind(
        "mixed slices",
        "error",
        "Slices of one series differ in patient, study, modality, matrix or frame of reference, fewer than three are "
        "turned against the others, or some are shifted in their plane by more than 0.1 mm.",
        "one grid in a series",
        "Import the parts as series of their own, which needs their source.",
    ),
    "D005": FaultKind(
        "tilted gantry",
        "error",
        "Drift of the slices' positions off the normal of their plane: more than 0.1 mm from first to last, and "
        "0.01°.",
        "slices stacked along their normal",
        "Import with `--repair`, which resamples the tilt away.",
    ),
    "D006": FaultKind(
        "orientation jitters",
        "note",
        "ImageOrientationPatient over the slices: differences below 1e-4.",
        "one orientation",
        "None needed: the mean is used.",
    ),
    "D007": FaultKind(
        "secondary or derived images",
        "warning",
        "ImageType says DERIVED or SECONDARY, or the SOP class is of secondary capture.",
        "original, primary images",
        "Check that the series is what you want.",
    ),
    "D008": FaultKind(
        "no decoder for the transfer syntax",
        "error",
        "The transfer syntax, decoded by pydicom or SimpleITK.",
        "a syntax that can be decoded",
        "Install a decoder (pylibjpeg and its plug-ins), or have the archive send it uncompressed.",
    ),
    "D009": FaultKind(
        "file cannot be read",
        "error",
        "The header is parsed and the pixels decoded; a file without a readable header, or a folder that may not be "
        "opened, has a pseudonym `f0001` in originals.csv.",
        "a whole DICOM file",
        "Get the file again.",
    ),
    "D010": FaultKind(
        "no or contradicting pixel spacing",
        "error",
        "PixelSpacing of every slice of the series.",
        "one positive spacing",
        "Get the series again from its source.",
    ),
    "D011": FaultKind(
        "thickness is not the spacing",
        "note",
        "SliceThickness against the distance between positions, which is used.",
        "the same",
        "None needed: positions count.",
    ),
    "D012": FaultKind(
        "CT without HU",
        "warning",
        "CT: a RescaleType other than HU, no RescaleIntercept, or a smallest value of 0 or more.",
        "Hounsfield units",
        "Check the source; values are kept as rescaled.",
    ),
    "D013": FaultKind(
        "single slice",
        "note",
        "Number of slices of a series, and of the heights that they lie at.",
        "slices at two heights or more",
        "None needed: it is left out.",
    ),
    "D014": FaultKind(
        "several acquisitions in one series",
        "warning",
        "Heights that repeat, told apart by echo time, b-value, time point, trigger, inversion or acquisition, image "
        "type or time; acquisitions of one series that overlap; stacks of three slices or more, turned against each "
        "other.",
        "one volume in a series",
        "None needed: each becomes a volume of its own.",
    ),
    "D015": FaultKind(
        "rescale differs between slices",
        "note",
        "RescaleSlope and RescaleIntercept of every slice.",
        "the same in every slice",
        "None needed: each slice's own is applied.",
    ),
    "D016": FaultKind(
        "small values are bright",
        "note",
        "PhotometricInterpretation is MONOCHROME1, which shows small values white.",
        "MONOCHROME2",
        "None needed: values are kept as stored, not inverted.",
    ),
    "D017": FaultKind(
        "patient not named",
        "warning",
        "PatientID is empty: the study, or the folder where that is empty too, stands for a patient.",
        "a PatientID",
        "See that two studies of one patient do not part between folds.",
    ),
}

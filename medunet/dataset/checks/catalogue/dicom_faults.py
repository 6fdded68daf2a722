"""Faults of a DICOM series, codes D…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

DICOM_FAULTS: dict[str, FaultKind] = {
    "D001": FaultKind(
        "not part of a volume",
        "note",
        "The image has no position, orientation or pixels, or is a localizer, report, segmentation or colour image, "
        "or it has another matrix, pixel spacing or orientation than slices that are complete without it. A warning "
        "if the rest of its series is a volume, from which it may be missing.",
        "an image with position and orientation",
        "None needed: it is left out.",
    ),
    "D002": FaultKind(
        "missing slice",
        "error",
        "Distances between slices along their normal that differ from the smallest usual one by more than 1% and "
        "0.1 mm and by more than rounding of the positions explains, or slices off evenly spaced heights.",
        "evenly spaced slices",
        "Get the series again, or import with `--repair`, which interpolates the gap.",
    ),
    "D003": FaultKind(
        "duplicate slice",
        "error",
        "Two slices at the same position along the normal, within 1% of the usual distance or the rounding of "
        "positions, that differ in their values but not in echo time, b-value or similar.",
        "one slice at each position",
        "Get the series again, or remove the duplicate.",
    ),
    "D004": FaultKind(
        "mixed slices",
        "error",
        "Slices of one series differ in patient, study, modality, matrix or frame of reference; fewer than three "
        "have an orientation different from the others; orientations alternate within a stack; or some slices are "
        "shifted in their plane by more than 0.1 mm and more than rounding of the positions explains.",
        "one grid per series",
        "Export the parts again as separate series, and import these.",
    ),
    "D005": FaultKind(
        "gantry tilt",
        "error",
        "The line through all slices' positions against the normal of their plane: more than 0.1 mm from first to "
        "last, more than 0.01°, and more than rounding of positions and directions explains.",
        "slices stacked along their normal",
        "Import with `--repair`, which resamples to a grid without tilt.",
    ),
    "D006": FaultKind(
        "slightly varying orientation",
        "note",
        "Differences of ImageOrientationPatient between slices that move no corner by more than one pixel or "
        "0.1 mm, or that rounding explains; or directions whose length is not 1.",
        "one orientation",
        "None needed: the mean is used, as perpendicular unit vectors.",
    ),
    "D007": FaultKind(
        "secondary or derived images",
        "warning",
        "ImageType contains DERIVED or SECONDARY, or the SOP class is secondary capture.",
        "original, primary images",
        "Check that this is the series that you want to use.",
    ),
    "D008": FaultKind(
        "no decoder for the transfer syntax",
        "error",
        "The transfer syntax against those that pydicom and SimpleITK can decode.",
        "a transfer syntax that can be decoded",
        "Install a decoder (pylibjpeg and its plug-ins), or export the series uncompressed.",
    ),
    "D009": FaultKind(
        "file cannot be read",
        "error",
        "The header is parsed and the pixels are decoded. A file without a readable header, one that is DICOM only "
        "by its name (`.dcm`, `.dicom`, `.ima`), or a folder without permission to open it, has a pseudonym such as "
        "`f0001` in originals.csv.",
        "a complete DICOM file",
        "Get the file again.",
    ),
    "D010": FaultKind(
        "missing or inconsistent pixel spacing",
        "error",
        "PixelSpacing of every slice of the series.",
        "one positive spacing",
        "Get the series again from its source.",
    ),
    "D011": FaultKind(
        "slice thickness differs from spacing",
        "note",
        "SliceThickness against the distance between slice positions.",
        "equal values",
        "None needed: the positions are used.",
    ),
    "D012": FaultKind(
        "CT not in Hounsfield units",
        "warning",
        "A CT has a RescaleType other than HU, no RescaleIntercept, or no value below 0.",
        "Hounsfield units",
        "Check the source; the rescaled values are written unchanged.",
    ),
    "D013": FaultKind(
        "single slice",
        "note",
        "Number of slices of a series, and of their different positions along the normal.",
        "slices at two or more positions",
        "None needed: it is left out.",
    ),
    "D014": FaultKind(
        "several acquisitions in one series",
        "warning",
        "Slices at the same positions that differ in echo time, b-value, time point, trigger time, inversion time, "
        "acquisition, image type or time; overlapping acquisitions; or stacks of three or more slices with different "
        "orientations.",
        "one volume per series",
        "None needed: each acquisition becomes a separate volume.",
    ),
    "D015": FaultKind(
        "rescaling differs between slices",
        "note",
        "RescaleSlope and RescaleIntercept of every slice.",
        "the same in every slice",
        "None needed: each slice is rescaled with its own values.",
    ),
    "D016": FaultKind(
        "inverted greyscale",
        "note",
        "PhotometricInterpretation is MONOCHROME1, in which small values are displayed bright.",
        "MONOCHROME2",
        "None needed: values are not inverted.",
    ),
    "D017": FaultKind(
        "missing patient ID",
        "warning",
        "PatientID is empty: each study or, without a study UID, each folder is taken as one patient.",
        "a PatientID",
        "Make sure that studies of the same patient are in the same fold.",
    ),
    "D018": FaultKind(
        "header values are rounded",
        "note",
        "The largest distance of a slice's corner, as its own header has it, from the volume's grid, which is fitted "
        "to all slices. A warning if it is larger than a voxel.",
        "slices on an even grid",
        "None needed: the fitted grid is used.",
    ),
    "D019": FaultKind(
        "positions rounded too coarsely",
        "error",
        "Slices are off evenly spaced heights, rounding of their positions could explain it, and the distance "
        "between slices is at most twice the unit of the rounding.",
        "more than twice the rounding between slices",
        "Get the series again with exact positions.",
    ),
    "D020": FaultKind(
        "copies of slices",
        "note",
        "Images of a series with the same position and the same values, under one SOPInstanceUID or several. A "
        "warning if copies have another PatientID.",
        "every image once",
        "None needed: copies are left out.",
    ),
    "D021": FaultKind(
        "different images with one SOPInstanceUID",
        "error",
        "Images of a series with the same SOPInstanceUID, but other values or another position. A warning if the "
        "position differs: all of them are used.",
        "one SOPInstanceUID per image",
        "Get the series again from its source, and import only one version of it.",
    ),
    "D022": FaultKind(
        "series of single slices joined",
        "warning",
        "Three or more series of one slice each that have patient, study, frame of reference, description, "
        "orientation and matrix in common, most of them at the same distance. Several scans are told apart by "
        "SeriesNumber.",
        "one series per scan",
        "Check that the slices are of one scan.",
    ),
    "D023": FaultKind(
        "patient IDs that differ only in letter case",
        "warning",
        "The PatientIDs of all imported patients.",
        "one PatientID per patient",
        "If they are one patient, make sure that the cases are in the same fold.",
    ),
    "D024": FaultKind(
        "folder not read",
        "note",
        "Hidden folders, such as `.git`, and links to folders that are read anyway or that contain the tree. Their "
        "names are in originals.csv.",
        "folders of scans",
        "None needed. To import a hidden folder, give it as the path.",
    ),
}

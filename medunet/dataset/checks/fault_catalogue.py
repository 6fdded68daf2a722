"""The catalogue of faults: what each code means, how it is measured, what is expected instead, and how to fix it.

Codes are stable: N… of a volume file, D… of a DICOM series, L… of a label, P… of two files of one case, S… of the
set and its split. docs/faults.md is made of it.
"""

from dataclasses import dataclass

from medunet.records.fault import Severity


@dataclass(frozen=True)
class FaultKind:
    """What a code means, and the words for it where a check has none more precise."""

    title: str
    severity: Severity  # the usual one
    how: str  # it is measured
    expected: str
    hint: str


FAULT_KINDS: dict[str, FaultKind] = {
    "N001": FaultKind(
        "missing file",
        "error",
        "The manifest names a file that is not below the data root, or a training case names no label.",
        "a file",
        "Restore the file or exclude the case.",
    ),
    "N002": FaultKind(
        "not a readable file",
        "error",
        "The header is read: magic, sizes and types must be those of NIfTI-1 or NIfTI-2, or of a picture; a "
        "name that ends in `.gz` and a compressed stream go together.",
        "a NIfTI file or picture",
        "Copy or export the file again.",
    ),
    "N003": FaultKind(
        "truncated or corrupt voxels",
        "error",
        "The whole stream is decoded, to the checksum behind its last voxel.",
        "a stream that is whole",
        "Copy or export the file again.",
    ),
    "N004": FaultKind(
        "NaN or infinite voxels",
        "error",
        "Smallest and largest voxel, which tell of any other; beyond the range of float32 is infinite too.",
        "finite voxels only",
        "Copy or export the file again.",
    ),
    "N005": FaultKind(
        "wrong dimensions",
        "error",
        "Axes of length 1 behind the third are left out; the rest must be three, or four with one frame a channel.",
        "3 axes",
        "Split the file into 3D volumes.",
    ),
    "N006": FaultKind(
        "thin axis",
        "warning",
        "The number of voxels along each axis.",
        "2 or more voxels along each axis",
        "Check that it is a volume.",
    ),
    "N007": FaultKind(
        "implausible spacing",
        "error",
        "The lengths of the affine's columns, in mm.",
        "0.1 to 12 mm along each axis",
        "Convert the scan again from its source, or set a correct header.",
    ),
    "N008": FaultKind(
        "sform and qform disagree",
        "error",
        "Both are applied to the grid's corners, the farthest pair tells; up to 1 mm and a voxel is a warning. With "
        "sheared axes (N010) they are not compared: a qform cannot hold shear.",
        "the same grid from both",
        "Convert the scan again from its source, or set a correct header.",
    ),
    "N009": FaultKind(
        "singular affine",
        "error",
        "The affine's columns must be finite, not of length 0, and span a volume.",
        "three independent finite axes",
        "Convert the scan again from its source, or set a correct header.",
    ),
    "N010": FaultKind(
        "sheared axes",
        "error",
        "The angles between the affine's columns.",
        "perpendicular axes, within 1°",
        "Resample to a grid without gantry tilt; a skewed grid has no true distances.",
    ),
    "N011": FaultKind(
        "constant image",
        "error",
        "Smallest and largest voxel.",
        "more than one value",
        "Copy or export the file again.",
    ),
    "N012": FaultKind(
        "intensities far from the other scans'",
        "warning",
        "Logarithm of each MR image's 99.5 percentile against the set's median and median absolute deviation.",
        "a scale like the other scans'",
        "Normalise each scan by itself, or apply the scanner's rescale.",
    ),
    "N013": FaultKind(
        "path outside the data root",
        "error",
        "Links are followed to where the file lies.",
        "a file below the data root",
        "Move the file into the data root.",
    ),
    "N014": FaultKind(
        "grey picture",
        "note",
        "A picture of one channel where the description has three.",
        "a picture in colour",
        "None needed: each channel is given the same grey.",
    ),
    "N015": FaultKind(
        "no declared orientation",
        "warning",
        "The codes of sform and qform in the header are both 0: readers then guess the axes.",
        "sform_code or qform_code above 0",
        "Find out how the scan lies, and set a correct header.",
    ),
    "N016": FaultKind(
        "units other than mm",
        "warning",
        "`xyzt_units` in the header; lengths are converted, and a header that says nothing is taken as mm.",
        "mm",
        "None needed if the spacing shown is right; else set the units.",
    ),
    "N017": FaultKind(
        "header and file differ in size",
        "error",
        "Dimensions × type in the header against the bytes that the file holds, or its whole stream unpacks "
        "to. Up to 1 MiB that follows the last voxel is a warning; no more is unpacked.",
        "as many bytes as the header promises",
        "Copy or export the file again.",
    ),
    "N018": FaultKind(
        "larger than the memory cap",
        "error",
        "Dimensions × type in the header, before anything is allocated.",
        "at most `MEDUNET_MAX_VOLUME_GB` (16)",
        "Crop or resample the scan, or raise the cap if it is real.",
    ),
    "N019": FaultKind(
        "rescale intercept not applied",
        "warning",
        "CT, by a sample of voxels: a tenth lies at 900 to 1200, where tissue is stored, air lies near 0 and next to "
        "nothing at -1100 to -150.",
        "air near -1000 HU",
        "Convert the scan again with RescaleSlope and RescaleIntercept.",
    ),
    "N020": FaultKind(
        "air is not near -1000 HU",
        "warning",
        "CT, by a sample of voxels: the darkest peak of the histogram, where a tenth of the voxels lies as "
        "far from 0 as the peak from -1000, and next to none where tissue should be. Air that was "
        "clipped or cropped away, and padding, raise nothing.",
        "air at -1100 to -900 HU",
        "Find out which offset was applied, and convert the scan again.",
    ),
    "N021": FaultKind(
        "file may not be read",
        "error",
        "The file is opened.",
        "a file that may be read",
        "Change its permissions.",
    ),
    "N022": FaultKind(
        "scaling that cannot be used",
        "error",
        "`scl_slope` and `scl_inter` in the header must be finite; a slope of 0 means none.",
        "finite numbers",
        "Convert the scan again from its source, or set a correct header.",
    ),
    "N023": FaultKind(
        "voxels of an unusable type",
        "error",
        "The type in the header: complex numbers, or colours in a volume; of a label's picture, its colours.",
        "whole or real numbers",
        "Convert the file to whole or real numbers; a label's picture to a grey or palette image.",
    ),
    "N099": FaultKind(
        "the check broke down",
        "error",
        "An exception that no check expected; it is caught and the other cases go on.",
        "a case that can be checked",
        "Exclude the case, and report this.",
    ),
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
    "P001": FaultKind(
        "label and image differ in shape",
        "error",
        "The shapes in the two headers; beside them, by how many mm the grids' corners lie apart, each from "
        "the nearest.",
        "",
        "Resample onto the image's grid, or exclude the case.",
    ),
    "P002": FaultKind(
        "label and image lie apart",
        "error",
        "Both affines are applied to the grid's eight corners; a corner more than a tenth of a voxel off tells.",
        "",
        "Resample onto the image's grid, or exclude the case.",
    ),
    "P003": FaultKind(
        "label and image lie slightly apart",
        "note",
        "As P002, for less than a tenth of a voxel and more than a micrometre.",
        "",
        "None needed: the image's is used.",
    ),
    "P004": FaultKind(
        "modalities differ in shape",
        "error",
        "The shapes in the headers; beside them, by how many mm the grids' corners lie apart, each from the nearest.",
        "",
        "Register the modalities to one grid, or accept resampling with `--allow-resample`.",
    ),
    "P005": FaultKind(
        "modalities lie apart",
        "error",
        "As P002, between a case's first image and each other one.",
        "",
        "Register the modalities to one grid, or accept resampling with `--allow-resample`.",
    ),
    "P006": FaultKind(
        "modalities lie slightly apart",
        "note",
        "As P003, between a case's first image and each other one.",
        "",
        "None needed: the first one's is used.",
    ),
    "P007": FaultKind(
        "two files of a case hold the same voxels",
        "error",
        "A hash of the voxels' values, whatever their type.",
        "",
        "Restore the one that is a copy.",
    ),
    "P008": FaultKind(
        "mask mirrored against its image",
        "warning",
        "The median step of the images' intensities across the label's border, as it lies and under each of "
        "the seven flips about the grid's centre; 1.3 times as steep is told, where no more of "
        "the border falls on the background.",
        "the steepest border as it lies",
        "Look at the case; correct the header of the label or of the image.",
    ),
    "P009": FaultKind(
        "modalities exchanged",
        "error",
        "The same voxels stand in another case under another channel, by a hash of their values.",
        "one channel for the same voxels",
        "Put the files back under their own channels.",
    ),
    "P010": FaultKind(
        "modalities do not meet",
        "error",
        "The grids of two modalities share no place: every voxel of one lies beyond a face of the other.",
        "modalities of one body part",
        "Find the file that belongs to the case, or register the modalities; resampling would leave nothing.",
    ),
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

"""Faults of a volume file, codes N…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

VOLUME_FAULTS: dict[str, FaultKind] = {
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
}

"""Faults of a volume file, codes N…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

VOLUME_FAULTS: dict[str, FaultKind] = {
    "N001": FaultKind(
        "missing file",
        "error",
        "A file of the manifest does not exist below the data root, or a training case has no label.",
        "a file",
        "Restore the file or exclude the case.",
        usable=False,
    ),
    "N002": FaultKind(
        "not a readable file",
        "error",
        "The header is read: magic bytes, sizes and types must be valid for the file's format. A NIfTI file must be "
        "compressed if and only if its name ends in `.gz`.",
        "a readable volume or picture",
        "Copy or export the file again.",
        usable=False,
    ),
    "N003": FaultKind(
        "truncated or corrupt voxels",
        "error",
        "The whole file is decoded; the checksum of a compressed file is verified.",
        "a complete file",
        "Copy or export the file again.",
        usable=False,
    ),
    "N004": FaultKind(
        "NaN or infinite voxels",
        "error",
        "The smallest and largest voxel; values beyond the range of float32 count as infinite.",
        "finite voxels only",
        "Copy or export the file again.",
        usable=False,
    ),
    "N005": FaultKind(
        "wrong dimensions",
        "error",
        "The number of axes, without axes of length 1 after the third: three, or four with one frame per channel.",
        "3 axes",
        "Split the file into 3D volumes.",
        usable=False,
    ),
    "N006": FaultKind(
        "single slice along an axis",
        "warning",
        "The number of voxels along each axis.",
        "2 or more voxels along each axis",
        "Check that the file is a volume.",
    ),
    "N007": FaultKind(
        "implausible spacing",
        "error",
        "The lengths of the affine's columns, in mm, against what scans of the channel's modality can have: CT 0.005 "
        "to 12 mm, MR 0.005 to 12, PET 0.05 to 12, other 0.0001 to 12.",
        "",
        "Convert the scan again from its source, or set a correct header. Correct the channel's modality in the "
        "description if it is another.",
    ),
    "N008": FaultKind(
        "sform and qform disagree",
        "error",
        "The largest distance between the corners of the grid by the two affines; a warning up to 1 mm and one "
        "voxel. They are not compared if the axes are sheared (N010), which a qform cannot represent.",
        "the same grid by both",
        "Convert the scan again from its source, or set a correct header.",
    ),
    "N009": FaultKind(
        "singular affine",
        "error",
        "The affine's columns: they must be finite, of non-zero length and linearly independent.",
        "three finite, independent axes",
        "Convert the scan again from its source, or set a correct header.",
        usable=False,
    ),
    "N010": FaultKind(
        "sheared axes",
        "error",
        "The angles between the affine's columns.",
        "perpendicular axes, within 1°",
        "Resample to a grid without gantry tilt: distances on a sheared grid are wrong.",
    ),
    "N011": FaultKind(
        "constant image",
        "error",
        "The smallest and largest voxel.",
        "more than one value",
        "Copy or export the file again.",
        usable=False,
    ),
    "N012": FaultKind(
        "intensities are an outlier",
        "warning",
        "Logarithm of each MR image's 99.5th percentile against the dataset's median and median absolute deviation.",
        "an intensity scale similar to the other scans",
        "Normalise each scan individually, or apply the scanner's rescaling.",
    ),
    "N013": FaultKind(
        "path outside the data root",
        "error",
        "The path of the file, after resolving links.",
        "a file below the data root",
        "Move the file into the data root.",
        usable=False,
    ),
    "N014": FaultKind(
        "grey picture",
        "note",
        "A picture with one channel although the description has three.",
        "a picture in colour",
        "None needed: all channels get the same grey values.",
    ),
    "N015": FaultKind(
        "no orientation in the header",
        "warning",
        "The codes of sform and qform in the header are both 0, so that the axis directions are unknown.",
        "sform_code or qform_code above 0",
        "Find out the orientation of the scan, and set a correct header.",
    ),
    "N016": FaultKind(
        "units other than mm",
        "warning",
        "`xyzt_units` in the header; lengths are converted to mm, and unknown units are taken as mm.",
        "mm",
        "None needed if the spacing shown is right; otherwise set the units in the header.",
    ),
    "N017": FaultKind(
        "header and file differ in size",
        "error",
        "The size computed from dimensions and data type in the header against the decompressed size of the file. A "
        "warning if up to 1 MiB follows the last voxel; reading stops after that.",
        "the size given by the header",
        "Copy or export the file again.",
        usable=False,
    ),
    "N018": FaultKind(
        "larger than the size limit",
        "error",
        "The size computed from dimensions and data type in the header, before memory is allocated.",
        "at most `MEDUNET_MAX_VOLUME_GB` (16)",
        "Crop or resample the scan, or raise the limit if the size is right.",
        usable=False,
    ),
    "N019": FaultKind(
        "rescale intercept not applied",
        "warning",
        "In a sample of a CT's voxels, at least a tenth is at 900 to 1200, where tissue is without the intercept, "
        "and almost none at -1100 to -150. An error on prediction, if the training scans have voxels below 0.",
        "air near -1000 HU",
        "Convert the scan again with RescaleSlope and RescaleIntercept.",
    ),
    "N020": FaultKind(
        "air is not near -1000 HU",
        "warning",
        "In a sample of a CT's voxels, the darkest peak of the histogram is not near -1000, at least a tenth is "
        "where tissue would be with the same offset, and almost none where tissue should be. Air that was clipped or "
        "cropped away, and padding, are not reported. An error on prediction, if the training scans have air near "
        "-1000.",
        "air at -1100 to -900 HU",
        "Find out which offset was applied, and convert the scan again.",
    ),
    "N021": FaultKind(
        "no permission to read the file",
        "error",
        "The file is opened.",
        "a file that can be opened",
        "Change the file's permissions.",
        usable=False,
    ),
    "N022": FaultKind(
        "contradictory scale factors",
        "error",
        "`scl_slope` and `scl_inter` in the header, which NiBabel and SimpleITK apply differently: a slope of 0, NaN "
        "or infinity with an intercept other than 0, a finite slope with an intercept that is not, or a slope below "
        "2.2e-16.",
        "factors that all libraries apply alike",
        "Set the slope and intercept that are right, 1 and 0 if values are not scaled, or convert the scan again.",
        usable=False,
    ),
    "N023": FaultKind(
        "unsupported voxel type",
        "error",
        "The data type in the header is complex or, in a volume, RGB; or a label picture has colours.",
        "integers or floats",
        "Convert a volume to integers or floats, and a label picture to a grey or palette image.",
        usable=False,
    ),
    "N025": FaultKind(
        "spacing unlike the training scans'",
        "error",
        "On prediction: the spacing along each axis of the body against that of the training scans. A warning beyond "
        "a factor of 2 outside their range; an error if more than 4 times coarser or 10 times finer.",
        "",
        "Check the units and the spacing in the header. If they are right, the model has not learnt such scans.",
    ),
    "N026": FaultKind(
        "CT in grey values instead of HU",
        "warning",
        "In a sample of a CT's voxels: all are within 0 to 255, so that a window or a scaling was applied. An error "
        "on prediction, if the training scans have voxels below 0.",
        "Hounsfield units, with air near -1000 and fat near -100",
        "Convert the scan again from its source, without a window.",
    ),
    "N027": FaultKind(
        "intensities unlike the training scans'",
        "error",
        "On prediction: in a sample of a CT's voxels, fewer than 1 in 2000 are within the range of the labelled "
        "structures of the training scans.",
        "",
        "Convert the scan again with RescaleSlope and RescaleIntercept, or choose a model for such scans.",
    ),
    "N028": FaultKind(
        "field of view unlike the training scans'",
        "error",
        "On prediction: the size in mm, along each axis of the body, of the box of the voxels that are not 0, "
        "against the largest field of view of the training scans. More than 1.5 times as large is reported. Plans up "
        "to 0.8 know it only where their training scans fill these boxes; with others nothing is reported.",
        "",
        "Crop the scan to what the training scans show, or choose a model that was trained on such scans.",
    ),
    "N029": FaultKind(
        "another modality than the model's",
        "error",
        "On prediction: the modality in the .json file that dcm2niix or BIDS put beside the scan. In a sample of the "
        "voxels of an MR or PET channel: a twentieth or more as air in a CT, at -1100 to -900, and as many as its "
        "soft tissue, at -150 to 150. Or of a CT channel, if the training scans show air: almost none below -50.",
        "",
        "Give the model scans of the modality that it was trained on.",
    ),
    "N024": FaultKind(
        "scale factors ignored",
        "warning",
        "`scl_slope` in the header is NaN or infinite. The voxels are used as stored, as by NiBabel and SimpleITK.",
        "finite numbers",
        "None needed if the stored values are right; otherwise set the slope and intercept.",
    ),
    "N099": FaultKind(
        "the check failed",
        "error",
        "An unexpected exception in a check; the other cases are still checked.",
        "a case that can be checked",
        "Exclude the case, and report the problem.",
        usable=False,
    ),
}

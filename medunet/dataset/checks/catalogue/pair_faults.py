"""Faults of two files of one case, codes P…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

PAIR_FAULTS: dict[str, FaultKind] = {
    "P001": FaultKind(
        "label and image differ in shape",
        "error",
        "The shapes in the two headers, given with the largest distance in mm from a corner of one grid to the "
        "nearest corner of the other.",
        "",
        "Resample the label to the image's grid, or exclude the case.",
        usable=False,
    ),
    "P002": FaultKind(
        "label displaced from image",
        "error",
        "Displacement of the grid's eight corners between the two affines: more than a tenth of a voxel.",
        "",
        "Resample the label to the image's grid, or exclude the case.",
    ),
    "P003": FaultKind(
        "label slightly displaced from image",
        "note",
        "As P002, with a displacement between a micrometre and a tenth of a voxel.",
        "",
        "None needed: the image's grid is used.",
    ),
    "P004": FaultKind(
        "modalities differ in shape",
        "error",
        "The shapes in the headers, given with the largest distance in mm from a corner of one grid to the nearest "
        "corner of the other.",
        "",
        "Register the modalities to one grid, or accept resampling with `--allow-resample`.",
    ),
    "P005": FaultKind(
        "modalities displaced",
        "error",
        "As P002, between a case's first image and each of the others.",
        "",
        "Register the modalities to one grid, or accept resampling with `--allow-resample`.",
    ),
    "P006": FaultKind(
        "modalities slightly displaced",
        "note",
        "As P003, between a case's first image and each of the others.",
        "",
        "None needed: the first image's grid is used.",
    ),
    "P007": FaultKind(
        "two files of a case have the same voxels",
        "error",
        "A hash of the voxels' values, independent of the data type.",
        "",
        "Replace the file that is a copy by the right one.",
    ),
    "P008": FaultKind(
        "mask mirrored relative to its image",
        "warning",
        "The median difference of the images' intensities across the label's border, without and with each of the "
        "seven flips about the grid's centre: a flip gives 1.3 times the difference, with no more of the border on "
        "the background.",
        "the highest contrast without a flip",
        "Look at the case; correct the header of the label or of the image.",
    ),
    "P009": FaultKind(
        "modalities exchanged",
        "error",
        "Another case has the same voxels in another channel, by a hash of their values.",
        "the same channel for the same voxels",
        "Assign the files to the right channels.",
    ),
    "P010": FaultKind(
        "modalities do not overlap",
        "error",
        "The grids of two modalities do not overlap: every voxel of one is beyond a face of the other.",
        "modalities of the same body region",
        "Find the right file for the case, or register the modalities; resampling would leave nothing.",
        usable=False,
    ),
}

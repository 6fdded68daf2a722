"""Faults of two files of one case, codes P…."""

from medunet.dataset.checks.catalogue.fault_kind import FaultKind

PAIR_FAULTS: dict[str, FaultKind] = {
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
}

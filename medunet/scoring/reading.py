"""Read a reference and its prediction on the grid of the reference."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import Affine, axis_codes, corner_displacement_mm
from medunet.imaging.resample import resample_labels
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import read_label
from medunet.records.scores import Note
from medunet.scoring.notes import note_resampling

_GRID_TOLERANCE = (
    0.1  # largest distance between corresponding corners of two grids, in units of the smallest spacing
)


def read_pair(
    reference: Path,
    prediction: Path,
    *,
    reference_instances_as: int | None = None,
    prediction_instances_as: int | None = None,
    reference_renumber: Mapping[int, int] | None = None,
    prediction_renumber: Mapping[int, int] | None = None,
    resample: bool = False,
) -> tuple[Volume, NDArray[np.integer], Note | None]:
    """Read a reference and its prediction's labels `(I, J, K)` on the same grid, and return both.

    The third value is a note if the prediction was resampled. For `..._instances_as` and `..._renumber` see
    `read_label`. Pictures have no position in space and are never resampled.

    Raises:
        DataError: a file cannot be read, or the grids differ and the prediction may not or cannot be resampled. The
            message contains no file name, since that may name the patient.
    """
    wanted = _read(reference, "reference", reference_instances_as, reference_renumber)
    given = _read(prediction, "prediction", prediction_instances_as, prediction_renumber)
    difference = grid_difference(wanted, given)
    if not difference:
        return wanted, given.array, None
    if not resample or wanted.header.is_picture or given.header.is_picture:
        raise DataError(f"the prediction's {difference}")
    labels = resample_labels(given.array, given.affine, wanted.array.shape, wanted.affine)
    return wanted, labels, note_resampling(given.spacing_mm)


def find_slice_axis(affine: Affine) -> int:
    """Return the array axis closest to the inferior-superior direction, along which axial slices are numbered."""
    return next((axis for axis, code in enumerate(axis_codes(affine)) if code in "SI"), 2)


def _read(path: Path, role: str, instances_as: int | None, renumber: Mapping[int, int] | None) -> Volume:
    try:
        volume = read_label(path, instances_as=instances_as, renumber=renumber)
    except DataError as error:
        raise DataError(f"{role}: {error.what}".replace(path.name, "the file")) from error
    if volume.array.ndim != 3:
        raise DataError(f"{role}: shape {volume.array.shape} does not have three axes")
    return volume


def grid_difference(first: Volume, second: Volume, whose: str = "the reference's") -> str:
    """Describe how the second volume's grid differs from the first's; "" if it does not."""
    shape, other = first.array.shape, second.array.shape
    if other != shape:
        return f"shape {other} differs from {whose} {shape}"
    displacement_mm = corner_displacement_mm(shape, first.affine, second.affine)
    if not displacement_mm <= _GRID_TOLERANCE * min(first.spacing_mm):  # also true for NaN
        return f"corners are up to {displacement_mm:.4g} mm from {whose}"
    return ""

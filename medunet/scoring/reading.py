"""Read a reference and its prediction on the grid of the reference."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.base.words import list_some
from medunet.imaging.geometry import GRID_TOLERANCE_VOXELS, Affine, axis_codes, corner_displacement_mm
from medunet.imaging.resample import resample_labels
from medunet.imaging.segment_names import UndeclaredError, describe_joining
from medunet.imaging.volume import Volume
from medunet.imaging.volumes import read_label
from medunet.imaging.whole_numbers import count_values
from medunet.records.label_rules import LabelRules, Others
from medunet.records.scores import Note
from medunet.scoring.notes import note_names, note_resampling

Labels = NDArray[np.integer]

_MAX_NAMED = 5  # undeclared values listed in a message


@dataclass(frozen=True)
class LabelPair:
    """The label maps `(I, J, K)` of a case on the reference's grid; `numbers` of objects where a file has them."""

    reference: Volume
    prediction: Labels
    numbers_reference: Labels | None = None
    numbers_prediction: Labels | None = None
    notes: tuple[Note, ...] = ()


def read_pair(
    reference: Path,
    prediction: Path,
    rules_reference: LabelRules | None = None,
    rules_prediction: LabelRules | None = None,
    *,
    resample: bool = False,
) -> LabelPair:
    """Read a reference and its prediction on the same grid.

    The notes say if the prediction was resampled, and where names in a file contradict the description's numbers.
    Pictures have no position in space and are never resampled.

    Raises:
        DataError: a file cannot be read or holds undeclared values (see `LabelRules`), or the grids differ and the
            prediction may not or cannot be resampled. The message contains no file name, since that may name the
            patient.
    """
    rules = rules_reference or LabelRules(), rules_prediction or LabelRules()
    wanted, given = _read(reference, "reference", rules[0]), _read(prediction, "prediction", rules[1])
    notes = [
        note_names(role, text)
        for role, volume, own in zip(("reference", "prediction"), (wanted, given), rules, strict=True)
        if (text := describe_joining(volume.header.segments, own.labels or {}))
    ]
    labels: Labels = given.array
    if difference := grid_difference(wanted, given):
        if not resample or wanted.header.is_picture or given.header.is_picture:
            way = (
                ""
                if wanted.header.is_picture or given.header.is_picture
                else " (medunet score --resample brings it there)"
            )
            raise DataError(f"the prediction's {difference}{way}")
        labels = resample_labels(given.array, given.affine, wanted.array.shape, wanted.affine)
        notes.append(note_resampling(given.spacing_mm))
    merged = [_merge_objects(array, own) for array, own in zip((wanted.array, labels), rules, strict=True)]
    return LabelPair(
        Volume(merged[0][0], wanted.header), merged[1][0], merged[0][1], merged[1][1], tuple(notes)
    )


def find_slice_axis(affine: Affine) -> int:
    """Return the array axis closest to the inferior-superior direction, along which axial slices are numbered."""
    return next((axis for axis, code in enumerate(axis_codes(affine)) if code in "SI"), 2)


def _read(path: Path, role: str, rules: LabelRules) -> Volume:
    """Read a label map, or a map of object numbers."""
    names = rules.labels if rules.instances_as is None else None  # numbers of objects have no names
    try:
        volume = read_label(path, replace(rules, instances_as=None, labels=names))
        if volume.array.ndim != 3:
            raise DataError(f"shape {volume.array.shape} does not have three axes")
        if names is not None:
            check_declared(volume.array, set(names.values()), rules.others)
    except DataError as error:
        declared = ", ".join(name for name, value in (names or {}).items() if value)
        known = f"; declared are {declared}" if isinstance(error, UndeclaredError) else ""
        raise DataError(f"{role}: {error.what}{known}".replace(path.name, "the file")) from error
    return volume


def check_declared(labels: Labels, declared: set[int], others: Others) -> None:
    """Raise a DataError for undeclared values, or with `others` "left out" if there are no other values."""
    counts = count_values(labels)
    counts.pop(0, None)
    unknown = {value: count for value, count in counts.items() if value not in declared}
    if not unknown or (others == "left out" and len(unknown) < len(counts)):
        return
    shown = list_some([f"{value} in {count} voxels" for value, count in unknown.items()], _MAX_NAMED)
    values = ", ".join(str(value) for value in sorted(declared))
    way = " (another tool's values: describe them with --prediction-dataset)" if others == "surplus" else ""
    raise DataError(f"holds values that are not declared: {shown}; declared are {values}{way}")


def _merge_objects(array: Labels, rules: LabelRules) -> tuple[Labels, Labels | None]:
    """Return the label map of an array, and the array itself if it numbers objects.

    A prediction that is read with the reference's description may as well be a mask: its one value is no number.
    """
    if rules.instances_as is None:
        return array, None
    merged = np.where(array > 0, np.uint8(rules.instances_as), np.uint8(0))
    is_mask = rules.others == "surplus" and len(count_values(array).keys() - {0}) <= 1
    return merged, None if is_mask else array


def grid_difference(first: Volume, second: Volume, whose: str = "the reference's") -> str:
    """Describe how the second volume's grid differs from the first's; "" if it does not."""
    shape, other = first.array.shape, second.array.shape
    if other != shape:
        return f"shape {other} differs from {whose} {shape}"
    displacement_mm = corner_displacement_mm(shape, first.affine, second.affine)
    if not displacement_mm <= GRID_TOLERANCE_VOXELS * min(first.spacing_mm):  # also true for NaN
        return f"corners are up to {displacement_mm:.4g} mm from {whose}"
    return ""

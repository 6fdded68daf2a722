"""Read the label maps of a case for its page: masks, numbers of objects, and the map of agreement."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import corner_displacement_mm
from medunet.imaging.orientation import to_ras
from medunet.imaging.volume import Header, Volume
from medunet.imaging.volumes import read_label
from medunet.imaging.whole_numbers import count_values
from medunet.records.description import Description
from medunet.records.label_rules import LabelRules
from medunet.scoring.reading import read_pair


def read_masks(
    label: Path | None, prediction: Path | None, description: Description, *, is_indexed: bool, resample: bool
) -> tuple[Volume | None, Volume | None, bool]:
    """Return reference and prediction (None if there is none), and whether the prediction was resampled.

    An indexed prediction holds the label values of its index; any other is read as the description says.
    """
    rules = LabelRules() if is_indexed else replace(description.label_rules, labels=None)
    prediction = prediction if prediction is not None and prediction.exists() else None
    if resample and label is not None and prediction is not None:
        pair = read_pair(label, prediction, description.label_rules, rules, resample=True)
        is_resampled = any(note.kind == "resampled" for note in pair.notes)
        return pair.reference, Volume(pair.prediction, pair.reference.header), is_resampled
    return (
        None if label is None else read_label(label, description.label_rules),
        None if prediction is None else read_label(prediction, rules),
        False,
    )


def read_numbers(
    label: Path | None, prediction: Path | None, description: Description, scan: Header
) -> list[NDArray[np.integer] | None]:
    """Return the numbers of the objects in reference and prediction in RAS+ axis order; None where there are none.

    As in scoring, a predicted mask with a single value numbers nothing.
    """
    found: list[NDArray[np.integer] | None] = [None, None]
    if not description.instances:
        return found
    for place, path in enumerate((label, prediction)):
        if path is not None and path.exists():
            numbers = read_label(path, LabelRules()).array
            if place == 0 or len(count_values(numbers).keys() - {0}) > 1:
                found[place] = to_ras(numbers[None], scan.affine)[0][0]
    return found


def read_agreement(prediction: Path | None, scan: Header, warnings: list[str]) -> NDArray | None:
    """Return the map of agreement beside a predicted mask in RAS+ axis order; None if there is none."""
    path = None if prediction is None else prediction.parent / "agreement" / prediction.name
    if path is None or not path.exists():
        return None
    volume = read_label(path)
    if volume.array.shape != scan.shape:
        warnings.append(
            f"The map of agreement is not used: shape {volume.array.shape} differs from the scan's {scan.shape}."
        )
        return None
    return to_ras(volume.array[None], scan.affine)[0][0]


def match_to_scan(volume: Volume, name: str, scan: Header, warnings: list[str]) -> NDArray:
    """Return a label map in RAS+ axis order, voxel by voxel as the scan; warn if its header has another position."""
    if volume.array.shape != scan.shape:
        can_resample = name == "prediction" and not scan.is_picture
        raise DataError(
            f"{name} shape {volume.array.shape} differs from the scan's {scan.shape}",
            where=volume.header.path.name,
            hint="Score it with `--resample` to see it on the reference's grid." if can_resample else "",
        )
    moved_mm = corner_displacement_mm(scan.shape, scan.affine, volume.affine)
    if moved_mm > 0.01 * min(scan.spacing_mm):
        warnings.append(
            f"The header of the {name} places it {moved_mm:.2f} mm away from the scan; "
            "the pictures overlay them voxel by voxel."
        )
    return to_ras(volume.array[None], scan.affine)[0][0]


def join_by_name(
    labels: NDArray, predicted_targets: Mapping[str, Sequence[int]], description: Description
) -> NDArray:
    """Return a label map with the description's values for all targets that both have."""
    table = np.zeros(int(labels.max(initial=0)) + 1, labels.dtype)
    for name, value in description.written_values.items():
        given = [each for each in predicted_targets.get(name, ()) if each < table.size]
        table[given] = value
    return labels if np.array_equal(table, np.arange(table.size)) else table[labels]

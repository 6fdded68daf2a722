"""Load a case's image and label maps for reports, in RAS+ axis order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nibabel.affines import obliquity
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import Affine, axis_codes, corner_displacement_mm
from medunet.imaging.orientation import to_ras
from medunet.imaging.volume import Header, Volume
from medunet.imaging.volumes import read_channels, read_label
from medunet.records.data_root import file_path
from medunet.records.description import Description
from medunet.records.label_rules import LabelRules
from medunet.records.manifest import Case
from medunet.reporting.scores import Unit
from medunet.scoring.reading import read_pair


@dataclass(frozen=True)
class Scan:
    """Image and label maps of a case in RAS+ axis order; a label map that does not exist is None."""

    image: NDArray[np.float32]  # (I, J, K), or (I, J, K, 3) in colour
    affine: Affine
    channel: str
    modality: str
    grid: str  # description of the stored grid
    reference: NDArray | None
    prediction: NDArray | None
    warnings: tuple[str, ...]
    unit: Unit  # px: a 2D picture
    is_resampled: bool = False  # whether the prediction was resampled to the reference's grid
    # Every channel on this grid `(I, J, K)` by name, the shown one first; pictures in colour have none.
    channels: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def default_channel(description: Description) -> str:
    """Return the channel shown in pictures: FLAIR, which shows tumours best, or the first channel."""
    flair = [name for name in description.channels if "flair" in name.casefold()]
    return flair[0] if flair else next(iter(description.channels))


def load_scan(
    case: Case,
    description: Description,
    data_root: Path,
    prediction: Path | None,
    predicted_targets: Mapping[str, Sequence[int]] | None = None,
    *,
    channel: str | None = None,
    resample: bool = False,
) -> Scan:
    """Read a channel of a case (None: see `default_channel`) and those of its label maps that exist.

    `predicted_targets` are the label values of the prediction by target name, if they differ from the description.
    With `resample`, a prediction on another grid is resampled to the reference's grid exactly as for scoring.

    Raises: DataError: a file cannot be read, an affine is singular, a label map and the scan have different shapes,
        or the prediction cannot be resampled. InputError: a file is outside the data root.
    """
    channel = channel or default_channel(description)
    if channel not in case.images:
        raise DataError(f"has no channel '{channel}'", where=f"case {case.id}")
    volume, frames = read_channel_file(case, channel, description, data_root)
    header = volume.header
    if "?" in axis_codes(header.affine):
        raise DataError("its affine is singular", where=f"case {case.id}", hint="Export the scan again.")
    coloured = header.is_picture and len(frames) > 1
    shown = volume.array if coloured else volume.array[frames.index(channel)][None]
    image, affine = to_ras(shown, header.affine)
    warnings: list[str] = []
    label = file_path(case.label, data_root, f"case {case.id}") if case.label else None
    truth, found, is_resampled = _read_masks(
        label, prediction, description, is_indexed=predicted_targets is not None, resample=resample
    )
    reference = None if truth is None else _match(truth, "reference", header, warnings)
    prediction_warnings = [] if is_resampled else warnings  # resampled: same position as the reference
    predicted = None if found is None else _match(found, "prediction", header, prediction_warnings)
    if predicted is not None and predicted_targets is not None:
        predicted = _join_by_name(predicted, predicted_targets, description)
    return Scan(
        image=np.moveaxis(image, 0, -1) if coloured else image[0],
        affine=affine,
        channel=", ".join(frames) if coloured else channel,
        modality=description.channels[channel].modality,
        grid=_describe_grid(header),
        reference=reference,
        prediction=predicted,
        warnings=tuple(warnings),
        unit=description.unit,
        is_resampled=is_resampled,
        channels={} if coloured else {channel: image[0]},
    )


def read_channel_file(
    case: Case, channel: str, description: Description, data_root: Path
) -> tuple[Volume, list[str]]:
    """Read the file of a channel as `(C, I, J, K)`, and return the volume with the names of its channels.

    If the images of a case are resampled to one grid, all channels are read.

    Raises:
        DataError: a file cannot be read.
    """
    if case.resample:
        names = list(description.channels)
        paths = [file_path(case.images[name], data_root, f"case {case.id}") for name in names]
        return read_channels(paths, resample=True), names
    path = case.images[channel]
    names = [name for name in description.channels if case.images.get(name) == path]
    return read_channels([file_path(path, data_root, f"case {case.id}")] * len(names)), names


def _read_masks(
    label: Path | None, prediction: Path | None, description: Description, *, is_indexed: bool, resample: bool
) -> tuple[Volume | None, Volume | None, bool]:
    """Return reference and prediction (None if there is none), and whether the prediction was resampled.

    An indexed prediction holds the label values of its index; any other is read as the description says.
    """
    renumber = None if is_indexed else description.renumber
    prediction = prediction if prediction is not None and prediction.exists() else None
    if resample and label is not None and prediction is not None:
        pair = read_pair(
            label, prediction, description.label_rules, LabelRules(renumber=renumber), resample=True
        )
        is_resampled = any(note.kind == "resampled" for note in pair.notes)
        return pair.reference, Volume(pair.prediction, pair.reference.header), is_resampled
    return (
        None if label is None else read_label(label, description.label_rules),
        None if prediction is None else read_label(prediction, LabelRules(renumber=renumber)),
        False,
    )


def _match(volume: Volume, name: str, scan: Header, warnings: list[str]) -> NDArray:
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


def _join_by_name(
    labels: NDArray, predicted_targets: Mapping[str, Sequence[int]], description: Description
) -> NDArray:
    """Return a label map with the description's values for all targets that both have."""
    joined = np.zeros_like(labels)
    for name, value in description.written_values.items():
        if name in predicted_targets:
            joined[np.isin(labels, predicted_targets[name])] = value
    return joined


def _describe_grid(header: Header) -> str:
    if header.is_picture:
        return f"{header.shape[0]} × {header.shape[1]} pixels, no spacing known"
    tilt_degrees = float(np.rad2deg(obliquity(header.affine)).max())
    size = " × ".join(str(n) for n in header.shape)
    spacing = " × ".join(f"{mm:.2f}" for mm in header.spacing_mm)
    tilt = f", tilted by up to {tilt_degrees:.1f}° from the body's axes" if tilt_degrees > 0.1 else ""
    return f"{size} voxels of {spacing} mm, stored {axis_codes(header.affine)}{tilt}"

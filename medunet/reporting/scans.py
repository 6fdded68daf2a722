"""A case's images and label maps as reports show them, in RAS+ axis order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.affines import obliquity
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.geometry import Affine, axis_codes, corner_displacement_mm
from medunet.imaging.orientation import to_ras
from medunet.imaging.volume import Header, Volume
from medunet.imaging.volumes import read_channels, read_label
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.reporting.scores import Unit
from medunet.scoring.reading import read_pair


@dataclass(frozen=True)
class Scan:
    """A case as its page shows it, in RAS+ axis order; a label map that does not exist is None."""

    image: NDArray[np.float32]  # (I, J, K), or (I, J, K, 3) in colour
    affine: Affine
    channel: str
    modality: str
    grid: str  # in words, as stored
    reference: NDArray | None
    prediction: NDArray | None
    warnings: tuple[str, ...]
    unit: Unit  # px: a 2D picture
    is_resampled: bool = False  # the prediction, from another grid to the reference's


def shown_channel(description: Description) -> str:
    """Return the channel that pictures show: FLAIR, where tumours stand out, else the first."""
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
    """Read a case's channel (None: the one that pictures show) and its label maps, those that exist.

    `predicted_targets` are the prediction's own label values by name, where they are not the description's. With
    `resample` a prediction on another grid is brought to the reference's by the very call that scoring makes.

    Raises:
        DataError: a file cannot be read, has a singular affine, or a label map has another shape than the scan; or a
            prediction cannot be resampled.
    """
    channel = channel or shown_channel(description)
    if channel not in case.images:
        raise DataError(f"has no channel '{channel}'", where=f"case {case.id}")
    volume, frames = read_shown(case, channel, description, data_root)
    header = volume.header
    if "?" in axis_codes(header.affine):
        raise DataError("its affine is singular", where=f"case {case.id}", hint="Export the scan again.")
    coloured = header.is_picture and len(frames) > 1
    shown = volume.array if coloured else volume.array[frames.index(channel)][None]
    image, affine = to_ras(shown, header.affine)
    warnings: list[str] = []
    label = data_root / case.label if case.label else None
    truth, found, is_resampled = _read_masks(label, prediction, description.instances_as, resample=resample)
    reference = None if truth is None else _match(truth, "reference", header, warnings)
    told = [] if is_resampled else warnings  # it lies where the reference does
    predicted = None if found is None else _match(found, "prediction", header, told)
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
    )


def read_shown(
    case: Case, channel: str, description: Description, data_root: Path
) -> tuple[Volume, list[str]]:
    """Read the file that holds a channel as `(C, I, J, K)`, and return with it the names of its channels.

    Of a case whose images are brought to one grid, all are read.

    Raises:
        DataError: a file cannot be read.
    """
    if case.resample:
        names = list(description.channels)
        return read_channels([data_root / case.images[name] for name in names], resample=True), names
    path = case.images[channel]
    names = [name for name in description.channels if case.images.get(name) == path]
    return read_channels([data_root / path] * len(names)), names


def _read_masks(
    label: Path | None, prediction: Path | None, instances_as: int | None, *, resample: bool
) -> tuple[Volume | None, Volume | None, bool]:
    """Return reference and prediction, those that exist, and whether the prediction was resampled."""
    prediction = prediction if prediction is not None and prediction.exists() else None
    if resample and label is not None and prediction is not None:
        truth, labels, note = read_pair(label, prediction, reference_instances_as=instances_as, resample=True)
        return truth, Volume(labels, truth.header), note is not None
    return (
        None if label is None else read_label(label, instances_as=instances_as),
        None if prediction is None else read_label(prediction),
        False,
    )


def _match(volume: Volume, name: str, scan: Header, warnings: list[str]) -> NDArray:
    """Return a label map in RAS+ axis order, matched with the scan voxel by voxel; add a warning if it lies apart."""
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
            "the pictures match them voxel by voxel."
        )
    return to_ras(volume.array[None], scan.affine)[0][0]


def _join_by_name(
    labels: NDArray, predicted_targets: Mapping[str, Sequence[int]], description: Description
) -> NDArray:
    """Return a label map with the description's values for the targets that both declare."""
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

"""Load a case's image and label maps for reports, in RAS+ axis order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nibabel.affines import obliquity
from numpy.typing import NDArray

from medunet.base.errors import DataError, MedunetError
from medunet.imaging.geometry import Affine, axis_codes
from medunet.imaging.orientation import to_ras
from medunet.imaging.volume import Header, Volume
from medunet.imaging.volumes import describe_other_grid, read_channels
from medunet.records.data_root import file_path
from medunet.records.description import Description
from medunet.records.manifest import Case
from medunet.reporting.scan_masks import (
    join_by_name,
    match_to_scan,
    read_agreement,
    read_masks,
    read_numbers,
)
from medunet.reporting.scores import Unit

_DIRECTIONS = (("L", "R"), ("P", "A"), ("I", "S"))  # at the low and the high end of each axis


@dataclass(frozen=True)
class Scan:
    """Image and label maps of a case in RAS+ axis order; a label map that does not exist is None."""

    image: NDArray  # (I, J, K), or (I, J, K, 3) in colour; float32, or with `keep_integers` as stored
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
    channels: Mapping[str, NDArray] = field(default_factory=dict)
    stored_codes: str = "RAS"  # directions of the axes as stored, in which slices and lesions are numbered
    # How many networks give each voxel the label of the mask, if that map was written with the prediction.
    agreement: NDArray | None = None
    numbers_reference: NDArray | None = None  # of the objects, where label files number them
    numbers_prediction: NDArray | None = None

    def slice_mm(self, index: int, labels: NDArray | None = None, values: Sequence[int] = ()) -> float:
        """Return the position of an axial slice, numbered as stored, in mm along the axis to superior.

        In a tilted scan, it is the position of the middle of the labels' `values` in that slice, or of the slice.
        """
        axis = next((place for place, code in enumerate(self.stored_codes) if code in "SI"), 2)
        num_slices = self.image.shape[2]
        k = num_slices - 1 - index if self.stored_codes[axis] == "I" else index
        i, j = ((size - 1) / 2 for size in self.image.shape[:2])
        if labels is not None and 0 <= k < num_slices:
            inside = np.argwhere(np.isin(labels[:, :, k], values))
            i, j = inside.mean(axis=0) if len(inside) else (i, j)
        return float((self.affine @ (i, j, k, 1))[2])


def position_name(axis: int, position_mm: float) -> str:
    """Return a position along an axis of RAS+ as pictures print it, such as "S 12.0"."""
    rounded = round(position_mm, 1)
    return f"{_DIRECTIONS[axis][rounded >= 0]} {abs(rounded):.1f}"


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
    keep_integers: bool = False,
) -> Scan:
    """Read a case: one channel, or all (None: the first shown is that of `default_channel`), and its label maps.

    A label map that does not exist is None. A channel that cannot be shown with the first one is named in a warning.
    `predicted_targets` are the label values of the prediction by target name, if they differ from the description.
    With `resample`, a prediction on another grid is resampled to the reference's grid exactly as for scoring. With
    `keep_integers`, images keep a stored type of up to 16 bits, for which a large CT needs half of the memory.

    Raises: DataError: a file cannot be read, an affine is singular, a label map and the scan have different shapes,
        or the prediction cannot be resampled. InputError: a file is outside the data root.
    """
    where = f"case {case.id}"
    return read_scan(
        {name: file_path(path, data_root, where) for name, path in case.images.items()},
        description,
        prediction,
        label=file_path(case.label, data_root, where) if case.label else None,
        predicted_targets=predicted_targets,
        channel=channel,
        resample=resample,
        resample_channels=case.resample,
        keep_integers=keep_integers,
        where=where,
    )


def read_scan(
    images: Mapping[str, Path],
    description: Description,
    prediction: Path | None,
    *,
    label: Path | None = None,
    predicted_targets: Mapping[str, Sequence[int]] | None = None,
    channel: str | None = None,
    resample: bool = False,
    resample_channels: bool = False,
    keep_integers: bool = False,
    where: str = "",
) -> Scan:
    """Read images by channel and label maps as `load_scan` does; `where` names the case in errors.

    With `resample_channels`, images on another grid are resampled to the grid of the description's first channel.

    Raises: DataError: as `load_scan`. The message names no file, since that may name the patient.
    """
    try:
        return _read_scan(
            images,
            description,
            prediction,
            label=label,
            predicted_targets=predicted_targets,
            channel=channel,
            resample=resample,
            resample_channels=resample_channels,
            keep_integers=keep_integers,
            where=where,
        )
    except DataError as error:
        what = error.what
        paths = [*images.values(), *(path for path in (label, prediction) if path)]
        for name in sorted({path.name for path in paths}, key=len, reverse=True):
            what = what.replace(name, "the file")
        raise DataError(what, where=where, hint=error.hint) from error


def _read_scan(
    images: Mapping[str, Path],
    description: Description,
    prediction: Path | None,
    *,
    label: Path | None,
    predicted_targets: Mapping[str, Sequence[int]] | None,
    channel: str | None,
    resample: bool,
    resample_channels: bool,
    keep_integers: bool,
    where: str,
) -> Scan:
    is_only = channel is not None
    channel = channel or default_channel(description)
    if channel not in images:
        raise DataError(f"has no channel '{channel}'", where=where)
    volume, frames = _read_file(
        images, channel, description, resample=resample_channels, keep_integers=keep_integers
    )
    header = volume.header
    if "?" in axis_codes(header.affine):
        raise DataError("its affine is singular", where=where, hint="Export the scan again.")
    coloured = header.is_picture and len(frames) > 1
    shown = volume.array if coloured else volume.array[frames.index(channel)][None]
    image, affine = to_ras(shown, header.affine)
    warnings: list[str] = []
    is_indexed = predicted_targets is not None
    truth, found, is_resampled = read_masks(
        label, prediction, description, is_indexed=is_indexed, resample=resample
    )
    reference = None if truth is None else match_to_scan(truth, "reference", header, warnings)
    prediction_warnings = [] if is_resampled else warnings  # resampled: same position as the reference
    predicted = None if found is None else match_to_scan(found, "prediction", header, prediction_warnings)
    if predicted is not None and predicted_targets is not None:
        predicted = join_by_name(predicted, predicted_targets, description)
    channels = {} if coloured else {channel: image[0]}
    if not coloured and not is_only:
        channels |= _read_others(
            images, channel, volume, frames, description, warnings, keep_integers=keep_integers
        )
    numbers = read_numbers(label, None if is_resampled or is_indexed else prediction, description, header)
    agreement = read_agreement(prediction, header, warnings)
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
        channels=channels,
        stored_codes=axis_codes(header.affine),
        agreement=agreement,
        numbers_reference=numbers[0],
        numbers_prediction=numbers[1],
    )


def scan_or_reason(read: Callable[[], Scan]) -> Scan | str:
    """Return what `read` returns, or the reason why the scan cannot be shown, which names no path."""
    try:
        return read()
    except MedunetError as error:
        return str(error)
    except (OSError, MemoryError) as error:  # the message may contain a local path
        return f"the scan cannot be read ({type(error).__name__})"


def read_channel_file(
    case: Case, channel: str, description: Description, data_root: Path
) -> tuple[Volume, list[str]]:
    """Read the file of a channel as `(C, I, J, K)`, and return the volume with the names of its channels.

    If the images of a case are resampled to one grid, all channels are read.

    Raises:
        DataError: a file cannot be read.
    """
    images = {name: file_path(path, data_root, f"case {case.id}") for name, path in case.images.items()}
    return _read_file(images, channel, description, resample=case.resample)


def _read_file(
    images: Mapping[str, Path],
    channel: str,
    description: Description,
    *,
    resample: bool,
    keep_integers: bool = False,
) -> tuple[Volume, list[str]]:
    if resample:
        names = list(description.channels)
        return read_channels([images[name] for name in names], resample=True), names
    names = [name for name in description.channels if images.get(name) == images[channel]]
    return read_channels([images[channel]] * len(names), keep_integers=keep_integers), names


def _read_others(
    images: Mapping[str, Path],
    shown: str,
    volume: Volume,
    frames: Sequence[str],
    description: Description,
    warnings: list[str],
    *,
    keep_integers: bool,
) -> dict[str, NDArray]:
    """Return the channels other than the shown one, in RAS+ axis order, and add a warning for each that is left out.

    `volume` is the file of the shown channel, with the channels `frames`.
    """
    arrays: dict[str, NDArray] = {}
    for name in description.channels:
        if name == shown:
            continue
        other, names = volume, list(frames)
        try:
            if name not in frames:
                other, names = _read_file(
                    images, name, description, resample=False, keep_integers=keep_integers
                )
            difference = describe_other_grid(other.header, volume.header)
        except DataError as error:
            difference = error.what
        if difference:
            warnings.append(f"The channel {name} is not shown: {difference}.")
            continue
        arrays[name] = to_ras(other.array[names.index(name)][None], volume.affine)[0][0]
    return arrays


def _describe_grid(header: Header) -> str:
    if header.is_picture:
        return f"{header.shape[0]} × {header.shape[1]} pixels, no spacing known"
    tilt_degrees = float(np.rad2deg(obliquity(header.affine)).max())
    size = " × ".join(str(n) for n in header.shape)
    spacing = " × ".join(f"{mm:.2f}" for mm in header.spacing_mm)
    tilt = f", tilted by up to {tilt_degrees:.1f}° from the body's axes" if tilt_degrees > 0.1 else ""
    return f"{size} voxels of {spacing} mm, stored {axis_codes(header.affine)}{tilt}"

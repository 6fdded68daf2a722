"""Read scans and labels and write masks of any supported format.

Arrays are `(I, J, K)` in the file's axis order, with an affine to RAS+ mm. A 2D picture is a volume `(I, J, 1)`
measured in pixels (see pictures.py). The reader and writer of a file are chosen by its ending (see formats.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.formats import format_of, is_picture
from medunet.imaging.geometry import GRID_TOLERANCE_VOXELS, corner_displacement_mm
from medunet.imaging.resample import resample_image
from medunet.imaging.segment_names import join_names
from medunet.imaging.volume import Header, StoredVoxels, Volume
from medunet.imaging.whole_numbers import as_integers, label_values, renumber_labels
from medunet.records.label_rules import LabelRules


def read_header(path: Path, *, label: bool = False) -> Header:
    """Read a file's grid without its voxels; with `label` a picture is read as a label map.

    Raises:
        DataError: the file is missing, or is not a volume or picture.
    """
    return format_of(path).reader.read_header(path, label=label)


def read_stored(header: Header, *, label: bool = False) -> StoredVoxels:
    """Read the stored voxels that belong to a header.

    Raises:
        StreamError: a compressed NIfTI stream is truncated or corrupt.
        SizeError: a NIfTI file holds less data than its header states, or far more.
        DataError: as `read_volume`.
    """
    return format_of(header.path).reader.read_stored(header, label=label)


def read_volume(path: Path, *, keep_integers: bool = False) -> Volume:
    """Read a whole volume as float32 `(I, J, K)` or `(I, J, K, frames)`.

    With `keep_integers`, voxels that are stored as integers of up to 16 bits and not rescaled keep their type, which
    takes half of the memory and holds the same values.

    Raises:
        DataError: the file is missing, is not a volume or picture, or is truncated or corrupt.
    """
    header = read_header(path)
    stored = read_stored(header)
    is_short = stored.array.dtype.kind in "iu" and stored.array.dtype.itemsize <= 2
    if keep_integers and is_short and not stored.is_scaled:
        return Volume(stored.array, header)
    return Volume(stored.values(), header)


def read_label(path: Path, rules: LabelRules | None = None) -> Volume:
    """Read a label map as uint8 or, if its values do not fit, as a wider integer type.

    Rounding errors are removed (see `label_values`), as in the dataset check. By the rules, segments that the file
    itself names get the values of the labels with these names (see `join_names`), stored values are replaced by label
    values (see `renumber_labels`), and with `instances_as` every value above 0 by that one. Without rules the values
    are those in the file.

    Raises:
        DataError: as `read_volume`; or values are not whole numbers or negative, or cannot be renumbered; or segments
            are not declared.
    """
    rules = rules or LabelRules()
    header = join_names(read_header(path, label=True), rules)
    values = label_values(read_stored(header, label=True)).array
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"a label map cannot hold {values.dtype}", where=path.name, hint="Save it as integers."
        )
    if values.dtype == np.uint8 or not values.size:
        labels: NDArray[np.integer] | None = values.astype(np.uint8, copy=False)
    else:
        labels = as_integers(values)
    if labels is None:
        if not np.isfinite([values.min(), values.max()]).all():
            raise DataError("label has NaN or infinite values", where=path.name)
        raise DataError(
            "label values are not whole numbers of 0 or more",
            where=path.name,
            hint="Resample labels with nearest-neighbour interpolation.",
        )
    if rules.renumber:
        try:
            labels = renumber_labels(labels, rules.renumber)
        except DataError as error:
            raise DataError(error.what, where=path.name, hint=error.hint) from None
    if labels.size and (lowest := int(labels.min())) < 0:
        raise DataError(
            f"label values are not whole numbers of 0 or more: the smallest is {lowest}",
            where=path.name,
            hint="Say which label a negative value is by `stored_values` in the description, such as "
            f"`stored_values: {{tumour: {lowest}}}`.",
        )
    if rules.instances_as is not None:
        labels = np.where(labels > 0, np.uint8(rules.instances_as), np.uint8(0))
    return Volume(labels, header)


def read_channels(paths: list[Path], *, resample: bool = False, keep_integers: bool = False) -> Volume:
    """Read the channels of one scan as float32 `(C, I, J, K)`, with the header of the first file.

    With `keep_integers`, those of a single file may have another type, see `read_volume`.

    A path given n times is a 4D file whose n frames are those channels in order, or a colour picture; a grey picture
    is repeated n times. With `resample`, files on another grid are resampled to the grid of the first.

    Raises:
        DataError: as `read_volume`; or the files are on different grids, or have more or fewer frames than channels.
    """
    return join_channels(
        (
            (read_volume(path, keep_integers=keep_integers), paths.count(path))
            for path in dict.fromkeys(paths)
        ),
        resample=resample,
    )


def join_channels(volumes: Iterable[tuple[Volume, int]], *, resample: bool = False) -> Volume:
    """Join files that were read, each with its number of channels, to one scan; see `read_channels`.

    The channels of a single file are not copied. Those of several are, one after the other, so that an iterable
    which does not keep its volumes needs little more memory than the scan.

    Raises:
        DataError: the files are on different grids, or have more or fewer frames than channels.
    """
    files: list[NDArray[np.float32]] = []  # (C, I, J, K)
    first: Header | None = None
    for volume, num_wanted in volumes:
        path = volume.header.path
        array = volume.array[..., None] if volume.array.ndim == 3 else volume.array
        if volume.header.is_picture and array.shape[3] == 1:
            array = np.repeat(array, num_wanted, axis=3)
        if array.ndim != 4 or array.shape[3] != num_wanted:
            raise DataError(
                f"has shape {volume.header.shape}, but {num_wanted} channel(s) are to be read from it",
                where=path.name,
                hint="Name one channel for each frame, or split the file.",
            )
        if first is not None and (difference := describe_other_grid(volume.header, first)):
            if not resample:
                raise DataError(
                    f"{difference} of {first.path.name}",
                    where=path.name,
                    hint="Register the modalities to one grid first, or allow resampling with `--allow-resample`.",
                )
            onto = first.shape[:3], first.affine
            resampled = [resample_image(array[..., n], volume.affine, *onto) for n in range(num_wanted)]
            array = np.stack(resampled, axis=-1)
        first = first or volume.header
        files.append(np.moveaxis(array, 3, 0))
        del volume, array
    if first is None:
        raise DataError("no image is listed for this case")
    if len(files) == 1:
        channels = np.require(files[0], requirements="W")
    else:
        num_channels = sum(map(len, files))
        channels = np.moveaxis(np.empty((*files[0].shape[1:], num_channels), np.float32, order="F"), 3, 0)
        end = 0
        while files:
            part = files.pop(0)
            channels[end : end + len(part)] = part
            end += len(part)
    return Volume(channels, replace(first, shape=first.shape[:3]))


def share_grid(paths: Sequence[Path]) -> bool:
    """Return whether all images are on the grid of the first one, so that `read_channels` resamples none.

    Raises:
        DataError: a header cannot be read.
    """
    headers = [read_header(path) for path in dict.fromkeys(paths)]
    return not any(describe_other_grid(header, headers[0]) for header in headers[1:])


def describe_other_grid(header: Header, first: Header) -> str:
    """Describe how a grid differs from the first one by more than a tenth of a voxel; "" if it does not."""
    if header.shape[:3] != first.shape[:3]:
        return f"shape {header.shape[:3]} differs from {first.shape[:3]}"
    displacement_mm = corner_displacement_mm(first.shape, first.affine, header.affine)
    if displacement_mm > GRID_TOLERANCE_VOXELS * min(first.spacing_mm[:3]):
        return f"a corner of its grid is {displacement_mm:.3g} mm from that"
    return ""


def mask_ending(image: str | PurePath) -> str:
    """Return the ending of an image's predicted mask: PNG for pictures, NIfTI for volumes."""
    return ".png" if is_picture(PurePath(image)) else ".nii.gz"


def write_mask(path: Path, mask: NDArray[np.uint8], like: Header) -> None:
    """Write a label map `(I, J, K)` as uint8 with exactly the grid and geometry of `like`."""
    if mask.shape != like.shape[:3]:
        raise AssertionError(f"mask shape {mask.shape} is not the scan's {like.shape[:3]}")
    writer = format_of(path).writer
    assert writer is not None, f"masks cannot be written as {path.suffix}"
    writer.write_mask(path, mask, like)

"""The one way to read scans and labels and to write masks, whatever their format.

Arrays are `(I, J, K)` in the file's own axis order, with an affine to RAS+ mm. A 2D picture is a volume `(I, J, 1)`
measured in pixels (see pictures.py). What reads and writes a file is chosen by its ending (see formats.py).
"""

from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging.formats import format_of, is_picture
from medunet.imaging.geometry import DISPLACED_VOXELS, corner_displacement_mm
from medunet.imaging.resample import resample_image
from medunet.imaging.volume import Header, StoredVoxels, Volume
from medunet.imaging.whole_numbers import as_whole, label_values


def read_header(path: Path, *, label: bool = False) -> Header:
    """Read a file's grid without its voxels; `label` says that a picture's colours are values.

    Raises:
        DataError: the file is missing or is no volume or picture.
    """
    return format_of(path).reader.read_header(path, label=label)


def read_stored(header: Header, *, label: bool = False) -> StoredVoxels:
    """Read the voxels of a file whose header was read as they are stored, each byte decoded once.

    Raises:
        StreamError: a compressed NIfTI stream is cut off or corrupt.
        SizeError: a NIfTI file holds less than its header promises, or far more.
        DataError: as `read_volume`.
    """
    return format_of(header.path).reader.read_stored(header, label=label)


def read_volume(path: Path) -> Volume:
    """Read a volume whole as float32 `(I, J, K)` or `(I, J, K, frames)`.

    Raises:
        DataError: the file is missing, is no volume or picture, or is truncated or corrupt.
    """
    header = read_header(path)
    return Volume(read_stored(header).values(), header)


def read_label(path: Path, *, instances_as: int | None = None) -> Volume:
    """Read a label map as uint8 or, where values need it, a wider integer type.

    Values are those that the check sees (see `label_values`). With `instances_as` (see `Description.instances_as`)
    every value above 0 becomes that one.

    Raises:
        DataError: as `read_volume`; or values are not whole numbers or negative.
    """
    header = read_header(path, label=True)
    values = label_values(read_stored(header, label=True))
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"a label map cannot hold {values.dtype}", where=path.name, hint="Save it as integers."
        )
    if values.dtype == np.uint8 or not values.size:
        labels: NDArray[np.integer] | None = values.astype(np.uint8, copy=False)
    else:
        labels = as_whole(values)
    if labels is None and not np.isfinite([values.min(), values.max()]).all():
        raise DataError("label has NaN or infinite values", where=path.name)
    if labels is None or (labels.dtype != np.uint8 and labels.min() < 0):
        raise DataError(
            "label values are not whole numbers of 0 or more",
            where=path.name,
            hint="Resample labels with nearest-neighbour interpolation.",
        )
    if instances_as is not None:
        labels = np.where(labels > 0, np.uint8(instances_as), np.uint8(0))
    return Volume(labels, header)


def read_channels(paths: list[Path], *, resample: bool = False) -> Volume:
    """Read one scan's channels as float32 `(C, I, J, K)`; the first file's header stands for all.

    A path given n times is one 4D file whose n frames are those channels, in their order, or a colour picture; a
    grey picture is repeated. With `resample`, files on another grid than the first are brought to its.

    Raises:
        DataError: as `read_volume`; or the files lie on several grids, or have frames that nobody asked for.
    """
    frames: list[NDArray[np.float32]] = []
    first: Header | None = None
    for path in dict.fromkeys(paths):
        volume = read_volume(path)
        num_wanted = paths.count(path)
        array = volume.array[..., None] if volume.array.ndim == 3 else volume.array
        if volume.header.is_picture and array.shape[3] == 1:
            array = np.repeat(array, num_wanted, axis=3)
        if array.ndim != 4 or array.shape[3] != num_wanted:
            raise DataError(
                f"has shape {volume.header.shape}, but {num_wanted} channel(s) are to be read from it",
                where=path.name,
                hint="Name one channel for each frame, or split the file.",
            )
        if first is not None and (apart := _tell_grids_apart(volume.header, first)):
            if not resample:
                raise DataError(
                    f"{apart} of {first.path.name}",
                    where=path.name,
                    hint="Register the modalities to one grid first, or accept `medunet check --allow-resample`.",
                )
            onto = first.shape[:3], first.affine
            moved = [resample_image(array[..., n], volume.affine, *onto) for n in range(num_wanted)]
            array = np.stack(moved, axis=-1)
        first = first or volume.header
        frames.extend(array[..., index] for index in range(num_wanted))
    if first is None:
        raise DataError("no image is named for this case")
    return Volume(np.stack(frames), replace(first, shape=first.shape[:3]))


def _tell_grids_apart(header: Header, first: Header) -> str:
    """Say how a grid differs from the first one's by more than a tenth of a voxel; "" where it does not."""
    if header.shape[:3] != first.shape[:3]:
        return f"shape {header.shape[:3]} differs from {first.shape[:3]}"
    apart_mm = corner_displacement_mm(first.shape, first.affine, header.affine)
    if apart_mm > DISPLACED_VOXELS * min(first.spacing_mm[:3]):
        return f"its farthest corner lies {apart_mm:.3g} mm from that"
    return ""


def mask_ending(image: str | PurePath) -> str:
    """Return the ending of an image's predicted mask: PNG for pictures, else NIfTI."""
    return ".png" if is_picture(PurePath(image)) else ".nii.gz"


def write_mask(path: Path, mask: NDArray[np.uint8], like: Header) -> None:
    """Write a label map `(I, J, K)` as uint8 on the grid of `like`, with its very geometry."""
    if mask.shape != like.shape[:3]:
        raise AssertionError(f"mask shape {mask.shape} is not the scan's {like.shape[:3]}")
    writer = format_of(path).writer
    assert writer is not None, f"no mask is written as {path.suffix}"
    writer.write_mask(path, mask, like)

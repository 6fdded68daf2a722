"""The one way to read scans and labels and to write masks: NIfTI, 2D pictures and other tools' formats, by ending.

Arrays are `(I, J, K)` in the file's own axis order, with an affine to RAS+ mm. A 2D picture is a volume `(I, J, 1)`
measured in pixels (see flat_images.py). Other tools' formats are read only (see foreign_masks.py).
"""

from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.imaging import flat_images, foreign_masks, nifti
from medunet.imaging.flat_images import is_flat
from medunet.imaging.foreign_masks import is_foreign
from medunet.imaging.geometry import DISPLACED_VOXELS, corner_displacement_mm
from medunet.imaging.nifti import Header, StoredVoxels, Volume
from medunet.imaging.resample import resample_image


def read_header(path: Path, *, label: bool = False) -> Header:
    """Read a file's grid without its voxels; `label` says that a picture's colours are values.

    Raises:
        DataError: the file is missing or is no volume or picture.
    """
    if is_foreign(path):
        return foreign_masks.read_header(path)
    if not is_flat(path):
        return nifti.read_header(path)
    return Header(path, flat_images.read_shape(path, label=label), flat_images.flat_affine(), None)


def read_stored(header: Header, *, label: bool = False) -> StoredVoxels:
    """Read the voxels of a file whose header was read as they are stored, each byte decoded once.

    Raises:
        StreamError: a compressed NIfTI stream is cut off or corrupt.
        SizeError: a NIfTI file holds less than its header promises, or far more.
        DataError: as `read_volume`.
    """
    if is_foreign(header.path):
        return StoredVoxels(foreign_masks.read_volume(header.path).array)
    if is_flat(header.path):
        return StoredVoxels(flat_images.read_pixels(header.path, label=label))
    return nifti.read_stored(header)


def read_volume(path: Path, *, label: bool = False) -> Volume:
    """Read a volume whole as float32 `(I, J, K)` or `(I, J, K, frames)`; `label` as in `read_header`.

    Raises:
        DataError: the file is missing, is no volume or picture, or is truncated or corrupt.
    """
    if is_foreign(path):
        volume = foreign_masks.read_volume(path)
        return Volume(volume.array.astype(np.float32, order="K"), volume.header)
    if not is_flat(path):
        return nifti.read_volume(path)
    pixels = flat_images.read_pixels(path, label=label)
    header = Header(path, pixels.shape, flat_images.flat_affine(), None)
    return Volume(pixels.astype(np.float32, order="K"), header)


def read_label(path: Path, *, instances_as: int | None = None) -> Volume:
    """Read a label map as uint8 or, where values need it, a wider integer type.

    With `instances_as` (see `Description.instances_as`) every value above 0 becomes that one.

    Raises:
        DataError: as `read_volume`; or values are not whole numbers or negative.
    """
    if is_foreign(path):
        volume = foreign_masks.read_volume(path)
    else:
        volume = read_volume(path, label=True) if is_flat(path) else nifti.read_volume(path, dtype=None)
    if volume.array.dtype == np.uint8 and instances_as is None:
        return volume
    if volume.array.dtype.kind not in "biuf":
        raise DataError(
            f"a label map cannot hold {volume.array.dtype}", where=path.name, hint="Save it as integers."
        )
    low, high = (float(volume.array.min()), float(volume.array.max())) if volume.array.size else (0.0, 0.0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("label has NaN or infinite values", where=path.name)
    dtype = np.uint8 if low >= 0 and high <= 255 else np.int32
    with np.errstate(invalid="ignore"):  # what is beyond the type then differs
        labels: NDArray[np.integer] = volume.array.astype(dtype)
    if not np.array_equal(labels, volume.array) or low < 0:
        raise DataError(
            "label values are not whole numbers of 0 or more",
            where=path.name,
            hint="Resample labels with nearest-neighbour interpolation.",
        )
    if instances_as is not None:
        labels = np.where(labels > 0, np.uint8(instances_as), np.uint8(0))
    return Volume(labels, volume.header)


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
        if is_flat(path) and array.shape[3] == 1:
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
    header = Header(first.path, first.shape[:3], first.affine, first.nifti)
    return Volume(np.stack(frames), header)


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
    return ".png" if is_flat(PurePath(image)) else ".nii.gz"


def write_mask(path: Path, mask: NDArray[np.uint8], like: Header) -> None:
    """Write a label map `(I, J, K)` as uint8 on the grid of `like`, with its very geometry."""
    if mask.shape != like.shape[:3]:
        raise AssertionError(f"mask shape {mask.shape} is not the scan's {like.shape[:3]}")
    if is_flat(path):
        flat_images.write_mask(path, mask)
    else:
        nifti.write_mask(path, mask, like)

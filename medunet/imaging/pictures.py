"""Read and write 2D pictures (PNG, TIFF and JPEG) as volumes `(I, J, 1)`.

Axis 0 runs to the right, across a picture's columns, and axis 1 down its rows. A picture has no position in the
patient and no spacing: it is measured in pixels. Its affine is the same as SimpleITK's, to L along axis 0 and to P
along axis 1, so that it appears upright in axial views.
"""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from medunet.base.errors import DataError
from medunet.base.files import atomic_write
from medunet.imaging.geometry import Affine
from medunet.imaging.volume import PIXELS, Header, StoredVoxels

_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
_GREY = ("1", "L", "I", "F", *_SIXTEEN_BITS, "LA", "La")
_COLOUR = ("RGB", "RGBA", "RGBa", "RGBX")
_BROKEN = (  # what Pillow raises for damaged files
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(struct.error, Image.DecompressionBombError),
)


class ColourError(DataError):
    """A label has colours that are not label values."""


def picture_affine() -> Affine:
    """Return the affine of all pictures: pixel size 1, rightwards to L and downwards to P."""
    return np.diag([-1.0, -1.0, 1.0, 1.0])


def read_header(path: Path, *, label: bool = False) -> Header:
    """Read a picture's grid without its pixels: `(I, J, 1)` if it is grey or a label, `(I, J, 1, 3)` if in colour.

    Raises:
        DataError: it cannot be read, has several pages, or has colours that are not RGB.
    """
    with _open(path) as picture:
        colours = not label and picture.mode not in _GREY
        shape = (*picture.size, 1, 3) if colours else (*picture.size, 1)
        return Header(path, shape, picture_affine(), _dtype_of(picture), PIXELS)


def read_stored(header: Header, *, label: bool = False) -> StoredVoxels:
    """Read a picture's pixels `(I, J, 1)`, or `(I, J, 1, 3)` if in colour, in their stored type of 8 or 16 bits.

    The alpha channel is dropped. A palette is converted to colours; in a label the palette's indices are the values.
    A label saved in colours is read if red, green and blue are equal everywhere.

    Raises:
        DataError: as `read_header`; or the file is truncated or corrupt.
        ColourError: a label has colours.
    """
    path = header.path
    with _open(path) as picture:
        try:
            pixels = _decode(picture, path, label=label)
        except (*_BROKEN, MemoryError) as error:
            raise DataError(
                f"the pixels cannot be read ({_short(error, path)}): the file is truncated or corrupt",
                where=path.name,
                hint="Copy or export it again.",
            ) from error
    if label and pixels.ndim == 3:
        if not (pixels == pixels[..., :1]).all():
            raise ColourError(
                "has colours where label values should be",
                where=path.name,
                hint="Save the label as a grey or palette image of its values.",
            )
        pixels = pixels[..., 0]
    return StoredVoxels(pixels.swapaxes(0, 1)[:, :, None])


def write_mask(path: Path, mask: NDArray[np.uint8], like: Header) -> None:
    """Write a label map `(I, J, 1)` as an 8-bit grey PNG of its values; a PNG stores no geometry."""
    with atomic_write(path, suffix=".png") as temporary:
        Image.fromarray(np.ascontiguousarray(mask[:, :, 0].T, dtype=np.uint8)).save(temporary, format="PNG")


def _open(path: Path) -> ImageFile.ImageFile:
    try:
        picture = Image.open(path)
        num_pages = getattr(picture, "n_frames", 1)
    except FileNotFoundError as error:
        raise DataError("no such file", where=path.name) from error
    except _BROKEN as error:
        raise DataError(
            f"not a readable picture ({_short(error, path)})", where=path.name, hint="Export it again."
        ) from error
    fault = ""
    if num_pages > 1:
        fault, hint = f"has {num_pages} pages", "Save each page as a separate file."
    elif picture.mode not in (*_GREY, *_COLOUR, "P", "PA"):
        fault, hint = f"has colours of mode {picture.mode}", "Convert it to RGB or grey."
    if fault:
        picture.close()
        raise DataError(fault, where=path.name, hint=hint)
    return picture


def _decode(picture: ImageFile.ImageFile, path: Path, *, label: bool) -> NDArray[Any]:
    """Return pixels `(rows, columns)` or `(rows, columns, 3)`."""
    if picture.mode in ("P", "PA"):
        index = picture.getchannel(0) if label else picture.convert("RGB")
        return np.asarray(index)
    if picture.mode in ("LA", "La"):
        return np.asarray(picture.getchannel(0))
    if picture.mode not in _COLOUR:
        pixels = np.asarray(picture)
        return pixels.astype(np.uint8) if pixels.dtype == bool else pixels
    if _has_deep_colours(picture):
        import SimpleITK as sitk

        return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[..., :3]
    return np.asarray(picture)[..., :3]


def _dtype_of(picture: ImageFile.ImageFile) -> np.dtype[Any]:
    """Return the data type of a picture's stored pixels; uint8 for 1-bit pictures."""
    if picture.mode in _SIXTEEN_BITS or _has_deep_colours(picture):
        return np.dtype(np.uint16)
    return np.dtype({"I": np.int32, "F": np.float32}.get(picture.mode, np.uint8))


def _has_deep_colours(picture: ImageFile.ImageFile) -> bool:
    """Return whether colours have 16 bits per channel, which Pillow would reduce to 8."""
    return picture.mode in _COLOUR and any("16" in str(tile.args) for tile in picture.tile)


def _short(error: BaseException, path: Path) -> str:
    return " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__

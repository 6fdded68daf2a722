"""Reader and writer of NIfTI files: arrays `(I, J, K)` with an RAS+ affine in mm.

Axes keep the file's own order. A mask is written with the very header geometry (sform, qform, codes, units)
of the scan that it belongs to, so that any viewer overlays the two exactly.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.errors import DataError
from medunet.files import whole_file
from medunet.imaging.geometry import Affine, spacing_of

_MM_PER_UNIT = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_GEOMETRY_FIELDS = (
    *("sform_code", "qform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


@dataclass(frozen=True)
class Header:
    """A volume's grid: shape as stored, affine in RAS+ mm, and the NIfTI header it was read from.

    A 2D picture has no such header (`nifti` is None), and its lengths are pixels.
    """

    path: Path
    shape: tuple[int, ...]
    affine: Affine
    nifti: nib.Nifti1Header | None

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size in mm along each array axis."""
        return spacing_of(self.affine)


@dataclass(frozen=True)
class Volume:
    """A volume's voxels, array `(I, J, K)` or `(I, J, K, frames)`, with its header."""

    array: NDArray[Any]
    header: Header

    @property
    def affine(self) -> Affine:
        """Affine from voxel index to RAS+ mm, (4, 4)."""
        return self.header.affine

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size in mm along each array axis."""
        return self.header.spacing_mm


def _open(path: Path) -> nib.Nifti1Image:
    try:
        image = nib.load(path)
    except FileNotFoundError as error:
        raise DataError("no such file", where=path.name) from error
    except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
        raise DataError(
            f"not a readable NIfTI file ({error})".replace(str(path), path.name),
            where=path.name,
            mend="Export it again.",
        ) from error
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"cannot be read ({_short(error, path)})", where=path.name, mend="Copy or export it again."
        ) from error
    if not isinstance(image, nib.Nifti1Image):
        raise DataError(
            f"is {type(image).__name__}, not NIfTI", where=path.name, mend="Convert it to .nii.gz."
        )
    return image


def _short(error: Exception, path: Path) -> str:
    return " ".join(str(error).replace(str(path), path.name).split()) or type(error).__name__


def _header(image: nib.Nifti1Image, path: Path) -> Header:
    shape = tuple(int(n) for n in image.shape)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= _MM_PER_UNIT[image.header.get_xyzt_units()[0]]
    return Header(path, shape, affine, image.header)


def read_header(path: Path) -> Header:
    """Read a volume's grid without its voxels.

    Raises:
        DataError: the file is missing or is not NIfTI.
    """
    return _header(_open(path), path)


def read_volume(path: Path, dtype: Any = np.float32) -> Volume:
    """Read a volume whole, its scale and intercept applied; `dtype` None is the file's own, float64 if it scales.

    Raises:
        DataError: the file is missing, not NIfTI, or its stream is truncated or corrupt.
    """
    image = _open(path)
    header = _header(image, path)
    try:
        if dtype is None:
            array = np.asanyarray(image.dataobj)
            array = np.array(array) if isinstance(array, np.memmap) else array  # of an uncompressed file
        elif np.issubdtype(dtype, np.floating):
            array = image.get_fdata(dtype=dtype, caching="unchanged")
        else:
            array = np.asarray(image.dataobj).astype(dtype, copy=False)
    except (OSError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(
            f"the voxels cannot be read ({_short(error, path)}): the file is truncated or corrupt",
            where=path.name,
            mend="Copy or export it again.",
        ) from error
    except Exception as error:  # zlib.error has no base class but Exception
        if type(error).__name__ != "error":
            raise
        raise DataError(
            f"the compressed stream is corrupt ({error})", where=path.name, mend="Copy or export it again."
        ) from error
    return Volume(array.reshape(header.shape), header)


def write_mask(path: Path, mask: NDArray[np.uint8], like: Header) -> None:
    """Write a label map `(I, J, K)` as uint8 on the grid of `like`: same affine, codes and units.

    Nothing else of the scan's header is copied, since free-text fields may name the patient.
    """
    assert like.nifti is not None, "a picture's mask is no NIfTI file"
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(mask.shape)
    header["xyzt_units"] = like.nifti["xyzt_units"]
    header["pixdim"][:4] = like.nifti["pixdim"][:4]
    for name in _GEOMETRY_FIELDS:
        header[name] = like.nifti[name]
    image = nib.Nifti1Image(np.ascontiguousarray(mask, dtype=np.uint8), None, header)
    with whole_file(path, suffix=".nii.gz" if path.name.endswith(".gz") else ".nii") as temporary:
        nib.save(image, temporary)


def write_volume(path: Path, array: NDArray[Any], affine: Affine) -> None:
    """Write an array `(I, J, K)` with an RAS+ affine in mm as a NIfTI scan, in the array's own type."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    with whole_file(path, suffix=".nii.gz" if path.name.endswith(".gz") else ".nii") as temporary:
        nib.save(image, temporary)

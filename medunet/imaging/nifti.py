"""Read and write NIfTI files as arrays `(I, J, K)` with an RAS+ affine in mm.

Axes are in the order of the file. A mask is written with the header geometry (sform, qform, codes, units) of its
scan, so that any viewer overlays the two exactly.
"""

import io
import logging
import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from isal import igzip_threaded
from numpy.typing import NDArray

from medunet.base.errors import DataError
from medunet.base.files import atomic_write
from medunet.base.processor import num_threads
from medunet.base.threads import map_threads, slices
from medunet.imaging.geometry import Affine, max_volume_bytes
from medunet.imaging.gzip_files import is_gzipped, read_span, read_start
from medunet.imaging.volume import Forms, Header, StoredVoxels, dtype_name
from medunet.records.data_files import outside_data_file

_UNITS = {0: ("unknown", 1.0), 1: ("metres", 1000.0), 2: ("mm", 1.0), 3: ("micrometres", 0.001)}  # code: mm
_HEADERS = (  # of each version: header size, offset of the magic bytes, header type by magic bytes
    (348, 344, {b"n+1\0": nib.Nifti1Header, b"ni1\0": nib.nifti1.Nifti1PairHeader}),
    (540, 4, {b"n+2\0": nib.Nifti2Header, b"ni2\0": nib.nifti2.Nifti2PairHeader}),
)
_LONGEST_HEADER = 540
_SLAB_BYTES = 1 << 24  # brought into the file's order and written together
_COLUMNS = 16  # transposed together: the lines that they touch fit into the processor's cache
_BLOCK = 1 << 20  # bytes that one thread compresses
_LEVEL = 1  # of ISA-L: smaller and faster than zlib's level 1, which NiBabel uses
_SILENT = logging.getLogger(f"{__name__}.header")  # discards NiBabel's messages on header repairs
_SILENT.disabled = True
_GEOMETRY_FIELDS = (
    *("sform_code", "qform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)


@dataclass(frozen=True)
class NiftiHeader(Header):
    """The header of a NIfTI file with NiBabel's own header, which has the voxel offset and the mask geometry."""

    nifti: nib.Nifti1Header = field(kw_only=True, repr=False)


def read_header(path: Path, *, label: bool = False) -> NiftiHeader:
    """Read a volume's grid without its voxels: NIfTI-1 or NIfTI-2, a single file or a pair of .hdr and .img.

    Raises:
        DataError: the file is missing, cannot be opened or is not NIfTI.
    """
    header_path, _ = _paths_of(path)
    if outside := outside_data_file(header_path):
        raise DataError(outside, where=path.name, hint="Put both files of the pair into one folder.")
    try:
        start = read_start(header_path, _LONGEST_HEADER)
    except FileNotFoundError as error:
        raise DataError("no such file", where=header_path.name) from error
    except OSError as error:
        raise _unreadable(header_path, error) from error
    has_gz_ending = header_path.suffix.lower() == ".gz"
    if has_gz_ending and start and not is_gzipped(header_path):
        raise _not_nifti(path, "its name ends in .gz, but it is not compressed")
    if not has_gz_ending and is_gzipped(header_path):
        raise _not_nifti(path, "it is compressed, but its name does not end in .gz")
    try:
        nifti = _parse(start)
        shape = tuple(int(n) for n in nifti.get_data_shape())
        affine = np.array(nifti.get_best_affine(), dtype=np.float64)
    except (nib.spatialimages.HeaderDataError, ValueError, OverflowError) as error:
        raise _not_nifti(path, str(error)) from error
    if any(n < 0 for n in shape):
        raise _not_nifti(path, f"its dimensions are {shape}")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    code = int(nifti["xyzt_units"]) & 7
    unit, mm = _UNITS.get(code, (f"unit code {code}", 1.0))
    affine[:3] *= mm
    return NiftiHeader(
        path,
        shape,
        affine,
        nifti.get_data_dtype(),
        unit,
        float(nifti["scl_slope"]),
        float(nifti["scl_inter"]),
        _read_forms(nifti),
        nifti=nifti,
    )


def read_stored(header: Header, *, label: bool = False) -> StoredVoxels:
    """Read the stored voxels of a NIfTI file; a compressed file is decoded once, up to and including its checksum.

    Raises:
        StreamError: the compressed stream is truncated or corrupt.
        SizeError: the file holds less data than its header states, or far more.
        DataError: its voxels exceed the size limit or are complex numbers or colours, NiBabel and SimpleITK apply
            its scale factors differently (see `Header.scaling_fault`), or it cannot be read.
    """
    assert isinstance(header, NiftiHeader), "the header is of another format"
    nifti, dtype = header.nifti, header.dtype
    if dtype.kind not in "biuf":
        raise DataError(
            f"its voxels are of type {dtype_name(dtype)}, which cannot be segmented",
            where=header.path.name,
            hint="Convert it to integers or floats.",
        )
    if header.scaling_fault:
        raise DataError(
            f"NiBabel and SimpleITK apply its scale factors differently ({header.scaling_fault})",
            where=header.path.name,
            hint="Set the slope and intercept that are right: 1 and 0 if values are not scaled.",
        )
    if header.num_bytes > (cap := max_volume_bytes()):
        raise DataError(
            f"its voxels take {header.num_bytes / 1e9:.3g} GB, more than the limit of {cap / 1e9:g} GB",
            where=header.path.name,
            hint="Crop it, or set MEDUNET_MAX_VOLUME_GB.",
        )
    try:
        slope, intercept = nifti.get_slope_inter()
        offset = int(nifti.get_data_offset())
        data, num_surplus = read_span(_paths_of(header.path)[1], offset, header.num_bytes)
    except (nib.spatialimages.HeaderDataError, ValueError, OverflowError) as error:
        if isinstance(error, DataError):
            raise
        raise _not_nifti(header.path, str(error)) from error
    except (OSError, MemoryError) as error:
        raise _unreadable(header.path, error) from error
    array = data.view(dtype)
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    array = array.reshape(header.shape, order="F")
    return StoredVoxels(array, 1.0 if slope is None else slope, intercept or 0.0, num_surplus)


def _read_forms(nifti: nib.Nifti1Header) -> Forms:
    sform = nifti.get_sform() if nifti["sform_code"] != 0 else None
    try:
        return Forms(sform, nifti.get_qform() if nifti["qform_code"] != 0 else None)
    except (nib.spatialimages.HeaderDataError, ValueError) as error:
        return Forms(sform, None, str(error))


def _paths_of(path: Path) -> tuple[Path, Path]:
    """Return the paths of header and voxels: two files if the name ends in .hdr or .img, otherwise the same one."""
    gz_ending = path.suffix if path.suffix.lower() == ".gz" else ""
    stem = path.name.removesuffix(gz_ending)
    kind = Path(stem).suffix
    if kind.lower() not in (".hdr", ".img"):
        return path, path
    stem = stem.removesuffix(kind)
    header, voxels = (".HDR", ".IMG") if kind.isupper() else (".hdr", ".img")
    return path.with_name(stem + header + gz_ending), path.with_name(stem + voxels + gz_ending)


def _parse(start: bytes) -> nib.Nifti1Header:
    """Parse the header at the start of a file, of a single file or a pair, of either version and byte order."""
    for size, position, magics in _HEADERS:
        for magic, header_type in magics.items():
            if len(start) >= size and start[position : position + len(magic)] == magic:
                header = header_type(start[:size], check=False)
                _check_layout(header)
                header.check_fix(logger=_SILENT)
                return header
    raise ValueError("it does not start with a NIfTI header")


def _check_layout(header: nib.Nifti1Header) -> None:
    """Check the number of axes and the offset of the voxels, which NiBabel does not check."""
    if not 1 <= int(header["dim"][0]) <= 7:
        raise ValueError("its number of axes is not between 1 and 7")
    offset = float(header["vox_offset"])
    if not (header.single_vox_offset if header.is_single else 0) <= offset < math.inf:  # true for NaN
        raise ValueError(f"its voxels cannot start at byte {offset:g}")


def _not_nifti(path: Path, reason: str) -> DataError:
    return DataError(f"not a readable NIfTI file ({reason})", where=path.name, hint="Export it again.")


def _unreadable(path: Path, error: BaseException) -> DataError:
    reason = (
        getattr(error, "strerror", None) or type(error).__name__
    )  # the error's text may contain the folder
    return DataError(f"cannot be read ({reason})", where=path.name, hint="Copy or export it again.")


def write_mask(path: Path, mask: NDArray[np.uint8], like: Header) -> None:
    """Write a label map `(I, J, K)` as uint8 on the grid of `like`, with the same affine, codes and units.

    No other header field of the scan is copied, since free-text fields may identify the patient.
    """
    geometry = like.nifti if isinstance(like, NiftiHeader) else _make_geometry(like)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(mask.shape)
    header["xyzt_units"] = geometry["xyzt_units"]
    header["pixdim"][:4] = geometry["pixdim"][:4]
    for name in _GEOMETRY_FIELDS:
        header[name] = geometry[name]
    _write(path, nib.Nifti1Image(mask.astype(np.uint8, copy=False), None, header))


def _make_geometry(like: Header) -> nib.Nifti1Header:
    """Return a NIfTI header with the geometry of a scan of another format in sform and qform."""
    assert not like.is_picture, "the mask of a picture cannot be written as NIfTI"
    header = nib.Nifti1Header()
    header.set_data_shape(like.shape)
    header.set_xyzt_units("mm")
    header.set_sform(like.affine, 1)
    header.set_qform(like.affine, 1)
    return header


def write_volume(path: Path, array: NDArray[Any], affine: Affine) -> None:
    """Write an array `(I, J, K)` with an RAS+ affine in mm as a NIfTI scan, in the array's data type."""
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine, 1, strip_shears=True)
    _write(path, image)


def _write(path: Path, image: nib.Nifti1Image) -> None:
    """Write an image as NiBabel does, with its voxels in the array's own type, compressed on all cores.

    The same image gives the same bytes: the gzip header has no time and no name, and the parts that are compressed
    at once do not depend on the number of threads. But ISA-L was seen to compress the first part in another way,
    once or twice in some thousand volumes, to the same voxels.
    """
    array, header = np.asanyarray(image.dataobj), image.header
    header.set_slope_inter(1.0, 0.0)
    header.set_data_offset(header.single_vox_offset)
    start = io.BytesIO()
    header.write_to(start)
    is_packed = path.name.endswith(".gz")
    length = max(1, _SLAB_BYTES // max(1, array[..., :1].nbytes))
    with atomic_write(path, suffix=".nii.gz" if is_packed else ".nii") as temporary, ExitStack() as stack:
        opened = (
            igzip_threaded.open(temporary, "wb", _LEVEL, threads=num_threads(), block_size=_BLOCK)
            if is_packed
            else temporary.open("wb")
        )
        stream = stack.enter_context(opened)
        stream.write(start.getvalue().ljust(header.single_vox_offset, b"\0"))
        for part in slices(array.shape[-1], length):
            voxels = _in_file_order(array[..., part], header.get_data_dtype())
            stream.write(voxels.ravel(order="F").view(np.uint8).data)


def _in_file_order(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array whose first axis is contiguous, as in a file, and in the file's type."""
    if array.flags.f_contiguous and array.dtype == dtype:
        return array
    ordered = np.empty(array.shape, dtype, order="F")

    def copy(part: slice) -> None:
        ordered[:, part] = array[:, part]

    map_threads(copy, slices(array.shape[1], _COLUMNS))
    return ordered

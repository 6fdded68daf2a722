"""Scans and labels in every format that is read, as other programs write them: types, byte orders, scales, axes."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]
Kind = tuple[str, str, Callable[[Path], object]]  # name, ending, and what writes the file

SHAPE = (10, 9, 6)
SIZE = (24, 20)  # of pictures: columns and rows
AFFINE = np.diag([-0.8, 1.0, 3.0, 1.0]) + np.array([[0, 0, 0, 20.0], [0, 0, 0, -30], [0, 0, 0, 5], [0] * 4])
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


def scan() -> Array:
    """Return voxels from 20 to 119, which fit every type, on an uneven grid."""
    return np.random.default_rng(1).integers(20, 120, SHAPE)


def label() -> Array:
    """Return a core, 2, within a structure, 1: like no flip or turn of itself."""
    values = np.zeros(SHAPE, int)
    values[1:7, 2:8, 1:4] = 1
    values[2:5, 3:6, 1:3] = 2
    return values


def picture(is_label: bool) -> Array:
    """Return pixels `(rows, columns)`."""
    if not is_label:
        return np.random.default_rng(2).integers(20, 120, SIZE[::-1])
    values = np.zeros(SIZE[::-1], int)
    values[2:14, 3:12] = 1
    values[4:9, 5:9] = 2
    return values


# ---- NIfTI ------------------------------------------------------------------------------------------------------


def put_nifti(path: Path, array: Array, dtype: str, *, kind: Any = nib.Nifti1Image, **changes: Any) -> None:
    """Write voxels in a type such as "<i2", with fields of the header changed."""
    forms = changes.pop("forms", (1, 1))
    affine = changes.pop("affine", AFFINE)
    image = kind(
        array.astype(np.dtype(dtype).newbyteorder("=")), affine, dtype=np.dtype(dtype).newbyteorder("=")
    )
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, forms[0])
    image.set_qform(affine, forms[1])
    header = image.header.as_byteswapped(np.dtype(dtype).byteorder if dtype[0] in "<>" else "<")
    nib.save(kind(image.dataobj, None, header), path)
    if changes:
        set_header(path, **changes)


def set_header(path: Path, **fields: Any) -> None:
    """Set fields of the header of a single NIfTI-1 file and nothing else."""
    is_gzipped = path.suffix == ".gz"
    data = gzip.decompress(path.read_bytes()) if is_gzipped else path.read_bytes()
    header = nib.Nifti1Header(data[:348], check=False)
    for key, value in fields.items():
        header[key] = value
    data = header.binaryblock + data[348:]
    path.write_bytes(gzip.compress(data) if is_gzipped else data)


def nifti_kinds(values: Array) -> Iterator[Kind]:
    """Yield NIfTI files of the values."""

    def kind(name: str, ending: str, *args: Any, array: Array = values, **others: Any) -> Kind:
        return name, ending, lambda path: put_nifti(path, array, *args, **others)

    for number, dtype in enumerate(DTYPES):
        for order in "<>":
            yield kind(f"nifti {order}{dtype}", (".nii", ".nii.gz")[number % 2], order + dtype)
    yield kind("nifti-2", ".nii.gz", "<i2", kind=nib.Nifti2Image)
    yield kind("nifti-2 big", ".nii", ">f4", kind=nib.Nifti2Image)
    for ending in (".hdr", ".img", ".img.gz"):
        yield kind(f"pair {ending}", ending, "<i2", kind=nib.Nifti1Pair)
    yield kind("capitals", ".NII.GZ", "<i2")
    yield kind("fourth axis of one", ".nii.gz", "<i2", array=values[..., None])
    yield kind("fifth axis of one", ".nii", "<i2", array=values[..., None, None])
    yield kind("slope 1", ".nii.gz", "<i2", scl_slope=1.0, scl_inter=0.0)
    yield kind("slope 0", ".nii.gz", "<i2", scl_slope=0.0, scl_inter=7.0)
    yield kind("slope 2", ".nii", "<i2", array=values * 2, scl_slope=0.5, scl_inter=0.0)
    yield kind("intercept", ".nii", ">i2", array=values + 9, scl_slope=1.0, scl_inter=-9.0)
    yield kind("tenths", ".nii.gz", "<i2", array=values * 10, scl_slope=0.1, scl_inter=0.0)
    yield kind("negative slope", ".nii", "<i2", array=-values, scl_slope=-1.0, scl_inter=0.0)
    yield kind("slope of floats", ".nii", "<f4", array=values * 4, scl_slope=0.25, scl_inter=0.0)
    yield kind("sform alone", ".nii.gz", "<i2", forms=(2, 0))
    yield kind("qform alone", ".nii.gz", "<i2", forms=(0, 1))
    yield kind("cal_max and intent", ".nii.gz", "<i2", cal_max=50.0, intent_code=1002)
    yield kind("alike in float32", ".nii", "<i8", array=values + (1 << 40))
    yield kind("voxels later", ".nii", "<i2", kind=_Late)

    def two_members(path: Path) -> None:
        put_nifti(path, values, "<i2")
        data = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(data[:500]) + gzip.compress(data[500:]))

    yield "gzip of two members", ".nii.gz", two_members


class _Late(nib.Nifti1Image):
    """A file whose voxels begin after an extension."""

    def __init__(self, *args: Any, **others: Any) -> None:
        super().__init__(*args, **others)
        self.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a" * 40))


# ---- NRRD, MetaImage --------------------------------------------------------------------------------------------


def itk_image(array: Array, *, codes: str = "LPS", tilt: float = 0.0, is_vector: bool = False) -> Any:
    """Return `(I, J, K)` as a SimpleITK image whose grid is AFFINE's, in other axis directions."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T), isVector=is_vector)
    if image.GetDimension() != 3:
        return image
    image.SetSpacing((0.8, 1.0, 3.0))
    direction = inv_ornt_aff(axcodes2ornt(codes, (("L", "R"), ("P", "A"), ("I", "S"))), SHAPE)[:3, :3]
    cos, sin = np.cos(tilt), np.sin(tilt)
    turned = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ np.diag([-1, -1, 1]) @ direction
    image.SetDirection(turned.ravel().tolist())
    return image


def itk_kinds(values: Array) -> Iterator[Kind]:
    """Yield NRRD and MetaImage files of the values."""

    def kind(name: str, ending: str, image: Any, **options: Any) -> Kind:
        return name, ending, lambda path: sitk.WriteImage(image, str(path), **options)

    for number, dtype in enumerate(DTYPES):
        ending = (".nrrd", ".mha", ".mhd")[number % 3]
        yield kind(f"itk {dtype}", ending, itk_image(values.astype(dtype)), useCompression=number % 2 == 0)
    for number, codes in enumerate(("RAS", "SPL", "ASR", "PIR")):
        image = itk_image(values.astype("i2"), codes=codes, tilt=0.3)
        yield kind(f"itk {codes}", (".nrrd", ".mha", ".mhd", ".nrrd")[number], image)
    yield "nrrd big ascii", ".nrrd", lambda path: put_nrrd(path, values, "ascii")
    yield "nrrd big raw", ".nrrd", lambda path: put_nrrd(path, values, "raw")
    yield "nrrd big gzip", ".nrrd", lambda path: put_nrrd(path, values, "gzip")
    yield "mha big", ".mha", lambda path: put_mha(path, values)
    four = sitk.GetImageFromArray(np.ascontiguousarray(values.astype("i2").T)[None])
    yield kind("nrrd fourth axis of one", ".nrrd", four)
    yield kind("mha fourth axis of one", ".mha", four)
    pair = itk_image(np.stack([values, values]).astype("i2"), is_vector=True)
    yield kind("mha vectors", ".mha", pair)
    yield kind("nrrd vectors", ".nrrd", pair)
    yield kind("mha flat", ".mha", itk_image(values[:, :, 2].astype("u1")))
    yield kind("mha complex", ".mha", itk_image(values.astype("c8")))


def put_nrrd(path: Path, values: Array, encoding: str) -> None:
    """Write an NRRD by hand, big-endian, in the space of NIfTI."""
    fields = [
        "NRRD0005", "type: short", "dimension: 3", f"sizes: {' '.join(map(str, values.shape))}",
        "space: right-anterior-superior", "space directions: (-0.8,0,0) (0,1,0) (0,0,3)",
        "space origin: (20,-30,5)", "kinds: domain domain domain", "endian: big", f"encoding: {encoding}",
    ]  # fmt: skip
    flat = values.ravel(order="F").astype(">i2")
    data = flat.tobytes() if encoding != "ascii" else " ".join(map(str, flat)).encode()
    data = gzip.compress(data) if encoding == "gzip" else data
    path.write_bytes("\n".join(fields).encode() + b"\n\n" + data)


def put_mha(path: Path, values: Array) -> None:
    """Write a MetaImage by hand, big-endian."""
    fields = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", "BinaryDataByteOrderMSB = True",
        "TransformMatrix = 1 0 0 0 1 0 0 0 1", "Offset = -20 30 5", "ElementSpacing = 0.8 1 3",
        f"DimSize = {' '.join(map(str, values.shape))}", "ElementType = MET_SHORT", "ElementDataFile = LOCAL",
    ]  # fmt: skip
    path.write_bytes("\n".join(fields).encode() + b"\n" + values.ravel(order="F").astype(">i2").tobytes())


def segment_kinds(values: Array) -> Iterator[Kind]:
    """Yield 3D Slicer segmentations: in one layer, in two, overlapping, with a stray value, without a list."""

    def kind(name: str, layers: Array, *segments: tuple[int, int]) -> Kind:
        image = itk_image(layers.astype("u1"), is_vector=layers.ndim == 4)
        for number, (layer, value) in enumerate(segments):
            image.SetMetaData(f"Segment{number}_LabelValue", str(value))
            image.SetMetaData(f"Segment{number}_Layer", str(layer))
        return name, ".seg.nrrd", lambda path: sitk.WriteImage(image, str(path))

    parts = np.stack([np.where(values == value, value, 0) for value in (1, 2)])
    yield kind("segments in one layer", values, (0, 1), (0, 2))
    yield kind("segments in two layers", parts, (0, 1), (1, 2))
    yield kind("segments that overlap", np.stack([np.minimum(values, 1), parts[1]]), (0, 1), (1, 2))
    yield kind("segment without a value", values, (0, 1))
    yield kind("segments unlisted", values)


# ---- Pictures ---------------------------------------------------------------------------------------------------


def picture_kinds(values: Array, *, is_label: bool) -> Iterator[Kind]:
    """Yield pictures of the pixels, `(rows, columns)`."""
    grey = values.astype("u1")
    colours = np.stack([grey] * 3 if is_label else [grey, grey[::-1], grey // 2], axis=-1)

    def kind(name: str, ending: str, image: Image.Image, **options: Any) -> Kind:
        return name, ending, lambda path: image.save(path, **options)

    palette = Image.fromarray(grey).convert("P")
    palette.putpalette(list(range(256)) * 3)
    for ending in (".png", ".tif", ".tiff"):
        yield kind(f"grey {ending}", ending, Image.fromarray(grey))
        yield kind(f"16 bits {ending}", ending, Image.fromarray(values.astype("u2")))
        yield kind(f"colours {ending}", ending, Image.fromarray(colours))
        yield kind(f"colours with alpha {ending}", ending, Image.fromarray(np.dstack([colours, grey])))
        yield kind(f"grey with alpha {ending}", ending, Image.fromarray(np.dstack([grey, grey]), mode="LA"))
        yield kind(f"palette {ending}", ending, palette)
        yield kind(f"one bit {ending}", ending, Image.fromarray(grey > grey.mean()))
    yield kind("capitals", ".PNG", Image.fromarray(grey))
    yield kind("transparent grey", ".png", Image.fromarray(grey), transparency=1)
    yield kind("tiff int32", ".tif", Image.fromarray(values.astype("i4")))
    yield kind("tiff float", ".tif", Image.fromarray(values.astype("f4")))
    for compression in ("tiff_lzw", "tiff_deflate", "packbits"):
        yield kind(compression, ".tif", Image.fromarray(grey), compression=compression)
    yield (
        "tiff of two pages",
        ".tif",
        lambda path: Image.fromarray(grey).save(path, save_all=True, append_images=[Image.fromarray(grey)]),
    )
    yield (
        "tiff by ITK",
        ".tif",
        lambda path: sitk.WriteImage(sitk.GetImageFromArray(values.astype("u2")), str(path)),
    )
    yield (
        "tiff float by ITK",
        ".tif",
        lambda path: sitk.WriteImage(sitk.GetImageFromArray(values.astype("f4")), str(path)),
    )
    deep = sitk.GetImageFromArray(colours.astype("u2") * 257, isVector=True)
    for ending in (".png", ".tif"):
        yield f"colours of 16 bits {ending}", ending, lambda path: sitk.WriteImage(deep, str(path))
    for ending in (".jpg", ".jpeg"):
        yield kind(f"grey {ending}", ending, Image.fromarray(grey))
        yield kind(f"colours {ending}", ending, Image.fromarray(colours))
    yield kind("jpeg of four inks", ".jpg", Image.fromarray(colours).convert("CMYK"))
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera's note that the picture is to be shown turned
    yield kind("jpeg to be turned", ".jpg", Image.fromarray(colours), exif=turned)
    yield kind("png to be turned", ".png", Image.fromarray(grey), exif=turned)

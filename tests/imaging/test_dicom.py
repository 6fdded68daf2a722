"""DICOM headers and pixels: what a file says, whatever its form, and what cannot be read is refused by its tag."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from tiny_dicom import (
    OBLIQUE,
    SPACING_MM,
    make_multi_frame,
    make_series,
    make_slice,
    pixels_of,
    write_slices,
)

from medunet.base.errors import DataError
from medunet.imaging.dicom import DicomFile, Slice, is_dicom, read_file
from medunet.imaging.dicom_pixels import NoDecoderError, SliceError, read_slices


def write(one: Dataset, folder: Path) -> Path:
    return write_slices([one], folder)[0]


def header(one: Dataset, folder: Path) -> DicomFile:
    file = read_file(write(one, folder))
    assert file is not None
    return file


def all_slices(*files: DicomFile) -> list[Slice]:
    return [Slice(file, frame) for file in files for frame in file.frames]


def test_a_header_says_where_the_image_lies(tmp_path: Path) -> None:
    file = header(make_slice(3, orientation=OBLIQUE), tmp_path)
    assert (file.shape, file.modality, file.skip_reason, file.secondary) == ((10, 12), "CT", "", False)
    (frame,) = file.frames
    assert frame.orientation == OBLIQUE
    assert frame.spacing_mm == SPACING_MM
    assert (frame.number, frame.slope, frame.intercept) == (4, 1.0, -1024.0)


def test_files_are_told_by_their_content(tmp_path: Path) -> None:
    path = write(make_slice(0), tmp_path)
    assert is_dicom(path)
    bare = tmp_path / "bare"
    whole = pydicom.dcmread(path)
    del whole.file_meta
    whole.preamble = None
    whole.save_as(bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert is_dicom(bare)
    file = read_file(bare)
    assert file is not None
    assert np.array_equal(read_slices(all_slices(file)).array[:, :, 0].T, pixels_of(0) - 1024)
    for name, content in {
        "notes.dcm": b"Dear colleague, " * 40,
        "empty.dcm": b"",
        "short": b"\x08\x00",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name), name


def test_a_dicomdir_is_no_image(tmp_path: Path) -> None:
    one = make_slice(0)
    del one.SOPClassUID
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    assert read_file(write(one, tmp_path)) is None


def test_axes_run_along_rows_then_columns_then_slices(tmp_path: Path) -> None:
    files = [header(one, tmp_path / str(place)) for place, one in enumerate(make_series(3))]
    voxels = read_slices(all_slices(*files))
    assert voxels.array.shape == (12, 10, 3)
    assert voxels.array[7, 4, 2] == 200 + 40 + 7 - 1024
    assert (voxels.smallest, voxels.largest) == (-1024, 200 + 90 + 11 - 1024)


@pytest.mark.parametrize(
    ("slope", "intercept", "kind"),
    [(1, 0, "int16"), (2, -5, "int16"), (0.5, 0.25, "float32"), (1.3526, 0, "float32"), (200, 0, "float32")],
)
def test_voxels_are_int16_where_all_are_whole_and_fit(
    tmp_path: Path, slope: float, intercept: float, kind: str
) -> None:
    one = make_slice(2)
    one.RescaleSlope, one.RescaleIntercept = slope, intercept
    voxels = read_slices(all_slices(header(one, tmp_path)))
    assert voxels.array.dtype == kind
    expected = pixels_of(2) * float(slope) + intercept
    assert np.allclose(voxels.array[:, :, 0].T, expected, rtol=1e-7)


def test_fractions_that_come_out_whole_are_int16(tmp_path: Path) -> None:
    one = make_slice(0)
    one.RescaleSlope, one.RescaleIntercept = 0.5, 0
    one.PixelData = (2 * pixels_of(0)).astype(np.int16).tobytes()
    assert read_slices(all_slices(header(one, tmp_path))).array.dtype == np.int16


def test_each_slice_has_its_own_rescale(tmp_path: Path) -> None:
    files = []
    for place, one in enumerate(make_series(3)):
        one.RescaleSlope, one.RescaleIntercept = place + 1, -10 * place
        files.append(header(one, tmp_path / str(place)))
    array = read_slices(all_slices(*files)).array
    for place in range(3):
        assert np.array_equal(array[:, :, place].T, pixels_of(place) * (place + 1) - 10 * place)


def test_frames_have_their_own_place_and_rescale(tmp_path: Path) -> None:
    slices = make_series(4, orientation=OBLIQUE)
    for place, one in enumerate(slices):
        one.RescaleIntercept = -100 * place
    file = header(make_multi_frame(slices), tmp_path)
    assert [frame.number for frame in file.frames] == [1, 2, 3, 4]  # written in reversed order
    for frame, one in zip(file.frames, reversed(slices), strict=True):
        assert frame.position_mm == tuple(float(mm) for mm in one.ImagePositionPatient)
        assert frame.orientation == OBLIQUE
        assert frame.spacing_mm == SPACING_MM
        assert frame.intercept == one.RescaleIntercept
    array = read_slices([Slice(file, frame) for frame in (file.frames[3], file.frames[1])]).array
    assert np.array_equal(array[:, :, 0].T, pixels_of(0))
    assert np.array_equal(array[:, :, 1].T, pixels_of(2) - 200)


def test_frames_must_be_as_many_as_are_described(tmp_path: Path) -> None:
    whole = make_multi_frame(make_series(4))
    whole.NumberOfFrames = 400_000
    with pytest.raises(DataError, match="NumberOfFrames is 400000, but 4 frames are described"):
        header(whole, tmp_path)


def test_frames_without_positions_are_no_volume(tmp_path: Path) -> None:
    one = make_slice(0)
    one.NumberOfFrames = 2
    one.PixelData = one.PixelData * 2
    assert header(one, tmp_path).skip_reason == "frames without positions"


@pytest.mark.parametrize(
    ("keyword", "value", "why"),
    [
        ("SamplesPerPixel", 3, "colour picture"),
        ("PhotometricInterpretation", "PALETTE COLOR", "colour picture"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4", "segmentation"),
    ],
)
def test_what_cannot_be_part_of_a_volume(tmp_path: Path, keyword: str, value: object, why: str) -> None:
    one = make_slice(0)
    setattr(one, keyword, value)
    assert header(one, tmp_path).skip_reason == why


def test_a_report_has_no_pixels(tmp_path: Path) -> None:
    one = make_slice(0)
    one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    del one.Rows, one.Columns, one.PixelData
    assert header(one, tmp_path).skip_reason == "no pixels"


def test_jpeg_lossless_is_decoded_by_gdcm(tmp_path: Path) -> None:
    """The commonest compression of archives, for which pydicom by itself has no decoder."""
    stored = (pixels_of(0) - 300).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(tmp_path / "jpeg.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(stored[None]))
    one = pydicom.dcmread(tmp_path / "jpeg.dcm")
    assert one.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.70"
    one.RescaleSlope, one.RescaleIntercept = 1.5, -20  # SimpleITK by itself would apply them too
    one.save_as(tmp_path / "jpeg.dcm")
    file = read_file(tmp_path / "jpeg.dcm")
    assert file is not None
    assert np.array_equal(read_slices(all_slices(file)).array[:, :, 0].T, stored * 1.5 - 20)


def test_run_length_encoding(tmp_path: Path) -> None:
    one = make_slice(1)
    one.compress(RLELossless)
    assert np.array_equal(
        read_slices(all_slices(header(one, tmp_path))).array[:, :, 0].T, pixels_of(1) - 1024
    )


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 Image Compression (Lossless Only)"),
        ("1.2.840.113619.5.2.99", "1.2.840.113619.5.2.99"),
    ],
)
def test_a_syntax_without_decoder_is_named(tmp_path: Path, uid: str, name: str) -> None:
    one = make_slice(0)
    one.compress(RLELossless)
    one.file_meta.TransferSyntaxUID = uid
    one.save_as(tmp_path / "file", implicit_vr=False, little_endian=True)
    file = read_file(tmp_path / "file")
    assert file is not None
    with pytest.raises(NoDecoderError) as caught:
        read_slices(all_slices(file))
    assert name in str(caught.value)


def test_cut_off_pixels_name_their_slice(tmp_path: Path) -> None:
    files = [header(one, tmp_path / str(place)) for place, one in enumerate(make_series(3))]
    content = files[1].path.read_bytes()
    files[1].path.write_bytes(content[:-50])
    with pytest.raises(SliceError, match="cannot be decoded") as caught:
        read_slices(all_slices(*files))
    assert caught.value.place == 1


def test_a_header_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    path = write(make_slice(0), tmp_path)
    content = path.read_bytes()
    path.write_bytes(
        content[: content.index(b"scan of")]
    )  # within the study's description, behind its identity
    with pytest.raises(DataError, match="header is cut off"):
        read_file(path)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", ["nan", "1"]),
        ("PixelSpacing", ["1", "1", "1"]),
        ("ImagePositionPatient", ["0", "0", "1e300"]),
        ("ImagePositionPatient", ["0", "0"]),
        ("ImageOrientationPatient", ["inf", "0", "0", "0", "1", "0"]),
        ("RescaleSlope", "0"),
        ("RescaleIntercept", "-inf"),
    ],
)
def test_impossible_numbers_are_refused_by_their_tag(tmp_path: Path, keyword: str, value: object) -> None:
    with pydicom.config.disable_value_validation():
        one = make_slice(0)
        setattr(one, keyword, value)
        path = write(one, tmp_path)
    with pytest.raises(DataError, match=keyword):
        read_file(path)


def test_monochrome1_is_kept_as_stored(tmp_path: Path) -> None:
    one = make_slice(0)
    one.PhotometricInterpretation = "MONOCHROME1"
    file = header(one, tmp_path)
    assert file.photometric == "MONOCHROME1"
    assert np.array_equal(read_slices(all_slices(file)).array[:, :, 0].T, pixels_of(0) - 1024)


def test_implicit_and_explicit_say_the_same(tmp_path: Path) -> None:
    one = make_slice(5)
    explicit = header(one, tmp_path / "explicit")
    one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    implicit = header(one, tmp_path / "implicit")
    assert implicit.frames == explicit.frames

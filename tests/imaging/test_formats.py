"""The table of formats: what each ending may be, which reader has it, and that every row is read or refused."""

import re
from pathlib import Path, PurePath

import pytest

from medunet.base.errors import DataError
from medunet.dataset.layouts.patterns import stem
from medunet.imaging import dicom_seg, nifti, pictures
from medunet.imaging.formats import (
    FORMATS,
    LABEL_PICTURES,
    LABEL_VOLUMES,
    NIFTI,
    PICTURES,
    SCANS,
    VOLUMES,
    endings_of,
    expression_of,
    files_of,
    format_of,
    header_of_pair,
    is_picture,
    strip_ending,
)
from medunet.imaging.itk_images import ItkReader


def test_what_a_file_may_be_by_its_ending() -> None:
    pair = (".hdr.gz", ".hdr")
    assert endings_of(SCANS) == (".nii.gz", ".nii", *pair, ".nrrd", ".mha", ".mhd")
    assert endings_of(LABEL_VOLUMES) == (
        ".nii.gz",
        ".nii",
        *pair,
        ".seg.nrrd",
        ".nrrd",
        ".mha",
        ".mhd",
        ".dcm",
    )
    assert set(endings_of(VOLUMES)) - set(endings_of(LABEL_VOLUMES)) == {".img.gz", ".img", ".mgz"}
    assert endings_of(PICTURES) == (".png", ".tif", ".tiff", ".jpg", ".jpeg")
    assert endings_of(LABEL_PICTURES) == (".png", ".tif", ".tiff")
    assert {each.ending for each in FORMATS if each.writer} == {".nii", ".png"}


def test_expressions_are_those_that_stored_descriptions_hold() -> None:
    usual = [each for each in SCANS if each.ending != ".hdr"]
    assert expression_of(usual) == r"(?i:\.nii(\.gz)?|\.nrrd|\.mha|\.mhd)"
    assert expression_of(PICTURES) == r"(?i:\.png|\.tif|\.tiff|\.jpg|\.jpeg)"
    assert re.fullmatch(NIFTI.expression, ".nii.gz")
    assert not re.fullmatch(NIFTI.expression, ".nii.bz2")


@pytest.mark.parametrize(
    ("name", "ending", "reader"),
    [
        ("a/b.NII.GZ", ".nii", nifti),
        ("b.seg.nrrd", ".seg.nrrd", ItkReader("NrrdImageIO")),
        ("b.Nrrd", ".nrrd", ItkReader("NrrdImageIO")),
        ("b.mhd", ".mhd", ItkReader("MetaImageIO")),
        ("b.dcm", ".dcm", dicom_seg),
        ("b.nii.PNG", ".png", pictures),
        ("b.png.nii", ".nii", nifti),
        ("b.hdr.gz", ".hdr", nifti),
        ("b", ".nii", nifti),
    ],
)
def test_format_of_a_name(name: str, ending: str, reader: object) -> None:
    found = format_of(PurePath(name))
    assert (found.ending, found.reader) == (ending, reader)
    assert is_picture(PurePath(name)) == (ending == ".png")


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("x.seg.nrrd", "x"),
        ("x.SEG.NRRD", "x"),
        ("x.nii.gz", "x"),
        ("x.seg.nii", "x.seg"),
        ("x_seg.nrrd", "x_seg"),
        ("x.mgz", "x"),
        ("x.1.png", "x.1"),
        ("x.txt", "x.txt"),
    ],
)
def test_the_name_of_a_case_is_a_files_name_without_its_ending(name: str, case: str) -> None:
    assert strip_ending(name) == case
    assert stem(f"a.nrrd/{name}") == case


@pytest.mark.parametrize("ending", [".hdr", ".HDR", ".hdr.gz", ".nii.gz"])
def test_the_files_of_a_volume(tmp_path: Path, ending: str) -> None:
    for name in (
        "a.b.hdr",
        "a.b.img",
        "a.b.HDR",
        "a.b.IMG",
        "a.b.hdr.gz",
        "a.b.img.gz",
        "a.b.nii.gz",
        "a.img",
    ):
        (tmp_path / name).touch()
    (tmp_path / "a.b.IMG" if ending == ".hdr" else tmp_path / "a.b.img").unlink()
    expected = {".hdr": ["a.b.img"], ".HDR": ["a.b.IMG"], ".hdr.gz": ["a.b.img.gz"], ".nii.gz": []}[ending]
    path = tmp_path / f"a.b{ending}"
    assert files_of(path) == [path, *(tmp_path / name for name in expected)]
    for name in expected:
        assert header_of_pair(name) == path.name
    assert header_of_pair("x/a.imgs/b.nii") == "x/a.imgs/b.nii"


@pytest.mark.parametrize("ending", endings_of(FORMATS))
def test_every_reader_names_a_file_that_it_cannot_use(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    with pytest.raises(DataError, match=rf"a\.hdr(\.gz)?: no such|{re.escape(path.name)}: no such file"):
        format_of(path).reader.read_header(path)
    path.write_bytes(b"neither a volume nor a picture")
    with pytest.raises(DataError) as caught:
        format_of(path).reader.read_header(path)
    assert str(tmp_path) not in str(caught.value)

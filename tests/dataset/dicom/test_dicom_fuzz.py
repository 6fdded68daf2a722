"""DICOM files with damaged tags: always a fault or a message, never another exception, and no memory for lies.

Values are written as bytes, past pydicom's own checks. The import runs without the net that it has for the
unforeseen, and what it would write is dropped.
"""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.tag import Tag
from pydicom.uid import RLELossless
from tiny_dicom import make_multi_frame, make_series

from medunet.dataset.dicom import conversion
from medunet.dataset.dicom.conversion import Job, convert
from medunet.dataset.dicom.series import UnreadableFile, gather_series, read_headers
from medunet.dataset.dicom.series_checks import check_series

CAP_GB = 0.02
MOST_BYTES = 80_000_000  # the cap, a slice of float64 beside it, and what Python itself takes
TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"),
    *("PatientID", "PatientName", "StudyDate", "SeriesNumber", "InstanceNumber", "Modality", "ImageType"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored"),
    *("HighBit", "PixelRepresentation", "PixelSpacing", "SliceThickness", "ImagePositionPatient"),
    *("ImageOrientationPatient", "RescaleSlope", "RescaleIntercept", "RescaleType", "NumberOfFrames"),
    *("PixelData", "TransferSyntaxUID", "EchoTime", "AcquisitionNumber", "SpecificCharacterSet"),
    *("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"),
)
VRS = (
    "US",
    "SS",
    "UL",
    "DS",
    "IS",
    "FD",
    "FL",
    "CS",
    "UI",
    "PN",
    "LO",
    "DA",
    "TM",
    "AT",
    "UN",
    "OB",
    "OW",
    "SQ",
    "UC",
)
VALUES = st.one_of(
    st.binary(max_size=24),
    st.sampled_from(
        [
            *(
                b"",
                b"nan",
                b"inf",
                b"-1",
                b"0",
                b"1e308",
                b"1e400",
                b"0\\0\\0",
                b"1\\nan\\0",
                b"\\\\",
                b"abc",
                b"1.5",
            ),
            *(
                b"\xff\xff",
                b"\x00\x00",
                b"\x60\xea",
                b"\x01\x00",
                b"\x08\x00",
                b"\x40\x00",
                b"\x0c\x00\x00\x00",
            ),
            *(
                b"1\\0\\0\\0\\1\\0",
                b"1\\0\\0\\1\\0\\0",
                b"0\\0\\0\\0\\0\\0",
                b"LOCALIZER",
                b"MONOCHROME1",
                b"RGB",
            ),
            *(
                b"1.2.840.10008.1.2",
                b"1.2.840.10008.1.2.2",
                b"1.2.840.10008.1.2.5",
                b"1.2.840.10008.1.2.4.90",
            ),
            *(
                b"1.2.840.10008.1.2.1.99",
                b"1.2.840.10008.1.2.4.70",
                b"ISO_IR 100",
                b"ISO 2022 IR 87",
                b"\xe4\xf6",
            ),
            *(
                np.float64(np.nan).tobytes(),
                np.float64(1e300).tobytes(),
                b"2000000000",
                b"999999999999999999999",
            ),
        ]
    ),
)


class GoodFiles(dict[str, list[bytes]]):
    """The bytes of good files, by kind; a test that fails does not print them."""

    def __repr__(self) -> str:
        return f"GoodFiles({', '.join(self)})"


LONG_VRS = ("OB", "OW", "SQ", "UN", "UC")


@st.composite
def damages(draw: st.DrawFn) -> tuple[str, str | None, bytes | None]:
    """Draw a tag, another VR or None, and another value or None, which takes the tag out."""
    value = draw(st.none() | VALUES)
    return draw(st.sampled_from(TAGS)), draw(st.none() | st.sampled_from(VRS)), value


def damage(content: bytes, keyword: str, vr: str | None, value: bytes | None) -> bytes:
    """Return a file in explicit little endian with one element replaced, removed, or put in where it is absent."""
    first, end, old = _find(content, int(Tag(keyword)))
    if value is None:
        return content[:first] + content[end:]
    kind = vr or old
    header = content[first : first + 4] if end > first else _tag_bytes(int(Tag(keyword)))
    length = len(value).to_bytes(4, "little")
    size = b"\0\0" + length if kind in LONG_VRS else length[:2]
    return content[:first] + header + kind.encode() + size + value + content[end:]


def _find(content: bytes, wanted: int) -> tuple[int, int, str]:
    """Return where an element begins and ends and its VR; where it would stand, if there is none."""
    place = 132
    while place < len(content):
        tag = int.from_bytes(content[place : place + 2], "little") << 16
        tag |= int.from_bytes(content[place + 2 : place + 4], "little")
        kind = content[place + 4 : place + 6].decode()
        is_long = kind in LONG_VRS
        size = content[place + 8 : place + 12] if is_long else content[place + 6 : place + 8]
        length = int.from_bytes(size, "little")
        end = len(content) if length == 0xFFFFFFFF else place + (12 if is_long else 8) + length
        if tag == wanted:
            return place, end, kind
        if tag > wanted:
            return place, place, "UN"
        place = end
    return place, place, "UN"


def _tag_bytes(tag: int) -> bytes:
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> GoodFiles:
    """Files of a good series: four slices, the same compressed, and one file of four frames."""
    folder = tmp_path_factory.mktemp("good")
    compressed = make_series(4)
    for one in compressed:
        one.compress(RLELossless)
    kinds = {"slices": make_series(4), "compressed": compressed, "frames": [make_multi_frame(make_series(4))]}
    contents = GoodFiles()
    for kind, slices in kinds.items():
        for one in slices:
            one.save_as(folder / "one", enforce_file_format=True)
            contents.setdefault(kind, []).append((folder / "one").read_bytes())
    return contents


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to import in, under a small cap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDUNET_MAX_VOLUME_GB", str(CAP_GB))
        patch.setattr(conversion, "write_volume", lambda path, array, affine: None)
        yield tmp_path_factory.mktemp("fuzz")


def import_all(contents: list[bytes], folder: Path) -> list[str]:
    """Import files as the command does, and return what became of them."""
    paths = [folder / f"{number}.dcm" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    found = read_headers(paths)
    ends = ["unreadable" for file in found if isinstance(file, UnreadableFile)]
    files = [file for file in found if not isinstance(file, UnreadableFile)]
    for series in gather_series(files, folder):
        for repair in (False, True):
            for part in check_series(series, repair=repair):
                job = Job("p0001_s01", "p0001", part, folder / "out.nii", repair)
                outcome = convert(job)
                assert outcome.row.status == "imported" or outcome.faults
                ends.append(outcome.row.status)
    return ends


def test_what_is_not_damaged_is_imported(good: GoodFiles, place: Path) -> None:
    for contents in good.values():
        assert import_all(contents, place) == ["imported"] * 2


def test_an_element_is_found_by_its_tag(good: GoodFiles, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(damage(good["slices"][0], "Rows", None, b"\x07\x00"))
    assert pydicom.dcmread(tmp_path / "one").Rows == 7
    (tmp_path / "one").write_bytes(damage(good["slices"][0], "Rows", None, None))
    assert "Rows" not in pydicom.dcmread(tmp_path / "one")


_SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.slow
@settings(_SETTINGS, max_examples=400)
@given(
    kind=st.sampled_from(["slices", "compressed", "frames"]),
    damaged=st.lists(damages(), min_size=1, max_size=3),
    everywhere=st.booleans(),
)
def test_damaged_tags(
    good: GoodFiles,
    place: Path,
    kind: str,
    damaged: list[tuple[str, str | None, bytes | None]],
    everywhere: bool,
) -> None:
    contents = list(good[kind])
    for index in range(len(contents) if everywhere else 1):
        for one in damaged:
            contents[index] = damage(contents[index], *one)
    assert import_all(contents, place)


@settings(_SETTINGS, max_examples=300)
@given(kind=st.sampled_from(["slices", "compressed", "frames"]), data=st.data())
def test_damaged_bytes(good: GoodFiles, place: Path, kind: str, data: st.DataObject) -> None:
    contents = list(good[kind])
    first = bytearray(contents[0])
    for _ in range(data.draw(st.integers(1, 6))):
        where = data.draw(st.integers(132, len(first) - 1))
        first[where] = data.draw(st.integers(0, 255))
    end = data.draw(st.none() | st.integers(132, len(first)))
    contents[0] = bytes(first[:end])
    import_all(contents, place)


@pytest.mark.parametrize("kind", ["slices", "compressed", "frames"])
@pytest.mark.parametrize(("rows", "columns"), [(65535, 65535), (65535, 1), (2000, 2000), (1, 1)])
def test_sizes_that_are_lies_take_no_memory(
    good: GoodFiles, place: Path, kind: str, rows: int, columns: int
) -> None:
    contents = good[kind]
    for keyword, value in {"Rows": rows, "Columns": columns}.items():
        contents = [damage(content, keyword, None, value.to_bytes(2, "little")) for content in contents]
    tracemalloc.start()
    ends = set(import_all(contents, place))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST_BYTES
    assert ends == ({"imported"} if (rows, columns) == (1, 1) else {"refused"})

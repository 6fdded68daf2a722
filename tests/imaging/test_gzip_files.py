"""Bytes of compressed files: every member, the checksum, and no more than asked for."""

import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from medunet.imaging.gzip_files import SizeError, StreamError, read_span, read_start

DATA = np.random.default_rng(0).integers(0, 4, 1_500_000, dtype=np.uint8).tobytes()
PACKED = gzip.compress(DATA, 1)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize(
    ("offset", "size"), [(0, len(DATA)), (352, 1000), (352, len(DATA) - 352), (1_000_000, 500_000)]
)
def test_spans(tmp_path: Path, is_packed: bool, offset: int, size: int) -> None:
    path = write(tmp_path / "x", PACKED if is_packed else DATA)
    if is_packed and len(DATA) - offset - size > 1 << 20:
        with pytest.raises(SizeError, match="bytes follow the last voxel"):
            read_span(path, offset, size)
        return
    span, num_surplus = read_span(path, offset, size)
    assert span.tobytes() == DATA[offset : offset + size]
    assert num_surplus == len(DATA) - offset - size
    assert read_start(path, 540) == DATA[:540]


def test_members_and_zeros_that_fill_up(tmp_path: Path) -> None:
    half = len(DATA) // 2
    parts = gzip.compress(DATA[:half], 1) + gzip.compress(DATA[half:], 1) + bytes(700)
    span, num_surplus = read_span(write(tmp_path / "x", parts), 0, len(DATA))
    assert (span.tobytes(), num_surplus) == (DATA, 0)


@pytest.mark.parametrize("kept", [1, 12, 1000, -9, -8, -1])
def test_streams_that_are_cut_off(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path / "x.nii.gz", PACKED[:kept])
    with pytest.raises((StreamError, SizeError), match=r"x\.nii\.gz.*truncated or corrupt"):
        read_span(path, 0, len(DATA))


def test_a_stream_cut_off_behind_its_last_voxel(tmp_path: Path) -> None:
    """Though all of the voxels are there, the checksum is not."""
    path = write(tmp_path / "x", PACKED[:-4])
    with pytest.raises(StreamError, match="ends before its end marker"):
        read_span(path, 0, len(DATA))


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "x", gzip.compress(bytes(50_000_000), 1))
    tracemalloc.start()
    with pytest.raises(SizeError, match="more than"):
        read_span(path, 0, 1000)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_no_memory_is_taken_for_what_a_file_cannot_hold(tmp_path: Path) -> None:
    path = write(tmp_path / "x", gzip.compress(DATA[:1000]))
    tracemalloc.start()
    with pytest.raises(SizeError, match="holds at most"):
        read_span(path, 0, 2_000_000_000)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()

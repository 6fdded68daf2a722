"""Memory that is given back to the system."""

import mmap
import sys
from pathlib import Path

import psutil
import pytest

from medunet.compute.device_memory import release_mapped

SIZE = 64 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the maps of a process")
def test_pages_of_a_mapped_file_are_released_and_read_again(tmp_path: Path):
    path, other = tmp_path / "network.bin", tmp_path / "other.bin"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    other.write_bytes(path.read_bytes())
    process = psutil.Process()
    with path.open("rb") as one, other.open("rb") as two:
        maps = [mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) for file in (one, two)]
        assert all(sum(each[:: mmap.PAGESIZE]) == 0 for each in maps)  # so that they are resident
        before = process.memory_info().rss
        release_mapped([path])
        assert before - process.memory_info().rss > 0.9 * SIZE
        assert before - process.memory_info().rss < 1.1 * SIZE  # the other one stays
        assert maps[0][:256] == bytes(range(256))
        assert maps[0][-1] == 255
        for each in maps:
            each.close()


def test_a_file_that_is_not_mapped_changes_nothing(tmp_path: Path):
    release_mapped([tmp_path / "none.bin"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists the maps of a process")
def test_a_file_that_is_mapped_for_writing_is_left_alone(tmp_path: Path):
    path = tmp_path / "private.bin"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
        private[0] = 7
        release_mapped([path])
        assert private[0] == 7

"""Free memory: what the system has, within the limits of a container or a batch job."""

from pathlib import Path

import pytest
import torch

from medunet.base import free_memory
from medunet.compute.device_memory import free_memory_gb


def write_group(folder: Path, names: tuple[str, str, str], limit: str, used: int, droppable: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip(names, (limit, str(used), f"anon 5\n{droppable}"), strict=True):
        (folder / name).write_text(text)


def test_free_memory_is_a_plausible_number():
    assert 0.1 < free_memory_gb(torch.device("cpu")) < 10_000


def test_a_groups_limit_counts_and_pages_that_can_be_dropped_are_free(tmp_path: Path):
    own = tmp_path / "own"
    own.write_text("0::/batch/job\n")
    names = ("memory.max", "memory.current", "memory.stat")
    write_group(tmp_path / "groups/batch", names, "9000", 6000, "inactive_file 500")
    write_group(tmp_path / "groups/batch/job", names, "max", 100, "inactive_file 0")
    assert free_memory._left_in_groups(tmp_path / "groups", own) == [3500]
    (tmp_path / "groups/batch/job/memory.max").write_text("2000\n")
    assert free_memory._left_in_groups(tmp_path / "groups", own) == [1900, 3500]


def test_the_first_version_of_groups_is_read_too(tmp_path: Path):
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n")
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    write_group(tmp_path / "groups/memory/job", names, "4000", 3000, "total_inactive_file 250")
    assert free_memory._left_in_groups(tmp_path / "groups", own) == [1250]
    assert free_memory._left_in_groups(tmp_path / "groups", tmp_path / "absent") == []


def test_the_tightest_limit_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(free_memory, "_left_in_groups", lambda *_: [3_000_000, 2_000_000])
    assert free_memory_gb(torch.device("cpu")) == 0.002

"""The index of masks and its journals: readers see both as one, and nothing is lost, whatever is killed when."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from medunet.base.files import read_json
from medunet.records import mask_journal
from medunet.records.mask_journal import MaskJournal, join_journals, read_mask_index

HEAD = {"dataset": "phantoms", "labels": {"liver": 1}, "targets": {"liver": [1]}}
WRITER = """
import sys
import threading
from pathlib import Path
from medunet.records import mask_journal
from medunet.records.mask_journal import MaskJournal
journal = MaskJournal(Path(sys.argv[1]), {head})
for case in sys.argv[2:]:
    journal.change({{case: {{"begun": True}}}}, drop=[case])
    journal.change({{case: {{"image_sha256": case}}}})
print("written", flush=True)
sys.stdin.read()
"""


def start(folder: Path, *cases: str) -> subprocess.Popen[bytes]:
    """Start a process that holds the journal of some cases open."""
    command = [sys.executable, "-c", WRITER.format(head=HEAD), str(folder), *cases]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"written\n"
    return process


def journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(".medunet.index.*"))


def test_changes_are_seen_before_they_are_joined_and_after(tmp_path: Path) -> None:
    with MaskJournal(tmp_path, HEAD) as journal:
        journal.change({"b": {"seconds": 1.5}, "a": {"begun": True}})
        journal.change(failed={"a": "too large"}, drop=["a"])
        seen = read_mask_index(tmp_path)
        assert seen["cases"] == {"b": {"seconds": 1.5}}
        assert seen["failed"] == {"a": "too large"}
        assert seen["targets"] == {"liver": [1]}
        assert not (tmp_path / "index.json").exists()
    join_journals(tmp_path, HEAD)
    assert not journals(tmp_path)
    assert read_json(tmp_path / "index.json") == {"schema": "medunet.predictions/1", **HEAD, **{
        "cases": {"b": {"seconds": 1.5}}, "failed": {"a": "too large"}
    }}  # fmt: skip
    assert read_mask_index(tmp_path) == read_json(tmp_path / "index.json")


def test_an_index_without_cases_is_valid_json(tmp_path: Path) -> None:
    join_journals(tmp_path, HEAD)
    assert read_json(tmp_path / "index.json")["cases"] == {}
    assert read_json(tmp_path / "index.json")["failed"] == {}


def test_a_journal_in_use_is_read_but_not_joined(tmp_path: Path) -> None:
    process = start(tmp_path, "a", "b")
    try:
        join_journals(tmp_path, HEAD)
        assert len(journals(tmp_path)) == 1
        assert read_json(tmp_path / "index.json")["cases"] == {}
        assert read_mask_index(tmp_path)["cases"].keys() == {"a", "b"}
    finally:
        process.kill()
        process.wait()
    join_journals(tmp_path)
    assert not journals(tmp_path)
    assert read_json(tmp_path / "index.json")["cases"] == {c: {"image_sha256": c} for c in ("a", "b")}


def test_an_incomplete_line_of_a_killed_process_costs_its_case_alone(tmp_path: Path) -> None:
    process = start(tmp_path, "a", "b")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (path,) = journals(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    assert read_mask_index(tmp_path)["cases"] == {"a": {"image_sha256": "a"}, "b": {"begun": True}}


def test_joined_twice_a_journal_changes_nothing(tmp_path: Path) -> None:
    """A kill between the new index and the removal of the journal."""
    with MaskJournal(tmp_path, HEAD) as journal:
        journal.change({"a": {"seconds": 1}})
    (path,) = journals(tmp_path)
    left = path.read_bytes()
    join_journals(tmp_path, HEAD)
    before = (tmp_path / "index.json").read_bytes()
    path.write_bytes(left)
    join_journals(tmp_path, HEAD)
    assert (tmp_path / "index.json").read_bytes() == before


def test_many_cases_write_little(tmp_path: Path) -> None:
    entry = {"image_sha256": "0" * 64, "seconds_by_part": dict.fromkeys("abcdef", 0.123)}
    with MaskJournal(tmp_path, HEAD) as journal:
        for number in range(200):
            journal.change({f"case_{number}": entry})
    (path,) = journals(tmp_path)
    assert path.stat().st_size < 200 * (len(json.dumps(entry)) + 80)


def test_without_locks_a_closed_journal_is_joined_and_an_open_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mask_journal, "_try_lock", lambda handle: None)
    with MaskJournal(tmp_path, HEAD) as first, MaskJournal(tmp_path, HEAD) as second:
        first.change({"a": {"seconds": 1}})
        second.change({"b": {"seconds": 2}})
        first.close()
        join_journals(tmp_path, HEAD)
        assert read_json(tmp_path / "index.json")["cases"].keys() == {"a"}
        assert len(journals(tmp_path)) == 1
        assert read_mask_index(tmp_path)["cases"].keys() == {"a", "b"}


def test_a_journal_is_not_joined_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its creation and its lock it looks like that of a dead process; what is written later would be lost."""
    lock = mask_journal._try_lock
    others: list[threading.Thread] = []

    def lock_late(handle: int) -> bool | None:
        if not others:
            others.append(threading.Thread(target=join_journals, args=(tmp_path, HEAD)))
            others[0].start()
            others[0].join(0.5)
        return lock(handle)

    monkeypatch.setattr(mask_journal, "_try_lock", lock_late)
    with MaskJournal(tmp_path, HEAD) as journal:
        journal.change({"a": {"seconds": 1}})
        others[0].join()
        assert read_mask_index(tmp_path)["cases"].keys() == {"a"}

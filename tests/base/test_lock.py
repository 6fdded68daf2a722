"""Locks of the operating system: who holds one is named, parts do not exclude one another, a kill releases it."""

import errno
import fcntl
import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from medunet.base import lock
from medunet.base.errors import InputError
from medunet.base.lock import LockedError, hold, wait_for

HOLDER = """
import sys, time
from pathlib import Path
from medunet.base.lock import hold
with hold(Path(sys.argv[1]), sys.argv[2], sys.argv[3:] or None):
    print("held", flush=True)
    {then}
    time.sleep(60)
"""


def start(folder: Path, stage: str, *parts: str, then: str = "pass") -> subprocess.Popen[str]:
    """Start a process that holds a lock until it is killed."""
    command = [sys.executable, "-c", HOLDER.format(then=then), str(folder), stage, *parts]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_lock_names_its_holder_and_ends_with_it_however_it_ends(tmp_path: Path) -> None:
    process = start(tmp_path / "run", "plan")
    try:
        words = (
            rf"`medunet plan` is already running.*process {process.pid} on {os.uname().nodename}, since 20"
        )
        with pytest.raises(LockedError, match=words) as refusal, hold(tmp_path / "run", "plan"):
            pass
        assert refusal.value.exit_code == 2
        assert f"kill {process.pid}" in str(refusal.value)
        (path,) = (tmp_path / "run").iterdir()
        assert path.name.startswith(".")
        assert {"host", "pid", "started", "command"} <= json.loads(path.read_text()).keys()
        assert str(tmp_path) not in path.read_text()
        with hold(tmp_path / "run", "report"), hold(tmp_path / "other", "plan"):
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert names(tmp_path / "run") == [path.name]
    with hold(tmp_path / "run", "plan"):
        pass
    assert names(tmp_path / "run") == []


def test_parts_exclude_one_another_only_where_they_meet(tmp_path: Path) -> None:
    process = start(tmp_path, "predict", *(f"case_{i}" for i in range(5)))
    try:
        with hold(tmp_path, "predict", ["case_7"]), hold(tmp_path, "predict", ["case_8"]):
            pass
        with (
            pytest.raises(LockedError, match="for case_0, case_1, case_2 and 1 more is"),
            hold(tmp_path, "predict", ["case_9", *(f"case_{i}" for i in range(4))]),
        ):
            pass
        with pytest.raises(LockedError), hold(tmp_path, "predict"):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_forked_child_does_not_keep_the_lock_of_a_killed_parent(tmp_path: Path) -> None:
    """Workers of data loading are forked, and outlive a killed training by seconds."""
    fork = "import os; os.fork() == 0 and (print(os.getpid(), flush=True), time.sleep(20), os._exit(0))"
    process = start(tmp_path, "train", "fold 0", then=fork)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        with hold(tmp_path, "train", ["fold 0"]):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_folder_that_held_nothing_is_not_left_behind(tmp_path: Path) -> None:
    with hold(tmp_path / "a/b", "manifest"):
        assert (tmp_path / "a/b").is_dir()
    assert not (tmp_path / "a").exists()
    with hold(tmp_path / "a/b", "manifest"):
        (tmp_path / "a/b/manifest.json").write_text("{}")
    assert names(tmp_path / "a/b") == ["manifest.json"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"), hold(tmp_path / "file", "manifest"):
        pass


def add_many(folder: Path, name: str) -> None:
    """Add entries to a JSON file, each in a read, a change and a write."""
    for number in range(20):
        with wait_for(folder, "index"):
            path = folder / "index.json"
            entries = json.loads(path.read_text()) if path.exists() else []
            path.write_text(json.dumps([*entries, f"{name} {number}"]))


def test_no_change_is_lost_that_two_processes_make(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add_many, args=(tmp_path, name)) for name in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(json.loads((tmp_path / "index.json").read_text())) == 60
    assert names(tmp_path) == ["index.json"]


def test_who_waits_says_for_whom(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr("medunet.base.lock._TELL_AFTER_S", 0.1)
    caplog.set_level(logging.INFO)

    def keep() -> None:
        with wait_for(tmp_path, "cache"):
            time.sleep(0.5)

    thread = threading.Thread(target=keep)
    thread.start()
    time.sleep(0.1)
    with wait_for(tmp_path, "cache"):
        pass
    thread.join()
    assert f"Waiting for process {os.getpid()}" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_file_system_without_locks_gets_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr("medunet.base.lock._warned", set())
    for folder in (tmp_path / "run", tmp_path / "run/predictions"):
        with hold(folder, "plan"), wait_for(folder, "index") as is_locked:
            assert not is_locked
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no locks" in caplog.text
    assert names(tmp_path) == []


def leave_lock(folder: Path, host: str, age_s: float) -> Path:
    """Write the lock of a process on another host, in a folder that does not show locks of other hosts."""
    path = folder / ".medunet.predict.1.abc.lock"
    path.write_text(
        json.dumps({"host": host, "pid": 1, "started": "2026-11-29", "command": "medunet predict"})
    )
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_a_lock_of_a_dead_host_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    leave_lock(tmp_path, "node7", 3600)
    with hold(tmp_path, "predict", ["a"]) as held:
        assert held == {"a"}
    assert re.search(r"process 1 on node7, since 2026-11-29, has been silent for 36\d\d s", caplog.text)


def test_a_host_that_just_died_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_SILENT_S", 0.5)
    path = leave_lock(tmp_path, "node7", 0)
    begun = time.monotonic()
    with hold(tmp_path, "predict"):
        assert time.monotonic() - begun > 0.4
    assert not path.exists()


def test_a_lock_that_another_host_touches_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_SILENT_S", 20.0)
    path = leave_lock(tmp_path, "node7", 5)
    threading.Timer(0.2, os.utime, [path]).start()
    with pytest.raises(LockedError, match="process 1 on node7"), hold(tmp_path, "predict"):
        pass


def test_the_holder_touches_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_BEAT_S", 0.05)
    monkeypatch.setattr(lock, "_beaters", [])
    with hold(tmp_path, "predict"):
        (path,) = tmp_path.iterdir()
        os.utime(path, (0, 0))
        until = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < until:
            time.sleep(0.02)
        assert path.stat().st_mtime > 1

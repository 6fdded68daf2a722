"""The index of a folder of predicted masks, index.json, and the journals that are not joined into it yet.

Each process that predicts appends to a journal of its own, so that thousands of cases do not rewrite the index
thousands of times. Once its process has ended, however it ended, a journal is joined into the index; readers see both
as one.
"""

import fcntl
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from medunet.base.errors import InputError
from medunet.base.files import atomic_write, read_json_object, remove_unfinished, unwritable
from medunet.base.lock import wait_for

SCHEMA = "medunet.predictions/1"
_JOURNALS, _CLOSED = ".medunet.index.*.jsonl", ".closed.jsonl"
_SILENT_S = 3600.0  # without locks: a journal that is not closed and as long without a new line has no writer


class MaskJournal:
    """The journal of one process; a context manager that closes it, after which it can be joined into the index."""

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        """Prepare a journal, whose file is written with the first change.

        Args:
            head: what the index says of all masks: dataset, labels and targets.
        """
        self._folder, self._head = folder, {"schema": SCHEMA, **head}
        name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / _JOURNALS.replace("*", name)
        self._handle: int | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def change(
        self,
        cases: Mapping[str, Any] | None = None,
        *,
        failed: Mapping[str, str] | None = None,
        drop: Iterable[str] = (),
    ) -> None:
        """Set entries and reasons of failed cases; what is known of the cases in `drop` is forgotten first.

        Raises:
            InputError: the folder is not writable, or the disk is full.
        """
        change = {"drop": list(drop), "cases": dict(cases or {}), "failed": dict(failed or {})}
        try:
            with self._lock:
                if self._handle is None:
                    self._open()
                self._append(change)
        except OSError as error:
            raise unwritable(self._path, error) from error

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Alone, or another process would join the new file before it is locked.
        with wait_for(self._folder, "index"):
            self._handle = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
            _try_lock(self._handle)
        self._append(self._head)

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self._handle is not None
        text = json.dumps(line, ensure_ascii=False, allow_nan=False).encode()
        written = os.write(self._handle, b"\n" + text + b"\n")  # the first line break ends an incomplete line
        if written < len(text) + 2:
            raise OSError(28, "No space left on device")
        os.fsync(self._handle)

    def close(self) -> None:
        """Close the file, under a name that says so where there are no locks; `join_journals` then joins it."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
            with suppress(FileNotFoundError):  # it has been joined as soon as it was closed
                self._path.rename(self._path.with_suffix(_CLOSED))


def read_mask_index(folder: Path) -> dict[str, Any]:
    """Return the index of a folder of masks with the changes of all journals; empty if there is none.

    Raises:
        InputError: a file cannot be read, or is not valid.
    """
    # Before the index, into which they may be joined meanwhile.
    changes = [list(_changes(path)) for path in _find_journals(folder)]
    path = folder / "index.json"
    index = read_json_object(path) if path.exists() else {}
    for _, change in (each for journal in changes for each in journal):
        index |= _change(change, index.setdefault("cases", {}), index.setdefault("failed", {}))
    return index


def join_journals(folder: Path, head: Mapping[str, Any] | None = None, *, patience_s: float = 0.0) -> None:
    """Write the changes of processes that have ended into index.json, and remove their journals.

    Args:
        head: of the index, which is written even if there is no change; None: only with changes.
        patience_s: how long to wait for journals of processes that are just ending.

    Raises:
        InputError: the folder cannot be written, or a file is not valid.
    """
    if not folder.is_dir():
        return
    until = time.monotonic() + patience_s
    _join(folder, head)
    while _find_journals(folder) and time.monotonic() < until:
        time.sleep(0.1)
        _join(folder, head)


def _join(folder: Path, head: Mapping[str, Any] | None) -> None:
    with wait_for(folder, "index"):
        path = folder / "index.json"
        remove_unfinished([path])
        with _ended_journals(folder) as ended:
            if not ended and (head is None or path.exists()):
                return
            old = read_json_object(path) if path.exists() else {}
            # Entries as JSON, or where to read them: those of thousands of cases are not held.
            cases: dict[str, Any] = {name: _dump(entry) for name, entry in old.pop("cases", {}).items()}
            failed = old.pop("failed", {})
            for journal in ended:
                for offset, change in _changes(journal):
                    old |= _change(change, cases, failed, (journal, offset))
            _write_index(path, {**old, **(head or {})}, cases, failed)
            for journal in ended:
                journal.unlink(missing_ok=True)


def _find_journals(folder: Path) -> list[Path]:
    """Return the journals, the one last changed last."""
    found = []
    for path in folder.glob(_JOURNALS):
        with suppress(FileNotFoundError):  # it has just been joined
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _changes(path: Path, offset: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the lines of a journal, each with the offset at which it begins, from an offset on.

    An incomplete one is left out, as are all of a journal that is gone by now.
    """
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from error
    with stream:
        stream.seek(offset)
        for line in stream:
            start, offset = offset, offset + len(line)
            try:
                content = json.loads(line) if line.strip() else None
            except ValueError:  # its process was killed while it wrote
                continue
            if isinstance(content, dict):
                yield start, content


def _change(
    change: Mapping[str, Any], cases: dict[str, Any], failed: dict[str, str], place: object = None
) -> Mapping[str, Any]:
    """Apply a line of a journal to reasons and to entries, or to their places; return it if it is a head."""
    if "schema" in change:
        return change
    for case in change["drop"]:
        cases.pop(case, None)
        failed.pop(case, None)
    cases |= dict.fromkeys(change["cases"], place) if place else change["cases"]
    failed |= change["failed"]
    return {}


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_index(
    path: Path, head: Mapping[str, Any], cases: Mapping[str, Any], failed: Mapping[str, str]
) -> None:
    """Write the index with a line for each case, whose entry is JSON already or the place of its line."""
    names = [name for name in ("schema", "dataset", "labels", "targets") if name in head]
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write("{\n")
        stream.writelines(f"  {_dump(name)}: {_dump(head[name])},\n" for name in names)
        stream.write('  "cases": {')
        for number, case in enumerate(sorted(cases)):
            entry = cases[case]
            if not isinstance(entry, str):
                _, change = next(_changes(*entry))
                entry = _dump(change["cases"][case])
            stream.write(f"{',' if number else ''}\n    {_dump(case)}: {entry}")
        stream.write(f'\n  }},\n  "failed": {_dump(failed)}\n}}\n')


@contextmanager
def _ended_journals(folder: Path) -> Iterator[list[Path]]:
    """Yield the journals whose process has ended, locked so that no other process joins them."""
    handles, ended = [], []
    try:
        for path in _find_journals(folder):
            try:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            handles.append(handle)
            is_free = _try_lock(handle)
            if is_free is None:
                silent_s = time.time() - os.fstat(handle).st_mtime
                is_free = path.name.endswith(_CLOSED) or silent_s > _SILENT_S
            if is_free:
                ended.append(path)
        yield ended
    finally:
        for handle in handles:
            os.close(handle)


def _try_lock(handle: int) -> bool | None:
    """Lock a journal; False if its process is at work, None if the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True

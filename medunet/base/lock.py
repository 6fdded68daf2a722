"""Locks of the operating system on a folder: of two commands that would write the same files, the second is refused.

A lock is a hidden file `.medunet.<stage>...lock` in the folder, which its process holds with `flock` and whose text
names host, process, start and command. The system releases it however the process ends, `kill -9` included; the file
that a killed process leaves locks nothing and is removed by the next command.

Some network folders know of locks on the same host alone. So the holder touches the file now and then, and a file of
another host that nothing seems to lock is taken for held until it has been silent for a while.
"""

import errno
import fcntl
import json
import logging
import os
import platform
import secrets
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import unwritable
from medunet.base.words import list_some

_log = logging.getLogger(__name__)
_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # by the file system
_TELL_AFTER_S = 2.0
_NUM_NAMED = 3
_BEAT_S, _SILENT_S = 20.0, 90.0  # between touches of a lock, and without one until its host is taken for dead
_warned: set[int] = set()  # file systems
_handles: set[int] = set()  # of the locks that this process holds
_beating: set[int] = set()  # those of them that are touched
_beaters: list[threading.Thread] = []  # the thread that does, once it is needed


class LockedError(InputError):
    """Another process holds the lock."""


@contextmanager
def hold(
    folder: Path, stage: str, parts: Collection[str] | None = None, *, command: str = "", partly: bool = False
) -> Iterator[frozenset[str]]:
    """Hold the lock of a stage of a folder, or of some parts of it, such as a fold or the cases of a prediction.

    The folder is created if it is missing, and removed again if it is empty at the end. Parts that are disjoint do
    not exclude one another; None means all parts. `command` is what others are told, by default `medunet <stage>`. On
    a file system without locks a warning is logged and nothing is locked.

    Yields the parts that are held: those given or, with `partly`, those of them that no other process holds.

    Raises:
        LockedError: another process holds the lock (with `partly`: all of it); the message says which, since when and
            what to do.
        InputError: it is not a folder, or it cannot be written.
    """
    absent = _make(folder)
    path = folder / f".medunet.{stage}.{os.getpid()}.{secrets.token_hex(4)}.lock"
    handle = None
    try:
        with wait_for(folder, "locks") as is_locked:
            if is_locked:
                parts = _free_parts(folder, stage, parts, partly=partly)
                handle = _open(path)
                _try_lock(handle)
                _write_holder(handle, command or f"medunet {stage}", parts)
                _keep_beating(handle)
        yield frozenset(parts or ())
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            _close(handle)
        for each in absent:
            with suppress(OSError):  # it has content by now
                each.rmdir()


@contextmanager
def wait_for(folder: Path, name: str) -> Iterator[bool]:
    """Hold the only lock of this name in a folder, after waiting for the process that holds it now.

    It is for files that are read, changed and written back. Yields False if the file system has no locks.

    Raises:
        InputError: the folder cannot be written.
    """
    path = folder / f".medunet.{name}.lock"
    try:
        handle = _wait(path)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        path.unlink(missing_ok=True)
        _warn(folder)
        handle = None
    try:
        yield handle is not None
    finally:
        if handle is not None:
            path.unlink(missing_ok=True)
            _close(handle)


def held_parts(folder: Path, stage: str) -> frozenset[str] | None:
    """Return the parts of a stage of a folder that processes hold now; None if the file system has no locks."""
    with wait_for(folder, "locks") as is_locked:
        if not is_locked:
            return None
        return frozenset(
            part for holder in _read_holders(folder, stage) for part in holder.get("parts") or ()
        )


def _make(folder: Path) -> list[Path]:
    """Create a folder; return those that were absent, the innermost first."""
    if folder.exists() and not folder.is_dir():
        raise InputError("it is not a folder", where=str(folder), hint="Choose another path.")
    absent = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return absent


def _wait(path: Path) -> int:
    """Return the handle of a locked file; its name may have been removed, and made again, by an earlier holder."""
    start, told = time.monotonic(), False
    while True:
        _make(path.parent)
        try:
            handle = _open(path)
        except FileNotFoundError:
            continue
        try:
            if _try_lock(handle) and _is_file(handle, path):
                _write_holder(handle, "medunet", ())
                return handle
        except BaseException:
            _close(handle)
            raise
        waited_s = time.monotonic() - start
        if waited_s > _TELL_AFTER_S and not told:
            told = True
            _log.info(f"Waiting for {_describe(_read_holder(handle))}.")
        _close(handle)
        time.sleep(min(0.5, 0.01 + waited_s / 10))


def _free_parts(
    folder: Path, stage: str, parts: Collection[str] | None, *, partly: bool
) -> Collection[str] | None:
    """Return the parts that no other process holds; refuse if one holds all or, unless `partly`, any of them."""
    free = parts
    for holder in _read_holders(folder, stage):
        theirs = holder.get("parts")
        if parts is None or theirs is None:
            raise _locked(folder, holder, sorted(parts or theirs or ()))
        if shared := sorted({*parts} & {*theirs}):
            free = {*(free or ())} - {*theirs}
            if not partly or not free:
                raise _locked(folder, holder, shared)
    return free


def _read_holders(folder: Path, stage: str) -> list[dict[str, Any]]:
    """Return who holds a stage or parts of it; the files of killed processes are removed."""
    holders = []
    for path in sorted(folder.glob(f".medunet.{stage}.*.lock")):
        try:
            handle = _open(path, create=False)
        except FileNotFoundError:  # released in the meantime
            continue
        try:
            holder = _read_holder(handle)
            if not _try_lock(handle) or _is_alive_elsewhere(handle, holder, folder):
                holders.append(holder)
            else:
                path.unlink(missing_ok=True)
        finally:
            _close(handle)
    return holders


def _is_alive_elsewhere(handle: int, holder: dict[str, Any], folder: Path) -> bool:
    """Return whether another host still touches a lock that nothing here seems to hold; wait until it is clear.

    Times are those of the folder's server, so that clocks of hosts need not agree.
    """
    if holder.get("host", platform.node()) == platform.node():
        return False
    first, is_told = os.fstat(handle).st_mtime, False
    while True:
        _beat(clock := _open(folder / ".medunet.locks.lock"))
        silent_s = os.fstat(clock).st_mtime - os.fstat(handle).st_mtime
        _close(clock)
        if os.fstat(handle).st_mtime != first:
            return True
        if silent_s > _SILENT_S:
            _log.warning(
                f"{_describe(holder)}, has been silent for {silent_s:.0f} s: its lock is taken over."
            )
            return False
        if not is_told:
            _log.info(f"Waiting for a sign of life of {_describe(holder)}: {_SILENT_S:.0f} s at most.")
            is_told = True
        time.sleep(min(1.0, _SILENT_S / 10))


def _keep_beating(handle: int) -> None:
    """Touch a lock now and then until it is closed."""
    _beating.add(handle)
    if not _beaters:
        _beaters.append(threading.Thread(target=_beat_all, name="locks", daemon=True))
        _beaters[0].start()


def _beat_all() -> None:
    while True:
        time.sleep(_BEAT_S)
        for handle in list(_beating):
            _beat(handle)


def _beat(handle: int) -> None:
    with suppress(OSError):  # it has just been closed, or is another user's
        os.utime(handle)


def _locked(folder: Path, holder: dict[str, Any], shared: list[str]) -> LockedError:
    named = f" for {list_some(shared, _NUM_NAMED)}" if shared else ""
    how = f" with `kill {holder['pid']}` on {holder['host']}" if "pid" in holder else ""
    error = LockedError(
        f"`{holder.get('command', 'medunet')}`{named} is already running in this folder: {_describe(holder)}",
        where=str(folder),
        hint=f"Wait until it has finished, or stop it{how}.",
    )
    error.__cause__ = BlockingIOError(errno.EWOULDBLOCK, "locked")  # it is no fault of the settings
    return error


def _write_holder(handle: int, command: str, parts: Collection[str] | None) -> None:
    """Write who holds the lock: no path and no option, since files of a run hold no paths."""
    holder = {
        "host": platform.node(),
        "pid": os.getpid(),
        "started": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "command": command,
        "parts": None if parts is None else sorted(parts),
    }
    with suppress(OSError):  # a full disk, or a file that a killed process of another user left
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(holder, ensure_ascii=False).encode(), 0)


def _read_holder(handle: int) -> dict[str, Any]:
    """Return who holds a lock; empty if its file says nothing."""
    try:
        holder = json.loads(os.pread(handle, os.fstat(handle).st_size, 0))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _describe(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "another process"
    return f"process {holder['pid']} on {holder['host']}, since {holder['started']}"


def _open(path: Path, *, create: bool = True) -> int:
    flags = os.O_CLOEXEC | (os.O_CREAT if create else 0)
    try:
        handle = os.open(path, flags | os.O_RDWR, 0o666)
    except PermissionError:  # the file of another user can be locked, but not written
        try:
            handle = os.open(path, os.O_CLOEXEC | os.O_RDONLY)
        except OSError as error:
            raise unwritable(path.parent, error) from error
    except FileNotFoundError:  # the file, or its folder, has been removed
        raise
    except OSError as error:
        raise unwritable(path.parent, error) from error
    _handles.add(handle)
    return handle


def _close(handle: int) -> None:
    _handles.discard(handle)
    _beating.discard(handle)
    os.close(handle)


def _try_lock(handle: int) -> bool:
    """Lock a file, or return False if another process holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the latter on Windows shares
        return False
    return True


def _is_file(handle: int, path: Path) -> bool:
    """Return whether a path still names an open file; opening it again refreshes what a network client remembers."""
    try:
        again = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return os.path.sameopenfile(handle, again)
    finally:
        os.close(again)


def _warn(folder: Path) -> None:
    if (file_system := folder.stat().st_dev) not in _warned:
        _warned.add(file_system)
        _log.warning(
            f"{folder}: this file system has no locks. Run only one command at a time in this folder: two would "
            "overwrite each other's files."
        )


def _forget_in_child() -> None:
    """Close the parent's locks in a forked process, which would hold them beyond the parent's end."""
    for handle in _handles:
        os.close(handle)
    _handles.clear()
    _beating.clear()
    _beaters.clear()


os.register_at_fork(after_in_child=_forget_in_child)

"""Atomic file writing, JSON files, and SHA-256 hashes."""

import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError

_PREFIX_BYTES = 100  # of a file's name in the name of its temporary file
_UNFINISHED = re.compile(r"(\..+\.)[a-z0-9_]{8}(\.\w+)+", re.DOTALL)  # as `tempfile` names them
_FLAT = json.JSONEncoder(ensure_ascii=False, allow_nan=False)  # on one line


@contextmanager
def atomic_write(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Write a file atomically: yield a temporary path in the same folder, then flush it and rename it to `path`.

    Readers see either the old file or the complete new one, even if the process is killed while writing.
    `suffix` is the ending of the temporary file, for writers that choose the format by it (".nii.gz").

    Raises:
        InputError: The folder is not writable, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_prefix(path), suffix=suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Write a folder whole: yield an empty folder beside it, then flush its files and rename it to `path`.

    If the block fails, nothing is kept. A folder that is there already is replaced; the caller checks that it may be,
    and that no other process writes it (`hold`), since what killed calls left is removed.

    Raises:
        InputError: The folder above is not writable, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{glob.escape(_prefix(path))}*.part"):
            shutil.rmtree(left)
        temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".part", dir=path.parent))
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
                file.chmod(0o644)
        temporary.chmod(0o755)
        if path.exists():
            path.replace(Path(tempfile.mkdtemp(prefix=_prefix(path), suffix=".part", dir=path.parent)))
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        for left in path.parent.glob(f"{glob.escape(_prefix(path))}*.part"):
            shutil.rmtree(left, ignore_errors=True)


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove what killed calls of `atomic_write` left of files that no process is writing now."""
    folders: dict[Path, set[str]] = {}
    for path in paths:
        if len(path.name.encode()) <= _PREFIX_BYTES:  # of longer names several may have one prefix
            folders.setdefault(path.parent, set()).add(_prefix(path))
    for folder, prefixes in folders.items():
        for file in folder.iterdir():
            match = _UNFINISHED.fullmatch(file.name)
            if match and match[1] in prefixes:
                file.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    return f".{path.name.encode()[:_PREFIX_BYTES].decode(errors='ignore')}."


def write_text(path: Path, text: str) -> None:
    """Write `text` to a UTF-8 file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to an indented JSON file atomically; NaN and infinity are refused."""
    write_text(path, dump_json(value) + "\n")


def dump_json(value: Any, *, indent: int = 2) -> str:
    """Return `value` as indented JSON; lists and objects that fit on one line are written on one line."""

    def render(item: Any, depth: int) -> str:
        flat = _FLAT.encode(item)
        if not isinstance(item, dict | list) or len(flat) + depth * indent <= 100:
            return flat
        pad, close = " " * indent * (depth + 1), " " * indent * depth
        if isinstance(item, dict):
            rows = [f"{pad}{json.dumps(str(k))}: {render(v, depth + 1)}" for k, v in item.items()]
            return "{\n" + ",\n".join(rows) + f"\n{close}}}"
        return "[\n" + ",\n".join(pad + render(v, depth + 1) for v in item) + f"\n{close}]"

    return render(value, 0)


def read_json(path: Path) -> Any:
    """Read a JSON file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises:
        InputError: The file is missing, cannot be read or is not valid JSON, or an object has a key twice.
    """
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=_refuse_twice)
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), hint="Check the path.") from error
    except ValueError as error:  # also not UTF-8, or a key twice
        raise InputError(
            f"not valid JSON ({error})", where=str(path), hint="Correct the file, or create it again."
        ) from error
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from error


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; raise a ValueError if a key has two values, of which Python takes the last."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if found.setdefault(key, value) != value:
            raise ValueError(f"the key {key!r} has two values")
    return found


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file that medunet wrote.

    Raises:
        InputError: The file is missing, is not valid JSON, or its top level is not an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(
            "does not contain a JSON object",
            where=str(path),
            hint="Remove the file; the command that writes it creates it again.",
        )
    return value


def name_on_disk(name: str) -> str:
    """Return a name as a disk compares it that ignores letter case and Unicode form; equal ones are one file."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def guess_delimiter(head: str) -> str:
    """Return the delimiter of a table by its first line: comma, semicolon, tab or vertical bar."""
    return max(",;\t|", key=head.count)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_value(value: Any) -> str:
    """Return the SHA-256 of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def unwritable(path: Path, error: OSError) -> InputError:
    """Return the error for a file or folder that cannot be written."""
    return InputError(
        f"cannot be written ({error.strerror or error})",
        where=str(path),
        hint="Free disk space or choose a folder that you may write to.",
    )

"""Files written whole or not at all, their hashes, and the layout of a run's folder."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError


@contextmanager
def whole_file(path: Path, suffix: str = ".tmp") -> Iterator[Path]:
    """Give a temporary path beside `path`; on leaving, flush it to disk and rename it to `path`.

    A reader, or a process started after a kill, sees the old file or the new one, never a part of it.
    `suffix` is the temporary file's ending, for writers that choose a format by it (".nii.gz").

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with short lists on one line; NaN and infinity are refused."""
    write_text(path, dump_json(value) + "\n")


def dump_json(value: Any, *, indent: int = 2) -> str:
    """Return indented JSON in which lists and objects that fit on a line stand on one."""

    def render(item: Any, depth: int) -> str:
        flat = json.dumps(item, ensure_ascii=False, allow_nan=False)
        if not isinstance(item, dict | list) or len(flat) + depth * indent <= 100:
            return flat
        pad, close = " " * indent * (depth + 1), " " * indent * depth
        if isinstance(item, dict):
            rows = [f"{pad}{json.dumps(str(k))}: {render(v, depth + 1)}" for k, v in item.items()]
            return "{\n" + ",\n".join(rows) + f"\n{close}}}"
        return "[\n" + ",\n".join(pad + render(v, depth + 1) for v in item) + f"\n{close}]"

    return render(value, 0)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError("no such file", where=str(path), hint="Check the path.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"not valid JSON ({error})", where=str(path), hint="Correct it, or make it again."
        ) from error
    except OSError as error:
        raise InputError(error.strerror or "cannot be read", where=str(path)) from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that our own commands write as one object.

    Raises:
        InputError: it is missing, is not JSON, or holds something else than an object.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(
            "holds no JSON object",
            where=str(path),
            hint="Remove it; the command that writes it makes it anew.",
        )
    return value


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_value(value: Any) -> str:
    """Return the SHA-256 of a JSON-serialisable value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"cannot be written ({error.strerror or error})",
        where=str(path),
        hint="Free disk space or choose a folder that you may write to.",
    )

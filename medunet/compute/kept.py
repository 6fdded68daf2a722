"""Choices of how to compute, kept in the user's cache folder: one small JSON file each, and what the user set."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medunet.base.errors import InputError
from medunet.base.files import hash_value, read_json_object, write_json
from medunet.base.processor import read_processor
from medunet.base.record import Record
from medunet.compute.devices import Precision

Purpose = Literal["training", "inference"]
SETTINGS = {
    f"{purpose}.{what}": values
    for purpose in ("training", "inference")
    for what, values in (("precision", ("fp32", "bf16")), ("channels_last", ("on", "off")))
}


@dataclass(frozen=True)
class Choice:
    """A precision and a memory layout with their reasons, and the seconds that one step or window should take."""

    precision: Precision = "fp32"
    channels_last: bool = False
    seconds: float = 0.0
    why: str = ""
    channels_last_why: str = ""


class Kept(Record):
    """A file of the cache: what the choice was made for, and the choice."""

    schema_: Literal["medunet.compute/1"] = Field("medunet.compute/1", alias="schema")
    key: dict[str, Any]
    precision: Precision
    channels_last: bool
    seconds: float
    why: str
    channels_last_why: str

    @property
    def choice(self) -> Choice:
        """The choice without what it was made for."""
        return Choice(self.precision, self.channels_last, self.seconds, self.why, self.channels_last_why)


def cache_folder() -> Path | None:
    """Return the folder of choices: `medunet/compute` in XDG_CACHE_HOME, else in ~/.cache; None without a home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():  # as the XDG specification has it
        return Path(given) / "medunet" / "compute"
    try:
        return Path.home() / ".cache" / "medunet" / "compute"
    except RuntimeError:
        return None


def find(key: dict[str, Any]) -> Choice | None:
    """Return the choice that is kept for a key; a file that cannot be read, or is another's, counts for nothing."""
    folder = cache_folder()
    kept = None if folder is None else _read(folder / _name(key))
    return kept.choice if kept is not None and kept.key == key else None


def keep(key: dict[str, Any], choice: Choice) -> str | None:
    """Keep a choice; return why it could not be, or None."""
    folder = cache_folder()
    if folder is None:
        return "there is no home folder"
    try:
        Kept(key=key, **asdict(choice)).write(folder / _name(key))
    except InputError as error:
        return error.what
    return None


def list_kept() -> list[Kept]:
    """Return all choices that can be read."""
    folder = cache_folder()
    paths = sorted(folder.glob("*-*.json")) if folder is not None else []
    return [kept for kept in map(_read, paths) if kept is not None]


def _name(key: dict[str, Any]) -> str:
    return f"{key['purpose']}-{hash_value(key)[:16]}.json"


def _read(path: Path) -> Kept | None:
    try:
        return Kept.read(path)
    except InputError:
        return None


# ---- what the user set ------------------------------------------------------------------------------------------


def read_settings() -> dict[str, str]:
    """Return what the user set for this processor, such as `training.precision`; an unreadable file sets nothing."""
    return {key: value for key, value in _all_settings().get(_computer(), {}).items() if key in SETTINGS}


def change_settings(changes: Sequence[str]) -> None:
    """Store changes such as `training.precision=fp32` for this computer; `=auto` takes one back.

    Raises:
        InputError: a key or a value that there is not, or the folder cannot be written.
    """
    mine = read_settings()
    for change in changes:
        key, _, value = change.partition("=")
        if key not in SETTINGS:
            raise InputError(
                f"no such key '{key}'", where="--set", hint=f"Choose from {', '.join(SETTINGS)}."
            )
        if value != "auto" and value not in SETTINGS[key]:
            words = ", ".join((*SETTINGS[key], "auto"))
            raise InputError(f"{key} cannot be '{value}'", where="--set", hint=f"Choose from {words}.")
        mine.pop(key, None)
        if value != "auto":
            mine[key] = value
    if (folder := cache_folder()) is None:
        raise InputError("there is no home folder", where="--set", hint="Set XDG_CACHE_HOME to a folder.")
    everyone = {name: kept for name, kept in _all_settings().items() if name != _computer()}
    write_json(folder / "settings.json", everyone | ({_computer(): mine} if mine else {}))


def _all_settings() -> dict[str, dict[str, str]]:
    folder = cache_folder()
    try:
        found = {} if folder is None else read_json_object(folder / "settings.json")
    except InputError:
        return {}
    return {name: kept for name, kept in found.items() if isinstance(kept, dict)}


def _computer() -> str:
    """Name what settings belong to: a home folder may be shared by computers with other processors."""
    return read_processor().describe()

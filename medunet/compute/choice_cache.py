"""Cache of benchmark results (backend, precision, layout) in the user's cache folder, and the user's settings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from medunet.base import user_folders
from medunet.base.errors import InputError
from medunet.base.files import hash_value, read_json_object, write_json
from medunet.base.processor import read_processor
from medunet.base.record import Record
from medunet.compute.devices import Precision

Purpose = Literal["training", "inference"]
BackendName = Literal["torch", "openvino"]
SETTINGS = {
    f"{purpose}.{what}": values
    for purpose in ("training", "inference")
    for what, values in (("precision", ("fp32", "bf16")), ("channels_last", ("on", "off")))
} | {"inference.backend": ("torch", "openvino")}


@dataclass(frozen=True)
class Choice:
    """Chosen precision, memory layout and backend with their reasons; estimated seconds of one step or window."""

    precision: Precision = "fp32"
    channels_last: bool = False
    seconds: float = 0.0
    why: str = ""
    channels_last_why: str = ""
    backend: BackendName = "torch"
    backend_why: str = ""


class CachedChoice(Record):
    """A file of the cache: a choice and the key that it was made for."""

    schema_: Literal["medunet.compute/1"] = Field("medunet.compute/1", alias="schema")
    key: dict[str, Any]
    precision: Precision
    channels_last: bool
    seconds: float
    why: str
    channels_last_why: str
    backend: BackendName = "torch"
    backend_why: str = ""

    @property
    def choice(self) -> Choice:
        """The choice without its key."""
        return Choice(**{field.name: getattr(self, field.name) for field in fields(Choice)})


def cache_folder() -> Path | None:
    """Return the folder of the choices in the user's cache; None if there is no home."""
    return user_folders.cache_folder("compute")


def find_choice(key: dict[str, Any]) -> Choice | None:
    """Return the cached choice for a key; None if there is none, or its file cannot be read or has another key."""
    folder = cache_folder()
    cached = None if folder is None else _read(folder / _name(key))
    return cached.choice if cached is not None and cached.key == key else None


def save_choice(key: dict[str, Any], choice: Choice) -> str | None:
    """Write a choice to the cache; return the reason if that is not possible, otherwise None."""
    folder = cache_folder()
    if folder is None:
        return "there is no home folder"
    try:
        CachedChoice(key=key, **asdict(choice)).write(folder / _name(key))
    except InputError as error:
        return error.what
    return None


def list_choices() -> list[CachedChoice]:
    """Return all cached choices that can be read."""
    folder = cache_folder()
    paths = sorted(folder.glob("*-*.json")) if folder is not None else []
    return [cached for cached in map(_read, paths) if cached is not None]


def _name(key: dict[str, Any]) -> str:
    return f"{key['purpose']}-{hash_value(key)[:16]}.json"


def _read(path: Path) -> CachedChoice | None:
    try:
        return CachedChoice.read(path)
    except InputError:
        return None


# ---- the user's settings ----------------------------------------------------------------------------------------


def read_settings() -> dict[str, str]:
    """Return the user's settings for this processor, such as `training.precision`; none if the file is unreadable."""
    return {key: value for key, value in _all_settings().get(_computer(), {}).items() if key in SETTINGS}


def change_settings(changes: Sequence[str]) -> None:
    """Store settings such as `training.precision=fp32` for this computer; `=auto` removes one.

    Raises:
        InputError: a key or value does not exist, or the folder cannot be written.
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
    others = {name: settings for name, settings in _all_settings().items() if name != _computer()}
    write_json(folder / "settings.json", others | ({_computer(): mine} if mine else {}))


def _all_settings() -> dict[str, dict[str, str]]:
    folder = cache_folder()
    try:
        found = {} if folder is None else read_json_object(folder / "settings.json")
    except InputError:
        return {}
    return {name: settings for name, settings in found.items() if isinstance(settings, dict)}


def _computer() -> str:
    """Return the processor's name, under which settings are stored: several computers may share a home folder."""
    return read_processor().describe()

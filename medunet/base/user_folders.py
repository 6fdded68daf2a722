"""The user's folders for medunet's caches and data, by the XDG base directory specification."""

import os
from pathlib import Path


def cache_folder(name: str) -> Path | None:
    """Return the folder `medunet/<name>` in XDG_CACHE_HOME, by default ~/.cache; None if there is no home."""
    return _folder("XDG_CACHE_HOME", ".cache", name)


def data_folder(name: str) -> Path | None:
    """Return the folder `medunet/<name>` in XDG_DATA_HOME, by default ~/.local/share; None if there is no home."""
    return _folder("XDG_DATA_HOME", ".local/share", name)


def _folder(variable: str, default: str, name: str) -> Path | None:
    given = os.environ.get(variable, "")
    if given and Path(given).is_absolute():  # as the specification requires
        return Path(given) / "medunet" / name
    try:
        return Path.home() / default / "medunet" / name
    except RuntimeError:
        return None

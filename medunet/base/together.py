"""Write several files of a folder together: all of them or none, whenever the process is killed."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from medunet.base.files import read_json, remove_unfinished, write_json, write_text
from medunet.base.lock import wait_for

_LIST = ".medunet.together.json"  # the files of which a whole new version is written


def write_together(folder: Path, texts: Mapping[str, str]) -> None:
    """Write UTF-8 files, given by name, that belong together.

    The new files are written beside the old ones, then a list of them. Killed before the list is written, the call
    has changed nothing; killed later, `finish_together` completes it.

    Raises:
        InputError: The folder is not writable, or the disk is full.
    """
    with wait_for(folder, "together"):
        _replace_listed(folder)
        remove_unfinished(
            [folder / _LIST, *(_new(folder, name) for name in texts), *map(folder.joinpath, texts)]
        )
        if len(texts) == 1:
            (name,) = texts
            write_text(folder / name, texts[name])
            return
        for name, text in texts.items():
            write_text(_new(folder, name), text)
        write_json(folder / _LIST, list(texts))
        _replace_listed(folder)


def finish_together(folder: Path) -> None:
    """Complete a call of `write_together` that was killed while it replaced the files."""
    if (folder / _LIST).exists():
        with wait_for(folder, "together"):
            _replace_listed(folder)


def _replace_listed(folder: Path) -> None:
    if (folder / _LIST).exists():
        for name in read_json(folder / _LIST):
            with suppress(FileNotFoundError):  # it was replaced before the kill
                _new(folder, name).replace(folder / name)
        (folder / _LIST).unlink()


def _new(folder: Path, name: str) -> Path:
    return folder / f".{name}.new"

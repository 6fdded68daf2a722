"""Cases that a command has finished, kept until its tables are written, so that it can be stopped and go on."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import hash_value
from medunet.imaging.formats import format_of
from medunet.records.scores import UNSCORED, CaseLesions, CaseScore, Lesion, Note
from medunet.scoring.pairs import Pair


class Journal:
    """A file with a line of JSON for each finished case; a line that a kill has cut off is ignored.

    A line is found again by its key, a hash of the two files' paths, sizes and times of change, of how they are
    scored, and of this version.
    """

    def __init__(self, path: Path, how: Any) -> None:
        """Read what is kept; `how` is plain data of all that the scores depend on beside the files."""
        self._path = path
        self._how = hash_value([__version__, how])
        self._kept: dict[str, list[CaseScore]] = {}
        self._keys: dict[Pair, str] = {}  # as the files were when first asked for: before they were read
        try:
            lines = path.read_bytes().splitlines() if path.exists() else []
        except OSError as error:
            raise InputError(
                error.strerror or "cannot be read", where=str(path), hint="Remove it."
            ) from error
        for line in lines:
            try:
                content = json.loads(line)
                self._kept[content["key"]] = [score_of(plain) for plain in content["scores"]]
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # cut off, or of another version

    def find(self, pair: Pair) -> list[CaseScore] | None:
        """Return the scores of a case that is finished, if its files are the very same."""
        return self._kept.get(self._key(pair))

    def add(self, pair: Pair, scores: list[CaseScore]) -> None:
        """Keep a case's scores on disk; one that is missing or failed is left to be tried again.

        Raises:
            InputError: the folder cannot be written.
        """
        if any(score.status in UNSCORED for score in scores):
            return
        line = {"key": self._key(pair), "scores": [asdict(score) for score in scores]}
        # NaN and Infinity stay as Python writes them.
        text = json.dumps(line, default=lambda number: number.item())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{text}\n")  # a line that was cut off before ends here
        except OSError as error:
            raise InputError(
                f"cannot be written ({error.strerror or error})",
                where=str(self._path),
                hint="Free disk space or choose a folder that you may write to.",
            ) from error

    def _key(self, pair: Pair) -> str:
        if pair not in self._keys:
            files = [_state(path) for path in (pair.reference, pair.prediction) if path is not None]
            self._keys[pair] = hash_value([pair.case, files, self._how])
        return self._keys[pair]


def score_of(plain: dict[str, Any]) -> CaseScore:
    """Return the record that was made plain by `asdict` and went through JSON."""
    values = dict(plain)
    values["nsd"] = {float(tolerance): value for tolerance, value in plain["nsd"].items()}
    values["notes"] = tuple(Note(**note) for note in plain["notes"])
    if plain["lesions"] is not None:
        lesions = tuple(Lesion(**lesion) for lesion in plain["lesions"]["lesions"])
        values["lesions"] = CaseLesions(**{**plain["lesions"], "lesions": lesions})
    return CaseScore(**values)


def _state(path: Path) -> list[Any]:
    beside = [path.with_suffix(ending) for ending in format_of(path).data_endings]
    states = []
    for each in (path, *beside):
        with suppress(OSError):  # there is no such file, or it cannot be looked at
            state = each.stat()
            states.append([str(each.absolute()), state.st_size, state.st_mtime_ns])
    return states

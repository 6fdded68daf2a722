"""Journal of finished cases, with which an interrupted scoring command resumes."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import hash_value
from medunet.imaging.formats import files_of
from medunet.records.scores import UNSCORED, CaseLesions, CaseScore, Lesion, Note
from medunet.scoring.pairs import Pair


class Journal:
    """A file with a line of JSON for each finished case; an incomplete last line is ignored.

    The key of a line is a hash of the paths, sizes and modification times of the two files, the scoring settings and
    the version of medunet.
    """

    def __init__(self, path: Path, settings: Any) -> None:
        """Read the file if it exists; `settings` is plain data with all settings that affect the scores.

        Raises:
            InputError: the file cannot be read.
        """
        self._path = path
        self._settings = hash_value([__version__, settings])
        self._finished: dict[str, list[CaseScore]] = {}
        self._keys: dict[Pair, str] = {}  # computed before the files are read
        try:
            lines = path.read_bytes().splitlines() if path.exists() else []
        except OSError as error:
            raise InputError(
                error.strerror or "cannot be read", where=str(path), hint="Remove it."
            ) from error
        for line in lines:
            try:
                content = json.loads(line)
                self._finished[content["key"]] = [parse_score(plain) for plain in content["scores"]]
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # incomplete, or written by another version

    def find(self, pair: Pair) -> list[CaseScore] | None:
        """Return the scores of a finished case; None if it is not finished or its files have changed."""
        return self._finished.get(self._key(pair))

    def add(self, pair: Pair, scores: list[CaseScore]) -> None:
        """Append a case's scores to the file. Missing and failed cases are not stored, so that they are tried again.

        Raises:
            InputError: the file cannot be written.
        """
        if any(score.status in UNSCORED for score in scores):
            return
        line = {"key": self._key(pair), "scores": [asdict(score) for score in scores]}
        # Python writes NaN and Infinity, which are not strict JSON, and reads them back.
        text = json.dumps(line, default=lambda number: number.item())
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(f"\n{text}\n")  # the leading line break ends an incomplete line
        except OSError as error:
            raise InputError(
                f"cannot be written ({error.strerror or error})",
                where=str(self._path),
                hint="Free disk space or choose a folder that you may write to.",
            ) from error

    def _key(self, pair: Pair) -> str:
        if pair not in self._keys:
            files = [_state(path) for path in (pair.reference, pair.prediction) if path is not None]
            self._keys[pair] = hash_value([pair.case, files, self._settings])
        return self._keys[pair]


def parse_score(plain: dict[str, Any]) -> CaseScore:
    """Return the score that `asdict` turned into plain data and JSON stored."""
    values = dict(plain)
    values["nsd"] = {float(tolerance): value for tolerance, value in plain["nsd"].items()}
    values["notes"] = tuple(Note(**note) for note in plain["notes"])
    if plain["lesions"] is not None:
        lesions = tuple(Lesion(**lesion) for lesion in plain["lesions"]["lesions"])
        values["lesions"] = CaseLesions(**{**plain["lesions"], "lesions": lesions})
    return CaseScore(**values)


def _state(path: Path) -> list[Any]:
    """Return path, size and modification time of a label file and of the files that hold its voxels."""
    states = []
    for each in files_of(path):
        with suppress(OSError):  # the file does not exist or is not accessible
            state = each.stat()
            states.append([str(each.absolute()), state.st_size, state.st_mtime_ns])
    return states

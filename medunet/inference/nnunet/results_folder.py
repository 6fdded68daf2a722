"""The results folders of nnU-Net: where a trained model lies in a folder or in a ZIP that nnU-Net exported."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import read_json_object
from medunet.dataset.archives import Limits, unpack

_FOLD = re.compile(r"fold_(\d+|all)")
_LIMITS = Limits(num_files=100_000, num_bytes=200_000_000_000)
_UNPACKED = "unpacked"


@dataclass(frozen=True)
class Trained:
    """A folder `Trainer__Plans__Configuration`, and its checkpoints by fold."""

    folder: Path
    plans: dict[str, Any]
    dataset: dict[str, Any]
    checkpoints: dict[str, Path]

    @property
    def configuration(self) -> str:
        return self.folder.name.split("__")[-1]


@contextmanager
def open_source(source: Path, out: Path) -> Iterator[Path]:
    """Yield the folder of a source; an archive is unpacked beside `out` and removed afterwards."""
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise InputError("no such file or folder", where=str(source), hint="Check the path.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        folder = Path(temporary)
        unpack(source, folder / _UNPACKED, folder / "unfinished", limits=_LIMITS)
        yield folder / _UNPACKED


def choose_model(root: Path, source: Path, configuration: str | None) -> Trained:
    """Return the one trained model in a folder that is meant.

    Raises:
        InputError: there is none, or several.
    """
    folders = [
        path.parent for path in (root, *_folders(root)) for path in [path / "plans.json"] if path.is_file()
    ]
    folders = [folder for folder in folders if any(_FOLD.fullmatch(each.name) for each in _folders(folder))]
    models = [_open(folder, source) for folder in folders]
    chosen = [model for model in models if configuration in (None, model.configuration)]
    if len(chosen) != 1:
        found = ", ".join(sorted(folder.name for folder in folders)) or "none"
        what = "no trained model of nnU-Net v2" if not models else f"several trained models ({found})"
        if models and configuration is not None:
            what = f"not exactly one model of configuration {configuration} ({found})"
        raise InputError(
            f"holds {what}",
            where=str(source),
            hint="Give the folder Trainer__Plans__Configuration with plans.json, dataset.json and fold_0"
            + (", or choose one with --configuration." if models else "."),
        )
    return chosen[0]


def _folders(root: Path, depth: int = 2) -> Iterator[Path]:
    """Yield the folders inside a folder and in those, in order; links are not followed."""
    for path in sorted(root.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield path
            if depth > 1:
                yield from _folders(path, depth - 1)


def _open(folder: Path, source: Path) -> Trained:
    if not (folder / "dataset.json").is_file():
        raise InputError(
            "dataset.json is missing beside plans.json",
            where=shown(folder, source),
            hint="Copy it from nnU-Net's results or preprocessed folder: it names channels and labels.",
        )
    folds = {match[1]: path for path in _folders(folder, 1) if (match := _FOLD.fullmatch(path.name))}
    numbered = {fold: path for fold, path in sorted(folds.items()) if fold != "all"}
    plans = read_json_object(folder / "plans.json")
    return Trained(folder, plans, read_json_object(folder / "dataset.json"), numbered or folds)


def find_earlier(trained: Trained, name: str, source: Path) -> Trained:
    """Return the model of a cascade's earlier stage, which lies beside it.

    Raises:
        InputError: it does not.
    """
    start = trained.folder.name.rpartition("__")[0]
    folder = trained.folder.parent / f"{start}__{name}"
    if not (folder / "plans.json").is_file():
        raise InputError(
            f"{trained.configuration} refines the masks of {name}, whose trained model is not beside it",
            where=shown(trained.folder, source),
            hint=f"Put {folder.name} into the same folder.",
        )
    return _open(folder, source)


def shown(folder: Path, source: Path) -> str:
    """Return the name of a folder for messages: not that of a temporary one."""
    return folder.name if folder.name not in (_UNPACKED, "") else source.name

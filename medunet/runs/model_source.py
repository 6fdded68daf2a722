"""The models that are to be packaged: model folders, and the runs that they are of."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medunet.base.errors import InputError
from medunet.records.config import load_config
from medunet.records.model_card import ModelCard
from medunet.records.run_folder import RunFolder
from medunet.runs.packages import describe_difference
from medunet.runs.run import first_trained_fold, member_folders

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelSource:
    """A model folder, and the run that it is of, if it lies in one."""

    folder: Path
    card: ModelCard
    run: RunFolder | None

    @classmethod
    def of(cls, folder: Path) -> "ModelSource":
        """Read a model folder.

        Raises:
            InputError: it holds no model card that can be read.
        """
        card = ModelCard.read(folder / "model.json")
        folds = next((path for path in folder.resolve().parents if path.name == "folds"), None)
        is_in_run = folds is not None and (folds.parent / "config.yaml").is_file()
        return cls(folder, card, RunFolder(folds.parent) if folds is not None and is_in_run else None)

    @property
    def used_sha256(self) -> str:
        """SHA-256 of the weights in use."""
        return self.card.sha256_of(self.card.inference.weights or "best")

    @property
    def seed(self) -> int | None:
        """The seed of its training; of medunet 0.8 and earlier the run's, None without a run."""
        if self.card.seed is not None:
            return self.card.seed
        return load_config(self.run.config).seed if self.run else None

    def read_length(self) -> dict[str, int]:
        """Return for how many epochs and steps it was trained, by its table; empty if there is none."""
        path = self.folder.parent / "training.csv" if self.run else None
        if path is None or not path.is_file():
            return {}
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return {"epochs": int(rows[-1]["epoch"]) + 1, "steps": int(rows[-1]["step"])} if rows else {}


def read_sources(sources: Sequence[Path], fold: str | None) -> tuple[list[ModelSource], list[str]]:
    """Return the models of runs and model folders, and what is wrong with them.

    Of a run, `fold` is a fold, or "each" for all that are trained; None: the first trained one. None may be given
    twice, and all must have the same channels and targets.
    """
    members: list[ModelSource] = []
    faults = []
    for source in sources:
        try:
            members += [ModelSource.of(folder) for folder in _folders_of(source, fold)]
        except InputError as error:
            faults.append(f"{error.where}: {error.what}" if error.where else error.what)
    by_folder = {str(each.folder.resolve()): each for each in members}
    if len(by_folder) < len(members):
        faults.append("a model is given twice")
    if different := describe_difference({name: each.card for name, each in by_folder.items()}):
        faults.append(different)
    return members, faults


def _folders_of(source: Path, fold: str | None) -> list[Path]:
    if (source / "model.json").is_file():
        if fold is not None:
            raise InputError("is a model folder, which has no folds: leave --fold out", where=str(source))
        return [source]
    run = RunFolder(source)
    trained = member_folders(run)
    if not trained:
        raise InputError("holds no model.json, and no trained fold", where=str(source))
    chosen = fold or first_trained_fold(run)
    folders = member_folders(run, chosen)
    if not folders:
        raise InputError(f"fold {chosen} is not trained", where=str(source))
    if fold is None and len(folders) < len(trained):
        _log.info(
            f"Fold {chosen} is taken, {len(folders)} of {len(trained)} networks: --fold each takes all."
        )
    return folders

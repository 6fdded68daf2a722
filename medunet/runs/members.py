"""Which trained networks predict together: those of a fold, of all folds, or of several runs."""

from collections.abc import Sequence
from pathlib import Path

from medunet.base.errors import InputError
from medunet.records.config import load_config
from medunet.records.run_folder import RunFolder
from medunet.runs.packages import find_models, find_package
from medunet.runs.run import first_trained_fold, member_folders


def find_members(source: Path, fold: str | None, others: Sequence[Path] = ()) -> list[Path]:
    """Return the model folders that predict new scans together.

    Args:
        source: a model folder, a run's folder, or a packaged model by its ZIP or name. A run brings the runs of its
            `inference.members` with it, a package all of its members.
        fold: of runs, the networks of this fold; "each": of all trained ones; None: of the first trained one.
        others: more of the same.

    Raises:
        InputError: there is no trained network in one of them; all of these are named.
    """
    found, faults = [], []
    for each in (source, *others):
        is_packaged = find_package(each) is not None
        if is_packaged or not each.exists():
            if not is_packaged:
                faults.append(f"there is no model '{each}'")
            elif fold is not None and each == source:
                faults.append(f"{each}: a packaged model has no folds to choose from")
            else:
                found += find_models(each)
            continue
        runs = [each] if (each / "model.json").exists() else [each, *_configured(each)]
        for run in runs:
            folders = _networks_of(run, fold)
            found += folders
            if not folders:
                faults.append(f"{run}: no trained network" + (f" of fold {fold}" if fold else ""))
    if faults:
        raise InputError(
            "; ".join(faults),
            hint="Give a model folder, a trained run, a package (.zip), or a name that `medunet models` lists.",
        )
    return list(dict.fromkeys(found))


def fold_members(folder: RunFolder, fold: int | str) -> list[Path]:
    """Return the model folders that predict the cases that a fold holds out, by `inference.members` as well.

    Raises:
        InputError: a run of `inference.members` has no trained network of this fold.
    """
    found = member_folders(folder, fold)
    for other in _configured(folder.root):
        own = member_folders(RunFolder(other), fold)
        if not own:
            raise InputError(
                f"fold {fold} is not trained",
                where=f"inference.members: {other}",
                hint="Train it there, with the same folds, or take the run out of inference.members.",
            )
        found += own
    return found


def _networks_of(source: Path, fold: str | None) -> list[Path]:
    if (source / "model.json").exists():
        return [source]
    folder = RunFolder(source)
    if fold is None and not folder.config.exists():  # imported from nnU-Net, which averages all folds
        return member_folders(folder)
    return member_folders(folder, fold or first_trained_fold(folder))


def _configured(run: Path) -> list[Path]:
    """Return the folders of the runs that a run's configuration names, relative to its own folder."""
    path = RunFolder(run).config
    members = load_config(path).inference.members if path.exists() else ()
    return [run / member for member in members]

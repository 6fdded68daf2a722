"""A run in hand: folder, configuration, data root; what its check allows and its models hold out; how it was made."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from medunet import __version__
from medunet.config import Config, change_config, load_config
from medunet.dataset.checks.manifest_checks import errors_left, read_faults
from medunet.dataset.held_out import read_test_names
from medunet.dataset.layouts.nnunet import read_any_folds
from medunet.dataset.manifest import case_paths, data_root_from
from medunet.errors import FaultsError, InputError
from medunet.files import RunFolder, hash_value, read_object, write_json
from medunet.plans import ModelCard, Plan
from medunet.processor import num_threads, read_processor
from medunet.records import Case, Description, Manifest, load_description

_PACKAGES = ("torch", "monai", "lightning", "nibabel", "numpy", "scipy", "safetensors")
_FOLDS_COPY, _TEST_COPY, _DESCRIPTION_COPY = "run_folds.json", "run_test.json", "run_description.json"


@dataclass(frozen=True)
class Run:
    """A run in hand: its folder, its configuration, and where its data lies (never stored)."""

    folder: RunFolder
    config: Config
    data_root: Path

    def save(self) -> None:
        """Keep the configuration; stages do so once they have found that it can be used."""
        self.config.write(self.folder.config)

    @property
    def description(self) -> Description:
        """The dataset's description, by its shipped name or as the run keeps it."""
        kept = self.config.dataset == _DESCRIPTION_COPY
        name = str(self.folder.root / _DESCRIPTION_COPY) if kept else self.config.dataset
        return load_description(name, descriptions_folder())

    @property
    def manifest(self) -> Manifest:
        """The case list, as the first stage wrote it."""
        return Manifest.read(self.folder.need(self.folder.manifest, "manifest"))

    @property
    def plan(self) -> Plan:
        """The plan, as the third stage wrote it."""
        return Plan.read(self.folder.need(self.folder.plan, "plan"))


def descriptions_folder() -> Path:
    """Return the folder of shipped dataset descriptions: in an installed package, or in the repository."""
    inside = Path(__file__).parent / "data_manifests"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "data_manifests"


def open_run(
    root: Path,
    data_root: Path | None,
    *,
    config_file: Path | None = None,
    dataset: str | Description | None = None,
    changes: Sequence[str] = (),
) -> Run:
    """Open a run's folder, or begin one from a configuration file or a dataset, with changes on top.

    The dataset is a description's name, a YAML file, or a description that was made of a folder.

    Raises:
        InputError: there is no run and nothing to begin it from, or a key or value cannot be used.
    """
    folder = RunFolder(root)
    made = dataset if isinstance(dataset, Description) else None
    name = _DESCRIPTION_COPY if isinstance(dataset, Description) else dataset
    kept = load_config(folder.config) if folder.config.exists() else None
    if config_file is not None:
        config = load_config(config_file, changes)
        if kept is not None:  # cases that were left out by name stay left out
            config = config.model_copy(update={"exclude": {**kept.exclude, **config.exclude}})
    elif kept is not None:
        config = change_config({**kept.plain(), "dataset": name or kept.dataset}, changes, str(folder.config))
    elif name is not None:
        config = change_config({"dataset": name}, changes, "--dataset")
    else:
        raise InputError(
            "holds no config.yaml",
            where=str(root),
            mend="Begin a run with `medunet manifest DATASET --run DIR`.",
        )
    # The run keeps folds, test list and description: no path to them is stored, and they cannot change under it.
    if config.folds_file is not None and config.folds_file != _FOLDS_COPY:
        write_json(root / _FOLDS_COPY, {"folds": read_any_folds(Path(config.folds_file))})
        config = config.model_copy(update={"folds_file": _FOLDS_COPY})
    if config.test_file is not None and config.test_file != _TEST_COPY:
        write_json(root / _TEST_COPY, {"test": read_test_names(Path(config.test_file))})
        config = config.model_copy(update={"test_file": _TEST_COPY})
    if made is not None:
        made.write(root / _DESCRIPTION_COPY)
    elif Path(config.dataset).suffix and config.dataset != _DESCRIPTION_COPY:
        Description.read(Path(config.dataset)).write(root / _DESCRIPTION_COPY)
        config = config.model_copy(update={"dataset": _DESCRIPTION_COPY})
    return Run(folder, config, data_root_from(data_root))


def external_run(run: Run, dataset: str, data_root: Path) -> Run:
    """Return a run within a run, `external/<dataset>`, for scans from elsewhere that its model is tried on."""
    folder = run.folder.root / "external" / Path(dataset).stem
    opened = open_run(folder, data_root, dataset=dataset)
    alike = {name: getattr(run.config, name) for name in ("device", "seed", "inference", "scoring")}
    return Run(opened.folder, opened.config.model_copy(update=alike), opened.data_root)


def each_fold(run: Run) -> list[Run]:
    """Return the run as it is configured for each of its folds, where "each" is asked for; else the run alone.

    A hold-out has one fold to validate on: fold 0.
    """
    if run.config.training.fold != "each":
        return [run]
    runs = []
    for fold in range(1 if run.config.holdout is not None else run.manifest.num_folds):
        training = run.config.training.model_copy(update={"fold": fold})
        runs.append(Run(run.folder, run.config.model_copy(update={"training": training}), run.data_root))
    return runs


def has_begun(run: Run, fold: int | str = "*") -> bool:
    """Say whether a fold, or any fold, of the run has been trained, if only to its first checkpoint."""
    return any(run.folder.root.glob(f"folds/{fold}/checkpoints/*.ckpt"))


def label_of(run: Run, case_id: str | None) -> Path:
    """Return the label file of a case, or of the only case.

    Raises:
        InputError: there is no such case, or several and none was named.
    """
    labelled = {case.id: case for case in run.manifest.used if case.label is not None}
    if case_id is None and len(labelled) == 1:
        case_id = next(iter(labelled))
    if case_id not in labelled:
        known = ", ".join(list(labelled)[:5])
        raise InputError(
            f"no labelled case '{case_id}'", where="--case", mend=f"Choose one, such as {known}."
        )
    _, label = case_paths(labelled[case_id], run.manifest.description, run.data_root)
    assert label is not None
    return label


def data_state(run: Run) -> str:
    """Return a hash of the manifest and of the size and time of every file it names: what a check is good for."""
    manifest = run.manifest
    states = []
    for case in manifest.used:
        images, label = case_paths(case, manifest.description, run.data_root)
        for path in (*images, *([label] if label else [])):
            state = path.stat() if path.exists() else None
            states.append([state.st_size, state.st_mtime_ns] if state else None)
    return hash_value([manifest.plain(), states])


def require_clean(run: Run) -> None:
    """Refuse to go on with errors in the data, or with data that was changed since its check.

    Raises:
        FaultsError: names the cases at fault and what to do.
    """
    manifest = run.manifest
    checked = read_provenance(run).get("check", {}).get("data_state_sha256")
    if checked != data_state(run) or not run.folder.checks.exists():
        raise FaultsError(
            "the data have not been checked as they are now",
            where=str(run.folder.root),
            mend="Run `medunet check` first.",
        )
    if left := errors_left(read_faults(run.folder.checks), manifest):
        rows = sorted({f"{fault.case or 'dataset'} ({fault.code})" for fault in left})
        raise FaultsError(
            f"the check found {len(left)} error(s): {', '.join(rows[:10])}{' ...' * (len(rows) > 10)}",
            where=str(run.folder.checks),
            mend="Mend the files, or leave cases out by name with `medunet check --exclude CASE=REASON`.",
        )


def require_one_process() -> None:
    """Refuse what several processes would do several times over.

    Raises:
        InputError: torchrun started more than one.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            f"torchrun started {os.environ['WORLD_SIZE']} processes, but only training is shared among them",
            where="torchrun",
            mend="Run the other stages without it, and `torchrun ... -m medunet.cli train RUN` in between.",
        )


def require_same_channels(trained: Description, given: Description) -> None:
    """Refuse scans of another number of channels, or of another modality, than a model was trained on.

    Raises:
        InputError: names the channels of both.
    """
    ours, theirs = (
        {name: channel.modality for name, channel in each.channels.items()} for each in (trained, given)
    )
    pairs = zip(ours.values(), theirs.values(), strict=False)
    foreign = any(one != other and "other" not in (one, other) for one, other in pairs)
    if len(ours) != len(theirs) or foreign:
        told = [", ".join(f"{name} ({kind})" for name, kind in each.items()) for each in (ours, theirs)]
        raise InputError(
            f"the model was trained on {told[0]}, but the dataset has {told[1]}",
            where="channels",
            mend="Choose a model that was trained on such scans.",
        )


def trained_cards(run: Run) -> dict[int | str, ModelCard]:
    """Return the model cards of the trained folds: the numbered ones, or "all" where there is no other."""
    paths = sorted(run.folder.root.glob("folds/*/model/model.json"))
    cards = {card.fold: card for card in map(ModelCard.read, paths)}
    return {fold: card for fold, card in cards.items() if fold != "all"} or cards


def held_out_cases(run: Run, fold: int | str) -> list[Case]:
    """Return a fold's validation cases and the test cases.

    Fold "all" holds out the test cases alone; where there are none and no numbered fold is trained, its own
    training cases stand in.
    """
    _, validation = run.manifest.split_fold(fold)
    tests = [case for case in run.manifest.used if case.split == "test"]
    if fold != "all":
        return [*validation, *tests]
    if not tests and any(key != "all" for key in trained_cards(run)):
        raise InputError(
            "fold all holds no case out",
            where=str(run.folder.root),
            mend="Predict new scans with it: `medunet predict RUN/folds/all/model SCANS --out FOLDER`.",
        )
    return tests or list(validation)


def read_provenance(run: Run) -> dict[str, Any]:
    """Return what provenance.json says so far."""
    return read_object(run.folder.provenance) if run.folder.provenance.exists() else {}


def add_provenance(run: Run, section: str, values: dict[str, Any]) -> None:
    """Merge what a stage did into provenance.json, with versions, seed and threads; no path, no patient data."""
    plain = read_provenance(run)
    versions = {name: metadata.version(name) for name in _PACKAGES}
    plain |= {
        "medunet": __version__,
        "python": platform.python_version(),
        "packages": versions,
        "seed": run.config.seed,
        "threads": num_threads(),
        "processor": read_processor().plain(),
        "config_sha256": hash_value(run.config.plain()),
    }
    plain[section] = {**plain.get(section, {}), **values}
    write_json(run.folder.provenance, plain)

"""A run in hand: its folder, its configuration, its data root, and what its models hold out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medunet.base.errors import InputError
from medunet.base.files import write_json
from medunet.dataset.held_out import read_test_names
from medunet.dataset.layouts.nnunet import read_any_folds
from medunet.records.config import Config, change_config, load_config
from medunet.records.data_root import case_paths, resolve_data_root
from medunet.records.description import Description, load_description
from medunet.records.manifest import Case, Manifest
from medunet.records.model_card import ModelCard
from medunet.records.plan import Plan
from medunet.records.run_folder import RunFolder

_FOLDS_COPY, _TEST_COPY, _DESCRIPTION_COPY = "run_folds.json", "run_test.json", "run_description.json"


TRAIN_IS_VALIDATION = (
    "The model was trained on the cases that it is scored on: the scores say nothing of new scans."
)


@dataclass(frozen=True)
class Run:
    """A run in hand: its folder, its configuration, and where its data lies (never stored)."""

    folder: RunFolder
    config: Config
    data_root: Path

    def save(self) -> None:
        """Keep the configuration; stages do so once they have found that it can be used."""
        self.config.write(self.folder.config)

    def read_description(self) -> Description:
        """Read the dataset's description, by its shipped name or as the run keeps it."""
        kept = self.config.dataset == _DESCRIPTION_COPY
        name = str(self.folder.root / _DESCRIPTION_COPY) if kept else self.config.dataset
        return load_description(name)

    def read_manifest(self) -> Manifest:
        """Read the case list, as `medunet manifest` wrote it."""
        return Manifest.read(self.folder.need(self.folder.manifest, "manifest"))

    def read_plan(self) -> Plan:
        """Read the plan, as `medunet plan` wrote it."""
        return Plan.read(self.folder.need(self.folder.plan, "plan"))


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
        config = change_config(
            {**kept.to_dict(), "dataset": name or kept.dataset}, changes, str(folder.config)
        )
    elif name is not None:
        config = change_config({"dataset": name}, changes, "--dataset")
    else:
        raise InputError(
            "holds no config.yaml",
            where=str(root),
            hint="Begin a run with `medunet manifest DATASET --run DIR`.",
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
    return Run(folder, config, resolve_data_root(data_root))


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
    for fold in range(1 if run.config.holdout is not None else run.read_manifest().num_folds):
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
    manifest = run.read_manifest()
    labelled = {case.id: case for case in manifest.used if case.label is not None}
    if case_id is None and len(labelled) == 1:
        case_id = next(iter(labelled))
    if case_id not in labelled:
        known = ", ".join(list(labelled)[:5])
        raise InputError(
            f"no labelled case '{case_id}'", where="--case", hint=f"Choose one, such as {known}."
        )
    _, label = case_paths(labelled[case_id], manifest.description, run.data_root)
    assert label is not None
    return label


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
    manifest = run.read_manifest()
    _, validation = manifest.split_fold(fold)
    tests = [case for case in manifest.used if case.split == "test"]
    if fold != "all":
        return [*validation, *tests]
    if not tests and any(key != "all" for key in trained_cards(run)):
        raise InputError(
            "fold all holds no case out",
            where=str(run.folder.root),
            hint="Predict new scans with it: `medunet predict RUN/folds/all/model SCANS --out FOLDER`.",
        )
    return tests or list(validation)

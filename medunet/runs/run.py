"""A run: folder, configuration and data root; opening a run, and the cases that its models hold out."""

from collections.abc import Collection, Sequence
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


@dataclass(frozen=True)
class Run:
    """A run: its folder, its configuration, and its data root, which is never stored."""

    folder: RunFolder
    config: Config
    data_root: Path

    def save(self) -> None:
        """Write the configuration to the run's folder; stages do so after checking that it can be used."""
        self.config.write(self.folder.config)

    def read_description(self) -> Description:
        """Read the dataset's description: the run's own copy, or the one that medunet ships by that name."""
        kept = self.config.dataset == _DESCRIPTION_COPY
        name = str(self.folder.root / _DESCRIPTION_COPY) if kept else self.config.dataset
        return load_description(name)

    def read_manifest(self) -> Manifest:
        """Read the manifest that `medunet manifest` wrote."""
        return Manifest.read(self.folder.need(self.folder.manifest, "manifest"))

    def read_plan(self) -> Plan:
        """Read the plan that `medunet plan` wrote."""
        return Plan.read(self.folder.need(self.folder.plan, "plan"))


def open_run(
    root: Path,
    data_root: Path | None,
    *,
    config_file: Path | None = None,
    dataset: str | Description | None = None,
    changes: Sequence[str] = (),
) -> Run:
    """Open an existing run, or create one from a configuration file or a dataset, and apply configuration changes.

    The dataset is the name of a description, a YAML file, or a description derived from a folder.

    Raises:
        InputError: There is no run and nothing to create it from, or a key or value cannot be used.
    """
    folder = RunFolder(root)
    made = dataset if isinstance(dataset, Description) else None
    name = _DESCRIPTION_COPY if isinstance(dataset, Description) else dataset
    kept = load_config(folder.config) if folder.config.exists() else None
    if config_file is not None:
        config = load_config(config_file, changes)
        if kept is not None:  # excluded cases stay excluded
            config = config.model_copy(update={"exclude": {**kept.exclude, **config.exclude}})
    elif kept is not None:
        config = change_config(
            {**kept.to_dict(), "dataset": name or kept.dataset}, changes, str(folder.config)
        )
    elif name is not None:
        config = change_config({"dataset": name}, changes, "--dataset")
    else:
        raise InputError(
            "has no config.yaml",
            where=str(root),
            hint="Create a run with `medunet manifest DATASET --run DIR`.",
        )
    # The run keeps copies of folds, test list and description, so that no paths are stored and changes to the
    # original files do not affect it.
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
    """Open the run `external/<dataset>` inside a run, to test its model on an external dataset."""
    folder = run.folder.root / "external" / Path(dataset).stem
    opened = open_run(folder, data_root, dataset=dataset)
    shared = {name: getattr(run.config, name) for name in ("device", "seed", "inference", "scoring")}
    return Run(opened.folder, opened.config.model_copy(update=shared), opened.data_root)


def each_fold(run: Run) -> list[Run]:
    """Return a copy of the run for each fold if `training.fold` is "each"; otherwise only the run itself.

    With a hold-out there is only fold 0.
    """
    if run.config.training.fold != "each":
        return [run]
    runs = []
    for fold in range(1 if run.config.holdout is not None else run.read_manifest().num_folds):
        training = run.config.training.model_copy(update={"fold": fold})
        runs.append(Run(run.folder, run.config.model_copy(update={"training": training}), run.data_root))
    return runs


def has_started(run: Run, fold: int | str = "*") -> bool:
    """Return whether training of a fold (by default, of any fold) has reached its first checkpoint."""
    return any(run.folder.root.glob(f"folds/{fold}/checkpoints/*.ckpt"))


def label_of(run: Run, case_id: str | None) -> Path:
    """Return the path of a case's label; without an id, of the only labelled case.

    Raises:
        InputError: There is no such case, or no id is given and there are several cases.
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


def first_trained_fold(folder: RunFolder) -> str:
    """Return the first trained fold of a run's folder: numbers before "all"; "0" if none is trained."""
    names = [path.parts[-3] for path in folder.root.glob("folds/*/model/model.json")]
    return min(names, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0), default="0")


def trained_cards(run: Run) -> dict[int | str, ModelCard]:
    """Return the model cards of the trained folds by fold; fold "all" only if no numbered fold is trained."""
    cards = [ModelCard.read(path) for path in run.folder.root.glob("folds/*/model/model.json")]
    numbered = {card.fold: card for card in cards if card.fold != "all"}
    return dict(sorted(numbered.items(), key=lambda item: int(item[0]))) or {
        card.fold: card for card in cards
    }


def describe_untrained(run: Run, folds: Collection[int | str], what: str) -> str:
    """Return which numbered folds are not trained, and how many cases are therefore not `what`; "" if none.

    `folds` are the trained folds. A hold-out has only fold 0.
    """
    manifest = run.read_manifest()
    num_folds = 1 if run.config.holdout is not None else manifest.num_folds
    missing = [fold for fold in range(num_folds) if fold not in folds]
    if not missing or not any(fold != "all" for fold in folds):
        return ""
    count = sum(case.fold in missing for case in manifest.used)
    one = len(missing) == 1
    return (
        f"{'fold' if one else 'folds'} {', '.join(map(str, missing))} {'is' if one else 'are'} not trained; "
        f"{'its' if one else 'their'} {count} case{'s' * (count != 1)} {'is' if count == 1 else 'are'} not {what}"
    )


def held_out_cases(run: Run, fold: int | str) -> list[Case]:
    """Return the cases that a fold holds out: its validation cases and the test cases.

    Fold "all" holds out only the test cases. If there are none and no numbered fold is trained, its training cases
    are returned.

    Raises:
        InputError: Fold "all" has no test cases although numbered folds are trained.
    """
    manifest = run.read_manifest()
    _, validation = manifest.split_fold(fold)
    tests = [case for case in manifest.used if case.split == "test"]
    if fold != "all":
        return [*validation, *tests]
    if not tests and any(key != "all" for key in trained_cards(run)):
        raise InputError(
            "fold all holds out no cases",
            where=str(run.folder.root),
            hint="Use it for new scans: `medunet predict RUN/folds/all/model SCANS --out FOLDER`.",
        )
    return tests or list(validation)

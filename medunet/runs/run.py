"""A run: folder, configuration and data root; opening a run, and the cases that its models hold out."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import dump_json
from medunet.base.together import finish_together, write_together
from medunet.dataset.held_out import read_test_names
from medunet.dataset.layouts.nnunet import read_any_folds
from medunet.dataset.splits import read_folds
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
    copies: dict[str, Any] = field(
        default_factory=dict, compare=False
    )  # by file name; until `save` writes them

    def save(self, manifest: Manifest | None = None) -> None:
        """Write the configuration, the copies of what it names, and a manifest: all of them or none.

        Stages do so after checking that they can be used.
        """
        texts = {name: dump_json(plain) + "\n" for name, plain in self.copies.items()}
        if manifest is not None:
            texts[self.folder.manifest.name] = manifest.to_text()
        write_together(self.folder.root, texts | {self.folder.config.name: self.config.to_text()})
        self.copies.clear()

    def read_description(self) -> Description:
        """Read the dataset's description: the run's own copy, or the one that medunet ships by that name."""
        kept = self.config.dataset == _DESCRIPTION_COPY
        if kept and _DESCRIPTION_COPY in self.copies:
            return Description.parse(self.copies[_DESCRIPTION_COPY], _DESCRIPTION_COPY)
        name = str(self.folder.root / _DESCRIPTION_COPY) if kept else self.config.dataset
        return load_description(name)

    def read_folds(self) -> list[list[str]] | None:
        """Read the fixed folds; None if there are none."""
        name = self.config.folds_file
        if name is None or name not in self.copies:
            return None if name is None else read_folds(self.folder.root / name)
        folds: list[list[str]] = self.copies[name]["folds"]
        return folds

    def read_test_names(self) -> list[str] | None:
        """Read the fixed test list; None if there is none."""
        name = self.config.test_file
        if name is None or name not in self.copies:
            return None if name is None else read_test_names(self.folder.root / name)
        names: list[str] = self.copies[name]["test"]
        return names

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

    Nothing is written: a stage writes the changes when it has succeeded (`Run.save`). The dataset is the name of a
    description, a YAML file, or a description derived from a folder.

    Raises:
        InputError: There is no run and nothing to create it from, or a key or value cannot be used.
    """
    folder = RunFolder(root)
    finish_together(root)
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
    copies: dict[str, Any] = {}
    if config.folds_file is not None and config.folds_file != _FOLDS_COPY:
        copies[_FOLDS_COPY] = {"folds": read_any_folds(Path(config.folds_file))}
        config = config.model_copy(update={"folds_file": _FOLDS_COPY})
    if config.test_file is not None and config.test_file != _TEST_COPY:
        copies[_TEST_COPY] = {"test": read_test_names(Path(config.test_file))}
        config = config.model_copy(update={"test_file": _TEST_COPY})
    if made is not None:
        copies[_DESCRIPTION_COPY] = made.to_dict()
    elif Path(config.dataset).suffix and config.dataset != _DESCRIPTION_COPY:
        copies[_DESCRIPTION_COPY] = Description.read(Path(config.dataset)).to_dict()
        config = config.model_copy(update={"dataset": _DESCRIPTION_COPY})
    return Run(folder, config, resolve_data_root(data_root), copies)


def external_run(run: Run, dataset: str, data_root: Path) -> Run:
    """Open the run `external/<dataset>` inside a run, to test its model on an external dataset."""
    folder = run.folder.root / "external" / Path(dataset).stem
    opened = open_run(folder, data_root, dataset=dataset)
    shared = {name: getattr(run.config, name) for name in ("device", "seed", "inference", "scoring")}
    return replace(opened, config=opened.config.model_copy(update=shared))


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


def each_member(run: Run) -> list[Run]:
    """Return a copy of the run for each network to train: each fold with each of its seeds, fold by fold.

    With `training.member` set, only that one of each fold.
    """
    asked = run.config.training
    numbers = range(asked.seeds) if asked.member is None else [asked.member]
    runs = []
    for one in each_fold(run):
        for number in numbers:
            training = one.config.training.model_copy(update={"member": number})
            runs.append(Run(run.folder, one.config.model_copy(update={"training": training}), run.data_root))
    return runs


def member_folders(folder: RunFolder, fold: int | str | None = None) -> list[Path]:
    """Return the model folders of a run's trained networks, by fold and then by number of the seed.

    Args:
        fold: the networks of this fold alone; None or "each": of every numbered fold, or of fold "all" if no
            numbered one is trained.
    """
    by_fold: dict[str, list[Path]] = {}
    for pattern in ("folds/*/model/model.json", "folds/*/seeds/*/model/model.json"):
        for path in folder.root.glob(pattern):
            by_fold.setdefault(path.relative_to(folder.root).parts[1], []).append(path.parent)
    if fold in (None, "each"):
        names = sorted((name for name in by_fold if name.isdigit()), key=int) or list(by_fold)
    else:
        names = [str(fold)]
    return [
        path for name in names for path in sorted(by_fold.get(name, []), key=lambda path: _member_of(path))
    ]


def _member_of(model: Path) -> int:
    """Return the number of the seed of a model folder, 0 for the fold's own."""
    return int(model.parent.name) if model.parent.parent.name == "seeds" else 0


def has_started(run: Run) -> bool:
    """Return whether training of any network has reached its first checkpoint."""
    patterns = ("folds/*/checkpoints/*.ckpt", "folds/*/seeds/*/checkpoints/*.ckpt")
    return any(path for pattern in patterns for path in run.folder.root.glob(pattern))


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

    `folds` are the trained folds. A hold-out has only fold 0. Seeds of trained folds that are not trained are named
    too.
    """
    manifest = run.read_manifest()
    num_folds = 1 if run.config.holdout is not None else manifest.num_folds
    missing = [fold for fold in range(num_folds) if fold not in folds]
    seeds = describe_untrained_seeds(run, folds)
    if not missing or not any(fold != "all" for fold in folds):
        return seeds
    count = sum(case.fold in missing for case in manifest.used)
    one = len(missing) == 1
    return (
        f"{'fold' if one else 'folds'} {', '.join(map(str, missing))} {'is' if one else 'are'} not trained; "
        f"{'its' if one else 'their'} {count} case{'s' * (count != 1)} {'is' if count == 1 else 'are'} not {what}"
        f"{'; ' * bool(seeds)}{seeds}"
    )


def describe_untrained_seeds(run: Run, folds: Collection[int | str]) -> str:
    """Return which of the configured seeds of trained folds are not trained; "" if none."""
    texts = []
    for fold in folds:
        trained = set(member_folders(run.folder, fold))
        numbers = range(run.config.training.seeds)
        absent = [str(number) for number in numbers if run.folder.model(fold, number) not in trained]
        if absent:
            texts.append(f"seed{'s' * (len(absent) > 1)} {', '.join(absent)} of fold {fold}")
    many = len(texts) > 1 or any("seeds" in text for text in texts)
    return f"{' and '.join(texts)} {'are' if many else 'is'} not trained" if texts else ""


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

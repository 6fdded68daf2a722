"""`medunet score`: masks of a run, or of any tool, scored; targets are joined by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import read_object
from medunet.commands.terminal import console, say
from medunet.imaging.volumes import mask_ending
from medunet.records.config import Config
from medunet.records.data_root import case_paths, data_root_from
from medunet.records.description import Description, load_description
from medunet.records.manifest import Manifest
from medunet.records.model_card import ModelCard
from medunet.records.scores import CaseScore
from medunet.runs.provenance import add_provenance
from medunet.runs.run import TRAIN_IS_VALIDATION, Run, held_out_cases, trained_cards


def score_masks_of(
    reference: Path,
    prediction: Path,
    out: Path,
    config: Config,
    *,
    prediction_description: Description | None = None,
    targets: Sequence[str] = (),
    pairs_csv: Path | None = None,
    data_root: Path | None = None,
    resample: bool = False,
    workers: int | None = None,
    keep_journal: bool = False,
) -> list[CaseScore]:
    """Score any tool's masks, files or folders, against references described by `config.dataset`.

    The reference may be a manifest.json instead, which describes itself: its labelled cases below `data_root` are
    expected. Labels are joined by name. The prediction's names come from its own description, else from the
    index.json that medunet wrote beside it, else they are the reference's. `keep_journal` as `score_and_show` has it.

    Raises:
        InputError: a target that is not declared, paths that do not exist, or no name in common.
    """
    from medunet.scoring.pairs import find_pairs, match_cases

    if reference.suffix == ".json":
        listed = Manifest.read(reference)
        description = listed.description
        pairs, unmatched = match_cases(_labels_of(listed, data_root), prediction)
    else:
        description = load_description(config.dataset)
        pairs, unmatched = find_pairs(reference, prediction, pairs_csv)
    wanted = choose_targets(description, targets)
    prediction_folder = prediction if prediction.is_dir() else prediction.parent
    predicted = targets_beside(prediction_folder)
    if prediction_description is not None:
        predicted = prediction_description.targets
    described = prediction_description or (description if predicted is None else None)
    for name in unmatched:
        text = f"{escape(name)}: no reference of that name"
        console.print(f"  [yellow]unmatched prediction[/] {text}", highlight=False)
    about = {"dataset": description.name, "num_unmatched_predictions": len(unmatched)}
    about |= weights_behind([pair.case for pair in pairs], entries_beside(prediction_folder), {})
    return score_and_show(
        pairs,
        wanted,
        predicted or description.targets,
        description,
        config,
        out,
        about,
        prediction_instances_as=described.instances_as if described else None,
        resample=resample,
        workers=workers,
        keep_journal=keep_journal,
    )


def _labels_of(listed: Manifest, data_root: Path | None) -> dict[str, Path]:
    """Return the label files of a manifest's cases by their id."""
    root = data_root_from(data_root)
    labels = {case.id: case_paths(case, listed.description, root)[1] for case in listed.used}
    return {case_id: path for case_id, path in sorted(labels.items()) if path is not None}


def score_and_show(
    pairs: Sequence[Any],
    wanted: Mapping[str, tuple[int, ...]],
    predicted: Mapping[str, tuple[int, ...]],
    description: Description,
    config: Config,
    out: Path,
    about: dict[str, Any],
    *,
    prediction_instances_as: int | None = None,
    resample: bool = False,
    workers: int | None = None,
    keep_journal: bool = False,
) -> list[CaseScore]:
    """Score pairs whose references are as described, write the tables and show them.

    A call that was stopped goes on from the cases that it finished, with `keep_journal` one that was not, too: it
    scores again what has changed. `resample` and `workers` as `score_pairs` has them.

    Raises:
        InputError: the configuration asks for the lesions or clDice of a target that is not declared.
    """
    from medunet.commands.score_table import score_table
    from medunet.scoring.evaluate import score_pairs
    from medunet.scoring.labels import ScoreOptions
    from medunet.scoring.tables import write_scores

    options = config.scoring.model_dump()
    for key in ("lesions", "tubes"):
        if unknown := [name for name in options[key] if name not in description.targets]:
            raise InputError(
                f"{description.name} declares no {unknown}",
                where=f"scoring.{key}",
                hint=f"Choose from {list(description.targets)}.",
            )
    names = [name for name in wanted if name in predicted]
    options["lesions"] = {name: rules for name, rules in options["lesions"].items() if name in names}
    options["tubes"] = tuple(name for name in options["tubes"] if name in names)
    journal = out / "scores.partial.jsonl"
    scores = score_pairs(
        pairs,
        wanted,
        predicted,
        ScoreOptions(**options),
        reference_instances_as=description.instances_as,
        prediction_instances_as=prediction_instances_as,
        ignore_value=description.ignore_value,
        resample=resample,
        workers=workers,
        journal=journal,
    )
    about = {
        "medunet": __version__,
        **about,
        **options,
        "resample": resample,
        "unit_of_length": description.unit,
    }
    ending = mask_ending(pairs[0].reference)
    summaries = write_scores(scores, out, about=about, targets=wanted, mask_ending=ending)
    if not keep_journal:
        journal.unlink(missing_ok=True)
    console.print(score_table(scores, summaries, description.unit))
    say("Score", f"{len(pairs)} cases", out / "scores.csv")
    return scores


def dataset_of(
    reference: Path, dataset: str | None, data_root: Path | None, pairs_csv: Path | None = None
) -> str | None:
    """Return the name of the dataset that describes a reference; a manifest's own is not looked up.

    Raises:
        InputError: names the options that would be ignored.
    """
    is_manifest = reference.suffix == ".json"
    if is_manifest:
        why = "a manifest names its dataset and its cases"
        options: dict[str, object] = {"--dataset": dataset, "--pairs": pairs_csv}
    else:
        why, options = "only a manifest's cases lie below a data root", {"--data-root": data_root}
    if used := [name for name, value in options.items() if value is not None]:
        raise InputError(why, where=", ".join(used), hint="Leave the option out.")
    return "manifest" if is_manifest else dataset


def choose_targets(description: Description, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Return the named targets with their label values, or all.

    Raises:
        InputError: names those that are not declared.
    """
    targets = description.targets
    if unknown := [name for name in names if name not in targets]:
        raise InputError(
            f"{description.name} declares no {unknown}",
            where="--target",
            hint=f"Choose from {list(targets)}.",
        )
    return {name: targets[name] for name in names or targets}


def weights_behind(
    cases: Sequence[str], entries: Mapping[str, Any], cards: Mapping[int | str, ModelCard]
) -> dict[str, Any]:
    """Say of predicted cases how many were outlined by the best and by the final weights, `weights`.

    With `cards` also on how many of them their own model's best weights were chosen, `num_chosen_on`: None where a
    model before 0.5 does not say on which cases it was. `entries` are those of index.json.
    """
    known = {case: entries[case] for case in cases if case in entries}
    counts: dict[str, int] = {}
    num_chosen_on: int | None = 0
    for case, entry in known.items():
        weights = entry.get("weights", "best")
        counts[weights] = counts.get(weights, 0) + 1
        card = cards.get(entry.get("fold"))
        if weights == "best" and card is not None:
            if not card.validation_cases:
                num_chosen_on = None
            elif num_chosen_on is not None:
                num_chosen_on += case in card.validation_cases
    return {"weights": counts, **({"num_chosen_on": num_chosen_on} if cards else {})}


def entries_beside(folder: Path) -> dict[str, Any]:
    """Return what the index.json of a folder of masks says of each case; nothing where medunet wrote none."""
    index = folder / "index.json"
    entries: dict[str, Any] = read_object(index).get("cases", {}) if index.exists() else {}
    return entries


def targets_beside(folder: Path) -> dict[str, tuple[int, ...]] | None:
    """Return the targets that medunet wrote into the index.json of a folder of masks, if it did."""
    index = folder / "index.json"
    plain = read_object(index) if index.exists() else {}
    return {name: tuple(values) for name, values in plain["targets"].items()} if "targets" in plain else None


def run_score(
    run: Run, *, targets: Sequence[str] = (), resample: bool = False, workers: int | None = None
) -> list[CaseScore]:
    """Score every labelled case that a trained fold holds out; a missing mask is a failed case.

    Fold "all" counts only where no numbered fold is trained. A run without a model of its own (`external_run`)
    expects all its labelled cases. Targets are joined by name with those of the model that predicted; `targets`
    limits them. `resample` and `workers` as `score_pairs` has them.

    Raises:
        InputError: masks are older than their model, or there is nothing to score.
    """
    from medunet.reporting.explanations import describe_weights
    from medunet.scoring.pairs import Pair

    manifest, cards = run.read_manifest(), trained_cards(run)
    cases = {case.id: case for case in manifest.used} if not cards else {}
    hashes: dict[str, set[str]] = {}
    for fold, card in cards.items():
        for case in held_out_cases(run, fold):
            cases[case.id] = case
            hashes.setdefault(case.id, set()).update((card.weights_sha256, card.final_weights_sha256))
    entries = entries_beside(run.folder.predictions)
    made_by = {case_id: entries.get(case_id, {}).get("model_sha256") for case_id in hashes}
    if stale := [case_id for case_id, made in made_by.items() if made and made not in hashes[case_id]]:
        raise InputError(
            f"{len(stale)} mask(s) were predicted by an earlier model, such as {stale[0]}",
            where=str(run.folder.predictions),
            hint="Run `medunet predict` for each trained fold.",
        )
    pairs = []
    for case_id in sorted(cases):
        images, label = case_paths(cases[case_id], manifest.description, run.data_root)
        prediction = run.folder.predictions / f"{case_id}{mask_ending(images[0])}"
        is_whole = prediction.exists() and "begun" not in entries.get(case_id, {})
        if label is not None:
            pairs.append(Pair(case_id, label, prediction if is_whole else None))
    if not pairs:
        raise InputError(
            "no held-out case has a label", where=str(run.folder.root), hint="Train a fold first."
        )
    predicted = targets_beside(run.folder.predictions) or manifest.description.targets
    wanted = choose_targets(manifest.description, targets)
    seen = any(card.train_is_validation for card in cards.values())
    used = weights_behind([pair.case for pair in pairs if pair.prediction is not None], entries, cards)
    about = {"folds": [str(fold) for fold in cards], "train_is_validation": seen, **used}
    scores = score_and_show(
        pairs,
        wanted,
        predicted,
        manifest.description,
        run.config,
        run.folder.root,
        about,
        resample=resample,
        workers=workers,
    )
    add_provenance(run, "score", about)
    if seen:
        console.print(f"[yellow]{TRAIN_IS_VALIDATION}[/]")
    if told := describe_weights(about):
        console.print(told, highlight=False, soft_wrap=True)
    return scores

"""`medunet score`: score the masks of a run or of any tool; targets are matched by name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import remove_unfinished
from medunet.commands.alone import alone
from medunet.commands.report import report_masks
from medunet.commands.terminal import console, print_stage
from medunet.imaging.volumes import mask_ending
from medunet.records.config import Config
from medunet.records.data_root import case_paths, resolve_data_root
from medunet.records.description import Description, load_description
from medunet.records.manifest import Manifest
from medunet.records.model_card import TRAIN_IS_VALIDATION
from medunet.records.scores import CaseScore
from medunet.runs.provenance import add_provenance
from medunet.runs.run import Run, describe_untrained, held_out_cases, trained_cards
from medunet.scoring.predicted import (
    Predicted,
    choose_targets,
    count_weights,
    read_failures,
    read_index_cases,
    read_predicted,
    require_targets,
)


@alone("score")
def run_score(
    run: Run,
    *,
    targets: Sequence[str] = (),
    resample: bool = False,
    workers: int | None = None,
    by: Sequence[str] = (),
    join: Path | None = None,
) -> list[CaseScore]:
    """Score every labelled case that a trained fold holds out; a missing mask is a failed case.

    Folds that are not trained are named on the console. Fold "all" is used only if no numbered fold is trained. In a
    run without its own model (`external_run`), all labelled cases are scored. Targets are matched by name with those
    of the model; `targets` selects some of them. For `resample` and `workers`, see `score_pairs`; for `by` and
    `join`, see `score_and_show`.

    Raises:
        InputError: Masks were predicted by an earlier model, or there is nothing to score.
    """
    from medunet.reporting.explanations import describe_weights
    from medunet.scoring.pairs import Pair
    from medunet.scoring.strata import columns_of_cases

    manifest, cards = run.read_manifest(), trained_cards(run)
    if not cards and not any(run.folder.predictions.glob("*")):
        raise InputError("no fold is trained", where=str(run.folder.root), hint="Run `medunet train` first.")
    cases = {case.id: case for case in manifest.used} if not cards else {}
    hashes: dict[str, set[str]] = {}
    seen = False  # whether a network predicts cases that it was trained on
    for fold, card in cards.items():
        held_out = held_out_cases(run, fold)
        seen = seen or not {case.id for case in held_out}.isdisjoint(card.training_cases)
        for case in held_out:
            cases[case.id] = case
            hashes.setdefault(case.id, set()).update((card.weights_sha256, card.final_weights_sha256))
    entries = read_index_cases(run.folder.predictions)
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
            "no held-out case has a label", where=str(run.folder.root), hint="Run `medunet train` first."
        )
    predicted = read_predicted(run.folder.predictions) or Predicted.by(manifest.description, is_own=False)
    wanted = choose_targets(manifest.description, targets)
    require_targets(targets, predicted)
    used = count_weights([pair.case for pair in pairs if pair.prediction is not None], entries, cards)
    about = {"folds": [str(fold) for fold in cards], "train_is_validation": seen, **used}
    scores = score_and_show(
        pairs,
        wanted,
        predicted,
        manifest.description,
        run.config,
        run.folder.root,
        about,
        columns=columns_of_cases(manifest.cases),
        by=by,
        join=join,
        reasons=read_failures(run.folder.predictions),
        resample=resample,
        workers=workers,
    )
    add_provenance(run, "score", about)
    if text := describe_untrained(run, cards, "scored"):
        console.print(f"  [yellow]{text}[/]", highlight=False, soft_wrap=True)
    if seen:
        console.print(f"[yellow]{TRAIN_IS_VALIDATION}[/]")
    if text := describe_weights(about):
        console.print(text, highlight=False, soft_wrap=True)
    return scores


@alone("score")
def score_mask_files(
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
    by: Sequence[str] = (),
    join: Path | None = None,
    report: bool = False,
    images: Path | None = None,
) -> list[CaseScore]:
    """Score masks of any tool, given as files or folders, against references described by `config.dataset`.

    The reference may also be a manifest.json; then all its labelled cases below `data_root` are expected. Labels are
    matched by name. The names of the prediction's labels come from `prediction_description`, otherwise from the
    index.json that medunet wrote next to the masks, otherwise from the reference's description. For `keep_journal`,
    `by` and `join`, see `score_and_show`. With `report` or a folder of `images`, pages are written too (see
    `report_masks`).

    Raises:
        InputError: A target is not declared, a path does not exist, or no file names match.
    """
    from medunet.scoring.pairs import find_pairs, match_cases
    from medunet.scoring.strata import columns_of_cases

    listed: Manifest | None = None
    if reference.suffix == ".json":
        listed = Manifest.read(reference)
        description = listed.description
        pairs, unmatched = match_cases(_labels_of(listed, data_root), prediction)
        columns = columns_of_cases(listed.cases)
    else:
        description = load_description(config.dataset)
        pairs, unmatched = find_pairs(reference, prediction, pairs_csv)
        columns = {
            "patient": {pair.case: description.patient_of(pair.case) for pair in pairs},
            "site": {pair.case: description.site_of(pair.case) or "" for pair in pairs},
        }
    wanted = choose_targets(description, targets)
    prediction_folder = prediction if prediction.is_dir() else prediction.parent
    if prediction_description is not None:
        predicted = Predicted.by(prediction_description, is_own=True)
    else:
        predicted = read_predicted(prediction_folder) or Predicted.by(description, is_own=False)
    require_targets(targets, predicted)
    for name in unmatched:
        text = f"{escape(name)}: no reference with this name"
        console.print(f"  [yellow]unmatched prediction[/] {text}", highlight=False)
    about = {"dataset": description.name, "num_unmatched_predictions": len(unmatched)}
    about |= count_weights([pair.case for pair in pairs], read_index_cases(prediction_folder), {})
    failures = read_failures(prediction_folder)
    scores = score_and_show(
        pairs,
        wanted,
        predicted,
        description,
        config,
        out,
        about,
        columns=columns,
        by=by,
        join=join,
        reasons=failures,
        resample=resample,
        workers=workers,
        keep_journal=keep_journal,
    )
    if report or images is not None:
        own = dict(predicted.targets)
        report_masks(
            out,
            pairs,
            description,
            config.report,
            listed=listed,
            data_root=data_root,
            images=images,
            predicted_targets=None if own == dict(description.targets) else own,
            reasons=failures,
            workers=workers,
        )
    return scores


def score_and_show(
    pairs: Sequence[Any],
    wanted: Mapping[str, tuple[int, ...]],
    predicted: Predicted,
    description: Description,
    config: Config,
    out: Path,
    about: dict[str, Any],
    *,
    columns: Mapping[str, Mapping[str, str]],
    by: Sequence[str] = (),
    join: Path | None = None,
    reasons: Mapping[str, str] | None = None,
    resample: bool = False,
    workers: int | None = None,
    keep_journal: bool = False,
) -> list[CaseScore]:
    """Score pairs of masks, write the tables and print a summary, with the reason for each case that has no scores.

    `reasons` are known reasons why the predictions of missing cases are missing.

    `columns` has the patient, the site and more of each case, by column and case. The scores are also summarised for
    each value of the columns in `by`, which are among these or in the table `join` (see `choose_strata`).

    A stopped call is resumed from its journal of finished cases. With `keep_journal` the journal also remains after
    a finished call, so that a repeated call only scores cases that have changed. For `resample` and `workers`, see
    `score_pairs`.

    Raises:
        InputError: Lesions or clDice are configured for a target that is not declared, or a column does not exist.
    """
    from medunet.commands.score_table import remark_lines, score_table, strata_table
    from medunet.scoring.columns import robust_column
    from medunet.scoring.evaluate import score_pairs
    from medunet.scoring.labels import ScoreOptions
    from medunet.scoring.strata import choose_strata, name_columns, summarise_strata
    from medunet.scoring.tables import TABLES, write_scores

    options = config.scoring.model_dump()
    for key in ("lesions", "tubes"):
        if unknown := [name for name in options[key] if name not in description.targets]:
            raise InputError(
                f"{description.name} does not declare {unknown}",
                where=f"scoring.{key}",
                hint=f"Choose from {list(description.targets)}.",
            )
    names = [name for name in wanted if name in predicted.targets]
    for name in wanted:
        if name not in names:
            text = f"{escape(name)}: the prediction's description does not declare it"
            console.print(f"  [yellow]not scored[/] {text}", highlight=False, soft_wrap=True)
    options["lesions"] = {name: rules for name, rules in options["lesions"].items() if name in names}
    options["tubes"] = tuple(name for name in options["tubes"] if name in names)
    strata, remarks = choose_strata(by, columns, [pair.case for pair in pairs], join)
    for remark in remarks:
        console.print(f"  [yellow]strata[/] {escape(remark)}", highlight=False, soft_wrap=True)
    if out.exists():
        remove_unfinished(out / name for name in TABLES)
    journal = out / "scores.partial.jsonl"
    scores = score_pairs(
        pairs,
        wanted,
        predicted.targets,
        ScoreOptions(**options),
        rules_reference=description.label_rules,
        rules_prediction=predicted.rules,
        ignore_value=description.ignore_value,
        resample=resample,
        workers=workers,
        journal=journal,
    )
    scores = name_columns(scores, {"patient": columns["patient"], "site": columns["site"], **strata})
    about = {
        "medunet": __version__,
        **about,
        **options,
        "resample": resample,
        "unit_of_length": description.unit,
    }
    ending = mask_ending(pairs[0].reference)
    summaries = write_scores(scores, out, about=about, targets=wanted, mask_ending=ending, by=list(strata))
    if not keep_journal:
        journal.unlink(missing_ok=True)
    console.print(score_table(scores, summaries, description.unit))
    if strata:
        column = robust_column(scores)
        groups = summarise_strata(scores, list(strata), ["dice", column])
        console.print(strata_table(groups, column, description.unit))
    print_stage("Score", f"{len(pairs)} cases", out / "scores.csv")
    for line in remark_lines(scores, reasons or {}):
        console.print(line, highlight=False, soft_wrap=True)
    return scores


def reference_dataset(
    reference: Path, dataset: str | None, data_root: Path | None, pairs_csv: Path | None = None
) -> str | None:
    """Return the name of the dataset that describes a reference; "manifest" for a manifest.json.

    Raises:
        InputError: Options would be ignored; the message names them.
    """
    is_manifest = reference.suffix == ".json"
    if is_manifest:
        why = "a manifest already contains its dataset and its cases"
        options: dict[str, object] = {"--dataset": dataset, "--pairs": pairs_csv}
    else:
        why, options = "only the cases of a manifest need a data root", {"--data-root": data_root}
    if used := [name for name, value in options.items() if value is not None]:
        raise InputError(why, where=", ".join(used), hint="Leave the option out.")
    return "manifest" if is_manifest else dataset


def _labels_of(listed: Manifest, data_root: Path | None) -> dict[str, Path]:
    """Return the label path of each labelled case of a manifest, by case id."""
    root = resolve_data_root(data_root)
    labels = {case.id: case_paths(case, listed.description, root)[1] for case in listed.used}
    return {case_id: path for case_id, path in sorted(labels.items()) if path is not None}

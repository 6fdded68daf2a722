"""The seven stages on a run's folder, in the order in which data flows.

Each function reads what the stage before it wrote, does its work through its own room, writes its files whole and
says in a line what it did. Any of them can be killed and called again. Rooms that need torch are imported only
when their stage is called.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markup import escape

from medunet.case_scores import CaseScore
from medunet.computing import (
    begin_computing,
    choose_compute_of,
    device_name,
    plan_for,
    precision_for,
    require_planned_for,
)
from medunet.dataset.checks.acceptance import accept_faults, allow_resampling, mark_accepted, with_accepted
from medunet.dataset.checks.loss_fit import check_loss, check_mirroring
from medunet.dataset.checks.manifest_checks import check_manifest, errors_left, fault_table, write_faults
from medunet.dataset.fingerprint import compute_fingerprint
from medunet.dataset.held_out import read_test_names
from medunet.dataset.manifest import case_paths, make_manifest
from medunet.dataset.splits import read_folds
from medunet.errors import InputError, StoppedError
from medunet.files import hash_value
from medunet.grading import choose_targets, entries_beside, score_and_show, targets_beside, weights_behind
from medunet.imaging.volumes import mask_ending
from medunet.plans import ModelCard, Plan
from medunet.records import Fault, Manifest
from medunet.runs import (
    Run,
    add_provenance,
    data_state,
    each_fold,
    has_begun,
    held_out_cases,
    read_provenance,
    require_clean,
    require_one_process,
    require_same_channels,
    trained_cards,
)
from medunet.speech import console, say

_SEEN = "The model was trained on the cases that it is scored on: the scores say nothing of new scans."


def run_manifest(run: Run) -> Manifest:
    """List the cases of the data root with folds; faults that the user accepted stay accepted."""
    require_one_process()
    config = run.config
    manifest = make_manifest(
        run.description,
        run.data_root,
        seed=config.seed,
        folds=None if config.folds_file is None else read_folds(run.folder.root / config.folds_file),
        holdout=config.holdout,
        test_share=config.test_share,
        test_names=None if config.test_file is None else read_test_names(run.folder.root / config.test_file),
        stratify=config.stratify,
        exclude=config.exclude,
    )
    if run.folder.manifest.exists():
        manifest = with_accepted(manifest, Manifest.read(run.folder.manifest).accepted)
    manifest.write(run.folder.manifest)
    run.save()
    num_tests = sum(case.split == "test" for case in manifest.used)
    tests = f", {num_tests} for the test" if num_tests else ""
    say("Manifest", f"{len(manifest.used)} cases in {manifest.num_folds} folds{tests}", run.folder.manifest)
    for item in manifest.unmatched:
        console.print(f"  [yellow]unmatched[/] {escape(item.path)}: {item.reason}", highlight=False)
    return manifest


def run_check(
    run: Run, *, accept: Sequence[str] = (), allow_resample: bool = False, workers: int | None = None
) -> list[Fault]:
    """Check all cases, write and show the faults, and return the errors that are left.

    `accept` adds faults to those that the manifest accepts (see `accept_faults`), `allow_resample` those of
    modalities on different grids; `workers` as `check_manifest` has them. The page checks.html pictures the cases at
    fault.

    Raises:
        MedunetError: the manifest is missing, or a fault cannot be accepted.
    """
    from medunet.reporting.check_page import write_check_page

    manifest = run.manifest
    if accept:
        manifest = accept_faults(manifest, accept)
        manifest.write(run.folder.manifest)
    faults = check_manifest(manifest, run.data_root, loss=run.config.training.loss, workers=workers)
    if allow_resample and (allowed := allow_resampling(manifest, faults)) != manifest:
        manifest, faults = allowed, mark_accepted(faults, allowed.accepted)
        manifest.write(run.folder.manifest)
    num_resampled = sum(case.resample for case in manifest.used)
    write_faults(faults, run.folder.root)
    page = write_check_page(run.folder, manifest, faults, run.data_root, workers=workers)
    add_provenance(run, "check", {"data_state_sha256": data_state(run)})
    run.save()
    left = errors_left(faults, manifest)
    if faults:
        console.print(fault_table(faults))
    if num_resampled:
        console.print(f"  [yellow]resampled[/] {num_resampled} case(s), to the grid of the first modality")
    num_warnings = sum(fault.severity == "warning" and not fault.accepted for fault in faults)
    say("Check", f"{len(left)} errors, {num_warnings} warnings", page)
    return left


def run_plan(run: Run) -> Plan:
    """Make the plan; one that stands for the same manifest and settings is kept, also if edited by hand."""
    from medunet.compute.devices import choose_device
    from medunet.postprocessing.steps import check_steps

    require_clean(run)
    manifest, config = run.manifest, run.config
    device = choose_device(config.device)
    check_steps(config.inference.postprocess, manifest.description.targets)
    check_mirroring(config, manifest.description)
    check_loss(config.training.loss, manifest.description, config.training.class_weights)
    inputs = hash_value([manifest.plain(), config.planning.plain()])
    before = read_provenance(run).get("plan", {})
    # A run that has begun keeps its plan on another device, too.
    same = before.get("inputs_sha256") == inputs and (has_begun(run) or before.get("device") == device.type)
    plan = run.plan if run.folder.plan.exists() and same else None
    if plan is not None and plan.grid != "extent" and not has_begun(run):
        console.print("The plan is of medunet 0.4 and nothing was trained by it: it is made anew.")
        plan = None
    if plan is None:
        training, _ = manifest.split_fold("all")
        fingerprint = compute_fingerprint(training, manifest.description, run.data_root, seed=config.seed)
        plan = plan_for(config, manifest.description, fingerprint, device)
        plan.write(run.folder.plan)
        add_provenance(run, "plan", {"inputs_sha256": inputs, "device": device.type})
    run.save()
    sizes = "×".join(map(str, plan.patch_size))
    spacing = "×".join(f"{mm:g}" for mm in plan.spacing_mm)
    text = (
        f"{plan.dimensions}D, patch {sizes} at {spacing} {manifest.description.unit}, batch {plan.batch_size}, "
        f"features {plan.features}"
    )
    say("Plan", text, run.folder.plan)
    return plan


def show_network(run: Run) -> None:
    """Show the planned network as a table of its parts, with output sizes and parameters."""
    from medunet.networks.summary import network_table

    console.print(network_table(run.plan, run.manifest.description))


def run_train(run: Run) -> list[ModelCard]:
    """Train the configured fold, or each one after the other, or go on with it; return the cards of the best weights.

    Under torchrun or Slurm all processes train together on each batch; the first one writes and speaks.
    """
    from medunet.compute.devices import choose_device
    from medunet.training.checkpoints import find_resume
    from medunet.training.processes import join
    from medunet.training.train import train_fold

    require_clean(run)
    device = choose_device(run.config.device)
    processes = join(device)
    console.quiet = not processes.is_first
    require_planned_for(run, device)
    begin_computing(device)
    cards = []
    for one in each_fold(run):
        find_resume(one.folder, one.manifest, one.plan, one.config)
        compute = processes.share(choose_compute_of(one, device) if processes.is_first else None)
        if processes.is_first:
            run.save()
        fold, name = one.config.training.fold, device_name(device)
        many = f" in {processes.count} processes" if processes.count > 1 else ""
        layout = ", channels-last" if compute.channels_last else ""
        console.print(
            f"Training fold {fold} on {name}{many} in {compute.precision}{layout}: {compute.why}",
            soft_wrap=True,
        )
        try:
            card = train_fold(
                one.folder,
                one.manifest,
                one.plan,
                one.config,
                one.data_root,
                device=device,
                compute=compute,
                processes=processes,
            )
        except KeyboardInterrupt as stop:
            raise StoppedError("stopped", mend="The same command goes on from the last checkpoint.") from stop
        if card.train_is_validation:
            console.print(f"[yellow]{_SEEN}[/]")
        dice = ", ".join(
            f"{key.removeprefix('dice_') if key != 'dice' else 'mean'} {value:.3f}"
            for key, value in card.validation_dice.items()
            if value is not None
        )
        say("Train", f"best validation Dice: {dice}", one.folder.model(fold))
        cards.append(card)
    return cards


def run_predict(run: Run, *, model: Path | None = None, overwrite: bool = False) -> dict[str, str]:
    """Predict held-out cases; return the failed ones with their reasons.

    Those are the cases that the configured fold holds out, or each fold's by its own model; with a `model` folder of
    another run, all cases.

    Raises:
        InputError: the model was trained on cases that it should now predict as held out, or on other channels.
    """
    require_one_process()
    from medunet.compute.devices import choose_device
    from medunet.inference.model import Model, read_card
    from medunet.inference.predict import Scan, predict_scans
    from medunet.inference.probe import choose_prediction

    if model is None and run.config.training.fold == "each":
        failures = [run_predict(one, overwrite=overwrite) for one in each_fold(run)]
        return {case: reason for failed in failures for case, reason in failed.items()}
    manifest, fold = run.manifest, run.config.training.fold
    cases = held_out_cases(run, fold) if model is None else list(manifest.used)
    device = choose_device(run.config.device)
    begin_computing(device)
    folder = model or run.folder.model(fold)
    card = read_card(folder)
    how = choose_prediction(card.plan, card.description, device, precision_for(run.config, device))
    loaded = Model.load(
        folder,
        device=device,
        precision=how.precision,
        channels_last=how.channels_last,
        weights=run.config.inference.weights,
    )
    known = {case.id for case in cases} & set(loaded.card.training_cases)
    if model is None and known and not loaded.card.train_is_validation:
        raise InputError(
            f"its model was trained on {len(known)} of the cases that it should predict as held out",
            where=f"fold {fold}",
            mend="The folds were changed after training: restore them, or train in another run folder.",
        )
    require_same_channels(loaded.card.description, manifest.description)
    scans = [
        Scan(case.id, case_paths(case, manifest.description, run.data_root)[0], case.resample)
        for case in cases
    ]
    failed = predict_scans(loaded, scans, run.folder.predictions, run.config.inference, overwrite=overwrite)
    say_predicted(len(scans), failed, run.folder.predictions)
    return failed


def say_predicted(num_scans: int, failed: dict[str, str], folder: Path) -> None:
    """Say how many masks were written and name every failed case."""
    say("Predict", f"{num_scans - len(failed)} of {num_scans} cases", folder)
    for case, reason in failed.items():
        console.print(f"  [red]failed[/] {escape(case)}: {escape(reason)}", highlight=False, soft_wrap=True)


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
    from medunet.reporting.sentences import weights_told
    from medunet.scoring.pairs import Pair

    manifest, cards = run.manifest, trained_cards(run)
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
            mend="Run `medunet predict` for each trained fold.",
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
            "no held-out case has a label", where=str(run.folder.root), mend="Train a fold first."
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
        console.print(f"[yellow]{_SEEN}[/]")
    if told := weights_told(about):
        console.print(told, highlight=False, soft_wrap=True)
    return scores


def run_report(run: Run) -> Path:
    """Write the report's pages and return the index."""
    from medunet.reporting.report import report_run
    from medunet.scoring.tables import read_lesions, read_scores

    scores = read_scores(run.folder.need(run.folder.scores, "score"))
    lesions = run.folder.root / "lesions.csv"
    index = report_run(
        run.folder,
        run.data_root,
        scores=scores,
        lesions=read_lesions(lesions) if lesions.exists() else None,
    )
    say("Report", "open in a browser", index)
    return index


def run_all(run: Run) -> tuple[list[str], list[CaseScore]]:
    """Do all stages, from manifest to report; return the ids of the cases that failed, and the scores.

    Raises:
        FaultsError: the check found errors.
    """
    run_manifest(run)
    run_check(run)
    run_plan(run)
    run_train(run)
    failed = run_predict(run)
    scores = run_score(run)
    run_report(run)
    say_tensorboard(run)
    return list_failed(failed, scores), scores


def list_failed(failed: Mapping[str, str], scores: Sequence[CaseScore]) -> list[str]:
    """Return the ids of the cases that could not be predicted or scored; a script ends with 1 if there are any."""
    return sorted({*failed, *(row.case for row in scores if row.status in ("missing", "failed"))})


def say_tensorboard(run: Run) -> None:
    """Say how to watch the run's curves."""
    console.print(f"[bold]TensorBoard[/]: tensorboard --logdir {run.folder.root / 'folds'}", highlight=False)

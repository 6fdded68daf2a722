"""`medunet predict`: segment a run's held-out cases, or any scans, with a trained model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from medunet.base.errors import InputError
from medunet.base.words import list_some
from medunet.commands.load_models import AS_USUAL, PredictOptions
from medunet.commands.predict_job import PredictJob, predict
from medunet.commands.report_new import report_scans
from medunet.commands.terminal import console, print_stage
from medunet.dataset.checks.acceptance import EVERY_CASE, GRID_CODES, parse_accepted
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.scope_checks import SCOPE_CODES
from medunet.records.config import WeightsName
from medunet.records.data_root import case_paths, resolve_data_root
from medunet.records.description import Description
from medunet.records.manifest import Accepted, Case, Manifest
from medunet.records.mask_journal import read_mask_index
from medunet.records.model_card import ModelCard
from medunet.records.selection import Selection
from medunet.runs.computing import (
    require_one_process,
)
from medunet.runs.members import fold_members
from medunet.runs.run import Run, describe_untrained, held_out_cases, member_folders, trained_cards

if TYPE_CHECKING:
    from medunet.inference.scan import Scan

_MOST_NAMES = 20
_OWN_CASE = "one of the run's own cases, whose scores are measured"


def run_predict(
    run: Run,
    *,
    model: Path | None = None,
    fold: int | str | None = None,
    overwrite: bool = False,
    options: PredictOptions = AS_USUAL,
    devices: Sequence[str] = (),
) -> dict[str, str]:
    """Predict the held-out cases of a run and return the failed ones with their reasons.

    The model of every trained fold predicts the cases that it holds out, the last one the test cases too; folds that
    are not trained are named on the console. `fold` predicts those of one fold alone ("each": of every trained one).
    With the `model` folder of another run, all cases are predicted. The configuration's precision is the default.

    Raises:
        InputError: No fold is trained, or a model was trained on some of these held-out cases, or on other channels.
    """
    if model is not None or fold not in (None, "each"):
        failed = _predict_cases(run, options, model=model, fold=fold, overwrite=overwrite, devices=devices)
        options.cases.print_parts(failed)
        return failed
    folds = list(trained_cards(run))
    if not folds:
        raise InputError("no fold is trained", where=str(run.folder.root), hint="Run `medunet train` first.")
    failed = {}
    for one in folds:
        is_last = one == folds[-1]
        failed |= _predict_cases(
            run, options, fold=one, with_tests=is_last, overwrite=overwrite, devices=devices
        )
    options.cases.print_parts(failed)
    if text := describe_untrained(run, folds, "predicted"):
        console.print(f"  [yellow]{text}[/]", highlight=False, soft_wrap=True)
    return failed


def predict_ensemble(runs: Sequence[Run], out: Path) -> dict[str, str]:
    """Predict the held-out cases of several runs on the same folds by the networks of all of them, into a folder.

    Returns the failed cases with their reasons. The options of inference are each run's own, as trained; of the first
    one they are those of its configuration.
    """
    folds = list(trained_cards(runs[0]))
    failed: dict[str, str] = {}
    for fold in folds:
        members = [folder for run in runs for folder in member_folders(run.folder, fold)]
        is_last = fold == folds[-1]
        failed |= _predict_cases(runs[0], AS_USUAL, fold=fold, with_tests=is_last, members=members, out=out)
    return failed


def _predict_cases(
    run: Run,
    options: PredictOptions,
    *,
    model: Path | None = None,
    fold: int | str | None = None,
    with_tests: bool = True,
    overwrite: bool = False,
    members: Sequence[Path] = (),
    out: Path | None = None,
    devices: Sequence[str] = (),
) -> dict[str, str]:
    """Predict the cases that a fold holds out, test cases only if `with_tests`; with `model`, all cases.

    Args:
        members: networks of this fold; none: those of the run, see `fold_members`.
        out: folder of the masks; None: the run's predictions.
    """
    require_one_process()
    manifest = run.read_manifest()
    if model is not None:
        cases, folders = list(manifest.used), [model]
    else:
        assert fold is not None
        cases, folders = held_out_cases(run, fold), [*members] or fold_members(run.folder, fold)
        cases = [case for case in cases if with_tests or case.split != "test"]
    out = out or run.folder.predictions
    scans = scans_of(cases, manifest, run.data_root, own=True)
    scans, missing = options.cases.choose(scans, out, folders, options.maps, fold=fold)
    if options.cases.dry_run or not (scans or options.cases.is_all):
        return missing
    if model is None:
        _refuse_known(folders, cases, fold)
    require_same_channels(ModelCard.read(folders[0] / "model.json").description, manifest.description)
    del manifest, cases  # of thousands, the scans are enough to hold
    job = PredictJob(
        folders=tuple(folders),
        out=out,
        inference=run.config.inference,
        device=run.config.device,
        options=options,
        config=run.config,
        fold=fold,
        held_out=model is None,
        overwrite=overwrite,
    )
    failed = predict(job, scans, devices)
    print_predicted(len(scans), failed, out)
    return failed


def _refuse_known(folders: Sequence[Path], cases: Sequence[Case], fold: int | str | None) -> None:
    """Check that no network was trained on the cases that a fold holds out.

    Raises:
        InputError: some were; all of them are named.
    """
    from medunet.inference.model_folder import read_card

    faults = []
    for folder in folders:
        card = read_card(folder)
        known = {case.id for case in cases} & set(card.training_cases)
        if known and not card.train_is_validation:
            faults.append(f"{folder} was trained on {len(known)} of the held-out cases")
    if faults:
        raise InputError(
            "; ".join(faults),
            where=f"fold {fold}",
            hint="The folds were changed after training, or differ between runs. Restore them, or train again.",
        )


def predict_images(
    folders: Sequence[Path],
    images: Sequence[Path],
    out: Path,
    data_root: Path | None,
    *,
    device_name: str,
    overwrite: bool,
    devices: Sequence[str] = (),
    weights: WeightsName | None = None,
    accept: Sequence[str] = (),
    allow_resample: bool = False,
    options: PredictOptions = AS_USUAL,
    selection: Selection | None = None,
    report_of: Path | None = None,
) -> dict[str, str]:
    """Predict image files and folders, or the cases of one manifest.json, with a trained model, or several as one.

    Returns the failed cases with their reasons. For `weights`, see `Model.load`.

    Args:
        folders: of the models, whose probabilities are averaged.
        devices: one worker for each, see `predict_job.predict`; none: this process, on `device_name`.
        accept: faults with which scans are predicted, as 'CODE' or 'CODE:CASE', beside those of a manifest.
        allow_resample: resample the channels of a case that are on different grids to the grid of the first one.
        selection: what `medunet select` chose for this model's run; its postprocessing is applied.
        report_of: run or model whose thresholds and lesion rules the scans' pages follow; None: no pages.
    """
    from medunet.inference.given_scans import find_scans

    card = ModelCard.read(folders[0] / "model.json")
    if len(images) == 1 and images[0].suffix == ".json":
        listed, root = Manifest.read(images[0]), resolve_data_root(data_root)
        require_same_channels(card.description, listed.description)
        scans = scans_of(listed.used, listed, root)
    else:
        given = find_scans(images, card)
        scans = given.scans
        print_left_out(given.left_out, given.notes)
    accepted = parse_accepted(accept, [scan.case for scan in scans], new_scans=True)
    scans, missing = options.cases.choose(scans, out, folders, options.maps)
    if options.cases.dry_run or not (scans or options.cases.is_all):
        options.cases.print_parts(missing)
        return missing
    accepted = [entry for entry in accepted if entry.case in {EVERY_CASE, *(scan.case for scan in scans)}]
    scans = [_with_accepted(scan, accepted, allow_resample=allow_resample) for scan in scans]
    job = PredictJob(
        folders=tuple(folders),
        out=out,
        inference=card.inference.model_copy(update={"weights": weights or card.inference.weights}),
        device=device_name,
        options=options,
        selection=selection,
        overwrite=overwrite,
    )
    failed = predict(job, scans, devices)
    print_warnings([scan.case for scan in scans], accepted, out)
    print_predicted(len(scans), failed, out)
    options.cases.print_parts(failed)
    if report_of is not None:
        report_scans(scans, card.description, out, failed, report_of)
    return failed


def scans_of(
    cases: Sequence[Case], manifest: Manifest, data_root: Path, *, own: bool = False
) -> list["Scan"]:
    """Return cases of a manifest as scans, with the faults that it accepts.

    Those that are a run's `own` to be scored are predicted however they differ from the training scans.
    """
    from medunet.inference.scan import Scan

    scans = []
    within = [Accepted(code=code, case=EVERY_CASE, reason=_OWN_CASE) for code in SCOPE_CODES if own]
    for case in cases:
        images, _ = case_paths(case, manifest.description, data_root)
        accepted = tuple(entry for entry in manifest.accepted if entry.case == case.id)
        scans.append(Scan(case.id, images, case.resample, (*accepted, *within)))
    return scans


def _with_accepted(scan: "Scan", accepted: Sequence[Accepted], *, allow_resample: bool) -> "Scan":
    """Return a scan with the accepted faults that concern it; it is resampled if different grids are accepted."""
    own = tuple(entry for entry in accepted if entry.case in (scan.case, EVERY_CASE))
    resample = scan.resample or allow_resample or any(entry.code in GRID_CODES for entry in own)
    return replace(scan, accepted=(*scan.accepted, *own), resample=resample)


def require_same_channels(trained: Description, given: Description) -> None:
    """Check that scans have the number of channels and the modalities that a model was trained on.

    Raises:
        InputError: They differ; the message names the channels of both.
    """
    ours, theirs = (
        {name: channel.modality for name, channel in each.channels.items()} for each in (trained, given)
    )
    pairs = zip(ours.values(), theirs.values(), strict=False)
    foreign = any(one != other and "other" not in (one, other) for one, other in pairs)
    if len(ours) != len(theirs) or foreign:
        texts = [", ".join(f"{name} ({kind})" for name, kind in each.items()) for each in (ours, theirs)]
        raise InputError(
            f"the model was trained on {texts[0]}, but the dataset has {texts[1]}",
            where="channels",
            hint="Choose a model that was trained on scans with these channels.",
        )


def print_left_out(left_out: Mapping[str, Sequence[str]], notes: Sequence[str]) -> None:
    """Print the names of the given files that are not predicted, by the reason, and how files were understood."""
    for note in notes:
        console.print(f"  [yellow]note[/] {escape(note)}", highlight=False, soft_wrap=True)
    for reason, names in left_out.items():
        text = f"{list_some(names, _MOST_NAMES)}: {reason}"
        console.print(f"  [yellow]left out[/] {escape(text)}", highlight=False, soft_wrap=True)


def print_warnings(cases: Sequence[str], accepted: Sequence[Accepted], folder: Path) -> None:
    """Print the warnings and accepted faults of predicted cases, by code, from the index beside the masks."""
    entries = read_mask_index(folder)["cases"]
    rows = [(case, row) for case in cases for row in entries.get(case, {}).get("faults", ())]
    for code in dict.fromkeys(row["code"] for _, row in rows):
        ours = [
            (case, row)
            for case, row in rows
            if row["code"] == code and (row["severity"] == "warning" or row.get("accepted"))
        ]
        for accepting in (False, True):
            each = [
                f"{case} ({row['measured']})" for case, row in ours if bool(row.get("accepted")) is accepting
            ]
            if each:
                word = "accepted" if accepting else "warning"
                kind = FAULT_KINDS[code]
                text = f"{code} {kind.title}: {list_some(each, _MOST_NAMES)}" + (
                    "" if accepting else f". {kind.hint}"
                )
                console.print(f"  [yellow]{word}[/] {escape(text)}", highlight=False, soft_wrap=True)
    for code in dict.fromkeys(entry.code for entry in accepted):
        if not any(row["code"] == code for _, row in rows):
            console.print(f"  [yellow]accepted[/] {code}, but no predicted scan has it", highlight=False)


def print_predicted(num_scans: int, failed: dict[str, str], folder: Path) -> None:
    """Print how many cases were predicted, and every failed case with its reason."""
    print_stage("Predict", f"{num_scans - len(failed)} of {num_scans} cases", folder)
    for case, reason in failed.items():
        console.print(f"  [red]failed[/] {escape(case)}: {escape(reason)}", highlight=False, soft_wrap=True)

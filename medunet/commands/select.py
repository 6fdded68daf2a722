"""`medunet select`: choose configuration and postprocessing by held-out cases, where the gain is not by chance."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape
from rich.table import Table

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import hash_value
from medunet.base.together import write_together
from medunet.commands.alone import alone
from medunet.commands.terminal import console, print_stage
from medunet.records.scores import json_number
from medunet.records.selection import Configuration, MeanScores, Round, Selection
from medunet.runs.candidates import Candidate, find_candidates, labelled_cases, relative_to_run
from medunet.runs.provenance import add_provenance
from medunet.runs.run import Run
from medunet.runs.selection import hash_masks
from medunet.runs.step_choice import Steps, choose_steps, explain_none, make_trial, stack_dice
from medunet.runs.step_trials import CaseDice, HeldOut, try_steps
from medunet.scoring.gains import LEVEL, choose_in_order, measure_gains, round_level, score_patients
from medunet.scoring.mask_hashes import hash_mask

_ALGORITHM = 1  # increment it when another choice may come out of the same files
PAGE = "selection.html"


@alone("select")
def run_select(
    run: Run, others: Sequence[Run] = (), *, ensembles: bool = True, workers: int | None = None
) -> Selection:
    """Choose among runs on the same cases and folds, and among postprocessing steps, by the cases the folds hold out.

    With `ensembles`, pairs of runs and all together are predicted and compared as well, see `find_candidates`.

    Writes selection.json and selection.html into the folder of `run`; `medunet predict RUN SCANS` follows them. The
    test cases are not used to choose. Nothing is done if nothing has changed since the last call.

    Raises:
        InputError: the runs cannot be compared (see `find_candidates`), or no held-out case has a label.
        DataError: masks or labels cannot be read.
    """
    from medunet.reporting.selection_page import selection_html

    runs = [run, *others]
    candidates = find_candidates(runs, ensembles=ensembles)
    for candidate in candidates:
        if candidate.runs:
            _predict(candidate)
    manifest = run.read_manifest()
    folds, tests, unlabelled = labelled_cases(run, candidates[0].masks)
    if not folds:
        raise InputError(
            "no held-out case has a label",
            where=str(run.folder.root),
            hint="Train and predict the folds of cases with labels.",
        )
    inputs = _hash_inputs(run, candidates, [*folds, *tests])
    selection = _read_same(run, inputs)
    if selection is None:
        selection = _select(run, candidates, tests, unlabelled, inputs, workers=workers)
        html = selection_html(selection, manifest.description.title or manifest.description.name)
        texts = {run.folder.selection.name: selection.to_text(), PAGE: html}
        write_together(run.folder.root, texts)
        _journal(run).unlink(missing_ok=True)
        about = {"inputs_sha256": inputs, "chosen": selection.chosen, "steps": selection.describe_steps()}
        add_provenance(run, "select", about)
    else:
        console.print("  nothing has changed since the last selection", highlight=False)
    _print(selection, run)
    return selection


def _predict(candidate: Candidate) -> None:
    """Predict the held-out cases by an ensemble of runs; masks that are there already are kept.

    Raises:
        InputError: a case cannot be predicted; all of these are named.
    """
    from medunet.commands.predict import predict_ensemble

    console.print(f"  ensemble {escape(candidate.name)}", highlight=False)
    if failed := predict_ensemble(candidate.runs, candidate.masks):
        raise InputError(
            f"{len(failed)} cases cannot be predicted: {'; '.join(f'{case}: {why}' for case, why in failed.items())}",
            where=candidate.name,
            hint="Mend them, or compare the runs one by one.",
        )


def _select(
    run: Run,
    candidates: Sequence[Candidate],
    tests: Sequence[HeldOut],
    unlabelled: Sequence[str],
    inputs: str,
    *,
    workers: int | None,
) -> Selection:
    description = run.read_manifest().description
    plain: list[list[CaseDice]] = []
    for candidate in candidates:
        cases = labelled_cases(run, candidate.masks)[0]
        about = f"Score {candidate.name}"
        plain.append(try_steps(cases, description, [{}], about=about, journal=_journal(run), workers=workers))
    patients = _patients_of(run, [held.case for held in cases])
    scores = score_patients(np.concatenate([stack_dice(each) for each in plain]), patients)
    index, rounds = 0, []
    if len(candidates) > 1:
        index, decision = _choose_configuration([each.name for each in candidates], scores)
        rounds.append(decision)
    chosen = candidates[index]
    steps, step_rounds = choose_steps(
        labelled_cases(run, chosen.masks)[0],
        patients,
        description,
        plain[index],
        first_round=len(rounds) + 1,
        journal=_journal(run),
        workers=workers,
    )
    return Selection(
        medunet_version=__version__,
        inputs_sha256=inputs,
        targets=tuple(description.targets),
        unlabelled=tuple(unlabelled),
        configurations=tuple(
            Configuration(
                name=each.name,
                members=each.members,
                masks=relative_to_run(each.masks, run),
                masks_sha256=hash_masks(each.masks),
                mean_dice=json_number(float(scores[number].mean())) if scores[number].size else None,
            )
            for number, each in enumerate(candidates)
        ),
        chosen=chosen.name,
        postprocess=steps,
        rounds=(*rounds, *step_rounds),
        folds=_mean_scores(run, candidates[0], chosen, steps, use_tests=False, workers=workers),
        test=_mean_scores(run, candidates[0], chosen, steps, use_tests=True, workers=workers)
        if tests
        else None,
    )


def _choose_configuration(names: Sequence[str], scores: NDArray[np.float64]) -> tuple[int, Round]:
    """Choose among configurations, from the fewest networks to the most."""
    level = round_level(1)
    index, pairs = choose_in_order(names, scores, level)
    trials = tuple(
        make_trial(gain, names[later], names[earlier], is_chosen=later == index)
        for earlier, later, gain in pairs
    )
    if index:
        why = (
            f"{names[index]}: it gains more than it may by chance at the level {level:g} over what is simpler, "
            "and none behind it gains on it"
        )
    else:
        why = f"{names[0]}, the simplest: {explain_none([gain for *_, gain in pairs], level)}"
    return index, Round(about="configuration", level=level, trials=trials, why=why)


def _mean_scores(
    run: Run,
    first: Candidate,
    chosen: Candidate,
    steps: Steps,
    *,
    use_tests: bool,
    workers: int | None,
) -> MeanScores:
    """Return the scores of the first configuration as it is and of what was chosen, on folds or test cases."""
    description, dice = run.read_manifest().description, []
    what = "test cases" if use_tests else "folds"
    for candidate, variant in ((first, {}), (chosen, steps)):
        on_folds, tests, _ = labelled_cases(run, candidate.masks)
        cases = tests if use_tests else on_folds
        tried = try_steps(
            cases, description, [variant], about=f"Score {what}", journal=_journal(run), workers=workers
        )
        dice.append(stack_dice(tried))
    scores = score_patients(np.concatenate(dice), _patients_of(run, [held.case for held in cases]))
    (gain,) = measure_gains([scores[0]], [scores[1]], LEVEL)
    return MeanScores(
        num_cases=len(cases),
        num_patients=gain.num_patients,
        first=json_number(gain.mean_before),
        chosen=json_number(gain.mean),
        gain=json_number(gain.gain),
        low=json_number(gain.low),
        high=json_number(gain.high),
        no_interval=gain.no_interval,
    )


def _patients_of(run: Run, cases: Sequence[str]) -> list[str]:
    patient_of = {case.id: case.patient for case in run.read_manifest().used}
    return [patient_of[case] for case in cases]


def _hash_inputs(run: Run, candidates: Sequence[Candidate], cases: Sequence[HeldOut]) -> str:
    """Return a hash of all that shapes the selection: cases, folds, labels, masks and networks."""
    manifest = run.read_manifest()
    used = {case.id: [case.patient, case.fold, case.split] for case in manifest.used}
    return hash_value(
        [
            _ALGORITHM,
            manifest.description.to_dict(),
            [[held.case, used[held.case], hash_mask(held.label)] for held in cases],
            [
                [each.name, [member.to_dict() for member in each.members], hash_masks(each.masks)]
                for each in candidates
            ],
        ]
    )


def _read_same(run: Run, inputs: str) -> Selection | None:
    """Return the selection that was made from the same inputs, if it is there with its page."""
    if not run.folder.selection.exists() or not (run.folder.root / PAGE).exists():
        return None
    try:
        selection = Selection.read(run.folder.selection)
    except InputError:  # of another version, or damaged: it is made again
        return None
    return selection if selection.inputs_sha256 == inputs else None


def _journal(run: Run) -> Path:
    return run.folder.root / "selection.partial.jsonl"


def _print(selection: Selection, run: Run) -> None:
    table = Table(title="Mean Dice before postprocessing")
    table.add_column("configuration")
    table.add_column("networks", justify="right")
    table.add_column("mean Dice", justify="right")
    for each in selection.configurations:
        mark = " (chosen)" if each.name == selection.chosen else ""
        table.add_row(f"{escape(each.name)}{mark}", str(len(each.members)), _number(each.mean_dice))
    console.print(table)
    for decision in selection.rounds:
        console.print(f"  {decision.about}: {escape(decision.why)}", highlight=False, soft_wrap=True)
    if selection.unlabelled:
        count = len(selection.unlabelled)
        text = f"{count} held-out case{'s' * (count != 1)} without a label"
        console.print(f"  [yellow]left out[/] {text}", highlight=False)
    console.print(f"  {_sentence('folds, which chose', selection.folds)}", highlight=False, soft_wrap=True)
    if selection.test is not None:
        text = _sentence("test cases, which did not choose", selection.test)
        console.print(f"  {text}", highlight=False, soft_wrap=True)
    print_stage(
        "Select", f"{selection.chosen}; postprocessing {selection.describe_steps()}", run.folder.selection
    )


def _sentence(what: str, means: MeanScores) -> str:
    interval = ""
    if means.low is not None and means.high is not None:
        interval = f", 95% interval of the difference {means.low:+.4f} to {means.high:+.4f}"
    return (
        f"{what}: mean Dice {_number(means.chosen)}, the first configuration as it is {_number(means.first)} "
        f"({means.num_patients} patients, {means.num_cases} cases{interval})"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"

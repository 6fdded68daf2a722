"""Choose postprocessing steps on held-out masks: round by round, each target's best step that gains."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medunet.postprocessing.usual_steps import usual_steps
from medunet.records.config import PostprocessStep
from medunet.records.description import Description
from medunet.records.scores import json_number
from medunet.records.selection import Round, Trial, describe_step, describe_steps
from medunet.runs.step_trials import CaseDice, HeldOut, try_steps
from medunet.scoring.gains import Gain, choose_each, measure_gains, round_level, score_patients
from medunet.scoring.intervals import MIN_UNITS

Steps = dict[str, tuple[PostprocessStep, ...]]

_MAX_ROUNDS = 3


def choose_steps(
    cases: Sequence[HeldOut],
    patients: Sequence[str],
    description: Description,
    before: Sequence[CaseDice],
    *,
    first_round: int,
    journal: Path,
    workers: int | None = None,
) -> tuple[Steps, list[Round]]:
    """Return the steps to apply to each target, and what was tried in each round.

    A round tries every usual step of every target behind the steps chosen so far. Each target gets its step with the
    largest gain, of those that count (see `medunet.scoring.gains`). Where several targets get one, the steps together
    must not gain less than the best of them alone, which is otherwise chosen alone. It ends with a round that
    chooses nothing, at the latest with the third.

    Args:
        before: the Dice of the masks as they are.
        first_round: number of the first round among the decisions of the selection, which sets its level.

    Raises:
        DataError: masks or labels cannot be read.
    """
    usual = _usual_steps(description, before)
    chosen: Steps = {}
    rounds: list[Round] = []
    while len(rounds) < _MAX_ROUNDS:
        options = [
            (name, step)
            for name, steps in usual.items()
            for step in steps
            if not any(_key(step) == _key(earlier) for earlier in chosen.get(name, ()))
        ]
        variants = [chosen, *(_with(chosen, {name: step}) for name, step in options)]
        about = f"Try steps, round {len(rounds) + 1}"
        tried = try_steps(cases, description, variants, about=about, journal=journal, workers=workers)
        scores = score_patients(stack_dice(tried), patients)
        level = round_level(first_round + len(rounds))
        gains = measure_gains([scores[0]] * len(options), list(scores[1:]), level)
        best = choose_each([name for name, _ in options], gains, level)
        if len(best) > 1:
            top = max(best.values(), key=lambda index: (gains[index].gain, -index))
            together = _with(chosen, {name: options[index][1] for name, index in best.items()})
            both = try_steps(
                cases,
                description,
                [_with(chosen, {options[top][0]: options[top][1]}), together],
                about=f"{about}, together",
                journal=journal,
                workers=workers,
            )
            alone, joint = score_patients(stack_dice(both), patients).mean(axis=1)
            if joint < alone:
                best = {options[top][0]: top}
        added = {name: options[index][1] for name, index in best.items()}
        rounds.append(_describe_round(options, gains, chosen, added, level))
        if not added:
            break
        chosen = _with(chosen, added)
    return chosen, rounds


def stack_dice(tried: Sequence[CaseDice]) -> NDArray[np.float64]:
    """Return the Dice of cases as an array `(variants, cases, targets)`."""
    return np.array([case.dice for case in tried], dtype=np.float64).transpose(1, 0, 2)


def _usual_steps(
    description: Description, before: Sequence[CaseDice]
) -> dict[str, tuple[PostprocessStep, ...]]:
    """Return the steps to try on each target, by its median volume in the labels that have it."""
    spacing_mm = float(np.median([case.spacing_mm for case in before]))
    usual = {}
    for number, name in enumerate(description.targets):
        volumes = [case.volumes_ml[number] for case in before if case.volumes_ml[number] > 0]
        usual[name] = usual_steps(float(np.median(volumes)) if volumes else float("nan"), spacing_mm)
    return usual


def _with(steps: Steps, added: Mapping[str, PostprocessStep]) -> Steps:
    """Return steps with further ones behind those of their targets."""
    return {**steps, **{name: (*steps.get(name, ()), step) for name, step in added.items()}}


def _key(step: PostprocessStep) -> str:
    return next(iter(step.model_dump()))


def _describe_round(
    options: Sequence[tuple[str, PostprocessStep]],
    gains: Sequence[Gain],
    before: Steps,
    added: Mapping[str, PostprocessStep],
    level: float,
) -> Round:
    against = describe_steps(before)
    trials = tuple(
        make_trial(gain, describe_step(step), against, is_chosen=added.get(name) is step, target=name)
        for (name, step), gain in zip(options, gains, strict=True)
    )
    if added:
        texts = [f"{name} {describe_step(step)}" for name, step in added.items()]
        why = (
            f"{'; '.join(texts)}: the largest gain of the target that is not by chance at the level {level:g}"
        )
    else:
        why = explain_none(gains, level)
    return Round(about="postprocessing", level=level, trials=trials, why=why)


def explain_none(gains: Sequence[Gain], level: float) -> str:
    """Return why none of the gains counts."""
    num_patients = max((gain.num_patients for gain in gains), default=0)
    if num_patients < MIN_UNITS:
        return f"{num_patients} patients are too few to tell a gain from chance ({MIN_UNITS} are needed)"
    what = f"none of {len(gains)} tried" if len(gains) > 1 else "nothing"
    return f"{what} gains more than it may by chance at the level {level:g}"


def make_trial(gain: Gain, tried: str, against: str, *, is_chosen: bool, target: str = "") -> Trial:
    """Return a gain as it stands in selection.json."""
    return Trial(
        tried=tried,
        target=target,
        against=against,
        mean_before=json_number(gain.mean_before),
        mean=json_number(gain.mean),
        gain=json_number(gain.gain),
        low=json_number(gain.low),
        high=json_number(gain.high),
        no_interval=gain.no_interval,
        bound=json_number(gain.bound),
        p=json_number(gain.p),
        p_holm=json_number(gain.p_holm),
        num_patients=gain.num_patients,
        num_better=gain.num_better,
        num_worse=gain.num_worse,
        is_chosen=is_chosen,
    )

"""How a training is validated: how often, on which cases and in how many windows, fixed before the first step.

So that validation takes about 15% of the time, whatever the scans' size, and a resumed run sees what it began with.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from medunet.base.errors import InputError
from medunet.base.record import Record
from medunet.dataset.splits import spread_strata
from medunet.dataset.strata import make_strata, measure_labels
from medunet.records.config import Config, TrainingConfig
from medunet.records.data_root import case_paths
from medunet.records.manifest import Case, Manifest
from medunet.records.plan import Plan
from medunet.training.probe import ComputeChoice
from medunet.training.windows import count_windows

_log = logging.getLogger(__name__)
_FILE = "validation.json"
SHARE = 0.15  # of a training's time
BESIDE = 1.2  # times as long as the network alone: cutting, loss, counts, outlines (12 hippocampi, two cores)
_FEWEST = 10  # validations; less only where there are fewer epochs
_LEAST_CASES, _LEAST_WINDOWS = 4, 2  # of a validation, and of a case: one with foreground and one without


class ValidationPlan(Record):
    """validation.json in a fold's folder."""

    schema_: Literal["medunet.validation/1"] = Field("medunet.validation/1", alias="schema")
    every_epochs: int = 1  # and behind the last step
    cases: tuple[str, ...]
    windows: int | None = None  # of a case at most; None: all that cover it
    share: float | None = None  # of the time, as estimated; None: not estimated

    def sentence(self, num_held_out: int) -> str:
        """Say how often, on what and for how long."""
        often = "every epoch" if self.every_epochs == 1 else f"every {self.every_epochs} epochs"
        windows = "all windows" if self.windows is None else f"at most {self.windows} windows"
        share = "" if self.share is None else f", about {self.share:.0%} of the time"
        return f"Validation {often} on {len(self.cases)} of {num_held_out} cases, {windows} of each{share}."


@dataclass(frozen=True)
class Bounds:
    """What fits the time: how often, how many cases, and how many windows of each."""

    every_epochs: int
    num_cases: int
    windows: int
    share: float


def bound_validation(
    training: TrainingConfig,
    plan: Plan,
    num_held_out: int,
    *,
    step_s: float,
    window_s: float,
    whole_cases: bool = False,
) -> Bounds:
    """Return what takes about 15% of the time.

    First all cases (at most `training.validation_cases`) are covered by windows, less often than every epoch if that
    must be, but ten times where there are so many epochs; then come fewer windows of a case, but not where they are
    to be seen whole; then fewer cases. The least is 4 cases of 2 windows, whatever it takes.

    Args:
        num_held_out: cases to choose from.
        step_s: seconds of a training step of the plan's batch; 0 where it is not known.
        window_s: seconds of the prediction of one window; 0 where it is not known. A window is then taken for a third
            of its share of a step: forward, without the way back.
    """
    known = step_s > 0 and window_s > 0
    if not known:
        step_s, window_s = 1.0, 1 / (3 * plan.batch_size)
    window_s *= BESIDE
    epoch_s = training.steps_per_epoch * training.accumulate * step_s
    num_epochs = training.epochs
    if training.max_minutes is not None:
        longest_s = 60 * training.max_minutes * (1 - SHARE)
        epoch_s = min(epoch_s, longest_s) if known else epoch_s
        num_epochs = min(num_epochs, int(longest_s / epoch_s)) if known else 1
    most_epochs = max(1, num_epochs // _FEWEST)
    an_epoch_affords = SHARE / (1 - SHARE) * epoch_s / window_s  # windows
    needed = count_windows(_usual_shape(plan), plan)  # for a case
    num_cases = min(num_held_out, training.validation_cases or num_held_out)
    every = min(most_epochs, max(1, math.ceil(num_cases * needed / an_epoch_affords)))
    affordable = every * an_epoch_affords
    least = needed if whole_cases else min(_LEAST_WINDOWS, needed)
    if affordable < num_cases * least:
        num_cases = min(num_cases, max(_LEAST_CASES, int(affordable / least)))
    windows = max(least, int(affordable / num_cases))
    spent_s = num_cases * min(windows, needed) * window_s
    return Bounds(every, num_cases, windows, round(spent_s / (spent_s + every * epoch_s), 3))


def plan_validation(
    manifest: Manifest,
    plan: Plan,
    config: Config,
    data_root: Path,
    *,
    step_s: float,
    window_s: float,
    whole_cases: bool = False,
) -> ValidationPlan:
    """Return how the configured fold is validated; the times and `whole_cases` as `bound_validation` has them.

    Where not all held-out cases fit, those are drawn by the seed that are like all of them: in which labels they
    hold, and how much of them (see `medunet.dataset.strata`); this reads every held-out label.
    """
    _, held_out = manifest.split_fold(config.training.fold)
    bounds = bound_validation(
        config.training, plan, len(held_out), step_s=step_s, window_s=window_s, whole_cases=whole_cases
    )
    cases = [case.id for case in held_out]
    if bounds.num_cases < len(cases):
        labels = {case.id: case_paths(case, manifest.description, data_root)[1] for case in held_out}
        given = {case_id: path for case_id, path in labels.items() if path is not None}
        volumes = measure_labels(
            given, manifest.description, may_fail=given
        )  # preprocessing names what fails
        strata = make_strata(volumes, {case.id: None for case in held_out})
        cases = draw_cases(held_out, bounds.num_cases, strata, config.seed)
    return ValidationPlan(
        every_epochs=bounds.every_epochs,
        cases=tuple(cases),
        windows=None if whole_cases else bounds.windows,
        share=bounds.share,
    )


def settle_validation(
    folder: Path,
    manifest: Manifest,
    plan: Plan,
    config: Config,
    data_root: Path,
    compute: ComputeChoice,
    *,
    given: ValidationPlan | None,
    is_resumed: bool,
) -> ValidationPlan:
    """Return how to validate: as the training began, else as given or as fits its time; say so and keep it.

    Args:
        folder: the fold's, where validation.json is written.
        given: how a training that begins is to be validated.

    Raises:
        InputError: the training was begun with cases that the fold no longer holds out.
    """
    _, held_out = manifest.split_fold(config.training.fold)
    ids = [case.id for case in held_out]
    if not is_resumed:
        settled = given or plan_validation(
            manifest, plan, config, data_root, step_s=compute.step_s, window_s=compute.window_s
        )
    else:
        settled = begun_validation(folder, manifest, config.training)
    if gone := sorted({*settled.cases} - {*ids}):
        raise InputError(
            f"the training was begun with {', '.join(gone)} to validate on, which the fold no longer holds out",
            where=f"fold {config.training.fold}",
            hint="Restore the cases, or remove this fold's folder to train it anew.",
        )
    settled.write(folder / _FILE)
    _log.info(settled.sentence(len(ids)))
    return settled


def begun_validation(folder: Path, manifest: Manifest, training: TrainingConfig) -> ValidationPlan:
    """Return how a fold that was begun is validated: as its folder keeps it.

    Of one that medunet 0.4 began, as that version did: on the first cases, whole, every epoch.
    """
    if (folder / _FILE).exists():
        return ValidationPlan.read(folder / _FILE)
    _, held_out = manifest.split_fold(training.fold)
    return ValidationPlan(cases=tuple(case.id for case in held_out[: training.validation_cases]))


def draw_cases(
    cases: Sequence[Case], count: int, strata: Mapping[str, Collection[str]], seed: int
) -> list[str]:
    """Return the ids of `count` of the cases, in their order, with their share of every stratum.

    Drawn by the seed; the order of the cases does not matter to which are drawn.
    """
    ids = sorted(case.id for case in cases)
    drawn = {ids[index] for index in np.random.default_rng(seed).permutation(len(ids))[:count]}
    alone = [
        case.model_copy(update={"patient": case.id}) for case in cases
    ]  # a patient's cases need not stay together
    places = spread_strata(alone, {name: int(name not in drawn) for name in ids}, strata, seed)
    return [case.id for case in cases if places[case.id] == 0]


def _usual_shape(plan: Plan) -> tuple[int, ...]:
    """Return the size of a usual case as the network sees it, `(I, J, K)`."""
    shape = list(plan.median_shape)
    if plan.resize_to is not None:
        plane = [axis for axis in range(3) if axis != plan.slice_axis]
        for axis, length in zip(plane, plan.resize_to, strict=True):
            shape[axis] = length
    return tuple(shape)

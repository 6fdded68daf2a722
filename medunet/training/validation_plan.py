"""Plan of the validation during training: how often, on which cases and in how many windows.

The plan limits validation to about 15% of the time for any size of scans. It is fixed before the first step, so that
a resumed run is validated in the same way.
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
from medunet.dataset.splits import stratify_folds
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
OVERHEAD = 1.2  # validation time relative to the network alone (measured on 12 hippocampus cases, two cores)
_MIN_VALIDATIONS = 10  # fewer only if there are fewer epochs
_MIN_CASES, _MIN_WINDOWS = 4, 2  # per validation, and per case: one with foreground and one without


class ValidationPlan(Record):
    """Validation plan of a fold, stored as validation.json in its folder."""

    schema_: Literal["medunet.validation/1"] = Field("medunet.validation/1", alias="schema")
    every_epochs: int = 1  # and after the last step
    cases: tuple[str, ...]
    windows: int | None = None  # maximum per case; None: all windows that cover it
    share: float | None = None  # estimated share of the time; None: not estimated

    def describe(self, num_held_out: int) -> str:
        """Return a sentence on how often, on which cases and for how long the training is validated."""
        often = "every epoch" if self.every_epochs == 1 else f"every {self.every_epochs} epochs"
        windows = "all windows" if self.windows is None else f"at most {self.windows} windows"
        share = "" if self.share is None else f", about {self.share:.0%} of the time"
        return f"Validation {often} on {len(self.cases)} of {num_held_out} cases, {windows} of each{share}."


@dataclass(frozen=True)
class ValidationLimits:
    """Validation that fits the time: interval in epochs, number of cases, and windows per case."""

    every_epochs: int
    num_cases: int
    windows: int
    share: float


def limit_validation(
    training: TrainingConfig,
    plan: Plan,
    num_held_out: int,
    *,
    step_s: float,
    window_s: float,
    whole_cases: bool = False,
) -> ValidationLimits:
    """Return limits with which validation takes about 15% of the time.

    To save time, first the interval between validations is increased, with all cases (at most
    `training.validation_cases`) covered by windows, but to no fewer than ten validations. Then the number of windows
    per case is reduced, unless `whole_cases` is set, then the number of cases. The minimum is 4 cases of 2 windows.

    Args:
        num_held_out: number of held-out cases.
        step_s: seconds of a training step of the plan's batch; 0 if unknown.
        window_s: seconds of the prediction of one window; 0 if unknown. A window is then estimated at a third of its
            share of a training step, because it needs no backward pass.
        whole_cases: validate all windows of each case.
    """
    known = step_s > 0 and window_s > 0
    if not known:
        step_s, window_s = 1.0, 1 / (3 * plan.batch_size)
    window_s *= OVERHEAD
    epoch_s = training.steps_per_epoch * training.accumulate * step_s
    num_epochs = training.epochs
    if training.max_minutes is not None:
        longest_s = 60 * training.max_minutes * (1 - SHARE)
        epoch_s = min(epoch_s, longest_s) if known else epoch_s
        num_epochs = min(num_epochs, int(longest_s / epoch_s)) if known else 1
    most_epochs = max(1, num_epochs // _MIN_VALIDATIONS)
    windows_per_epoch = SHARE / (1 - SHARE) * epoch_s / window_s
    needed = count_windows(_typical_shape(plan), plan)  # per case
    num_cases = min(num_held_out, training.validation_cases or num_held_out)
    every = min(most_epochs, max(1, math.ceil(num_cases * needed / windows_per_epoch)))
    affordable = every * windows_per_epoch
    least = needed if whole_cases else min(_MIN_WINDOWS, needed)
    if affordable < num_cases * least:
        num_cases = min(num_cases, max(_MIN_CASES, int(affordable / least)))
    windows = max(least, int(affordable / num_cases))
    spent_s = num_cases * min(windows, needed) * window_s
    return ValidationLimits(every, num_cases, windows, round(spent_s / (spent_s + every * epoch_s), 3))


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
    """Return the validation plan of the configured fold; for the other arguments see `limit_validation`.

    If not all held-out cases fit, a stratified sample is drawn by the seed, with a similar presence and volume of the
    labels (see `medunet.dataset.strata`); this reads every held-out label.
    """
    _, held_out = manifest.split_fold(config.training.fold)
    limits = limit_validation(
        config.training, plan, len(held_out), step_s=step_s, window_s=window_s, whole_cases=whole_cases
    )
    cases = [case.id for case in held_out]
    if limits.num_cases < len(cases):
        labels = {case.id: case_paths(case, manifest.description, data_root)[1] for case in held_out}
        given = {case_id: path for case_id, path in labels.items() if path is not None}
        volumes = measure_labels(
            given, manifest.description, may_fail=given
        )  # preprocessing reports failures
        strata = make_strata(volumes, {case.id: None for case in held_out})
        cases = draw_cases(held_out, limits.num_cases, strata, config.seed)
    return ValidationPlan(
        every_epochs=limits.every_epochs,
        cases=tuple(cases),
        windows=None if whole_cases else limits.windows,
        share=limits.share,
    )


def resolve_validation_plan(
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
    """Return the validation plan: stored (of a resumed training), given, or new; log and store it.

    Args:
        folder: the fold's folder, where validation.json is written.
        given: validation plan of a new training.

    Raises:
        InputError: the training was started with cases that the fold no longer holds out.
    """
    _, held_out = manifest.split_fold(config.training.fold)
    ids = [case.id for case in held_out]
    if not is_resumed:
        validation = given or plan_validation(
            manifest, plan, config, data_root, step_s=compute.step_s, window_s=compute.window_s
        )
    else:
        validation = read_validation_plan(folder, manifest, config.training)
    if gone := sorted({*validation.cases} - {*ids}):
        raise InputError(
            f"training was started with validation cases that the fold no longer holds out: {', '.join(gone)}",
            where=f"fold {config.training.fold}",
            hint="Restore the cases, or remove this fold's folder to train it again.",
        )
    validation.write(folder / _FILE)
    _log.info(validation.describe(len(ids)))
    return validation


def read_validation_plan(folder: Path, manifest: Manifest, training: TrainingConfig) -> ValidationPlan:
    """Return the validation plan stored in the folder of a fold whose training has started.

    A fold from medunet 0.4 has none and is validated as in that version: whole first cases, every epoch.
    """
    if (folder / _FILE).exists():
        return ValidationPlan.read(folder / _FILE)
    _, held_out = manifest.split_fold(training.fold)
    return ValidationPlan(cases=tuple(case.id for case in held_out[: training.validation_cases]))


def draw_cases(
    cases: Sequence[Case], count: int, strata: Mapping[str, Collection[str]], seed: int
) -> list[str]:
    """Return the ids of a stratified sample of `count` cases, in the order of `cases`.

    The sample is drawn by the seed and does not depend on the order of the cases.
    """
    ids = sorted(case.id for case in cases)
    drawn = {ids[index] for index in np.random.default_rng(seed).permutation(len(ids))[:count]}
    ungrouped = [
        case.model_copy(update={"patient": case.id}) for case in cases
    ]  # cases of a patient need not stay together
    places = stratify_folds(ungrouped, {name: int(name not in drawn) for name in ids}, strata, seed)
    return [case.id for case in cases if places[case.id] == 0]


def _typical_shape(plan: Plan) -> tuple[int, ...]:
    """Return the median size of a preprocessed case, `(I, J, K)`."""
    shape = list(plan.median_shape)
    if plan.resize_to is not None:
        plane = [axis for axis in range(3) if axis != plan.slice_axis]
        for axis, length in zip(plane, plan.resize_to, strict=True):
            shape[axis] = length
    return tuple(shape)

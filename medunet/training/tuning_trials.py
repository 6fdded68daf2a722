"""The trials of a search: which are finished or at work, and those that were interrupted and are continued."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.trial import TrialState


def folder_of(trial: optuna.Trial | optuna.trial.FrozenTrial) -> str:
    """Return the name of a trial's folder: its own, or that of the interrupted trial that it continues."""
    name: str = trial.user_attrs.get("folder", f"trial_{trial.number:04d}")
    return name


def settings_of(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Return a trial's settings; empty if it was interrupted before all settings of a grid point were set."""
    settings = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    return settings if len(settings) == len(trial.system_attrs.get("search_space", settings)) else {}


def queue(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Enqueue an interrupted trial's settings, to be continued in its folder."""
    if settings := settings_of(trial):
        study.enqueue_trial(settings, user_attrs={"folder": folder_of(trial)})


def requeue(study: optuna.Study, lost: Sequence[optuna.trial.FrozenTrial]) -> None:
    """Enqueue the trials whose process has ended without finishing or enqueuing them; replaces the sampler."""
    newest = {trial.number for trial in newest_trials(study)}
    study.sampler = optuna.samplers.RandomSampler()  # a grid's would stop the study at its last point
    for trial in lost:
        if settings_of(trial):
            if trial.number in newest:
                queue(study, trial)
            study.tell(trial.number, state=TrialState.FAIL)


def newest_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the newest trial of each folder."""
    return list({folder_of(trial): trial for trial in study.trials if settings_of(trial)}.values())


def num_assigned(study: optuna.Study, *, is_shared: bool) -> int:
    """Return the number of trials that have finished or, in a shared search, are being trained by a process."""
    if is_shared:
        optuna.storages.fail_stale_trials(study)
    return sum(
        trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or "reason" in trial.user_attrs
        or (is_shared and trial.state == TrialState.RUNNING)
        for trial in newest_trials(study)
    )

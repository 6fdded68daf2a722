"""Hyperparameter search with Optuna: each trial trains a fold, bad trials are pruned, and a search can be resumed.

Trials are stored in SQLite in the run's folder, or for several processes on a server or in a journal, and each in its
own folder `tuning/trial_0007/`, which is an ordinary run. A resumed search continues interrupted trials: such a trial
is in the database twice, as failed and, with the same folder, as the trial that continued it.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import lightning as L
import numpy as np
import pandas as pd
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from medunet.base.errors import InputError, MedunetError, NoMemoryError, PreemptedError
from medunet.base.files import read_json_object, write_json, write_text
from medunet.records.config import Config, TuningConfig, change_config
from medunet.training.module import SegmentationModule

try:
    import optuna
    from optuna.trial import TrialState

    from medunet.training.tuning_space import as_changes, make_grid, suggest, to_table_values
    from medunet.training.tuning_storage import TrialStorage
    from medunet.training.tuning_trials import (
        folder_of,
        newest_trials,
        num_assigned,
        queue,
        requeue,
        settings_of,
    )
except ImportError as error:
    raise InputError(
        "Optuna is not installed", where="medunet tune", hint="Run `pip install 'medunet[tune]'`."
    ) from error

_log = logging.getLogger(__name__)
_STATES = {  # in the table's order
    TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
    TrialState.RUNNING: "running", TrialState.WAITING: "waiting",
}  # fmt: skip
_METRIC = "best validation Dice"

TrainTrial = Callable[[str, list[str], Sequence[L.Callback]], float]


class Pruning(L.Callback):
    """Report each epoch's Dice to Optuna, and stop the trial if Optuna prunes it."""

    def __init__(self, trial: optuna.Trial, *, prune: bool) -> None:
        self.trial, self.prune, self.pruned = trial, prune, False
        self._num_reported = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the newest validation; in a resumed trial also the earlier ones."""
        assert isinstance(pl_module, SegmentationModule)
        if len(pl_module.history) == self._num_reported:
            return
        for row in pl_module.history[self._num_reported :]:
            self.trial.report(0.0 if math.isnan(row["dice"]) else row["dice"], int(row["epoch"]))
        self._num_reported = len(pl_module.history)
        self.trial.set_user_attr("minutes", pl_module.history[-1]["minutes"])
        if self.prune and self.trial.should_prune():
            self.pruned = trainer.should_stop = True


class _TrialFailedError(Exception):
    """A trial failed because of its settings; the search continues."""


def search(
    config: Config,
    folder: Path,
    train: TrainTrial,
    *,
    study_name: str,
    storage_url: str | None = None,
    made_from: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Run trials until `tuning.trials` of them, or the whole grid, have finished; return their table, best first.

    The space must have passed `check_space`. `train(name, changes, callbacks)` trains one trial in the folder `name`
    with changes to the configuration, and returns its best validation Dice. Processes that use the same server or
    journal (`storage_url`) and study name work on the same search. `made_from` holds hashes of what else its trials
    have in common. Writes `trials.csv`, `best.yaml` (the best configuration) and TensorBoard's HParams in `folder`.

    Raises:
        InputError: the folder holds another search, or the storage cannot be used.
    """
    tuning, storage = config.tuning, TrialStorage(folder, storage_url)
    study = storage.open_study(study_name)
    _check_identity(folder, {"study": study_name, "storage": storage.kind, **(made_from or {})})

    def objective(trial: optuna.Trial, turn: ExitStack, claim: ExitStack) -> float:
        claim.enter_context(storage.claim(trial))
        # The draw depends only on (seed, trial): a resumed search, or another machine, does not repeat draws.
        study.sampler = _sampler(tuning, [config.seed, trial.number])
        changes, pruning = suggest(trial, tuning.space), Pruning(trial, prune=tuning.prune)
        turn.close()  # the next process sees that this trial is taken
        name = folder_of(trial)
        try:
            dice = train(name, changes, [pruning])
        except BaseException as error:
            if not _is_caused_by_settings(error, changes):
                # Ctrl-C or a full disk: the trial is continued when the search is resumed.
                queue(study, study.trials[trial.number])
                raise
            trial.set_user_attr("reason", _reason(error))
            _log.info(f"{name} failed: {_reason(error)}")
            raise _TrialFailedError from error
        _write_hparams(folder / "tensorboard" / name, trial.params, dice)
        _log.info(f"{name} {'was pruned at' if pruning.pruned else 'reached'} validation Dice {dice:.3f}")
        if pruning.pruned:
            raise optuna.TrialPruned
        return dice

    num_wanted = tuning.trials
    if tuning.sampler == "grid":
        num_wanted = min(num_wanted, math.prod(len(values) for values in make_grid(tuning.space).values()))
    while True:
        with ExitStack() as claim, ExitStack() as turn:  # the claim ends when the result is stored
            turn.enter_context(storage.turn())
            requeue(study, storage.lost_trials(study))
            if num_assigned(study, is_shared=storage.kind != "sqlite") >= num_wanted:
                break
            study.sampler = _sampler(tuning, [config.seed])
            study.optimize(partial(objective, turn=turn, claim=claim), n_trials=1, catch=(_TrialFailedError,))
        _write_results(study, config, folder)
    return _write_results(study, config, folder)


def _check_identity(folder: Path, identity: dict[str, str]) -> None:
    """Record which search the folder holds, so that trials of two searches are never mixed.

    What an earlier medunet did not record is not compared.

    Raises:
        InputError: the folder holds another search.
    """
    path = folder / "study.json"
    before = read_json_object(path) if path.exists() else {}
    if any(before.get(key, value) != value for key, value in identity.items()):
        raise InputError(
            "holds trials of another search: its space, settings, cases, plan, initial weights or storage differ",
            where=str(folder),
            hint="Restore them, remove the folder, or search in another run folder.",
        )
    write_json(path, identity)


def _sampler(tuning: TuningConfig, seeds: Sequence[int]) -> optuna.samplers.BaseSampler:
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    if tuning.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if tuning.sampler == "grid":
        return optuna.samplers.GridSampler(
            make_grid(tuning.space), seed=0
        )  # the same order for all machines and after a resume
    return optuna.samplers.TPESampler(seed=seed)


def _is_caused_by_settings(error: BaseException, changes: Sequence[str]) -> TypeGuard[MedunetError]:
    """Return whether a trial failed because of its settings rather than the machine or the user.

    Insufficient memory is attributed to the settings if they change the plan, otherwise to the machine.
    """
    if isinstance(error, PreemptedError):
        return False
    if isinstance(error, NoMemoryError):
        return any(change.startswith("planning.") for change in changes)
    return isinstance(error, MedunetError) and not isinstance(error.__cause__, OSError)


def _reason(error: MedunetError) -> str:
    """Return why a trial failed, without paths, because the table may be shared."""
    return error.what if "/" in error.where else str(error)


# ---- results ----------------------------------------------------------------------------------------------------


def _write_hparams(folder: Path, parameters: Mapping[str, Any], dice: float) -> None:
    """Write TensorBoard's HParams entry of a trial, replacing an existing one."""
    for path in folder.glob("events.*"):
        path.unlink()
    with SummaryWriter(str(folder)) as writer:
        for summary in hparams(to_table_values(parameters), {_METRIC: dice}):
            writer.file_writer.add_summary(summary)
        writer.add_scalar(_METRIC, dice)


def _write_results(study: optuna.Study, config: Config, folder: Path) -> pd.DataFrame:
    """Write the table of all trials and the best trial's configuration; return the table."""
    newest = newest_trials(study)
    rows = [
        {
            "trial": folder_of(trial),
            "state": _STATES[trial.state],
            "dice": trial.value
            if trial.state == TrialState.COMPLETE
            else max(trial.intermediate_values.values(), default=math.nan),
            "epochs": max(trial.intermediate_values, default=-1) + 1,
            "minutes": trial.user_attrs.get("minutes"),
            **to_table_values(settings_of(trial)),
            "reason": trial.user_attrs.get("reason", ""),
        }
        for trial in newest
    ]
    order = list(_STATES.values())
    table = pd.DataFrame(rows).sort_values(
        ["state", "dice", "trial"],
        key=lambda column: column.map(order.index) if column.name == "state" else column,
        ascending=[True, False, True],
        ignore_index=True,
    )
    write_text(folder / "trials.csv", table.to_csv(index=False))
    complete = [trial for trial in newest if trial.state == TrialState.COMPLETE]
    if complete:
        best = max(complete, key=lambda trial: trial.value or 0.0)
        best_config = change_config(config.to_dict(), as_changes(best.params), "tuning.space")
        best_config.write(folder / "best.yaml")
    return table

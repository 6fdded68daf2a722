"""Hyperparameter search with Optuna: each trial trains a fold, bad trials are pruned, and a search can be resumed.

Trials are stored in a database (SQLite in the run's folder, or a server that several machines share) and each in its
own folder `tuning/trial_0007/`, which is an ordinary run. A resumed search continues interrupted trials: such a trial
is in the database twice, as failed and, with the same folder, as the trial that continued it.
"""

import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import lightning as L
import numpy as np
import pandas as pd
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from medunet.base.errors import InputError, MedunetError, NoMemoryError
from medunet.base.files import read_json_object, write_json, write_text
from medunet.records.config import Config, TuningConfig, change_config
from medunet.training.module import SegmentationModule

try:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    from medunet.training.tuning_space import as_changes, make_grid, suggest, to_table_values
except ImportError as error:
    raise InputError(
        "Optuna is not installed", where="medunet tune", hint="Run `pip install 'medunet[tune]'`."
    ) from error

_log = logging.getLogger(__name__)
_STATE = optuna.trial.TrialState
_STATES = {  # in the table's order
    _STATE.COMPLETE: "complete", _STATE.PRUNED: "pruned", _STATE.FAIL: "failed", _STATE.RUNNING: "running",
    _STATE.WAITING: "waiting",
}  # fmt: skip
_METRIC = "best validation Dice"
_HEARTBEAT_S = 60  # a trial on a server without a heartbeat for twice as long is started again
_TRIALS_BEFORE_PRUNING = 3

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
    with changes to the configuration, and returns its best validation Dice. Machines that use the same server and
    study name work on the same search. `made_from` holds hashes of what else its trials have in common. Writes
    `trials.csv`, `best.yaml` (the best configuration) and TensorBoard's HParams in `folder`.

    Raises:
        InputError: the folder holds another search, or the server cannot be reached.
    """
    tuning, is_shared = config.tuning, storage_url is not None
    study = _open_study(folder, study_name, storage_url)
    storage = "server" if is_shared else "sqlite"
    _check_identity(folder, {"study": study_name, "storage": storage, **(made_from or {})})

    def objective(trial: optuna.Trial) -> float:
        # The draw depends only on (seed, trial): a resumed search, or another machine, does not repeat draws.
        study.sampler = _sampler(tuning, [config.seed, trial.number])
        changes, pruning = suggest(trial, tuning.space), Pruning(trial, prune=tuning.prune)
        name = _folder_of(trial)
        try:
            dice = train(name, changes, [pruning])
        except BaseException as error:
            if not _is_caused_by_settings(error, changes):
                # Ctrl-C or a full disk: the trial is continued when the search is resumed.
                _queue(study, study.trials[trial.number])
                raise
            trial.set_user_attr("reason", _reason(error))
            _log.info(f"{name} failed: {_reason(error)}")
            raise _TrialFailedError from error
        _write_hparams(folder / "tensorboard" / name, trial.params, dice)
        _log.info(f"{name} {'was pruned at' if pruning.pruned else 'reached'} validation Dice {dice:.3f}")
        if pruning.pruned:
            raise optuna.TrialPruned
        return dice

    if not is_shared:
        _requeue_interrupted(study)
    study.sampler = _sampler(tuning, [config.seed])
    num_wanted = tuning.trials
    if tuning.sampler == "grid":
        num_wanted = min(num_wanted, math.prod(len(values) for values in make_grid(tuning.space).values()))
    while _num_assigned(study, is_shared=is_shared) < num_wanted:
        study.optimize(objective, n_trials=1, catch=(_TrialFailedError,))
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


def _open_study(folder: Path, name: str, url: str | None) -> optuna.Study:
    optuna.logging.set_verbosity(logging.ERROR)  # pruned and failed trials are logged by `search`
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    folder.mkdir(parents=True, exist_ok=True)
    hint = "Remove the tuning folder to start a new search."
    if url:
        hint = "Give a reachable server, such as postgresql://USER:PASSWORD@HOST/DATABASE, and install its driver."
    try:
        storage = optuna.storages.RDBStorage(
            url or f"sqlite:///{(folder / 'study.db').resolve()}",
            heartbeat_interval=_HEARTBEAT_S if url else None,
            heartbeat_stale_trial_callback=_queue if url else None,
        )
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        raise InputError(
            f"cannot be used ({type(error).__name__})",
            where="--storage" if url else str(folder / "study.db"),
            hint=hint,
        ) from error
    return optuna.create_study(
        study_name=name,
        storage=storage,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_TRIALS_BEFORE_PRUNING, n_warmup_steps=1),
        direction="maximize",
        load_if_exists=True,
    )


def _sampler(tuning: TuningConfig, seeds: Sequence[int]) -> optuna.samplers.BaseSampler:
    seed = int(np.random.SeedSequence(seeds).generate_state(1)[0])
    if tuning.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if tuning.sampler == "grid":
        return optuna.samplers.GridSampler(
            make_grid(tuning.space), seed=0
        )  # the same order for all machines and after a resume
    return optuna.samplers.TPESampler(seed=seed)


# ---- interrupted trials -----------------------------------------------------------------------------------------


def _folder_of(trial: optuna.Trial | optuna.trial.FrozenTrial) -> str:
    """Return the name of a trial's folder: its own, or that of the interrupted trial that it continues."""
    return trial.user_attrs.get("folder", f"trial_{trial.number:04d}")


def _settings_of(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Return a trial's settings; empty if it was interrupted before all settings of a grid point were set."""
    settings = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    return settings if len(settings) == len(trial.system_attrs.get("search_space", settings)) else {}


def _queue(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Enqueue an interrupted trial's settings, to be continued in its folder."""
    if settings := _settings_of(trial):
        study.enqueue_trial(settings, user_attrs={"folder": _folder_of(trial)})


def _requeue_interrupted(study: optuna.Study) -> None:
    """Enqueue the trials of a local study that were started but neither finished nor enqueued."""
    newest = {trial.number for trial in _newest_trials(study)}
    for trial in study.trials:
        if trial.state == _STATE.RUNNING and _settings_of(trial):
            if trial.number in newest:
                _queue(study, trial)
            study.tell(trial.number, state=_STATE.FAIL)


def _newest_trials(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the newest trial of each folder."""
    return list({_folder_of(trial): trial for trial in study.trials if _settings_of(trial)}.values())


def _num_assigned(study: optuna.Study, *, is_shared: bool) -> int:
    """Return the number of trials that have finished or are running on another machine."""
    if is_shared:
        optuna.storages.fail_stale_trials(study)
    return sum(
        trial.state in (_STATE.COMPLETE, _STATE.PRUNED)
        or "reason" in trial.user_attrs
        or (is_shared and trial.state == _STATE.RUNNING)
        for trial in _newest_trials(study)
    )


def _is_caused_by_settings(error: BaseException, changes: Sequence[str]) -> TypeGuard[MedunetError]:
    """Return whether a trial failed because of its settings rather than the machine or the user.

    Insufficient memory is attributed to the settings if they change the plan, otherwise to the machine.
    """
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
    newest = _newest_trials(study)
    rows = [
        {
            "trial": _folder_of(trial),
            "state": _STATES[trial.state],
            "dice": trial.value
            if trial.state == _STATE.COMPLETE
            else max(trial.intermediate_values.values(), default=math.nan),
            "epochs": max(trial.intermediate_values, default=-1) + 1,
            "minutes": trial.user_attrs.get("minutes"),
            **to_table_values(_settings_of(trial)),
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
    complete = [trial for trial in newest if trial.state == _STATE.COMPLETE]
    if complete:
        best = max(complete, key=lambda trial: trial.value or 0.0)
        best_config = change_config(config.to_dict(), as_changes(best.params), "tuning.space")
        best_config.write(folder / "best.yaml")
    return table

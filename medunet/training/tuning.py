"""The search for better settings: Optuna proposes, a fold is trained, bad trials end early, everything is kept.

Trials lie in a database (SQLite beside the run, or a server's URL that many machines share) and in folders of their
own, `tuning/trial_0007/`, each an ordinary run. A killed search goes on with the trials that it had begun: such a
trial stands in the database as failed, and once more, in the same folder, as the one that went on.
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

    from medunet.training.tuning_space import as_changes, as_shown, grid_of, suggest
except ImportError as error:
    raise InputError(
        "Optuna is not installed", where="medunet tune", hint="pip install 'medunet[tune]'"
    ) from error

_log = logging.getLogger(__name__)
_STATE = optuna.trial.TrialState
_STATES = {  # in the table's order
    _STATE.COMPLETE: "complete", _STATE.PRUNED: "pruned", _STATE.FAIL: "failed", _STATE.RUNNING: "running",
    _STATE.WAITING: "waiting",
}  # fmt: skip
_METRIC = "best validation Dice"
_HEARTBEAT_S = 60  # a trial on a server's list whose machine has been silent for twice as long is begun again
_TRIALS_BEFORE_PRUNING = 3

TrainTrial = Callable[[str, list[str], Sequence[L.Callback]], float]


class Pruning(L.Callback):
    """Tell Optuna each epoch's Dice, and stop where it says that the trial lies below the others."""

    def __init__(self, trial: optuna.Trial, *, prune: bool) -> None:
        self.trial, self.prune, self.pruned = trial, prune, False
        self._num_told = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Report the newest validation; of a trial that goes on after a kill, those before it as well."""
        assert isinstance(pl_module, SegmentationModule)
        if len(pl_module.history) == self._num_told:
            return
        for row in pl_module.history[self._num_told :]:
            self.trial.report(0.0 if math.isnan(row["dice"]) else row["dice"], int(row["epoch"]))
        self._num_told = len(pl_module.history)
        self.trial.set_user_attr("minutes", pl_module.history[-1]["minutes"])
        if self.prune and self.trial.should_prune():
            self.pruned = trainer.should_stop = True


class _TrialFailedError(Exception):
    """A trial's settings could not be trained with; the others go on."""


def search(
    config: Config, folder: Path, train: TrainTrial, *, study_name: str, storage_url: str | None = None
) -> pd.DataFrame:
    """Run trials until the study holds `tuning.trials` that ended, or its whole grid; return their table, best first.

    The space is one that `check_space` passed. `train(name, changes, callbacks)` trains one trial in the folder
    `name` with changes to the configuration, and returns its best validation Dice. Machines that share a server join
    the study of the same name. Writes `trials.csv`, `best.yaml` (the configuration to train with) and TensorBoard's
    HParams below `folder`.

    Raises:
        InputError: the folder holds another search, or the server cannot be reached.
    """
    tuning, is_shared = config.tuning, storage_url is not None
    study = _open_study(folder, study_name, storage_url)
    _claim(folder, {"study": study_name, "storage": "server" if is_shared else "sqlite"})

    def objective(trial: optuna.Trial) -> float:
        # What is drawn is a function of (seed, trial): a search that goes on, or another machine, draws anew.
        study.sampler = _sampler(tuning, [config.seed, trial.number])
        changes, pruning = suggest(trial, tuning.space), Pruning(trial, prune=tuning.prune)
        name = _folder_of(trial)
        try:
            dice = train(name, changes, [pruning])
        except BaseException as error:
            if not _is_of_settings(error, changes):
                # Ctrl-C, a full disk: the trial goes on when the search does.
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
        _take_up_killed(study)
    study.sampler = _sampler(tuning, [config.seed])
    num_wanted = tuning.trials
    if tuning.sampler == "grid":
        num_wanted = min(num_wanted, math.prod(len(values) for values in grid_of(tuning.space).values()))
    while _num_taken(study, is_shared=is_shared) < num_wanted:
        study.optimize(objective, n_trials=1, catch=(_TrialFailedError,))
        _write_results(study, config, folder)
    return _write_results(study, config, folder)


def _claim(folder: Path, identity: dict[str, str]) -> None:
    """Keep which search the folder holds: trials of two searches would be mistaken for one another's.

    Raises:
        InputError: it holds another one.
    """
    path = folder / "study.json"
    if path.exists() and read_json_object(path) != identity:
        raise InputError(
            "holds trials of another search: its space, settings, cases or kind of storage were others",
            where=str(folder),
            hint="Restore them, remove the folder, or search in another run.",
        )
    write_json(path, identity)


def _open_study(folder: Path, name: str, url: str | None) -> optuna.Study:
    optuna.logging.set_verbosity(logging.ERROR)  # pruned and failed trials are told in our words
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    folder.mkdir(parents=True, exist_ok=True)
    hint = "Remove the tuning folder to search anew."
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
            grid_of(tuning.space), seed=0
        )  # one order for all machines and lives
    return optuna.samplers.TPESampler(seed=seed)


# ---- trials that were killed ------------------------------------------------------------------------------------


def _folder_of(trial: optuna.Trial | optuna.trial.FrozenTrial) -> str:
    """Return the name of a trial's folder: its own, or that of the killed trial which it goes on with."""
    return trial.user_attrs.get("folder", f"trial_{trial.number:04d}")


def _settings_of(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Return what was drawn for a trial; nothing where a kill came before all of a grid's point was."""
    settings = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    return settings if len(settings) == len(trial.system_attrs.get("search_space", settings)) else {}


def _queue(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Put a killed trial's settings in the queue, to go on in its folder."""
    if settings := _settings_of(trial):
        study.enqueue_trial(settings, user_attrs={"folder": _folder_of(trial)})


def _take_up_killed(study: optuna.Study) -> None:
    """Queue the trials of this machine's own list that were begun and neither ended nor queued."""
    newest = {trial.number for trial in _newest(study)}
    for trial in study.trials:
        if trial.state == _STATE.RUNNING and _settings_of(trial):
            if trial.number in newest:
                _queue(study, trial)
            study.tell(trial.number, state=_STATE.FAIL)


def _newest(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return one entry for each folder, the one that went on last."""
    return list({_folder_of(trial): trial for trial in study.trials if _settings_of(trial)}.values())


def _num_taken(study: optuna.Study, *, is_shared: bool) -> int:
    """Return how many trials need no machine any more: they have ended, or other machines are at work on them."""
    if is_shared:
        optuna.storages.fail_stale_trials(study)
    return sum(
        trial.state in (_STATE.COMPLETE, _STATE.PRUNED)
        or "reason" in trial.user_attrs
        or (is_shared and trial.state == _STATE.RUNNING)
        for trial in _newest(study)
    )


def _is_of_settings(error: BaseException, changes: Sequence[str]) -> TypeGuard[MedunetError]:
    """Say whether a trial failed because of its settings, and not because of the machine's state or its user.

    Memory that does not suffice is the settings' fault where they change the plan, else the machine's.
    """
    if isinstance(error, NoMemoryError):
        return any(change.startswith("planning.") for change in changes)
    return isinstance(error, MedunetError) and not isinstance(error.__cause__, OSError)


def _reason(error: MedunetError) -> str:
    """Return why a trial failed, without the paths that an error may name: the table is kept and handed on."""
    return error.what if "/" in error.where else str(error)


# ---- results ----------------------------------------------------------------------------------------------------


def _write_hparams(folder: Path, parameters: Mapping[str, Any], dice: float) -> None:
    """Write TensorBoard's HParams entry of a trial, anew each time."""
    for path in folder.glob("events.*"):
        path.unlink()
    with SummaryWriter(str(folder)) as writer:
        for summary in hparams(as_shown(parameters), {_METRIC: dice}):
            writer.file_writer.add_summary(summary)
        writer.add_scalar(_METRIC, dice)


def _write_results(study: optuna.Study, config: Config, folder: Path) -> pd.DataFrame:
    """Write the table of all trials, and the best one's configuration; return the table."""
    newest = _newest(study)
    rows = [
        {
            "trial": _folder_of(trial),
            "state": _STATES[trial.state],
            "dice": trial.value
            if trial.state == _STATE.COMPLETE
            else max(trial.intermediate_values.values(), default=math.nan),
            "epochs": max(trial.intermediate_values, default=-1) + 1,
            "minutes": trial.user_attrs.get("minutes"),
            **as_shown(_settings_of(trial)),
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

"""Where the trials of a search are stored: SQLite in the run's folder, a database server, or Optuna's journal file.

A server tells by heartbeats which trials are alive. A journal has none: there each process holds a lock of its trial
beside the journal. The operating system releases it when the process ends, however it ends.
"""

import logging
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock, JournalStorage
from sqlalchemy.exc import SQLAlchemyError

from medunet.base.errors import InputError
from medunet.base.file_systems import has_local_locks, shared_type
from medunet.base.lock import held_parts, hold, wait_for
from medunet.training.tuning_trials import queue

_log = logging.getLogger(__name__)
_HEARTBEAT_S = 60  # a trial on a server without a heartbeat for twice as long is started again
_TRIALS_BEFORE_PRUNING = 3
_JOURNAL = ".journal"


@dataclass(frozen=True)
class TrialStorage:
    """The storage of a search's trials; `where` is None (SQLite in `folder`), a URL, or a path `*.journal`."""

    folder: Path
    where: str | None = None

    @property
    def kind(self) -> Literal["sqlite", "server", "journal"]:
        """Which of the three it is."""
        if self.where is None:
            return "sqlite"
        return "journal" if self.where.endswith(_JOURNAL) and "://" not in self.where else "server"

    def open_study(self, name: str) -> optuna.Study:
        """Open or create the study of a search.

        Raises:
            InputError: the storage cannot be used, or it is SQLite on a folder that hosts share.
        """
        optuna.logging.set_verbosity(logging.ERROR)  # pruned and failed trials are logged by `search`
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self.folder.mkdir(parents=True, exist_ok=True)
        return optuna.create_study(
            study_name=name,
            storage=self._open_journal() if self.kind == "journal" else self._open_database(),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_TRIALS_BEFORE_PRUNING, n_warmup_steps=1),
            direction="maximize",
            load_if_exists=True,
        )

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Take turns with the other processes in taking up a trial; only with a journal."""
        if self.kind != "journal":
            yield
            return
        with wait_for(self._journal.parent, "trials"):
            yield

    @contextmanager
    def claim(self, trial: optuna.Trial) -> Iterator[None]:
        """Hold the lock of a trial while it is trained; only with a journal."""
        if self.kind != "journal":
            yield
            return
        trial.set_user_attr("host", platform.node())
        with hold(self._journal.parent, "trial", [_claim_of(trial, trial.study)], command="medunet tune"):
            yield

    def lost_trials(self, study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
        """Return the trials that are being trained by a process which has ended; to be called within a `turn`.

        With SQLite, which one process uses alone, these are all. With a server its heartbeats tell. Where locks do
        not reach other hosts, only trials of this host are judged.
        """
        if self.kind == "server":
            return []
        # Before the trials are read: those that end in between are no longer running.
        held = held_parts(self._journal.parent, "trial") if self.kind == "journal" else frozenset()
        if held is None:  # no locks: nobody can tell
            return []
        running = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.RUNNING]
        if self.kind == "sqlite":
            return running
        lost = [trial for trial in running if _claim_of(trial, study) not in held]
        if has_local_locks(self._journal.parent):
            lost = [trial for trial in lost if trial.user_attrs.get("host") == platform.node()]
        return lost

    @property
    def _journal(self) -> Path:
        assert self.where is not None
        return Path(self.where).resolve()

    def _open_journal(self) -> JournalStorage:
        path = self._journal
        if has_local_locks(path.parent):
            _log.warning(
                f"{path.parent}: the locks of this mount do not reach other hosts. A trial that is killed on one "
                "host is taken up again on that host only."
            )
        try:
            # Optuna's default lock is a symbolic link, which Windows shares lack.
            return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"{path.name} cannot be used ({type(error).__name__})",
                where="--storage",
                hint="Give a file in a folder that exists and can be written; a damaged one has to be removed.",
            ) from error

    def _open_database(self) -> optuna.storages.RDBStorage:
        url, is_server = self.where, self.kind == "server"
        file = self.folder / "study.db"
        if url is None or url.startswith("sqlite:///"):
            _refuse_shared(file if url is None else Path(url.removeprefix("sqlite:///")), self.folder)
        try:
            return optuna.storages.RDBStorage(
                url or f"sqlite:///{file.resolve()}",
                heartbeat_interval=_HEARTBEAT_S if is_server else None,
                heartbeat_stale_trial_callback=queue if is_server else None,
            )
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
            hint = "Remove the tuning folder to start a new search."
            if is_server:
                hint = (
                    "Give a reachable server, such as postgresql://USER:PASSWORD@HOST/DATABASE, and install its "
                    f"driver, or a file FILE{_JOURNAL}."
                )
            raise InputError(
                f"cannot be used ({type(error).__name__})",
                where="--storage" if is_server else str(file),
                hint=hint,
            ) from error


def _refuse_shared(database: Path, folder: Path) -> None:
    """Check that SQLite is not on a network folder, where its locks do not work and its files get damaged.

    Raises:
        InputError: it is.
    """
    if kind := shared_type(database.parent):
        raise InputError(
            f"SQLite does not work on a network folder ({kind})",
            where=str(database),
            hint=f"Use Optuna's journal: `--storage {folder.parent / f'tuning{_JOURNAL}'}`.",
        )


def _claim_of(trial: optuna.Trial | optuna.trial.FrozenTrial, study: optuna.Study) -> str:
    return f"{study.study_name} {trial.number}"

"""The system's request to end: SIGTERM, as Slurm and Kubernetes send before they kill, or SIGUSR1.

While a network is trained, the request waits for the end of a step, so that all processes end at the same step with a
whole checkpoint. At any other time the command ends at once.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L

from medunet.base.errors import PreemptedError
from medunet.compute.processes import LostProcessError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Listens for the signals in `SIGNALS`; `is_asked` says whether one has arrived in this process."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._is_deferred = False
        self._process = os.getpid()

    @property
    def is_asked(self) -> bool:
        """Whether the system has asked this process to end."""
        return self._signal is not None

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Listen within this context; outside of the main thread, which alone receives signals, do nothing.

        Raises:
            PreemptedError: the system asked this process to end.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, self._receive)
        try:
            yield self
        except LostProcessError as lost:
            if self.is_asked:  # the other process was asked as well, and was the first to end
                raise self.error("and another process has ended already") from lost
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this context a signal only sets `is_asked`."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def error(self, when: str) -> PreemptedError:
        """Return the error to end with."""
        name = "another process's signal" if self._signal is None else self._signal.name
        return PreemptedError(f"asked to end by {name}, {when}", hint="Run the same command to go on.")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked data loader, which gets the signals of its group
            return
        self._signal = signal.Signals(number)
        if not self._is_deferred:
            raise self.error("before the first step")


def keep_from_signals(trainer: L.Trainer) -> None:
    """Keep Lightning from installing its handlers, of which that of SIGTERM would end in a deadlock.

    It talks to the other processes at once, from wherever it interrupts this one, while they are elsewhere.
    """
    handler: Any = signal.getsignal(signal.SIGINT)
    connector = trainer._signal_connector  # which puts back Ctrl-C's handler, ignored once it has come
    vars(connector)["register_signal_handlers"] = lambda: connector._original_handlers.update(
        {signal.SIGINT: handler}
    )

"""The system's request to end: SIGTERM, as Slurm and Kubernetes send before they kill, or SIGUSR1.

While a network is trained, the request waits for the end of a step, so that all processes end at the same step with a
whole checkpoint. At any other time the command ends at once.
"""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning as L

from medunet.base.errors import PreemptedError
from medunet.compute.processes import LostProcessError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_END_S = 5.0  # within which another signal does not interrupt the end


class _Asked(BaseException):
    """Raised wherever a signal arrives; an `Exception` might be taken for a fault of the code that it interrupts."""


class StopRequest:
    """Listens for the signals in `SIGNALS`; `is_asked` says whether one has arrived in this process."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._is_deferred = False
        self._interrupted_at = -math.inf
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
        except _Asked:
            raise self.error("with no step in work") from None
        except Exception as error:
            if (
                self._interrupted_at > -math.inf
            ):  # what was interrupted, such as C++, may turn it into its own error
                raise self.error("with no step in work") from error
            if self.is_asked and isinstance(error, LostProcessError):  # it was asked as well, and ended first
                raise self.error("and another process has ended already") from error
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

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within this context a signal waits for its end."""
        with self.deferred():
            yield
        self.answer()

    def answer(self) -> None:
        """End if a signal that was deferred has not been answered yet.

        Raises:
            PreemptedError: the system has asked this process to end.
        """
        if self.is_asked:
            raise self.error("with no step in work")

    def error(self, when: str) -> PreemptedError:
        """Return the error to end with."""
        name = "another process's signal" if self._signal is None else self._signal.name
        return PreemptedError(f"asked to end by {name}, {when}", hint="Run the same command to go on.")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked data loader, which gets the signals of its group
            return
        self._signal = signal.Signals(number)
        now = time.monotonic()
        if not self._is_deferred and now - self._interrupted_at > _END_S:
            self._interrupted_at = now
            raise _Asked


def keep_from_signals(trainer: L.Trainer) -> None:
    """Keep Lightning from installing its handlers, of which that of SIGTERM would end in a deadlock.

    It talks to the other processes at once, from wherever it interrupts this one, while they are elsewhere.
    """
    handler: Any = signal.getsignal(signal.SIGINT)
    connector = trainer._signal_connector  # which puts back Ctrl-C's handler, ignored once it has come
    vars(connector)["register_signal_handlers"] = lambda: connector._original_handlers.update(
        {signal.SIGINT: handler}
    )

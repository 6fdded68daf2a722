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

from medunet.base.errors import PreemptedError
from medunet.compute.processes import LostProcessError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopRequest:
    """Listens for the signals in `SIGNALS`; `is_asked` says whether one has arrived in this process."""

    def __init__(self) -> None:
        self._signal: signal.Signals | None = None
        self._is_listening = self._is_deferred = False
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
        self._is_listening = True
        self.install()
        try:
            yield self
        except LostProcessError as lost:
            if self.is_asked:  # the other process was asked as well, and was the first to end
                raise self.error("and another process has ended already") from lost
            raise
        finally:
            self._is_listening = False
            for number, handler in before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Install the handlers while listening, again if another library has replaced them."""
        if self._is_listening:
            for number in SIGNALS:
                signal.signal(number, self._receive)

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

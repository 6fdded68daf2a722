"""Calls in threads: one beside other work, however it ends, or one for each part of an array."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from medunet.base.errors import InputError
from medunet.base.processor import num_threads

_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


class ThreadEndedError(Exception):
    """A thread ended by something that no caller of its function would expect, such as `SystemExit`."""


class Call(Generic[_Result]):
    """A call of a function in a thread that runs from now on. It does not keep the process alive."""

    def __init__(self, what: str, work: Callable[[], _Result]) -> None:
        """Start the thread; `what` names its work in errors."""
        self._what, self._work = what, work
        self._results: list[_Result] = []
        self._error: BaseException | None = None
        self._ended = threading.Event()  # a `join` that Ctrl-C interrupts takes the thread for ended
        threading.Thread(target=self._run, name=what, daemon=True).start()

    def _run(self) -> None:
        try:
            self._results.append(self._work())
        except BaseException as error:
            self._error = error
        finally:
            del self._work  # so that it keeps nothing that only the call needed
            self._ended.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end of the call, at most for so many seconds."""
        self._ended.wait(seconds)

    def result(self) -> _Result:
        """Wait for the end of the call and return its result, which is not kept.

        Raises:
            Exception: what the function raised.
            ThreadEndedError: the thread ended by anything else than a result or an `Exception`.
        """
        self.wait()
        if isinstance(self._error, Exception):
            raise self._error
        if not self._results:
            raise ThreadEndedError(f"{self._what} ended by {self._error!r}") from self._error
        return self._results.pop()

    def raise_if_broken(self) -> None:
        """Raise the error of a call that has ended in a way that concerns more than this call.

        Raises:
            InputError: it raised this: a full disk, or options that cannot be used.
            ThreadEndedError: as of `result`.
        """
        if not self._ended.is_set() or self._results:
            return
        if isinstance(self._error, InputError) or not isinstance(self._error, Exception):
            self.result()


def map_threads(function: Callable[[_Part], _Result], parts: Sequence[_Part]) -> list[_Result]:
    """Return the function's result for each part, in order; a single part is computed without a thread.

    Raises:
        Exception: the first one that the function raises, once the parts that had begun are done.
    """
    workers = min(num_threads(), len(parts))
    if workers < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, part) for part in parts]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def slices(size: int, length: int) -> list[slice]:
    """Return the parts of an axis of `size` voxels, each of `length` but for the last."""
    return [slice(start, min(start + length, size)) for start in range(0, size, length)]

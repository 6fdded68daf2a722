"""Work on many cases in processes of their own: one that dies takes its own case with it, never another.

Processes are spawned, not forked: each begins clean, whatever threads the first one runs.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from medunet.base.errors import InputError
from medunet.base.free_memory import free_bytes
from medunet.base.processor import usable_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_FEW_CASES = 4  # fewer are done sooner than processes start
_FEW_VOXELS = 20_000_000  # and so are cases that hold no more than these together
_BYTES_PER_VOXEL = 16  # at most at once, while a label map is read
_BYTES_PER_PROCESS = 300_000_000
_READY = "ready"
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # as NumPy reads them when it is loaded


def choose_workers(
    num_cases: int,
    num_voxels: int,
    *,
    bytes_per_voxel: int = _BYTES_PER_VOXEL,
    bytes_per_process: int = _BYTES_PER_PROCESS,
) -> int:
    """Return how many processes suit cases of up to `num_voxels` each: by cores and memory; 1 for little work."""
    if num_cases < _FEW_CASES or num_cases * num_voxels <= _FEW_VOXELS:
        return 1
    num_fitting = free_bytes() // (bytes_per_process + bytes_per_voxel * num_voxels)
    return max(1, min(num_cases, usable_cores(), int(num_fitting)))


def run_all(
    work: Callable[[_Item], _Result], items: Sequence[_Item], num_workers: int, *, apart: bool = False
) -> Generator[tuple[int, _Result | None], None, None]:
    """Yield each item's index and result as it is finished; None where its process was ended from outside.

    With one worker the work is done here, one item after the other, unless it is to stand `apart`, so that memory
    that runs out ends its process alone. `work` must not raise; in other processes it, the items and the results
    are pickled. Close the iterator to stop the processes.

    Raises:
        InputError: processes cannot be started.
    """
    if num_workers == 1 and not apart:
        for index, item in enumerate(items):
            yield index, work(item)
        return
    waiting = deque(enumerate(items))
    workers: dict[Any, _Worker] = {}
    try:
        for _ in range(min(num_workers, len(items))):
            _start(work, workers)
        while workers:
            for connection in wait(list(workers)):
                worker = workers[connection]
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    del workers[connection]
                    worker.end()
                    if worker.held is not None:
                        yield worker.held, None
                        if waiting:
                            _start(work, workers)
                    elif waiting and not workers:  # it died at its start, and no other goes on
                        raise InputError(
                            "processes cannot be started",
                            hint="A script must guard its calls by `if __name__ == '__main__':`; "
                            "else use one worker, where the command has --workers.",
                        ) from None
                    continue
                if worker.held is not None:
                    yield worker.held, message
                if waiting:
                    worker.give(*waiting.popleft())
                else:
                    del workers[connection]
                    worker.end()
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """A process that takes an item, sends its result and waits for the next; `held` is its item's index."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.held: int | None = None
        self._process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        with _one_thread_each():
            self._process.start()
        theirs.close()  # so that its end is seen here

    def give(self, index: int, item: object) -> None:
        self.held = index
        try:
            self.connection.send(item)
        except OSError:  # it has died: the next `recv` says so
            return

    def end(self) -> None:
        self.connection.close()
        self._process.kill()  # it holds nothing that must be finished: what it writes, it writes whole
        self._process.join()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let what starts meanwhile do linear algebra on one thread: processes share the cores already."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _start(work: Callable[[Any], Any], workers: dict[Any, _Worker]) -> None:
    worker = _Worker(work)
    workers[worker.connection] = worker


def _serve(work: Callable[[Any], Any], connection: Connection) -> None:
    """Live as a worker until the parent closes the connection or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends its workers
    try:
        connection.send(_READY)
        while True:
            connection.send(work(connection.recv()))
    except (EOFError, OSError):
        return

"""Process pool for many cases: if a worker process dies, only the case that it worked on is lost.

Processes are spawned, not forked, so that they do not inherit the state of the parent's threads.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from medunet.base.errors import InputError
from medunet.base.free_memory import free_bytes
from medunet.base.packages import keep_imports_lean
from medunet.base.processor import usable_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_FEW_CASES = 4  # fewer cases take less time than starting processes
_FEW_VOXELS = 20_000_000  # and so do cases with at most this many voxels in total
_BYTES_PER_VOXEL = 16  # peak while a label map is read
_BYTES_PER_PROCESS = 300_000_000
_READY = "ready"
_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read when NumPy is imported


def choose_workers(
    num_cases: int,
    num_voxels: int,
    *,
    bytes_per_voxel: int = _BYTES_PER_VOXEL,
    bytes_per_process: int = _BYTES_PER_PROCESS,
) -> int:
    """Choose the number of worker processes for cases of up to `num_voxels` voxels, by cores and free memory.

    Little work gets one worker.
    """
    if num_cases < _FEW_CASES or num_cases * num_voxels <= _FEW_VOXELS:
        return 1
    num_fitting = free_bytes() // (bytes_per_process + bytes_per_voxel * num_voxels)
    return max(1, min(num_cases, usable_cores(), int(num_fitting)))


def run_parallel(
    work: Callable[[_Item], _Result], items: Sequence[_Item], num_workers: int, *, isolated: bool = False
) -> Generator[tuple[int, _Result | None], None, None]:
    """Apply `work` to all items in parallel and yield each item's index and result as it is finished.

    The result is None if the item's process was killed. With one worker the items are processed in this process,
    unless `isolated` is set: then out of memory kills only the worker. `work` must not raise. For worker processes,
    `work`, the items and the results are pickled. Close the iterator to stop the processes.

    Raises:
        InputError: Processes cannot be started.
    """
    if num_workers == 1 and not isolated:
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
                    elif waiting and not workers:  # it died at its start, and no other worker is left
                        raise InputError(
                            "processes cannot be started",
                            hint="Put the calls of a script under `if __name__ == '__main__':`, "
                            "or use one worker if the command has --workers.",
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
    """A worker process that receives an item, sends back its result and waits for the next one.

    `held` is the index of the item in progress, None before the worker is ready.
    """

    def __init__(self, work: Callable[[Any], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.held: int | None = None
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _one_thread_each():
            self._process.start()
        theirs.close()  # so that the end of the process closes the pipe
        self._send(work)

    def give(self, index: int, item: object) -> None:
        self.held = index
        self._send(item)

    def _send(self, item: object) -> None:
        try:
            self.connection.send(item)
        except OSError:  # the process has died: the next `recv` raises
            return

    def end(self) -> None:
        self.connection.close()
        self._process.kill()  # safe: workers write files atomically
        self._process.join()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Limit processes started in this context to one thread for linear algebra, since they share the cores."""
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


def _serve(connection: Connection) -> None:
    """Receive a function and then items for it until the parent closes the connection or exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent stops its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_imports_lean()
    try:
        work = connection.recv()  # imports what the function needs
        connection.send(_READY)
        while True:
            connection.send(work(connection.recv()))
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    """End a worker as soon as its parent is killed: its lock is free by then, and another process may write."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

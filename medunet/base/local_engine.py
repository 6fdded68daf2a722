"""Workers that are processes of this computer.

Processes are spawned, not forked, so that they do not inherit the state of the parent's threads.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from medunet.base.free_memory import free_bytes
from medunet.base.packages import keep_imports_lean
from medunet.base.pool import Message, Serve, Worker, Workers, serve_batches
from medunet.base.processor import usable_cores

_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # read when NumPy is imported
_READY = Message("ready")
_END = None


class _Process:
    """A worker process; see `Worker`."""

    def __init__(self, serve: Serve, number: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        with _one_thread_each():
            self._process.start()
        theirs.close()  # so that the end of the process closes the pipe
        self._send((serve, number))

    def give(self, batch: list[tuple[int, Any]]) -> None:
        self._send(batch)

    def finish(self) -> None:
        self._send(_END)

    def _send(self, item: object) -> None:
        try:
            self.connection.send(item)
        except OSError:  # the process has died: the next `recv` raises
            return

    def end(self) -> None:
        self.connection.close()
        self._process.kill()  # safe: workers write files atomically
        self._process.join()


class LocalEngine:
    """Starts processes of this computer; see `Engine`."""

    name = "local"
    retries = 0

    def count(self, num_items: int, workers: Workers) -> int:
        return min(num_items, usable_cores(), int(free_bytes() // workers.memory_bytes))

    def start(self, serve: Serve, workers: Workers, number: int) -> _Process:
        return _Process(serve, number)

    def hear(self, active: Sequence[Worker]) -> list[tuple[Worker, Message]]:
        by_connection: dict[Any, Worker] = {}
        for worker in active:
            assert isinstance(worker, _Process)
            by_connection[worker.connection] = worker
        heard = []
        for connection in wait(list(by_connection)):
            assert isinstance(connection, Connection)
            try:
                message = connection.recv()
            except (EOFError, OSError):
                message = Message("worker died")
            heard.append((by_connection[connection], message))
        return heard


LOCAL = LocalEngine()


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


def _serve(connection: Connection) -> None:
    """Receive a function and then items for it until the parent closes the connection or exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent stops its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_imports_lean()
    try:
        serve, number = connection.recv()  # imports what the function needs
        connection.send(_READY)
        try:
            for results in serve_batches(serve, iter(connection.recv, _END), number):
                connection.send(Message("done", results))
        except (EOFError, OSError):
            raise
        except Exception as error:
            connection.send(Message("error", value=error))
    except (EOFError, OSError):
        return


def _end_with_parent() -> None:
    """End a worker as soon as its parent is killed: its lock is free by then, and another process may write."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)

"""Work on many cases in parallel: one interface, and the engines that do the work behind it.

The default engine is processes of this computer (`local_engine.py`), the other one workers of a Ray cluster
(`ray_engine.py`). With either, a worker that dies loses the case alone that it worked on.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from medunet.base.errors import InputError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# Works on items as they come and yields each one's index and result, perhaps some items later. The second argument is
# the number of the worker, from 0.
Serve = Callable[[Iterator[tuple[int, Any]], int], Iterable[tuple[int, Any]]]

_FEW_CASES = 4  # fewer cases take less time than starting workers
_FEW_VOXELS = 20_000_000  # and so do cases with at most this many voxels in total
_BYTES_PER_VOXEL = 16  # peak while a label map is read
_BYTES_PER_PROCESS = 300_000_000
_MOMENT_S, _MOST_AHEAD = 0.1, 5  # of work that a worker has ahead, and items
_MOST_NODES = 3  # that may die with a case before it is given up


@dataclass(frozen=True)
class Workers:
    """How many workers there are, and what each of them needs."""

    count: int
    memory_bytes: int = _BYTES_PER_PROCESS
    cpus: float = 1
    gpus: float = 0  # may be a fraction: several workers then share a card


@dataclass(frozen=True)
class Lost:
    """The result of an item whose worker was killed as often as the engine allows."""

    why: str


@dataclass(frozen=True)
class Message:
    """What a worker tells: that it can work, a result, an error that ends the job, or that it is no more."""

    kind: Literal["ready", "done", "error", "worker died", "node died"]
    index: int = -1
    value: Any = None  # the result, the exception, or where the worker was


class Worker(Protocol):
    """One worker, which receives items and tells of them by messages."""

    def give(self, index: int, item: object) -> None:
        """Send an item."""

    def finish(self) -> None:
        """Tell it that no item follows; it then returns the results that it still holds back."""

    def end(self) -> None:
        """Stop it at once: all files are written whole."""


class Engine(Protocol):
    """What starts workers and hears of them."""

    name: str
    retries: int  # of a case whose worker died, and of workers that die before they can work

    def count(self, num_items: int, workers: Workers) -> int:
        """Return how many workers of these needs are worth starting, and fit."""

    def start(self, serve: Serve, workers: Workers, number: int) -> Worker:
        """Start the worker of a number from 0."""

    def hear(self, active: Sequence[Worker]) -> list[tuple[Worker, Message]]:
        """Wait for messages of workers."""


def choose_workers(
    num_cases: int,
    num_voxels: int,
    *,
    bytes_per_voxel: int = _BYTES_PER_VOXEL,
    bytes_per_process: int = _BYTES_PER_PROCESS,
) -> Workers:
    """Choose the number of workers for cases of up to `num_voxels` voxels, by the engine's cores and free memory.

    Little work gets one worker.
    """
    each = Workers(1, bytes_per_process + bytes_per_voxel * num_voxels)
    if num_cases < _FEW_CASES or num_cases * num_voxels <= _FEW_VOXELS:
        return each
    return Workers(max(1, min(num_cases, current_engine().count(num_cases, each))), each.memory_bytes)


def run_parallel(
    work: Callable[[_Item], _Result],
    items: Sequence[_Item],
    workers: Workers | int,
    *,
    isolated: bool = False,
) -> Generator[tuple[int, _Result | Lost], None, None]:
    """Apply `work` to all items in parallel and yield each item's index and result as it is finished.

    The result is `Lost` if the item's worker was killed. With one local worker the items are processed in this
    process, unless `isolated` is set: then out of memory kills only the worker. `work` must not raise. For workers,
    `work`, the items and the results are pickled. Close the iterator to stop the workers.

    Raises:
        InputError: workers cannot be started.
    """
    workers = Workers(workers) if isinstance(workers, int) else workers
    if workers.count == 1 and not isolated and current_engine().name == "local":
        for index, item in enumerate(items):
            yield index, work(item)
        return
    yield from serve_parallel(_Each(work), items, workers, ahead=None)


def serve_parallel(
    serve: Serve,
    items: Sequence[Any],
    workers: Workers,
    *,
    ahead: int | None = 0,
    sizes: Sequence[float] | None = None,
) -> Generator[tuple[int, Any], None, None]:
    """Let workers serve all items and yield each item's index and result as it is finished, or `Lost`.

    Args:
        serve: is called once in each worker, with the items as they come.
        ahead: items that a worker has beside the one that it works on, so that it can read one and write another
            meanwhile; None: as many as take it a moment, so that it does not wait for the next one.
        sizes: of the items; the largest are begun first, so that none is alone at the end.

    Raises:
        InputError: workers cannot be started, or `serve` raised an error, which ends the job.
    """
    order = range(len(items)) if sizes is None else sorted(range(len(items)), key=lambda index: -sizes[index])
    job = _Job(current_engine(), serve, items, workers, deque(order), ahead)
    try:
        yield from job.run()
    finally:
        for state in job.active:
            state.worker.end()


class _Each:
    """Serves items one by one with a function."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self._work = work

    def __call__(self, items: Iterator[tuple[int, Any]], number: int) -> Iterator[tuple[int, Any]]:
        for index, item in items:
            yield index, self._work(item)


@dataclass(eq=False)
class _State:
    """A worker with the items that it holds, oldest first."""

    worker: Worker
    number: int
    is_alone: bool = False  # with one item, whose worker has died before
    is_ready: bool = False
    is_finishing: bool = False
    held: list[int] = field(default_factory=list)


class _Job:
    """Gives items to workers and takes up those of the dead."""

    def __init__(
        self,
        engine: Engine,
        serve: Serve,
        items: Sequence[Any],
        workers: Workers,
        waiting: deque[int],
        ahead: int | None,
    ) -> None:
        self.active: list[_State] = []
        self._engine, self._serve, self._items, self._workers = engine, serve, items, workers
        self._waiting, self._ahead = waiting, ahead
        self._suspects: deque[int] = deque()  # held by a worker that died; each gets a worker of its own
        self._worker_deaths: Counter[int] = Counter()
        self._node_deaths: Counter[int] = Counter()
        self._failed_starts = 0
        self._num_done, self._begun = 0, 0.0  # since the first worker was ready

    def run(self) -> Iterator[tuple[int, Any]]:
        for number in range(min(self._workers.count, len(self._items))):
            self._start(number)
        while self.active:
            by_worker = {id(state.worker): state for state in self.active}
            for worker, message in self._engine.hear([state.worker for state in self.active]):
                state = by_worker[id(worker)]
                if state in self.active:  # a dead one may have owed several answers
                    yield from self._take(state, message)

    def _start(self, number: int) -> None:
        """Start a worker in the place of that number, if there is work for it."""
        unclaimed = len(self._waiting) - sum(not each.is_ready and not each.is_alone for each in self.active)
        if self._suspects:
            state = _State(self._engine.start(self._serve, self._workers, number), number, is_alone=True)
        elif unclaimed > 0:
            state = _State(self._engine.start(self._serve, self._workers, number), number)
        else:
            return
        self.active.append(state)

    def _take(self, state: _State, message: Message) -> Iterator[tuple[int, Any]]:
        if message.kind == "error":
            raise message.value
        if message.kind == "ready":
            state.is_ready, self._failed_starts = True, 0
            self._begun = self._begun or time.monotonic()
            self._give(state)
        elif message.kind == "done":
            state.held.remove(message.index)
            self._num_done += 1
            yield message.index, message.value
            self._give(state)
        else:
            self._remove(state)
            state.worker.end()
            if state.is_ready:
                yield from self._mourn(state.held, message)
            else:
                self._failed_starts += 1
            if self._failed_starts <= self._engine.retries:
                self._start(state.number)
            if not self.active and (self._waiting or self._suspects):
                raise InputError(
                    f"processes cannot be started{f': {message.value}' if message.value else ''}",
                    hint="Put the calls of a script under `if __name__ == '__main__':`, "
                    "or use one worker if the command has --workers.",
                )

    def _give(self, state: _State) -> None:
        """Give a worker as many items as it may hold, or end it if it has nothing to do."""
        source = self._suspects if state.is_alone else self._waiting
        most = 1 if state.is_alone else 1 + self._num_ahead()
        while source and len(state.held) < most and not state.is_finishing:
            index = source.popleft()
            state.held.append(index)
            state.worker.give(index, self._items[index])
            if state.is_alone:
                break
        if not state.is_finishing and (state.is_alone or not source):
            state.is_finishing = True
            state.worker.finish()
        if state.is_finishing and not state.held:
            self._remove(state)
            state.worker.end()
            self._start(state.number)

    def _num_ahead(self) -> int:
        """Return how many items a worker holds beside the one in work."""
        if self._ahead is not None:
            return self._ahead
        seconds = (time.monotonic() - self._begun) * len(self.active)
        return min(_MOST_AHEAD, int(_MOMENT_S * self._num_done / seconds)) if seconds else 0

    def _remove(self, state: _State) -> None:
        self.active = [each for each in self.active if each is not state]

    def _mourn(self, held: Sequence[int], message: Message) -> Iterator[tuple[int, Lost]]:
        """Take up the items of a dead worker: again, alone if one of them may have killed it, or never."""
        where = f" on {message.value}" if message.value else ""
        deaths = self._node_deaths if message.kind == "node died" else self._worker_deaths
        deaths.update(held if message.kind == "node died" or len(held) == 1 else ())
        for index in held:
            if message.kind == "node died" and deaths[index] < _MOST_NODES:
                self._waiting.appendleft(index)
            elif message.kind == "node died":
                yield index, Lost(f"{_MOST_NODES} nodes died while they worked on it, the last{where}")
            elif len(held) > 1 or deaths[index] <= self._engine.retries:
                self._suspects.append(index)
            else:
                times = f" {deaths[index]} times" if deaths[index] > 1 else ""
                yield index, Lost(f"its process was killed{times}{where}, perhaps because memory ran out")


_engines: list[Engine] = []


def current_engine() -> Engine:
    """Return the engine that is used now: this computer's processes, if no other is set."""
    if _engines:
        return _engines[-1]
    from medunet.base.local_engine import LOCAL

    return LOCAL


@contextmanager
def use_engine(engine: Engine) -> Iterator[None]:
    """Use an engine for all parallel work within this context."""
    _engines.append(engine)
    try:
        yield
    finally:
        _engines.pop()

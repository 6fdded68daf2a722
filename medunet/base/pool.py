"""Work on many cases in parallel: one interface, and the engines that do the work behind it.

The default engine is processes of this computer (`local_engine.py`), the other one workers of a Ray cluster
(`ray_engine.py`). With either, a worker that dies loses the case alone that it worked on.
"""

import math
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
_BATCH_S, _MOST_OF_BATCH = 0.25, 100  # of work in a batch of short cases, and cases
_OPEN = object()  # the result of an item that is not done
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
    """What a worker tells: that it can work, results, an error that ends the job, or that it is no more."""

    kind: Literal["ready", "done", "error", "worker died", "node died"]
    value: Any = None  # each item's index with its result, the exception, or where the worker was


class Worker(Protocol):
    """One worker, which receives batches of items with their indices and tells of them by messages.

    It answers a batch when all of it is done: a message takes longer than a short case.
    """

    def give(self, batch: list[tuple[int, Any]]) -> None:
        """Send a batch."""

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
            meanwhile; None: none of them but where they are short, then batches.
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


def serve_batches(
    serve: Serve, batches: Iterable[list[tuple[int, Any]]], number: int
) -> Iterator[list[tuple[int, Any]]]:
    """Let `serve` work on batches of items in the worker of a number, and yield the results of each when it is done.

    The results of a batch are in its order.
    """
    open_batches: dict[int, dict[int, Any]] = {}  # by the index of each item that is not done

    def items() -> Iterator[tuple[int, Any]]:
        for batch in batches:
            results = dict.fromkeys((index for index, _ in batch), _OPEN)
            open_batches.update(dict.fromkeys(results, results))
            yield from batch

    for index, result in serve(items(), number):
        results = open_batches.pop(index)
        results[index] = result
        if not any(value is _OPEN for value in results.values()):
            yield list(results.items())


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
    suspects: list[int] = field(default_factory=list)  # all that it gets, if their worker has died before
    is_ready: bool = False
    is_finishing: bool = False
    held: list[int] = field(default_factory=list)
    num_batches: int = 0  # that it holds


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
        self._suspects: deque[list[int]] = deque()  # groups, one of which a worker held that died
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
        unclaimed = len(self._waiting) - sum(not each.is_ready and not each.suspects for each in self.active)
        if self._suspects or unclaimed > 0:
            state = _State(self._engine.start(self._serve, self._workers, number), number)
            state.suspects = self._suspects.popleft() if self._suspects else []
            self.active.append(state)

    def _take(self, state: _State, message: Message) -> Iterator[tuple[int, Any]]:
        if message.kind == "error":
            raise message.value
        if message.kind == "ready":
            state.is_ready, self._failed_starts = True, 0
            self._begun = self._begun or time.monotonic()
            self._give(state)
        elif message.kind == "done":
            done = {index for index, _ in message.value}
            state.held = [index for index in state.held if index not in done]
            state.num_batches -= 1
            self._num_done += len(done)
            self._give(state)  # before the results are worked on
            yield from message.value
        else:
            self._remove(state)
            state.worker.end()
            if state.is_ready:
                yield from self._mourn(state.held, message)
            else:
                self._suspects += [state.suspects] if state.suspects else []
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
        if state.suspects and not state.is_finishing:
            self._send(state, state.suspects)
        while self._waiting and not state.suspects:
            size, most_batches = self._batch()
            if state.num_batches >= most_batches:
                break
            self._send(state, [self._waiting.popleft() for _ in range(size)])
        if not state.is_finishing and (state.suspects or not self._waiting):
            state.is_finishing = True
            state.worker.finish()
        if state.is_finishing and not state.held:
            self._remove(state)
            state.worker.end()
            self._start(state.number)

    def _send(self, state: _State, indices: list[int]) -> None:
        state.held += indices
        state.num_batches += 1
        state.worker.give([(index, self._items[index]) for index in indices])

    def _batch(self) -> tuple[int, int]:
        """Return the number of items in the next batch, and how many batches a worker may hold.

        The last batches become smaller and smaller, so that all workers end together.
        """
        if self._ahead is not None:
            return 1, 1 + self._ahead
        seconds = (time.monotonic() - self._begun) * len(self.active)
        quick = int(_BATCH_S * self._num_done / seconds) if seconds else 0
        most = min(_MOST_OF_BATCH, math.ceil(len(self._waiting) / (2 * len(self.active))))
        return max(1, min(quick, most)), 1 + (quick > 0)

    def _remove(self, state: _State) -> None:
        self.active = [each for each in self.active if each is not state]

    def _mourn(self, held: list[int], message: Message) -> Iterator[tuple[int, Lost]]:
        """Take up the items of a dead worker: again, by halves until the one that kills it is alone, or never."""
        where = f" on {message.value}" if message.value else ""
        if message.kind == "node died":
            self._node_deaths.update(held)
            for index in reversed(held):
                if self._node_deaths[index] < _MOST_NODES:
                    self._waiting.appendleft(index)
                else:
                    yield index, Lost(f"{_MOST_NODES} nodes died while they worked on it, the last{where}")
        elif len(held) > 1:
            middle = len(held) // 2
            self._suspects += [held[:middle], held[middle:]]
        elif held:
            (index,) = held
            self._worker_deaths[index] += 1
            if self._worker_deaths[index] <= self._engine.retries:
                self._suspects.append(held)
            else:
                num = self._worker_deaths[index]
                times = f" {num} times" if num > 1 else ""
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

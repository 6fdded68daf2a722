"""Workers that are actors of a Ray cluster: a local one, or one that runs already.

Items and results travel, never volumes: workers read and write files on a folder that all nodes share. Workers print
and log nothing on their nodes, since Ray keeps it in its session folder; their warnings travel with the results.
"""

import logging
import os
import platform
import queue
import secrets
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.free_memory import free_bytes
from medunet.base.packages import describe_software
from medunet.base.pool import Message, Serve, Worker, Workers, serve_batches, use_engine
from medunet.base.processor import usable_cores

_log = logging.getLogger(__name__)
_OLDEST = (2, 52)  # the first with authentication by token
_STORE_BYTES = 100_000_000  # of a local cluster: rows travel, no volumes
_AT_ONCE = 8  # calls of one worker: the batches that it holds, and that none follows
_POLL_S = 1.0  # so that Ctrl-C is heard
_END = None
_TOKEN = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_SETTINGS = (
    "RAY_USAGE_STATS_ENABLED",
    "RAY_AUTH_MODE",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_worker_niceness",
)


@contextmanager
def ray_engine(address: str | None) -> Iterator[None]:
    """Do all parallel work within this context on a Ray cluster; without an address, on a new one on this computer.

    The new cluster listens on the loopback interface alone, with a token of its own, and ends with the context.
    Neither has a dashboard, nor are statistics of use sent.

    Raises:
        InputError: Ray is not installed or too old, or the cluster does not answer or has no token.
    """
    with _environment(address), _connected(address):
        yield


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    ray = _import_ray()
    try:
        if address is None:
            ray.init(
                "local", num_cpus=usable_cores(), include_dashboard=False, object_store_memory=_STORE_BYTES,
                _memory=free_bytes(), _node_ip_address="127.0.0.1", log_to_driver=False, configure_logging=False,
            )  # fmt: skip
        else:
            ray.init(address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the cluster does not answer: {(str(error).splitlines() or ['no reason is given'])[0]}",
            where=f"--address {address}" if address else "--engine ray",
            hint="Give the address of the head node as HOST:PORT, with its token in RAY_AUTH_TOKEN.",
        ) from error
    try:
        with use_engine(RayEngine()):
            yield
    finally:
        ray.shutdown()


@contextmanager
def _environment(address: str | None) -> Iterator[None]:
    """Set what Ray reads when it is imported; put all back but the token, for programs started later."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    try:
        _set_up_environment(address)
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _set_up_environment(address: str | None) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if address is None:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray keeps the first one of a process
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux, too: loopback alone
        os.environ.setdefault("RAY_worker_niceness", "0")  # by default workers yield to all programs
    elif os.environ["RAY_AUTH_MODE"] != "token":
        _log.warning("RAY_AUTH_MODE switches off tokens: anyone who reaches the cluster can run code on it.")
    elif (
        not any(os.environ.get(name) for name in _TOKEN)
        and not Path("~/.ray/auth_token").expanduser().exists()
    ):
        raise InputError(
            "no token is given",
            where=f"--address {address}",
            hint="Set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the token that the cluster was started with.",
        )


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "Ray is not installed", where="--engine ray", hint="Run `pip install 'medunet[ray]'`."
        ) from error
    if tuple(map(int, ray.__version__.split(".")[:2])) < _OLDEST:
        raise InputError(
            f"Ray {ray.__version__} has no authentication",
            where="--engine ray",
            hint=f"Install Ray {'.'.join(map(str, _OLDEST))} or later: `pip install -U 'medunet[ray]'`.",
        )
    return ray


class RayEngine:
    """Starts actors; see `Engine`."""

    name = "ray"
    retries = 2

    def count(self, num_items: int, workers: Workers) -> int:
        return min(num_items, sum(_fitting(node["Resources"], workers) for node in self._nodes()))

    def start(self, serve: Serve, workers: Workers, number: int) -> "_Actor":
        if not any(_fitting(node["Resources"], workers) for node in self._nodes()):
            raise self._too_small(workers)
        return _Actor(serve, workers, number)

    def hear(self, active: Sequence[Worker]) -> list[tuple[Worker, Message]]:
        import ray

        owners: dict[Any, _Actor] = {}
        for actor in active:
            assert isinstance(actor, _Actor)
            owners |= dict.fromkeys(actor.expected, actor)
        done: list[Any] = []
        while not done:
            done, _ = ray.wait(list(owners), timeout=_POLL_S)
        done, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        return [(owners[reference], owners[reference].receive(reference)) for reference in done]

    def has_cards(self) -> bool:
        """Return whether a node of the cluster has a card."""
        return any(node["Resources"].get("GPU") for node in self._nodes())

    def share(self, num_items: int, memory_bytes: int, gpus: float) -> Workers:
        """Return as many workers as memory and cards allow, with equal shares of a node's cores and memory.

        Raises:
            InputError: no node has the memory, or a card, for one worker.
        """
        one = Workers(1, memory_bytes, gpus=gpus)
        fitting = [node["Resources"] for node in self._nodes() if _fitting(node["Resources"], one)]
        if not fitting:
            raise self._too_small(one)
        counts = [_fitting(resources, one) for resources in fitting]
        cpus = min(max(1, each["CPU"] // count) for each, count in zip(fitting, counts, strict=True))
        share = min(each["memory"] // count for each, count in zip(fitting, counts, strict=True))
        workers = Workers(1, int(share), cpus, gpus)
        return replace(workers, count=max(1, self.count(num_items, workers)))

    def _too_small(self, workers: Workers) -> InputError:
        needs = f"{workers.cpus:g} cores and {workers.memory_bytes / 1e9:.1f} GB of memory"
        needs += f" and {workers.gpus:g} cards" if workers.gpus else ""
        return InputError(
            f"a worker needs {needs}, and no node of the cluster has them",
            where="--engine ray",
            hint="Start nodes with more, or ask for less.",
        )

    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]


def _fitting(resources: dict[str, float], workers: Workers) -> int:
    """Return how many workers fit a node with these resources."""
    needs = {"CPU": workers.cpus, "GPU": workers.gpus, "memory": workers.memory_bytes}
    return int(min(resources.get(name, 0.0) / need for name, need in needs.items() if need))


class _Actor:
    """A handle of a worker on some node; see `Worker`. `expected` are the answers that it owes."""

    def __init__(self, serve: Serve, workers: Workers, number: int) -> None:
        import ray

        options = {"num_cpus": workers.cpus, "num_gpus": workers.gpus, "memory": workers.memory_bytes}
        remote: Any = ray.remote(_Body).options(**options, max_concurrency=_AT_ONCE, max_restarts=0)
        self._actor = remote.remote(serve, number)
        self._node_id = self._host = ""
        self._num_given = 0
        self._greeting = self._actor.about.remote()
        self.expected: set[Any] = {self._greeting}

    def give(self, batch: list[tuple[int, Any]]) -> None:
        self.expected.add(self._actor.process.remote(batch))
        self._num_given += 1

    def finish(self) -> None:
        self._actor.finish.remote(self._num_given)

    def end(self) -> None:
        import ray

        with suppress(ray.exceptions.RayError):
            ray.kill(self._actor)

    def receive(self, reference: Any) -> Message:
        """Return what an answer says."""
        import ray

        self.expected.remove(reference)
        try:
            answer = ray.get(reference)
        except ray.exceptions.ObjectLostError:
            # A large answer stays on its node, which died before it was fetched.
            return Message("node died", value=f"{self._host} (node {self._node_id[:8]})")
        except ray.exceptions.RayActorError as error:
            alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
            if not self._node_id:
                return Message("worker died", value=str(error).strip().splitlines()[-1])
            where = f"{self._host} (node {self._node_id[:8]})"
            return Message("worker died" if self._node_id in alive else "node died", value=where)
        if reference == self._greeting:
            return self._greet(*answer)
        kind, value, warnings = answer
        for text in warnings:
            _log.warning(text)
        return Message(kind, value)

    def _greet(self, theirs: dict[str, str], host: str, node_id: str) -> Message:
        self._host, self._node_id = host, node_id
        ours = describe_software()
        if names := [name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]]:
            there, here = (
                ", ".join(f"{name} {has[name]}" for name in sorted(names)) for has in (theirs, ours)
            )
            error = InputError(
                f"{host} has {there}, and this computer {here}",
                where="--engine ray",
                hint="Install the same versions on all nodes.",
            )
            return Message("error", value=error)
        return Message("ready")


class _Body:
    """The worker itself, in a process on some node. It serves in a thread, so that batches can arrive meanwhile."""

    def __init__(self, serve: Serve, number: int) -> None:
        _be_silent()
        self._warnings = _Warnings()
        logging.getLogger("medunet").addHandler(self._warnings)
        self._batches: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._answers: dict[int, Future[tuple[str, Any, list[str]]]] = {}  # by the first index of a batch
        self._error: Exception | None = None
        self._num_batches, self._changed = 0, threading.Condition()
        threading.Thread(target=self._serve, args=(serve, number), daemon=True).start()

    def about(self) -> tuple[dict[str, str], str, str]:
        import ray

        return describe_software(), platform.node(), ray.get_runtime_context().get_node_id()

    def process(self, batch: list[tuple[int, Any]]) -> tuple[str, Any, list[str]]:
        answer: Future[tuple[str, Any, list[str]]] = Future()
        self._answers[batch[0][0]] = answer
        if self._error is not None:
            return "error", self._error, []
        with self._changed:
            self._batches.put(batch)
            self._num_batches += 1
            self._changed.notify_all()
        return answer.result()

    def finish(self, num_batches: int) -> None:
        """End after so many batches: Ray may run this call before those that bring them."""
        with self._changed:
            self._changed.wait_for(lambda: self._num_batches == num_batches)
            self._batches.put(_END)

    def _serve(self, serve: Serve, number: int) -> None:
        try:
            for results in serve_batches(serve, iter(self._batches.get, _END), number):
                self._answers.pop(results[0][0]).set_result(("done", results, self._warnings.take()))
        except Exception as error:
            self._error = error
            for answer in list(self._answers.values()):  # batches still arrive
                answer.set_result(("error", error, []))
        except BaseException:
            os._exit(1)


class _Warnings(logging.Handler):
    """Keeps warnings until they travel with a result."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._texts.append(record.getMessage())

    def take(self) -> list[str]:
        texts, self._texts = self._texts, []
        return texts


def _be_silent() -> None:
    """Write nothing to the files that Ray keeps of a worker's output: it may name cases and paths."""
    logging.getLogger("medunet").propagate = False
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)

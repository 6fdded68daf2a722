"""The commands, Ray nodes and workers that benchmarks/kills.py starts, and kills."""

import os
import pty
import random
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT_S = 180.0  # of a command
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Command:
    """A command of medunet on a terminal of its own, whose progress bar tells how far it is."""

    def __init__(self, arguments: list[str], bar: str) -> None:
        ours, theirs = pty.openpty()
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "250", "TERM": "xterm"}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "medunet", *arguments]
        self.process = subprocess.Popen(
            command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment
        )
        os.close(theirs)
        self._pieces: list[str] = []
        self._bar = re.compile(rf"{bar} [^%\n]*?(\d+)%")
        self._reading = threading.Thread(target=self._read, args=(ours,))
        self._reading.start()

    def _read(self, ours: int) -> None:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                piece = b""
            if not piece:
                os.close(ours)
                return
            self._pieces.append(ANSI.sub("", piece.decode(errors="replace")))

    def text(self) -> str:
        """Return all that it has printed."""
        return "".join(self._pieces)

    def percent(self) -> int:
        """Return how far the bar is; 0 before there is a result."""
        found = self._bar.findall("".join(self._pieces[-20:]))
        return int(found[-1]) if found else 0

    def wait_for(self, percent: float) -> None:
        """Wait until so much is done, and at least one case, or the command has ended."""
        until = time.monotonic() + LIMIT_S
        while self.process.poll() is None and not 0 < self.percent() >= percent:
            if time.monotonic() > until:
                self.process.kill()
                raise SystemExit(f"no progress in {LIMIT_S:.0f} s:\n{self.text()}")
            time.sleep(0.01)

    def wait(self) -> int:
        """Return the exit code."""
        try:
            code = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit(f"not ended in {LIMIT_S:.0f} s:\n{self.text()}") from None
        self._reading.join()
        return int(code)


def find_workers(command: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """Return the local workers of a command."""
    try:
        return [
            each
            for each in psutil.Process(command.pid).children()
            if "spawn_main" in " ".join(each.cmdline())
        ]
    except psutil.NoSuchProcess:
        return []


class Nodes:
    """Ray's test cluster: a head without cores, and two nodes of one core each."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        store: dict[str, Any] = {"object_store_memory": 80_000_000, "include_dashboard": False}
        head = {"num_cpus": 0, "temp_dir": str(folder / "ray"), **store}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._store = store
        self._nodes: list[Any] = []
        self.address = self._cluster.address
        self.mend()

    def mend(self) -> None:
        """Start nodes until there are two."""
        while len(self._nodes) < 2:
            self._nodes.append(self._cluster.add_node(num_cpus=1, memory=4_000_000_000, **self._store))

    def workers(self, node: Any = None) -> list[psutil.Process]:
        """Return the workers of medunet on a node, or on all."""
        nodes = self._nodes if node is None else [node]
        found = []
        for each in nodes:
            raylet = psutil.Process(each.all_processes["raylet"][0].process.pid)
            for process in raylet.children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if "".join(process.cmdline()[:1]).startswith("ray::_Body"):
                        found.append(process)
        return found

    def kill_node(self, moments: random.Random) -> bool:
        """Kill a node with a worker, if there is one, and all its processes; return whether there was one."""
        node = moments.choice([each for each in self._nodes if self.workers(each)] or self._nodes)
        self._nodes.remove(node)
        workers = self.workers(node)
        self._cluster.remove_node(node, allow_graceful=False)
        for process in workers:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return bool(workers)

    def stop(self) -> None:
        """Stop all nodes."""
        self._cluster.shutdown()


@contextmanager
def started(engine: str, folder: Path) -> Iterator[Nodes | None]:
    """Start a cluster for Ray; nothing for local workers."""
    if engine == "local":
        yield None
        return
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        nodes.stop()

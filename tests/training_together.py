"""Processes that train one network together, as torchrun would start them, but with torch loaded already."""

import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Sequence
from itertools import count as count_up
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import torch

from medunet.cli.exit_codes import run_and_exit
from medunet.commands.train import run_train
from medunet.runs.run import open_run
from medunet.training.data import FoldData
from medunet.training.module import SegmentationModule

_PATIENCE_S = 300.0
MIDDLE = 2  # batch of an epoch at which processes wait
Moment = Literal["start", "epoch", "validation"]


def start(
    root: Path,
    data_root: Path,
    *,
    count: int = 2,
    changes: Sequence[str] = (),
    mark: Path | None = None,
    at: Moment = "validation",
) -> list[BaseProcess]:
    """Start `count` processes that train a run.

    With a `mark` each of them writes a file, see `marks`, and waits until it is removed: before the first step, in an
    epoch or at the start of a validation.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medunet.commands.train", "medunet.training.train"])
    port = _free_port()
    processes: list[BaseProcess] = [
        context.Process(target=_train, args=(root, data_root, rank, count, port, changes, mark, at))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    return processes


def told(root: Path) -> str:
    """Return what the processes that trained a run wrote to stderr, on one line, and forget it."""
    text = " ".join(_log_of(root).read_text().split())
    _log_of(root).unlink()
    return text


def _log_of(root: Path) -> Path:
    return root.with_name(f"{root.name}.log")


def marks(mark: Path, count: int) -> list[Path]:
    """Return the files that `count` processes write."""
    return [mark.with_name(f"{mark.name}.{rank}") for rank in range(count)]


def end_all(processes: list[BaseProcess], *, within_s: float = _PATIENCE_S) -> list[int | None]:
    """Wait for the processes; return their exit codes. Those that do not end are killed and have no code."""
    deadline = time.monotonic() + within_s
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def wait_until(is_so: Callable[[], bool], processes: list[BaseProcess]) -> None:
    """Wait until something is so while all processes are at work."""
    deadline = time.monotonic() + _PATIENCE_S
    while not is_so():
        assert all(process.is_alive() for process in processes), "a process has ended early"
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)


def stamp(path: Path) -> int:
    """Return when a file was last written; 0 if there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _train(
    root: Path,
    data_root: Path,
    rank: int,
    count: int,
    port: int,
    changes: Sequence[str],
    mark: Path | None,
    at: Moment,
) -> None:
    if count > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count), "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }  # fmt: skip
    os.dup2(os.open(_log_of(root), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if mark is not None:
        _pause(marks(mark, count)[rank], at)
    run_and_exit(lambda: run_train(open_run(root, data_root, changes=changes)) and None)


def _pause(mark: Path, at: Moment) -> None:
    owner, method, number = {
        "start": (FoldData, "train_dataloader", 0),  # Lightning would have installed its handlers of signals
        "epoch": (SegmentationModule, "training_step", MIDDLE),
        "validation": (SegmentationModule, "validation_step", 0),
    }[at]
    original, calls = getattr(owner, method), count_up()

    def paused(*given: Any) -> Any:
        if next(calls) == number:
            mark.touch()
            while mark.exists():
                time.sleep(0.01)
        return original(*given)

    setattr(owner, method, paused)

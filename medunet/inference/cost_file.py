"""The costs of predicting into a folder (cost.json): counted while scans are predicted, beside the estimate."""

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from medunet.base.errors import InputError
from medunet.base.files import remove_unfinished
from medunet.base.lock import wait_for
from medunet.base.processor import read_processor
from medunet.inference.cohort import PARTS, Done
from medunet.records.cohort_cost import CohortCost, CohortEstimate, CommandCost

COST_FILE = "cost.json"
_log = logging.getLogger(__name__)


@dataclass
class CostCount:
    """What the cases of one command have taken so far."""

    num_computed: int = 0
    num_failed: int = 0
    took: Counter[str] = field(default_factory=Counter)  # seconds by part, and windows
    written_bytes: int = 0
    peak_bytes: int = 0  # of the process that took most

    def add(self, done: Done) -> None:
        """Count a finished case; the time of one that failed is not known."""
        self.num_failed += bool(done.failed)
        self.peak_bytes = max(self.peak_bytes, done.peak_bytes)
        if done.took:
            self.num_computed += 1
            self.took.update(done.took)
            self.written_bytes += done.written_bytes


@contextmanager
def count_cost(
    folder: Path, device: str, *, workers: int = 1, threads: int | None = None
) -> Iterator[CostCount]:
    """Add to cost.json what predicting scans took in this context, also if it ends early.

    Nothing is written if no mask was. Estimates that are kept there are compared with the truth in a logged line.

    Args:
        device: name of the card, or "CPU".
        workers: processes that predict at the same time.
        threads: of each; None: those of torch in this process.
    """
    start, count = time.monotonic(), CostCount()
    threads = threads or torch.get_num_threads()
    try:
        yield count
    except BaseException:
        with suppress(InputError):  # a full disk has its own error
            _add_command(folder, count, time.monotonic() - start, device, workers, threads)
        raise
    _add_command(folder, count, time.monotonic() - start, device, workers, threads)


def _add_command(
    folder: Path, count: CostCount, seconds: float, device: str, workers: int, threads: int
) -> None:
    if not count.num_computed:
        return
    index = folder / "index.json"
    cost = CommandCost(
        seconds=round(seconds, 3),
        cases=count.num_computed,
        failed=count.num_failed,
        seconds_by_part={name: round(count.took.get(name, 0.0), 3) for name in PARTS},
        windows=int(count.took.get("windows", 0)),
        windows_reused=int(count.took.get("windows_reused", 0)),
        peak_bytes=count.peak_bytes,
        written_bytes=count.written_bytes + (index.stat().st_size if index.exists() else 0),
        workers=workers,
        device=device,
        processor=read_processor().name,
        threads=threads,
    )
    with _changing(folder):
        kept = read_cost(folder)
        kept = kept.model_copy(update={"commands": (*kept.commands, cost)})
        kept.write(folder / COST_FILE)
    if kept.estimate is not None:
        _log.info(describe_truth(kept.estimate, kept))


def keep_estimate(folder: Path, estimate: CohortEstimate) -> None:
    """Keep an estimate in cost.json, in place of an earlier one."""
    folder.mkdir(parents=True, exist_ok=True)
    with _changing(folder):
        read_cost(folder).model_copy(update={"estimate": estimate}).write(folder / COST_FILE)


@contextmanager
def _changing(folder: Path) -> Iterator[None]:
    """Hold cost.json alone, without what a killed command left of it."""
    with wait_for(folder, "cost"):
        remove_unfinished([folder / COST_FILE])
        yield


def read_cost(folder: Path) -> CohortCost:
    """Return what cost.json of a folder holds; empty if there is none."""
    path = folder / COST_FILE
    return CohortCost.read(path) if path.exists() else CohortCost()


def describe_truth(estimate: CohortEstimate, cost: CohortCost) -> str:
    """Return a line that compares an estimate, scaled to the cases that are predicted, with their time."""
    expected = estimate.worker_seconds_a_case * cost.cases
    return (
        f"{cost.cases} cases took {cost.worker_seconds:.1f} s of a worker, {expected:.1f} s by the estimate for "
        f"{estimate.num_cases} cases ({cost.worker_seconds / expected - 1:+.0%})."
    )


def device_name(device: torch.device) -> str:
    """Return the name of the card, or "CPU"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"

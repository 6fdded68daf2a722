"""The costs of predicting into a folder (cost.json): counted while scans are predicted, beside the estimate."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from medunet.base.errors import InputError
from medunet.base.files import read_json_object, remove_unfinished
from medunet.base.free_memory import peak_bytes
from medunet.base.lock import wait_for
from medunet.base.processor import read_processor
from medunet.inference.maps import map_paths
from medunet.inference.scan import Scan
from medunet.records.cohort_cost import CohortCost, CohortEstimate, CommandCost

COST_FILE = "cost.json"
_log = logging.getLogger(__name__)


@contextmanager
def count_cost(
    folder: Path, scans: Sequence[Scan], before: Mapping[str, Any], device: torch.device, *, workers: int = 1
) -> Iterator[None]:
    """Add to cost.json what predicting scans took in this context, also if it ends early.

    Nothing is written if no mask was. Estimates that are kept there are compared with the truth in a logged line.

    Args:
        before: entries of the index before, by case.
        workers: processes that predicted them at the same time.
    """
    start = time.monotonic()
    try:
        yield
    except BaseException:
        with suppress(InputError):  # a full disk has its own error
            add_command(folder, scans, before, time.monotonic() - start, device, workers=workers)
        raise
    add_command(folder, scans, before, time.monotonic() - start, device, workers=workers)


def add_command(
    folder: Path,
    scans: Sequence[Scan],
    before: Mapping[str, Any],
    seconds: float,
    device: torch.device,
    *,
    workers: int = 1,
) -> None:
    """Add to cost.json what predicting scans took, by their entries in the index; see `count_cost`.

    Raises:
        InputError: the file cannot be read or written.
    """
    path = folder / "index.json"
    index = read_json_object(path) if path.exists() else {}
    entries = index.get("cases", {})
    done = {
        scan.mask_name: entry
        for scan in scans
        if "seconds_by_part" in (entry := entries.get(scan.case, {}))
        and entry["seconds_by_part"] != before.get(scan.case, {}).get("seconds_by_part")
    }
    if not done:
        return
    parts: dict[str, float] = {}
    for entry in done.values():
        for name, value in entry["seconds_by_part"].items():
            parts[name] = parts.get(name, 0.0) + value
    cost = CommandCost(
        seconds=round(seconds, 3),
        cases=len(done),
        failed=sum(scan.case in index.get("failed", {}) for scan in scans),
        seconds_by_part={name: round(value, 3) for name, value in parts.items()},
        windows=sum(entry.get("windows", 0) for entry in done.values()),
        windows_reused=sum(entry.get("windows_reused", 0) for entry in done.values()),
        peak_bytes=peak_bytes(),
        written_bytes=path.stat().st_size
        + sum(_size_of(folder, scan) for scan in scans if scan.mask_name in done),
        workers=workers,
        device=device_name(device),
        processor=read_processor().name,
        threads=torch.get_num_threads(),
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


def _size_of(folder: Path, scan: Scan) -> int:
    """Return the bytes of a scan's mask and maps."""
    paths = [folder / scan.mask_name, *map_paths(folder, scan.case, scan.mask_name).values()]
    return sum(path.stat().st_size for path in paths if path.exists())

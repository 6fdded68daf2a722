"""Time and memory of `medunet check`, case by case, compared with only reading and decoding the same files.

python benchmarks/check.py [--data ../shared/data] [--rounds 3]

Everything runs on one thread with the files in the page cache. Each round reads a cohort and then checks it, so that
other load affects both equally; the best round is reported.

- "read": `numpy.asarray(nibabel.load(path).dataobj)` of each file, in its stored type; "as float32": `get_fdata`.
- "check": `check_case` of each case, with all checks of its files but without those of the whole dataset.
- "times": time of the check divided by that of reading.
- "MB": peak memory of arrays and objects during the check in a separate process (`tracemalloc`), and the size of the
  cohort's largest volume as stored.
"""

import argparse
import os
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
os.environ.update(ONE_THREAD)

import nibabel as nib  # noqa: E402 - threads are set before NumPy is loaded
import numpy as np  # noqa: E402

from medunet.base.processor import read_processor  # noqa: E402
from medunet.dataset.checks.case_checks import check_case  # noqa: E402
from medunet.dataset.manifest import make_manifest  # noqa: E402
from medunet.records.description import Description, load_description  # noqa: E402
from medunet.records.manifest import Case  # noqa: E402

COHORTS = ("hippocampus", "brats", "ct_abdomen")


@dataclass(frozen=True)
class Cohort:
    """The cases of a dataset and their data root."""

    root: Path
    description: Description
    cases: tuple[Case, ...]

    @property
    def paths(self) -> list[Path]:
        """All files of all cases."""
        files = [
            (*dict.fromkeys(case.images.values()), *([case.label] if case.label else []))
            for case in self.cases
        ]
        return [self.root / name for names in files for name in names]


def open_cohort(name: str, data: Path) -> Cohort:
    """List the cases of one of `COHORTS` in the data folder."""
    if name == "hippocampus":
        root, description = data / name, load_description("msd_task04_hippocampus")
        return Cohort(root, description, make_manifest(description, root).cases)
    if name == "brats":
        root = data / "brats" / "TCGA-FG-6692"
        description = load_description("brats_2018_2021")
        return Cohort(root, description, make_manifest(description, root).cases)
    description = load_description("totalsegmentator")
    files = {"CT": "ct.nii.gz"}
    case = Case(id=name, patient=name, images=files, label="totalsegmentator_labels.nii.gz")
    return Cohort(data / name, description, (case,))


def check(cohort: Cohort) -> None:
    """Check all cases one after the other."""
    for case in cohort.cases:
        faults, _ = check_case(case, cohort.description, cohort.root)
        assert all(fault.severity != "error" for fault in faults), faults


def read(cohort: Cohort) -> None:
    """Read all files in their stored type."""
    for path in cohort.paths:
        np.asarray(nib.load(path).dataobj)


def read_float32(cohort: Cohort) -> None:
    """Read all files as float32."""
    for path in cohort.paths:
        nib.load(path).get_fdata(dtype=np.float32)


def measure(cohort: Cohort, rounds: int) -> Iterator[float]:
    """Yield the best time in ms per case of reading, of reading as float32, and of the check."""
    works: list[Callable[[Cohort], None]] = [read, read_float32, check]
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for index, work in enumerate(works):
            started = time.perf_counter()
            work(cohort)
            best[index] = min(best[index], time.perf_counter() - started)
    for seconds in best:
        yield 1000 * seconds / len(cohort.cases)


def measure_memory(name: str, data: Path) -> float:
    """Return the peak memory in MB of a separate process that checks a cohort."""
    command = [sys.executable, __file__, "--data", str(data), "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def print_peak(cohort: Cohort) -> None:
    """Check a cohort in this process and print the peak memory in MB."""
    tracemalloc.start()
    check(cohort)
    print(tracemalloc.get_traced_memory()[1] / 1e6)


def largest_mb(cohort: Cohort) -> float:
    """Return the size in MB of the cohort's largest volume as stored."""
    headers = [nib.load(path).header for path in cohort.paths]
    return max(np.prod(head.get_data_shape()) * head.get_data_dtype().itemsize for head in headers) / 1e6


def main() -> None:
    """Measure every cohort and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MEDUNET_SHARED_DATA", "../shared/data"))
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", choices=COHORTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        print_peak(open_cohort(options.memory_of, options.data))
        return
    print(f"{read_processor().describe()}\n")
    print("| cohort | cases | read ms | as float32 ms | check ms | times | MB | largest volume MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name in COHORTS:
        cohort = open_cohort(name, options.data)
        read_ms, float_ms, check_ms = measure(cohort, options.rounds)
        cells = [name, len(cohort.cases), *(f"{ms:.1f}" for ms in (read_ms, float_ms, check_ms))]
        memory = (measure_memory(name, options.data), largest_mb(cohort))
        cells += [f"{check_ms / read_ms:.2f}", *(f"{mb:.0f}" for mb in memory)]
        print(f"| {' | '.join(str(cell) for cell in cells)} |")


if __name__ == "__main__":
    main()

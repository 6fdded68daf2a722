"""What a cohort costs the process that shares it out: memory and time, from 100 to 10,000 simulated cases.

Workers do nothing but write the true records: a manifest, scans, entries of the index as of a real prediction, and
scores of three targets. Each size is a fresh process.

    python benchmarks/cohort_scale.py --plot scale.png
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
SIZES = (100, 1000, 3000, 10_000)
NAMES = {
    "report_index_s": "index of the report",
    "share_s": "sharing out, and index.json",
    "tables_s": "tables of scores",
    "manifest_s": "reading the manifest",
}
ENTRY = {
    "image_sha256": "0" * 64, "algorithm": 1, "model_sha256": "1" * 64, "weights": "final", "fold": 0,
    "plan_sha256": "2" * 64, "options_sha256": "3" * 64,
    "window_options": {"overlap": 0.5, "mirror": False, "shifts": 1}, "backend": "openvino", "precision": "bf16",
    "device": "cpu", "seconds": 12.34,
    "seconds_by_part": {"read": 1.234, "prepare": 1.234, "compute": 9.876, "tidy": 0.123, "write": 0.456},
    "windows": 123, "windows_reused": 4, "faults": [],
}  # fmt: skip


@dataclass(frozen=True)
class Simulated:
    """A worker that writes what a real one writes, but no masks."""

    out: Path
    head: dict[str, Any]

    def __call__(self, items: Iterator[tuple[int, Any]], number: int) -> Iterator[tuple[int, Any]]:
        from medunet.inference.cohort import Done
        from medunet.records.mask_journal import MaskJournal

        took = {**ENTRY["seconds_by_part"], "windows": 123, "windows_reused": 4}
        with MaskJournal(self.out, self.head) as journal:
            for index, task in items:
                journal.change({task.scan.case: {"begun": True}}, drop=[task.scan.case])
                journal.change({task.scan.case: ENTRY})
                yield index, Done(task.scan.case, took=took)


def main() -> None:
    """Measure each size in a process of its own, print a table and draw it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), options.one)))
        return
    if options.make:
        make_manifest(Path(options.make[0]), int(options.make[1]))
        return
    found = []
    for size in options.sizes:
        text = subprocess.run(
            [sys.executable, HERE, "--one", str(size)], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        found.append(json.loads(text.splitlines()[-1]))
        print(" ".join(f"{key} {value:.4g}" for key, value in found[-1].items()), flush=True)
    first, last = found[0], found[-1]
    grown = (last["driver_mb"] - first["driver_mb"]) * 1000 / (last["cases"] - first["cases"])
    print(f"driver's memory: {grown:.2f} kB a case")
    if options.plot:
        draw(found, options.plot)


def measure(folder: Path, size: int) -> dict[str, float]:
    """Return the memory of the driver and the seconds of each step, for so many cases."""
    from medunet.records.description import load_description

    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = time.perf_counter() - start
        return result

    subprocess.run([sys.executable, HERE, "--make", folder, str(size)], check=True)
    description = load_description("phantoms")
    scans = timed("manifest_s", lambda: read_scans(folder))
    timed("share_s", lambda: share(folder, description, scans))
    driver_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    timed("tables_s", lambda: write_tables(folder, description, size))
    timed("report_index_s", lambda: write_report_index(folder, description))
    return {"cases": size, "driver_mb": driver_mb, **seconds}


def make_manifest(folder: Path, size: int) -> None:
    """Write a manifest, in a process of its own."""
    from medunet.records.description import load_description
    from medunet.records.manifest import Case, Manifest

    cases = tuple(
        Case(id=f"case_{n:05}", patient=f"p{n:05}", images={"CT": f"imagesTr/case_{n:05}.nii.gz"}, fold=n % 5)
        for n in range(size)
    )
    Manifest(description=load_description("phantoms"), cases=cases).write(folder / "manifest.json")


def read_scans(folder: Path) -> Any:
    """Read the manifest and return its scans."""
    from medunet.commands.predict import scans_of
    from medunet.records.manifest import Manifest

    manifest = Manifest.read(folder / "manifest.json")
    return scans_of(manifest.used, manifest, folder)


def share(folder: Path, description: Any, scans: Any) -> None:
    """Share the cases out to two workers, as `medunet predict` does."""
    from contextlib import closing

    from medunet.base.pool import Workers, serve_parallel
    from medunet.base.progress import CaseBar
    from medunet.commands.predict_job import PredictJob, _named
    from medunet.inference.cost_file import CostCount
    from medunet.inference.mask_index import head_of
    from medunet.inference.predict import collect, find_tasks, predict_free
    from medunet.records.mask_journal import join_journals

    out, head = folder / "masks", head_of(description)
    job = PredictJob((), out, None)  # type: ignore[arg-type]

    def work(mine: Any) -> dict[str, str]:
        tasks = find_tasks(mine, out, description, {}, overwrite=False, maps=())
        outcomes = serve_parallel(Simulated(out, head), tasks, Workers(2), ahead=1)
        try:
            with CaseBar("Predict", len(tasks)) as bar, closing(_named(outcomes, tasks, job, head)) as done:
                return collect(done, bar, CostCount())
        finally:
            del tasks
            join_journals(out, head)

    assert not predict_free(scans, out, work)
    with (
        out / "index.json"
    ).open() as index:  # not read as a whole, which would count as the driver's memory
        assert sum('"image_sha256"' in line for line in index) == len(scans)


def write_tables(folder: Path, description: Any, size: int) -> None:
    """Write the tables of scores of three targets."""
    import numpy as np

    from medunet.records.scores import CaseScore
    from medunet.scoring.tables import write_scores

    values = np.random.default_rng(0).random((size, 3))
    rows = [
        CaseScore(
            f"case_{n:05}", f"target_{t}", "ok", "voxel", dice=float(values[n, t]), nsd={1.0: 0.9, 2.0: 0.95}
        )
        for n in range(size)
        for t in range(3)
    ]
    write_scores(rows, folder, about={}, targets={f"target_{t}": (t + 1,) for t in range(3)})


def write_report_index(folder: Path, description: Any) -> None:
    """Write the report's index with a row for each case, as if the pages of all cases were there."""
    from medunet.reporting import report
    from medunet.reporting.case_parts import CaseSummary
    from medunet.reporting.page_job import PageResult
    from medunet.reporting.report_source import ReportSource
    from medunet.scoring.tables import read_scores

    picture = "data:image/webp;base64," + 4000 * "A"
    verdict = "Review: Dice of target_1 is 0.61, below 0.7."

    def pages(jobs: Any, *_: Any) -> dict[str, PageResult]:
        summaries = {
            job.parts.case_id: CaseSummary(
                f"{job.parts.case_id}.html", "review", verdict, (verdict,), picture, picture, "12 mm", ""
            )
            for job in jobs
        }
        return {name: PageResult(each, (1.0, 1.0, 1.0), is_new=False) for name, each in summaries.items()}

    report._make_pages = pages  # type: ignore[assignment]
    scores = read_scores(folder / "scores.csv")
    source = ReportSource(
        name="scale", report=folder / "report", scores=scores, lesions=None, scores_json=folder / "scores.json",
        description=description, cases={}, predictions=dict.fromkeys(scores["case"]), data_root=folder,
    )  # fmt: skip
    report.write_report(source)


def draw(found: list[dict[str, float]], path: Path) -> None:
    """Draw seconds and memory against the number of cases."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5))
    sizes = [each["cases"] for each in found]
    for name, text in NAMES.items():
        left.plot(sizes, [each[name] for each in found], "o-", label=text)
    left.set(xlabel="cases", ylabel="seconds", ylim=(0, None))
    left.legend(frameon=False)
    right.plot(sizes, [each["driver_mb"] for each in found], "o-")
    right.set(xlabel="cases", ylabel="MB of the driver", ylim=(0, 1.2 * found[-1]["driver_mb"]))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

"""Two workers against two independent processes, for the stages that work case by case.

The peer is what users do by hand: two processes of one thread each, on the halves of the cohort, at once. Each way is
a fresh process that runs the stage itself; a stage's own work is timed from the fourth result (the second of each
peer) to the last, so that loading Python and the network is left out, and as a whole with it.

    python benchmarks/cohort.py --hippocampus DATA_ROOT/hippocampus --cases 190 --stages predict
    python benchmarks/cohort.py --hippocampus DATA_ROOT/hippocampus --cases 190 --repeat 10 --stages check score
    python benchmarks/cohort.py --phantoms 2000 --stages check score
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
STAGES = ("check", "score", "predict")
WAYS = ("peers", "local", "ray")
SKIPPED = 4  # results before the time begins


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hippocampus", type=Path, help="folder with imagesTr and labelsTr of MSD Task04")
    parser.add_argument("--phantoms", type=int, default=0, help="number of synthetic cases, instead")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--stages", nargs="+", default=STAGES)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument(
        "--repeat", type=int, default=1, help="take all cases so many times, under further ids"
    )
    parser.add_argument("--one", nargs=4, metavar=("STAGE", "WAY", "FIRST", "END"), help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        stage, way, first, end = options.one
        print(json.dumps(run_stage(options.run, stage, way, int(first), int(end))))
        return
    with tempfile.TemporaryDirectory() as folder:
        run = begin(Path(folder), options)
        cases = (options.phantoms or options.cases) * options.repeat
        print(
            f"{cases} cases, 2 workers of 1 thread on {os.cpu_count()} cores; efficiency: of the peers' rate"
        )
        print("| stage | way | cases/s | efficiency | with the start |\n|---|---|---|---|---|")
        for stage in options.stages:
            for _ in range(options.rounds):
                compare(run, stage, cases)


def compare(run: Path, stage: str, cases: int) -> None:
    """Print the rates of one stage in each way."""
    parts = {"peers": [(0, cases // 2), (cases // 2, cases)], "local": [(0, cases)], "ray": [(0, cases)]}
    base = (0.0, 0.0)
    for way in WAYS:
        found = measure(run, stage, way, parts[way])
        rate = sum(each["num"] / each["seconds"] for each in found)
        whole = cases / max(each["whole_s"] for each in found)
        base = (rate, whole) if way == "peers" else base
        print(f"| {stage} | {way} | {rate:.2f} | {rate / base[0]:.3f} | {whole / base[1]:.3f} |", flush=True)
        if way != "peers":
            extra_ms = 1000 * (2 / rate - 2 / base[0])
            print(f"|  | {way}: {extra_ms:.1f} ms more a case and worker | | | |", flush=True)


def measure(run: Path, stage: str, way: str, parts: list[tuple[int, int]]) -> list[dict[str, float]]:
    """Run a stage in processes of their own, at once, and return what each measured."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    begun = []
    for number, (first, end) in enumerate(parts):
        command = [sys.executable, HERE, "--run", run, "--one", stage, f"{way}{number}", str(first), str(end)]
        begun.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
    found = []
    for process in begun:
        text, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"{stage}, {way}: exit code {process.returncode}")
        found.append(json.loads(text.splitlines()[-1]))
    return found


def begin(folder: Path, options: argparse.Namespace) -> Path:
    """Make a run with a manifest and masks to score, and return its folder."""
    from medunet.commands.manifest import run_manifest
    from medunet.phantoms.phantom import write_cohort
    from medunet.runs.run import open_run

    if options.phantoms:
        data, dataset = folder / "data", "phantoms"
        write_cohort(data, num_cases=options.phantoms)
    else:
        data, dataset = options.hippocampus, "msd_task04_hippocampus"
    run = open_run(folder / "run", data, dataset=dataset)
    manifest = run_manifest(run)
    cases = manifest.used[: options.phantoms or options.cases]
    again = [
        case.model_copy(update={"id": f"{case.id}_{n}"}) for n in range(options.repeat) for case in cases
    ]
    manifest.model_copy(update={"cases": tuple(again)}).write(folder / "run" / "manifest.json")
    (folder / "run" / "data_root.txt").write_text(str(data))
    return folder / "run"


def run_stage(folder: Path, stage: str, way: str, first: int, end: int) -> dict[str, float]:
    """Run a stage on some cases and return its rate: results after the first ones, and their seconds."""
    from medunet.base.ray_engine import ray_engine
    from medunet.commands.terminal import console
    from medunet.records.manifest import Manifest

    console.quiet = True
    manifest = Manifest.read(folder / "manifest.json")
    manifest = manifest.model_copy(update={"cases": manifest.cases[first:end], "unmatched": []})
    data_root = Path((folder / "data_root.txt").read_text())
    shutil.rmtree(folder / way, ignore_errors=True)  # of an earlier round
    stamps: list[float] = []
    workers = 1 if way.startswith("peers") else 2
    work = {"check": check, "score": score, "predict": predict}[stage]
    start = time.perf_counter()
    if way.startswith("ray"):
        with ray_engine(None):
            work(manifest, data_root, workers, stamps, folder / way, is_ray=True)
    else:
        work(manifest, data_root, workers, stamps, folder / way, is_ray=False)
    whole_s = time.perf_counter() - start
    skipped = SKIPPED * workers // 2
    return {
        "num": len(stamps) - skipped,
        "seconds": stamps[-1] - stamps[skipped - 1],
        "whole_s": whole_s,
    }


def stamped(run_parallel: Callable[..., Any], stamps: list[float]) -> Callable[..., Any]:
    """Return `run_parallel` that notes when each result comes."""

    def run(*args: Any, **options: Any) -> Iterator[Any]:
        for result in run_parallel(*args, **options):
            stamps.append(time.perf_counter())
            yield result

    return run


def check(
    manifest: Any, data_root: Path, workers: int, stamps: list[float], out: Path, *, is_ray: bool
) -> None:
    """Check every file."""
    from medunet.dataset.checks import manifest_checks

    manifest_checks.run_parallel = stamped(manifest_checks.run_parallel, stamps)
    manifest_checks.check_manifest(manifest, data_root, workers=workers)


def score(
    manifest: Any, data_root: Path, workers: int, stamps: list[float], out: Path, *, is_ray: bool
) -> None:
    """Score the label of each case against that of the next one on its own grid."""
    from medunet.scoring import evaluate
    from medunet.scoring.pairs import Pair

    evaluate.run_parallel = stamped(evaluate.run_parallel, stamps)
    labels = [data_root / case.label for case in manifest.cases]
    others = [*labels[1:], labels[0]]
    pairs = [
        Pair(case.id, *each)
        for case, each in zip(manifest.cases, zip(labels, others, strict=True), strict=True)
    ]
    targets = manifest.description.targets
    evaluate.score_pairs(pairs, targets, targets, resample=True, workers=workers)


def predict(
    manifest: Any, data_root: Path, workers: int, stamps: list[float], out: Path, *, is_ray: bool
) -> None:
    """Predict with one network of the model `hippocampus`, in fp32 in torch."""
    from medunet.commands import predict_job
    from medunet.commands.load_models import PredictOptions
    from medunet.commands.predict import scans_of
    from medunet.inference import predict as inference
    from medunet.inference.model_folder import read_card
    from medunet.runs.packages import find_models

    model = find_models(Path("hippocampus"))[0]
    scans = scans_of(manifest.cases, manifest, data_root)
    options = PredictOptions(precision="fp32", backend="torch")
    job = predict_job.PredictJob((model,), out, read_card(model).inference, "cpu", options)
    collect = inference.collect
    inference.collect = lambda outcomes, *others: collect(stamped(lambda: outcomes, stamps)(), *others)
    failed = predict_job.predict(job, scans, () if is_ray or workers == 1 else ("cpu", "cpu"))
    assert not failed, failed


if __name__ == "__main__":
    main()

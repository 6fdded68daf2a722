"""How far `medunet estimate` is from the truth: time, memory and disk of phantoms and hippocampi, by the commands.

python benchmarks/estimate.py --hippocampus FOLDER --splits hippocampus.json --cases 30 --rounds 2 --out results.json

For each cohort the command `estimate` measures five cases, in a folder of its own, and `predict` then predicts all
cases into another, which is the truth. Both start anew in each round, with one thread. The hippocampi are the first
cases of a fold, predicted by the model that medunet ships; its networks were trained on them, which does not change
their time. The phantoms are predicted by a network that was trained for two steps. Other work on the computer during
the two commands is part of the difference; the load average is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ASKED = ("--device", "cpu", "--backend", "torch", "--precision", "fp32")
SMALL = (
    "planning.base_features=16",
    "planning.spacing_mm=[4,4,5]",
    "planning.patch_size=[56,48,32]",
    "planning.batch_size=1",
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "training.validation_cases=1",
    "training.precision=fp32",
    "device=cpu",
)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hippocampus", type=Path, help="folder with imagesTr; left out: phantoms alone")
    parser.add_argument("--splits", type=Path, help="JSON with folds, the first of which is predicted")
    parser.add_argument("--cases", type=int, default=30, help="of each cohort")
    parser.add_argument("--measure", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        cohorts = {"phantoms": make_phantoms(Path(folder), arguments.cases)}
        if arguments.hippocampus:
            fold = json.loads(arguments.splits.read_text())["folds"][0][: arguments.cases]
            scans = [str(arguments.hippocampus / "imagesTr" / f"{case}.nii.gz") for case in fold]
            cohorts["hippocampi"] = ("hippocampus", scans)
        for number in range(arguments.rounds):
            for name, (model, scans) in cohorts.items():
                out = Path(folder) / f"{name}{number}"
                row = compare(model, scans, out, arguments.measure)
                rows.append({"cohort": name, "round": number, **row})
                print_row(rows[-1])
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


def make_phantoms(folder: Path, num_cases: int) -> tuple[str, list[str]]:
    """Write phantoms and a model of them; return the model and the scans."""
    from medunet.phantoms.phantom import write_cohort

    data, run = folder / "phantoms", folder / "run"
    write_cohort(data, num_cases=num_cases)
    changes = [word for change in SMALL for word in ("--set", change)]
    medunet("manifest", "phantoms", "--run", run, "--data-root", data, *changes)
    for stage in ("check", "plan", "train"):
        medunet(stage, run, "--data-root", data)
    scans = sorted(str(path) for path in (data / "imagesTr").glob("*.nii.gz"))
    return str(run / "folds/0/model"), scans


def compare(model: str, scans: list[str], out: Path, measure: int) -> dict[str, Any]:
    """Return what an estimate said of a cohort, and what predicting it took."""
    load = os.getloadavg()[0]
    medunet("estimate", model, *scans, "--measure", measure, "--out", out / "estimated", *ASKED)
    start = time.monotonic()
    medunet("predict", model, *scans, "--out", out / "predicted", *ASKED)
    whole_s = time.monotonic() - start
    estimate = json.loads((out / "estimated/cost.json").read_text())["estimate"]
    (command,) = json.loads((out / "predicted/cost.json").read_text())["commands"]
    return {
        "cases": command["cases"],
        "processor": command["processor"],
        "load": round(load, 1),
        "estimated_s": estimate["seconds"],
        "range_s": estimate["seconds_range"],
        "seconds": command["seconds"],
        "command_s": round(whole_s, 1),
        "estimated_mb": round(estimate["main_bytes"] / 1e6),
        "mb": round(command["peak_bytes"] / 1e6),
        "estimated_disk_kb": round(estimate["disk_bytes"] / 1e3, 1),
        "disk_kb": round(command["written_bytes"] / 1e3, 1),
    }


def print_row(row: dict[str, Any]) -> None:
    """Print a comparison on one line."""
    low, high = row["range_s"]
    print(
        f"{row['cohort']} {row['round']}: {row['cases']} cases, load {row['load']}; "
        f"time {row['seconds']:.1f} s, estimated {row['estimated_s']:.1f} ({low:.1f} to {high:.1f}), "
        f"{row['estimated_s'] / row['seconds'] - 1:+.0%}; memory {row['mb']} MB, estimated {row['estimated_mb']}, "
        f"{row['estimated_mb'] / row['mb'] - 1:+.0%}; disk {row['disk_kb']} kB, estimated "
        f"{row['estimated_disk_kb']}, {row['estimated_disk_kb'] / row['disk_kb'] - 1:+.0%}",
        flush=True,
    )


def medunet(*arguments: object) -> None:
    """Run a command of medunet in a process of its own, with one thread."""
    command = [sys.executable, "-m", "medunet", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        sys.exit(f"{' '.join(command[:4])} failed:\n{result.stdout}\n{result.stderr}")


if __name__ == "__main__":
    main()

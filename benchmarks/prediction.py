"""Prediction compared with nnU-Net and with a script of MONAI: whole commands, memory, cohorts, long CTs, labels.

python benchmarks/prediction.py --peer-python PEER/bin/python --work DIR --data-root HIPPOCAMPUS [--model FOLDER] \
    [--run RUN --run-data DIR] [--only windows,mirror,length,cohort,long,labels,start,ensemble,chest,gpu] \
    [--rounds 3] [--quick]

See benchmarks/nnunet_peer.py for how to create PEER, nnU-Net's environment; without it nnU-Net is left out. Models,
scans and results are kept in the work folder, so that a stopped benchmark goes on; `--again` repeats the chosen
sections. Prints Markdown tables. `ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2` emulates an AVX2 processor.

- All predict with the same network and weights: nnU-Net's topology for hippocampus (32 to 256 features, patch
  40×56×40, step 0.5) as it is initialised, or the model folder `--model`, which int8 needs (`medunet calibrate`).
  nnU-Net's checkpoint is made from it.
- Each contender is a command of its own, started in turn; every second round goes backwards. All has been cached by
  an earlier call. A ratio is the median over the rounds of nnU-Net's time divided by the contender's.
- "GB" is the peak resident memory of a command's largest process, "all GB" the largest sum over its processes, with
  pages that they share counted once.
- `windows`, `mirror`, `length`: a scan of 160×200×155 voxels at 1 mm; one of 100×140×100, mirrored along all axes;
  one of 160×200×465. They are mirror images of a hippocampus side by side: no window holds one value throughout.
- `cohort`: 40 hippocampi in one command. `start`: a single one, until the first window and until the end.
- `long`: a CT of 512×512×1000 voxels of 0.7×0.7×1 mm, 96³ patches of 32 to 320 features at 1.5 mm, 15 and 118
  classes. After two batches a stand-in answers instead of the network, see benchmarks/prediction_processes.py.
- `labels`: a trained run's held-out cases: every way against float32, and stored masks against today's.
- `ensemble`: five networks of one plan beside one of them, on the scan of `windows` and on 40 hippocampi.
- `chest`: a CT of 512×512×170 voxels of 0.7×0.7×2 mm with the network of `long` and 15 classes, by part; for NLST.
- `gpu`: a CT of 512×512×400 voxels with 15 classes on `--device cuda`, by part. It needs no data.
"""

import argparse
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from subprocess import run

from prediction_bench import MONAI, NNUNET, WAYS, Bench, Contenders, link_files
from prediction_ct import measure_chest, measure_gpu, measure_long
from prediction_ensemble import measure_ensemble
from prediction_labels import measure_labels
from prediction_tables import print_commands

from medunet.base.errors import InputError
from medunet.base.processor import num_threads, read_processor

SECTIONS = ("windows", "mirror", "length", "cohort", "long", "labels", "start", "ensemble", "chest", "gpu")
DATASET = "Dataset001_hippocampus"  # nnU-Net's name for the model that is made from ours
AXES = ("left_right", "posterior_anterior", "inferior_superior")


def full_commands(
    bench: Bench, section: str, model: Path, ours: Path, theirs: Path, *ways: str, mirror: bool = False
) -> Contenders:
    """Return medunet's ways, all cached by an earlier call, and nnU-Net's command.

    `ours` is a scan or a folder of scans, `theirs` a folder of the same scans named as nnU-Net wants.
    """
    masks = bench.masks / section
    contenders: Contenders = {
        name: partial(bench.ours, model, ours, masks / name, *options)
        for name, options in bench.ways(*ways).items()
    }
    bench.warm_up(section, model, contenders)
    if bench.peer is not None:
        name = bench.nnunet(model, DATASET)
        contenders[NNUNET] = partial(bench.theirs, name, theirs, masks / NNUNET, mirror=mirror)
    return contenders


def measure_scan(
    bench: Bench,
    section: str,
    shape: Sequence[int],
    *ways: str,
    title: str = "",
    rounds: int | None = None,
    mirror: bool = False,
    with_monai: bool = True,
) -> None:
    """Measure whole commands on one scan, and print their table."""
    model = bench.model("hippocampus", mirror=AXES if mirror else ())
    scan, folder = bench.scan("hippocampus", shape)
    masks = bench.masks / section
    contenders = full_commands(bench, section, model, scan, folder, *ways, mirror=mirror)
    if with_monai:
        contenders[MONAI] = partial(bench.monai, model, scan, masks / MONAI, mirror=mirror)
    bench.compete(section, contenders, rounds)
    size = f"{'×'.join(map(str, shape))} voxels at 1 mm" + (", mirrored along all axes" if mirror else "")
    print_commands(bench, section, list(contenders), title or size, masks)


def measure_cohort(bench: Bench) -> None:
    """Measure one command on 40 hippocampi."""
    files = bench.hippocampi()[: 3 if bench.given.quick else 40]
    model = bench.model("hippocampus")
    ours = link_files(files, bench.work / "scans" / "cohort")
    theirs = link_files(files, bench.work / "scans" / "cohort_nnunet", "_0000.nii.gz")
    masks = bench.masks / "cohort"
    contenders = full_commands(bench, "cohort", model, ours, theirs)
    if bench.peer is not None:
        contenders[f"{NNUNET}, 3 + 3 workers (its default)"] = partial(
            bench.theirs, DATASET, theirs, masks / f"{NNUNET} workers", workers=(3, 3)
        )
    bench.compete("cohort", contenders)
    print_commands(bench, "cohort", list(contenders), f"{len(files)} hippocampi in one command", masks)


def measure_start(bench: Bench) -> None:
    """Measure a command on one hippocampus, everything cached."""
    measure_scan(bench, "start", (35, 50, 35), title="one scan of one window, 35×50×35 voxels")


def main() -> None:
    """Measure the chosen sections and print their tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for all files that are written")
    parser.add_argument("--peer-python", type=Path, help="python of nnU-Net's environment")
    parser.add_argument("--data-root", type=Path, help="hippocampus: the folder with imagesTr")
    parser.add_argument(
        "--model", type=Path, help="model folder to predict with; default: an initialised network"
    )
    parser.add_argument("--run", type=Path, help="labels: folder of a trained run")
    parser.add_argument("--run-data", type=Path, help="labels: data root of that run")
    parser.add_argument("--older", type=Path, help="labels: stored masks; default: the run's predictions")
    parser.add_argument("--only", default=",".join(SECTIONS[:-2]), help="sections to measure, by comma")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--long-options", default="", help="long: options of `medunet predict`")
    parser.add_argument("--again", action="store_true", help="measure again what is already measured")
    parser.add_argument("--quick", action="store_true", help="small networks and scans, to try the benchmark")
    given = parser.parse_args()
    given.only = given.only.split(",")
    if unknown := [name for name in given.only if name not in SECTIONS]:
        parser.error(f"--only {','.join(unknown)}: choose from {','.join(SECTIONS)}")
    bench = Bench(given, given.work.absolute())
    quick = given.quick
    long_shape = (60, 70, 150) if quick else (160, 200, 465)
    measure: dict[str, Callable[[], None]] = {
        "windows": lambda: measure_scan(bench, "windows", (60, 70, 50) if quick else (160, 200, 155)),
        "mirror": lambda: measure_scan(
            bench,
            "mirror",
            (45, 60, 45) if quick else (100, 140, 100),
            *(name for name in WAYS if "OpenVINO" in name or name == "medunet"),
            mirror=True,
        ),
        "length": lambda: measure_scan(bench, "length", long_shape, "medunet", rounds=1, with_monai=False),
        "cohort": lambda: measure_cohort(bench),
        "long": lambda: measure_long(bench),
        "labels": lambda: measure_labels(bench),
        "start": lambda: measure_start(bench),
        "ensemble": lambda: measure_ensemble(bench),
        "chest": lambda: measure_chest(bench),
        "gpu": lambda: measure_gpu(bench),
    }
    versions = ", ".join(f"{name} {value}" for name, value in bench.conditions["versions"].items())
    print(f"{read_processor().describe()}, {num_threads()} threads; {versions}; {date.today().isoformat()}")
    if given.device == "cuda":
        asked = run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True,
                    text=True, check=False)  # fmt: skip
        print(asked.stdout.strip())
    for name in SECTIONS:
        if name in given.only:
            try:
                measure[name]()
            except InputError as error:
                print(f"\n{name}: {error}", flush=True)


if __name__ == "__main__":
    main()

"""Prediction compared with nnU-Net and with a script of MONAI: whole commands, memory, cohorts, long CTs, labels.

python benchmarks/prediction.py --peer-python PEER/bin/python --work DIR --data-root HIPPOCAMPUS [--model FOLDER] \
    [--run RUN --run-data DIR] [--only windows,mirror,length,cohort,long,labels,start,gpu] [--rounds 3] [--quick]

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
- `gpu`: a CT of 512×512×400 voxels with 15 classes on `--device cuda`, by part. It needs no data.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from subprocess import run
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from nnunet_peer import Peer, Watched, watch

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import hash_value, read_json_object, write_json
from medunet.base.processor import CoreWatch, is_heavy_load, num_threads, read_processor
from medunet.records.data_root import case_paths
from medunet.records.manifest import Manifest
from medunet.records.model_card import ModelCard
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.summary import mean_dice

SECTIONS = ("windows", "mirror", "length", "cohort", "long", "labels", "start", "gpu")
PROCESSES = Path(__file__).with_name("prediction_processes.py")
TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"
NNUNET, MONAI = "nnU-Net 2.8.1", "MONAI, eager fp32"
WAYS = {
    "medunet": [],
    "medunet, PyTorch fp32": ["--backend", "torch", "--precision", "fp32"],
    "medunet, PyTorch bf16": ["--backend", "torch", "--precision", "bf16"],
    "medunet, OpenVINO fp32": ["--backend", "openvino", "--precision", "fp32"],
    "medunet, OpenVINO bf16": ["--backend", "openvino", "--precision", "bf16"],
    "medunet, OpenVINO int8": ["--backend", "openvino", "--precision", "int8"],
    "medunet --fast": ["--fast"],
}
AXES = ("left_right", "posterior_anterior", "inferior_superior")
_SAMPLE_S = 1.0  # between two sums of the memory of all processes

Record = dict[str, Any]
Contenders = dict[str, Callable[[], Record]]


class TreeMemory:
    """Largest sum of the memory of all processes that this one has started; called again and again.

    A page that processes share is divided among them. Not measured, 0, while there is one process: its peak is known.
    """

    def __init__(self) -> None:
        self.peak_gb, self.last_s = 0.0, 0.0

    def __call__(self) -> bool:
        """Take a sample if the last one is old enough; always False, as `watch` wants it."""
        if time.monotonic() - self.last_s > _SAMPLE_S:
            processes = psutil.Process().children(recursive=True)
            total = 0
            for process in processes if len(processes) > 1 else ():
                try:
                    total += process.memory_full_info().pss
                except (psutil.Error, OSError):  # it has ended
                    continue
            self.peak_gb, self.last_s = max(self.peak_gb, total / 1e9), time.monotonic()
        return False


@dataclass
class Bench:
    """The work folder, the models and scans in it, and the results so far."""

    given: argparse.Namespace
    work: Path
    failed: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.peer = (
            Peer(self.given.peer_python.absolute(), self.work / "nnunet") if self.given.peer_python else None
        )
        (self.work / "nnunet").mkdir(parents=True, exist_ok=True)
        (self.work / "logs").mkdir(exist_ok=True)
        self.conditions: dict[str, Any] = {
            **read_processor().to_dict(),
            "threads": num_threads(),
            "device": self.given.device,
            "quick": self.given.quick,
            "model": str(self.given.model or "initialised"),
            "versions": {
                "medunet": __version__,
                **{name: _version(name) for name in ("torch", "monai", "openvino", "nncf")},
            },
        }
        key = hash_value(self.conditions)[:8]
        self.store, self.masks = self.work / f"results_{key}.json", self.work / f"masks_{key}"
        stored = read_json_object(self.store) if self.store.exists() else {"records": []}
        self.records: list[Record] = [
            record
            for record in stored["records"]
            if not (self.given.again and record["section"] in self.given.only)
        ]

    # ---- processes -----------------------------------------------------------------------------------------------

    def call(self, *arguments: object, log: str = "process") -> tuple[Watched, TreeMemory]:
        """Run one of benchmarks/prediction_processes.py."""
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(self.work / "cache"),
            "BENCHMARK_STARTED_S": str(time.monotonic()),
        }
        memory = TreeMemory()
        command = [sys.executable, str(PROCESSES), *map(str, arguments)]
        return watch(command, environment, self.work / "logs" / f"{log}.log", memory), memory

    def ours(
        self, model: Path, scans: Path, out: Path, *options: str, stand_in: str = "", sync: bool = False
    ) -> Record:
        """Run `medunet predict` on a scan or a folder of scans."""
        shutil.rmtree(out, ignore_errors=True)
        report = self.work / "logs" / "medunet.json"
        within = [*(["--stand-in", stand_in] if stand_in else []), *(["--sync"] if sync else [])]
        return self._measured(
            report,
            lambda: self.call(
                *("command", *within, report, "predict", model, scans, "--out", out),
                *("--device", self.given.device, *options),
                log="medunet",
            ),
        )

    def theirs(
        self, name: str, scans: Path, out: Path, *, mirror: bool = False, workers: Sequence[int] = (0, 0)
    ) -> Record:
        """Run `nnUNetv2_predict` on a folder of scans; `workers` are those of preprocessing and of export."""
        assert self.peer is not None
        shutil.rmtree(out, ignore_errors=True)
        peer, memory = self.peer, TreeMemory()
        record = self._measured(
            None,
            lambda: (
                peer.run(
                    "nnUNetv2_predict",
                    *("-i", str(scans), "-o", str(out), "-d", name, "-c", "3d_fullres", "-f", "0"),
                    *("-device", self.given.device, "-npp", str(workers[0]), "-nps", str(workers[1])),
                    *(() if mirror else ("--disable_tta",)),
                    reached=memory,
                ),
                memory,
            ),
        )
        log = (peer.work / "nnUNetv2_predict.log").read_text(errors="replace")
        bars = re.findall(r"(?:^|[\r\n])\s*0%\|[^|]*\| 0/(\d+)", log)
        return record | {"windows": sum(map(int, bars)) * (8 if mirror else 1)}

    def monai(self, model: Path, scan: Path, out: Path, *, mirror: bool = False) -> Record:
        """Run the script of MONAI on a scan."""
        report = self.work / "logs" / "monai.json"
        more = ("--mirror",) if mirror else ()
        return self._measured(
            report,
            lambda: self.call(
                *("monai", report, model, scan, out / "scan.nii.gz", "--device", self.given.device, *more),
                log="monai",
            ),
        )

    def _measured(self, report: Path | None, call: Callable[[], tuple[Watched, TreeMemory]]) -> Record:
        if report is not None:
            report.unlink(missing_ok=True)
        cores = CoreWatch()
        watched, memory = call()
        return {
            "seconds": round(watched.total_s, 2),
            "peak_gb": round(watched.peak_gb, 3),
            "all_gb": round(max(watched.peak_gb, memory.peak_gb), 3),
            "other_load": cores.other_load(),
            **(read_json_object(report) if report is not None else {}),
        }

    # ---- models and scans ----------------------------------------------------------------------------------------

    def model(self, kind: str, classes: int = 3, **inference: object) -> Path:
        """Return a model folder of a kind, with other settings of inference, such as `mirror`."""
        base = self.work / "models" / f"{kind}_{classes}{'_quick' if self.given.quick else ''}"
        if kind == "hippocampus" and self.given.model:
            base = self.given.model
        elif not (base / "model.json").exists():
            self.call(
                "model",
                base,
                "--kind",
                kind,
                "--classes",
                classes,
                *(["--quick"] if self.given.quick else []),
            )
        changes = {"shifts": 1, "mirror": (), "overlap": 0.5, "postprocess": {}} | inference
        folder = self.work / "models" / f"{base.name}_{hash_value([str(base), json.dumps(changes)])[:8]}"
        if not (folder / "model.json").exists():
            shutil.copytree(base, folder, dirs_exist_ok=True)
            card = ModelCard.read(base / "model.json")
            settings = type(card.inference).model_validate(card.inference.model_dump() | changes)
            card.model_copy(update={"inference": settings}).write(folder / "model.json")
        return folder

    def nnunet(self, model: Path, name: str) -> str:
        """Make nnU-Net's model of one of ours; return the name of its dataset."""
        assert self.peer is not None
        folder = self.peer.work / "results" / name / TRAINER
        mark = {"weights": ModelCard.read(model / "model.json").weights_sha256, "model": str(model)}
        if not (folder / "made_from.json").exists() or read_json_object(folder / "made_from.json") != mark:
            self.call("nnunet", model, folder, "--name", name)
            self.peer.run("python", str(PROCESSES), "checkpoint", str(folder))
            write_json(folder / "made_from.json", mark)
        return name

    def scan(self, kind: str, shape: Sequence[int]) -> tuple[Path, Path]:
        """Return a scan, and a folder with a link to it named as nnU-Net wants."""
        path = self.work / "scans" / f"{kind}_{'_'.join(map(str, shape))}" / "scan.nii.gz"
        if not path.exists():
            source = ("--source", self.hippocampi()[0]) if kind == "hippocampus" else ()
            partial_path = path.with_name("unfinished.nii.gz")
            self.call("scan", partial_path, "--kind", kind, "--shape", *shape, *source)
            partial_path.rename(path)
        return path, _link([path], path.parent / "nnunet", "_0000.nii.gz")

    def hippocampi(self) -> list[Path]:
        """Return the real scans."""
        if self.given.data_root is None:
            raise InputError("is not given", where="--data-root", hint="Give MSD Task04's folder.")
        return sorted((self.given.data_root / "imagesTr").glob("hippocampus_*.nii.gz"))

    # ---- results -------------------------------------------------------------------------------------------------

    def compete(self, section: str, contenders: Contenders, rounds: int | None = None) -> None:
        """Measure contenders in turn; one that fails is named, and left out of the other rounds."""
        for number in range(rounds or self.given.rounds):
            names = list(contenders) if number % 2 == 0 else list(reversed(contenders))
            for name in names:
                if (section, name) in self.failed or self.find(section, name, number):
                    continue
                print(f"{section}, round {number + 1}: {name}", file=sys.stderr, flush=True)
                try:
                    record = contenders[name]()
                except InputError as error:
                    lines = [line.strip(" ╭╮╰╯─│") for line in str(error).splitlines()]
                    last = [line for line in lines if line][-1]
                    self.failed[section, name] = last.replace(f"{self.work}/", "")
                    print(f"  failed: {self.failed[section, name]}", file=sys.stderr, flush=True)
                    continue
                about = {"section": section, "name": name, "round": number, "date": date.today().isoformat()}
                self.records.append(about | record)
                write_json(self.store, {"conditions": self.conditions, "records": self.records})

    def find(self, section: str, name: str, number: int | None = None) -> list[Record]:
        """Return the records of a contender, or that of one round."""
        return [
            record
            for record in self.records
            if record["section"] == section and record["name"] == name and number in (None, record["round"])
        ]

    def ways(self, *names: str) -> dict[str, list[str]]:
        """Return ways to predict with medunet, without those in bf16 where the processor has none."""
        has_bf16 = self.given.device != "cpu" or self.conditions["kind"] == "AVX-512 with bf16"
        chosen = names or [name for name in WAYS if name != "medunet --fast"]
        return {name: WAYS[name] for name in chosen if has_bf16 or "bf16" not in name}

    def warm_up(self, section: str, model: Path, ways: Iterable[str], kind: str = "hippocampus") -> None:
        """Predict a scan of one window in each way, so that choices and converted networks are cached."""
        scan, _ = self.scan(kind, (35, 50, 35) if kind == "hippocampus" else (96, 80, 120))
        first = f"first call {hash_value(str(model))[:8]}"
        for name in ways:
            call = partial(self.ours, model, scan, self.masks / "warm", *WAYS[name])
            self.compete(first, {name: call}, rounds=1)
            if (first, name) in self.failed:
                self.failed[section, name] = self.failed[first, name]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _link(files: Sequence[Path], folder: Path, ending: str = ".nii.gz") -> Path:
    """Return a folder with links to files under their names, with another ending."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name.replace(".nii.gz", ending)).symlink_to(file.resolve())
    return folder


# ---- sections ----------------------------------------------------------------------------------------------------


def measure_scan(
    bench: Bench,
    section: str,
    shape: Sequence[int],
    *ways: str,
    rounds: int | None = None,
    mirror: bool = False,
    with_monai: bool = True,
) -> None:
    """Measure whole commands on one scan, and print their table."""
    model = bench.model("hippocampus", mirror=AXES if mirror else ())
    scan, folder = bench.scan("hippocampus", shape)
    masks = bench.masks / section
    contenders: Contenders = {
        name: partial(bench.ours, model, scan, masks / name, *options)
        for name, options in bench.ways(*ways).items()
    }
    bench.warm_up(section, model, contenders)
    if bench.peer is not None:
        name = bench.nnunet(model, "Dataset001_hippocampus")
        contenders[NNUNET] = partial(bench.theirs, name, folder, masks / NNUNET, mirror=mirror)
    if with_monai:
        contenders[MONAI] = partial(bench.monai, model, scan, masks / MONAI, mirror=mirror)
    bench.compete(section, contenders, rounds)
    title = f"{'×'.join(map(str, shape))} voxels at 1 mm" + (", mirrored along all axes" if mirror else "")
    print_commands(bench, section, list(contenders), title, masks)


def measure_cohort(bench: Bench) -> None:
    """Measure one command on 40 hippocampi."""
    files = bench.hippocampi()[: 3 if bench.given.quick else 40]
    model = bench.model("hippocampus")
    ours = _link(files, bench.work / "scans" / "cohort")
    masks = bench.masks / "cohort"
    contenders: Contenders = {
        name: partial(bench.ours, model, ours, masks / name, *options)
        for name, options in bench.ways().items()
    }
    bench.warm_up("cohort", model, contenders)
    if bench.peer is not None:
        name = bench.nnunet(model, "Dataset001_hippocampus")
        theirs = _link(files, bench.work / "scans" / "cohort_nnunet", "_0000.nii.gz")
        contenders[NNUNET] = partial(bench.theirs, name, theirs, masks / NNUNET)
        contenders[f"{NNUNET}, 3 + 3 workers (its default)"] = partial(
            bench.theirs, name, theirs, masks / f"{NNUNET} workers", workers=(3, 3)
        )
    bench.compete("cohort", contenders)
    print_commands(bench, "cohort", list(contenders), f"{len(files)} hippocampi in one command", masks)


def measure_start(bench: Bench) -> None:
    """Measure a command on one hippocampus, everything cached."""
    model = bench.model("hippocampus")
    scan, folder = bench.scan("hippocampus", (35, 50, 35))
    masks = bench.masks / "start"
    contenders: Contenders = {
        name: partial(bench.ours, model, scan, masks / name, *options)
        for name, options in bench.ways().items()
    }
    bench.warm_up("start", model, contenders)
    if bench.peer is not None:
        name = bench.nnunet(model, "Dataset001_hippocampus")
        contenders[NNUNET] = partial(bench.theirs, name, folder, masks / NNUNET)
    contenders[MONAI] = partial(bench.monai, model, scan, masks / MONAI)
    bench.compete("start", contenders)
    print_commands(bench, "start", list(contenders), "one scan of one window, 35×50×35 voxels", masks)


def measure_long(bench: Bench) -> None:
    """Measure a long CT with a stand-in for the network."""
    quick = bench.given.quick
    shape = (96, 80, 120) if quick else (512, 512, 1000)
    scan, _ = bench.scan("ct", shape)
    rows: dict[str, str] = {}
    for classes in (4, 9) if quick else (15, 118):
        largest = {f"label{value}": ({"keep_largest": True},) for value in range(1, classes)}
        for stand_in, steps in (("smooth", largest), ("noise", {})):
            model = bench.model("ct", classes, postprocess=steps)
            name = f"{classes} classes, {stand_in}"
            bench.warm_up("long", model, ["medunet"], "ct")
            call = partial(
                bench.ours, model, scan, bench.masks / "long", *bench.given.long_options.split(),
                stand_in=stand_in,
            )  # fmt: skip
            bench.compete("long", {name: call}, rounds=1)
            rows[name] = f"{classes} classes, " + (
                "confident logits, the largest component of every class kept"
                if stand_in == "smooth"
                else "random logits, nothing tidied"
            )
    size = "×".join(map(str, shape))
    print(f"\n### CT of {size} voxels, a stand-in for the network\n")
    parts = ("read", "prepare", "windows", "restore", "tidy", "write")
    print_row(
        *("", "GB", "all but the network, s", "start", *map(_title, parts)),
        *("windows", "s a window", "the network, estimated, s"),
    )
    print_row(*["---"] * (7 + len(parts)))
    for name, text in rows.items():
        for record in bench.find("long", name):
            seconds = record["seconds_by_part"]
            network = seconds.get("network", 0.0)
            print_row(
                text,
                f"{record['peak_gb']:.2f}",
                f"{record['seconds'] - network:.1f}",
                f"{record['start_s']:.1f}",
                *(f"{seconds.get(part, 0.0):.1f}" for part in parts),
                record["windows"],
                f"{record['window_s']:.3f}",
                f"{record['windows'] * record['window_s']:.0f}",
            )
        if ("long", name) in bench.failed:
            print_row(text, f"failed: {bench.failed['long', name]}", *[""] * (5 + len(parts)))


def measure_gpu(bench: Bench) -> None:
    """Measure a CT by part: medunet, a script of MONAI and nnU-Net's command."""
    shape = (96, 80, 60) if bench.given.quick else (512, 512, 400)
    model = bench.model("ct", 4 if bench.given.quick else 15)
    scan, folder = bench.scan("ct", shape)
    masks = bench.masks / "gpu"
    bench.warm_up("gpu", model, ["medunet"], "ct")
    contenders: Contenders = {
        "medunet": partial(bench.ours, model, scan, masks / "medunet"),
        "medunet, waiting for the card after each part": partial(
            bench.ours, model, scan, masks / "sync", sync=bench.given.device == "cuda"
        ),
        MONAI: partial(bench.monai, model, scan, masks / MONAI),
    }
    if bench.peer is not None:
        name = bench.nnunet(model, "Dataset002_ct")
        contenders[NNUNET] = partial(bench.theirs, name, folder, masks / NNUNET)
    bench.compete("gpu", contenders)
    parts = ("read", "prepare", "windows", "network", "restore", "write")
    print(f"\n### CT of {'×'.join(map(str, shape))} voxels on {bench.given.device}\n")
    print_row("", "whole command, best s", "median s", *map(_title, parts), "first window s", "windows", "GB")
    print_row(*["---"] * (6 + len(parts)))
    for name in contenders:
        if records := bench.find("gpu", name):
            best = min(records, key=lambda record: record["seconds"])
            seconds = best.get("seconds_by_part", {})
            print_row(
                name,
                best["seconds"],
                f"{statistics.median(record['seconds'] for record in records):.2f}",
                *(f"{seconds[part]:.2f}" if part in seconds else "" for part in parts),
                best.get("first_window_s", ""),
                best.get("windows", ""),
                f"{best['peak_gb']:.2f}",
            )
        else:
            print_row(name, f"failed: {bench.failed['gpu', name]}", *[""] * (4 + len(parts)))


def measure_labels(bench: Bench) -> None:
    """Compare the labels of every way with those of float32 on held-out cases, and stored masks with today's."""
    if bench.given.run is None:
        raise InputError("is not given", where="--run", hint="Give a trained run's folder, and --run-data.")
    run_folder: Path = bench.given.run
    manifest = Manifest.read(run_folder / "manifest.json")
    description = manifest.description
    cases = manifest.split_fold(0)[1][: 2 if bench.given.quick else None]
    paths = {case.id: case_paths(case, description, bench.given.run_data) for case in cases}
    scans = _link([images[0] for images, _ in paths.values()], bench.work / "scans" / "labels")
    labels = {case: label for case, (_, label) in paths.items() if label is not None}
    stored = bench.work / "models" / "labels"
    shutil.rmtree(stored, ignore_errors=True)
    shutil.copytree(run_folder / "folds" / "0" / "model", stored)
    card = ModelCard.read(stored / "model.json")
    plain = bench.work / "models" / "labels_plain"
    shutil.rmtree(plain, ignore_errors=True)
    shutil.copytree(stored, plain)
    settings = card.inference.model_copy(update={"shifts": 1, "mirror": ()})
    card.model_copy(update={"inference": settings}).write(plain / "model.json")

    masks = bench.masks / "labels"
    contenders: Contenders = {
        name: partial(bench.ours, plain, scans, masks / name, *options)
        for name, options in (bench.ways() | {"medunet --fast": WAYS["medunet --fast"]}).items()
    }
    reference = "medunet, PyTorch fp32"
    older = "with the run's own averaging"
    contenders[older] = partial(bench.ours, stored, scans, masks / older, *WAYS[reference])
    bench.compete("labels", contenders, rounds=1)

    def dice(first: dict[str, Path], second: Path) -> float:
        pairs = [Pair(case, path, second / f"{case}.nii.gz") for case, path in first.items()]
        return mean_dice(score_pairs(pairs, description.targets, description.targets))

    def differing(first: Path, second: Path) -> tuple[int, int]:
        pairs = [[_voxels(folder / f"{case}.nii.gz") for folder in (first, second)] for case in paths]
        return sum(int((one != other).sum()) for one, other in pairs), sum(one.size for one, _ in pairs)

    if ("labels", reference) in bench.failed:
        raise InputError(bench.failed["labels", reference], where=reference)
    print(f"\n### Labels on {len(cases)} held-out cases of {description.name}, no averaging\n")
    print_row("", "Dice against fp32", "voxels that differ", "Dice against the reference", "s")
    print_row(*["---"] * 5)
    for name in contenders:
        records = bench.find("labels", name)
        if not records or name == older:
            if name != older:
                print_row(name, f"failed: {bench.failed['labels', name]}", "", "", "")
            continue
        against = {case: masks / reference / f"{case}.nii.gz" for case in paths}
        wrong, total = differing(masks / reference, masks / name)
        print_row(
            name,
            f"{dice(against, masks / name):.5f}",
            f"{wrong:,} of {total:,}",
            f"{dice(labels, masks / name):.4f}" if labels else "",
            records[0]["seconds"],
        )
    earlier: Path = bench.given.older or run_folder / "predictions"
    if bench.find("labels", older) and all((earlier / f"{case}.nii.gz").exists() for case in paths):
        wrong, total = differing(earlier, masks / older)
        against = {case: earlier / f"{case}.nii.gz" for case in paths}
        how = f"shifts {card.inference.shifts}, mirror {list(card.inference.mirror)}"
        print(
            f"\nMasks that medunet {card.medunet_version} stored against today's in fp32 ({how}): "
            f"Dice {dice(against, masks / older):.5f}, {wrong:,} of {total:,} voxels differ."
        )


# ---- tables ------------------------------------------------------------------------------------------------------


def print_row(*cells: object) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_commands(bench: Bench, section: str, names: Sequence[str], title: str, masks: Path) -> None:
    """Print the table of commands that did the same: seconds, ratios, memory."""
    peers = [name for name in names if not name.startswith("medunet") and bench.find(section, name)]
    print(f"\n### {title[0].upper()}{title[1:]}\n")
    ratios = (f"times as fast as {peer}" for peer in peers)
    shares = (f"of {peer}'s" for peer in peers)
    same = f"same voxels as {NNUNET}"
    print_row("", "best s", "median s", *ratios, "GB", *shares, "all GB", "windows", "first window s", same)
    print_row(*["---"] * (8 + 2 * len(peers)))
    for name in names:
        records = bench.find(section, name)
        if not records:
            print_row(name, f"failed: {bench.failed[section, name]}", *[""] * (6 + 2 * len(peers)))
            continue
        seconds = [record["seconds"] for record in records]
        peak_gb = max(record["peak_gb"] for record in records)
        busy = any(is_heavy_load(record["other_load"]) for record in records)
        first = [record["first_window_s"] for record in records if record.get("first_window_s")]
        print_row(
            name + (" (others used the cores too)" if busy else ""),
            f"{min(seconds):.1f}",
            f"{statistics.median(seconds):.1f}",
            *(_ratio(bench, section, name, peer) for peer in peers),
            f"{peak_gb:.2f}",
            *(
                f"{peak_gb / max(other['peak_gb'] for other in bench.find(section, peer)):.2f}"
                for peer in peers
            ),
            f"{max(record['all_gb'] for record in records):.2f}",
            records[-1].get("windows", ""),
            f"{min(first):.1f}" if first else "",
            _agreement(masks / name, masks / NNUNET),
        )


def _title(part: str) -> str:
    return "cut and add windows" if part == "windows" else part


def _ratio(bench: Bench, section: str, name: str, peer: str) -> str:
    own = {record["round"]: record["seconds"] for record in bench.find(section, name)}
    ratios = [
        record["seconds"] / own[record["round"]]
        for record in bench.find(section, peer)
        if record["round"] in own
    ]
    return f"{statistics.median(ratios):.2f}" if ratios else ""


def _agreement(ours: Path, theirs: Path) -> str:
    """Return the share of voxels with the same label in the masks of two folders."""
    pairs = [(path, theirs / path.name) for path in ours.glob("*.nii.gz") if (theirs / path.name).exists()]
    same = [_voxels(one) == _voxels(other) for one, other in pairs]
    return f"{sum(int(each.sum()) for each in same) / sum(each.size for each in same):.4%}" if same else ""


def _voxels(path: Path) -> Any:
    return np.asarray(nib.load(path).dataobj, np.uint8)  # type: ignore[attr-defined]


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
    parser.add_argument("--only", default=",".join(SECTIONS[:-1]), help="sections to measure, by comma")
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
    torch_and_openvino = ("medunet", "medunet, PyTorch fp32", "medunet, OpenVINO fp32")
    measure: dict[str, Callable[[], None]] = {
        "windows": lambda: measure_scan(bench, "windows", (60, 70, 50) if quick else (160, 200, 155)),
        "mirror": lambda: measure_scan(
            bench, "mirror", (45, 60, 45) if quick else (100, 140, 100), mirror=True
        ),
        "length": lambda: measure_scan(
            bench, "length", long_shape, *torch_and_openvino, rounds=1, with_monai=False
        ),
        "cohort": lambda: measure_cohort(bench),
        "long": lambda: measure_long(bench),
        "labels": lambda: measure_labels(bench),
        "start": lambda: measure_start(bench),
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

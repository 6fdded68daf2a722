"""Work folder of benchmarks/prediction.py: models and scans in it, contenders, and results so far."""

import argparse
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
from nnunet_peer import Peer, Watched, watch

from medunet import __version__
from medunet.base.errors import InputError
from medunet.base.files import hash_value, read_json_object, write_json
from medunet.base.processor import CoreWatch, num_threads, read_processor
from medunet.records.model_card import ModelCard

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
                *("--device", self.given.device, "--accept", "N028", *options),  # scans are tiled
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
        return path, link_files([path], path.parent / "nnunet", "_0000.nii.gz")

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


def link_files(files: Sequence[Path], folder: Path, ending: str = ".nii.gz") -> Path:
    """Return a folder with links to files under their names, with another ending."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for file in files:
        (folder / file.name.replace(".nii.gz", ending)).symlink_to(file.resolve())
    return folder

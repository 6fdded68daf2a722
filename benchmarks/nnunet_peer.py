"""Train nnU-Net on one fold of a dataset for a number of minutes and score it with medunet, for comparison.

python benchmarks/nnunet_peer.py --peer-python PEER/bin/python --work DIR --data-root DIR --folds-file FILE \
    [--fold 0] [--minutes 5] [--batch 6]

PEER is an environment with nnunetv2 2.8.1, created once:

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0   # its CPU build
    PEER/bin/pip install --no-deps nnunetv2==2.8.1 dynamic-network-architectures==0.4.4 batchgenerators \
        batchgeneratorsv2 acvl-utils==0.2.6
    PEER/bin/pip install scipy tqdm scikit-learn scikit-image SimpleITK pandas tifffile requests nibabel matplotlib \
        seaborn imagecodecs yacs einops blosc2 connected-components-3d threadpoolctl future graphviz
    rm -r PEER/lib/python3.11/site-packages/nnunetv2/training/nnUNetTrainer/primus

The last line is needed because its transformers import timm, and with it a torchvision that does not match the CPU
build of torch.

Raw folder, plan and preprocessed cases are created in the work folder by the first call and kept. nnU-Net plans by
its own rules (on hippocampus: patch 40×56×40, batch 6, 32 to 256 channels); `--batch` overrides only the batch size.
See benchmarks/nnunet_trainers/timed_trainer.py for what the minutes include. Prints one JSON object, with and
without mirroring at prediction. Mean Dice is the mean over cases of the mean over classes, on the scans' grid. """

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medunet.base.errors import InputError
from medunet.base.files import write_json
from medunet.base.processor import read_processor
from medunet.dataset.manifest import make_manifest
from medunet.dataset.splits import read_folds
from medunet.imaging.volumes import read_label, write_mask
from medunet.records.data_root import case_paths
from medunet.records.description import load_description
from medunet.records.manifest import Manifest
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.summary import mean_dice, summarise

DATASET = "Dataset001_peer"
TRAINER = "TimedTrainer"
TRAINERS = Path(__file__).with_name("nnunet_trainers")


@dataclass(frozen=True)
class Watched:
    """Measurements of a finished process: times in seconds since its start, and peak memory in GB."""

    total_s: float
    reached_s: float | None  # when the condition was first met
    peak_gb: float


def watch(
    command: list[str], environment: Mapping[str, str], log: Path, reached: Callable[[], bool]
) -> Watched:
    """Run a command with its output in `log`, and measure when `reached` first returns True.

    Raises:
        InputError: The command failed; the message shows the end of its log.
    """
    start, reached_s = time.monotonic(), None
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=dict(environment), stdout=stream, stderr=subprocess.STDOUT)
        while True:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
            if reached_s is None and reached():
                reached_s = time.monotonic() - start
            if ended:
                break
            time.sleep(0.05)
    if status:
        process.returncode = os.waitstatus_to_exitcode(status)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise InputError(f"{Path(command[0]).name} ended with {process.returncode}:\n{tail}")
    process.returncode = 0
    return Watched(time.monotonic() - start, reached_s, usage.ru_maxrss * 1024 / 1e9)  # Linux reports KiB


def read_rows(path: Path) -> list[dict[str, float]]:
    """Read steps and minutes from the table that a training process writes; empty before it exists."""
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        rows = csv.DictReader(stream)
        return [{key: float(row[key] or "nan") for key in ("step", "minutes")} for row in rows]


@dataclass(frozen=True)
class Peer:
    """nnU-Net's Python environment, and the work folder for all files that it reads and writes."""

    python: Path
    work: Path

    @property
    def preprocessed(self) -> Path:
        """Folder of the plan and the preprocessed cases."""
        return self.work / "preprocessed" / DATASET

    @property
    def raw(self) -> Path:
        """Folder of the cases in nnU-Net's raw format."""
        return self.work / "raw" / DATASET

    def run(
        self,
        script: str,
        *arguments: str,
        reached: Callable[[], bool] = lambda: False,
        more: Mapping[str, str] | None = None,
    ) -> Watched:
        """Run one of nnU-Net's commands; its output goes to `<script>.log` in the work folder."""
        folders = {f"nnUNet_{name}": str(self.work / name) for name in ("raw", "preprocessed", "results")}
        environment = {
            **os.environ,
            **folders,
            "nnUNet_extTrainer": str(TRAINERS),
            "nnUNet_compile": "f",
            **(more or {}),
        }
        command = [str(self.python.parent / script), *arguments]
        return watch(command, environment, self.work / f"{script}.log", reached)

    def prepare(self, manifest: Manifest, data_root: Path) -> float | None:
        """Write the raw folder, plan and preprocess; return the seconds taken, or None if this was done before."""
        splits_file = self.preprocessed / "splits_final.json"  # written last
        if splits_file.exists():
            return None
        start = time.monotonic()
        shutil.rmtree(self.raw, ignore_errors=True)
        write_raw(manifest, data_root, self.raw)
        self.run(
            "nnUNetv2_plan_and_preprocess",
            *("-d", DATASET.split("_")[0].removeprefix("Dataset"), "-c", "3d_fullres"),
            *("-np", "1", "-npfp", "1"),
        )
        folds = range(manifest.num_folds)
        pairs = [manifest.split_fold(fold) for fold in folds]
        splits = [
            {"train": [case.id for case in train], "val": [case.id for case in held_out]}
            for train, held_out in pairs
        ]
        write_json(splits_file, splits)
        return time.monotonic() - start

    def configure(self, batch: int | None) -> tuple[str, dict[str, Any]]:
        """Return name and content of the plan's 3D configuration, with nnU-Net's or the given batch size."""
        path = self.preprocessed / "nnUNetPlans.json"
        plans = json.loads(path.read_text())
        configurations = plans["configurations"]
        plain = configurations["3d_fullres"]
        if batch is None or batch == plain["batch_size"]:
            return "3d_fullres", plain
        name = f"3d_fullres_batch{batch}"
        configurations[name] = {"inherits_from": "3d_fullres", "batch_size": batch}
        write_json(path, plans)
        return name, {**plain, "batch_size": batch}

    def train(
        self, configuration: str, fold: int, *, reached_step: int = 1, **limits: float
    ) -> tuple[Watched, list[dict[str, float]]]:
        """Train a fold on the CPU from scratch; return the process and a row (step, minutes) for each step.

        `limits` are the keyword arguments `minutes` or `steps`.
        """
        folder = self.work / "results" / DATASET / f"{TRAINER}__nnUNetPlans__{configuration}" / f"fold_{fold}"
        shutil.rmtree(folder, ignore_errors=True)
        steps = folder / "steps.csv"
        watched = self.run(
            "nnUNetv2_train",
            *(DATASET, configuration, str(fold), "-tr", TRAINER, "-device", "cpu"),
            reached=lambda: len(read_rows(steps)) >= reached_step,
            more={
                "nnUNet_n_proc_DA": "0",  # augment in the training process, as there are no spare cores
                **{f"PEER_{name.upper()}": str(value) for name, value in limits.items()},
            },
        )
        return watched, read_rows(steps)

    def predict(
        self, configuration: str, fold: int, manifest: Manifest, *, mirror: bool
    ) -> tuple[Path, float]:
        """Predict a fold's held-out cases with nnU-Net; return the folder of masks and the seconds taken."""
        scans = self.work / f"held_out_{fold}"
        out = self.work / f"predictions_{fold}_{'mirrored' if mirror else 'plain'}"
        for folder in (scans, out):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for case in manifest.split_fold(fold)[1]:
            for image in (self.raw / "imagesTr").glob(f"{case.id}_[0-9][0-9][0-9][0-9].nii.gz"):
                (scans / image.name).symlink_to(image.resolve())
        watched = self.run(
            "nnUNetv2_predict",
            *("-i", str(scans), "-o", str(out), "-d", DATASET, "-c", configuration, "-f", str(fold)),
            *("-tr", TRAINER, "-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar"),
            *(() if mirror else ("--disable_tta",)),
        )
        return out, watched.total_s


def write_raw(manifest: Manifest, data_root: Path, raw: Path) -> None:
    """Write nnU-Net's raw folder: links to images as `<case>_0000.nii.gz`, labels as uint8, dataset.json.

    Raises:
        InputError: The dataset has regions, or images are not one .nii.gz file per channel.
    """
    description = manifest.description
    if description.regions:
        raise InputError("has regions; only mutually exclusive labels are supported", where=description.name)
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    cases = [case for case in manifest.used if case.split == "train"]
    for case in cases:
        images, label = case_paths(case, description, data_root)
        assert label is not None
        if len(set(images)) < len(images) or not all(image.name.endswith(".nii.gz") for image in images):
            raise InputError("needs one .nii.gz file per channel", where=f"case {case.id}")
        for channel, image in enumerate(images):
            (raw / "imagesTr" / f"{case.id}_{channel:04}.nii.gz").symlink_to(image.resolve())
        volume = read_label(label)
        write_mask(raw / "labelsTr" / f"{case.id}.nii.gz", volume.array, volume.header)
    about = {
        "channel_names": {
            str(i): channel.modality for i, channel in enumerate(description.channels.values())
        },
        "labels": description.labels,
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    write_json(raw / "dataset.json", about)


def score(manifest: Manifest, fold: int, data_root: Path, predictions: Path) -> dict[str, float]:
    """Return the mean Dice of a fold's held-out cases, over all classes and for each class."""
    description = manifest.description
    pairs = []
    for case in manifest.split_fold(fold)[1]:
        _, label = case_paths(case, description, data_root)
        assert label is not None
        pairs.append(Pair(case.id, label, predictions / f"{case.id}.nii.gz"))
    scores = score_pairs(pairs, description.targets, description.targets)
    classes = {row.label: round(row.metrics["dice"].mean, 4) for row in summarise(scores)}
    return {"mean_dice": round(mean_dice(scores), 4), "cases": len(pairs), **classes}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options shared by all comparisons with nnU-Net."""
    parser.add_argument("--peer-python", type=Path, required=True, help="python of nnU-Net's environment")
    parser.add_argument("--work", type=Path, required=True, help="folder for all files that are written")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--folds-file", type=Path, required=True, help='{"folds": [[case id, ...], ...]}')
    parser.add_argument("--dataset", default="msd_task04_hippocampus")
    parser.add_argument("--fold", type=int, default=0)


def read_cases(given: argparse.Namespace) -> Manifest:
    """Make the manifest of the dataset with the folds from the folds file."""
    description = load_description(given.dataset)
    return make_manifest(description, given.data_root, folds=read_folds(given.folds_file))


def main() -> None:
    """Prepare, train, predict and score with nnU-Net, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--batch", type=int, help="replaces the plan's batch size")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    peer, manifest = Peer(given.peer_python.absolute(), given.work.absolute()), read_cases(given)
    prepared_s = peer.prepare(manifest, given.data_root)
    configuration, plan = peer.configure(given.batch)
    print(f"nnU-Net trains fold {given.fold} for {given.minutes:g} minutes", file=sys.stderr)
    watched, steps = peer.train(configuration, given.fold, minutes=given.minutes)
    result: dict[str, Any] = {
        "peer": "nnU-Net",
        **read_processor().to_dict(),
        "dataset": manifest.description.name,
        "fold": given.fold,
        "minutes": round(steps[-1]["minutes"], 2),
        "steps": len(steps),
        "patch_size": plan["patch_size"],
        "batch_size": plan["batch_size"],
        "features": plan["architecture"]["arch_kwargs"]["features_per_stage"],
        "first_step_after_s": round(watched.reached_s or float("nan"), 1),
        "process_s": round(watched.total_s, 1),
        "peak_gb": round(watched.peak_gb, 2),
        "prepared_s": prepared_s and round(prepared_s, 1),
    }
    for name, mirror in (("mirrored", True), ("plain", False)):
        predictions, seconds = peer.predict(configuration, given.fold, manifest, mirror=mirror)
        result[name] = {
            **score(manifest, given.fold, given.data_root, predictions),
            "predict_s": round(seconds, 1),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

"""Prediction in a region of interest that a coarse model finds, compared with whole scans: Dice, time and windows.

python benchmarks/coarse_to_fine.py FOLDER [--cases 12] [--coarse-steps 400] [--fine-steps 400] [--precision fp32]

Makes synthetic abdominal CTs at 1 mm with two small organs, pancreas and gallbladder, in the folder. Trains a coarse
model at 4 mm and a fine one at 1 mm on three quarters of them, for a fixed number of steps. The others are predicted
by the coarse model alone, by the fine one in whole scans, and by both (`medunet predict --roi`), all by PyTorch and
with windows that overlap by a quarter. What is there already is used again, other than the predictions. Prints a
table in Markdown.
"""

import argparse
import platform
from pathlib import Path

import numpy as np
import torch
import yaml

from medunet.base.files import read_json
from medunet.base.processor import usable_cores
from medunet.commands.check import run_check
from medunet.commands.manifest import run_manifest
from medunet.commands.plan import run_plan
from medunet.commands.predict import scans_of
from medunet.commands.train import run_train
from medunet.imaging.nifti import write_volume
from medunet.inference.model import Model
from medunet.inference.predict import predict_scans
from medunet.inference.predictor import Predictor
from medunet.inference.roi_model import with_roi
from medunet.phantoms.body import Tissue, draw_body, fill_liver
from medunet.phantoms.painting import find_liver, paint, scan_grid
from medunet.phantoms.phantom import make_phantom
from medunet.runs.run import Run, held_out_cases, open_run
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair

SPACING_MM = (1.0, 1.0, 1.0)
ORGANS = {"pancreas": Tissue.PANCREAS, "gallbladder": Tissue.BILE}
NUM_TUMOURS = 2  # of the liver
MARGINS_MM = (10.0, 20.0)
TRAINING = (
    "training.fold=0",
    "training.epochs=4",
    "training.optimizer=adamw",
    "training.learning_rate=2e-3",
    "training.foreground_share=0.67",
    "training.mirror=false",
    "training.validation_cases=1",
    "planning.batch_size=1",
    "planning.base_features=8",
    "inference.overlap=0.25",
    "device=cpu",
)
COARSE = (
    "planning.spacing_mm=[4,4,4]",
    "planning.patch_size=[64,48,32]",
)
FINE = (
    "planning.spacing_mm=[1,1,1]",
    "planning.patch_size=[56,56,40]",
)


def write_phantom(folder: Path, number: int) -> None:
    """Write a scan and the label map of its small organs, unless they are there."""
    image, label = (folder / name / f"phantom_{number:03d}.nii.gz" for name in ("imagesTr", "labelsTr"))
    if image.exists() and label.exists():
        return
    made = make_phantom(number, spacing_mm=SPACING_MM, num_tumours=NUM_TUMOURS)
    body = draw_body(number)
    body = fill_liver(body, number, NUM_TUMOURS, *find_liver(body))
    tissue = paint(body, *scan_grid(body, SPACING_MM, "LPS", 0.0))
    labels = np.zeros(tissue.shape, np.uint8)
    for value, kind in enumerate(ORGANS.values(), start=1):
        labels[tissue == kind] = value
    write_volume(image, made.image, made.affine)
    write_volume(label, labels, made.affine)


def train(folder: Path, name: str, planning: tuple[str, ...], num_steps: int) -> Run:
    """Return a run whose fold 0 is trained for so many steps."""
    changes = [*TRAINING, *planning, f"training.steps_per_epoch={num_steps // 4}"]
    run = open_run(folder / name, folder / "data", dataset=str(folder / "organs.yaml"), changes=changes)
    for stage in (run_manifest, run_check, run_plan, run_train):
        stage(run)
    return run


def measure(run: Run, model: Predictor, out: Path) -> str:
    """Predict the held-out cases into a folder; return mean Dice by organ, and means per case, as cells of a row."""
    manifest = run.read_manifest()
    cases = held_out_cases(run, 0)
    scans = scans_of(cases, manifest, run.data_root)
    assert not predict_scans(model, scans, out, run.config.inference, overwrite=True)
    pairs = [Pair(case.id, run.data_root / str(case.label), out / f"{case.id}.nii.gz") for case in cases]
    targets = manifest.description.targets
    scores = score_pairs(pairs, targets, targets)
    dice = [np.mean([row.dice for row in scores if row.label == name]) for name in targets]
    entries = read_json(out / "index.json")["cases"].values()
    compute, whole, windows, growths = (
        np.mean(values)
        for values in zip(
            *(
                (
                    entry["seconds_by_part"]["compute"],
                    entry["seconds"],
                    entry["windows"] - entry["windows_reused"],
                    entry.get("roi_growths", 0),
                )
                for entry in entries
            ),
            strict=True,
        )
    )
    cells = [*(f"{value:.3f}" for value in dice), f"{compute:.1f}", f"{whole:.1f}", f"{windows:.0f}"]
    return " | ".join([*cells, f"{growths:.1f}"])


def main() -> None:
    """Make what is missing, predict, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--coarse-steps", type=int, default=400)
    parser.add_argument("--fine-steps", type=int, default=400)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    given = parser.parse_args()
    for number in range(given.cases):
        write_phantom(given.folder / "data", number)
    description = {
        "schema": "medunet.dataset/1",
        "name": "organs",
        "layout": "msd",
        "channels": {"CT": {"modality": "CT"}},
        "labels": {"background": 0} | {name: value for value, name in enumerate(ORGANS, start=1)},
        "folds": 4,
    }
    (given.folder / "organs.yaml").write_text(yaml.safe_dump(description, sort_keys=False))
    coarse_run = train(given.folder, "coarse", COARSE, given.coarse_steps)
    fine_run = train(given.folder, "fine", FINE, given.fine_steps)
    coarse, fine = (
        Model.load(run.folder.model(0), device=torch.device("cpu"), precision=given.precision)
        for run in (coarse_run, fine_run)
    )
    ways: dict[str, Predictor] = {"coarse, whole scan": coarse, "fine, whole scan": fine}
    for margin_mm in MARGINS_MM:
        ways[f"fine, {margin_mm:g} mm around coarse"] = with_roi(fine, coarse, margin_mm=margin_mm)
    rows = [
        f"| {name} | {measure(fine_run, model, given.folder / name.replace(' ', '_'))} |"
        for name, model in ways.items()
    ]
    print(
        f"{platform.processor() or platform.machine()}, {usable_cores()} cores; means over the held-out cases"
    )
    print(
        f"| model | {' | '.join(f'Dice of {name}' for name in ORGANS)} | s of network | s | windows | growths |"
    )
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()

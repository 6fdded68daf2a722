"""Train small models with nnU-Net, and store its answers to one scan each, for tests/inference/nnunet.

PEER/bin/python benchmarks/make_nnunet_models.py tests/inference/nnunet [NAME ...]

Runs in nnU-Net's environment (see benchmarks/nnunet_peer.py); about a minute for each model on one core. Every model
learns drawn shapes by a plain loop with nnU-Net's own preprocessing, network and trainer class, which then saves
the checkpoint. Each folder holds:

- `results/`: nnU-Net's results folder with the trained model;
- `scans/`: a scan that it has not seen; `truth/`: what was drawn in it;
- `labels/`: the masks that nnU-Net predicts by its usual functions;
- `expected.npz`: the preprocessed array `(C, z, y, x)` in nnU-Net's axis order, and the logits of each
  configuration before they are resampled. nnU-Net adds logits up in half precision, which errs by up to 0.5 where
  only the corners of windows lie; here the same function adds them up in float32. They are kept as int16 with a
  scale, which errs by less than 0.0003.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

WORK = Path(tempfile.mkdtemp())
for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    (WORK / variable).mkdir()
    os.environ[variable] = str(WORK / variable)

import numpy as np  # noqa: E402
import SimpleITK as sitk  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from nnunet_examples import BATCH, CASE, MODELS, NUM_CASES, draw, plans_of, write_scan  # noqa: E402
from nnunetv2.inference import predict_from_raw_data as prediction  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402
from skimage import io  # noqa: E402

STEPS = 400


# ---- training ----------------------------------------------------------------------------------------------------


def prepare(
    manager: PlansManager,
    name: str,
    dataset: dict[str, Any],
    image: np.ndarray,
    label: np.ndarray,
    spacing: tuple[float, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """Return image and labels of a case as nnU-Net's preprocessor makes them."""
    settings = manager.get_configuration(name)
    preprocessor = settings.preprocessor_class(verbose=False)
    properties = {"spacing": spacing}
    return preprocessor.run_case_npy(
        image, label[None].astype(np.float32), properties, manager, settings, dataset
    )[:2]


def learn(model: dict[str, Any], manager: PlansManager, trainer: nnUNetTrainer, seed: int) -> None:
    """Train the trainer's network on drawn scans; of a cascade with the shifted truth as the earlier stage's mask."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    name, settings = trainer.configuration_name, trainer.configuration_manager
    heads = trainer.label_manager
    patch = settings.patch_size
    spacing = model.get("spacing_mm", (1, 1, 999))[::-1]
    cases = []
    for number in range(NUM_CASES):
        image, label = draw(model, 100 * seed + number + 10)
        image, label = prepare(manager, name, trainer.dataset_json, image, label, spacing)
        label = np.maximum(label, 0)
        if settings.previous_stage_name is not None:
            rolled = np.roll(label[0], rng.integers(-1, 2, 3), (0, 1, 2))
            image = np.vstack(
                (image, convert_labelmap_to_one_hot(rolled, heads.foreground_labels, image.dtype))
            )
        least = [0] * (3 - len(patch)) + patch
        pads = [(0, 0), *((0, max(0, n - m)) for n, m in zip(least, image.shape[1:], strict=True))]
        cases.append((np.pad(image, pads), np.pad(label, pads)))
    optimiser = torch.optim.Adam(trainer.network.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, STEPS)
    losses = []
    for _ in range(STEPS):
        images, targets = [], []
        for _ in range(BATCH if len(patch) == 3 else 6):
            image, label = cases[rng.integers(len(cases))]
            sizes = [1] * (3 - len(patch)) + patch
            starts = [rng.integers(0, n - size + 1) for n, size in zip(image.shape[1:], sizes, strict=True)]
            box = (slice(None), *(slice(low, low + size) for low, size in zip(starts, sizes, strict=True)))
            shape = (-1, *patch)
            images.append(torch.from_numpy(np.ascontiguousarray(image[box])).reshape(shape))
            targets.append(torch.from_numpy(np.ascontiguousarray(label[box])).reshape(patch))
        target = torch.stack(targets).long()
        logits = trainer.network(torch.stack(images).float())
        if heads.has_regions:
            wanted = torch.stack(
                [torch.isin(target, torch.tensor(region)) for region in heads.foreground_regions], 1
            )
            wanted = wanted.float()
            loss, shares = F.binary_cross_entropy_with_logits(logits, wanted), logits.sigmoid()
        else:
            wanted = F.one_hot(target, logits.shape[1]).movedim(-1, 1).float()
            loss, shares = F.cross_entropy(logits, target), logits.softmax(1)
        axes = (0, *range(2, logits.ndim))
        dice = (2 * (shares * wanted).sum(axes) + 1) / (shares.sum(axes) + wanted.sum(axes) + 1)
        loss = loss + 1 - dice.mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    trainer.logger.log("train_losses", np.mean(losses[-20:]), 0)  # NumPy scalars, as the trainer logs
    trainer.logger.log("mean_fg_dice", np.float32(1 - losses[-1]), 0)
    trainer._best_ema = np.float64(1 - losses[-1])
    print(f"{name}: loss {losses[0]:.2f} to {np.mean(losses[-20:]):.3f}", flush=True)


def train(name: str, model: dict[str, Any], results: Path) -> None:
    """Train the configurations and folds of a model and save them as nnU-Net's trainer does."""
    plans, dataset = plans_of(name, model)
    for one in model.get("trained", model["configurations"]):
        for fold in model.get("folds", (0,)):
            given = json.loads(json.dumps({**plans, "continue_training": False}))
            trainer = nnUNetTrainer(given, one, fold, dataset, torch.device("cpu"))
            trainer.enable_deep_supervision = False
            heads, settings = trainer.label_manager, trainer.configuration_manager
            extra = len(heads.foreground_labels) if settings.previous_stage_name else 0
            torch.manual_seed(fold)
            trainer.network = trainer.build_network_architecture(
                *(trainer.plans_manager, settings, len(model["channels"]) + extra),
                *(heads.num_segmentation_heads, False),
            )
            *_, mirror = trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
            trainer.inference_allowed_mirroring_axes = mirror
            trainer.optimizer, _ = trainer.configure_optimizers()
            trainer.network.train()
            learn(model, PlansManager(json.loads(json.dumps(plans))), trainer, fold + 1)
            folder = results / plans["dataset_name"] / f"nnUNetTrainer__nnUNetPlans__{one}"
            (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
            trainer.save_checkpoint(str(folder / f"fold_{fold}" / "checkpoint_final.pth"))
            (folder / "plans.json").write_text(json.dumps(plans))
            (folder / "dataset.json").write_text(json.dumps(dataset))


# ---- answers -----------------------------------------------------------------------------------------------------


class InFloat32:
    """torch, except that its half precision is float32."""

    half = torch.float32

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def answer(name: str, model: dict[str, Any], folder: Path, files: list[str]) -> None:
    """Store what nnU-Net answers for a scan."""
    plans, dataset = plans_of(name, model)
    stored: dict[str, Any] = {}
    previous = None
    for one in model.get("trained", model["configurations"]):
        trained = folder / "results" / plans["dataset_name"] / f"nnUNetTrainer__nnUNetPlans__{one}"
        for folds in [(fold,) for fold in model.get("folds", (0,))] + (
            [model["folds"]] if len(model.get("folds", ())) > 1 else []
        ):
            predictor = prediction.nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(trained), folds)
            key = f"{one}/{'+'.join(map(str, folds))}"
            masks = folder / "labels" / key
            masks.mkdir(parents=True, exist_ok=True)
            predictor.predict_from_files_sequential(
                [files], [str(masks / CASE)], folder_with_segs_from_prev_stage=previous
            )
            for path in masks.glob("*.json"):
                path.unlink()
            manager, settings = predictor.plans_manager, predictor.configuration_manager
            seg = previous and str(Path(previous) / f"{CASE}{dataset['file_ending']}")
            data, labels, _ = settings.preprocessor_class(verbose=False).run_case(
                files, seg, manager, settings, dataset
            )
            if previous:
                heads = predictor.label_manager.foreground_labels
                data = np.vstack((data, convert_labelmap_to_one_hot(labels[0], heads, data.dtype)))
            stored[f"{one}/prepared"] = data
            prediction.torch = InFloat32()
            logits = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).numpy()
            prediction.torch = torch
            scale = np.abs(logits).max() / 32767
            stored[f"{key}/logits"] = np.rint(logits / scale).astype(np.int16)
            stored[f"{key}/scale"] = np.float64(scale)
            halves = predictor.predict_logits_from_preprocessed_data(torch.from_numpy(data)).float().numpy()
            print(
                f"{name} {key}: largest logit {np.abs(logits).max():.1f}; half precision errs by "
                f"{np.abs(halves - logits).max():.4f}"
            )
            report_dice(model, folder, masks)
        previous = str(folder / "labels" / f"{one}/0") if "trained" in model else None
    np.savez_compressed(folder / "expected.npz", **stored)


def report_dice(model: dict[str, Any], folder: Path, masks: Path) -> None:
    """Print the Dice of every label against the drawing; it must be at least 0.7."""
    ending = model.get("ending", ".nii.gz")
    read = io.imread if ending == ".png" else lambda path: sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    truth, found = read(folder / "truth" / f"{CASE}{ending}"), read(masks / f"{CASE}{ending}")
    dice = [
        2 * ((truth == v) & (found == v)).sum() / ((truth == v).sum() + (found == v).sum()) for v in (1, 2)
    ]
    print(f"  Dice {', '.join(f'{each:.3f}' for each in dice)}", flush=True)
    assert min(dice) >= 0.7, "the model has not learned its task"


def main() -> None:
    """Make the models."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=list(MODELS))
    given = parser.parse_args()
    for name in given.names or MODELS:
        model, folder = MODELS[name], given.out / name
        shutil.rmtree(folder, ignore_errors=True)
        files = write_scan(model, folder, seed=3)
        train(name, model, folder / "results")
        answer(name, model, folder, files)
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main()

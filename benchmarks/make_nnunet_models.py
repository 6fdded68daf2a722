"""Train small models with nnU-Net, and store its answers to one scan each, for tests/inference/nnunet.

PEER/bin/python benchmarks/make_nnunet_models.py tests/inference/nnunet [NAME ...]

Runs in nnU-Net's environment (see benchmarks/nnunet_peer.py); about two minutes for each model on one core. Every model
learns drawn shapes by a plain loop with nnU-Net's own preprocessing, network and trainer class, which then saves the
checkpoint. Each folder holds:

- `results/`: nnU-Net's results folder with the trained model;
- `scans/`: a scan that it has not seen; `truth/`: what was drawn in it;
- `labels/`: the masks that nnU-Net predicts by its usual functions;
- `expected.npz`: the preprocessed array `(C, z, y, x)` in nnU-Net's axis order, and the logits of each configuration
  before they are resampled. nnU-Net adds logits up in half precision, which errs by up to 0.01; here the same function
  adds them up in float32. They are kept as int16 with a scale, which errs by less than 0.0005.
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
from nnunetv2.inference import predict_from_raw_data as prediction  # noqa: E402
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer  # noqa: E402
from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot  # noqa: E402
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager  # noqa: E402
from skimage import io  # noqa: E402

STEPS, BATCH, NUM_CASES = 400, 2, 8
CASE = "case_1"


# ---- the models --------------------------------------------------------------------------------------------------


def configuration(
    spacing: list[float],
    patch: list[int],
    *,
    features: list[int],
    kernels: list[list[int]],
    strides: list[list[int]],
    norms: list[str],
    masked: list[bool],
    blocks: list[int] | None = None,
    resampling: str = "resample_data_or_seg_to_shape",
) -> dict[str, Any]:
    """Return a configuration of plans.json, as nnU-Net's planner writes it."""
    num_axes = len(patch)
    depth = {"n_blocks_per_stage": blocks} if blocks else {"n_conv_per_stage": [2] * len(features)}
    is_torch = "torch" in resampling
    orders = {"data": 3, "seg": 1, "probabilities": 1}
    functions = {}
    for what, order in orders.items():
        functions[f"resampling_fn_{what}"] = resampling
        functions[f"resampling_fn_{what}_kwargs"] = (
            {"is_seg": what == "seg", "force_separate_z": None, "memefficient_seg_resampling": False}
            if is_torch
            else {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}
        )
    name = "ResidualEncoderUNet" if blocks else "PlainConvUNet"
    return {
        "data_identifier": f"nnUNetPlans_{num_axes}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": BATCH,
        "patch_size": patch,
        "median_image_size_in_voxels": patch,
        "spacing": spacing,
        "normalization_schemes": norms,
        "use_mask_for_norm": masked,
        **functions,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
            "arch_kwargs": {
                "n_stages": len(features),
                "features_per_stage": features,
                "conv_op": f"torch.nn.modules.conv.Conv{num_axes}d",
                "kernel_sizes": kernels,
                "strides": strides,
                **depth,
                "n_conv_per_stage_decoder": [1 if blocks else 2] * (len(features) - 1),
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{num_axes}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }


CUBES = {"kernels": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]], "features": [8, 16]}
CASCADE = {**CUBES, "norms": ["NoNormalization"], "masked": [False]}
MODELS: dict[str, dict[str, Any]] = {
    "slices": {
        "channels": ["CT"],
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "spacing_mm": (0.9, 1.0, 4.2),
        "shape": (44, 40, 15),
        "folds": (0, 1),
        "configurations": {
            "3d_fullres": configuration(
                [3.6, 1.1, 1.0],
                [8, 24, 32],
                features=[8, 16, 16],
                kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
                strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                norms=["CTNormalization"],
                masked=[False],
            )
        },
    },
    "regions": {
        "channels": ["T1", "T2"],
        "labels": {"background": 0, "whole": [1, 2], "core": 2},
        "order": [1, 2],
        "transpose": [1, 2, 0],
        "spacing_mm": (1.0, 1.1, 0.9),
        "shape": (36, 32, 30),
        "configurations": {
            "3d_fullres": configuration(
                [1.2, 1.2, 1.2],
                [16, 20, 24],
                norms=["ZScoreNormalization", "RescaleTo01Normalization"],
                masked=[True, False],
                **CUBES,
            )
        },
    },
    "pictures": {
        "channels": ["R", "G", "B"],
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "reader": "NaturalImage2DIO",
        "ending": ".png",
        "shape": (70, 58, 1),
        "configurations": {
            "2d": configuration(
                [1.0, 1.0],
                [32, 48],
                features=[8, 16, 16],
                kernels=[[3, 3]] * 3,
                strides=[[1, 1], [2, 2], [2, 2]],
                norms=["RGBTo01Normalization"] * 3,
                masked=[False] * 3,
            )
        },
    },
    "flat": {
        "channels": ["MR"],
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "reader": "NibabelIO",
        "transpose": [2, 0, 1],
        "spacing_mm": (2.0, 0.9, 1.1),
        "shape": (16, 44, 40),
        "configurations": {
            "2d": configuration(
                [1.1, 1.2],
                [24, 32],
                features=[8, 16],
                kernels=[[3, 3]] * 2,
                strides=[[1, 1], [2, 2]],
                norms=["ZScoreNormalization"],
                masked=[False],
            )
        },
    },
    "residual": {
        "channels": ["MR"],
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "spacing_mm": (1.0, 0.9, 1.1),
        "shape": (34, 36, 28),
        "configurations": {
            "3d_fullres": configuration(
                [1.3, 1.2, 1.1],
                [16, 24, 24],
                blocks=[1, 2],
                norms=["ZScoreNormalization"],
                masked=[False],
                resampling="resample_torch_fornnunet",
                **CUBES,
            )
        },
    },
    "cascade": {
        "channels": ["MR"],
        "labels": {"background": 0, "organ": 1, "lesion": 2},
        "spacing_mm": (1.0, 0.9, 1.1),
        "shape": (34, 36, 28),
        "configurations": {
            "3d_lowres": {
                **configuration([1.9, 1.8, 1.8], [12, 16, 16], **CASCADE),
                "next_stage": "3d_cascade_fullres",
            },
            "3d_fullres": configuration([1.3, 1.2, 1.1], [16, 20, 24], **CASCADE),
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "trained": ("3d_lowres", "3d_cascade_fullres"),
    },
}


# ---- scans -------------------------------------------------------------------------------------------------------


def draw(model: dict[str, Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a drawn scan `(C, z, y, x)` in float32, and its label map `(z, y, x)`.

    An ellipsoid with an organ and, inside it, a lesion; around it zeros, and a hole of zeros in it.
    """
    rng = np.random.default_rng(seed)
    shape = np.array(model["shape"][::-1])
    flat = shape[0] == 1
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) if n > 1 else [0.0] for n in shape), indexing="ij"))

    def inside(centre: np.ndarray, radius: float) -> np.ndarray:
        radii = radius * rng.uniform(0.85, 1.15, 3)
        return (((grid.T - centre) / radii) ** 2).sum(-1).T < 1

    body = inside(np.zeros(3), 0.82)
    centre = rng.uniform(-0.2, 0.2, 3) * (0 if flat else 1, 1, 1)
    organ = inside(centre, 0.5)
    lesion = inside(centre + rng.uniform(-0.1, 0.1, 3) * (0 if flat else 1, 1, 1), 0.34)
    label = (organ & body).astype(np.int16)
    label[lesion & organ & body] = 2
    hole = inside(np.array([0, -0.55, 0.3]), 0.12)
    tones = {"CT": (40.0, 120.0, 220.0), "R": (90, 160, 60), "G": (120, 60, 160), "B": (60, 100, 200)}
    channels = []
    for name in model["channels"]:
        values = np.array([0.0, *tones.get(name, (300, 550, 850))])
        levels = values[1 + label] + rng.normal(0, 0.12 * values.max(), label.shape)
        levels = np.where(body & ~hole, np.maximum(levels, 1), 0)
        channels.append(np.rint(levels.clip(0, 255) if model.get("reader") == "NaturalImage2DIO" else levels))
    return np.stack(channels).astype(np.float32), label * body


def write_scan(model: dict[str, Any], folder: Path, seed: int) -> list[str]:
    """Write a drawn scan into `scans/` and its labels into `truth/`, and return the scan's files."""
    image, label = draw(model, seed)
    ending = model.get("ending", ".nii.gz")
    files = []
    for part in ("scans", "truth"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    if ending == ".png":
        files.append(str(folder / "scans" / f"{CASE}_0000.png"))
        io.imsave(files[0], image[:, 0].transpose(1, 2, 0).astype(np.uint8), check_contrast=False)
        io.imsave(folder / "truth" / f"{CASE}.png", label[0].astype(np.uint8), check_contrast=False)
        return files
    for number, array in enumerate((*image, label)):
        is_label = number == len(image)
        written = sitk.GetImageFromArray(array.astype(np.uint8 if is_label else np.int16))
        written.SetSpacing(model["spacing_mm"])
        written.SetOrigin((10.0, -20.0, 5.0))
        path = (
            folder / "truth" / f"{CASE}{ending}"
            if is_label
            else folder / "scans" / f"{CASE}_{number:04d}{ending}"
        )
        sitk.WriteImage(written, str(path), True)
        if not is_label:
            files.append(str(path))
    return files


# ---- training ----------------------------------------------------------------------------------------------------


def plans_of(name: str, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return plans.json and dataset.json of a model."""
    number = 901 + list(MODELS).index(name)
    forward = model.get("transpose", [0, 1, 2])
    image, label = draw(model, 1)
    statistics = {}
    for channel, values in enumerate(image):
        inside = values[label > 0]
        low, high = np.percentile(inside, (0.5, 99.5))
        statistics[str(channel)] = {
            **{"mean": float(inside.mean()), "std": float(inside.std()), "median": float(np.median(inside))},
            **{"min": float(inside.min()), "max": float(inside.max())},
            **{"percentile_00_5": float(low), "percentile_99_5": float(high)},
        }
    spacing = model.get("spacing_mm", (1, 1, 999))[::-1]
    plans = {
        "dataset_name": f"Dataset{number}_{name.capitalize()}",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [spacing[axis] for axis in forward],
        "original_median_shape_after_transp": [model["shape"][::-1][axis] for axis in forward],
        "image_reader_writer": model.get("reader", "SimpleITKIO"),
        "transpose_forward": forward,
        "transpose_backward": [int(axis) for axis in np.argsort(forward)],
        "configurations": model["configurations"],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": statistics,
    }
    dataset = {
        "channel_names": {str(channel): each for channel, each in enumerate(model["channels"])},
        "labels": model["labels"],
        "numTraining": NUM_CASES,
        "file_ending": model.get("ending", ".nii.gz"),
        **({"regions_class_order": model["order"]} if "order" in model else {}),
    }
    return plans, dataset


def prepare(
    manager: PlansManager, name: str, dataset: dict[str, Any], image: np.ndarray, label: np.ndarray, spacing
):
    """Return image and labels of a case as nnU-Net's preprocessor makes them."""
    settings = manager.get_configuration(name)
    preprocessor = settings.preprocessor_class(verbose=False)
    properties = {"spacing": spacing}
    return preprocessor.run_case_npy(
        image, label[None].astype(np.float32), properties, manager, settings, dataset
    )[:2]


def learn(model: dict[str, Any], manager: PlansManager, trainer: nnUNetTrainer, seed: int) -> None:
    """Train the trainer's network on drawn scans; of a cascade with the eroded truth as the earlier stage's mask."""
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
        pads = [
            (0, 0),
            *((0, max(0, n - m)) for n, m in zip([0] * (4 - len(patch) - 1) + patch, image.shape[1:])),
        ]
        cases.append((np.pad(image, pads), np.pad(label, pads)))
    optimiser = torch.optim.Adam(trainer.network.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, STEPS)
    losses = []
    for _ in range(STEPS):
        images, targets = [], []
        for _ in range(BATCH if len(patch) == 3 else 6):
            image, label = cases[rng.integers(len(cases))]
            sizes = [1] * (3 - len(patch)) + patch
            starts = [rng.integers(0, n - size + 1) for n, size in zip(image.shape[1:], sizes)]
            box = (slice(None), *(slice(low, low + size) for low, size in zip(starts, sizes)))
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

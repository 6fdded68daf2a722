"""Small models that nnU-Net learns for the tests: their plans, and the scans that are drawn for them.

Runs in nnU-Net's environment, with benchmarks/make_nnunet_models.py.
"""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from skimage import io

BATCH, NUM_CASES = 2, 8
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

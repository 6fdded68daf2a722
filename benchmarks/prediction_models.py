"""Models and scans for benchmarks/prediction.py, and nnU-Net's description and checkpoint of such a model.

Libraries are imported inside the functions: `make_checkpoint` runs in nnU-Net's environment, which has no medunet.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medunet.records.model_card import ModelCard

Triple = tuple[int, int, int]
CT_RANGE_HU = (-200.0, 300.0)  # that the plan clips to, divided among the classes
PARTS = {  # of nnU-Net's network by its names and by medunet's, each in the order of computation
    "encoder.": "encoder.",
    "decoder.stages.": "decoder.",
    "decoder.transpconvs.": "upsamplers.",
    "decoder.seg_layers.": "heads.",
}


# ---- models and scans --------------------------------------------------------------------------------------------


def make_model(folder: Path, kind: str, num_classes: int, *, quick: bool) -> None:
    """Write the model folder of an initialised network."""
    import torch
    from safetensors.torch import save_file

    from medunet import __version__
    from medunet.base.files import hash_file
    from medunet.networks.builder import build_network
    from medunet.planning.planner import make_plan
    from medunet.records.config import PlanningConfig
    from medunet.records.description import Description
    from medunet.records.model_card import WEIGHTS_FILES, ModelCard
    from medunet.records.plan import Fingerprint, Shown

    is_ct = kind == "ct"
    modality = "CT" if is_ct else "MR"
    labels = {"background": 0} | {f"label{value}": value for value in range(1, num_classes)}
    description = Description.parse(
        {
            "name": kind,
            "layout": "msd",
            "channels": {modality: {"modality": modality}},
            "labels": labels,
        },
        kind,
    )
    low, high = CT_RANGE_HU
    statistics = {"percentile_00_5": low, "percentile_99_5": high, "mean": 50.0, "std": 120.0}
    fingerprint = Fingerprint(
        num_cases=150,
        spacings_mm=((0.7, 0.7, 1.0),) if is_ct else ((1.0, 1.0, 1.0),),
        shapes=((512, 512, 400),) if is_ct else ((35, 50, 35),),
        nonzero_fraction=1.0,
        intensities={modality: statistics},
        shown=Shown(
            field_of_view_mm=(10_000.0,) * 3, darkest={}
        ),  # so that scans of any length are predicted
    )
    patch = (32, 32, 32) if quick and is_ct else (96, 96, 96) if is_ct else (40, 56, 40)
    config = PlanningConfig(
        patch_size=patch,
        batch_size=2,
        base_features=8 if quick else 32,
        spacing_mm=(1.5, 1.5, 1.5) if is_ct else None,
    )
    plan = make_plan(fingerprint, description, config, memory_gb=64.0, memory_why="benchmark")
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(build_network(plan, description).state_dict(), folder / WEIGHTS_FILES["best"])
    ModelCard(
        medunet_version=__version__,
        description=description,
        plan=plan,
        fold=0,
        weights_sha256=hash_file(folder / WEIGHTS_FILES["best"]),
    ).write(folder / "model.json")


def make_scan(path: Path, kind: str, shape: Triple, source: Path | None) -> None:
    """Write a NIfTI scan of int16: `source` and its mirror images, or a synthetic CT of slices of 1 or 2 mm."""
    import nibabel as nib
    import numpy as np

    if kind == "hippocampus":
        assert source is not None
        image = np.asarray(nib.load(source).dataobj, np.float32)  # type: ignore[attr-defined]
        image = 1000 + 250 * (image - image.mean()) / image.std()
        pads = [(0, max(0, wanted - n)) for n, wanted in zip(image.shape, shape, strict=True)]
        tiled = np.pad(image, pads, mode="symmetric")[tuple(slice(n) for n in shape)]
        voxels, spacing = np.rint(tiled).astype(np.int16), (1.0, 1.0, 1.0)
    else:
        voxels, spacing = _draw_body(shape), (0.7, 0.7, 2.0 if kind == "chest" else 1.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([*spacing, 1.0])), path)


def _draw_body(shape: Triple) -> Any:
    """Return an elliptic body in air `(I, J, K)` in HU, with smooth organs and the noise of a CT."""
    import numpy as np
    from scipy.ndimage import gaussian_filter, zoom

    rng = np.random.default_rng(0)
    grain = 8  # voxels between the points that organs are drawn on
    coarse = gaussian_filter(rng.normal(size=[n // grain + 3 for n in shape]).astype(np.float32), 2)
    low, high = CT_RANGE_HU
    ranks = (
        coarse.ravel().argsort().argsort().reshape(coarse.shape) / coarse.size
    )  # all classes equally often
    hu = (low + ranks * (high - low)).astype(np.float32)
    voxels = np.empty(shape, np.int16)
    i, j = (np.linspace(-1, 1, n) for n in shape[:2])
    inside = (i[:, None] / 0.92) ** 2 + (j / 0.7) ** 2 < 1
    for start in range(0, shape[2], grain):
        corners = hu[..., start // grain : start // grain + 2]
        two = zoom(corners, (grain, grain, 1), order=1, grid_mode=True, mode="nearest")
        two = two[: shape[0], : shape[1]]
        for k in range(start, min(start + grain, shape[2])):
            share = (k - start) / grain
            plane = np.where(inside, two[..., 0] * (1 - share) + two[..., 1] * share, -1000)
            voxels[..., k] = np.rint(plane + rng.normal(0, 20, plane.shape))
    return voxels


# ---- nnU-Net's model ---------------------------------------------------------------------------------------------


def describe_to_nnunet(model: Path, folder: Path, name: str) -> None:
    """Write nnU-Net's plans.json and dataset.json for a model of medunet, and the weights for `make_checkpoint`.

    nnU-Net's axes are K J I: kernels, strides, patch and spacing are reversed.
    """
    import torch

    card, network = load_network(model)
    plan, description = card.plan, card.description
    assert plan.network.name == "plain", "nnU-Net's plain network is compared"
    stages = len(plan.features)
    intensity = next(iter(plan.intensities.values()))
    resampling = {
        f"resampling_fn_{what}{ending}": value
        for what, order in (("data", 3), ("seg", 1), ("probabilities", 1))
        for ending, value in (
            ("", "resample_data_or_seg_to_shape"),
            ("_kwargs", {"is_seg": what == "seg", "order": order, "order_z": 0, "force_separate_z": None}),
        )
    }
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": plan.batch_size,
        "patch_size": plan.patch_size[::-1],
        "median_image_size_in_voxels": plan.median_shape[::-1],
        "spacing": plan.spacing_mm[::-1],
        "normalization_schemes": ["CTNormalization" if intensity.scheme == "ct" else "ZScoreNormalization"],
        "use_mask_for_norm": [False],
        **resampling,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": stages,
                "features_per_stage": plan.features,
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [kernel[::-1] for kernel in plan.kernel_sizes],
                "strides": [stride[::-1] for stride in plan.strides],
                "n_conv_per_stage": [plan.convolutions_per_stage] * stages,
                "n_conv_per_stage_decoder": [plan.convolutions_per_stage] * (stages - 1),
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
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
    statistics = {
        "mean": intensity.mean,
        "std": intensity.std,
        "percentile_00_5": intensity.clip_low,
        "percentile_99_5": intensity.clip_high,
    }
    plans = {
        "dataset_name": name,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": plan.spacing_mm[::-1],
        "original_median_shape_after_transp": plan.median_shape[::-1],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": statistics},
    }
    dataset = {
        "channel_names": {"0": next(iter(description.channels.values())).modality},
        "labels": description.labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plans, indent=1))
    (folder / "dataset.json").write_text(json.dumps(dataset, indent=1))
    parts = {
        theirs: [
            _reverse_axes(weight.detach())
            for key, weight in network.named_parameters()
            if key.startswith(ours)
        ]
        for theirs, ours in PARTS.items()
    }
    torch.save(parts, folder / "weights.pt")


def _reverse_axes(weight: "torch.Tensor") -> "torch.Tensor":
    return weight.permute(0, 1, 4, 3, 2).contiguous() if weight.ndim == 5 else weight


def make_checkpoint(folder: Path) -> None:
    """Write nnU-Net's checkpoint with the weights of `describe_to_nnunet`; runs in nnU-Net's environment."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(json.loads((folder / "plans.json").read_text()))
    dataset = json.loads((folder / "dataset.json").read_text())
    network = nnUNetTrainer.build_network_architecture(
        plans,
        plans.get_configuration("3d_fullres"),
        len(dataset["channel_names"]),
        len(dataset["labels"]),
        enable_deep_supervision=False,
    )
    for part, weights in torch.load(folder / "weights.pt", weights_only=True).items():
        wanted = [parameter for key, parameter in network.named_parameters() if key.startswith(part)]
        if part == "decoder.seg_layers.":
            wanted = wanted[-len(weights) :]  # the finest head
        with torch.no_grad():
            for parameter, weight in zip(wanted, weights, strict=True):
                assert parameter.shape == weight.shape
                parameter.copy_(weight)
    (folder / "fold_0").mkdir(exist_ok=True)
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "nnUNetTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")


def load_network(model: Path) -> tuple["ModelCard", "nn.Module"]:
    """Return the card of a model folder and its network with its weights."""
    from safetensors.torch import load_file

    from medunet.networks.builder import build_network
    from medunet.records.model_card import WEIGHTS_FILES, ModelCard

    card = ModelCard.read(model / "model.json")
    network = build_network(card.plan, card.description)
    network.load_state_dict(load_file(model / WEIGHTS_FILES[card.inference.weights or "best"]))
    return card, network.eval()

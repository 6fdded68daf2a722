"""The processes that benchmarks/prediction.py starts, so that each has its own time and peak memory.

python prediction_processes.py model FOLDER --kind hippocampus|ct [--classes N] [--quick]
python prediction_processes.py scan FILE --kind hippocampus|ct --shape I J K [--source FILE]
python prediction_processes.py nnunet MODEL FOLDER --name DATASET
PEER/bin/python prediction_processes.py checkpoint FOLDER
python prediction_processes.py command [--stand-in smooth|noise] [--sync] REPORT predict MODEL SCAN --out FOLDER
python prediction_processes.py monai REPORT MODEL SCAN MASK [--mirror] [--device cuda]

- `model` writes the model folder of a network as it is initialised: nnU-Net's topology for hippocampus (32 to 256
  features, patch 40×56×40), or one of 32 to 320 features with a patch of 96³ at 1.5 mm for CT.
- `scan` writes a scan: mirror images of a real one side by side, or a body with organs and noise in air. The grey
  value of an organ encodes a class, so that the stand-in below can tell it.
- `nnunet` and `checkpoint` write the folder of a trained nnU-Net with the same network, weights and preprocessing.
- `command` runs `medunet` in this process and reports the seconds until the first part began, in each part and in the
  network, the number of windows that it computed, and when it began the first. The part "windows" is cutting them and
  adding them up. A stand-in answers instead of the network from the third batch on: the first two batches go through
  the network, for the time of a window and for its memory. "smooth" are confident logits that change with the image,
  "noise" are random ones, among which no class dominates.
- `monai` is the script that a user of MONAI would write, in eager float32.

Seconds of a part exclude those of parts within it. Libraries are imported inside the functions, since nnU-Net's
environment has no medunet.
"""

import argparse
import functools
import importlib.util
import inspect
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medunet.records.model_card import ModelCard

Triple = tuple[int, int, int]
Action = Callable[[ModuleType], None]
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
    from medunet.records.plan import Fingerprint

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
    """Write a NIfTI scan of int16: `source` and its mirror images, or a synthetic CT of 0.7×0.7×1 mm."""
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
        voxels, spacing = _draw_body(shape), (0.7, 0.7, 1.0)
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

    card, network = _load_network(model)
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


def _load_network(model: Path) -> tuple["ModelCard", "nn.Module"]:
    from safetensors.torch import load_file

    from medunet.networks.builder import build_network
    from medunet.records.model_card import WEIGHTS_FILES, ModelCard

    card = ModelCard.read(model / "model.json")
    network = build_network(card.plan, card.description)
    network.load_state_dict(load_file(model / WEIGHTS_FILES[card.inference.weights or "best"]))
    return card, network.eval()


# ---- medunet's command, timed from within ------------------------------------------------------------------------

# Functions that are timed, by the module that defines them, and the part that they belong to.
TIMED = {
    "medunet.dataset.checks.scan_checks": {"CheckedScan.read": "read"},
    "medunet.inference.prepare": {"prepare_scan": "prepare"},
    "medunet.inference.stream": {"WindowStream.slabs": "windows"},
    "medunet.inference.restore": {"restore_labels": "restore", "to_label_map": "restore"},
    "medunet.transforms.chain": {"restore_probabilities": "restore"},
    "medunet.postprocessing.tidy": {"tidy_labels": "tidy"},
    "medunet.imaging.volumes": {"write_mask": "write"},
}
BACKENDS = {
    "medunet.inference.backend": "TorchBackend",
    "medunet.inference.openvino_backend": "OpenVinoBackend",
}


class Clock:
    """Seconds by part, each without those of the parts within it, and what the network computed."""

    def __init__(self, started_s: float, sync: bool) -> None:
        self.started_s, self.sync = started_s, sync
        self.seconds: dict[str, float] = defaultdict(float)
        self.start_s: float | None = None
        self.first_window_s: float | None = None
        self.windows, self.batches = 0, 0
        self.window_s = float("inf")
        self._own, self._lock = threading.local(), threading.Lock()

    def now(self) -> float:
        """Return the time of a clock that all processes of this computer share."""
        if self.sync:
            import torch

            torch.cuda.synchronize()
        return time.monotonic()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time within as that of a part."""
        outer = getattr(self._own, "inner_s", 0.0)
        self._own.inner_s = 0.0
        start = self.now()
        if self.start_s is None:
            self.start_s = start - self.started_s
        try:
            yield
        finally:
            taken = self.now() - start
            with self._lock:
                self.seconds[name] += taken - self._own.inner_s
            self._own.inner_s = outer + taken

    def report(self) -> dict[str, Any]:
        """Return everything as JSON."""
        return {
            "seconds_by_part": {name: round(seconds, 3) for name, seconds in self.seconds.items()},
            "start_s": self.start_s and round(self.start_s, 3),
            "first_window_s": self.first_window_s and round(self.first_window_s, 3),
            "windows": self.windows,
            "batches": self.batches,
            "window_s": round(self.window_s, 4) if self.window_s < float("inf") else None,
        }


class AfterImport(MetaPathFinder):
    """Calls a function with a module as soon as it is imported, and imports nothing earlier than the command does."""

    def __init__(self, actions: dict[str, Action]) -> None:
        self.actions = actions

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return the module's own specification with the function added to its loading."""
        action = self.actions.pop(fullname, None)
        spec = importlib.util.find_spec(fullname) if action else None
        if action is None or spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def load_and_call(module: ModuleType) -> None:
            load(module)
            action(module)

        spec.loader.exec_module = load_and_call  # type: ignore[method-assign]
        return spec


def run_command(
    report: Path, started_s: float, stand_in: str | None, *, sync: bool, arguments: Sequence[str]
) -> None:
    """Run a command of medunet, and write what was measured within it."""
    clock = Clock(started_s, sync)
    actions: dict[str, Action] = {
        module: functools.partial(_time_functions, clock, names) for module, names in TIMED.items()
    }
    for module, name in BACKENDS.items():
        actions[module] = functools.partial(_time_backend, clock, name, stand_in)
    sys.meta_path.insert(0, AfterImport(actions))
    sys.argv = ["medunet", *arguments]
    from medunet.cli.app import main

    try:
        main()
    finally:
        report.write_text(json.dumps(clock.report()))


def _time_functions(clock: Clock, names: dict[str, str], module: ModuleType) -> None:
    for name, part in names.items():
        *owners, last = name.split(".")
        owner = functools.reduce(getattr, owners, module)
        setattr(owner, last, _timed(clock, part, getattr(owner, last)))


def _timed(clock: Clock, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function, or a generator, whose time is counted as that of a part."""

    def each(values: Iterator[Any]) -> Iterator[Any]:
        while True:
            with clock.part(part):
                try:
                    value = next(values)
                except StopIteration:
                    return
            yield value

    @functools.wraps(function)
    def wrapper(*given: Any, **named: Any) -> Any:
        with clock.part(part):
            answer = function(*given, **named)
        return each(answer) if inspect.isgenerator(answer) else answer

    return wrapper


def _time_backend(clock: Clock, name: str, stand_in: str | None, module: ModuleType) -> None:
    backend = getattr(module, name)
    compute = backend.forward
    answer: Callable[[torch.Tensor], torch.Tensor] | None = None

    def forward(self: Any, images: "torch.Tensor") -> "torch.Tensor":
        nonlocal answer
        if clock.first_window_s is None:
            clock.first_window_s = time.monotonic() - clock.started_s
        clock.windows += len(images)
        clock.batches += 1
        with clock.part("network"):
            if stand_in is not None and clock.batches > 2:
                assert answer is not None
                return answer(images)
            start = clock.now()
            logits = compute(self, images)
            clock.window_s = min(clock.window_s, (clock.now() - start) / len(images))
            if stand_in is not None and answer is None:
                answer = (
                    smooth_logits(logits.shape[1]) if stand_in == "smooth" else noise_logits(logits.shape[1:])
                )
            return logits

    backend.forward = forward


def smooth_logits(num_classes: int) -> "Callable[[torch.Tensor], torch.Tensor]":
    """Return a function from windows of the CT of `make_scan` to logits of 8 at the class of the grey value.

    Between two classes their logits change linearly with the grey value; all others are -8.
    """
    import torch
    import torch.nn.functional as F

    low, high = ((hu - 50.0) / 120.0 for hu in CT_RANGE_HU)  # as the plan normalises

    def answer(images: torch.Tensor) -> torch.Tensor:
        quiet = F.avg_pool3d(images[:, :1].float(), 5, 1, 2, count_include_pad=False)
        place = ((quiet - low) / (high - low) * num_classes - 0.5).clamp_(0, num_classes - 1)
        lower = place.floor().clamp_(max=num_classes - 2)
        share, index = place - lower, lower.long()
        logits = torch.full((len(images), num_classes, *images.shape[2:]), -8.0, device=images.device)
        logits.scatter_(1, index, 8 - 16 * share)
        return logits.scatter_(1, index + 1, 16 * share - 8)

    return answer


def noise_logits(shape: Sequence[int]) -> "Callable[[torch.Tensor], torch.Tensor]":
    """Return a function from windows to random logits: a few planes again and again, to save memory."""
    import torch

    planes = torch.randn((shape[0], 8, *shape[2:]), generator=torch.Generator().manual_seed(0))

    def answer(images: torch.Tensor) -> torch.Tensor:
        logits = torch.empty((len(images), *shape), device=images.device)
        for start in range(0, shape[1], 8):
            part = logits[:, :, start : start + 8]
            part.copy_(planes[:, : part.shape[2]])
        return logits

    return answer


# ---- a script of MONAI -------------------------------------------------------------------------------------------


def run_monai(
    report: Path, started_s: float, model: Path, scan: Path, mask: Path, *, mirror: bool, device_name: str
) -> None:
    """Predict a scan as a script of MONAI does, and write what was measured."""
    from itertools import combinations

    import torch
    from monai.inferers.utils import sliding_window_inference
    from monai.transforms.compose import Compose
    from monai.transforms.intensity.dictionary import NormalizeIntensityd, ScaleIntensityRanged
    from monai.transforms.io.dictionary import LoadImaged, SaveImaged
    from monai.transforms.post.dictionary import Activationsd, AsDiscreted, Invertd
    from monai.transforms.spatial.dictionary import Orientationd, Spacingd
    from monai.transforms.transform import MapTransform
    from monai.transforms.utility.dictionary import EnsureTyped

    device = torch.device(device_name)
    clock = Clock(started_s, sync=device.type == "cuda")
    card, network = _load_network(model)
    network.to(device)
    plan = card.plan
    intensity = next(iter(plan.intensities.values()))
    normalise: MapTransform = NormalizeIntensityd("image")
    if intensity.scheme == "ct":
        low, high, mean, std = (
            float(getattr(intensity, key)) for key in ("clip_low", "clip_high", "mean", "std")
        )
        normalise = ScaleIntensityRanged(
            "image", low, high, (low - mean) / std, (high - mean) / std, clip=True
        )
    load = LoadImaged("image", reader="NibabelReader", ensure_channel_first=True)
    prepare = Compose(
        [
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=plan.spacing_mm, mode="bilinear"),
            normalise,
            EnsureTyped("image", device=device),
        ]
    )
    restore = Compose(
        [
            Activationsd("pred", softmax=True),
            Invertd(
                "pred", Compose([load, prepare]), orig_keys="image", nearest_interp=False, to_tensor=True
            ),
            AsDiscreted("pred", argmax=True),
        ]
    )
    save = SaveImaged(
        "pred", output_dir=mask.parent, output_postfix="", separate_folder=False, output_dtype="uint8",
        resample=False, print_log=False,
    )  # fmt: skip
    flips = [axes for count in range(4 if mirror else 1) for axes in combinations((2, 3, 4), count)]

    def predict(images: torch.Tensor) -> torch.Tensor:
        if clock.first_window_s is None:
            clock.first_window_s = time.monotonic() - clock.started_s
        clock.windows += len(images) * len(flips)
        clock.batches += 1
        with clock.part("network"):
            total = network(images)
            for axes in flips[1:]:
                total = total + network(images.flip(axes)).flip(axes)
            return total / len(flips)

    with torch.no_grad():
        with clock.part("read"):
            data = load({"image": scan})
        with clock.part("prepare"):
            data = prepare(data)
        with clock.part("windows"):
            data["pred"] = sliding_window_inference(
                data["image"][None], plan.patch_size, 4, predict, overlap=0.5, mode="gaussian"
            )[0]
        with clock.part("restore"):
            data = restore(data)
        with clock.part("write"):
            save(data)
    report.write_text(json.dumps(clock.report()))


def main() -> None:
    """Run one of the processes."""
    started_s = float(os.environ.get("BENCHMARK_STARTED_S", time.monotonic()))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_subparsers(dest="which", required=True)
    model = which.add_parser("model")
    model.add_argument("folder", type=Path)
    model.add_argument("--kind", choices=("hippocampus", "ct"), required=True)
    model.add_argument("--classes", type=int, default=3)
    model.add_argument("--quick", action="store_true")
    scan = which.add_parser("scan")
    scan.add_argument("file", type=Path)
    scan.add_argument("--kind", choices=("hippocampus", "ct"), required=True)
    scan.add_argument("--shape", type=int, nargs=3, required=True)
    scan.add_argument("--source", type=Path)
    nnunet = which.add_parser("nnunet")
    nnunet.add_argument("model", type=Path)
    nnunet.add_argument("folder", type=Path)
    nnunet.add_argument("--name", required=True)
    checkpoint = which.add_parser("checkpoint")
    checkpoint.add_argument("folder", type=Path)
    command = which.add_parser("command")
    command.add_argument("report", type=Path)
    command.add_argument("--stand-in", choices=("smooth", "noise"))
    command.add_argument("--sync", action="store_true")
    command.add_argument("arguments", nargs=argparse.REMAINDER)
    monai = which.add_parser("monai")
    for name in ("report", "model", "scan", "mask"):
        monai.add_argument(name, type=Path)
    monai.add_argument("--mirror", action="store_true")
    monai.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.which == "model":
        make_model(given.folder, given.kind, given.classes, quick=given.quick)
    elif given.which == "scan":
        make_scan(given.file, given.kind, tuple(given.shape), given.source)
    elif given.which == "nnunet":
        describe_to_nnunet(given.model, given.folder, given.name)
    elif given.which == "checkpoint":
        make_checkpoint(given.folder)
    elif given.which == "command":
        run_command(given.report, started_s, given.stand_in, sync=given.sync, arguments=given.arguments)
    else:
        run_monai(
            given.report,
            started_s,
            given.model,
            given.scan,
            given.mask,
            mirror=given.mirror,
            device_name=given.device,
        )


if __name__ == "__main__":
    main()

"""Time of the parts of a training step, compared with the same augmentations in MONAI's random transforms.

python benchmarks/training_step.py [--patch 40 56 40] [--batch 4] [--rounds 5]

Prints medians over the rounds. The parts are measured in turn within each round, so that other load affects the
ratios least. A training step of medunet consists of cutting patches, augmentation and the network step; augmentation
should take less than a tenth of it. The options are elastic deformation and brightness jitter."""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandSimulateLowResolutiond,
    SpatialPadd,
)

from medunet.base.processor import read_processor
from medunet.compute.devices import autocast, choose_device
from medunet.networks.builder import build_network
from medunet.planning.planner import make_plan
from medunet.records.config import PlanningConfig, TrainingConfig
from medunet.records.description import Description
from medunet.records.plan import Fingerprint
from medunet.runs.computing import set_up_cpu
from medunet.training.losses import SegmentationLoss
from medunet.training.probe import choose_compute
from medunet.transforms.augment import apply_parameters, margin_size, sample_parameters
from medunet.transforms.patches import PreparedCase, find_locations, sample_patch

DESCRIPTION = Description.parse(
    {
        "name": "benchmark",
        "layout": "msd",
        "channels": {"MR": {"modality": "MR"}},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
    },
    "benchmark",
)


def monai_chain(patch: tuple[int, ...]) -> Compose:
    """Return the MONAI transforms that are closest to nnU-Net's augmentations, with the same probabilities."""
    return Compose(
        [
            SpatialPadd(["image", "label"], patch),
            RandAffined(
                ["image", "label"], prob=0.36, rotate_range=[np.pi / 6] * 3, scale_range=[(-0.3, 0.4)] * 3,
                mode=("bilinear", "nearest"), padding_mode="border", spatial_size=patch,
            ),
            RandGaussianNoised(["image"], prob=0.1, std=0.3),
            RandGaussianSmoothd(["image"], prob=0.1, sigma_x=(0.5, 1), sigma_y=(0.5, 1), sigma_z=(0.5, 1)),
            RandScaleIntensityd(["image"], factors=0.25, prob=0.15),
            RandAdjustContrastd(["image"], prob=0.15, gamma=(0.75, 1.25)),
            RandSimulateLowResolutiond(["image"], prob=0.125, zoom_range=(0.5, 1)),
            RandAdjustContrastd(["image"], prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
            RandAdjustContrastd(["image"], prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
            *(RandFlipd(["image", "label"], prob=0.5, spatial_axis=axis) for axis in range(3)),
        ]
    )  # fmt: skip


def seconds(call: Callable[[], object]) -> float:
    """Return the duration of a call in seconds."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure the parts and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    patch, device = tuple(given.patch), choose_device("auto")
    set_up_cpu(device)
    fingerprint = Fingerprint(
        num_cases=150,
        spacings_mm=((1.0, 1.0, 1.0),),
        shapes=((64, 64, 64),),
        nonzero_fraction=1.0,
        intensities={"MR": {}},
    )
    config = PlanningConfig(patch_size=patch, batch_size=given.batch)
    plan = make_plan(fingerprint, DESCRIPTION, config, memory_gb=64.0, memory_why="benchmark")
    torch.manual_seed(0)
    network, loss = build_network(plan, DESCRIPTION).to(device).train(), SegmentationLoss(DESCRIPTION)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rng = np.random.default_rng(0)
    shape = tuple(size + 40 for size in patch)
    label = (rng.random(shape) > 0.9).astype(np.uint8)
    case = PreparedCase(
        "c",
        rng.normal(size=(1, *shape)).astype(np.float32),
        label,
        find_locations(label, DESCRIPTION.targets, (0,)),
    )
    batch: dict[str, torch.Tensor] = {}

    def cut() -> None:
        pairs = [
            sample_patch(case, margin_size(patch), rng, foreground=True, slice_axis=None, patch_size=patch)
            for _ in range(given.batch)
        ]
        batch["image"] = torch.from_numpy(np.stack([image for image, _ in pairs])).to(device)
        batch["label"] = torch.from_numpy(np.stack([label for _, label in pairs])).to(device)

    extent_mm = tuple(n * mm for n, mm in zip(patch, plan.spacing_mm, strict=True))

    def augment(elastic: bool = False, brightness_jitter: float = 0.0) -> None:
        drawn = [
            sample_parameters(
                rng,
                dimensions=3,
                num_channels=1,
                mirror_axes=(0, 1, 2),
                patch_extent_mm=extent_mm,
                elastic=elastic,
                brightness_jitter=brightness_jitter,
            )
            for _ in batch["image"]
        ]
        images, labels = apply_parameters(batch["image"], batch["label"], drawn, patch, plan.spacing_mm)
        batch["ready"], batch["target"] = images, labels

    chain = monai_chain(patch)

    def augment_monai() -> None:
        for image, target in zip(batch["ready"].cpu(), batch["target"].cpu(), strict=True):
            chain({"image": image, "label": target.float()})

    def step(precision: str) -> Callable[[], None]:
        def run() -> None:
            with autocast(device, precision):  # type: ignore[arg-type]
                outputs = network(batch["ready"])
            loss(outputs, batch["target"]).backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    chosen = choose_compute(TrainingConfig(), plan, DESCRIPTION, device)
    parts: dict[str, Callable[[], None]] = {
        "cut patches": cut,
        "augment, medunet": augment,
        "augment, with options": lambda: augment(elastic=True, brightness_jitter=0.3),
        "augment, MONAI": augment_monai,
        f"network step, {chosen.precision}": step(chosen.precision),
        "network step, fp32": step("fp32"),
    }
    times: dict[str, list[float]] = {name: [] for name in parts}
    for round_number in range(given.rounds + 1):
        for name, call in parts.items():
            taken = statistics.fmean(seconds(call) for _ in range(20 if "augment" in name else 1))
            if round_number:  # the first round is a warm-up
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    whole = (
        medians["cut patches"] + medians["augment, medunet"] + medians[f"network step, {chosen.precision}"]
    )
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{read_processor().describe()}, {torch.get_num_threads()} threads"
    )
    print(f"{name}; patch {patch}, batch {given.batch}; {chosen.why}")
    for part, median in medians.items():
        print(f"{part:24} {median * 1e3:9.1f} ms {median / whole:7.1%} of medunet's step")
    print(f"MONAI's chain takes {medians['augment, MONAI'] / medians['augment, medunet']:.1f} times as long")


if __name__ == "__main__":
    main()

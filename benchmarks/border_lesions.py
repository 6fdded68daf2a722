"""Detection of lesions at the border of the field of view, for two ways of sampling training patches.

python benchmarks/border_lesions.py [--steps 800] [--seeds 0 1]

Trains the same small network twice on the same seeded phantoms, for a fixed number of steps. "Margin patch inside" is
the sampling of medunet 0.4.0, which kept the patch that is cut 1.25 times larger for augmentation inside the scan;
"final patch inside" is the current sampling, which keeps only the final patch inside. Phantoms are 1.5 to 1.8 patches
long, consist of noisy tissue between two walls at the ends of axis 1, and contain round lesions of three kinds:

- inner: bright, in the tissue, at least 10 voxels from every border;
- cut: bright, in the tissue, but cut by the border of the field of view along axis 0 or 2;
- wall: dark, in a wall, and also cut by the border; dark balls in the tissue are not lesions.

Prints the fraction of each kind that was found in test phantoms (with at least half of the voxels predicted), the
mean Dice within 3 voxels around each lesion, and the number of false lesions per phantom.
"""

import argparse
import platform
import time
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import DataLoader

from medunet.compute.devices import keep_freed_memory
from medunet.imaging.components import label_components
from medunet.inference.backend import TorchBackend
from medunet.inference.restore import to_label_map
from medunet.inference.stream import open_stream
from medunet.networks.builder import build_network
from medunet.planning.planner import make_plan
from medunet.records.config import InferenceConfig, PlanningConfig, TrainingConfig
from medunet.records.description import Description
from medunet.records.plan import Fingerprint, Plan
from medunet.training.data import PatchDataset
from medunet.training.losses import SegmentationLoss
from medunet.training.optimisation import learning_rate
from medunet.transforms.augment import apply_parameters, sample_parameters
from medunet.transforms.patches import PreparedCase, find_locations

SHAPE, PATCH, BATCH, WALL = (56, 48, 40), (32, 32, 24), 4, 5
KINDS = ("inner", "cut", "wall")
NUM_TRAINING, NUM_TEST, NUM_EACH = 12, 12, 3  # phantoms, and lesions of each kind per phantom
DESCRIPTION = Description.parse(
    {
        "name": "border-lesions",
        "layout": "msd",
        "channels": {"MR": {"modality": "MR"}},
        "labels": {"background": 0, "lesion": 1},
    },
    "benchmark",
)


def make_phantom(number: int) -> tuple[PreparedCase, NDArray[np.uint8]]:
    """Return a phantom and the map of its lesions: 1 to 3 are of the first kind, 4 to 6 of the second, and so on."""
    rng = np.random.default_rng([11, number])
    image = 0.4 * rng.normal(size=SHAPE) + 3.0 * ndimage.gaussian_filter(rng.normal(size=SHAPE), 4)
    image[:, :WALL] += 1.5
    image[:, -WALL:] += 1.5
    which = np.zeros(SHAPE, np.uint8)
    taken = np.zeros(SHAPE, bool)
    places = np.indices(SHAPE)

    def draw_centre(kind: str) -> list[float]:
        low, high = (2, WALL + 4) if kind == "wall" else (10, 10)
        centre = [rng.uniform(10, n - 11) for n in SHAPE]
        if kind == "cut":
            axis, at_end = rng.choice([0, 2]), rng.random() < 0.5
            centre[axis] = SHAPE[axis] - 1 - rng.uniform(-0.5, 1) if at_end else rng.uniform(-0.5, 1)
            centre[1] = rng.uniform(low, SHAPE[1] - 1 - high)
        if kind == "wall":
            centre[1] = SHAPE[1] - 1 - rng.uniform(-0.5, 1) if rng.random() < 0.5 else rng.uniform(-0.5, 1)
        return centre

    for kind in (*KINDS, "ball"):
        for order in range(NUM_EACH):
            while True:
                centre, radius = draw_centre(kind), rng.uniform(2.5, 3.5)
                distance = np.sqrt(sum((p - c) ** 2 for p, c in zip(places, centre, strict=True)))
                if not taken[distance <= radius + 3].any():
                    break
            ball = distance <= radius
            taken |= ball
            image[ball] += 1.0 if kind in ("inner", "cut") else -1.2
            if kind != "ball":
                which[ball] = 1 + KINDS.index(kind) * NUM_EACH + order
    label = (which > 0).astype(np.uint8)
    image = (image - image.mean()) / image.std()
    locations = find_locations(label, DESCRIPTION.targets, (0, number))
    return PreparedCase(f"phantom_{number:03}", image.astype(np.float32)[None], label, locations), which


def train(
    cases: list[PreparedCase], plan: Plan, num_steps: int, seed: int, *, margin_inside: bool
) -> torch.nn.Module:
    """Train a network; `margin_inside` keeps the larger patch inside the scan, as in medunet 0.4.0."""
    config = TrainingConfig(optimizer="adamw", learning_rate=3e-3)
    patches = PatchDataset(cases, plan, config, seed=seed)
    if margin_inside:
        patches.patch_size = patches.size
    torch.manual_seed(seed)
    network, loss = build_network(plan, DESCRIPTION).train(), SegmentationLoss(DESCRIPTION)
    optimizer = torch.optim.AdamW(network.parameters(), config.learning_rate)
    addresses = [(0, index) for index in range(num_steps * plan.batch_size)]
    for step, batch in enumerate(DataLoader(patches, batch_size=plan.batch_size, sampler=addresses)):
        drawn = [
            sample_parameters(
                np.random.default_rng([seed, 1, *address]),
                dimensions=3,
                num_channels=1,
                mirror_axes=(0, 1, 2),
                patch_extent_mm=tuple(map(float, PATCH)),
            )
            for address in batch["address"].tolist()
        ]
        image, label = apply_parameters(batch["image"], batch["label"], drawn, PATCH, plan.spacing_mm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step / num_steps, step)
        optimizer.zero_grad()
        loss(network(image), label).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
        optimizer.step()
    return network


def measure(
    network: torch.nn.Module, phantoms: list[tuple[PreparedCase, NDArray[np.uint8]]], plan: Plan
) -> Iterator[tuple[str, float]]:
    """Yield the values "KIND found" and "KIND Dice" of every lesion, and "false lesions" of every phantom."""
    for case, which in phantoms:
        backend = TorchBackend(network, torch.device("cpu"), "fp32")
        stream = open_stream(backend, torch.from_numpy(case.image), plan, InferenceConfig())
        logits = torch.cat([slab.logits.clone() for slab in stream.slabs()], 1).movedim(1, 1 + stream.axis)
        found = to_label_map(logits, DESCRIPTION).numpy() == 1
        for number in range(1, int(which.max()) + 1):
            kind, lesion = KINDS[(number - 1) // NUM_EACH], which == number
            about = ndimage.binary_dilation(lesion, iterations=3)
            yield f"{kind} found", float(found[lesion].mean() >= 0.5)
            yield f"{kind} Dice", 2 * float((found & lesion).sum() / ((found & about).sum() + lesion.sum()))
        components, sizes = label_components(found)
        hit = np.unique(components[which > 0])
        yield "false lesions", float(sum(n >= 5 for i, n in enumerate(sizes, 1) if i not in hit))


def main() -> None:
    """Train with both ways of sampling for each seed, and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, nargs="+", default=(0, 1))
    given = parser.parse_args()
    keep_freed_memory()
    fingerprint = Fingerprint(
        num_cases=NUM_TRAINING,
        spacings_mm=((1.0, 1.0, 1.0),),
        shapes=(SHAPE,),
        nonzero_fraction=1.0,
        intensities={"MR": {}},
    )
    config = PlanningConfig(patch_size=PATCH, batch_size=BATCH, base_features=8)
    plan = make_plan(fingerprint, DESCRIPTION, config, memory_gb=64.0, memory_why="benchmark")
    cases = [make_phantom(number)[0] for number in range(NUM_TRAINING)]
    phantoms = [make_phantom(1000 + number) for number in range(NUM_TEST)]
    print(
        f"{platform.machine()}, torch {torch.__version__} ({torch.backends.cpu.get_cpu_capability()}), "
        f"{torch.get_num_threads()} threads; phantoms {SHAPE}, patch {PATCH}, batch {BATCH}, fp32, "
        f"{given.steps} steps; {NUM_TEST * NUM_EACH} lesions of each kind"
    )
    for seed in given.seeds:
        for margin_inside in (True, False):
            start = time.perf_counter()
            network = train(cases, plan, given.steps, seed, margin_inside=margin_inside)
            values: dict[str, list[float]] = {}
            for name, value in measure(network, phantoms, plan):
                values.setdefault(name, []).append(value)
            row = ", ".join(f"{name} {np.mean(each):.2f}" for name, each in values.items())
            name = "margin" if margin_inside else "final"
            print(
                f"seed {seed}, {name:6} patch inside: {row}; {time.perf_counter() - start:.0f} s", flush=True
            )


if __name__ == "__main__":
    main()

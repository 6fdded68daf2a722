"""Plans of nnU-Net 2.8.1 for random geometries, the reference values of tests/planning/test_nnunet_patches.py.

nnUNet_raw=. nnUNet_preprocessed=. nnUNet_results=. \
    PEER/bin/python benchmarks/nnunet_plans.py tests/planning/nnunet_plans.json [--geometries 150] [--seed 0]

PEER is the environment described in benchmarks/nnunet_peer.py; the folders in the variables are not read. The
planners run as published, with their own memory estimate, except that the fingerprint is random instead of computed
from a raw folder, and networks are built on torch's meta device, where they take no memory. Geometries are stored in
medunet's axis order I J K; nnU-Net uses K J I and puts the coarsest axis first, which is reverted here. """

import argparse
import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as default
from nnunetv2.experiment_planning.experiment_planners.residual_unets import (
    residual_encoder_unet_planners as residual,
)

PLANNERS = {
    "plain": (default.ExperimentPlanner, 8.0),
    "residual_m": (residual.nnUNetPlannerResEncM, 8.0),
    "residual_l": (residual.nnUNetPlannerResEncL, 24.0),
    "residual_xl": (residual.nnUNetPlannerResEncXL, 40.0),
}
# In 2D, nnU-Net's residual planners shrink the patch until a batch of 12 fits; its plain planner and medunet, of 2.
PLANNED = (("plain", 3), ("plain", 2), ("residual_m", 3), ("residual_l", 3), ("residual_xl", 3))


def draw_geometry(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a dataset of up to four cases with similar spacing and shape; every third dataset has one coarse axis."""
    spacing = np.exp(rng.uniform(math.log(0.4), math.log(2.5), 3))
    shape = rng.integers(24, 520, 3)
    if rng.random() < 1 / 3:
        axis = rng.integers(3)
        spacing[axis], shape[axis] = rng.uniform(2.5, 8.0), rng.integers(8, 60)
    elif rng.random() < 1 / 2:
        spacing[:] = spacing[0]
    num_cases = int(rng.integers(1, 5))
    return {
        "spacings_mm": [
            [round(float(mm), 3) for mm in spacing * rng.uniform(0.9, 1.1)] for _ in range(num_cases)
        ],
        "shapes": [[max(8, int(n * rng.uniform(0.8, 1.2))) for n in shape] for _ in range(num_cases)],
        "num_cases": int(rng.choice([20, 130, 800])),
    }


class Planner:
    """nnU-Net's planner with a random fingerprint instead of a raw folder."""

    def __init__(self, name: str) -> None:
        self.planner_class, self.memory_gb = PLANNERS[name]

    def plan(self, geometry: dict[str, Any], dimensions: int) -> dict[str, Any]:
        """Return patch size, and strides and kernel sizes as digits per stage, in medunet's axis order."""
        with _without_a_folder(geometry):
            planner = self.planner_class("drawn", gpu_memory_target_in_gb=self.memory_gb)
        planner.determine_normalization_scheme_and_whether_mask_is_used_for_norm = lambda: ([], [])
        forward, _ = planner.determine_transpose()
        spacing = planner.determine_fullres_target_spacing()
        shapes = [
            default.compute_new_shape(shape, given, spacing)
            for given, shape in zip(
                planner.dataset_fingerprint["spacings"],
                planner.dataset_fingerprint["shapes_after_crop"],
                strict=True,
            )
        ]
        median = np.median(shapes, 0)[forward]
        voxels = float(np.prod(median)) * geometry["num_cases"]
        skip = 3 - dimensions
        with torch.device("meta"):
            plan = planner.get_plans_for_configuration(
                spacing[forward][skip:], median[skip:], "drawn", voxels, {}
            )
        axes = [2 - axis for axis in forward[skip:]]  # medunet's axis for each of nnU-Net's
        order = np.argsort(axes)
        kwargs = plan["architecture"]["arch_kwargs"]
        stages = {
            key: " ".join("".join(str(int(stage[at])) for at in order) for stage in kwargs[key])
            for key in ("strides", "kernel_sizes")
        }
        return {"patch_size": [int(plan["patch_size"][at]) for at in order], **stages}


@contextlib.contextmanager
def _without_a_folder(geometry: dict[str, Any]) -> Any:
    """Replace the functions with which the planner's constructor reads files, so that it gets a random dataset."""
    fingerprint = {
        "spacings": [spacing[::-1] for spacing in geometry["spacings_mm"]],
        "shapes_after_crop": [shape[::-1] for shape in geometry["shapes"]],
    }
    dataset = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1}}
    stand_ins = {
        "maybe_convert_to_dataset_name": lambda name: name,
        "get_filenames_of_train_images_and_targets": lambda *_: {},
        "isfile": lambda path: path.endswith("fingerprint.json"),
        "load_json": lambda path: fingerprint if path.endswith("fingerprint.json") else dataset,
    }
    before = {name: getattr(default, name) for name in stand_ins}
    try:
        for name, stand_in in stand_ins.items():
            setattr(default, name, stand_in)
        yield
    finally:
        for name, own in before.items():
            setattr(default, name, own)


def main() -> None:
    """Draw geometries, plan each with the networks in `PLANNED`, and write the plans to a JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--geometries", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    rows = []
    for _ in range(arguments.geometries):
        geometry = draw_geometry(rng)
        plans = {f"{name} {axes}D": Planner(name).plan(geometry, axes) for name, axes in PLANNED}
        rows.append({**geometry, "plans": plans})
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    arguments.out.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()

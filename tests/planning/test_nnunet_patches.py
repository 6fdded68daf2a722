"""Patch and stages are those that nnU-Net 2.8.1's own planners give for random datasets.

The values are what its unchanged code answered, its own estimate of memory included, at the memory that each planner
is made for (8 GB; presets M, L and XL 8, 24 and 40): `benchmarks/nnunet_plans.py` drew the datasets and wrote them.
Compared are patch, strides and kernels, not the batch: ours never exceeds the memory, nnU-Net's is rounded.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from medunet.planning.architectures import ARCHITECTURES
from medunet.planning.planner import make_plan
from medunet.records.config import NetworkConfig, PlanningConfig
from medunet.records.description import Description
from medunet.records.plan import Fingerprint, Plan

DATASETS = json.loads(Path(__file__).with_name("nnunet_plans.json").read_text())
PLANNED = tuple(DATASETS[0]["plans"])


def plan_ours(dataset: dict[str, Any], name: Any, dimensions: Any) -> Plan:
    """Return our plan for a drawn dataset of one channel and one label."""
    drawn = {key: dataset[key] for key in ("spacings_mm", "shapes", "num_cases")}
    intensities = {"CT": {"percentile_00_5": 0.0, "percentile_99_5": 1.0, "mean": 0.5, "std": 1.0}}
    return make_plan(
        Fingerprint.parse({**drawn, "nonzero_fraction": 1.0, "intensities": intensities}, "drawn"),
        Description.parse(
            {
                "name": "drawn",
                "layout": "msd",
                "channels": {"CT": {"modality": "CT"}},
                "labels": {"background": 0, "lesion": 1},
            },
            "drawn",
        ),
        PlanningConfig(dimensions=dimensions, network=NetworkConfig(name=name)),
        memory_gb=ARCHITECTURES[name].gpu_gb,
        memory_why="as nnU-Net",
    )


@pytest.mark.parametrize("planned", PLANNED)
def test_patch_and_stages_are_those_of_nnunets_planner(planned):
    name, dimensions = planned.removesuffix("D").split()
    different = {}
    for number, dataset in enumerate(DATASETS):
        plan = plan_ours(dataset, name, int(dimensions))
        ours = {
            "patch_size": list(plan.patch_size),
            **{
                key: " ".join("".join(map(str, stage)) for stage in getattr(plan, key))
                for key in ("strides", "kernel_sizes")
            },
        }
        if ours != dataset["plans"][planned]:
            different[number] = ours
    assert different == {}


def test_the_drawn_datasets_differ_in_all_that_decides():
    patches = [tuple(dataset["plans"]["plain 3D"]["patch_size"]) for dataset in DATASETS]
    assert len(DATASETS) == 150
    assert len(set(patches)) > 75
    coarse = {  # the axis that is convolved flat at first, if there is one
        dataset["plans"]["plain 3D"]["kernel_sizes"].split()[0] for dataset in DATASETS
    }
    assert {"333", "133", "313", "331"} <= coarse

"""Plausible spacings by modality: HR-pQCT, micro-CT and OCT are no errors, lengths in metres are."""

from pathlib import Path

import numpy as np
import pytest
from corruptions import describe
from tiny_case import check

from medunet.base.errors import InputError
from medunet.planning.planner import make_plan
from medunet.records.config import PlanningConfig
from medunet.records.description import load_description
from medunet.records.plan import Plan


def codes(root: Path, modality: str, spacing_mm: tuple[float, float, float]) -> list[str]:
    image = np.random.default_rng(0).normal(0, 50, (9, 8, 7)).astype(np.float32)
    description = describe(channels={"image": {"modality": modality}})
    return [fault.code for fault in check(root, image, None, description, affine=np.diag([*spacing_mm, 1.0]))]


@pytest.mark.parametrize(
    ("modality", "spacing_mm"),
    [
        ("CT", (0.061, 0.061, 0.061)),  # HR-pQCT
        ("CT", (0.01, 0.01, 0.01)),  # micro-CT
        ("CT", (0.7, 0.7, 10.0)),
        ("MR", (0.025, 0.025, 0.1)),  # microscopy ex vivo
        ("PET", (0.2, 0.2, 0.8)),  # of small animals
        ("other", (0.0113, 0.0039, 0.12)),  # OCT
        ("other", (0.0005, 0.0005, 0.002)),  # light sheet
    ],
)
def test_small_voxels_of_a_modality_that_has_them(tmp_path, modality, spacing_mm):
    assert codes(tmp_path, modality, spacing_mm) == []


@pytest.mark.parametrize(
    ("modality", "spacing_mm"),
    [
        ("CT", (0.0007, 0.0007, 0.005)),  # metres
        ("MR", (0.001, 0.001, 0.001)),
        ("PET", (0.004, 0.004, 0.004)),
        ("CT", (61.0, 61.0, 61.0)),  # micrometres
        ("other", (0.5, 0.5, 40.0)),
    ],
)
def test_lengths_of_another_unit(tmp_path, modality, spacing_mm):
    assert codes(tmp_path, modality, spacing_mm) == ["N007"]


def test_the_planned_spacing_has_the_same_range(tiny_plan: Plan):
    def plan(**planning: object) -> Plan:
        config = PlanningConfig.parse({"patch_size": (16, 16, 8), "batch_size": 2, **planning}, "test")
        fingerprint = tiny_plan.fingerprint
        return make_plan(fingerprint, load_description("phantoms"), config, memory_gb=1.0, memory_why="given")

    assert plan(spacing_mm=(1.5, 1.0, 2.0)).spacing_mm == (1.5, 1.0, 2.0)
    with pytest.raises(
        InputError, match=r"planning.spacing_mm: 0.001 mm is too small for CT.*0.005 mm or more"
    ):
        plan(spacing_mm=(0.001, 1.0, 2.0))


def test_a_plan_keeps_the_digits_of_a_small_spacing(tiny_plan: Plan):
    small = tiny_plan.fingerprint.model_copy(update={"spacings_mm": ((0.00617, 0.00617, 0.01234),) * 2})
    config = PlanningConfig.parse({"patch_size": (16, 16, 8), "batch_size": 2}, "test")
    plan = make_plan(small, load_description("phantoms"), config, memory_gb=1.0, memory_why="given")
    assert plan.spacing_mm == (0.00617, 0.00617, 0.01234)

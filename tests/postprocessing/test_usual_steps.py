"""The steps that a selection tries: their sizes follow the target and the scans."""

import math

import pytest

from medunet.postprocessing.morphology import make_ball
from medunet.postprocessing.usual_steps import usual_steps


def test_steps_of_a_liver() -> None:
    assert [step.model_dump() for step in usual_steps(1500, 0.8)] == [
        {"keep_largest": True},
        {"min_volume_ml": 15},
        {"min_volume_ml": 150},
        {"fill_holes": True},
        {"opening_mm": 0.8},
        {"closing_mm": 0.8},
        {"median_mm": 0.8},
    ]


@pytest.mark.parametrize("spacing_mm", [0.78125, 0.9765625, 1.0, 3.3, 0.0123, 99.4])
def test_balls_reach_the_next_voxel_and_no_further(spacing_mm: float) -> None:
    radius_mm = usual_steps(1, spacing_mm)[-1].median_mm
    assert radius_mm is not None
    assert make_ball(radius_mm, (spacing_mm,) * 3, (9, 9, 9)).sum() == 7


def test_a_target_that_no_label_has_gets_no_volume() -> None:
    assert all(step.min_volume_ml is None for step in usual_steps(math.nan, 1.0))

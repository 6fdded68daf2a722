"""Plans: within the budget, by the user's word where given, a reason beside every number."""

import numpy as np
import pytest

from medunet.base.errors import InputError
from medunet.planning.planner import make_plan, memory_budget
from medunet.records.config import PlanningConfig
from medunet.records.description import load_description
from medunet.records.plan import Fingerprint, Plan

CT = {"percentile_00_5": -20.0, "percentile_99_5": 180.0, "mean": 99.0, "std": 38.0}


def plan_liver(config: PlanningConfig | None = None, memory_gb: float = 8.0, **changes: object) -> Plan:
    values = {
        "num_cases": 100,
        "spacings_mm": ((0.77, 0.77, 1.0),) * 100,
        "shapes": ((512, 512, 432),) * 100,
        "nonzero_fraction": 1.0,
        "intensities": {"CT": CT},
        **changes,
    }
    description = load_description("msd_task03_liver")
    fingerprint = Fingerprint.parse(values, "test")
    return make_plan(
        fingerprint, description, config or PlanningConfig(), memory_gb=memory_gb, memory_why="test"
    )


def test_liver_at_eight_gb_is_nnunets_plan():
    plan = plan_liver()
    assert plan.patch_size == (128, 128, 128)
    assert plan.batch_size == 2
    assert plan.features == (32, 64, 128, 256, 320, 320)


@pytest.mark.parametrize("memory_gb", [1.0, 2.0, 8.0, 24.0])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_estimate_stays_within_the_budget(memory_gb, dimensions):
    plan = plan_liver(PlanningConfig(dimensions=dimensions), memory_gb)
    assert (
        plan.estimated_gb <= memory_gb or plan.batch_size == 2
    )  # whose feature maps fit, by nnU-Net's measure
    assert plan.estimated_gb <= memory_gb + 0.6  # the weights on top
    assert len(plan.patch_size) == dimensions


def test_more_memory_never_gives_a_smaller_patch():
    volumes = [np.prod(plan_liver(memory_gb=gb).patch_size) for gb in (1.0, 2.0, 4.0, 8.0, 16.0)]
    assert volumes == sorted(volumes)
    assert volumes[0] < volumes[-1]


def test_every_number_has_its_reason():
    plan = plan_liver()
    unreasoned = {"schema", "dataset", "dimensions", "fingerprint"}
    for key, item in plan.to_dict().items():
        assert key in unreasoned or item["why"], key


def test_given_numbers_win_and_say_so():
    config = PlanningConfig(patch_size=(60, 64, 32), batch_size=3, spacing_mm=(2.0, 2.0, 3.0))
    plan = plan_liver(config)
    assert (plan.patch_size, plan.batch_size, plan.spacing_mm) == ((64, 64, 32), 3, (2.0, 2.0, 3.0))
    assert all("given" in plan.why[key] for key in ("patch_size", "batch_size", "spacing_mm"))


def test_two_dimensions_slice_the_coarsest_axis():
    plan = plan_liver(
        PlanningConfig(dimensions=2), spacings_mm=((0.7, 5.0, 0.7),) * 100, shapes=((512, 40, 512),) * 100
    )
    assert plan.slice_axis == 1
    assert len(plan.strides[0]) == 2
    assert plan_liver(spacings_mm=((1.0, 1.0, 1.0),) * 100).slice_axis == 2


def test_batch_holds_at_most_a_twentieth_of_the_dataset():
    plan = plan_liver(
        num_cases=4, shapes=((40, 40, 40),) * 4, spacings_mm=((1.0, 1.0, 1.0),) * 4, memory_gb=24.0
    )
    assert plan.batch_size == 2


def test_scans_with_wide_empty_borders_are_cut_to_their_content():
    assert plan_liver(nonzero_fraction=0.5).crop_nonzero
    assert not plan_liver(nonzero_fraction=0.9).crop_nonzero


def test_ct_is_clipped_and_scaled_by_its_foreground():
    assert plan_liver().intensities["CT"].to_dict() == {
        "scheme": "ct", "clip_low": -20.0, "clip_high": 180.0, "mean": 99.0, "std": 38.0,
    }  # fmt: skip


def test_too_little_memory_is_refused_with_the_mend():
    with pytest.raises(InputError, match=r"planning\.memory_gb.*Raise"):
        plan_liver(memory_gb=0.001)
    with pytest.raises(InputError, match=r"planning\.memory_gb.*Raise"):  # shrinking leaves no axis to halve
        plan_liver(memory_gb=0.05, shapes=((77, 512, 512),) * 3, spacings_mm=((1.0, 2.0, 2.0),) * 3)


def test_budget_follows_the_device_and_the_users_word():
    assert memory_budget("cuda", 80.0, None)[0] == 8.0
    assert memory_budget("cpu", 20.0, None)[0] == 1.0
    assert memory_budget("cpu", 1.0, None)[0] == 0.8
    assert memory_budget("cuda", 80.0, 24.0)[0] == 24.0


@pytest.mark.parametrize("dimensions", [2, 3])
def test_patches_that_cannot_be_halved_are_refused(dimensions):
    config = PlanningConfig(dimensions=dimensions, patch_size=(4, 4, 4)[:dimensions])
    with pytest.raises(InputError, match=r"planning\.patch_size: .*Give planning\.patch_size"):
        plan_liver(config)


@pytest.mark.parametrize("shape", [(5, 4, 3), (1, 1, 1)])
def test_scans_too_small_for_a_network_are_refused(shape):
    with pytest.raises(
        InputError, match=r"dataset msd_task03_liver: .* voxels is too small to be halved even once"
    ):
        plan_liver(shapes=(shape,) * 100, spacings_mm=((1.0, 1.0, 1.0),) * 100)


def test_scans_thinner_than_a_target_voxel_keep_one():
    plan = plan_liver(PlanningConfig(spacing_mm=(1.0, 1.0, 9.0)), shapes=((128, 128, 3),) * 100)
    assert plan.median_shape[2] == 1
    assert plan.patch_size[2] >= 1


def test_features_start_at_the_number_given():
    plan = plan_liver(PlanningConfig(base_features=400, patch_size=(16, 16, 16)))
    assert set(plan.features) == {400}


def test_a_plan_of_an_earlier_version_is_hashed_as_it_was_then(tiny_plan: Plan):
    """A training that 0.4.0 began goes on: its identity is a hash of the plan, which had no grid."""
    assert tiny_plan.hash_input["grid"]["value"] == "extent"
    earlier = tiny_plan.model_copy(update={"grid": "first_voxel"})
    assert "grid" not in earlier.hash_input
    assert earlier.hash_input == {key: value for key, value in tiny_plan.hash_input.items() if key != "grid"}

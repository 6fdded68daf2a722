"""Every network plans by its own defaults, refuses options that it does not have, and says why."""

import pytest
from tiny_networks import describe, plan_network

from medunet.base.errors import InputError
from medunet.planning.architectures import ARCHITECTURES
from medunet.planning.planner import memory_budget
from medunet.records.plan import Plan

BY_RULES = {"patch_size": None, "base_features": None, "batch_size": None}
CASES = [(name, axes) for name, known in ARCHITECTURES.items() for axes in known.dimensions]


@pytest.mark.parametrize(("name", "dimensions"), CASES)
def test_a_plan_names_every_choice_and_reads_back(name, dimensions, tmp_path):
    plan = plan_network(name, dimensions, planning=BY_RULES)
    assert "auto" not in plan.network.to_dict().values()
    assert plan.network.num_stages == len(plan.features)
    assert plan.network.deep_supervision == (plan.deep_supervision > 1)
    # Of nnU-Net's networks the smallest batch's feature maps must fit; their weights come on top.
    smallest = ARCHITECTURES[name].min_batch
    assert plan.estimated_gb <= plan.memory_gb or plan.batch_size == smallest
    assert plan.estimated_gb <= 1.2 * plan.memory_gb
    for key, item in plan.to_dict().items():
        assert key in {"schema", "dataset", "dimensions", "fingerprint"} or item["why"], key
    plan.write(tmp_path / "plan.json")
    read = Plan.read(tmp_path / "plan.json")
    assert read == plan
    assert (read.valid_margin, read.output_size) == (plan.valid_margin, plan.output_size)


@pytest.mark.parametrize(("name", "dimensions"), [case for case in CASES if case[0] != "unet_2015"])
def test_padded_networks_lose_no_margin(name, dimensions):
    plan = plan_network(name, dimensions)
    assert plan.padded
    assert plan.valid_margin == (0,) * dimensions
    assert plan.output_size == plan.patch_size


@pytest.mark.parametrize(("name", "divisor"), [("swin_unetr", 32), ("mednext", 16), ("segresnet_ds", 16)])
def test_patches_are_rounded_up_to_what_the_network_takes(name, divisor):
    plan = plan_network(name, 3, planning={"patch_size": (70, 50, 33)})
    assert all(size % divisor == 0 for size in plan.patch_size)
    assert all(0 <= n - m < divisor for n, m in zip(plan.patch_size, (70, 50, 33), strict=True))


def test_swin_unetr_takes_widths_in_twelves():
    plan = plan_network("swin_unetr", 3, planning={"base_features": 24})
    assert plan.features == (24, 24, 48, 96, 192, 384)
    with pytest.raises(InputError, match=r"base_features is 32.*multiples of 12"):
        plan_network("swin_unetr", 3, planning={"base_features": 32})


def test_a_resized_slice_is_one_patch_whatever_the_spacing():
    planning = {**BY_RULES, "resize_to": (128, 96)}
    plan = plan_network("plain", 2, planning=planning, spacing_mm=(0.5, 2.0, 5.0))
    assert plan.resize_to == plan.patch_size == (128, 96)
    assert plan.strides[1] == (2, 2)  # its pixels count as square
    rounded = plan_network("classroom", 2, planning={**BY_RULES, "resize_to": (100, 96)})
    assert (rounded.resize_to, rounded.patch_size) == ((100, 96), (104, 96))
    unpadded = plan_network("unet_2015", 2, planning={**BY_RULES, "resize_to": (388, 256)})
    assert unpadded.patch_size == (572, 444)
    assert unpadded.output_size == (388, 260)


def test_deep_supervision_is_left_out_where_asked_or_lacking():
    assert plan_network("plain", 3, planning={"patch_size": (64, 64, 64)}).deep_supervision == 3
    assert plan_network("plain", 3, deep_supervision=False).deep_supervision == 1
    for name in ("classroom", "unet_2015", "swin_unetr"):
        assert plan_network(name, 2).deep_supervision == 1


def test_a_given_number_of_stages_is_kept_or_refused():
    assert len(plan_network("plain", 3, num_stages=2).features) == 2
    with pytest.raises(InputError, match=r"planning\.patch_size: .*too small for 6 stages.*num_stages"):
        plan_network("plain", 3, num_stages=6)
    with pytest.raises(InputError, match=r"single voxel.*64 voxels or more"):
        plan_network("swin_unetr", 3, planning={"patch_size": (32, 32, 32)})


@pytest.mark.parametrize(
    ("name", "dimensions", "planning", "network", "message"),
    [
        ("unet_2015", 3, {}, {}, r"dimensions is 3, but the network allows 2 only"),
        ("unet_2015", 2, {}, {"upsampling": "interpolate"}, r"upsampling is interpolate.*transposed"),
        ("mednext", 3, {}, {"norm": "batch"}, r"norm is batch, but the network allows group"),
        ("dynunet", 3, {}, {"dropout": 0.1}, r"dropout is 0\.1"),
        ("dynunet", 3, {}, {"num_stages": 2}, r"num_stages is 2, but the network allows 3 or more"),
        ("swin_unetr", 3, {}, {"num_stages": 4}, r"num_stages is 4, but the network allows 6 only"),
        ("segresnet_ds", 3, {}, {"multi_scale_input": True}, r"multi_scale_input is on"),
        ("segresnet_ds", 3, {"max_features": 64}, {}, r"max_features is 64"),
        (
            "classroom",
            2,
            {"base_features": None, "max_features": 32},
            {},
            r"max_features is 32.* 64 features",
        ),
        ("residual_m", 3, {"convolutions_per_stage": 3}, {}, r"convolutions_per_stage is 3"),
        ("plain", 3, {"convolutions_per_stage": 1}, {"multi_scale_input": True}, r"convolutions_per_stage"),
    ],
)
def test_options_that_a_network_lacks_are_refused(name, dimensions, planning, network, message):
    with pytest.raises(InputError, match=rf"planning\.network\.name {name} .*{message}.*choose another"):
        plan_network(name, dimensions, planning=planning, **network)


def test_all_lacking_options_are_named_at_once():
    with pytest.raises(InputError, match=r"norm is batch.*upsampling is interpolate.*dropout is 0\.5"):
        plan_network("mednext", 3, norm="batch", upsampling="interpolate", dropout=0.5)


def test_unpadded_patches_that_do_not_fit_are_refused_with_those_that_do():
    with pytest.raises(
        InputError, match=r"\[570, 600\].*nearest sizes that fit are \[556, 588\] and \[572, 604\]"
    ):
        plan_network("unet_2015", 2, planning={"patch_size": (570, 600)})
    plan = plan_network("unet_2015", 2, planning={"patch_size": (572, 572)})
    edited = plan.to_dict()
    edited["patch_size"]["value"] = [512, 572]
    with pytest.raises(InputError, match=r"\[512, 572\].*nearest valid are \[508, 572\] or \[524, 572\]"):
        Plan.parse(edited, "plan.json")


def test_too_little_memory_shrinks_the_published_patch_to_sizes_that_fit():
    whole = plan_network("unet_2015", 2, planning=BY_RULES)
    assert whole.patch_size == (572, 572)
    smaller = plan_network("unet_2015", 2, planning={**BY_RULES, "base_features": 224})
    assert smaller.patch_size < (572, 572)
    assert all((size - 572) % 16 == 0 for size in smaller.patch_size)
    assert smaller.batch_size >= 1


def test_presets_have_their_card_memory_and_batch_rule():
    usual = {name: memory_budget("cuda", 80.0, None, name)[0] for name in ARCHITECTURES}
    assert [usual[name] for name in ("plain", "residual_m", "residual_l", "residual_xl")] == [8, 8, 24, 40]
    assert memory_budget("cuda", 20.0, None, "residual_xl")[0] == 16.0
    assert memory_budget("cpu", 80.0, None, "residual_xl")[0] == 1.0
    planning = {**BY_RULES, "patch_size": (64, 64, 64)}
    assert plan_network("plain", 3, planning=planning).batch_size == 2  # 5% of two scans
    assert plan_network("residual_m", 3, planning=planning).batch_size > 2  # a batch may hold all of them


def test_neighbours_as_channels_are_counted():
    alone, with_neighbours = (
        plan_network("plain", 2, description=describe(2), planning={"context_slices": slices})
        for slices in (1, 5)
    )
    assert (alone.context_slices, with_neighbours.context_slices) == (1, 5)
    assert "neighbours" in with_neighbours.why["context_slices"]

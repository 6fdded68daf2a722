"""Slabs of logits become the label map that MONAI's inverse of all probabilities gives, on the scan's own grid."""

from collections.abc import Iterator
from itertools import pairwise, permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from monai.transforms.compose import Compose
from tiny_networks import describe
from tiny_run import affine_of

from medunet.imaging.volume import Header, Volume
from medunet.inference.backend import TorchBackend
from medunet.inference.model import Model
from medunet.inference.prepare import Prepared, prepare_scan
from medunet.inference.restore import _possible, restore_labels, to_label_map
from medunet.inference.scan_blocks import Source
from medunet.inference.stream import Slab
from medunet.networks.builder import to_probabilities
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.plan import Intensity, Plan
from medunet.transforms.chain import preprocess_chain, restore_probabilities

CODES = ["".join(codes) for codes in permutations(("RL", "AP", "SI")) for codes in product(*codes)]
PLANES = {
    "dimensions": 2,
    "patch_size": (16, 16),
    "features": (4, 8),
    "kernel_sizes": ((3, 3), (3, 3)),
    "strides": ((1, 1), (2, 2)),
}


def change(plan: Plan, **changes: Any) -> Plan:
    grey = Intensity(scheme="zscore_nonzero")
    return plan.model_copy(update={"intensities": {"grey": grey}, "crop_nonzero": True, **changes})


def prepare(
    plan: Plan, shape: tuple[int, ...], affine: np.ndarray, margins: tuple[int, ...]
) -> tuple[Prepared, Compose]:
    """Prepare a scan of noise that is zero in margins at both ends of each axis; return also the chain."""
    array = np.zeros((1, *shape), np.float32)
    inside = tuple(slice(low, n - high) for low, high, n in zip(margins[:3], margins[3:], shape, strict=True))
    array[0][inside] = np.random.default_rng(0).uniform(1, 2, array[0][inside].shape)
    volume = Volume(array, Header(Path("x"), shape, affine, array.dtype))
    chain = preprocess_chain(plan, with_label=False)
    return prepare_scan(chain, [Path("x")], lambda: volume), chain


def smooth_logits(num_classes: int, shape: tuple[int, ...], scale: float) -> torch.Tensor:
    """Return logits of classes that fill areas, as a network's, or noise with a scale of 0."""
    rng = torch.Generator().manual_seed(1)
    noise = torch.randn((1, num_classes, *shape), generator=rng)
    if not scale:
        return noise[0]
    coarse = torch.randn((1, num_classes, 3, 3, 3), generator=rng)
    return torch.nn.functional.interpolate(coarse, size=shape, mode="trilinear")[0] * scale + noise[0]


def in_slabs(logits: torch.Tensor, axis: int, cuts: list[int]) -> Iterator[Slab]:
    """Yield slabs between cuts, which are overwritten once they have been used."""
    moved = logits.movedim(1 + axis, 1)
    bounds = [0, *sorted(set(cuts) & set(range(1, moved.shape[1]))), moved.shape[1]]
    for start, stop in pairwise(bounds):
        own = moved[:, start:stop].clone()
        yield Slab(start, own)
        own.fill_(torch.nan)


def check_equal(
    prepared: Prepared, chain: Compose, description: Description, axis: int, cuts: list[int], scale: float
) -> int:
    """Compare the labels on the scan's grid where they are not a tie; return how many there are."""
    num_outputs = len(description.targets) + (not description.regions)
    logits = smooth_logits(num_outputs, tuple(prepared.image.shape[1:]), scale)
    probabilities = to_probabilities(logits, description, channel_axis=0)
    restored = torch.stack(list(restore_probabilities(probabilities, {"image": prepared.image}, chain)))
    expected = to_label_map(restored, description).numpy()
    assert prepared.placement is not None
    found = restore_labels([Source(in_slabs(logits, axis, cuts), axis, prepared.placement)], description)
    if description.regions:
        is_close = (restored - 0.5).abs().amin(0) < 1e-3
    else:
        best = restored.topk(2, 0).values
        is_close = best[0] - best[1] < 1e-3
    differs = (found != expected) & ~is_close.numpy()
    assert found.shape == prepared.shape
    assert not differs.any(), f"{differs.sum()} of {differs.size}"
    return np.unique(found).size


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("regions", [False, True])
def test_labels_equal_those_of_all_probabilities_resampled(
    tiny_plan: Plan, regions: bool, data: st.DataObject
):
    size, step = st.integers(5, 40), st.floats(0.5, 4)
    shape = data.draw(st.tuples(size, size, size), "shape")
    spacing_mm = data.draw(st.tuples(step, step, step), "spacing")
    tilt = data.draw(st.sampled_from([0.0, 0.0, 17.0]), "tilt")
    affine = affine_of(data.draw(st.sampled_from(CODES), "axes"), spacing_mm, tilt)
    margins = tuple(data.draw(st.integers(0, n // 3), "margin") for n in (*shape, *shape))
    kind = data.draw(st.sampled_from(["extent", "first_voxel", "planes", "resized", "resized_old"]), "kind")
    target = data.draw(st.tuples(step, step, step), "target")
    changes: dict[str, Any] = {"spacing_mm": target, "grid": "extent"}
    if kind == "first_voxel":
        changes["grid"] = "first_voxel"
    elif kind != "extent":
        changes |= PLANES | {"slice_axis": data.draw(st.integers(0, 2), "slice axis")}
        if kind != "planes":
            changes |= {"resize_to": (20, 24)}
        if kind == "resized_old":
            changes["grid"] = "first_voxel"
    plan = change(tiny_plan, **changes)
    prepared, chain = prepare(plan, shape, affine, margins)
    axis = plan.slice_axis if plan.dimensions == 2 else data.draw(st.integers(0, 2), "stream's axis")
    cuts = data.draw(st.lists(st.integers(1, 60), max_size=6), "cuts")
    check_equal(
        prepared, chain, describe(regions=regions), axis, cuts, data.draw(st.sampled_from([0, 4.0]), "scale")
    )


@pytest.mark.parametrize("scale", [0.0, 12.0])
def test_many_classes_in_a_large_scan(tiny_plan: Plan, scale: float):
    """Blocks in which one class, a few or all can win."""
    names = [f"organ{number}" for number in range(30)]
    description = Description(
        name="many",
        layout="pairs",
        channels={"grey": {"modality": "other"}},
        labels={"background": 0} | {name: 5 + number for number, name in enumerate(names)},
    )
    plan = change(tiny_plan, spacing_mm=(1.5, 1.5, 1.5), grid="extent")
    prepared, chain = prepare(plan, (140, 80, 75), affine_of("LPS", (0.8, 0.8, 1.1)), (10, 0, 3, 0, 0, 8))
    assert check_equal(prepared, chain, description, 0, [10, 11, 30], scale) > 20


@given(st.integers(2, 9), st.integers(0, 10_000), st.floats(0.1, 8))
def test_a_class_that_is_left_out_cannot_win(num_classes: int, seed: int, scale: float):
    rng = np.random.default_rng(seed)
    corners = np.exp(scale * rng.normal(size=(num_classes, 8)))
    corners /= corners.sum(0)
    possible = _possible(corners.max(1).astype(np.float32))
    weights = rng.dirichlet(np.ones(8), 500).T
    assert set((corners @ weights).argmax(0)) <= set(possible)


def test_a_class_that_fills_a_block_is_alone():
    assert _possible(np.array([0.02, 0.99, 0.03], np.float32)) == [1]
    assert _possible(np.array([0.9, 0.9, 0.04], np.float32)) == [0, 1]
    assert _possible(np.array([0.9, 0.9, 0.6], np.float32)) == [0, 1, 2]


@pytest.mark.parametrize("regions", [False, True])
def test_an_axis_of_the_networks_grid_may_be_one_voxel_long(tiny_plan: Plan, regions: bool):
    """Five voxels of the scan lie at the same place then, and are no grid of their own."""
    plan = change(tiny_plan, spacing_mm=(1.0, 1.0, 9.0), grid="extent")
    prepared, chain = prepare(plan, (30, 20, 5), affine_of("RAS", (1.0, 1.0, 1.0)), (0,) * 6)
    assert prepared.image.shape[1:] == (30, 20, 1)
    check_equal(prepared, chain, describe(regions=regions), 0, [7], 6.0)


class ByValue(torch.nn.Module):
    """Gives each voxel three logits by its own value alone."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([image * 0, image, -image - 1], 1)


@pytest.mark.parametrize("shape", [(30, 24, 26), (9, 8, 7)])
def test_a_sheared_scan_is_restored_at_once_after_the_last_slab(tiny_plan: Plan, shape: tuple[int, ...]):
    """A plan up to 0.4 turns its grid; slabs are overwritten once the next one is asked for."""
    affine = affine_of("RAS", (1.0, 1.0, 1.0))
    affine[0, 2] = 0.4
    plan = change(tiny_plan, grid="first_voxel", spacing_mm=(1.5, 1.5, 1.5))
    prepared, chain = prepare(plan, shape, affine, (0,) * 6)
    assert prepared.placement is None
    card: Any = SimpleNamespace(plan=plan, description=describe(), nnunet=None)
    model = Model(card, TorchBackend(ByValue(), torch.device("cpu"), "fp32"), chain)
    probabilities = to_probabilities(
        ByValue()(prepared.image.as_tensor()[None])[0], describe(), channel_axis=0
    )
    restored = torch.stack(list(restore_probabilities(probabilities, {"image": prepared.image}, chain)))
    best = restored.topk(2, 0).values
    differs = model.compute(prepared, InferenceConfig()) != to_label_map(restored, describe()).numpy()
    assert not (differs & (best[0] - best[1] >= 1e-3).numpy()).any()
    assert to_label_map(restored, describe()).unique().numel() == 3

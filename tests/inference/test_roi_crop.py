"""A network that sees each voxel, or its neighbours, gives the labels in a box that it gives in the whole scan."""

from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_networks import describe
from tiny_run import affine_of

from medunet.imaging.volume import Header, Volume
from medunet.inference.backend import TorchBackend
from medunet.inference.model import Model
from medunet.inference.prepare import Prepared, prepare_scan
from medunet.inference.roi_box import Box
from medunet.inference.roi_crop import bounds_of, crop_prepared
from medunet.records.config import InferenceConfig, NetworkConfig
from medunet.records.plan import Intensity, Plan
from medunet.transforms.chain import preprocess_chain

CODES = ["".join(codes) for codes in permutations(("RL", "AP", "SI")) for codes in product(*codes)]
PLANES = {
    "dimensions": 2,
    "patch_size": (16, 16),
    "features": (4, 8),
    "kernel_sizes": ((3, 3), (3, 3)),
    "strides": ((1, 1), (2, 2)),
}


class ByMean(torch.nn.Module):
    """Gives each voxel its logits by the mean of its neighbours across slices and, unpadded, in the plane."""

    def __init__(self, num_outputs: int, margin: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.num_outputs, self.margin = num_outputs, margin

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        mean = image.mean(1, keepdim=True)
        if any(self.margin):
            mean = torch.nn.functional.avg_pool2d(mean, [2 * margin + 1 for margin in self.margin], 1)
        logits = [mean * 0, mean * 9 + 1, -mean * 9][-self.num_outputs :]
        return torch.cat(logits, 1)


def make_model(plan: Plan, *, regions: bool = False) -> Model:
    description = describe(regions=regions)
    card: Any = SimpleNamespace(plan=plan, description=description, nnunet=None)
    network = ByMean(2 if regions else 3, plan.valid_margin if plan.dimensions == 2 else ())
    return Model(
        card, TorchBackend(network, torch.device("cpu"), "fp32"), preprocess_chain(plan, with_label=False)
    )


def prepare(plan: Plan, shape: tuple[int, ...], affine: np.ndarray, margins: tuple[int, ...]) -> Prepared:
    """Prepare a scan of noise that is zero in margins at both ends of each axis."""
    array = np.zeros((1, *shape), np.float32)
    inside = tuple(slice(low, n - high) for low, high, n in zip(margins[:3], margins[3:], shape, strict=True))
    array[0][inside] = np.random.default_rng(0).normal(0, 1, array[0][inside].shape)
    volume = Volume(array, Header(Path("x"), shape, affine, array.dtype))
    return prepare_scan(preprocess_chain(plan, with_label=False), [Path("x")], lambda: volume)


def check_box(model: Model, prepared: Prepared, box: Box, config: InferenceConfig) -> Prepared:
    """Compare the labels in a box with those there of the whole scan, but for rounding in a tie."""
    whole = model.compute(prepared, config)
    part = crop_prepared(prepared, box, model.card.plan)
    found = model.compute(part, config)
    assert found.shape == part.shape == box.shape
    assert (found != whole[box.slices]).sum() <= 1 + found.size // 10_000
    corner = np.array([*box.starts, 1])
    np.testing.assert_allclose(part.header.affine @ [0, 0, 0, 1], prepared.header.affine @ corner, atol=1e-9)
    return part


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("regions", [False, True])
def test_labels_in_a_box_are_those_of_the_whole_scan(tiny_plan: Plan, regions: bool, data: st.DataObject):
    size, step = st.integers(5, 40), st.floats(0.5, 4)
    shape = data.draw(st.tuples(size, size, size), "shape")
    spacing_mm = data.draw(st.tuples(step, step, step), "spacing")
    tilt = data.draw(st.sampled_from([0.0, 17.0]), "tilt")
    affine = affine_of(data.draw(st.sampled_from(CODES), "axes"), spacing_mm, tilt)
    margins = tuple(data.draw(st.integers(0, n // 3), "margin") for n in (*shape, *shape))
    kind = data.draw(st.sampled_from(["extent", "first_voxel", "planes", "neighbours", "resized"]), "kind")
    changes: dict[str, Any] = {"spacing_mm": data.draw(st.tuples(step, step, step), "target")}
    changes["grid"] = "first_voxel" if kind == "first_voxel" else "extent"
    if kind not in ("extent", "first_voxel"):
        changes |= PLANES | {"slice_axis": data.draw(st.integers(0, 2), "slice axis")}
    if kind == "neighbours":
        changes["context_slices"] = 3
    if kind == "resized":
        changes["resize_to"] = (20, 24)
    grey = Intensity(scheme="zscore_nonzero")
    plan = tiny_plan.model_copy(update={"intensities": {"grey": grey}, "crop_nonzero": True, **changes})
    prepared = prepare(plan, shape, affine, margins)
    assert prepared.placement is not None
    bounds = bounds_of(prepared.placement)
    assert bounds.spans == [
        (low, n - high) for low, high, n in zip(margins[:3], margins[3:], shape, strict=True)
    ]
    starts = [data.draw(st.integers(low, high - 1), "start") for low, high in bounds.spans]
    ends = zip(starts, bounds.stops, strict=True)
    box = Box.of((start, data.draw(st.integers(start + 1, high), "stop")) for start, high in ends)
    check_box(make_model(plan, regions=regions), prepared, box, InferenceConfig())


def test_an_unpadded_network_sees_what_lies_beyond_the_box(tiny_plan: Plan):
    changes = PLANES | {"patch_size": (44, 48), "slice_axis": 2, "network": NetworkConfig(name="unet_2015")}
    grey = Intensity(scheme="zscore")
    plan = tiny_plan.model_copy(
        update={"intensities": {"grey": grey}, "grid": "extent", "spacing_mm": (1.0, 1.5, 4.0), **changes}
    )
    assert min(plan.valid_margin) > 5
    prepared = prepare(plan, (90, 80, 6), affine_of("LAS", (1.0, 1.2, 4.0)), (0,) * 6)
    box = Box((40, 20, 1), (62, 51, 4))
    part = check_box(make_model(plan), prepared, box, InferenceConfig())
    assert part.image.shape[1] >= 22 + 2 * plan.valid_margin[0]
    assert part.image.shape[3] == 3


@pytest.mark.parametrize(("starts", "stops"), [((0, 4, 2), (3, 9, 4)), ((37, 4, 2), (40, 9, 4))])
def test_the_image_is_as_large_as_a_patch_where_the_scan_is(tiny_plan: Plan, starts, stops):
    """Patches have 16 x 16 x 8 voxels."""
    plan = tiny_plan.model_copy(
        update={
            "intensities": {"grey": Intensity(scheme="zscore")},
            "grid": "extent",
            "spacing_mm": (1.0, 1.0, 1.0),
        }
    )
    prepared = prepare(plan, (40, 30, 6), affine_of("RAS", (1.0, 1.0, 1.0)), (0,) * 6)
    part = check_box(make_model(plan), prepared, Box(starts, stops), InferenceConfig())
    assert part.image.shape[1:] == (16, 16, 6)
    assert np.shares_memory(part.image.numpy(), prepared.image.numpy())


def test_shifts_and_mirror_images_are_averaged_in_the_box(tiny_plan: Plan):
    plan = tiny_plan.model_copy(
        update={"intensities": {"grey": Intensity(scheme="zscore")}, "grid": "extent"}
    )
    prepared = prepare(plan, (40, 30, 12), affine_of("PIR", (1.5, 2.5, 4.0)), (0,) * 6)
    config = InferenceConfig(mirror=("left_right",), shifts=2)
    check_box(make_model(plan), prepared, Box((11, 3, 2), (29, 20, 9)), config)

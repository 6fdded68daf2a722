"""Models of different plans as one: the mean of probabilities that MONAI restores to the scan's grid."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_restore import CODES, PLANES, change
from tiny_networks import describe
from tiny_run import affine_of
from torch import nn
from whole_volumes import CPU, whole_logits

from medunet.base.errors import InputError
from medunet.imaging.volume import Header, Volume
from medunet.inference.backend import TorchBackend
from medunet.inference.ensemble import Ensemble, group_by_plan
from medunet.inference.joint import JointTorchBackend
from medunet.inference.maps import CaseMaps
from medunet.inference.memory import Way
from medunet.inference.model import Model
from medunet.inference.model_folder import Member
from medunet.inference.prepare import prepare_scan
from medunet.inference.restore import to_label_map
from medunet.networks.builder import to_probabilities
from medunet.records.config import InferenceConfig
from medunet.records.description import Description
from medunet.records.plan import Plan
from medunet.runs.run import Run
from medunet.transforms.chain import preprocess_chain, restore_probabilities

PLAIN = InferenceConfig()


class Smooth(nn.Module):
    """Gives logits that change slowly from voxel to voxel, other ones for each seed."""

    def __init__(self, dimensions: int, num_classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.pool = (nn.AvgPool3d if dimensions == 3 else nn.AvgPool2d)(5, stride=1, padding=2)
        self.scale = nn.Parameter(4 * torch.randn(num_classes))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        smooth = self.pool(image[:, :1])
        scale = self.scale.reshape([1, -1] + [1] * (smooth.ndim - 2))
        return torch.sin(3 * smooth * scale) * scale


def make_model(plan: Plan, description: Description, seeds: list[int], *, apart: bool = False) -> Model:
    num_classes = len(description.targets) + (not description.regions)
    each = [TorchBackend(Smooth(plan.dimensions, num_classes, seed), CPU, "fp32") for seed in seeds]
    card: Any = SimpleNamespace(plan=plan, description=description, inference=PLAIN, nnunet=None)
    regions = bool(description.regions)
    backend: Any = JointTorchBackend(each, regions=regions, apart=apart) if len(each) > 1 else each[0]
    others = tuple(Member(card) for _ in seeds[1:])
    return Model(card, backend, preprocess_chain(plan, with_label=False), others=others, apart=apart)


def restored(model: Model, prepared: Any) -> torch.Tensor:
    """Return the probabilities, of several networks their mean, restored by MONAI to the scan's grid."""
    description = model.card.description
    count = len(description.targets) + (not description.regions)
    logits = whole_logits(model.open(prepared, PLAIN, Way(1)))[:count]
    probabilities = to_probabilities(logits, description, channel_axis=0)
    on_scan = torch.stack(list(restore_probabilities(probabilities, {"image": prepared.image}, model.chain)))
    if not description.regions:
        on_scan[0] += 1 - on_scan.sum(0)  # what was cropped away is background
    return on_scan


def is_close(probabilities: torch.Tensor, description: Description) -> np.ndarray:
    """Return where labels may differ by rounding."""
    if description.regions:
        return ((probabilities - 0.5).abs().amin(0) < 1e-3).numpy()
    best = probabilities.topk(2, 0).values
    return (best[0] - best[1] < 1e-3).numpy()


def scan(shape: tuple[int, ...], affine: np.ndarray, margins: tuple[int, ...] = (0,) * 6) -> Volume:
    rng = np.random.default_rng(0)
    array = np.zeros(shape, np.float32)
    inside = tuple(slice(low, n - high) for low, high, n in zip(margins[:3], margins[3:], shape, strict=True))
    array[inside] = rng.uniform(1, 2, array[inside].shape)
    return Volume(array[None], Header(Path("x"), shape, affine, array.dtype))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("regions", [False, True])
def test_labels_and_maps_equal_those_of_all_probabilities_averaged_on_the_scan(
    tiny_plan: Plan, tmp_path: Path, regions: bool, data: st.DataObject
):
    """A 3D plan with two networks beside a 2D or another 3D plan with one, streamed together or not."""
    size, step = st.integers(6, 30), st.floats(0.7, 3)
    shape = data.draw(st.tuples(size, size, size), "shape")
    tilt = data.draw(st.sampled_from([0.0, 0.0, 17.0]), "tilt")
    affine = affine_of(
        data.draw(st.sampled_from(CODES), "axes"), data.draw(st.tuples(step, step, step), "mm"), tilt
    )
    margins = tuple(data.draw(st.integers(0, n // 4), "margin") for n in (*shape, *shape))
    first = change(tiny_plan, grid="extent", spacing_mm=data.draw(st.tuples(step, step, step), "first"))
    kind = data.draw(st.sampled_from(["3d", "2d", "uncropped", "2d twice"]), "second")
    other: dict[str, Any] = {"grid": "extent", "spacing_mm": data.draw(st.tuples(step, step, step), "other")}
    if kind.startswith("2d"):
        other |= PLANES | {"slice_axis": data.draw(st.integers(0, 2), "slice axis")}
    if kind == "2d twice":
        first = change(first, **PLANES, slice_axis=data.draw(st.integers(0, 2), "first's slice axis"))
    second = change(tiny_plan, **other)
    if kind == "uncropped":
        second = change(second, crop_nonzero=False)
    description = describe(regions=regions)
    models = (
        make_model(first, description, [1, 2], apart=True),
        make_model(second, description, [3], apart=True),
    )
    ensemble = Ensemble(models, (PLAIN,))
    volume = scan(shape, affine, margins)
    prepared = ensemble.prepare_volume(volume)
    own = [restored(model, each) for model, each in zip(models, prepared.each, strict=True)]
    mean = (2 * own[0] + own[1]) / 3
    expected = to_label_map(mean, description).numpy()
    paths: dict[Any, Path] = {"agreement": tmp_path / "a.nii.gz", "probabilities": tmp_path / "p.b2nd"}
    maps = CaseMaps(("agreement", "probabilities"), paths, description)
    found = ensemble.compute(prepared, PLAIN, maps=maps)
    differs = (found != expected) & ~is_close(mean, description)
    assert not differs.any(), f"{differs.sum()} of {differs.size}"

    maps.write(volume.header)
    stored, targets = blosc2.open(str(paths["probabilities"]))[:], mean if regions else mean[1:]
    assert np.abs(stored.astype(np.float32) - targets.numpy()).max() < 2e-3
    agreement = np.asarray(nib.load(paths["agreement"]).dataobj)
    # Twice the same network: as in an ensemble, windows are blended by their probabilities.
    members = [replace(make_model(first, description, [seed] * 2), chain=models[0].chain) for seed in (1, 2)]
    alone = [*(restored(model, prepared.each[0]) for model in members), own[1]]
    agree = [to_label_map(each, description).numpy() == found for each in alone]
    close = [is_close(each, description) for each in alone]
    assert (agreement <= sum((a | c).astype(int) for a, c in zip(agree, close, strict=True))).all()
    assert (agreement >= sum((a & ~c).astype(int) for a, c in zip(agree, close, strict=True))).all()
    for path in paths.values():
        path.unlink()
    assert not list(tmp_path.iterdir())


def test_a_common_axis_is_that_of_the_slices(tiny_plan: Plan):
    """Of two models that slice across different axes there is none, nor of those that see different parts."""
    description = describe()
    axes = []
    for changes in ({}, PLANES | {"slice_axis": 1}, {"crop_nonzero": False}):
        second = change(tiny_plan, grid="extent", **changes)
        models = tuple(
            make_model(plan, description, [1]) for plan in (change(tiny_plan, grid="extent"), second)
        )
        ensemble = Ensemble(models, (PLAIN,))
        volume = scan((20, 30, 40), affine_of("RAS", (1.0, 1.0, 1.0)), (3, 0, 0, 0, 0, 0))
        prepared = ensemble.prepare_volume(volume)
        axes.append(ensemble._common_axis(prepared, [tuple(each.image.shape[1:]) for each in prepared.each]))
    longest = max(range(3), key=lambda axis: prepared.each[0].image.shape[1 + axis])
    assert axes == [longest, 1, None]


def test_a_scan_is_prepared_for_each_model_as_alone(tiny_plan: Plan):
    """Preprocessing changes voxels in place, so each model gets its own copy."""
    models = tuple(make_model(change(tiny_plan, grid="extent"), describe(), [1]) for _ in range(2))
    affine = affine_of("LPS", (1.0, 1.0, 1.0))
    alone = prepare_scan(models[0].chain, [Path("x")], lambda: scan((20, 30, 24), affine)).image
    prepared = Ensemble(models, (PLAIN,)).prepare_volume(scan((20, 30, 24), affine))
    for each in prepared.each:
        assert torch.equal(each.image.as_tensor(), alone.as_tensor())


def test_memory_counts_all_models_and_each_network_that_is_kept_apart(tiny_plan: Plan):
    description, plan = describe(), change(tiny_plan, grid="extent")
    one, two, apart = (
        make_model(plan, description, [1]),
        make_model(plan, description, [1, 2]),
        make_model(plan, description, [1, 2], apart=True),
    )
    shape = (100, 90, 80)
    sums = [
        next(
            p for p in m.memory.predicting(shape, shape, PLAIN, Way(1)).parts if p.name.startswith("sums")
        ).num_bytes
        for m in (one, two, apart)
    ]
    assert sums[0] == sums[1]
    assert 2.5 < sums[2] / sums[0] <= 3
    alone = one.memory.predicting(shape, shape, PLAIN, Way(1)).main_bytes
    both = one.memory.predicting(shape, shape, PLAIN, Way(1), others=[(two.memory, shape, PLAIN)]).main_bytes
    assert both > 1.8 * alone


def test_models_of_other_targets_or_channels_are_all_named(own_run: Run, tmp_path: Path):
    first = own_run.folder.model(0)
    others = []
    for name, change_card in (
        (
            "labels",
            lambda card: card["description"]["labels"].update({[*card["description"]["labels"]][-1]: 9}),
        ),
        ("channels", lambda card: card["description"].update(channels={"MR": {"modality": "MR"}})),
    ):
        folder = tmp_path / name
        shutil.copytree(first, folder)
        card = json.loads((folder / "model.json").read_text())
        change_card(card)
        (folder / "model.json").write_text(json.dumps(card))
        others.append(folder)
    with pytest.raises(InputError, match="cannot be averaged") as error:
        group_by_plan([first, *others])
    assert "labels: targets" in str(error.value)
    assert "channels: channels ['MR'], not ['CT']" in str(error.value)
    assert group_by_plan([first, first]) == [[first, first]]

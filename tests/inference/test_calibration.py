"""int8 networks, and what faster ways of prediction cost: compared case by case, refused unmeasured."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_export import write_model

from medunet.base.errors import InputError
from medunet.inference.calibration import compare_dice
from medunet.inference.model import Model
from medunet.inference.quantised import quantise, require_measured, sample_windows
from medunet.records.config import InferenceConfig
from medunet.records.costs import Cost, TargetCost, hash_options
from medunet.records.model_card import ModelCard
from medunet.transforms.patches import PreparedCase, find_locations

CPU = torch.device("cpu")


def cost_with(**changes: object) -> Cost:
    given: dict[str, object] = {
        "targets": {"liver": TargetCost(dice_fp32=0.95, dice=0.9495, num_cases=3)},
        "difference": -0.0005,
        "worst_case": "case_7",
        "worst_target": "liver",
        "worst_difference": -0.002,
        "num_cases": 3,
        "num_patients": 2,
        "seconds_fp32": 4.0,
        "seconds": 1.6,
        "backend_fp32": "openvino",
        "backend": "openvino",
        "device": "cpu",
        "processor": "a processor",
        "versions": {},
        "weights_sha256": "w",
        "options_sha256": hash_options(InferenceConfig()),
        **changes,
    }
    return Cost(**given)  # type: ignore[arg-type]


def prepared_cases(model: Model, count: int) -> list[PreparedCase]:
    rng = np.random.default_rng(3)
    cases = []
    for number in range(count):
        shape = (40, 30 + number, 20)
        label = np.zeros(shape, np.uint8)
        label[30:34, 2:6, 3:9] = 1
        image = (rng.normal(size=(2, *shape)) + 4 * (label > 0)).astype(np.float32)
        locations = find_locations(label, model.card.description.targets, (0,))
        cases.append(PreparedCase(f"case_{number}", image, label, locations))
    return cases


def test_an_undefined_dice_counts_as_one_where_the_other_is_defined():
    fp32 = {("a", "x"): 0.9, ("b", "x"): math.nan, ("c", "x"): math.nan, ("d", "x"): 0.0}
    int8 = {("a", "x"): 0.8, ("b", "x"): math.nan, ("c", "x"): 0.0, ("d", "x"): math.nan}
    found = compare_dice(fp32, int8)
    assert found == {("a", "x"): (0.9, 0.8), ("c", "x"): (1.0, 0.0), ("d", "x"): (0.0, 1.0)}


def test_a_cost_says_what_was_measured():
    assert cost_with().describe() == (
        "mean Dice differs by −0.0005 in 3 held-out cases of 2 patients, at most by −0.0020 (liver of case_7): "
        "liver 0.9495 instead of 0.9500; 1.6 s a case instead of 4 (a processor)"
    )
    assert "123 s a case instead of 346 (" in cost_with(seconds=123.4, seconds_fp32=345.6).describe()


def test_a_cost_holds_for_its_weights_and_options_alone(tmp_path: Path):
    card = ModelCard.read(write_model(tmp_path / "model") / "model.json")
    assert "costs" not in card.to_dict(), "a card without costs is read by medunet 0.7"
    card = card.model_copy(update={"costs": {"fast": cost_with(weights_sha256=card.weights_sha256)}})
    assert card.cost_of("fast", "best", InferenceConfig(weights="best")) is not None
    assert card.cost_of("fast", "final", InferenceConfig()) is None
    assert card.cost_of("fast", "best", InferenceConfig(mirror=("left_right",))) is None
    assert card.cost_of("int8", "best", InferenceConfig()) is None
    card.write(tmp_path / "model.json")
    assert ModelCard.read(tmp_path / "model.json") == card


def test_fast_is_larger_steps_without_averaging():
    config = InferenceConfig(overlap=0.5, mirror=("left_right",), shifts=8, weights="final")
    assert config.fast() == InferenceConfig(overlap=0.25, weights="final")
    assert InferenceConfig(overlap=0.1).fast().overlap == 0.1, "never smaller steps"


def test_a_quantised_network_is_near_and_made_once(tmp_path: Path):
    pytest.importorskip("nncf")
    folder = write_model(tmp_path / "model")
    model = Model.load(folder, device=CPU, precision="fp32")
    cases = prepared_cases(model, 3)
    windows = list(sample_windows(cases, model.card.plan, 0))
    assert [window.shape for window in windows] == [(1, 2, *model.card.plan.patch_size)] * 6
    assert all(window.max() > 2 for window in windows[::2]), "one of each case around foreground"
    again = list(sample_windows(cases, model.card.plan, 0))
    assert all(np.array_equal(one, other) for one, other in zip(windows, again, strict=True))

    sha256 = quantise(model, folder, cases, 0)
    assert 'type="MVN"' in (folder / "int8" / "network.xml").read_text()  # OpenVINO's own norms
    file = folder / "int8" / "network.bin"
    written = file.stat().st_mtime_ns
    assert quantise(model, folder, cases, 0) == sha256
    assert file.stat().st_mtime_ns == written, "made once"
    int8 = Model.load(folder, device=CPU, precision="int8", backend="openvino")
    assert int8.quantised_sha256 == sha256
    image = torch.from_numpy(windows[0])
    expected, found = model.backend.forward(image), int8.backend.forward(image)
    error = float((found - expected).abs().mean() / expected.std())
    assert 1e-6 < error < 0.2

    with pytest.raises(InputError, match=r"costs in Dice is not measured.*medunet calibrate RUN"):
        require_measured(int8)
    costs = {"int8": cost_with(weights_sha256=model.weights_sha256, quantised_sha256=sha256)}
    measured = replace(int8, card=int8.card.model_copy(update={"costs": costs}))
    require_measured(measured)
    require_measured(model)
    with pytest.raises(InputError, match="not made from the final weights"):
        require_measured(replace(measured, weights="final"))
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match="not the one whose cost in Dice"):
        require_measured(replace(measured, quantised_sha256="another"))
    quantise(model, folder, cases, 0)
    assert file.stat().st_mtime_ns != written, "a damaged file is made again"
    assert sorted(path.name for path in (folder / "int8").iterdir()) == [
        "int8.json",
        "network.bin",
        "network.xml",
    ]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]

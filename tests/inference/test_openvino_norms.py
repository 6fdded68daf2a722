"""OpenVINO's own norms: found in every network with instance norms, near torch's logits, used in bf16 and int8."""

from pathlib import Path
from typing import Any

import pytest
import torch
from openvino_networks import load_converted
from tiny_networks import describe, plan_network
from torch import nn

from medunet.inference import openvino_backend
from medunet.inference.openvino_backend import OpenVinoBackend, convert_network, has_bf16
from medunet.inference.openvino_norms import use_own_norms
from medunet.networks.builder import build_network
from medunet.records.plan import count_inputs


def count_norms(network: nn.Module) -> int:
    return sum(isinstance(module, (nn.InstanceNorm2d, nn.InstanceNorm3d)) for module in network.modules())


def kinds(model: Any) -> list[str]:
    return [node.get_type_name() for node in model.get_ops()]


def randomise(network: nn.Module) -> nn.Module:
    """Give norms weights and biases that are not 1 and 0."""
    for module in network.modules():
        if isinstance(module, (nn.InstanceNorm2d, nn.InstanceNorm3d)) and module.affine:
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
    return network.eval()


@pytest.mark.parametrize("name", ["plain", "residual_m", "dynunet"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_instance_norm_is_found_and_logits_stay(name: str, dimensions: int) -> None:
    torch.manual_seed(0)
    description = describe()
    plan = plan_network(name, dimensions, description=description, planning={})
    network = randomise(build_network(plan, description))
    shape = (count_inputs(description, plan.context_slices), *plan.patch_size)
    model = convert_network(network, shape, own_norms=True)
    found = kinds(model)
    assert found.count("MVN") == count_norms(network) > 0
    assert "ReduceMean" not in found
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(image)
    logits = OpenVinoBackend(model, "fp32").forward(image)
    assert (logits - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_weight_bias_and_epsilon_are_kept(affine: bool, epsilon: float) -> None:
    torch.manual_seed(0)
    network = randomise(
        nn.Sequential(nn.Conv3d(2, 5, 3, padding=1), nn.InstanceNorm3d(5, eps=epsilon, affine=affine))
    )
    model = convert_network(network, (2, 6, 7, 8), own_norms=True)
    assert kinds(model).count("MVN") == 1
    image = torch.randn((1, 2, 6, 7, 8))
    with torch.inference_mode():
        expected = network(image)
    assert torch.allclose(OpenVinoBackend(model, "fp32").forward(image), expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["nothing", "twice the mean", "another image's mean", "another spread"])
def test_what_only_looks_like_a_norm_is_left(kind: str) -> None:
    from openvino import opset13 as ops

    network = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.InstanceNorm2d(2, affine=True)).eval()
    model = convert_network(network, (2, 8, 8))
    nodes = {name: [] for name in kinds(model)}
    for node in model.get_ordered_ops():
        nodes[node.get_type_name()].append(node)
    if kind == "twice the mean":
        (minus,) = [node for node in nodes["Multiply"] if node.input_value(1).get_node() in nodes["Constant"]]
        minus.input(1).replace_source_output(ops.constant(torch.full((1, 1, 1, 1), -2.0).numpy()).output(0))
    elif kind == "another image's mean":
        nodes["ReduceMean"][0].input(0).replace_source_output(nodes["Convolution"][0].output(0))
    elif kind == "another spread":
        (square,) = [node for node in nodes["Multiply"] if node.input_value(0) == node.input_value(1)]
        square.input(1).replace_source_output(nodes["Convolution"][0].output(0))
    assert use_own_norms(model) == (kind == "nothing")


@pytest.mark.parametrize(("precision", "expected"), [("fp32", False), ("bf16", True)])
def test_they_are_used_in_bf16_alone(
    precision: Any, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "bf16" and not has_bf16():
        pytest.skip("OpenVINO has no bf16 on this processor")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True)).eval()
    load_converted(lambda: network, {}, (1, 8, 8, 8), precision)
    (file,) = openvino_backend.converted_folder().rglob("network.xml")  # type: ignore[union-attr]
    assert ('type="MVN"' in file.read_text()) is expected


def test_in_bf16_logits_are_as_near_as_those_of_torch() -> None:
    """The norms that OpenVINO converts to are rounded step by step: their error is half as large again."""
    if not has_bf16():
        pytest.skip("OpenVINO has no bf16 on this processor")
    torch.manual_seed(0)
    description = describe()
    plan = plan_network("plain", 3, description=description, planning={})
    network = randomise(build_network(plan, description))
    shape = (count_inputs(description, plan.context_slices), *plan.patch_size)
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(image).float()
    model = convert_network(network, shape, own_norms=True)
    found = OpenVinoBackend(model, "bf16").forward(image)
    errors = [(each - expected).square().mean().sqrt() for each in (found, rounded)]
    assert errors[0] <= 1.2 * errors[1]

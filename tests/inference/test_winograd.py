"""Winograd's convolutions give the results of direct ones wherever they are in a network, in one memory layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openvino_networks import load_converted
from tiny_networks import describe, plan_network
from torch import nn

from medunet.base import processor
from medunet.inference import openvino_backend, winograd
from medunet.inference.openvino_backend import OpenVinoBackend, convert_network, openvino_core
from medunet.inference.winograd import make_transforms, use_winograd
from medunet.networks.builder import build_network


@pytest.fixture(autouse=True)
def few_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fewest channels and the least volumes use it."""
    monkeypatch.setattr(winograd, "_LEAST_CHANNELS", 0)


def convert(network: nn.Module, shape: tuple[int, ...]) -> tuple[Any, int]:
    """Return the model of OpenVINO with Winograd's convolutions, and how many there are."""
    model = convert_network(network.eval(), shape)
    return model, use_winograd(model)


def compare(model: Any, network: nn.Module, shape: tuple[int, ...]) -> float:
    """Return the root mean square error of the logits, relative to that of torch in float32."""
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        direct = network(image).double()
        exact = network.double()(image.double())
    network.float()
    found = OpenVinoBackend(model, "fp32").forward(image).double()
    assert found.shape == exact.shape
    rounding = (direct - exact).square().mean().sqrt()
    return float((found - exact).square().mean().sqrt() / rounding)


def executed(model: Any) -> list[str]:
    """Return the kinds of the operations that OpenVINO carries out."""
    import openvino

    compiled = openvino_core().compile_model(
        model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
    )
    request = compiled.create_infer_request()
    request.infer({0: np.zeros(tuple(compiled.input(0).shape), np.float32)})
    done = openvino.ProfilingInfo.Status.EXECUTED
    return [each.node_type for each in request.profiling_info if each.status == done]


def test_the_transforms_are_a_convolution() -> None:
    result, kernel, image = make_transforms()
    rng = np.random.default_rng(0)
    weights, slices = rng.normal(size=3), rng.normal(size=(6, 50))
    found = result @ ((kernel @ weights)[:, None] * (image @ slices))
    expected = [weights @ slices[start : start + 3] for start in range(4)]
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize(
    ("kernel", "shape"),
    [
        ((3, 3, 3), (16, 10, 6)),
        ((3, 3, 3), (15, 6, 10)),  # the last tile is not whole
        ((3, 3, 3), (7, 12, 9)),
        ((3, 3, 3), (41, 5, 4)),  # two parts
        ((3, 3, 3), (99, 4, 3)),  # five
        ((3, 1, 1), (12, 6, 5)),
        ((3, 3, 1), (12, 6, 5)),
        ((3, 5, 3), (12, 8, 7)),
    ],
)
def test_results_are_those_of_a_direct_convolution(kernel: tuple[int, ...], shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    middle = nn.Conv3d(16, 24, kernel, padding="same", bias=kernel[2] == 3)
    network = nn.Sequential(nn.Conv3d(1, 16, 1), middle, nn.Conv3d(24, 2, 1))
    model, count = convert(network, (1, *shape))
    assert count == 1
    assert compare(model, network, (1, *shape)) < 6


@pytest.mark.parametrize(
    "middle",
    [
        nn.Conv3d(32, 32, 3, padding=1, stride=2),
        nn.Conv3d(32, 32, 3, padding=1, stride=(1, 1, 2)),
        nn.Conv3d(32, 32, 3, padding=2, dilation=2),
        nn.Conv3d(32, 32, 3),
        nn.Conv3d(32, 32, 3, padding=(1, 0, 1)),
        nn.Conv3d(32, 32, 3, padding=1, groups=32),
        nn.Conv3d(32, 32, (1, 3, 3), padding=(0, 1, 1)),
        nn.Conv3d(32, 32, (5, 3, 3), padding=(2, 1, 1)),
        nn.Conv3d(32, 32, (3, 2, 2), padding=(1, 0, 0)),
        nn.ConvTranspose3d(32, 32, 2, stride=2),
        nn.Conv3d(32, 32, 1),
    ],
    ids=str,
)
def test_other_convolutions_stay(middle: nn.Module) -> None:
    assert convert(between(middle, 32), (1, 12, 12, 12))[1] == 0


def between(middle: nn.Module, channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, channels, 1), middle, nn.Conv3d(channels, 1, 1))


def test_convolutions_that_would_gain_nothing_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    network = between(nn.Conv3d(16, 16, 3, padding=1), 16)
    assert convert(network, (1, 16, 16, 16))[1] == 1
    assert convert(network, (1, 5, 16, 16))[1] == 0  # two tiles for five slices
    many = between(nn.Conv3d(128, 128, 3, padding=1), 128)
    assert convert(many, (1, 8, 8, 8))[1] == 1
    assert convert(many, (1, 4, 4, 4))[1] == 0  # 1.8 MB of weights more for an image of 33 kB
    monkeypatch.undo()
    assert convert(network, (1, 16, 16, 16))[1] == 0


class Odd(nn.Module):
    """What may follow a convolution and cannot all be computed with the channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 8, 3, padding=1)
        self.slopes = nn.PReLU(8)
        self.register_buffer("scale", torch.linspace(0.5, 2, 8).view(8, 1, 1, 1))
        self.register_buffer("place", torch.linspace(-1, 1, 12).view(1, 1, 1, 12, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        result = torch.relu(self.first(image) * self.scale + self.place)
        result = result - result.mean(1, keepdim=True) + result.mean((2, 3), keepdim=True)
        result = result * torch.sigmoid(result.mean((2, 3, 4)))[:, :, None, None, None]
        result = result + result.mean(2)[:, :, None]  # which leaves axes in another order
        result = self.slopes(self.second(result)) + image
        pooled = nn.functional.interpolate(nn.functional.max_pool3d(result, 2), scale_factor=2.0)
        joined = torch.cat([result, pooled, self.second(pooled).flip(2)], 1)
        return joined.softmax(1) + joined.amax(1, keepdim=True)


def test_whatever_follows_gets_what_it_expects() -> None:
    torch.manual_seed(0)
    network = Odd()
    model, count = convert(network, (1, 16, 12, 8))
    assert count == 3
    assert compare(model, network, (1, 16, 12, 8)) < 6


@pytest.mark.parametrize("norm", ["auto", "batch", "group", "none"])
def test_networks_with_any_norm_give_torch_s_logits(norm: str) -> None:
    assert check_network("plain", norm=norm) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [("residual_m", 17), ("dynunet", 8), ("segresnet_ds", 17), ("mednext", 0), ("swin_unetr", 12)],
)
def test_every_network_gives_torch_s_logits(name: str, count: int) -> None:
    assert check_network(name) == count


def test_networks_of_slices_stay() -> None:
    assert check_network("plain", dimensions=2) == 0


def check_network(name: str, dimensions: int = 3, **options: Any) -> int:
    """Compare the logits of a network with torch's, and return how many convolutions were replaced."""
    description = describe()
    plan = plan_network(name, dimensions, description=description, **options)
    torch.manual_seed(0)
    network, shape = build_network(plan, description).eval(), (1, *plan.patch_size)
    model, count = convert(network, shape)
    image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(image)
    found = OpenVinoBackend(model, "fp32").forward(image)
    assert (found - expected).abs().max() < 1e-4
    return count


def test_norms_follow_without_a_transposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()

    def block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        conv = nn.Conv3d(inputs, outputs, 3, stride, 1)
        return nn.Sequential(conv, nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU(0.01))

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.top = nn.Sequential(block(1, 32), block(32, 32))
            self.down, self.up = (
                nn.Sequential(block(32, 64, 2), block(64, 64)),
                nn.ConvTranspose3d(64, 32, 2, 2),
            )
            self.end = nn.Sequential(block(64, 32), block(32, 32), nn.Conv3d(32, 3, 1))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            top = self.top(image)
            return self.end(torch.cat([self.up(self.down(top)), top], 1))

    torch.manual_seed(0)
    network = Network()
    model, count = convert(network, (1, 24, 16, 8))
    assert count == 4
    assert compare(model, network, (1, 24, 16, 8)) < 6
    kinds = executed(model)
    assert kinds.count("MatMul") == 2 * count
    assert "Transpose" not in kinds
    assert kinds.count("Reorder") <= 4  # of the input, the result and small tensors


@pytest.mark.parametrize("kind", ["AVX2", "AVX-512", "AVX-512 with bf16", "other"])
def test_it_is_used_in_fp32_where_it_was_measured(
    kind: processor.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked = []

    def convert(network: nn.Module, shape: tuple[int, ...], *, winograd: bool, own_norms: bool) -> Any:
        asked.append(winograd)
        return convert_network(network, shape, winograd=winograd, own_norms=own_norms)

    monkeypatch.setattr(openvino_backend, "convert_network", convert)
    network = nn.Conv3d(1, 8, 3, padding=1)
    for each in (kind, kind, "other"):
        monkeypatch.setattr(processor.Processor, "kind", each)
        load_converted(lambda: network, {}, (1, 8, 8, 8), "fp32")
    assert asked == ([False] if kind == "other" else [True, False])  # each is converted once, for both kinds
    files = [file.read_text() for file in tmp_path.rglob("network.xml")]
    assert sum("MatMul" in file for file in files) == (kind != "other")

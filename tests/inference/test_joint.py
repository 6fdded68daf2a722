"""Several networks of one plan as one backend: the mean of their probabilities, in torch and in OpenVINO."""

from typing import Any

import pytest
import torch
from monai.inferers.utils import sliding_window_inference
from tiny_networks import describe, plan_network
from torch import nn
from whole_volumes import CPU, convolve, whole_logits

from medunet.base.errors import DataError
from medunet.inference.backend import TorchBackend
from medunet.inference.joint import JointTorchBackend, load_openvino
from medunet.inference.openvino_backend import ConversionError, convert_network
from medunet.inference.stream import open_stream
from medunet.networks.builder import build_network
from medunet.records.config import InferenceConfig
from medunet.records.plan import Plan

SHAPE = (1, 32, 24, 16)


def networks(num: int = 3, *, regions: bool = False) -> list[nn.Module]:
    """Return networks of one plan with different weights."""
    description = describe(regions=regions)
    plan = plan_network("plain", description=description)
    made = []
    for seed in range(num):
        torch.manual_seed(seed)
        made.append(build_network(plan, description).eval())
    return made


def in_torch(each: list[nn.Module], **options: Any) -> JointTorchBackend:
    return JointTorchBackend([TorchBackend(network, CPU, "fp32") for network in each], **options)


def expected(each: list[nn.Module], images: torch.Tensor, *, regions: bool) -> list[torch.Tensor]:
    """Return the probabilities of each network."""
    with torch.inference_mode():
        logits = [network(images) for network in each]
    return [one.sigmoid() if regions else one.softmax(1) for one in logits]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("library", ["torch", "openvino"])
def test_the_mean_of_the_probabilities_and_on_demand_those_of_each(library: str, regions: bool, apart: bool):
    each = networks(regions=regions)
    if library == "torch":
        backend: Any = in_torch(each, regions=regions, apart=apart)
    else:
        pytest.importorskip("openvino")
        converted = [convert_network(network, SHAPE) for network in each]
        backend = load_openvino(converted, "fp32", regions=regions, apart=apart)
    images = torch.randn((2, *SHAPE), generator=torch.Generator().manual_seed(0))
    own = expected(each, images, regions=regions)
    wanted = torch.stack(own).mean(0)
    wanted = torch.cat([wanted, *own], 1) if apart else wanted
    found = backend.forward(images)
    assert backend.num_members == 3
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < 1e-4
    assert (own[0] - own[1]).abs().max() > 0.05  # they do differ


def test_networks_in_openvino_share_the_memory_of_feature_maps():
    """The graph has one input; of one network, nothing is joined."""
    pytest.importorskip("openvino")
    converted = [[convert_network(network, SHAPE) for network in networks(num)] for num in (1, 2)]
    one, two = (load_openvino(each, "fp32", regions=False) for each in converted)
    assert (one.num_members, two.num_members) == (1, 2)
    image = torch.zeros((1, *SHAPE))
    assert two.forward(image).sum(1).allclose(torch.ones(()), atol=1e-5)
    assert not one.forward(image).sum(1).allclose(torch.ones(()), atol=1e-3)  # logits


def test_networks_that_openvino_cannot_read_are_named(tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "network.xml"
    path.write_text("<net")
    with pytest.raises(ConversionError, match="OpenVINO cannot read the converted networks"):
        load_openvino([path, path], "fp32", regions=False)


@pytest.mark.parametrize("library", ["torch", "openvino"])
@pytest.mark.parametrize("regions", [False, True])
def test_an_infinite_logit_of_one_network_ends_the_case(tiny_plan: Plan, regions: bool, library: str):
    class Overflows(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([image * 0, image * torch.inf], 1)

    class Fine(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([image * 0, image], 1)

    each: list[nn.Module] = [Fine(), Overflows()]
    plan = tiny_plan
    if library == "torch":
        backend: Any = in_torch(each, regions=regions)
    else:
        pytest.importorskip("openvino")
        shape = (1, *plan.patch_size)
        backend = load_openvino([convert_network(one, shape) for one in each], "fp32", regions=regions)
    image = torch.rand((1, *plan.patch_size)) + 0.5
    with pytest.raises(DataError, match="NaN or infinite"):
        list(open_stream(backend, image, plan, InferenceConfig(), regions=regions).slabs())


@pytest.mark.parametrize("mirror", [(), ("left_right", "inferior_superior")])
@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_stream_blends_the_windows_means(tiny_plan: Plan, axis: int | None, mirror: tuple[str, ...]):
    """As MONAI blends the mean of the networks' probabilities, along any axis."""
    each = [convolve(3) for _ in range(3)]
    for number, network in enumerate(each):
        torch.manual_seed(10 + number)
        for parameter in network.parameters():
            nn.init.normal_(parameter)
    image = torch.randn((1, 37, 30, 25), generator=torch.Generator().manual_seed(1))
    config = InferenceConfig(mirror=mirror)
    backend = in_torch(each, regions=False)
    found = whole_logits(open_stream(backend, image, tiny_plan, config, axis=axis)).softmax(0)

    def mean(windows: torch.Tensor) -> torch.Tensor:
        return torch.stack([network(windows).softmax(1) for network in each]).mean(0)

    flips = [(), (2,), (4,), (2, 4)] if mirror else [()]
    blended = []
    with torch.inference_mode():
        for axes in flips:
            turned = image[None].flip(axes) if axes else image[None]
            one = sliding_window_inference(
                *(turned, tiny_plan.patch_size, 4, mean, 0.5),
                mode="gaussian",
                sigma_scale=0.125,
                padding_mode="replicate",
            )
            blended.append(one.flip(axes) if axes else one)
    assert (found - torch.stack(blended).mean(0)[0]).abs().max() < 1e-5

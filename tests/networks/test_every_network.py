"""What every network must do, in 2D and 3D, with tiny widths."""

import pytest
import torch
from tiny_networks import describe, plan_network
from torch import nn

from medunet.base.errors import InputError
from medunet.networks.builder import build_network, encoder_parameters
from medunet.planning.architectures import ARCHITECTURES

CASES = [(name, axes) for name, known in ARCHITECTURES.items() for axes in known.dimensions]
IDS = [f"{name}-{axes}d" for name, axes in CASES]


def build(name: str, dimensions: int, **network: object) -> nn.Module:
    """Return a network whose weights are all drawn at random, so that none starts at zero."""
    torch.manual_seed(0)
    plan = plan_network(name, dimensions, description=describe(2), **network)
    made = build_network(plan, describe(2))
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.05)
    return made


def draw(name: str, dimensions: int, batch: int = 1) -> torch.Tensor:
    patch = plan_network(name, dimensions).patch_size
    return torch.randn(batch, 2, *patch, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("name", "dimensions"), CASES, ids=IDS)
class TestEveryNetwork:
    def test_training_gives_a_list_finest_first_and_evaluation_the_finest(self, name, dimensions):
        plan = plan_network(name, dimensions)
        network, image = build(name, dimensions), draw(name, dimensions, batch=2)
        outputs = network.train()(image)
        assert isinstance(outputs, list)
        assert len(outputs) == plan.deep_supervision
        assert outputs[0].shape == (2, 3, *plan.output_size)
        sizes = [output[0, 0].numel() for output in outputs]
        assert sizes == sorted(sizes, reverse=True)
        if name == "dynunet":
            assert len(set(sizes)) == 1
        else:
            assert len(set(sizes)) == len(sizes)  # each at its own scale
        with torch.no_grad():
            assert network.eval()(image).shape == (2, 3, *plan.output_size)

    def test_every_weight_is_trained(self, name, dimensions):
        network = build(name, dimensions)
        sum(output.square().mean() for output in network(draw(name, dimensions, batch=2))).backward()
        untrained = [
            key for key, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()
        ]
        assert untrained == []

    @torch.no_grad()
    def test_a_batch_is_computed_as_its_samples_are(self, name, dimensions):
        network, image = build(name, dimensions).eval(), draw(name, dimensions, batch=2)
        alone = torch.cat([network(sample[None]) for sample in image])
        torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def test_the_same_seed_gives_the_same_answer(self, name, dimensions):
        image = draw(name, dimensions)
        first, second = (build(name, dimensions).eval()(image) for _ in range(2))
        assert torch.equal(first, second)

    def test_an_encoder_can_be_frozen(self, name, dimensions):
        network = build(name, dimensions)
        encoder = {id(weight) for weight in encoder_parameters(network)}
        everything = {id(weight) for weight in network.parameters()}
        assert encoder < everything
        for weight in encoder_parameters(network):
            weight.requires_grad_(False)
        sum(output.mean() for output in network(draw(name, dimensions, batch=2))).backward()
        heads = list(network.parameters())[-1]
        assert heads.grad is not None


def test_a_network_without_an_encoder_is_refused():
    with pytest.raises(InputError, match=r"freeze_encoder: Linear has no encoder.*plain"):
        encoder_parameters(nn.Linear(1, 1))


def test_swin_unetr_without_einops_says_what_to_install(monkeypatch):
    monkeypatch.setattr("medunet.networks.monai_networks.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package einops\. Run `pip install"):
        build_network(plan_network("swin_unetr", 2), describe())


OPTIONS = [
    (name, {key: value})
    for name, known in ARCHITECTURES.items()
    for key, values in (("norm", known.norms), ("upsampling", known.upsamplings))
    for value in values
] + [
    *((name, {"dropout": 0.5}) for name, known in ARCHITECTURES.items() if known.dropout),
    *((name, {"multi_scale_input": True}) for name, known in ARCHITECTURES.items() if known.own),
    *((name, {"deep_supervision": False}) for name in ARCHITECTURES),
]


@pytest.mark.parametrize(
    ("name", "option"), OPTIONS, ids=[f"{n}-{k}-{v}" for n, o in OPTIONS for k, v in o.items()]
)
def test_every_option_that_a_network_has_can_be_built_and_run(name, option):
    plan = plan_network(name, 2, **option)
    network = build(name, 2, **option).train()
    outputs = network(draw(name, 2, batch=2))
    assert outputs[0].shape == (2, 3, *plan.output_size)
    assert len(outputs) == plan.deep_supervision
    kinds = {type(module) for module in network.modules()}
    if option.get("norm") == "none":
        assert not kinds & {nn.InstanceNorm2d, nn.BatchNorm2d, nn.GroupNorm}
    if option.get("norm") == "batch":
        assert nn.BatchNorm2d in kinds
    if option.get("upsampling") == "interpolate":
        assert nn.ConvTranspose2d not in kinds
    if "dropout" in option:  # whole maps are dropped in training, none in evaluation
        assert not torch.equal(outputs[0], network(draw(name, 2, batch=2))[0])
        network.eval()
        assert torch.equal(network(draw(name, 2)), network(draw(name, 2)))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_neighbouring_slices_are_channels(name):
    description = describe(2)
    plan = plan_network(name, 2, description=description, planning={"context_slices": 3})
    outputs = build_network(plan, description).train()(torch.randn(2, 6, *plan.patch_size))
    assert outputs[0].shape == (2, 3, *plan.output_size)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_regions_have_a_channel_each_and_labels_one_more(name):
    for regions, channels in ((True, 2), (False, 3)):
        description = describe(1, regions=regions)
        plan = plan_network(name, 2, description=description)
        assert (
            build_network(plan, description).eval()(torch.randn(1, 1, *plan.patch_size)).shape[1] == channels
        )

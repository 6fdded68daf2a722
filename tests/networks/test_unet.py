"""The U-Net: shapes, and the very function of MONAI's DynUNet with the same weights."""

import pytest
import torch
from monai.networks.nets import DynUNet

from medunet.networks.builder import build_network, to_probabilities
from medunet.networks.unet import UNet
from medunet.records.description import load_description
from medunet.records.plan import Plan

ISOTROPIC = {
    "features": (8, 16, 32),
    "kernel_sizes": ((3, 3, 3),) * 3,
    "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
}
# DynUNet's decoder takes the kernel of the stage below, nnU-Net's and ours that of its own stage, so they are
# alike only where all kernels are.
ANISOTROPIC = {
    "features": (8, 16, 32),
    "kernel_sizes": ((3, 3, 3),) * 3,
    "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2)),
}


def as_dynunet(ours: UNet, topology: dict) -> DynUNet:
    """Build MONAI's network of the same topology and give it our weights, layer by layer."""
    theirs = DynUNet(
        spatial_dims=3,
        in_channels=2,
        out_channels=3,
        kernel_size=topology["kernel_sizes"],
        strides=topology["strides"],
        upsample_kernel_size=topology["strides"][1:],
        filters=topology["features"],
        norm_name=("INSTANCE", {"affine": True}),
        act_name=("leakyrelu", {"negative_slope": 0.01}),
        deep_supervision=False,
        res_block=False,
        trans_bias=True,
    ).eval()
    # DynUNet lists its levels by recursion; its convolutions before a norm have no bias, so ours are set to zero.
    for name, weight in ours.named_parameters():
        if name.endswith("0.bias") and ("encoder" in name or "decoder" in name):
            weight.data.zero_()

    def blocks(module: torch.nn.Module, stage: torch.nn.Module) -> None:
        for index, (block, norm) in enumerate(((module.conv1, module.norm1), (module.conv2, module.norm2))):
            block.conv.weight.data.copy_(stage[index][0].weight)
            norm.load_state_dict(stage[index][1].state_dict())

    encoders = [theirs.input_block, *theirs.downsamples, theirs.bottleneck]
    for module, stage in zip(encoders, ours.encoder, strict=True):
        blocks(module, stage)
    for module, up, stage in zip(theirs.upsamples, ours.upsamplers, ours.decoder, strict=True):
        module.transp_conv.conv.load_state_dict(up.state_dict())
        blocks(module.conv_block, stage)
    theirs.output_block.conv.conv.load_state_dict(ours.heads[-1].state_dict())
    return theirs


@pytest.mark.parametrize("topology", [ISOTROPIC, ANISOTROPIC], ids=["isotropic", "anisotropic"])
def test_computes_what_monais_dynunet_computes(topology):
    torch.manual_seed(0)
    ours = UNet(3, 2, 3, **topology, deep_supervision=2).eval()
    for weight in ours.parameters():
        weight.data.normal_(0, 0.1)
    theirs = as_dynunet(ours, topology)
    image = torch.randn(2, 2, 16, 24, 8)
    assert torch.allclose(ours(image), theirs(image), atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_training_gives_one_output_a_scale_finest_first(dimensions):
    size = (32, 16, 8)[:dimensions]
    network = UNet(
        dimensions, 1, 2, (4, 8, 16, 16), ((3,) * dimensions,) * 4,
        ((1,) * dimensions, *((2,) * dimensions,) * 3), deep_supervision=2,
    )  # fmt: skip
    image = torch.randn(1, 1, *size)
    shapes = [tuple(output.shape) for output in network.train()(image)]
    assert shapes == [(1, 2, *size), (1, 2, *(n // 2 for n in size))]
    assert network.eval()(image).shape == (1, 2, *size)


def test_flat_kernels_do_not_mix_slices():
    network = UNet(3, 1, 2, (4, 8), ((3, 3, 1), (3, 3, 1)), ((1, 1, 1), (2, 2, 1))).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):  # the norm's mean is over all slices
            module.forward = lambda x: x
    image = torch.randn(1, 1, 8, 8, 5)
    changed = image.clone()
    changed[..., 2] += 1
    moved = (network(image) - network(changed)).abs().amax((0, 1, 2, 3))
    assert moved[2] > 0
    assert moved[[0, 1, 3, 4]].max() < 1e-5


def test_every_weight_is_trained():
    network = UNet(3, 1, 2, **ISOTROPIC, deep_supervision=2)
    sum(output.square().mean() for output in network(torch.randn(1, 1, 16, 16, 16))).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in network.parameters())


def test_regions_have_a_channel_each_and_labels_one_more(tiny_plan: Plan):
    regions = load_description("phantoms")
    plain = regions.model_copy(update={"regions": {}, "region_order": ()})
    assert build_network(tiny_plan, regions).heads[-1].out_channels == 2
    assert build_network(tiny_plan, plain).heads[-1].out_channels == 3
    logits = torch.randn(1, 3, 4, 4, 4)
    assert torch.allclose(to_probabilities(logits, plain).sum(1), torch.ones(1, 4, 4, 4))
    assert torch.equal(to_probabilities(logits[:, :2], regions), logits[:, :2].sigmoid())


@pytest.mark.parametrize(
    ("dimensions", "num_weights", "sums", "squares"),
    [
        (2, 7603, [1789.2300531], [3169.7031146]),
        (3, 51870, [-5486.7053144, 641.9026532], [19870.1823017, 3817.9434925]),
    ],
)
def test_a_seeded_default_network_starts_and_answers_as_it_always_did(dimensions, num_weights, sums, squares):
    """Sums over the outputs were stored before the network was built of parts: a run's seed keeps its meaning."""
    torch.manual_seed(7)
    flat, cube, unit = (3, 3, 1)[:dimensions], (3,) * dimensions, (1,) * dimensions
    network = UNet(
        dimensions, 2, 3, (4, 8, 16, 16)[: dimensions + 1], (flat, flat, *(cube,) * (dimensions - 1)),
        (unit, (2, 2, 1)[:dimensions], *((2,) * dimensions,) * (dimensions - 1)), deep_supervision=dimensions - 1,
    )  # fmt: skip
    image = torch.randn(2, 2, *(16, 24, 8)[:dimensions], generator=torch.Generator().manual_seed(3))
    outputs = [output.detach().double() for output in network(image)]
    assert sum(weight.numel() for weight in network.parameters()) == num_weights
    assert [float(output.sum()) for output in outputs] == pytest.approx(sums, rel=1e-4, abs=1e-2)
    assert [float(output.square().sum()) for output in outputs] == pytest.approx(squares, rel=1e-5)


@torch.no_grad()
def test_a_shrunken_image_joins_each_stage():
    """A stage sees the image's mean over its voxels: raise one channel there and the stage's output moves."""
    network = UNet(2, 1, 2, (4, 8, 8), ((3, 3),) * 3, ((1, 1), (2, 1), (2, 2)), multi_scale_input=True).eval()
    assert [stage[1][0].in_channels for stage in network.encoder] == [4, 9, 9]
    seen = []
    for stage in network.encoder:
        stage[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0][:, -1:]))
    image = torch.randn(1, 1, 16, 8)
    network(image)
    assert torch.allclose(seen[1], torch.nn.functional.avg_pool2d(image, (2, 1)))
    assert torch.allclose(seen[2], torch.nn.functional.avg_pool2d(image, (4, 2)), atol=1e-6)

"""The U-Net: shapes, and the very function of MONAI's DynUNet with the same weights."""

import pytest
import torch
from conftest import REPOSITORY
from monai.networks.nets import DynUNet

from medunet.networks.builder import build_network, to_probabilities
from medunet.networks.unet import UNet
from medunet.plans import Plan
from medunet.records import load_description

DESCRIPTIONS = REPOSITORY / "data_manifests"
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
    regions = load_description("phantoms", DESCRIPTIONS)
    plain = regions.model_copy(update={"regions": {}, "region_order": ()})
    assert build_network(tiny_plan, regions).heads[-1].out_channels == 2
    assert build_network(tiny_plan, plain).heads[-1].out_channels == 3
    logits = torch.randn(1, 3, 4, 4, 4)
    assert torch.allclose(to_probabilities(logits, plain).sum(1), torch.ones(1, 4, 4, 4))
    assert torch.equal(to_probabilities(logits[:, :2], regions), logits[:, :2].sigmoid())

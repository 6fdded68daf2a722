"""The 3D convolution whose weights' gradient is quick on AVX2: torch's own results, by oneDNN's own kernel."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from medunet.base.processor import read_processor
from medunet.networks import convolution
from medunet.networks.convolution import Convolution3d

SETTINGS = [
    ({"kernel_size": 3, "padding": 1}, True),
    ({"kernel_size": 3, "padding": 1, "stride": 2}, True),
    ({"kernel_size": (3, 3, 1), "padding": (1, 1, 0), "stride": (2, 1, 1), "bias": False}, True),
    ({"kernel_size": (1, 3, 3), "padding": (0, 1, 1)}, False),
    ({"kernel_size": 3}, False),
]


def gradients(module: nn.Module, image: torch.Tensor) -> list[torch.Tensor | None]:
    """Return the output and the gradients of image, weight and bias."""
    image = image.clone().requires_grad_()
    output = module(image)
    (output * torch.linspace(-1, 1, output.numel()).reshape(output.shape)).sum().backward()
    return [output, image.grad, module.weight.grad, None if module.bias is None else module.bias.grad]


@pytest.mark.parametrize(("options", "is_padded"), SETTINGS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_output_and_gradients_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, options: dict, is_padded: bool, channels_last: bool
) -> None:
    monkeypatch.setattr(convolution, "_is_avx2_only", lambda: True)
    torch.manual_seed(0)
    ours, theirs = Convolution3d(8, 16, **options), nn.Conv3d(8, 16, **options)
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(2, 8, 9, 7, 6)
    if channels_last:
        image = image.to(memory_format=torch.channels_last_3d)

    assert ("PaddedGradient" in str(ours(image).grad_fn)) is is_padded
    for mine, other in zip(gradients(ours, image), gradients(theirs, image), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-4)


def test_what_is_not_asked_for_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "_is_avx2_only", lambda: True)
    module, image = Convolution3d(8, 8, 3, padding=1), torch.randn(1, 8, 4, 4, 4)
    assert module.bias is not None
    module.bias.requires_grad_(False)
    module(image).sum().backward()  # the first layer's image needs no gradient
    assert module.weight.grad is not None
    assert module.bias.grad is None

    for parts in (module, Convolution3d(1, 8, 3, padding=1)):  # frozen; channels that no kernel takes at once
        parts.weight.requires_grad_(parts is not module)
        image = torch.randn(1, parts.in_channels, 4, 4, 4, requires_grad=True)
        assert "PaddedGradient" not in str(parts(image).grad_fn)
    with torch.no_grad():
        assert module(image.expand(1, 8, 4, 4, 4)).grad_fn is None


def test_half_precision_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "_is_avx2_only", lambda: True)
    module, image = Convolution3d(8, 8, 3, padding=1), torch.randn(1, 8, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(image).dtype == torch.bfloat16
        assert "PaddedGradient" not in str(module(image).grad_fn)


@pytest.mark.skipif("avx2" not in read_processor().instruction_sets, reason="this processor has no AVX2")
def test_on_avx2_no_gradient_falls_back_to_matrix_products() -> None:
    """oneDNN says by which kernel it computes; the process is limited to AVX2, whatever the processor has."""
    code = """
import torch
from medunet.networks.unet import UNet
network = UNet(3, 1, 2, (8, 16), ((3, 3, 3),) * 2, ((1, 1, 1), (2, 2, 2)), deep_supervision=1)
network(torch.randn(2, 1, 16, 16, 16))[0].sum().backward()
"""
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_VERBOSE": "profile_exec"}
    run = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | limits, capture_output=True, text=True, check=True
    )
    kernels = {
        row.split(",")[-2]: row
        for row in run.stdout.splitlines()
        if ",exec," in row and ",backward_weights," in row and "deconvolution" not in row
    }
    padded = [row for shape, row in kernels.items() if "kd3" in shape and "_ic1oc" not in shape]
    assert len(padded) >= 4, run.stdout
    assert all("jit:avx2" in row for row in padded), padded

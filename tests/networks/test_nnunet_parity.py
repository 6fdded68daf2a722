"""Our U-Nets against nnU-Net's own: same weights, same batch, same logits at every scale.

nnunet_outputs.npz holds what nnU-Net's networks (dynamic-network-architectures 0.4.4) answered, made in nnU-Net's own
environment by benchmarks/make_nnunet_outputs.py: weights and input in half precision, which they fill exactly.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from medunet.networks.unet import UNet

STORED = np.load(Path(__file__).with_name("nnunet_outputs.npz"))
NETWORKS = ("plain_3d", "plain_3d_anisotropic", "plain_2d", "residual_3d", "residual_2d")
# Parts by nnU-Net's names and by ours; within a part both keep their parameters in the order of computation.
PARTS = {
    "encoder.": "encoder.",
    "decoder.stages.": "decoder.",
    "decoder.transpconvs.": "upsamplers.",
    "decoder.seg_layers.": "heads.",
}


def stored_weights(network: str) -> dict[str, torch.Tensor]:
    """Return nnU-Net's parameters by its own names, in its order."""
    prefix = f"{network}/weight/"
    names = [name for name in STORED.files if name.startswith(prefix)]
    return {name.removeprefix(prefix): torch.from_numpy(STORED[name]).float() for name in names}


def fill(ours: UNet, weights: dict[str, torch.Tensor]) -> None:
    """Copy nnU-Net's parameters into ours, part by part in order; nothing may be left over on either side."""
    parameters = dict(ours.named_parameters())
    filled = 0
    for theirs, part in PARTS.items():
        given = [weight for name, weight in weights.items() if name.startswith(theirs)]
        wanted = [parameter for name, parameter in parameters.items() if name.startswith(part)]
        assert [tuple(parameter.shape) for parameter in wanted] == [tuple(weight.shape) for weight in given]
        with torch.no_grad():
            for parameter, weight in zip(wanted, given, strict=True):
                parameter.copy_(weight)
        filled += len(given)
    assert filled == len(weights) == len(parameters)


@pytest.mark.parametrize("network", NETWORKS)
def test_same_weights_give_nnunets_logits_at_every_scale(network: str):
    topology = json.loads(str(STORED[f"{network}/topology"]))
    ours = UNet(
        dimensions=len(topology["strides"][0]),
        num_inputs=topology["input_shape"][1],
        num_outputs=topology["num_outputs"],
        features=topology["features"],
        kernel_sizes=topology["kernel_sizes"],
        strides=topology["strides"],
        convolutions_per_stage=topology["convolutions"],
        deep_supervision=len(topology["features"]) - 1,
        encoder_blocks=topology.get("blocks", ()),
    )
    fill(ours, stored_weights(network))
    outputs = ours.train()(torch.from_numpy(STORED[f"{network}/input"]).float())
    assert len(outputs) == len(topology["features"]) - 1
    for scale, output in enumerate(outputs):
        expected = torch.from_numpy(STORED[f"{network}/output/{scale}"])
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)

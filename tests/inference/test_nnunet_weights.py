"""nnU-Net's weights by its own names, as weights of medunet's networks, for every order of its axes.

The reference is what nnU-Net's networks answered, see tests/networks/test_nnunet_parity.py.
"""

import json
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from medunet.base.errors import InputError
from medunet.inference.nnunet.checkpoint import convert_weights
from medunet.networks.unet import UNet

STORED = np.load(REPOSITORY / "tests" / "networks" / "nnunet_outputs.npz")
NETWORKS = ("plain_3d", "plain_3d_anisotropic", "plain_2d", "residual_3d", "residual_2d")


def stored_weights(network: str) -> dict[str, torch.Tensor]:
    """Return nnU-Net's state: its parameters, and some again under the second names that it has for them."""
    prefix = f"{network}/weight/"
    names = [name for name in STORED.files if name.startswith(prefix)]
    weights = {name.removeprefix(prefix): torch.from_numpy(STORED[name]).float() for name in names}
    twice = {f"decoder.{name}": weight for name, weight in weights.items() if name.startswith("encoder.")}
    return weights | twice


@pytest.mark.parametrize("network", NETWORKS)
def test_logits_are_nnunets_in_every_order_of_axes(network: str):
    topology = json.loads(str(STORED[f"{network}/topology"]))
    dimensions, blocks = len(topology["strides"][0]), topology.get("blocks", ())
    plan: Any = SimpleNamespace(
        dimensions=dimensions, features=topology["features"], encoder_blocks=blocks, deep_supervision=1
    )
    image = torch.from_numpy(STORED[f"{network}/input"]).float()
    expected = torch.from_numpy(STORED[f"{network}/output/0"])
    for permutation in permutations(range(dimensions)):
        weights = convert_weights(stored_weights(network), plan, permutation, "test")
        turned = {
            key: [[row[axis] for axis in permutation] for row in topology[key]]
            for key in ("kernel_sizes", "strides")
        }
        ours = UNet(
            dimensions,
            topology["input_shape"][1],
            topology["num_outputs"],
            topology["features"],
            **turned,
            convolutions_per_stage=topology["convolutions"],
            encoder_blocks=blocks,
        )
        ours.load_state_dict(weights)  # nothing is left over or missing
        axes = (0, 1, *(2 + axis for axis in permutation))
        with torch.no_grad():
            found = ours.eval()(image.permute(axes))
        torch.testing.assert_close(found, expected.permute(axes), rtol=0, atol=1e-5)


def test_unknown_weights_are_named():
    plan: Any = SimpleNamespace(dimensions=3, features=(4, 6, 8), encoder_blocks=(), deep_supervision=1)
    weights = stored_weights("plain_3d") | {"encoder.attention.weight": torch.zeros(3)}
    with pytest.raises(InputError, match=r"has 1 weights .* such as encoder\.attention\.weight"):
        convert_weights(weights, plan, (0, 1, 2), "test")

"""Store the outputs of nnU-Net's networks for fixed weights and one batch, for tests/networks/test_nnunet_parity.py.

PEER/bin/python benchmarks/make_nnunet_outputs.py tests/networks/nnunet_outputs.npz

Runs in nnU-Net's environment (see benchmarks/nnunet_peer.py). Weights and inputs are random numbers that are exact in
half precision, and are stored in it to save space. For each network the file contains `<network>/topology` (JSON),
`<network>/input`, `<network>/weight/<nnU-Net's name>` in nnU-Net's order, and `<network>/output/<i>`, the logits of
every decoder stage, finest first, in float32.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

ISOTROPIC_3D = {
    "features": (4, 6, 8),
    "kernel_sizes": ((3, 3, 3),) * 3,
    "strides": ((1, 1, 1), (2, 2, 2), (2, 2, 2)),
}
ANISOTROPIC_3D = {
    "features": (4, 6, 8),
    "kernel_sizes": ((3, 3, 1), (3, 3, 3), (3, 3, 3)),
    "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2)),
}
FLAT = {
    "features": (4, 6, 8, 8),
    "kernel_sizes": ((3, 3),) * 4,
    "strides": ((1, 1), (2, 2), (2, 2), (2, 1)),
}
NETWORKS: dict[str, dict[str, Any]] = {
    "plain_3d": {**ISOTROPIC_3D, "convolutions": 2, "input_shape": (2, 2, 16, 12, 8)},
    "plain_3d_anisotropic": {**ANISOTROPIC_3D, "convolutions": 2, "input_shape": (2, 1, 12, 16, 6)},
    "plain_2d": {**FLAT, "convolutions": 2, "input_shape": (2, 3, 32, 24)},
    "residual_3d": {
        **ANISOTROPIC_3D,
        "convolutions": 1,
        "blocks": (1, 3, 2),
        "input_shape": (2, 1, 12, 16, 6),
    },
    "residual_2d": {**FLAT, "convolutions": 1, "blocks": (1, 3, 2, 2), "input_shape": (2, 3, 32, 24)},
}
NUM_OUTPUTS = 3


def build(topology: dict[str, Any]) -> nn.Module:
    """Build an nnU-Net network with the settings of its planner: biases, affine instance norm, leaky ReLU."""
    is_flat = len(topology["strides"][0]) == 2
    depths = {"n_conv_per_stage_decoder": topology["convolutions"]}
    if "blocks" in topology:
        network, depths["n_blocks_per_stage"] = ResidualEncoderUNet, topology["blocks"]
    else:
        network, depths["n_conv_per_stage"] = PlainConvUNet, topology["convolutions"]
    return network(
        input_channels=topology["input_shape"][1],
        n_stages=len(topology["features"]),
        features_per_stage=topology["features"],
        conv_op=nn.Conv2d if is_flat else nn.Conv3d,
        kernel_sizes=topology["kernel_sizes"],
        strides=topology["strides"],
        num_classes=NUM_OUTPUTS,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d if is_flat else nn.InstanceNorm3d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
        **depths,
    )


def draw_weight(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a kernel scaled by its fan-in, or a bias or norm weight in -1..1, in half precision."""
    if len(shape) == 1:
        return rng.uniform(-1, 1, shape).astype(np.float16)
    return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float16)


def main() -> None:
    """Draw weights and inputs, run the networks, and store everything in one file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the .npz file to write")
    given = parser.parse_args()
    stored: dict[str, np.ndarray] = {}
    for index, (name, topology) in enumerate(NETWORKS.items()):
        rng = np.random.default_rng([2, index])
        network = build(topology)
        stored[f"{name}/topology"] = np.array(json.dumps({**topology, "num_outputs": NUM_OUTPUTS}))
        image = rng.normal(size=topology["input_shape"]).astype(np.float16)
        stored[f"{name}/input"] = image
        with torch.no_grad():
            for key, parameter in network.named_parameters():
                weight = draw_weight(tuple(parameter.shape), rng)
                stored[f"{name}/weight/{key}"] = weight
                parameter.copy_(torch.from_numpy(weight).float())
            outputs = network(torch.from_numpy(image).float())
        for stage, output in enumerate(outputs):
            stored[f"{name}/output/{stage}"] = output.numpy()
    np.savez_compressed(given.out, **stored)
    print(f"{given.out.name}: {given.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

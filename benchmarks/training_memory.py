"""Peak memory of a training step on the CPU compared with the planner's estimate.

python benchmarks/training_memory.py [--patch 40 56 40] [--batch 6] [--precision bf16]
"""

import argparse
import resource

import torch

from medunet.base.processor import read_processor
from medunet.compute.devices import autocast
from medunet.networks.unet import UNet
from medunet.planning.memory import NetworkShape, training_gb
from medunet.planning.topology import plan_topology, stage_features
from medunet.records.config import NetworkConfig


def peak_gb() -> float:
    """Return the peak resident memory of this process in GB (Linux reports KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Run two training steps and print the increase of the peak memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40))
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    given = parser.parse_args()
    topology = plan_topology(given.patch, (1.0, 1.0, 1.0))
    features = stage_features(len(topology.strides), 32, 320)
    supervised = max(1, len(features) - 2)
    network = UNet(
        3, 1, 3, features, topology.kernel_sizes, topology.strides, deep_supervision=supervised
    ).train()
    optimizer = torch.optim.AdamW(network.parameters())
    before = peak_gb()
    for _ in range(2):
        with autocast(torch.device("cpu"), given.precision):
            outputs = network(torch.randn(given.batch, 1, *topology.patch_size))
        sum(output.float().square().mean() for output in outputs).backward()
        optimizer.step()
        optimizer.zero_grad()
    shape = NetworkShape(
        network=NetworkConfig(norm="instance", upsampling="transposed"),
        topology=topology,
        features=features,
        convolutions=2,
        num_inputs=1,
        num_outputs=3,
        deep_supervision=supervised,
    )
    estimate = training_gb(shape, given.batch)
    measured = peak_gb() - before
    print(read_processor().describe())
    print(f"patch {topology.patch_size}, batch {given.batch}, {given.precision}: "
          f"measured {measured:.2f} GB, estimated {estimate:.2f} GB")  # fmt: skip


if __name__ == "__main__":
    main()

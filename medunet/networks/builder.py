"""From a plan and a description to a network, and what its outputs mean."""

import torch

from medunet.networks.unet import UNet
from medunet.plans import Plan
from medunet.records import Description


def build_network(plan: Plan, description: Description) -> UNet:
    """Build the plan's U-Net: a channel per region (sigmoid), or background and a channel per label (softmax)."""
    return UNet(
        dimensions=plan.dimensions,
        num_inputs=len(description.channels),
        num_outputs=len(description.targets) + (0 if description.regions else 1),
        features=plan.features,
        kernel_sizes=plan.kernel_sizes,
        strides=plan.strides,
        convolutions_per_stage=plan.convolutions_per_stage,
        deep_supervision=plan.deep_supervision,
    )


def to_probabilities(logits: torch.Tensor, description: Description, channel_axis: int = 1) -> torch.Tensor:
    """Return probabilities: sigmoid where regions are declared, else softmax over the channels."""
    return logits.sigmoid() if description.regions else logits.softmax(channel_axis)

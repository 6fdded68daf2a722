"""Build a network from a plan and a dataset description, and convert its outputs to probabilities."""

import torch
from torch import nn

from medunet.base.errors import InputError
from medunet.networks.monai_networks import MonaiNetwork, build_monai_network
from medunet.networks.unet import UNet
from medunet.planning.architectures import ARCHITECTURES
from medunet.records.description import Description
from medunet.records.plan import Plan, count_outputs, plan_inputs


def build_network(plan: Plan, description: Description) -> nn.Module:
    """Build the plan's network: one output per region (sigmoid), or background and one output per label (softmax).

    In training mode every network returns a list of logits, finest first; in evaluation mode only the finest.
    """
    architecture = ARCHITECTURES[plan.network.name]
    num_inputs = plan_inputs(plan, description)
    num_outputs = count_outputs(description)
    if not architecture.own:
        return build_monai_network(plan, num_inputs, num_outputs)
    assert plan.network.norm != "auto"
    assert plan.network.upsampling != "auto"
    return UNet(
        dimensions=plan.dimensions,
        num_inputs=num_inputs,
        num_outputs=num_outputs,
        features=plan.features,
        kernel_sizes=plan.kernel_sizes,
        strides=plan.strides,
        convolutions_per_stage=plan.convolutions_per_stage,
        deep_supervision=plan.deep_supervision,
        encoder_blocks=plan.encoder_blocks,
        norm=plan.network.norm,
        activation="relu" if architecture.textbook else "leaky_relu",
        downsampling="max_pool" if architecture.textbook else "strided",
        upsampling=plan.network.upsampling,
        dropout=plan.network.dropout,
        padded=plan.padded,
        multi_scale_input=plan.network.multi_scale_input,
    )


def encoder_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a network's encoder, for freezing.

    Raises:
        InputError: the network has no separate encoder.
    """
    if isinstance(network, UNet):
        return list(network.encoder.parameters())
    if isinstance(network, MonaiNetwork):
        return list(network.encoder_parameters())
    raise InputError(
        f"{type(network).__name__} has no encoder that can be frozen",
        where="training.freeze_encoder",
        hint=f"Choose one of planning.network.name {', '.join(ARCHITECTURES)}.",
    )


def to_probabilities(logits: torch.Tensor, description: Description, channel_axis: int = 1) -> torch.Tensor:
    """Return probabilities: sigmoid if the dataset has regions, otherwise softmax over the channels."""
    return logits.sigmoid() if description.regions else logits.softmax(channel_axis)

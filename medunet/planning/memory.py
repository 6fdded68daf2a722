"""Estimate a network's number of weights and the memory of a training step without building the network.

Sizes are in voxels, in axis order; memory in GB of 1e9 bytes.
"""

import math
from dataclasses import dataclass

import numpy as np

from medunet.planning.architectures import ARCHITECTURES, Architecture
from medunet.planning.topology import Topology
from medunet.records.config import NetworkConfig
from medunet.records.description import Description
from medunet.records.plan import Plan, count_outputs, plan_inputs

_BYTES_PER_WEIGHT = 16  # weight, gradient, and two moments in float32
_SWIN_WEIGHTS = {3: 80, 2: 32}  # of SwinUNETR, per squared width summed over the stages; measured
_MEDNEXT_WEIGHTS = 16


@dataclass(frozen=True)
class NetworkShape:
    """Numbers that determine a network's weights and memory; `network` has no "auto" values."""

    network: NetworkConfig
    topology: Topology
    features: tuple[int, ...]
    convolutions: int
    num_inputs: int
    num_outputs: int
    deep_supervision: int
    padded: bool = True

    @classmethod
    def of_plan(cls, plan: Plan, description: Description) -> "NetworkShape":
        """Return the shape of a plan's network; the plan may have been edited by hand."""
        return cls(
            network=plan.network,
            topology=Topology(plan.kernel_sizes, plan.strides, plan.patch_size, ()),
            features=plan.features,
            convolutions=plan.convolutions_per_stage,
            num_inputs=plan_inputs(plan, description),
            num_outputs=count_outputs(description),
            deep_supervision=plan.deep_supervision,
            padded=plan.padded,
        )

    @property
    def architecture(self) -> Architecture:
        """Defaults and options of the network."""
        return ARCHITECTURES[self.network.name]

    @property
    def encoder_blocks(self) -> tuple[int, ...]:
        """Number of residual blocks of each stage; empty for a plain network."""
        return self.architecture.encoder_blocks[: len(self.features)]


def training_gb(shape: NetworkShape, batch_size: int, *, feature_factor: float = 1.0) -> float:
    """Estimate the memory of a training step in GB: feature maps of the batch, weights, gradients and moments.

    `bytes_per_feature` holds for half precision on a GPU; otherwise it is multiplied by `feature_factor`.
    """
    elements = num_features(shape, num_heads=shape.deep_supervision) * batch_size
    feature_bytes = elements * shape.architecture.bytes_per_feature * feature_factor
    return (feature_bytes + num_weights(shape) * _BYTES_PER_WEIGHT) / 1e9


def planned_gb(shape: NetworkShape, batch_size: int) -> float:
    """Return the memory in GB that the choice of the patch is based on; for nnU-Net's networks its own measure.

    nnU-Net counts feature maps only; using its measure gives the same patches. The actual memory of a step is
    `training_gb`.
    """
    per_gb = shape.architecture.features_per_gb
    if per_gb is None:
        return training_gb(shape, batch_size)
    return num_features(shape) * batch_size / per_gb[len(shape.topology.patch_size)]


def num_features(shape: NetworkShape, num_heads: int = 1) -> float:
    """Count the elements of one patch's feature maps as nnU-Net does: each convolution's and upsampling's output.

    `num_heads` is the number of deep-supervision outputs that are counted, finest first; nnU-Net plans with one.
    MONAI's networks are counted as a plain U-Net of the same widths; their `bytes_per_feature` corrects for that.
    """
    last = len(shape.features) - 1
    residual = shape.encoder_blocks if shape.architecture.own else ()
    size, elements = np.array(shape.topology.patch_size, dtype=np.float64), 0.0
    for stage, (width, stride) in enumerate(zip(shape.features, shape.topology.strides, strict=True)):
        size = size / stride
        maps = (2 * residual[stage] + 1 if residual else shape.convolutions) * width
        if shape.architecture.textbook and stage > 0:
            maps += shape.features[stage - 1]  # the max-pooling's output
        elements += maps * size.prod()
        size = size - _unpadded_loss(shape, stage)
    for stage in range(last - 1, -1, -1):
        size = size * shape.topology.strides[stage + 1]
        width = shape.features[stage]
        maps = (shape.convolutions + 1) * width + (shape.num_outputs if stage < num_heads else 0)
        if shape.network.upsampling == "interpolate":
            maps += shape.features[stage + 1]
        elements += maps * size.prod()
        size = size - _unpadded_loss(shape, stage)
    return elements


def _unpadded_loss(shape: NetworkShape, stage: int) -> np.ndarray:
    """Return the voxels that an unpadded stage removes along each axis, both sides together."""
    kernel = np.array(shape.topology.kernel_sizes[stage])
    return np.zeros_like(kernel) if shape.padded else shape.convolutions * (kernel - 1)


def num_weights(shape: NetworkShape) -> int:
    """Count the trainable weights: exactly for medunet's U-Nets, approximately for MONAI's networks."""
    squares, num_axes = sum(width**2 for width in shape.features), len(shape.topology.patch_size)
    if shape.network.name == "swin_unetr":
        return _SWIN_WEIGHTS[num_axes] * squares
    if shape.network.name == "mednext":
        return _MEDNEXT_WEIGHTS * squares
    if shape.network.name == "segresnet_ds":
        last = len(shape.features) - 1
        return 3**num_axes * sum(
            (2 * blocks + (6 if stage < last else 0)) * width**2
            for stage, (blocks, width) in enumerate(zip(shape.encoder_blocks, shape.features, strict=True))
        )
    return sum(
        _encoder_weights(shape, stage) + _decoder_weights(shape, stage)
        for stage in range(len(shape.features))
    )


def _block_weights(shape: NetworkShape, stage: int, num_inputs: int) -> int:
    """Count the weights of one convolution with its bias and norm."""
    width = shape.features[stage]
    per_channel = 1 if shape.network.norm == "none" else 3
    return (math.prod(shape.topology.kernel_sizes[stage]) * num_inputs + per_channel) * width


def _encoder_weights(shape: NetworkShape, stage: int) -> int:
    width, total = shape.features[stage], 0
    num_inputs = shape.features[stage - 1] if stage else shape.num_inputs
    residual = shape.encoder_blocks
    if residual and stage == 0:  # the stem
        total, num_inputs = _block_weights(shape, stage, num_inputs), width
    image_block = 0 if shape.architecture.textbook else 1  # the block that gets the multi-scale input
    for number in range(residual[stage] if residual else shape.convolutions):
        if shape.network.multi_scale_input and stage > 0 and number == image_block:
            num_inputs += shape.num_inputs
        total += _block_weights(shape, stage, num_inputs)
        if residual:
            total += _block_weights(shape, stage, width)
            if num_inputs != width:  # the shortcut's projection, without bias
                total += (num_inputs + (0 if shape.network.norm == "none" else 2)) * width
        num_inputs = width
    return total


def _decoder_weights(shape: NetworkShape, stage: int) -> int:
    if stage == len(shape.features) - 1:
        return 0
    width, below = shape.features[stage], shape.features[stage + 1]
    is_transposed = shape.network.upsampling == "transposed"
    taps = math.prod(
        shape.topology.strides[stage + 1] if is_transposed else shape.topology.kernel_sizes[stage]
    )
    total = (taps * below + 1) * width
    total += _block_weights(shape, stage, 2 * width)
    total += (shape.convolutions - 1) * _block_weights(shape, stage, width)
    if stage < shape.deep_supervision:
        total += shape.num_outputs * (width + 1)
    return total

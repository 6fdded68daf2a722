"""Optimiser, learning rate schedule, and exponential moving average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from medunet.records.config import TrainingConfig

_Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]
_POLY_POWER = 0.9  # nnU-Net's


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Return Adam, AdamW, or SGD with Nesterov momentum 0.99 as in nnU-Net, for the trainable parameters."""
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(trainable, rate, weight_decay=decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(trainable, rate, weight_decay=decay)
    return torch.optim.SGD(trainable, rate, momentum=0.99, nesterov=True, weight_decay=decay)


def learning_rate(config: TrainingConfig, progress: float, step: int) -> float:
    """Return the learning rate at a step, where `progress` is the finished share of training (0 to 1).

    The schedule is polynomial decay with power 0.9, cosine decay or constant, with a linear warm-up over
    `warmup_steps`.
    """
    decay = {
        "poly": (1 - progress) ** _POLY_POWER,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "constant": 1.0,
    }[config.schedule]
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * decay * warmup


def make_ema(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a network's weights, with a decay that rises to `decay`.

    After n steps the decay is at most (1 + n) / (10 + n), as in TensorFlow's ExponentialMovingAverage with
    `num_updates`, so that the random initial weights are forgotten quickly.
    """

    @torch.no_grad()
    def update(averages: _Tensors, weights: _Tensors, count: torch.Tensor | int) -> None:
        current_decay = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(averages), list(weights), 1 - current_decay)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=False)
    return average.requires_grad_(False)

"""How weights move: the optimiser, the learning rate at each moment, and the running average of the weights."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from medunet.records.config import TrainingConfig

_Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]
_POLY_POWER = 0.9  # nnU-Net's


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Return Adam, AdamW, or SGD with Nesterov momentum 0.99 as nnU-Net, over the parameters that learn."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(learning, rate, weight_decay=decay)
    if config.optimizer == "adam":
        return torch.optim.Adam(learning, rate, weight_decay=decay)
    return torch.optim.SGD(learning, rate, momentum=0.99, nesterov=True, weight_decay=decay)


def learning_rate(config: TrainingConfig, progress: float, step: int) -> float:
    """Return the learning rate at a step, `progress` (0 to 1) into training.

    Polynomial decay of power 0.9, half a cosine, or constant; over the first `warmup_steps` it also rises linearly.
    """
    decay = {
        "poly": (1 - progress) ** _POLY_POWER,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "constant": 1.0,
    }[config.schedule]
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * decay * warmup


def average_of(network: nn.Module, decay: float) -> AveragedModel:
    """Return an exponential moving average of a network's weights, its decay rising to `decay` as steps are seen.

    The rise, (1 + n) / (10 + n) after n steps, is TensorFlow's ExponentialMovingAverage with `num_updates`: the
    random first weights are forgotten at once.
    """

    @torch.no_grad()
    def update(averages: _Tensors, weights: _Tensors, count: torch.Tensor | int) -> None:
        kept = min(decay, (1 + int(count)) / (10 + int(count)))
        torch._foreach_lerp_(list(averages), list(weights), 1 - kept)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=False)
    return average.requires_grad_(False)

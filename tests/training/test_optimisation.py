"""The learning rate over a training, and the running average of the weights."""

import pytest
import torch
from torch import nn

from medunet.records.config import TrainingConfig
from medunet.training.optimisation import learning_rate, make_ema, make_optimizer


@pytest.mark.parametrize(
    ("schedule", "progress", "expected"),
    [("poly", 0.0, 0.1), ("poly", 0.5, 0.1 * 0.5**0.9), ("poly", 1.0, 0.0), ("cosine", 0.5, 0.05),
     ("cosine", 1.0, 0.0), ("constant", 0.9, 0.1)],
)  # fmt: skip
def test_schedules(schedule: str, progress: float, expected: float):
    config = TrainingConfig(learning_rate=0.1, schedule=schedule)
    assert learning_rate(config, progress, step=100) == pytest.approx(expected)


def test_warm_up_rises_from_the_first_step():
    config = TrainingConfig(learning_rate=0.1, schedule="constant", warmup_steps=4)
    rates = [learning_rate(config, 0.0, step) for step in range(6)]
    assert rates == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimizers_move_only_what_learns(name: str, kind: type):
    layer = nn.Linear(2, 2)
    layer.bias.requires_grad_(False)
    optimizer = make_optimizer(layer.parameters(), TrainingConfig(optimizer=name))
    assert type(optimizer) is kind
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(layer.weight)]
    if name == "sgd":
        assert optimizer.defaults["nesterov"]
        assert optimizer.defaults["momentum"] == 0.99


def test_the_average_follows_its_recurrence_and_learns_nothing():
    layer = nn.Linear(1, 1, bias=False)
    average = make_ema(layer, 0.9)
    expected = 0.0
    for step, value in enumerate([1.0, 2.0, 4.0, 8.0]):
        nn.init.constant_(layer.weight, value)
        average.update_parameters(layer)
        kept = min(0.9, (1 + step) / (10 + step))
        expected = value if step == 0 else kept * expected + (1 - kept) * value
        assert average.module.weight.item() == pytest.approx(expected)
    assert not any(parameter.requires_grad for parameter in average.parameters())

"""A search for better settings whose trainings only say how good their settings are."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import lightning as L
import pandas as pd

from medunet.records.config import Config, change_config
from medunet.training.module import SegmentationModule
from medunet.training.tuning import search
from medunet.training.tuning_space import check_space

RATES = "training.learning_rate: {low: 1e-4, high: 1e-1, log: true}"
SETTINGS = f"{RATES}, planning.batch_size: {{low: 2, high: 8, integer: true}}, training.loss: [dice, auto]"


def configure(space: str, *changes: str) -> Config:
    """Return a configuration that searches a space, written in YAML's short form."""
    return change_config({"dataset": "x"}, [f"tuning.space={{{space}}}", *changes], "test")


def run_epochs(callbacks: Sequence[L.Callback], dice: Sequence[float]) -> float:
    """Do as Lightning does: tell the callbacks after every epoch, until they stop the training."""
    module, trainer = Mock(spec=SegmentationModule), Mock(should_stop=False)
    module.history = []
    for epoch, value in enumerate(dice):
        module.history.append({"epoch": epoch, "dice": value, "minutes": (epoch + 1) / 4})
        for callback in callbacks:
            callback.on_train_epoch_end(trainer, module)
        if trainer.should_stop:
            break
    return max(row["dice"] for row in module.history)


class Training:
    """A training that remembers what it was asked for; by default the better, the nearer the rate is to 0.01."""

    def __init__(self, dice: Callable[[Config], float] | None = None) -> None:
        self.names: list[str] = []
        self.configs: list[Config] = []
        self.dice = dice or (lambda config: 1 - abs(math.log10(config.training.learning_rate) + 2) / 4)

    def __call__(self, name: str, changes: list[str], callbacks: Sequence[L.Callback]) -> float:
        config = change_config({"dataset": "x"}, changes, "trial")
        self.names.append(name)
        self.configs.append(config)
        return run_epochs(callbacks, [0.5 * self.dice(config), self.dice(config)])


def go(config: Config, folder: Path, train: Any, **options: Any) -> pd.DataFrame:
    """Check the space and search it."""
    check_space(config)
    return search(config, folder, train, **{"study_name": "test", **options})

"""Search space of a hyperparameter search: its check before the first trial, and drawing of a trial's settings."""

import json
from collections.abc import Mapping
from typing import Any

import optuna

from medunet.base.errors import InputError
from medunet.records.config import Config, TuningRange, change_config

Space = Mapping[str, list[Any] | TuningRange]
_SAME_FOR_ALL = (  # otherwise scores could not be compared
    "training.fold", "training.seeds", "training.member", "training.init_from",
)  # fmt: skip
_WITHIN = 0.382  # of a range: a fractional number, as most drawn numbers


def check_space(config: Config) -> None:
    """Check the search space with every value of its lists and the ends of its ranges.

    Raises:
        InputError: the space cannot be searched; lists every fault.
    """
    tuning, plain = config.tuning, config.to_dict()
    faults = [] if tuning.space else ["there is nothing to search"]
    if config.training.fold in ("all", "each"):
        faults.append(
            f"training.fold {config.training.fold}: trials are compared on one fold's held-out cases"
        )
    for key, choices in tuning.space.items():
        if not key.startswith(("planning.", "training.")):
            faults.append(f"'{key}' is not a key of planning or training")
        elif key in _SAME_FOR_ALL:
            faults.append(f"'{key}' must be the same for all trials")
        elif isinstance(choices, TuningRange) and tuning.sampler == "grid":
            faults.append(f"'{key}' is a range, but a grid needs a list of values")
        else:
            texts = _samples(choices)
            if not texts or len({*texts}) < len(texts):
                faults.append(f"'{key}' has no values, or a value twice")
            for text in dict.fromkeys(texts):
                try:
                    change_config(plain, [f"{key}={text}"], "")
                except InputError as error:
                    faults.append(f"{key}={text} ({error.what})")
    if faults:
        raise InputError(
            "; ".join(faults),
            where="tuning.space",
            hint="Write e.g. training.learning_rate: {low: 1e-4, high: 1e-2, log: true} or "
            "training.loss: [dice, auto]; whole numbers need `integer: true`.",
        )


def suggest(trial: optuna.Trial, space: Space) -> list[str]:
    """Draw a trial's settings; return them as configuration changes, `key=value`."""
    for key, choices in space.items():
        if isinstance(choices, list):
            trial.suggest_categorical(key, [_text(choice) for choice in choices])
        elif choices.integer:
            trial.suggest_int(key, int(choices.low), int(choices.high), log=choices.log)
        else:
            trial.suggest_float(key, choices.low, choices.high, log=choices.log)
    return as_changes(trial.params)


def as_changes(parameters: Mapping[str, Any]) -> list[str]:
    """Return a trial's settings as configuration changes, `key=value`."""
    return [f"{key}={value}" for key, value in parameters.items()]


def to_table_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial's settings as table values: numbers and text as they are, lists and null as JSON."""
    values = {}
    for key, value in parameters.items():
        given = json.loads(value) if isinstance(value, str) else value
        values[key] = given if isinstance(given, str | bool | int | float) else value
    return values


def make_grid(space: Space) -> dict[str, list[str]]:
    """Return a space of lists as Optuna's grid, with each value as JSON, so that values may be lists."""
    return {
        key: [_text(choice) for choice in choices]
        for key, choices in space.items()
        if isinstance(choices, list)
    }


def _text(choice: Any) -> str:
    return json.dumps(choice, default=str)


def _samples(choices: list[Any] | TuningRange) -> list[str]:
    """Return the values of a list, or both ends of a range and a number between them."""
    if isinstance(choices, list):
        return [_text(choice) for choice in choices]
    if choices.integer:
        return [str(int(choices.low)), str(int(choices.high))]
    return [
        str(end) for end in (choices.low, choices.low + _WITHIN * (choices.high - choices.low), choices.high)
    ]

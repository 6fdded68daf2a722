"""Charts of the volumes of a cohort: Bland and Altman's plot, and Dice against the reference's volume."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medunet.reporting.page import number_text
from medunet.reporting.scores import SIZE_UNITS, Unit
from medunet.reporting.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    CaseLink,
    Chart,
    Dot,
    Figure,
    range_of,
    said_status,
)

_LIMITS = 1.96  # standard deviations: 95% of normally distributed differences


@dataclass(frozen=True)
class Limits:
    """Bland and Altman's bias (mean of predicted less reference) and 95% limits of agreement; NaN if undefined."""

    bias: float
    low: float
    high: float
    num_cases: int


def limits_of_agreement(differences: NDArray[np.float64]) -> Limits:
    """Return bias and limits of agreement of differences `(cases,)`: the mean, and 1.96 standard deviations."""
    if len(differences) == 0:
        return Limits(math.nan, math.nan, math.nan, 0)
    bias = float(differences.mean())
    if len(differences) < 2:
        return Limits(bias, math.nan, math.nan, 1)
    spread = _LIMITS * float(differences.std(ddof=1))
    return Limits(bias, bias - spread, bias + spread, len(differences))


def draw_volumes(
    scores: pd.DataFrame, plotted: Sequence[str], links: Mapping[str, CaseLink], unit: Unit, most: int
) -> Figure:
    """Draw Bland and Altman's plot of each target: the difference of the volumes against their mean."""
    charts = []
    size, scale = SIZE_UNITS[unit]
    for label in plotted:
        known = _known_volumes(scores, label, scale)
        if known.empty:
            continue
        differences = (known["predicted"] - known["reference"]).to_numpy(np.float64)
        means = ((known["predicted"] + known["reference"]) / 2).to_numpy(np.float64)
        limits = limits_of_agreement(differences)
        lines = [value for value in (limits.bias, limits.low, limits.high) if not math.isnan(value)]
        chart = Chart(WIDTH, HEIGHT, f"Bland–Altman plot of the volumes of {label}")
        x = Axis(0, float(means.max()) * 1.05 or 1.0, LEFT, WIDTH - RIGHT)
        y = Axis(*range_of([*differences, *lines, 0.0]), HEIGHT - BOTTOM, TOP)
        chart.x_axis(x, TOP, HEIGHT - BOTTOM, f"mean of both, {size}")
        chart.y_axis(y, LEFT, WIDTH - RIGHT, f"predicted − reference, {size}")
        chart.text(WIDTH - RIGHT, TOP - 8, label, "name", anchor="end")
        chart.line(LEFT, y.at(0), WIDTH - RIGHT, y.at(0), "zero")
        decimals = 2 if unit == "mm" else 0
        dots = [
            Dot(
                case,
                x.at(mean),
                y.at(difference),
                f"{case}: {label}, predicted {number_text(predicted, decimals)}, "
                f"reference {number_text(reference, decimals)} {size}{said_status(status)}",
                "dot" if status == "ok" else "cross",
                is_outlying=not limits.low <= difference <= limits.high,
            )
            for case, mean, difference, predicted, reference, status in zip(
                known["case"],
                means,
                differences,
                known["predicted"],
                known["reference"],
                known["status"],
                strict=True,
            )
        ]
        chart.dots(dots, links, most)
        for name, value in (("bias", limits.bias), ("−1.96 SD", limits.low), ("+1.96 SD", limits.high)):
            if math.isnan(value):
                continue
            chart.line(LEFT, y.at(value), WIDTH - RIGHT, y.at(value), "bias" if name == "bias" else "limit")
            text = f"{name} {number_text(value, decimals, signed=True)}"
            chart.text(WIDTH - RIGHT - 3, y.at(value) - 4, text, "value", anchor="end")
        charts.append(chart.svg())
    caption = (
        "Bland–Altman: the bias is the mean difference; 95% of differences lie within the limits, ± 1.96 standard "
        "deviations, if they are normally distributed. Cases without a mask, and those empty in both, have no dot."
    )
    return Figure("Volumes" if unit == "mm" else "Areas", tuple(charts), caption)


def draw_dice_by_volume(
    scores: pd.DataFrame, plotted: Sequence[str], links: Mapping[str, CaseLink], unit: Unit, most: int
) -> Figure:
    """Draw the Dice of each target against the volume of its reference."""
    charts = []
    size, scale = SIZE_UNITS[unit]
    decimals = 2 if unit == "mm" else 0
    for label in plotted:
        known = _known_volumes(scores, label, scale).dropna(subset=["dice"])
        positive = known.loc[known["reference"] > 0, "reference"]
        if positive.empty:
            continue
        smallest, largest = float(positive.min()), float(positive.max())
        is_log = largest > 10 * smallest
        low = smallest / 1.3 if is_log else 0.0
        chart = Chart(WIDTH, HEIGHT, f"Dice of {label} against its reference volume")
        x = Axis(low, largest * (1.3 if is_log else 1.05), LEFT, WIDTH - RIGHT, is_log)
        y = Axis(-0.02, 1.02, HEIGHT - BOTTOM, TOP)
        chart.x_axis(x, TOP, HEIGHT - BOTTOM, f"reference, {size}{' (logarithmic)' if is_log else ''}")
        chart.y_axis(y, LEFT, WIDTH - RIGHT, "Dice")
        chart.text(WIDTH - RIGHT, TOP - 8, label, "name", anchor="end")
        dots = [
            Dot(
                case,
                x.at(reference),
                y.at(dice),
                f"{case}: {label}, Dice {number_text(dice, 3)}, "
                f"reference {number_text(reference, decimals)} {size}{said_status(status)}",
                "dot" if status == "ok" else "cross",
            )
            for case, reference, dice, status in zip(
                known["case"], known["reference"], known["dice"], known["status"], strict=True
            )
        ]
        chart.dots(dots, links, most)
        charts.append(chart.svg())
    what = "volume" if unit == "mm" else "area"
    caption = f"Dice against the reference's {what}; crosses at the left edge are invented: their reference is empty."
    return Figure(f"Dice against {what}", tuple(charts), caption)


def _known_volumes(scores: pd.DataFrame, label: str, scale: float) -> pd.DataFrame:
    """Return a target's rows with both volumes, as `reference` and `predicted`, without those empty in both."""
    own = scores[(scores["label"] == label) & (scores["status"] != "both_empty")]
    own = own.dropna(subset=["reference_ml", "predicted_ml"])
    return own.assign(reference=own["reference_ml"] * scale, predicted=own["predicted_ml"] * scale)

"""Plots of a cohort: the distribution of Dice, and predicted against reference volumes."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from medunet.reporting.plot_style import DOT, GREY, INK, style_axes
from medunet.reporting.scores import SIZE_UNITS, Unit

MAX_TARGETS = 12  # in a plot; the report's table has all


def draw_dice(scores: pd.DataFrame) -> Figure | None:
    """Draw the Dice of every case by target, with box plots; return None if no Dice is defined."""
    groups = {
        label: scores.loc[(scores["label"] == label) & scores["dice"].notna(), "dice"].to_numpy()
        for label in scores["label"].drop_duplicates()[:MAX_TARGETS]
    }
    groups = {label: values for label, values in groups.items() if len(values)}
    if not groups:
        return None
    figure = Figure(figsize=(6.6, 0.75 + 0.62 * len(groups)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    generator = np.random.default_rng(0)  # jitter, so that equal dots stay visible
    for position, values in enumerate(groups.values()):
        axes.scatter(
            values,
            position + generator.uniform(-0.16, 0.16, len(values)),
            s=16,
            color=DOT,
            alpha=0.65,
            linewidths=0,
            zorder=3,
        )
    axes.boxplot(
        list(groups.values()),
        positions=range(len(groups)),
        orientation="horizontal",
        widths=0.52,
        showfliers=False,
        boxprops={"color": GREY},
        whiskerprops={"color": GREY},
        capprops={"color": GREY},
        medianprops={"color": INK, "linewidth": 1.6},
    )
    axes.set_yticks(range(len(groups)), list(groups))
    axes.invert_yaxis()
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel("Dice, one dot for each case")
    style_axes(axes)
    return figure


def draw_volumes(scores: pd.DataFrame, unit: Unit = "mm") -> Figure | None:
    """Draw predicted against reference volumes in ml (areas in pixels) by target; None without volumes."""
    if not {"reference_ml", "predicted_ml"} <= set(scores.columns):
        return None
    known = scores.dropna(subset=["reference_ml", "predicted_ml"])
    size_unit, scale = SIZE_UNITS[unit]
    known = known.assign(reference=known["reference_ml"] * scale, predicted=known["predicted_ml"] * scale)
    labels = list(known["label"].drop_duplicates()[:MAX_TARGETS])
    if not labels:
        return None
    num_columns = min(3, len(labels))
    num_rows = math.ceil(len(labels) / num_columns)
    figure = Figure(figsize=(2.75 * num_columns, 2.75 * num_rows), dpi=150, layout="constrained")
    for index, label in enumerate(labels):
        axes = figure.add_subplot(num_rows, num_columns, index + 1)
        cases = known[known["label"] == label]
        largest = max(float(cases[["reference", "predicted"]].max().max()), 1e-3) * 1.08
        axes.plot([0, largest], [0, largest], color=GREY, linewidth=1)
        axes.scatter(
            cases["reference"], cases["predicted"], s=16, color=DOT, alpha=0.65, linewidths=0, zorder=3
        )
        axes.set(xlim=(-0.03 * largest, largest), ylim=(-0.03 * largest, largest), aspect="equal")
        axes.locator_params(nbins=5)
        if unit == "px":  # such as 25k, since long numbers would overlap
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_title(label, fontsize=10, color=INK)
        axes.set_xlabel(f"reference {size_unit}")
        if index % num_columns == 0:
            axes.set_ylabel(f"predicted {size_unit}")
        style_axes(axes)
    return figure

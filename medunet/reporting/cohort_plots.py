"""Plots over a cohort: how Dice is distributed, and how well volumes agree."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from medunet.reporting.plot_style import DOT, GREY, INK, tidy
from medunet.reporting.scores import SIZE, Unit

MOST_TARGETS = 12  # shown in a plot; beyond, the table says it better


def draw_dice(scores: pd.DataFrame) -> Figure | None:
    """Draw every case's Dice by target, over a box of the quartiles; None where no Dice is defined."""
    groups = {
        label: scores.loc[(scores["label"] == label) & scores["dice"].notna(), "dice"].to_numpy()
        for label in scores["label"].drop_duplicates()[:MOST_TARGETS]
    }
    groups = {label: values for label, values in groups.items() if len(values)}
    if not groups:
        return None
    figure = Figure(figsize=(6.6, 0.75 + 0.62 * len(groups)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    generator = np.random.default_rng(0)  # spreads the dots, so that equal ones stay visible
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
    tidy(axes)
    return figure


def draw_volumes(scores: pd.DataFrame, unit: Unit = "mm") -> Figure | None:
    """Draw predicted against reference volume in ml (area in pixels), one panel for each target; None without."""
    if not {"reference_ml", "predicted_ml"} <= set(scores.columns):
        return None
    known = scores.dropna(subset=["reference_ml", "predicted_ml"])
    size_unit, scale = SIZE[unit]
    known = known.assign(reference=known["reference_ml"] * scale, predicted=known["predicted_ml"] * scale)
    labels = list(known["label"].drop_duplicates()[:MOST_TARGETS])
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
        if unit == "px":  # 25k, for numbers that would run into each other
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_title(label, fontsize=10, color=INK)
        axes.set_xlabel(f"reference {size_unit}")
        if index % num_columns == 0:
            axes.set_ylabel(f"predicted {size_unit}")
        tidy(axes)
    return figure

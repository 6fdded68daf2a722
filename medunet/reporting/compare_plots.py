"""Plots that compare methods, and readers of one case. Colours suit all kinds of colour vision."""

import itertools
import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from medunet.drawing.palette import FALSE_POSITIVE
from medunet.reporting.plot_style import DOT, GREY, INK, style_axes
from medunet.scoring.agreement import ReaderPair, TargetAgreement
from medunet.scoring.columns import higher_is_better
from medunet.scoring.compare import Comparison
from medunet.scoring.paired import PairDifference

_MAX_TARGETS = 12  # in a plot; comparison.csv has all
_MAX_ROWS = 24  # in a panel; comparison.csv has all
_MAX_NAME = 22  # characters of a tick label
_COLUMNS_OF_MATRICES = 3
_CHARACTER_IN = 0.078  # width of a character of a tick label in inches
_CELL_IN = 0.62  # size of a cell of a matrix in inches


def draw_comparison(comparison: Comparison) -> Figure | None:
    """Draw the differences between methods case by case, with the interval of the mean, and the stability of ranks.

    Differences are those of Dice and the robust Hausdorff distance, ranks those by Dice. Returns None if there are no
    differences.
    """
    labels = comparison.labels[:_MAX_TARGETS]
    shown = comparison.main_metrics[:2]
    panels = [
        [pair for pair in comparison.pairs if pair.metric == metric and pair.label in labels]
        for metric in shown
    ]
    panels = [pairs for pairs in panels if pairs]
    if not panels:
        return None
    letters = comparison.letters
    num_ranked = len(labels) * len(letters)
    is_whole = len(labels) == len(comparison.labels) and max(num_ranked, *map(len, panels)) <= _MAX_ROWS
    num_ranked, panels = min(num_ranked, _MAX_ROWS), [pairs[:_MAX_ROWS] for pairs in panels]
    num_rows = max(num_ranked, *(len(pairs) for pairs in panels))
    longest = max(len(_short(label)) for label in labels) + 5
    width = (2.9 + _CHARACTER_IN * longest) * (len(panels) + 1)
    names = "; ".join(f"{letter} = {method}" for method, letter in letters.items())
    title = textwrap.fill(names, int(width / 0.09))
    title += "" if is_whole else "\nOnly the first rows: comparison.csv has all."
    if reasons := dict.fromkeys(pair.no_interval for pairs in panels for pair in pairs if pair.no_interval):
        title += "\n" + textwrap.fill(f"Without a 95% interval: {'; '.join(reasons)}.", int(width / 0.09))
    height = 1.9 + 0.34 * num_rows + 0.2 * title.count("\n")
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10, color=INK)
    for index, pairs in enumerate(panels):
        _draw_differences(figure.add_subplot(1, len(panels) + 1, index + 1), pairs, letters)
    _draw_ranks(figure.add_subplot(1, len(panels) + 1, len(panels) + 1), comparison, num_ranked)
    return figure


def draw_readers(pairs: Sequence[ReaderPair], agreements: Sequence[TargetAgreement]) -> Figure | None:
    """Draw a matrix of readers for each target, Dice below the diagonal and HD95 above; None without pairs."""
    agreements = agreements[:_MAX_TARGETS]
    if not pairs or not agreements:
        return None
    readers = list(agreements[0].dice_by_reader)
    num_columns = min(_COLUMNS_OF_MATRICES, len(agreements))
    num_rows = math.ceil(len(agreements) / num_columns)
    name_in = _CHARACTER_IN * max(len(_short(reader)) for reader in readers)
    width = max(3.0, _CELL_IN * len(readers) + 0.5)  # room for the titles
    height = width + name_in + 0.6
    figure = Figure(
        figsize=(width * num_columns + name_in, height * num_rows + 0.4), dpi=110, layout="compressed"
    )
    figure.suptitle("Below the diagonal: Dice. Above: HD95 in mm.", fontsize=10, color=INK)
    for index, agreement in enumerate(agreements):
        axes = figure.add_subplot(num_rows, num_columns, index + 1)
        own = [pair for pair in pairs if pair.target == agreement.target]
        _draw_matrix(axes, own, agreement, readers, with_names=index % num_columns == 0)
    return figure


def _draw_differences(axes: Axes, pairs: Sequence[PairDifference], letters: dict[str, str]) -> None:
    """Draw a row of dots for each label and pair of methods; infinite differences are triangles at the edge."""
    generator = np.random.default_rng(0)  # jitter, so that equal dots stay visible
    finite = [value for pair in pairs for value in pair.differences.values() if math.isfinite(value)]
    largest = max((abs(value) for value in finite), default=0.0) or 1.0
    edge = 1.12 * largest
    has_infinite = False
    axes.axvline(0, color=GREY, linewidth=1)
    for row, pair in enumerate(pairs):
        values = np.array(list(pair.differences.values()), dtype=np.float64)
        spread = row + generator.uniform(-0.2, 0.2, values.size)
        known = np.isfinite(values)
        axes.scatter(values[known], spread[known], s=16, color=DOT, alpha=0.55, linewidths=0, zorder=2)
        for sign, marker in ((-1, "<"), (1, ">")):
            beyond = np.isinf(values) & (np.sign(values) == sign)
            has_infinite = has_infinite or bool(beyond.any())
            axes.scatter(
                np.full(np.count_nonzero(beyond), sign * edge),
                spread[beyond],
                s=26,
                marker=marker,
                color=FALSE_POSITIVE,
                linewidths=0,
                zorder=2,
            )
        if not math.isnan(pair.mean_difference):
            axes.plot([pair.low, pair.high], [row, row], color=INK, linewidth=2, zorder=3)
            axes.plot(
                [pair.mean_difference],
                [row],
                "D",
                color="white",
                markeredgecolor=INK,
                markersize=6,
                zorder=4,
            )
    axes.set_xlim(-1.2 * largest, 1.2 * largest)
    axes.set_ylim(len(pairs) - 0.5, -0.5)
    texts = [f"{_short(pair.label)}  {letters[pair.first]}−{letters[pair.second]}" for pair in pairs]
    axes.set_yticks(range(len(pairs)), texts)
    side = "right" if higher_is_better(pairs[0].metric) else "left"
    axes.set_xlabel(f"{_heading(pairs[0].metric)}, difference by case\n{side} of 0: the first is better")
    mean = Line2D([], [], color=INK, linewidth=2, marker="D", markerfacecolor="white")
    has_interval = any(not math.isnan(pair.low) for pair in pairs)
    mean.set_label("mean, 95% interval over patients" if has_interval else "mean")
    mean.set_linestyle("-" if has_interval else "none")
    handles = [mean]
    if has_infinite:
        infinite = Line2D([], [], color=FALSE_POSITIVE, marker=">", linestyle="none")
        infinite.set_label("infinite for one of the two")
        handles.append(infinite)
    _legend(axes, handles, 1)
    style_axes(axes, grid="x")


def _draw_ranks(axes: Axes, comparison: Comparison, num_rows: int) -> None:
    """Draw a bar for each method: the shares of resamples in which it has each rank by mean Dice."""
    letters = comparison.letters
    rankings = [
        ranking
        for ranking in comparison.rankings
        if ranking.metric == comparison.main_metrics[0] and ranking.scheme == "mean_then_rank"
    ]
    bars = [
        (f"{_short(ranking.label)}  {letters[method]}", shares)
        for ranking in rankings
        for method, shares in zip(comparison.methods, ranking.stability.shares, strict=True)
    ][:num_rows]
    colours = _rank_colours(len(letters))
    for row, (_, shares) in enumerate(bars):
        starts = [0.0, *itertools.accumulate(shares)]
        for start, share, colour in zip(starts, shares, colours, strict=False):
            axes.barh(row, share, left=start, height=0.72, color=colour, edgecolor=GREY, linewidth=0.4)
    axes.set_yticks(range(len(bars)), [text for text, _ in bars])
    axes.set_ylim(max(len(bars), 1) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of resampled cohorts\nranked by mean {_heading(comparison.main_metrics[0])}")
    handles = [
        Patch(facecolor=colour, edgecolor=GREY, label=f"rank {rank}")
        for rank, colour in enumerate(colours, 1)
    ]
    _legend(axes, handles, min(3, len(handles)))
    style_axes(axes, grid="x")


def _draw_matrix(
    axes: Axes,
    pairs: Sequence[ReaderPair],
    agreement: TargetAgreement,
    readers: Sequence[str],
    *,
    with_names: bool,
) -> None:
    """Draw the pairs of one target: Dice as coloured cells below the diagonal, HD95 as text above it."""
    size = len(readers)
    dice = np.full((size, size), np.nan)
    for pair in pairs:
        column, row = sorted((readers.index(pair.first), readers.index(pair.second)))
        dice[row, column] = pair.dice
        low = "–" if math.isnan(pair.dice) else f"{pair.dice:.2f}"
        dark = pair.dice < 0.55
        axes.text(column, row, low, ha="center", va="center", fontsize=9, color="white" if dark else INK)
        axes.text(row, column, _distance(pair.hd95_mm), ha="center", va="center", fontsize=9, color=INK)
    axes.imshow(dice, cmap="cividis", norm=Normalize(0.0, 1.0))
    names = [_short(reader) for reader in readers]
    axes.set_xticks(range(size), names, rotation=90)
    axes.set_yticks(range(size), names if with_names else [""] * size)
    axes.tick_params(colors=INK, labelsize=9, length=0)
    axes.spines[:].set_color(GREY)
    kappa, in_box = (
        "–" if math.isnan(value) else f"{value:.2f}" for value in (agreement.kappa, agreement.kappa_in_box)
    )
    title = f"{_short(agreement.target)}\nFleiss' κ {kappa}, in the box {in_box}"
    axes.set_title(title, fontsize=10, color=INK)


def _rank_colours(count: int) -> list[str]:
    """Return colours from dark blue for the first rank to pale yellow, which also differ in brightness."""
    return [to_hex(colormaps["cividis"](position)) for position in np.linspace(0.05, 1.0, max(count, 2))][
        :count
    ]


def _heading(metric: str) -> str:
    if metric == "dice":
        return "Dice"
    if metric.startswith("nsd_"):
        return f"NSD at {metric.removeprefix('nsd_').removesuffix('mm')} mm"
    name, _, unit = metric.rpartition("_")
    return f"{name.replace('_', ' ').replace('hd', 'HD')} in {unit}"


def _distance(value_mm: float) -> str:
    if math.isnan(value_mm):
        return "–"
    return "∞" if math.isinf(value_mm) else f"{value_mm:.1f}"


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def _legend(axes: Axes, handles: Sequence[Line2D | Patch], num_columns: int) -> None:
    axes.legend(
        handles=list(handles),
        loc="lower center",
        bbox_to_anchor=(0.5, 1.0),
        ncols=num_columns,
        fontsize=9,
        frameon=False,
        handlelength=1.6,
        columnspacing=1.0,
    )

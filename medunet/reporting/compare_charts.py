"""Charts of paired differences between methods: each dot is a case and leads to its page."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from medunet.reporting.cohort_charts import MAX_LINKS, MAX_PLOTTED
from medunet.reporting.page import number_text
from medunet.reporting.svg import BOTTOM, WIDTH, Axis, CaseLink, Chart, Dot, Figure, range_of
from medunet.scoring.columns import higher_is_better
from medunet.scoring.compare import Comparison
from medunet.scoring.paired import PairDifference

_TOP, _ROW = 34, 50


def draw_differences(comparison: Comparison, links: Mapping[str, CaseLink]) -> list[Figure]:
    """Draw a chart for each target and main metric, with a row for each pair of methods.

    Infinite differences are crosses at the edge.
    """
    labels = comparison.labels[:MAX_PLOTTED]
    metrics = comparison.main_metrics[:2]
    num_rows = sum(pair.metric in metrics and pair.label in labels for pair in comparison.pairs)
    most = max(MAX_LINKS // max(num_rows, 1), 1)
    figures = []
    for metric in metrics:
        charts = []
        for label in labels:
            pairs = [pair for pair in comparison.pairs if (pair.metric, pair.label) == (metric, label)]
            if any(pair.differences for pair in pairs):
                charts.append(_draw_pairs(pairs, comparison.letters, links, most * len(pairs)).svg())
        side = "right" if higher_is_better(metric) else "left"
        caption = (
            f"A dot for each case: the first method's {metric_text(metric)} less the second's. {side.capitalize()} "
            "of 0 the first is better. The line is the mean with its 95% interval; crosses at the edge are infinite."
        )
        if charts:
            figures.append(Figure(f"Differences in {metric_text(metric)}", tuple(charts), caption))
    return figures


def metric_text(metric: str) -> str:
    """Return a metric's name as pages show it, such as HD95 in mm."""
    if metric == "dice":
        return "Dice"
    if metric.startswith("nsd_"):
        return f"NSD at {metric.removeprefix('nsd_').removesuffix('mm')} mm"
    name, _, unit = metric.rpartition("_")
    return f"{name.replace('_', ' ').replace('hd', 'HD')} in {unit}" if unit in ("mm", "ml") else metric


def decimals_of(metric: str) -> int:
    """Return the decimals with which a metric is shown."""
    return 2 if metric.endswith(("_mm", "_ml")) and not metric.startswith("nsd_") else 3


def _draw_pairs(
    pairs: Sequence[PairDifference], letters: Mapping[str, str], links: Mapping[str, CaseLink], most: int
) -> Chart:
    label, metric = pairs[0].label, pairs[0].metric
    bottom = _TOP + _ROW * len(pairs)
    chart = Chart(WIDTH, bottom + BOTTOM, f"Differences in {metric_text(metric)} of {label} by case")
    finite = [value for pair in pairs for value in pair.differences.values() if math.isfinite(value)]
    low, high = range_of([*finite, 0.0], pad=0.1)
    axis = Axis(low, high, 62, WIDTH - 16)
    chart.x_axis(axis, _TOP - 4, bottom, f"difference in {metric_text(metric)}")
    chart.text(WIDTH - 16, 18, label, "name", anchor="end")
    chart.line(axis.at(0), _TOP - 4, axis.at(0), bottom, "bias")
    generator = np.random.default_rng(0)  # so that equal dots stay visible
    decimals = decimals_of(metric)
    dots = []
    for row, pair in enumerate(pairs):
        middle = _TOP + _ROW * (row + 0.5)
        chart.text(54, middle + 4, f"{letters[pair.first]}−{letters[pair.second]}", "name", anchor="end")
        dots += [
            Dot(
                case,
                axis.at(value),
                round(middle + shift, 1),
                f"{case}: {label}, {letters[pair.first]} − {letters[pair.second]} "
                f"{number_text(value, decimals, signed=True)}",
                "cross" if math.isinf(value) else "dot",
            )
            for (case, value), shift in zip(
                pair.differences.items(), generator.uniform(-15, 15, len(pair.differences)), strict=True
            )
        ]
    chart.dots(dots, links, most)
    for row, pair in enumerate(pairs):
        middle = _TOP + _ROW * (row + 0.5)
        if not math.isnan(pair.low):
            chart.line(axis.at(pair.low), middle, axis.at(pair.high), middle, "mean")
        if not math.isnan(pair.mean_difference):
            place = axis.at(pair.mean_difference)
            chart.line(place, middle - 18, place, middle + 18, "median")
    return chart

"""Charts of a cohort in which every dot is a case: distributions, and the detection of lesions by size."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from medunet.records.scores import UNSCORED
from medunet.reporting.page import number_text
from medunet.reporting.scores import Measure, Unit, measures
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
    said_status,
)
from medunet.reporting.volume_charts import draw_dice_by_volume, draw_volumes
from medunet.scoring.lesions import SIZE_CLASSES, SizeClassDetection

MAX_PLOTTED = 12  # targets with charts; the tables have all
MAX_LINKS = 24_000  # dots that are links on a page: more make it slow to open
_ROW = 44  # height of a row of a distribution


@dataclass(frozen=True)
class Charts:
    """The charts of a cohort; of each target's dots, those of the `num_linked` worst cases are links."""

    figures: tuple[Figure, ...]
    num_linked: int
    num_targets: int  # with charts


def choose_plotted(scores: pd.DataFrame) -> list[str]:
    """Return the targets with charts: all, or of many those with the lowest mean Dice, in the table's order."""
    labels = list(scores["label"].drop_duplicates())
    if len(labels) <= MAX_PLOTTED:
        return labels
    means = scores["dice"].where(~scores["status"].isin(UNSCORED), 0.0).groupby(scores["label"]).mean()
    worst = set(means.sort_values(kind="stable").index[:MAX_PLOTTED])
    return [label for label in labels if label in worst]


def draw_cohort(
    scores: pd.DataFrame,
    lesions: pd.DataFrame | None,
    links: Mapping[str, CaseLink],
    unit: Unit,
    *,
    by: Sequence[str] = (),
    sizes: Mapping[str, Sequence[SizeClassDetection]] | None = None,
    noun: str = "lesion",
) -> Charts:
    """Draw the charts of a cohort; those without any value are left out.

    Args:
        scores: the table of scores.csv.
        lesions: the table of lesions.csv, if lesions were scored.
        links: the link of every case of `scores`.
        unit: mm, or px for 2D pictures.
        by: text columns of `scores`, such as the site, whose values each get a row.
        sizes: the detection by size of the targets with lesions.
        noun: what a lesion is called, such as "object".
    """
    plotted = choose_plotted(scores)
    scores = scores[scores["label"].isin(plotted)]
    shown = measures(scores, unit)
    overlaps = [
        next((each for each in shown if each.column.startswith(kind)), None) for kind in ("dice", "nsd")
    ]
    has_volumes, has_lesions = {"reference_ml", "predicted_ml"} <= set(scores.columns), bool(sizes)
    num_kinds = 2 + len(by) + 2 * has_volumes + has_lesions
    most = max(MAX_LINKS // max(num_kinds * len(plotted), 1), 1)
    figures = [_distributions(scores, [each for each in overlaps if each], links, most)]
    if has_volumes:
        figures += [
            draw_volumes(scores, plotted, links, unit, most),
            draw_dice_by_volume(scores, plotted, links, unit, most),
        ]
    if lesions is not None and sizes:
        figures.append(_detection(lesions, plotted, links, sizes, most, noun))
    figures += [_by_column(scores, name, links, most) for name in by]
    return Charts(tuple(figure for figure in figures if figure.charts), most, len(plotted))


def _distributions(
    scores: pd.DataFrame, shown: Sequence[Measure], links: Mapping[str, CaseLink], most: int
) -> Figure:
    groups = {label: scores[scores["label"] == label] for label in scores["label"].drop_duplicates()}
    charts = [
        chart
        for measure in shown
        for chart in _draw_rows(groups, measure, links, most, f"{measure.heading} of every case by target")
    ]
    caption = (
        "A dot for each case, a cross for a target that was missed, invented, missing or failed; the box spans the "
        "quartiles, its line is the median."
    )
    return Figure(" and ".join(measure.heading for measure in shown), tuple(charts), caption)


def _by_column(scores: pd.DataFrame, name: str, links: Mapping[str, CaseLink], most: int) -> Figure:
    """Draw the Dice of each target by the values of a column."""
    charts: list[Markup] = []
    dice = Measure("dice", "Dice", 3)
    for label in scores["label"].drop_duplicates():
        own = scores[scores["label"] == label]
        groups = {value: own[own[name] == value] for value in sorted(set(own[name]))}
        charts += _draw_rows(
            {value or "unknown": rows for value, rows in groups.items()},
            dice,
            links,
            most,
            f"Dice of {label} by {name}",
            title=f"Dice of {label}",
        )
    return Figure(f"Dice by {name}", tuple(charts), f"Every case by its {name}, with quartiles and median.")


def _draw_rows(
    groups: Mapping[str, pd.DataFrame],
    measure: Measure,
    links: Mapping[str, CaseLink],
    most: int,
    label: str,
    title: str = "",
) -> tuple[Markup, ...]:
    """Draw a row of dots with a box for each group of rows; nothing if no value is defined."""
    values = {name: _with_failures(rows, measure.column) for name, rows in groups.items()}
    values = {name: known for name, known in values.items() if len(known)}
    if not values:
        return ()
    left = 20 + 6.6 * min(max(len(name) for name in values), 24)
    bottom = TOP + _ROW * len(values)
    chart = Chart(WIDTH, bottom + BOTTOM, label)
    axis = Axis(-0.01, 1.01, left, WIDTH - 58)
    chart.x_axis(axis, TOP - 4, bottom, title or measure.heading)
    chart.text(WIDTH - 6, TOP - 12, "median", anchor="end")
    generator = np.random.default_rng(0)  # so that equal dots stay visible
    dots, boxes = [], []
    for row, (name, known) in enumerate(values.items()):
        middle = TOP + _ROW * (row + 0.5)
        numbers = known[measure.column].to_numpy(np.float64)
        low, median, high = np.quantile(numbers, (0.25, 0.5, 0.75))
        chart.text(left - 8, middle + 4, name, "name", anchor="end")
        chart.text(WIDTH - 6, middle + 4, number_text(float(median), measure.decimals), "value", anchor="end")
        chart.rect(axis.at(low), middle - 15, axis.at(high) - axis.at(low), 30, "box")
        boxes.append((axis.at(low), axis.at(median), axis.at(high), middle))
        spread = generator.uniform(-1, 1, len(numbers)) * _thickness(numbers)
        dots += [
            Dot(
                case,
                axis.at(value),
                round(middle + 14 * shift, 1),
                f"{case}: {name}, {measure.heading} {number_text(value, measure.decimals)}{said_status(status)}",
                "dot" if status == "ok" else "cross",
            )
            for case, value, status, shift in zip(
                known["case"], numbers, known["status"], spread, strict=True
            )
        ]
    chart.dots(dots, links, most * len(values))
    for start, median_at, end, middle in boxes:  # above the dots, which may be dense
        chart.rect(start, middle - 15, end - start, 30, "outline")
        chart.line(median_at, middle - 15, median_at, middle + 15, "median")
    return (chart.svg(),)


def _detection(
    lesions: pd.DataFrame,
    plotted: Sequence[str],
    links: Mapping[str, CaseLink],
    sizes: Mapping[str, Sequence[SizeClassDetection]],
    most: int,
    noun: str,
) -> Figure:
    """Draw the Dice of each reference lesion against its diameter, with the share found in each size class."""
    charts = []
    for label in plotted:
        own = lesions[
            (lesions["label"] == label) & lesions["counted"] & (lesions["status"] != "false_positive")
        ]
        own = own[own["case"].isin(list(links))]
        if own.empty or label not in sizes:
            continue
        diameters = np.cbrt(6000 * own["reference_ml"].to_numpy(np.float64) / math.pi)
        chart = Chart(WIDTH, HEIGHT, f"Detection of {noun}s of {label} by size")
        x = Axis(
            max(float(diameters.min()) / 1.3, 0.1), float(diameters.max()) * 1.3, LEFT, WIDTH - RIGHT, True
        )
        y = Axis(-0.02, 1.02, HEIGHT - BOTTOM, TOP + 30)
        chart.x_axis(x, TOP + 30, HEIGHT - BOTTOM, "diameter, mm (logarithmic)")
        chart.y_axis(y, LEFT, WIDTH - RIGHT, "")
        chart.text(LEFT - 6, 16, f"Dice of the {noun}; found of all", "title", anchor="start")
        chart.text(WIDTH - RIGHT, 16, label, "name", anchor="end")
        _write_rates(chart, x, sizes[label])
        dots = [
            Dot(
                case,
                x.at(diameter),
                y.at(0.0 if math.isnan(dice) else dice),
                f"{case}: {noun} {number} of {label}, {number_text(diameter, 1)} mm, "
                + ("missed" if status == "missed" else f"Dice {number_text(dice, 3)}"),
                "cross" if status == "missed" else "dot",
            )
            for case, number, diameter, dice, status in zip(
                own["case"], own["lesion"], diameters, own["dice"], own["status"], strict=True
            )
        ]
        chart.dots(dots, links, most)
        charts.append(chart.svg())
    caption = (
        f"Every reference {noun} that counts: found ones as dots at their Dice, missed ones as crosses. The numbers "
        f"are found of all in the size class. The diameter is that of a sphere of the {noun}'s volume."
    )
    return Figure("Detection by size", tuple(charts), caption)


def _write_rates(chart: Chart, x: Axis, sizes: Sequence[SizeClassDetection]) -> None:
    """Write found of all above each size class that is in the chart, and draw the bounds between the classes."""
    bounds_mm = [0.0, *(limit_mm for limit_mm, _ in SIZE_CLASSES)]
    for detection, low, high in zip(sizes, bounds_mm, bounds_mm[1:], strict=False):
        start, end = x.at(max(low, x.low)), x.at(min(high, x.high))
        if detection.num_lesions and end > start:
            text = f"{detection.num_detected}/{detection.num_lesions}"
            chart.text((start + end) / 2, TOP + 20, text, "value")
        if x.low < high < x.high:
            chart.line(x.at(high), TOP + 12, x.at(high), HEIGHT - BOTTOM, "bound")


def _with_failures(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the rows with a defined value of an overlap; missing and failed cases have 0, as in the means."""
    values = rows[column].where(~rows["status"].isin(UNSCORED), 0.0)
    return rows.assign(**{column: values}).dropna(subset=[column])


def _thickness(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each value may be moved aside, 0.1 to 1: dots spread where many are alike."""
    counts, edges = np.histogram(values, bins=40, range=(0.0, 1.0))
    of_each = counts[np.clip(np.digitize(values, edges) - 1, 0, 39)]
    return 0.1 + 0.9 * np.sqrt(of_each / max(counts.max(), 1)) * min(1.0, len(values) / 10)

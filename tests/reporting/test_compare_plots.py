"""Plots hold every case, mark what is infinite, and no text lies over another."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from medunet.drawing.figures import figure_png
from medunet.reporting.compare_plots import draw_comparison, draw_readers
from medunet.scoring.agreement import compare_readers
from medunet.scoring.compare import Comparison, compare

LONG = "a_method_with_quite_a_long_name_of_its_own"
CASES = [f"case_{number}" for number in range(8)]


def table(dice: list[float], labels: tuple[str, ...], missed: tuple[str, ...] = ()) -> pd.DataFrame:
    rows = [
        (case, label, "missed", 0.0, math.inf)
        if case in missed
        else (case, label, "ok", value, 20 * (1 - value))
        for label in labels
        for case, value in zip(CASES, dice, strict=True)
    ]
    return pd.DataFrame(rows, columns=["case", "label", "status", "dice", "hd95_mm"]).assign(
        surface="area", reason=""
    )


def compared(labels: tuple[str, ...] = ("liver", "tumour")) -> Comparison:
    dice = np.linspace(0.6, 0.95, 8)
    return compare(
        {
            "plain": table(dice.tolist(), labels, missed=("case_0",)),
            LONG: table((dice - np.linspace(-0.02, 0.08, 8)).tolist(), labels),
            "poor": table((dice / 2).tolist(), labels, missed=("case_1", "case_2")),
        }
    )


def texts_of(figure: Figure) -> dict[str, Bbox]:
    """Return the boxes of all texts that are drawn, by their content and place."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found: list[Text] = [] if figure._suptitle is None else [figure._suptitle]
    for axes in figure.axes:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        legend = axes.get_legend()
        found += [] if legend is None else legend.get_texts()
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    return {
        f"{number} {text.get_text()}": text.get_window_extent(canvas.get_renderer())
        for number, text in enumerate(found)
        if text.get_text().strip() and text.get_visible()
    }


def assert_readable(figure: Figure) -> None:
    width, height = figure.get_size_inches() * figure.dpi
    boxes = texts_of(figure)
    assert len(boxes) >= 8
    for name, box in boxes.items():
        assert box.x0 >= -1, name
        assert box.y0 >= -1, name
        assert box.x1 <= width + 1, name
        assert box.y1 <= height + 1, name
    for (name, box), (other, beside) in itertools.combinations(boxes.items(), 2):
        across = min(box.x1, beside.x1) - max(box.x0, beside.x0)
        up = min(box.y1, beside.y1) - max(box.y0, beside.y0)
        assert across <= 1 or up <= 1, f"{name} lies over {other}"


def test_every_difference_is_a_dot_and_infinite_ones_are_triangles() -> None:
    comparison = compared(("liver",))
    figure = draw_comparison(comparison)
    assert figure is not None
    by_dice, by_distance, ranks = figure.axes
    counts = [len(dots.get_offsets()) for dots in by_dice.collections]
    assert sum(counts) == 3 * 8  # three pairs of methods
    # Case 0 is missed by the first alone, 1 and 2 by the third: pairs 1-2, 1-3, 2-3 have 1, 3 and 2 infinite ones.
    at = np.concatenate([np.asarray(dots.get_offsets()) for dots in by_distance.collections])
    edges = by_distance.get_xlim()
    outside = [row for x, row in at if abs(x) > 0.9 * edges[1]]
    assert sorted(round(row) for row in outside) == [0, 1, 1, 1, 2, 2]
    assert len(at) == 3 * 8
    widths = [bar.get_width() for bar in ranks.patches]
    assert sum(widths) == pytest.approx(3)  # three methods, all resamples each
    figure_png(figure)


@pytest.mark.parametrize(
    "labels",
    [("liver",), ("liver", "tumour"), tuple(f"vertebra_{number}_of_many_more" for number in range(14))],
)
def test_comparison_is_readable(labels: tuple[str, ...]) -> None:
    figure = draw_comparison(compared(labels))
    assert figure is not None
    assert_readable(figure)


def test_two_methods_and_one_case() -> None:
    one = table([0.5] * 8, ("liver",))[:1]
    figure = draw_comparison(compare({"a": one, "b": one.assign(dice=0.6)}))
    assert figure is not None
    assert_readable(figure)


def test_nothing_compared_is_nothing_drawn() -> None:
    empty = table([math.nan] * 8, ("liver",)).assign(status="both_empty", dice=math.nan, hd95_mm=math.nan)
    figure = draw_comparison(compare({"a": empty, "b": empty}))
    assert figure is not None  # axes without a dot
    assert all(not len(dots.get_offsets()) for axes in figure.axes for dots in axes.collections)
    assert draw_readers([], []) is None


@pytest.mark.parametrize(("num_readers", "num_targets"), [(2, 1), (3, 2), (5, 3), (8, 4)])
def test_readers_are_readable(num_readers: int, num_targets: int) -> None:
    generator = np.random.default_rng(5)
    maps = {
        f"reader_{number}_of_the_clinic": generator.integers(0, 5, (5, 6, 7)) for number in range(num_readers)
    }
    maps[next(iter(maps))][:] = 0  # one saw nothing: infinite distances
    targets = {f"region_{number}": (number + 1,) for number in range(num_targets)}
    pairs, agreements = compare_readers(maps, (1.0, 2.0, 3.0), targets)
    figure = draw_readers(pairs, agreements)
    assert figure is not None
    assert_readable(figure)
    assert len(figure.axes) == num_targets
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == num_readers * (num_readers - 1)  # a Dice and a distance for each pair
    assert texts.count("∞") == num_readers - 1


def test_dice_lies_below_the_diagonal_and_distance_above() -> None:
    maps = {name: np.zeros((3, 4, 5), dtype=np.uint8) for name in "ab"}
    maps["a"][1, 1:3, 1] = 1
    maps["b"][1, 1, 1] = 1
    pairs, agreements = compare_readers(maps, (1.0, 2.0, 3.0), {"whole": (1,)}, surface="voxel")
    figure = draw_readers(pairs, agreements)
    assert figure is not None
    (axes,) = figure.axes
    at = {text.get_text(): text.get_position() for text in axes.texts}
    assert at == {"0.67": (0, 1), "1.9": (1, 0)}  # column, row
    image = np.ma.filled(axes.images[0].get_array(), np.nan)
    assert image[1, 0] == pytest.approx(2 / 3)
    assert np.isnan(image[0, 1])

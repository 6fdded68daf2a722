"""How the plots of reports look: their colours, a light grid, no frame."""

from typing import Literal

from matplotlib.axes import Axes

INK, DOT, GREY = "#333333", "#0072B2", "#999999"


def tidy(axes: Axes, grid: Literal["both", "x"] = "both") -> None:
    """Take the frame away but for the two axes, and lay the grid's lines of an axis behind everything."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis=grid, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)

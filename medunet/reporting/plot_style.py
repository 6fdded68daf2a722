"""Style of report plots: colours, a light grid, no frame."""

from typing import Literal

from matplotlib.axes import Axes

INK, DOT, GREY = "#333333", "#0072B2", "#999999"


def style_axes(axes: Axes, grid: Literal["both", "x"] = "both") -> None:
    """Remove the top and right frame, set the colours, and draw grid lines behind the data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    axes.grid(axis=grid, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)

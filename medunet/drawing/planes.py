"""Layout of axial, coronal and sagittal planes of an RAS+ grid on a figure, in radiological orientation.

The patient's right is on the left of the figure, anterior on the left of sagittal planes, and anterior or superior is
up. Horizontally every plane therefore runs against its axis, vertically along it. Voxel `i` of an axis with spacing
`s` covers `(i - 0.5) s ... (i + 0.5) s`; images and contours are drawn in these coordinates in mm, all at one scale.
A 2D picture has one plane, in its own orientation, with pixels as unit instead of mm.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import patheffects
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

INK = "#f2f2f2"
DASHES = (0, (4, 3))

_WIDTH_INCH, _TALLEST_INCH, _GAP_INCH = 12.0, 5.6, 0.12
_TALLEST_ALONE_INCH = 9.0
_HEADER_INCH, _FOOTER_INCH = 0.3, 0.4
_MARKS = (("L", "R"), ("P", "A"), ("I", "S"))  # at the low and the high end of each axis
_SCALE_BARS_MM = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_HALO = [patheffects.withStroke(linewidth=2.2, foreground="#000000b0")]

Box = tuple[tuple[int, int], ...]  # shown voxels [first, end) of each axis


@dataclass(frozen=True)
class Plane:
    """A plane: its horizontal axis, its vertical axis, and the axis perpendicular to it."""

    name: str
    across: int
    up: int
    through: int


PLANES = (Plane("axial", 0, 1, 2), Plane("coronal", 0, 2, 1), Plane("sagittal", 1, 2, 0))


def lay_out(
    planes: Sequence[Plane], box: Box, spacing_mm: Sequence[float], width_px: int
) -> tuple[Figure, list[Axes]]:
    """Return a black figure with an empty panel for each plane, side by side, at one scale in mm."""
    sizes = [_size_mm(plane, box, spacing_mm) for plane in planes]
    free = _WIDTH_INCH - _GAP_INCH * (len(planes) - 1)
    tallest = _TALLEST_INCH if len(planes) > 1 else _TALLEST_ALONE_INCH
    inch_per_mm = min(
        free / sum(across for across, _ in sizes), tallest / max(upwards for _, upwards in sizes)
    )
    left = (free - inch_per_mm * sum(across for across, _ in sizes)) / 2
    height = inch_per_mm * max(upwards for _, upwards in sizes) + _HEADER_INCH + _FOOTER_INCH
    figure = Figure(figsize=(_WIDTH_INCH, height), dpi=width_px / _WIDTH_INCH, facecolor="black")
    panels = []
    for plane, (across, upwards) in zip(planes, sizes, strict=True):
        wide, tall = across * inch_per_mm, upwards * inch_per_mm
        bottom = height - _HEADER_INCH - tall
        axes = figure.add_axes((left / _WIDTH_INCH, bottom / height, wide / _WIDTH_INCH, tall / height))
        set_limits(axes, plane, box, spacing_mm)
        panels.append(axes)
        left += wide + _GAP_INCH
    return figure, panels


def set_limits(axes: Axes, plane: Plane, box: Box, spacing_mm: Sequence[float]) -> None:
    """Limit a panel to the voxels of `box`, without axes and autoscaling."""
    axes.set_axis_off()
    axes.set_autoscale_on(False)
    first, end = _edges_mm(box[plane.across], spacing_mm[plane.across])
    axes.set_xlim(end, first)
    axes.set_ylim(*_edges_mm(box[plane.up], spacing_mm[plane.up]))


def paint(
    axes: Axes,
    pixels: NDArray,
    plane: Plane,
    spacing_mm: Sequence[float],
    limits: tuple[float, float] | None = None,
) -> None:
    """Draw a whole slice `(across, up)` in grey between `limits`, or `(across, up, 3 or 4)` in colour.

    For RGB, `limits` are the values shown as 0 and as full intensity; RGBA is drawn unchanged.
    """
    grey = pixels.ndim == 2
    if pixels.ndim == 3 and limits is not None:
        pixels = ((pixels - limits[0]) / (limits[1] - limits[0])).clip(0, 1)
    axes.imshow(
        pixels.swapaxes(0, 1),
        origin="lower",
        extent=(
            *_edges_mm((0, pixels.shape[0]), spacing_mm[plane.across]),
            *_edges_mm((0, pixels.shape[1]), spacing_mm[plane.up]),
        ),
        cmap="gray",
        vmin=limits[0] if limits else None,  # no effect in colour
        vmax=limits[1] if limits else None,
        interpolation="hanning" if grey else "nearest",
        aspect="auto",
    )


def outline(
    axes: Axes, mask: NDArray, plane: Plane, spacing_mm: Sequence[float], colour: str, *, dashed: bool = False
) -> None:
    """Draw the contour of a mask `(across, up)`, midway between voxels inside and outside.

    Dashes have a lighter tint of the colour, so that they are visible on top of a solid line.
    """
    if not mask.any():
        return
    padded = np.pad(mask, 1).astype(np.float32)  # closes the contour where the mask reaches the border
    across = np.arange(-1, mask.shape[0] + 1) * spacing_mm[plane.across]
    upwards = np.arange(-1, mask.shape[1] + 1) * spacing_mm[plane.up]
    tint = tuple(0.35 * part + 0.65 for part in to_rgb(colour)) if dashed else colour
    lines = axes.contour(
        across,
        upwards,
        padded.T,
        levels=[0.5],
        colors=[tint],
        linewidths=1.5 if dashed else 1.8,
        linestyles=[DASHES] if dashed else "solid",
    )
    if dashed:
        lines.set_path_effects([patheffects.withStroke(linewidth=2.9, foreground="#00000090")])


def annotate(axes: Axes, plane: Plane, title: str) -> None:
    """Add the title of a panel and the letters of the directions at its four edges."""
    axes.set_title(title, color=INK, fontsize=10, pad=5)
    low_across, high_across = _MARKS[plane.across]
    low_up, high_up = _MARKS[plane.up]
    for x, y, letter, across, upwards in (
        (0.012, 0.5, high_across, "left", "center"),
        (0.988, 0.5, low_across, "right", "center"),
        (0.5, 0.985, high_up, "center", "top"),
        (0.5, 0.015, low_up, "center", "bottom"),
    ):
        axes.text(
            *(x, y, letter),
            transform=axes.transAxes,
            ha=across,
            va=upwards,
            color=INK,
            fontsize=11,
            fontweight="bold",
            path_effects=_HALO,
        )


def add_footer(figure: Figure, axes: Axes, window_text: str, handles: Sequence[Artist], unit: str) -> None:
    """Add the grey window, the legend and a scale bar below the panels; the bar has the scale of `axes`."""
    height_inch = figure.get_figheight()
    middle = 0.45 * _FOOTER_INCH / height_inch
    figure.text(0.008, middle, window_text, color=INK, fontsize=9, va="center")
    figure.legend(
        handles=list(handles),
        loc="center",
        bbox_to_anchor=(0.5, middle),
        ncols=max(1, len(handles)),
        frameon=False,
        labelcolor=INK,
        fontsize=9.5,
        handlelength=2.4,
        columnspacing=1.6,
        borderaxespad=0,
    )
    x_first, x_end = axes.get_xlim()
    fraction_per_mm = axes.get_position().width / abs(x_end - x_first)
    fitting = [length for length in _SCALE_BARS_MM if length * fraction_per_mm < 0.12]
    length = fitting[-1] if fitting else _SCALE_BARS_MM[0]
    right, left = 0.992, 0.992 - length * fraction_per_mm
    bar = Line2D([left, right], [middle, middle], color=INK, linewidth=3, solid_capstyle="butt")
    figure.add_artist(bar)
    figure.text(left - 0.006, middle, f"{length} {unit}", color=INK, fontsize=9, va="center", ha="right")


def position_text(plane: Plane, position_mm: Sequence[float]) -> str:
    """Return the name and position of a plane through a world position in mm, such as 'axial  S 12.0 mm'."""
    depth_mm = round(float(position_mm[plane.through]), 1)
    return f"{plane.name}  {_MARKS[plane.through][depth_mm >= 0]} {abs(depth_mm):.1f} mm"


def box_around(mask: NDArray[np.bool_], margin: Sequence[int]) -> Box:
    """Return the bounding box of a mask that is not empty, with a margin in voxels, within the grid."""
    box = []
    for axis, size in enumerate(mask.shape):
        present = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append((max(0, int(present[0]) - margin[axis]), min(size, int(present[-1]) + 1 + margin[axis])))
    return tuple(box)


def _edges_mm(voxels: tuple[int, int], spacing: float) -> tuple[float, float]:
    return (voxels[0] - 0.5) * spacing, (voxels[1] - 0.5) * spacing


def _size_mm(plane: Plane, box: Box, spacing_mm: Sequence[float]) -> tuple[float, float]:
    across, upwards = box[plane.across], box[plane.up]
    return (
        (across[1] - across[0]) * spacing_mm[plane.across],
        (upwards[1] - upwards[0]) * spacing_mm[plane.up],
    )

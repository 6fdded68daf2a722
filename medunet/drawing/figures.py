"""Figures of a scan with the contours of reference and prediction, or with the errors of the prediction.

Planes are those of the scan's own grid, the ones closest to axial, coronal and sagittal: nothing is resampled. The
figure does not depend on the orientation in which the scan is stored.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from medunet.base.files import atomic_write
from medunet.drawing.palette import FALSE_NEGATIVE, FALSE_POSITIVE, colour_targets
from medunet.drawing.planes import (
    DASHES,
    INK,
    PLANES,
    Box,
    Plane,
    add_footer,
    annotate,
    box_around,
    lay_out,
    outline,
    paint,
    position_text,
    set_limits,
)
from medunet.imaging.geometry import Affine, spacing_of
from medunet.imaging.orientation import to_ras

CT_SOFT_TISSUE = (40.0, 400.0)  # level and width in HU

_ZOOM_MARGIN_MM = 15.0

Centre = tuple[int, int, int]
Unit = Literal["mm", "px"]  # px: a 2D picture without position in a patient


def largest_cross_sections(mask: NDArray) -> Centre:
    """Return, for each axis of a mask `(I, J, K)`, the index of the slice with the most voxels.

    If several slices are equal, the middle one is returned; if the mask is empty, the centre of the volume.
    """
    indices = []
    for axis in range(3):
        area = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
        largest = np.flatnonzero(area == area.max())
        indices.append(int(largest[len(largest) // 2]))
    return indices[0], indices[1], indices[2]


def window_limits(
    image: NDArray, modality: str, window: tuple[float, float] | None = None
) -> tuple[float, float]:
    """Return the intensities that are shown as black and as white.

    `window` is (level, width). Without it, CT gets the soft tissue window, and other modalities the 0.5 and 99.5
    percentiles of the finite nonzero voxels (of every n-th voxel in large volumes).
    """
    if window is None and modality == "CT":
        window = CT_SOFT_TISSUE
    if window is not None:
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    step = max(1, math.ceil((image.size / 4e6) ** (1 / 3)))
    values = image[::step, ::step, ::step]
    values = values[np.isfinite(values) & (values != 0)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(bound) for bound in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


@dataclass(frozen=True)
class View:
    """A scan with the label maps on its grid, and display options."""

    image: NDArray  # (I, J, K) in any orientation, or (I, J, K, 3) in colour
    affine: Affine  # from voxel index to RAS+ mm
    targets: Mapping[
        str, tuple[int, ...]
    ]  # target name -> its label values; their order determines the colours
    reference: NDArray | None = None
    prediction: NDArray | None = None
    # Voxel index in `image` that the planes pass through; by default the largest cross-sections of all targets in the
    # reference, or in the prediction if the reference has none.
    centre: Centre | None = None
    modality: str = "CT"  # determines the default window (see `window_limits`)
    window: tuple[float, float] | None = None  # (level, width); overrides the default window
    unit: Unit = "mm"


def draw_planes(view: View, *, width_px: int = 1320) -> Figure:
    """Draw three planes with contours: reference solid, prediction dashed, one colour for each target.

    A scan with a single slice is drawn in the plane of that slice. In 2D pictures no directions are marked.
    """
    scene = _Scene(view)
    limits = window_limits(scene.image, view.modality, view.window)
    figure, panels = scene.lay_out(scene.whole, limits, width_px)
    for axes, plane in panels:
        scene.outline(axes, plane)
    handles: list[Artist] = [
        Line2D([], [], color=colour, linewidth=3, label=name) for name, colour in scene.colours.items()
    ]
    if view.reference is not None:
        handles.append(Line2D([], [], color=INK, label="reference"))
    if view.prediction is not None:
        handles.append(Line2D([], [], color=INK, linestyle=DASHES, label="prediction"))
    add_footer(figure, panels[0][0], _window_text(limits, view), handles, view.unit)
    return figure


def draw_errors(view: View, *, width_px: int = 1320) -> Figure:
    """Draw filled false positives and false negatives of all targets together, zoomed in on both masks."""
    scene = _Scene(view)
    values = scene.values
    limits = window_limits(scene.image, view.modality, view.window)
    figure, panels = scene.lay_out(scene.zoomed, limits, width_px)
    for axes, plane in panels:
        truth = scene.cut(scene.reference, plane, values)
        found = scene.cut(scene.prediction, plane, values)
        fill = np.zeros((*truth.shape, 4))
        fill[found & ~truth] = to_rgba(FALSE_POSITIVE, 0.6)
        fill[truth & ~found] = to_rgba(FALSE_NEGATIVE, 0.6)
        paint(axes, fill, plane, scene.spacing_mm)
        outline(axes, truth, plane, scene.spacing_mm, INK)
    handles = [
        Patch(color=FALSE_POSITIVE, label="false positive"),
        Patch(color=FALSE_NEGATIVE, label="false negative"),
        Line2D([], [], color=INK, label="reference"),
    ]
    add_footer(figure, panels[0][0], _window_text(limits, view), handles, view.unit)
    return figure


def draw_thumbnail(view: View, *, width_px: int = 144) -> Figure:
    """Draw only the axial plane, zoomed in, square and without labels, with contours as in `draw_planes`."""
    scene = _Scene(view)
    plane = PLANES[0]
    figure = Figure(figsize=(1, 1), dpi=width_px, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    box = scene.zoomed
    set_limits(axes, plane, box, scene.spacing_mm)
    axes.set_aspect("equal", adjustable="datalim")
    limits = window_limits(scene.image, view.modality, view.window)
    paint(axes, scene.slice(scene.image, plane), plane, scene.spacing_mm, limits)
    scene.outline(axes, plane)
    return figure


def figure_png(figure: Figure) -> bytes:
    """Return a figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})
    return stream.getvalue()


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure to a PNG file atomically."""
    with atomic_write(path, suffix=".png") as temporary:
        temporary.write_bytes(figure_png(figure))


class _Scene:
    """A scan with its label maps in RAS+ orientation, and the voxel that the planes pass through."""

    def __init__(self, view: View) -> None:
        affine, shape = view.affine, view.image.shape[:3]
        for name, labels in (("reference", view.reference), ("prediction", view.prediction)):
            if labels is not None and labels.shape != shape:
                raise AssertionError(f"{name} shape {labels.shape} is not the scan's {shape}")
        self.image, self.affine = _reorient(view.image, affine)
        self.reference = None if view.reference is None else _reorient(view.reference, affine)[0]
        self.prediction = None if view.prediction is None else _reorient(view.prediction, affine)[0]
        self.targets, self.unit = view.targets, view.unit
        self.colours = colour_targets(view.targets)
        self.spacing_mm = spacing_of(self.affine)
        self.values = sorted({value for united in view.targets.values() for value in united})
        if view.centre is None:
            self.centre = self._default_centre()
        else:
            world = apply_affine(affine, view.centre)
            i, j, k = np.rint(apply_affine(np.linalg.inv(self.affine), world)).astype(int).tolist()
            self.centre = (i, j, k)

    @property
    def whole(self) -> Box:
        """The whole grid."""
        return tuple((0, size) for size in self.image.shape[:3])

    @property
    def zoomed(self) -> Box:
        """The box around the targets of both label maps with a margin; the whole grid if there are none."""
        mask = self._mask(self.reference) | self._mask(self.prediction)
        if not mask.any():
            return self.whole
        return box_around(mask, [math.ceil(_ZOOM_MARGIN_MM / step) for step in self.spacing_mm])

    def slice(self, volume: NDArray, plane: Plane) -> NDArray:
        """Return the slice `(across, up)` of a volume in a plane."""
        return volume[(slice(None),) * plane.through + (self.centre[plane.through],)]

    def cut(self, labels: NDArray | None, plane: Plane, values: Sequence[int]) -> NDArray[np.bool_]:
        """Return the mask of `values` in the slice `(across, up)` of a label map in a plane."""
        if labels is None:
            return np.zeros((self.image.shape[plane.across], self.image.shape[plane.up]), dtype=bool)
        return np.isin(self.slice(labels, plane), values)

    def lay_out(
        self, box: Box, limits: tuple[float, float], width_px: int
    ) -> tuple[Figure, list[tuple[Axes, Plane]]]:
        """Return a figure with the scan in each plane, labelled with directions and position in mm."""
        shape = self.image.shape
        planes = [plane for plane in PLANES if min(shape[plane.across], shape[plane.up]) > 1] or [PLANES[0]]
        figure, panels = lay_out(planes, box, self.spacing_mm, width_px)
        position_mm = apply_affine(self.affine, self.centre)
        for axes, plane in zip(panels, planes, strict=True):
            paint(axes, self.slice(self.image, plane), plane, self.spacing_mm, limits)
            if self.unit == "mm":
                annotate(axes, plane, position_text(plane, position_mm))
        return figure, list(zip(panels, planes, strict=True))

    def outline(self, axes: Axes, plane: Plane) -> None:
        """Draw the contours of every target: reference solid, prediction dashed on top."""
        for labels, dashed in ((self.reference, False), (self.prediction, True)):
            for name, values in self.targets.items():
                mask = self.cut(labels, plane, values)
                outline(axes, mask, plane, self.spacing_mm, self.colours[name], dashed=dashed)

    def _default_centre(self) -> Centre:
        truth = self._mask(self.reference)
        return largest_cross_sections(truth if truth.any() else self._mask(self.prediction))

    def _mask(self, labels: NDArray | None) -> NDArray[np.bool_]:
        return np.zeros(self.image.shape[:3], dtype=bool) if labels is None else np.isin(labels, self.values)


def _reorient(array: NDArray, affine: Affine) -> tuple[NDArray, Affine]:
    """Return an array `(I, J, K)` or `(I, J, K, colours)` in RAS+ orientation, and its affine."""
    if array.ndim == 3:
        reoriented, affine = to_ras(array[None], affine)
        return reoriented[0], affine
    reoriented, affine = to_ras(np.moveaxis(array, -1, 0), affine)
    return np.moveaxis(reoriented, 0, -1), affine


def _window_text(limits: tuple[float, float], view: View) -> str:
    low, high = limits
    if view.modality == "CT":
        return f"window {high - low:g}, level {(low + high) / 2:g} HU"
    return f"{'grey' if view.image.ndim == 3 else 'colours'} {low:.4g} to {high:.4g}"

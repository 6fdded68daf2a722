"""Still picture of where the networks of an ensemble disagree, deeper where more of them differ."""

import math

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from medunet.drawing.legend import Entry, Line, Swatch
from medunet.drawing.letters import name_targets
from medunet.drawing.marks import MAX_OUTLINED, mark_masks
from medunet.drawing.orthogonal import box_around, direction_marks, position_text
from medunet.drawing.palette import DISAGREEMENT, colour_targets, style_targets
from medunet.drawing.png import to_png
from medunet.drawing.scene import Scene, StillView, largest_cross_sections, of_plane
from medunet.drawing.sheet import Footer, Place, draw_sheet
from medunet.drawing.still import scale_planes, window_text

_MAX_LEVELS = 3
_FAINTEST, _DEEPEST = 100, 235  # of 255


def draw_disagreement(
    view: StillView, differing: NDArray[np.uint8], num_networks: int, *, plane_px: int = 440
) -> bytes:
    """Return a PNG of the planes with the most voxels on which networks differ, with the contours of the prediction.

    Args:
        view: the scan and the prediction.
        differing: how many networks differ from the mask's label, on the grid of the view; somewhere above 0.
        num_networks: of the ensemble.
        plane_px: as in `draw_still`.
    """
    scene = Scene(view)
    differing = scene.turn(differing)
    box = box_around(differing > 0, (0, 0, 0))
    crop, middle = scene.crop_to(box), largest_cross_sections(differing > 0)
    planes = scene.seen_planes()
    px_per_mm = scale_planes(planes, crop, scene.spacing_mm, plane_px)
    position_mm = apply_affine(scene.affine, middle)
    levels = _levels(int(differing.max()), num_networks)
    places = []
    for plane in planes:
        panel = scene.panel(plane, middle, crop, px_per_mm)
        cut = scene.cut(differing, plane, middle)
        for (low, high), opacity, _ in levels:
            inside = (cut >= low) & (cut <= high)
            panel.fill(inside, DISAGREEMENT, is_striped=False, opacity=opacity)
        if len(view.targets) <= MAX_OUTLINED:
            mark_masks(scene, panel, plane, middle, "contours", None)
        panel.add_locator(scene.cut(scene.image, plane, middle), view.preset, of_plane(plane, box))
        is_placed = view.unit == "mm"
        places.append(
            Place(panel, position_text(plane, position_mm), direction_marks(plane))
            if is_placed
            else Place(panel)
        )
    legend: list[Entry] = [
        Swatch(text, DISAGREEMENT, is_striped=False, opacity=opacity) for _, opacity, text in levels
    ]
    if len(view.targets) <= MAX_OUTLINED:
        names, colours = name_targets(view.targets), colour_targets(view.targets)
        styles = style_targets(view.targets)
        legend += [Line(names[name], colours[name], styles[name], is_broken=True) for name in view.targets]
    sheet = draw_sheet(
        [places],
        legend,
        heading="where the networks differ from the mask",
        footer=Footer(window_text(view), px_per_mm, view.unit),
    )
    return to_png(sheet)  # a palette would have too few of the tints that tell the levels apart


def _levels(most: int, num_networks: int) -> list[tuple[tuple[int, int], int, str]]:
    """Return up to three levels, up to `most` networks: their first and last number, opacity and text."""
    step = math.ceil(num_networks / _MAX_LEVELS)
    levels = []
    for low in range(1, most + 1, step):
        high = min(low + step - 1, num_networks)
        opacity = round(_FAINTEST + (_DEEPEST - _FAINTEST) * (low - 1) / max(num_networks - 1, 1))
        numbers = f"{low}" if low == high else f"{low} to {high}"
        levels.append(((low, high), opacity, f"{numbers} of {num_networks} differ"))
    return levels

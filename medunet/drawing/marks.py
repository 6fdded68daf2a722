"""What is drawn onto the planes of a scan: contours or errors of its masks, and the place of a finding."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from medunet.drawing.orthogonal import Plane, depth_text
from medunet.drawing.palette import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    INK,
    LINE_STYLES,
    colour_targets,
    style_targets,
)
from medunet.drawing.panel import Panel
from medunet.drawing.scene import Scene, StillView, of_plane
from medunet.records.finding import Finding, Voxel

Marks = Literal["contours", "errors"]

MAX_OUTLINED = len(LINE_STYLES)  # targets that can be told apart
THIN = LINE_STYLES[0]


def list_outlined(view: StillView, focus: Finding | None) -> list[str]:
    """Return the targets whose contours are drawn: all, or only that of the finding if there are more than six."""
    return [focus.target] if focus and len(view.targets) > MAX_OUTLINED else list(view.targets)


def mark_masks(
    scene: Scene, panel: Panel, plane: Plane, centre: Voxel, marks: Marks, focus: Finding | None
) -> None:
    """Draw the masks in a plane, as contours or as errors."""
    cuts = [
        None if labels is None else scene.cut(labels, plane, centre)
        for labels in (scene.reference, scene.prediction)
    ]
    empty = np.zeros((scene.shape[plane.across], scene.shape[plane.up]), dtype=bool)

    def masks(name: str) -> list[NDArray[np.bool_]]:
        return [empty if cut is None else np.isin(cut, scene.view.targets[name]) for cut in cuts]

    if marks == "contours":
        colours, styles = colour_targets(scene.view.targets), style_targets(scene.view.targets)
        pairs = {name: masks(name) for name in list_outlined(scene.view, focus)}
        for number, is_broken in enumerate((False, True)):
            for name, pair in pairs.items():
                panel.outline(pair[number], colours[name], styles[name], is_broken=is_broken)
        return
    names = [focus.target] if focus else list(scene.view.targets)
    pairs = {name: masks(name) for name in names}
    false_positive, false_negative = empty.copy(), empty.copy()
    for truth, found in pairs.values():
        false_positive |= found & ~truth
        false_negative |= truth & ~found
    if scene.view.ignore_value is not None and cuts[0] is not None:
        false_positive &= cuts[0] != scene.view.ignore_value
    panel.fill(false_positive, FALSE_POSITIVE, is_striped=False)
    panel.fill(false_negative, FALSE_NEGATIVE, is_striped=True)
    for number, is_broken in enumerate((False, True)):
        for pair in pairs.values():
            panel.outline(pair[number], INK, THIN, is_broken=is_broken)


def mark_finding(
    scene: Scene, panels: Sequence[Panel], planes: Sequence[Plane], centre: Voxel, finding: Finding
) -> str:
    """Draw a frame around a finding in every plane; of a surface distance the line in one of them.

    Returns what is to be said of the line: in which plane it is drawn, and where its other end lies.
    """
    end = scene.to_ras(finding.end)
    if end is None:
        for panel, plane in zip(panels, planes, strict=True):
            panel.bracket(of_plane(plane, scene.box_of(finding)))
        return ""

    def length_mm(plane: Plane) -> float:
        return math.hypot(*((end[a] - centre[a]) * scene.spacing_mm[a] for a in (plane.across, plane.up)))

    longest = max(planes, key=length_mm)
    for panel, plane in zip(panels, planes, strict=True):
        start = centre[plane.across], centre[plane.up]
        if plane is longest:
            text = f"{finding.length_mm:.1f} {scene.view.unit}"
            panel.mark_distance(start, (end[plane.across], end[plane.up]), text)
        else:
            panel.mark_voxel(start)
    if end[longest.through] == centre[longest.through]:
        return ""
    depth = depth_text(longest, apply_affine(scene.affine, end))
    return f", projected onto the {longest.name} plane: its other end (ring) lies at {depth}"

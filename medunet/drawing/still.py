"""Still pictures of a scan: three planes with contours of reference and prediction, or with the errors filled.

Planes are those of the scan's own grid, the ones closest to axial, coronal and sagittal: nothing is resampled, and
the picture does not depend on the orientation in which the scan is stored. A scan with a single slice is drawn in the
plane of that slice. In 2D pictures no directions are marked.
"""

from collections.abc import Iterable, Sequence

from nibabel.affines import apply_affine
from PIL import Image

from medunet.drawing.captions import caption
from medunet.drawing.legend import Entry, Line, Swatch, Text
from medunet.drawing.letters import name_targets
from medunet.drawing.marks import MAX_OUTLINED, THIN, Marks, list_outlined, mark_finding, mark_masks
from medunet.drawing.orthogonal import Box, Plane, direction_marks, position_text
from medunet.drawing.palette import FALSE_NEGATIVE, FALSE_POSITIVE, INK, colour_targets, style_targets
from medunet.drawing.png import reduce_colours, to_png
from medunet.drawing.scene import Scene, StillView, of_plane
from medunet.drawing.sheet import Footer, Place, draw_sheet
from medunet.records.finding import Finding, Voxel

_MAX_SIDE_PX = 1200
_ALONE = 1.7  # a single plane is larger


def draw_still(
    view: StillView,
    focus: Finding | None = None,
    *,
    marks: Marks = "contours",
    centre: Voxel | None = None,
    plane_px: int = 440,
    heading: str = "",
) -> bytes:
    """Return a PNG of the planes through a finding, cropped to it with a margin.

    All planes have the same scale. A surface distance is drawn in the plane in which it is longest, projected onto
    it; where its other end lies in another slice, the heading says in which.

    Args:
        view: what is drawn.
        focus: an error on the grid of the view. Without it, the whole planes through `centre` are drawn, by default
            through the largest cross-sections of all targets.
        marks: "contours": reference continuous and prediction broken, of every target, or only of that of the finding
            if there are more than six; "errors": false negative and false positive voxels filled, of the target of
            the finding or else of all targets.
        centre: voxel index that the planes pass through, without a finding.
        plane_px: the longer side of every plane has at least this many pixels (of a single plane 1.7 times as many),
            unless another would have more than 1200.
        heading: what stands above instead of what the finding is: its place is shown without its marks, for a mask
            that does not have it.
    """
    scene = Scene(view)
    middle = scene.to_ras(focus.centre if focus else centre) or scene.default_centre()
    box = scene.crop(focus) if focus else tuple((0, size) for size in scene.shape)
    planes = scene.seen_planes()
    px_per_mm = scale_planes(planes, box, scene.spacing_mm, plane_px)
    panels = [scene.panel(plane, middle, box, px_per_mm) for plane in planes]
    position_mm = apply_affine(scene.affine, middle)
    for plane, panel in zip(planes, panels, strict=True):
        mark_masks(scene, panel, plane, middle, marks, focus)
    if focus:
        if not heading:
            heading = caption(focus, view.unit, name_targets(view.targets)[focus.target], view.noun)
            heading += mark_finding(scene, panels, planes, middle, focus)
        for panel, plane in zip(panels, planes, strict=True):
            whole = scene.cut(scene.image, plane, middle)
            panel.add_locator(whole, view.preset, of_plane(plane, scene.box_of(focus)))
    places = [
        Place(panel, position_text(plane, position_mm), direction_marks(plane))
        if view.unit == "mm"
        else Place(panel)
        for panel, plane in zip(panels, planes, strict=True)
    ]
    legend = _legend(view, marks, list_outlined(view, focus))
    sheet = draw_sheet(
        [places],
        legend,
        heading=heading,
        footer=Footer(window_text(view), px_per_mm, view.unit),
    )
    return _encode(sheet, view, _colours(legend))


def draw_thumbnail(view: StillView, focus: Finding | None = None, *, side_px: int = 144) -> bytes:
    """Return a square PNG without texts of the axial plane, cropped to the finding or to all targets."""
    scene = Scene(view)
    middle = scene.to_ras(focus.centre if focus else None) or scene.default_centre()
    box = scene.crop(focus) if focus else scene.crop_to_masks()
    plane = scene.seen_planes()[0]
    sides_mm = [(box[a][1] - box[a][0]) * scene.spacing_mm[a] for a in (plane.across, plane.up)]
    panel = scene.panel(plane, middle, box, side_px / max(sides_mm))
    mark_masks(scene, panel, plane, middle, "contours", focus)
    square = Image.new("RGB", (side_px, side_px), "black")
    square.paste(panel.finish(), ((side_px - panel.size[0]) // 2, (side_px - panel.size[1]) // 2))
    return _encode(square, view, colour_targets(view.targets).values())


def window_text(view: StillView) -> str:
    """Return the name and the limits of the window, as level and width for CT."""
    low, high = view.preset.low, view.preset.high
    if view.modality == "CT":
        return f"{view.preset.name} window: level {(low + high) / 2:g}, width {high - low:g} HU"
    return (
        f"{view.preset.name} window: {'grey' if view.image.ndim == 3 else 'colours'} {low:.4g} to {high:.4g}"
    )


def scale_planes(planes: Sequence[Plane], box: Box, spacing_mm: Sequence[float], plane_px: int) -> float:
    """Return the pixels per mm with which the longer side of every plane has at least `plane_px`.

    A single plane has 1.7 times as many; no plane has more than 1200.
    """
    if len(planes) == 1:
        plane_px = round(plane_px * _ALONE)
    sides_mm = [(end - first) * step for (first, end), step in zip(box, spacing_mm, strict=True)]
    longer_mm = [max(sides_mm[plane.across], sides_mm[plane.up]) for plane in planes]
    return min(plane_px / min(longer_mm), _MAX_SIDE_PX / max(longer_mm))


def _encode(picture: Image.Image, view: StillView, colours: Iterable[str]) -> bytes:
    """Return a picture as PNG, with a palette unless the scan is in colour."""
    return to_png(picture if view.image.ndim == 4 else reduce_colours(picture, colours))


def _colours(legend: Sequence[Entry]) -> list[str]:
    return [entry.colour for entry in legend if not isinstance(entry, Text)]


def _legend(view: StillView, marks: Marks, outlined: Sequence[str]) -> list[Entry]:
    entries: list[Entry] = []
    if marks == "contours":
        names = name_targets(view.targets)
        colours, styles = colour_targets(view.targets), style_targets(view.targets)
        entries += [Line(names[name], colours[name], styles[name]) for name in outlined[:MAX_OUTLINED]]
        if len(outlined) > MAX_OUTLINED:
            entries.append(Text(f"and {len(outlined) - MAX_OUTLINED} more"))
    else:
        entries += [
            Swatch("false negative", FALSE_NEGATIVE, is_striped=True),
            Swatch("false positive", FALSE_POSITIVE, is_striped=False),
        ]
    if view.reference is not None:
        entries.append(Line("reference", INK, THIN))
    if view.prediction is not None:
        entries.append(Line("prediction", INK, THIN, is_broken=True))
    return entries

"""Still pictures of a scan: three planes with contours of reference and prediction, or with the errors filled.

Planes are those of the scan's own grid, the ones closest to axial, coronal and sagittal: nothing is resampled, and
the picture does not depend on the orientation in which the scan is stored. A scan with a single slice is drawn in the
plane of that slice. In 2D pictures no directions are marked.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray
from PIL import Image

from medunet.drawing.captions import caption
from medunet.drawing.legend import Entry, Line, Swatch, Text
from medunet.drawing.letters import name_targets
from medunet.drawing.orthogonal import (
    PLANES,
    Box,
    Plane,
    box_around,
    depth_text,
    direction_marks,
    position_text,
)
from medunet.drawing.palette import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    INK,
    LINE_STYLES,
    colour_targets,
    style_targets,
)
from medunet.drawing.panel import Panel, Span
from medunet.drawing.png import reduce_colours, to_png
from medunet.drawing.presets import Preset
from medunet.drawing.sheet import Footer, Place, draw_sheet
from medunet.imaging.geometry import Affine, spacing_of
from medunet.imaging.orientation import to_ras
from medunet.records.finding import Finding, Voxel

Unit = Literal["mm", "px"]  # px: a 2D picture without position in a patient
Marks = Literal["contours", "errors"]

_MARGIN_MM, _MIN_SIDE_MM = 15.0, 60.0  # around what is shown
_MARGIN_VOXELS, _MIN_SIDE_VOXELS = (4, 40), (24, 120)  # limits of both, in the smallest spacing
_MAX_ELONGATION = 1.6
_MAX_SIDE_PX = 1200
_ALONE = 1.7  # a single plane is larger
_MAX_COMPARED = 8  # label values; np.isin is faster for more
_MAX_OUTLINED = len(LINE_STYLES)  # targets that can be told apart
_THIN = LINE_STYLES[0]


@dataclass(frozen=True)
class StillView:
    """A scan with the label maps on its grid, and how it is shown.

    With all targets of a dataset, in its order, a target has the same colour and line in every picture of a case.
    """

    image: NDArray  # (I, J, K) in any orientation, or (I, J, K, 3) in colour
    affine: Affine  # from voxel index to RAS+ mm
    targets: Mapping[str, tuple[int, ...]]  # target name -> its label values; their order decides the colours
    preset: Preset  # the window
    modality: str = "CT"  # decides how the window is printed: level and width in HU, or from and to
    reference: NDArray | None = None
    prediction: NDArray | None = None
    unit: Unit = "mm"
    ignore_value: int | None = None  # voxels of the reference with it are neither right nor wrong


def draw_still(
    view: StillView,
    focus: Finding | None = None,
    *,
    marks: Marks = "contours",
    centre: Voxel | None = None,
    plane_px: int = 440,
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
    """
    scene = _Scene(view)
    middle = scene.to_ras(focus.centre if focus else centre) or scene.default_centre()
    box = scene.crop(focus) if focus else tuple((0, size) for size in scene.shape)
    planes = scene.seen_planes()
    if len(planes) == 1:
        plane_px = round(plane_px * _ALONE)
    px_per_mm = _scale(planes, box, scene.spacing_mm, plane_px)
    panels = [scene.panel(plane, middle, box, px_per_mm) for plane in planes]
    position_mm = apply_affine(scene.affine, middle)
    for plane, panel in zip(planes, panels, strict=True):
        scene.mark(panel, plane, middle, marks, focus)
    heading = ""
    if focus:
        heading = caption(focus, view.unit, name_targets(view.targets)[focus.target])
        heading += scene.mark_finding(panels, planes, middle, focus)
        for panel, plane in zip(panels, planes, strict=True):
            scene.locate(panel, plane, middle, focus)
    places = [
        Place(panel, position_text(plane, position_mm), direction_marks(plane))
        if view.unit == "mm"
        else Place(panel)
        for panel, plane in zip(panels, planes, strict=True)
    ]
    legend = _legend(view, marks, _outlined(view, focus))
    sheet = draw_sheet(
        [places],
        legend,
        heading=heading,
        footer=Footer(window_text(view), px_per_mm, view.unit),
    )
    return _encode(sheet, view, _colours(legend))


def draw_thumbnail(view: StillView, focus: Finding | None = None, *, side_px: int = 144) -> bytes:
    """Return a square PNG without texts of the axial plane, cropped to the finding or to all targets."""
    scene = _Scene(view)
    middle = scene.to_ras(focus.centre if focus else None) or scene.default_centre()
    box = scene.crop(focus) if focus else scene.crop_to_masks()
    plane = scene.seen_planes()[0]
    sides_mm = [(box[a][1] - box[a][0]) * scene.spacing_mm[a] for a in (plane.across, plane.up)]
    panel = scene.panel(plane, middle, box, side_px / max(sides_mm))
    scene.mark(panel, plane, middle, "contours", focus)
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


def largest_cross_sections(mask: NDArray) -> Voxel:
    """Return, for each axis of a mask `(I, J, K)`, the index of the slice with the most voxels.

    If several slices are equal, the middle one is returned; if the mask is empty, the centre of the volume.
    """
    indices = []
    for axis in range(3):
        area = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
        largest = np.flatnonzero(area == area.max())
        indices.append(int(largest[len(largest) // 2]))
    return indices[0], indices[1], indices[2]


class _Scene:
    """A scan with its label maps in RAS+ orientation."""

    def __init__(self, view: StillView) -> None:
        for name, labels in (("reference", view.reference), ("prediction", view.prediction)):
            if labels is not None and labels.shape != view.image.shape[:3]:
                raise AssertionError(f"{name} shape {labels.shape} is not the scan's {view.image.shape[:3]}")
        self.view = view
        self.image, self.affine = _reorient(view.image, view.affine)
        self.reference, self.prediction = (
            None if labels is None else _reorient(labels, view.affine)[0]
            for labels in (view.reference, view.prediction)
        )
        self.shape = self.image.shape[:3]
        self.spacing_mm = spacing_of(self.affine)
        self._from_given = np.linalg.inv(self.affine) @ view.affine
        self._colours, self._styles = colour_targets(view.targets), style_targets(view.targets)

    def to_ras(self, voxel: Voxel | None) -> Voxel | None:
        """Return a voxel of the given arrays in RAS+ orientation."""
        if voxel is None:
            return None
        i, j, k = np.rint(apply_affine(self._from_given, voxel)).astype(int).tolist()
        return i, j, k

    def default_centre(self) -> Voxel:
        """Return the largest cross-sections of all targets in the reference, or in the prediction without it."""
        for labels in (self.reference, self.prediction):
            if (mask := self._all_targets(labels)).any():
                return largest_cross_sections(mask)
        i, j, k = (size // 2 for size in self.shape)
        return i, j, k

    def box_of(self, finding: Finding) -> Box:
        """Return the box of a finding in RAS+ orientation."""
        corners = np.array([[low for low, _ in finding.box], [end - 1 for _, end in finding.box]])
        turned = np.rint(apply_affine(self._from_given, corners)).astype(int)
        low, high = turned.min(axis=0).tolist(), turned.max(axis=0).tolist()
        return tuple((first, last + 1) for first, last in zip(low, high, strict=True))

    def crop(self, finding: Finding) -> Box:
        """Return the box to show around a finding: with a margin, not much longer than wide, within the grid."""
        return self._widen(self.box_of(finding))

    def crop_to_masks(self) -> Box:
        """Return the box to show around all targets; the whole grid if there are none."""
        mask = self._all_targets(self.reference) | self._all_targets(self.prediction)
        return self._widen(box_around(mask, (0, 0, 0))) if mask.any() else tuple((0, n) for n in self.shape)

    def _widen(self, box: Box) -> Box:
        finest = min(self.spacing_mm)
        margin, least = (
            min(max(length, low * finest), high * finest)
            for length, (low, high) in ((_MARGIN_MM, _MARGIN_VOXELS), (_MIN_SIDE_MM, _MIN_SIDE_VOXELS))
        )
        lengths = [
            (end - first) * step + 2 * margin for (first, end), step in zip(box, self.spacing_mm, strict=True)
        ]
        least = max(least, max(lengths) / _MAX_ELONGATION)
        wide = []
        for (first, end), step, length, size in zip(box, self.spacing_mm, lengths, self.shape, strict=True):
            extra = math.ceil((max(length, least) / step - (end - first)) / 2)
            low, high = first - extra, end + extra
            low, high = low - max(0, high - size), high + max(0, -low)  # moved away from the border
            wide.append((max(0, low), min(size, high)))
        return tuple(wide)

    def seen_planes(self) -> list[Plane]:
        """Return the planes in which the scan is more than one voxel wide."""
        return [plane for plane in PLANES if min(self.shape[plane.across], self.shape[plane.up]) > 1] or [
            PLANES[0]
        ]

    def panel(self, plane: Plane, centre: Voxel, box: Box, px_per_mm: float) -> Panel:
        """Return the picture of a plane."""
        return Panel(
            self._slice(self.image, plane, centre),
            _of_plane(plane, box),
            (self.spacing_mm[plane.across], self.spacing_mm[plane.up]),
            px_per_mm,
            self.view.preset,
        )

    def mark(self, panel: Panel, plane: Plane, centre: Voxel, marks: Marks, focus: Finding | None) -> None:
        """Draw the masks in a plane, as contours or as errors."""
        cuts = [
            None if labels is None else self._slice(labels, plane, centre)
            for labels in (self.reference, self.prediction)
        ]
        empty = np.zeros((self.shape[plane.across], self.shape[plane.up]), dtype=bool)

        def masks(name: str) -> list[NDArray[np.bool_]]:
            return [empty if cut is None else np.isin(cut, self.view.targets[name]) for cut in cuts]

        if marks == "contours":
            pairs = {name: masks(name) for name in _outlined(self.view, focus)}
            for number, is_broken in enumerate((False, True)):
                for name, pair in pairs.items():
                    panel.outline(pair[number], self._colours[name], self._styles[name], is_broken=is_broken)
            return
        names = [focus.target] if focus else list(self.view.targets)
        pairs = {name: masks(name) for name in names}
        false_positive, false_negative = empty.copy(), empty.copy()
        for truth, found in pairs.values():
            false_positive |= found & ~truth
            false_negative |= truth & ~found
        if self.view.ignore_value is not None and cuts[0] is not None:
            false_positive &= cuts[0] != self.view.ignore_value
        panel.fill(false_positive, FALSE_POSITIVE, is_striped=False)
        panel.fill(false_negative, FALSE_NEGATIVE, is_striped=True)
        for number, is_broken in enumerate((False, True)):
            for pair in pairs.values():
                panel.outline(pair[number], INK, _THIN, is_broken=is_broken)

    def locate(self, panel: Panel, plane: Plane, centre: Voxel, finding: Finding) -> None:
        """Show where in the whole slice a panel lies."""
        whole = self._slice(self.image, plane, centre)
        panel.add_locator(whole, self.view.preset, _of_plane(plane, self.box_of(finding)))

    def mark_finding(
        self, panels: Sequence[Panel], planes: Sequence[Plane], centre: Voxel, finding: Finding
    ) -> str:
        """Draw a frame around a finding in every plane; of a surface distance the line in one of them.

        Returns what is to be said of the line: in which plane it is drawn, and where its other end lies.
        """
        end = self.to_ras(finding.end)
        if end is None:
            for panel, plane in zip(panels, planes, strict=True):
                panel.bracket(_of_plane(plane, self.box_of(finding)))
            return ""

        def length_mm(plane: Plane) -> float:
            return math.hypot(*((end[a] - centre[a]) * self.spacing_mm[a] for a in (plane.across, plane.up)))

        longest = max(planes, key=length_mm)
        for panel, plane in zip(panels, planes, strict=True):
            start = centre[plane.across], centre[plane.up]
            if plane is longest:
                text = f"{finding.length_mm:.1f} {self.view.unit}"
                panel.mark_distance(start, (end[plane.across], end[plane.up]), text)
            else:
                panel.mark_voxel(start)
        if end[longest.through] == centre[longest.through]:
            return ""
        depth = depth_text(longest, apply_affine(self.affine, end))
        return f", projected onto the {longest.name} plane: its other end (ring) lies at {depth}"

    def _slice(self, volume: NDArray, plane: Plane, centre: Voxel) -> NDArray:
        return volume[(slice(None),) * plane.through + (centre[plane.through],)]

    def _all_targets(self, labels: NDArray | None) -> NDArray[np.bool_]:
        if labels is None:
            return np.zeros(self.shape, dtype=bool)
        values = sorted({value for united in self.view.targets.values() for value in united})
        if len(values) > _MAX_COMPARED:
            return np.isin(labels, values)
        mask = np.zeros_like(labels, dtype=bool)  # in the memory order of the labels, unlike that of np.isin
        for value in values:
            mask |= labels == value
        return mask


def _of_plane(plane: Plane, box: Box) -> tuple[Span, Span]:
    return box[plane.across], box[plane.up]


def _scale(planes: Sequence[Plane], box: Box, spacing_mm: Sequence[float], plane_px: int) -> float:
    """Return the pixels per mm with which the longer side of every plane has at least `plane_px`."""
    sides_mm = [(end - first) * step for (first, end), step in zip(box, spacing_mm, strict=True)]
    longer_mm = [max(sides_mm[plane.across], sides_mm[plane.up]) for plane in planes]
    return min(plane_px / min(longer_mm), _MAX_SIDE_PX / max(longer_mm))


def _encode(picture: Image.Image, view: StillView, colours: Iterable[str]) -> bytes:
    """Return a picture as PNG, with a palette unless the scan is in colour."""
    return to_png(picture if view.image.ndim == 4 else reduce_colours(picture, colours))


def _colours(legend: Sequence[Entry]) -> list[str]:
    return [entry.colour for entry in legend if not isinstance(entry, Text)]


def _outlined(view: StillView, focus: Finding | None) -> list[str]:
    """Return the targets whose contours are drawn."""
    return [focus.target] if focus and len(view.targets) > _MAX_OUTLINED else list(view.targets)


def _legend(view: StillView, marks: Marks, outlined: Sequence[str]) -> list[Entry]:
    entries: list[Entry] = []
    if marks == "contours":
        names = name_targets(view.targets)
        colours, styles = colour_targets(view.targets), style_targets(view.targets)
        entries += [Line(names[name], colours[name], styles[name]) for name in outlined[:_MAX_OUTLINED]]
        if len(outlined) > _MAX_OUTLINED:
            entries.append(Text(f"and {len(outlined) - _MAX_OUTLINED} more"))
    else:
        entries += [
            Swatch("false negative", FALSE_NEGATIVE, is_striped=True),
            Swatch("false positive", FALSE_POSITIVE, is_striped=False),
        ]
    if view.reference is not None:
        entries.append(Line("reference", INK, _THIN))
    if view.prediction is not None:
        entries.append(Line("prediction", INK, _THIN, is_broken=True))
    return entries


def _reorient(array: NDArray, affine: Affine) -> tuple[NDArray, Affine]:
    """Return an array `(I, J, K)` or `(I, J, K, colours)` in RAS+ orientation, and its affine."""
    if array.ndim == 3:
        reoriented, affine = to_ras(array[None], affine)
        return reoriented[0], affine
    reoriented, affine = to_ras(np.moveaxis(array, -1, 0), affine)
    return np.moveaxis(reoriented, 0, -1), affine

"""Still pictures of a scan: three planes with contours of reference and prediction, or with the errors filled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from numpy.typing import NDArray

from medunet.drawing.figures import View, draw_errors, draw_planes, figure_png
from medunet.drawing.figures import draw_thumbnail as draw_small
from medunet.drawing.presets import Preset
from medunet.imaging.geometry import Affine
from medunet.records.finding import Finding, Voxel

Unit = Literal["mm", "px"]  # px: a 2D picture without position in a patient
Marks = Literal["contours", "errors"]


@dataclass(frozen=True)
class StillView:
    """A scan with the label maps on its grid, and how it is shown."""

    image: NDArray  # (I, J, K) in any orientation, or (I, J, K, 3) in colour
    affine: Affine  # from voxel index to RAS+ mm
    targets: Mapping[
        str, tuple[int, ...]
    ]  # target name -> its label values; their order determines the colours
    preset: Preset  # the window
    modality: str = "CT"  # decides how the window is printed: level and width in HU, or from and to
    reference: NDArray | None = None
    prediction: NDArray | None = None
    unit: Unit = "mm"


def draw_still(
    view: StillView,
    focus: Finding | None = None,
    *,
    marks: Marks = "contours",
    centre: Voxel | None = None,
    plane_px: int = 440,
) -> bytes:
    """Return a PNG of the planes through a finding, cropped to it with a margin.

    Args:
        view: what is drawn.
        focus: an error on the grid of the view. Without it, the whole planes through `centre` are drawn, by default
            through the largest cross-sections of all targets.
        marks: "contours": reference continuous and prediction broken, of every target; "errors": false negative and
            false positive voxels filled (of the target of the finding, or of all targets).
        centre: voxel index that the planes pass through, without a finding.
        plane_px: the longer side of the largest plane in pixels, 400 or more.
    """
    place = focus.centre if focus else centre
    old = View(
        view.image, view.affine, view.targets, view.reference, view.prediction, place, view.modality,
        ((view.preset.low + view.preset.high) / 2, view.preset.high - view.preset.low), view.unit,
    )  # fmt: skip
    return figure_png((draw_planes if marks == "contours" else draw_errors)(old, width_px=3 * plane_px))


def draw_thumbnail(view: StillView, focus: Finding | None = None, *, side_px: int = 144) -> bytes:
    """Return a square PNG without labels of the axial plane, cropped to the finding or to all targets."""
    old = View(
        view.image, view.affine, view.targets, view.reference, view.prediction, focus.centre if focus else None, view.modality,
        ((view.preset.low + view.preset.high) / 2, view.preset.high - view.preset.low), view.unit,
    )  # fmt: skip
    return figure_png(draw_small(old, width_px=side_px))

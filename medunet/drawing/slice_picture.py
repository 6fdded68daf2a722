"""Picture of a validated case for TensorBoard: slices of image, reference and prediction with contours and legend."""

from collections.abc import Mapping

import numpy as np
from PIL import Image

from medunet.drawing.legend import Line
from medunet.drawing.letters import name_targets
from medunet.drawing.palette import colour_targets, style_targets
from medunet.drawing.panel import Panel
from medunet.drawing.png import reduce_colours
from medunet.drawing.presets import Preset
from medunet.drawing.sheet import Place, draw_sheet
from medunet.drawing.slices import Slices

_SIDE_PX, _SIDE_ALONE_PX = 400, 640  # the longer side of a slice, and of a single slice
_NARROWEST_PX = 110  # room for the title of a column
_TEXT_PX = 16  # larger in wide pictures, which TensorBoard shows at a third of their size


def draw_slices(slices: Slices, targets: Mapping[str, tuple[int, ...]], title: str) -> Image.Image:
    """Draw a row for each slice: image, reference and prediction, with masks as contours and a legend below.

    The orientation is radiological: the patient's right on the left, anterior or superior on top; 2D pictures keep
    their orientation. Equal positions are drawn once. The picture has a palette, and its lines are not smoothed:
    drawing and compressing it take much less time than a training step.
    """
    low, high = (float(bound) for bound in np.percentile(slices.image, [0.5, 99.5]))
    preset = Preset("", low, max(high, low + 1e-6))
    distinct = [slices.positions.index(position) for position in dict.fromkeys(slices.positions)]
    sizes_mm = [n * step for n, step in zip(slices.image.shape[1:], slices.spacing_mm, strict=True)]
    px_per_mm = (_SIDE_PX if len(distinct) > 1 else _SIDE_ALONE_PX) / max(sizes_mm)
    spans = (0, slices.image.shape[1]), (0, slices.image.shape[2])
    colours, styles = colour_targets(targets), style_targets(targets)
    rows = []
    for number in distinct:
        plain = Panel(slices.image[number], spans, slices.spacing_mm, px_per_mm, preset, over=1)
        panels = [plain]
        for labels in (slices.label[number], slices.prediction[number]):
            panel = plain.copy()
            for target, values in targets.items():
                panel.outline(np.isin(labels, values), colours[target], styles[target], is_broken=False)
            panels.append(panel)
        titles = ("image", "reference", "prediction") if number == distinct[0] else ("", "", "")
        rows.append(
            [Place(panel, name, least_px=_NARROWEST_PX) for panel, name in zip(panels, titles, strict=True)]
        )
    names = name_targets(targets)
    legend = [Line(names[target], colour, styles[target]) for target, colour in colours.items()]
    text_px = max(_TEXT_PX, sum(panel.size[0] for panel in panels) // 40)
    return reduce_colours(draw_sheet(rows, legend, heading=title, text_px=text_px), colours.values())

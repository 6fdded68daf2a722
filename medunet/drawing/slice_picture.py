"""Picture of a validated case for TensorBoard: slices of image, reference and prediction with contours and legend."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from medunet.drawing.palette import TARGET_COLOURS
from medunet.drawing.slices import Slices

_SIDE, _SIDE_ALONE = 320, 640  # pixels of the longer side of a slice, and of a single slice
_NARROWEST = 96  # minimum width of a column in pixels, so that its title fits
_GAP = 4  # pixels between pictures
_FONT_SIZE = 16  # pixels; larger in wide pictures, which TensorBoard shows at a third of their size
_GREYS = 128  # grey levels of the palette, followed by the colours of the targets
_WHITE = _GREYS - 1


def draw_slices(slices: Slices, targets: Mapping[str, tuple[int, ...]], title: str) -> Image.Image:
    """Draw a row for each slice: image, reference and prediction, with masks as contours and a legend below.

    The orientation is radiological: the patient's right on the left, anterior or superior on top; 2D pictures keep
    their orientation. Equal positions are drawn once. The picture consists of palette indices, made by array
    operations: drawing with matplotlib would take as long as a training step, and compressing RGB three times as
    long.
    """
    low, high = np.percentile(slices.image, [0.5, 99.5])
    greys = ((slices.image - low) * (_WHITE / max(high - low, 1e-6))).clip(0, _WHITE).astype(np.uint8)
    distinct = [slices.positions.index(position) for position in dict.fromkeys(slices.positions)]
    side = _SIDE if len(distinct) > 1 else _SIDE_ALONE
    rows = []
    for number in distinct:
        plain = _enlarge(greys[number], slices.spacing_mm, side)
        panels = [plain]
        for mask in (slices.label[number], slices.prediction[number]):
            panel = plain.copy()
            for target, values in enumerate(targets.values()):
                inside = _enlarge(np.isin(mask, values), slices.spacing_mm, side)
                panel[inside & ~ndimage.binary_erosion(inside, iterations=2)] = _colour(target)
            panels.append(panel)
        rows.append(np.hstack([_frame(panel) for panel in panels]))
    return _annotate(np.vstack(rows), title, targets)


def _enlarge(array: NDArray[Any], spacing_mm: tuple[float, float], side: int) -> NDArray[Any]:
    """Rotate a slice to radiological orientation and enlarge it to the same scale in mm in both directions."""
    size_mm = np.array(array.shape) * spacing_mm
    size = np.maximum(1, np.round(side * size_mm / size_mm.max())).astype(int)
    index = [np.arange(n) * length // n for n, length in zip(size, array.shape, strict=True)]
    return array[::-1, ::-1][np.ix_(*index)].T


def _frame(panel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(panel, ((0, _GAP), (0, max(0, _NARROWEST - panel.shape[1]) + _GAP)))


def _colour(target: int) -> int:
    """Return the palette index of a target's colour."""
    return _GREYS + target % len(TARGET_COLOURS)


def _annotate(panels: NDArray[np.uint8], title: str, names: Collection[str]) -> Image.Image:
    """Add the title and the names of the columns above, the names of the targets below, and the palette."""
    width = panels.shape[1]
    font_size = max(_FONT_SIZE, width // 40)
    font, line = ImageFont.load_default(font_size), font_size * 11 // 8
    positions: list[tuple[float, int]] = []
    x, y = float(_GAP), 2 * line + len(panels)
    for name in names:
        entry_width = line + font.getlength(name) + 2 * _GAP
        if x > _GAP and x + entry_width > width:
            x, y = float(_GAP), y + line
        positions.append((x, y))
        x += entry_width
    picture = Image.fromarray(np.pad(panels, ((2 * line, y - len(panels) - line), (0, 0))))
    pen = ImageDraw.Draw(picture)
    pen.text((_GAP, 0), title, _WHITE, font)
    for number, column in enumerate(("image", "reference", "prediction")):
        pen.text((_GAP + number * width // 3, line), column, _WHITE, font)
    for number, (name, (x, y)) in enumerate(zip(names, positions, strict=True)):
        pen.rectangle((x, y + font_size // 4, x + font_size * 3 // 4, y + font_size), _colour(number))
        pen.text((x + line, y), name, _WHITE, font)
    colours = [round(255 * part) for colour in TARGET_COLOURS for part in to_rgb(colour)]
    picture.putpalette([255 * grey // _WHITE for grey in range(_GREYS) for _ in range(3)] + colours)
    return picture

"""A validated case as one picture: slices of image, reference and prediction with contours, and what they mean."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from medunet.drawing.figures import TARGET_COLOURS
from medunet.drawing.slices import Slices

_SIDE, _SIDE_ALONE = 320, 640  # pixels of a slice's longer side; of a case's only one
_NARROWEST = 96  # pixels of a column: its title must fit
_GAP = 4  # pixels between pictures
_LETTERS = 16  # pixels; more in wide pictures, which TensorBoard shows at a third of their size
_GREYS = 128  # of the palette; the targets' colours follow
_WHITE = _GREYS - 1


def draw_slices(slices: Slices, targets: Mapping[str, tuple[int, ...]], title: str) -> Image.Image:
    """Draw a row for each slice: image, reference, prediction, the masks as contours; the colours' names below.

    As radiologists look at it: the patient's right on the left, anterior or superior on top; a flat picture as it
    stands. Equal positions are drawn once. Made by array operations on palette indices: a figure would take as long
    as a training step, and colours three times as long to pack.
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
    """Turn a slice upright and repeat its pixels, so that a mm is as long in both directions."""
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
    """Add the title and the columns' names above, the targets' names below, and the palette."""
    width = panels.shape[1]
    letters = max(_LETTERS, width // 40)
    font, line = ImageFont.load_default(letters), letters * 11 // 8
    places: list[tuple[float, int]] = []
    x, y = float(_GAP), 2 * line + len(panels)
    for name in names:
        wide = line + font.getlength(name) + 2 * _GAP
        if x > _GAP and x + wide > width:
            x, y = float(_GAP), y + line
        places.append((x, y))
        x += wide
    picture = Image.fromarray(np.pad(panels, ((2 * line, y - len(panels) - line), (0, 0))))
    pen = ImageDraw.Draw(picture)
    pen.text((_GAP, 0), title, _WHITE, font)
    for number, column in enumerate(("image", "reference", "prediction")):
        pen.text((_GAP + number * width // 3, line), column, _WHITE, font)
    for number, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        pen.rectangle((x, y + letters // 4, x + letters * 3 // 4, y + letters), _colour(number))
        pen.text((x + line, y), name, _WHITE, font)
    colours = [round(255 * part) for colour in TARGET_COLOURS for part in to_rgb(colour)]
    picture.putpalette([255 * grey // _WHITE for grey in range(_GREYS) for _ in range(3)] + colours)
    return picture

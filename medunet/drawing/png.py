"""Pictures as small PNG files."""

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from medunet.drawing.palette import to_rgb

_NUM_GREYS = 96  # of the 256 entries of the palette
_COMPRESSION = 6  # 12% less than 4 for 40 ms more a still; 9 takes three times as long for 2% less


def reduce_colours(picture: Image.Image, colours: Iterable[str]) -> Image.Image:
    """Return a picture that is grey but for these colours with a palette: a third of the size of one in RGB.

    The palette has greys, and of each colour its shades towards black and its tints on grey.
    """
    distinct = dict.fromkeys(colours)
    greys = np.linspace(0, 255, _NUM_GREYS)
    entries = [np.repeat(greys[:, None], 3, axis=1)]
    room = (256 - _NUM_GREYS) // max(1, len(distinct))
    for colour in distinct:
        full = np.array(to_rgb(colour), dtype=float)
        shades = np.arange(1, room // 2 + 1)[:, None] / (room // 2)
        below = np.linspace(0, 255, room - room // 2)[:, None]
        entries += [full * shades, (full + below) / 2]
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate(entries).round().astype(np.uint8).ravel().tolist())
    return picture.quantize(palette=palette, dither=Image.Dither.NONE)


def to_png(picture: Image.Image) -> bytes:
    """Return a picture as PNG; the same picture gives the same bytes."""
    stream = io.BytesIO()
    picture.save(stream, "PNG", compress_level=_COMPRESSION)
    return stream.getvalue()

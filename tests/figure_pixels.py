"""What a figure looks like, for tests that look at it."""

import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from medunet.drawing.figures import figure_png


def figure_array(figure: Figure) -> NDArray[np.uint8]:
    """Return a figure as RGB pixels (height, width, 3), top row first."""
    return np.asarray(Image.open(io.BytesIO(figure_png(figure))).convert("RGB"))

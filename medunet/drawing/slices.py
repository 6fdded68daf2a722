"""Slices of a validated case, from which its picture is drawn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Slices:
    """Three slices perpendicular to one axis: image, reference and prediction, each `(3, rows, columns)`."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    positions: tuple[int, ...]
    spacing_mm: tuple[float, float]

"""A label map of a liver with a tumour in it, and what its scores need."""

import math

import numpy as np

TARGETS = {"liver": (1, 2), "tumour": (2,)}
AFFINE = np.diag([2.0, 1.0, 5.0, 1.0])
SPACING_MM = (2.0, 1.0, 5.0)
DIAGONAL_MM = math.sqrt(16**2 + 9**2 + 35**2)  # 8 × 9 × 7 voxels of 2 × 1 × 5 mm


def draw_labels() -> np.ndarray:
    """Return 60 voxels of liver (1), among them 4 of tumour (2)."""
    array = np.zeros((8, 9, 7), dtype=np.uint8)
    array[2:6, 2:7, 2:5] = 1
    array[3:5, 3:5, 3] = 2
    return array

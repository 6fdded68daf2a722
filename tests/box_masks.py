"""Masks made of boxes, whose lesions are counted by hand."""

import numpy as np

SHAPE = (13, 14, 31)
MILLIMETRE = (1.0, 1.0, 1.0)


def mask_of(*boxes: tuple[slice | int, ...], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return a mask that is set in each box."""
    mask = np.zeros(shape, dtype=bool)
    for box in boxes:
        mask[box] = True
    return mask

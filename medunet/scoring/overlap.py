"""Overlap of two masks: how many voxels they share, and the ratios that follow.

A ratio of nothing to nothing is undefined, NaN: with two empty masks that is Dice, IoU, F1, precision and
recall; with an empty prediction alone precision; with an empty reference alone recall.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Confusion:
    """Voxels of a grid by what the reference and the prediction say of them."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        """Twice the shared voxels over the sum of both masks; F1 is another name for it."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """Intersection over union, the Jaccard index."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the prediction that is right."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the reference that is found: sensitivity."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """Share of the background that is left alone; grows with the field of view."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def accuracy(self) -> float:
        """Share of all voxels that are right; grows with the field of view."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)


def count_confusion(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> Confusion:
    """Count the voxels of two boolean masks of one shape."""
    tp = int(np.count_nonzero(reference & prediction))
    fp = int(np.count_nonzero(prediction)) - tp
    fn = int(np.count_nonzero(reference)) - tp
    return Confusion(tp, fp, fn, reference.size - tp - fp - fn)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan

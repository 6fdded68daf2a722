"""Overlap of two masks: how many voxels they share, and the ratios that follow.

A ratio of nothing to nothing is undefined, NaN: with two empty masks that is Dice, IoU, F1, precision and
recall; with an empty prediction alone precision; with an empty reference alone recall.
"""

import math
from dataclasses import dataclass

import numpy as np

from medunet.scoring.bits import Bits


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

    def f_beta(self, beta: float) -> float:
        """Precision and recall in one, recall counting `beta` times as much: F1 is Dice."""
        weight = beta * beta
        return _ratio((1 + weight) * self.tp, (1 + weight) * self.tp + weight * self.fn + self.fp)

    @property
    def specificity(self) -> float:
        """Share of the background that is left alone; grows with the field of view."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def accuracy(self) -> float:
        """Share of all voxels that are right; grows with the field of view."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of recall and specificity; grows with the field of view."""
        return (self.recall + self.specificity) / 2

    @property
    def mcc(self) -> float:
        """Matthews' correlation of the two masks; grows with the field of view."""
        sides = (self.tp + self.fp, self.tp + self.fn, self.tn + self.fp, self.tn + self.fn)
        return _ratio(self.tp * self.tn - self.fp * self.fn, math.prod(map(math.sqrt, sides)))

    @property
    def kappa(self) -> float:
        """Cohen's kappa, agreement beyond chance; grows with the field of view."""
        total = self.tp + self.fp + self.fn + self.tn
        inside = (self.tp + self.fn) * (self.tp + self.fp)
        outside = (self.tn + self.fp) * (self.tn + self.fn)
        return _ratio((self.tp + self.tn) * total - inside - outside, total * total - inside - outside)


def count_confusion(reference: Bits, prediction: Bits, num_voxels: int) -> Confusion:
    """Count the voxels of two packed masks of one shape, cut from a grid of `num_voxels`."""
    tp = int(np.bitwise_count(reference & prediction).sum())
    fp = int(np.bitwise_count(prediction).sum()) - tp
    fn = int(np.bitwise_count(reference).sum()) - tp
    return Confusion(tp, fp, fn, num_voxels - tp - fp - fn)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan

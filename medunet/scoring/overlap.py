"""Confusion matrix of two masks, and the metrics computed from it.

A metric that divides zero by zero is undefined (NaN): Dice, IoU, F1, precision and recall of two empty masks;
precision if only the prediction is empty; recall if only the reference is empty.
"""

import math
from dataclasses import dataclass

import numpy as np

from medunet.scoring.bits import Bits


@dataclass(frozen=True)
class Confusion:
    """Numbers of true and false positive and negative voxels."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        """Dice: twice the voxels in both masks over the sum of their sizes; equal to F1."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float:
        """Intersection over union, the Jaccard index."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float:
        """Share of the prediction that is correct."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the reference that is found: sensitivity."""
        return _ratio(self.tp, self.tp + self.fn)

    def f_beta(self, beta: float) -> float:
        """Return the F-beta score, which weights recall `beta` times as much as precision; F1 is Dice."""
        weight = beta * beta
        return _ratio((1 + weight) * self.tp, (1 + weight) * self.tp + weight * self.fn + self.fp)

    @property
    def specificity(self) -> float:
        """Share of the background that is predicted as background; grows with the field of view."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def accuracy(self) -> float:
        """Share of all voxels that are correct; grows with the field of view."""
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of recall and specificity; grows with the field of view."""
        return (self.recall + self.specificity) / 2

    @property
    def mcc(self) -> float:
        """Matthews correlation coefficient of the two masks; grows with the field of view."""
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
    """Return the confusion matrix of two packed masks of one shape, cropped from a grid of `num_voxels` voxels."""
    tp = int(np.bitwise_count(reference & prediction).sum())
    fp = int(np.bitwise_count(prediction).sum()) - tp
    fn = int(np.bitwise_count(reference).sum()) - tp
    return Confusion(tp, fp, fn, num_voxels - tp - fp - fn)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan

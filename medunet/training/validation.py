"""What one validation says of a network: counts, distances and score histograms case by case, and their means.

Measured on the network's own grid, while training; the scores that are reported are `medunet score`'s.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from medunet.records import Description
from medunet.scoring.masks import score_masks
from medunet.scoring.overlap import Confusion

NUM_BINS = 200  # of the probabilities, for precision-recall curves


@dataclass(frozen=True)
class Slices:
    """Three slices across one axis: image, reference and prediction, each `(3, rows, columns)`."""

    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    positions: tuple[int, ...]
    spacing_mm: tuple[float, float]


@dataclass(frozen=True)
class TargetResult:
    """One target of one case: its voxels, HD95 in mm, and how many voxels were given which probability.

    `histogram` counts voxels by predicted probability: first those outside the reference, then those within,
    `(2, NUM_BINS)`.
    """

    voxels: Confusion
    hd95_mm: float
    histogram: NDArray[np.int64]


@dataclass(frozen=True)
class CaseResult:
    """One validated case."""

    case: str
    targets: dict[str, TargetResult]
    slices: Slices

    @property
    def dice(self) -> float:
        """Mean Dice over the targets, undefined ones left out."""
        return mean([target.voxels.dice for target in self.targets.values()])


def measure_case(
    case: str,
    image: torch.Tensor,
    label: torch.Tensor,
    probabilities: torch.Tensor,
    prediction: torch.Tensor,
    description: Description,
    spacing_mm: tuple[float, float, float],
    slice_axis: int,
) -> CaseResult:
    """Measure one case.

    Args:
        image: `(C, I, J, K)`, of which the first channel is shown.
        label: uint8 `(I, J, K)` with the dataset's values; voxels of the ignore label count for nothing.
        probabilities: `(C, I, J, K)`, a channel per target, with background before them where labels exclude one
            another.
        prediction: uint8 `(I, J, K)` with the values that are written.
        slice_axis: the axis across which slices are shown.
    """
    reference, predicted = label.numpy(), prediction.numpy()
    counted = reference != description.ignore_value if description.ignore_value is not None else None
    first = 0 if description.regions else 1
    targets = {}
    for number, (name, values) in enumerate(description.targets.items()):
        masks = np.isin(reference, values), np.isin(predicted, values)
        scores = probabilities[first + number].numpy()
        if counted is not None:
            masks = masks[0] & counted, masks[1] & counted
            targets[name] = _measure_target(*masks, scores[counted], masks[0][counted], spacing_mm)
        else:
            targets[name] = _measure_target(*masks, scores, masks[0], spacing_mm)
    return CaseResult(case, targets, _cut_slices(image[0], reference, predicted, spacing_mm, slice_axis))


def summarise(cases: Sequence[CaseResult], description: Description) -> dict[str, float]:
    """Return one row of means over cases, undefined ones left out: `dice`, then per target each score.

    `dice` is the mean over cases of the mean over targets. HD95 is infinite where a mask was missed or made up, and
    so is then its mean: an infinity is never averaged away.
    """
    row = {"dice": mean([case.dice for case in cases])}
    for name in description.targets:
        results = [case.targets[name] for case in cases]
        for score in ("dice", "iou", "precision", "recall"):
            row[f"{score}_{name}"] = mean([getattr(result.voxels, score) for result in results])
        row[f"hd95_mm_{name}"] = mean([result.hd95_mm for result in results])
    return row


def precision_recall(
    cases: Sequence[CaseResult], target: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return precision and recall over all cases' voxels together, by falling threshold of the probability.

    Precision is 1 where nothing lies above the threshold; recall is 0 where there is no reference.
    """
    negatives, positives = np.sum([case.targets[target].histogram for case in cases], axis=0)[:, ::-1].cumsum(
        1
    )
    found = positives + negatives
    precision = np.divide(positives, found, out=np.ones(NUM_BINS), where=found > 0)
    return precision, positives / max(1, positives[-1])


def mean(values: Sequence[float]) -> float:
    """Mean of the defined values; NaN where there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _measure_target(
    reference: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    scores: NDArray[np.float32],
    inside: NDArray[np.bool_],
    spacing_mm: tuple[float, ...],
) -> TargetResult:
    score = score_masks(reference, prediction, spacing_mm)
    voxels = Confusion(score.tp, score.fp, score.fn, score.tn)
    bins = np.minimum((scores * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    histogram = np.bincount((bins + NUM_BINS * inside).ravel(), minlength=2 * NUM_BINS).reshape(2, NUM_BINS)
    return TargetResult(voxels, score.hd95_mm, histogram)


def _cut_slices(
    image: torch.Tensor,
    label: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    axis: int,
) -> Slices:
    """Cut at a quarter, half and three quarters of the reference's extent; of the volume's where it is empty."""
    rows = np.flatnonzero((label > 0).any(axis=tuple(other for other in range(3) if other != axis)))
    low, high = (int(rows[0]), int(rows[-1])) if rows.size else (0, label.shape[axis] - 1)
    positions = tuple(round(low + share * (high - low)) for share in (0.25, 0.5, 0.75))
    taken = [
        np.stack([np.take(array, at, axis) for at in positions])
        for array in (image.numpy(), label, prediction)
    ]
    first, second = (mm for other, mm in enumerate(spacing_mm) if other != axis)
    return Slices(taken[0], taken[1], taken[2], positions, (first, second))

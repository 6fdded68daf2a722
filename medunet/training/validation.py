"""Validation during training: voxel counts, surface distances and probability histograms per case, and their means.

Scores are measured in windows on the network's grid, with one batch of windows in memory at a time, so that memory
does not grow with the scan. The scores in reports are computed by `medunet score` instead.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from medunet.base.words import list_some
from medunet.drawing.slices import Slices
from medunet.inference.sliding_window import to_label_map
from medunet.inference.windows import Box, Window, cut_window_label, run_windows
from medunet.networks.builder import to_probabilities
from medunet.records.description import Description
from medunet.records.plan import Plan
from medunet.scoring.masks import Crop, score_masks
from medunet.scoring.overlap import Confusion
from medunet.transforms.patches import PreparedCase

_MAX_NAMES = 5
NUM_BINS = 200  # of probabilities, for precision-recall curves


@dataclass(frozen=True)
class TargetResult:
    """Voxel counts, HD95 in mm and probability histogram of one target in one case.

    HD95 is undefined if the windows do not cover the whole case. `histogram` `(2, NUM_BINS)` counts voxels by
    predicted probability, first those outside the reference, then those inside.
    """

    voxels: Confusion
    hd95_mm: float
    histogram: NDArray[np.int64]


@dataclass(frozen=True)
class CaseResult:
    """Validation result of one case."""

    case: str
    targets: dict[str, TargetResult]
    slices: Slices
    loss: float  # training loss of the finest output, mean over windows

    @property
    def dice(self) -> float:
        """Mean Dice over the targets, without undefined values."""
        return mean([target.voxels.dice for target in self.targets.values()])

    @property
    def is_judged(self) -> bool:
        """Whether any voxel was counted; false if all of them are `ignore`."""
        return any(astuple(target.voxels) != (0, 0, 0, 0) for target in self.targets.values())


def validate_case(
    case: PreparedCase,
    windows: Sequence[Window],
    forward: Callable[[torch.Tensor], torch.Tensor],
    loss: Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor],
    plan: Plan,
    description: Description,
    *,
    batch_size: int,
) -> CaseResult:
    """Validate one case in some or all of its windows, in batches of `batch_size`.

    Args:
        windows: from `choose_windows`; only the voxels in their `box` are counted, without ignored ones.
        forward: maps images `(B, C, *patch)` to float32 logits `(B, K, *output)` at the finest scale; called once for
            all windows that hold the same constant values (see `run_windows`).
        loss: maps a list of these logits and labels `(B, 1, *output)` to a mean over the batch.
    """
    totals = _CaseTotals(description, case.label.shape)
    losses = 0.0
    computed = run_windows(forward, case.image, windows, plan, batch_size)
    for start in range(0, len(windows), batch_size):
        batch = windows[start : start + batch_size]
        logits = torch.stack([found.logits for found in islice(computed, len(batch))])
        labels = [cut_window_label(case.label, window, plan) for window in batch]
        label = torch.from_numpy(np.stack(labels)).to(logits.device)
        losses += len(batch) * float(loss([logits], label))
        probabilities = to_probabilities(logits, description)
        del logits
        predicted = to_label_map(probabilities.movedim(1, 0), description)
        label = label[:, 0]
        if plan.dimensions == 2:
            probabilities = probabilities.unsqueeze(2 + plan.slice_axis)
            predicted, label = (each.unsqueeze(1 + plan.slice_axis) for each in (predicted, label))
        for number, window in enumerate(batch):
            inner = window.inner
            totals.add(
                window.box, probabilities[number][:, *inner], predicted[number][inner], label[number][inner]
            )
    return totals.result(case, plan, losses / len(windows))


class _CaseTotals:
    """Counts of one case, summed over its windows, and the label map of the predicted windows."""

    def __init__(self, description: Description, shape: tuple[int, ...]) -> None:
        self.description, self.targets = description, description.targets
        self.prediction = np.zeros(shape, np.uint8)
        self.num_seen = 0
        self.counts = np.zeros((len(self.targets), 4), np.int64)  # tp, fp, fn, tn
        self.histograms = np.zeros((len(self.targets), 2, NUM_BINS), np.int64)
        self.box: Box | None = None  # of the window with the most foreground
        self._most = -1

    def add(
        self, box: Box, probabilities: torch.Tensor, predicted: torch.Tensor, label: torch.Tensor
    ) -> None:
        """Add a window's voxels: probabilities `(C, I, J, K)`, label maps `(I, J, K)`."""
        self.prediction[box] = predicted.cpu().numpy()
        self.num_seen += label.numel()
        probabilities, predicted, label = probabilities.flatten(1), predicted.flatten(), label.flatten()
        if self.description.ignore_value is not None:
            counted = label != self.description.ignore_value
            probabilities, predicted, label = probabilities[:, counted], predicted[counted], label[counted]
        foreground = int((label > 0).sum())
        if foreground > self._most:
            self._most, self.box = foreground, box
        first = 0 if self.description.regions else 1
        # Confusion matrix of label values, from which the counts of all targets are derived.
        pairs = (
            torch.bincount(label.long() * 256 + predicted.long(), minlength=256 * 256).reshape(256, 256).cpu()
        )
        present = pairs.any(1).nonzero().flatten().tolist()
        for number, values in enumerate(self.targets.values()):
            rows = pairs[list(values)]
            tp, num_inside = int(rows[:, list(values)].sum()), int(rows.sum())
            num_found = int(pairs[:, list(values)].sum())
            inside = _is_one_of(label, [value for value in values if value in present])
            union = num_inside + num_found - tp
            self.counts[number] += tp, num_found - tp, num_inside - tp, label.numel() - union
            self.histograms[number] += _histogram(probabilities[first + number], inside, num_inside)

    def result(self, case: PreparedCase, plan: Plan, loss: float) -> CaseResult:
        """Return the result of all windows."""
        reference = np.asarray(case.label[:])
        is_covered = self.num_seen == reference.size
        assert self.box is not None
        distances = self._distances_mm(reference, plan.spacing_mm) if is_covered else {}
        results = {
            name: TargetResult(
                Confusion(*(int(count) for count in counts)), distances.get(name, math.nan), histogram
            )
            for name, counts, histogram in zip(self.targets, self.counts, self.histograms, strict=True)
        }
        everywhere = (
            slice(0, reference.shape[0]),
            slice(0, reference.shape[1]),
            slice(0, reference.shape[2]),
        )
        shown = everywhere if is_covered else self.box
        slices = _cut_slices(case.image, reference, self.prediction, plan.spacing_mm, plan.slice_axis, shown)
        return CaseResult(case.id, results, slices, loss)

    def _distances_mm(
        self, reference: NDArray[np.uint8], spacing_mm: tuple[float, float, float]
    ) -> dict[str, float]:
        """Return each target's HD95, computed within its bounding box in both label maps."""
        prediction = self.prediction
        if self.description.ignore_value is not None:
            prediction = np.where(reference == self.description.ignore_value, 0, prediction)
        boxes = [ndimage.find_objects(labels, max_label=255) for labels in (reference, prediction)]
        distances = {}
        for (name, values), (tp, fp, fn, _) in zip(self.targets.items(), self.counts, strict=True):
            if tp + fp == 0 or tp + fn == 0:
                distances[name] = math.nan if tp + fp + fn == 0 else math.inf
                continue
            held = [own[value - 1] for own in boxes for value in values if own[value - 1] is not None]
            starts = tuple(min(box[axis].start for box in held) for axis in range(3))
            stops = tuple(max(box[axis].stop for box in held) for axis in range(3))
            box = tuple(slice(start, stop) for start, stop in zip(starts, stops, strict=True))
            inside, found = (np.isin(labels[box], values) for labels in (reference, prediction))
            score = score_masks(inside, found, spacing_mm, crop=Crop(starts, reference.shape))
            distances[name] = score.hd95_mm
        return distances


def _is_one_of(label: torch.Tensor, values: Sequence[int]) -> torch.Tensor:
    """Return the mask of the voxels of a label map that have one of the values."""
    inside = torch.zeros(label.shape, dtype=torch.bool, device=label.device)
    for value in values:
        inside |= label == value
    return inside


def _histogram(scores: torch.Tensor, inside: torch.Tensor, num_inside: int) -> NDArray[np.int64]:
    """Count voxels `(2, NUM_BINS)` by probability, first those outside the reference, then those inside.

    The count of the lowest bin, which holds nearly all voxels, is computed as the difference to the total.
    """
    scaled = scores * NUM_BINS
    high = scaled >= 1
    bins = scaled[high].long().clamp_max(NUM_BINS - 1) + NUM_BINS * inside[high]
    counts = torch.bincount(bins, minlength=2 * NUM_BINS).reshape(2, NUM_BINS).cpu().numpy()
    counts[:, 0] = np.array([inside.numel() - num_inside, num_inside]) - counts.sum(1)
    return counts


def summarise(cases: Sequence[CaseResult], description: Description) -> dict[str, float]:
    """Return the means over cases of `dice` and of each target's scores, without undefined values.

    `dice` is the mean over cases of the mean over targets, undefined if no case has foreground to find. HD95 is the
    mean over cases that are covered by their windows; it is infinite if a target is missed or falsely predicted in
    one of them.
    """
    row = {"dice": mean([case.dice for case in cases])}
    for name in description.targets:
        results = [case.targets[name] for case in cases]
        for score in ("dice", "iou", "precision", "recall"):
            row[f"{score}_{name}"] = mean([getattr(result.voxels, score) for result in results])
        row[f"hd95_mm_{name}"] = mean([result.hd95_mm for result in results])
    if all(math.isnan(row[f"recall_{name}"]) for name in description.targets):
        row["dice"] = math.nan
    return row


def validation_loss(cases: Sequence[CaseResult]) -> float:
    """Return the mean loss over the cases with a voxel to judge; NaN if there is none."""
    return mean([case.loss for case in cases if case.is_judged])


def describe_unjudged(cases: Sequence[CaseResult]) -> str:
    """Return which cases have no voxel to judge; "" if all have one."""
    unjudged = [case.case for case in cases if not case.is_judged]
    if not unjudged:
        return ""
    return (
        f"{len(unjudged)} of {len(cases)} validation cases have no voxel to judge, since all are `ignore`, and do "
        f"not count in the validation: {list_some(unjudged, _MAX_NAMES)}."
    )


def dice_text(dice: float) -> str:
    """Return a Dice as text such as "Dice 0.812", or "Dice undefined"."""
    return "Dice undefined" if math.isnan(dice) else f"Dice {dice:.3f}"


def precision_recall(
    cases: Sequence[CaseResult], target: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return precision and recall over the voxels of all cases, by falling probability threshold.

    Precision is 1 if no voxel is above the threshold; recall is 0 if there is no reference.
    """
    negatives, positives = np.sum([case.targets[target].histogram for case in cases], axis=0)[:, ::-1].cumsum(
        1
    )
    found = positives + negatives
    precision = np.divide(positives, found, out=np.ones(NUM_BINS), where=found > 0)
    return precision, positives / max(1, positives[-1])


def mean(values: Sequence[float]) -> float:
    """Return the mean of the defined values; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def _cut_slices(
    image: NDArray[np.float32],
    label: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    axis: int,
    box: Box,
) -> Slices:
    """Cut slices of a box at 1/4, 1/2 and 3/4 of the reference's extent, or of the box if it has no reference."""
    others = tuple(other for other in range(3) if other != axis)
    rows = np.flatnonzero((label[box] > 0).any(axis=others)) + box[axis].start
    low, high = (int(rows[0]), int(rows[-1])) if rows.size else (box[axis].start, box[axis].stop - 1)
    positions = tuple(round(low + share * (high - low)) for share in (0.25, 0.5, 0.75))
    places = [
        tuple(slice(at, at + 1) if other == axis else box[other] for other in range(3)) for at in positions
    ]
    shown = np.stack(
        [np.asarray(image[0, first, second, third]).squeeze(axis) for first, second, third in places]
    )
    masks = [np.stack([array[place].squeeze(axis) for place in places]) for array in (label, prediction)]
    first, second = (mm for other, mm in enumerate(spacing_mm) if other != axis)
    return Slices(shown, masks[0], masks[1], positions, (first, second))

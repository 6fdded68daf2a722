"""Inter-reader agreement on one case: Dice and HD95 of every pair of readers, and Fleiss' kappa of all readers.

No reader is the ground truth: Dice and HD95 (the maximum of both directions) do not depend on which reader of a pair
is the reference. For kappa, voxels are the subjects, which each reader rates as inside or outside. Most of a scan is
outside for all readers, so kappa grows with the field of view. It is therefore also computed within the box around
all masks.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import InputError
from medunet.records.scores import Status, Surface
from medunet.scoring.bits import find_box
from medunet.scoring.masks import Mask, score_masks


@dataclass(frozen=True)
class ReaderPair:
    """Agreement of two readers on one target; `status` takes the first reader as the reference."""

    target: str
    first: str
    second: str
    status: Status
    surface: Surface
    dice: float
    hd95_mm: float


@dataclass(frozen=True)
class TargetAgreement:
    """Agreement of all readers on one target. Kappa is NaN where all votes are the same (undefined)."""

    target: str
    num_readers: int
    num_outlined: int  # readers whose mask is not empty
    kappa: float  # Fleiss' kappa over the whole grid: depends on the field of view
    kappa_in_box: float  # over the smallest box that holds all masks
    mean_dice: float  # over the pairs with a defined Dice
    lowest_dice: float
    dice_by_reader: dict[str, float]  # by reader, the mean Dice with all other readers


def compare_readers(
    maps: Mapping[str, NDArray[np.integer]],
    spacing_mm: tuple[float, ...],
    targets: Mapping[str, tuple[int, ...]],
    *,
    surface: Surface = "area",
) -> tuple[list[ReaderPair], list[TargetAgreement]]:
    """Compare readers' label maps on one grid, by pair and all together.

    `maps` holds a label map `(I, J, K)` for each reader, `targets` the label values of each target.

    Raises:
        InputError: there are fewer than two readers, or the shapes differ.
    """
    shapes = {reader: labels.shape for reader, labels in maps.items()}
    if len(maps) < 2:
        raise InputError(
            f"{len(maps)} label map(s): two or more are needed to compare", hint="Give two or more readers."
        )
    if len(set(shapes.values())) > 1:
        raise InputError(f"the readers' shapes differ: {shapes}", hint="Resample them to one grid.")
    pairs: list[ReaderPair] = []
    agreements: list[TargetAgreement] = []
    for target, values in targets.items():
        masks = {reader: np.isin(labels, values) for reader, labels in maps.items()}
        own = [
            _score_pair(target, first, second, masks, spacing_mm, surface)
            for first, second in itertools.combinations(masks, 2)
        ]
        pairs += own
        agreements.append(_agreement(target, masks, own))
    return pairs, agreements


def fleiss_kappa(votes: Sequence[int] | NDArray[np.integer]) -> float:
    """Return Fleiss' kappa of n readers who rate each voxel as inside or outside (Fleiss 1971).

    `votes[k]` is the number of voxels that k readers rated as inside, k = 0..n. With N voxels and the share p of
    "inside" among all votes, the observed agreement is P = sum votes[k] (k² + (n - k)² - n) / (N n (n - 1)), the
    agreement by chance is C = p² + (1 - p)², and kappa is (P - C) / (1 - C). NaN where all votes are the same.
    """
    counts = np.asarray(votes, dtype=np.float64)
    n = counts.size - 1
    k = np.arange(n + 1)
    inside = k * counts
    if not 0 < inside.sum() < n * counts.sum():
        return math.nan
    share = inside.sum() / (n * counts.sum())
    agreement = counts @ (k**2 + (n - k) ** 2 - n) / (counts.sum() * n * (n - 1))
    chance = share**2 + (1 - share) ** 2
    return float((agreement - chance) / (1 - chance))


def _score_pair(
    target: str,
    first: str,
    second: str,
    masks: Mapping[str, Mask],
    spacing_mm: tuple[float, ...],
    surface: Surface,
) -> ReaderPair:
    score = score_masks(masks[first], masks[second], spacing_mm, surface=surface, tolerances_mm=())
    return ReaderPair(target, first, second, score.status, surface, score.dice, score.hd95_mm)


def _agreement(target: str, masks: Mapping[str, Mask], pairs: Sequence[ReaderPair]) -> TargetAgreement:
    sizes = [int(np.count_nonzero(mask)) for mask in masks.values()]
    in_box = _count_votes(list(masks.values()))
    everywhere = in_box.copy()
    everywhere[0] += next(iter(masks.values())).size - in_box.sum()
    return TargetAgreement(
        target=target,
        num_readers=len(masks),
        num_outlined=sum(size > 0 for size in sizes),
        kappa=fleiss_kappa(everywhere),
        kappa_in_box=fleiss_kappa(in_box),
        mean_dice=_mean([pair.dice for pair in pairs]),
        lowest_dice=min((pair.dice for pair in pairs if not math.isnan(pair.dice)), default=math.nan),
        dice_by_reader={
            reader: _mean([pair.dice for pair in pairs if reader in (pair.first, pair.second)])
            for reader in masks
        },
    )


def _count_votes(masks: Sequence[Mask]) -> NDArray[np.int64]:
    """Return how many voxels 0, 1, ... n readers rated as inside, within the bounding box of all masks."""
    box = find_box(*masks)
    votes = np.zeros(masks[0][box].shape, dtype=np.uint16)
    for mask in masks:
        votes += mask[box]
    return np.bincount(votes.ravel(), minlength=len(masks) + 1)


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan

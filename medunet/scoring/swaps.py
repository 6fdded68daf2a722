"""Detection of targets that a prediction may have swapped, since their scores only look like two failures."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from medunet.records.scores import Note
from medunet.scoring.bits import memory_order
from medunet.scoring.notes import note_swap

Labels = NDArray[np.integer]


def find_swaps(
    reference: Labels,
    prediction: Labels,
    targets_reference: Mapping[str, tuple[int, ...]],
    targets_prediction: Mapping[str, tuple[int, ...]],
    *,
    ignore_value: int | None = None,
) -> dict[str, tuple[Note, ...]]:
    """Return notes on the targets of two label maps that look swapped, by target.

    Two targets look swapped if both overlap the other's mask better (IoU) than either overlaps its own. Targets that
    share a label value, such as regions, are not compared. All overlaps come from one joint histogram of the label
    values; voxels with `ignore_value` in the reference are left out.
    """
    pairs = [
        (one, other)
        for one, other in combinations([name for name in targets_reference if name in targets_prediction], 2)
        if all(
            set(targets[one]).isdisjoint(targets[other])
            for targets in (targets_reference, targets_prediction)
        )
    ]
    if not pairs:
        return {}
    rows = sorted({value for one in pairs for name in one for value in targets_reference[name]})
    columns = sorted({value for one in pairs for name in one for value in targets_prediction[name]})
    counts = _count_joint(reference, prediction, rows, columns, ignore_value)

    def iou(one: str, other: str) -> float:
        """Return the IoU of one target's reference with another's prediction."""
        row = [1 + rows.index(value) for value in targets_reference[one]]
        column = [1 + columns.index(value) for value in targets_prediction[other]]
        both = int(counts[np.ix_(row, column)].sum())
        either = int(counts[row].sum()) + int(counts[:, column].sum()) - both
        return both / either if either else 0.0

    found: dict[str, tuple[Note, ...]] = {}
    for one, other in pairs:
        crossed, own = (iou(one, other), iou(other, one)), (iou(one, one), iou(other, other))
        if min(crossed) > max(own):
            note = note_swap(one, other, crossed, own)
            for name in (one, other):
                found[name] = (*found.get(name, ()), note)
    return found


def _count_joint(
    reference: Labels, prediction: Labels, rows: list[int], columns: list[int], ignore_value: int | None
) -> NDArray[np.int64]:
    """Count voxels by reference value (row) and predicted value (column); row and column 0 are all other values."""
    order = memory_order(reference)
    shape = (len(rows) + 1, len(columns) + 1)
    counts = np.zeros(shape, dtype=np.int64)
    for plane, other in zip(reference.transpose(order), prediction.transpose(order), strict=True):
        chosen = (plane != 0) | (other != 0)
        if ignore_value is not None:
            chosen &= plane != ignore_value
        codes = _code(plane[chosen], rows) * shape[1] + _code(other[chosen], columns)
        counts += np.bincount(codes, minlength=counts.size).reshape(shape)
    return counts


def _code(labels: Labels, values: list[int]) -> NDArray[np.int64]:
    """Return 1 for labels equal to the first of the ascending values, 2 for the second, ...; 0 for all others."""
    table = np.array(values, dtype=np.int64)
    index = np.minimum(np.searchsorted(table, labels), len(values) - 1)
    return np.where(table[index] == labels, index + 1, 0)

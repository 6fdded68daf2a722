"""The targets of a case on its page: scores and volumes; of many, the absent and near-perfect ones stand apart."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medunet.imaging.geometry import spacing_of
from medunet.imaging.whole_numbers import count_values
from medunet.records.scores import UNSCORED
from medunet.reporting.explanations import row_reason
from medunet.reporting.page import number_text
from medunet.reporting.scans import Scan
from medunet.reporting.scores import SIZE_UNITS, Measure, Unit, measures

MANY = 12  # targets from which on the page has groups and a search box
NEAR_PERFECT_DICE = 0.95


@dataclass(frozen=True)
class ClassGroup:
    """Rows of the table of targets that stand together; `heading` is "" for those that are never folded."""

    heading: str
    rows: tuple[dict[str, Any], ...]
    is_absent: bool = False  # neither mask has them


def group_classes(
    rows: pd.DataFrame, unit: Unit, asking: Collection[str], *, with_border: bool
) -> list[ClassGroup]:
    """Return the rows of a case's targets: in their order, or in groups if there are many, the worst first.

    `asking` are the targets that ask for a review: they are never folded. With `with_border`, rows say which masks
    touch the border of the scan.
    """
    shown = measures(rows, unit)
    records = [
        (row, _cells(row, shown, unit, asks=row["label"] in asking, with_border=with_border))
        for _, row in rows.iterrows()
    ]
    if len(records) <= MANY:
        return [ClassGroup("", tuple(cells for _, cells in records))]
    open_rows, perfect, absent = [], [], []
    for row, cells in records:
        dice = float(row["dice"])
        if row["status"] == "both_empty":
            absent.append(cells)
        elif dice >= NEAR_PERFECT_DICE and not cells["asks"]:
            perfect.append((dice, cells))
        else:
            open_rows.append((not cells["asks"], -1.0 if math.isnan(dice) else dice, cells))
    open_rows.sort(key=lambda entry: entry[:2])
    perfect.sort(key=lambda entry: entry[0])
    groups = [
        ClassGroup("", tuple(cells for *_, cells in open_rows)),
        ClassGroup(f"Dice of {NEAR_PERFECT_DICE:g} or more", tuple(cells for _, cells in perfect)),
        ClassGroup("In neither mask", tuple(absent), is_absent=True),
    ]
    return [group for group in groups if group.rows]


def measure_volumes(scan: Scan, targets: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """Return the volume in ml of each target of the predicted mask, in a picture its area in 1000 pixels."""
    assert scan.prediction is not None
    counts = count_values(scan.prediction)
    voxel_ml = 0.001 if scan.unit == "px" else math.prod(spacing_of(scan.affine)) / 1000
    return {
        name: voxel_ml * sum(counts.get(value, 0) for value in values) for name, values in targets.items()
    }


def measure_agreement(
    scan: Scan, targets: Mapping[str, tuple[int, ...]], num_networks: int
) -> dict[str, float]:
    """Return for each target the share of its predicted voxels on which all networks agree; {} without a map.

    Targets without a voxel are left out.
    """
    if scan.agreement is None or scan.prediction is None or num_networks < 2:
        return {}
    everywhere = count_values(scan.prediction)
    agreed = count_values(scan.prediction[scan.agreement >= num_networks])
    shares = {}
    for name, values in targets.items():
        if size := sum(everywhere.get(value, 0) for value in values):
            shares[name] = sum(agreed.get(value, 0) for value in values) / size
    return shares


def group_volumes(
    volumes_ml: Mapping[str, float], agreement: Mapping[str, float], unit: Unit
) -> list[ClassGroup]:
    """Return the rows of a mask without a reference, the largest target first; of many, the empty ones apart."""
    scale, decimals = SIZE_UNITS[unit][1], 2 if unit == "mm" else 0
    rows = [
        {
            "label": name,
            "predicted": number_text(scale * volume, decimals) if volume else "not found",
            "agreement": f"{100 * agreement[name]:.0f}%" if name in agreement else "–",
        }
        for name, volume in sorted(volumes_ml.items(), key=lambda entry: -entry[1])
    ]
    num_found = sum(volume > 0 for volume in volumes_ml.values())
    if len(rows) <= MANY:
        return [ClassGroup("", tuple(rows))]
    groups = [ClassGroup("", tuple(rows[:num_found])), ClassGroup("Not found", tuple(rows[num_found:]))]
    return [group for group in groups if group.rows]


def _cells(
    row: pd.Series, columns: Sequence[Measure], unit: Unit, *, asks: bool, with_border: bool
) -> dict[str, Any]:
    scale, decimals = SIZE_UNITS[unit][1], 2 if unit == "mm" else 0
    reference, predicted = (
        scale * float(row.get(name, math.nan)) for name in ("reference_ml", "predicted_ml")
    )
    relative = 100 * (predicted - reference) / reference if reference > 0 else math.nan
    percent = number_text(relative, 0, signed=True)
    return {
        "label": row["label"],
        "status": row["status"],
        "asks": asks,
        "reason": row_reason(row) if with_border or row["status"] in UNSCORED else "",
        "key_values": [_name_value(measure, float(row[measure.column]), unit) for measure in columns[:3]],
        "values": [number_text(row[measure.column], measure.decimals) for measure in columns],
        "reference": number_text(reference, decimals),
        "predicted": number_text(predicted, decimals),
        "difference": number_text(predicted - reference, decimals, signed=True),
        "relative": percent if percent == "–" else f"{percent}%",
    }


def _name_value(measure: Measure, value: float, unit: Unit) -> str:
    """Return name and value, such as "Dice 0.912" or "HD95 2.50 mm"."""
    name = measure.heading.removesuffix(f" {unit}")
    return f"{name} {number_text(value, measure.decimals)}{f' {unit}' if name != measure.heading else ''}"

"""Lesion results for report pages: a table for each case; counts, detection by size and means for the cohort."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from medunet.records.finding import Finding
from medunet.records.scores import Lesion
from medunet.reporting.page import number_text
from medunet.reporting.scans import Scan, position_name
from medunet.reporting.scores import (
    SIZE_UNITS,
    Measure,
    Unit,
    measures,
    name_lesions,
)
from medunet.scoring.lesion_presets import PRESETS
from medunet.scoring.lesions import SizeClassDetection, detection_by_size
from medunet.scoring.summary import LabelSummary, MetricSummary

_MAX_SHOWN = 100  # lesions of a target listed on a case's page
_MATCHING = {
    "touch": "{subject} found if any prediction touches it",
    "iou": "found at an IoU above {min_iou:g}",
    "one_to_one": "matched one to one at an IoU above {min_iou:g}",
}


@dataclass(frozen=True)
class LesionCounts:
    """Numbers of found and missed reference lesions and of false positives, and the rates computed from them.

    Rates are NaN if their denominator is 0. Lesions that the rules leave out are only in `num_uncounted`.
    """

    num_found: int
    num_missed: int
    num_false_positive: int
    num_uncounted: int

    @property
    def num_lesions(self) -> int:
        """Number of reference lesions."""
        return self.num_found + self.num_missed

    @property
    def sensitivity(self) -> float:
        """Share of the reference lesions that were found."""
        return _ratio(self.num_found, self.num_lesions)

    @property
    def precision(self) -> float:
        """Share of found lesions among found lesions and false positives."""
        return _ratio(self.num_found, self.num_found + self.num_false_positive)

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and precision."""
        return _ratio(2 * self.num_found, 2 * self.num_found + self.num_missed + self.num_false_positive)

    @property
    def text(self) -> str:
        """The counts as text."""
        plural = "" if self.num_false_positive == 1 else "s"
        text = f"{self.num_found} found, {self.num_missed} missed, {self.num_false_positive} false positive{plural}"
        return f"{text}, {self.num_uncounted} too small to count" if self.num_uncounted else text


@dataclass(frozen=True)
class CaseTable:
    """The lesions of one target of one case as a table of text."""

    label: str
    rules: str
    counts: LesionCounts
    scores: list[str]  # the case's lesion scores as text, such as "F1 0.500"
    distance: str  # heading of the distance column
    rows: list[dict[str, Any]]
    num_hidden: int  # the smallest lesions, if there are too many to list


@dataclass(frozen=True)
class CohortLesions:
    """Lesions of one target in all scored cases, with the means over cases of the lesion scores."""

    label: str
    rules: str
    counts: LesionCounts
    means: dict[str, MetricSummary]  # by column of scores.csv
    num_cases: int
    num_unscored: int  # missing and failed cases, whose lesions are unknown
    sizes: list[SizeClassDetection]  # empty for 2D pictures, whose lesions have no volume


def tabulate_case(
    lesions: pd.DataFrame,
    rows: pd.DataFrame,
    unit: Unit,
    *,
    scan: Scan | None = None,
    targets: Mapping[str, tuple[int, ...]] | None = None,
    findings: Sequence[Finding] = (),
) -> list[CaseTable]:
    """Return a table for each target of a case with lesions.

    Args:
        lesions: the case's rows of lesions.csv.
        rows: its rows of scores.csv.
        unit: px for 2D pictures.
        scan: its volumes, from which slices are named by their position in mm; None: by their number alone.
        targets: label values by target.
        findings: the errors that the page lists; lesions among them link to these.
    """
    indices = {(each.target, each.lesion): place for place, each in enumerate(findings) if each.lesion}
    tables = []
    for label in lesions["label"].drop_duplicates():
        own = lesions[lesions["label"] == label]
        rules, distance = _rules_of(own), _distance(own, unit)
        records = _records(own, distance)
        largest = sorted(records, key=lambda lesion: -max(lesion.reference_ml, lesion.predicted_ml))
        shown = sorted(largest[:_MAX_SHOWN], key=lambda lesion: lesion.number)
        scored = rows[rows["label"] == label]
        tables.append(
            CaseTable(
                label=label,
                rules=rules,
                counts=_count(records),
                scores=[
                    _name_value(measure, float(value), unit)
                    for measure in lesion_measures([rules], distance)
                    if measure.column in scored
                    for value in scored[measure.column]
                ],
                distance=distance.heading,
                rows=[
                    {
                        **_cells(lesion, distance, unit),
                        "slice": _slice_name(lesion, scan, (targets or {}).get(label, ())),
                        "finding": indices.get((label, lesion.number)),
                    }
                    for lesion in shown
                ],
                num_hidden=len(records) - len(shown),
            )
        )
    return tables


def summarise_lesions(
    lesions: pd.DataFrame, targets: Mapping[str, LabelSummary], unit: Unit
) -> list[CohortLesions]:
    """Return lesion counts, detection by size and means over cases for every target with lesions."""
    summaries = []
    for label, summary in targets.items():
        own = lesions[lesions["label"] == label]
        if own.empty:
            continue
        rules, distance = _rules_of(own), _distance(own, unit)
        records = _records(own, distance)
        summaries.append(
            CohortLesions(
                label=label,
                rules=rules,
                counts=_count(records),
                means={
                    measure.column: summary.metrics[measure.column]
                    for measure in lesion_measures([rules], distance)
                    if measure.column in summary.metrics
                },
                num_cases=summary.num_expected,
                num_unscored=summary.num_expected - summary.num_scored,
                sizes=detection_by_size(records) if unit == "mm" else [],
            )
        )
    return summaries


def cohort_measures(lesions: pd.DataFrame, summaries: Sequence[CohortLesions], unit: Unit) -> list[Measure]:
    """Return the lesion scores shown in a cohort's table."""
    return lesion_measures([summary.rules for summary in summaries], _distance(lesions, unit))


def lesion_measures(rules: Sequence[str], distance: Measure) -> list[Measure]:
    """Return the lesion scores shown on pages; SQ and PQ only for panoptic rules."""
    shown = [
        Measure("lesion_sensitivity", "Sensitivity", 3),
        Measure("lesion_precision", "Precision", 3),
        Measure("lesion_f1", "F1", 3),
        Measure("lesion_dice", "Dice", 3),
        Measure("lesion_hd95_mm", distance.heading, distance.decimals),
    ]
    return [*shown, Measure("sq", "SQ", 3), Measure("pq", "PQ", 3)] if "panoptic" in rules else shown


def describe_rules(name: str, unit: Unit, *, instances: bool = False) -> str:
    """Return the name of lesion rules with a description: connectivity, matching, lesions left out, averaging.

    With `instances`, the label files number their objects, which are the lesions.
    """
    rules = next((rules for preset, rules in PRESETS.items() if preset == name), None)
    if rules is None:
        return f"“{name}”"
    connectivity = rules.connectivity if unit == "mm" else 4 if rules.connectivity == 6 else 8  # in 2D
    own = f"{connectivity}-connected"
    if instances:
        own = f"objects by their numbers (in a prediction without numbers, {own} components)"
    noun = name_lesions(instances=instances)
    subject = f"{'an' if instances else 'a'} {noun} is"
    parts = [own, _MATCHING[rules.matching].format(min_iou=rules.min_iou, subject=subject)]
    if rules.num_dilations and instances:
        parts.append("each object is dilated on its own")
    elif rules.num_dilations:
        plural = "" if rules.num_dilations == 1 else "s"
        parts.append(f"components joined by {rules.num_dilations} dilation{plural} are one lesion")
    if rules.ignored_mm3:
        parts.append(f"{noun}s up to {rules.ignored_mm3:g} {unit}³ do not count")
    if rules.penalty_mm is None:
        parts.append(f"Dice and distance are means over the {noun}s found")
    else:
        parts.append(
            f"each miss and false positive counts as Dice 0 and {rules.penalty_mm:g} {unit} in the means"
        )
    return f"“{name}”: {'; '.join(parts)}"


def _rules_of(lesions: pd.DataFrame) -> str:
    return ", ".join(lesions["rules"].drop_duplicates())


def _distance(lesions: pd.DataFrame, unit: Unit) -> Measure:
    """Return the measure of the distance column, such as hd95_mm or hd95_pooled_mm."""
    return next(measure for measure in measures(lesions, unit) if measure.column.startswith("hd"))


def _records(lesions: pd.DataFrame, distance: Measure) -> list[Lesion]:
    return [
        Lesion(
            number=row["lesion"],
            status=row["status"],
            dice=row["dice"],
            hd95_mm=row[distance.column],
            reference_ml=row["reference_ml"],
            predicted_ml=row["predicted_ml"],
            long_axis_mm=row["long_axis_mm"],
            short_axis_mm=row["short_axis_mm"],
            slice_index=row["slice"],
            counted=row["counted"],
        )
        for row in lesions.to_dict("records")
    ]


def _count(lesions: Sequence[Lesion]) -> LesionCounts:
    statuses = [lesion.status for lesion in lesions if lesion.counted]
    return LesionCounts(
        num_found=statuses.count("matched"),
        num_missed=statuses.count("missed"),
        num_false_positive=statuses.count("false_positive"),
        num_uncounted=len(lesions) - len(statuses),
    )


def _name_value(measure: Measure, value: float, unit: Unit) -> str:
    """Return name and value as text, such as 'F1 0.500' or 'HD95 2.50 mm'."""
    name = measure.heading.removesuffix(f" {unit}")
    return f"{name} {number_text(value, measure.decimals)}{f' {unit}' if name != measure.heading else ''}"


def _cells(lesion: Lesion, distance: Measure, unit: Unit) -> dict[str, Any]:
    scale, decimals = SIZE_UNITS[unit][1], 3 if unit == "mm" else 0
    return {
        "number": lesion.number,
        "status": lesion.status,
        "counted": lesion.counted,
        "reference": number_text(scale * lesion.reference_ml, decimals),
        "predicted": number_text(scale * lesion.predicted_ml, decimals),
        "dice": number_text(lesion.dice, 3),
        "distance": number_text(lesion.hd95_mm, distance.decimals),
        "axes": f"{number_text(lesion.long_axis_mm, 1)} × {number_text(lesion.short_axis_mm, 1)}",
    }


def _slice_name(lesion: Lesion, scan: Scan | None, values: Sequence[int]) -> str:
    """Return the slice of a lesion's axes as pictures name it, such as "S 12.0 mm", with its number in the file."""
    if scan is None or scan.unit == "px":
        return str(lesion.slice_index)
    labels = scan.prediction if lesion.status == "false_positive" else scan.reference
    position_mm = scan.slice_mm(lesion.slice_index, labels, values)
    return f"{position_name(2, position_mm)} mm (slice {lesion.slice_index})"


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan

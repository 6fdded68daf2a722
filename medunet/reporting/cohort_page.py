"""Index page of a report: failed cases, all cases from worst to best, summaries, lesions, plots and data check."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from medunet.drawing.figures import figure_png
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Manifest
from medunet.records.scores import UNSCORED
from medunet.reporting.cohort_plots import MAX_TARGETS, draw_dice, draw_volumes
from medunet.reporting.explanations import describe_conventions, describe_weights, training_warning
from medunet.reporting.lesions import cohort_measures, describe_rules, summarise_lesions
from medunet.reporting.page import data_uri, flat_items, interval_text, number_text, render
from medunet.reporting.scores import (
    Measure,
    Unit,
    measures,
    rank_cases,
    verdict,
)
from medunet.reporting.summaries import CohortSummary, summary_rows
from medunet.scoring.strata import Stratum
from medunet.scoring.summary import LabelSummary


@dataclass(frozen=True)
class CasePage:
    """Page of a case as the index lists it: file name, thumbnail, and why it has no pictures ("" if it has)."""

    name: str
    thumbnail: str | None
    trouble: str


def cohort_html(
    run_name: str,
    scores: pd.DataFrame,
    manifest: Manifest,
    pages: Mapping[str, CasePage],
    *,
    lesions: pd.DataFrame | None,
    summary: CohortSummary,
    faults: Sequence[Fault] | None,
    provenance: Mapping[str, Any] | None,
    stale: Sequence[str] = (),
    has_selection: bool = False,
) -> str:
    """Return the HTML index page.

    `pages` has an entry for each case of `scores`. `lesions` is None if none were scored, `faults` if the data were
    not checked. `stale` says what changed since the cases were scored. With `has_selection` the page of the run's
    selection is linked.
    """
    description = manifest.description
    ranked = rank_cases(scores)
    unscored = set(scores.loc[scores["status"].isin(UNSCORED), "case"])
    targets = list(scores["label"].drop_duplicates())
    entries = [
        _entry(case, scores[scores["case"] == case], pages[case], targets, description.unit)
        for case in ranked
    ]
    weights, is_optimistic = describe_weights(summary.about), summary.about.get("num_chosen_on", 0) != 0
    dice = summary.dice
    summaries = {label: summary_rows(own, scores, description.unit) for label, own in summary.targets.items()}
    return render(
        "index.html",
        title=description.title or description.name,
        run_name=run_name,
        has_selection=has_selection,
        num_cases=len(ranked),
        num_unscored=len(unscored),
        mean_dice=number_text(dice.mean, 3),
        dice_interval="" if math.isnan(dice.low) else interval_text(dice.low, dice.high, 3),
        no_interval=dice.no_interval,
        num_averaged=dice.num_cases,
        num_patients=summary.num_patients,
        strata=_strata(summary),
        warnings=[
            *stale,
            *(
                text
                for text in (training_warning(provenance), weights if is_optimistic else "", summary.remark)
                if text
            ),
        ],
        unscored=[entry for entry in entries if entry["case"] in unscored],
        ranked=[entry for entry in entries if entry["case"] not in unscored],
        troubled=[entry for entry in entries if entry["page"].trouble],
        targets=targets,
        distance=_table_distance(scores, description.unit),
        summaries=summaries,
        reasons=list(
            dict.fromkeys(
                row.metric.no_interval
                for rows in summaries.values()
                for row in rows
                if row.metric.no_interval
            )
        ),
        has_penalised=any(row.is_penalised for rows in summaries.values() for row in rows),
        **_lesion_values(lesions, summary.targets, description),
        dice_plot=_uri(draw_dice(scores)),
        volume_plot=_uri(draw_volumes(scores, description.unit)),
        most_plotted=MAX_TARGETS,
        faults=None if faults is None else _count_faults(faults),
        unmatched=manifest.unmatched,
        excluded=manifest.excluded,
        accepted=manifest.accepted,
        not_scored=len({case.id for case in manifest.used} - set(ranked)),
        conventions=" ".join(filter(None, (describe_conventions(scores, description.unit), weights))),
        volumes="Volumes in ml" if description.unit == "mm" else "Areas in pixels",
        provenance=flat_items(dict(provenance or {})),
    )


def _entry(
    case: str, rows: pd.DataFrame, page: CasePage, targets: Sequence[str], unit: Unit
) -> dict[str, Any]:
    severity, sentence = verdict(rows)
    distance = _table_distance(rows, unit)
    by_label = {row["label"]: row for _, row in rows.iterrows()}
    cells = []
    for label in targets:
        if label not in by_label:
            cells.append({"dice": "", "distance": ""})
            continue
        row = by_label[label]
        cells.append(
            {
                "dice": number_text(row["dice"], 3),
                "distance": number_text(row[distance.column]) if distance else "",
            }
        )
    return {"case": case, "page": page, "severity": severity, "verdict": sentence, "cells": cells}


def _lesion_values(
    lesions: pd.DataFrame | None, targets: Mapping[str, LabelSummary], description: Description
) -> dict[str, Any]:
    """Return the template values for lesions; empty ones if none were scored or there are none."""
    unit = description.unit
    found = [] if lesions is None else summarise_lesions(lesions, targets, unit)
    if lesions is None or not found:
        return {
            "lesions": [],
            "lesion_measures": [],
            "lesion_rules": [],
            "lesion_reasons": [],
            "sized": [],
        }
    return {
        "lesions": found,
        "lesion_measures": cohort_measures(lesions, found, unit),
        "lesion_rules": [
            describe_rules(name, unit, instances=description.instances)
            for name in dict.fromkeys(summary.rules for summary in found)
        ],
        "lesion_reasons": list(
            dict.fromkeys(
                metric.no_interval
                for summary in found
                for metric in summary.means.values()
                if metric.no_interval
            )
        ),
        "sized": [summary for summary in found if any(size.num_lesions for size in summary.sizes)],
    }


def _strata(summary: CohortSummary) -> dict[str, list[Stratum]]:
    """Return the strata by column; their Dice has no interval where the reason is named."""
    return {
        name: [stratum for stratum in summary.strata if stratum.by == name]
        for name in dict.fromkeys(stratum.by for stratum in summary.strata)
    }


def _table_distance(scores: pd.DataFrame, unit: Unit) -> Measure | None:
    """Return the distance that the case table shows next to Dice: the robust Hausdorff distance."""
    distances = [measure for measure in measures(scores, unit) if measure.column.startswith("hd")]
    return distances[-1] if distances else None


def _count_faults(faults: Sequence[Fault]) -> list[dict[str, Any]]:
    """Return a row for each fault code, errors first, with the affected cases."""
    order = {"error": 0, "warning": 1, "note": 2}
    kinds = sorted({(order.get(fault.severity, 3), fault.code, fault.severity) for fault in faults})
    rows = []
    for _, code, severity in kinds:
        same = [fault for fault in faults if (fault.code, fault.severity) == (code, severity)]
        cases = list(dict.fromkeys(fault.case or fault.subject for fault in same))
        rows.append(
            {
                "code": code,
                "severity": severity,
                "count": len(same),
                "num_accepted": sum(bool(fault.accepted) for fault in same),
                "cases": cases,
                "hint": same[0].hint,
            }
        )
    return rows


def _uri(figure: Figure | None) -> str | None:
    return None if figure is None else data_uri(figure_png(figure))

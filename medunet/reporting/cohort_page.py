"""Index page of a report: failures, the worst error, a headline for each target, all cases, charts and summaries."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.scores import UNSCORED
from medunet.reporting.case_parts import CaseSummary
from medunet.reporting.cohort_charts import draw_cohort
from medunet.reporting.cohort_table import PAGE_ROWS, make_case_table, short_verdict
from medunet.reporting.errors_shown import noun_of
from medunet.reporting.explanations import describe_conventions, describe_weights, training_warning
from medunet.reporting.lesions import CohortLesions, cohort_measures, describe_rules, summarise_lesions
from medunet.reporting.page import flat_items, interval_text, json_script, number_text, render
from medunet.reporting.report_source import ReportSource
from medunet.reporting.scores import SEVERITY_ORDER, Measure, Unit, measures
from medunet.reporting.strata_shown import filters_of
from medunet.reporting.summaries import CohortSummary, summary_rows
from medunet.reporting.svg import CaseLink
from medunet.scoring.strata import Stratum
from medunet.scoring.summary import LabelSummary

_MAX_HEADLINES = 6  # targets with a headline; of more, those with the lowest mean Dice


@dataclass(frozen=True)
class Headline:
    """The main numbers of one target, as text, and its worst scored case."""

    target: str
    dice: str
    interval: str
    facts: tuple[str, ...]
    worst: str  # case
    worst_page: str
    worst_dice: str


def cohort_html(
    source: ReportSource,
    summary: CohortSummary,
    summaries: Mapping[str, CaseSummary],
    *,
    by: Sequence[str] = (),
    new: Mapping[str, CaseSummary] | None = None,
) -> str:
    """Return the HTML index page.

    Args:
        source: what the report is made from; its scores have a column for each group.
        summary: the means of the cohort.
        summaries: what the page of each case says, worst case first.
        by: text columns of the scores that get charts; `summary.strata` has their tables.
        new: what the pages of predicted cases without a reference say.
    """
    new = new or {}
    scores, description = source.scores, source.description
    unit, noun = description.unit, noun_of(description)
    unscored = list(dict.fromkeys(scores.loc[scores["status"].isin(UNSCORED), "case"]))
    ranked = [case for case in summaries if case not in set(unscored)]
    table = make_case_table(scores, summaries, filters_of(scores, by), unit)
    links = {
        case: CaseLink(number, f"cases/{each.page}") for number, (case, each) in enumerate(summaries.items())
    }
    lesions = _lesion_values(source.lesions, summary.targets, description)
    sizes = {row.label: row.sizes for row in lesions["sized"]}
    charts = draw_cohort(scores, source.lesions, links, unit, by=by, sizes=sizes, noun=noun)
    weights, is_optimistic = describe_weights(summary.about), summary.about.get("num_chosen_on", 0) != 0
    rows = {label: summary_rows(own, scores, unit) for label, own in summary.targets.items()}
    worst = next((case for case in ranked if summaries[case].worst_picture), None)
    manifest = source.manifest
    return render(
        "index.html",
        styles=("cohort.css",),
        scripts=("cohort.js",),
        title=description.title or description.name,
        run_name=source.name,
        has_selection=source.has_selection,
        tensorboard=_tensorboard(source.name) if source.has_events else "",
        num_cases=len(summaries),
        num_patients=summary.num_patients,
        num_unscored=len(unscored),
        num_review=sum(each.severity == "review" for each in summaries.values()),
        headlines=_headlines(scores, summary.targets, lesions["lesions"], summaries, unit, noun),
        num_targets=len(summary.targets),
        worst=worst,
        worst_summary=summaries[worst] if worst else None,
        worst_verdict=short_verdict(summaries[worst]) if worst else "",
        strata=_strata(summary),
        warnings=[
            *source.stale.warnings,
            *(
                text
                for text in (
                    training_warning(source.provenance),
                    weights if is_optimistic else "",
                    summary.remark,
                )
                if text
            ),
        ],
        unscored=[(case, summaries[case]) for case in summaries if case in set(unscored)],
        num_ranked=len(ranked),
        new=sorted(new.items(), key=lambda entry: (SEVERITY_ORDER[entry[1].severity], entry[0])),
        troubles=_troubles({**summaries, **new}),
        table=table,
        table_rows=table.rows[:PAGE_ROWS],
        table_data=json_script("cases-data", table.data),
        targets=list(scores["label"].drop_duplicates()),
        distance=_table_distance(scores, unit),
        charts=charts,
        summaries=rows,
        reasons=list(
            dict.fromkeys(
                row.metric.no_interval for own in rows.values() for row in own if row.metric.no_interval
            )
        ),
        has_penalised=any(row.is_penalised for own in rows.values() for row in own),
        **lesions,
        noun=noun,
        faults=None if source.faults is None else _count_faults(source.faults),
        is_run=source.is_run,
        unmatched=manifest.unmatched if manifest else (),
        excluded=manifest.excluded if manifest else (),
        accepted=manifest.accepted if manifest else (),
        others=_group_others(source, {*summaries, *new}, summary.about) if manifest else {},
        conventions=" ".join(filter(None, (describe_conventions(scores, unit), weights))),
        provenance=flat_items(dict(source.provenance or {})),
    )


def _tensorboard(run_name: str) -> str:
    """Return the command that shows a run's training, to be given in the folder that holds the run's."""
    return f"tensorboard --logdir {shlex.quote((Path(run_name) / 'folds').as_posix())}"


def _headlines(
    scores: pd.DataFrame,
    targets: Mapping[str, LabelSummary],
    lesions: Sequence[CohortLesions],
    summaries: Mapping[str, CaseSummary],
    unit: Unit,
    noun: str,
) -> list[Headline]:
    """Return the headlines of the targets, lowest mean Dice first; of many targets only those of the lowest."""

    def mean(label: str) -> float:
        value = targets[label].metrics["dice"].mean
        return math.inf if math.isnan(value) else value

    distance = _table_distance(scores, unit)
    found = []
    for label in sorted(targets, key=mean)[:_MAX_HEADLINES]:
        own, dice = targets[label], targets[label].metrics["dice"]
        known = scores[(scores["label"] == label) & scores["dice"].notna()].sort_values("dice", kind="stable")
        facts = [f"median {number_text(dice.median, 3)}"]
        if distance:
            metric = own.metrics[distance.column]
            facts.append(f"median {distance.heading} {number_text(metric.median, distance.decimals)}")
        for count, what in (
            (own.num_missed, "missed altogether"),
            (own.num_false_positive, "invented"),
            (own.num_missing + own.num_failed, "failed or missing, as 0"),
        ):
            if count:
                facts.append(f"{count} {what}")
        for row in lesions:
            if row.label == label:
                facts.append(f"{noun}s: {row.counts.text}")
        case = str(known.iloc[0]["case"]) if len(known) else ""
        interval = "" if math.isnan(dice.mean_low) else interval_text(dice.mean_low, dice.mean_high, 3)
        found.append(
            Headline(
                target=label,
                dice=number_text(dice.mean, 3),
                interval=interval,
                facts=tuple(facts),
                worst=case,
                worst_page=summaries[case].page if case else "",
                worst_dice=number_text(float(known.iloc[0]["dice"]), 3) if case else "",
            )
        )
    return found


def _troubles(summaries: Mapping[str, CaseSummary]) -> list[tuple[str, list[tuple[str, CaseSummary]]]]:
    """Return the reasons why cases have no pictures, each with its cases."""
    found: dict[str, list[tuple[str, CaseSummary]]] = {}
    for case, summary in summaries.items():
        if summary.trouble:
            found.setdefault(summary.trouble, []).append((case, summary))
    return list(found.items())


def _group_others(source: ReportSource, shown: set[str], about: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the manifest's cases without a page, by what they are."""
    folds = [str(fold) for fold in about.get("folds", ())]
    named = f"fold {folds[0]}" if len(folds) == 1 else f"folds {', '.join(folds)}"
    groups: dict[str, list[str]] = {}
    for case in source.manifest.used if source.manifest else ():
        if case.id in shown:
            continue
        if case.label is None:
            what = "without a reference, and not predicted" if source.is_run else "without a reference"
        elif case.split == "train" and folds:
            what = f"training cases of {named}: a model is not scored on what it was trained on"
        elif case.split == "train":
            what = "training cases, which are not among these scores"
        else:
            what = "test cases, which are not among these scores"
        groups.setdefault(what, []).append(case.id)
    return groups


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
    """Return the strata by column."""
    return {
        name: [stratum for stratum in summary.strata if stratum.by == name]
        for name in dict.fromkeys(stratum.by for stratum in summary.strata)
    }


def _table_distance(scores: pd.DataFrame, unit: Unit) -> Measure | None:
    """Return the distance that tables show next to Dice: the robust Hausdorff distance."""
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

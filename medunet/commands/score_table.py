"""Terminal table of the scores of a cohort, the worst cases, and why cases have no scores."""

import math
from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from medunet.records.scores import UNSCORED, CaseScore
from medunet.scoring.columns import metric_columns, robust_column
from medunet.scoring.strata import Stratum
from medunet.scoring.summary import LabelSummary, MetricSummary, average_dice, dice_by_case

_NUM_WORST = 3
_MAX_CASES = 20  # without scores that are named
_MAX_REMARKS = 5  # on names


def score_table(scores: Sequence[CaseScore], summaries: Sequence[LabelSummary], unit: str = "mm") -> Table:
    """Return a terminal table with a row per label, and below it the mean Dice and the worst cases.

    Dice is shown with its 95% interval over patients; the caption says why there is none. Counts other than "scored"
    that are zero for every label are left out.
    `unit` is the unit of lengths: mm, or px for 2D images.
    """
    tolerances = [name for name in metric_columns(scores) if name.startswith("nsd_")]
    shown = ["dice", robust_column(scores), *tolerances]
    statuses = ("both_empty", "missed", "false_positive", *UNSCORED)
    present = [name for name in statuses if any(getattr(summary, f"num_{name}") for summary in summaries)]
    title = "Scores: mean over cases (95% interval)"
    table = Table(title=title, caption=_caption(scores, summaries), caption_justify="left")
    table.add_column("label", no_wrap=True)
    for name in (*shown, "scored", *present):
        table.add_column(name.replace("_", " ").replace("mm", unit), justify="right")
    for summary in summaries:
        table.add_row(
            escape(summary.label),
            *(_cell(summary.metrics[name], with_interval=name == "dice") for name in shown),
            f"{summary.num_scored}/{summary.num_expected}",
            *(str(getattr(summary, f"num_{name}")) for name in present),
        )
    return table


def strata_table(strata: Sequence[Stratum], column: str, unit: str = "mm") -> Table:
    """Return a terminal table with a row per stratum and label; `column` is the robust Hausdorff distance."""
    table = Table(title="Strata: mean over cases (95% interval)", caption_justify="left")
    for name in (
        "stratum",
        "patients",
        "cases",
        "label",
        "dice",
        column.replace("_", " ").replace("mm", unit),
    ):
        table.add_column(name, no_wrap=name in ("stratum", "label"))
    reasons = []
    for stratum in strata:
        reasons.append(f"{stratum.by} {stratum.value}: {stratum.dice.no_interval}")
        for index, summary in enumerate(stratum.summary):
            head = (f"{stratum.by} {stratum.value}", str(stratum.num_patients), str(stratum.num_cases))
            table.add_row(
                *(map(escape, head) if index == 0 else ("", "", "")),
                escape(summary.label),
                _cell(summary.metrics["dice"], with_interval=True),
                _cell(summary.metrics[column], with_interval=False),
            )
    if without := [escape(text) for text in reasons if not text.endswith(": ")]:
        table.caption = f"without an interval: {'; '.join(without)}"
    return table


def _cell(metric: MetricSummary, *, with_interval: bool) -> str:
    mean = "–" if math.isnan(metric.mean) else f"{metric.mean:.3f}"
    if with_interval and not math.isnan(metric.mean_low):
        mean += f" ({metric.mean_low:.3f}–{metric.mean_high:.3f})"
    return f"{mean} ({metric.num_infinite} infinite)" if metric.num_infinite else mean


def _caption(scores: Sequence[CaseScore], summaries: Sequence[LabelSummary]) -> str:
    by_case = {case: dice for case, dice in dice_by_case(scores).items() if not math.isnan(dice)}
    worst = sorted(by_case.items(), key=lambda item: item[1])[:_NUM_WORST]
    listed = ", ".join(f"{escape(case)} {dice:.3f}" for case, dice in worst)
    dice = average_dice(by_case, {score.case: score.unit for score in scores})
    mean = f"{dice.mean:.3f}" if by_case else "undefined"
    over = f"{dice.num_cases} cases"
    if dice.num_patients < dice.num_cases:
        over += f" of {dice.num_patients} patients"
    if undefined := len({score.case for score in scores}) - len(by_case):
        over += f" ({undefined} more undefined: nothing to find, and nothing found)"
    interval = f" ({dice.low:.3f}–{dice.high:.3f})" if not dice.no_interval else ""
    text = f"mean Dice {mean}{interval} over {over}; worst: {listed or '–'}"
    reasons = [
        f"{summary.label} ({metric.no_interval})"
        for summary in summaries
        if (metric := summary.metrics["dice"]).no_interval
    ]
    return text + (f"\nno 95% interval of Dice: {escape(', '.join(reasons))}" if reasons else "")


def remark_lines(scores: Sequence[CaseScore], reasons: Mapping[str, str]) -> list[str]:
    """Return lines for the terminal: each case without scores with its reason, and contradictions of names.

    `reasons` are known reasons why the predictions of missing cases are missing.
    """
    lines = []
    unscored = {score.case: score for score in scores if score.status in UNSCORED}
    for case, score in list(unscored.items())[:_MAX_CASES]:
        is_known = score.status == "missing" and case in reasons
        reason = f"the prediction failed: {reasons[case]}" if is_known else score.reason
        lines.append(f"  [red]{score.status}[/] {escape(case)}: {escape(reason)}")
    if len(unscored) > _MAX_CASES:
        lines.append(f"  and {len(unscored) - _MAX_CASES} more, see scores.csv")
    named: dict[str, set[str]] = {}
    for score in scores:
        for note in score.notes:
            if note.kind == "names":
                named.setdefault(note.text, set()).add(score.case)
    for text, cases in list(named.items())[:_MAX_REMARKS]:
        which = next(iter(cases)) if len(cases) == 1 else f"{len(cases)} cases"
        lines.append(f"  [yellow]names[/] {escape(which)}: {escape(text.removeprefix('names '))}")
    if len(named) > _MAX_REMARKS:
        lines.append(f"  and other names in {len(named) - _MAX_REMARKS} more ways, see scores.csv")
    return lines

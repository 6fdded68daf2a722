"""The page of a selection (selection.html): what was chosen on held-out cases, and all that was tried."""

import math
from typing import Any

from medunet.records.selection import MeanScores, Round, Selection
from medunet.reporting.page import interval_text, number_text, render

_SMALLEST_P = 0.001


def selection_html(selection: Selection, title: str) -> str:
    """Return the page of a selection; `title` is that of the dataset."""
    scores = [("The folds, which chose", selection.folds)]
    if selection.test is not None:
        scores.append(("The test cases, which did not choose", selection.test))
    return render(
        "selection.html",
        title=title,
        chosen=selection.chosen,
        steps=[{"name": name, "steps": selection.steps_of(name)} for name in selection.targets],
        configurations=[
            {
                "name": each.name,
                "num_networks": len(each.members),
                "mean_dice": _number(each.mean_dice),
                "is_chosen": each.name == selection.chosen,
            }
            for each in selection.configurations
        ],
        first=selection.configurations[0].name,
        scores=[_score_row(name, means) for name, means in scores],
        has_test=selection.test is not None,
        unlabelled=selection.unlabelled,
        rounds=[_round_rows(decision) for decision in selection.rounds],
    )


def _score_row(name: str, means: MeanScores) -> dict[str, Any]:
    return {
        "name": name,
        "num_patients": means.num_patients,
        "num_cases": means.num_cases,
        "first": _number(means.first),
        "chosen": _number(means.chosen),
        "gain": _number(means.gain, signed=True),
        "interval": f"none: {means.no_interval}" if means.no_interval else _interval(means.low, means.high),
    }


def _round_rows(decision: Round) -> dict[str, Any]:
    return {
        "about": decision.about,
        "why": decision.why,
        "level": f"{decision.level:g}",
        "reasons": list(dict.fromkeys(trial.no_interval for trial in decision.trials if trial.no_interval)),
        "against": decision.trials[0].against if decision.about == "postprocessing" else "",
        "trials": [
            {
                "tried": trial.tried,
                "target": trial.target,
                "against": trial.against,
                "mean": _number(trial.mean),
                "gain": _number(trial.gain, signed=True),
                "interval": _interval(trial.low, trial.high),
                "bound": _number(trial.bound, signed=True),
                "p": _p(trial.p_holm),
                "num_better": trial.num_better,
                "num_worse": trial.num_worse,
                "num_same": trial.num_patients - trial.num_better - trial.num_worse,
                "is_chosen": trial.is_chosen,
            }
            for trial in decision.trials
        ],
    }


def _number(value: float | None, *, signed: bool = False) -> str:
    return number_text(math.nan if value is None else value, 4, signed=signed)


def _interval(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else interval_text(low, high, 4)


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"<{_SMALLEST_P:g}" if value < _SMALLEST_P else number_text(value, 3)

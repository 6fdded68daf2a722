"""The scores in a model card: of a package's own networks, or of others of the same recipe with fewer scans."""

import math
import re
from dataclasses import dataclass

from medunet.records.model_card import TRAIN_IS_VALIDATION
from medunet.records.package import Package
from medunet.reporting.markdown import join, or_unknown, plain, table
from medunet.scoring.scores_json import StoredScores
from medunet.scoring.summary import LabelSummary, MetricSummary

_METRICS = {"dice": ("Dice", 3), "hd95_mm": ("HD95 in {}", 2), "assd_mm": ("ASSD in {}", 2)}


@dataclass(frozen=True)
class Recipe:
    """Networks of the members' recipe that were trained on fewer scans, so that others were left to score them on."""

    num_training_cases: int
    num_seen: int  # scored scans that the package's members were trained on


@dataclass(frozen=True)
class RunScores:
    """Scores of one run; `recipe` is None if its networks are those of the package."""

    scores: StoredScores
    seed: int | None = None  # the run's; None: not known
    num_networks: int = 1  # that predicted each scan together
    recipe: Recipe | None = None


def write_scores(package: Package, each: RunScores, unit: str, *, many: bool) -> str:
    """Return the section of the scores of one run, in mm or px; with `many`, its heading names the run's seed."""
    stored = each.scores
    heading = "## Scores" + (f" of the run with seed {or_unknown(each.seed)}" if many else "")
    told = TRAIN_IS_VALIDATION if stored.about.get("train_is_validation") else _describe_scored(package, each)
    told += " Means with their 95% bootstrap intervals over patients; –: none, or undefined."
    names = [name for name in _METRICS if any(name in label.metrics for label in stored.summaries)]
    names += sorted(
        {name for label in stored.summaries for name in label.metrics if re.fullmatch(r"nsd_\w+mm", name)}
    )
    titles = [
        _METRICS[name][0].format(unit) if name in _METRICS else f"NSD at {name[4:-2]} {unit}"
        for name in names
    ]
    head = ["structure", *titles, "scans", "patients", "missed", "false positive", "failed"]
    rows = []
    for label in stored.summaries:
        cells = [_interval(label.metrics.get(name), _METRICS.get(name, ("", 3))[1]) for name in names]
        rows.append([plain(label.label), *cells, *_counts(label)])
    lines = [heading, "", told, "", *table(head, rows)]
    return "\n".join(lines)


def _describe_scored(package: Package, each: RunScores) -> str:
    """Say which networks were scored, on which scans."""
    folds = [str(fold) for fold in each.scores.about.get("folds", ())]
    count = each.num_networks
    networks = f"the mean of {count} networks" if count > 1 else "one network"
    scans = f"held-out scans of fold{'s' * (len(folds) > 1)} {join(folds)}"
    if folds == ["all"]:
        scans = "a test set that was left out"
    if each.recipe is not None:
        seen, all_scans = each.recipe.num_seen, or_unknown(package.members[0].num_training_cases)
        return (
            f"Of the recipe, not of these weights: {networks}, trained alike on {each.recipe.num_training_cases} "
            f"scans, on {scans}. The members of this package were trained on {all_scans} scans, "
            f"{f'{seen} of the scored ones' if seen else 'none of the scored ones'} among them."
        )
    told = (
        f"On {scans}: each is scored with {networks} that {'were' if count > 1 else 'was'} not trained on it"
    )
    return f"{told}{', and not with all members together' if len(package.members) > count else ''}."


def _counts(label: LabelSummary) -> list[str]:
    patients = max((metric.num_patients for metric in label.metrics.values()), default=0)
    failed = label.num_missing + label.num_failed
    return [
        str(number)
        for number in (label.num_expected, patients, label.num_missed, label.num_false_positive, failed)
    ]


def _interval(metric: MetricSummary | None, digits: int) -> str:
    if metric is None or math.isnan(metric.mean):
        return "–"
    mean = f"{metric.mean:.{digits}f}"
    if metric.no_interval or math.isnan(metric.mean_low):
        return mean
    return f"{mean} ({metric.mean_low:.{digits}f}–{metric.mean_high:.{digits}f})"

"""Means and medians over finite values and with failures at their penalty, each with its interval."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from medunet.records.scores import CaseLesions, CaseScore, LesionPreset, Status
from medunet.scoring.intervals import bootstrap_intervals
from medunet.scoring.summary import MetricSummary, summarise
from medunet.scoring.tables import write_scores

NAN, INF = math.nan, math.inf


def score(
    case: str,
    status: Status,
    hd95_mm: float = NAN,
    penalty_mm: float = NAN,
    rules: LesionPreset | None = None,
    lesion_mm: float = NAN,
) -> CaseScore:
    lesions = None
    if rules is not None:
        lesions = CaseLesions(rules, (), 0, 0, 0, *[NAN] * 4, hd95_mm=lesion_mm, rq=NAN, sq=NAN, pq=NAN)
    return CaseScore(
        *(case, "tumour", status, "area"), hd95_mm=hd95_mm, penalty_mm=penalty_mm, lesions=lesions
    )


def metric_of(scores: list[CaseScore], column: str) -> MetricSummary:
    (summary,) = summarise(scores)
    return summary.metrics[column]


DISTANCES = [
    score("found", "ok", 2.0, 90.0),
    score("coarse", "ok", 8.0, 100.0),
    score("shifted", "ok", 3.0, 80.0),
    score("none", "both_empty", NAN, 95.0),
    score("missed", "missed", INF, 70.0),
    score("gone", "missing", NAN, 60.0),
    score("unreadable", "failed"),  # whose field of view is not known: the largest of the cohort
]


COHORT = [replace(score, case=f"{score.case}_{number}") for number in range(4) for score in DISTANCES]


def test_mean_and_median_of_distances_with_failures_at_the_diagonal() -> None:
    hd95 = metric_of(COHORT, "hd95_mm")
    finite, penalised = [2.0, 8.0, 3.0] * 4, [2.0, 8.0, 3.0, 70.0, 60.0, 100.0] * 4
    assert (hd95.mean, hd95.median) == (pytest.approx(13 / 3), 3.0)
    assert (hd95.mean_penalised, hd95.median_penalised) == (pytest.approx(243 / 6), 34.0)
    assert hd95.penalty == "diagonal of the field of view"
    plain, with_penalty = bootstrap_intervals(finite), bootstrap_intervals(penalised)
    assert (hd95.num_patients, hd95.no_interval) == (12, "")
    assert (hd95.mean_low, hd95.mean_high) == plain.mean
    assert (hd95.median_low, hd95.median_high) == plain.median
    assert (hd95.mean_penalised_low, hd95.mean_penalised_high) == with_penalty.mean
    assert (hd95.median_penalised_low, hd95.median_penalised_high) == with_penalty.median
    assert 2 <= hd95.median_low <= 3 <= hd95.median_high <= 8 < hd95.mean_penalised_high <= 100


def test_without_a_failure_penalised_and_plain_are_the_same() -> None:
    hd95 = metric_of([score for score in COHORT if score.status in ("ok", "both_empty")], "hd95_mm")
    for name in ("mean", "mean_low", "mean_high", "median", "median_low", "median_high"):
        statistic, _, end = name.partition("_")
        other = f"{statistic}_penalised_{end}" if end else f"{statistic}_penalised"
        assert getattr(hd95, other) == getattr(hd95, name), name


def test_overlaps_have_no_penalty_but_zeros() -> None:
    dice = metric_of([CaseScore("a", "tumour", "ok", "area", dice=0.8), score("b", "missing")], "dice")
    assert (dice.mean, dice.median, dice.num_finite) == (0.4, 0.4, 2)
    assert math.isnan(dice.median_low)
    assert dice.penalty == ""
    assert math.isnan(dice.mean_penalised)
    assert math.isnan(dice.median_penalised_low)


def test_a_failure_whose_price_nobody_knows_has_no_penalised_mean() -> None:
    hd95 = metric_of([score("a", "ok", 2.0), score("b", "missing")], "hd95_mm")
    assert hd95.mean == 2.0
    assert math.isnan(hd95.mean_penalised)
    assert hd95.penalty == ""


def test_lesions_have_their_rules_penalty_and_masks_the_diagonal() -> None:
    # The first case's 188 mm are the mean over a lesion found at 2 mm and one missed, 374 mm by BraTS' rules.
    scores = [
        score("half", "ok", 5.0, 300.0, "brats2023", lesion_mm=188.0),
        score("clean", "both_empty", NAN, 300.0, "brats2023", lesion_mm=0.0),
        score("gone", "missing", NAN, 300.0),
    ]
    lesions = metric_of(scores, "lesion_hd95_mm")
    assert lesions.mean == 94.0
    assert lesions.mean_penalised == pytest.approx((188 + 0 + 374) / 3)
    assert lesions.median_penalised == 188.0
    assert lesions.penalty == "374 mm (brats2023)"
    masks = metric_of(scores, "hd95_mm")
    assert masks.mean_penalised == pytest.approx((5 + 300) / 2)
    assert masks.penalty == "diagonal of the field of view"


@pytest.mark.parametrize("rules", ["lits", "lits_half", "panoptic"])
def test_rules_without_a_penalty_have_no_penalised_mean(rules: LesionPreset) -> None:
    scores = [score("a", "ok", 5.0, 300.0, rules, lesion_mm=4.0), score("gone", "missing", NAN, 300.0)]
    lesions = metric_of(scores, "lesion_hd95_mm")
    assert lesions.mean == 4.0
    assert math.isnan(lesions.mean_penalised)
    assert lesions.penalty == ""


def test_the_file_has_every_interval_and_names_the_penalty(tmp_path: Path) -> None:
    write_scores(COHORT, tmp_path, about={}, targets={"tumour": (1,)})
    (summary,) = json.loads((tmp_path / "scores.json").read_text())["summary"]
    hd95, dice = summary["metrics"]["hd95_mm"], summary["metrics"]["dice"]
    for name in ("mean", "median", "mean_penalised", "median_penalised"):
        assert hd95[f"{name}_low"] <= hd95[name] <= hd95[f"{name}_high"], name
    assert hd95["penalty"] == "diagonal of the field of view"
    assert dice["mean_penalised_low"] is None

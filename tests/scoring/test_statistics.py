"""Tests and rankings: answers worked out by hand, several cases of a patient, and the degenerate samples."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata, wilcoxon

from medunet.scoring.statistics import (
    _kendall_tau,
    adjust_holm,
    average_by_unit,
    rank_stability,
    signed_rank_p,
)


def test_signed_ranks_by_hand() -> None:
    # Of 2⁶ sign patterns only all plus and all minus are as far out.
    assert signed_rank_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 64)
    assert signed_rank_p([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 64)
    # Rank sum 6 against: of {1..6}, 1 + 1 + 1 + 2 + 2 + 3 + 4 = 14 subsets sum to 0, 1, ... 6.
    assert signed_rank_p([1.0, 2.0, 3.0, 4.0, 5.0, -6.0]) == pytest.approx(28 / 64)
    assert signed_rank_p([1.0, 2.0, 3.0, 4.0, 5.0, -math.inf]) == pytest.approx(28 / 64)
    tied = signed_rank_p([1, -9, 3, 4, 5, 9])
    assert signed_rank_p([1.0, -math.inf, 3.0, 4.0, 5.0, math.inf]) == pytest.approx(tied)


@pytest.mark.parametrize("size", [6, 9, 12])
def test_signed_ranks_that_tie_are_exact(size: int) -> None:
    generator = np.random.default_rng(size)
    for _ in range(5):
        differences = generator.choice([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0], size)
        ranks = rankdata(np.abs(differences))
        sums = np.array(list(itertools.product((-1, 1), repeat=size))) @ ranks
        share = np.mean(np.abs(sums) >= abs(np.sign(differences) @ ranks) - 1e-9)
        assert signed_rank_p(differences) == pytest.approx(share)


@pytest.mark.parametrize("size", [20, 50, 51])
def test_signed_ranks_are_scipys(size: int) -> None:
    differences = np.random.default_rng(size).normal(0.2, 1.0, size)
    assert signed_rank_p(differences) == pytest.approx(wilcoxon(differences).pvalue)


@pytest.mark.parametrize("size", [8, 30, 80])
def test_one_sided_signed_ranks_are_scipys(size: int) -> None:
    differences = np.random.default_rng(size).normal(0.2, 1, size)
    method = "exact" if size <= 50 else "asymptotic"
    for signed in (differences, -differences):
        expected = wilcoxon(signed, alternative="greater", method=method).pvalue
        assert signed_rank_p(signed, "greater") == pytest.approx(expected)
    assert signed_rank_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "greater") == pytest.approx(1 / 64)
    assert signed_rank_p([-1.0, -2.0, -3.0, -4.0, -5.0, -6.0], "greater") == 1


def test_differences_that_prove_nothing() -> None:
    assert math.isnan(signed_rank_p([]))
    assert math.isnan(signed_rank_p([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert signed_rank_p([0.0] * 6) == 1.0
    assert signed_rank_p([1e-12, -1e-13, 0.0, 0.0, 0.0, 0.0]) == 1.0  # rounding is no difference


def test_a_patients_cases_are_one_difference() -> None:
    differences = [0.1, 0.3, -0.2, math.inf, 1.0, math.inf, -math.inf, 0.5]
    patients = ["a", "a", "b", "c", "c", "d", "d", "d"]
    assert average_by_unit(differences, patients) == pytest.approx([0.2, -0.2, math.inf, 0.5])


@pytest.mark.parametrize("size", [12, 60])
def test_the_test_by_patient_is_scipys_on_their_means(size: int) -> None:
    by_patient = np.random.default_rng(size).normal(0.2, 1.0, (size, 3))
    patients = np.repeat(np.arange(size), 3).tolist()
    ours = signed_rank_p(average_by_unit(by_patient.ravel(), patients))
    assert ours == pytest.approx(wilcoxon(by_patient.mean(axis=1)).pvalue)
    alone = by_patient[:, 0]  # one case of each patient: nothing changes
    assert signed_rank_p(average_by_unit(alone, range(size))) == pytest.approx(wilcoxon(alone).pvalue)


def test_scans_of_a_patient_that_are_alike_prove_no_more_than_one() -> None:
    generator = np.random.default_rng(0)
    rejected = {"cases": 0, "patients": 0}
    for _ in range(300):
        differences = np.repeat(generator.normal(0.0, 1.0, 12), 3) + generator.normal(0.0, 0.1, 36)
        patients = np.repeat(np.arange(12), 3).tolist()
        rejected["cases"] += signed_rank_p(differences) < 0.05
        rejected["patients"] += signed_rank_p(average_by_unit(differences, patients)) < 0.05
    assert rejected["cases"] > 0.15 * 300  # three times as often as it should, without any difference
    assert rejected["patients"] < 0.08 * 300


def test_rankings_resample_whole_patients() -> None:
    # The second method wins both scans of 5 of 12 patients by as much as it loses those of the others.
    patient_values = np.array([[0.5, 0.6]] * 5 + [[0.5, 0.4]] * 7)
    alone = rank_stability(patient_values, "mean_then_rank", higher_is_better=True)
    twice = np.repeat(patient_values, 2, axis=0)
    patients = np.repeat(np.arange(12), 2).tolist()
    together = rank_stability(twice, "mean_then_rank", higher_is_better=True, units=patients)
    assert together.shares == alone.shares
    as_cases = rank_stability(twice, "mean_then_rank", higher_is_better=True)
    assert as_cases.shares[0][0] > together.shares[0][0] + 0.02  # too sure


def test_holm_by_hand() -> None:
    # 0.01·3, 0.03·2 and 0.04·1, which may not fall below 0.06 again; NaN is no fourth one.
    adjusted = adjust_holm([0.01, 0.04, math.nan, 0.03])
    assert adjusted == pytest.approx([0.03, 0.06, math.nan, 0.06], nan_ok=True)
    assert adjust_holm([0.6, 0.7]) == [1.0, 1.0]
    assert adjust_holm([]) == []


def test_a_method_that_always_wins_is_always_first() -> None:
    values = np.array([[0.9, 0.8], [0.7, 0.6], [0.8, 0.1]])
    stability = rank_stability(values, "mean_then_rank", higher_is_better=True)
    assert stability.scores == pytest.approx((0.8, 0.5))
    assert stability.ranks == (1, 2)
    assert stability.shares == ((1.0, 0.0), (0.0, 1.0))
    assert stability.tau_mean == 1.0
    turned = rank_stability(values, "rank_then_mean", higher_is_better=False)
    assert turned.ranks == (2, 1)
    assert turned.scores == (2.0, 1.0)


def test_means_and_ranks_can_disagree() -> None:
    # The first is better in three cases by 0.1 and fails in one: means 0.675 and 0.8, mean ranks 1.25 and 1.75.
    values = np.array([[0.9, 0.8], [0.9, 0.8], [0.9, 0.8], [0.0, 0.8]])
    assert rank_stability(values, "mean_then_rank", higher_is_better=True).ranks == (2, 1)
    by_rank = rank_stability(values, "rank_then_mean", higher_is_better=True)
    assert by_rank.ranks == (1, 2)
    assert by_rank.scores == (1.25, 1.75)


def test_shares_and_tau_of_an_unstable_ranking() -> None:
    # The second leads by 0.2 in one case and trails by 0.1 in the other: only a resample of twice the latter, one in
    # four, turns the ranks. Kendall's tau is then -1, else 1: 0.75 - 0.25 in the mean.
    stability = rank_stability(np.array([[0.5, 0.7], [0.5, 0.4]]), "mean_then_rank", higher_is_better=True)
    assert stability.ranks == (2, 1)
    assert stability.shares[0][0] == pytest.approx(0.25, abs=0.05)
    assert sum(stability.shares[0]) == pytest.approx(1)
    assert stability.tau_mean == pytest.approx(0.5, abs=0.1)
    assert math.isnan(stability.tau_low)  # two cases are too few for an end of an interval
    ten = rank_stability(np.array([[0.5, 0.7], [0.5, 0.4]] * 5), "mean_then_rank", higher_is_better=True)
    assert ten.tau_low == -1.0


def test_infinite_distances_rank_behind_finite_ones() -> None:
    values = np.array([[1.0, 50.0, math.inf], [1.0, 60.0, math.inf], [math.inf, 70.0, math.inf]])
    by_mean = rank_stability(values, "mean_then_rank", higher_is_better=False)
    assert by_mean.ranks == (2, 1, 3)
    assert by_mean.scores == pytest.approx((1.0, 60.0, math.nan), nan_ok=True)
    by_rank = rank_stability(values, "rank_then_mean", higher_is_better=False)
    assert by_rank.scores == pytest.approx(((1 + 1 + 2.5) / 3, (2 + 2 + 1) / 3, (3 + 3 + 2.5) / 3))
    assert by_rank.ranks == (1, 2, 3)


def test_methods_that_tie_share_the_better_rank() -> None:
    stability = rank_stability(np.full((5, 2), 0.3), "mean_then_rank", higher_is_better=True)
    assert stability.ranks == (1, 1)
    assert stability.shares == ((1.0, 0.0), (1.0, 0.0))
    assert math.isnan(stability.tau_mean)


def test_tau_is_kendalls() -> None:
    generator = np.random.default_rng(3)
    ranks, full = generator.integers(1, 4, (50, 5)), np.array([[1, 2, 2, 4, 5]])
    expected = [kendalltau(row, full[0]).statistic for row in ranks]
    assert _kendall_tau(ranks, full) == pytest.approx(np.array(expected), nan_ok=True)

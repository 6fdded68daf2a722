"""Gains that are not by chance: how often nothing is taken for something, and what a gain must not be."""

import math

import numpy as np
import pytest
from scipy.stats import sem
from scipy.stats import t as t_distribution

from medunet.scoring.gains import (
    LEVEL,
    choose_each,
    choose_in_order,
    measure_gains,
    round_level,
    score_patients,
)
from medunet.scoring.intervals import bootstrap_intervals

NAN = math.nan


def test_scores_of_patients_by_hand() -> None:
    dice = np.array(
        [
            [[0.8, 0.6], [0.4, NAN], [NAN, NAN], [0.9, NAN]],
            [[0.8, 0.6], [0.4, 0.0], [NAN, NAN], [0.9, NAN]],
        ]
    )
    # In the second case only the first variant rightly finds nothing: 1 against 0. The third has nothing to find.
    first, second = score_patients(dice, ["x", "x", "w", "a"])
    assert first.tolist() == pytest.approx([0.9, (0.7 + 0.7) / 2])  # a, then x
    assert second.tolist() == pytest.approx([0.9, (0.7 + 0.2) / 2])


def test_the_mean_over_patients_is_not_that_over_cases() -> None:
    dice = np.array([[[1.0], [1.0], [1.0], [0.0]]])
    assert score_patients(dice, ["x", "x", "x", "y"]).mean() == pytest.approx(0.5)


def test_a_patients_further_scans_count_no_more() -> None:
    rng = np.random.default_rng(1)
    dice = rng.uniform(0.5, 1, (2, 12, 2))
    patients = [f"p{number:02d}" for number in range(12)]
    again = np.concatenate([dice, dice[:, :5], dice[:, :5]], axis=1)
    once = measure_gains(*score_patients(dice, patients)[:, None], LEVEL)
    thrice = measure_gains(*score_patients(again, patients + 2 * patients[:5])[:, None], LEVEL)
    assert thrice == once


def test_the_order_of_cases_and_patients_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    dice = rng.uniform(0.5, 1, (3, 30, 2))
    patients = [f"p{number % 20}" for number in range(30)]
    gains = _gains(score_patients(dice, patients))
    order = rng.permutation(30)
    shuffled = _gains(score_patients(dice[:, order], [patients[index] for index in order]))
    for one, other in zip(gains, shuffled, strict=True):
        assert vars(other) == pytest.approx(vars(one))


def test_the_order_of_what_is_tried_does_not_matter_but_for_ties() -> None:
    rng = np.random.default_rng(3)
    before = rng.uniform(0.5, 0.8, 30)
    after = [before + each + rng.normal(0, 0.01, 30) for each in (0.02, 0.05, 0.0)]
    assert choose_each(["a"] * 3, measure_gains([before] * 3, after, LEVEL), LEVEL) == {"a": 1}
    assert choose_each(["a"] * 3, measure_gains([before] * 3, after[::-1], LEVEL), LEVEL) == {"a": 1}
    tie = measure_gains([before] * 2, [after[1], after[1]], LEVEL)
    assert choose_each(["a", "a"], tie, LEVEL) == {"a": 0}
    assert choose_each(["a", "b"], tie, LEVEL) == {"a": 0, "b": 1}


def _gains(scores):
    return measure_gains([scores[0]] * (len(scores) - 1), list(scores[1:]), LEVEL)


@pytest.mark.parametrize("spread", ["normal", "skewed", "mostly equal"])
def test_without_an_effect_little_is_chosen(spread: str) -> None:
    """Of 400 selections among 7 steps that do nothing on average, at most the level chooses anything.

    With the level at 2.5%, 400 of them choose 10 times; more than 20 times would have a probability of 0.1%.
    """
    rng, num_patients, num_wrong = np.random.default_rng(4), 24, 0
    for _ in range(400):
        if spread == "normal":
            noise = rng.normal(0, 0.02, (7, num_patients))
        elif spread == "skewed":  # many small gains, few large losses
            noise = 0.02 * (1 - rng.exponential(1, (7, num_patients)))
        else:
            noise = rng.normal(0, 0.02, (7, num_patients)) * (rng.random((7, num_patients)) < 0.4)
        before = rng.uniform(0.6, 0.9, num_patients)
        gains = measure_gains([before] * 7, list(before + noise), round_level(1))
        num_wrong += bool(choose_each(["a"] * 7, gains, round_level(1)))
    assert num_wrong <= 20


def test_without_an_effect_the_simplest_configuration_is_kept() -> None:
    rng, num_wrong = np.random.default_rng(5), 0
    for _ in range(200):
        scores = rng.uniform(0.6, 0.9, 14) + rng.normal(0, 0.02, (4, 14))
        num_wrong += choose_in_order(list("abcd"), scores, LEVEL)[0] != 0
    assert num_wrong <= 20  # 10 at the level


def test_a_strong_effect_is_chosen() -> None:
    rng, num_found = np.random.default_rng(6), 0
    for _ in range(50):
        before = rng.uniform(0.6, 0.9, 16)
        after = before + rng.normal(0, 0.02, (7, 16))
        after[4] += 0.04
        gains = measure_gains([before] * 7, list(after), round_level(1))
        num_found += choose_each(["a"] * 7, gains, round_level(1)) == {"a": 4}
    assert num_found >= 48


def test_a_later_one_replaces_only_what_it_gains_on() -> None:
    rng = np.random.default_rng(7)
    plain = rng.uniform(0.5, 0.7, 30)
    better = plain + 0.1 + rng.normal(0, 0.01, 30)
    alike = better + rng.normal(0, 0.01, 30)
    names = ["2d", "3d", "both"]
    assert choose_in_order(names, np.stack([plain, better, alike]), LEVEL)[0] == 1
    assert choose_in_order(names, np.stack([better, plain, alike]), LEVEL)[0] == 0
    assert choose_in_order(names, np.stack([plain, plain, better]), LEVEL)[0] == 2
    index, pairs = choose_in_order(["alone"], plain[None], LEVEL)
    assert (index, pairs) == (0, [])


def test_many_small_gains_do_not_pay_for_a_few_large_losses() -> None:
    before = np.full(40, 0.8)
    after = before + np.linspace(0.009, 0.011, 40)
    after[:4] = 0.5  # the mean falls, or hardly rises, though nine of ten gain
    (gain,) = measure_gains([before], [after], LEVEL)
    assert gain.p_holm < 0.01
    assert not gain.counts(LEVEL)
    after[:4] = 0.72
    (gain,) = measure_gains([before], [after], LEVEL)
    assert gain.gain > 0
    assert gain.bound < 0
    assert not gain.counts(LEVEL)


def test_few_patients_prove_nothing() -> None:
    before, gains = np.linspace(0.5, 0.8, 10), np.linspace(0.09, 0.11, 10)
    (enough,) = measure_gains([before], [before + gains], LEVEL)
    assert enough.counts(LEVEL)
    (few,) = measure_gains([before[:9]], [before[:9] + gains[:9]], LEVEL)
    assert (few.no_interval, few.counts(LEVEL)) == ("9 patients, fewer than 10", False)
    (none,) = measure_gains([before], [before], LEVEL)
    assert (none.gain, none.p, none.counts(1.0)) == (0.0, 1.0, False)
    assert measure_gains([], [], LEVEL) == []


def test_intervals_are_those_of_all_scores() -> None:
    rng = np.random.default_rng(9)
    before, after = rng.uniform(0.5, 1, (2, 5, 37))
    for number, gain in enumerate(measure_gains(list(before), list(after), LEVEL)):
        low, high = bootstrap_intervals(np.round(after[number] - before[number], 9)).mean
        assert (gain.low, gain.high) == (pytest.approx(low), pytest.approx(high))
        assert gain.bound < low  # of five together


def test_the_bound_is_that_of_students_t_where_it_holds() -> None:
    rng = np.random.default_rng(8)
    gains = rng.normal(0.02, 0.02, 400)
    (gain,) = measure_gains([np.zeros(400)], [gains], 0.05)
    expected = gains.mean() - t_distribution.ppf(0.95, 399) * sem(gains)
    assert gain.bound == pytest.approx(expected, abs=2e-4)
    many = measure_gains([np.zeros(400)] * 8, [gains, *rng.normal(0, 0.02, (7, 400))], 0.05)
    sidak = gains.mean() - t_distribution.ppf(0.95 ** (1 / 8), 399) * sem(gains)
    assert many[0].bound == pytest.approx(sidak, abs=4e-4)


def test_the_levels_of_all_decisions_sum_to_the_level() -> None:
    levels = [round_level(number) for number in range(1, 40)]
    assert levels[0] == LEVEL / 2
    assert sum(levels) == pytest.approx(LEVEL)
    assert sum(levels) <= LEVEL

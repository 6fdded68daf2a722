"""Folds: each patient whole, balanced, a function of the seed and the cases alone."""

import random
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from medunet.base.errors import InputError
from medunet.dataset.splits import fixed_folds, hold_out, make_folds, read_folds, stratify_folds
from medunet.records.manifest import Case


def cases_of(patients: list[int]) -> list[Case]:
    return [Case(id=f"c{i:03d}", patient=f"p{patient}", images={}) for i, patient in enumerate(patients)]


@settings(max_examples=60, deadline=None)
@given(
    patients=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    num_folds=st.integers(1, 6),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_folds_hold_whole_patients_whatever_the_order(
    patients: list[int], num_folds: int, seed: int, shuffle: random.Random
) -> None:
    cases = cases_of(patients)
    folds = make_folds(cases, num_folds, seed)
    assert set(folds) == {case.id for case in cases}
    num_patients = len(set(patients))
    assert set(folds.values()) == set(range(min(num_folds, num_patients)))  # none is empty
    places = {(case.patient, folds[case.id]) for case in cases}
    assert len(places) == num_patients
    sizes = Counter(folds.values())
    assert max(sizes.values()) - min(sizes.values()) <= max(Counter(patients).values())
    shuffled = list(cases)
    shuffle.shuffle(shuffled)
    assert make_folds(shuffled, num_folds, seed) == folds


def test_seed_changes_the_folds() -> None:
    cases = cases_of(list(range(30)))
    assert make_folds(cases, 5, 0) == make_folds(cases, 5, 0)
    assert make_folds(cases, 5, 0) != make_folds(cases, 5, 1)
    assert Counter(make_folds(cases, 5, 0).values()) == dict.fromkeys(range(5), 6)


def test_one_case_or_one_patient_is_fold_0() -> None:
    assert make_folds(cases_of([3]), 5, 0) == {"c000": 0}
    assert set(make_folds(cases_of([3, 3, 3]), 5, 0).values()) == {0}


def test_fixed_folds() -> None:
    cases = cases_of([0, 1, 2])
    assert fixed_folds(cases, [["c001"], ["c000", "c002"]]) == {"c001": 0, "c000": 1, "c002": 1}
    assert fixed_folds(cases, [["c001"], ["c002"]], {"c000"}) == {"c001": 0, "c002": 1}
    assert fixed_folds(cases[1:], [["c001"], ["c000", "c002"]], {"c000"}) == {"c001": 0, "c002": 1}
    with pytest.raises(InputError, match=r"not training cases: c009; cases are in no fold: c000, c002"):
        fixed_folds(cases, [["c001"], ["c009"]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"folds": [["a"], ["b", "a"]]}', "occur twice: a"),
        ('{"validation": ["a"]}', "has no folds"),
        ('{"folds": [["a"], []]}', "has no folds"),
        ('{"folds": [[1]]}', "has no folds"),
        ("{", "not valid JSON"),
    ],
)
def test_fold_files_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "folds.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_folds(tmp_path / "folds.json")


@pytest.mark.real_data
def test_shared_folds_are_read(shared_data: Path) -> None:
    folds = read_folds(shared_data.parent / "splits" / "hippocampus.json")
    assert [len(fold) for fold in folds] == [38] * 5


@settings(max_examples=40, deadline=None)
@given(
    patients=st.lists(st.integers(0, 12), min_size=2, max_size=40),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 5),
    shuffle=st.randoms(use_true_random=False),
)
def test_a_share_is_held_out_by_whole_patients(
    patients: list[int], share: float, seed: int, shuffle: random.Random
) -> None:
    patients = [13, *patients]
    cases = cases_of(patients)
    if len(set(patients)) < 2:
        return
    folds = hold_out(cases, share, seed)
    assert set(folds) == {case.id for case in cases}
    assert set(folds.values()) == {0, 1}  # neither is empty
    assert len({(case.patient, folds[case.id]) for case in cases}) == len(set(patients))
    held = sum(fold == 0 for fold in folds.values())
    assert abs(held - share * len(cases)) <= max(Counter(patients).values())
    shuffle.shuffle(cases)
    assert hold_out(cases, share, seed) == folds


def test_share_that_is_held_out_is_seeded() -> None:
    cases = cases_of(list(range(50)))
    assert Counter(hold_out(cases, 0.2, 0).values()) == {0: 10, 1: 40}
    assert hold_out(cases, 0.2, 0) != hold_out(cases, 0.2, 1)
    with pytest.raises(InputError, match="1 patient cannot be divided"):
        hold_out(cases_of([3, 3]), 0.2, 0)


def test_validation_and_training_are_two_folds(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"about": "80/20", "validation": ["b"], "training": ["a", "c"]}')
    assert read_folds(path) == [["b"], ["a", "c"]]
    path.write_text('{"validation": ["b"], "training": ["a", "b"]}')
    with pytest.raises(InputError, match="occur twice: b"):
        read_folds(path)
    path.write_text('{"validation": [], "training": ["a"]}')
    with pytest.raises(InputError, match="has no folds"):
        read_folds(path)


Strata = Mapping[str, Collection[str]]


def draw_cohort(seed: int, *, cases_per_patient: int = 1) -> tuple[list[Case], dict[str, frozenset[str]]]:
    """Return a cohort of 30 to 120 cases from up to three sites, with strata of one to three labels."""
    rng = np.random.default_rng(seed)
    num_cases, num_labels = int(rng.integers(30, 121)), int(rng.integers(1, 4))
    cases = cases_of(list(rng.integers(0, -(-num_cases // cases_per_patient), num_cases)))
    if cases_per_patient == 1:
        cases = cases_of(list(range(num_cases)))
    shares = rng.dirichlet(np.ones(4), num_labels)
    strata = {
        case.id: frozenset(
            [f"label {label}: {rng.choice(4, p=share)}" for label, share in enumerate(shares)]
            + [f"site {rng.integers(3)}"]
        )
        for case in cases
    }
    return cases, strata


def deviations(cases: Sequence[Case], places: Mapping[str, int], strata: Strata) -> list[float]:
    """Return by how many cases each fold differs from its share of each stratum."""
    sizes = Counter(places.values())
    totals = Counter(name for case in cases for name in strata[case.id])
    held = Counter((places[case.id], name) for case in cases for name in strata[case.id])
    return [
        abs(held[fold, name] - total * size / len(cases))
        for fold, size in sizes.items()
        for name, total in totals.items()
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    cases_per_patient=st.integers(1, 3),
    num_folds=st.integers(2, 6),
    shuffle=st.randoms(use_true_random=False),
)
def test_stratified_folds_keep_patients_whole_and_sizes_as_they_were(
    seed: int, cases_per_patient: int, num_folds: int, shuffle: random.Random
) -> None:
    cases, strata = draw_cohort(seed, cases_per_patient=cases_per_patient)
    drawn = make_folds(cases, num_folds, seed)
    dealt = stratify_folds(cases, drawn, strata, seed)
    assert set(dealt) == {case.id for case in cases}
    assert Counter(dealt.values()) == Counter(drawn.values())
    assert len({(case.patient, dealt[case.id]) for case in cases}) == len({case.patient for case in cases})
    assert max(deviations(cases, dealt, strata)) <= (2.0 if cases_per_patient == 1 else 5.0)
    shuffle.shuffle(cases)
    assert stratify_folds(cases, drawn, dict(reversed(strata.items())), seed) == dealt


@pytest.mark.parametrize("cases_per_patient", [1, 2, 3])
def test_strata_are_spread_far_better_than_by_chance(cases_per_patient: int) -> None:
    by_chance, stratified = [], []
    for seed in range(20):
        cases, strata = draw_cohort(seed, cases_per_patient=cases_per_patient)
        drawn = make_folds(cases, 5, seed)
        by_chance.append(np.mean(deviations(cases, drawn, strata)))
        stratified.append(np.mean(deviations(cases, stratify_folds(cases, drawn, strata, seed), strata)))
    assert np.mean(stratified) < (0.4 if cases_per_patient == 1 else 0.6) * np.mean(by_chance)
    assert sum(ours > chance for ours, chance in zip(stratified, by_chance, strict=True)) == 0


@pytest.mark.parametrize("cases_per_patient", [1, 2, 3])
def test_strata_are_spread_no_worse_than_by_scikit_learn(cases_per_patient: int) -> None:
    """On one label's strata, as scikit-learn takes one class a case; several at once it cannot do."""
    ours, theirs = [], []
    for seed in range(60):
        cases, several = draw_cohort(seed, cases_per_patient=cases_per_patient)
        label = {case.id: min(several[case.id]) for case in cases}
        strata = {case_id: [name] for case_id, name in label.items()}
        folds = stratify_folds(cases, make_folds(cases, 5, seed), strata, seed)
        splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of strata with fewer cases than folds
            parts = splitter.split(
                cases, [label[case.id] for case in cases], [case.patient for case in cases]
            )
            other = {cases[index].id: fold for fold, (_, part) in enumerate(parts) for index in part}
        ours.append(np.mean(deviations(cases, folds, strata)))
        theirs.append(np.mean(deviations(cases, other, strata)))
    assert np.mean(ours) <= np.mean(theirs)


def test_the_seed_changes_stratified_folds() -> None:
    cases, strata = draw_cohort(0)
    dealt = [stratify_folds(cases, make_folds(cases, 5, seed), strata, seed) for seed in (0, 0, 1)]
    assert dealt[0] == dealt[1] != dealt[2]


def test_a_share_held_out_is_stratified_too() -> None:
    cases = cases_of(list(range(40)))
    strata = {case.id: ["tumour" if index < 10 else "none"] for index, case in enumerate(cases)}
    for seed in range(5):
        places = stratify_folds(cases, hold_out(cases, 0.2, seed), strata, seed)
        held = [case.id for case in cases if places[case.id] == 0]
        assert (len(held), sum(strata[case_id] == ["tumour"] for case_id in held)) == (8, 2)


def test_without_strata_every_patient_still_has_a_place() -> None:
    cases = cases_of([0, 0, 1, 2, 3])
    drawn = make_folds(cases, 2, 0)
    assert Counter(stratify_folds(cases, drawn, {}, 0).values()) == Counter(drawn.values())

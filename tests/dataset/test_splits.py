"""Folds: each patient whole, balanced, a function of the seed and the cases alone."""

import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medunet.dataset.splits import fixed_folds, hold_out, make_folds, read_folds
from medunet.errors import InputError
from medunet.records import Case


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
    with pytest.raises(InputError, match=r"not there to train on: c009; cases stand in no fold: c000, c002"):
        fixed_folds(cases, [["c001"], ["c009"]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"folds": [["a"], ["b", "a"]]}', "in two places: a"),
        ('{"validation": ["a"]}', "holds no folds"),
        ('{"folds": [["a"], []]}', "holds no folds"),
        ('{"folds": [[1]]}', "holds no folds"),
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
    with pytest.raises(InputError, match="two places: b"):
        read_folds(path)
    path.write_text('{"validation": [], "training": ["a"]}')
    with pytest.raises(InputError, match="holds no folds"):
        read_folds(path)

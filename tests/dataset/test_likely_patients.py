"""Cases of one patient by their names: joined by the pattern offered, and no alarm at numbered cases."""

import hashlib
import random
from collections.abc import Iterable
from typing import Any

import pytest

from medunet.dataset.likely_patients import find_likely_patients
from medunet.records.description import Description
from medunet.records.manifest import Case, make_case

PATIENTS = tuple(f"p{number:02d}" for number in range(6))


def describe(**others: Any) -> Description:
    channels, labels = {"CT": {"modality": "CT"}}, {"background": 0, "liver": 1}
    plain = {"name": "tiny", "layout": "pairs", "channels": channels, "labels": labels}
    return Description.parse({**plain, **others}, "test")


def cases_of(ids: Iterable[str], description: Description | None = None) -> list[Case]:
    return [
        make_case(description or describe(), name, {"CT": "x.nii"}, label="y.nii", split="train", fold=n % 5)
        for n, name in enumerate(ids)
    ]


@pytest.mark.parametrize(
    "endings",
    [
        *(
            ("_visit1", "_visit2"),
            ("_v1", "_v2"),
            ("-ses-01", "-ses-02"),
            ("_scan1", "_scan2"),
            ("_t0", "_t1"),
        ),
        *(("_20200101", "_20210305"), ("_2020-01-01", "_2021-03-05"), ("_01012020", "_03052021")),
        *(("_left", "_right"), ("_L", "_R"), ("L", "R"), ("_lh", "_rh"), ("a", "b"), ("_a", "_b", "_c")),
        *(
            ("_pre", "_post"),
            ("_preop", "_postop"),
            ("_baseline", "_followup"),
            ("", "_followup"),
            ("", "_2"),
        ),
        *(("_1", "_2", "_3"), ("-000", "-001"), ("_baseline", "_visit2"), ("_pre", "_fu1"), ("_bl", "_m12")),
        *(
            ("_TP1", "_TP2"),
            ("V1", "V2"),
            ("_Baseline", "_FollowUp"),
            (" visit 1", " visit 2"),
            ("_s1", "_s2"),
        ),
        *(("_visit1_CT", "_visit2_CT"), ("_visit1_T1w", "_visit2_T1w"), ("_frame01", "_frame12")),
        ("_visit1_left", "_visit1_right", "_visit2_left"),
        ("_visit1_L", "_visit1_R", "_visit2_L", "_visit2_R"),
    ],
)
def test_names_alike_but_for_the_last_token_are_joined_by_the_pattern(endings: tuple[str, ...]) -> None:
    ids = [patient + ending for patient in PATIENTS for ending in endings]
    likely = find_likely_patients(cases_of(ids), describe())
    assert likely is not None
    assert [[case.id for case in group] for group in likely.groups] == [
        sorted(patient + ending for ending in endings) for patient in PATIENTS
    ]
    described = describe(patient=likely.pattern)
    assert {name: described.patient_of(name) for name in ids} == {
        patient + ending: patient for patient in PATIENTS for ending in endings
    }


def test_a_few_second_visits_among_many_patients() -> None:
    ids = [f"case_{number:03d}" for number in range(60)]
    likely = find_likely_patients(cases_of([*ids, "case_007_visit2", "case_031_visit2"]), describe())
    assert likely is not None
    assert [[case.id for case in group] for group in likely.groups] == [
        ["case_007", "case_007_visit2"],
        ["case_031", "case_031_visit2"],
    ]
    assert likely.text == r"patient: '^(.+?)(?:_visit\d+)*$'"


def test_dates_behind_names_without_digits() -> None:
    ids = ["anna_2019-03-01", "anna_2020-03-01", "bert_2019-04-01", "bert_2021-05-07", "carl_2021-05-07"]
    likely = find_likely_patients(cases_of(ids), describe())
    assert likely is not None
    assert [[case.id for case in group] for group in likely.groups] == [ids[:2], ids[2:4]]


_random = random.Random(0)
NUMBERED = {
    "liver": [f"liver_{number}" for number in range(131)],
    "case": [f"case_{number:03d}" for number in range(30)],
    "scan": [f"scan_{number}" for number in range(30)],
    "visits of unknown patients": [f"visit_{number}" for number in range(9)],
    "BraTS": [f"BraTS2021_{number:05d}" for number in range(50)],
    "hashes": [hashlib.md5(bytes([n, m])).hexdigest()[:16] for n in range(30) for m in range(30)],
    "TCGA": [f"TCGA-{site}-{number:04d}" for site in ("06", "FG", "02") for number in range(7)],
    "sites": [f"{site}-{number:03d}" for site in ("CHUM", "CHUS", "MDA") for number in range(20)],
    "numbered sites": [f"site{site}_{number:03d}" for site in (1, 2) for number in range(20)],
    "one session each": [f"sub-{number:02d}_ses-01" for number in range(12)],
    "one side each": [f"case_{number:02d}_left" for number in range(12)],
    "two numbers": [f"radiopaedia_{number}_{85000 + number}_{number % 3}" for number in range(12)],
    "years": [f"{year}_{number:02d}" for year in (2019, 2020) for number in range(12)],
    "dates of hospitals": [f"{name}_201901{day}" for name in ("north", "south") for day in range(10, 30)],
    "numbers": [str(number) for number in range(40)],
    "parts": [f"crossmoda2021_{part}_{number}" for part in ("ldn", "etz") for number in range(50)],
    "codes": [
        f"{_random.choice('ABC')}{_random.randrange(10)}{_random.choice('STUV')}{_random.randrange(10)}"
        f"{_random.choice('TUVWXYZ')}{_random.randrange(10)}"
        for _ in range(60)
    ],
}


@pytest.mark.parametrize("kind", NUMBERED)
def test_numbered_cases_are_as_many_patients(kind: str) -> None:
    assert find_likely_patients(cases_of(dict.fromkeys(NUMBERED[kind])), describe()) is None


def test_what_says_who_the_patients_are_is_not_questioned() -> None:
    ids = [f"{patient}_visit{number}" for patient in PATIENTS for number in (1, 2)]
    assert find_likely_patients(cases_of(ids), describe()) is not None
    described = describe(patient="(.+)")
    assert find_likely_patients(cases_of(ids, described), described) is None
    listed = [case.model_copy(update={"patient": f"row {n}"}) for n, case in enumerate(cases_of(ids))]
    assert find_likely_patients(listed, describe()) is None
    assert find_likely_patients([], describe()) is None

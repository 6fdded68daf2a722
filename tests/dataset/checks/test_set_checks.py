"""What only the whole set shows: twins, exchanged modalities, outliers, labels and patients in the folds."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corruptions import describe

from medunet.dataset.checks.case_facts import CaseFacts, VolumeFacts
from medunet.dataset.checks.outliers import find_outliers
from medunet.dataset.checks.set_checks import UnmatchedFacts, check_set
from medunet.dataset.layouts.patterns import scan_folder
from medunet.imaging.nifti import write_volume
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Case, Unmatched

SHAPE = (9, 7, 6)
IDENTITY = np.eye(4)


def volume(subject: str, path: str, content: str, **facts: Any) -> VolumeFacts:
    return VolumeFacts(subject, path, SHAPE, IDENTITY, content, **facts)


def case_facts(
    number: int,
    *,
    fold: int | None = 0,
    split: str = "train",
    patient: str = "",
    contents: dict[str, str] | None = None,
    bright: float = 500.0,
    volumes_ml: dict[int, float] | None = None,
) -> CaseFacts:
    """Return a case 'c<number>' of two images and a label, each with content of its own unless given."""
    name = f"c{number}"
    content = {subject: f"{name} {subject}" for subject in ("T1", "T2", "label")} | (contents or {})
    ml = {1: 2.0, 2: 1.0} if volumes_ml is None else volumes_ml
    images = tuple(
        volume(channel, f"{name}_{channel.lower()}.nii.gz", content[channel], bright={channel: bright})
        for channel in ("T1", "T2")
    )
    label = volume("label", f"{name}_seg.nii.gz", content["label"], values=frozenset({0, *ml}), volumes_ml=ml)
    case = Case(
        id=name,
        patient=patient or name,
        images={each.subject: each.path for each in images},
        label=label.path,
        fold=fold if split == "train" else None,
        split=split,
    )
    return CaseFacts(case, images, label)


def check(
    *facts: CaseFacts, unmatched: tuple[UnmatchedFacts, ...] = (), description: Description | None = None
) -> list[Fault]:
    return check_set(description or describe(), facts, unmatched, "auto")


def codes(faults: list[Fault]) -> list[tuple[str, str, str]]:
    return [(fault.code, fault.severity, fault.case) for fault in faults]


def test_a_good_set_has_no_faults() -> None:
    assert check(*(case_facts(number, fold=number % 3) for number in range(12))) == []


def test_one_image_in_two_folds_leaks_and_both_places_are_said() -> None:
    twin = {"T1": "c0 T1"}
    (fault,) = check(case_facts(0), case_facts(1, fold=1, contents=twin))
    assert (fault.code, fault.severity, fault.case, fault.subject) == ("S001", "error", "c1", "T1")
    assert fault.measured == "the same voxels as T1 of case c0, in fold 0; this one is in fold 1"
    assert codes(check(case_facts(0), case_facts(1, contents=twin))) == [("S001", "warning", "c1")]
    test = case_facts(1, split="test", contents=twin)
    assert codes(check(case_facts(0), test)) == [("S001", "error", "c1")]


def test_an_unlabelled_twin_leaks_nothing() -> None:
    unlabelled = case_facts(1, split="unlabelled", contents={"T1": "c0 T1"}, patient="c0")
    faults = [fault for fault in check(case_facts(0), unlabelled) if fault.code != "S005"]
    assert codes(faults) == [("S001", "warning", "c1")]


def test_every_copy_of_an_image_is_named() -> None:
    same = {"T2": "one"}
    faults = check(*(case_facts(number, fold=number % 2, contents=same) for number in range(4)))
    assert codes(faults) == [
        ("S001", "error", "c1"),
        ("S001", "warning", "c2"),
        ("S001", "error", "c3"),
    ]


def test_one_label_twice_is_an_error_wherever_it_stands() -> None:
    faults = check(case_facts(0), case_facts(1, contents={"label": "c0 label"}))
    assert codes(faults) == [("S002", "error", "c1")]
    assert "label of case c0, in fold 0" in faults[0].measured


def test_empty_labels_are_no_twins() -> None:
    assert check(case_facts(0, contents={"label": ""}), case_facts(1, contents={"label": ""})) == []


def test_the_same_voxels_under_another_channel_are_exchanged_modalities() -> None:
    (fault,) = check(case_facts(0), case_facts(1, fold=1, contents={"T2": "c0 T1"}))
    assert (fault.code, fault.severity, fault.case, fault.subject) == ("P009", "error", "c1", "T2")
    assert fault.measured == "the same voxels as T1 of case c0, in fold 0; this one is in fold 1"


def test_two_files_of_one_case_with_the_same_voxels() -> None:
    (fault,) = check(case_facts(0, contents={"T1": "x", "T2": "x"}))
    assert (fault.code, fault.case, fault.subject) == ("P007", "c0", "T2")
    assert fault.measured == "the same voxels as T1"


def test_a_stray_copy_is_named_with_the_case_and_fold_of_the_original() -> None:
    stray = Unmatched(path="old/x.nii.gz", reason="belongs to no case")
    facts = UnmatchedFacts(stray, volume("", stray.path, "c0 label"))
    twin, unmatched = check(case_facts(0, fold=3), unmatched=(facts,))
    assert (twin.code, twin.severity, twin.case, twin.subject) == ("S002", "warning", "c0", stray.path)
    assert twin.measured == "the same voxels as label of case c0, in fold 3"
    assert unmatched.code == "S004"


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_patient_in_two_places(split: str) -> None:
    faults = check(case_facts(0, patient="p"), case_facts(1, fold=1, split=split, patient="p"))
    assert codes(faults) == [("S003", "error", "c1")]
    place = "fold 1" if split == "train" else "test"
    assert faults[0].measured == f"in {place}, while case c0 of the same patient is in fold 0"


def test_one_patient_in_one_fold_is_good() -> None:
    assert check(case_facts(0, patient="p"), case_facts(1, patient="p"), case_facts(2, fold=1)) == []


@pytest.mark.parametrize(("factor", "found"), [(2.5, True), (1 / 2.5, True), (1.9, False)])
def test_label_volumes_far_from_the_set(factor: float, found: bool) -> None:
    facts = [case_facts(number, fold=number % 2) for number in range(12)]
    facts[4] = case_facts(4, volumes_ml={1: 2.0 * factor, 2: 1.0})
    faults = check(*facts)
    assert codes(faults) == ([("L007", "warning", "c4")] if found else [])
    if found:
        assert faults[0].measured == f"oedema has {2 * factor:.3g} ml, a factor of 2.5 from the median"
        assert faults[0].expected == "1 to 4 ml"


def test_volumes_that_vary_widely_allow_more() -> None:
    """Tumours of 0.5 to 32 ml: the median is 4, so that 100 ml is a large one and no fault."""
    facts = [case_facts(n, fold=n % 2, volumes_ml={1: 2.0 ** (n % 7 - 1), 2: 1.0}) for n in range(14)]
    assert check(*facts, case_facts(20, volumes_ml={1: 100.0, 2: 1.0})) == []


def test_few_cases_and_numbered_objects_have_no_usual_volume() -> None:
    few = [case_facts(number) for number in range(8)]
    assert check(*few, case_facts(9, volumes_ml={1: 2000.0, 2: 1.0})) == []
    numbered = describe(labels={"background": 0, "nucleus": 1}, instances=True)
    facts = [case_facts(number, volumes_ml={1: 1.0}) for number in range(12)]
    assert check(*facts, case_facts(20, volumes_ml={1: 900.0}), description=numbered) == []


def test_enormous_values_are_told_shortly() -> None:
    facts = [case_facts(number, bright=500 + number) for number in range(11)]
    told = {fault.measured for fault in check(*facts, case_facts(20, bright=3e40))}
    assert told == {"99.5th percentile 3e+40, a factor of 5.93e+37 from the median"}


def test_intensities_far_from_the_set() -> None:
    facts = [case_facts(number, bright=500 + number) for number in range(11)]
    faults = check(*facts, case_facts(20, bright=500 * 340), case_facts(21, bright=1000))
    assert [(fault.code, fault.case, fault.subject) for fault in faults] == [
        ("N012", "c20", "T1"),
        ("N012", "c20", "T2"),
    ]
    assert "a factor of 336 " in faults[0].measured
    assert check(*facts, case_facts(20, bright=math.nan)) == []


def test_outliers_by_hand() -> None:
    """Logarithms to base 2 are 0 nine times, 1 and 10: median 0, MAD 0, so that the factor alone counts."""
    (outlier,) = find_outliers([1.0] * 9 + [2.0, 1024.0], least_factor=4)
    assert outlier.index == 10
    assert (outlier.factor, outlier.low, outlier.high) == pytest.approx((1024, 0.25, 4))
    assert list(find_outliers([1.0] * 8 + [1024.0], least_factor=4)) == []


def test_a_label_that_a_fold_lacks() -> None:
    both, one = {1: 2.0, 2: 1.0}, {1: 2.0}
    facts = [case_facts(number, fold=number // 4, volumes_ml=both) for number in range(8)]
    facts += [case_facts(number, fold=2, volumes_ml=one) for number in range(8, 12)]
    (fault,) = check(*facts)
    assert (fault.code, fault.severity, fault.case, fault.subject) == ("S010", "warning", "", "fold 2")
    assert fault.measured == "in none of the 4 labels of fold 2: core"


def test_a_label_rarer_than_folds_cannot_be_in_each() -> None:
    both, one = {1: 2.0, 2: 1.0}, {1: 2.0}
    rare = [case_facts(number, fold=number, volumes_ml=both if number < 2 else one) for number in range(3)]
    assert check(*rare) == []
    one_patient = [case_facts(n, fold=0, patient="p", volumes_ml=both) for n in range(4)]
    faults = check(*one_patient, *(case_facts(n, fold=n - 9, volumes_ml=one) for n in (10, 11)))
    assert [fault.code for fault in faults] == ["S015"]  # in fold 0, which trains without it


def test_a_case_that_lacks_a_modality_is_told_from_a_stray_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a_t1", "a_t2", "b_t1", "b_seg", "a_seg", "elsewhere"):
        write_volume(tmp_path / f"{name}.nii.gz", rng.integers(0, 9, SHAPE, dtype=np.int16), IDENTITY)
    listing = scan_folder(describe(), tmp_path)
    facts = tuple(UnmatchedFacts(file, None) for file in listing.unmatched)
    faults = check(unmatched=facts)
    assert [(fault.code, fault.severity, fault.subject) for fault in faults] == [
        ("S009", "warning", "b_seg.nii.gz"),
        ("S009", "warning", "b_t1.nii.gz"),
        ("S004", "warning", "elsewhere.nii.gz"),
    ]
    assert faults[0].measured == "its case lacks channel T2"

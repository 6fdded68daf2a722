"""Classes that a fold does not train on, and labels and folds without a voxel to judge."""

from typing import Any

import numpy as np
from corruptions import describe

from medunet.dataset.checks.absent_classes import check_absent_classes
from medunet.dataset.checks.case_facts import CaseFacts, VolumeFacts
from medunet.records.fault import Fault
from medunet.records.manifest import Case

IGNORE = describe(labels={"background": 0, "oedema": 1, "core": 2, "ignore": 9})
REGIONS = describe(regions={"whole": ["oedema", "core"], "inner": ["core"]}, region_order=["whole", "inner"])


def facts(name: str, fold: int | None, *values: int, split: str = "train") -> CaseFacts:
    """Return a case whose label has these values; none: it cannot be used."""
    label = VolumeFacts("label", f"{name}.nii", (4, 4, 4), np.eye(4), name, values=frozenset(values))
    images = dict.fromkeys(describe().channels, f"{name}_image.nii")
    return CaseFacts(Case(id=name, patient=name, images=images, fold=fold, split=split), (), label)


def check(*cases: CaseFacts, description: Any = None) -> list[Fault]:
    return list(check_absent_classes(description or describe(), cases))


def test_a_class_of_one_held_out_case_is_named_with_its_fold() -> None:
    (fault,) = check(facts("a", 0, 0, 1), facts("b", 1, 0, 1, 2), facts("c", 2, 0, 1))
    assert (fault.code, fault.severity, fault.case, fault.subject) == ("S015", "error", "", "fold 1")
    assert fault.measured == "in none of its 2 training cases: core (only in b)"


def test_every_fold_with_an_absent_class_has_a_fault() -> None:
    faults = check(facts("a", 0, 0, 1), facts("b", 1, 0, 2), facts("c", 2, 0))
    assert [(fault.code, fault.subject) for fault in faults] == [("S015", "fold 0"), ("S015", "fold 1")]
    assert "oedema (only in a)" in faults[0].measured


def test_a_class_of_two_folds_is_trained_on_by_each() -> None:
    assert check(facts("a", 0, 0, 1, 2), facts("b", 1, 0, 1, 2), facts("c", 2, 0)) == []
    assert check(facts("a", 0, 0, 1)) == [], "a single fold trains on its own cases"


def test_a_region_is_a_class_not_its_labels() -> None:
    cases = facts("a", 0, 0, 1, 2), facts("b", 1, 0, 2)
    assert check(*cases, description=REGIONS) == []
    assert [fault.subject for fault in check(*cases)] == ["fold 0"]


def test_a_class_of_test_cases_alone_is_learnt_by_no_fold() -> None:
    test = facts("t", None, 0, 2, split="test")
    (fault,) = check(facts("a", 0, 0, 1), facts("b", 1, 0, 1), test)
    assert (fault.code, fault.severity, fault.subject) == ("S015", "error", "training cases")
    assert "core (only in t)" in fault.measured


def test_the_reverse_of_a_split_is_a_warning() -> None:
    train = [facts(f"c{number}", 1, 0, 1, 2) for number in range(4)]
    (fault,) = check(facts("a", 0, 0, 1), *train)
    assert (fault.code, fault.severity, fault.subject) == ("S015", "warning", "fold 1")


def test_a_class_that_never_occurs_is_no_matter_of_folds() -> None:
    assert check(facts("a", 0, 0, 1), facts("b", 1, 0, 1)) == []  # S006 names it


def test_a_label_that_cannot_be_used_leaves_it_open() -> None:
    assert check(facts("a", 0), facts("b", 1, 0, 1, 2), facts("c", 2, 0, 1)) == []


def test_labels_without_foreground_cannot_be_planned_from() -> None:
    (fault,) = check(facts("a", 0, 0), facts("b", 1, 0))
    assert (fault.code, fault.severity) == ("S016", "error")
    codes = [fault.code for fault in check(facts("a", 0, 9), facts("b", 1, 0, 9), description=IGNORE)]
    assert codes == ["S017", "S016"]


def test_a_label_of_ignore_alone_is_named_and_its_fold_has_no_validation() -> None:
    whole = facts("b", 1, 0, 1, 2), facts("c", 2, 0, 1, 2)
    faults = check(facts("a", 0, 9), *whole, description=IGNORE)
    assert [(fault.code, fault.severity, fault.case, fault.subject) for fault in faults] == [
        ("S017", "warning", "a", "label"),
        ("S018", "warning", "", "fold 0"),
    ]
    beside = facts("d", 0, 0)
    faults = check(facts("a", 0, 9), beside, *whole, description=IGNORE)
    assert [fault.code for fault in faults] == ["S017"], "an empty label is judged"

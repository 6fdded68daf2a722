"""The check in processes of its own, and faults that the user accepts."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from medunet.base.errors import InputError
from medunet.dataset.checks import manifest_checks
from medunet.dataset.checks.acceptance import accept_faults, mark_accepted
from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.manifest_checks import (
    check_manifest,
    choose_workers_for,
    errors_left,
    fault_table,
)
from medunet.dataset.manifest import make_manifest
from medunet.imaging.nifti import write_volume
from medunet.records.description import Description
from medunet.records.fault import Fault
from medunet.records.manifest import Accepted, Case, Manifest, Unmatched

SHAPE = (9, 7, 6)
DESCRIPTION = Description(
    name="tiny",
    layout="msd",
    channels={"MR": {"modality": "MR"}},
    labels={"background": 0, "organ": 1},
    folds=2,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five cases; b's label is cut off, d's image is c's, and a file belongs to no case."""
    rng = np.random.default_rng(3)
    for name in "abcde":
        image = rng.normal(500, 80, SHAPE).astype(np.int16)
        write_volume(tmp_path / f"imagesTr/{name}.nii.gz", image, np.eye(4))
        label = rng.integers(0, 2, SHAPE, dtype=np.uint8)
        write_volume(tmp_path / f"labelsTr/{name}.nii.gz", label, np.eye(4))
    broken = tmp_path / "labelsTr/b.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-4])
    (tmp_path / "imagesTr/d.nii.gz").write_bytes((tmp_path / "imagesTr/c.nii.gz").read_bytes())
    write_volume(tmp_path / "stray.nii.gz", rng.integers(0, 9, SHAPE, dtype=np.int16), np.eye(4))
    return tmp_path


@pytest.fixture
def manifest(root: Path) -> Manifest:
    return make_manifest(DESCRIPTION, root, folds=[["a", "b", "c"], ["d", "e"]])


def test_the_number_of_processes_changes_no_fault(root: Path, manifest: Manifest) -> None:
    alone = check_manifest(manifest, root, workers=1)
    assert [(fault.code, fault.case) for fault in alone] == [("N003", "b"), ("S001", "d"), ("S004", "")]
    assert check_manifest(manifest, root, workers=2) == alone


def examine_or_die(item: Case | Unmatched, *, description: Description, data_root: Path) -> Any:
    name = item.path if isinstance(item, Unmatched) else item.id
    if name in ("a", "stray.nii.gz"):
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does where memory runs out
    return manifest_checks.check_case(item, description, data_root)


def test_a_process_that_is_killed_is_a_fault_of_its_case(
    root: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_checks, "_examine", examine_or_die)
    faults = check_manifest(manifest, root, workers=2)
    assert [(fault.code, fault.case) for fault in faults] == [
        ("N003", "b"), ("N099", "a"), ("S001", "d"), ("S004", "")
    ]  # fmt: skip
    why = "its process was killed, perhaps because memory ran out"
    assert faults[1].measured == why
    assert faults[3].measured == f"belongs to no case; {why}"


def test_processes_are_chosen_by_the_largest_file(
    root: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(manifest_checks, "choose_workers", lambda *numbers: asked.append(numbers) or 1)
    items = [*manifest.cases, *manifest.unmatched]
    choose_workers_for(items, root)
    write_volume(root / "stray.nii.gz", np.zeros((90, 7, 6), np.uint8), np.eye(4))
    choose_workers_for(items, root)
    (root / "imagesTr/a.nii.gz").unlink()
    choose_workers_for(items[:1], root)
    voxels = 9 * 7 * 6
    assert asked == [(6, voxels), (2, 10 * voxels), (0, 0)]  # one large file and five small: two large ones


def test_accepted_faults_stay_shown(root: Path, manifest: Manifest) -> None:
    entries = ["N003:b=lost for good = known", "S001:d=both are wanted", "S004:=a sketch"]
    accepted = accept_faults(manifest, entries)
    faults = check_manifest(accepted, root)
    reasons = {(fault.code, fault.case): fault.accepted for fault in faults}
    assert reasons == {
        ("N003", "b"): "lost for good = known",
        ("S001", "d"): "both are wanted",
        ("S004", ""): "a sketch",
    }
    assert errors_left(faults, accepted) == []
    assert {(fault.code, fault.case) for fault in errors_left(faults, manifest)} == {
        ("N003", "b"),
        ("S001", "d"),
    }
    console = Console(width=200, record=True, quiet=True)
    with console.capture() as shown:
        console.quiet = False
        console.print(fault_table(faults))
    assert "2 errors, 1 warning, 0 notes; 3 of them accepted" in shown.get()
    assert "(accepted: a sketch)" in shown.get()


def test_an_acceptance_without_its_fault_is_noted(root: Path, manifest: Manifest) -> None:
    accepted = accept_faults(manifest, ["L003:c=no organ here"])
    stale = [fault for fault in check_manifest(accepted, root) if fault.code == "S011"]
    (fault,) = stale
    assert (fault.severity, fault.case, fault.measured) == (
        "note",
        "c",
        "L003 is accepted but was not found",
    )


def test_accepting_keeps_what_was_accepted(manifest: Manifest) -> None:
    before = accept_faults(manifest, ["N003:b=first", "S001:d=both are wanted"])
    assert accept_faults(before, ["N003:b=second", "L003:a=healthy"]).accepted == (
        Accepted(code="N003", case="b", reason="second"),
        Accepted(code="S001", case="d", reason="both are wanted"),
        Accepted(code="L003", case="a", reason="healthy"),
    )


def test_case_ids_may_hold_an_equals_sign(manifest: Manifest) -> None:
    odd = manifest.cases[0].model_copy(update={"id": "te=12:b"})
    accepted = accept_faults(
        manifest.model_copy(update={"cases": (odd,)}), ["L003:te=12:b=no = organ"]
    ).accepted
    assert accepted == (Accepted(code="L003", case="te=12:b", reason="no = organ"),)


def test_all_mistakes_in_accepting_are_named_at_once(manifest: Manifest) -> None:
    entries = ["N003:b", "N003:b= ", "X999=why", "X998", "X999:b=why", "N003:nobody=why"]
    with pytest.raises(InputError) as caught:
        accept_faults(manifest, entries)
    text = str(caught.value)
    for part in (
        "'N003:b' is not CODE:CASE=REASON",
        "'N003:b= ' is not CODE:CASE=REASON",
        "'X999=why': there is no code X999",
        "'X998': there is no code X998",
        "there is no code X999",
        "there is no case 'nobody'",
        "--accept",
    ):
        assert part in text


def test_a_code_alone_is_accepted_wherever_it_was_found(root: Path, manifest: Manifest) -> None:
    faults = check_manifest(manifest, root)
    assert accept_faults(manifest, ["S001", "S004=a sketch", "L003"], faults).accepted == (
        Accepted(code="S001", case="d", reason="accepted for all cases"),
        Accepted(code="S004", case="", reason="a sketch"),
    )


def test_every_fault_of_that_code_and_case_is_marked() -> None:
    faults = [
        make_fault("N011", "a", "T1", "every voxel is 7"),
        make_fault("N011", "a", "T2", "every voxel is 7"),
        make_fault("N011", "b", "T2", "every voxel is 7"),
    ]
    marked = mark_accepted(faults, [Accepted(code="N011", case="a", reason="a phantom")])
    expected: list[Fault] = [*(replace(fault, accepted="a phantom") for fault in faults[:2]), faults[2]]
    assert marked == expected

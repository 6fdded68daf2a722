"""Each fault of one case is made from a good set, one by one, and is caught with its own code and no other error."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from corruptions import ERRORS, SEG, SHAPE, T1, T2, WARNINGS, change_header, describe
from PIL import Image
from tiny_case import MR
from tiny_pictures import describe_pictures, draw_discs, write_pictures

from medunet.dataset.checks import case_checks
from medunet.dataset.checks.case_checks import check_case
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.manifest_checks import check_manifest, errors_left
from medunet.dataset.manifest import make_manifest
from medunet.records.description import load_description
from medunet.records.manifest import Case, Manifest


@pytest.mark.parametrize(
    ("code", "kind", "corrupt"), ERRORS, ids=[f"{code} {kind}" for code, kind, _ in ERRORS]
)
def test_errors(
    good_set: Path, good_manifest: Manifest, code: str, kind: str, corrupt: Callable[[Path], object]
) -> None:
    corrupt(good_set)
    faults = check_manifest(good_manifest, good_set)
    errors = [fault for fault in faults if fault.severity == "error"]
    assert {fault.code for fault in errors} == {code}, faults
    expected_case = "c" if code == "S001" else "b"
    assert {fault.case for fault in errors} == {expected_case}
    for fault in errors:
        assert fault.subject
        assert fault.measured
        assert fault.expected
        assert fault.hint
        assert str(good_set) not in str(fault)


@pytest.mark.parametrize(("code", "severity", "corrupt"), WARNINGS, ids=[code for code, *_ in WARNINGS])
def test_warnings_and_notes(
    good_set: Path, code: str, severity: str, corrupt: Callable[[Path], object]
) -> None:
    corrupt(good_set)
    manifest = make_manifest(describe(), good_set)
    fixed = {"a": 0, "b": 0, "c": 1, "d": 1}
    cases = [
        case.model_copy(update={"fold": fixed[case.id] if case.label else None}) for case in manifest.cases
    ]
    faults = check_manifest(manifest.model_copy(update={"cases": tuple(cases)}), good_set)
    assert (code, severity) in {(fault.code, fault.severity) for fault in faults}
    assert {fault.code for fault in faults} <= {code, "S004"}
    assert not errors_left(faults, manifest)


def test_a_crash_is_a_fault_of_its_case(
    good_set: Path, good_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = case_checks._check_label

    def broken(case_id: str, *others: Any) -> Any:
        if case_id == "b":
            raise RuntimeError(f"no more handles for {good_set}/b_seg.nii.gz")
        return whole(case_id, *others)

    monkeypatch.setattr(case_checks, "_check_label", broken)
    (fault,) = check_manifest(good_manifest, good_set)
    assert (fault.code, fault.case) == ("N099", "b")
    assert "RuntimeError: no more handles" in fault.measured
    assert str(good_set) not in fault.measured


def test_a_crash_names_no_folder_that_a_link_leads_to(
    good_set: Path,
    good_manifest: Manifest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = tmp_path_factory.mktemp("linked") / "data"
    link.symlink_to(good_set)

    def broken(*_: Any) -> Any:
        raise RuntimeError(f"neither {good_set.resolve()}/x nor {link}/x. The end.")

    monkeypatch.setattr(case_checks, "_check_label", broken)
    for fault in check_manifest(good_manifest, link):
        assert fault.measured == "RuntimeError: neither /x nor /x. The end."


def test_an_absolute_path_is_not_repeated(good_set: Path, good_manifest: Manifest) -> None:
    case = good_manifest.cases[0].model_copy(update={"label": str(good_set / "a_seg.nii.gz")})
    faults, _ = case_checks.check_case(case, good_manifest.description, good_set)
    assert [fault.code for fault in faults] == ["N013"]
    assert str(good_set) not in str(faults)
    assert "a_seg.nii.gz" in faults[0].measured


def test_every_code_but_those_of_dicom_is_provoked() -> None:
    tested = {code for code, *_ in (*ERRORS, *WARNINGS)}
    alone = {"N021", "N099"}  # in this file
    of_intensities = {"N019", "N020", "N026"}  # in test_hounsfield.py
    of_new_scans = {"N025", "N027", "N028", "N029"}  # in test_scope_checks.py
    of_labels = {"L006", "L008", "P008"}  # in test_label_checks.py
    of_sets = {
        "N012",
        "L007",
        "P009",
        "S003",
        "S007",
        "S009",
        "S010",
    }  # in test_set_checks.py and test_manifest_checks.py
    of_classes = {"S015", "S016", "S017", "S018"}  # in test_absent_classes.py
    of_pictures = {"N014", "S008"}  # in test_png_layout.py
    accepted = {"S011"}  # in test_parallel_check.py
    several = alone | of_classes | of_intensities | of_new_scans | of_labels | of_sets
    elsewhere = several | of_pictures | accepted
    assert tested | elsewhere == {code for code in FAULT_KINDS if code[0] != "D"}


def test_at_least_45_kinds_of_error_are_made() -> None:
    assert len({(code, kind) for code, kind, _ in ERRORS}) >= 45


def test_a_file_that_may_not_be_read(
    good_set: Path, good_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path.open

    def refuse(path: Path, *options: Any, **named: Any) -> Any:
        if path.name == T1:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *options, **named)

    monkeypatch.setattr(Path, "open", refuse)
    (fault,) = check_manifest(good_manifest, good_set)
    assert (fault.code, fault.severity, fault.case, fault.subject) == ("N021", "error", "b", "T1")
    assert fault.measured == "Permission denied"


def test_a_slope_of_zero_means_no_scaling(good_set: Path, good_manifest: Manifest) -> None:
    change_header(T1, scl_slope=0, scl_inter=np.nan)(good_set)
    assert check_manifest(good_manifest, good_set) == []


@pytest.mark.parametrize(("dtype", "codes"), [(np.uint8, []), (np.float32, ["L004"])])
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_volume_of_another_format_is_checked_by_its_own_header(
    tmp_path: Path, ending: str, dtype: type, codes: list[str]
) -> None:
    rng = np.random.default_rng(7)
    for name, array in (
        ("image", rng.normal(500, 80, SHAPE).astype(np.int16)),
        ("label", rng.integers(0, 3, SHAPE).astype(dtype)),
    ):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}{ending}"))
    case = Case(id="x", patient="x", images={"T1": f"image{ending}"}, label=f"label{ending}", split="train")
    assert [fault.code for fault in check_case(case, MR, tmp_path)[0]] == codes


def test_a_coloured_label_is_not_called_corrupt(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    picture, _ = draw_discs(1)
    Image.fromarray(picture).save(tmp_path / "labels/disc_01.png")
    errors = errors_left(check_manifest(made := make_manifest(describe_pictures(), tmp_path), tmp_path), made)
    assert [(fault.code, fault.case, fault.measured) for fault in errors] == [
        ("N023", "disc_01", "has colours where label values should be")
    ]


def test_each_file_is_decoded_once(
    good_set: Path, good_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the first bytes, where the header stands."""
    from medunet.imaging import gzip_files

    whole, decoded = gzip_files._inflate_file, []

    def count(path: Path) -> Any:
        decoded.append(path.name)
        return whole(path)

    monkeypatch.setattr(gzip_files, "_inflate_file", count)
    check_case(good_manifest.cases[1], good_manifest.description, good_set)
    assert sorted(decoded) == sorted([T1, T2, SEG])


@pytest.mark.parametrize("dim", [[3, 30000, 30000, 8, 1, 1, 1, 1], [3, 30000, 30000, 30000, 1, 1, 1, 1]])
def test_a_header_that_promises_much_takes_no_memory(
    good_set: Path, good_manifest: Manifest, dim: list[int]
) -> None:
    change_header(T1, dim=dim)(good_set)
    tracemalloc.start()
    faults, _ = check_case(good_manifest.cases[1], good_manifest.description, good_set)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [fault.code for fault in faults] == ["N017" if dim[3] == 8 else "N018"]
    assert peak < 20e6


def test_the_cap_on_memory_can_be_set(
    good_set: Path, good_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDUNET_MAX_VOLUME_GB", "5e-7")
    faults, _ = check_case(good_manifest.cases[1], good_manifest.description, good_set)
    assert {fault.code for fault in faults} == {"N018"}
    assert "at most 5e-07 GB" in faults[0].expected


@pytest.mark.real_data
def test_an_abdominal_scan_is_clean(shared_data: Path) -> None:
    case = Case(id="x", patient="x", images={"CT": "ct.nii.gz"}, label="totalsegmentator_labels.nii.gz")
    faults, facts = check_case(case, load_description("totalsegmentator"), shared_data / "ct_abdomen")
    assert faults == []
    assert facts.label is not None
    assert facts.label.volumes_ml[5] == pytest.approx(1200, rel=0.5)  # the liver


@pytest.mark.real_data
def test_corners_of_modalities_that_were_never_registered(shared_data: Path) -> None:
    root = shared_data / "brats" / "raw_not_coregistered"
    manifest = make_manifest(load_description("brats_2018_2021"), root)
    for fault in errors_left(check_manifest(manifest, root), manifest):
        assert fault.code == "P004"
        assert float(fault.measured.split("up to ")[1].split(" mm")[0]) > 5

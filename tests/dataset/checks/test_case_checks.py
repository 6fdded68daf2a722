"""Each fault of one case is made from a good set, one by one, and is caught with its own code and no other error."""

import itertools
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from corruptions import (
    AFFINE,
    ERRORS,
    SEG,
    SHAPE,
    T1,
    T2,
    WARNINGS,
    change_header,
    describe,
    save,
    write_good_set,
)
from PIL import Image
from tiny_pictures import describe_pictures, draw_discs, write_pictures

from medunet.dataset.checks import case_checks
from medunet.dataset.checks.case_checks import check_case
from medunet.dataset.checks.fault_catalogue import FAULT_KINDS
from medunet.dataset.checks.image_checks import check_hounsfield, sample_voxels
from medunet.dataset.checks.manifest_checks import check_manifest, errors_left
from medunet.dataset.manifest import make_manifest
from medunet.phantoms.phantom import make_phantom
from medunet.records.description import Description, load_description
from medunet.records.fault import Fault
from medunet.records.manifest import Case, Manifest


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_good_set(tmp_path)
    return tmp_path


@pytest.fixture
def manifest(root: Path) -> Manifest:
    return make_manifest(describe(), root, folds=[["a", "b"], ["c", "d"]])


@pytest.mark.parametrize(
    ("code", "kind", "corrupt"), ERRORS, ids=[f"{code} {kind}" for code, kind, _ in ERRORS]
)
def test_errors(
    root: Path, manifest: Manifest, code: str, kind: str, corrupt: Callable[[Path], object]
) -> None:
    corrupt(root)
    faults = check_manifest(manifest, root)
    errors = [fault for fault in faults if fault.severity == "error"]
    assert {fault.code for fault in errors} == {code}, faults
    expected_case = "c" if code == "S001" else "b"
    assert {fault.case for fault in errors} == {expected_case}
    for fault in errors:
        assert fault.subject
        assert fault.measured
        assert fault.expected
        assert fault.hint
        assert str(root) not in str(fault)


@pytest.mark.parametrize(("code", "severity", "corrupt"), WARNINGS, ids=[code for code, *_ in WARNINGS])
def test_warnings_and_notes(root: Path, code: str, severity: str, corrupt: Callable[[Path], object]) -> None:
    corrupt(root)
    manifest = make_manifest(describe(), root)
    fixed = {"a": 0, "b": 0, "c": 1, "d": 1}
    cases = [
        case.model_copy(update={"fold": fixed[case.id] if case.label else None}) for case in manifest.cases
    ]
    faults = check_manifest(manifest.model_copy(update={"cases": tuple(cases)}), root)
    assert (code, severity) in {(fault.code, fault.severity) for fault in faults}
    assert {fault.code for fault in faults} <= {code, "S004"}
    assert not errors_left(faults, manifest)


def test_a_crash_is_a_fault_of_its_case(
    root: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = case_checks._check_label

    def broken(case_id: str, *others: Any) -> Any:
        if case_id == "b":
            raise RuntimeError(f"no more handles for {root}/b_seg.nii.gz")
        return whole(case_id, *others)

    monkeypatch.setattr(case_checks, "_check_label", broken)
    (fault,) = check_manifest(manifest, root)
    assert (fault.code, fault.case) == ("N099", "b")
    assert "RuntimeError: no more handles" in fault.measured
    assert str(root) not in fault.measured


def test_a_crash_names_no_folder_that_a_link_leads_to(
    root: Path, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path_factory.mktemp("linked") / "data"
    link.symlink_to(root)

    def broken(*_: Any) -> Any:
        raise RuntimeError(f"neither {root.resolve()}/x nor {link}/x. The end.")

    monkeypatch.setattr(case_checks, "_check_label", broken)
    for fault in check_manifest(manifest, link):
        assert fault.measured == "RuntimeError: neither /x nor /x. The end."


def test_an_absolute_path_is_not_repeated(root: Path, manifest: Manifest) -> None:
    case = manifest.cases[0].model_copy(update={"label": str(root / "a_seg.nii.gz")})
    faults, _ = case_checks.check_case(case, manifest.description, root)
    assert [fault.code for fault in faults] == ["N013"]
    assert str(root) not in str(faults)
    assert "a_seg.nii.gz" in faults[0].measured


def test_every_code_but_those_of_dicom_is_provoked() -> None:
    tested = {code for code, *_ in (*ERRORS, *WARNINGS)}
    alone = {"N019", "N020", "N021", "N099", "L006", "L008", "P008"}  # in this file
    of_sets = {
        "N012",
        "L007",
        "P009",
        "S003",
        "S007",
        "S009",
        "S010",
    }  # in test_set_checks.py and test_manifest_checks.py
    of_pictures = {"N014", "S008"}  # in test_png_layout.py
    accepted = {"S011"}  # in test_parallel_check.py
    assert tested | alone | of_sets | of_pictures | accepted == {
        code for code in FAULT_KINDS if code[0] != "D"
    }


def test_at_least_45_kinds_of_error_are_made() -> None:
    assert len({(code, kind) for code, kind, _ in ERRORS}) >= 45


def check(
    root: Path, image: np.ndarray, label: np.ndarray | None, description: Description, **saving: Any
) -> list[Fault]:
    """Write a case of one image and its label, and check it."""
    affine = saving.get("affine", AFFINE)
    save(root / "x_image.nii", image, affine)
    channel = next(iter(description.channels))
    case = Case(id="x", patient="x", images={channel: "x_image.nii"}, split="test")
    if label is not None:
        save(root / "x_label.nii", label, affine)
        case = case.model_copy(update={"label": "x_label.nii", "split": "train"})
    return check_case(case, description, root)[0]


MR = describe(channels={"T1": {"modality": "MR"}})
CT = describe(channels={"CT": {"modality": "CT"}}, labels={"background": 0, "liver": 1, "tumour": 2})


def test_a_file_that_may_not_be_read(root: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.open

    def refuse(path: Path, *options: Any, **named: Any) -> Any:
        if path.name == T1:
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *options, **named)

    monkeypatch.setattr(Path, "open", refuse)
    (fault,) = check_manifest(manifest, root)
    assert (fault.code, fault.severity, fault.case, fault.subject) == ("N021", "error", "b", "T1")
    assert fault.measured == "Permission denied"


def test_a_slope_of_zero_means_no_scaling(root: Path, manifest: Manifest) -> None:
    change_header(T1, scl_slope=0, scl_inter=np.nan)(root)
    assert check_manifest(manifest, root) == []


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


def test_each_file_is_decoded_once(root: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the first bytes, where the header stands."""
    from medunet.imaging import packed

    whole, decoded = packed._inflate_file, []

    def count(path: Path) -> Any:
        decoded.append(path.name)
        return whole(path)

    monkeypatch.setattr(packed, "_inflate_file", count)
    check_case(manifest.cases[1], manifest.description, root)
    assert sorted(decoded) == sorted([T1, T2, SEG])


@pytest.mark.parametrize("dim", [[3, 30000, 30000, 8, 1, 1, 1, 1], [3, 30000, 30000, 30000, 1, 1, 1, 1]])
def test_a_header_that_promises_much_takes_no_memory(root: Path, manifest: Manifest, dim: list[int]) -> None:
    change_header(T1, dim=dim)(root)
    tracemalloc.start()
    faults, _ = check_case(manifest.cases[1], manifest.description, root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [fault.code for fault in faults] == ["N017" if dim[3] == 8 else "N018"]
    assert peak < 20e6


def test_the_cap_on_memory_can_be_set(
    root: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDUNET_MAX_VOLUME_GB", "5e-7")
    faults, _ = check_case(manifest.cases[1], manifest.description, root)
    assert {fault.code for fault in faults} == {"N018"}
    assert "at most 5e-07 GB" in faults[0].expected


@pytest.mark.parametrize(("declared", "found"), [(4, 3), (3, 4)])
def test_labels_of_another_edition(tmp_path: Path, declared: int, found: int) -> None:
    labels = {"background": 0, "oedema": 2, "enhancing": declared}
    label = np.random.default_rng(1).choice(np.array([0, 2, found], np.uint8), SHAPE)
    image = np.random.default_rng(2).normal(500, 80, SHAPE).astype(np.int16)
    (fault,) = check(tmp_path, image, label, describe(channels={"T1": {"modality": "MR"}}, labels=labels))
    assert (fault.code, fault.severity) == ("L008", "error")
    assert fault.measured.startswith(f"enhancing is {found} in ")
    label[0, 0, 0] = 7  # then it is no edition's
    (fault,) = check(tmp_path, image, label, describe(channels={"T1": {"modality": "MR"}}, labels=labels))
    assert fault.code == "L001"


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> np.ndarray:
    steps = np.meshgrid(*(np.arange(n) - c for n, c in zip(shape, centre, strict=True)), indexing="ij")
    return np.sqrt(sum(step.astype(float) ** 2 for step in steps)) < radius


def test_stray_specks(tmp_path: Path) -> None:
    """Told when few, small and far from their label; lesions within an organ or near it are not specks."""
    shape, affine = (60, 50, 40), np.diag([1.0, 1.0, 1.5, 1.0])
    image = np.random.default_rng(3).normal(100, 10, shape).astype(np.int16)
    label = ball(shape, (20, 20, 20), 14).astype(np.uint8)
    label[20:23, 20, 20] = 2

    def specks(changed: np.ndarray) -> list[str]:
        faults = check(tmp_path, image, changed, MR, affine=affine)
        assert {fault.code for fault in faults} <= {"L006"}
        return [fault.measured for fault in faults]

    assert specks(label) == []
    near, far, large = label.copy(), label.copy(), label.copy()
    near[38, 20, 20] = 1
    assert specks(near) == []
    far[57:59, 45, 35] = 1
    (measured,) = specks(far)
    assert measured.startswith("oedema: 1 of 2 voxels together, more than 20 mm from its other ")
    assert measured.endswith("at (57, 45, 35)")
    large[55:59, 43:47, 35] = 1
    assert specks(large) == []
    far[57:59, 45, 35] = 2  # of a label that is as small itself
    assert specks(far) == []


@pytest.mark.parametrize("flip", [(0,), (2,), (0, 1), (0, 1, 2)])
def test_a_mirrored_mask(tmp_path: Path, flip: tuple[int, ...]) -> None:
    phantom = make_phantom(5, spacing_mm=(4.0, 4.0, 5.0))
    label = (phantom.label > 0).astype(np.uint8)
    assert check(tmp_path, phantom.image, label, CT, affine=phantom.affine) == []
    (fault,) = check(tmp_path, phantom.image, np.flip(label, flip), CT, affine=phantom.affine)
    assert (fault.code, fault.severity, fault.subject) == ("P008", "warning", "label")
    assert [f"{axis} (" in fault.measured for axis in range(3)] == [axis in flip for axis in range(3)]


def hounsfield_codes(image: np.ndarray) -> list[str]:
    return [fault.code for fault in check_hounsfield("x", "CT", sample_voxels(image).astype(float))]


def padded(image: np.ndarray) -> np.ndarray:
    changed = image.copy()
    changed[: len(image) // 5] = -2000
    return changed


HOUNSFIELD: list[tuple[str, Callable[[np.ndarray], np.ndarray], list[str]]] = [
    ("good", lambda hu: hu, []),
    ("clipped", lambda hu: np.clip(hu, -200, 300), []),
    ("clipped to its scanner's range", lambda hu: np.maximum(hu, -1000), []),
    ("padded", padded, []),
    ("cropped", lambda hu: hu[tuple(slice(2 * n // 5, 3 * n // 5) for n in hu.shape)], []),
    ("normalised", lambda hu: (np.clip(hu, -1000, 1000) + 1000) / 2000, []),
    ("as stored", lambda hu: hu + 1024, ["N019"]),
    ("as stored, clipped", lambda hu: np.maximum(hu + 1024, 0), ["N019"]),
    ("intercept twice", lambda hu: hu - 1024, ["N020"]),
    ("200 off", lambda hu: hu + 200, ["N020"]),
]


@pytest.mark.parametrize(
    ("change", "codes"), [case[1:] for case in HOUNSFIELD], ids=[case[0] for case in HOUNSFIELD]
)
def test_hounsfield_units_of_a_phantom(change: Callable[[np.ndarray], np.ndarray], codes: list[str]) -> None:
    image = make_phantom(3, spacing_mm=(4.0, 4.0, 5.0)).image.astype(int)
    assert hounsfield_codes(change(image)) == codes


def test_a_ct_as_stored_is_told_by_the_check(tmp_path: Path) -> None:
    phantom = make_phantom(3, spacing_mm=(4.0, 4.0, 5.0))
    (fault,) = check(tmp_path, phantom.image + np.int16(1024), phantom.label, CT, affine=phantom.affine)
    assert (fault.code, fault.severity, fault.subject) == ("N019", "warning", "CT")
    assert check(tmp_path, phantom.image + np.int16(1024), None, MR, affine=phantom.affine) == []


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("change", "codes"), [case[1:] for case in HOUNSFIELD], ids=[case[0] for case in HOUNSFIELD]
)
def test_hounsfield_units_of_a_scan(
    shared_data: Path, change: Callable[[np.ndarray], np.ndarray], codes: list[str]
) -> None:
    image = np.asarray(nib.load(shared_data / "ct_abdomen" / "ct.nii.gz").dataobj).astype(int)
    assert hounsfield_codes(change(image)) == codes


@pytest.mark.real_data
def test_an_abdominal_scan_is_clean(shared_data: Path) -> None:
    case = Case(id="x", patient="x", images={"CT": "ct.nii.gz"}, label="totalsegmentator_labels.nii.gz")
    faults, facts = check_case(case, load_description("totalsegmentator"), shared_data / "ct_abdomen")
    assert faults == []
    assert facts.label is not None
    assert facts.label.volumes_ml[5] == pytest.approx(1200, rel=0.5)  # the liver


@pytest.mark.real_data
def test_mirrored_masks_of_hippocampi(shared_data: Path, tmp_path: Path) -> None:
    """Flipped along any axes, 9 of 10 are told; that the whole set raises nothing is in test_manifest_checks.py."""
    description = load_description("msd_task04_hippocampus")
    root = shared_data / "hippocampus"
    flips = [axes for n in (1, 2, 3) for axes in itertools.combinations(range(3), n)]
    found = []
    for case in make_manifest(description, root).cases[:60:4]:
        assert case.label is not None
        image, label = (np.asarray(nib.load(root / name).dataobj) for name in (case.images["MR"], case.label))
        for axes in flips:
            faults = check(tmp_path, image, np.flip(label, axes), description, affine=np.eye(4))
            found += ["P008" in {fault.code for fault in faults}]
    assert np.mean(found) > 0.9


@pytest.mark.real_data
def test_corners_of_modalities_that_were_never_registered(shared_data: Path) -> None:
    root = shared_data / "brats" / "raw_not_coregistered"
    manifest = make_manifest(load_description("brats_2018_2021"), root)
    for fault in errors_left(check_manifest(manifest, root), manifest):
        assert fault.code == "P004"
        assert float(fault.measured.split("up to ")[1].split(" mm")[0]) > 5

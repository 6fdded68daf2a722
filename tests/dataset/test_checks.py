"""Each fault is made from a good set, one by one, and is caught with its own code and no other error."""

import csv
import gzip
import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from rich.console import Console

from medunet.dataset import case_checks
from medunet.dataset.checks import check_manifest, errors_left, fault_table, read_faults, write_faults
from medunet.dataset.fault_codes import FAULT_KINDS
from medunet.dataset.manifest import make_manifest
from medunet.dataset.splits import read_folds
from medunet.errors import DataError, InputError
from medunet.records import Accepted, Description, Excluded, Fault, Manifest, load_description

DESCRIPTIONS = Path(__file__).parents[2] / "data_manifests"
SHAPE = (9, 7, 6)
SPACING_MM = (0.8, 1.0, 3.0)
AFFINE = np.diag([-0.8, 1.0, 3.0, 1.0]) + np.array([[0, 0, 0, 20.0], [0, 0, 0, -30], [0, 0, 0, 5], [0] * 4])
T1, T2, SEG = "b_t1.nii.gz", "b_t2.nii.gz", "b_seg.nii.gz"


def describe(**changes: Any) -> Description:
    plain = {
        "name": "tiny",
        "layout": "brats",
        "channels": {name: {"modality": "MR", "endings": [f"_{name.lower()}"]} for name in ("T1", "T2")},
        "labels": {"background": 0, "oedema": 1, "core": 2},
        "folds": 2,
    }
    return Description.parse({**plain, **changes}, "test")


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, qform: np.ndarray | None = None) -> None:
    image = nib.Nifti1Image(array, None)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, 1)
    image.set_qform(affine if qform is None else qform, 1, strip_shears=True)
    nib.save(image, path)


def load(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).copy()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four good cases a, b, c, d of two modalities each."""
    rng = np.random.default_rng(7)
    for name in "abcd":
        for channel in ("t1", "t2"):
            save(tmp_path / f"{name}_{channel}.nii.gz", rng.normal(500, 80, SHAPE).astype(np.int16))
        save(tmp_path / f"{name}_seg.nii.gz", rng.integers(0, 3, SHAPE, dtype=np.uint8))
    return tmp_path


@pytest.fixture
def manifest(root: Path) -> Manifest:
    return make_manifest(describe(), root, folds=[["a", "b"], ["c", "d"]])


def test_good_data_has_no_faults(root: Path, manifest: Manifest) -> None:
    assert check_manifest(manifest, root) == []


def change_array(name: str, index: tuple[int, ...], value: float, dtype: Any) -> Callable[[Path], None]:
    def corrupt(root: Path) -> None:
        array = load(root / name).astype(dtype)
        array[index] = value
        save(root / name, array)

    return corrupt


def change_grids(matrix: np.ndarray) -> Callable[[Path], None]:
    """Give all files of case b another affine."""

    def corrupt(root: Path) -> None:
        for name in (T1, T2, SEG):
            save(root / name, load(root / name), matrix)

    return corrupt


def change_affine(name: str, matrix: np.ndarray) -> Callable[[Path], None]:
    return lambda root: save(root / name, load(root / name), matrix)


def change_bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def copy(source: str, target: str) -> Callable[[Path], None]:
    return lambda root: save(root / target, load(root / source))


def shifted(*offset_mm: float) -> np.ndarray:
    matrix = AFFINE.copy()
    matrix[:3, 3] += offset_mm
    return matrix


def scaled(factor: float) -> np.ndarray:
    return AFFINE @ np.diag([factor, factor, factor, 1.0])


def sheared() -> np.ndarray:
    matrix = AFFINE.copy()
    matrix[1, 2] = 0.6  # a gantry tilt of 11 degrees
    return matrix


def separate_qform(root: Path, offset_mm: float) -> None:
    save(root / T1, load(root / T1), AFFINE, shifted(offset_mm, 0, 0))


def singular(root: Path) -> None:
    image = nib.load(root / T1)
    header = image.header.copy()
    header["srow_z"] = 0
    header["qform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, header), root / T1)


def interpolated(root: Path) -> None:
    save(root / SEG, load(root / SEG) * np.float32(1.5))


def link_outside(root: Path) -> None:
    outside = root.parent / f"{root.name}_outside.nii.gz"
    outside.write_bytes((root / T1).read_bytes())
    (root / T1).unlink()
    (root / T1).symlink_to(outside)


def cut_uncompressed(root: Path) -> None:
    """Put half of an uncompressed file in the place of a good one."""
    save(root / "whole.nii", load(root / T1))
    data = (root / "whole.nii").read_bytes()
    (root / "whole.nii").unlink()
    (root / T1).write_bytes(gzip.compress(data[: len(data) // 2]))


def flip_last_byte_of_checksum(data: bytes) -> bytes:
    return data[:-8] + bytes([data[-8] ^ 1]) + data[-7:]


ERRORS: list[tuple[str, str, Callable[[Path], object]]] = [
    ("N001", "image", lambda root: (root / T2).unlink()),
    ("N001", "label", lambda root: (root / SEG).unlink()),
    ("N002", "text", lambda root: (root / T1).write_bytes(gzip.compress(b"no volume" * 90))),
    ("N002", "not gzip", lambda root: (root / T1).write_bytes(b"no volume" * 90)),
    ("N002", "empty file", lambda root: (root / T1).write_bytes(b"")),
    ("N003", "half", change_bytes(T1, lambda data: data[: len(data) // 2])),
    ("N003", "uncompressed", cut_uncompressed),
    ("N003", "checksum cut off", change_bytes(T1, lambda data: data[:-8])),
    ("N003", "checksum wrong", change_bytes(SEG, flip_last_byte_of_checksum)),
    ("N004", "NaN", change_array(T1, (1, 2, 3), np.nan, np.float32)),
    ("N004", "infinite", change_array(T2, (1, 2, 3), -np.inf, np.float32)),
    ("N004", "label", change_array(SEG, (0, 0, 0), np.nan, np.float32)),
    ("N005", "three frames", lambda root: save(root / T1, np.stack([load(root / T1)] * 3, axis=3))),
    ("N005", "flat", lambda root: save(root / T1, load(root / T1)[:, :, 0])),
    ("N005", "label", lambda root: save(root / SEG, np.stack([load(root / SEG)] * 2, axis=3))),
    ("N007", "metres", change_grids(scaled(0.001))),
    ("N007", "coarse", change_grids(scaled(5.0))),
    ("N008", "shifted", lambda root: separate_qform(root, 40.0)),
    ("N009", "singular", singular),
    ("N011", "constant", lambda root: save(root / T1, np.full(SHAPE, 7, np.int16))),
    ("N013", "link", link_outside),
    ("L001", "foreign", change_array(SEG, (2, 2, 2), 4, np.uint8)),
    ("L001", "negative", change_array(SEG, (2, 2, 2), -1, np.int16)),
    ("L002", "interpolated", interpolated),
    ("L002", "almost", change_array(SEG, (2, 2, 2), 1.0001, np.float32)),
    ("P001", "shape", lambda root: save(root / SEG, load(root / SEG)[:, :, 1:])),
    ("P001", "axes", lambda root: save(root / SEG, load(root / SEG).transpose(1, 0, 2))),
    ("P002", "shifted", change_affine(SEG, shifted(0, 0.5, 0))),
    ("P002", "mirrored", change_affine(SEG, AFFINE @ np.diag([-1, 1, 1, 1]))),
    ("P004", "shape", lambda root: save(root / T2, load(root / T2)[1:])),
    ("P005", "shifted", change_affine(T2, shifted(0, 0, 2.0))),
    ("P007", "channels", copy(T1, T2)),
    ("S001", "two folds", copy("c_t1.nii.gz", "b_t1.nii.gz")),
    ("S002", "labels", copy("a_seg.nii.gz", "b_seg.nii.gz")),
]


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
        assert fault.mend
        assert str(root) not in str(fault)


def thin(root: Path) -> None:
    for name in (T1, T2, SEG):
        save(root / name, load(root / name)[:, :, :1])


def add_stray(root: Path) -> None:
    (root / "raters").mkdir()
    save(root / "raters" / "x.nii.gz", np.arange(24, dtype=np.int16).reshape(2, 3, 4))


def drop_class(root: Path) -> None:
    for name in "abcd":
        labels = load(root / f"{name}_seg.nii.gz")
        save(root / f"{name}_seg.nii.gz", np.where(labels == 2, 0, labels))


WARNINGS: list[tuple[str, str, Callable[[Path], object]]] = [
    ("N006", "warning", thin),
    ("N008", "warning", lambda root: separate_qform(root, 0.3)),
    ("N010", "warning", change_grids(sheared())),
    ("L003", "warning", lambda root: save(root / SEG, np.zeros(SHAPE, np.uint8))),
    ("L004", "note", lambda root: save(root / SEG, load(root / SEG).astype(np.float32))),
    ("P003", "note", change_affine(SEG, shifted(0.01, 0, 0))),
    ("P006", "note", change_affine(T2, shifted(0.01, 0, 0))),
    ("S001", "warning", copy("a_t1.nii.gz", "b_t1.nii.gz")),
    ("S001", "warning", copy("a_t1.nii.gz", "stray.nii.gz")),
    ("S002", "warning", copy("a_seg.nii.gz", "stray.nii.gz")),
    ("S004", "warning", add_stray),
    ("S005", "note", lambda root: (root / SEG).unlink()),
    ("S006", "warning", drop_class),
]


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


def test_one_patient_in_two_folds(root: Path) -> None:
    manifest = make_manifest(describe(patient="([ab])"), root, folds=[["a", "b"], ["c", "d"]])
    cases = tuple(case.model_copy(update={"patient": "p"}) for case in manifest.cases)
    (fault,) = check_manifest(manifest.model_copy(update={"cases": cases}), root)
    assert (fault.code, fault.severity, fault.case) == ("S003", "error", "c")
    assert fault.measured == "in fold 1, while case a of the same patient is in fold 0"


def test_patient_in_training_and_test(root: Path, manifest: Manifest) -> None:
    cases = [
        case.model_copy(update={"patient": "p" if case.id in "ad" else case.id}) for case in manifest.cases
    ]
    cases[3] = cases[3].model_copy(update={"split": "test", "fold": None})
    faults = check_manifest(manifest.model_copy(update={"cases": tuple(cases)}), root)
    assert [(fault.code, fault.case) for fault in faults] == [("S003", "d")]


@pytest.mark.parametrize(
    ("regions", "loss", "code"),
    [
        (True, "dice_ce", "S007"),
        (True, "dice_bce", None),
        (True, "auto", None),
        (False, "dice_bce", "S007"),
        (False, "dice_ce", None),
        (False, "auto", None),
    ],
)
def test_loss_must_fit_the_labels(root: Path, regions: bool, loss: str, code: str | None) -> None:
    overlap = {"regions": {"whole": ["oedema", "core"], "core": ["core"]}, "region_order": ["whole", "core"]}
    description = describe(**(overlap if regions else {}))
    faults = check_manifest(make_manifest(description, root), root, loss=loss)
    assert [fault.code for fault in faults] == ([code] if code else [])
    assert all("auto" in fault.mend for fault in faults)


def test_intensity_outliers(tmp_path: Path) -> None:
    """One of twelve scans is stored 300 times brighter; twice as bright is no matter."""
    rng = np.random.default_rng(1)
    for index in range(12):
        factor = {3: 300.0, 5: 2.0}.get(index, 1.0)
        for channel in ("t1", "t2"):
            image = rng.normal(500, 80, SHAPE).astype(np.float32)
            save(tmp_path / f"c{index}_{channel}.nii.gz", image * (factor if channel == "t2" else 1.0))
        save(tmp_path / f"c{index}_seg.nii.gz", rng.integers(0, 3, SHAPE, dtype=np.uint8))
    faults = check_manifest(make_manifest(describe(), tmp_path), tmp_path)
    assert [(f.code, f.severity, f.case, f.subject) for f in faults] == [("N012", "warning", "c3", "T2")]


def test_frames_of_one_file(tmp_path: Path) -> None:
    """A 4D file of two declared channels is good; its constant frame and a third frame are not."""
    rng = np.random.default_rng(2)
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "labelsTr").mkdir()
    image = rng.normal(500, 80, (*SHAPE, 2)).astype(np.float32)
    save(tmp_path / "labelsTr" / "x.nii.gz", rng.integers(0, 3, SHAPE, dtype=np.uint8))

    def codes() -> list[tuple[str, str]]:
        manifest = make_manifest(describe(layout="msd"), tmp_path)
        return [(fault.code, fault.subject) for fault in check_manifest(manifest, tmp_path)]

    save(tmp_path / "imagesTr" / "x.nii.gz", image)
    assert codes() == []
    image[..., 1] = 3
    save(tmp_path / "imagesTr" / "x.nii.gz", image)
    assert codes() == [("N011", "T2")]
    save(tmp_path / "imagesTr" / "x.nii.gz", rng.normal(size=(*SHAPE, 3)))
    assert codes() == [("N005", "T1+T2")]


def all_orientations() -> Iterator[str]:
    for axes in itertools.permutations(("RL", "AP", "SI")):
        for signs in itertools.product((0, 1), repeat=3):
            yield "".join(pair[sign] for pair, sign in zip(axes, signs, strict=True))


def test_clean_data_of_all_orientations_types_and_tilts_has_no_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    angle = np.deg2rad(17)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    types = (np.int16, np.uint8, np.float32, np.int32, np.float64)
    for index, codes in enumerate(all_orientations()):
        affine = AFFINE @ inv_ornt_aff(axcodes2ornt(codes), SHAPE)
        affine = turn @ affine if index % 2 else affine
        for channel in ("t1", "t2"):
            image = rng.normal(120, 20, SHAPE).astype(types[index % len(types)])
            save(tmp_path / f"c{index}_{channel}.nii.gz", image, affine)
        if index % 3 == 0:  # stored as scaled integers
            scaled_image = nib.Nifti1Image(rng.normal(120, 20, SHAPE), affine)
            scaled_image.set_data_dtype(np.int16)
            nib.save(scaled_image, tmp_path / f"c{index}_t1.nii.gz")
        save(tmp_path / f"c{index}_seg.nii.gz", rng.integers(0, 3, SHAPE, dtype=np.uint8), affine)
    manifest = make_manifest(describe(), tmp_path)
    assert len(manifest.cases) == 48
    assert check_manifest(manifest, tmp_path) == []


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


def test_a_file_that_goes_while_it_is_read_is_named_without_its_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file") as caught:
        case_checks.read_stream(tmp_path / "gone.nii.gz")
    assert str(tmp_path) not in str(caught.value)


def test_an_absolute_path_is_not_repeated(root: Path, manifest: Manifest) -> None:
    case = manifest.cases[0].model_copy(update={"label": str(root / "a_seg.nii.gz")})
    faults, _ = case_checks.check_case(case, manifest.description, root)
    assert [fault.code for fault in faults] == ["N013"]
    assert str(root) not in str(faults)
    assert "a_seg.nii.gz" in faults[0].measured


def test_excluded_and_accepted_errors_are_not_left(root: Path, manifest: Manifest) -> None:
    (root / T2).unlink()
    save(root / "c_seg.nii.gz", np.full(SHAPE, 9, np.uint8))
    faults = check_manifest(manifest, root)
    assert {(fault.code, fault.case) for fault in errors_left(faults, manifest)} == {
        ("N001", "b"),
        ("L001", "c"),
    }
    excluded = manifest.model_copy(update={"excluded": (Excluded(id="b", reason="lost"),)})
    assert [fault.case for fault in errors_left(faults, excluded)] == ["c"]
    accepted = excluded.model_copy(update={"accepted": (Accepted(code="L001", case="c", reason="known"),)})
    assert errors_left(faults, accepted) == []


def test_an_excluded_twin_is_no_duplicate(root: Path, manifest: Manifest) -> None:
    copy("c_t1.nii.gz", T1)(root)
    assert [fault.code for fault in check_manifest(manifest, root)] == ["S001"]
    excluded = manifest.model_copy(update={"excluded": (Excluded(id="c", reason="copy"),)})
    assert check_manifest(excluded, root) == []


def test_faults_are_written_and_read_again(tmp_path: Path) -> None:
    faults = [
        Fault("L001", "error", "=cmd()", "label", "-3 in 2 voxels", "0, 1", "@mend"),
        Fault("S004", "warning", "", "raters/ä,b.nii.gz", 'a "quoted"\nreason', "", "+1"),
    ]
    write_faults(faults, tmp_path)
    assert read_faults(tmp_path / "checks.json") == faults
    with (tmp_path / "checks.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["code", "severity", "case", "subject", "measured", "expected", "mend"]
    assert (rows[0]["case"], rows[0]["measured"], rows[0]["mend"]) == ("'=cmd()", "'-3 in 2 voxels", "'@mend")
    assert (rows[1]["measured"], rows[1]["mend"]) == ('a "quoted"\nreason', "'+1")
    write_faults([], tmp_path)
    assert read_faults(tmp_path / "checks.json") == []
    (tmp_path / "checks.json").write_text('{"schema": "medunet.checks/1", "faults": [{"code": "N001"}]}')
    with pytest.raises(InputError, match="medunet check"):
        read_faults(tmp_path / "checks.json")


def test_table_shows_errors_first_and_markup_as_it_is() -> None:
    faults = [
        Fault("S004", "warning", "", "a.nii.gz", "[bold]stray", "", ""),
        Fault("N001", "error", "b", "T1", "missing", "a file", "restore"),
    ]
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(fault_table(faults))
    text = console.export_text()
    assert "1 error, 1 warning, 0 notes" in text
    assert "[bold]stray" in text
    assert text.index("N001") < text.index("S004")


def test_every_code_of_the_catalogue_is_provoked_here() -> None:
    tested = (
        {code for code, *_ in ERRORS} | {code for code, *_ in WARNINGS} | {"N012", "N099", "S003", "S007"}
    )
    of_pictures = {"N014", "S008"}  # in test_png_layout.py
    assert tested | of_pictures == set(FAULT_KINDS)


@pytest.mark.real_data
def test_hippocampus(shared_data: Path) -> None:
    folds = read_folds(shared_data.parent / "splits" / "hippocampus.json")
    root = shared_data / "hippocampus"
    manifest = make_manifest(load_description("msd_task04_hippocampus", DESCRIPTIONS), root, folds=folds)
    faults = check_manifest(manifest, root)
    assert errors_left(faults, manifest) == []
    assert not [fault for fault in faults if fault.severity == "error"]
    strays = {fault.subject: fault.measured for fault in faults if fault.code == "S004"}
    assert strays["imagesTr/hippocampus_118.nii.gz"] == "image without a label"
    assert strays["labelsTr/hippocampus_010.nii.gz"] == "label without an image"
    assert "foreign to this set: 512×512×94" in strays["labelsTr/hippocampus_281.nii.gz"]
    (twin,) = [fault for fault in faults if fault.code == "S002"]
    assert (twin.case, twin.subject) == ("hippocampus_011", "labelsTr/hippocampus_010.nii.gz")
    floats = {fault.case for fault in faults if fault.code == "L004"}
    assert floats == {"hippocampus_003", "hippocampus_243"}
    outliers = {fault.case for fault in faults if fault.code == "N012"}
    assert len(outliers) == 22
    assert {"hippocampus_044", "hippocampus_212"} <= outliers
    assert {fault.code for fault in faults} == {"S004", "S002", "L004", "N012"}


@pytest.mark.real_data
def test_brats_case_with_raters(shared_data: Path) -> None:
    root = shared_data / "brats" / "TCGA-FG-6692"
    manifest = make_manifest(load_description("brats_2018_2021", DESCRIPTIONS), root)
    faults = check_manifest(manifest, root)
    assert [case.id for case in manifest.cases] == ["TCGA-FG-6692"]
    assert {fault.code for fault in faults} == {"S004"}
    assert len(faults) == 5
    assert all(fault.subject.startswith("raters/") for fault in faults)


@pytest.mark.real_data
def test_modalities_that_were_never_registered(shared_data: Path) -> None:
    root = shared_data / "brats" / "raw_not_coregistered"
    manifest = make_manifest(load_description("brats_2018_2021", DESCRIPTIONS), root)
    errors = errors_left(check_manifest(manifest, root), manifest)
    assert {(fault.code, fault.subject) for fault in errors} == {
        ("P004", "T1w"),
        ("P004", "T1gd"),
        ("P004", "T2w"),
    }
    assert errors[0].expected == "208×256×26, the shape of FLAIR"

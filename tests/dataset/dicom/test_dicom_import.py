"""The import: geometry and values as DICOM has them, pseudonyms, nothing of the patient, nothing lost by a kill."""

import csv
import gzip
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from tiny_dicom import (
    OBLIQUE,
    PATIENT_ID,
    ROOT,
    STUDY_DATE,
    make_series,
    make_slice,
    normal_of,
    pixels_of,
    voxel_position,
    write_series,
    write_slices,
)
from typer.testing import CliRunner

from medunet.base.errors import InputError
from medunet.cli.app import app
from medunet.dataset.dicom import importer
from medunet.dataset.dicom.importer import Imported, import_tree
from medunet.dataset.dicom.pseudonyms import Pseudonyms
from medunet.dataset.dicom.tables import read_rows
from medunet.records.description import load_description
from medunet.records.manifest import Manifest


def load(out: Path, case: str) -> tuple[np.ndarray, np.ndarray]:
    image = nib.load(out / "images" / f"{case}.nii.gz")
    return np.asanyarray(image.dataobj), image.affine


def codes_by_case(imported: Imported) -> dict[str, tuple[str, ...]]:
    return {row.case: row.faults for row in imported.rows}


def write_study(tree: Path) -> None:
    """Write two patients' series: a CT and an MR of one, a CT with a missing slice of the other."""
    write_series(tree / "x", 8, series="1", orientation=OBLIQUE)
    write_series(tree / "y", 6, series="21", modality="MR")
    slices = make_series(8, series="3", patient_id="ZZ-9")
    write_slices(slices[:4] + slices[5:], tree / "z")


def test_every_series_has_a_volume_or_a_reason(tmp_path: Path) -> None:
    write_study(tmp_path / "tree")
    out = tmp_path / "out"
    imported = import_tree(tmp_path / "tree", out)
    rows = [(row.case, row.patient, row.modality, row.status, row.shape) for row in imported.rows]
    assert rows == [
        ("p0001_s01", "p0001", "CT", "imported", (12, 10, 8)),
        ("p0001_s02", "p0001", "MR", "imported", (12, 10, 6)),
        ("p0002_s01", "p0002", "CT", "refused", ()),
    ]
    assert codes_by_case(imported)["p0002_s01"] == ("D002",)
    assert sorted(path.name for path in (out / "images").iterdir()) == [
        "p0001_s01.nii.gz",
        "p0001_s02.nii.gz",
    ]
    array, affine = load(out, "p0001_s01")
    assert array.dtype == np.int16
    assert array[7, 4, 5] == 500 + 40 + 7 - 1024
    expected = voxel_position(make_slice(5, orientation=OBLIQUE), row=4, column=7)
    assert np.allclose((affine @ (7, 4, 5, 1))[:3], expected, atol=1e-3)
    with (out / "series.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["status"] for row in table] == ["imported", "imported", "refused"]
    assert (table[0]["shape"], table[0]["spacing_mm"]) == ("12 10 8", "0.5 0.8 2.5")
    assert read_rows(out) == list(imported.rows)


def test_manifests_are_of_one_modality_each_and_can_be_read(tmp_path: Path) -> None:
    write_study(tmp_path / "tree")
    out = tmp_path / "out"
    import_tree(tmp_path / "tree", out)
    assert not (out / "manifest.json").exists()
    manifest = Manifest.read(out / "manifest_CT.json")
    assert manifest.description.channels["CT"].modality == "CT"
    (case,) = manifest.cases
    assert (case.id, case.patient, case.split, case.label) == ("p0001_s01", "p0001", "unlabelled", None)
    assert (out / case.images["CT"]).is_file()
    assert manifest.description.patient_of(case.id) == "p0001"
    assert [case.id for case in Manifest.read(out / "manifest_MR.json").cases] == ["p0001_s02"]


def test_a_description_is_taken_for_its_modality(tmp_path: Path) -> None:
    write_study(tmp_path / "tree")
    liver = load_description("msd_task03_liver")
    import_tree(tmp_path / "tree", tmp_path / "out", description=liver)
    assert Manifest.read(tmp_path / "out" / "manifest_CT.json").description == liver
    assert Manifest.read(tmp_path / "out" / "manifest_MR.json").description.name == "imported_MR"
    shutil.rmtree(tmp_path / "tree" / "x")
    shutil.rmtree(tmp_path / "tree" / "y")
    other = import_tree(tmp_path / "tree", tmp_path / "other", description=liver)
    assert other.manifests == {}
    brats = load_description("brats_2018_2021")
    with pytest.raises(InputError, match="4 channels"):
        import_tree(tmp_path / "tree", tmp_path / "out", description=brats)


def test_one_modality_has_one_manifest_and_an_old_one_goes(tmp_path: Path) -> None:
    write_study(tmp_path / "tree")
    out = tmp_path / "out"
    import_tree(tmp_path / "tree", out)
    shutil.rmtree(tmp_path / "tree" / "y")
    (out / "images" / "p0001_s02.nii.gz").unlink()
    import_tree(tmp_path / "tree", out)
    assert sorted(path.name for path in out.glob("manifest*")) == ["manifest.json"]


def test_nothing_but_the_private_map_knows_the_patient(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_study(tree)
    write_series(tree / "private", 8, lambda one, index: mark_private(one), series="5", patient_id="=CMD-1")
    broken = make_slice(0, series="6")
    broken.PatientName = "Sonnenschein^Lara\\x"
    path = write_slices([broken], tree / "sonnenschein")[0]
    path.write_bytes(path.read_bytes()[:700])
    (tree / "sonnenschein" / "lara").write_bytes(bytes(128) + b"DICM" + b"\xff" * 99)
    result = CliRunner().invoke(app, ["import-dicom", str(tree), str(out)])
    assert result.exit_code == 1
    printed = result.output + "".join(capfd.readouterr())
    secrets = ("sonnenschein", "lara", PATIENT_ID, "ZZ-9", "CMD-1", STUDY_DATE, "19501231", "ACC9988", ROOT)
    for secret in secrets:
        assert secret.lower() not in printed.lower().replace(str(tmp_path).lower(), ""), secret
    for path in out.rglob("*"):
        if path.is_dir() or path.name == "originals.csv":
            continue
        content = path.read_bytes()
        if path.suffix == ".gz":
            content += gzip.decompress(content)
        for secret in secrets:
            assert secret.lower().encode() not in content.lower(), (path.name, secret)
    text = (out / "originals.csv").read_text()
    for secret in (PATIENT_ID, "ZZ-9", STUDY_DATE, f"{ROOT}.1", "Sonnenschein^Lara"):
        assert secret in text
    assert "'=CMD" not in text  # it stands behind "id ", which no spreadsheet runs
    header = nib.load(out / "images" / "p0002_s01.nii.gz").header
    assert (bytes(header["descrip"]).strip(b"\0"), bytes(header["aux_file"]).strip(b"\0")) == (b"", b"")
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"


def mark_private(one: Dataset) -> None:
    block = one.private_block(0x0029, "SONNENSCHEIN CLINIC", create=True)
    block.add_new(0x10, "LO", "Lara Sonnenschein, 13 June 1987")


def test_the_map_was_never_readable_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    replace = Path.replace

    def record(self: Path, target: Any) -> Path:
        if Path(target).name == "originals.csv":
            modes.append(stat.S_IMODE(self.stat().st_mode))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", record)
    write_study(tmp_path / "tree")
    old = os.umask(0)
    try:
        import_tree(tmp_path / "tree", tmp_path / "out")
    finally:
        os.umask(old)
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "out" / "originals.csv").stat().st_mode) == 0o600
    assert not list((tmp_path / "out").glob(".originals*"))


def test_names_stay_when_studies_are_added(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_study(tree)
    import_tree(tree, out)
    before = {entry.case: entry.series_key for entry in Pseudonyms.read(out).entries}
    write_series(tree / "new", 5, series="0", patient_id="AAA-1")  # sorts before all others
    write_series(tree / "newer", 5, series="11")  # of the first patient
    imported = import_tree(tree, out)
    after = {entry.case: entry.series_key for entry in Pseudonyms.read(out).entries}
    assert before.items() <= after.items()
    assert after["p0003_s01"] == f"uid {ROOT}.0"
    assert after["p0001_s03"] == f"uid {ROOT}.11"
    assert [row.case for row in imported.rows] == [
        "p0001_s01",
        "p0001_s02",
        "p0001_s03",
        "p0002_s01",
        "p0003_s01",
    ]


def test_another_tree_joins_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_series(tmp_path / "monday", 5, lambda one, index: setattr(one, "SliceThickness", 9), series="1")
    write_series(tmp_path / "friday", 6, series="2")
    import_tree(tmp_path / "monday", out)
    imported = import_tree(tmp_path / "friday", out)
    assert codes_by_case(imported) == {"p0001_s01": ("D011",), "p0001_s02": ()}
    assert [fault.case for fault in imported.faults] == ["p0001_s01"]
    assert [case.id for case in Manifest.read(out / "manifest.json").cases] == ["p0001_s01", "p0001_s02"]


def test_what_has_not_changed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_study(tree)
    first = import_tree(tree, out)
    saved = {name: (out / name).read_bytes() for name in ("series.json", "checks.json", "originals.csv")}
    converted = record_conversions(monkeypatch)
    assert import_tree(tree, out) == first
    assert converted == []
    assert {name: (out / name).read_bytes() for name in saved} == saved
    repaired = import_tree(tree, out, repair=True)
    assert sorted(converted) == ["p0001_s01", "p0001_s02", "p0002_s01"]  # made otherwise now
    assert [row.status for row in repaired.rows] == ["imported"] * 3


def record_conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the cases whose pixels are read from now on."""
    converted: list[str] = []
    convert = importer.convert

    def record(job: importer.Job) -> importer.Outcome:
        if not job.part.is_refused:
            converted.append(job.case)
        return convert(job)

    monkeypatch.setattr(importer, "convert", record)
    return converted


def test_a_changed_series_is_made_anew_and_a_spoilt_one_leaves_no_image(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    paths = write_series(tree, 8)
    import_tree(tree, out)
    paths[-1].unlink()
    assert import_tree(tree, out).rows[0].shape == (12, 10, 7)
    paths[3].unlink()
    (row,) = import_tree(tree, out).rows
    assert (row.status, row.faults) == ("refused", ("D002",))
    assert list((out / "images").iterdir()) == []
    assert not list(out.glob("manifest*"))


def test_a_series_that_becomes_one_volume_again_leaves_no_second(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    slices = make_series(6) + make_series(6)
    for place, one in enumerate(slices):
        one.SOPInstanceUID, one.EchoTime = f"1.2.3.{place}", 95 if place >= 6 else 12
    paths = write_slices(slices, tree)
    assert [row.case for row in import_tree(tree, out).rows] == ["p0001_s01", "p0001_s02"]
    for path in paths[6:]:
        path.unlink()
    assert [row.case for row in import_tree(tree, out).rows] == ["p0001_s01"]
    assert [path.name for path in (out / "images").iterdir()] == ["p0001_s01.nii.gz"]


def test_an_import_that_is_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_study(tree)
    write = importer.write_volume
    calls: list[Path] = []

    def stop_at_the_second(path: Path, *rest: Any) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.with_name(f".{path.stem}.half.nii.gz").write_bytes(b"half")
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(importer, "write_volume", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        import_tree(tree, out, workers=1)
    monkeypatch.setattr(importer, "write_volume", write)
    assert not (out / "series.json").exists()
    with (out / "series.partial.jsonl").open("a") as stream:
        stream.write('{"case": "p0001_s02", "pat')  # a line that a kill has cut off
    converted = record_conversions(monkeypatch)
    imported = import_tree(tree, out)
    assert converted == ["p0001_s02"]
    assert [row.status for row in imported.rows] == ["imported", "imported", "refused"]
    assert sorted(path.name for path in (out / "images").iterdir()) == [
        "p0001_s01.nii.gz",
        "p0001_s02.nii.gz",
    ]
    assert not (out / "series.partial.jsonl").exists()
    fresh = import_tree(tree, tmp_path / "fresh")
    assert imported == fresh


def test_processes_make_what_one_makes(tmp_path: Path) -> None:
    write_study(tmp_path / "tree")
    alone = import_tree(tmp_path / "tree", tmp_path / "alone", workers=1)
    shared = import_tree(tmp_path / "tree", tmp_path / "shared", workers=2)
    assert alone == shared
    for path in (tmp_path / "alone" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "shared" / "images" / path.name).read_bytes()


def test_a_bad_series_never_stops_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_study(tree)
    cut = write_series(tree / "cut", 5, series="4")
    cut[1].write_bytes(cut[1].read_bytes()[:-30])
    write_series(tree / "nan", 5, spoil_floats, series="5")
    read = importer.read_slices

    def fail(slices: Any) -> Any:
        if slices[0].file.modality == "MR":
            raise RuntimeError("Sonnenschein")
        return read(slices)

    monkeypatch.setattr(importer, "read_slices", fail)
    imported = import_tree(tree, out, workers=1)
    faults = {fault.code: fault for fault in imported.faults}
    assert faults["D009"].measured.startswith("slice 2 (InstanceNumber 2): its pixels cannot be decoded")
    assert faults["N099"].measured == "RuntimeError"
    assert "N004" in faults
    assert [row.status for row in imported.rows].count("imported") == 1


def spoil_floats(one: Dataset, index: int) -> None:
    values = pixels_of(index).astype(np.float32)
    values[0, 0] = np.nan if index == 2 else 0
    del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation
    one.BitsAllocated = 32
    one.FloatPixelData = values.tobytes()


def test_a_file_that_cannot_be_read_has_a_pseudonym(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_series(tree, 5)
    (tree / "lost").write_bytes(b"\x08\x00\x05\x00CS\xff\xff" + b"\xff" * 40)
    write_slices([make_slice(9)], tree / "bad")
    path = next((tree / "bad").iterdir())
    one = pydicom.dcmread(path)
    with pydicom.config.disable_value_validation():
        one.PixelSpacing = ["nan", "nan"]
        one.save_as(path)
    imported = import_tree(tree, out)
    fault = next(fault for fault in imported.faults if fault.code == "D009")
    assert fault.case.startswith("f000")
    assert fault.measured.startswith("PixelSpacing")
    folders = {entry.case: entry.folder for entry in Pseudonyms.read(out).entries}
    assert folders[fault.case].startswith("bad/")


@pytest.mark.parametrize(
    ("slope", "intercept", "kind", "codes"),
    [(1, -1024, "HU", ()), (1, 0, "HU", ("D012",)), (1, -1024, "US", ("D012",)), (1, None, "", ("D012",))],
)
def test_a_ct_that_is_not_in_hu_is_warned_of(
    tmp_path: Path, slope: float, intercept: float | None, kind: str, codes: tuple[str, ...]
) -> None:
    def change(one: Dataset, index: int) -> None:
        one.RescaleSlope, one.RescaleType = slope, kind
        if intercept is None:
            del one.RescaleIntercept
        else:
            one.RescaleIntercept = intercept

    write_series(tmp_path / "tree", 5, change)
    for _ in range(2):  # and still when it is kept
        imported = import_tree(tmp_path / "tree", tmp_path / "out")
        assert imported.rows[0].status == "imported"
        assert imported.rows[0].faults == codes


def ramp(one: Dataset, origin: np.ndarray) -> None:
    """Give a slice the values 20 x + 30 y + 40 z of its pixels' LPS positions, relative to `origin`."""
    values = np.empty((one.Rows, one.Columns))
    for row, column in np.ndindex(values.shape):
        values[row, column] = (voxel_position(one, row, column) * (-1, -1, 1) - origin) @ (20, 30, 40)
    del one.PixelData, one.BitsStored, one.HighBit, one.PixelRepresentation
    one.BitsAllocated, one.Modality = 32, "MR"
    one.RescaleIntercept = 0
    one.FloatPixelData = values.astype(np.float32).tobytes()


def has_ramp(array: np.ndarray, affine: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Return which voxels hold the ramp's value at their own world position."""
    index = np.moveaxis(np.indices(array.shape), 0, -1)
    lps = (index @ affine[:3, :3].T + affine[:3, 3]) * (-1, -1, 1)
    return np.abs((lps - origin) @ (20, 30, 40) - array) < 0.02


def test_repair_interpolates_a_gap_exactly(tmp_path: Path) -> None:
    slices = make_series(9, orientation=OBLIQUE)
    origin = np.array(slices[0].ImagePositionPatient, dtype=float)
    for one in slices:
        ramp(one, origin)
    write_slices(slices[:3] + slices[5:], tmp_path / "tree")
    imported = import_tree(tmp_path / "tree", tmp_path / "out", repair=True)
    (row,) = imported.rows
    assert (row.status, row.repaired, row.shape, row.num_slices) == ("imported", "gaps", (12, 10, 9), 7)
    assert np.isclose(row.spacing_mm[2], 2.5, atol=1e-4)
    assert has_ramp(*load(tmp_path / "out", row.case), origin).all()
    assert [(fault.code, fault.severity) for fault in imported.faults] == [("D002", "warning")]
    assert "repaired" in imported.faults[0].measured


@pytest.mark.parametrize("gap", [False, True])
def test_repair_shears_a_tilt_away_exactly(tmp_path: Path, gap: bool) -> None:
    slices = make_series(9, orientation=OBLIQUE)
    for index, one in enumerate(slices):
        directions = np.array(one.ImageOrientationPatient, dtype=float)
        drift = 0.7 * index * directions[3:] - 0.15 * index * directions[:3]
        position = np.array(one.ImagePositionPatient, dtype=float) + drift
        one.ImagePositionPatient = [f"{mm:.8g}" for mm in position]
    origin = np.array(slices[0].ImagePositionPatient, dtype=float)
    for one in slices:
        ramp(one, origin)
    if gap:
        del slices[4]
    write_slices(slices, tmp_path / "tree")
    (row,) = import_tree(tmp_path / "tree", tmp_path / "out", repair=True).rows
    assert row.repaired == ("gaps and tilt" if gap else "tilt")
    array, affine = load(tmp_path / "out", row.case)
    assert array.shape == (12 + 3, 10 + 7, 9)  # nothing is cut off
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    assert np.allclose(directions.T @ directions, np.eye(3), atol=1e-5)
    exact = has_ramp(array, affine, origin)
    assert exact.sum(axis=(0, 1)).min() >= 11 * 9  # all voxels between others
    assert (exact | (array == array.min())).all()  # beyond the scan there is its smallest value


def test_without_repair_nothing_is_resampled(tmp_path: Path) -> None:
    slices = make_series(9)
    write_slices(slices[:3] + slices[4:], tmp_path / "tree")
    (row,) = import_tree(tmp_path / "tree", tmp_path / "out").rows
    assert (row.status, row.repaired) == ("refused", "")


def test_the_command_says_what_it_did_and_ends_with_its_exit_code(tmp_path: Path) -> None:
    write_series(tmp_path / "tree", 5)
    (tmp_path / "tree" / "notes.txt").write_text("a note")
    call = ["import-dicom", str(tmp_path / "tree"), str(tmp_path / "out")]
    slices = make_series(8, series="2")
    result = CliRunner().invoke(app, call)
    assert result.exit_code == 0
    assert "1 imported, 0 refused, 0 left out; 1 file is not a DICOM image" in " ".join(result.output.split())
    write_slices(slices[:4] + slices[5:], tmp_path / "tree" / "gap")
    assert CliRunner().invoke(app, call).exit_code == 1
    assert CliRunner().invoke(app, [*call, "--repair"]).exit_code == 0


@pytest.mark.parametrize("where", ["no", "empty", "same"])
def test_a_tree_that_cannot_be_used(tmp_path: Path, where: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes").write_text("none")
    tree = {"no": tmp_path / "no", "empty": tmp_path / "empty", "same": tmp_path}[where]
    match = {"no": "no such folder", "empty": "no DICOM image among its 1 files", "same": "own output"}[where]
    with pytest.raises(InputError, match=match):
        import_tree(tree, tmp_path if where == "same" else tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_map_no_image_passes_for_another_patients(tmp_path: Path) -> None:
    write_series(tmp_path / "one", 8)
    write_series(tmp_path / "other", 8, series="2", patient_id="ZZ-9")
    out = tmp_path / "out"
    import_tree(tmp_path / "one", out)
    (out / "originals.csv").unlink()
    before = (out / "images" / "p0001_s01.nii.gz").read_bytes()
    with pytest.raises(InputError, match=r"manifest\.json.*images, but no originals\.csv"):
        import_tree(tmp_path / "other", out)
    assert (out / "images" / "p0001_s01.nii.gz").read_bytes() == before
    (out / "originals.csv").write_text("")
    with pytest.raises(InputError, match="not a valid list of originals"):
        import_tree(tmp_path / "other", out)


def test_the_files_of_something_else_are_not_overwritten(tmp_path: Path) -> None:
    write_series(tmp_path / "tree", 5)
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text("mine")
    with pytest.raises(InputError, match=r"it contains manifest\.json"):
        import_tree(tmp_path / "tree", out)
    assert (out / "manifest.json").read_text() == "mine"
    with pytest.raises(InputError, match="it is not a folder"):
        import_tree(tmp_path / "tree", out / "manifest.json")
    (out / "manifest.json").rename(out / "notes.txt")
    assert import_tree(tmp_path / "tree", out).rows[0].status == "imported"


def test_names_that_are_no_plain_text_are_kept(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/tree/M\xfcller\rLara"))
    try:
        folder.mkdir(parents=True)
    except OSError:
        pytest.skip("this file system has no such names")
    write_series(folder, 5, lambda one, index: setattr(one, "PatientID", ""))
    tree, out = tmp_path / "tree", tmp_path / "out"
    first = import_tree(tree, out)
    assert [row.status for row in first.rows] == ["imported"]
    assert import_tree(tree, out).rows == first.rows
    (entry,) = Pseudonyms.read(out).entries
    assert entry.folder == folder.name


def test_a_file_changed_without_another_size_is_read_again(tmp_path: Path) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    paths = write_series(tree, 5)
    import_tree(tree, out)
    for path in paths:
        one = pydicom.dcmread(path)
        one.RescaleIntercept = -1000  # as long as -1024
        before = path.stat()
        one.save_as(path)
        assert path.stat().st_size == before.st_size
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
    import_tree(tree, out)
    assert load(out, "p0001_s01")[0].min() == -1000


def test_a_spoilt_map_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "tree", 5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "originals.csv").write_text("case,patient\np0001_s01,p0001\n")
    with pytest.raises(InputError, match="not a valid list of originals"):
        import_tree(tmp_path / "tree", tmp_path / "out")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("folder", "shape", "spacing_mm", "kind"),
    [
        ("mr_dicom_series/12-T1post-05670", (512, 512, 22), (0.4297, 0.4297, 6.5), "int16"),
        ("mr_dicom_series/32500-dT1-49467", (512, 512, 24), (0.4297, 0.4297, 6.5), "float32"),
        ("mr_dicom_series/13_HCropVolume", (35, 51, 32), (1, 1, 1), "int16"),
        ("ct_dicom_series/series", (512, 512, 20), (0.9765625, 0.9765625, 2), "int16"),
    ],
)
def test_real_series_are_as_simpleitk_and_their_tags_have_them(
    shared_data: Path,
    tmp_path: Path,
    folder: str,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
    kind: str,
) -> None:
    source = shared_data / folder
    (row,) = import_tree(source, tmp_path).rows
    assert (row.shape, row.voxel_type) == (shape, kind)
    assert np.allclose(row.spacing_mm, spacing_mm, atol=1e-4)
    array, affine = load(tmp_path, row.case)
    reader = sitk.ImageSeriesReader()
    files = reader.GetGDCMSeriesFileNames(str(source)) or [str(path) for path in sorted(source.iterdir())]
    reader.SetFileNames(files)
    expected = sitk.GetArrayFromImage(reader.Execute()).transpose(2, 1, 0)
    assert np.allclose(array, expected, rtol=1e-6)  # 1e-6 is what float32 keeps of the slope 1.3526
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in source.iterdir()]
    normal = normal_of(tuple(slices[0].ImageOrientationPatient))
    slices.sort(key=lambda one: float(np.dot(one.ImagePositionPatient, normal)))
    for place, one in enumerate(slices):
        for pixel in ((0, 0), (shape[1] - 1, shape[0] - 1), (11, 29)):
            world = affine @ (pixel[1], pixel[0], place, 1)
            assert np.allclose(world[:3], voxel_position(one, *pixel), atol=1e-3)


@pytest.mark.real_data
@pytest.mark.parametrize("fault", ["missing", "twice", "mixed", "sheared"])
def test_real_series_are_refused_with_the_slice_named(shared_data: Path, tmp_path: Path, fault: str) -> None:
    source = shared_data / "mr_dicom_series" / "12-T1post-05670"
    tree = tmp_path / "tree"
    shutil.copytree(source, tree)
    if fault == "missing":
        (tree / "000010.dcm").unlink()
        number, code = pydicom.dcmread(source / "000010.dcm").InstanceNumber, "D002"
    elif fault == "twice":
        shutil.copy(tree / "000010.dcm", tree / "again")
        number, code = pydicom.dcmread(source / "000010.dcm").InstanceNumber, "D003"
    elif fault == "mixed":
        other = pydicom.dcmread(source.parent / "32500-dT1-49467" / "000004.dcm")
        other.SeriesInstanceUID = pydicom.dcmread(tree / "000010.dcm").SeriesInstanceUID
        other.save_as(tree / "other")
        number, code = other.InstanceNumber, "D004"
    else:
        for path in tree.iterdir():
            one = pydicom.dcmread(path)
            x, y, z = (float(mm) for mm in one.ImagePositionPatient)
            one.ImagePositionPatient = [x, y + 0.2 * z, z]
            one.save_as(path)
        number, code = None, "D005"
    imported = import_tree(tree, tmp_path / "out")
    (row,) = imported.rows
    assert row.status == "refused"
    (found,) = [entry for entry in imported.faults if entry.severity == "error" and entry.code == code]
    assert "slice " in found.measured
    if fault == "missing":  # its neighbours are named
        around = {int(number) - 1, int(number) + 1}
        assert all(f"(InstanceNumber {one})" in found.measured for one in around)
    elif number is not None:
        assert f"(InstanceNumber {number})" in found.measured
    assert json.loads((tmp_path / "out" / "checks.json").read_text())["faults"]

"""The import: geometry and values as DICOM has them, every series a volume or a reason, one bad one no harm."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from tiny_dicom import (
    OBLIQUE,
    load_volume,
    make_series,
    make_slice,
    pixels_of,
    voxel_position,
    write_series,
    write_slices,
    write_study,
)
from typer.testing import CliRunner

from medunet.base.errors import InputError
from medunet.cli.app import app
from medunet.dataset.dicom import conversion
from medunet.dataset.dicom.importer import import_tree
from medunet.dataset.dicom.tables import read_rows
from medunet.records.description import load_description
from medunet.records.manifest import Manifest


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
    assert imported.rows[2].faults == ("D002",)
    assert sorted(path.name for path in (out / "images").iterdir()) == [
        "p0001_s01.nii.gz",
        "p0001_s02.nii.gz",
    ]
    array, affine = load_volume(out, "p0001_s01")
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
    read = conversion.read_slices

    def fail(slices: Any) -> Any:
        if slices[0].file.modality == "MR":
            raise RuntimeError("Sonnenschein")
        return read(slices)

    monkeypatch.setattr(conversion, "read_slices", fail)
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

"""Pseudonyms of an import: nothing of the patient but in the private map, and no name ever given twice."""

import gzip
import os
import stat
from pathlib import Path
from typing import Any

import nibabel as nib
import pydicom
import pytest
from pydicom.dataset import Dataset
from tiny_dicom import PATIENT_ID, ROOT, STUDY_DATE, make_slice, write_series, write_slices, write_study
from typer.testing import CliRunner

from medunet.base.errors import InputError
from medunet.cli.app import app
from medunet.dataset.dicom.importer import import_tree
from medunet.dataset.dicom.pseudonyms import Original, Pseudonyms


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


def test_a_spoilt_map_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "tree", 5)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "originals.csv").write_text("case,patient\np0001_s01,p0001\n")
    with pytest.raises(InputError, match="not a valid list of originals"):
        import_tree(tmp_path / "tree", tmp_path / "out")


def test_naming_takes_no_longer_the_more_are_named() -> None:
    class Counted(dict[tuple[str, int], Original]):
        def values(self) -> Any:
            raise AssertionError("a name must not look at all others")

    names = Pseudonyms()
    names._originals = Counted()
    for number in range(5000):
        entry = names.name_volume(f"id {number // 50}", f"uid {number}", 1)
        assert entry.case == f"p{number // 50 + 1:04}_s{number % 50 + 1:02}"
        assert names.name_file(f"file {number}").case == f"f{number + 1:04}"
        assert names.removed_volumes(f"uid {number}", 1) == []


def test_patients_keep_their_names_whatever_the_form_of_their_letters(tmp_path: Path) -> None:
    names = Pseudonyms()
    names.name_volume("id Mu\u0308ller", "uid 1", 1)
    names.write(tmp_path)
    again = Pseudonyms.read(tmp_path)
    assert again.name_volume("id M\u00fcller", "uid 1", 1).case == "p0001_s01"
    assert again.name_volume("id M\u00fcller", "uid 2", 1).case == "p0001_s02"
    assert again.name_volume("id m\u00fcller", "uid 3", 1).case == "p0002_s01"
    assert again.alike_patients() == [["p0001", "p0002"]]

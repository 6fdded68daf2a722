"""Files of a tree gathered into series: told by their content, whatever their names and folders."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from tiny_dicom import make_series, write_series, write_slices
from tiny_series import codes_of, parts_of

from medunet.dataset.dicom.series import UnreadableFile, read_tree


def test_a_tree_of_mixed_studies(tmp_path: Path) -> None:
    mixed = [*make_series(5, series="1"), *make_series(4, series="2", modality="MR")]
    write_slices(mixed, tmp_path / "all")
    write_series(tmp_path / "deep" / "er", 6, series="3", patient_id="X-2")
    (tmp_path / "README.txt").write_text("a colleague's notes")
    (tmp_path / "broken").write_bytes(bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00" + b"\xff" * 40)
    tree = read_tree(tmp_path)
    assert [len(series.files) for series in tree.series] == [5, 4, 6]
    assert [series.patient_key for series in tree.series] == ["id MRN-4711-0815"] * 2 + ["id X-2"]
    assert tree.num_others + len(tree.unreadable) == 2


def test_the_output_folder_and_links_to_folders_are_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "scans", 4)
    write_series(tmp_path / "out", 4, series="2")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(read_tree(tmp_path, leave_out=tmp_path / "out").series) == 1


def test_a_folder_that_may_not_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "open")
    write_series(tmp_path / "locked")
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root may open whatever its mode forbids
    tree = read_tree(tmp_path)
    assert len(tree.series) == 1
    assert tree.unreadable == (UnreadableFile(tmp_path / "locked", "Permission denied"),)
    assert tree.num_others == 0


def test_series_whose_identity_was_emptied_are_told_by_folder(tmp_path: Path) -> None:
    def empty(one: Dataset, index: int) -> None:
        one.SeriesInstanceUID = one.StudyInstanceUID = one.PatientID = ""

    write_series(tmp_path / "a", 4, empty)
    write_series(tmp_path / "b", 4, empty)
    parts = parts_of(tmp_path)
    assert [codes_of(part) for part in parts] == [["D017"], ["D017"]]
    assert [part.series.patient_key for part in parts] == ["folder a", "folder b"]


def test_files_that_are_dicom_by_name_alone_are_named(tmp_path: Path) -> None:
    """Slices that were not copied whole would be missed in silence where they are the last ones."""
    paths = write_series(tmp_path, 8)
    whole = paths[0].read_bytes()
    contents = {
        "a.dcm": b"",
        "b.IMA": bytes(200),
        "c": whole[:132],
        "d": whole[:400],
        "._e.dcm": b"\0\5\x16\7",
        "f": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    tree = read_tree(tmp_path)
    assert {file.path.name: file.why for file in tree.unreadable} == {
        "a.dcm": "it is empty",
        "b.IMA": "it is not DICOM in spite of its name",
        "c": "the header is cut off",
        "d": "the header is cut off, or has no Rows and Columns",
    }
    assert tree.num_others == 2

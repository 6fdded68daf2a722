"""Folders that are not taken: ambiguous, unknown, DICOM, of several datasets, or with labels that cannot be used."""

from pathlib import Path

import pytest
from tiny_layouts import ask, put, write_json

from medunet.base.errors import InputError


def test_two_layouts_in_one_folder_are_refused_with_their_names(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii", "volume-1.nii", "segmentation-1.nii")
    with pytest.raises(
        InputError, match=r"2 ways: Liver and liver tumours, LiTS.*pairs of volumes.*`files` say"
    ):
        ask(tmp_path)


def test_one_name_for_cases_of_two_folders_is_no_pair(tmp_path: Path) -> None:
    put(tmp_path, *(f"{folder}/{kind}/1.nii" for folder in ("train", "test") for kind in ("images", "masks")))
    with pytest.raises(InputError, match=r"folders in it are: test \(pairs of volumes\), train \(pairs"):
        ask(tmp_path)


def test_a_dicom_tree_is_to_be_imported_first(tmp_path: Path) -> None:
    (tmp_path / "study/series").mkdir(parents=True)
    (tmp_path / "study/series/IM1").write_bytes(bytes(128) + b"DICM")
    with pytest.raises(InputError, match=r"DICOM files in 1 folder\(s\).*medunet import-dicom TREE OUT"):
        ask(tmp_path)


def test_folders_of_datasets_are_named(tmp_path: Path) -> None:
    put(tmp_path, "Task1/images/a.nii", "Task1/labels/a.nii", "other/scan.nii")
    (tmp_path / "broken").mkdir()
    write_json(tmp_path / "broken/dataset.json", {"channel_names": {}, "labels": {}})
    (tmp_path / "Task1").rename(tmp_path / "Task1x")
    put(tmp_path, "Task2/images/a.nii", "Task2/labels/a.nii")
    with pytest.raises(
        InputError, match=r"Task1x \(pairs of volumes\), Task2 \(pairs of volumes\)"
    ) as caught:
        ask(tmp_path)
    assert "broken (which cannot be used: dataset.json: labels: write" in str(caught.value)


def test_nothing_recognised_says_what_there_is(tmp_path: Path) -> None:
    put(tmp_path, "ref.nii.gz", "pred.nii.gz")
    (tmp_path / "nowhere.bin").symlink_to(tmp_path / "gone")
    with pytest.raises(
        InputError, match=r"2 volumes among 3 files, such as pred\.nii\.gz.*list their paths in a CSV"
    ):
        ask(tmp_path)


def test_labels_in_a_format_that_is_not_read_are_counted_by_type(tmp_path: Path) -> None:
    for folder, ending in (("images", "png"), ("labels", "gif")):
        (tmp_path / folder).mkdir()
        for name in "ab":
            (tmp_path / folder / f"{name}.{ending}").write_bytes(b"picture")
    with pytest.raises(InputError, match=r"0 volumes among 4 files \(2 \.png, 2 \.gif\).*PNG, TIFF"):
        ask(tmp_path)


def test_remarks_that_name_files_are_told_from_a_channel(tmp_path: Path) -> None:
    put(tmp_path, "a.nii.gz", "b.nii.gz", "a_seg.nii.gz", "b_seg.nii.gz")
    rows = [f"{name},{name}.nii.gz,{name}_seg.nii.gz,as old {name}.nii.gz" for name in "ab"]
    (tmp_path / "cases.csv").write_text("\n".join(["case,CT,label,remark", *rows]))
    with pytest.raises(
        InputError, match=r"cases\.csv: none of the 2 files of channel remark exists.*remarks"
    ):
        ask(tmp_path)


def test_label_values_that_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label values up to 700.*`instances: true`"):
        ask(put(tmp_path / "many", "images/a.nii", "labels/a.nii", values=(1, 700)))
    with pytest.raises(InputError, match=r"`stored_values: \{label_1: 1, label_700: 700\}`"):
        ask(tmp_path / "many")
    with pytest.raises(InputError, match="no label value above 0 in 1 label files"):
        ask(put(tmp_path / "empty", "images/a.nii", "labels/a.nii", values=()))


def test_links_out_of_the_folder_are_not_read(tmp_path: Path) -> None:
    put(tmp_path, "secret/label.nii", "data/images/a.nii", "data/labels/b.nii")
    (tmp_path / "data/labels/a.nii").symlink_to(tmp_path / "secret/label.nii")
    with pytest.raises(InputError, match=r"case a: the path labels/a\.nii is outside the data root"):
        ask(tmp_path / "data")


def test_two_folders_of_label_maps_are_ambiguous(tmp_path: Path) -> None:
    put(tmp_path, *(f"{folder}/{name}.nii" for folder in ("images", "labels", "masks") for name in "ab"))
    with pytest.raises(InputError, match=r"2 ways: .*images/ with labels/.*images/ with masks/"):
        ask(tmp_path)


def test_labels_that_cannot_be_read_at_all(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii")
    (tmp_path / "labels/a.nii").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"none of 1 label files can be read: a\.nii.*Correct the files"):
        ask(tmp_path)

"""Segments are joined with labels by the names in their file, whatever numbers they have there."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from medunet.base.errors import DataError
from medunet.imaging.segment_names import UndeclaredError, describe_joining
from medunet.imaging.volumes import read_header, read_label
from medunet.records.label_rules import LabelRules

LABELS = {"background": 0, "liver": 1, "liver_tumour": 2, "spleen": 3}


def draw(*values: int) -> np.ndarray:
    """Return a map `(5, 7, 4)` with a block of 6 voxels of each value along the first axis."""
    array = np.zeros((5, 7, 4), np.uint8)
    for place, value in enumerate(values):
        array[place, 1:4, 1:3] = value
    return array


def save(path: Path, *layers: np.ndarray, axis: bool = False, **notes: Any) -> Path:
    """Write a segmentation of one or more layers, these as values per voxel or as a fourth axis."""
    if len(layers) == 1:
        image = sitk.GetImageFromArray(np.ascontiguousarray(layers[0].T))
    elif axis:
        image = sitk.GetImageFromArray(np.stack([layer.T for layer in layers]), isVector=False)
    else:
        image = sitk.GetImageFromArray(np.stack([layer.T for layer in layers], axis=-1), isVector=True)
    for key, value in notes.items():
        image.SetMetaData(key, str(value))
    sitk.WriteImage(image, str(path))
    return path


def notes_of(*segments: tuple[str, int] | tuple[str, int, int]) -> dict[str, Any]:
    """Return the header entries of segments: name, label value, layer."""
    notes: dict[str, Any] = {}
    for number, (name, value, *layer) in enumerate(segments):
        notes |= {f"Segment{number}_Name": name, f"Segment{number}_LabelValue": value}
        notes |= {f"Segment{number}_Layer": layer[0]} if layer else {}
    return notes


def remark(path: Path, **options: Any) -> str:
    return describe_joining(read_label(path, LabelRules(LABELS, **options)).header.segments, LABELS)


@pytest.mark.parametrize("ending", [".seg.nrrd", ".nrrd", ".mha"])
def test_permuted_numbers_are_joined_by_name(tmp_path: Path, ending: str) -> None:
    notes = notes_of(("spleen", 1), ("liver", 2), ("liver_tumour", 3))
    path = save(tmp_path / f"a{ending}", draw(2, 3, 1), **notes)
    assert np.array_equal(read_label(path, LabelRules(LABELS)).array, draw(1, 2, 3))
    assert np.array_equal(read_label(path).array, draw(2, 3, 1))  # without a description, its own numbers
    assert remark(path).startswith("spleen is 1 in the file and 3 in the description, liver is 2")
    same = save(tmp_path / f"b{ending}", draw(1, 2), **notes_of(("liver", 1), ("liver_tumour", 2)))
    assert remark(same) == ""


@pytest.mark.parametrize("name", ["Liver Tumour", "LIVER-TUMOUR", "livertumour", "liver__tumour "])
def test_names_may_differ_in_writing(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "a.seg.nrrd", draw(5, 9), **notes_of((name, 5), ("Liver", 9)))
    assert np.array_equal(read_label(path, LabelRules(LABELS)).array, draw(2, 1))
    other = {"background": 0, "liver-tumour": 1, "liver tumour": 2}  # which of these is meant is unclear
    with pytest.raises(UndeclaredError, match=r"segments named 'Livertumour' \(6 voxels\) are not declared"):
        read_label(save(tmp_path / "b.nrrd", draw(5), **notes_of(("Livertumour", 5))), LabelRules(other))


@pytest.mark.parametrize("axis", [False, True], ids=["vector", "4D"])
def test_layers_share_numbers_as_slicer_writes_them(tmp_path: Path, axis: bool) -> None:
    layers = draw(1, 1), draw(0, 0, 1, 2)
    notes = notes_of(("spleen", 1, 0), ("liver_tumour", 1, 1), ("liver", 2, 1))
    path = save(tmp_path / "a.seg.nrrd", *layers, axis=axis, **notes)
    assert np.array_equal(read_label(path, LabelRules(LABELS)).array, draw(3, 3, 2, 1))
    assert read_header(path).shape == (5, 7, 4)
    with pytest.raises(DataError, match=r"several segments with the label values \[1\]"):
        read_label(path)
    both = save(tmp_path / "b.seg.nrrd", draw(1, 1), draw(0, 1, 1, 2), axis=axis, **notes)
    with pytest.raises(DataError, match="has segments that overlap: spleen and liver_tumour"):
        read_label(both, LabelRules(LABELS))
    old = {"Segment0_Name": "liver", "Segment1_Name": "spleen"}  # Slicer 4.8: no values, a layer for each
    path = save(tmp_path / "c.seg.nrrd", draw(1), draw(0, 1), axis=axis, **old)
    assert np.array_equal(read_label(path, LabelRules(LABELS)).array, draw(1, 3))


def test_an_overlap_with_what_is_left_out_is_none(tmp_path: Path) -> None:
    notes = notes_of(("liver", 1, 0), ("couinaud", 1, 1))
    path = save(tmp_path / "a.seg.nrrd", draw(1, 1), draw(1), **notes)
    assert np.array_equal(read_label(path, LabelRules(LABELS, others="left out")).array, draw(1, 1))
    assert remark(path, others="left out") == "not declared, left out: couinaud"
    with pytest.raises(UndeclaredError, match=r"'couinaud' \(6 voxels\)"):
        read_label(path, LabelRules(LABELS))


def test_two_names_of_one_number_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.seg.nrrd", draw(1), **notes_of(("liver", 1), ("spleen", 1)))
    with pytest.raises(DataError, match=r"several segments with the label values \[1\]"):
        read_label(path, LabelRules(LABELS))
    large = save(tmp_path / "b.seg.nrrd", draw(1), **notes_of(("liver", 1), ("spleen", 4_000_000_000)))
    assert np.array_equal(read_label(large, LabelRules(LABELS)).array, draw(1))


def test_two_segments_of_one_name_are_one_label(tmp_path: Path) -> None:
    path = save(tmp_path / "a.seg.nrrd", draw(4, 7), **notes_of(("liver", 4), ("Liver", 7)))
    assert np.array_equal(read_label(path, LabelRules(LABELS)).array, draw(1, 1))


def test_names_that_are_not_declared(tmp_path: Path) -> None:
    notes = notes_of(("liver", 1), ("kidney", 2), ("stomach", 3))
    path = save(tmp_path / "a.seg.nrrd", draw(1, 2), **notes)
    with pytest.raises(UndeclaredError, match=r"named 'kidney' \(6 voxels\) are not.*Name its segments"):
        read_label(path, LabelRules(LABELS))
    with pytest.raises(UndeclaredError):  # the spleen may be any of them
        read_label(path, LabelRules(LABELS, others="surplus"))
    few = {"background": 0, "liver": 2}
    for others in ("surplus", "left out"):
        assert np.array_equal(read_label(path, LabelRules(few, others=others)).array, draw(2))  # type: ignore[arg-type]
    with pytest.raises(UndeclaredError):  # nothing declared is in the file
        read_label(path, LabelRules({"background": 0, "Leber": 1}, others="left out"))
    empty = save(tmp_path / "b.seg.nrrd", draw(1), **notes)  # a declared name without voxels is no fault
    assert np.array_equal(read_label(empty, LabelRules(LABELS)).array, draw(1))


def test_segments_without_a_name_of_their_own_keep_their_number(tmp_path: Path) -> None:
    path = save(tmp_path / "a.seg.nrrd", draw(1, 2), **notes_of(("Segment_1", 1), ("Segment_2", 2)))
    assert np.array_equal(read_label(path, LabelRules(LABELS)).array, draw(1, 2))
    assert remark(path) == ""
    half = save(tmp_path / "b.seg.nrrd", draw(1, 2), **notes_of(("spleen", 1), ("Segment_2", 2)))
    assert np.array_equal(read_label(half, LabelRules(LABELS)).array, draw(3, 2))
    assert "by its number alone, Segment_2 is read as liver_tumour" in remark(half)
    taken = save(tmp_path / "c.seg.nrrd", draw(1, 2), **notes_of(("Segment_1", 1), ("liver", 2)))
    with pytest.raises(UndeclaredError, match=r"'Segment_1' \(6 voxels\)"):  # 1 is the liver's
        read_label(taken, LabelRules(LABELS))
    numbered = {"background": 0, "label_1": 1, "label_2": 2}  # a description that knows no names
    path = save(tmp_path / "d.seg.nrrd", draw(1, 2), **notes_of(("liver", 2), ("spleen", 1)))
    assert np.array_equal(read_label(path, LabelRules(numbered)).array, draw(1, 2))


def test_a_coded_meaning_is_a_name_where_there_is_no_other(tmp_path: Path) -> None:
    notes = notes_of(("Segment_1", 1), ("Segment_2", 2))
    tags = "Segmentation.Status:inprogress|TerminologyEntry:General~SCT^1^Organ~SCT^{}~^^~Anatomic~^^~^^|"
    coded = {"Segment0_Tags": tags.format("78961009^Spleen"), "Segment1_Tags": tags.format("10200004^Liver")}
    path = save(tmp_path / "a.seg.nrrd", draw(2, 0, 1), **notes, **coded)
    assert np.array_equal(read_label(path, LabelRules(LABELS)).array, draw(1, 0, 3))
    same = dict.fromkeys(coded, tags.format("85756007^Tissue"))
    path = save(tmp_path / "b.seg.nrrd", draw(1, 2), **notes, **same)
    assert np.array_equal(read_label(path, LabelRules(LABELS)).array, draw(1, 2))


def test_the_numbers_of_objects_are_no_names(tmp_path: Path) -> None:
    path = save(tmp_path / "a.seg.nrrd", draw(1, 2), **notes_of(("cell A", 1), ("cell B", 2)))
    read = read_label(path, LabelRules({"background": 0, "cell": 1}, 1))
    assert np.array_equal(read.array, draw(1, 1))

"""Copies, links, foreign images and segmentations: left out with a word, never refused whole nor dropped."""

import shutil
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless
from tiny_dicom import (
    make_multi_frame,
    make_series,
    make_slice,
    write_series,
    write_slices,
)
from tiny_series import codes_of, fault_of, only_part, parts_of
from typer.testing import CliRunner

from medunet.cli.app import app
from medunet.dataset.dicom.importer import import_tree
from medunet.dataset.dicom.series import read_tree

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def test_the_same_files_twice_are_read_once(tmp_path: Path) -> None:
    write_series(tmp_path / "a", 6)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (part,) = parts_of(tmp_path)
    assert codes_of(part) == ["D020"]
    assert part.faults[0].measured == "6 of 12 images, by SOPInstanceUID and values"
    assert part.stack is not None
    assert part.stack.shape == (12, 10, 6)


def test_copies_with_another_patient_id_are_warned_of(tmp_path: Path) -> None:
    write_series(tmp_path / "a", 6)
    write_series(tmp_path / "b", 6, patient_id="ANON-5")
    (part,) = parts_of(tmp_path)
    fault = fault_of(part, "D020")
    assert fault.severity == "warning"
    assert fault.measured.endswith("; 6 of them with another PatientID")
    assert not part.is_refused


def test_a_copy_may_be_compressed_otherwise(tmp_path: Path) -> None:
    write_series(tmp_path / "a", 6)
    packed = make_series(6)
    for one in packed:
        one.compress(RLELossless, generate_instance_uid=False)
    write_slices(packed[:2], tmp_path / "b")
    (part,) = parts_of(tmp_path)
    assert fault_of(part, "D020").measured.startswith("2 of 8 images")


def test_copies_under_new_uids_are_told_by_position_and_values(tmp_path: Path) -> None:
    again = make_series(6)
    for one in again:
        one.SOPInstanceUID = f"1.2.3.{one.InstanceNumber}"
    part = only_part([*make_series(6), *again], tmp_path)
    assert codes_of(part) == ["D020"]
    assert part.faults[0].measured == "6 of 12 images, by position and values"
    assert part.stack is not None
    assert len(part.stack.slices) == 6


@pytest.mark.parametrize("moved", [False, True])
def test_one_uid_with_two_contents_is_a_fault(tmp_path: Path, moved: bool) -> None:
    slices = make_series(6)
    other = make_slice(6 if moved else 3)
    other.SOPInstanceUID = slices[3].SOPInstanceUID
    other.PixelData = slices[5].PixelData
    part = only_part([*slices, other], tmp_path)
    fault = fault_of(part, "D021")
    assert fault.measured == "1 image with the SOPInstanceUID of another image, but other values"
    assert (fault.severity, part.is_refused) == (("warning", False) if moved else ("error", True))


def test_equal_echoes_are_no_copies(tmp_path: Path) -> None:
    slices = make_series(4, modality="MR") + make_series(4, modality="MR")
    for place, one in enumerate(slices):
        one.SOPInstanceUID, one.EchoTime = f"1.2.3.{place}", 12 if place < 4 else 95
    write_slices(slices, tmp_path)
    assert [codes_of(part) for part in parts_of(tmp_path)] == [["D014"], ["D014"]]


def test_an_annex_is_read_through_its_links(tmp_path: Path) -> None:
    objects = tmp_path / ".git" / "annex" / "objects"
    for number, path in enumerate(write_series(objects, 5)):
        (tmp_path / f"{number}.dcm").symlink_to(path.relative_to(tmp_path))
    lost = tmp_path / "5.dcm"
    lost.symlink_to(".git/annex/objects/nowhere")
    (tmp_path / "6.dcm").write_text("/annex/objects/MD5E-s526--4711.dcm\n")
    (tmp_path / "7.dcm").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4711\n")
    imported = import_tree(tmp_path, tmp_path / "out")
    (row,) = imported.rows
    assert (row.status, row.shape, row.faults) == ("imported", (12, 10, 5), ())
    found = [(fault.code, fault.measured) for fault in imported.faults]
    assert [code for code, _ in found] == ["D009"] * 3 + ["D024"]
    assert found[0][1].startswith("the link leads nowhere; get it with `git annex get`")
    assert found[1][1].startswith("its content is elsewhere")
    assert found[3][1] == "a hidden folder (named in originals.csv)"
    assert ".git" in (tmp_path / "out" / "originals.csv").read_text()


def test_links_to_folders_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write_series(tmp_path / "elsewhere" / "deep", 4)
    write_series(tree / "scans", 5, series="2")
    for name, target in {
        "away": tmp_path / "elsewhere",
        "again": tree / "scans",
        "up": tmp_path,
        "scans/round": tree,
        "../elsewhere/round": tmp_path / "elsewhere",
    }.items():
        (tree / name).symlink_to(target, target_is_directory=True)
    (tree / "file").symlink_to(next((tree / "scans").glob("sonnenschein*")))
    found = read_tree(tree)
    assert sorted(len(series.files) for series in found.series) == [4, 5]
    assert found.unreadable == ()
    assert found.num_again == 1
    assert sorted((folder.path.name, folder.why) for folder in found.left_out) == [
        ("again", "a link to a folder that is read anyway"),
        ("round", "a link to a folder around it"),
        ("round", "a link to a folder that is read anyway"),
        ("up", "a link to a folder around it"),
    ]
    result = CliRunner().invoke(app, ["import-dicom", str(tree), str(tmp_path / "out")])
    assert "1 further link to files read already" in " ".join(result.output.split())
    assert "D024" in result.output


def test_slices_with_a_series_each_are_joined(tmp_path: Path) -> None:
    def part_them(one: Dataset, index: int) -> None:
        one.SeriesInstanceUID, one.SeriesDescription = f"1.2.3.{index}", "T2 axial"

    write_series(tmp_path / "tree", 7, part_them)
    scouts = make_series(2, orientation=CORONAL, series="9")
    for index, one in enumerate(scouts):
        part_them(one, 100 + index)
    write_slices(scouts, tmp_path / "tree" / "scouts")
    for _ in range(2):
        imported = import_tree(tmp_path / "tree", tmp_path / "out")
        rows = {row.case: (row.status, row.num_slices, row.faults) for row in imported.rows}
        assert sorted(rows.values()) == [
            ("imported", 7, ("D022",)),
            ("left out", 1, ("D013",)),
            ("left out", 1, ("D013",)),
        ]


def test_slices_with_a_series_each_may_be_there_twice(tmp_path: Path) -> None:
    write_series(tmp_path / "a", 5, lambda one, index: setattr(one, "SeriesInstanceUID", f"1.2.3.{index}"))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    imported = import_tree(tmp_path, tmp_path / "out")
    assert [(row.status, row.shape, row.faults) for row in imported.rows] == [
        ("imported", (12, 10, 5), ("D022", "D020"))
    ]


def test_two_scans_with_a_series_for_each_slice_are_told_apart_by_number(tmp_path: Path) -> None:
    for number in ("3", "7"):
        slices = make_series(5, series=number)
        for one in slices:
            one.SeriesInstanceUID, one.SeriesNumber = one.SOPInstanceUID, number
            one.PixelData = one.PixelData[::-1]
        write_slices(slices, tmp_path / "tree" / number)
    imported = import_tree(tmp_path / "tree", tmp_path / "out")
    assert [(row.num_slices, row.status, row.faults) for row in imported.rows] == [
        (5, "imported", ("D022",))
    ] * 2


def test_single_slices_at_any_distance_are_not_joined(tmp_path: Path) -> None:
    slices = [make_slice(place) for place in (0, 1, 7, 20)]
    for place, one in enumerate(slices):
        one.SeriesInstanceUID = f"1.2.3.{place}"
    write_slices(slices, tmp_path / "tree")
    imported = import_tree(tmp_path / "tree", tmp_path / "out")
    assert [row.faults for row in imported.rows] == [("D013",)] * 4


@pytest.mark.parametrize("marked", [False, True])
def test_a_localizer_within_a_series_is_left_out(tmp_path: Path, marked: bool) -> None:
    scouts = make_series(2, orientation=CORONAL)
    for one in scouts:
        one.SOPInstanceUID = f"{one.SOPInstanceUID}.9"
        one.ImagePositionPatient = [-60, 5 * int(one.InstanceNumber), 80]
        one.Rows, one.Columns, one.PixelSpacing = 5, 24, [2, 2]
        if marked:
            one.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    part = only_part([*make_series(8), *scouts], tmp_path)
    fault = fault_of(part, "D001")
    assert not part.is_refused
    assert part.stack is not None
    assert part.stack.shape == (12, 10, 8)
    assert fault.measured == (
        "2 images: localizer"
        if marked
        else "2 images: another orientation (90°) and matrix and pixel spacing; the other slices are complete "
        "without them"
    )


def test_a_localizer_without_pixel_spacing_is_left_out(tmp_path: Path) -> None:
    (scout,) = make_series(1, orientation=CORONAL)
    scout.SOPInstanceUID = f"{scout.SOPInstanceUID}.9"
    del scout.PixelSpacing
    part = only_part([*make_series(8), scout], tmp_path)
    assert not part.is_refused
    assert "orientation (90°) and pixel spacing" in fault_of(part, "D001").measured


@pytest.mark.parametrize("place", [0, 4, 7])
def test_a_foreign_image_in_place_of_a_slice_still_refuses_the_series(tmp_path: Path, place: int) -> None:
    slices = make_series(8)
    slices[place].ImageOrientationPatient = list(CORONAL)
    part = only_part(slices, tmp_path)
    assert part.is_refused
    assert "another orientation: slice" in fault_of(part, "D004").measured


@pytest.mark.parametrize("sop_class", ["66.4", "66.7"])
@pytest.mark.parametrize("own_series", [False, True])
def test_segmentations_are_left_out_with_a_word(tmp_path: Path, sop_class: str, own_series: bool) -> None:
    mask = make_multi_frame(make_series(4))
    mask.SOPClassUID = mask.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{sop_class}"
    mask.Modality, mask.SOPInstanceUID = "SEG", "1.2.3"
    if own_series:
        mask.SeriesInstanceUID = "1.2.4"
    write_slices([*make_series(8), mask], tmp_path / "tree")
    imported = import_tree(tmp_path / "tree", tmp_path / "out")
    assert sorted(row.status for row in imported.rows) == ["imported", "left out"][: 1 + own_series]
    (fault,) = imported.faults
    assert (fault.code, fault.measured) == ("D001", "1 image: segmentation")


def test_strange_names_harm_nothing(tmp_path: Path) -> None:
    names = ("CON", "$HOME; rm -rf x", "王小明", "a\tb", "..", "-rf", "%s{0}")
    for number, name in enumerate(names):
        folder = tmp_path / "tree" / (name if name != ".." else "dots")
        series = make_series(3, series=str(30 + number), patient_id=f"{name}{number}")
        for one in series:
            one.SpecificCharacterSet, one.PatientName = "ISO_IR 192", name
            one.SOPInstanceUID = f"1.2.{number}.{one.InstanceNumber}"
            one.StudyInstanceUID = f"1.3.{number}"
        write_slices(series, folder)
    imported = import_tree(tmp_path / "tree", tmp_path / "out")
    cases = [row.case for row in imported.rows]
    assert sorted(cases) == [f"p{number:04}_s01" for number in range(1, 8)]
    assert {path.name for path in (tmp_path / "out" / "images").iterdir()} == {
        f"{case}.nii.gz" for case in cases
    }


def test_patient_ids_that_differ_in_form_are_one_and_in_case_are_told(tmp_path: Path) -> None:
    for number, name in enumerate(("M\u00fcller-1", "Mu\u0308ller-1", "m\u00fcller-1")):
        series = make_series(3, series=str(30 + number), patient_id=name)
        for one in series:
            one.SpecificCharacterSet = "ISO_IR 192"
        write_slices(series, tmp_path / "tree" / str(number))
    for _ in range(2):
        imported = import_tree(tmp_path / "tree", tmp_path / "out")
        assert sorted(row.patient for row in imported.rows) == ["p0001", "p0001", "p0002"]
        (fault,) = imported.faults
        assert (fault.code, fault.case) == ("D023", "p0002_s01")
        assert fault.measured == "the PatientIDs of p0001 and p0002 differ only in letter case"

"""Folders with a table of cases: taken for what it lists, named where it is at fault."""

from pathlib import Path

import pytest
from tiny_layouts import ask, cases, put
from tiny_pictures import write_pictures

from medunet.base.errors import InputError


def test_a_table_of_cases(tmp_path: Path) -> None:
    put(tmp_path, "x/a.nii.gz", "y/a_seg.nii.gz", "x/b.nii.gz")
    (tmp_path / "cases.csv").write_text("case;image;label;site\n1;x/a.nii.gz;y/a_seg.nii.gz;ucl\n")
    (tmp_path / "notes.csv").write_text("case,age\n1,60\n")
    for place in ("", "cases.csv"):
        found = ask(tmp_path, place)
        assert found.evidence == "cases.csv with 1 rows and image columns image; 1 case, 1 with a label"
        assert (found.description.layout, found.description.table) == ("csv", "cases.csv")
        assert cases(found, tmp_path) == {"1": ("x/a.nii.gz", "y/a_seg.nii.gz", "train")}
    (tmp_path / "more.csv").write_text("image,label\nx/b.nii.gz,\n")
    with pytest.raises(InputError, match=r"2 ways: .*cases\.csv.*more\.csv.*Give the folder or CSV"):
        ask(tmp_path)


def test_a_table_of_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path, 3)
    rows = [f"{i},images/disc_0{i}.png,labels/disc_0{i}.png" for i in range(3)]
    (tmp_path / "cases.csv").write_text("\n".join(["case,image,label", *rows]))
    found = ask(tmp_path)
    assert (found.description.layout, found.description.unit, found.description.instances) == (
        "png",
        "px",
        True,
    )
    assert cases(found, tmp_path)["0"] == ("images/disc_00.png", "labels/disc_00.png", "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"case;image;label\nF\xfc;scan.nii;map.nii\n", r"cases\.csv: cannot be read as text in UTF-8"),
        (b"case,image,image\na,scan.nii,map.nii\n", r"cases\.csv: columns occur twice: image"),
        (b"case,foo,bar\na,scan.nii,map.nii\n", r"cases\.csv lists files, but has no column 'label'"),
        (
            b"case,image,label,split\na,scan.nii,map.nii,dev\n",
            r"cases\.csv: row 2: split 'dev' is not one of",
        ),
    ],
)
def test_a_table_at_fault_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    put(tmp_path, "scan.nii", "map.nii")
    (tmp_path / "cases.csv").write_bytes(text)
    with pytest.raises(InputError, match=message):
        ask(tmp_path)


def test_a_table_of_cases_at_fault_is_not_passed_over_for_the_names(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii")
    row = "images/a.nii,labels/a.nii"
    (tmp_path / "cases.csv").write_text(f"case,image,label,fold\na,{row},0\na,{row},1\n")
    with pytest.raises(InputError, match="row 3: case a is already in row 2"):
        ask(tmp_path)


def test_tables_of_other_things_are_left_aside(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii")
    (tmp_path / "ages.csv").write_text("filename,age\na.nii,60\n")
    (tmp_path / "._cases.csv").write_bytes(b"\xff")
    found = ask(tmp_path)
    assert found.what == "pairs of volumes"
    assert [note for note in found.notes if "not used" in note] == [
        "not used as a list of cases: ages.csv lists files, but has no column 'label'"
    ]


def test_a_bad_cell_refuses_the_table_with_its_rows_instead_of_the_channel(tmp_path: Path) -> None:
    names = [f"{case}_{kind}.nii.gz" for case in "abcd" for kind in ("ct", "pet", "seg")]
    put(tmp_path, *names)
    rows = [f"{case},{case}_ct.nii.gz,{case}_pet.nii.gz,{case}_seg.nii.gz" for case in "abcd"]
    rows[2] = rows[2].replace("c_pet.nii.gz", "NA")
    rows[3] = rows[3].replace("d_pet.nii.gz", "d_pet.nii.gz.bak")
    (tmp_path / "cases.csv").write_text("\n".join(["case,CT,PET,label", *rows]))
    with pytest.raises(InputError, match=r"row 4: PET names no file .*'NA'; row 5: PET names no file"):
        ask(tmp_path)
    (tmp_path / "cases.csv").write_text("\n".join(["case,CT,PET,label", *rows[:2]]))
    assert list(ask(tmp_path).description.channels) == ["CT", "PET"]
    rows = [f"{row},{row[0]}_ct.png,60" for row in rows[:2]]
    (tmp_path / "cases.csv").write_text("\n".join(["case,CT,PET,label,preview,age", *rows]))
    found = ask(tmp_path)
    assert list(found.description.channels) == ["CT", "PET"]
    assert "columns of cases.csv not used: preview (names files in 2 of 2 rows), age" in found.notes


def test_one_picture_does_not_make_a_table_of_volumes_one_of_pictures(tmp_path: Path) -> None:
    put(tmp_path, *(f"{case}{end}.nii" for case in "abc" for end in ("", "_seg")))
    rows = ("image,label", "a.nii,a_seg.nii", "b.png,b_seg.nii", "c.nii,c_seg.nii")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match=r"row 3: image is a picture, b\.png, but .* volumes"):
        ask(tmp_path)


def test_a_table_of_cases_none_of_which_names_a_file_is_said(tmp_path: Path) -> None:
    put(tmp_path, "images/a.nii", "labels/a.nii")
    (tmp_path / "cases.csv").write_text("case,image,label\na,images/a.bak,labels/a.bak\n")
    (note,) = [note for note in ask(tmp_path).notes if "not used" in note]
    assert "cases.csv has columns of images and labels, but names no image files" in note

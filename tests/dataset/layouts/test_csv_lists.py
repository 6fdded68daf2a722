"""Tables of cases: columns found by name, paths below the data root, every row at fault named at once."""

from pathlib import Path
from typing import Any

import pytest

from medunet.base.errors import InputError
from medunet.dataset.layouts.case_tables import read_table
from medunet.dataset.layouts.csv_lists import list_table
from medunet.dataset.manifest import make_manifest
from medunet.records.description import Description


def describe(*channels: str, **others: Any) -> Description:
    plain = {
        "name": "tiny",
        "layout": "csv",
        "table": "lists/cases.csv",
        "channels": {name: {"modality": "MR"} for name in channels or ("MR",)},
        "labels": {"background": 0, "liver": 1},
    }
    return Description.parse({**plain, **others}, "test")


def write(root: Path, text: str) -> Path:
    (root / "lists").mkdir(exist_ok=True)
    (root / "lists/cases.csv").write_text(text, encoding="utf-8-sig")
    return root


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_columns_and_delimiters(tmp_path: Path, delimiter: str) -> None:
    rows = (
        "Case ID,Image,Mask,Patient ID,Centre,Fold,Split,age",
        "b,b.nii.gz,b_seg.nii.gz,p1,ucl,1,train,60",
        "a,a.nii.gz,a_seg.nii.gz,p1,,0,,61",
        "t,t.nii.gz,,,,,test,62",
        "",
    )
    write(tmp_path, "\n".join(rows).replace(",", delimiter))
    for name in ("a.nii.gz", "a_seg.nii.gz", "stray.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "lists/b.nii.gz").touch()
    listing = list_table(describe(), tmp_path)
    assert [(case.id, case.patient, case.site, case.fold, case.split) for case in listing.cases] == [
        ("a", "p1", None, 0, "train"),
        ("b", "p1", "ucl", 1, "train"),
        ("t", "t", None, None, "test"),
    ]
    # Relative to the table's folder, or to the data root; the check names what is in neither.
    assert [case.images["MR"] for case in listing.cases] == ["a.nii.gz", "lists/b.nii.gz", "lists/t.nii.gz"]
    assert [item.path for item in listing.unmatched] == ["stray.nii.gz"]
    table = read_table(tmp_path / "lists/cases.csv", "lists/cases.csv")
    assert table is not None
    assert table.unused == ("age",)
    manifest = make_manifest(describe(), tmp_path)
    assert [case.fold for case in manifest.cases] == [0, 1, None]


def test_a_column_for_each_channel(tmp_path: Path) -> None:
    write(tmp_path, "case,T1,flair,label\nx,x_t1.nii,x_fl.nii,x.nii\n")
    (case,) = list_table(describe("FLAIR", "T1"), tmp_path).cases
    assert case.images == {"FLAIR": "lists/x_fl.nii", "T1": "lists/x_t1.nii"}
    with pytest.raises(InputError, match=r"no column for channel T2; image columns are \['T1', 'flair'\]"):
        list_table(describe("T1", "T2"), tmp_path)


def test_a_validation_set_is_fold_0(tmp_path: Path) -> None:
    write(tmp_path, "image,label,split\na.nii,la.nii,train\nb.nii,lb.nii,val\n")
    assert {case.id: case.fold for case in list_table(describe(), tmp_path).cases} == {"a": 1, "b": 0}


def test_all_rows_at_fault_are_named_at_once(tmp_path: Path) -> None:
    rows = (
        "case,image,label,split",
        "a,../../a.nii,a.nii,",
        "b,/elsewhere/b.nii,b.nii,",
        "b,b.nii,b.nii,",
        "c,,c.nii,",
        "d,d.nii,,train",
        "e,e.nii,e.nii,some",
        "f/g,f.nii,f.nii,",
    )
    write(tmp_path, "\n".join(rows))
    with pytest.raises(InputError) as caught:
        list_table(describe(), tmp_path)
    text = str(caught.value)
    for fault in (
        "row 2: image is outside the data root",
        "row 3: image is outside the data root",
        "row 4: case b is already in row 3",
        "row 5: image is empty",
        "row 6: a training case needs a label",
        "row 7: split 'some' is not one of train",
        "row 8: id:",
    ):
        assert fault in text
    assert str(tmp_path) not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "case,image,label,fold\na,a.nii,a.nii,0\nb,b.nii,b.nii,x\n",
            "row 3: fold 'x' is not a whole number",
        ),
        ("case,image,label,fold,split\na,a.nii,,0,test\n", "row 2: has fold 0 although its split is test"),
        ("case,id,image\na,a,a.nii\n", "columns occur twice: case"),
        ('case,image\n"a,a.nii\n', "is not a table"),
        ("case,image\n\na,\n\nb,b.nii\n", "row 3: image is empty"),
        ("case,image\na,a.nii\nNA,b.nii\n", "row 3: case is empty"),
        ("case,image,label\na,a.nii,l,1.nii\nb,b.nii,lb.nii\n", "cells without a named column in row 2"),
        ("case,image,,label\na,a.nii,x,la.nii\n", "cells without a named column in row 2"),
        ("a,a.nii,la.nii\nb,b.nii,lb.nii\n", "first line names files, not columns"),
        (
            f"case,image\na,{'x' * 300}.nii\nb,b\0.nii\n",
            r"row 2: image is not a path: 'xx.*row 3: image is not a path",
        ),
        ("name,age\na,60\n", "names no image files"),
        ("", "names no image files"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_table(describe(), write(tmp_path, text))


@pytest.mark.parametrize("head", ["sep=;\n", '"sep=;"\n', "\n \n"])
def test_what_excel_writes_around_a_table(tmp_path: Path, head: str) -> None:
    write(tmp_path, f"{head}case;image;label;;\na;a,1.nii;la.nii;;\n;;;;\nb;;lb.nii;;\n")
    number = head.count("\n") + 3  # of the last row, the empty one before it counted
    with pytest.raises(InputError, match=rf"cases.csv: row {number + 1}: image is empty\. Correct"):
        list_table(describe(), tmp_path)


@pytest.mark.parametrize(
    "bad", ["NA", "", "b_t2.nii.gz.bak", "b_t2.nii.gz~", "n/a", "see mail", "b_t2.nii (1).gz", "b_t2.mgz"]
)
def test_a_bad_cell_is_named_and_its_column_stays_a_channel(tmp_path: Path, bad: str) -> None:
    rows = [f"{name},{name}_t1.nii.gz,{name}_t2.nii.gz,{name}_seg.nii.gz" for name in "abcd"]
    rows[1] = rows[1].replace("b_t2.nii.gz", bad)
    write(tmp_path, "\n".join(["case,T1,T2,label", *rows]))
    table = read_table(tmp_path / "lists/cases.csv", "lists/cases.csv")
    assert table is not None
    assert (table.channels, table.unused) == (("T1", "T2"), ())
    with pytest.raises(InputError, match=r"cases\.csv: row 3: T2 (is empty|names no file)") as caught:
        list_table(describe("T1", "T2"), tmp_path)
    assert "row 2" not in str(caught.value)
    assert "remove them to leave their cases out" in str(caught.value)


@pytest.mark.parametrize("written", [" a.nii.gz ", "'a.nii.gz'", "\u200ba.nii.gz\u00a0", '"""a.nii.gz"""'])
def test_spaces_and_quotes_around_a_path_are_no_part_of_it(tmp_path: Path, written: str) -> None:
    (tmp_path / "a.nii.gz").touch()
    write(tmp_path, f"image,label\n{written},a_seg.nii.gz\nb.nii.gz,b_seg.nii.gz\n")
    assert [case.images["MR"] for case in list_table(describe(), tmp_path).cases] == [
        "a.nii.gz",
        "lists/b.nii.gz",
    ]


def test_a_missing_value_is_an_empty_cell_in_every_column(tmp_path: Path) -> None:
    rows = (
        "case,image,label,patient,site,fold,split",
        "a,a.nii,a_seg.nii,nan,None,1.0,",
        "b,b.nii,b_seg.nii,p1,ucl,0.0,train",
        "c,c.nii,NA,p2,N/A,NaN,NA",
    )
    write(tmp_path, "\n".join(rows))
    assert [
        (case.id, case.patient, case.site, case.label, case.fold, case.split)
        for case in list_table(describe(), tmp_path).cases
    ] == [
        ("a", "a", None, "lists/a_seg.nii", 1, "train"),
        ("b", "p1", "ucl", "lists/b_seg.nii", 0, "train"),
        ("c", "p2", None, None, None, "unlabelled"),
    ]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("a.nii,a_seg.nii.bak", "row 2: label names no file of a supported format: 'a_seg.nii.bak'"),
        ("a.nii,pending", "row 2: label names no file of a supported format: 'pending'"),
        ("a.nii,a_seg.jpg", "row 2: label names no file of a supported format"),
        ("a.png,a_seg.nii", "row 2: image is a picture, a.png, but the dataset's images are volumes"),
        (r"D:\scans\a.nii,a_seg.nii", r"row 2: image is outside the data root: a\.nii"),
        (r"\\server\scans\a.nii,a_seg.nii", "row 2: image is outside the data root"),
        ("s3://bucket/a.nii,a_seg.nii", "row 2: image is outside the data root"),
    ],
)
def test_cells_that_name_no_usable_file(tmp_path: Path, cells: str, message: str) -> None:
    write(tmp_path, f"image,label\n{cells}\nb.nii,b_seg.nii\nc.nii,c_seg.nii\n")
    with pytest.raises(InputError, match=message):
        list_table(describe(), tmp_path)


def test_paths_of_windows_and_absolute_ones_within_the_data_root(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for name in "abc":
        (tmp_path / "scans" / f"{name}.nii").touch()
    rows = (f"scans\\a.nii,scans\\a.nii\n{tmp_path}/scans/b.nii,", "c.nii,c.nii")
    write(tmp_path, "\n".join(["image,label", *rows]))
    assert [case.images["MR"] for case in list_table(describe(), tmp_path).cases] == [
        "scans/a.nii",
        "scans/b.nii",
        "lists/c.nii",
    ]


def test_columns_that_name_files_but_no_channel_are_said(tmp_path: Path) -> None:
    head = "case,T1,label,label_reader2,T1_mask,prediction,thumbnail,notes"
    row = "{0},{0}.nii,{0}_a.nii,{0}_b.nii,{0}_c.nii,{0}_d.nii,{0}.png,{1}"
    notes = ("as in old.nii", "good", "bad", "good")
    write(
        tmp_path,
        "\n".join([head, *(row.format(name, note) for name, note in zip("abcd", notes, strict=True))]),
    )
    table = read_table(tmp_path / "lists/cases.csv", "lists/cases.csv")
    assert table is not None
    assert (table.channels, table.has_pictures) == (("T1",), False)
    assert table.unused_text == (
        *(f"{name} (names files in 4 of 4 rows)" for name in ("label_reader2", "T1_mask", "prediction")),
        "thumbnail (names files in 4 of 4 rows)",
        "notes (names files in 1 of 4 rows)",
    )


def test_a_channel_of_the_description_is_read_from_its_column_whatever_the_cells(tmp_path: Path) -> None:
    write(
        tmp_path,
        "case,T1,prior_mask,label\na,a.nii,a_m.nii,a_s.nii\nb,b.nii,todo,b_s.nii\nc,c.nii,NA,c_s.nii",
    )
    with pytest.raises(
        InputError, match=r"row 3: prior_mask names no file .*'todo'; row 4: prior_mask names"
    ):
        list_table(describe("T1", "prior_mask"), tmp_path)

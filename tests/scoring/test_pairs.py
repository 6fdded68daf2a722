"""Files matched to score: by name, one against many, by a table."""

from pathlib import Path

import pytest

from medunet.base.errors import InputError
from medunet.scoring.pairs import Pair, find_pairs, match_cases


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_two_files(tmp_path: Path) -> None:
    touch(tmp_path, "seg.nii.gz", "reader.nii")
    pair = Pair("reader", tmp_path / "seg.nii.gz", tmp_path / "reader.nii")
    assert find_pairs(pair.reference, tmp_path / "reader.nii") == ([pair], [])


def test_two_folders_expect_every_reference(tmp_path: Path) -> None:
    reference = touch(tmp_path / "r", "b.nii.gz", "a.nii", "._a.nii", "notes.txt")
    prediction = touch(tmp_path / "p", "a.nii.gz", "c.nii.gz", "index.json")
    pairs, unmatched = find_pairs(reference, prediction)
    assert pairs == [
        Pair("a", reference / "a.nii", prediction / "a.nii.gz"),
        Pair("b", reference / "b.nii.gz", None),
    ]
    assert unmatched == ["c.nii.gz"]


def test_several_readers_of_one_case(tmp_path: Path) -> None:
    reference = touch(tmp_path, "seg.nii.gz") / "seg.nii.gz"
    readers = touch(tmp_path / "raters", "x.nii.gz", "y.nii.gz")
    pairs, _ = find_pairs(reference, readers)
    assert [(pair.case, pair.reference) for pair in pairs] == [("x", reference), ("y", reference)]


def test_a_table_decides_with_paths_relative_to_itself(tmp_path: Path) -> None:
    prediction = touch(tmp_path / "masks", "volume-1.nii", "stray.nii")
    table = tmp_path / "pairs.csv"
    table.write_text(
        "case,reference,prediction\n001,truth/segmentation-1.nii,masks/volume-1.nii\nNA,t/2.nii,\n"
    )
    pairs, unmatched = find_pairs(tmp_path / "truth", prediction, table)
    assert pairs == [
        Pair("001", tmp_path / "truth/segmentation-1.nii", prediction / "volume-1.nii"),
        Pair("NA", tmp_path / "t/2.nii", None),
    ]
    assert unmatched == ["stray.nii"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,reference\na,b\n", r"the columns \['prediction'\] are missing"),
        ("case,reference,prediction\na,b,c\na,d,e\n,f,g\n", r"case 'a' is listed twice; line 4 has no case"),
        ("case,reference,prediction\n", "the table has no rows"),
        ("", "not a readable table"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        find_pairs(tmp_path, tmp_path, tmp_path / "pairs.csv")


def test_what_matches_nothing_is_refused(tmp_path: Path) -> None:
    reference = touch(tmp_path / "r", "segmentation-1.nii", "segmentation-2.nii")
    prediction = touch(tmp_path / "p", "volume-1.nii")
    with pytest.raises(InputError, match=r"segmentation-1, segmentation-2 expected, volume-1 found.*--pairs"):
        find_pairs(reference, prediction)
    with pytest.raises(InputError, match="folder but the prediction is a file"):
        find_pairs(reference, prediction / "volume-1.nii")
    with pytest.raises(InputError, match="no such file or folder"):
        find_pairs(reference, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"contains no .nii"):
        find_pairs(reference / "segmentation-1.nii", touch(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"contains both volume-1.nii and volume-1.nii.gz"):
        find_pairs(reference, touch(prediction, "volume-1.nii.gz"))


def test_formats_may_differ(tmp_path: Path) -> None:
    reference = touch(tmp_path / "r", "liver_1.nii.gz", "liver_2.NRRD", "liver_3.mha", "liver_4_seg.nii")
    names = ("1.nrrd", "2.seg.nrrd", "3.mhd", "3.raw", "4.dcm", "4.seg.nii", "1.png")
    prediction = touch(tmp_path / "p", *(f"liver_{name}" for name in names))
    pairs, unmatched = find_pairs(reference, prediction)
    found = {pair.case: pair.prediction.name if pair.prediction else None for pair in pairs}
    assert found == {
        "liver_1": "liver_1.nrrd",
        "liver_2": "liver_2.seg.nrrd",
        "liver_3": "liver_3.mhd",
        "liver_4_seg": None,  # "_seg" and ".seg" are part of a name
    }
    assert unmatched == ["liver_4.dcm", "liver_4.seg.nii"]
    with pytest.raises(InputError, match=r"contains both liver_2\.nrrd and liver_2\.seg\.nrrd"):
        find_pairs(reference, touch(prediction, "liver_2.nrrd"))


def test_the_cases_of_a_manifest_by_their_id(tmp_path: Path) -> None:
    labels = {"a": tmp_path / "truth/seg-1.nii", "b": tmp_path / "truth/seg-2.nii"}
    prediction = touch(tmp_path / "p", "b.nrrd", "c.nii.gz", "index.json")
    pairs, unmatched = match_cases(labels, prediction)
    assert pairs == [Pair("a", labels["a"], None), Pair("b", labels["b"], prediction / "b.nrrd")]
    assert unmatched == ["c.nii.gz"]
    with pytest.raises(InputError, match="named like a case id: d expected, b, c found"):
        match_cases({"d": tmp_path / "d.nii"}, prediction)
    with pytest.raises(InputError, match="no such folder"):
        match_cases(labels, prediction / "b.nrrd")

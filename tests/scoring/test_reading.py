"""What files may hold: values that no label declares, names within a file, numbers of objects."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_labels import AFFINE, draw_labels

from medunet.base.errors import DataError
from medunet.imaging.nifti import write_volume
from medunet.records.label_rules import LabelRules
from medunet.records.scores import CaseScore
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.pairs import Pair
from medunet.scoring.reading import read_pair

LABELS = {"background": 0, "liver": 1, "tumour": 2}
TARGETS = {"liver": (1,), "tumour": (2,)}
REFERENCE, SAME, OWN = (
    LabelRules(LABELS),
    LabelRules(LABELS, others="surplus"),
    LabelRules(LABELS, others="left out"),
)


def score(
    folder: Path,
    reference: np.ndarray,
    prediction: np.ndarray,
    reading: LabelRules = SAME,
    wanted: LabelRules = REFERENCE,
    targets: dict[str, tuple[int, ...]] | None = None,
) -> CaseScore:
    """Return the score of the first target."""
    write_volume(folder / "r.nii.gz", reference, AFFINE)
    write_volume(folder / "p.nii.gz", prediction, AFFINE)
    pair = Pair("a", folder / "r.nii.gz", folder / "p.nii.gz")
    predicted = {
        name: (value,) for name, value in (reading.labels or {}).items() if name in ("liver", "tumour")
    }
    return score_pairs(
        [pair], targets or TARGETS, predicted, rules_reference=wanted, rules_prediction=reading
    )[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_undeclared_values_in_a_reference_fail_its_case(tmp_path: Path, dtype: type) -> None:
    labels = draw_labels().astype(dtype)
    labels[0, 0, :3] = 7
    found = score(tmp_path, labels, draw_labels())
    assert (found.status, found.reason) == (
        "failed",
        "reference: holds values that are not declared: 7 in 3 voxels; declared are 0, 1, 2",
    )


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        (lambda labels: np.where(labels == 1, 255, labels), "255 in 56 voxels"),
        (lambda labels: np.where(labels > 0, labels + 4, 0), "5 in 56 voxels, 6 in 4 voxels"),
        (lambda labels: labels.astype(np.int32) * 300, "300 in 56 voxels, 600 in 4 voxels"),
    ],
)
def test_undeclared_values_in_a_prediction_read_as_the_reference(tmp_path: Path, change, shown: str) -> None:  # type: ignore[no-untyped-def]
    found = score(tmp_path, draw_labels(), change(draw_labels()))
    assert found.status == "failed"
    assert f"prediction: holds values that are not declared: {shown}" in found.reason
    assert "--prediction-dataset" in found.reason


def test_a_prediction_with_a_description_of_its_own_may_hold_more(tmp_path: Path) -> None:
    labels = draw_labels()
    many = np.where(labels == 1, 5, labels * 50)  # a mask of 104 structures, of which the liver is 5
    own = LabelRules({"background": 0, "liver": 5}, others="left out")
    assert score(tmp_path, labels, many, own).dice == 1
    other = np.where(many == 5, 90, many)
    found = score(tmp_path, labels, other, own)
    assert (found.status, "declared are 0, 5" in found.reason) == ("failed", True)
    background = score(tmp_path, labels, np.zeros_like(labels), own)
    assert (background.status, background.dice) == ("missed", 0.0)
    assert score(tmp_path, labels, np.zeros_like(labels)).status == "missed"
    assert score(tmp_path, np.zeros_like(labels), labels).status == "false_positive"


def test_values_of_labels_that_are_not_scored_are_declared(tmp_path: Path) -> None:
    labels = draw_labels()
    labels[7] = 9
    ignoring = LabelRules({**LABELS, "ignore": 9})
    same = LabelRules({**LABELS, "ignore": 9}, others="surplus")
    assert score(tmp_path, labels, labels, same, ignoring, {"liver": (1,)}).dice == 1
    regions = LabelRules({"background": 0, "oedema": 1, "core": 2})
    pair = Pair("a", tmp_path / "r.nii.gz", tmp_path / "p.nii.gz")
    whole = {"whole": (1, 2)}
    (failed,) = score_pairs(
        [pair], whole, whole, rules_reference=regions, rules_prediction=regions, ignore_value=None
    )
    assert "9 in 63 voxels" in failed.reason


def save_segments(path: Path, array: np.ndarray, *names: str) -> Path:
    """Write a label map on the grid of `AFFINE` as 3D Slicer does: names of the values 1, 2, ..."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing((2.0, 1.0, 5.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    for number, name in enumerate(names):
        image.SetMetaData(f"Segment{number}_Name", name)
        image.SetMetaData(f"Segment{number}_LabelValue", str(number + 1))
    sitk.WriteImage(image, str(path))
    return path


def test_names_join_on_both_sides(tmp_path: Path) -> None:
    labels = draw_labels()
    swapped = np.array([0, 2, 1], np.uint8)[labels]
    files = [
        save_segments(tmp_path / "r.seg.nrrd", labels, "liver", "tumour"),
        save_segments(tmp_path / "p.seg.nrrd", swapped, "Tumour", "Liver"),
    ]
    for one, other, role in ((0, 1, "prediction"), (1, 0, "reference")):
        pair = Pair("a", files[one], files[other])
        scores = score_pairs([pair], TARGETS, TARGETS, rules_reference=REFERENCE, rules_prediction=SAME)
        assert [found.dice for found in scores] == [1, 1]
        (note,) = [note for note in scores[0].notes if note.kind == "names"]
        assert note.text == (
            f"names in the {role}: tumour is 1 in the file and 2 in the description, "
            "liver is 2 in the file and 1 in the description"
        )
    pair = Pair("a", files[0], files[0])
    (quiet, _) = score_pairs([pair], TARGETS, TARGETS, rules_reference=REFERENCE, rules_prediction=SAME)
    assert not any(note.kind == "names" for note in quiet.notes)


def test_names_that_are_not_declared_are_named(tmp_path: Path) -> None:
    labels = draw_labels()
    labels[7, 8] = 3
    file = save_segments(tmp_path / "p.seg.nrrd", labels, "liver", "tumour", "aorta")
    write_volume(tmp_path / "r.nii.gz", draw_labels(), AFFINE)
    nifti = tmp_path / "r.nii.gz"
    with pytest.raises(
        DataError, match=r"^reference: its segments named 'aorta' \(7 voxels\) are not declared"
    ):
        read_pair(file, nifti, REFERENCE, SAME)
    for reading in (SAME, OWN):
        pair = Pair("a", nifti, file)
        found = score_pairs([pair], TARGETS, TARGETS, rules_reference=REFERENCE, rules_prediction=reading)
        assert [each.dice for each in found] == [1, 1]
        assert "names in the prediction: not declared, left out: aorta" in [n.text for n in found[0].notes]
    misspelt = save_segments(tmp_path / "m.seg.nrrd", draw_labels(), "liver", "tumor")
    with pytest.raises(DataError, match=r"'tumor' \(4 voxels\) are not declared; declared are liver, tumour"):
        read_pair(nifti, misspelt, REFERENCE, SAME)


def test_segments_of_one_name_are_joined_with_a_word(tmp_path: Path) -> None:
    write_volume(tmp_path / "r.nii.gz", draw_labels(), AFFINE)
    file = save_segments(tmp_path / "p.seg.nrrd", draw_labels(), "liver", "Liver")
    pair = read_pair(tmp_path / "r.nii.gz", file, REFERENCE, SAME)
    assert set(np.unique(pair.prediction)) == {0, 1}
    assert "2 segments (1, 2) are liver" in pair.notes[0].text


def test_numbers_of_objects(tmp_path: Path) -> None:
    numbers = np.zeros((8, 9, 7), np.int32)
    numbers[1:3], numbers[3:5], numbers[7, :2] = 4, 900, 4  # two that touch, one of them in two parts
    write_volume(tmp_path / "r.nii.gz", numbers, AFFINE)
    write_volume(tmp_path / "p.nii.gz", (numbers > 0).astype(np.uint8), AFFINE)
    objects, mask = LabelRules({"cell": 1}, 1), LabelRules({"cell": 1}, others="left out")
    pair = read_pair(tmp_path / "r.nii.gz", tmp_path / "p.nii.gz", objects, mask)
    assert np.array_equal(pair.reference.array, numbers > 0)
    assert np.array_equal(pair.prediction, numbers > 0)
    assert pair.numbers_reference is not None
    assert np.array_equal(pair.numbers_reference, numbers)
    assert pair.numbers_prediction is None
    # Read with the reference's description, a file of one value is a mask, and one of several numbers objects.
    same = LabelRules({"cell": 1}, 1, others="surplus")
    assert read_pair(tmp_path / "r.nii.gz", tmp_path / "p.nii.gz", objects, same).numbers_prediction is None
    both = read_pair(tmp_path / "r.nii.gz", tmp_path / "r.nii.gz", objects, same)
    assert both.numbers_prediction is not None
    own = LabelRules({"cell": 1}, 1, others="left out")
    assert (
        read_pair(tmp_path / "r.nii.gz", tmp_path / "p.nii.gz", objects, own).numbers_prediction is not None
    )

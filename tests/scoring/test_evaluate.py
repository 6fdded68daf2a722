"""Whole cases: joined by name, on one grid; missing and failed ones are rows, never gaps."""

import math
from pathlib import Path

import numpy as np
import pytest

from medunet.errors import InputError
from medunet.imaging.nifti import write_volume
from medunet.scoring.evaluate import score_labels, score_pairs
from medunet.scoring.pairs import Pair

TARGETS = {"liver": (1, 2), "tumour": (2,)}
AFFINE = np.diag([2.0, 1.0, 5.0, 1.0])


@pytest.fixture
def labels() -> np.ndarray:
    array = np.zeros((8, 9, 7), dtype=np.uint8)
    array[2:6, 2:7, 2:5] = 1
    array[3:5, 3:5, 3] = 2
    return array


def test_labels_are_joined_by_name_whatever_their_value(labels: np.ndarray) -> None:
    other = np.choose(labels, [0, 5, 3]).astype(np.uint8)
    scores = score_labels(
        labels, other, (2.0, 1.0, 5.0), {**TARGETS, "spleen": (3,)}, {"tumour": (3,), "liver": (5, 3)}, "a"
    )
    assert [(score.case, score.label, score.status) for score in scores] == [
        ("a", "liver", "ok"),
        ("a", "tumour", "ok"),
    ]
    assert all(score.dice == 1.0 and score.hd95_mm == 0.0 for score in scores)
    assert scores[0].reference_ml == pytest.approx(60 * 0.01)
    assert scores[1].tp == 4


def test_no_common_name_is_refused(labels: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"\['liver'\].*\['spleen'\].*no name is common"):
        score_labels(labels, labels, (1.0,) * 3, {"liver": (1,)}, {"spleen": (1,)}, "a")
    with pytest.raises(InputError, match="no name is common"):
        score_pairs([], {"liver": (1,)}, {"spleen": (1,)})


def test_an_option_that_cannot_be_used_is_no_failed_case() -> None:
    with pytest.raises(InputError, match="'area' is not available"):
        score_pairs([], TARGETS, TARGETS, surface="area")


def test_one_bad_case_does_not_stop_the_others(labels: np.ndarray, tmp_path: Path) -> None:
    def save(name: str, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
        write_volume(tmp_path / name, array, affine)
        return tmp_path / name

    reference = save("reference.nii.gz", labels)
    broken = save("patient_smith.nii", labels)
    broken.write_bytes(broken.read_bytes()[:-30])
    garbage = tmp_path / "patient_jones.nii.gz"
    garbage.write_bytes(b"no volume")
    moved, nudged = AFFINE.copy(), AFFINE.copy()
    moved[0, 3], nudged[0, 3] = 0.2, 0.05  # the limit is a tenth of 1 mm
    cases = {
        "absent": None,
        "gone": tmp_path / "gone.nii.gz",
        "truncated": broken,
        "garbage": garbage,
        "shape": save("shape.nii.gz", labels[:, :, 1:]),
        "moved": save("moved.nii.gz", labels, moved),
        "flipped": save("flipped.nii.gz", labels, AFFINE @ np.diag([-1.0, 1.0, 1.0, 1.0])),
        "halves": save("halves.nii.gz", labels.astype(np.float32) / 2),
        "frames": save("frames.nii.gz", np.stack([labels, labels], axis=-1)),
        "nudged": save("nudged.nii.gz", labels, nudged),
        "good": save("good.nii.gz", labels),
    }
    scores = score_pairs(
        [Pair(case, reference, path) for case, path in cases.items()], TARGETS, TARGETS, tolerances_mm=(3.0,)
    )
    assert [score.case for score in scores] == [case for case in cases for _ in TARGETS]
    by_case = {score.case: score for score in scores if score.label == "tumour"}
    want = {
        "absent": ("missing", "no prediction file"),
        "gone": ("missing", "no prediction file"),
        "truncated": ("failed", "truncated or corrupt"),
        "garbage": ("failed", "prediction: not a readable NIfTI"),
        "shape": ("failed", "(8, 9, 6) differs from the reference's (8, 9, 7)"),
        "moved": ("failed", "0.2 mm"),
        "flipped": ("failed", "28 mm"),
        "halves": ("failed", "not whole numbers"),
        "frames": ("failed", "three axes"),
        "nudged": ("ok", ""),
        "good": ("ok", ""),
    }
    for case, (status, reason) in want.items():
        assert by_case[case].status == status, by_case[case]
        assert reason in by_case[case].reason
        assert not any(word in by_case[case].reason for word in ("smith", "jones", str(tmp_path)))
        assert list(by_case[case].nsd) == [3.0]
        assert math.isnan(by_case[case].dice) == (status != "ok")


def test_an_unreadable_reference_fails_its_case(labels: np.ndarray, tmp_path: Path) -> None:
    write_volume(tmp_path / "p.nii.gz", labels, AFFINE)
    (score,) = score_pairs(
        [Pair("a", tmp_path / "none.nii.gz", tmp_path / "p.nii.gz")], {"liver": (1,)}, TARGETS
    )
    assert (score.status, score.reason) == ("failed", "reference: no such file")


def test_a_mask_cut_by_the_border_carries_a_warning(labels: np.ndarray) -> None:
    cut = labels[2:]
    scores = score_labels(cut, cut, (1.0,) * 3, TARGETS, TARGETS, "a")
    assert [score.reason for score in scores] == ["touches the border of the scan", ""]


def test_ignored_voxels_are_neither_right_nor_wrong(labels: np.ndarray, tmp_path: Path) -> None:
    prediction = labels.copy()
    prediction[2, 2:7, 2:5] = 0  # missed: 15 voxels of the liver
    prediction[6, 2, 2] = 2  # made up
    reference = labels.copy()
    reference[2, 4:7], reference[6:] = 255, 255  # among them 9 of the missed and the one made up
    liver, tumour = score_labels(
        reference, prediction, (2.0, 1.0, 5.0), TARGETS, TARGETS, "a", ignore_value=255
    )
    assert (liver.tp, liver.fp, liver.fn) == (45, 0, 6)
    assert liver.tn == labels.size - 51 - np.count_nonzero(reference == 255)
    assert (liver.dice, liver.specificity) == (90 / 96, 1.0)
    assert liver.accuracy == (45 + liver.tn) / (51 + liver.tn)
    assert liver.reference_ml == pytest.approx(51 * 0.01)
    assert (tumour.dice, tumour.hd_mm, tumour.status) == (1.0, 0.0, "ok")
    for name, array in (("r", reference), ("p", prediction)):
        write_volume(tmp_path / f"{name}.nii.gz", array, AFFINE)
    pair = Pair("a", tmp_path / "r.nii.gz", tmp_path / "p.nii.gz")
    assert score_pairs([pair], TARGETS, TARGETS, ignore_value=255) == [liver, tumour]
    assert score_pairs([pair], TARGETS, TARGETS)[1].fp == 1


def test_a_target_that_is_wholly_ignored_is_empty(labels: np.ndarray) -> None:
    reference = np.where(labels == 2, 255, labels)
    (score,) = score_labels(
        reference, labels, (2.0, 1.0, 5.0), {"tumour": (2,)}, TARGETS, "a", ignore_value=255
    )
    assert score.status == "both_empty"
    assert math.isnan(score.dice)

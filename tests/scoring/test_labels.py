"""Scores of one case: joined by name, ignored voxels left out, the same with and without the crop."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from tiny_labels import AFFINE, DIAGONAL_MM, SPACING_MM, TARGETS, draw_labels

from medunet.base.errors import InputError
from medunet.imaging.nifti import write_volume
from medunet.records.scores import Surface
from medunet.scoring.evaluate import score_pairs
from medunet.scoring.labels import ScoreOptions, score_labels
from medunet.scoring.lesions import score_lesions
from medunet.scoring.masks import score_masks
from medunet.scoring.notes import BORDER
from medunet.scoring.pairs import Pair


@pytest.fixture
def labels() -> np.ndarray:
    return draw_labels()


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


def test_a_mask_cut_by_the_border_carries_a_warning(labels: np.ndarray) -> None:
    cut = labels[2:]
    scores = score_labels(cut, cut, (1.0,) * 3, TARGETS, TARGETS, "a")
    assert [score.notes for score in scores] == [(BORDER,), ()]


def test_ignored_voxels_are_neither_right_nor_wrong(labels: np.ndarray, tmp_path: Path) -> None:
    prediction = labels.copy()
    prediction[2, 2:7, 2:5] = 0  # missed: 15 voxels of the liver
    prediction[6, 2, 2] = 2  # made up
    prediction, reference = np.asfortranarray(prediction), np.asfortranarray(labels)  # as files are read
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
    scores = score_pairs([pair], TARGETS, TARGETS, ignore_value=255)
    scores = [replace(score, reference_sha256="", prediction_sha256="") for score in scores]
    assert list(map(repr, scores)) == [repr(liver), repr(tumour)]  # a score that was not computed is NaN
    assert score_pairs([pair], TARGETS, TARGETS)[1].fp == 1


def test_a_target_that_is_wholly_ignored_is_empty(labels: np.ndarray) -> None:
    reference = np.where(labels == 2, 255, labels)
    (score,) = score_labels(
        reference, labels, (2.0, 1.0, 5.0), {"tumour": (2,)}, TARGETS, "a", ignore_value=255
    )
    assert score.status == "both_empty"
    assert math.isnan(score.dice)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("surface", ["area", "voxel"])
def test_the_crop_changes_no_score(labels: np.ndarray, order: Literal["C", "F"], surface: Surface) -> None:
    reference, prediction = (np.zeros((31, 22, 19), dtype, order=order) for dtype in (np.int16, np.uint8))
    reference[9:17, 7:16, 14:19] = labels[:, :, :5]  # the liver reaches the last slice
    prediction[11:19, 5:14, 10:17] = labels
    before = reference.copy(), prediction.copy()
    options = ScoreOptions(surface=surface, hd95="pooled", percentile=90.0, tolerances_mm=(2.5,))
    targets = {**TARGETS, "all": (1, 2, 3, 4, 5)}
    for score in score_labels(reference, prediction, SPACING_MM, targets, targets, "a", options):
        whole = score_masks(
            np.isin(reference, targets[score.label]),
            np.isin(prediction, targets[score.label]),
            SPACING_MM,
            **{"surface": surface, "hd95": "pooled", "percentile": 90.0, "tolerances_mm": (2.5,)},
        )
        overlaps = ("dice", "specificity", "mcc", "tp", "tn")
        for name in (*overlaps, "hd_mm", "hd95_mm", "assd_mm", "masd_mm", "nsd"):
            assert getattr(score, name) == pytest.approx(getattr(whole, name), rel=1e-12), name
        assert score.notes == ((BORDER,) if whole.touches_border else ())
    assert np.array_equal(reference, before[0])
    assert np.array_equal(prediction, before[1])


def test_maps_without_any_label_are_both_empty() -> None:
    empty = np.zeros((8, 9, 7), np.uint8)
    liver, tumour = score_labels(empty, empty, SPACING_MM, TARGETS, TARGETS, "a")
    assert (liver.status, tumour.status) == ("both_empty", "both_empty")
    assert (liver.tn, liver.specificity) == (8 * 9 * 7, 1.0)
    assert liver.penalty_mm == pytest.approx(DIAGONAL_MM)


def test_the_penalty_of_a_single_slice_is_its_diagonal(labels: np.ndarray) -> None:
    flat = labels[:, :, 3:4]
    (score,) = score_labels(flat, flat, SPACING_MM, {"tumour": (2,)}, TARGETS, "a")
    assert score.penalty_mm == pytest.approx(math.sqrt(16**2 + 9**2))
    (plane,) = score_labels(flat[:, :, 0], flat[:, :, 0], SPACING_MM[:2], {"tumour": (2,)}, TARGETS, "a")
    assert plane.penalty_mm == score.penalty_mm


def test_maps_that_cannot_be_compared_are_refused(labels: np.ndarray) -> None:
    with pytest.raises(
        InputError, match=r"shapes \(8, 9, 7\) and \(8, 9, 6\) differ; .* integers, not uint8 and fl"
    ):
        score_labels(labels, labels[:, :, 1:].astype(float), SPACING_MM, TARGETS, TARGETS, "a")


def test_lesions_are_those_of_the_whole_grid(labels: np.ndarray) -> None:
    reference = np.zeros((20, 23, 25), np.uint8)
    reference[6:14, 7:16, 11:18] = labels  # the tumour lies in slice 11 + 3 alone
    prediction = np.roll(np.where(reference == 2, 2, 0), 1, axis=1)
    options = ScoreOptions(lesions={"tumour": "lits"})
    liver, tumour = score_labels(reference, prediction, SPACING_MM, TARGETS, TARGETS, "a", options)
    assert liver.lesions is None
    assert tumour.lesions is not None
    assert [lesion.slice_index for lesion in tumour.lesions.lesions] == [14]
    whole = score_lesions(reference == 2, prediction == 2, SPACING_MM, "lits")
    assert tumour.lesions == whole
    turned = reference.transpose(2, 1, 0), prediction.transpose(2, 1, 0), SPACING_MM[::-1]
    _, other = score_labels(*turned, TARGETS, TARGETS, "a", options, slice_axis=0)
    assert other.lesions is not None
    assert [lesion.slice_index for lesion in other.lesions.lesions] == [14]


def test_a_lesion_in_one_slice_of_many_is_measured_in_3d() -> None:
    reference = np.zeros((12, 13, 9), np.uint8)
    reference[3:7, 4:8, 8] = 1  # in the last slice
    prediction = np.roll(reference, 2, axis=0)
    options = ScoreOptions(lesions={"spot": "lits"})
    (score,) = score_labels(reference, prediction, SPACING_MM, {"spot": (1,)}, {"spot": (1,)}, "a", options)
    assert score.lesions == score_lesions(reference == 1, prediction == 1, SPACING_MM, "lits")


@pytest.mark.parametrize("highest", [11, 70_000])
def test_many_targets_are_scored_as_each_by_itself(highest: int) -> None:
    rng = np.random.default_rng(3)
    reference = rng.integers(0, 10, (9, 11, 8)).astype(np.int32, order="F")
    reference[reference == 5] = 0
    prediction = np.roll(reference, 1, axis=1)
    prediction[2, 3, 4] = 5  # a false positive of one voxel
    reference[0, 0, 0] = highest  # missed; SciPy lists no value as high as the second one
    targets = {f"part {value}": (value,) for value in (*range(1, 11), highest)} | {"two": (1, 2), "none": ()}
    options = ScoreOptions(lesions={"part 5": "lits"})
    scores = score_labels(reference, prediction, SPACING_MM, targets, targets, "a", options)
    for score in scores:
        alone = {score.label: targets[score.label]}
        rules = ScoreOptions(lesions=options.lesions if score.label == "part 5" else {})
        expected = score_labels(reference, prediction, SPACING_MM, alone, alone, "a", rules)
        assert repr(replace(score, notes=())) == repr(replace(expected[0], notes=()))  # NaN is no NaN's equal
    assert [score.status for score in scores[4:5]] == ["false_positive"]

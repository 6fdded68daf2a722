"""Scores of single lesions: cases whose answer is worked out beside them."""

import math
from itertools import product

import numpy as np
import pytest
from box_masks import MILLIMETRE, mask_of
from scipy import ndimage

from medunet.base.errors import InputError
from medunet.records.scores import LesionPreset
from medunet.scoring.lesion_presets import PRESETS
from medunet.scoring.lesions import detection_by_size, score_lesions
from medunet.scoring.masks import score_masks

CUBE = (slice(4, 8), slice(5, 9), slice(4, 8))  # 64 voxels: above the 50 mm³ of BraTS


def cube_at(k: int) -> tuple[slice, slice, slice]:
    return (CUBE[0], CUBE[1], slice(k, k + 4))


def test_brats_merges_what_dilation_joins() -> None:
    # Two cubes with 6 voxels between them: 3 dilations of each fill the gap. One lesion of 128 voxels, half found.
    reference, prediction = mask_of(CUBE, cube_at(14)), mask_of(CUBE)
    merged = score_lesions(reference, prediction, MILLIMETRE, "brats2023")
    assert (merged.num_matched, merged.num_missed, merged.num_false_positive) == (1, 0, 0)
    assert merged.dice == pytest.approx(2 * 64 / (128 + 64))
    # the far cube's end lies 10 voxels behind the near cube's end, and is more than 5% of the surface
    assert merged.hd95_mm == pytest.approx(10.0)
    assert merged.lesions[0].reference_ml == pytest.approx(0.128)
    assert merged.lesions[0].predicted_ml == pytest.approx(0.064)
    # 7 between them: two lesions, one of them missed
    apart = score_lesions(mask_of(CUBE, cube_at(15)), prediction, MILLIMETRE, "brats2023")
    assert [lesion.status for lesion in apart.lesions] == ["matched", "missed"]
    assert (apart.dice, apart.hd95_mm) == (0.5, 374 / 2)
    assert (apart.sensitivity, apart.precision, apart.f1) == (0.5, 1.0, pytest.approx(2 / 3))
    # the other tasks dilate once: 6 between them is far
    for preset in ("brats2023_meningioma", "brats2023_metastases"):
        assert score_lesions(reference, prediction, MILLIMETRE, preset).num_missed == 1


def test_brats_takes_what_touches_the_dilated_lesion() -> None:
    # The cube ends at k = 7, its dilation at 10. A voxel there belongs to it with a Dice of 0, its distance counts.
    reference, near = mask_of(CUBE), mask_of((5, 6, 10))
    touching = score_lesions(reference, near, MILLIMETRE, "brats2023")
    assert (touching.num_matched, touching.num_missed, touching.num_false_positive) == (1, 0, 0)
    assert touching.lesions[0].status == "matched"
    assert touching.dice == touching.sq == touching.pq == 0.0
    assert touching.hd95_mm == score_masks(reference, near, MILLIMETRE).hd95_mm < 10
    # One further it is a miss and a false positive.
    beside = score_lesions(reference, mask_of((5, 6, 11)), MILLIMETRE, "brats2023")
    assert (beside.num_matched, beside.num_missed, beside.num_false_positive) == (0, 1, 1)
    assert (beside.dice, beside.hd95_mm) == (0.0, 374.0)
    assert [lesion.hd95_mm for lesion in beside.lesions] == [math.inf, math.inf]


@pytest.mark.parametrize(
    ("small", "spacing_mm", "counted"),
    [
        ((slice(4, 9), slice(5, 10), slice(20, 22)), (1.0, 1.0, 1.0), False),  # 5·5·2 = 50 mm³
        ((slice(4, 9), slice(5, 10), 20), (1.0, 1.0, 2.0), False),  # 25 voxels of 2 mm³
        ((slice(4, 9), slice(5, 10), slice(20, 22)), (1.0, 1.02, 1.0), True),  # 51 mm³
    ],
)
def test_brats_drops_small_lesions(small: tuple, spacing_mm: tuple, counted: bool) -> None:
    reference, large = mask_of(CUBE, small), mask_of(CUBE)
    missed = score_lesions(reference, large, spacing_mm, "brats2023")
    assert missed.lesions[1].counted == counted
    assert missed.lesions[1].status == "missed"
    assert missed.num_missed == counted
    assert (missed.dice, missed.hd95_mm) == ((0.5, 187.0) if counted else (1.0, 0.0))
    # A component of one voxel that touches the small lesion is no false positive,
    touched = score_lesions(reference, mask_of(CUBE, (6, 7, 20)), spacing_mm, "brats2023")
    assert touched.lesions[1].status == "matched"
    assert (touched.num_matched, touched.num_false_positive) == (1 + counted, 0)
    assert touched.dice == (pytest.approx((1 + 2 / 51) / 2) if counted else 1.0)
    # one that touches none is, however small.
    spurious = score_lesions(reference, mask_of(CUBE, (6, 7, 29)), spacing_mm, "brats2023")
    assert spurious.num_false_positive == 1
    assert spurious.dice == pytest.approx(1 / (2 + counted))
    assert spurious.hd95_mm == pytest.approx(374 * (1 + counted) / (2 + counted))
    # With the small lesion alone nothing counts.
    alone = score_lesions(mask_of(small), mask_of(), spacing_mm, "brats2023")
    assert (alone.dice, alone.hd95_mm) == ((0.0, 374.0) if counted else (1.0, 0.0))


def test_brats_counts_one_component_for_each_lesion_that_it_touches() -> None:
    # Rows of 4 voxels with 3 between them, one dilation: two lesions. One row of 11 covers both: 2·4/(4 + 11) each.
    reference = mask_of((6, 7, slice(3, 7)), (6, 7, slice(10, 14)))
    score = score_lesions(reference, mask_of((6, 7, slice(3, 14))), MILLIMETRE, "brats2023_metastases")
    assert [lesion.dice for lesion in score.lesions] == [pytest.approx(8 / 15)] * 2
    assert score.dice == pytest.approx(8 / 15)
    assert (score.num_matched, score.num_false_positive) == (2, 0)
    assert score.sq == pytest.approx(4 / 11)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("preset", ["brats2023", "brats2023_meningioma", "brats2023_metastases"])
def test_brats_equals_its_definition_on_whole_volumes(preset: LesionPreset, seed: int) -> None:
    # The definition word by word, each lesion in a volume of its own, and so without any box.
    rng = np.random.default_rng(seed)
    small, large, spurious = rng.random((3, 60, 50, 66)) < 4e-5  # about 8 of each
    reference = ndimage.binary_dilation(small, iterations=2) | ndimage.binary_dilation(large, iterations=3)
    prediction = ndimage.binary_dilation(spurious, iterations=2)
    prediction[:35] |= reference[:35] & (rng.random((35, 50, 66)) < 0.7)
    spacing_mm = (1.0, 1.5, 0.8)
    rules = PRESETS[preset]
    edges, corners = (ndimage.generate_binary_structure(3, rank) for rank in (2, 3))
    grown, num_lesions = ndimage.label(
        ndimage.binary_dilation(reference, edges, iterations=rules.num_dilations), corners
    )
    components, num_components = ndimage.label(prediction, corners)
    scores, touched = [], set()
    for number in range(1, num_lesions + 1):
        lesion = reference & (grown == number)
        near = ndimage.binary_dilation(lesion, edges, iterations=rules.num_dilations)
        hits = set(components[near].tolist()) - {0}
        touched |= hits
        if lesion.sum() * math.prod(spacing_mm) > rules.ignored_mm3:
            scores.append(score_masks(lesion, np.isin(components, list(hits)), spacing_mm))
    num_false_positive = num_components - len(touched)
    total = len(scores) + num_false_positive
    assert total > 1
    found = score_lesions(reference, prediction, spacing_mm, preset)
    assert found.num_matched + found.num_missed == len(scores)
    assert found.num_false_positive == num_false_positive
    assert found.dice == pytest.approx(sum(score.dice for score in scores) / total, abs=1e-12)
    distances_mm = [min(score.hd95_mm, 374.0) for score in scores] + [374.0] * num_false_positive
    assert found.hd95_mm == pytest.approx(sum(distances_mm) / total, abs=1e-9)


def test_lits_counts_lesions_and_averages_over_those_found() -> None:
    # Rows of 4 with 2 between them under one component of 10: together 8 of 10 voxels, Dice 16/18. A third lesion is
    # missed, a second component finds nothing.
    reference = mask_of((2, 3, slice(3, 7)), (2, 3, slice(9, 13)), (9, 3, slice(3, 6)))
    prediction = mask_of((2, 3, slice(3, 13)), (9, 11, slice(3, 6)))
    for preset in ("lits", "lits_half"):
        score = score_lesions(reference, prediction, MILLIMETRE, preset)
        statuses = [lesion.status for lesion in score.lesions]
        assert statuses == ["matched", "matched", "missed", "false_positive"]
        assert score.sensitivity == score.precision == score.f1 == pytest.approx(2 / 3)
        assert score.dice == pytest.approx(16 / 18)
        assert score.hd95_mm == score.lesions[0].hd95_mm < 5  # the miss is in sensitivity alone
        assert score.lesions[0].reference_ml == pytest.approx(0.004)  # its own
        assert score.lesions[0].predicted_ml == pytest.approx(0.010)  # the component's
    # One lesion in two pieces, 9 of 10 voxels: both presets find it, and neither piece is a false positive.
    reference, pieces = mask_of((2, 3, slice(3, 13))), mask_of((2, 3, slice(3, 7)), (2, 3, slice(8, 13)))
    for preset in ("lits", "lits_half"):
        score = score_lesions(reference, pieces, MILLIMETRE, preset)
        assert (score.num_matched, score.num_false_positive) == (1, 0)
        assert score.dice == pytest.approx(18 / 19)
    # An IoU of exactly 0.5, 2 of 4 voxels, is not above it.
    reference, shifted = mask_of((2, 3, slice(3, 6))), mask_of((2, 3, slice(4, 7)))
    assert score_lesions(reference, shifted, MILLIMETRE, "lits").sensitivity == 1.0
    half = score_lesions(reference, shifted, MILLIMETRE, "lits_half")
    assert (half.num_matched, half.num_missed, half.num_false_positive) == (0, 1, 1)
    assert math.isnan(half.dice)


def test_panoptic_quality_by_hand() -> None:
    # One pair that shares 3 of 5 voxels, one miss, one false positive: RQ = 1/(1 + 1/2 + 1/2), SQ = 3/5.
    reference = mask_of((2, 3, slice(3, 7)), (9, 3, slice(3, 6)))
    prediction = mask_of((2, 3, slice(4, 8)), (9, 11, slice(3, 6)))
    score = score_lesions(reference, prediction, MILLIMETRE, "panoptic")
    assert (score.num_matched, score.num_missed, score.num_false_positive) == (1, 1, 1)
    assert (score.rq, score.sq, score.pq) == (0.5, pytest.approx(0.6), pytest.approx(0.3))
    assert score.dice == pytest.approx(6 / 8)
    # Shared by 2 of 4 only, at exactly 0.5, it is no pair: then SQ is undefined.
    prediction = mask_of((9, 3, slice(4, 7)))
    score = score_lesions(mask_of((9, 3, slice(3, 6))), prediction, MILLIMETRE, "panoptic")
    assert (score.rq, score.pq) == (0.0, 0.0)
    assert math.isnan(score.sq)
    # Two pieces of 4 and 5 in a lesion of 10: none is above 0.5.
    pieces = mask_of((2, 3, slice(3, 7)), (2, 3, slice(8, 13)))
    score = score_lesions(mask_of((2, 3, slice(3, 13))), pieces, MILLIMETRE, "panoptic")
    assert (score.num_matched, score.num_missed, score.num_false_positive) == (0, 1, 2)


@pytest.mark.parametrize("preset", list(PRESETS))
def test_empty_masks(preset: LesionPreset) -> None:
    empty, full = mask_of(), mask_of(CUBE)
    brats = preset.startswith("brats")
    both = score_lesions(empty, empty, MILLIMETRE, preset)
    assert both.lesions == ()
    for name in ("sensitivity", "precision", "f1", "rq", "sq", "pq"):
        assert math.isnan(getattr(both, name)), name
    missed = score_lesions(full, empty, MILLIMETRE, preset)
    assert (missed.num_matched, missed.num_missed, missed.num_false_positive) == (0, 1, 0)
    assert missed.sensitivity == missed.f1 == missed.rq == missed.pq == 0.0
    assert math.isnan(missed.precision)
    false_positive = score_lesions(empty, full, MILLIMETRE, preset)
    assert (false_positive.num_matched, false_positive.num_missed) == (0, 0)
    assert false_positive.num_false_positive == 1
    assert false_positive.precision == false_positive.f1 == false_positive.rq == false_positive.pq == 0.0
    assert math.isnan(false_positive.sensitivity)
    for score in (missed, false_positive):
        assert (score.lesions[0].dice, score.lesions[0].hd95_mm) == (0.0, math.inf)
        assert (score.dice, score.hd95_mm) == (
            (0.0, 374.0) if brats else pytest.approx((math.nan,) * 2, nan_ok=True)
        )
    assert (both.dice, both.hd95_mm) == ((1.0, 0.0) if brats else pytest.approx((math.nan,) * 2, nan_ok=True))
    assert (missed.lesions[0].reference_ml, missed.lesions[0].predicted_ml) == (pytest.approx(0.064), 0.0)
    lesion = false_positive.lesions[0]
    assert lesion.status == "false_positive"
    assert (lesion.reference_ml, lesion.predicted_ml) == (0.0, pytest.approx(0.064))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_same_whatever_the_memory_order_and_the_rim(preset: LesionPreset) -> None:
    rng = np.random.default_rng(7)
    blobs, spurious = (
        ndimage.binary_dilation(mask, iterations=2) for mask in rng.random((2, 20, 17, 25)) < 0.001
    )
    reference, prediction = blobs, blobs & (rng.random(blobs.shape) < 0.9) | spurious
    for mask in (reference, prediction):
        mask[:6, :6, :6] = False
        mask[1:4, 1:4, 1:4] = True  # one pair at least that every rule matches
    spacing_mm = (0.9, 1.4, 3.0)
    score = score_lesions(reference, prediction, spacing_mm, preset)
    assert score.num_matched > 0  # else nothing is compared
    fortran = score_lesions(np.asfortranarray(reference), np.asfortranarray(prediction), spacing_mm, preset)
    assert repr(fortran) == repr(score)
    rim = [(5, 1), (0, 4), (3, 6)]
    padded = score_lesions(np.pad(reference, rim), np.pad(prediction, rim), spacing_mm, preset)
    assert [lesion.slice_index - 3 for lesion in padded.lesions] == [
        lesion.slice_index for lesion in score.lesions
    ]
    for name in ("num_matched", "num_missed", "num_false_positive", "dice", "hd95_mm", "pq"):
        assert getattr(padded, name) == pytest.approx(getattr(score, name), nan_ok=True), name


def test_a_lesion_in_one_slice_of_many_is_measured_in_3d() -> None:
    # A plate of 12×12 voxels predicted one column too wide. Beside a plate's two faces the column's surface is 7% of
    # it, in a plane beside its outline 26%: the 80th percentile tells them apart.
    reference, prediction = np.zeros((2, 17, 18, 9), dtype=bool)
    reference[3:15, 3:15, 5] = prediction[3:15, 3:16, 5] = True
    in_volume = score_lesions(reference, prediction, MILLIMETRE, "panoptic", percentile=80)
    assert in_volume.hd95_mm == score_masks(reference, prediction, MILLIMETRE, percentile=80).hd95_mm == 0.0
    single = score_lesions(reference[..., 5:6], prediction[..., 5:6], MILLIMETRE, "panoptic", percentile=80)
    assert single.hd95_mm == 1.0


def test_options_reach_the_distances() -> None:
    reference, prediction = mask_of((6, 7, slice(3, 20))), mask_of((6, 7, slice(3, 14)))
    spacing_mm = (1.0, 1.0, 2.0)
    for surface, hd95, percentile in product(("area", "voxel"), ("max", "pooled"), (95.0, 70.0)):
        options = {"surface": surface, "hd95": hd95, "percentile": percentile}
        lesion = score_lesions(reference, prediction, spacing_mm, "panoptic", **options).lesions[0]
        assert lesion.hd95_mm == score_masks(reference, prediction, spacing_mm, **options).hd95_mm, options


def test_planes() -> None:
    # Two squares that share a corner are one lesion with 8 neighbours and two with 4.
    reference = mask_of((slice(2, 4), slice(3, 5)), (slice(4, 6), slice(5, 7)), shape=(9, 15))
    prediction = mask_of((slice(2, 4), slice(3, 5)), (6, 12), shape=(9, 15))
    score = score_lesions(reference, prediction, (2.0, 1.0), "panoptic")
    assert (score.num_matched, score.num_missed, score.num_false_positive) == (0, 1, 2)  # 4 of 8 pixels
    score = score_lesions(reference, prediction, (2.0, 1.0), "lits")
    assert [lesion.status for lesion in score.lesions] == ["matched", "missed", "false_positive"]
    assert (score.dice, score.hd95_mm) == (1.0, 0.0)
    for lesion in score.lesions:
        assert math.isnan(lesion.reference_ml)
        assert math.isnan(lesion.predicted_ml)
        assert lesion.slice_index == 0
    # The pixel that is too much: edge middles 2 mm apart along the first axis, 1 mm along the second.
    assert (score.lesions[2].long_axis_mm, score.lesions[2].short_axis_mm) == (2.0, 1.0)
    assert sum(row.num_lesions for row in detection_by_size(score.lesions)) == 0
    for preset in ("brats2023", "brats2023_meningioma", "brats2023_metastases"):
        with pytest.raises(InputError, match="volume, which a 2D image does not have"):
            score_lesions(reference, prediction, (2.0, 1.0), preset)


def test_input_is_not_changed() -> None:
    reference, prediction = mask_of(CUBE, cube_at(14)), mask_of(CUBE)
    before = reference.copy(), prediction.copy()
    for preset in PRESETS:
        score_lesions(reference, prediction, MILLIMETRE, preset)
    assert np.array_equal(reference, before[0])
    assert np.array_equal(prediction, before[1])


def test_input_that_cannot_be_used() -> None:
    mask = mask_of(CUBE)
    with pytest.raises(InputError, match=r"boolean.*shapes .* differ"):
        score_lesions(mask.astype(np.uint8), mask[:-1], MILLIMETRE, "lits")
    with pytest.raises(InputError, match=r"'brats' do not exist.*slice_axis"):
        score_lesions(mask, mask, MILLIMETRE, "brats", slice_axis=3)
    with pytest.raises(InputError, match=r"as many spacings.*positive"):
        score_lesions(mask, mask, (1.0, 0.0), "panoptic")
    with pytest.raises(InputError, match="2 or 3 axes"):
        score_lesions(mask[0, 0], mask[0, 0], (1.0,), "panoptic")
    with pytest.raises(InputError, match="percentile"):
        score_lesions(mask, mask, MILLIMETRE, "panoptic", percentile=0)


def test_lits_takes_lesions_under_one_component_together() -> None:
    # Two lesions of 4 voxels and the 2 between them predicted: one comparison, Dice 2·8/(8 + 10) = 16/18.
    # Another lesion is right. The benchmark averages over the two comparisons, not over the three lesions.
    reference = np.zeros((3, 5, 16), dtype=bool)
    reference[1, 1, 1:5] = reference[1, 1, 7:11] = reference[1, 3, 13:15] = True
    prediction = reference.copy()
    prediction[1, 1, 5:7] = True
    score = score_lesions(reference, prediction, MILLIMETRE, "lits")
    assert (score.num_matched, score.num_missed, score.num_false_positive) == (3, 0, 0)
    assert score.dice == pytest.approx((16 / 18 + 1) / 2)

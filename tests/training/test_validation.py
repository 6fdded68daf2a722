"""What a validation measures equals what independent libraries and the scoring room say of the same masks."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_precision_recall_curve

from medunet.records import Description
from medunet.scoring.masks import score_masks
from medunet.training.validation import NUM_BINS, measure_case, precision_recall, summarise

SPACING_MM = (1.0, 2.0, 3.5)
REGIONS = Description.parse(
    {"name": "r", "layout": "pairs", "channels": {"CT": {"modality": "CT"}},
     "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 9},
     "regions": {"liver": ["liver", "tumour"], "tumour": ["tumour"]}, "region_order": ["liver", "tumour"]},
    "test",
)  # fmt: skip


def measured(seed: int = 0, *, empty: bool = False, ignore: bool = False):
    rng = np.random.default_rng(seed)
    shape = (13, 11, 7)
    label = np.zeros(shape, np.uint8)
    label[2:9, 3:8, 1:5] = 1
    label[4:7, 4:6, 2:4] = 2
    probabilities = np.stack(
        [np.clip((label >= value) * 0.6 + rng.uniform(0, 0.4, shape), 0, 0.9999) for value in (1, 2)]
    )
    probabilities = np.roll(probabilities, 1, axis=1).astype(np.float32)
    if empty:
        label[label == 2] = 1
    if ignore:
        label[:, :, 4:] = 9
    prediction = (probabilities[0] > 0.5).astype(np.uint8)
    prediction[probabilities[1] > 0.5] = 2
    image = torch.from_numpy(rng.normal(size=(1, *shape)).astype(np.float32))
    result = measure_case(
        "c", image, torch.from_numpy(label), torch.from_numpy(probabilities), torch.from_numpy(prediction),
        REGIONS, SPACING_MM, 2,
    )  # fmt: skip
    return result, label, prediction, probabilities


def test_equal_to_the_scoring_room():
    result, label, prediction, _ = measured()
    for name, low in (("liver", 1), ("tumour", 2)):
        scores = score_masks(label >= low, prediction >= low, SPACING_MM)
        target = result.targets[name]
        for key in ("dice", "iou", "precision", "recall"):
            assert getattr(target.voxels, key) == pytest.approx(getattr(scores, key)), (name, key)
        assert target.hd95_mm == pytest.approx(scores.hd95_mm)


def test_ignored_voxels_count_for_nothing():
    result, label, prediction, _ = measured(ignore=True)
    counted = label != 9
    scores = score_masks((label >= 1) & counted, (prediction >= 1) & counted, SPACING_MM)
    assert result.targets["liver"].voxels.dice == pytest.approx(scores.dice)
    assert result.targets["liver"].histogram.sum() == counted.sum()


def test_precision_recall_equals_torchmetrics():
    cases = [measured(seed) for seed in (0, 1)]
    precision, recall = precision_recall([case[0] for case in cases], "liver")
    scores = torch.from_numpy(np.concatenate([case[3][0].ravel() for case in cases]))
    truth = torch.from_numpy(np.concatenate([(case[1] >= 1).ravel() for case in cases])).long()
    thresholds = torch.arange(NUM_BINS) / NUM_BINS
    expected = binary_precision_recall_curve(scores.double(), truth, thresholds=thresholds.double())
    found = expected[1][:-1].flip(0) > 0
    np.testing.assert_allclose(recall, expected[1][:-1].flip(0).numpy(), atol=2e-3)
    np.testing.assert_allclose(precision[found], expected[0][:-1].flip(0)[found].numpy(), atol=2e-3)


def test_a_made_up_target_is_infinitely_far_and_never_averaged_away():
    missed, _, _, _ = measured(empty=True)
    made_up = missed.targets["tumour"]
    assert made_up.voxels.dice == 0
    assert made_up.hd95_mm == math.inf
    row = summarise([measured()[0], missed], REGIONS)
    assert math.isfinite(row["hd95_mm_liver"])
    assert row["hd95_mm_tumour"] == math.inf
    assert row["dice"] == pytest.approx((measured()[0].dice + missed.dice) / 2)


def test_slices_are_cut_at_the_same_places_whatever_is_predicted():
    result, label, prediction, _ = measured()
    assert result.slices.positions == (2, 2, 3)
    np.testing.assert_array_equal(result.slices.label[2], label[:, :, 3])
    np.testing.assert_array_equal(result.slices.prediction[2], prediction[:, :, 3])
    assert result.slices.spacing_mm == (1.0, 2.0)


def test_slices_of_an_empty_reference_are_spread_over_the_volume():
    empty = torch.zeros((12, 9, 17), dtype=torch.uint8)
    image = torch.arange(12 * 9 * 17, dtype=torch.float32).reshape(1, 12, 9, 17)
    probabilities = torch.zeros((2, *empty.shape))
    result = measure_case("c", image, empty, probabilities, empty, REGIONS, SPACING_MM, 0)
    assert result.slices.positions == (3, 6, 8)
    assert result.slices.spacing_mm == (2.0, 3.5)
    np.testing.assert_array_equal(result.slices.image[1], image[0, 6])
    assert math.isnan(result.dice)

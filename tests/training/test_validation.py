"""What a validation measures equals what independent libraries and the scoring room say of the same masks."""

import math

import numpy as np
import pytest
import torch
from tiny_networks import describe, plan_network
from torch.utils._python_dispatch import TorchDispatchMode
from torchmetrics.functional.classification import binary_precision_recall_curve
from whole_volumes import logits_of

from medunet.inference.restore import to_label_map
from medunet.networks.builder import build_network, to_probabilities
from medunet.records.description import Description
from medunet.records.plan import Plan
from medunet.scoring.masks import score_masks
from medunet.training.losses import SegmentationLoss
from medunet.training.validation import NUM_BINS, CaseResult, precision_recall, summarise, validate_case
from medunet.training.windows import choose_windows
from medunet.transforms.patches import PreparedCase, find_locations

SPACING_MM = (1.0, 2.0, 3.5)
SHAPE = (13, 11, 7)
REGIONS = Description.parse(
    {"name": "r", "layout": "pairs", "channels": {"MR": {"modality": "MR"}},
     "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 9},
     "regions": {"liver": ["liver", "tumour"], "tumour": ["tumour"]}, "region_order": ["liver", "tumour"]},
    "test",
)  # fmt: skip
PLAN = plan_network("plain", description=REGIONS, spacing_mm=SPACING_MM, planning={"patch_size": (16, 16, 8)})


def case_of(image: np.ndarray, label: np.ndarray, description: Description = REGIONS) -> PreparedCase:
    return PreparedCase("c", image, label, find_locations(label, description.targets, (0,)))


def as_logits(image: torch.Tensor) -> torch.Tensor:
    """Stand for a network that reads its probabilities off the image's channels."""
    return image.logit()


def measured(seed: int = 0, *, empty: bool = False, ignore: bool = False, plan: Plan = PLAN):
    rng = np.random.default_rng(seed)
    label = np.zeros(SHAPE, np.uint8)
    label[2:9, 3:8, 1:5] = 1
    label[4:7, 4:6, 2:4] = 2
    probabilities = np.stack(
        [np.clip((label >= value) * 0.6 + rng.uniform(0.01, 0.39, SHAPE), 0, 0.99) for value in (1, 2)]
    )
    probabilities = np.roll(probabilities, 1, axis=1).astype(np.float32)
    if empty:
        label[label == 2] = 1
    if ignore:
        label[:, :, 4:] = 9
    prediction = (probabilities[0] > 0.5).astype(np.uint8)
    prediction[probabilities[1] > 0.5] = 2
    case = case_of(probabilities, label)
    windows = choose_windows(case, plan, None, seed=0)
    result = validate_case(case, windows, as_logits, SegmentationLoss(REGIONS), plan, REGIONS, batch_size=2)
    return result, label, prediction, probabilities


SLICES = plan_network("plain", 2, description=REGIONS, spacing_mm=SPACING_MM)
SMALL_WINDOWS = {
    "one window": PLAN,
    "many windows": PLAN.model_copy(update={"patch_size": (8, 4, 4)}),
    "slices": SLICES.model_copy(update={"patch_size": (8, 4)}),
}


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize("name", SMALL_WINDOWS)
def test_equal_to_the_scoring_room_whatever_the_windows(name: str, ignore: bool):
    result, label, prediction, probabilities = measured(plan=SMALL_WINDOWS[name], ignore=ignore)
    counted = label != 9
    for number, (target, low) in enumerate((("liver", 1), ("tumour", 2))):
        masks = (label >= low) & counted, (prediction >= low) & counted
        scores = score_masks(*masks, SPACING_MM)
        found = result.targets[target]
        for key in ("dice", "iou", "precision", "recall"):
            assert getattr(found.voxels, key) == pytest.approx(getattr(scores, key)), (target, key)
        assert found.hd95_mm == pytest.approx(scores.hd95_mm)
        assert sum(vars(found.voxels).values()) == found.histogram.sum() == counted.sum()
        values = probabilities[number].astype(np.float64)
        for row, inside in enumerate((~masks[0] & counted, masks[0])):
            expected = np.histogram(values[inside], NUM_BINS, (0, 1))[0]
            assert np.abs(found.histogram[row] - expected).sum() <= 2  # a value may lie on an edge


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


NETWORKS = {
    "3D": ("plain", 3, {}),
    "2D": ("plain", 2, {}),
    "2.5D": ("plain", 2, {"context_slices": 3}),
    "unpadded": ("unet_2015", 2, {}),
}


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_case_of_one_window_scores_as_prediction_does(name: str, regions: bool):
    network_name, dimensions, planning = NETWORKS[name]
    description = describe(regions=regions)
    plan = plan_network(network_name, dimensions, description=description, planning=planning)
    torch.manual_seed(0)
    network = build_network(plan, description).eval()
    shape = [length - 3 for length in plan.output_size]
    if dimensions == 2:
        shape.insert(plan.slice_axis, 4)
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, shape).astype(np.uint8)
    case = case_of(rng.normal(size=(1, *shape)).astype(np.float32), label, description)
    with torch.no_grad():
        result = validate_case(
            case, choose_windows(case, plan, None, 0), network, SegmentationLoss(description), plan, description,
            batch_size=3,
        )  # fmt: skip
    logits = logits_of(network, torch.from_numpy(case.image), plan)
    expected = to_probabilities(logits, description, channel_axis=0)
    predicted = to_label_map(expected, description).numpy()
    for target, values in description.targets.items():
        scores = score_masks(np.isin(label, values), np.isin(predicted, values), plan.spacing_mm)
        assert vars(result.targets[target].voxels) == {
            key: getattr(scores, key) for key in ("tp", "fp", "fn", "tn")
        }
        assert result.targets[target].hd95_mm == pytest.approx(scores.hd95_mm, nan_ok=True)


def test_windows_of_a_partly_covered_case_are_counted_once_and_have_no_outline():
    plan = SMALL_WINDOWS["many windows"]
    _, label, _, probabilities = measured()
    case = case_of(probabilities, label)
    windows = choose_windows(case, plan, 5, seed=0)
    result = validate_case(case, windows, as_logits, SegmentationLoss(REGIONS), plan, REGIONS, batch_size=2)
    seen = np.zeros(SHAPE, bool)
    for window in windows:
        seen[window.box] = True
    inside = (label >= 1) & seen
    found = result.targets["liver"]
    assert found.voxels.tp + found.voxels.fn == inside.sum()
    assert sum(vars(found.voxels).values()) == found.histogram.sum() == seen.sum() < seen.size
    assert math.isnan(found.hd95_mm)
    assert math.isnan(summarise([result], REGIONS)["hd95_mm_liver"])
    shown = result.slices  # a window's own voxels, none that was not predicted
    assert shown.label.shape[1:] in {window_shape(window.box) for window in windows}
    assert (shown.label > 0).any()


def window_shape(box: tuple[slice, ...]) -> tuple[int, int]:
    return box[0].stop - box[0].start, box[1].stop - box[1].start


def test_the_loss_is_the_trainings_on_the_windows_logits():
    plan = SMALL_WINDOWS["many windows"]
    _, label, _, probabilities = measured()
    case = case_of(
        np.clip(probabilities * 1.2, 0, 1), label
    )  # infinite logits: no probability says how large
    windows = choose_windows(case, plan, 3, seed=0)
    given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def loss(logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        given.append((logits[0], labels))
        return labels.float().mean()

    result = validate_case(case, windows, lambda image: 100 * image - 50, loss, plan, REGIONS, batch_size=2)
    assert [len(labels) for _, labels in given] == [2, 1]
    assert max(float(logits.max()) for logits, _ in given) > 30
    sizes = {tuple(labels.shape[1:]) for _, labels in given}
    assert sizes == {(1, *plan.patch_size)}
    means = [float(each.float().mean()) for _, labels in given for each in labels]
    assert result.loss == pytest.approx(sum(means) / 3)


def test_windows_of_air_are_computed_once_and_counted_each():
    plan = SMALL_WINDOWS["many windows"]
    _, label, _, probabilities = measured()
    probabilities[:, :, 7:] = 0.25  # the last of three windows along the second axis
    case, batches = case_of(probabilities, label), []

    def counted(image: torch.Tensor) -> torch.Tensor:
        batches.append(len(image))
        return image.logit()

    given = SegmentationLoss(REGIONS), plan, REGIONS
    windows = choose_windows(case, plan, None, seed=0)
    found = validate_case(case, windows, counted, *given, batch_size=2)
    assert (len(windows), sum(batches)) == (12, 12 - 4 + 1)
    marked = case_of(
        np.concatenate([probabilities, np.random.default_rng(0).normal(size=(1, *SHAPE))], 0), label
    )
    every = validate_case(marked, windows, lambda image: image[:, :2].logit(), *given, batch_size=2)
    assert found.loss == pytest.approx(every.loss, abs=1e-6)
    for name, target in found.targets.items():
        assert target.voxels == every.targets[name].voxels
        assert np.array_equal(target.histogram, every.targets[name].histogram)


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation returns."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, torch.Tensor):
                self.num_bytes = max(self.num_bytes, each.numel() * each.element_size())
        return result


def test_of_many_classes_one_batch_of_windows_is_held_and_no_volume():
    names = {"background": 0} | {f"class_{number}": number for number in range(1, 118)}
    description = Description.parse(
        {"name": "many", "layout": "pairs", "channels": {"MR": {"modality": "MR"}}, "labels": names}, "test"
    )
    plan = plan_network("plain", description=description, planning={"patch_size": (16, 16, 8)})
    shape = (160, 144, 96)
    label = np.zeros(shape, np.uint8)
    label[:60, :60, :40] = np.arange(60, dtype=np.uint8)[:, None, None] * 2 % 118
    case = case_of(np.zeros((1, *shape), np.float32), label, description)
    window_bytes = 118 * math.prod(plan.patch_size) * 4
    with Largest() as largest:
        result = validate_case(
            case, choose_windows(case, plan, 5, 0), lambda image: image.expand(-1, 118, -1, -1, -1) + 0,
            SegmentationLoss(description), plan, description, batch_size=2,
        )  # fmt: skip
    assert (
        largest.num_bytes <= 2 * 2 * window_bytes
    )  # a batch; of the label's classes an index may be as large again
    assert largest.num_bytes < 118 * math.prod(shape) * 4 / 100
    assert len(result.targets) == 117


def result_of(image: np.ndarray, label: np.ndarray, axis: int) -> CaseResult:
    plan = PLAN.model_copy(update={"slice_axis": axis, "patch_size": (32, 32, 32)})
    case = case_of(image, label)
    windows = choose_windows(case, plan, None, 0)

    def nothing(image: torch.Tensor) -> torch.Tensor:
        return torch.full((len(image), 2, *image.shape[2:]), -9.0)

    return validate_case(case, windows, nothing, SegmentationLoss(REGIONS), plan, REGIONS, batch_size=1)


def test_slices_are_cut_at_the_same_places_whatever_is_predicted():
    result, label, prediction, _ = measured()
    assert result.slices.positions == (2, 2, 3)
    np.testing.assert_array_equal(result.slices.label[2], label[:, :, 3])
    np.testing.assert_array_equal(result.slices.prediction[2], prediction[:, :, 3])
    assert result.slices.spacing_mm == (1.0, 2.0)


def test_slices_of_an_empty_reference_are_spread_over_the_volume():
    image = np.arange(12 * 9 * 17, dtype=np.float32).reshape(1, 12, 9, 17)
    result = result_of(image, np.zeros(image.shape[1:], np.uint8), 0)
    assert result.slices.positions == (3, 6, 8)
    assert result.slices.spacing_mm == (2.0, 3.5)
    np.testing.assert_array_equal(result.slices.image[1], image[0, 6])
    assert math.isnan(result.dice)

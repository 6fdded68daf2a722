"""Losses against MONAI's own, at several scales."""

import pytest
import torch
from conftest import REPOSITORY
from monai.losses import DiceCELoss, DiceLoss

from medunet.records import Description, load_description
from medunet.training.losses import SegmentationLoss

REGIONS = load_description("brats_2018_2021", REPOSITORY / "data_manifests")
LABELS: Description = REGIONS.model_copy(update={"regions": {}, "region_order": ()})
SIZE = (8, 12, 6)


def random_label() -> torch.Tensor:
    values = torch.tensor([0, 1, 2, 4], dtype=torch.uint8)
    return values[torch.randint(0, 4, (2, 1, *SIZE))]


def test_exclusive_labels_equal_monais_dice_ce():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 4, *SIZE), random_label()
    classes = torch.where(label == 4, 3, label).float()
    expected = DiceCELoss(softmax=True, to_onehot_y=True, include_background=False)
    # MONAI leaves the background out of its cross-entropy too, so the two parts are taken apart.
    dice = DiceLoss(softmax=True, to_onehot_y=True, include_background=False)(logits, classes)
    cross_entropy = expected.ce(logits, classes)
    assert float(SegmentationLoss(LABELS)([logits], label)) == pytest.approx(
        float(dice + cross_entropy), abs=1e-5
    )


def test_regions_equal_monais_dice_and_binary_cross_entropy():
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, *SIZE), random_label()
    regions = torch.cat([(label > 0), (label == 1) | (label == 4), label == 4], 1).float()
    dice = DiceLoss(sigmoid=True)(logits, regions)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, regions)
    assert float(SegmentationLoss(REGIONS)([logits], label)) == pytest.approx(float(dice + entropy), abs=1e-5)


def test_scales_weigh_one_half_and_a_quarter():
    torch.manual_seed(0)
    loss, label = SegmentationLoss(LABELS), random_label()
    outputs = [torch.randn(2, 4, *(n // 2**i for n in (8, 12, 8))) for i in range(3)]
    label = torch.nn.functional.pad(label, (0, 2))
    resized = [
        torch.nn.functional.interpolate(label.float(), each.shape[2:], mode="nearest-exact")
        for each in outputs
    ]
    apart = [float(loss([output], small)) for output, small in zip(outputs, resized, strict=True)]
    expected = (apart[0] + apart[1] / 2 + apart[2] / 4) / 1.75
    assert float(loss(outputs, label)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("description", [LABELS, REGIONS], ids=["labels", "regions"])
def test_a_perfect_prediction_costs_almost_nothing_and_gradients_flow(description):
    label = random_label()
    targets = torch.cat(
        [torch.isin(label, torch.tensor(v, dtype=torch.uint8)) for v in description.targets.values()], 1
    )
    if not description.regions:
        targets = torch.cat([label == 0, targets], 1)
    logits = (targets.float() * 40 - 20).requires_grad_()
    value = SegmentationLoss(description)([logits], label)
    assert float(value.detach()) < 1e-3
    wrong = torch.zeros_like(logits, requires_grad=True)
    SegmentationLoss(description)([wrong], label).backward()
    assert torch.isfinite(wrong.grad).all()
    assert wrong.grad.abs().sum() > 0


def test_a_batch_is_the_mean_of_its_samples():
    torch.manual_seed(0)
    loss, logits, label = SegmentationLoss(REGIONS), torch.randn(2, 3, *SIZE), random_label()
    apart = [float(loss([logits[i : i + 1]], label[i : i + 1])) for i in range(2)]
    assert float(loss([logits], label)) == pytest.approx(sum(apart) / 2, abs=1e-5)

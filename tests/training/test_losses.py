"""Losses against MONAI's own and numbers worked out by hand, at several scales, with weights and ignored voxels."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss, FocalLoss, HausdorffDTLoss, TverskyLoss

from medunet.base.errors import DataError, InputError
from medunet.records.config import LossName
from medunet.records.description import Description, load_description
from medunet.training.losses import SegmentationLoss

REGIONS = load_description("brats_2018_2021")
LABELS: Description = REGIONS.model_copy(update={"regions": {}, "region_order": (), "shown_in": {}})
SIZE = (8, 12, 6)
SIZES = ((8, 12, 6), (4, 6, 3), (2, 3, 1))
ONE_LABEL = LABELS.model_copy(update={"labels": {"background": 0, "liver": 2}})


def each_loss(*left_out: str) -> pytest.MarkDecorator:
    """Run a test with every loss on each head that it fits."""
    cases = [
        pytest.param(description, name, id=f"{head}-{name}")
        for head, description, unfit in (
            ("labels", LABELS, ("bce", "dice_bce")),
            ("regions", REGIONS, ("ce", "dice_ce")),
        )
        for name in get_args(LossName)
        if name not in (*unfit, *left_out)
    ]
    return pytest.mark.parametrize(("description", "name"), cases)


def ignoring(description: Description) -> Description:
    return Description.model_validate(
        description.to_dict() | {"labels": dict(description.labels) | {"ignore": 255}}
    )


def random_label(size: tuple[int, ...] = SIZE, batch: int = 2) -> torch.Tensor:
    values = torch.tensor([0, 1, 2, 4], dtype=torch.uint8)
    return values[torch.randint(0, 4, (batch, 1, *size))]


def block_label(size: tuple[int, ...] = SIZE) -> torch.Tensor:
    """Return one sample with an outline in it, which noise has not."""
    label = torch.zeros((1, 1, *size), dtype=torch.uint8)
    label[:, :, 2:6, 3:9] = 1
    label[:, :, 3:5, 4:6] = 4
    return label


def random_logits(description: Description, batch: int = 2, sizes: tuple = (SIZE,)) -> list[torch.Tensor]:
    channels = 3 if description.regions else 4
    return [torch.randn(batch, channels, *size) for size in sizes]


def reference_of(description: Description, label: torch.Tensor) -> torch.Tensor:
    """Return one-hot labels as MONAI takes them, background first where labels exclude one another."""
    if description.regions:
        return torch.cat([label > 0, (label == 1) | (label == 4), label == 4], 1).float()
    return torch.cat([label == value for value in (0, 1, 2, 4)], 1).float()


def monais(
    loss: Callable[..., torch.nn.Module], description: Description, **options: object
) -> torch.nn.Module:
    softmax = not description.regions
    return loss(softmax=softmax, sigmoid=not softmax, include_background=not softmax, **options)


@pytest.mark.parametrize("description", [LABELS, REGIONS], ids=["labels", "regions"])
def test_the_usual_loss_is_monais_dice_and_cross_entropy(description: Description) -> None:
    torch.manual_seed(0)
    outputs, label = random_logits(description, sizes=SIZES), random_label()
    expected = 0.0
    for weight, output in zip((4 / 7, 2 / 7, 1 / 7), outputs, strict=True):
        small = F.interpolate(label.float(), output.shape[2:], mode="nearest-exact")
        reference = reference_of(description, small)
        if description.regions:
            entropy = F.binary_cross_entropy_with_logits(output, reference)
        else:
            entropy = F.cross_entropy(output, reference.argmax(1))
        expected += weight * float(monais(DiceLoss, description)(output, reference) + entropy)
    assert float(SegmentationLoss(description)(outputs, label)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("description", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("size", [(8, 12, 6), (8, 12)], ids=["3d", "2d"])
def test_the_other_losses_are_monais(description: Description, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    (logits,), label = random_logits(description, sizes=(size,)), random_label(size)
    reference = reference_of(description, label)
    tversky = monais(TverskyLoss, description, alpha=0.3, beta=0.7, reduction="none")(logits, reference)
    classes = 1 if description.regions else 4
    focal = FocalLoss(gamma=2.0, use_softmax=not description.regions)(logits, reference) * classes
    dice = monais(DiceLoss, description)(logits, reference)
    expected = {
        "dice": dice,
        "focal": focal,
        "dice_focal": dice + focal,
        "tversky": tversky.mean(),
        "focal_tversky": (tversky**0.75).mean(),
    }
    found = {name: float(SegmentationLoss(description, name)([logits], label)) for name in expected}
    assert found == {name: pytest.approx(float(value), abs=1e-6) for name, value in expected.items()}


@pytest.mark.parametrize("description", [LABELS, REGIONS], ids=["labels", "regions"])
@pytest.mark.parametrize("size", [(8, 12, 6), (8, 12)], ids=["3d", "2d"])
def test_distances_are_monais_and_weigh_as_much_as_dice(
    description: Description, size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    label = block_label(size)
    logits = random_logits(description, 1, (size,))[0].requires_grad_()
    reference = reference_of(description, label)
    dice = monais(DiceLoss, description)(logits, reference)
    distance = monais(HausdorffDTLoss, description)(logits, reference)
    loss = SegmentationLoss(description, "hausdorff_dt")
    value = loss([logits], label)
    assert float(loss.last_terms["hausdorff"]) == pytest.approx(float(distance.detach()), rel=1e-5)
    assert float(value.detach()) == pytest.approx(2 * float(dice.detach()), abs=1e-6)
    (found,) = torch.autograd.grad(value, logits)
    (expected,) = torch.autograd.grad(dice + float(dice.detach() / distance.detach()) * distance, logits)
    assert torch.allclose(found, expected, atol=1e-7)


# Two voxels: the first is liver and believed with 3/4, the second background and taken for liver with 1/2.
TWO_VOXELS = torch.tensor([[[1.0, 1.0], [3.0, 1.0]]]).log()[..., None]
TWO_LABELS = torch.tensor([[[2, 0]]], dtype=torch.uint8)[..., None]


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("ce", {}, (math.log(4 / 3) + math.log(2)) / 2),
        ("ce", {"liver": 3}, (3 * math.log(4 / 3) + math.log(2)) / 4),
        ("ce", {"background": 0}, math.log(4 / 3)),
        ("focal", {}, (math.log(4 / 3) / 16 + math.log(2) / 4) / 2),
        ("focal", {"liver": 3}, (3 * math.log(4 / 3) / 16 + math.log(2) / 4) / 4),
        ("dice", {}, 1 - 1.5 / 2.25),
        ("dice", {"liver": 3}, 1 - 1.5 / 2.25),
        ("dice_ce", {}, 1 - 1.5 / 2.25 + (math.log(4 / 3) + math.log(2)) / 2),
        ("tversky", {}, 1 - 0.75 / (0.75 + 0.3 * 0.5 + 0.7 * 0.25)),
        ("focal_tversky", {}, (1 - 0.75 / (0.75 + 0.3 * 0.5 + 0.7 * 0.25)) ** 0.75),
    ],
)
def test_two_voxels_by_hand(name: LossName, weights: dict[str, float], expected: float) -> None:
    loss = SegmentationLoss(ONE_LABEL, name, weights)
    assert float(loss([TWO_VOXELS], TWO_LABELS)) == pytest.approx(expected, abs=2e-5)  # smoothing of 1e-5


def test_weights_of_regions_by_hand() -> None:
    """One voxel in the whole tumour alone; its probabilities are 3/4, 1/2 and 1/4."""
    logits = torch.tensor([3.0, 1.0, 1 / 3]).log().view(1, 3, 1, 1)
    label = torch.full((1, 1, 1, 1), REGIONS.labels["oedema"], dtype=torch.uint8)
    costs = math.log(4 / 3), math.log(2), math.log(4 / 3)
    loss = SegmentationLoss(REGIONS, "bce", {"whole_tumour": 2, "enhancing_tumour": 0})
    assert float(loss([logits], label)) == pytest.approx((2 * costs[0] + costs[1]) / 3, abs=1e-6)
    dice = SegmentationLoss(REGIONS, "dice", {"whole_tumour": 2, "enhancing_tumour": 0})
    assert float(dice([logits], label)) == pytest.approx((2 * (1 - 1.5 / 1.75) + 1) / 3, abs=3e-5)


def test_scales_weigh_one_half_and_a_quarter() -> None:
    torch.manual_seed(0)
    loss, outputs, label = SegmentationLoss(LABELS), random_logits(LABELS, sizes=SIZES), random_label()
    resized = [F.interpolate(label.float(), each.shape[2:], mode="nearest-exact") for each in outputs]
    apart = [float(loss([output], small)) for output, small in zip(outputs, resized, strict=True)]
    expected = (apart[0] + apart[1] / 2 + apart[2] / 4) / 1.75
    assert float(loss(outputs, label)) == pytest.approx(expected, abs=1e-6)
    assert [float(value) for value in loss.last_scales] == pytest.approx(apart, abs=1e-6)
    assert list(loss.last_terms) == ["dice", "ce"]
    assert float(sum(loss.last_terms.values())) == pytest.approx(apart[0], abs=1e-6)


@each_loss()
def test_a_batch_is_the_mean_of_its_parts(description: Description, name: LossName) -> None:
    torch.manual_seed(0)
    outputs = random_logits(description, 4, SIZES)
    label = torch.cat([random_label(batch=2), block_label(), block_label().flip(2)])
    label[0, :, :3], label[2, :, :, 5:] = 255, 255
    weights = {next(iter(description.targets)): 3.0}
    loss = SegmentationLoss(ignoring(description), name, weights)
    halves = [
        float(loss([output[part] for output in outputs], label[part])) for part in (slice(2), slice(2, 4))
    ]
    assert halves[0] != pytest.approx(halves[1], abs=1e-3)
    assert float(loss(outputs, label)) == pytest.approx(sum(halves) / 2, abs=1e-6)


@each_loss()
def test_ignored_voxels_give_no_gradient(description: Description, name: LossName) -> None:
    torch.manual_seed(0)
    outputs = [output.requires_grad_() for output in random_logits(description, 1, SIZES)]
    label = block_label()
    label[:, :, :, 6:] = 255
    SegmentationLoss(ignoring(description), name)(outputs, label).backward()
    for output in outputs:
        half = output.shape[3] // 2
        assert output.grad is not None
        assert not output.grad[:, :, :, half + 1 :].any()
        assert output.grad[:, :, :, :half].any()


@each_loss("hausdorff_dt")  # a cut is an outline within the volume, but not at its border
def test_ignored_voxels_are_as_if_cut_off(description: Description, name: LossName) -> None:
    torch.manual_seed(0)
    (logits,), label = random_logits(description), random_label()
    weights = {next(iter(description.targets)): 3.0}
    expected = float(SegmentationLoss(description, name, weights)([logits[:, :, :5]], label[:, :, :5]))
    label[:, :, 5:] = 255
    assert float(SegmentationLoss(ignoring(description), name, weights)([logits], label)) == pytest.approx(
        expected, abs=1e-6
    )


@each_loss()
@pytest.mark.parametrize("value", [0, 255], ids=["empty", "all ignored"])
@pytest.mark.parametrize("size", [(8, 12, 6), (8, 12)], ids=["3d", "2d"])
def test_labels_without_targets(
    description: Description, name: LossName, value: int, size: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    logits = random_logits(description, 1, (size,))[0].requires_grad_()
    loss = SegmentationLoss(ignoring(description), name)
    cost = loss([logits], torch.full((1, 1, *size), value, dtype=torch.uint8))
    cost.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    if value == 0:
        assert 0 < float(cost.detach()) < 10
    else:
        assert not logits.grad.any()
        assert float(cost.detach()) == pytest.approx(0, abs=1e-4)


@each_loss()
@pytest.mark.parametrize("right", [True, False], ids=["right", "wrong"])
def test_gradients_are_finite_however_sure_the_network_is(
    description: Description, name: LossName, right: bool
) -> None:
    label = block_label()
    logits = (reference_of(description, label) * 2 - 1) * (1e4 if right else -1e4)
    logits.requires_grad_()
    cost = SegmentationLoss(description, name)([logits], label)
    cost.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert float(cost.detach()) < 1e-3 if right else float(cost.detach()) > 0.5


@each_loss()
def test_gradients_flow_where_nothing_is_known_yet(description: Description, name: LossName) -> None:
    logits = torch.zeros_like(random_logits(description, 1)[0], requires_grad=True)
    SegmentationLoss(description, name)([logits], block_label()).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.any()


@each_loss()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(
    description: Description, name: LossName, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    half, label = random_logits(description, 1)[0].to(dtype), block_label()
    loss = SegmentationLoss(description, name)
    value = loss([half], label)
    assert value.dtype == torch.float32
    assert float(value) == float(loss([half.float()], label))


def test_undeclared_values_are_refused_and_never_background() -> None:
    label = block_label()
    label[..., 0, 0, 0], label[..., 1, 0, 0] = 3, 77
    with pytest.raises(DataError, match=r"label values \[3, 77\] are not among the declared \[0, 1, 2, 4\]"):
        SegmentationLoss(LABELS)(random_logits(LABELS, 1), label)
    with pytest.raises(DataError, match="255"):
        SegmentationLoss(LABELS).check_label(torch.full_like(label, 255))


def test_a_loss_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="softmax"):
        SegmentationLoss(REGIONS, "dice_ce")


def test_a_loss_is_no_part_of_the_weights() -> None:
    assert SegmentationLoss(LABELS).state_dict() == {}

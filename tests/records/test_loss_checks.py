"""Loss, head, labels and class weights: what fits, and how to fix it where it does not."""

from collections.abc import Mapping
from typing import get_args

import pytest

from medunet.base.errors import InputError
from medunet.records.config import LossName, change_config
from medunet.records.description import Description
from medunet.records.loss_checks import check_loss, check_mirroring, resolve_loss

PLAIN = {
    "name": "liver",
    "layout": "pairs",
    "channels": {"CT": {"modality": "CT"}},
    "labels": {"background": 0, "liver": 1, "tumour": 2, "ignore": 255},
}
LABELS = Description.model_validate(PLAIN)
REGIONS = Description.model_validate(
    PLAIN
    | {
        "regions": {"organ": ("liver", "tumour"), "tumour": ("tumour",)},
        "region_order": ("organ", "tumour"),
    }
)


@pytest.mark.parametrize("name", get_args(LossName))
def test_each_loss_fits_its_head(name: LossName) -> None:
    for description, unfit in ((LABELS, ("bce", "dice_bce")), (REGIONS, ("ce", "dice_ce"))):
        if name in unfit:
            with pytest.raises(InputError, match=f"{name} .*auto"):
                check_loss(name, description, {})
        else:
            check_loss(name, description, {"tumour": 2.0})


def test_auto_follows_the_labels() -> None:
    assert (resolve_loss("auto", LABELS), resolve_loss("auto", REGIONS)) == ("dice_ce", "dice_bce")
    assert resolve_loss("focal", REGIONS) == "focal"


@pytest.mark.parametrize(
    ("name", "description", "hint"),
    [
        ("dice_ce", REGIONS, r"regions organ, tumour.*dice_bce \(sigmoid\) for regions"),
        ("ce", REGIONS, r"auto\. Suitable: bce \(sigmoid\) for regions"),
        (
            "bce",
            LABELS,
            r"mutually exclusive labels.*ce \(softmax\) for .*, or declared regions",
        ),
        ("dice_bce", LABELS, r"dice_ce \(softmax\)"),
    ],
)
def test_the_hint_names_the_loss_that_fits(name: LossName, description: Description, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        check_loss(name, description, {})


@pytest.mark.parametrize(
    ("name", "description", "weights", "message"),
    [
        ("auto", LABELS, {"lever": 2, "ignore": 1}, r"lever, ignore not.*background, liver, tumour only"),
        ("auto", REGIONS, {"background": 2}, r"background not included.*organ, tumour only"),
        ("auto", REGIONS, {"liver": 2}, r"liver not included"),
        ("dice", LABELS, {"background": 2}, r"background not included.*liver, tumour only"),
        ("ce", LABELS, {"liver": 0, "tumour": 0}, "every target has weight 0"),
    ],
)
def test_weights_that_would_do_nothing_are_refused(
    name: LossName, description: Description, weights: Mapping[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_loss(name, description, weights)


@pytest.mark.parametrize("name", ["auto", "ce", "focal", "dice_focal"])
def test_background_may_weigh_where_it_is_a_class(name: LossName) -> None:
    check_loss(name, LABELS, {"background": 0.1, "liver": 1, "tumour": 5})


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(InputError, match=r"training\.loss: bce.*training\.class_weights: spleen"):
        check_loss("bce", LABELS, {"spleen": 1})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (["training.mirror=[left_right]", "inference.mirror=[left_right]"], None),
        (["inference.mirror=[posterior_anterior]"], None),
        (["training.mirror=false", "inference.mirror=[left_right]"], r"\['left_right'\], which training"),
        (["training.mirror=[left_right]", "inference.mirror=[inferior_superior]"], "which training does not"),
        (["training.augment=false", "inference.mirror=[left_right]"], "which training does not"),
    ],
)
def test_only_what_training_mirrors_is_predicted_mirrored(changes: list[str], fault: str | None) -> None:
    config = change_config({"dataset": "liver"}, changes, "test")
    if fault is None:
        check_mirroring(config, LABELS)
    else:
        with pytest.raises(InputError, match=fault):
            check_mirroring(config, LABELS)


def test_sided_labels_are_not_mirrored_by_name() -> None:
    sided = LABELS.model_copy(update={"sided": True})
    config = change_config({"dataset": "liver"}, ["training.mirror=[left_right]"], "test")
    with pytest.raises(InputError, match="would swap them"):
        check_mirroring(config, sided)
    check_mirroring(change_config({"dataset": "liver"}, [], "test"), sided)

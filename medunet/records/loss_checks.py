"""Checks that loss, class weights and mirroring suit the labels, before training and without loading torch.

Regions may overlap, so each has its own probability (sigmoid head). Mutually exclusive labels and the background
share one distribution (softmax head).
"""

from collections.abc import Mapping

from medunet.base.errors import InputError
from medunet.records.config import Config, LossName
from medunet.records.description import Description

_SIGMOID_FORM = {"ce": "bce", "dice_ce": "dice_bce"}  # losses that need a softmax head -> for a sigmoid head
_SOFTMAX_FORM = {sigmoid: softmax for softmax, sigmoid in _SIGMOID_FORM.items()}
_WITH_BACKGROUND = (
    "ce",
    "dice_ce",
    "focal",
    "dice_focal",
)  # with a softmax head, these include the background


def resolve_loss(name: LossName, description: Description) -> LossName:
    """Return the loss to use: "auto" becomes dice_bce for regions and dice_ce otherwise."""
    if name != "auto":
        return name
    return "dice_bce" if description.regions else "dice_ce"


def find_head_mismatch(name: str, description: Description) -> tuple[str, str] | None:
    """Return descriptions of a loss that does not suit the head and of one that does; None if it suits."""
    if name in _SIGMOID_FORM and description.regions:
        measured = f"{name} (softmax) with the regions {', '.join(description.targets)}"
        return measured, f"{_SIGMOID_FORM[name]} (sigmoid) for regions"
    if name in _SOFTMAX_FORM and not description.regions:
        measured = f"{name} (sigmoid) with mutually exclusive labels"
        return measured, f"{_SOFTMAX_FORM[name]} (softmax) for mutually exclusive labels, or declared regions"
    return None


def check_loss(name: LossName, description: Description, class_weights: Mapping[str, float]) -> None:
    """Check that loss, labels and class weights are compatible.

    Raises:
        InputError: A softmax loss for regions or a sigmoid loss for mutually exclusive labels, a weight of something
            that is not a target or of a background that the loss does not include, or only zero weights. The
            message names all of them and how to fix them.
    """
    faults, hints = [], []
    if mismatch := find_head_mismatch(name, description):
        measured, expected = mismatch
        faults.append(f"training.loss: {measured}")
        hints.append(f"Set training.loss to auto. Suitable: {expected}.")
    counted = not description.regions and resolve_loss(name, description) in _WITH_BACKGROUND
    known = [*(["background"] if counted else []), *description.targets]
    if unknown := [each for each in class_weights if each not in known]:
        faults.append(f"training.class_weights: {', '.join(unknown)} not included in the loss")
        hints.append(f"Give weights to {', '.join(known)} only.")
    if all(class_weights.get(target, 1.0) == 0 for target in description.targets):
        faults.append("training.class_weights: every target has weight 0")
        hints.append("Give at least one target a weight above 0.")
    if faults:
        raise InputError("; ".join(faults), hint=" ".join(hints))


def check_mirroring(config: Config, description: Description) -> None:
    """Check that mirroring does not swap left and right labels, and that test-time mirroring was also trained.

    Raises:
        InputError: One of the two is violated; the message names each.
    """
    shown, asked = config.training.mirror, config.inference.mirror
    named = shown if isinstance(shown, tuple) else ()
    faults = []
    if description.sided and "left_right" in (*named, *asked):
        faults.append("left and right labels differ, and mirroring left_right would swap them")
    unseen = [axis for axis in asked if shown is not True and axis not in named]
    if unseen or (asked and not config.training.augment):
        faults.append(f"inference.mirror names {unseen or list(asked)}, which training does not mirror")
    if faults:
        raise InputError(
            "; ".join(faults),
            where="training.mirror, inference.mirror",
            hint="Remove the axis from both keys, or name it in both.",
        )

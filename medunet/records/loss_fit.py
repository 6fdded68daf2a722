"""Whether a loss fits the labels and the head that they bring: known before anything is trained, without torch.

Regions may overlap, so each has a probability of its own (sigmoid head); labels that exclude one another, and the
background, share one among them (softmax head).
"""

from collections.abc import Mapping

from medunet.base.errors import InputError
from medunet.records.config import Config, LossName
from medunet.records.description import Description

_SIGMOID_FORM = {"ce": "bce", "dice_ce": "dice_bce"}  # of the losses that need a softmax head ...
_SOFTMAX_FORM = {sigmoid: softmax for softmax, sigmoid in _SIGMOID_FORM.items()}  # ... and a sigmoid head
_WITH_BACKGROUND = ("ce", "dice_ce", "focal", "dice_focal")  # whose softmax form counts background voxels


def resolve_loss(name: LossName, description: Description) -> LossName:
    """Return the loss that "auto" stands for: dice_bce for regions, else dice_ce; any other is itself."""
    if name != "auto":
        return name
    return "dice_bce" if description.regions else "dice_ce"


def find_head_misfit(name: str, description: Description) -> tuple[str, str] | None:
    """Return what does not fit between loss and head and what would, in words; None where they fit."""
    if name in _SIGMOID_FORM and description.regions:
        measured = f"{name} (softmax) with the regions {', '.join(description.targets)}"
        return measured, f"{_SIGMOID_FORM[name]} (sigmoid) for regions"
    if name in _SOFTMAX_FORM and not description.regions:
        measured = f"{name} (sigmoid) with labels that exclude one another"
        return measured, f"{_SOFTMAX_FORM[name]} (softmax) for exclusive labels, or declared regions"
    return None


def check_loss(name: LossName, description: Description, class_weights: Mapping[str, float]) -> None:
    """Check that loss, head, labels and class weights fit one another.

    Raises:
        InputError: a softmax loss for regions or a sigmoid loss for exclusive labels, a weight of what is no target
            or of a background that the loss does not count, or no target with a weight; names all with how to fix it.
    """
    faults, hints = [], []
    if misfit := find_head_misfit(name, description):
        measured, expected = misfit
        faults.append(f"training.loss: {measured}")
        hints.append(f"Set training.loss to auto: what fits is {expected}.")
    counted = not description.regions and resolve_loss(name, description) in _WITH_BACKGROUND
    known = [*(["background"] if counted else []), *description.targets]
    if unknown := [each for each in class_weights if each not in known]:
        faults.append(f"training.class_weights: {', '.join(unknown)} not counted by the loss")
        hints.append(f"Give weights to {', '.join(known)} only.")
    if all(class_weights.get(target, 1.0) == 0 for target in description.targets):
        faults.append("training.class_weights: every target weighs 0")
        hints.append("Give one a weight above 0.")
    if faults:
        raise InputError("; ".join(faults), hint=" ".join(hints))


def check_mirroring(config: Config, description: Description) -> None:
    """Refuse to mirror what has a side, or to predict mirror images that training never showed.

    Raises:
        InputError: names both, where both are so.
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
            hint="Leave the axis out of both, or name it in both.",
        )

"""Name the classes that none of a fold's preprocessed training cases has: the network cannot learn to find them."""

from collections.abc import Collection, Sequence

from medunet.base.words import list_some
from medunet.transforms.patches import PreparedCase

_MAX_NAMES = 8


def describe_absent(training: Sequence[PreparedCase], targets: Collection[str], fold: int | str) -> str:
    """Return which targets occur in none of the training cases, on the network's grid; "" if all occur."""
    present = {name for case in training for name in case.locations}
    absent = [name for name in targets if name not in present]
    if not absent:
        return ""
    return (
        f"Fold {fold} trains without {list_some(absent, _MAX_NAMES)}: none of its {len(training)} training "
        "cases has a voxel of it after preprocessing, so that the model cannot find it."
    )

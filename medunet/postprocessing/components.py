"""Stray pieces taken out of a predicted label map, target by target.

Exclusive labels turn into background where a piece is removed. Nested regions keep their order: a piece taken
from the inner one (tumour) becomes the outer one (liver), and one taken from the outer one takes along what
lies within it.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from medunet.config import PostprocessConfig
from medunet.errors import InputError
from medunet.imaging.components import largest_component, remove_small_components


def tidy_labels(
    label_map: NDArray[np.uint8],
    targets: Mapping[str, tuple[int, ...]],
    written_values: Mapping[str, int],
    rules: Mapping[str, PostprocessConfig],
    spacing_mm: tuple[float, ...],
) -> NDArray[np.uint8]:
    """Return a label map `(I, J, K)` tidied by the rule of each target that has one; the input stays as it is.

    `targets` are the label values that each target unites and `written_values` the value that stands for it,
    both in the order in which they are painted. Pieces are 26-connected.

    Raises:
        InputError: a rule for a target that does not exist.
    """
    if unknown := [name for name in rules if name not in targets]:
        raise InputError(
            f"postprocessing names {unknown}, which are not predicted", mend=f"Choose from {list(targets)}."
        )
    voxel_ml = math.prod(spacing_mm) / 1000
    tidied: dict[str, NDArray[np.bool_]] = {}
    painted = np.zeros_like(label_map)
    for name in written_values:
        mask = np.isin(label_map, targets[name])
        for outer in tidied:
            if set(targets[name]) < set(targets[outer]):
                mask &= tidied[outer]
        tidied[name] = _tidy_mask(mask, rules[name], voxel_ml) if name in rules else mask
        painted[tidied[name]] = written_values[name]
    return painted


def _tidy_mask(mask: NDArray[np.bool_], rule: PostprocessConfig, voxel_ml: float) -> NDArray[np.bool_]:
    if rule.keep_largest:
        mask = largest_component(mask)
    if rule.min_volume_ml > 0:
        # The slack keeps a piece of exactly the least volume, which the division may round up.
        mask = remove_small_components(mask, math.ceil(rule.min_volume_ml / voxel_ml - 1e-9))
    return mask

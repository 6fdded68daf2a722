"""Connected components of a 3D mask: pieces that touch by faces (6), edges too (18), or corners too (26)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Connectivity = Literal[6, 18, 26]

_REACH = {6: 1, 18: 2, 26: 3}  # how many of the three axes a step to a neighbour may change


def label_components(
    mask: NDArray[np.bool_], connectivity: Connectivity = 26
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Number the components of a mask `(I, J, K)` from 1 on, in array order.

    Returns the numbered map, 0 outside, and the voxels of each: `sizes[n - 1]` belongs to component n.
    """
    labels, _ = ndimage.label(mask, structure=ndimage.generate_binary_structure(3, _REACH[connectivity]))
    return labels, np.bincount(labels.ravel(order="K"))[1:]


def largest_component(mask: NDArray[np.bool_], connectivity: Connectivity = 26) -> NDArray[np.bool_]:
    """Return the largest component alone, the first in array order of equals; an empty mask stays empty."""
    labels, sizes = label_components(mask, connectivity)
    return labels == 1 + np.argmax(sizes) if sizes.size else np.zeros_like(mask)


def remove_small_components(
    mask: NDArray[np.bool_], min_voxels: int, connectivity: Connectivity = 26
) -> NDArray[np.bool_]:
    """Return the mask without the components of fewer than `min_voxels` voxels."""
    labels, sizes = label_components(mask, connectivity)
    keep = np.concatenate([[False], sizes >= min_voxels])
    return keep[labels]

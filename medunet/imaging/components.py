"""Connected components of a 3D mask, with face (6), face and edge (18) or full (26) connectivity."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Connectivity = Literal[6, 18, 26]

_RANKS = {6: 1, 18: 2, 26: 3}  # number of axes along which a neighbour may differ


def label_components(
    mask: NDArray[np.bool_], connectivity: Connectivity = 26
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Label the connected components of a mask `(I, J, K)`, numbered from 1 in array order.

    Returns the map of component numbers, 0 outside, and the components' sizes in voxels: `sizes[n - 1]` is the size
    of component n.
    """
    labels, _ = ndimage.label(mask, structure=ndimage.generate_binary_structure(3, _RANKS[connectivity]))
    return labels, np.bincount(labels.ravel(order="K"))[1:]


def largest_component(mask: NDArray[np.bool_], connectivity: Connectivity = 26) -> NDArray[np.bool_]:
    """Return the mask of the largest component, the first in array order if several are equally large."""
    labels, sizes = label_components(mask, connectivity)
    return labels == 1 + np.argmax(sizes) if sizes.size else np.zeros_like(mask)


def remove_small_components(
    mask: NDArray[np.bool_], min_voxels: int, connectivity: Connectivity = 26
) -> NDArray[np.bool_]:
    """Return the mask without the components of fewer than `min_voxels` voxels."""
    labels, sizes = label_components(mask, connectivity)
    keep = np.concatenate([[False], sizes >= min_voxels])
    return keep[labels]

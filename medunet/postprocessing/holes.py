"""Filling of holes: background that is enclosed by a mask."""

import numpy as np

from medunet.imaging.components import find_components
from medunet.postprocessing.boxes import Mask, apply_in_box


def fill_holes(mask: Mask) -> Mask:
    """Return the mask `(I, J, K)` with its holes filled: background not 6-connected to the border of the volume.

    A tunnel, or a cavity that the volume's border cuts, is not a hole. A volume of one slice is processed in 2D. The
    result equals SimpleITK's BinaryFillhole with its default connectivity.
    """
    pads = [int(size > 1) for size in mask.shape]

    def fill(frame: Mask) -> Mask:
        # With background all around, that of the outside is one component: that of the first voxel.
        background = np.ones([size + 2 * pad for size, pad in zip(frame.shape, pads, strict=True)], bool)
        inner = tuple(slice(pad, pad + size) for size, pad in zip(frame.shape, pads, strict=True))
        np.logical_not(frame, out=background[inner])
        components = find_components(background, connectivity=6)
        is_outside = np.zeros(components.sizes.size, bool)
        if background.any():
            is_outside[components.numbers[0]] = True
        return ~components.select(is_outside)[inner]

    return apply_in_box(mask, fill, margin_voxels=(0, 0, 0))

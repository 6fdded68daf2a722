"""Filling of holes: background that is enclosed by a mask."""

import numpy as np

from medunet.imaging.components import label_components
from medunet.postprocessing.boxes import Mask, apply_in_box


def fill_holes(mask: Mask) -> Mask:
    """Return the mask `(I, J, K)` with its holes filled: background not 6-connected to the border of the volume.

    A tunnel, or a cavity that the volume's border cuts, is not a hole. A volume of one slice is processed in 2D. The
    result equals SimpleITK's BinaryFillhole with its default connectivity.
    """
    open_axes = [axis for axis, size in enumerate(mask.shape) if size > 1]

    def fill(frame: Mask) -> Mask:
        background, _ = label_components(~frame, connectivity=6)
        faces = [np.unique(np.take(background, (0, -1), axis=axis)) for axis in open_axes]
        outside = np.zeros(background.max() + 1, dtype=bool)
        outside[np.concatenate([[0], *faces])] = True  # 0 is the mask itself
        return frame | ~outside[background]

    return apply_in_box(mask, fill, margin_voxels=(0, 0, 0))

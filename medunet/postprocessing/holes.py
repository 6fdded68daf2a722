"""Holes of a mask: background that it shuts off from the outside."""

import numpy as np

from medunet.imaging.components import label_components
from medunet.postprocessing.boxes import Mask, on_box


def fill_holes(mask: Mask) -> Mask:
    """Return the mask `(I, J, K)` with the background filled that no path by faces joins to the volume's outside.

    A tunnel, and a hollow that the volume's border cuts, are no holes. In a volume of one slice, paths lie in
    its plane. Equals SimpleITK's BinaryFillhole with its default connectivity.
    """
    open_axes = [axis for axis, size in enumerate(mask.shape) if size > 1]

    def fill(frame: Mask) -> Mask:
        background, _ = label_components(~frame, connectivity=6)
        faces = [np.unique(np.take(background, (0, -1), axis=axis)) for axis in open_axes]
        outside = np.zeros(background.max() + 1, dtype=bool)
        outside[np.concatenate([[0], *faces])] = True  # 0 is the mask itself
        return frame | ~outside[background]

    return on_box(mask, fill, margin_voxels=(0, 0, 0))

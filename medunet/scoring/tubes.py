"""clDice: how well a tube's centreline is followed (Shit et al., CVPR 2021).

Where Dice hardly sees a vessel that is cut in two, its centreline leaves the other mask. Skeletons are those of
scikit-image, in voxels: spacing plays no part. They are thinned by Lee in 3D; by Zhang in 2D and in a single slice.
"""

import math
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import InputError
from medunet.scoring.bits import find_box
from medunet.scoring.masks import find_flat_axis


def check_available() -> None:
    """Refuse clDice where it cannot be computed.

    Raises:
        InputError: scikit-image is not installed.
    """
    if find_spec("skimage") is None:
        raise InputError("clDice needs scikit-image", where="tubes", hint='pip install "medunet[tubes]"')


def compute_cldice(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """Return the harmonic mean of the shares of either skeleton that lie in the other mask.

    Boolean `(I, J, K)` or `(I, J)`. NaN where both are empty, 0 where one is. What thinning takes whole, as it may a
    dot, is its own skeleton.

    Raises:
        InputError: scikit-image is not installed.
    """
    check_available()
    from skimage.morphology import skeletonize

    if (flat := find_flat_axis(reference.shape)) is not None:
        reference, prediction = reference.squeeze(flat), prediction.squeeze(flat)
    box = find_box(reference, prediction)
    # A rim of background: thinning treats the array's edge as part of the tube.
    reference, prediction = np.pad(reference[box], 1), np.pad(prediction[box], 1)
    if not reference.any() and not prediction.any():
        return math.nan
    if not reference.any() or not prediction.any():
        return 0.0
    shares = []
    for tube, other in ((reference, prediction), (prediction, reference)):
        skeleton = skeletonize(tube)
        shares.append(float(other[skeleton if skeleton.any() else tube].mean()))
    found, right = shares
    return 2 * found * right / (found + right) if found + right else 0.0

"""clDice, the centreline Dice of tubular structures such as vessels (Shit et al., CVPR 2021).

A gap in a vessel hardly changes Dice, but lowers clDice. Skeletons are computed by scikit-image in voxels, without
regard to spacing: by Lee's method in 3D, by Zhang's in 2D and in a single slice.
"""

import math
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from medunet.base.errors import InputError
from medunet.scoring.bits import find_box
from medunet.scoring.masks import find_flat_axis


def check_available() -> None:
    """Check that clDice can be computed.

    Raises:
        InputError: scikit-image is not installed.
    """
    if find_spec("skimage") is None:
        raise InputError("clDice needs scikit-image", where="tubes", hint='pip install "medunet[tubes]"')


def compute_cldice(reference: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """Return clDice of two boolean masks `(I, J, K)` or `(I, J)`.

    It is the harmonic mean of two shares: of each mask's skeleton, the part inside the other mask. NaN if both masks
    are empty, 0 if one is. If thinning removes a mask completely, as it may a dot, the mask is its own skeleton.

    Raises:
        InputError: scikit-image is not installed.
    """
    check_available()
    from skimage.morphology import skeletonize

    if (flat := find_flat_axis(reference.shape)) is not None:
        reference, prediction = reference.squeeze(flat), prediction.squeeze(flat)
    box = find_box(reference, prediction)
    # A border of background, since thinning treats the edge of the array as part of the tube.
    reference, prediction = np.pad(reference[box], 1), np.pad(prediction[box], 1)
    if not reference.any() and not prediction.any():
        return math.nan
    if not reference.any() or not prediction.any():
        return 0.0
    shares = []
    for tube, other in ((reference, prediction), (prediction, reference)):
        skeleton = skeletonize(tube)
        shares.append(float(other[skeleton if skeleton.any() else tube].mean()))
    recall, precision = shares
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0

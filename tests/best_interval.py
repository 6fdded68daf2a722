"""How well the best interval of values finds a mask, which a cohort should not allow."""

import numpy as np
from numpy.typing import NDArray


def dice_of_intervals(image: NDArray, mask: NDArray[np.bool_], edges: NDArray) -> NDArray[np.float64]:
    """Return the Dice of each interval [low edge, high edge) with a mask; 0 where the high edge is not above."""
    below = np.concatenate([[0], np.cumsum(np.histogram(image, edges)[0])])
    wanted_below = np.concatenate([[0], np.cumsum(np.histogram(image[mask], edges)[0])])
    chosen = np.maximum(below[None, :] - below[:, None], 0)
    hit = np.maximum(wanted_below[None, :] - wanted_below[:, None], 0)
    return 2 * hit / (chosen + mask.sum())

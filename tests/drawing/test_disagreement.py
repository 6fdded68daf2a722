"""The picture of where networks disagree: violet there and nowhere else, deeper where more of them differ."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from medunet.drawing.disagreement import draw_disagreement
from medunet.drawing.presets import Preset
from medunet.drawing.scene import StillView

SHAPE = (40, 30, 20)
AFFINE = np.diag([-2.0, 2.5, 3.0, 1.0])


def tinted(differing: NDArray[np.uint8], num_networks: int) -> NDArray[np.int16]:
    """Return how violet each pixel of the picture is: blue less green."""
    image = np.full(SHAPE, 100.0, np.float32)
    prediction = np.zeros(SHAPE, np.uint8)
    view = StillView(
        image, AFFINE, {"liver": (1,)}, Preset("grey", 0, 200), reference=None, prediction=prediction
    )
    picture = Image.open(io.BytesIO(draw_disagreement(view, differing, num_networks))).convert("RGB")
    rgb = np.asarray(picture).astype(np.int16)
    panels = rgb[: -2 * 30]  # without the legend and the window below
    return panels[..., 2] - panels[..., 1]


def test_disagreement_is_tinted_by_the_number_of_networks() -> None:
    differing = np.zeros(SHAPE, np.uint8)
    differing[10:20, 10:20, 8:12] = 1
    differing[20:24, 10:20, 8:12] = 3
    violet = tinted(differing, 3)
    one, three = (violet > 20) & (violet < 90), violet >= 90
    # In mm² of the axial, the coronal and the sagittal plane, which passes where one differs.
    areas = 10 * 10 * 5 + 10 * 4 * 6 + 10 * 4 * 7.5, 4 * 10 * 5 + 4 * 4 * 6
    assert np.count_nonzero(one) / np.count_nonzero(three) == pytest.approx(areas[0] / areas[1], rel=0.05)
    columns = np.flatnonzero((violet > 20).any(axis=0))
    assert columns.min() > 0
    assert np.count_nonzero(violet > 20) < 0.5 * violet.size


def test_the_planes_pass_where_most_voxels_are_disputed() -> None:
    small, large = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    small[5, 5, 3] = 2
    large[5, 5, 3] = 2
    large[25:30, 20:25, 15] = 1
    assert (tinted(small, 2) > 90).any()
    violet = tinted(large, 2)
    assert not (violet > 90).any()  # the voxel on which both differ lies in another slice
    assert (violet > 20).any()

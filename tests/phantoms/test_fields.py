"""Shapes of the phantoms against what geometry says."""

import numpy as np
import pytest

from medunet.phantoms.fields import grid_points, tube_depth


@pytest.mark.parametrize("radii_mm", [(4.0, 4.0), (5.0, 1.5), (1.6, 2.4)])
def test_radius_of_a_tube_changes_evenly_from_start_to_end(radii_mm: tuple[float, float]) -> None:
    start_mm, end_mm = (10.0, 0.0, 0.0), (30.0, 0.0, 0.0)
    points = grid_points((41, 1, 1), np.eye(4))  # on the axis, where the depth is the radius
    depth = tube_depth(points, start_mm, end_mm, radii_mm)[:, 0, 0]
    first, last = radii_mm
    assert depth[[10, 20, 30]] == pytest.approx([first, (first + last) / 2, last])
    assert depth[[8, 32]] == pytest.approx([first - 2, last - 2]), "its ends are round"

"""Surfaces far apart: every search method returns the distances of brute force."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from medunet.scoring import surface
from medunet.scoring.bits import pack
from medunet.scoring.surface import measure_distances

Mask = NDArray[np.bool_]

SHAPES = {2: (150, 170), 3: (40, 44, 90)}
SPACINGS_MM = {2: [(1.0, 1.0), (0.5, 2.0)], 3: [(1.0, 1.0, 1.0), (3.0, 0.7, 1.1)]}


def draw_ball(shape: tuple[int, ...], radius: float) -> Mask:
    """Return an ellipsoid near the first corner."""
    axes = np.meshgrid(*[np.arange(size) for size in shape], indexing="ij")
    centre = [size * 0.4 for size in shape]
    return sum(((x - c) / (radius * n)) ** 2 for x, c, n in zip(axes, centre, shape, strict=True)) < 1


def measure_by_force(reference: Mask, prediction: Mask, spacing_mm: tuple[float, ...]) -> list[float]:
    """Return the distance of every surface voxel of the reference to the nearest of the prediction."""
    points = []
    for mask in (reference, prediction):
        padded, inner = np.pad(mask, 1), (slice(1, -1),) * mask.ndim
        eroded = padded.copy()
        for axis in range(mask.ndim):
            for step in (-1, 1):
                eroded &= np.roll(padded, step, axis)
        points.append(np.argwhere(mask & ~eroded[inner]) * spacing_mm)
    return sorted(cdist(points[0], points[1]).min(axis=1))


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("spacing_number", [0, 1])
@pytest.mark.parametrize("reach", ["near", "few", "fewest", "many"])
def test_distant_surfaces_have_the_distances_of_brute_force(
    reach: str, num_axes: int, spacing_number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, spacing_mm = SHAPES[num_axes], SPACINGS_MM[num_axes][spacing_number]
    reference = draw_ball(shape, 0.3)
    prediction = reference.copy()
    if reach == "near":
        prediction = np.roll(reference, 1, axis=0)
    elif reach == "few":  # a hole some mm below the surface
        depth_mm = {2: 12.0, 3: 6.0}[num_axes]
        pole = 0.4 * shape[-1] + 0.3 * shape[-1] - depth_mm / spacing_mm[-1]
        prediction[(*[int(0.4 * size) for size in shape[:-1]], int(pole))] = False
    elif reach == "fewest":  # a voxel in the far corner
        prediction[(-1,) * num_axes] = True
    else:
        prediction = draw_ball(shape, 0.12)
    methods: set[str] = set()
    search_offsets, nearest_mm = surface._search_offsets, surface._nearest_mm
    monkeypatch.setattr(
        surface, "_search_offsets", lambda *given: methods.add("offsets") or search_offsets(*given)
    )
    monkeypatch.setattr(
        surface,
        "_nearest_mm",
        lambda points, positions: (
            methods.add("pairs" if len(positions) <= surface._MAX_BRUTE_FORCE else "tree")
            or nearest_mm(points, positions)
        ),
    )
    there, back = measure_distances(pack(reference), pack(prediction), spacing_mm, "voxel")
    for found, pair in ((there, (reference, prediction)), (back, (prediction, reference))):
        expected = measure_by_force(*pair, spacing_mm)
        assert found.total == len(expected)
        np.testing.assert_allclose(np.repeat(found.mm, found.weight.astype(int)), expected, rtol=1e-12)
    assert (
        methods
        == {"near": set(), "few": {"offsets"}, "fewest": {"offsets", "pairs"}, "many": {"tree"}}[reach]
    )

"""The area convention: equal to the plain definition on random masks."""

import numpy as np
import pytest
from oracle import DISTANCES, Mask, areas_by_code, score_by_definition
from scipy import ndimage

from medunet.scoring.areas import cell_areas
from medunet.scoring.masks import score_masks

KINDS = ("blobs", "filling", "thin", "scattered", "islands", "identical")
ROW_LENGTHS = (62, 63, 64, 65, 66, 126, 127, 128, 129, 130)  # around the ends of a word of 64 bits
NUM_DRAWS = 26  # of each kind in 2D and in 3D: 312 pairs


@pytest.mark.parametrize("num_axes", [2, 3])
def test_areas_of_all_cells_equal_monai(num_axes: int) -> None:
    rng = np.random.default_rng(num_axes)
    spacings = [tuple(rng.uniform(0.2, 6.0, num_axes)) for _ in range(8)]
    for spacing_mm in [(1.0,) * num_axes, (1.0, 5.0, 0.3)[:num_axes], *spacings]:
        areas = cell_areas(spacing_mm)
        assert areas.shape == (2 ** (2**num_axes),)
        np.testing.assert_allclose(areas, areas_by_code(spacing_mm), rtol=1e-12)


def draw_pair(kind: str, shape: tuple[int, ...], long_axis: int, rng: np.random.Generator) -> list[Mask]:
    """Draw two masks, neither empty; `long_axis` is reached at both ends."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    fields = [field, field + 0.6 * ndimage.gaussian_filter(rng.standard_normal(shape), 0.8)]
    masks = [drawn > rng.uniform(0.2, 1.0) * drawn.std() for drawn in fields]
    if kind == "filling":  # nearly all of the grid, so that every edge is touched
        masks = [drawn > -1.3 * drawn.std() for drawn in fields]
    if kind == "thin":
        across = int(rng.integers(len(shape)))
        layer = int(rng.integers(shape[across]))
        layers = [layer, min(layer + int(rng.integers(3)), shape[across] - 1)]
        sheets = [np.zeros(shape, dtype=bool) for _ in layers]
        for sheet, index in zip(sheets, layers, strict=True):
            sheet.swapaxes(0, across)[index] = True
        masks = [sheet & (rng.random(shape) < 0.9) for sheet in sheets]
    if kind == "scattered":
        masks = [rng.random(shape) < 0.02 for _ in range(2)]
    if kind == "islands":
        near = np.arange(shape[long_axis]) < 8
        masks = [mask & np.expand_dims(near, tuple(set(range(len(shape))) - {long_axis})) for mask in masks]
    if kind == "identical":
        masks[1] = masks[0].copy()
    for mask in masks if kind != "islands" else masks[:1]:
        mask.swapaxes(0, long_axis)[0].flat[0] = True
    for mask in masks if kind == "identical" else masks[1:]:
        mask.swapaxes(0, long_axis)[-1].flat[-1] = True
    return masks


def draw_spacing(num: int, num_axes: int, rng: np.random.Generator) -> tuple[float, ...]:
    if num % 3 == 0:
        return tuple(float(step) for step in rng.permutation([1.0, 5.0, 1.0][:num_axes]))
    steps = rng.uniform(0.4, 4.0, num_axes)
    return tuple(float(step) for step in (steps if num % 3 == 1 else steps.astype(np.float32)))


@pytest.mark.parametrize("num_axes", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_the_definition(kind: str, num_axes: int) -> None:
    num_tolerances = 0
    for num in range(NUM_DRAWS):
        rng = np.random.default_rng([KINDS.index(kind), num_axes, num])
        orders = (("C", "C"), ("F", "F"), ("F", "C"))[num % 3]
        shape = [int(size) for size in rng.integers(2, 12, num_axes)]
        long_axis = 0 if orders[0] == "F" else num_axes - 1  # which lies innermost in memory
        shape[long_axis] = ROW_LENGTHS[num % len(ROW_LENGTHS)]
        spacing_mm = draw_spacing(num // 3, num_axes, rng)
        percentile = (95.0, 50.0, 99.5, 100.0)[num % 4]
        tolerances_mm = (1.0, float(rng.uniform(0.5, 4.0)))
        drawn = draw_pair(kind, tuple(shape), long_axis, rng)
        reference, prediction = (
            np.asarray(mask, order=order) for mask, order in zip(drawn, orders, strict=True)
        )

        score = score_masks(
            reference,
            prediction,
            spacing_mm,
            surface="area",
            percentile=percentile,
            tolerances_mm=tolerances_mm,
        )
        want = score_by_definition(reference, prediction, spacing_mm, percentile)
        for name in DISTANCES:
            assert getattr(score, name) == pytest.approx(getattr(want, name), abs=1e-6), (num, name)
        for tolerance_mm in tolerances_mm:
            if not want.ties_with(tolerance_mm):
                assert score.nsd[tolerance_mm] == pytest.approx(want.nsd(tolerance_mm), abs=1e-9), num
                num_tolerances += 1
        if kind == "islands":  # far beyond the offsets that are walked
            assert score.hd_mm > 50 * min(spacing_mm)
        if kind == "identical":
            assert [getattr(score, name) for name in DISTANCES] == [0.0] * 4
    assert num_tolerances >= NUM_DRAWS

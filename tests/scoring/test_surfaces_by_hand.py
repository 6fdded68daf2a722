"""Distances between surfaces worked out by hand, in the area convention beside the voxel convention."""

from math import sqrt

import numpy as np
import pytest
from oracle import DISTANCES, Mask

from medunet.records.scores import Surface
from medunet.scoring.bits import pack
from medunet.scoring.masks import MaskScore, score_masks
from medunet.scoring.surface import measure_distances

# Cell c of an axis lies between its voxels c - 1 and c.


def draw(*rows: str) -> Mask:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def box_of(shape: tuple[int, ...], start: tuple[int, ...], size: tuple[int, ...]) -> Mask:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(low, low + n) for low, n in zip(start, size, strict=True))] = True
    return mask


def measure(
    reference: Mask,
    prediction: Mask,
    spacing_mm: tuple[float, ...],
    surface: Surface,
    percentile: float = 95.0,
) -> MaskScore:
    tolerances_mm = (0.5, 1.0, 2.0)
    return score_masks(
        reference,
        prediction,
        spacing_mm,
        surface=surface,
        percentile=percentile,
        tolerances_mm=tolerances_mm,
    )


def assert_distances(got: MaskScore, hd_mm: float, hd95_mm: float, assd_mm: float, masd_mm: float) -> None:
    want = (hd_mm, hd95_mm, assd_mm, masd_mm)
    assert [getattr(got, name) for name in DISTANCES] == pytest.approx(want, abs=1e-9)


def test_surface_of_a_pixel_a_voxel_and_a_box() -> None:
    # A pixel: 4 cells, each cut across its corner: half the diagonal of a pixel, sqrt(2² + 1²) / 2.
    lines = measure_distances(*[pack(np.ones((1, 1), dtype=bool))] * 2, (2.0, 1.0))[0]
    assert lines.total == pytest.approx(2 * sqrt(5))
    # A voxel of 2×1×3 mm: 8 corners of sqrt((1·3)² + (2·3)² + (2·1)²) / 8 = 7/8 mm².
    spacing_mm = (2.0, 1.0, 3.0)
    corners = measure_distances(*[pack(np.ones((1, 1, 1), dtype=bool))] * 2, spacing_mm)[0]
    assert corners.total == pytest.approx(7.0)
    # A box of 2×3×4 voxels: 8 corners; 4 edges along each axis, (size_i - 1) cells of s_i / 2 · sqrt(s_j² + s_k²);
    # 2 faces across each axis with (size_j - 1)(size_k - 1) cells of s_j · s_k.
    edges = 4 * 1 * sqrt(1 + 9) + 4 * 2 * sqrt(4 + 9) / 2 + 4 * 3 * 1.5 * sqrt(4 + 1)
    faces = 2 * (2 * 3) * 3 + 2 * (1 * 3) * 6 + 2 * (1 * 2) * 2
    box = measure_distances(*[pack(np.ones((2, 3, 4), dtype=bool))] * 2, spacing_mm)[0]
    assert box.total == pytest.approx(7 + edges + faces)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_voxel_shifted_by_one(axis: int) -> None:
    spacing_mm = (2.0, 1.0, 5.0)
    step_mm, ones = spacing_mm[axis], [1, 1, 1]
    start = [1, 2, 3]
    reference = box_of((4, 6, 5), tuple(start), tuple(ones))
    start[axis] += 1
    prediction = box_of((4, 6, 5), tuple(start), tuple(ones))
    # Of its 8 cells 4 are the other's too, 4 lie a step away; all have one area.
    area = measure(reference, prediction, spacing_mm, "area")
    assert_distances(area, step_mm, step_mm, step_mm / 2, step_mm / 2)
    assert area.nsd == pytest.approx(
        {0.5: 0.5, 1.0: 1.0 if axis == 1 else 0.5, 2.0: 0.5 if axis == 2 else 1.0}
    )
    assert measure(reference, prediction, spacing_mm, "area", percentile=50).hd95_mm == 0.0
    assert measure(reference, prediction, spacing_mm, "area", percentile=51).hd95_mm == step_mm
    voxel = measure(reference, prediction, spacing_mm, "voxel")
    assert_distances(voxel, step_mm, step_mm, step_mm, step_mm)
    assert voxel.nsd == {0.5: 0.0, 1.0: float(axis == 1), 2.0: float(axis != 2)}


def test_voxels_far_apart() -> None:
    reference, prediction = (box_of((3, 2, 301), (1, 0, start), (1, 1, 1)) for start in (0, 300))
    # Cells 0 and 1 against cells 300 and 301 of 2 mm: 600 and 598 mm, half of the area each.
    assert_distances(measure(reference, prediction, (1.0, 3.0, 2.0), "area"), 600, 600, 599, 599)
    assert_distances(measure(reference, prediction, (1.0, 3.0, 2.0), "voxel"), 600, 600, 600, 600)


def test_a_square_shifted_by_one() -> None:
    reference, prediction = draw("##.", "##."), draw(".##", ".##")
    # Pixels of 2×1 mm. Cells of the reference, C a corner (sqrt(5)/2), numbers a side's length in mm, . inside:
    #   C 1 C      those of the column in front lie 1 mm from the prediction's first column (2 corners, 2 mm),
    #   2 . 2      those of the middle and the upper and lower ones behind lie on it,
    #   C 1 C      the last side (2 mm) lies 1 mm from either of its sides.
    total, away = 6 + 2 * sqrt(5), 4 + sqrt(5)
    area = measure(reference, prediction, (2.0, 1.0), "area")
    assert_distances(area, 1, 1, away / total, away / total)
    assert list(area.nsd.values()) == pytest.approx([1 - away / total, 1, 1])
    voxel = measure(reference, prediction, (2.0, 1.0), "voxel")
    assert_distances(voxel, 1, 1, 0.5, 0.5)
    assert voxel.nsd == {0.5: 0.5, 1.0: 1.0, 2.0: 1.0}


def test_a_box_shifted_by_one() -> None:
    spacing_mm = (2.0, 1.0, 3.0)
    reference, prediction = (box_of((2, 2, 3), (0, 0, start), (2, 2, 2)) for start in (0, 1))
    # The reference's cells are 3×3×3 without the full one in the middle. Its outer layers across the last axis:
    # 4 corners of 7/8, 2 edges of sqrt(10) and 2 of sqrt(13)/2, and a face of 2 mm². Its middle layer: 4 edges of
    # 1.5·sqrt(5), 2 faces of 3 and 2 of 6 mm².
    layer = 4 * 7 / 8 + 2 * sqrt(10) + sqrt(13) + 2
    total = 2 * layer + 6 * sqrt(5) + 18
    # The first layer lies 3 mm from the prediction's first; the middle one on that; of the last all lie on the
    # prediction's middle layer but the face (2 mm²), 1 mm from its neighbour along the second axis.
    mean = (3 * layer + 1 * 2) / total
    area = measure(reference, prediction, spacing_mm, "area")
    assert_distances(area, 3, 3, mean, mean)
    assert list(area.nsd.values()) == pytest.approx(
        [1 - (layer + 2) / total, 1 - layer / total, 1 - layer / total]
    )
    for percentile, expected_mm in ((70, 0.0), (75, 1.0), (76, 3.0)):  # 72.0% lie at 0 mm, 75.2% within 1 mm
        assert measure(reference, prediction, spacing_mm, "area", percentile).hd95_mm == expected_mm
    voxel = measure(reference, prediction, spacing_mm, "voxel")  # every voxel is surface, half of them shared
    assert_distances(voxel, 3, 3, 1.5, 1.5)
    assert voxel.nsd == {0.5: 0.5, 1.0: 0.5, 2.0: 0.5}


def test_a_pixel_nested_in_a_square() -> None:
    reference, prediction = draw("###", "###", "###"), draw("...", ".#.", "...")
    # Pixels of 1×2 mm. The square: upper and lower sides 4 cells of 2 mm, 1 mm from the pixel's cells; left and
    # right 4 cells of 1 mm, 2 mm away; 4 corners of sqrt(5)/2, sqrt(5) away. The pixel: 4 corners, 1 mm away.
    square, pixel = 8 + 4 + 2 * sqrt(5), 2 * sqrt(5)
    far = 8 * 1 + 4 * 2 + 2 * sqrt(5) * sqrt(5)
    area = measure(reference, prediction, (1.0, 2.0), "area")
    assert_distances(area, sqrt(5), sqrt(5), (far + pixel) / (square + pixel), (far / square + 1) / 2)
    total = square + pixel
    assert list(area.nsd.values()) == pytest.approx([0, (8 + pixel) / total, (12 + pixel) / total])
    # Voxels: two at 1, two at 2 and four at sqrt(5) mm; back one at 1 mm.
    far = 2 * 1 + 2 * 2 + 4 * sqrt(5)
    assert_distances(
        measure(reference, prediction, (1.0, 2.0), "voxel"),
        sqrt(5),
        sqrt(5),
        (far + 1) / 9,
        (far / 8 + 1) / 2,
    )


def test_a_voxel_nested_in_a_box() -> None:
    reference, prediction = np.ones((3, 3, 3), dtype=bool), box_of((3, 3, 3), (1, 1, 1), (1, 1, 1))
    # The box: 24 cells of faces (1 mm²) 1 mm away, 24 of edges (sqrt(2)/2) sqrt(2) away, 8 corners (sqrt(3)/8)
    # sqrt(3) away. The voxel: 8 corners, 1 mm away.
    box, voxel = 24 + 12 * sqrt(2) + sqrt(3), sqrt(3)
    far = 24 * 1 + 12 * sqrt(2) * sqrt(2) + sqrt(3) * sqrt(3)
    area = measure(reference, prediction, (1.0, 1.0, 1.0), "area")
    # The corners are 4.06% of the box's surface: percentile 95 lies before them.
    assert_distances(area, sqrt(3), sqrt(2), (far + voxel) / (box + voxel), (far / box + 1) / 2)
    assert list(area.nsd.values()) == pytest.approx([0, (24 + voxel) / (box + voxel), 1])
    # Voxels: 6 at 1, 12 at sqrt(2), 8 at sqrt(3) mm, which are 31%; back one at 1 mm.
    far = 6 + 12 * sqrt(2) + 8 * sqrt(3)
    counted = measure(reference, prediction, (1.0, 1.0, 1.0), "voxel")
    assert_distances(counted, sqrt(3), sqrt(3), (far + 1) / 27, (far / 26 + 1) / 2)
    assert counted.nsd[1.0] == pytest.approx(7 / 27)


def test_a_hole_of_one_voxel_is_seen_by_areas_alone() -> None:
    # A ring or shell around one voxel against the whole: the hole adds 4 cells of sqrt(2)/2 or 8 of sqrt(3)/8, each
    # 1 mm from the outer surface. Every other voxel has a background neighbour already.
    holed = box_of((3, 3, 3), (1, 1, 1), (1, 1, 1))
    for reference, inner, outer, hd95_mm in (
        (~holed[1], 2 * sqrt(2), 8 + 2 * sqrt(2), 1.0),  # the hole is 20.7% of the ring's surface
        (~holed, sqrt(3), 24 + 12 * sqrt(2) + sqrt(3), 0.0),  # and 3.9% of the shell's
    ):
        solid, spacing_mm = np.ones_like(reference), (1.0,) * reference.ndim
        area = measure(reference, solid, spacing_mm, "area")
        mean = inner / (inner + outer)
        assert_distances(area, 1, hd95_mm, inner / (inner + 2 * outer), mean / 2)
        assert area.nsd[0.5] == pytest.approx(1 - inner / (inner + 2 * outer))
        voxel = measure(reference, solid, spacing_mm, "voxel")
        assert_distances(voxel, 0, 0, 0, 0)
        assert voxel.dice == area.dice < 1


def test_pixels_that_meet_at_a_corner() -> None:
    reference, prediction = draw("#.", ".#"), draw("#.", "..")
    # Pixels of 3×4 mm: a corner's line is 2.5 mm. They share a cell with two lines. From the reference: 5 lines at
    # 0 (the first pixel's cells), one each at 3, 4 and 5 mm; from the prediction 4 lines at 0.
    area = measure(reference, prediction, (3.0, 4.0), "area")
    assert_distances(area, 5, 5, (3 + 4 + 5) / 12, (3 + 4 + 5) / 8 / 2)
    assert area.nsd == pytest.approx({0.5: 9 / 12, 1.0: 9 / 12, 2.0: 9 / 12})
    # Percentile 75 of the reference's 8 lines is the sixth, of all 12 the ninth.
    pooled, largest = (
        score_masks(reference, prediction, (3.0, 4.0), percentile=75, hd95=mode) for mode in ("pooled", "max")
    )
    assert (pooled.hd95_mm, largest.hd95_mm) == (0.0, 3.0)
    # Voxels: 0 and 5 mm from the reference, 0 back; percentile 95 of (0, 5) is 4.75.
    assert_distances(measure(reference, prediction, (3.0, 4.0), "voxel"), 5, 4.75, 5 / 3, 2.5 / 2)


def test_voxels_that_meet_at_a_corner() -> None:
    prediction = box_of((2, 2, 2), (0, 0, 0), (1, 1, 1))
    reference = prediction | box_of((2, 2, 2), (1, 1, 1), (1, 1, 1))
    # Voxels of 2×3×6 mm. They share a cell with two triangles: 16 from the reference, 9 of them at 0, the others at
    # the lengths of the offsets of 0 or 1 along each axis; 8 from the prediction, at 0.
    lengths = 2 + 3 + 6 + sqrt(4 + 9) + sqrt(4 + 36) + sqrt(9 + 36) + 7
    area = measure(reference, prediction, (2.0, 3.0, 6.0), "area")
    assert_distances(area, 7, 7, lengths / 24, lengths / 16 / 2)
    assert area.nsd == pytest.approx({0.5: 17 / 24, 1.0: 17 / 24, 2.0: 18 / 24})
    assert_distances(measure(reference, prediction, (2.0, 3.0, 6.0), "voxel"), 7, 6.65, 7 / 3, 3.5 / 2)


def test_lines_one_voxel_wide() -> None:
    # Pixels of 2×1 mm. Side by side: of two rows of cells one is shared, the other 2 mm away.
    across = draw("####", "...."), draw("....", "####")
    assert_distances(measure(*across, (2.0, 1.0), "area"), 2, 2, 1, 1)
    assert_distances(measure(*across, (2.0, 1.0), "voxel"), 2, 2, 2, 2)
    # Shifted along itself: 2 corners of sqrt(5)/2 at one end lie 1 mm away, 2 corners and 6 cells of 1 mm do not.
    along = draw("####."), draw(".####")
    mean = sqrt(5) / (6 + 2 * sqrt(5))
    assert_distances(measure(*along, (2.0, 1.0), "area"), 1, 1, mean, mean)
    # Percentile 95 of (0, 0, 0, 1) is 0.85.
    assert_distances(measure(*along, (2.0, 1.0), "voxel"), 1, 0.85, 1 / 4, 1 / 4)
    # 3 voxels of 2×1×3 mm along the first axis: 4 corners of 7/8 lie 2 mm away; 4 more, 8 edges of sqrt(10) do not.
    # Padded, for a grid of one slice would be scored in 2D.
    voxels = (box_of((4, 1, 2), (start, 0, 1), (3, 1, 1)) for start in (0, 1))
    lines = [np.pad(mask, ((0, 0), (1, 0), (0, 0))) for mask in voxels]
    mean = 2 * 3.5 / (7 + 8 * sqrt(10))
    assert_distances(measure(lines[0], lines[1], (2.0, 1.0, 3.0), "area"), 2, 2, mean, mean)
    assert_distances(measure(lines[0], lines[1], (2.0, 1.0, 3.0), "voxel"), 2, 1.8, 2 / 3, 2 / 3)

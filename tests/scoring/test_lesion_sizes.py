"""How large lesions are: their axes in the slice where the long one is longest, and their classes by volume."""

import math

import numpy as np
import pytest
from box_masks import MILLIMETRE, mask_of

from medunet.records.scores import Lesion
from medunet.scoring.lesions import detection_by_size, measure_axes, score_lesions, size_class


def test_axes_of_a_rectangle() -> None:
    # 10×4 pixels of 1 mm: between the middles of the outer edges of pixels in opposite corners 10 and 3 mm apart. The
    # chord perpendicular to that crosses from long side to long side, 4 mm apart, at a slope of 3 in 10.
    axes = measure_axes(mask_of((slice(1, 11), slice(2, 6), 3)), (1.0, 1.0, 5.0))
    assert axes.long_mm == pytest.approx(math.sqrt(109))
    assert axes.short_mm == pytest.approx(0.4 * math.sqrt(109))
    assert axes.slice_index == 3


def test_axes_of_a_disc() -> None:
    # Radius 10 pixels of 0.5 mm: from edge to edge 21 of them through the middle, and so across.
    i, j = np.ogrid[:31, :33]
    disc = (i - 14) ** 2 + (j - 17) ** 2 <= 100
    axes = measure_axes(np.stack([disc, disc], axis=2), (0.5, 0.5, 4.0))
    assert (axes.long_mm, axes.short_mm) == (pytest.approx(10.5), pytest.approx(10.5))
    assert axes.slice_index == 0  # of equal slices the first


@pytest.mark.parametrize(
    ("box", "long_mm", "short_mm"),
    [
        ((4, 5, 6), 2.0, 1.0),  # one pixel of 2×1 mm
        ((slice(4, 7), 5, 6), 6.0, 1.0),  # a row of three along the first axis
        ((4, slice(5, 12), 6), 7.0, 2.0),  # a row of seven along the second
    ],
)
def test_axes_of_thin_lesions(box: tuple, long_mm: float, short_mm: float) -> None:
    axes = measure_axes(mask_of(box), (2.0, 1.0, 5.0))
    assert (axes.long_mm, axes.short_mm) == (pytest.approx(long_mm), pytest.approx(short_mm))


def test_axes_lie_in_the_slice_where_the_long_one_is_longest() -> None:
    reference = mask_of((6, slice(3, 6), 9), (6, slice(3, 10), 10), (6, slice(3, 8), 11))
    score = score_lesions(reference, reference, MILLIMETRE, "panoptic")
    assert (score.lesions[0].slice_index, score.lesions[0].long_axis_mm) == (10, pytest.approx(7.0))
    # 2×5 pixels of 3×1 mm in slice 1: edge middles 6 and 4 mm apart. In slices along the first axis they are two rows
    # of 5 pixels of 1×2 mm.
    flat = mask_of((slice(2, 4), slice(3, 8), 1))
    for slice_axis, long_mm, short_mm, index in ((2, math.sqrt(52), None, 1), (0, 5.0, 2.0, 2)):
        score = score_lesions(flat, flat, (3.0, 1.0, 2.0), "panoptic", slice_axis=slice_axis)
        lesion = score.lesions[0]
        assert lesion.long_axis_mm == pytest.approx(long_mm)
        assert short_mm is None or lesion.short_axis_mm == pytest.approx(short_mm)
        assert lesion.slice_index == index


def test_size_classes() -> None:
    for diameter_mm, name in ((5.0, "5 to 10 mm"), (10.0, "10 to 20 mm"), (20.0, "20 mm or more")):
        sphere_ml = math.pi / 6 * diameter_mm**3 / 1000
        assert size_class(sphere_ml * 1.001) == name
        assert size_class(sphere_ml * 0.999) != name
    assert size_class(0.001) == "under 5 mm"
    assert size_class(math.nan) is None


def test_detection_by_size() -> None:
    def lesion(status: str, reference_ml: float, counted: bool = True) -> Lesion:
        return Lesion(1, status, 0.0, 0.0, reference_ml, 0.0, 1.0, 1.0, 0, counted)

    rows = detection_by_size(
        [
            lesion("matched", 0.01),  # 2.7 mm
            lesion("missed", 0.01),
            lesion("missed", 0.02, counted=False),
            lesion("matched", 0.2),  # 7.3 mm
            lesion("missed", 8.0),  # 24.8 mm
            lesion("false_positive", 0.0),
        ]
    )
    assert [(row.num_lesions, row.num_detected) for row in rows] == [(2, 1), (1, 1), (0, 0), (1, 0)]
    assert [row.rate for row in rows] == pytest.approx([0.5, 1.0, math.nan, 0.0], nan_ok=True)
    assert [row.size_class for row in rows] == ["under 5 mm", "5 to 10 mm", "10 to 20 mm", "20 mm or more"]

"""Pictures: the right slice, the right way round, contours exactly over what they outline."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from figure_pixels import figure_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from medunet.drawing.figures import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    View,
    draw_errors,
    draw_planes,
    draw_thumbnail,
    figure_png,
    largest_cross_sections,
    window_limits,
)

SHAPE, SPACING_MM = (24, 30, 16), (2.0, 1.5, 4.0)
CUBE = (slice(15, 20), slice(5, 9), slice(9, 12))  # to the right, to the back, above the middle
AFFINE = nib.affines.from_matvec(np.diag(SPACING_MM), (-20, 10, -30))
ACROSS_UP = ((0, 1), (0, 2), (1, 2))  # RAS axes of the axial, coronal and sagittal panel


def _cube(value: float = 1, dtype: type = np.float32) -> NDArray:
    volume = np.zeros(SHAPE, dtype=dtype)
    volume[CUBE] = value
    return volume


def _reorient(array: NDArray, affine: NDArray, codes: str) -> tuple[NDArray, NDArray]:
    change = nib.orientations.ornt_transform(
        nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(codes))
    )
    moved = nib.apply_orientation(array, change)
    return moved, affine @ nib.orientations.inv_ornt_aff(change, array.shape)


def _panel_pixels(figure: Figure, panel: int) -> NDArray:
    """Return the RGB pixels of a panel, top row first."""
    pixels = figure_array(figure)
    place = figure.axes[panel].get_window_extent()
    height = len(pixels)
    rows = slice(round(height - place.y1), round(height - place.y0))
    return pixels[rows, round(place.x0) : round(place.x1)].astype(int)


def _extent(found: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of what was found, as fractions of the picture."""
    columns, rows = np.flatnonzero(found.any(axis=0)), np.flatnonzero(found.any(axis=1))
    height, width = found.shape
    return columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height


def _expected_extent(panel: int) -> tuple[float, float, float, float]:
    """Right and anterior are on the picture's left, anterior and superior on its top."""
    across, up = ACROSS_UP[panel]
    return (
        1 - CUBE[across].stop / SHAPE[across],
        1 - CUBE[across].start / SHAPE[across],
        1 - CUBE[up].stop / SHAPE[up],
        1 - CUBE[up].start / SHAPE[up],
    )


def _without_texts(figure: Figure) -> Figure:
    for axes in figure.axes:
        for text in list(axes.texts):
            text.remove()
    return figure


@pytest.mark.parametrize("panel", range(3))
def test_a_known_cube_lies_at_its_place_in_every_plane(panel: int) -> None:
    figure = draw_planes(
        View(_cube(), AFFINE, targets={}, centre=(17, 7, 10), modality="MR", window=(0.5, 1))
    )
    bright = _panel_pixels(_without_texts(figure), panel).min(axis=2) > 127
    assert _extent(bright) == pytest.approx(_expected_extent(panel), abs=0.01)


@pytest.mark.parametrize("panel", range(3))
def test_contours_lie_on_the_edge_of_what_they_outline(panel: int) -> None:
    figure = draw_planes(
        View(_cube(0), AFFINE, reference=_cube(3, np.uint8), targets={"organ": (3,)}, window=(0.5, 1))
    )
    pixels = _panel_pixels(_without_texts(figure), panel)
    coloured = pixels.max(axis=2) - pixels.min(axis=2) > 100
    assert _extent(coloured) == pytest.approx(_expected_extent(panel), abs=0.012)


@pytest.mark.parametrize("panel", range(3))
def test_errors_fill_the_voxels_that_differ(panel: int) -> None:
    truth, found = np.zeros(SHAPE, np.uint8), _cube(1, np.uint8)
    # The zoom shows 15 mm more on each side, up to the volume's border.
    margin = [int(np.ceil(15 / mm)) for mm in SPACING_MM]
    box = [(max(0, c.start - m), min(n, c.stop + m)) for c, m, n in zip(CUBE, margin, SHAPE, strict=True)]
    across, up = ACROSS_UP[panel]
    expected = [
        (box[across][1] - CUBE[across].stop) / (box[across][1] - box[across][0]),
        (box[across][1] - CUBE[across].start) / (box[across][1] - box[across][0]),
        (box[up][1] - CUBE[up].stop) / (box[up][1] - box[up][0]),
        (box[up][1] - CUBE[up].start) / (box[up][1] - box[up][0]),
    ]
    for reference, prediction, colour in ((truth, found, FALSE_POSITIVE), (found, truth, FALSE_NEGATIVE)):
        figure = draw_errors(
            View(
                _cube(0),
                AFFINE,
                reference=reference,
                prediction=prediction,
                targets={"": (1,)},
                window=(0.5, 1),
            )
        )
        pixels = _panel_pixels(_without_texts(figure), panel)
        coloured = pixels.max(axis=2) - pixels.min(axis=2) > 60
        assert _extent(coloured) == pytest.approx(expected, abs=0.012)
        inside = pixels[coloured].mean(axis=0)
        wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        assert np.corrcoef(inside, wanted)[0, 1] > 0.95


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
def test_every_orientation_draws_the_same_picture(codes: str) -> None:
    generator = np.random.default_rng(0)
    image = generator.normal(100, 60, SHAPE).astype(np.float32)
    reference, prediction = _cube(1, np.uint8), np.roll(_cube(1, np.uint8), 2, axis=0)
    shown = {"targets": {"organ": (1,)}, "modality": "MR"}
    original = figure_array(
        draw_planes(View(image, AFFINE, reference=reference, prediction=prediction, **shown))
    )
    stored, affine = _reorient(image, AFFINE, codes)
    other = draw_planes(
        View(
            stored,
            affine,
            reference=_reorient(reference, AFFINE, codes)[0],
            prediction=_reorient(prediction, AFFINE, codes)[0],
            **shown,
        )
    )
    np.testing.assert_array_equal(figure_array(other), original)


def test_a_centre_is_an_index_of_the_array_as_given() -> None:
    image, affine = _reorient(_cube(), AFFINE, "PIR")
    by_index = draw_planes(View(image, affine, targets={}, centre=(30 - 1 - 7, 16 - 1 - 10, 17)))
    by_ras = draw_planes(View(_cube(), AFFINE, targets={}, centre=(17, 7, 10)))
    np.testing.assert_array_equal(figure_array(by_index), figure_array(by_ras))


@pytest.mark.parametrize("codes", ["".join(c) for c in itertools.product("RL", "AP", "SI")])
def test_marks_name_the_directions_at_the_edges(codes: str) -> None:
    image, affine = _reorient(_cube(), AFFINE, codes)
    figure = draw_planes(View(image, affine, targets={}, centre=(3, 4, 5)))
    marks = [{text.get_text(): text.get_position() for text in axes.texts} for axes in figure.axes]
    assert [set(found) for found in marks] == [set("RLAP"), set("RLSI"), set("APSI")]
    for panel, left, right, top, bottom in ((0, *"RLAP"), (1, *"RLSI"), (2, *"APSI")):
        assert marks[panel][left][0] < 0.1 < 0.9 < marks[panel][right][0]
        assert marks[panel][bottom][1] < 0.1 < 0.9 < marks[panel][top][1]


def test_titles_give_the_position_in_the_world() -> None:
    figure = draw_planes(View(_cube(), AFFINE, targets={}, centre=(17, 7, 10)))
    titles = [axes.get_title() for axes in figure.axes]
    # x = -20 + 17 * 2, y = 10 + 7 * 1.5, z = -30 + 10 * 4
    assert titles == ["axial  S 10.0 mm", "coronal  A 20.5 mm", "sagittal  R 14.0 mm"]


def test_the_aspect_is_physical_and_shared() -> None:
    figure = draw_planes(View(_cube(), AFFINE, targets={}))
    for axes, (across, up) in zip(figure.axes, ACROSS_UP, strict=True):
        place = axes.get_window_extent()
        size_mm = SHAPE[across] * SPACING_MM[across], SHAPE[up] * SPACING_MM[up]
        assert place.width / place.height == pytest.approx(size_mm[0] / size_mm[1], rel=1e-6)
        assert place.width / size_mm[0] == pytest.approx(figure.axes[0].get_window_extent().width / 48)


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    figure = draw_planes(View(_cube(), AFFINE, targets={}))
    (label,) = [text.get_text() for text in figure.texts if text.get_text().endswith(" mm")]
    (bar,) = [artist for artist in figure.get_children() if isinstance(artist, Line2D)]
    length_px = float(np.ptp(bar.get_xdata())) * figure.bbox.width
    px_per_mm = figure.axes[0].get_window_extent().width / (SHAPE[0] * SPACING_MM[0])
    assert length_px / px_per_mm == pytest.approx(float(label.split()[0]))


def test_largest_cross_sections_by_hand() -> None:
    mask = np.zeros((6, 7, 8), dtype=bool)
    mask[1:4, 2:5, 3] = True  # a plate of 3 x 3 in slice 3 of the last axis
    mask[2, 3, :] = True  # and a needle through its middle
    assert largest_cross_sections(mask) == (2, 3, 3)
    assert largest_cross_sections(np.zeros((6, 7, 9))) == (3, 3, 4)


def test_window_limits() -> None:
    image = np.zeros((10, 11, 12))
    assert window_limits(image, "CT") == (-160, 240)
    assert window_limits(image, "CT", (30, 150)) == (-45, 105)
    assert window_limits(image, "MR") == (0, 1)
    image[2:8] = np.arange(6 * 11 * 12).reshape(6, 11, 12) + 1
    image[0, 0, 0] = np.nan
    assert window_limits(image, "MR") == pytest.approx(np.percentile(np.arange(1, 793), (0.5, 99.5)))
    low, high = window_limits(np.full((3, 4, 5), 7.0), "MR")
    assert low < 7 < high


def test_a_single_slice_is_drawn_in_its_one_plane() -> None:
    labels = np.zeros((20, 30, 1), np.uint8)
    labels[5:9, 5:9] = 1
    figure = draw_planes(
        View(labels.astype(np.float32), np.eye(4), reference=labels, targets={"organ": (1,)})
    )
    assert [axes.get_title().split()[0] for axes in figure.axes] == ["axial"]


def test_pictures_are_reproducible_and_inputs_untouched() -> None:
    image, labels = _cube(), _cube(2, np.uint8)
    before = image.copy(), labels.copy()
    shown = {"reference": labels, "prediction": labels, "targets": {"organ": (2,)}}
    png = figure_png(draw_planes(View(image, AFFINE, **shown)))
    assert png.startswith(b"\x89PNG")
    assert png == figure_png(draw_planes(View(image, AFFINE, **shown)))
    assert figure_array(draw_planes(View(image, AFFINE, **shown), width_px=600)).shape[1:] == (600, 3)
    assert figure_array(draw_thumbnail(View(image, AFFINE, **shown), width_px=96)).shape == (96, 96, 3)
    np.testing.assert_array_equal(image, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.real_data
def test_a_real_liver_is_on_the_left_of_the_picture(shared_data: Path) -> None:
    ct = nib.load(shared_data / "ct_abdomen" / "ct.nii.gz")
    labels = np.asarray(nib.load(shared_data / "ct_abdomen" / "totalsegmentator_labels.nii.gz").dataobj)
    figure = draw_planes(
        View(
            np.zeros(ct.shape, np.float32),
            ct.affine,
            reference=labels,
            targets={"liver": (5,)},
            window=(0.5, 1),
        )
    )
    for panel in (0, 1):
        pixels = _panel_pixels(_without_texts(figure), panel)
        columns = np.flatnonzero((pixels.max(axis=2) - pixels.min(axis=2) > 100).any(axis=0))
        assert columns.mean() < 0.45 * pixels.shape[1]

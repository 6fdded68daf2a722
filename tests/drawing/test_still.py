"""Stills: the right planes, the right way round, with every error visible in its picture."""

import io
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from medunet.drawing import still
from medunet.drawing.marks import Marks
from medunet.drawing.orthogonal import PLANES
from medunet.drawing.palette import FALSE_NEGATIVE, FALSE_POSITIVE, TARGET_COLOURS, to_rgb
from medunet.drawing.panel import Panel
from medunet.drawing.presets import Preset
from medunet.drawing.scene import StillView, largest_cross_sections
from medunet.drawing.sheet import scale_bar
from medunet.drawing.still import draw_still, draw_thumbnail, window_text
from medunet.records.finding import Finding
from medunet.scoring.findings import find_errors

SHAPE, SPACING_MM = (24, 30, 16), (2.0, 1.5, 4.0)
CUBE = (slice(15, 20), slice(5, 9), slice(9, 12))  # to the right, to the back, above the middle
AFFINE = nib.affines.from_matvec(np.diag(SPACING_MM), (-20, 10, -30))
GREY = Preset("grey", 0, 1)
TARGETS = {"organ": (1,), "tumour": (2,)}
WIDE = (60, 64, 40)  # a scan of 120 × 96 × 160 mm, of which a finding's picture is a part


def cube(value: float = 1, dtype: type = np.float32) -> NDArray:
    """Return an empty scan or label map with a cube in it."""
    volume = np.zeros(SHAPE, dtype=dtype)
    volume[CUBE] = value
    return volume


def pixels(png: bytes) -> NDArray[np.int64]:
    """Return a PNG as RGB (rows, columns, 3)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Panel]:
    """Return the panels of the sheets that are drawn from now on."""
    drawn: list[Panel] = []
    original = still.draw_sheet

    def record(rows, legend, **options):
        drawn.extend(place.panel for row in rows for place in row)
        return original(rows, legend, **options)

    monkeypatch.setattr(still, "draw_sheet", record)
    return drawn


@pytest.fixture
def headings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the texts that are written from now on: the heading of each sheet, and the titles of its panels."""
    written: list[str] = []
    original = still.draw_sheet

    def record(rows, legend, **options):
        written.extend([options["heading"], *(place.title for row in rows for place in row)])
        return original(rows, legend, **options)

    monkeypatch.setattr(still, "draw_sheet", record)
    return written


def extent(found: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """Return left, right, top and bottom of what was found, as fractions of the picture."""
    columns, rows = np.flatnonzero(found.any(axis=0)), np.flatnonzero(found.any(axis=1))
    height, width = found.shape
    return columns[0] / width, (columns[-1] + 1) / width, rows[0] / height, (rows[-1] + 1) / height


def expected_extent(number: int) -> tuple[float, float, float, float]:
    """Right and anterior are on the picture's left, anterior and superior on its top."""
    across, up = PLANES[number].across, PLANES[number].up
    return (
        1 - CUBE[across].stop / SHAPE[across],
        1 - CUBE[across].start / SHAPE[across],
        1 - CUBE[up].stop / SHAPE[up],
        1 - CUBE[up].start / SHAPE[up],
    )


def panel_pixels(panel: Panel) -> NDArray[np.int64]:
    """Return a panel as RGB."""
    return np.asarray(panel.finish()).astype(int)


def saturation(rgb: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how colourful pixels are."""
    return rgb.max(axis=2) - rgb.min(axis=2)


@pytest.mark.parametrize("number", range(3))
def test_a_known_cube_lies_at_its_place_in_every_plane(number: int, panels: list[Panel]) -> None:
    draw_still(StillView(cube(), AFFINE, {}, GREY), centre=(17, 7, 10))
    assert extent(panel_pixels(panels[number])[..., 0] > 127) == pytest.approx(
        expected_extent(number), abs=0.01
    )


@pytest.mark.parametrize("number", range(3))
def test_contours_lie_on_the_edge_of_what_they_outline(number: int, panels: list[Panel]) -> None:
    draw_still(StillView(cube(0), AFFINE, {"organ": (3,)}, GREY, reference=cube(3, np.uint8)))
    coloured = saturation(panel_pixels(panels[number])) > 100
    assert extent(coloured) == pytest.approx(expected_extent(number), abs=0.012)


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(("is_missed", "colour"), [(False, FALSE_POSITIVE), (True, FALSE_NEGATIVE)])
def test_errors_fill_the_voxels_that_differ(
    number: int, is_missed: bool, colour: str, panels: list[Panel]
) -> None:
    labels = [cube(1, np.uint8), np.zeros(SHAPE, np.uint8)]
    reference, prediction = labels if is_missed else labels[::-1]
    view = StillView(cube(0) + 0.5, AFFINE, {"organ": (1,)}, GREY, reference=reference, prediction=prediction)
    draw_still(view, marks="errors", centre=(17, 7, 10))
    drawn = panel_pixels(panels[number])
    coloured = saturation(drawn) > 40
    assert extent(coloured) == pytest.approx(expected_extent(number), abs=0.012)
    tint = drawn[coloured].mean(axis=0) - 128
    assert np.corrcoef(tint, to_rgb(colour))[0, 1] > 0.95


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SAL"])
@pytest.mark.parametrize("marks", ["contours", "errors"])
def test_every_orientation_draws_the_same_picture(codes: str, marks: Marks) -> None:
    image = np.random.default_rng(0).normal(0.5, 0.2, SHAPE).astype(np.float32)
    reference, prediction = cube(1, np.uint8), np.roll(cube(1, np.uint8), 2, axis=0)
    view = StillView(image, AFFINE, {"organ": (1,)}, GREY, reference=reference, prediction=prediction)
    (finding, *_) = find_errors(reference, prediction, view.targets, SPACING_MM)

    change = nib.orientations.ornt_transform(
        nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(tuple(codes))
    )
    to_given = nib.orientations.inv_ornt_aff(change, SHAPE)
    stored = replace(
        view,
        image=nib.apply_orientation(image, change),
        affine=AFFINE @ to_given,
        reference=nib.apply_orientation(reference, change),
        prediction=nib.apply_orientation(prediction, change),
    )
    moved = np.linalg.inv(to_given)
    ends = [
        tuple(np.rint(nib.affines.apply_affine(moved, voxel)).astype(int).tolist())
        for voxel in (finding.centre, finding.end)
    ]
    box = tuple((min(pair), max(pair) + 1) for pair in zip(*ends, strict=True))
    turned = replace(finding, centre=ends[0], end=ends[1], box=box)
    assert draw_still(stored, turned, marks=marks) == draw_still(view, finding, marks=marks)
    assert draw_still(stored, marks=marks) == draw_still(view, marks=marks)
    assert draw_thumbnail(stored, turned) == draw_thumbnail(view, finding)


def scene(seed: int = 0) -> StillView:
    """Return a scan with an organ and a tumour in it, and a prediction with every kind of error."""
    generator = np.random.default_rng(seed)
    image = generator.normal(0.4, 0.1, WIDE).astype(np.float32)
    reference = np.zeros(WIDE, np.uint8)
    reference[10:40, 10:50, 8:30] = 1
    reference[20:26, 20:28, 14:18] = 2
    reference[30:31, 40:41, 24:25] = 2  # a lesion of one voxel
    prediction = reference.copy()
    prediction[30, 40, 24] = 1  # missed
    prediction[14:16, 16:18, 26:27] = 2  # invented
    prediction[40:43, 20:22, 12:14] = 1  # too far
    prediction[10:40, 46:50, 8:30] = 0  # too short
    prediction[20:22, 20:28, 14:18] = 1
    targets = {"organ": (1, 2), "tumour": (2,)}
    return StillView(image, AFFINE, targets, GREY, reference=reference, prediction=prediction)


def findings_of(view: StillView) -> list[Finding]:
    """Return the errors of a view, of every kind."""
    found = find_errors(view.reference, view.prediction, view.targets, SPACING_MM, rules={"tumour": "lits"})
    assert {finding.kind for finding in found} == {
        *("surface_distance", "missed_lesion", "false_positive_lesion", "false_negative", "false_positive")
    }
    return found


def without(view: StillView, finding: Finding) -> StillView:
    """Return the view with the target of a finding predicted correctly within the finding's box."""
    place = tuple(slice(low, end) for low, end in finding.box)
    values = view.targets[finding.target]
    corrected = view.prediction.copy()
    wrong = np.isin(view.reference[place], values) != np.isin(corrected[place], values)
    corrected[place][wrong] = view.reference[place][wrong]
    return replace(view, prediction=corrected)


@pytest.mark.parametrize("marks", ["contours", "errors"])
def test_every_error_is_visible_in_its_picture(marks: Marks, panels: list[Panel]) -> None:
    view = scene()
    for finding in findings_of(view):
        panels.clear()
        draw_still(view, finding, marks=marks)
        with_error = [panel_pixels(panel) for panel in panels]
        panels.clear()
        draw_still(without(view, finding), finding, marks=marks)
        corrected = [panel_pixels(panel) for panel in panels]
        for shown, panel, plane in zip(with_error, panels, PLANES, strict=True):
            # What differs is within the picture, next to the voxel that the finding names.
            other = corrected[PLANES.index(plane)]
            changed = np.abs(shown - other).max(axis=2) > 60
            x, y = panel.to_px(np.array([[finding.centre[plane.across], finding.centre[plane.up]]], float))[0]
            assert 0 < x < panel.size[0]
            assert 0 < y < panel.size[1]
            rows, columns = np.nonzero(changed)
            assert rows.size > 20, (finding, plane.name)
            voxel_px = np.hypot(
                *panel.to_px(np.array([[1.0, 1.0]]))[0] - panel.to_px(np.array([[0.0, 0.0]]))[0]
            )
            assert np.hypot(columns - x, rows - y).min() < voxel_px, (finding, plane.name)


def test_a_distance_is_drawn_from_end_to_end_in_the_plane_where_it_is_longest(
    panels: list[Panel], headings: list[str]
) -> None:
    view = StillView(np.zeros(WIDE, np.float32), AFFINE, {"organ": (1,)}, GREY)
    finding = Finding(
        "surface_distance", "organ", (30, 20, 10), (30, 40, 12), 31.0, np.nan, ((30, 31), (20, 41), (10, 13))
    )
    empty = replace(finding, kind="false_positive", end=None)
    draw_still(view, finding)
    draw_still(view, empty)
    line, bare = [panel_pixels(panel) for panel in panels[:3]], [panel_pixels(panel) for panel in panels[3:]]
    sagittal, plane = panels[2], PLANES[2]
    ends = sagittal.to_px(
        np.array([[end[plane.across], end[plane.up]] for end in (finding.centre, finding.end)], float)
    )
    for share in np.linspace(0, 1, 9)[1:-1]:
        x, y = np.rint(ends[0] + share * (ends[1] - ends[0])).astype(int)
        assert line[2][y, x].min() > 120
        assert bare[2][y, x].max() < 50
    for end in ends:
        x, y = np.rint(end).astype(int)
        around = line[2][y - 8 : y + 9, x - 8 : x + 9]
        assert (around.min(axis=2) > 200).sum() > 25
    for other, panel, through in zip(
        line[:2], panels, PLANES, strict=False
    ):  # the others show where it starts
        x, y = np.rint(panel.to_px(np.array([[30, (20, 10)[through.up - 1]]], float))[0]).astype(int)
        assert (other[y - 8 : y + 9, x - 8 : x + 9].min(axis=2) > 200).sum() > 15
    assert headings[0] == "organ: worst surface distance, 31.0 mm"
    tilted = replace(finding, end=(33, 40, 12), box=((30, 34), (20, 41), (10, 13)))
    headings.clear()
    draw_still(view, tilted)
    assert headings[0] == (
        "organ: worst surface distance, 31.0 mm, projected onto the sagittal plane: its other end (ring) lies at "
        "R 46.0 mm"  # -20 + 33 * 2
    )


def test_titles_give_the_position_in_the_world(headings: list[str]) -> None:
    draw_still(StillView(cube(), AFFINE, {}, GREY), centre=(17, 7, 10))
    # x = -20 + 17 * 2, y = 10 + 7 * 1.5, z = -30 + 10 * 4
    assert headings == ["", "axial  S 10.0 mm", "coronal  A 20.5 mm", "sagittal  R 14.0 mm"]


def test_planes_are_large_at_one_scale(panels: list[Panel]) -> None:
    view = scene()
    for finding in (None, *findings_of(view)):
        panels.clear()
        draw_still(view, finding)
        assert all(max(panel.size) >= 400 for panel in panels)
        axial, coronal, sagittal = (panel.size for panel in panels)
        assert axial[0] == coronal[0]  # the same voxels from right to left
        assert coronal[1] == sagittal[1]
        assert axial[1] == sagittal[0]


@pytest.mark.parametrize(
    ("px_per_mm", "unit", "length", "text"),
    [
        (10, "mm", 100, "10 mm"),
        (1, "mm", 100, "100 mm"),
        (2000, "mm", 100, "50 µm"),
        (3, "px", 150, "50 px"),
        (0.4, "mm", 80, "200 mm"),
    ],
)
def test_the_scale_bar_is_as_long_as_it_says(px_per_mm: float, unit: str, length: int, text: str) -> None:
    assert scale_bar(px_per_mm, unit) == (length, text)


def test_the_window_is_named() -> None:
    view = StillView(cube(), AFFINE, {}, Preset("lung", -1350, 150))
    assert window_text(view) == "lung window: level -600, width 1500 HU"
    assert window_text(replace(view, modality="MR")) == "lung window: grey -1350 to 150"
    colour = replace(view, image=np.zeros((*SHAPE, 3)), modality="other", preset=Preset("standard", 3, 250))
    assert window_text(colour) == "standard window: colours 3 to 250"


def test_largest_cross_sections_by_hand() -> None:
    mask = np.zeros((6, 7, 8), dtype=bool)
    mask[1:4, 2:5, 3] = True  # a plate of 3 x 3 in slice 3 of the last axis
    mask[2, 3, :] = True  # and a needle through its middle
    assert largest_cross_sections(mask) == (2, 3, 3)
    assert largest_cross_sections(np.zeros((6, 7, 9))) == (3, 3, 4)


def test_a_single_slice_is_drawn_in_its_one_plane_and_large(panels: list[Panel]) -> None:
    labels = np.zeros((20, 30, 1), np.uint8)
    labels[5:9, 5:9] = 1
    draw_still(StillView(labels.astype(np.float32), np.eye(4), {"organ": (1,)}, GREY, reference=labels))
    (panel,) = panels
    assert max(panel.size) > 700


def test_pictures_in_colour_keep_their_colours_and_have_no_directions(headings: list[str]) -> None:
    image = np.zeros((40, 30, 1, 3), np.float32)
    image[..., 0], image[..., 2] = 200, 100
    labels = np.zeros((40, 30, 1), np.uint8)
    labels[10:20, 10:20] = 1
    view = StillView(
        image,
        np.eye(4),
        {"cell": (1,)},
        Preset("standard", 0, 255),
        "other",
        labels,
        np.roll(labels, 3, 0),
        "px",
    )
    (finding, *_) = find_errors(view.reference, view.prediction, view.targets, (1.0, 1.0, 1.0), unit="px")
    drawn = pixels(draw_still(view, finding))
    assert (np.abs(drawn - (200, 0, 100)).max(axis=2) <= 2).sum() > 1000
    assert headings[0] == "cell: worst surface distance, 3.0 px"
    assert headings[1:] == [""]


@pytest.mark.parametrize(
    "name", ["two\nlines", "\udcff.nii", "肝臓", "كبد", "<b>$x$</b>", "a" * 300, "lésion_hépatique"]
)
def test_names_in_any_script_are_drawn_without_stretching_the_sheet(name: str) -> None:
    view = scene()
    plain = pixels(draw_still(view)).shape[1]
    named = replace(view, targets={name: (1, 2), "tumour": (2,)})
    for finding in (None, *find_errors(view.reference, view.prediction, named.targets, SPACING_MM)):
        assert pixels(draw_still(named, finding)).shape[1] <= 1.3 * plain


def test_pictures_are_reproducible_and_inputs_untouched() -> None:
    view = scene()
    before = [array.copy() for array in (view.image, view.reference, view.prediction)]
    finding = findings_of(view)[0]
    png = draw_still(view, finding)
    assert png.startswith(b"\x89PNG")
    assert png == draw_still(view, finding)
    assert pixels(draw_thumbnail(view, finding, side_px=96)).shape == (96, 96, 3)
    assert pixels(draw_thumbnail(view)).shape == (144, 144, 3)
    for array, original in zip((view.image, view.reference, view.prediction), before, strict=True):
        np.testing.assert_array_equal(array, original)


def test_the_corner_map_covers_no_error(panels: list[Panel]) -> None:
    view = StillView(np.full(WIDE, 0.5, np.float32), AFFINE, {"organ": (1,)}, GREY)
    num_maps = 0
    for centre in ((5, 5, 3), (55, 60, 37), (30, 32, 20), (5, 60, 20)):
        box = tuple((i - 1, i + 2) for i in centre)
        panels.clear()
        draw_still(view, Finding("false_positive", "organ", centre, None, np.nan, 0.1, box))
        for panel, plane in zip(panels, PLANES, strict=True):
            frame = np.abs(panel_pixels(panel) - 150).max(axis=2) < 3
            corners = panel.to_px(
                np.array([[box[a][end] - 0.5 for a in (plane.across, plane.up)] for end in (0, 1)])
            )
            left, top = np.floor(corners.min(axis=0)).astype(int).clip(0)
            right, bottom = np.ceil(corners.max(axis=0)).astype(int)
            assert not frame[top:bottom, left:right].any()
            num_maps += frame.any()
    assert num_maps >= 8


def test_a_still_is_fast() -> None:
    image = np.random.default_rng(0).normal(0.5, 0.1, (256, 256, 100)).astype(np.float32)
    reference = np.zeros(image.shape, np.uint8)
    reference[100:160, 90:150, 30:60] = 1
    prediction = np.roll(reference, 5, axis=1)
    view = StillView(
        image, np.diag((1.0, 1.0, 2.5, 1.0)), TARGETS, GREY, reference=reference, prediction=prediction
    )
    finding = find_errors(reference, prediction, TARGETS, (1.0, 1.0, 2.5))[0]
    draw_still(view, finding)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        draw_still(view, finding, marks="errors")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.3  # about 0.05 on a machine that does nothing else


@pytest.mark.real_data
def test_a_real_liver_is_on_the_left_of_the_picture(shared_data: Path, panels: list[Panel]) -> None:
    ct = nib.load(shared_data / "ct_abdomen" / "ct.nii.gz")
    labels = np.asarray(nib.load(shared_data / "ct_abdomen" / "totalsegmentator_labels.nii.gz").dataobj)
    draw_still(StillView(np.zeros(ct.shape, np.float32), ct.affine, {"liver": (5,)}, GREY, reference=labels))
    for panel in panels[:2]:
        columns = np.flatnonzero((saturation(panel_pixels(panel)) > 100).any(axis=0))
        assert columns.mean() < 0.45 * panel.size[0]


def test_nested_regions_keep_their_colours(panels: list[Panel]) -> None:
    labels = np.zeros(WIDE, np.uint8)
    labels[15:45, 15:50, 10:30] = 1
    labels[20:40, 22:42, 14:26] = 2
    view = StillView(
        np.zeros(WIDE, np.float32), AFFINE, {"whole": (1, 2), "core": (2,)}, GREY, reference=labels
    )
    draw_still(replace(view, prediction=ndimage.shift(labels, (3, 0, 0), order=0)))
    for panel in panels[:2]:
        drawn = panel_pixels(panel)
        for colour in TARGET_COLOURS[:2]:
            assert (np.abs(drawn - to_rgb(colour)).max(axis=2) < 20).sum() > 200


def test_of_many_targets_only_that_of_the_finding_is_outlined(panels: list[Panel]) -> None:
    labels = np.zeros(WIDE, np.uint8)
    for value in range(1, 21):
        labels[2 * value : 2 * value + 2, 5:60, 5:35] = value
    prediction = np.where(labels == 9, 0, labels)  # class 8 counted from 0: the third colour again
    targets = {f"class {value}": (value,) for value in range(1, 21)}
    view = StillView(
        np.zeros(WIDE, np.float32), AFFINE, targets, GREY, reference=labels, prediction=prediction
    )
    (finding,) = find_errors(labels, prediction, targets, SPACING_MM)
    few = pixels(draw_still(view, finding))
    colours = [(np.abs(few - to_rgb(colour)).max(axis=2) < 12).sum() > 30 for colour in TARGET_COLOURS]
    assert colours == [False, False, True, False, False, False]
    assert pixels(draw_still(view)).shape[0] < few.shape[0] + 60  # the legend does not list them all


def test_ignored_voxels_are_no_errors(panels: list[Panel]) -> None:
    reference = cube(9, np.uint8)
    view = StillView(
        cube(0), AFFINE, {"organ": (1,)}, GREY, reference=reference, prediction=cube(1, np.uint8)
    )
    draw_still(view, marks="errors", centre=(17, 7, 10))
    draw_still(replace(view, ignore_value=9), marks="errors", centre=(17, 7, 10))
    tinted, bare = (saturation(panel_pixels(panel)).max() > 60 for panel in (panels[0], panels[3]))
    assert tinted
    assert not bare

"""The picture of a validated case: upright, large, to scale, each target in the colour that is named below it."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from medunet.drawing.letters import line_height
from medunet.drawing.palette import TARGET_COLOURS, to_rgb
from medunet.drawing.slice_picture import draw_slices
from medunet.drawing.slices import Slices

TARGETS = {"liver": (1, 2), "tumour": (2,)}
LIVER, TUMOUR = (np.array(to_rgb(colour)) for colour in TARGET_COLOURS[:2])
SIDE, GAP = 400, 8


def case(positions: tuple[int, ...] = (1, 4, 6), spacing_mm: tuple[float, float] = (1.0, 2.0)) -> Slices:
    """Return slices of 20×8 voxels, dark but for the corner at the patient's right and front."""
    image = np.zeros((3, 20, 8), np.float32)
    image[:, 16:, 6:] = 100
    label = np.zeros((3, 20, 8), np.uint8)
    label[:, 2:12, 1:7] = 1
    label[:, 4:8, 2:5] = 2
    return Slices(image, label, np.where(label == 2, 0, label).astype(np.uint8), positions, spacing_mm)


def columns(slices: Slices) -> list[NDArray[np.int64]]:
    """Return image, reference and prediction, the first row of each, without the gaps."""
    picture = np.asarray(draw_slices(slices, TARGETS, "c: Dice 0.500").convert("RGB")).astype(int)
    top = 2 * line_height(3 * SIDE // 40)  # below the title and the names of the columns
    return [
        picture[top : top + SIDE * 16 // 20, start : start + SIDE] for start in np.arange(3) * (SIDE + GAP)
    ]


def coloured(panel: NDArray, colour: NDArray) -> NDArray[np.bool_]:
    """Return where a picture has a colour, but for its rounding."""
    return np.abs(panel.astype(int) - colour).max(axis=2) <= 4


def test_right_is_left_and_front_is_up():
    image, *_ = columns(case())
    bright = image[..., 0] > 127
    assert bright[0, 0]
    rows, right = np.nonzero(bright)
    # 2 of 8 voxels of 2 mm down, 4 of 20 voxels of 1 mm across, at 20 pixels a mm
    assert rows.max() + 1 == pytest.approx(80, abs=3)
    assert right.max() + 1 == pytest.approx(80, abs=3)


def test_contours_run_along_the_masks_edge_in_each_targets_colour():
    image, reference, prediction = columns(case())
    liver, tumour = coloured(reference, LIVER), coloured(reference, TUMOUR)
    box = np.argwhere(liver)
    # 1 of 8 voxels is free in front, and 8 of 20 on the right
    assert box.min(0) == pytest.approx([40, 160], abs=3)
    assert box.max(0) == pytest.approx([40 * 7, 20 * 18], abs=3)
    box = np.argwhere(tumour)
    assert box.min(0) == pytest.approx([40 * 3, 20 * 12], abs=4)
    assert box.max(0) == pytest.approx([40 * 6, 20 * 16], abs=4)
    assert not coloured(image, LIVER).any()
    assert coloured(prediction, LIVER).any()
    assert not coloured(prediction, TUMOUR).any()  # the tumour was missed


def test_every_slice_has_at_least_400_pixels():
    many = draw_slices(case(), TARGETS, "c")
    assert many.width == 3 * SIDE + 2 * GAP
    assert many.height > 3 * SIDE * 16 // 20


def test_a_single_slice_is_drawn_once_and_large():
    many = draw_slices(case(), TARGETS, "c")
    one = draw_slices(case(positions=(0, 0, 0)), TARGETS, "c")
    assert many.width < one.width < 2 * many.width + 1
    assert one.height < many.height


def test_names_stand_below_with_their_colours_on_as_many_lines_as_they_need():
    few = draw_slices(case(), TARGETS, "c")
    below = np.asarray(few.convert("RGB"))[-line_height(3 * SIDE // 40) :]
    assert coloured(below, LIVER).sum() > 50
    assert coloured(below, TUMOUR).sum() > 50
    names = {f"target number {number}": (number,) for number in range(40)}
    many = draw_slices(case(), names, "c")
    assert many.width == few.width
    assert many.height > few.height + 5 * line_height(3 * SIDE // 40)


def test_a_title_may_hold_anything():
    assert draw_slices(case(), TARGETS, "$x$ <b>\n\udcff 肝").size == draw_slices(case(), TARGETS, "c").size


@pytest.mark.parametrize("spacing_mm", [(1.0, 100.0), (100.0, 1.0)])
def test_thin_slices_keep_room_for_titles(spacing_mm: tuple[float, float]):
    assert draw_slices(case(spacing_mm=spacing_mm), TARGETS, "c").width >= 3 * 110


def test_a_uniform_image_is_drawn():
    flat = Slices(
        np.ones((3, 5, 4), np.float32), *(np.zeros((3, 5, 4), np.uint8),) * 2, (0, 1, 2), (1.0, 1.0)
    )
    assert np.asarray(draw_slices(flat, TARGETS, "c").convert("RGB"))[100:500, :320].max() == 0


def test_drawing_takes_less_than_a_training_step():
    generator = np.random.default_rng(0)
    label = np.zeros((3, 128, 128), np.uint8)
    label[:, 30:90, 40:100] = 1
    label[:, 50:70, 60:80] = 2
    slices = Slices(
        generator.normal(size=label.shape).astype(np.float32),
        label,
        np.roll(label, 4, 1),
        (3, 5, 7),
        (1.0, 1.0),
    )
    draw_slices(slices, TARGETS, "c")
    seconds = []
    for _ in range(5):
        start = time.process_time()
        draw_slices(slices, TARGETS, "c")
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.15  # about 0.03 on a machine that does nothing else

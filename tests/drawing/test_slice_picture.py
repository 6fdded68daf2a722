"""The picture of a validated case: upright, to scale, each target in the colour that is named below it."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from medunet.drawing.palette import TARGET_COLOURS
from medunet.drawing.slice_picture import draw_slices
from medunet.drawing.slices import Slices

TARGETS = {"liver": (1, 2), "tumour": (2,)}
ORANGE, BLUE = (np.round(255 * np.array(to_rgb(colour))).astype(int) for colour in TARGET_COLOURS[:2])
TOP = 66  # pixels of title and column names


def case(positions: tuple[int, ...] = (1, 4, 6), spacing_mm: tuple[float, float] = (1.0, 2.0)) -> Slices:
    """Return slices of 20×8 voxels, dark but for the corner at the patient's right and front."""
    image = np.zeros((3, 20, 8), np.float32)
    image[:, 16:, 6:] = 100
    label = np.zeros((3, 20, 8), np.uint8)
    label[:, 2:12, 1:7] = 1
    label[:, 4:8, 2:5] = 2
    return Slices(image, label, np.where(label == 2, 0, label).astype(np.uint8), positions, spacing_mm)


def columns(slices: Slices, targets: dict = TARGETS) -> list[NDArray[np.uint8]]:
    """Return image, reference and prediction, the first row of each, without the gaps."""
    picture = np.asarray(draw_slices(slices, targets, "c: Dice 0.500").convert("RGB"))
    rows, (wide, tall) = len(set(slices.positions)), np.array(slices.image.shape[1:]) * slices.spacing_mm
    side = 320 if rows > 1 else 640
    width, height = round(side * wide / max(wide, tall)), round(side * tall / max(wide, tall))
    return [picture[TOP : TOP + height, start : start + width] for start in np.arange(3) * (width + 4)]


def coloured(panel: NDArray[np.uint8], colour: NDArray) -> NDArray[np.bool_]:
    return (panel == colour).all(axis=2)


def test_right_is_left_and_front_is_up():
    image, *_ = columns(case())
    bright = image[..., 0] > 250
    assert bright[0, 0]
    assert (
        bright.sum() == 64 * 64
    )  # 4 of 20 voxels of 1 mm across, 2 of 8 voxels of 2 mm down, at 16 pixels a mm
    assert not bright[64:].any()
    assert not bright[:, 64:].any()


def test_contours_run_within_the_masks_edge_in_each_targets_colour():
    image, reference, prediction = columns(case())
    liver, tumour = coloured(reference, ORANGE), coloured(reference, BLUE)
    box = np.argwhere(liver)
    assert box.min(0).tolist() == [32, 128]  # 1 of 8 voxels left free behind, 8 of 20 on the right
    assert box.max(0).tolist() == [32 * 7 - 1, 16 * 18 - 1]
    assert tumour.sum() == 2 * (2 * 64 + 2 * 96) - 4 * 4  # two pixels wide around 4×3 voxels
    assert not coloured(image, ORANGE).any()
    assert coloured(prediction, ORANGE).any()
    assert not coloured(prediction, BLUE).any()  # the tumour was missed


def test_a_single_slice_is_drawn_once_and_large():
    many = draw_slices(case(), TARGETS, "c")
    one = draw_slices(case(positions=(0, 0, 0)), TARGETS, "c")
    assert many.width < one.width < 2 * many.width + 1
    assert one.height < many.height


def test_names_stand_below_with_their_colours_on_as_many_lines_as_they_need():
    few = draw_slices(case(), TARGETS, "c")
    below = np.asarray(few.convert("RGB"))[-33:]
    assert coloured(below, ORANGE).sum() == coloured(below, BLUE).sum() == 19 * 19
    names = {f"target number {number}": (number,) for number in range(40)}
    many = draw_slices(case(), names, "c")
    assert many.width == few.width
    assert many.height > few.height + 33


@pytest.mark.parametrize("spacing_mm", [(1.0, 100.0), (100.0, 1.0)])
def test_thin_slices_keep_room_for_titles(spacing_mm: tuple[float, float]):
    assert draw_slices(case(spacing_mm=spacing_mm), TARGETS, "c").width >= 3 * 96


def test_a_uniform_image_is_drawn():
    flat = Slices(
        np.ones((3, 5, 4), np.float32), *(np.zeros((3, 5, 4), np.uint8),) * 2, (0, 1, 2), (1.0, 1.0)
    )
    assert np.asarray(draw_slices(flat, TARGETS, "c"))[TOP : TOP + 200, :96].max() == 0

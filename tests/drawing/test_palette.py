"""Colours and line styles are told apart by colour-blind readers and in grey."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medunet.drawing.contours import Pen, draw_contour
from medunet.drawing.palette import (
    DISAGREEMENT,
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    LINE_STYLES,
    TARGET_COLOURS,
    LineStyle,
    colour_targets,
    style_targets,
    to_rgb,
)

colour = pytest.importorskip("skimage.color")

# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0, for linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanope": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(colours: tuple[str, ...], vision: str) -> NDArray[np.float64]:
    """Return colours as CIELAB as they are seen."""
    srgb = np.array([to_rgb(each) for each in colours]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    mixed = (linear @ np.array(VISIONS[vision]).T).clip(0, 1)
    return colour.rgb2lab(np.where(mixed <= 0.0031308, 12.92 * mixed, 1.055 * mixed ** (1 / 2.4) - 0.055))


def closest(colours: tuple[str, ...], vision: str) -> float:
    """Return the smallest CIEDE2000 difference between two of the colours."""
    lab = seen(colours, vision)
    return min(float(colour.deltaE_ciede2000(lab[a], lab[b])) for a, b in combinations(range(len(lab)), 2))


@pytest.mark.parametrize("vision", VISIONS)
def test_every_kind_of_colour_vision_tells_the_colours_apart(vision: str):
    assert closest((*TARGET_COLOURS, FALSE_POSITIVE, FALSE_NEGATIVE), vision) > 14
    assert closest((*TARGET_COLOURS, DISAGREEMENT), vision) > 14
    assert closest((*TARGET_COLOURS[:3], FALSE_POSITIVE, FALSE_NEGATIVE), vision) > 20


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_differ_from_the_grey_of_a_scan(vision: str):
    lab = seen((*TARGET_COLOURS, FALSE_POSITIVE, FALSE_NEGATIVE, DISAGREEMENT), vision)
    grey = lab * [1, 0, 0]
    assert colour.deltaE_ciede2000(lab, grey).min() > 9


def test_no_target_has_the_colour_of_an_error():
    assert len({*TARGET_COLOURS, FALSE_POSITIVE, FALSE_NEGATIVE}) == len(TARGET_COLOURS) + 2


def drawn(style: LineStyle, *, is_broken: bool) -> NDArray[np.float64]:
    """Return how bright a white line is on its pixels, averaged across and along: a profile and a rhythm."""
    picture = Image.new("RGB", (600, 40), "#606060")
    line = np.array([(0.0, 10.0), (300.0, 10.0)])
    draw_contour(Pen(ImageDraw.Draw(picture), 2), line, (255, 255, 255), style, is_broken=is_broken)
    grey = np.asarray(picture.convert("L"), dtype=float) / 255
    return np.concatenate([grey.mean(axis=1), grey[:, 60:540].mean(axis=0)])


def test_every_target_and_both_masks_look_different_in_grey():
    lines = [drawn(style, is_broken=is_broken) for style in LINE_STYLES for is_broken in (False, True)]
    for first, second in combinations(lines, 2):
        assert np.abs(first - second).max() > 0.05


def test_colours_and_styles_belong_to_the_place_of_a_target():
    names = [f"class {number}" for number in range(8)]
    assert list(colour_targets(names).values()) == [*TARGET_COLOURS, *TARGET_COLOURS[:2]]
    assert list(style_targets(names).values()) == [*LINE_STYLES, *LINE_STYLES[:2]]

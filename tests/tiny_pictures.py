"""A handful of small pictures with numbered bright discs, in layout png: what the tests of 2D work run on."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medunet.records.description import Description

SIZES = ((48, 40), (40, 56), (64, 44))  # columns and rows


def describe_pictures(**others: Any) -> Description:
    """Return the description of pictures in colour whose labels number the discs."""
    plain: dict[str, Any] = {
        "name": "discs",
        "layout": "png",
        "channels": {name: {"modality": "other"} for name in ("red", "green", "blue")},
        "labels": {"background": 0, "disc": 1},
        "instances": True,
        "folds": 2,
    }
    return Description.parse({**plain, **others}, "test")


def draw_discs(number: int) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Return a picture `(rows, columns, 3)` and its discs' numbers `(rows, columns)`, from 300 on.

    Discs lie in the upper left alone, so that a turned or mirrored mask is another one.
    """
    rng = np.random.default_rng(number)
    columns, rows = SIZES[number % len(SIZES)]
    y, x = np.mgrid[:rows, :columns]
    numbers = np.zeros((rows, columns), np.uint16)
    for index in range(3):
        centre_x, centre_y = 8 + 10 * index + rng.integers(0, 2), 7 + 5 * index + rng.integers(0, 2)
        numbers[(x - centre_x) ** 2 + (y - centre_y) ** 2 < 16] = 300 + index
    picture = np.where(numbers[..., None] > 0, (200, 60, 120), (20, 25, 30)) + rng.normal(
        0, 4, (rows, columns, 3)
    )
    return picture.clip(0, 255).astype(np.uint8), numbers


def write_pictures(folder: Path, num_cases: int = 4) -> Path:
    """Write `disc_00.png`, ... below images/ and labels/."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(num_cases):
        picture, numbers = draw_discs(number)
        Image.fromarray(picture).save(folder / f"images/disc_{number:02d}.png")
        Image.fromarray(numbers).save(folder / f"labels/disc_{number:02d}.png")
    return folder

"""Texts in pictures: the font, and names whose letters it lacks."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font
from PIL import ImageFont

_MAX_LETTERS = 40


def _font_path() -> str:
    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@lru_cache
def load_font(size_px: int) -> ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which comes with matplotlib and has Latin, Greek, Cyrillic, Hebrew and Arabic letters."""
    return ImageFont.truetype(_font_path(), size_px)


def line_height(size_px: int) -> int:
    """Return the height in pixels of a line of text."""
    return round(1.6 * size_px)


@lru_cache
def _letters() -> frozenset[int]:
    return frozenset(FT2Font(_font_path()).get_charmap())


def printable(text: str) -> str:
    """Return a text on one line, without what cannot be encoded: names of files may hold anything."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def name_targets(names: Iterable[str]) -> dict[str, str]:
    """Return what stands for each target in a picture: its name without underscores.

    A name with letters that the font lacks, such as Chinese ones, is replaced by the target's number: "target 2". A
    name of more than 40 letters is shortened.
    """
    shown = {}
    for number, name in enumerate(names, start=1):
        text = printable(name.replace("_", " "))
        if not set(map(ord, text)) <= _letters():
            text = f"target {number}"
        shown[name] = text if len(text) <= _MAX_LETTERS else f"{text[: _MAX_LETTERS - 1]}…"
    return shown

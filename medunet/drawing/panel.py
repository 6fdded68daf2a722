"""One plane of a scan as a picture: the slice in grey, with contours, filled errors and marks on it.

Voxel `i` of an axis with spacing `s` covers `(i - 0.5) s ... (i + 0.5) s`. Everything is drawn enlarged and then
reduced, which smooths the edges; texts are drawn last.
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medunet.drawing.contours import Line, Pen, draw_contour, find_contours
from medunet.drawing.letters import load_font
from medunet.drawing.palette import INK, LineStyle, Rgb, to_rgb
from medunet.drawing.presets import Preset

OVER = 2  # enlargement while drawing
STRIPE_PX = 4
OPAQUE, _PALE = 165, 40  # of 255
_BLACK = (0, 0, 0)
LETTER_PX = 17
_LOCATOR_PX, _MAX_LOCATED, _FREE_PX = 110, 0.5, 24
_FRAME = (150, 150, 150)
_PADDING_PX, _BRACKET_PX = 7, 12  # of the brackets around a finding

Span = tuple[int, int]  # voxels [first, end)


class Panel:
    """A slice cropped to a box, at a scale.

    Args:
        pixels: the slice `(across, up)` of an RAS+ volume, or `(across, up, 3)` in colour.
        spans: the voxels to show, across and up.
        spacing_mm: the voxel size, across and up.
        px_per_mm: the scale.
        preset: the intensities shown as black and as white.
        over: enlargement while drawing, which smooths the edges; 1 is faster.
    """

    def __init__(
        self,
        pixels: NDArray,
        spans: tuple[Span, Span],
        spacing_mm: tuple[float, float],
        px_per_mm: float,
        preset: Preset,
        *,
        over: int = OVER,
    ) -> None:
        self._spans, self._step = spans, tuple(step * px_per_mm for step in spacing_mm)
        width, height = (
            max(1, round((end - first) * step)) for (first, end), step in zip(spans, self._step, strict=True)
        )
        self.size = width, height
        self._over, self._large = over, (width * over, height * over)
        grey = Image.fromarray(to_bytes(self._upright(pixels), preset))
        # Sharper filters draw dark rims around bright structures.
        self.picture = grey.resize(self._large, Image.Resampling.BILINEAR).convert("RGB")
        self._pen = Pen(ImageDraw.Draw(self.picture), over, _BLACK)
        self._texts: list[tuple[tuple[float, float], str, str, int]] = []

    def copy(self) -> "Panel":
        """Return the same picture, to draw other things on."""
        other = copy.copy(self)
        other.picture = self.picture.copy()
        other._pen = Pen(ImageDraw.Draw(other.picture), self._over, _BLACK)
        other._texts = list(self._texts)
        return other

    def _upright(self, array: NDArray) -> NDArray:
        """Return the shown part of a slice `(across, up)` as rows from the top and columns from the left."""
        (first, end), (low, high) = self._spans
        return np.ascontiguousarray(array[first:end, low:high][::-1, ::-1].swapaxes(0, 1))

    def to_px(self, points: NDArray) -> Line:
        """Return points `(N, 2)`, across and up in voxels, as x and y in pixels."""
        ends = np.array([end for _, end in self._spans])
        return (ends - 0.5 - points) * self._step

    def outline(self, mask: NDArray[np.bool_], colour: str, style: LineStyle, *, is_broken: bool) -> None:
        """Draw the contours of a mask `(across, up)`."""
        # With the voxels around the shown ones, so that contours leave the picture instead of following its edge.
        part = tuple(slice(max(0, first - 1), end + 1) for first, end in self._spans)
        start = [side.start for side in part]
        for line in find_contours(mask[part]):
            draw_contour(self._pen, self.to_px(line + start), to_rgb(colour), style, is_broken=is_broken)

    def fill(self, mask: NDArray[np.bool_], colour: str, *, is_striped: bool, opacity: int = OPAQUE) -> None:
        """Tint the voxels of a mask `(across, up)`, evenly or in stripes."""
        inside = self._upright(mask)
        if not inside.any():
            return
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        corners = []
        for present, size, large in ((columns, inside.shape[1], 0), (rows, inside.shape[0], 1)):
            scale = self._large[large] / size
            corners.append((round(present[0] * scale), round((present[-1] + 1) * scale)))
        (left, right), (top, bottom) = corners
        part = Image.fromarray(inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8))
        size = max(1, right - left), max(1, bottom - top)
        enlarged = np.asarray(part.resize(size, Image.Resampling.NEAREST)).astype(bool)
        stripe_px = STRIPE_PX * self._over if is_striped else 0
        tint(self.picture, (left, top), enlarged, colour, stripe_px, opacity)

    def bracket(self, spans: tuple[Span, Span]) -> None:
        """Draw the four corners of a frame around a box of voxels, across and up."""
        low, high = self.to_px(np.array(spans, dtype=float).T - 0.5)
        width, height = self.size
        left, right = max(high[0] - _PADDING_PX, 2), min(low[0] + _PADDING_PX, width - 3)
        top, bottom = max(high[1] - _PADDING_PX, 2), min(low[1] + _PADDING_PX, height - 3)
        reach = min(_BRACKET_PX, (right - left) / 3, (bottom - top) / 3)
        for x, inward in ((left, reach), (right, -reach)):
            for y, down in ((top, reach), (bottom, -reach)):
                self._line([(x + inward, y), (x, y), (x, y + down)])

    def add_locator(self, pixels: NDArray, preset: Preset, spans: tuple[Span, Span]) -> None:
        """Draw the whole slice small into a corner, with the shown part framed in it.

        Only where the panel shows less than half of the slice, and in a corner that does not cover the box `spans`.
        """
        sizes = [size * step for size, step in zip(pixels.shape[:2], self._step, strict=True)]
        shown = self.size[0] * self.size[1] / (sizes[0] * sizes[1])
        if shown > _MAX_LOCATED:
            return
        scale = _LOCATOR_PX / max(sizes)
        small = max(1, round(sizes[0] * scale)), max(1, round(sizes[1] * scale))
        corner = self._free_corner(small, spans)
        if corner is None:
            return
        whole = Image.fromarray(to_bytes(np.ascontiguousarray(pixels[::-1, ::-1].swapaxes(0, 1)), preset))
        size = small[0] * self._over, small[1] * self._over
        left, top = corner[0] * self._over, corner[1] * self._over
        self.picture.paste(whole.resize(size, Image.Resampling.BILINEAR).convert("RGB"), (left, top))
        frame = (left, top, left + size[0] - 1, top + size[1] - 1)
        self._pen.draw.rectangle(frame, outline=_FRAME, width=self._over)
        (first, end), (low, high) = self._spans
        step_x, step_y = (n / count for n, count in zip(size, pixels.shape, strict=False))
        box = (
            left + (pixels.shape[0] - end) * step_x,
            top + (pixels.shape[1] - high) * step_y,
            left + (pixels.shape[0] - first) * step_x - 1,
            top + (pixels.shape[1] - low) * step_y - 1,
        )
        outer = (box[0] - self._over, box[1] - self._over, box[2] + self._over, box[3] + self._over)
        self._pen.draw.rectangle(outer, outline=_BLACK, width=self._over)
        self._pen.draw.rectangle(box, outline=to_rgb(INK), width=self._over)

    def _free_corner(self, size: tuple[int, int], spans: tuple[Span, Span]) -> tuple[int, int] | None:
        """Return the upper left pixel of a picture in a corner that does not cover a box of voxels."""
        high, low = self.to_px(np.array(spans, dtype=float).T - 0.5)  # pixels run against the axes
        width, height = self.size
        for left in (width - size[0], 0):
            for top in (height - size[1], 0):
                is_beside = left > high[0] + _FREE_PX or left + size[0] < low[0] - _FREE_PX
                is_above = top > high[1] + _FREE_PX or top + size[1] < low[1] - _FREE_PX
                if is_beside or is_above:
                    return left, top
        return None

    def mark_distance(self, start: Sequence[float], end: Sequence[float], text: str) -> None:
        """Draw a line between two voxels, with a dot at its start and a ring at its end, and its text beside it."""
        first, last = self.to_px(np.array([start, end], dtype=float))
        self._line([tuple(first), tuple(last)])
        self._dot(first)
        self._ring(last)
        middle = (first + last) / 2
        along = (last - first) / max(math.hypot(*(last - first)), 1e-9)
        normal = np.array([-along[1], along[0]])
        is_below = normal[1] > 0 or (normal[1] == 0 and normal[0] < 0)
        normal *= -1 if is_below else 1  # the text stands above the line, or else to its right
        font = load_font(LETTER_PX)
        reach = 8 + font.getlength(text) / 2 * abs(normal[0]) + LETTER_PX / 2 * abs(normal[1])
        width, height = self.size
        x, y = middle + normal * reach
        half = font.getlength(text) / 2 + 3
        x, y = min(max(x, half), max(half, width - half)), min(max(y, LETTER_PX), height - LETTER_PX)
        self.write((x, y), text, "mm")

    def mark_voxel(self, voxel: Sequence[float]) -> None:
        """Draw a dot on a voxel."""
        self._dot(self.to_px(np.array([voxel], dtype=float))[0])

    def write(self, at: tuple[float, float], text: str, anchor: str, size_px: int = LETTER_PX) -> None:
        """Write a text at x and y in pixels, with Pillow's anchor."""
        self._texts.append((at, text, anchor, size_px))

    def finish(self) -> Image.Image:
        """Return the picture in its final size, with the texts."""
        picture = self.picture.reduce(self._over) if self._over > 1 else self.picture
        draw = ImageDraw.Draw(picture)
        for at, text, anchor, size_px in self._texts:
            draw.text(at, text, INK, load_font(size_px), anchor, stroke_width=2, stroke_fill="black")
        return picture

    def _line(self, points: Sequence[tuple[float, float]]) -> None:
        scaled = [(x * self._over, y * self._over) for x, y in points]
        self._pen.draw.line(scaled, _BLACK, 5 * self._over)
        self._pen.draw.line(scaled, INK, 2 * self._over)

    def _dot(self, centre: Line) -> None:
        self._discs(centre, ((5.5, _BLACK), (3.8, to_rgb(INK))))

    def _ring(self, centre: Line) -> None:
        self._discs(centre, ((6.5, _BLACK), (5.3, to_rgb(INK)), (2.8, _BLACK)))

    def _discs(self, centre: Line, discs: Sequence[tuple[float, Rgb]]) -> None:
        x, y = centre * self._over
        for radius_px, ink in discs:
            radius = radius_px * self._over
            self._pen.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def to_bytes(pixels: NDArray, preset: Preset) -> NDArray[np.uint8]:
    """Return intensities within a window as 0 to 255; NaN is black."""
    scale = 255 / max(preset.high - preset.low, 1e-12)
    scaled = (pixels.astype(np.float32) - preset.low) * scale
    return np.nan_to_num(scaled, nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def tint(
    picture: Image.Image,
    corner: tuple[int, int],
    inside: NDArray[np.bool_],
    colour: str,
    stripe_px: int = 0,
    opacity: int = OPAQUE,
) -> None:
    """Tint the pixels of a mask (rows, columns) whose upper left corner lies at x and y, evenly or in stripes."""
    left, top = corner
    height, width = inside.shape
    strength: NDArray[np.uint8] | int = opacity
    if stripe_px:
        diagonal = np.arange(left, left + width) + np.arange(top, top + height)[:, None]
        strength = np.where(diagonal // stripe_px % 2, np.uint8(opacity), np.uint8(_PALE))
    alpha = Image.fromarray(np.where(inside, strength, 0).astype(np.uint8))
    picture.paste(to_rgb(colour), (left, top), alpha)

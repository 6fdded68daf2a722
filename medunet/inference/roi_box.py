"""Boxes of a scan: around labels, with a margin in mm, and grown where labels reach a face."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine

_ROUNDING = 1e-6  # voxels by which a margin may exceed a whole number
_FACES = {"L": "left", "R": "right", "P": "posterior", "A": "anterior", "I": "inferior", "S": "superior"}
_OPPOSITE = {"L": "R", "R": "L", "P": "A", "A": "P", "I": "S", "S": "I"}


@dataclass(frozen=True)
class Face:
    """A face of a box: across an array axis, at its low or its high end."""

    axis: int
    is_high: bool


@dataclass(frozen=True)
class Box:
    """Voxels of a scan `(I, J, K)`: `starts` to `stops` - 1 along each axis."""

    starts: tuple[int, int, int]
    stops: tuple[int, int, int]

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> "Box":
        """Return the box of a start and a stop for each axis."""
        starts, stops = zip(*spans, strict=True)
        return cls(starts, stops)

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Start and stop of each axis."""
        return list(zip(self.starts, self.stops, strict=True))

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index of an array `(I, J, K)`."""
        first, second, third = (slice(start, stop) for start, stop in self.spans)
        return first, second, third

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        first, second, third = (stop - start for start, stop in self.spans)
        return first, second, third

    def clip(self, bounds: "Box") -> "Box":
        """Return the part within other bounds; at least the voxel that is nearest to it along each axis."""
        spans = []
        for (start, stop), (low, high) in zip(self.spans, bounds.spans, strict=True):
            start = min(max(start, low), high - 1)
            spans.append((start, max(min(stop, high), start + 1)))
        return Box.of(spans)

    def enlarge(self, margin_mm: float, spacing_mm: Sequence[float], bounds: "Box") -> "Box":
        """Return the box with a margin, rounded up to voxels, on all sides within the bounds."""
        margins = count_voxels(margin_mm, spacing_mm)
        spans = [
            (start - margin, stop + margin) for (start, stop), margin in zip(self.spans, margins, strict=True)
        ]
        return Box.of(spans).clip(bounds)

    def grow(self, faces: Iterable[Face], num_voxels: Sequence[int], bounds: "Box") -> "Box":
        """Return the box that reaches so many voxels (for each axis) further beyond some faces, within the bounds."""
        ends = [list(span) for span in self.spans]
        for face in faces:
            step = num_voxels[face.axis]
            ends[face.axis][face.is_high] += step if face.is_high else -step
        return Box.of((start, stop) for start, stop in ends).clip(bounds)

    def reached(self, labels: NDArray[np.uint8], bounds: "Box") -> list[Face]:
        """Return the faces that labels `(I, J, K)` of the box touch and that are not those of the bounds."""
        found = []
        for axis in range(3):
            is_inside = (self.starts[axis] > bounds.starts[axis], self.stops[axis] < bounds.stops[axis])
            for is_high in (False, True):
                if is_inside[is_high] and labels.take(-1 if is_high else 0, axis).any():
                    found.append(Face(axis, is_high))
        return found


def count_voxels(margin_mm: float, spacing_mm: Sequence[float]) -> list[int]:
    """Return a margin in voxels along each axis, rounded up."""
    return [math.ceil(margin_mm / step - _ROUNDING) for step in spacing_mm]


def find_box(labels: NDArray[np.uint8], values: Iterable[int]) -> Box | None:
    """Return the smallest box around the voxels of a label map `(I, J, K)` with some values; None without any."""
    is_wanted = np.zeros(256, bool)
    is_wanted[list(values)] = True
    rows, columns = np.zeros(labels.shape[0], bool), np.zeros(labels.shape[1], bool)
    planes = np.zeros(labels.shape[2], bool)
    for number in range(labels.shape[2]):  # slice by slice, so that no second volume is in memory
        plane = is_wanted[labels[:, :, number]]
        planes[number] = plane.any()
        if planes[number]:
            rows |= plane.any(axis=1)
            columns |= plane.any(axis=0)
    if not planes.any():
        return None
    ends = (np.flatnonzero(each)[[0, -1]] for each in (rows, columns, planes))
    return Box.of((int(first), int(last) + 1) for first, last in ends)


def name_faces(faces: Iterable[Face], affine: Affine) -> str:
    """Return the sides of the patient on which faces lie, such as "left, superior"."""
    codes = nib.orientations.aff2axcodes(affine)
    sides = (codes[face.axis] if face.is_high else _OPPOSITE[codes[face.axis]] for face in faces)
    return ", ".join(_FACES[side] for side in sides)

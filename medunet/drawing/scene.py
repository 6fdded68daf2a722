"""A scan with its label maps in RAS+ orientation: the planes through a voxel, and the box to show of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from medunet.drawing.orthogonal import PLANES, Box, Plane, box_around
from medunet.drawing.panel import Panel, Span
from medunet.drawing.presets import Preset
from medunet.imaging.geometry import Affine, spacing_of
from medunet.imaging.orientation import to_ras
from medunet.records.finding import Finding, Voxel

Unit = Literal["mm", "px"]  # px: a 2D picture without position in a patient

_MARGIN_MM, _MIN_SIDE_MM = 15.0, 60.0  # around what is shown
_MARGIN_VOXELS, _MIN_SIDE_VOXELS = (4, 40), (24, 120)  # limits of both, in the smallest spacing
_MAX_ELONGATION = 1.6
_MAX_COMPARED = 8  # label values; np.isin is faster for more


@dataclass(frozen=True)
class StillView:
    """A scan with the label maps on its grid, and how it is shown.

    With all targets of a dataset, in its order, a target has the same colour and line in every picture of a case.
    """

    image: NDArray  # (I, J, K) in any orientation, or (I, J, K, 3) in colour
    affine: Affine  # from voxel index to RAS+ mm
    targets: Mapping[str, tuple[int, ...]]  # target name -> its label values; their order decides the colours
    preset: Preset  # the window
    modality: str = "CT"  # decides how the window is printed: level and width in HU, or from and to
    reference: NDArray | None = None
    prediction: NDArray | None = None
    unit: Unit = "mm"
    ignore_value: int | None = None  # voxels of the reference with it are neither right nor wrong
    noun: str = "lesion"  # what a lesion is called


class Scene:
    """A scan with its label maps in RAS+ orientation."""

    def __init__(self, view: StillView) -> None:
        for name, labels in (("reference", view.reference), ("prediction", view.prediction)):
            if labels is not None and labels.shape != view.image.shape[:3]:
                raise AssertionError(f"{name} shape {labels.shape} is not the scan's {view.image.shape[:3]}")
        self.view = view
        self.image, self.affine = _reorient(view.image, view.affine)
        self.reference, self.prediction = (
            None if labels is None else _reorient(labels, view.affine)[0]
            for labels in (view.reference, view.prediction)
        )
        self.shape = self.image.shape[:3]
        self.spacing_mm = spacing_of(self.affine)
        self._from_given = np.linalg.inv(self.affine) @ view.affine

    def to_ras(self, voxel: Voxel | None) -> Voxel | None:
        """Return a voxel of the given arrays in RAS+ orientation."""
        if voxel is None:
            return None
        i, j, k = np.rint(apply_affine(self._from_given, voxel)).astype(int).tolist()
        return i, j, k

    def default_centre(self) -> Voxel:
        """Return the largest cross-sections of all targets in the reference, or in the prediction without it."""
        for labels in (self.reference, self.prediction):
            if (mask := self._all_targets(labels)).any():
                return largest_cross_sections(mask)
        i, j, k = (size // 2 for size in self.shape)
        return i, j, k

    def box_of(self, finding: Finding) -> Box:
        """Return the box of a finding in RAS+ orientation."""
        corners = np.array([[low for low, _ in finding.box], [end - 1 for _, end in finding.box]])
        turned = np.rint(apply_affine(self._from_given, corners)).astype(int)
        low, high = turned.min(axis=0).tolist(), turned.max(axis=0).tolist()
        return tuple((first, last + 1) for first, last in zip(low, high, strict=True))

    def turn(self, volume: NDArray) -> NDArray:
        """Return another volume on the grid of the view in RAS+ orientation."""
        return _reorient(volume, self.view.affine)[0]

    def crop(self, finding: Finding) -> Box:
        """Return the box to show around a finding."""
        return self.crop_to(self.box_of(finding))

    def crop_to_masks(self) -> Box:
        """Return the box to show around all targets; the whole grid if there are none."""
        mask = self._all_targets(self.reference) | self._all_targets(self.prediction)
        return self.crop_to(box_around(mask, (0, 0, 0))) if mask.any() else tuple((0, n) for n in self.shape)

    def crop_to(self, box: Box) -> Box:
        """Return the box to show around another one: with a margin, not much longer than wide, within the grid."""
        finest = min(self.spacing_mm)
        margin, least = (
            min(max(length, low * finest), high * finest)
            for length, (low, high) in ((_MARGIN_MM, _MARGIN_VOXELS), (_MIN_SIDE_MM, _MIN_SIDE_VOXELS))
        )
        lengths = [
            (end - first) * step + 2 * margin for (first, end), step in zip(box, self.spacing_mm, strict=True)
        ]
        least = max(least, max(lengths) / _MAX_ELONGATION)
        wide = []
        for (first, end), step, length, size in zip(box, self.spacing_mm, lengths, self.shape, strict=True):
            extra = math.ceil((max(length, least) / step - (end - first)) / 2)
            low, high = first - extra, end + extra
            low, high = low - max(0, high - size), high + max(0, -low)  # moved away from the border
            wide.append((max(0, low), min(size, high)))
        return tuple(wide)

    def seen_planes(self) -> list[Plane]:
        """Return the planes in which the scan is more than one voxel wide."""
        return [plane for plane in PLANES if min(self.shape[plane.across], self.shape[plane.up]) > 1] or [
            PLANES[0]
        ]

    def panel(self, plane: Plane, centre: Voxel, box: Box, px_per_mm: float) -> Panel:
        """Return the picture of a plane."""
        return Panel(
            self.cut(self.image, plane, centre),
            of_plane(plane, box),
            (self.spacing_mm[plane.across], self.spacing_mm[plane.up]),
            px_per_mm,
            self.view.preset,
        )

    def cut(self, volume: NDArray, plane: Plane, centre: Voxel) -> NDArray:
        """Return the slice `(across, up)` of a volume in a plane."""
        return volume[(slice(None),) * plane.through + (centre[plane.through],)]

    def _all_targets(self, labels: NDArray | None) -> NDArray[np.bool_]:
        if labels is None:
            return np.zeros(self.shape, dtype=bool)
        values = sorted({value for united in self.view.targets.values() for value in united})
        if len(values) > _MAX_COMPARED:
            return np.isin(labels, values)
        mask = np.zeros_like(labels, dtype=bool)  # in the memory order of the labels, unlike that of np.isin
        for value in values:
            mask |= labels == value
        return mask


def of_plane(plane: Plane, box: Box) -> tuple[Span, Span]:
    """Return the sides of a box across and up in a plane."""
    return box[plane.across], box[plane.up]


def largest_cross_sections(mask: NDArray) -> Voxel:
    """Return, for each axis of a mask `(I, J, K)`, the index of the slice with the most voxels.

    If several slices are equal, the middle one is returned; if the mask is empty, the centre of the volume.
    """
    indices = []
    for axis in range(3):
        area = np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))
        largest = np.flatnonzero(area == area.max())
        indices.append(int(largest[len(largest) // 2]))
    return indices[0], indices[1], indices[2]


def _reorient(array: NDArray, affine: Affine) -> tuple[NDArray, Affine]:
    """Return an array `(I, J, K)` or `(I, J, K, colours)` in RAS+ orientation, and its affine."""
    if array.ndim == 3:
        reoriented, affine = to_ras(array[None], affine)
        return reoriented[0], affine
    reoriented, affine = to_ras(np.moveaxis(array, -1, 0), affine)
    return np.moveaxis(reoriented, 0, -1), affine

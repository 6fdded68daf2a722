"""Detect masks that are mirrored relative to their image (P008), by the image's contrast at the mask's border."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from medunet.dataset.checks.fault_codes import make_fault
from medunet.dataset.checks.label_checks import Foreground
from medunet.imaging.geometry import Affine, axis_codes
from medunet.records.fault import Fault

_FLIPS = np.array(list(itertools.product((False, True), repeat=3)))  # the first is no flip
_MAX_FACES = 400  # along each axis: enough for a median
_MIN_FACES = 100
_MAX_VOXELS = 200_000  # in larger masks only every n-th plane is used
_MIN_RATIO = (
    1.3  # of contrasts; correct data reaches 0.9 with whole masks, 1.2 with single organs and lesions
)
_NOISE = 0.005  # of the image's range: smaller differences are noise
_BACKGROUND = 0.1  # of the image's range above its darkest voxel
_TOLERANCE = 0.05  # by which the share of the border on the background may increase
_DIRECTIONS = {"R": "left-right", "L": "left-right", "A": "front-back", "P": "front-back"}


@dataclass(frozen=True)
class Border:
    """Voxel faces at the border of a mask: flat indices, in Fortran order, of the voxels on both sides.

    Both arrays are `(8, faces)`: a row for the unflipped mask and for each flip about the grid's centre.
    """

    inside: NDArray[np.int64]
    outside: NDArray[np.int64]

    @classmethod
    def of(cls, foreground: Foreground) -> Self | None:
        """Sample up to 400 evenly spaced faces along each axis; return None if there are too few."""
        mask = foreground.labels != 0
        thinning = 1 + mask.size // _MAX_VOXELS
        start = np.array([[side.start] for side in foreground.box])
        sides: tuple[list[NDArray[np.int64]], ...] = ([], [])
        for axis in range(3):
            before = [slice(None, None, thinning if other == (axis or 3) - 1 else 1) for other in range(3)]
            after = before.copy()
            before[axis], after[axis] = slice(None, -1), slice(1, None)
            differ = mask[tuple(before)] != mask[tuple(after)]
            faces = np.flatnonzero(differ.ravel(order="F"))
            faces = faces[:: 1 + faces.size // _MAX_FACES]
            low = np.array(np.unravel_index(faces, differ.shape, order="F"))
            low *= np.array([[side.step or 1] for side in before])
            high = low + (np.arange(3) == axis)[:, None]
            low_is_inside = mask[tuple(low)]
            sides[0].append(np.where(low_is_inside, low, high) + start)
            sides[1].append(np.where(low_is_inside, high, low) + start)
        if sum(part.shape[1] for part in sides[0]) < _MIN_FACES:
            return None
        sizes = np.array(foreground.shape)
        weights = np.array([1, sizes[0], sizes[0] * sizes[1]])
        from_end = (_FLIPS * weights * (sizes - 1)).sum(1, keepdims=True)
        signed = np.where(_FLIPS, -weights, weights)
        inside, outside = (from_end + signed @ np.concatenate(part, axis=1) for part in sides)
        return cls(inside, outside)

    def measure(self, frame: NDArray[Any]) -> "BorderContrast":
        """Measure the contrast of an image `(I, J, K)` on the mask's grid."""
        flat = frame.ravel(order="F")  # without a copy for NIfTI
        inside, outside = (flat[side].astype(np.float32) for side in (self.inside, self.outside))
        dark = float(frame.min())
        extent = float(np.percentile(inside[0], 99)) - dark
        middle = inside.shape[1] // 2
        contrast = np.partition(np.abs(inside - outside), middle, axis=1)[:, middle] + _NOISE * extent
        return BorderContrast(contrast, (inside <= dark + _BACKGROUND * extent).mean(axis=1))


@dataclass(frozen=True)
class BorderContrast:
    """The contrast of one image at a mask's border, without and with each flip, arrays `(8,)`."""

    contrast: NDArray[np.floating]  # median absolute difference across the border, in the image's stored unit
    on_background: NDArray[np.floating]  # share of the border on the dark background


def check_mirrored(case_id: str, contrasts: Sequence[BorderContrast], affine: Affine) -> list[Fault]:
    """Return a warning if a case's images have a clearly higher contrast at the border of the mirrored mask.

    The median over faces is robust to a few strong edges nearby (lung, skull). Ratios of several images are averaged
    geometrically. A flip that moves more of the border onto the dark background is not considered.
    """
    if not contrasts or not all(
        np.isfinite(each.contrast).all() and (each.contrast > 0).all() for each in contrasts
    ):
        return []
    logs = np.mean([np.log(each.contrast / each.contrast[0]) for each in contrasts], axis=0)
    on_background = np.mean([each.on_background for each in contrasts], axis=0)
    logs[on_background > on_background[0] + _TOLERANCE] = 0
    best = int(np.argmax(logs))
    ratio = float(np.exp(logs[best]))
    if ratio < _MIN_RATIO:
        return []
    codes = axis_codes(affine)
    axes = " and ".join(
        f"{axis} ({_DIRECTIONS.get(codes[axis], 'up-down')})" for axis in np.flatnonzero(_FLIPS[best])
    )
    measured = (
        f"the image's contrast at the mask's border is {ratio:.2f} times as high with the mask mirrored along "
        f"axis {axes}; {on_background[best]:.0%} of the border is then on the background, "
        f"{on_background[0]:.0%} without mirroring"
    )
    return [make_fault("P008", case_id, "label", measured)]

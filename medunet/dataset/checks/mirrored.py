"""A mask that lies mirrored against its image (P008), told by the image's steps at the mask's border."""

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

_FLIPS = np.array(list(itertools.product((False, True), repeat=3)))  # the first is as it lies
_MAX_FACES = 400  # along each axis: enough for a median
_MIN_FACES = 100
_LOOKED_AT = 200_000  # voxels: of larger masks every n-th plane across an axis
_CLEARLY = 1.3  # times as steep; good data reaches 0.9 by whole masks, 1.2 by single organs and lesions
_FLOOR = 0.005  # of the image's range: smaller steps are noise
_BACKGROUND = 0.1  # of the image's range above its darkest voxel
_TOLERATED = 0.05  # of the border, by which more of it may lie on the background
_DIRECTIONS = {"R": "left-right", "L": "left-right", "A": "front-back", "P": "front-back"}


@dataclass(frozen=True)
class Border:
    """Faces between a mask and its surroundings: flat indices, Fortran order, of the voxels on both sides.

    Both arrays are `(8, faces)`: a row for the mask as it lies and for each flip about the grid's centre.
    """

    inside: NDArray[np.int64]
    outside: NDArray[np.int64]

    @classmethod
    def of(cls, foreground: Foreground) -> Self | None:
        """Sample at most 400 faces along each axis, evenly; None where there are too few to judge by."""
        mask = foreground.labels != 0
        thinning = 1 + mask.size // _LOOKED_AT
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

    def look_up(self, frame: NDArray[Any]) -> "Steps":
        """Measure an image `(I, J, K)` on the mask's grid."""
        flat = frame.ravel(order="F")  # of NIfTI no copy
        inside, outside = (flat[side].astype(np.float32) for side in (self.inside, self.outside))
        dark = float(frame.min())
        extent = float(np.percentile(inside[0], 99)) - dark
        middle = inside.shape[1] // 2
        steps = np.partition(np.abs(inside - outside), middle, axis=1)[:, middle] + _FLOOR * extent
        return Steps(steps, (inside <= dark + _BACKGROUND * extent).mean(axis=1))


@dataclass(frozen=True)
class Steps:
    """What a border meets in one image, as it lies and under each flip, `(8,)`."""

    sizes: NDArray[np.floating]  # median absolute difference across the border, in the image's stored unit
    on_background: NDArray[np.floating]  # part of the border that lies on the dark background


def check_mirrored(case_id: str, border_steps: Sequence[Steps], affine: Affine) -> list[Fault]:
    """Return a warning where a case's images all together have clearly steeper steps at the mirrored border.

    The median over faces is taken, which a few steep edges nearby (lung, skull) do not move as they move a mean; the
    ratios of several images are averaged by their logarithms. A flip that brings more of the border onto the dark
    background is passed over.
    """
    if not border_steps or not all(
        np.isfinite(steps.sizes).all() and (steps.sizes > 0).all() for steps in border_steps
    ):
        return []
    logs = np.mean([np.log(steps.sizes / steps.sizes[0]) for steps in border_steps], axis=0)
    on_background = np.mean([steps.on_background for steps in border_steps], axis=0)
    logs[on_background > on_background[0] + _TOLERATED] = 0
    best = int(np.argmax(logs))
    ratio = float(np.exp(logs[best]))
    if ratio < _CLEARLY:
        return []
    codes = axis_codes(affine)
    axes = " and ".join(
        f"{axis} ({_DIRECTIONS.get(codes[axis], 'up-down')})" for axis in np.flatnonzero(_FLIPS[best])
    )
    measured = (
        f"the image's steps at the mask's border are {ratio:.2f} times as steep with the mask mirrored along "
        f"axis {axes}; {on_background[best]:.0%} of the border then lies on the background, "
        f"{on_background[0]:.0%} as it is"
    )
    return [make_fault("P008", case_id, "label", measured)]

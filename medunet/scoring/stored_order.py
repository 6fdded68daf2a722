"""Turn arrays from RAS+ axis order to that of the stored files, in which lesions are numbered, and findings back."""

from dataclasses import replace

import nibabel as nib
from numpy.typing import NDArray

from medunet.records.finding import Finding, Voxel


class StoredOrder:
    """The axis order of stored files, such as "LPS", for a scan of known shape in RAS+ order.

    `axes[i]` is the axis of the RAS+ grid that is axis i of the stored one.
    """

    def __init__(self, codes: str, shape: tuple[int, ...]) -> None:
        stored = nib.orientations.axcodes2ornt(tuple(codes))
        ras = nib.orientations.axcodes2ornt(tuple("RAS"))
        self._change = nib.orientations.ornt_transform(ras, stored)
        self._shape = shape
        self.axes = [int(axis) for axis, _ in stored]  # of the RAS+ grid, in the order of the stored one
        self._is_flipped = [flip < 0 for _, flip in stored]

    def to_stored(self, array: NDArray) -> NDArray:
        """Return a view of an array `(I, J, K)` in stored order."""
        return nib.apply_orientation(array, self._change)

    def from_stored(self, finding: Finding) -> Finding:
        """Return a finding on the RAS+ grid."""
        box: list[tuple[int, int]] = [(0, 0)] * 3
        for axis, is_flipped, (low, high) in zip(self.axes, self._is_flipped, finding.box, strict=True):
            size = self._shape[axis]
            box[axis] = (size - high, size - low) if is_flipped else (low, high)
        return replace(
            finding,
            centre=self._turn(finding.centre),
            end=None if finding.end is None else self._turn(finding.end),
            box=tuple(box),
        )

    def _turn(self, voxel: Voxel) -> Voxel:
        turned = [0, 0, 0]
        for axis, is_flipped, index in zip(self.axes, self._is_flipped, voxel, strict=True):
            turned[axis] = self._shape[axis] - 1 - index if is_flipped else index
        return turned[0], turned[1], turned[2]

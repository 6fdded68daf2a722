"""Where the voxels of a scan lie in the network's grid, axis by axis, so that predictions are resampled in slabs.

Reorientation, cropping and resampling only permute, flip, shift and scale the axes, also of oblique scans. Along each
axis of the network's grid one axis of the scan runs, and a scan's voxel lies between two neighbours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medunet.imaging.geometry import Affine

_TOLERANCE_VOXELS = 1e-3  # of the network's grid, by which the scan's axes may be off its own


@dataclass(frozen=True)
class AxisPlacement:
    """The voxels of a scan along one axis of the network's grid."""

    scan_axis: int
    flipped: bool  # whether the scan's voxels run against the network's
    start: int  # range of the scan's voxels that were not cropped away
    stop: int
    positions: NDArray[np.float64]  # of these voxels in voxels of the network's grid, ascending


@dataclass(frozen=True)
class Placement:
    """A scan's voxels in the network's grid."""

    shape: tuple[int, int, int]  # of the scan
    axes: tuple[AxisPlacement, AxisPlacement, AxisPlacement]  # by axis of the network's grid
    lengths: tuple[int, int, int]  # of the network's grid

    @classmethod
    def of_whole(cls, shape: Sequence[int]) -> "Placement":
        """Return the placement of a scan `(I, J, K)` in its own grid."""
        first, second, third = (
            AxisPlacement(axis, False, 0, n, np.arange(n, dtype=np.float64)) for axis, n in enumerate(shape)
        )
        i, j, k = shape
        return cls((i, j, k), (first, second, third), (i, j, k))

    def view(self, mask: NDArray, order: Sequence[int]) -> NDArray:
        """Return the part of an array on the scan's grid that was not cropped away, its axes as the network's.

        Writing to the view changes the array. `order` permutes the network's axes.
        """
        box = [slice(0, 0)] * 3
        for axis in self.axes:
            box[axis.scan_axis] = slice(axis.start, axis.stop)
        part = mask[tuple(box)].transpose([self.axes[number].scan_axis for number in order])
        turned = (slice(None, None, -1 if self.axes[number].flipped else 1) for number in order)
        return part[tuple(turned)]


def find_placement(image: MetaTensor, shape: Sequence[int], affine: Affine) -> Placement | None:
    """Return where a scan's voxels lie in the grid of its preprocessed image `(C, I, J, K)`.

    None if the grids are not parallel, as when a sheared scan was resampled by a plan of medunet 0.4 or earlier.

    Args:
        shape: of the scan.
        affine: of the scan, from voxel index to RAS+ mm.
    """
    to_network = np.linalg.inv(image.affine.numpy()) @ affine
    matrix = to_network[:3, :3]
    scan_axes = np.abs(matrix).argmax(axis=1)
    off_axis = np.abs(matrix) * (np.array(shape) - 1)
    off_axis[range(3), scan_axes] = 0
    if sorted(scan_axes) != [0, 1, 2] or off_axis.sum(axis=1).max() > _TOLERANCE_VOXELS:
        return None
    cropped = _cropped_voxels(image)
    axes = []
    for number, scan_axis in enumerate(map(int, scan_axes)):
        step = matrix[number, scan_axis]
        before, after = cropped[number] if step > 0 else cropped[number][::-1]
        start, stop = before, shape[scan_axis] - after
        index = np.zeros((stop - start, 3))
        index[:, scan_axis] = np.arange(start, stop)
        positions = index @ matrix[number] + to_network[number, 3]
        axes.append(
            AxisPlacement(scan_axis, bool(step < 0), start, stop, positions[:: 1 if step > 0 else -1])
        )
    first, second, third = axes
    i, j, k = shape
    return Placement((i, j, k), (first, second, third), tuple(image.shape[1:]))  # type: ignore[arg-type]


def _cropped_voxels(image: MetaTensor) -> list[tuple[int, int]]:
    """Return the voxels that MONAI cropped at both ends of each axis, after reorientation."""
    for operation in image.applied_operations:
        if operation["class"] == "CropForeground":
            cropped = operation["extra_info"]["cropped"]
            return list(zip(cropped[::2], cropped[1::2], strict=True))
    return [(0, 0)] * 3

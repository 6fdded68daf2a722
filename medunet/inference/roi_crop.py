"""Cut a prepared scan to a box, so that the network computes there alone and labels are those of the box's voxels."""

from dataclasses import replace

from monai.data.meta_tensor import MetaTensor

from medunet.inference.placement import AxisPlacement, Placement
from medunet.inference.prepare import Prepared
from medunet.inference.roi_box import Box
from medunet.records.plan import Plan
from medunet.transforms.resampling import Neighbours


def bounds_of(placement: Placement) -> Box:
    """Return the voxels of the scan that preprocessing has not cropped away; labels lie nowhere else."""
    spans = {axis.scan_axis: (axis.start, axis.stop) for axis in placement.axes}
    return Box.of(spans[axis] for axis in range(3))


def crop_prepared(prepared: Prepared, box: Box, plan: Plan) -> Prepared:
    """Return a scan that was prepared whole, as if it had only the voxels of a box within `bounds_of` its placement.

    Intensities stay those of the whole scan. In the network's grid the image reaches at least as far as the box's
    labels need, and further where the scan goes on: to the size of a patch, and to what unpadded convolutions cut off
    or neighbouring slices show. It is a view of the whole image, which has to have a placement.
    """
    placement = prepared.placement
    assert placement is not None
    axes, spans = [], []
    for number, axis in enumerate(placement.axes):
        start, stop = box.spans[axis.scan_axis]
        first, last = start - axis.start, stop - axis.start
        if axis.flipped:
            first, last = axis.stop - stop, axis.stop - start
        positions = axis.positions[first:last]
        neighbours = Neighbours.at(positions, placement.lengths[number])
        needed = int(neighbours.low[0]), int(neighbours.high[-1]) + 1
        low, high = _widen(*needed, placement.lengths[number], *_reach(plan, number))
        spans.append((low, high))
        axes.append(AxisPlacement(axis.scan_axis, axis.flipped, 0, stop - start, positions - low))
    first_axis, second_axis, third_axis = axes
    cut = Box.of(spans)
    image = prepared.image.as_tensor()[(slice(None), *cut.slices)]
    affine = prepared.header.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ box.starts
    return replace(
        prepared,
        image=MetaTensor(image),
        header=replace(prepared.header, shape=box.shape, affine=affine),
        placement=Placement(box.shape, (first_axis, second_axis, third_axis), cut.shape),
    )


def _reach(plan: Plan, axis: int) -> tuple[int, int]:
    """Return the length of a patch along an axis of the network's grid, and what it sees beyond its output there."""
    if plan.dimensions == 3:
        return plan.patch_size[axis], plan.valid_margin[axis]
    if axis == plan.slice_axis:
        return plan.context_slices, plan.context_slices // 2
    number = axis - (axis > plan.slice_axis)
    return plan.patch_size[number], plan.valid_margin[number]


def _widen(low: int, high: int, length: int, size: int, beyond: int) -> tuple[int, int]:
    """Return a range with `beyond` voxels more at both ends and of at least `size`, as far as there are voxels."""
    low, high = low - beyond, high + beyond
    missing = max(0, size - (high - low))
    low, high = low - missing // 2, high + missing - missing // 2
    if missing:  # what lacks at one end is taken at the other
        low, high = low - max(0, high - length), high + max(0, -low)
    return max(0, low), min(length, high)

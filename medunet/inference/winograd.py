"""3D convolutions in OpenVINO with half of the multiplications: Winograd's F(4, 3) along the first axis of a volume.

Every four slices of a result are computed from the six slices around them: these are transformed into six weighted
sums, each sum is convolved along the other two axes with weights of its own, and the six results are transformed into
the four slices (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016; nested with a direct
convolution). So 3x3x3 becomes one and a half times 3x3. The float32 error is two to three times a direct one's.

The transforms are matrix products along the slices, for which the channels must come last. OpenVINO keeps them so in
memory, whatever the order of axes in the graph, and carries out no transposition there. Norms and activations that
follow are put into this order too; otherwise OpenVINO would choose another one for them.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)  # of interpolation: with 1 and 2 errors are 1.5 times as large
_TAPS, _TILE = 3, 4  # of the kernel; slices of the result that are computed together
_SUMS = len(POINTS) + 1
_WHOLE, _PART = 40, 24  # slices in one product, whose time grows with their square; of longer images parts
_LEAST_CHANNELS = 10  # C * K / (C + K) for C channels to K: with fewer, the transforms take what is saved
_MOST_WEIGHTS = 4  # that are added, relative to the numbers of image and result: more would cost memory alone
_MOST_SHARE = 0.7  # of the multiplications, by which the last tile may reach beyond the image
_ELEMENTWISE = {
    "Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "SquaredDifference", "Power", "Sqrt", "Abs",
    "Negative", "Clamp", "Elu", "Exp", "Gelu", "HSwish", "Mish", "PRelu", "Relu", "Sigmoid", "Swish", "Tanh",
}  # fmt: skip


def use_winograd(model: Any) -> int:
    """Replace the convolutions of a model of OpenVINO, for a batch of one volume, that become faster.

    They have a stride of 1, a kernel of three along the first axis, and a result of the image's size.

    Returns:
        the number of convolutions replaced.
    """
    graph = _ChannelsLast()
    count = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convolution":
            if _is_suited(node):
                graph.replace(node, _convolve(graph.of(node.input_value(0)), node))
                count += 1
        elif node.get_type_name() == "ReduceMean":
            graph.take_mean(node)
        elif node.get_type_name() in _ELEMENTWISE:
            graph.take_elementwise(node)
    model.validate_nodes_and_infer_types()
    return count


def make_transforms() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return Winograd's matrices of F(4, 3) by Toom and Cook: result (4, 6), kernel (6, 3), image (6, 6).

    With weights g and an image d, the result is `result @ ((kernel @ g) * (image @ d))`.
    """
    result, kernel, image = np.zeros((_TILE, _SUMS)), np.zeros((_SUMS, _TAPS)), np.zeros((_SUMS, _SUMS))
    for number, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        result[:, number] = point ** np.arange(_TILE)
        kernel[number] = point ** np.arange(_TAPS) / np.prod(np.subtract(point, others))
        image[number, :-1] = np.poly(others)[::-1]
    result[-1, -1] = kernel[-1, -1] = 1  # the point at infinity
    image[-1] = np.poly(POINTS)[::-1]
    return result, kernel, image


def _is_suited(node: Any) -> bool:
    shape, weights = node.input_value(0).get_partial_shape(), node.input_value(1).get_node()
    if len(shape) != 5 or shape.is_dynamic or shape.to_shape()[0] != 1:
        return False
    if weights.get_type_name() != "Constant":
        return False
    outputs, inputs, *kernel = weights.get_output_shape(0)
    pads = [size // 2 for size in kernel]
    if kernel[0] != _TAPS or not all(size % 2 for size in kernel):
        return False
    if list(node.get_pads_begin()) != pads or list(node.get_pads_end()) != pads:
        return False
    if any(step != 1 for step in (*node.get_strides(), *node.get_dilations())):
        return False
    length, *section = list(shape.to_shape())[2:]
    added = (_SUMS - _TAPS) * inputs * outputs * math.prod(kernel[1:])
    return (
        inputs * outputs >= _LEAST_CHANNELS * (inputs + outputs)
        and added <= _MOST_WEIGHTS * length * math.prod(section) * (inputs + outputs)
        and _SUMS * -(-length // _TILE) <= _MOST_SHARE * _TAPS * length
    )


def _convolve(image: Any, node: Any) -> Any:
    """Return the result of a convolution of an image `(1, I, J, K, C)`, channels last as well."""
    from openvino import opset13 as ops

    weights = node.input_value(1).get_node().data
    outputs = len(weights)
    _, length, *section, inputs = image.get_shape()
    width = math.prod(section)
    _, kernel, _ = make_transforms()
    spectrum = np.tensordot(kernel, weights, axes=(1, 2)).astype(np.float32)  # (6, outputs, inputs, ...)
    constants = [ops.constant(np.ascontiguousarray(each)) for each in spectrum]
    pads = [size // 2 for size in weights.shape[3:]]
    flat = ops.reshape(image, _integers(length, width * inputs), special_zero=False)
    parts = []
    for start, stop in _cut(length):
        first, last = max(start - 1, 0), min(stop + 1, length)
        part = flat
        if (first, last) != (0, length):
            part = ops.slice(flat, _integers(first), _integers(last), _integers(1), _integers(0))
        into, back = _matrices(start - first, stop - start, last - first)
        sums = ops.split(ops.matmul(ops.constant(into), part, False, False), ops.constant(np.int64(0)), _SUMS)
        tiles, done = len(into) // _SUMS, []
        for each, constant in zip(sums.outputs(), constants, strict=True):
            each = ops.reshape(each, _integers(tiles, *section, inputs), special_zero=False)
            each = ops.convolution(
                ops.transpose(each, _integers(0, 3, 1, 2)), constant, [1, 1], pads, pads, [1, 1]
            )
            each = ops.transpose(each, _integers(0, 2, 3, 1))
            done.append(ops.reshape(each, _integers(tiles, width * outputs), special_zero=False))
        parts.append(ops.matmul(ops.constant(back), ops.concat(done, 0), False, False))
    whole = ops.concat(parts, 0) if len(parts) > 1 else parts[0]
    return ops.reshape(whole, _integers(1, length, *section, outputs), special_zero=False)


def _cut(length: int) -> list[tuple[int, int]]:
    """Return the first and the last slice, exclusive, of parts of whole tiles."""
    size = length if length <= _WHOLE else -(-length // (-(-length // _PART) * _TILE)) * _TILE
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def _matrices(before: int, length: int, given: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the transforms of `given` slices, `before` of them before the first of `length` slices of the result.

    Their sums `(6 * tiles, ...)` come sum by sum. Slices beyond the given ones are zero.
    """
    result, _, image = make_transforms()
    tiles = -(-length // _TILE)
    into, back = np.zeros((_SUMS, tiles, given)), np.zeros((length, _SUMS, tiles))
    for tile in range(tiles):
        for row in range(_SUMS):
            slice_ = tile * _TILE + row - 1 + before
            if 0 <= slice_ < given:
                into[:, tile, slice_] = image[:, row]
        rows = range(tile * _TILE, min((tile + 1) * _TILE, length))
        back[rows, :, tile] = result[: len(rows)]
    return into.reshape(-1, given).astype(np.float32), back.reshape(length, -1).astype(np.float32)


class _ChannelsLast:
    """The results of a graph that have their channels last, beside their transpositions for the rest of the graph."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Any] = {}

    def of(self, output: Any) -> Any:
        """Return an output with the channels last."""
        known = self._find(output)
        return known if known is not None else _transpose(output, _to_last(len(output.get_shape())))

    def replace(self, node: Any, result: Any) -> None:
        """Put a result with the channels last in the place of a node's."""
        node.output(0).replace(self._back(result.output(0)))

    def take_mean(self, node: Any) -> None:
        """Take the mean of what has the channels last along the same axes."""
        known, axes = self._find(node.input_value(0)), node.input_value(1).get_node()
        if known is None or axes.get_type_name() != "Constant":
            return
        from openvino import opset13 as ops

        rank, keeps = len(known.get_shape()), node.get_attributes()["keep_dims"]
        order = _to_last(rank)
        reduced = {int(axis) % rank for axis in np.atleast_1d(axes.data)}
        left = [axis for axis in order if axis not in reduced]
        if not keeps and left != sorted(left):
            return
        mean = ops.reduce_mean(known, _integers(*map(order.index, reduced)), keeps)
        if keeps:
            self.replace(node, mean)
        else:
            node.output(0).replace(mean.output(0))

    def take_elementwise(self, node: Any) -> None:
        """Compute elementwise what has the channels last, with other inputs transposed, in place."""
        outputs = [node.input_value(number) for number in range(node.get_input_size())]
        if all(self._find(output) is None for output in outputs):
            return
        rank = len(node.output(0).get_partial_shape())
        for output in outputs:
            shape = output.get_partial_shape()
            if not shape.is_static or (len(shape) != rank and math.prod(shape.to_shape()) != 1):
                return
        for number, output in enumerate(outputs):
            if len(output.get_shape()) == rank:
                node.input(number).replace_source_output(self.of(output))
        node.validate_and_infer_types()
        result = node.output(0)
        users = list(result.get_target_inputs())
        back = self._back(result)
        for user in users:
            user.replace_source_output(back)

    def _find(self, output: Any) -> Any:
        return self._known.get((output.get_node().get_instance_id(), output.get_index()))

    def _back(self, output: Any) -> Any:
        rank = len(output.get_shape())
        back = _transpose(output, (0, rank - 1, *range(1, rank - 1)))
        self._known[back.get_node().get_instance_id(), 0] = output
        return back


def _to_last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def _transpose(output: Any, order: Sequence[int]) -> Any:
    from openvino import opset13 as ops

    return ops.transpose(output, _integers(*order)).output(0)


def _integers(*numbers: int) -> Any:
    from openvino import opset13 as ops

    return ops.constant(np.array(numbers, dtype=np.int64))

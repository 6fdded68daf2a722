"""Instance norms of a converted network as OpenVINO's own operation (MVN), for bf16 and int8.

OpenVINO converts PyTorch's instance norm into means, differences and products, and rounds each of them. Its own
operation computes in float32 inside and takes half of their time in bf16. In fp32 it is the less exact of the two, so
that there the converted norms are kept.
"""

from typing import Any

import numpy as np


def use_own_norms(model: Any) -> int:
    """Replace the instance norms of a model of OpenVINO, for a batch of one image, in place.

    Returns:
        the number of norms replaced.
    """
    from openvino import opset13 as ops

    count = 0
    for node in model.get_ordered_ops():
        found = _find_norm(node)
        if found is None:
            continue
        image, weight, epsilon = found
        rank = len(image.get_shape())
        axes = ops.constant(np.arange(2, rank, dtype=np.int64))
        norm = ops.mvn(image, axes, True, epsilon, "inside_sqrt")
        shape = (1, weight.size, *[1] * (rank - 2))
        scaled = ops.multiply(norm, ops.constant(weight.reshape(shape)))
        node.output(0).replace(scaled.output(0))
        count += 1
    model.validate_nodes_and_infer_types()
    return count


def _find_norm(node: Any) -> tuple[Any, Any, float] | None:
    """Return the image `(1, C, ...)`, weight `(C,)` and epsilon of a norm that ends in a product; None for others.

    It is (image + -1 * mean) * reshape(weight / sqrt(mean((image - mean)²) + epsilon)); the bias is added after it.
    """
    difference, scale = _inputs(node, "Multiply")
    image, shift = _inputs(difference, "Add")
    centre, minus = _inputs(shift, "Multiply")
    mean_of_image, _ = _inputs(centre, "Reshape")
    centred, _ = _inputs(mean_of_image, "ReduceMean")
    quotient, _ = _inputs(scale, "Reshape")
    weight, root = _inputs(quotient, "Divide")
    (total,) = _inputs(root, "Sqrt", 1)
    variance, epsilon = _inputs(total, "Add")
    square, axes = _inputs(variance, "ReduceMean")
    first, second = _inputs(square, "Multiply")
    subtracted, mean = _inputs(first, "Subtract")
    averaged, _ = _inputs(mean, "ReduceMean")
    if None in (averaged, centred) or first != second or not image == subtracted == averaged == centred:
        return None
    shape = list(image.get_shape())
    numbers = [_number(output) for output in (weight, epsilon, axes, minus)]
    if any(each is None for each in numbers) or shape[0] != 1 or len(shape) < 3:
        return None
    factors, offset, along, sign = numbers
    if (
        (sign != -1).any()
        or sorted(along.tolist()) != [0, *range(2, len(shape))]
        or factors.size not in (1, shape[1])
    ):
        return None
    while image.get_node().get_type_name() == "Reshape":  # into the same shape
        before = image.get_node().input_value(0)
        if list(before.get_shape()) != shape:
            break
        image = before
    return image, np.broadcast_to(factors.ravel(), shape[1]).astype(np.float32), offset.item()


def _inputs(output: Any, kind: str, count: int = 2) -> tuple[Any, ...]:
    """Return the inputs of the node of an output, or of a node, if it is of a kind; None for each otherwise."""
    node = output.get_node() if hasattr(output, "get_node") else output
    if node is None or node.get_type_name() != kind:
        return (None,) * count
    return tuple(node.input_value(number) for number in range(count))


def _number(output: Any) -> Any:
    """Return the array of a constant, also of one that is broadcast (the weight of a norm without one); None else."""
    node = output.get_node()
    if node.get_type_name() == "Broadcast":
        node = node.input_value(0).get_node()
    return node.data if node.get_type_name() == "Constant" else None

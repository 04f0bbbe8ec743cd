"""Copies of tensors that a graph's optimizer takes no notice of.

Before it runs a graph, TensorFlow merges factors and sums into the operations behind them, wherever
nobody else reads the product in between. To read a gradient is to be somebody else: the update
would then be rounded in another place, and the weights of a tracked run would differ in their last
bits. So what is read is a copy of the gradient, made by copies of the elementwise operations that
it comes from, from whatever they begin with (the result of a matrix product, a convolution, a sum).
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_ELEMENTWISE = frozenset(
    "Add AddN AddV2 Cast Div DivNoNan ExpandDims Identity Maximum Minimum Mul MulNoNan Neg Pow "
    "RealDiv Reciprocal Reshape Rsqrt Select SelectV2 Sqrt Square Squeeze Sub Xdivy".split()
)


def unshared(tensors: Sequence[Any]) -> list[Any]:
    """Copies with the same values; outside a graph, where nothing is merged, the same tensors.

    Args:
        tensors: tensors, `IndexedSlices`, or None.
    """
    copies: dict[int, tf.Tensor] = {}
    return [_unshared(tensor, copies) for tensor in tensors]


def _unshared(tensor: Any, copies: dict[int, tf.Tensor]) -> Any:
    if isinstance(tensor, tf.IndexedSlices):
        values = _unshared(tensor.values, copies)
        return tf.IndexedSlices(values, tensor.indices, tensor.dense_shape)
    if not tf.is_symbolic_tensor(tensor) or tensor.op.type not in _ELEMENTWISE:
        return tensor
    if id(tensor) not in copies:
        op = tensor.op
        # Without a mark of its own an equal operation would be merged with the first again.
        mark = {"_kgrad": tf.compat.v1.AttrValue(b=True)}
        copy = tensor.graph.create_op(
            op.type,
            [_unshared(source, copies) for source in op.inputs],
            [output.dtype for output in op.outputs],
            attrs=dict(op.node_def.attr) | mark,
        )
        copies[id(tensor)] = copy.outputs[tensor.value_index]
    return copies[id(tensor)]

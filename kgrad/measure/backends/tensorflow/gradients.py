"""Gradients in a graph, made readable without a change of the update.

Before TensorFlow runs a graph, it fuses factors and sums into the operations behind them, unless
another operation reads the product in between. Reading a gradient adds such a consumer, which
disables this fusion and changes the update's rounding: the weights of a tracked run would differ in
their last bits. Therefore a copy of the gradient is read. It is made by copies of the elementwise
operations that the gradient comes from, starting from the results of other operations (matrix
products, convolutions, sums).
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_ELEMENTWISE = frozenset(
    "Add AddN AddV2 Cast Div DivNoNan ExpandDims Identity Maximum Minimum Mul MulNoNan Neg Pow "
    "RealDiv Reciprocal Reshape Rsqrt Select SelectV2 Sqrt Square Squeeze Sub Xdivy".split()
)


def readable_gradients(gradients: Sequence[Any]) -> list[Any]:
    """Return copies of gradients that may be read, summed over the replicas of a strategy.

    Args:
        gradients: tensors, `IndexedSlices`, or None.

    Returns:
        A tensor for each gradient, None for None.
    """
    # Rows of an embedding that occur twice in IndexedSlices are added.
    copies = [None if g is None else tf.convert_to_tensor(g) for g in unshared(gradients)]
    replicas = tf.distribute.get_replica_context()
    if replicas is None or replicas.num_replicas_in_sync == 1:
        return copies
    present = [g for g in copies if g is not None]
    reduced = iter(replicas.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [None if g is None else next(reduced) for g in copies]


def unshared(tensors: Sequence[Any]) -> list[Any]:
    """Return copies with the same values; outside a graph, where nothing is fused, the tensors.

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
        # Without a mark TensorFlow would merge the copy with the operation again.
        mark = {"_kgrad": tf.compat.v1.AttrValue(b=True)}
        copy = tensor.graph.create_op(
            op.type,
            [_unshared(source, copies) for source in op.inputs],
            [output.dtype for output in op.outputs],
            attrs=dict(op.node_def.attr) | mark,
        )
        copies[id(tensor)] = copy.outputs[tensor.value_index]
    return copies[id(tensor)]

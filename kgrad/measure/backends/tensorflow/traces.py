"""The traces of TensorFlow's functions: which variables they update, and how to make them anew."""

import gc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kgrad.measure.backends.tensorflow.totals import Totals

# The operations that take a variable's handle and leave the variable as it is.
_READ_ONLY = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape"}
# The class of what `tf.function` returns.
_Function = type(tf.function(lambda: None))


def trained_variables(
    step: Callable[..., Any] | None, variables: Sequence[keras.Variable]
) -> frozenset[int] | None:
    """Return the `id` of those variables that a compiled step of `fit` trains.

    Keras's step goes on training what was trainable when it was traced.

    Args:
        step: a model's `train_function`.
        variables: the variables that it may train.

    Returns:
        None if the step was not traced, or is not compiled.
    """
    parts = [cell.cell_contents for cell in getattr(step, "__closure__", None) or ()]
    traces = [trace for part in parts for trace in _traces(part)]
    if not traces:
        return None
    updated = _updated(traces[-1])
    return frozenset(id(v) for v in variables if not updated.isdisjoint(_handles(v.value)))


def forget_traces(optimizer: keras.optimizers.Optimizer, totals: Totals | None) -> None:
    """Have functions traced anew that make an optimizer's updates without folding them.

    Args:
        optimizer: the optimizer.
        totals: what updates are folded into; None if nothing was folded yet.
    """
    if not optimizer.built:
        return
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    counter = set(_handles(inner.iterations.value))
    folded = set() if totals is None else {h for v in totals.variables for h in _handles(v)}
    for function in [one for one in gc.get_objects() if type(one) is _Function]:
        updated = [_updated(trace) for trace in _traces(function)]
        if any(handles & counter and not handles & folded for handles in updated):
            function._function_cache.clear()


def _traces(function: Any) -> list[Any]:
    return function._function_cache.values() if type(function) is _Function else []


def _updated(trace: Any) -> set[int]:
    """Return the `id` of the handle of each variable that a trace assigns."""
    outside = {inside.name: handle for handle, inside in trace.graph.captures}
    updated = set()
    for operation in trace.graph.get_operations():
        if operation.type in _READ_ONLY:
            continue
        try:  # an operation that calls a function, such as a condition
            read_only = set(operation.get_attr("_read_only_resource_inputs"))
        except ValueError:
            read_only = set()
        for i, tensor in enumerate(operation.inputs):
            if tensor.dtype == tf.resource and i not in read_only and tensor.name in outside:
                updated.add(id(outside[tensor.name]))
    return updated


def _handles(variable: Any) -> Iterable[int]:
    """Return the `id` of a variable's handle, under a distribution strategy of each copy's."""
    return [id(copy.handle) for copy in getattr(variable, "values", (variable,))]

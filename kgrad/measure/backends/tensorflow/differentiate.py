"""TensorFlow's gradients by intermediate tensors, and passes that leave a model as it was."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def intermediate_gradients(
    function: Callable[[Callable[[Any], Any]], tuple[Any, Any]],
) -> tuple[Any, list[Any]]:
    """Differentiate scalars by tensors that come up on the way to them.

    Args:
        function: takes a function `point`, which copies a tensor of floats, and returns (scalars,
            other tensors). The scalars are differentiated by every copy.

    Returns:
        The other tensors, and for each scalar the gradient by each copy in the order in which they
        were made, zeros if no path leads from the copy to the scalar.
    """
    points: list[tf.Tensor] = []
    with tf.GradientTape(persistent=True) as tape:

        def point(tensor: tf.Tensor) -> tf.Tensor:
            points.append(tf.identity(tensor))
            tape.watch(points[-1])
            return points[-1]

        scalars, others = function(point)
    rows = [tape.gradient(scalar, points, unconnected_gradients="zero") for scalar in scalars]
    return others, [[tf.convert_to_tensor(gradient) for gradient in row] for row in rows]


def floats_of_this_trace() -> Callable[[Any], bool]:
    """Return a function that says whether something is a dense tensor of floats of this graph.

    Tensors of a loop or branch inside the graph, or of another `tf.function`, are not.
    """
    graph = tf.compat.v1.get_default_graph()

    def is_one(tensor: Any) -> bool:
        symbolic = isinstance(tensor, tf.Tensor) and tf.is_symbolic_tensor(tensor)
        return symbolic and tensor.graph is graph and tensor.dtype.is_floating

    return is_one


def compile_dry_run(
    model: keras.Model, function: Callable[..., Any], *data: Any
) -> Callable[[], Any]:
    """Compile a function that calls a model, for runs that leave the model as it was.

    Args:
        model: a built Keras model.
        function: takes the data as tensors and returns a structure of tensors.
        data: structures of arrays.

    Returns:
        A function without arguments. It runs with the variables as they are, restores those that
        it changes, random generators included, and returns the structure with NumPy arrays.
    """
    constants = keras.tree.map_structure(tf.constant, data)

    def traced() -> Any:
        return function(*keras.tree.map_structure(tf.identity, constants))  # in the graph

    # As in `fit`, autograph does not rewrite the model's Python.
    compiled = tf.function(traced, autograph=False).get_concrete_function()
    variables = tuple(compiled.variables)  # which the function itself does not keep alive

    def run() -> Any:
        before = [variable.read_value() for variable in variables]
        try:
            return keras.tree.map_structure(np.asarray, compiled())
        finally:
            for variable, value in zip(variables, before, strict=True):
                variable.assign(value)

    return run

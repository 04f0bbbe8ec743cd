"""JAX's gradients by intermediate tensors, and passes that leave a model as it was."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from jax.extend.core import get_opaque_trace_state
from keras.src.backend.common.stateless_scope import get_stateless_scope


def intermediate_gradients(
    function: Callable[[Callable[[Any], Any]], tuple[Any, Any]],
) -> tuple[Any, list[Any]]:
    """Differentiate scalars by tensors that come up on the way to them.

    JAX differentiates by arguments only, so `function` is run twice, each time with the variables
    as they are: once for the shapes of the tensors, and then with a δ = 0 added to each of them.

    Args:
        function: takes a function `point`, which copies a tensor of floats, and returns (scalars,
            other tensors). The scalars are differentiated by every copy.

    Returns:
        The other tensors, and for each scalar the gradient by each copy in the order in which they
        were made, zeros if no path leads from the copy to the scalar.
    """
    shapes: list[jax.ShapeDtypeStruct] = []

    def point(tensor: Any) -> Any:
        shapes.append(jax.ShapeDtypeStruct(tensor.shape, tensor.dtype))
        return tensor + jnp.zeros_like(tensor)

    def shifted(deltas: list[Any]) -> tuple[list[Any], Any]:
        left = iter(deltas)
        with _same_variables():
            return function(lambda tensor: tensor + next(left))

    with _same_variables():
        jax.eval_shape(lambda: function(point))
    zeros = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    scalars, pull_back, others = jax.vjp(shifted, zeros, has_aux=True)
    rows = []
    for i in range(len(scalars)):
        weights = [jnp.full_like(scalar, i == j) for j, scalar in enumerate(scalars)]
        rows.append(pull_back(weights)[0])
    return others, rows


def _same_variables() -> Any:
    """Return a scope with the values of the current one, whose changes end with it."""
    scope = keras.StatelessScope(collect_losses=True, initialize_variables=False)
    current = get_stateless_scope()
    if current is not None:
        scope.state_mapping.update(current.state_mapping)
    return scope


def floats_of_this_trace() -> Callable[[Any], bool]:
    """Return a function that says whether something is an array of floats, seen in this trace.

    Arrays of a loop or branch inside, or of another `jax.jit`, are of traces of their own.
    """
    trace = get_opaque_trace_state()

    def is_one(tensor: Any) -> bool:
        is_float = isinstance(tensor, jax.Array) and jnp.issubdtype(tensor.dtype, jnp.floating)
        return is_float and get_opaque_trace_state() == trace

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
        A function without arguments. It runs with the variables as they are, also while `fit` runs,
        and returns the structure with NumPy arrays.
    """
    optimizer = model.optimizer if model.compiled else None
    variables = [*model.variables, *model.metrics_variables]
    variables += [] if optimizer is None else optimizer.variables

    @jax.jit
    def compiled(values: list[Any], data: Any) -> Any:
        pairs = zip(variables, values, strict=True)
        with keras.StatelessScope(pairs, initialize_variables=False):
            return function(*data)

    def values() -> list[Any]:
        model.jax_state_sync()  # while fit runs, the values are not in the variables
        return [variable.value for variable in variables]

    compiled.lower(values(), data)  # errors come now, not in the first run
    return lambda: keras.tree.map_structure(np.asarray, compiled(values(), data))

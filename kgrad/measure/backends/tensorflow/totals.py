"""Arrays that the compiled steps of TensorFlow fold into: `Totals`."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Totals:
    """Named arrays that training steps fold into.

    Under a distribution strategy every replica folds the same gradients, summed over the replicas,
    into its own copy, so that any copy can be read.

    Args:
        initial: the initial values, by name.
    """

    def __init__(self, initial: Mapping[str, np.ndarray]) -> None:
        self._variables = {
            name: tf.Variable(
                array,
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            for name, array in initial.items()
        }
        self._read_and_empty: Callable[[], dict[str, tf.Tensor]] | None = None

    def fold(
        self,
        merge: Callable[[Any, dict[str, Any], Mapping[str, Any]], dict[str, Any]],
        step: Mapping[str, Any],
        made: Any = None,
    ) -> None:
        """Replace the values by `merge(keras.ops, values, step)`; in the step."""
        # If the data end during a call, operations that do not depend on them run all the same.
        with tf.control_dependencies(list(step.values())):
            values = {name: tf.identity(variable) for name, variable in self._variables.items()}
            for name, value in merge(keras.ops, values, step).items():
                if value is not values[name]:
                    self._variables[name].assign(value)

    @property
    def variables(self) -> list[tf.Variable]:
        """The variables that hold the values."""
        return list(self._variables.values())

    def read(self, *names: str) -> dict[str, np.ndarray]:
        """Return the values, those named or all."""
        return {name: self._variables[name].numpy() for name in names or self._variables}

    def take(self) -> dict[str, np.ndarray]:
        """Return all values, and set them to 0."""
        if self._read_and_empty is None:

            def read_and_empty() -> dict[str, tf.Tensor]:
                values = {name: tf.identity(v) for name, v in self._variables.items()}
                with tf.control_dependencies(list(values.values())):
                    for name, variable in self._variables.items():
                        variable.assign(tf.zeros_like(values[name]))
                return values

            # One call; read and set one by one they would take 50 µs each.
            self._read_and_empty = tf.function(read_and_empty).get_concrete_function()
        return {name: value.numpy() for name, value in self._read_and_empty().items()}

    def write(self, **arrays: np.ndarray) -> None:
        """Set values."""
        for name, array in arrays.items():
            self._variables[name].assign(array)

"""TensorFlow's devices, distribution strategies, graphs and variables."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Exceptions by which a compiled step of `fit` reports the end of the data.
END_OF_DATA = (StopIteration, tf.errors.OutOfRangeError)


def version() -> str:
    """Return TensorFlow's version."""
    return str(tf.__version__)


def describe_device() -> dict[str, Any]:
    """Describe what the rounding of a run depends on: the device and the number of threads."""
    gpus = tf.config.list_logical_devices("GPU")
    return {
        "device": gpus[0].name if gpus else "CPU",
        # Sums of floats depend on the number of threads; 0 lets TensorFlow choose it.
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
    }


def require_fit_strategy(model: keras.Model) -> None:
    """Refuse the distribution strategy under which Keras's `fit` fails.

    Raises:
        ValueError: if the model was made under it.
    """
    if isinstance(model.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "GradientTracker works in fit under every strategy that fit supports, received "
            "MultiWorkerMirroredStrategy, under which Keras's fit fails: train with "
            "kgrad.train_and_track_gradients or a loop of your own"
        )


def variable_scope(model: keras.Model) -> AbstractContextManager[Any]:
    """Return the context in which to make variables that a model's steps update."""
    return model.distribute_strategy.scope()


def under_strategy() -> bool:
    """Return whether the code runs under a distribution strategy."""
    return bool(tf.distribute.has_strategy())


def outside_trace() -> AbstractContextManager[Any]:
    """Return a context in which variables outlive the trace in which they are made."""
    return tf.init_scope()


def have_values(variables: Sequence[keras.Variable]) -> bool:
    """Return whether all variables have values; those made in a trace have none until it ends."""
    return all(variable.value.is_initialized() for variable in variables)


def weight_values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Return the values of variables: for each a flat float32 array."""
    # Copied: on a CPU `numpy()` may share the variable's memory, which the next step overwrites.
    return [variable.value.numpy().astype(np.float32).ravel() for variable in variables]

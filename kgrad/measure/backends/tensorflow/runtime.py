"""TensorFlow's devices, distribution strategies, graphs and variables."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Exceptions by which a compiled step of `fit` reports the end of the data.
END_OF_DATA = (StopIteration, tf.errors.OutOfRangeError)
# XLA compiles for about a second and then saves 0.1 to 1 ms per step: it pays beyond this many.
STEPS_THAT_REPAY_COMPILING: float = 5000


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


def make_fit_step(
    model: keras.Model, make: Callable[..., None], carried: Callable[[], list[Any]]
) -> None:
    """Have `fit`'s step traced anew; what it folds into are variables of its graph.

    Args:
        model: a compiled model.
        make: its method `make_train_function`.
        carried: returns what the step folds into; not needed here.
    """
    make(force=True)


def step_logs(result: Any) -> Mapping[str, Any]:
    """Return the logs in the result of a model's `train_function`."""
    return result


def update_made(optimizer: keras.optimizers.Optimizer) -> Any:
    """Return whether an update stays; None, as every update does."""
    return None


def sum_of_squares(gradient: tf.Tensor) -> tf.Tensor:
    """Sum the squares of a gradient's entries."""
    return 2.0 * tf.nn.l2_loss(gradient)  # a single operation


def exponents(entries: tf.Tensor) -> tf.Tensor:
    """Return the exponent field of each float32: int32, 0 to 255."""
    bits = tf.bitcast(entries, tf.int32)
    return tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 23), 255)


def count_places(places: tf.Tensor, length: int) -> tf.Tensor:
    """Count how often each of the integers 0 to `length` - 1 occurs: int32 (length,)."""
    # Not tf.math.bincount, which XLA cannot compile.
    counts = tf.raw_ops.DenseBincount(
        input=places, size=length, weights=tf.zeros([0]), binary_output=False
    )
    return tf.cast(counts, tf.int32)


def uncompiled(function: Callable) -> Callable:
    """Return a function that is not compiled apart from the step: the function itself."""
    return function


def xla_on_cpu(jit_compile: bool) -> bool:
    """Return whether XLA compiles a step for a CPU."""
    return jit_compile and not tf.config.list_logical_devices("GPU")


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


def weight_values(model: keras.Model, variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    """Return the values of a model's variables: for each a flat float32 array."""
    # Copied: on a CPU `numpy()` may share the variable's memory, which the next step overwrites.
    return [variable.value.numpy().astype(np.float32).ravel() for variable in variables]


def notice_assignment(
    model: keras.Model, variables: Sequence[keras.Variable]
) -> Callable[[], bool]:
    """Return a function that says whether variables were assigned: every update does."""
    return lambda: True


def as_array(tensor: Any) -> np.ndarray:
    """Return the values of a tensor, a variable or an array."""
    return np.asarray(tensor)

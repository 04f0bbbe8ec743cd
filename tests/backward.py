"""A backward pass of the running backend outside `fit`, which recorded gradients are held against.

Nothing of kgrad takes part.
"""

import keras
import numpy as np

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    def gradients_of(loss_of, variables):
        """The gradient of `loss_of()` by each variable, eager; None where there is no path."""
        with tf.GradientTape() as tape:
            loss = loss_of()
        gradients = tape.gradient(loss, [v.value for v in variables])
        # Rows that occur twice in IndexedSlices are added here.
        return [None if g is None else tf.convert_to_tensor(g) for g in gradients]

elif keras.backend.backend() == "jax":
    import jax

    def gradients_of(loss_of, variables):
        """The gradient of `loss_of()` by each variable; zeros where there is no path."""

        def loss(values):
            with keras.StatelessScope(
                list(zip(variables, values, strict=True)), collect_losses=True
            ):
                return loss_of()

        return jax.grad(loss)([v.value for v in variables])

else:
    import torch

    def gradients_of(loss_of, variables):
        """The gradient of `loss_of()` by each variable; None where there is no path."""
        with torch.random.fork_rng([]):  # dropout without a seed draws from torch's own generator
            loss = loss_of()
        return torch.autograd.grad(loss, [v.value for v in variables], allow_unused=True)


def as_float64(gradient, variable):
    if gradient is None:
        return np.zeros(variable.shape)
    return to_numpy(keras.ops.cast(gradient, "float32")).astype(np.float64)


def value_of(variable):
    return to_numpy(variable.value)


def to_numpy(tensor):
    """A copy. Under NumPy 2 Keras's `convert_to_numpy` warns on tensorflow, its `numpy` on jax."""
    if keras.backend.backend() == "tensorflow":
        return tensor.numpy()
    return np.array(keras.ops.convert_to_numpy(tensor))

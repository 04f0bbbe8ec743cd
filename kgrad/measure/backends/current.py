"""The package of the backend that Keras runs on: `backend`."""

import keras

if keras.backend.backend() == "tensorflow":
    from kgrad.measure.backends import tensorflow as backend
elif keras.backend.backend() == "jax":
    from kgrad.measure.backends import jax as backend  # type: ignore[no-redef]
elif keras.backend.backend() == "torch":
    from kgrad.measure.backends import torch as backend  # type: ignore[no-redef]
else:
    raise ImportError(
        "kgrad measures gradients on Keras's tensorflow, jax and torch backends, received "
        f"{keras.backend.backend()!r}: set the environment variable KERAS_BACKEND to one of these "
        "before Keras is imported"
    )

__all__ = ["backend"]

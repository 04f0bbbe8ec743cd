"""The package of the backend that Keras runs on: `backend`."""

import keras

if keras.backend.backend() == "tensorflow":
    from kgrad.measure.backends import tensorflow as backend
else:
    raise ImportError(
        "kgrad measures gradients on Keras's tensorflow backend, received "
        f'{keras.backend.backend()!r}: set the environment variable KERAS_BACKEND to "tensorflow" '
        "before Keras is imported"
    )

__all__ = ["backend"]

"""The run, described for the metadata of its history."""

import platform
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgrad._version import __version__
from kgrad.measure.keras_models.graph import describe_topology
from kgrad.measure.keras_models.layers import loss_name


def describe_run(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None,
    loss: Callable[[Any, Any], Any] | None = None,
) -> dict[str, Any]:
    """Describe in JSON types what is needed to repeat a run."""
    gpus = tf.config.list_logical_devices("GPU")
    return {
        "kgrad": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": gpus[0].name if gpus else "CPU",
        # Sums of floats depend on the number of threads; 0 lets TensorFlow choose it.
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "model": model.name,
        "optimizer": None if optimizer is None else optimizer.name,
        "loss": loss_name(getattr(model, "loss", None) if loss is None else loss),
        "graph": describe_topology(model),
    }

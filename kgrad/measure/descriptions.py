"""What is measured: the model's weights by name, and the run as the metadata describe it."""

import fnmatch
import platform
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgrad._version import __version__
from kgrad.measure.model_topology import describe_topology
from kgrad.measure.names import name_layers, unique_name
from kgrad.records.checks import did_you_mean
from kgrad.records.history import Weight

# Which weights to watch: all, those whose layer or path is named or matches a pattern, or those
# that a function chooses.
Selection = None | str | Sequence[str] | Callable[[Weight], bool]


def describe_weights(model: keras.Model) -> dict[int, Weight]:
    """Name the variables that a built model can train, frozen ones too, in the model's order.

    Returns:
        The weights by the `id` of their variable; layers are named by `name_layers`, and a path
        that occurs twice gets a number.
    """
    names = name_layers(model)
    owners = {
        id(variable): names[id(layer)]
        # A layer's own variables are not public; `weights` would also hold those of its parts.
        for layer in model._flatten_layers(include_self=True, recursive=True)
        for variable in layer._trainable_variables
    }
    paths: set[str] = set()
    described = {}
    for variable in (v for v in model.weights if id(v) in owners):
        path = unique_name(variable.path, paths)
        paths.add(path)
        shape = tuple(variable.shape)
        described[id(variable)] = Weight(owners[id(variable)], variable.name, path, shape)
    return described


def checked_selection(selection: Any) -> Selection:
    """The selection, once its kind has been found acceptable; several names as a tuple.

    Raises:
        TypeError: if it is none of what `select_weights` takes.
    """
    if selection is None or isinstance(selection, str) or callable(selection):
        return selection
    names = tuple(selection) if isinstance(selection, Iterable) else ()
    if not names or isinstance(selection, dict) or not all(isinstance(n, str) for n in names):
        raise TypeError(
            "weights must be None, a layer's name or path, a pattern, several of these, or a "
            f"function of a Weight, received {selection!r:.100}"
        )
    return names


def select_weights(weights: Sequence[Weight], selection: Selection) -> list[int]:
    """Places of the weights that a selection means.

    Args:
        weights: the weights to choose from.
        selection: None for all; layer names, paths or patterns of them (`"encoder*"`), one or
            several; or a function of a `Weight`.

    Raises:
        ValueError: if it, or one of its names, matches no weight.
    """
    if selection is None:
        return list(range(len(weights)))
    known = ", ".join(dict.fromkeys(weight.layer for weight in weights))
    if callable(selection):
        chosen = [i for i, weight in enumerate(weights) if selection(weight)]
        if not chosen:
            raise ValueError(f"weights chose none of the weights; the layers are {known:.300}")
        return chosen
    patterns = [selection] if isinstance(selection, str) else selection
    for pattern in patterns:
        if not any(_matches(weight, pattern) for weight in weights):
            hint = did_you_mean(pattern, [weight.layer for weight in weights])
            raise ValueError(
                f"weights must match a weight of the layers {known:.300}, received "
                f"{pattern!r}{hint}"
            )
    return [i for i, w in enumerate(weights) if any(_matches(w, p) for p in patterns)]


def describe_run(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None,
    loss: Callable[[Any, Any], Any] | None = None,
) -> dict[str, Any]:
    """What a reader needs to make the same run again: JSON types only."""
    gpus = tf.config.list_logical_devices("GPU")
    return {
        "kgrad": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": gpus[0].name if gpus else "CPU",
        # Sums of floats depend on how many threads share them; 0 leaves that to TensorFlow.
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "model": model.name,
        "optimizer": None if optimizer is None else optimizer.name,
        "loss": _loss_name(getattr(model, "loss", None) if loss is None else loss),
        "graph": describe_topology(model),
    }


def _loss_name(loss: Any) -> str:
    """As Keras writes it: `binary_crossentropy`; several losses of several outputs have none."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)  # which knows "mse" and "BinaryCrossentropy" too
    return str(getattr(loss, "name", getattr(loss, "__name__", "as compiled")))


def _matches(weight: Weight, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (weight.layer, weight.path))

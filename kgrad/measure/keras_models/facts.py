"""The facts about a model that the diagnosis uses: its last layer, its loss, its kernels."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kgrad.diagnosis import ModelFacts
from kgrad.measure.keras_models.layers import activation_name, is_activation, loss_name
from kgrad.measure.keras_models.weights import name_layers

# Activation functions that may be operations of a functional model, `keras.ops.relu` for example.
_OPERATIONS = ("relu", "sigmoid", "softmax")


def read_facts(model: Any) -> ModelFacts:
    """Return the facts about a Keras model that the rules of the diagnosis use.

    Raises:
        TypeError: if it is not a Keras model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a Keras model, received {type(model).__name__}")
    names = name_layers(model)
    equal_units = tuple(names[id(layer)] for layer in _layers_with_equal_units(model))
    last = _last_operation(model)
    if last is None:
        return ModelFacts(equal_units=equal_units)
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, tuple) and shape and isinstance(shape[-1], int):
        units = shape[-1]
    else:
        units = int(getattr(last, "units", 0) or 0)
    loss = getattr(model, "loss", None)
    if isinstance(loss, list | tuple | dict) and len(loss) == 1:
        loss = next(iter(loss.values() if isinstance(loss, dict) else loss))
    options = getattr(loss, "_fn_kwargs", {})
    return ModelFacts(
        last_layer=names.get(id(last), last.name),
        activation=_activation(last),
        units=units,
        loss=loss_name(loss),
        from_logits=bool(options.get("from_logits", False)),
        ignored_class=getattr(loss, "ignore_class", options.get("ignore_class")),
        regularized=any(getattr(w, "regularizer", None) for w in model.trainable_weights),
        equal_units=equal_units,
    )


def _last_operation(model: keras.Model) -> Any:
    """Return the layer or operation that produces the model's only output; None if unknown.

    It is unknown for subclassed models, whose order of layers is not the order of their calls.
    """
    last: Any = model
    while isinstance(last, keras.Model):
        parts = last.layers if isinstance(last, keras.Sequential) else []
        parts = getattr(last, "operations", parts)
        if not parts or len(getattr(last, "outputs", None) or [last]) != 1:
            return None
        last = parts[-1]
    return last


def _layers_with_equal_units(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers whose units all have the same incoming weights."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        kernel = getattr(layer, "kernel", None)
        if kernel is None or len(kernel.shape) < 2 or kernel.shape[-1] < 2:
            continue
        values = np.asarray(kernel, dtype=np.float64)
        first = values[..., :1]
        if np.all(values == first) and np.all(np.isfinite(first)):
            yield layer


def _activation(operation: Any) -> str:
    """Return the name of an operation's activation function, empty if it has none."""
    if getattr(operation, "activation", None) is not None or is_activation(operation):
        return activation_name(operation)
    name = type(operation).__name__.lower()
    return name if name in _OPERATIONS else ""

"""The facts about a model that the diagnosis uses: its last layer, its loss, its kernels."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from kgrad.diagnosis import ModelFacts
from kgrad.diagnosis.evidence import Dropout, Head
from kgrad.measure.keras_models.graph import Call, LayerGraph, model_calls
from kgrad.measure.keras_models.layers import (
    activation_name,
    has_kernel,
    is_activation,
    is_recurrent,
    loss_name,
)
from kgrad.measure.keras_models.weights import name_layers

# Activation functions that may be operations of a functional model, `keras.ops.relu` for example.
_OPERATIONS = ("relu", "sigmoid", "softmax")
# Layers and operations that only arrange values: the activation before them is the model's last.
_ARRANGING = ("Flatten", "Reshape", "Permute", "Identity", "Squeeze", "ExpandDims")
# Layers and operations that are linear, or as good as linear between two kernels.
_LINEAR = (
    *_ARRANGING,
    *("Add", "Average", "Concatenate", "Subtract", "Dropout", "SpatialDropout", "GaussianNoise"),
    *("BatchNormalization", "Rescaling", "ZeroPadding", "Cropping", "UpSampling", "RepeatVector"),
    *("AveragePooling", "GlobalAveragePooling", "MaxPooling", "GlobalMaxPooling"),
)


def read_facts(model: Any) -> ModelFacts:
    """Return the facts about a Keras model that the rules of the diagnosis use.

    Raises:
        TypeError: if it is not a Keras model.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a Keras model, received {type(model).__name__}")
    names = name_layers(model)
    equal_units = tuple(names[id(layer)] for layer in _layers_with_equal_units(model))
    optimizer = getattr(model, "optimizer", None)
    return ModelFacts(
        heads=_heads(model, names),
        regularized=any(
            _regularizer(w) and not _is_l2(_regularizer(w)) for w in model.trainable_weights
        ),
        equal_units=equal_units,
        activations=tuple(_hidden_activations(model, names)),
        dropouts=tuple(_dropouts(model, names)),
        penalties=_penalties(model),
        learning_rate=_learning_rate(optimizer),
        usual_rate=_usual_rate(optimizer),
        optimizer="" if optimizer is None else type(_unscaled(optimizer)).__name__,
        embeddings=_embeddings(model),
    )


def _heads(model: keras.Model, names: dict[int, str]) -> tuple[Head, ...]:
    """Return the outputs of a model with their losses; none if one of them is unknown."""
    last = _last_operations(model)
    losses = losses_of(model, len(last))
    shapes = getattr(model, "output_shape", None)
    shapes = list(shapes.values()) if isinstance(shapes, dict) else shapes
    shapes = shapes if isinstance(shapes, list) else [shapes]
    heads = []
    for i, (operation, loss) in enumerate(zip(last, losses, strict=True)):
        shape = shapes[i] if len(shapes) == len(last) else None
        if isinstance(shape, tuple) and shape and isinstance(shape[-1], int):
            units = shape[-1]
        else:
            units = int(getattr(operation, "units", 0) or 0)
        options = getattr(loss, "_fn_kwargs", {})
        activation = _activation(operation)
        heads.append(
            Head(
                layer=names.get(id(operation), operation.name),
                activation=activation,
                units=units,
                loss=loss_name(loss),
                from_logits=bool(options.get("from_logits", False)),
                ignored_class=getattr(loss, "ignore_class", options.get("ignore_class")),
                # Keras's TensorFlow backend computes these losses from what enters the activation.
                from_activation=keras.backend.backend() == "tensorflow"
                and activation in ("sigmoid", "softmax")
                and not isinstance(operation, keras.layers.Softmax),
            )
        )
    return tuple(heads)


def losses_of(model: keras.Model, count: int) -> list[Any]:
    """Return the compiled loss of each output; None where it is unknown."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, dict):
        names = getattr(model, "output_names", None) or list(loss)
        loss = [loss.get(name) for name in names] if count > 1 else list(loss.values())
    losses = list(loss) if isinstance(loss, list | tuple) else [loss] * count
    return losses if len(losses) == count else [None] * count


def _last_operations(model: keras.Model) -> list[Any]:
    """Return the layer or operation that produces each output of a model; none if unknown.

    They are unknown for subclassed models, whose order of layers is not the order of their calls.
    """
    if isinstance(model, keras.Sequential):
        one = _last_of(model.layers)
        return _last_operations(one) if isinstance(one, keras.Model) else [one] if one else []
    outputs = getattr(model, "outputs", None)
    if not outputs or not hasattr(model, "operations"):
        return []
    if len(outputs) == 1:
        last = [_last_of(model.operations)]
    else:
        last = [_arranged(tensor) for tensor in outputs]
    found = [_last_operations(one) if isinstance(one, keras.Model) else [one] for one in last]
    return [one[0] for one in found] if all(len(one) == 1 for one in found) else []


def _last_of(parts: list[Any]) -> Any:
    """Return the last of a chain of layers that does more than arrange values."""
    kept = [one for one in parts if type(one).__name__ not in _ARRANGING]
    return (kept or parts or [None])[-1]


def _arranged(tensor: keras.KerasTensor) -> Any:
    """Return the operation that produces a tensor, before layers that only arrange values."""
    operation, node, _ = tensor._keras_history
    if type(operation).__name__ in _ARRANGING:
        return _arranged(operation._inbound_nodes[node].input_tensors[0])
    return operation


def _graph(model: keras.Model) -> LayerGraph | None:
    """Return the graph of a functional or sequential model; None for other models."""
    if not getattr(model, "inputs", None) or not model.built:
        return None
    return LayerGraph(model)


def _hidden_activations(model: keras.Model, names: dict[int, str]) -> Iterator[tuple[str, str]]:
    """Yield the hidden dense and convolutional layers with the activation behind each."""
    graph = _graph(model)
    for inner, layer in graph.hidden_inside() if graph else ():
        is_dense = isinstance(layer, keras.layers.Dense)
        if is_dense or ("Conv" in type(layer).__name__ and not is_recurrent(layer)):
            yield names.get(id(layer), layer.name), inner.nonlinearity_after(layer, _LINEAR)


def _dropouts(model: keras.Model, names: dict[int, str]) -> Iterator[Dropout]:
    graph = _graph(model)
    if graph is None:
        return
    hidden = {id(layer) for _, layer in graph.hidden_inside()}
    seen_kernel = False
    for _, layer in graph.hidden_inside(everything=True):
        seen_kernel = seen_kernel or has_kernel(layer)
        if isinstance(layer, keras.layers.Dropout):  # and its spatial variants
            behind = seen_kernel and id(layer) not in hidden
            yield Dropout(names.get(id(layer), layer.name), float(layer.rate), behind)


def _penalties(model: keras.Model) -> tuple[tuple[str, float], ...]:
    """Return path and factor of each trained weight with an L2 penalty and no other."""
    found = [(weight.path, _regularizer(weight)) for weight in model.trainable_weights]
    return tuple((path, float(one.l2)) for path, one in found if _is_l2(one))


def _is_l2(regularizer: Any) -> bool:
    only_l2 = isinstance(regularizer, keras.regularizers.L1L2) and not float(regularizer.l1)
    return isinstance(regularizer, keras.regularizers.L2) or only_l2


def _regularizer(weight: Any) -> Any:
    return getattr(weight, "regularizer", None)


def _unscaled(optimizer: Any) -> Any:
    """Return the optimizer inside one that scales the loss."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _learning_rate(optimizer: Any) -> float:
    """Return the learning rate; NaN if it follows a schedule or is unknown."""
    optimizer = _unscaled(optimizer)
    if isinstance(getattr(optimizer, "_learning_rate", None), keras.Variable):
        return float(optimizer.learning_rate)
    return math.nan


def _usual_rate(optimizer: Any) -> float:
    """Return the default learning rate of an optimizer's class; NaN for a user's class."""
    kind = type(_unscaled(optimizer))
    known = getattr(keras.optimizers, kind.__name__, None)
    return float(known().learning_rate) if known is kind else math.nan


def _embeddings(model: keras.Model) -> tuple[int, ...]:
    """Return the rows of the largest embedding that takes each input; 0 if other layers do, too."""
    graph = _graph(model)
    if graph is None:
        return ()
    calls = model_calls(graph.model)
    return tuple(_rows_for(tensor, calls) for tensor in graph.model.inputs)


def _rows_for(tensor: keras.KerasTensor, calls: list[Call]) -> int:
    rows = []
    for operation, inputs, outputs in calls:
        if not any(one is tensor for one in inputs):
            continue
        if isinstance(operation, keras.layers.Embedding):
            rows.append(int(operation.input_dim))
        elif type(operation).__name__ in (*_ARRANGING, "GetItem", "Cast"):
            rows.append(_rows_for(outputs[0], calls))
        else:
            return 0
    return max(rows, default=0) if all(rows) else 0


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

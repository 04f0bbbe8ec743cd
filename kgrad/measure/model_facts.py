"""`diagnose`: find the problems of a training run, given its history and optionally its model.

Models are read by their attributes, so that diagnosing a recorded history never imports Keras.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from kgrad import diagnosis
from kgrad.diagnosis import Diagnosis, ModelFacts, Thresholds
from kgrad.records.history import GradientHistory


def diagnose(
    history: GradientHistory,
    model: Any = None,
    y: Any = None,
    *,
    rules: Iterable[str] | None = None,
    thresholds: Thresholds | None = None,
) -> Diagnosis:
    """Find the problems of a training run.

    A healthy run has no findings. A small gradient alone is no finding, because a converged network
    has one too. docs/diagnosis.md describes what the rules compare, their thresholds, and how often
    they err.

    Args:
        history: the run. More recorded data allow more precise findings: the activations of a probe
            show dead and saturated units; without a probe, `zero_fraction` replaces them.
        model: the Keras model, for the rules about its weights, its last layer and its loss.
        y: the targets, to compare with the values that the last layer can produce.
        rules: names of the rules to apply; None for all.
        thresholds: the thresholds to use, such as `Thresholds(falls_well=0.3)`.

    Returns:
        The findings, the most severe first.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the history has no record or lacks a statistic that is always recorded, if a
            rule is unknown or its data are missing, or if targets are given without a model.

    Example:
        >>> from kgrad.experiments import Experiment, run_experiment
        >>> deep = {"num_layers": 10, "activation": "sigmoid", "weight_initializer": "normal"}
        >>> history = run_experiment(Experiment(**deep, samples=256, epochs=3))
        >>> diagnose(history).rules
        ('vanishing',)
    """
    facts = None if model is None else read_facts(model)
    return diagnosis.diagnose(history, facts, y, rules=rules, thresholds=thresholds)


def read_facts(model: Any) -> ModelFacts:
    """Return the facts about a Keras model that the rules of the diagnosis use.

    Raises:
        TypeError: if it is not a Keras model.
    """
    if not (hasattr(model, "layers") and hasattr(model, "compile")):
        raise TypeError(f"model must be a Keras model, received {type(model).__name__}")
    equal_units = tuple(_layers_with_equal_units(model))
    last = _last_layer(model)
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
        last_layer=last.name,
        activation=_activation_name(last),
        units=units,
        loss=_loss_name(loss),
        from_logits=bool(options.get("from_logits", False)),
        ignored_class=getattr(loss, "ignore_class", options.get("ignore_class")),
        regularized=any(getattr(w, "regularizer", None) for w in model.trainable_weights),
        equal_units=equal_units,
    )


def _last_layer(model: Any) -> Any:
    """Return the layer or operation that produces the model's only output; None if unknown.

    It is unknown for subclassed models, whose order of layers is not the order of their calls.
    """
    last = model
    while hasattr(last, "layers"):  # a model, or a model inside it
        # An operation such as `ops.softmax` is not a layer, but determines the output too.
        parts = getattr(last, "operations", last.layers if hasattr(last, "add") else [])
        if not parts or len(getattr(last, "outputs", None) or [last]) != 1:
            return None
        last = parts[-1]
    return last


def _layers_with_equal_units(model: Any) -> Iterator[str]:
    """Yield the names of the layers whose units all have the same incoming weights."""
    flatten = getattr(model, "_flatten_layers", None)
    for layer in flatten(include_self=False, recursive=True) if flatten is not None else ():
        kernel = getattr(layer, "kernel", None)
        if kernel is None or len(kernel.shape) < 2 or kernel.shape[-1] < 2:
            continue
        values = np.asarray(kernel, dtype=np.float64)
        first = values[..., :1]
        if np.all(values == first) and np.all(np.isfinite(first)):
            yield layer.name


def _activation_name(layer: Any) -> str:
    activation = getattr(layer, "activation", None)
    if activation is not None:
        return str(getattr(activation, "__name__", ""))
    kind = type(layer).__name__
    named = {"Softmax": "softmax", "ReLU": "relu", "Relu": "relu", "Sigmoid": "sigmoid"}
    return named.get(kind, "")


def _loss_name(loss: Any) -> str:
    if loss is None:
        return ""
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    snake = "".join("_" + c.lower() if c.isupper() else c for c in str(name)).lstrip("_")
    short = {
        "mse": "mean_squared_error",
        "mae": "mean_absolute_error",
        "bce": "binary_crossentropy",
    }
    return short.get(snake, snake)

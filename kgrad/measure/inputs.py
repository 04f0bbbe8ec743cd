"""Checks of model and data before work starts, and the choice of loss and optimizer."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kgrad.measure.keras_models.layers import loss_name
from kgrad.measure.keras_models.weights import all_built

# Activation of the last layer → the loss of a model that was not compiled with a loss.
_LOSSES = {"sigmoid": "binary_crossentropy", "linear": "mean_squared_error"}
DEFAULT_LEARNING_RATE = 0.01  # of SGD, for a model that was not compiled


def require_built(model: Any) -> None:
    """Raise unless `model` is a Keras model that can be called and has all its weights."""
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, received {type(model).__name__}")
    if type(model).call is keras.Model.call:
        raise ValueError(
            f"model {model.name!r} must have a call method, received one without: pass the model "
            "that computes the output, perhaps a part of this one"
        )
    # A layer that the model does not use is never built, and a TextVectorization never says it is.
    has_graph = bool(getattr(model, "inputs", None))
    if not model.built or not (model._called or has_graph or all_built(model)):
        raise ValueError(
            f"model {model.name!r} must be built, received one without weights: "
            "give it a keras.Input, or call it once on a batch"
        )


def require_trainable(model: Any) -> None:
    """Raise unless `model` is a built Keras model with trainable weights and one output."""
    require_built(model)
    if not model.trainable_variables:
        raise ValueError(
            f"model {model.name!r} must have trainable weights, received none: "
            "set trainable = True on a layer"
        )
    for ends, fix in (
        ("inputs", "concatenate them into one"),
        ("outputs", "make a keras.Model with the output to study"),
    ):
        count = len(getattr(model, ends, None) or [None])
        if count > 1:
            raise ValueError(
                f"model {model.name!r} must have one {ends[:-1]}, received {count}: {fix}"
            )


def as_arrays(model: keras.Model, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check the data, and whether they fit each other and the model.

    Args:
        model: a model that `require_trainable` accepts.
        X: inputs, (samples, ...).
        y: targets, (samples, ...).

    Returns:
        X and y as arrays; floating-point arrays have Keras's float type.

    Raises:
        TypeError: if X or y is not numeric, or X holds integers and the model takes floats.
        ValueError: if X or y is empty or holds NaN or infinity, they differ in length, or X does
            not fit the model's input.
    """
    arrays = {name: _numeric(name, value) for name, value in (("X", X), ("y", y))}
    X, y = arrays["X"], arrays["y"]
    if len(X) != len(y):
        raise ValueError(
            f"X and y must have the same length, received {len(X)} and {len(y)} samples"
        )
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, tuple) and not _fits(X.shape, shape):
        raise ValueError(
            f"X must have the shape {shape} that model {model.name!r} takes, received {X.shape}"
        )
    if X.dtype.kind not in "f" and not _takes_integers(model):
        raise TypeError(
            f"X must be floating point for model {model.name!r}, received {X.dtype}: "
            "use X.astype('float32')"
        )
    _require_output_for(model, X, y)
    return X, y


def choose_loss(model: keras.Model, y: np.ndarray, loss: Any) -> Callable[[Any, Any], Any] | None:
    """Choose the loss to train with.

    Args:
        model: the model; its compiled loss is used if `loss` is None.
        y: targets, (samples, ...).
        loss: a Keras loss, its name, a function of (y_true, y_pred), or None.

    Returns:
        A function of (y_true, y_pred), or None for the model's compiled loss. If neither is given,
        the last layer's activation decides: binary cross-entropy for sigmoid, categorical
        cross-entropy for softmax, mean squared error for a linear output.

    Raises:
        ValueError: if the name is unknown, or the last activation does not determine a loss.
    """
    if loss is None and model.compiled and model.loss is not None:
        return None
    if loss is None:
        activation = getattr(getattr(model.layers[-1], "activation", None), "__name__", None)
        if activation == "softmax":
            one_hot = y.ndim > 1 and y.shape[-1] == model.output_shape[-1] > 1
            loss = "categorical_crossentropy" if one_hot else "sparse_categorical_crossentropy"
        elif activation in _LOSSES:
            loss = _LOSSES[activation]
        else:
            raise ValueError(
                f"loss must be named for model {model.name!r}, which is not compiled and ends in "
                f"the activation {activation!r}: pass loss='mean_squared_error' or another"
            )
    try:
        return keras.losses.get(loss)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"loss must be a Keras loss, its name or a function, received {loss!r}"
        ) from error


def require_labels(model: keras.Model, X: np.ndarray, y: np.ndarray, loss: Any) -> None:
    """Check that the targets are ones that the loss has a value for.

    Backends differ in what they make of a class that the model has no output for: an error in their
    own words, or NaN.

    Args:
        model: a model with one output.
        X: inputs, (samples, ...).
        y: targets, (samples, ...).
        loss: as in `choose_loss`, before it is chosen.

    Raises:
        ValueError: if a label names no class, or if targets outside of [0, 1] would get the binary
            cross-entropy that is chosen for a sigmoid.
    """
    given = model.loss if loss is None and model.compiled else loss
    chosen = choose_loss(model, y, loss) if given is None else given
    name = loss_name(chosen)
    if name == "sparse_categorical_crossentropy":
        classes = _output_of(model, X).shape[getattr(chosen, "_fn_kwargs", {}).get("axis", -1)]
        ignored = getattr(chosen, "ignore_class", None)
        labels = y if ignored is None else y[y != ignored]
        if classes and labels.size and (labels.min() < 0 or labels.max() >= classes):
            raise ValueError(
                f"y must have labels from 0 to {classes - 1}, as model {model.name!r} has "
                f"{classes} outputs, received labels from {labels.min():g} to {labels.max():g}: "
                "renumber the labels, or give the model an output for each of them"
            )
    if given is None and name == "binary_crossentropy" and (y.min() < 0 or y.max() > 1):
        raise ValueError(
            f"y must be from 0 to 1 for binary cross-entropy, which is chosen for the sigmoid that "
            f"model {model.name!r} ends in, received values from {y.min():g} to {y.max():g}: "
            "recode the targets, or pass another loss"
        )


def choose_optimizer(model: keras.Model, optimizer: Any) -> keras.optimizers.Optimizer:
    """Choose the optimizer to train with, and build it for the model's weights.

    Args:
        model: the model; its compiled optimizer is used if `optimizer` is None.
        optimizer: a Keras optimizer, its name or configuration, or None. A model that is not
            compiled is then trained with plain SGD, learning rate 0.01.

    Raises:
        ValueError: if the name is unknown, or the optimizer belongs to another model.
    """
    if optimizer is None:
        compiled = model.optimizer if model.compiled else None
        optimizer = compiled or keras.optimizers.SGD(DEFAULT_LEARNING_RATE)
    try:
        chosen = keras.optimizers.get(optimizer)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"optimizer must be a Keras optimizer or its name, received {optimizer!r}"
        ) from error
    variables = model.trainable_variables
    if not chosen.built:
        chosen.build(variables)
    elif {id(v) for v in chosen._trainable_variables} != {id(v) for v in variables}:
        raise ValueError(
            f"optimizer {chosen.name!r} was built for the weights of another model, "
            f"model {model.name!r} needs one of its own: pass a new optimizer"
        )
    return chosen


def loss_value(
    model: keras.Model, X: Any, y: Any, y_pred: Any, loss: Callable[[Any, Any], Any] | None
) -> Any:
    """Compute the compiled loss, or the mean of another loss without regularization."""
    if loss is None:
        return model.compute_loss(x=X, y=y, y_pred=y_pred, training=True)
    return keras.ops.mean(loss(aligned_targets(y, y_pred), y_pred))


def aligned_targets(y: Any, y_pred: Any) -> Any:
    """Return targets (samples,) as (samples, 1) if that is the shape of the predictions.

    Otherwise they would be broadcast against each other.
    """
    if len(y.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
        return keras.ops.expand_dims(y, -1)
    return y


def _output_of(model: keras.Model, X: np.ndarray) -> Any:
    return model.compute_output_spec(keras.KerasTensor((None, *X.shape[1:]), X.dtype.name))


def _require_output_for(model: keras.Model, X: np.ndarray, y: np.ndarray) -> None:
    """Raise unless the model has one output and y fits its shape."""
    output = _output_of(model, X)
    if not isinstance(output, keras.KerasTensor):
        count = len(keras.tree.flatten(output))
        raise ValueError(
            f"model {model.name!r} must have one output, received {count}: "
            "make a keras.Model with the output to study"
        )
    rank = len(output.shape)
    # y may lack the last axis, or have class labels on a last axis of size 1.
    labels = y.ndim == rank and y.shape[-1] == 1
    if not (y.ndim == rank - 1 or labels or _fits(y.shape, output.shape)):
        raise ValueError(
            f"y must have the shape {output.shape} that model {model.name!r} returns, "
            f"received {y.shape}"
        )


def _numeric(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):  # of torch, perhaps on a GPU or with a gradient
        value = value.detach().cpu()
    # NumPy would make an array of objects of anything else, or read a whole `PyDataset`.
    elif not (hasattr(value, "__array__") or isinstance(value, list | tuple | int | float)):
        raise TypeError(
            f"{name} must be an array of numbers, received {_kind(value)}: pass an array, or use "
            "GradientTracker in fit"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be an array of numbers, received {error}") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be an array of numbers, received dtype {array.dtype}")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"{name} must hold at least one sample, received shape {array.shape}")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(keras.config.floatx(), copy=False)
        bad = int(array.size - np.isfinite(array).sum())
        if bad:
            raise ValueError(
                f"{name} must be finite, received {bad} NaN or infinite entries: "
                "remove or impute them"
            )
    return array


def _kind(value: Any) -> str:
    """Return what a user calls something that is not an array."""
    if value is None:
        return "None"
    is_dataset = hasattr(value, "element_spec")
    return "a tf.data.Dataset" if is_dataset else f"a {type(value).__name__}"


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        want is None or have == want for have, want in zip(shape[1:], wanted[1:], strict=True)
    )


def _takes_integers(model: keras.Model) -> bool:
    """Return whether a model may take integers.

    It does if it has an Embedding or an input of integers, or if its inputs are not known.
    """
    inputs = getattr(model, "inputs", None)
    if not inputs:
        return True
    lookups = [lay for lay in model._flatten_layers() if isinstance(lay, keras.layers.Embedding)]
    return bool(lookups) or "int" in str(inputs[0].dtype)

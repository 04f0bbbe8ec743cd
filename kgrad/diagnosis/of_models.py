"""What a model tells that its history does not: its last layer, its loss, its kernels' values.

Models are read by their attributes alone, so that Keras need not be imported to read a history.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

# What an activation can put out.
RANGES = {
    "linear": (-np.inf, np.inf),
    "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
    "relu": (0.0, np.inf),
    "softplus": (0.0, np.inf),
    "exponential": (0.0, np.inf),
    "relu6": (0.0, 6.0),
}
_PROBABILITIES = (0.0, 1.0)
# Losses that are least where the output equals the target.
_COMPARING = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "log_cosh",
)


class Output(NamedTuple):
    """The end of a model.

    Attributes:
        layer: name of the last layer.
        activation: name of its activation function; empty if it is not known.
        units: size of the last axis of the output; 0 if it is not known.
        loss: name of the loss, in lower case with underscores; empty if it is not known.
        from_logits: whether the loss expects numbers before sigmoid or softmax.
        ignored: the class that the loss leaves out, if there is one.
        regularized: whether the loss has more in it than output and targets.
    """

    layer: str
    activation: str
    units: int
    loss: str
    from_logits: bool
    ignored: int | None = None
    regularized: bool = False


class Mismatch(NamedTuple):
    """A way in which output and loss cannot fit.

    Attributes:
        quantity, value, threshold: as in a `Measurement`.
        meaning: what it leads to.
    """

    quantity: str
    value: float
    threshold: float
    meaning: str


def read_output(model: Any) -> Output | None:
    """The model's last layer and its loss; None for a model that does not show one of each.

    The order in which a subclassed model holds its layers is not that in which it calls them.
    """
    last = model
    while hasattr(last, "layers"):  # a model, or one within it
        # What Keras's operations do to an output is no layer, but has a say in it.
        parts = getattr(last, "operations", last.layers if hasattr(last, "add") else [])
        if not parts or len(getattr(last, "outputs", None) or [last]) != 1:
            return None
        last = parts[-1]
    shape = getattr(model, "output_shape", None)
    if isinstance(shape, tuple) and shape and isinstance(shape[-1], int):
        units = shape[-1]
    else:
        units = int(getattr(last, "units", 0) or 0)
    loss = getattr(model, "loss", None)
    if isinstance(loss, list | tuple | dict) and len(loss) == 1:
        loss = next(iter(loss.values() if isinstance(loss, dict) else loss))
    options = getattr(loss, "_fn_kwargs", {})
    regularized = any(getattr(w, "regularizer", None) for w in model.trainable_weights)
    return Output(
        last.name,
        _activation_name(last),
        units,
        _loss_name(loss),
        bool(options.get("from_logits", False)),
        getattr(loss, "ignore_class", options.get("ignore_class")),
        regularized,
    )


def mismatches(output: Output, y: Any = None) -> Iterator[Mismatch]:
    """Every way in which the loss cannot be met by what the last layer puts out.

    Args:
        output: the model's end.
        y: the targets, if they are at hand.
    """
    crossentropy = output.loss.endswith("crossentropy")
    low, high = RANGES.get(output.activation, (np.nan, np.nan))
    if output.units == 1 and (
        output.activation == "softmax" or output.loss.startswith(("categorical", "sparse_cat"))
    ):
        yield Mismatch(
            "units that softmax or categorical cross-entropy compares",
            1,
            2,
            "Of a single unit the share is always 1: nothing can be learnt.",
        )
    elif crossentropy and not output.from_logits and low < _PROBABILITIES[0]:
        yield Mismatch(
            f"least output that {output.activation} can give",
            low,
            0.0,
            f"{output.loss} takes the logarithm of probabilities, and gets numbers below 0.",
        )
    elif crossentropy and not output.from_logits and high > _PROBABILITIES[1]:
        yield Mismatch(
            f"largest output that {output.activation} can give",
            high,
            1.0,
            f"{output.loss} takes the logarithm of probabilities, and gets numbers above 1.",
        )
    elif crossentropy and output.from_logits and output.activation in ("sigmoid", "softmax"):
        yield Mismatch(
            f"largest logit that {output.activation} can give",
            1.0,
            np.inf,
            "The loss applies sigmoid or softmax a second time: no answer can be sure.",
        )
    if y is not None:
        yield from _targets_out_of_range(output, _targets(y), low, high)


def _targets(y: Any) -> np.ndarray:
    """The targets of a model's only output as one array.

    Raises:
        TypeError: if they are not numbers.
    """
    if isinstance(y, dict) and len(y) == 1:
        y = next(iter(y.values()))
    try:
        array = np.asarray(y)
    except ValueError:  # arrays of different shapes
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"y must be an array of numbers, the targets of the model's output, received "
            f"{type(y).__name__} of {array.dtype.name}"
        )
    return array


def _targets_out_of_range(
    output: Output, y: np.ndarray, low: float, high: float
) -> Iterator[Mismatch]:
    if output.loss not in _COMPARING:
        return
    if output.loss.startswith("sparse_cat"):
        low, high = 0, output.units - 1
        y = y[y != output.ignored] if output.ignored is not None else y
    elif output.loss.endswith("crossentropy"):
        low, high = _PROBABILITIES
    if not y.size or np.isnan(low):
        return
    beyond = float(np.mean((y < low) | (y > high)))
    if beyond:
        yield Mismatch(
            f"share of the targets outside {low:g} to {high:g}, which the output can meet",
            beyond,
            0.0,
            "The loss can never reach its least: targets go from "
            f"{np.nanmin(y):.3g} to {np.nanmax(y):.3g}.",
        )


def equal_units(model: Any) -> list[tuple[str, float]]:
    """Layers whose units all have the same incoming weights, with the largest difference: 0.

    Such units get equal gradients and stay equal: the layer is as good as one unit wide.
    """
    found = []
    for layer in _all_layers(model):
        kernel = getattr(layer, "kernel", None)
        if kernel is None or len(kernel.shape) < 2 or kernel.shape[-1] < 2:
            continue
        values = np.asarray(kernel, dtype=np.float64)
        difference = float(np.abs(values - values[..., :1]).max())
        if difference == 0:
            found.append((layer.name, difference))
    return found


def _all_layers(model: Any) -> Iterator[Any]:
    flatten = getattr(model, "_flatten_layers", None)
    if flatten is not None:
        yield from flatten(include_self=False, recursive=True)


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

"""Reader of the data for the diagnosis: a sample of rows, and the losses of simple answers."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from kgrad.diagnosis.evidence import Data
from kgrad.measure.inputs import aligned_targets

# Rows, and numbers in the rows, that are looked at. Statistics of columns and classes need no more.
_ROWS, _NUMBERS = 2000, 4_000_000
_BATCHES = 50


def read_data(model: keras.Model, X: Any = None, y: Any = None) -> Data:
    """Read a sample of the data that a model was trained with.

    Args:
        model: the model, which is not changed.
        X: inputs, as `fit` takes them: arrays, tensors or tables, nested for several inputs; or
            with the targets, as a `tf.data.Dataset`, a `keras.utils.PyDataset`, or a list of
            batches (X, y).
        y: targets, unless they come with X.

    Returns:
        Evenly spaced rows of arrays, or the first batches of a data set.

    Raises:
        TypeError: if X or y are of another type, or not numbers.
        ValueError: if y is given with a data set that has targets, or the numbers of rows differ.
    """
    samples = 0
    if _has_batches(X):
        if y is not None:
            raise ValueError(
                f"y must be left out with X={type(X).__name__}, whose batches have the targets"
            )
        inputs, targets = _first_batches(X)
    else:
        inputs, targets = _arrays("X", X), _arrays("y", y)
        counts = {len(array) for array in (*inputs, *targets)}
        if len(counts) > 1:
            raise ValueError(
                f"X and y must have the same number of rows, received {sorted(counts)}: pass the "
                "data of the training"
            )
        samples = max(counts, default=0)
        if counts and not samples:
            raise ValueError("X and y must have at least one row, received none")
        width = max((math.prod(one.shape[1:]) for one in (*inputs, *targets)), default=1)
        rows = min(_ROWS, max(_NUMBERS // max(width, 1), 16))
        step = max(1, math.ceil(samples / rows))
        inputs, targets = ([array[::step] for array in arrays] for arrays in (inputs, targets))
        inputs = [as_numbers("X", array) for array in inputs]
        targets = [as_numbers("y", array) for array in targets]
    data = Data(tuple(inputs), tuple(targets), samples)
    if inputs:
        predict = _predictor(model, inputs)
        data = data._replace(
            predict=predict, inference_loss=_inference_loss(model, targets, predict)
        )
    return data._replace(**_simple_losses(model, targets))


def _has_batches(X: Any) -> bool:
    if isinstance(X, keras.utils.PyDataset) or hasattr(X, "element_spec"):
        return True
    pairs = isinstance(X, list) and X and isinstance(X[0], tuple)
    return bool(pairs) or isinstance(X, Iterator)


def _first_batches(X: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    batches = X
    if isinstance(X, keras.utils.PyDataset):
        batches = (X[i] for i in range(min(_BATCHES, X.num_batches or _BATCHES)))
    parts: list[tuple[list[np.ndarray], list[np.ndarray]]] = []
    rows = 0
    for batch in itertools.islice(batches, _BATCHES):
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise TypeError(
                f"X must have batches (inputs, targets), received {type(batch).__name__}"
            )
        ends = zip(("X", "y"), batch, strict=False)  # sample weights may follow
        x, y = ([as_numbers(name, array) for array in _arrays(name, part)] for name, part in ends)
        parts.append((x, y))
        rows += len(x[0]) if x else 0
        if rows >= _ROWS:
            break
    if not rows:
        raise ValueError("X must have at least one batch with inputs, received none")
    x, y = (
        [np.concatenate(arrays) for arrays in zip(*part, strict=True)]
        for part in zip(*parts, strict=True)
    )
    return x, y


def _arrays(name: str, value: Any) -> list[Any]:
    """Return the arrays of a nested structure, in Keras's order; tables are arrays here."""
    if value is None:
        return []
    if isinstance(value, Mapping) or (
        isinstance(value, list | tuple)
        and value
        and hasattr(value[0], "shape")
        and len(getattr(value[0], "shape", ())) > 0
    ):
        parts = value.values() if isinstance(value, Mapping) else value
        return [array for part in parts for array in _arrays(name, part)]
    if hasattr(value, "iloc"):  # of pandas, whose rows are not taken by a step of []
        value = value.to_numpy()
    if isinstance(value, list | tuple):
        value = np.asarray(value)
    if not hasattr(value, "shape") or not len(value.shape):
        raise TypeError(
            f"{name} must be an array of numbers or, for X, a data set with batches (X, y), "
            f"received {type(value).__name__}"
        )
    return [value]


def as_numbers(name: str, value: Any) -> np.ndarray:
    """Return an array or a tensor of any backend as an array.

    Raises:
        TypeError: if it is not one of numbers.
    """
    if hasattr(value, "detach"):  # of torch
        value = value.detach().cpu()
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} must be an array of numbers, received {type(value).__name__} of "
            f"{array.dtype.name}"
        )
    return array


def _predictor(
    model: keras.Model, inputs: list[np.ndarray]
) -> Callable[[], tuple[np.ndarray, ...]]:
    def predict() -> tuple[np.ndarray, ...]:
        nested: Any = inputs[0] if len(inputs) == 1 else inputs
        outputs = keras.tree.flatten(model.predict_on_batch(nested))
        return tuple(np.asarray(output, np.float64) for output in outputs)

    return predict


def _inference_loss(
    model: keras.Model, targets: list[np.ndarray], predict: Callable[[], tuple[np.ndarray, ...]]
) -> Callable[[], float] | None:
    heads = _heads(model, len(targets))
    if heads is None:
        return None

    def loss_now() -> float:
        parts = zip(heads, targets, predict(), strict=True)
        return sum(weight * _value(loss, y, output) for (loss, weight, _), y, output in parts)

    return loss_now


def _simple_losses(model: keras.Model, targets: list[np.ndarray]) -> dict[str, Any]:
    """Return the losses of the best constant and of perfect predictions, NaN if unknown."""
    heads = _heads(model, len(targets))
    if heads is None or not all(np.isfinite(y).all() and len(y) > 1 for y in targets):
        return {}
    constant = perfect = 0.0
    summed = False
    for y, (loss, weight, shape) in zip(targets, heads, strict=True):
        same = _same(y, shape)
        rows = [] if same is None else [same.mean(axis=0), np.median(same, axis=0)]
        answers = [
            np.broadcast_to(f(row), (len(y), *row.shape))
            for row in rows
            for f in (np.asarray, _log, _logit)
        ]
        constant += weight * min((_value(loss, y, answer) for answer in answers), default=math.nan)
        ideal = [] if same is None else [same, 30.0 * (2 * same - 1)]  # as logits of 0 and 1
        perfect += weight * min((_value(loss, y, answer) for answer in ideal), default=math.nan)
        if answers:
            once = _value(loss, y, answers[0])
            twice = _value(loss, *(np.concatenate([a, a]) for a in (y, answers[0])))
            summed = summed or abs(twice - 2 * once) < 1e-3 * abs(twice)
    return {"constant_loss": constant, "perfect_loss": perfect, "summed": summed}


def _heads(
    model: keras.Model, count: int
) -> list[tuple[Callable[[Any, Any], Any], float, tuple[int, ...]]] | None:
    """Return loss, loss weight and output shape of each output; None if they are unknown."""
    loss, shapes = getattr(model, "loss", None), getattr(model, "output_shape", None)
    if loss is None or shapes is None or not count:
        return None
    if not isinstance(shapes, list):
        shapes = list(shapes.values()) if isinstance(shapes, dict) else [shapes]
    names = getattr(model, "output_names", None) or [""]
    weights = model._compile_config.config.get("loss_weights") if model.compiled else None
    losses = [_of_output(loss, i, names) for i in range(len(shapes))]
    weighed = [
        1.0 if weights is None else _of_output(weights, i, names) for i in range(len(shapes))
    ]
    if len(shapes) != count or any(one is None for one in (*losses, *weighed)):
        return None
    functions = [keras.losses.get(one) for one in losses]
    return [
        (function, float(weight), tuple(shape[1:]))
        for function, weight, shape in zip(functions, weighed, shapes, strict=True)
    ]


def _of_output(value: Any, i: int, names: list[str]) -> Any:
    """Return the entry of an output in what `compile` takes: one for all, a list or a dict."""
    if isinstance(value, dict):
        return value.get(names[i])
    if isinstance(value, list | tuple):
        return value[i] if i < len(value) else None
    return value


def _value(loss: Callable[[Any, Any], Any], y: np.ndarray, answer: np.ndarray) -> float:
    """Return the loss of predictions; infinity if it cannot be computed or is not finite."""
    floatx = keras.config.floatx()
    y_pred = keras.ops.convert_to_tensor(np.ascontiguousarray(answer), dtype=floatx)
    y_true = keras.ops.convert_to_tensor(y, dtype=floatx)
    try:
        value = float(keras.ops.mean(loss(aligned_targets(y_true, y_pred), y_pred)))
    except Exception:  # a user's loss may need other predictions, such as a mean and a variance
        return math.inf
    return value if math.isfinite(value) else math.inf


def _same(y: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the targets in the shape of an output: class labels as one-hot rows."""
    y = y.astype(np.float64)
    if y.ndim == len(shape) + 1 and all(
        s in (n, None) for s, n in zip(shape, y.shape[1:], strict=True)
    ):
        return y
    if shape and shape[-1] == 1 and y.ndim == len(shape):
        return y[..., None]
    labels = y[..., 0] if y.ndim == len(shape) + 1 and y.shape[-1] == 1 else y
    classes = shape[-1] if shape else None
    if labels.ndim != len(shape) or not classes or classes < 2:
        return None
    if (labels != np.floor(labels)).any() or labels.min() < 0 or labels.max() >= classes:
        return None
    return np.eye(classes)[labels.astype(int)]


def _log(row: np.ndarray) -> np.ndarray:
    return np.log(np.clip(row, 1e-7, None))


def _logit(row: np.ndarray) -> np.ndarray:
    share = np.clip(row, 1e-7, 1 - 1e-7)
    return np.log(share / (1 - share))

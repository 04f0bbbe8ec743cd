"""`Probe`: the outputs of a model's layers on a fixed batch, and the gradients that come back.

The gradient of a weight has two factors: the input of its layer, and the signal ∂L/∂a that comes
back to the layer's output a. The gradient alone does not show which of the two is small. A probe
measures both, and how an activation changes the signal.
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kgrad.measure.backends.current import backend
from kgrad.measure.building import build_as_fit_does
from kgrad.measure.inputs import aligned_targets, choose_loss, require_built
from kgrad.measure.keras_models.weights import name_layers
from kgrad.measure.layer_outputs import LayerOutput, copied, own_losses, watched_layers
from kgrad.measure.saturation import count_saturated
from kgrad.records.checks import unique_name

PROBE_STATISTICS = (
    "activation_mean",
    "activation_std",
    "activation_zero_fraction",
    "activation_saturated",
    "activation_dead",
    "signal_mean_abs",
    "signal_l2",
)
# The largest outputs of one shape that are measured together. For small ones tracing takes longer
# than measuring; large ones would be copied.
_MOST_TOGETHER = 2**17


class Probe:
    """Activations and back-propagated signals of a model on one fixed batch.

    A measurement is one forward and one backward pass as in training: `training=True`, with
    regularization in the loss. Everything that the passes change in the model is restored, Keras's
    random numbers included: a dropout layer drops the same entries in every measurement, and the
    training continues as if nothing had been measured. On torch, making a probe is a measurement,
    too: the order of the calls is not known before.

    A row of the result is one call of a layer. Nested models are opened. Keras's own layers are not
    opened: a recurrent, attention or wrapper layer is one row. A user's own layer that holds other
    layers is opened; it also has a row, unless it returns the output of one of them unchanged. The
    output a of a layer is its first tensor; an output that does not hold floats has no row. Calls
    in a compiled loop or branch, or in a compiled function of the model's own, have no row.

    The statistics, where L is the loss of the whole batch and s = ∂L/∂a the signal:

    - `activation_mean`, `activation_std`: mean and standard deviation of the entries of a.
    - `activation_zero_fraction`: share of the entries of a that are exactly 0.
    - `activation_saturated`: share of the entries of a = f(z) with |f'(z)| < 0.01 max |f'|, where f
      is the layer's activation and the maximum is over the real line. 0 if f is linear; NaN if the
      layer has no elementwise activation (softmax is not elementwise) or |f'| has no maximum above
      0.
    - `activation_dead`: share of the units (positions on the last axis) that are 0 in all of a.
    - `signal_mean_abs`: mean of |s|; 0 if no path leads from a to the loss.
    - `signal_l2`: square root of the sum of s².

    NaN and infinity are recorded unchanged. On TensorFlow, Keras computes some losses from the
    logits before a final sigmoid or softmax; the signal of that layer is the gradient of the same
    loss computed from its output.

    Args:
        model: a built Keras model. Its weights may change between measurements, its layers not.
        X: inputs, (samples, ...), or a list, tuple or dict of them as the model takes it.
        y: targets, (samples, ...), or a list, tuple or dict of them.
        loss: a Keras loss, its name, or a function of (y_true, y_pred), applied to every output; by
            default the loss that the model was compiled with.

    Attributes:
        outputs: the name of each row, in the order of the calls: the layer's name, with a number if
            it occurs again.

    Raises:
        TypeError: if the model is not a Keras model, or the data are neither numbers nor strings.
        ValueError: if the model is not built, has no `call`, no loss or no output to measure, or
            the data are empty or differ in length.

    Example:
        >>> from kgrad import create_model, make_dataset
        >>> data = make_dataset("moons", 64)
        >>> model = create_model(2, "relu", "he", units=8, input_shape=(2,), seed=0)
        >>> probe = Probe(model, data.X, data.y, loss="binary_crossentropy")
        >>> probe.outputs
        ('hidden_1', 'hidden_2', 'output')
        >>> probe.measure()["signal_l2"].shape  # (outputs,)
        (3,)
    """

    def __init__(self, model: keras.Model, X: Any, y: Any, loss: Any = None) -> None:
        _require_measurable(model, loss)
        X, y = _arrays("X", X), _arrays("y", y)
        _require_one_length(X, y)
        chosen = None if loss is None else _as_loss(choose_loss(model, np.empty(0), loss))
        build_as_fit_does(model, X, y)
        passes = _Passes(model, chosen)
        self._run = backend.compile_dry_run(model, passes.run, X, y)
        layer_names = name_layers(model)
        names: list[str] = []
        for output in passes.outputs:
            names.append(unique_name(layer_names[id(output.layer)], names))
        self.outputs = tuple(names)

    def measure(self) -> dict[str, np.ndarray]:
        """Run the batch forward and backward once, with the weights as they are.

        Returns:
            statistic → float64 (outputs,).
        """
        return _finished(*self._run())


class _Passes:
    """A forward and a backward pass over a batch.

    Args:
        model: a built Keras model.
        loss: the loss of each output, or None for the compiled loss.

    Attributes:
        outputs: the outputs of the layers in the last passes, in the order of the calls.
    """

    def __init__(self, model: keras.Model, loss: keras.losses.Loss | None) -> None:
        self._model, self._loss = model, loss
        self.outputs: list[LayerOutput] = []

    def run(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Run the passes; return tensors for `_finished`."""
        returned: set[int] = set()  # the numbers of the outputs that the model returns
        scale = _loss_scale(self._model)

        def losses(point: Callable[[Any], Any]) -> tuple[list[Any], list[tuple[Any, Any]]]:
            with own_losses(self._model), watched_layers(self._model, point) as self.outputs:
                y_pred = self._model(X, training=True)
                if not self.outputs:
                    raise ValueError(
                        f"model {self._model.name!r} must call a layer that puts out floats, "
                        "received none: what it calls in a compiled function of its own cannot be "
                        "seen"
                    )
                values = [self._loss_of(X, y, y_pred)]
                ends = keras.tree.flatten(y_pred)
                if any(hasattr(end, "_keras_logits") for end in ends):
                    # From a copy Keras does not find the logits behind it.
                    copies = [copied(end, ops.copy, logits=False) for end in ends]
                    copy = keras.tree.pack_sequence_as(y_pred, copies)
                    values.append(self._loss_of(X, y, copy))
            ids = {id(end) for end in ends}
            returned.clear()
            returned.update(i for i, output in enumerate(self.outputs) if id(output.a) in ids)
            scaled = [value * ops.cast(scale, value.dtype) for value in values]
            return scaled, [(output.a, output.z) for output in self.outputs]

        tensors, signals = backend.intermediate_gradients(losses)
        groups: dict[Any, list[_Row]] = {}
        for i, (output, (a, z)) in enumerate(zip(self.outputs, tensors, strict=True)):
            row = _Row(i, a, output.f, z, signals[-1 if i in returned else 0][i])
            groups.setdefault(_group_of(row), []).append(row)
        measured = [_statistics(rows, scale) for rows in groups.values()]
        dtype = keras.backend.result_type(*(floats.dtype for floats, _ in measured))
        floats = ops.concatenate([ops.cast(floats, dtype) for floats, _ in measured])
        counts = ops.concatenate([counts for _, counts in measured])
        order = np.argsort([row.number for rows in groups.values() for row in rows])
        return ops.take(floats, order, axis=0), ops.take(counts, order, axis=0)

    def _loss_of(self, X: Any, y: Any, y_pred: Any) -> Any:
        if self._loss is None:
            return self._model.compute_loss(x=X, y=y, y_pred=y_pred, training=True)
        targets, predictions = (keras.tree.flatten(tensors) for tensors in (y, y_pred))
        if len(targets) != len(predictions):
            raise ValueError(
                f"y must hold an array for each output of model {self._model.name!r}, "
                f"received {len(targets)} for {len(predictions)}"
            )
        losses = [self._loss(*pair) for pair in zip(targets, predictions, strict=True)]
        return sum([*losses, *(ops.cast(ops.sum(e), losses[0].dtype) for e in self._model.losses)])


def _loss_scale(model: keras.Model) -> Any:
    """Return the factor of the loss by which the optimizer keeps gradients in float16's range."""
    one = ops.convert_to_tensor(1.0)
    optimizer = model.optimizer if model.compiled else None
    return one if optimizer is None else optimizer.scale_loss(one)


class _Row(NamedTuple):
    """One output, as `LayerOutput`, with its number and the signal that comes back to it."""

    number: int
    a: Any
    f: Callable | None
    z: Any
    signal: Any


def _group_of(row: _Row) -> Any:
    """Return a key that is the same for outputs that are measured together."""
    kinds = [
        None if one is None else (tuple(one.shape), keras.backend.standardize_dtype(one.dtype))
        for one in (row.a, row.z, row.signal)
    ]
    f = row.f
    if isinstance(f, functools.partial) and not f.keywords:
        f = f.func
    # A method may have weights of its own, and a large output would be copied.
    is_plain = f is None or inspect.isfunction(f)
    is_small = None not in row.a.shape and math.prod(row.a.shape) <= _MOST_TOGETHER
    return (f, *kinds) if is_plain and is_small else row.number


def _statistics(rows: list[_Row], scale: Any) -> tuple[Any, Any]:
    """Measure outputs of one group: floats, (outputs, 7), and counts, (outputs, 6).

    `_finished` names the columns.
    """
    f, count = rows[0].f, len(rows)
    a, signal = (ops.stack(part) for part in ([r.a for r in rows], [r.signal for r in rows]))
    wide = "float64" if keras.backend.standardize_dtype(a.dtype) == "float64" else "float32"
    units = ops.shape(a)[-1] if len(a.shape) > 2 else 1
    is_zero = ops.reshape(ops.equal(a, 0), (count, -1, units))
    zeros = ops.sum(ops.cast(is_zero, "int32"), axis=1)
    is_dead = ops.equal(zeros, ops.shape(is_zero)[1])
    a, largest = _scaled(ops.reshape(ops.cast(a, wide), (count, -1)))
    signal, largest_signal = _scaled(ops.reshape(ops.cast(signal, wide), (count, -1)))
    every = ops.ones((count,), wide)
    floats = [
        largest,
        ops.mean(a, axis=1),
        ops.std(a, axis=1),
        largest_signal,
        ops.mean(ops.abs(signal), axis=1),
        ops.sqrt(ops.sum(ops.square(signal), axis=1)),
        ops.cast(scale, wide) * every,
    ]
    one = ops.ones((count,), "int32")
    saturated = -one if f is None else count_saturated(f, [row.z for row in rows])
    counts = [
        ops.shape(a)[1] * one,
        ops.sum(zeros, axis=1),
        units * one,
        ops.sum(ops.cast(is_dead, "int32"), axis=1),
        one if f is None else ops.size(rows[0].z) * one,
        saturated,
    ]
    return (
        ops.stack([ops.cast(value, wide) for value in floats], axis=1),
        ops.stack([ops.cast(value, "int32") for value in counts], axis=1),
    )


def _scaled(x: Any) -> tuple[Any, Any]:
    """Divide rows by their largest magnitudes, which are returned too: no sum or square overflows.

    A square of the largest entries does not underflow, either: float32 ends at 1e-38.
    """
    largest = ops.max(ops.abs(x), axis=1, initial=0)
    largest = ops.where(ops.isfinite(largest) & (largest > 0), largest, ops.ones_like(largest))
    return x / largest[:, None], largest


def _finished(floats: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the statistics of all outputs from what `_statistics` measured of each."""
    largest, mean, std, largest_signal, mean_abs, l2, scale = floats.astype(np.float64).T
    entries, zeros, units, dead, inputs, saturated = counts.astype(np.float64).T
    with np.errstate(invalid="ignore"):  # an output without entries has no mean
        values = (
            largest * mean,
            largest * std,
            zeros / entries,
            np.where(saturated < 0, np.nan, saturated / inputs),
            dead / units,
            largest_signal * mean_abs / scale,
            largest_signal * l2 / scale,
        )
    return dict(zip(PROBE_STATISTICS, values, strict=True))


class _MeanLoss(keras.losses.Loss):
    """A function of (y_true, y_pred), averaged as `fit` does."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name="mean_loss")
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._function(aligned_targets(y_true, y_pred), y_pred)


def _as_loss(loss: Any) -> keras.losses.Loss:
    return loss if isinstance(loss, keras.losses.Loss) else _MeanLoss(loss)


def _require_measurable(model: Any, loss: Any) -> None:
    if isinstance(model, keras.Model) and type(model).call is keras.Model.call:
        raise ValueError(
            f"model {model.name!r} must have a `call` to be probed, received one without: probe "
            "one of the models or layers that its training step calls"
        )
    require_built(model)
    if loss is None and not model.compiled:
        raise ValueError(
            f"loss must be named for model {model.name!r}, which is not compiled: "
            "pass loss='mean_squared_error' or another"
        )


def _arrays(name: str, value: Any) -> Any:
    """Return the structure with arrays as leaves; floating-point ones have Keras's float type."""
    takes_strings = keras.backend.backend() == "tensorflow"
    accepted = "numbers or strings" if takes_strings else "numbers"

    def as_array(part: Any) -> np.ndarray:
        array = np.asarray(ops.convert_to_numpy(part) if ops.is_tensor(part) else part)
        if array.dtype.kind not in ("fiubUS" if takes_strings else "fiub"):
            raise TypeError(f"{name} must be arrays of {accepted}, received dtype {array.dtype}")
        if array.size == 0 or array.ndim == 0:
            raise ValueError(f"{name} must hold at least one sample, received shape {array.shape}")
        return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array

    return keras.tree.map_structure(as_array, value)


def _require_one_length(X: Any, y: Any) -> None:
    lengths = [[len(array) for array in keras.tree.flatten(arrays)] for arrays in (X, y)]
    if len({*lengths[0], *lengths[1]}) != 1:
        X_lengths, y_lengths = (", ".join(map(str, of)) or "no" for of in lengths)
        raise ValueError(
            f"X and y must have the same length, received {X_lengths} and {y_lengths} samples"
        )

"""What the layers of a model put out on a fixed batch, and what gradient comes back to them.

The gradient of a weight is made of two things: what came into its layer, and the signal ∂L/∂a that
came back to the layer's output a. A small gradient alone does not tell which of the two is missing.
A probe takes both, and what an activation does to the signal on its way.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.backends.tensorflow.layer_outputs import (
    LayerOutput,
    copied,
    own_losses,
    watched_layers,
)
from kgrad.measure.backends.tensorflow.saturation import saturated_share
from kgrad.measure.inputs import choose_loss, require_built
from kgrad.measure.keras_models.weights import name_layers, unique_name

STATISTICS = (
    "activation_mean",
    "activation_std",
    "activation_zero_fraction",
    "activation_saturated",
    "activation_dead",
    "signal_mean_abs",
    "signal_l2",
)


class Probe:
    """Activations and back-propagated signals of a model on one fixed batch.

    One forward and one backward pass as in training: `training=True`, regularisation in the loss.
    What they change in the model is put back, Keras's random numbers included: a dropout layer
    drops the same entries in every measurement, and training goes on as without them.

    A row of the result is a call of a layer. Nested models are opened. Keras's own layers are not:
    a recurrent, attention or wrapper layer is one row. A layer of one's own that holds layers is
    opened, and has a row too unless it hands on what one of them put out. The output a of a layer
    is its first tensor; one that does not hold floats has no row.

    The statistics, s = ∂L/∂a being the signal and L the loss of the whole batch:

    - `activation_mean`, `activation_std`: of the entries of a.
    - `activation_zero_fraction`: share of the entries of a that are exactly 0.
    - `activation_saturated`: share of the entries of a = f(z) with |f'(z)| < 0.01 max |f'|, f being
      the layer's activation and the maximum taken over the real line. 0 where f is linear; NaN
      where the layer has none that is elementwise (softmax is not) or |f'| has no maximum above 0.
    - `activation_dead`: share of the units, the places on the last axis, that are 0 in all of a.
    - `signal_mean_abs`: mean of |s|; 0 where no path leads from a to the loss.
    - `signal_l2`: square root of the sum of s².

    NaN and infinity are recorded as they come. Keras computes some losses from the logits, past a
    last sigmoid or softmax; the signal of that layer is of the same loss taken of its output.

    Args:
        model: a built Keras model. Its weights may change between measurements, its layers not.
        X: inputs, (samples, ...), or a list, tuple or dict of them as the model takes it.
        y: targets, (samples, ...), or a list, tuple or dict of them.
        loss: a Keras loss, its name, or a function of (y_true, y_pred), taken of every output; by
            default what the model was compiled with.

    Attributes:
        outputs: a name for each row, in the order of the calls: the layer's, numbered if it occurs
            again.

    Raises:
        TypeError: if the model is not a Keras model, or the data are neither numbers nor strings.
        ValueError: if the model is not built or has no loss or no output to see, or the data are
            empty or differ in length. All raised before anything runs.

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
        self._model = model
        self._X, self._y = (keras.tree.map_structure(tf.constant, arrays) for arrays in (X, y))
        self._loss = None if loss is None else _as_loss(choose_loss(model, np.empty(0), loss))
        self.outputs: tuple[str, ...] = ()
        # As in `fit`, where a model's Python is not rewritten either.
        self._function = tf.function(self._measure, autograph=False).get_concrete_function()
        # The function itself does not keep them alive.
        self._variables = tuple(self._function.variables)

    def measure(self) -> dict[str, np.ndarray]:
        """Run the batch forward and backward once, with the weights as they are.

        Returns:
            statistic → float64 (outputs,).
        """
        before = [variable.read_value() for variable in self._variables]
        try:
            values = self._function().numpy()
        finally:
            for variable, value in zip(self._variables, before, strict=True):
                variable.assign(value)
        return dict(zip(STATISTICS, values, strict=True))

    def _measure(self) -> tf.Tensor:
        """The two passes, in a graph: float64 (statistics, outputs)."""
        with own_losses(self._model), tf.GradientTape(persistent=True) as tape:
            X = keras.tree.map_structure(tf.identity, self._X)  # tensors of the graph
            with watched_layers(self._model, tape) as outputs:
                y_pred = self._model(X, training=True)
            if not outputs:
                raise ValueError(
                    f"model {self._model.name!r} must call a layer that puts out floats, received "
                    "none: what it calls in a tf.function of its own cannot be seen"
                )
            loss = self._loss_of(y_pred)
            # A copy does not lead Keras to the logits behind it.
            copy = keras.tree.map_structure(lambda tensor: copied(tensor, "_keras_mask"), y_pred)
            loss_of_copy = self._loss_of(copy)
        scale = _loss_scale(self._model)
        signals = _gradients(tape, loss, outputs, scale)
        returned = [id(tensor) for tensor in keras.tree.flatten(y_pred)]
        last = [output for output in outputs if id(output.a) in returned]
        signals |= _gradients(tape, loss_of_copy, last, scale)
        rows = [_statistics(output, signals[id(output.a)]) for output in outputs]
        layers = name_layers(self._model)
        names: list[str] = []
        for output in outputs:
            names.append(unique_name(layers[id(output.layer)], names))
        self.outputs = tuple(names)
        return tf.stack([[row[name] for row in rows] for name in STATISTICS])

    def _loss_of(self, y_pred: Any) -> tf.Tensor:
        if self._loss is None:
            return self._model.compute_loss(x=self._X, y=self._y, y_pred=y_pred, training=True)
        targets, predictions = (keras.tree.flatten(tensors) for tensors in (self._y, y_pred))
        if len(targets) != len(predictions):
            raise ValueError(
                f"y must hold an array for each output of model {self._model.name!r}, "
                f"received {len(targets)} for {len(predictions)}"
            )
        losses = [self._loss(*pair) for pair in zip(targets, predictions, strict=True)]
        extra = [tf.cast(tf.reduce_sum(loss), losses[0].dtype) for loss in self._model.losses]
        return tf.add_n([*losses, *extra])


def _loss_scale(model: keras.Model) -> tf.Tensor:
    """What the optimizer multiplies the loss by, so that float16 can hold its gradients."""
    one = tf.constant(1.0)
    optimizer = model.optimizer if model.compiled else None
    return one if optimizer is None else optimizer.scale_loss(one)


def _gradients(
    tape: tf.GradientTape, loss: tf.Tensor, outputs: list[LayerOutput], scale: tf.Tensor
) -> dict[int, tf.Tensor]:
    """The signal of each output, float64, by the id of its tensor."""
    tensors = [output.a for output in outputs]
    scaled = tape.gradient(loss, tensors, tf.cast(scale, loss.dtype), "zero")
    return {
        id(a): tf.cast(tf.convert_to_tensor(s), tf.float64) / tf.cast(scale, tf.float64)
        for a, s in zip(tensors, scaled, strict=True)
    }


def _statistics(output: LayerOutput, signal: tf.Tensor) -> dict[str, tf.Tensor]:
    """Each statistic of one output: float64 scalars."""
    nan = tf.constant(np.nan, tf.float64)
    a = tf.cast(output.a, tf.float64)
    is_zero = tf.equal(a, 0)
    units = tf.shape(a)[-1] if (a.shape.rank or 0) > 1 else 1
    is_dead = tf.reduce_all(tf.reshape(is_zero, [-1, units]), axis=0)
    return {
        "activation_mean": tf.reduce_mean(a),
        "activation_std": tf.math.reduce_std(a),
        "activation_zero_fraction": _share(is_zero),
        "activation_saturated": nan if output.f is None else saturated_share(output.f, output.z),
        "activation_dead": _share(is_dead),
        "signal_mean_abs": tf.reduce_mean(tf.abs(signal)),
        # In float64 no square of a float32 is lost.
        "signal_l2": tf.sqrt(tf.reduce_sum(tf.square(signal))),
    }


def _share(is_so: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(is_so, tf.float64))


class _MeanLoss(keras.losses.Loss):
    """A function of (y_true, y_pred) as the loss that `fit` makes of it."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__(name="mean_loss")
        self._function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if y_true.shape.rank == y_pred.shape.rank - 1 and y_pred.shape[-1] == 1:
            y_true = tf.expand_dims(y_true, -1)  # (n,) would be broadcast against (n, 1)
        return self._function(y_true, y_pred)


def _as_loss(loss: Any) -> keras.losses.Loss:
    return loss if isinstance(loss, keras.losses.Loss) else _MeanLoss(loss)


def _require_measurable(model: Any, loss: Any) -> None:
    require_built(model)
    if loss is None and not model.compiled:
        raise ValueError(
            f"loss must be named for model {model.name!r}, which is not compiled: "
            "pass loss='mean_squared_error' or another"
        )


def _arrays(name: str, value: Any) -> Any:
    """The arrays in a structure of them, floats as Keras's float type."""

    def as_array(part: Any) -> np.ndarray:
        array = np.asarray(part)
        if array.dtype.kind not in "fiubUS":
            raise TypeError(
                f"{name} must be arrays of numbers or strings, received dtype {array.dtype}"
            )
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

"""The forward and the backward pass of a probe, compiled: `compiled_probe`."""

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


def compiled_probe(
    model: keras.Model, X: Any, y: Any, loss: keras.losses.Loss | None
) -> tuple[list[keras.Layer], Callable[[], dict[str, np.ndarray]]]:
    """Compile a forward and a backward pass over one batch; see `Probe`.

    Args:
        model: a built Keras model.
        X: inputs, an array or a structure of arrays.
        y: targets, an array or a structure of arrays.
        loss: the loss of each output, or None for the compiled loss.

    Returns:
        The layers of the rows, in the order of the calls, and a function without arguments. It runs
        the passes with the weights as they are, restores what they change in the model, and
        returns statistic → float64 (rows,).

    Raises:
        ValueError: if the model has no output to measure, or y does not fit its outputs.
    """
    passes = _Passes(model, X, y, loss)
    return passes.layers, passes.run


class _Passes:
    def __init__(self, model: keras.Model, X: Any, y: Any, loss: keras.losses.Loss | None) -> None:
        self._model, self._loss = model, loss
        self._X, self._y = (keras.tree.map_structure(tf.constant, arrays) for arrays in (X, y))
        self.layers: list[keras.Layer] = []
        self._names: tuple[str, ...] = ()
        # As in `fit`, autograph does not rewrite the model's Python.
        self._function = tf.function(self._measure, autograph=False).get_concrete_function()
        # The function itself does not keep them alive.
        self._variables = tuple(self._function.variables)

    def run(self) -> dict[str, np.ndarray]:
        before = [variable.read_value() for variable in self._variables]
        try:
            values = self._function().numpy()
        finally:
            for variable, value in zip(self._variables, before, strict=True):
                variable.assign(value)
        return dict(zip(self._names, values, strict=True))

    def _measure(self) -> tf.Tensor:
        """Trace the two passes: float64 (statistics, rows)."""
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
            # From a copy Keras does not find the logits behind it.
            copy = keras.tree.map_structure(lambda tensor: copied(tensor, "_keras_mask"), y_pred)
            loss_of_copy = self._loss_of(copy)
        scale = _loss_scale(self._model)
        signals = _gradients(tape, loss, outputs, scale)
        returned = [id(tensor) for tensor in keras.tree.flatten(y_pred)]
        last = [output for output in outputs if id(output.a) in returned]
        signals |= _gradients(tape, loss_of_copy, last, scale)
        rows = [_statistics(output, signals[id(output.a)]) for output in outputs]
        self.layers = [output.layer for output in outputs]
        self._names = tuple(rows[0])
        return tf.stack([[row[name] for row in rows] for name in self._names])

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
    """Return the factor of the loss by which the optimizer keeps gradients in float16's range."""
    one = tf.constant(1.0)
    optimizer = model.optimizer if model.compiled else None
    return one if optimizer is None else optimizer.scale_loss(one)


def _gradients(
    tape: tf.GradientTape, loss: tf.Tensor, outputs: list[LayerOutput], scale: tf.Tensor
) -> dict[int, tf.Tensor]:
    """Return the signal of each output, float64, by the id of its tensor."""
    tensors = [output.a for output in outputs]
    scaled = tape.gradient(loss, tensors, tf.cast(scale, loss.dtype), "zero")
    return {
        id(a): tf.cast(tf.convert_to_tensor(s), tf.float64) / tf.cast(scale, tf.float64)
        for a, s in zip(tensors, scaled, strict=True)
    }


def _statistics(output: LayerOutput, signal: tf.Tensor) -> dict[str, tf.Tensor]:
    """Compute the statistics of one output: float64 scalars."""
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
        # In float64 the square of every float32 is representable.
        "signal_l2": tf.sqrt(tf.reduce_sum(tf.square(signal))),
    }


def _share(condition: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.cast(condition, tf.float64))

"""Training steps, many of them compiled into one `tf.function`, and the gradients of a batch."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.inputs import loss_value


class Listener(Protocol):
    """Measures the updates of an optimizer."""

    def listen_to(self, optimizer: keras.optimizers.Optimizer) -> Callable[[], None]:
        """Start to listen to an optimizer; return a function that ends it."""


class TrainingLoop:
    """A model's training steps, compiled.

    Args:
        model: a built Keras model.
        X: inputs, (samples, ...).
        y: targets, (samples, ...).
        batch_size: samples per step.
        optimizer: built for the model's weights.
        loss: function of (y_true, y_pred), or None for the compiled loss.
        jit_compile: whether XLA compiles the steps.
        recorder: measures the gradients of each step; None trains without measuring.
    """

    def __init__(
        self,
        model: keras.Model,
        X: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        optimizer: keras.optimizers.Optimizer,
        loss: Callable[[Any, Any], Any] | None,
        jit_compile: bool,
        recorder: Listener | None = None,
    ) -> None:
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._recorder = recorder
        self._data = (tf.constant(X), tf.constant(y))
        self._loss_total = tf.Variable([0.0, 0.0], dtype=tf.float64)  # Σ loss · samples, Σ samples
        self.samples, self._batch_size = len(X), min(batch_size, len(X))
        self.steps_per_epoch = -(-self.samples // self._batch_size)
        self._order = tf.range(self.samples)
        self._compiled: dict[int, Callable] = {}
        self._jit_compile = jit_compile

    def set_order(self, order: np.ndarray) -> None:
        """Take the samples in this order from now on: int32, (samples,)."""
        self._order = tf.constant(order, tf.int32)

    def run(self, first: int, count: int) -> int:
        """Run up to `count` steps of the epoch, beginning with step `first` (0-based).

        Returns:
            The number of steps run: a partial last batch is a call of its own.
        """
        full = self.samples // self._batch_size
        if first < full:
            count = min(count, full - first)
            size = self._batch_size
        else:
            count, size = 1, self.samples - full * self._batch_size
        offset = first * self._batch_size
        self._function(size)(self._order, tf.constant(offset), tf.constant(count))
        return count

    def logs(self) -> dict[str, float]:
        """Return the mean loss per sample and the compiled metrics since `reset_logs`."""
        total, samples = self._loss_total.numpy()
        logs = {"loss": float(total / samples) if samples else float("nan")}
        if self._model.compiled:
            results = self._model.get_metrics_result()
            logs |= {name: float(value) for name, value in results.items() if name != "loss"}
        return logs

    def reset_logs(self) -> None:
        """Start the means of `logs` anew."""
        self._loss_total.assign([0.0, 0.0])
        if self._model.compiled:
            self._model.reset_metrics()

    def _function(self, size: int) -> Callable:
        """Return the compiled steps for batches of `size`, which are traced once."""
        if size not in self._compiled:
            scalar = tf.TensorSpec([], tf.int32)
            function = tf.function(self._steps, jit_compile=self._jit_compile)
            # The recorder listens while the steps are traced: its operations become part of them.
            with ExitStack() as listening:
                if self._recorder is not None:
                    listening.callback(self._recorder.listen_to(self._optimizer))
                self._compiled[size] = function.get_concrete_function(
                    tf.TensorSpec([self.samples], tf.int32), scalar, scalar, size
                )
        return self._compiled[size]

    def _steps(self, order: tf.Tensor, offset: tf.Tensor, count: tf.Tensor, size: int) -> None:
        """Train on `count` batches of `size` samples, from position `offset` of the order on."""

        def step(i: tf.Tensor) -> tuple[tf.Tensor]:
            # XLA would compile tf.slice anew for every value of its begin.
            batch = tf.gather(order, tf.range(size) + (offset + i * size))
            X, y = (tf.gather(array, batch) for array in self._data)
            loss, gradients, y_pred = backward(self._model, X, y, self._loss, self._optimizer)
            self._optimizer.apply(gradients, self._model.trainable_variables)
            weight = tf.constant(size, tf.float64)
            self._loss_total.assign_add(tf.stack([tf.cast(loss, tf.float64) * weight, weight]))
            if self._model.compiled:
                self._model.compute_metrics(X, y, y_pred)
            return (i + 1,)

        tf.while_loop(lambda i: i < count, step, [tf.constant(0)])


def backward(
    model: keras.Model,
    X: Any,
    y: Any,
    loss: Callable[[Any, Any], Any] | None,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> tuple[tf.Tensor, list[Any], tf.Tensor]:
    """Run a forward and a backward pass as in training.

    Args:
        model: a built Keras model.
        X: inputs, (samples, ...), a tensor or an array.
        y: targets, (samples, ...), a tensor or an array.
        loss: function of (y_true, y_pred), or None for the compiled loss.
        optimizer: scales the gradients, if it is a `LossScaleOptimizer`.

    Returns:
        The loss, the gradient of each trainable variable, and the model's output.
    """
    X, y = tf.convert_to_tensor(X), tf.convert_to_tensor(y)
    with tf.GradientTape() as tape:
        y_pred = model(X, training=True)
        value = loss_value(model, X, y, y_pred, loss)
        if loss is not None:  # the compiled loss includes regularization
            value = tf.add_n([value, *(tf.reduce_sum(extra) for extra in model.losses)])
        target = value if optimizer is None else optimizer.scale_loss(value)
    gradients = tape.gradient(target, [variable.value for variable in model.trainable_variables])
    return value, gradients, y_pred

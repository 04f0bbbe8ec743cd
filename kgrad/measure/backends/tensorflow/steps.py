"""The training steps, compiled: many of them in one call of one `tf.function`."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.backends.tensorflow.recorder import Recorder
from kgrad.measure.backends.tensorflow.taps import listen_to_updates


class TrainingLoop:
    """A model's training steps, compiled.

    Args:
        model: a built Keras model.
        X: inputs, (samples, ...).
        y: targets, (samples, ...).
        batch_size: samples a step.
        optimizer: built for the model's weights.
        loss: function of (y_true, y_pred), or None for the compiled one.
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
        recorder: Recorder | None = None,
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
        """Run up to `count` steps of the epoch, from step `first` on (0-based).

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
        """Mean loss a sample and the compiled metrics since the last call, which starts anew."""
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
        """The compiled steps for batches of `size`, traced once."""
        if size not in self._compiled:
            scalar = tf.TensorSpec([], tf.int32)
            function = tf.function(self._steps, jit_compile=self._jit_compile)
            # Listening while the steps are traced: what is measured is part of them from then on.
            with ExitStack() as listening:
                if self._recorder is not None:
                    listening.callback(listen_to_updates(self._optimizer, self._recorder))
                self._compiled[size] = function.get_concrete_function(
                    tf.TensorSpec([self.samples], tf.int32), scalar, scalar, size
                )
        return self._compiled[size]

    def _steps(self, order: tf.Tensor, offset: tf.Tensor, count: tf.Tensor, size: int) -> None:
        """Train on `count` batches of `size` samples, from place `offset` of the order on."""

        def step(i: tf.Tensor) -> tuple[tf.Tensor]:
            # Not tf.slice: XLA would compile anew for every value of its begin.
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
    X: tf.Tensor,
    y: tf.Tensor,
    loss: Callable[[Any, Any], Any] | None,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> tuple[tf.Tensor, list[Any], tf.Tensor]:
    """One forward and backward pass: (loss, gradients as the optimizer scales them, output)."""
    with tf.GradientTape() as tape:
        y_pred = model(X, training=True)
        if loss is None:
            value = model.compute_loss(x=X, y=y, y_pred=y_pred, training=True)
        else:
            if y.shape.rank == y_pred.shape.rank - 1 and y_pred.shape[-1] == 1:
                y = tf.expand_dims(y, -1)  # (samples,) would be broadcast against (samples, 1)
            regularisation = [tf.reduce_sum(extra) for extra in model.losses]
            value = tf.add_n([tf.reduce_mean(loss(y, y_pred)), *regularisation])
        target = value if optimizer is None else optimizer.scale_loss(value)
    variables = [variable.value for variable in model.trainable_variables]
    return value, tape.gradient(target, variables), y_pred

"""Training steps, many of them compiled into one `tf.function`, and the gradients of a batch."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.backends.tensorflow.distribution import (
    local_values,
    own_part,
    replicated_strategy,
    require_no_mask,
    summed_over_replicas,
)
from kgrad.measure.inputs import loss_value


class Listener(Protocol):
    """Measures the updates of an optimizer."""

    def listen_to(self, optimizer: keras.optimizers.Optimizer) -> Callable[[], None]:
        """Start to listen to an optimizer; return a function that ends it."""


class TrainingLoop:
    """A model's training steps, compiled.

    Under a distribution strategy each replica takes its part of the batch. The gradient of the
    whole batch is summed before the optimizer gets it, outside of the replicas, so that clipping
    and accumulation act on it as on one device.

    Args:
        model: a built Keras model.
        X: inputs, (samples, ...).
        y: targets, (samples, ...).
        batch_size: samples per step.
        optimizer: built for the model's weights.
        loss: function of (y_true, y_pred), or None for the compiled loss.
        jit_compile: whether XLA compiles the steps.
        recorder: measures the gradients of each step; None trains without measuring.

    Attributes:
        samples: number of samples.
        steps_per_epoch: number of steps per epoch.
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
        self._full, self._last_size = divmod(self.samples, self._batch_size)
        self.steps_per_epoch = self._full + (self._last_size > 0)
        self._order = tf.range(self.samples)
        self._compiled: dict[int, Callable] = {}
        self._jit_compile = jit_compile
        self._strategy = replicated_strategy(model)
        if self._strategy is not None:
            if model.compiled:
                # Metrics cannot make their variables inside the loop of the compiled function.
                with self._strategy.scope():
                    model._symbolic_build(data_batch=(X[:1], y[:1], None))
            # Tracing refuses a model that cannot be distributed.
            for size in {self._batch_size, self._last_size} - {0}:
                self._function(size)

    def set_order(self, order: np.ndarray) -> None:
        """Take the samples in this order from now on: int32, (samples,)."""
        self._order = tf.constant(order, tf.int32)

    def run(self, first: int, count: int) -> int:
        """Run up to `count` steps of the epoch, beginning with step `first` (0-based).

        Returns:
            The number of steps run: a partial last batch is a call of its own.
        """
        if first < self._full:
            count, size = min(count, self._full - first), self._batch_size
        else:
            count, size = 1, self._last_size
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
            # As in `fit`, autograph does not rewrite the model's Python.
            function = tf.function(self._steps, autograph=False, jit_compile=self._jit_compile)
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
            loss, gradients = self._pass_over(order, offset + i * size, size)
            self._optimizer.apply(gradients, self._model.trainable_variables)
            weight = tf.constant(size, tf.float64)
            self._loss_total.assign_add(tf.stack([tf.cast(loss, tf.float64) * weight, weight]))
            return (i + 1,)

        tf.while_loop(lambda i: i < count, step, [tf.constant(0)])

    def _pass_over(self, order: tf.Tensor, first: tf.Tensor, size: int) -> tuple[tf.Tensor, list]:
        """Return loss and gradients of the batch of `size` samples at position `first`."""
        if self._strategy is not None:
            return self._pass_in_parts(order, first, size, self._strategy)
        # XLA would compile tf.slice anew for every value of its begin.
        X, y = self._samples(tf.gather(order, tf.range(size) + first))
        loss, gradients, y_pred = backward(self._model, X, y, self._loss, self._optimizer)
        self._update_metrics(X, y, y_pred)
        return loss, gradients

    def _pass_in_parts(
        self, order: tf.Tensor, first: tf.Tensor, size: int, strategy: tf.distribute.Strategy
    ) -> tuple[tf.Tensor, list]:
        """Return what `_pass_over` does, from the parts that the replicas compute."""

        def part() -> list:
            own = own_part(order, first, size)
            X, y = self._samples(own)
            share = tf.size(own) / size
            loss, gradients, y_pred = backward(
                self._model, X, y, self._loss, self._optimizer, share
            )
            require_no_mask(self._model, y_pred)
            self._update_metrics(X, y, y_pred)
            return summed_over_replicas([loss, *gradients])

        loss, *gradients = local_values(strategy.run(part), strategy)
        return loss, gradients

    def _samples(self, positions: tf.Tensor) -> list[tf.Tensor]:
        return [tf.gather(array, positions) for array in self._data]

    def _update_metrics(self, X: tf.Tensor, y: tf.Tensor, y_pred: tf.Tensor) -> None:
        if self._model.compiled:
            self._model.compute_metrics(X, y, y_pred)


def backward(
    model: keras.Model,
    X: Any,
    y: Any,
    loss: Callable[[Any, Any], Any] | None,
    optimizer: keras.optimizers.Optimizer | None = None,
    share: tf.Tensor | None = None,
) -> tuple[tf.Tensor, list[Any], tf.Tensor]:
    """Run a forward and a backward pass as in training.

    Args:
        model: a built Keras model.
        X: inputs, (samples, ...), a tensor or an array.
        y: targets, (samples, ...), a tensor or an array.
        loss: function of (y_true, y_pred), or None for the compiled loss.
        optimizer: scales the gradients, if it is a `LossScaleOptimizer`.
        share: a factor of the loss: the share of the samples in a larger batch.

    Returns:
        The loss, the gradient of each trainable variable, and the model's output.
    """
    X, y = tf.convert_to_tensor(X), tf.convert_to_tensor(y)
    with tf.GradientTape() as tape:
        y_pred = model(X, training=True)
        value = _undivided(loss_value(model, X, y, y_pred, loss), loss)
        if loss is not None:  # the compiled loss includes regularization
            value = tf.add_n([value, *(tf.reduce_sum(extra) for extra in model.losses)])
        if share is not None:
            value *= tf.cast(share, value.dtype)
        target = value if optimizer is None else optimizer.scale_loss(value)
    gradients = tape.gradient(target, [variable.value for variable in model.trainable_variables])
    return value, gradients, y_pred


def _undivided(value: tf.Tensor, loss: Callable[[Any, Any], Any] | None) -> tf.Tensor:
    """Return a loss without Keras's division by the number of replicas."""
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    divided = loss is None or isinstance(loss, keras.losses.Loss)
    return value * replicas if divided and replicas > 1 else value

"""Training steps of torch, one after the other, and the gradients of a batch."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import keras
import numpy as np
import torch

from kgrad.measure.inputs import loss_value
from kgrad.measure.interrupts import interrupt_deferred

Loss = Callable[[Any, Any], Any]


class Listener(Protocol):
    """Measures the updates of an optimizer."""

    def listen_to(self, optimizer: keras.optimizers.Optimizer) -> Callable[[], None]:
        """Start to listen to an optimizer; return a function that ends it."""


class TrainingLoop:
    """A model's training steps, which torch runs operation by operation.

    Args:
        model: a built Keras model.
        X: inputs, (samples, ...).
        y: targets, (samples, ...).
        batch_size: samples per step.
        optimizer: built for the model's weights.
        loss: function of (y_true, y_pred), or None for the compiled loss.
        jit_compile: whether `torch.compile` compiles the forward and the backward pass.
        recorder: measures the gradients of each step; None trains without measuring.
    """

    def __init__(
        self,
        model: keras.Model,
        X: np.ndarray,
        y: np.ndarray,
        batch_size: int,
        optimizer: keras.optimizers.Optimizer,
        loss: Loss | None,
        jit_compile: bool,
        recorder: Listener | None = None,
    ) -> None:
        self._model, self._optimizer, self._loss = model, optimizer, loss
        self._recorder, self._jit_compile = recorder, jit_compile
        self._data = keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(y)
        self.samples, self._batch_size = len(X), min(batch_size, len(X))
        self.steps_per_epoch = -(-self.samples // self._batch_size)
        self._forward = _forward
        self.set_order(np.arange(self.samples))
        self._forget_losses()

    def set_order(self, order: np.ndarray) -> None:
        """Take the samples in this order from now on: int, (samples,)."""
        self._batches = keras.ops.convert_to_tensor(order, "int64").split(self._batch_size)

    def run(self, first: int, count: int) -> int:
        """Run up to `count` steps of the epoch, beginning with step `first` (0-based).

        Returns:
            The number of steps run.
        """
        batches = self._batches[first : first + count]
        losses = []
        # Ctrl-C waits: a step is made and measured completely or not at all.
        with interrupt_deferred(), training_mode(self._model), ExitStack() as listening:
            if self._recorder is not None:
                listening.callback(self._recorder.listen_to(self._optimizer))
            for batch in batches:
                losses.append(self._step(batch))
            # float32 on the device, which may lack float64
            sizes = np.array([len(batch) for batch in batches])
            means = keras.ops.convert_to_numpy(torch.stack(losses)).astype(np.float64)
            self._losses += [means @ sizes, sizes.sum()]
        return len(batches)

    def logs(self) -> dict[str, float]:
        """Return the mean loss per sample and the compiled metrics since `reset_logs`."""
        total, samples = self._losses
        logs = {"loss": float(total / samples) if samples else float("nan")}
        if self._model.compiled:
            results = self._model.get_metrics_result()
            logs |= {name: float(value) for name, value in results.items() if name != "loss"}
        return logs

    def reset_logs(self) -> None:
        """Start the means of `logs` anew."""
        self._forget_losses()
        if self._model.compiled:
            self._model.reset_metrics()

    def _forget_losses(self) -> None:
        self._losses = np.zeros(2)  # Σ loss · samples, Σ samples

    def _step(self, batch: torch.Tensor) -> torch.Tensor:
        """Train on the samples of these numbers; return the loss."""
        X, y = (array[batch] for array in self._data)
        value, gradients, y_pred = _backward(
            self._forward, self._model, X, y, self._loss, self._optimizer
        )
        with torch.no_grad():
            self._optimizer.apply(gradients, self._model.trainable_variables)
            if self._model.compiled:
                self._model.compute_metrics(X, y, y_pred)
        if self._jit_compile and self._forward is _forward:
            # The first pass builds the compiled loss, which `torch.compile` cannot do.
            self._forward = torch.compile(_forward)
        return value


def backward(
    model: keras.Model,
    X: Any,
    y: Any,
    loss: Loss | None,
    optimizer: keras.optimizers.Optimizer | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor | None], torch.Tensor]:
    """Run a forward and a backward pass as in training.

    Args:
        model: a built Keras model; the attributes `grad` of its weights stay.
        X: inputs, (samples, ...), a tensor or an array.
        y: targets, (samples, ...), a tensor or an array.
        loss: function of (y_true, y_pred), or None for the compiled loss.
        optimizer: scales the gradients, if it is a `LossScaleOptimizer`.

    Returns:
        The loss, the gradient of each trainable variable, and the model's output.
    """
    X, y = keras.ops.convert_to_tensor(X), keras.ops.convert_to_tensor(y)
    with training_mode(model):
        return _backward(_forward, model, X, y, loss, optimizer)


@contextmanager
def training_mode(model: keras.Model) -> Iterator[None]:
    """Have torch's own modules in a model behave as in training, which `fit` does, too."""
    modules: torch.nn.Module = model  # on this backend
    before = [(module, module.training) for module in modules.modules()]
    modules.train()
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


def _forward(
    model: keras.Model, X: torch.Tensor, y: torch.Tensor, loss: Loss | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the loss, regularization included, and the model's output."""
    y_pred = model(X, training=True)
    value = loss_value(model, X, y, y_pred, loss)
    if loss is not None:  # the compiled loss includes regularization
        value = value + sum(torch.sum(extra) for extra in model.losses)
    return value, y_pred


def _backward(
    forward: Callable,
    model: keras.Model,
    X: torch.Tensor,
    y: torch.Tensor,
    loss: Loss | None,
    optimizer: keras.optimizers.Optimizer | None,
) -> tuple[torch.Tensor, list[torch.Tensor | None], torch.Tensor]:
    with torch.enable_grad():
        value, y_pred = forward(model, X, y, loss)
        target = value if optimizer is None else optimizer.scale_loss(value)
    variables = [variable._value for variable in model.trainable_variables]
    # Unlike `backward()`, this leaves the attribute `grad` of the weights alone.
    gradients = torch.autograd.grad(target, variables, allow_unused=True)
    return value.detach(), list(gradients), y_pred

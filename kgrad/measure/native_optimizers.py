"""Listens to `torch.optim` optimizers, which train a Keras model without Keras's knowledge.

Keras's guide to several GPUs with torch trains its model with one. Torch calls hooks before each of
an optimizer's steps.
"""

from collections.abc import Callable
from typing import Any

import keras

from kgrad.measure.backends.current import backend


class NativeOptimizer:
    """What a recording needs to know of a `torch.optim` optimizer, under the names that Keras has.

    Args:
        optimizer: the optimizer.
        model: the Keras model whose weights it trains.

    Attributes:
        name: the name of its class.
    """

    built = True
    # What is clipped is clipped before the optimizer gets it.
    clipnorm = global_clipnorm = clipvalue = None

    def __init__(self, optimizer: Any, model: keras.Model) -> None:
        self.name = type(optimizer).__name__
        self._optimizer, self._model = optimizer, model

    @property
    def _trainable_variables(self) -> list[keras.Variable]:
        ids = {id(parameter) for parameter in self._parameters()}
        return [variable for variable in self._model.weights if id(variable._value) in ids]

    def listen(self, update: Callable[..., None]) -> Callable[[], None]:
        """Call a function at each step, with (parameters, gradients, gradients).

        The gradient of a parameter that the loss does not depend on is None.

        Returns:
            A function that ends it.
        """

        def before_step(optimizer: Any, args: tuple, kwargs: dict) -> None:
            # The first argument is the optimizer.
            if any(argument is not None for argument in (*args[1:], *kwargs.values())):
                raise ValueError(
                    f"step() of optimizer {self.name!r} must be called without a closure, received "
                    "one: it would compute gradients that cannot be recorded"
                )
            parameters = self._parameters()
            gradients = backend.readable_gradients([p.grad for p in parameters])
            # Set by a GradScaler if the step itself is to unscale them.
            scale = getattr(optimizer, "grad_scale", None)
            if scale is not None:
                gradients = [None if g is None else g / scale for g in gradients]
            update(parameters, gradients, gradients)

        return self._optimizer.register_step_pre_hook(before_step).remove

    def _parameters(self) -> list[Any]:
        groups = self._optimizer.param_groups  # more may be added while it trains
        return [parameter for group in groups for parameter in group["params"]]


def is_native(optimizer: Any) -> bool:
    """Return whether something is a `torch.optim` optimizer."""
    return hasattr(optimizer, "register_step_pre_hook")

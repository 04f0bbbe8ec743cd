"""Arrays that torch's training steps fold into: `Totals`."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import torch


class Totals:
    """Named arrays that training steps fold into.

    Args:
        initial: the initial values, by name.
    """

    def __init__(self, initial: Mapping[str, np.ndarray]) -> None:
        self._values: dict[str, torch.Tensor] = {}
        self.write(**initial)

    def fold(
        self,
        merge: Callable[[Any, dict[str, Any], Mapping[str, Any]], dict[str, Any]],
        step: Mapping[str, Any],
        made: Any = None,
    ) -> None:
        """Replace the values by `merge(keras.ops, values, step)`; in the step."""
        with torch.no_grad():
            self._values = merge(keras.ops, self._values, step)

    def read(self, *names: str) -> dict[str, np.ndarray]:
        """Return the values, those named or all."""
        return {name: self._values[name].cpu().numpy() for name in names or self._values}

    def take(self) -> dict[str, np.ndarray]:
        """Return all values, and set them to 0."""
        values = self.read()
        self._values = {name: torch.zeros_like(v) for name, v in self._values.items()}
        return values

    def write(self, **arrays: np.ndarray) -> None:
        """Set values."""
        # A tensor may share an array's memory: neither is ever changed in place.
        for name, array in arrays.items():
            self._values[name] = keras.ops.convert_to_tensor(array)

"""The check of the training targets against the range of the model's output."""

from typing import Any

import numpy as np

from kgrad.diagnosis.evidence import Evidence, ModelFacts
from kgrad.diagnosis.rules import Observation, number, of_last_layer, percent

# Losses that are smallest if the output equals the target.
_COMPARING = (
    "binary_crossentropy",
    "categorical_crossentropy",
    "sparse_categorical_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
    "huber",
    "log_cosh",
)


def targets_out_of_range(e: Evidence, facts: ModelFacts) -> Observation | None:
    """Detect targets that the output layer cannot produce.

    Raises:
        TypeError: if the targets are not numbers.
    """
    if e.targets is None:
        return None
    y = _as_array(e.targets)
    if facts.loss not in _COMPARING:
        return None
    low, high = facts.output_range
    if facts.loss.startswith("sparse_cat"):
        low, high = 0, facts.units - 1
        y = y[y != facts.ignored_class] if facts.ignored_class is not None else y
    elif facts.loss.endswith("crossentropy"):
        low, high = 0, 1
    if not y.size or np.isnan(low):
        return None
    outside = float(np.mean((y < low) | (y > high)))
    if not outside:
        return None
    possible = f"{number(low)} to {number(high)}"
    return of_last_layer(
        e,
        facts,
        (f"share of the targets outside {possible}, the range of the output", outside, 0),
        f"{percent(outside)} of the targets are outside {possible}, the range of the output",
        "The loss cannot reach its minimum, because the output cannot reach all targets: they go "
        f"from {number(np.nanmin(y))} to {number(np.nanmax(y))}.",
    )


def _as_array(y: Any) -> np.ndarray:
    """Return the targets of a model's only output as one array."""
    if isinstance(y, dict) and len(y) == 1:
        y = next(iter(y.values()))
    try:
        array = np.asarray(y)
    except ValueError:  # arrays of different shapes
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"y must be an array of numbers, the targets of the model's output, received "
            f"{type(y).__name__} of {array.dtype.name}"
        )
    return array

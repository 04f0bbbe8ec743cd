"""The variance of Keras initializers, and the variance that keeps errors level."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras
import numpy as np
from scipy.optimize import brentq

from kgrad import theory
from kgrad.experiments.models import find_initializer
from kgrad.records.checks import hidden_widths

# Standard deviation of a standard normal distribution truncated at ±2.
_CUT = 0.87962566103423978


def initial_variance(initializer: Any, shape: tuple[int, ...]) -> float:
    """Return the variance of the entries that an initializer draws.

    Args:
        initializer: a Keras initializer whose entries have mean 0.
        shape: shape of the variable: (n_in, n_out) or (n,).

    Returns:
        The variance of one entry; it is not multiplied by the fan-in.

    Raises:
        ValueError: if the entries are not random, their mean is not 0, or the initializer is not
            one of Keras's.

    Example:
        >>> round(initial_variance(keras.initializers.HeNormal(), (50, 10)), 10)
        0.04
    """
    kinds = keras.initializers
    fan_in, fan_out = (shape[0], shape[-1]) if len(shape) > 1 else (max(1, *shape),) * 2
    if isinstance(initializer, kinds.VarianceScaling):
        fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}
        return float(initializer.scale / max(1.0, fans[initializer.mode]))
    if isinstance(initializer, kinds.Orthogonal):
        return float(initializer.gain**2 / max(fan_in, fan_out))
    if isinstance(initializer, kinds.RandomNormal | kinds.TruncatedNormal):
        if initializer.mean == 0:
            cut = _CUT if isinstance(initializer, kinds.TruncatedNormal) else 1.0
            return float((cut * initializer.stddev) ** 2)
    elif isinstance(initializer, kinds.RandomUniform):
        if initializer.minval == -initializer.maxval:
            return float(initializer.maxval**2 / 3)
    elif isinstance(initializer, kinds.Zeros) or getattr(initializer, "value", None) == 0:
        return 0.0
    raise ValueError(
        "an initializer must be one of Keras's with mean 0, such as he_normal, received "
        f"{type(initializer).__name__}({_arguments(initializer)}): pass variances='weights' to "
        "use the variance of the current values"
    )


def _arguments(initializer: Any) -> str:
    config: dict[str, Any] = getattr(initializer, "get_config", dict)()
    return ", ".join(f"{name}={value!r}" for name, value in config.items() if name != "seed")


@dataclass(frozen=True)
class Recommendation:
    """The result of `recommend_initializer`.

    Attributes:
        initializer: a `keras.initializers.VarianceScaling` that scales with the fan-in.
        sigma_w2: fan-in times the variance of the weights.
        before: |δ^l|/|δ^L| with the other initializer, for l from the first hidden layer to the
            output: (num_layers + 1,).
        after: |δ^l|/|δ^L| with the recommended initializer.
        activation: name of the activation function.
        instead_of: name of the other initializer.
    """

    initializer: keras.initializers.Initializer
    sigma_w2: float
    before: np.ndarray
    after: np.ndarray
    activation: str
    instead_of: str

    def __str__(self) -> str:
        depth = len(self.after) - 1
        return (
            f"For {depth} hidden layers with {self.activation}, draw the weights with variance "
            f"{self.sigma_w2:.4g}/fan_in: the error is then as large at the first layer as at the "
            f"output. With {self.instead_of} it would be {self.before[0]:.3g} times as large."
        )


def recommend_initializer(
    activation: Any,
    num_layers: int = 10,
    units: int | Sequence[int] = 64,
    *,
    instead_of: Any = "he",
    input_units: int = 20,
    input_mean_square: float = 1.0,
) -> Recommendation:
    """Find the variance at which backpropagated errors neither grow nor shrink.

    In the layerwise recursion, |δ^l|² changes by the factor χ_l = σ_w² E[φ'(√q^l z)²] per layer.
    The recommended σ_w² is the one with Π χ_l = 1 over the hidden layers, with biases 0. For ReLU
    it is He's 2. For tanh it falls slowly to 1 with depth, because the first layers, where signals
    are large, shrink the error most. It also exists for sigmoid, GELU and SiLU, although no useful
    variance keeps their errors level at infinite depth.

    Args:
        activation: activation of the hidden layers, in any form that `kgrad.theory.activation`
            accepts.
        num_layers: number of hidden layers, at least 1.
        units: width of all hidden layers, or a sequence of one width per hidden layer.
        instead_of: the initializer to compare with: a Keras initializer, its name, or an alias such
            as "he", "xavier" or "lecun".
        input_units: width of the input.
        input_mean_square: mean square of the input's entries; 1 for standardized data.

    Returns:
        The recommendation, which prints as two sentences.

    Raises:
        ValueError: if there is no such variance between 1e-3 and 1e4, or an argument is unknown.

    Example:
        >>> round(recommend_initializer("relu").sigma_w2, 6)
        2.0
        >>> round(recommend_initializer("tanh", num_layers=30).sigma_w2, 3)
        1.518
    """
    phi = theory.activation(activation)
    widths = hidden_widths(num_layers, units)
    shapes = list(pairwise([input_units, *widths, 1]))

    def profile(sigma_w2: Sequence[float]) -> np.ndarray:
        variances = tuple(s / n for s, (n, _) in zip(sigma_w2, shapes, strict=True))
        stack = theory.DenseStack((input_units, *widths, 1), variances, (phi,) * num_layers)
        return np.sqrt(theory.propagate(stack, input_mean_square).S)

    def growth(log_sigma_w2: float) -> float:
        with np.errstate(divide="ignore", over="ignore"):
            return float(np.log(profile([np.exp(log_sigma_w2)] * (num_layers + 1))[0]))

    sigma_w2 = _root(growth, phi.name, num_layers)
    other = find_initializer("instead_of", instead_of)
    return Recommendation(
        keras.initializers.VarianceScaling(sigma_w2, "fan_in", "truncated_normal"),
        sigma_w2,
        profile([n * initial_variance(other, (n, m)) for n, m in shapes]),
        profile([sigma_w2] * (num_layers + 1)),
        phi.name,
        str(instead_of) if isinstance(instead_of, str) else type(other).__name__,
    )


def _root(growth: Any, name: str, num_layers: int) -> float:
    """Return the smallest σ_w² at which growth(ln σ_w²) rises through 0."""
    grid = np.log(np.geomspace(1e-3, 1e4, 57))
    values = np.array([growth(x) for x in grid])
    for x, following, value, next_value in zip(grid, grid[1:], values, values[1:], strict=False):
        if value < 0 <= next_value:
            low = x if np.isfinite(value) else following - 1e-3
            return float(np.exp(brentq(growth, low, following, xtol=1e-13)))
    raise ValueError(
        f"activation must have a variance that keeps errors level, received {name!r}: with "
        f"{num_layers} hidden layers errors grow or shrink at every σ_w² from 1e-3 to 1e4"
    )

"""Saturation: the entries at which an activation is flat and passes no gradient."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from kgrad.measure.backends.current import backend

Activation = Callable[[Any], Any]

# The function is flat where its slope is less than this share of the largest slope.
_FLAT = 0.01
# Points at which the largest slope is searched: dense around 0, and far out. Their number is a
# prime, so that no two axes of a tensor filled with them are in step.
_MAGNITUDES = np.concatenate([np.geomspace(1e-6, 1e4, 500), np.linspace(0.01, 10, 500)])
_POINTS = np.sort(np.concatenate([-_MAGNITUDES, _MAGNITUDES]))[1:].astype(np.float32)
# A slope that doubles between this point and the last one grows without bound.
_FAR = 1e3
# Powers of two, which do not change the digits of a slope.
_WEIGHTS = np.random.default_rng(0).integers(1, 3, len(_POINTS)).astype(np.float32)


def count_saturated(f: Activation, z: Sequence[Any]) -> Any:
    """Count the entries of each z with |f'(z)| < 0.01 max |f'| over the real line.

    The slopes are the factors of the backward pass, in the dtype of z. The maximum is searched at
    1,999 points or more between -10,000 and 10,000.

    Args:
        f: an activation function that consists of operations of the backend.
        z: its inputs, tensors of one shape, (samples, ...). More than one only if f depends on
            nothing but its argument.

    Returns:
        int32, one count for each z. -1 if f is not elementwise (softmax), if its slope is 0
        everywhere or grows without bound (exponential), or if z holds a NaN.
    """
    if tuple(f(z[0]).shape) != tuple(z[0].shape):
        return ops.full((len(z),), -1, "int32")
    largest = _largest_slope(f, z[0])
    # Along the samples, so that f sees the shape that it knows.
    joined = ops.concatenate(z) if len(z) > 1 else z[0]
    slopes = ops.reshape(_slopes(f, joined), (len(z), -1))
    entries = ops.reshape(joined, (len(z), -1))
    is_flat = ops.abs(slopes) < _FLAT * largest
    is_unknown = ops.any(ops.isnan(entries) | ops.isnan(slopes), axis=1) | ops.isnan(largest)
    return ops.where(is_unknown, -1, ops.sum(ops.cast(is_flat, "int32"), axis=1))


def _largest_slope(f: Activation, z: Any) -> Any:
    """Return the largest |f'|, a scalar; NaN if there is none or f is not elementwise."""
    points, weights = (_spread(values, z) for values in (_POINTS, _WEIGHTS))
    slopes = _slopes(f, points)
    # Only if f is elementwise, the gradient of Σ w f(z) is w f'(z).
    excess = ops.abs(_slopes(f, points, weights) - weights * slopes)
    # A formula may fail far out, for example one with exp(z): such slopes do not count.
    slopes = ops.where(ops.isnan(slopes), ops.zeros_like(slopes), ops.abs(slopes))
    largest = ops.max(slopes)
    near = ops.max(ops.where(ops.abs(points) < _FAR, slopes, ops.zeros_like(slopes)))
    exists = ops.isfinite(largest) & (largest < 2 * near)  # false if all slopes are 0
    is_elementwise = ops.logical_not(ops.any(excess > 1e-3 * largest))
    return ops.where(exists & is_elementwise, largest, np.nan * ops.ones_like(largest))


def _spread(values: np.ndarray, z: Any) -> Any:
    """Fill samples of the shape of z's with the values repeatedly, each at least once."""
    # f may have a parameter for each position in a sample, as PReLU has.
    places = ops.shape(z)[1:]
    size = math.prod(places)  # a tensor where TensorFlow does not know the shape
    rows = -(-len(values) // (max(size, 1) if isinstance(size, int) else ops.maximum(size, 1)))
    entries = ops.take(ops.convert_to_tensor(values), ops.arange(rows * size) % len(values))
    return ops.cast(ops.reshape(entries, (rows, *places)), z.dtype)


def _slopes(f: Activation, z: Any, weights: Any = 1) -> Any:
    """Return the gradient of Σ w f(z) with respect to z."""
    _, [[slopes]] = backend.intermediate_gradients(
        lambda point: ([ops.sum(weights * f(point(z)))], ())
    )
    return slopes

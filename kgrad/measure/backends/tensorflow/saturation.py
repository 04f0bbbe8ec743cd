"""Saturation: the share of inputs at which an activation is flat and passes no gradient."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

Activation = Callable[[tf.Tensor], tf.Tensor]

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


def saturated_share(f: Activation, z: tf.Tensor) -> tf.Tensor:
    """Compute the share of the entries of z with |f'(z)| < 0.01 max |f'| over the real line.

    The slopes are the factors of the backward pass, in the dtype of z. The maximum is searched at
    1,999 points or more between -10,000 and 10,000.

    Args:
        f: an activation function that consists of graph operations.
        z: its input, (samples, ...).

    Returns:
        float64 scalar. NaN if f is not elementwise (softmax), if its slope is 0 everywhere or grows
        without bound (exponential), or if z holds a NaN.
    """
    nan = tf.constant(np.nan, tf.float64)
    if f(z).shape.as_list() != z.shape.as_list():
        return nan
    largest = _largest_slope(f, z)
    slopes = _slopes(f, z)
    is_flat = tf.cast(tf.abs(slopes) < _FLAT * largest, tf.float64)
    is_unknown = tf.math.is_nan(z) | tf.math.is_nan(slopes) | tf.math.is_nan(largest)
    return tf.reduce_mean(tf.where(is_unknown, nan, is_flat))


def _largest_slope(f: Activation, z: tf.Tensor) -> tf.Tensor:
    """Return the largest |f'|, a scalar; NaN if there is none or f is not elementwise."""
    points, weights = (_spread(values, z) for values in (_POINTS, _WEIGHTS))
    slopes = _slopes(f, points)
    # Only if f is elementwise, the gradient of Σ w f(z) is w f'(z).
    excess = tf.abs(_slopes(f, points, weights) - weights * slopes)
    # A formula may fail far out, for example one with exp(z): such slopes do not count.
    slopes = tf.where(tf.math.is_nan(slopes), tf.zeros_like(slopes), tf.abs(slopes))
    largest = tf.reduce_max(slopes)
    near = tf.reduce_max(tf.where(tf.abs(points) < _FAR, slopes, tf.zeros_like(slopes)))
    exists = tf.math.is_finite(largest) & (largest < 2 * near)  # false if all slopes are 0
    is_elementwise = ~tf.reduce_any(excess > 1e-3 * largest)
    return tf.where(exists & is_elementwise, largest, tf.constant(np.nan, z.dtype))


def _spread(values: np.ndarray, z: tf.Tensor) -> tf.Tensor:
    """Fill samples of the shape of z's with the values repeatedly, each at least once."""
    # f may have a parameter for each position in a sample, as PReLU has.
    places = tf.shape(z)[1:]
    size = tf.maximum(tf.reduce_prod(places), 1)
    rows = -(-len(values) // size)
    entries = tf.gather(tf.constant(values, z.dtype), tf.range(rows * size) % len(values))
    samples = tf.reshape(entries, tf.concat([[rows], places], 0))
    samples.set_shape([None, *z.shape[1:]])
    return samples


def _slopes(f: Activation, z: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Return the gradient of Σ w f(z) with respect to z; w is 1 unless given."""
    with tf.GradientTape() as tape:
        tape.watch(z)
        a = f(z)
    return tape.gradient(a, z, weights, "zero")

"""Counts made in a compiled step: of entries by magnitude, and of steps in which something held."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from kgrad.records.distributions import BINS


class ExponentCounts:
    """Counts a gradient's entries by their float32 exponent: a histogram of log10 |g|.

    The exponent is eight bits of the number itself: no logarithm, no search among edges. Of a large
    gradient every n-th entry counts, at most `SAMPLE` of them.

    Args:
        shapes: shape of each weight.
    """

    SAMPLE = 2048

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._strides = [_stride(shape, self.SAMPLE) for shape in shapes]
        sizes = [-(-math.prod(s) // k) for s, k in zip(shapes, self._strides, strict=True)]
        self._offsets = np.repeat(np.arange(len(shapes), dtype=np.int32) * BINS, sizes)
        self._counts = variable_per_replica(tf.zeros(len(shapes) * BINS, tf.int64))

    def update(self, gradients: Sequence[tf.Tensor]) -> None:
        """Count the entries of one step's gradients."""
        entries = [tf.reshape(g, [-1])[::k] for g, k in zip(gradients, self._strides, strict=True)]
        bits = tf.bitcast(tf.concat(entries, 0), tf.int32)
        places = tf.bitwise.bitwise_and(tf.bitwise.right_shift(bits, 23), 255) + self._offsets
        # Not tf.math.bincount, which XLA cannot compile.
        counts = tf.raw_ops.DenseBincount(
            input=places, size=self._counts.shape[0], weights=tf.zeros([0]), binary_output=False
        )
        self._counts.assign_add(tf.cast(counts, tf.int64))

    def counts(self) -> np.ndarray:
        """Entries in each bin since the reset: int64 (weights, 256)."""
        return self._counts.numpy().reshape(-1, BINS)

    def reset(self) -> None:
        """Begin a new record."""
        self._counts.assign(tf.zeros_like(self._counts))


class StepCounts:
    """In how many steps of a record something held, for each weight and each layer.

    Args:
        layer_of: place of each weight's layer: (weights,).
    """

    def __init__(self, layer_of: np.ndarray) -> None:
        self._layer_of, self._layers = layer_of, int(layer_of.max()) + 1
        self._counts = variable_per_replica(tf.zeros(len(layer_of) + self._layers, tf.int64))
        self._first = variable_per_replica(tf.zeros(len(layer_of), tf.int64))

    def add(self, held: tf.Tensor, step: tf.Tensor) -> None:
        """Count a step, numbered from 1, in which something held: bool (weights,)."""
        here = tf.cast(held, tf.int64)
        # A layer counts a step once, whichever of its weights it held for.
        by_layer = tf.math.unsorted_segment_max(here, self._layer_of, self._layers)
        self._counts.assign_add(tf.concat([here, by_layer], 0))
        self._first.assign(tf.where((self._first == 0) & held, step, self._first))

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps since the reset, (weights,) and (layers,); the first, 0 if none, (weights,)."""
        by_weight, by_layer = np.split(self._counts.numpy(), [len(self._layer_of)])
        return by_weight, by_layer, self._first.numpy()

    def reset(self) -> None:
        """Begin a new record."""
        self._counts.assign(tf.zeros_like(self._counts))
        self._first.assign(tf.zeros_like(self._first))


def variable_per_replica(initial: tf.Tensor) -> tf.Variable:
    """A variable to fold into, also under a distribution strategy.

    Every replica folds the same, reduced gradients into a copy of its own: any of them will do.
    """
    return tf.Variable(
        initial,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _stride(shape: tuple[int, ...], sample: int) -> int:
    """The smallest step through a flattened array that meets every row and every column."""
    stride = max(1, -(-math.prod(shape) // sample))
    while math.gcd(stride, math.prod(shape)) > 1:
        stride += 1
    return stride

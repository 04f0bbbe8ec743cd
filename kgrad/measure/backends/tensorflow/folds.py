"""Folds the gradients of a record inside the compiled steps: `Folds`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.backends.tensorflow.accumulators import (
    Accumulator,
    StepTotals,
    Way,
    variable_per_replica,
)
from kgrad.records.distributions import BINS
from kgrad.records.statistics import GradientStatistic, select


class Folds:
    """Everything about the gradients of a record that is computed in the steps themselves.

    Args:
        variables: the variables whose gradients are measured.
        layer_of: position of each variable's layer, (weights,).
        statistics: the statistics to fold.
        clipped: whether to measure the gradients after clipping, too.
        distributions: whether to count the entries of each gradient by magnitude.
        way: how to fold gradients, see `cheapest_way`.

    Attributes:
        can_skip: whether the optimizer skips steps whose gradient is not finite: `attempt` then
            comes before each `update`.
    """

    def __init__(
        self,
        variables: Sequence[keras.Variable],
        layer_of: np.ndarray,
        statistics: Sequence[GradientStatistic],
        *,
        clipped: bool,
        distributions: bool,
        way: Way = StepTotals,
    ) -> None:
        shapes = [tuple(variable.shape) for variable in variables]
        self.can_skip = False
        self._variables = variables
        self._accumulator: Accumulator = way(shapes, statistics)
        self._clipped: Accumulator | None = way(shapes, select(())) if clipped else None
        self._exponents = ExponentCounts(shapes) if distributions else None
        # Steps since the reset: all; those folded, which leaves out skipped ones; those skipped.
        self._steps = variable_per_replica(tf.zeros(3, tf.int64))
        self._nonfinite = StepCounts(layer_of)
        self._clips = StepCounts(layer_of) if clipped else None

    def update(
        self, variables: Sequence[Any], gradients: Sequence[Any], clipped: Sequence[Any]
    ) -> None:
        """Fold in the gradients of one step; graph operations only, for use in a `tf.function`.

        Args:
            variables: the variables that the step updates.
            gradients: one per variable: a tensor of its shape, `IndexedSlices`, or None if the loss
                does not depend on the variable.
            clipped: the same gradients after clipping.
        """
        dense = self._dense(variables, gradients)
        finite = self._accumulator.update(dense)
        # A step that could have been skipped was counted by `attempt`.
        counted = [0, 1, 0] if self.can_skip else [1, 1, 0]
        # If the data end during a call, operations that do not depend on them run all the same.
        with tf.control_dependencies([finite]):
            self._steps.assign_add(counted)
        if not self.can_skip:
            by_weight = self._accumulator.by_weight
            _count_if(
                ~tf.reduce_all(finite), lambda: self._nonfinite.add(~by_weight(finite), self._step)
            )
        if self._exponents is not None:
            self._exponents.update(dense)
        if self._clipped is not None and self._clips is not None:
            after = self._dense(variables, clipped)
            self._clipped.update(after)
            # A NaN differs from itself: an entry that was NaN before was not clipped.
            changed = [
                tf.reduce_any((a != g) & (g == g)) for a, g in zip(after, dense, strict=True)
            ]
            self._clips.add(tf.stack(changed), self._step)

    def attempt(self, variables: Sequence[Any], gradients: Sequence[Any]) -> None:
        """Count a step that its optimizer skips if a gradient is not finite.

        `update` follows if it is not skipped.

        Args:
            variables: the variables that the step would update.
            gradients: one per variable, in any scale: only whether they are finite matters.
        """
        # An overflow in a weight that is not measured skips the step, too.
        present = [g for g in gradients if g is not None]
        all_finite = tf.reduce_all([_is_finite(g) for g in present])
        finite = tf.stack([_is_finite(g) for g in self._dense(variables, gradients)])
        self.can_skip = True
        with tf.control_dependencies([finite]):
            self._steps.assign_add([1, 0, 0])

        def skipped() -> None:
            self._steps.assign_add([0, 0, 1])
            self._nonfinite.add(~finite, self._step)

        _count_if(~all_finite, skipped)

    def steps(self) -> tuple[int, int, int]:
        """Return the number of steps since the reset: all, folded, and skipped ones."""
        attempted, folded, skipped = (int(count) for count in self._steps.numpy())
        return attempted, folded, skipped

    def totals(self, steps: int) -> dict[str, np.ndarray]:
        """Return the folds over the `steps` steps since the reset: statistic → (weights,)."""
        return self._accumulator.totals(steps)

    def clipped_totals(self, steps: int) -> dict[str, np.ndarray] | None:
        """Return what `totals` returns for the gradients after clipping, if they are measured."""
        return None if self._clipped is None else self._clipped.totals(steps)

    def nonfinite_steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the counts of steps with a NaN or an infinity, as `StepCounts.read` does."""
        return self._nonfinite.read()

    def clipped_steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Return the counts of steps in which clipping acted, if it is measured."""
        return None if self._clips is None else self._clips.read()

    def exponent_counts(self) -> np.ndarray | None:
        """Return the number of entries per bin, int64 (weights, 256), if they are counted."""
        return None if self._exponents is None else self._exponents.counts()

    def reset(self) -> None:
        """Start a new record."""
        self._steps.assign(tf.zeros_like(self._steps))
        for part in (
            self._accumulator,
            self._clipped,
            self._exponents,
            self._nonfinite,
            self._clips,
        ):
            if part is not None:
                part.reset()

    @property
    def _step(self) -> tf.Tensor:
        return self._steps[0]

    def _dense(self, variables: Sequence[Any], gradients: Sequence[Any]) -> list[tf.Tensor]:
        """Return the gradient of each measured variable as float32, zeros if there is none."""
        by_id = {id(v): g for v, g in zip(variables, gradients, strict=True)}
        # A user's own loop may pass the optimizer TensorFlow's variables instead of Keras's.
        found = [by_id.get(id(v), by_id.get(id(v.value))) for v in self._variables]
        return [_dense(g, v) for g, v in zip(found, self._variables, strict=True)]


class ExponentCounts:
    """Counts a gradient's entries by their float32 exponent: a histogram of log10 |g|.

    The exponent is eight bits of the number itself: neither a logarithm nor a search among bin
    edges is needed. In a large gradient only every n-th entry is counted, at most `SAMPLE` of them.

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
        """Return the number of entries per bin since the reset: int64 (weights, 256)."""
        return self._counts.numpy().reshape(-1, BINS)

    def reset(self) -> None:
        """Start a new record."""
        self._counts.assign(tf.zeros_like(self._counts))


class StepCounts:
    """Counts the steps of a record in which a condition holds, per weight and per layer.

    Args:
        layer_of: position of each weight's layer, (weights,).
    """

    def __init__(self, layer_of: np.ndarray) -> None:
        self._layer_of, self._layers = layer_of, int(layer_of.max()) + 1
        self._counts = variable_per_replica(tf.zeros(len(layer_of) + self._layers, tf.int64))
        self._first = variable_per_replica(tf.zeros(len(layer_of), tf.int64))

    def add(self, held: tf.Tensor, step: tf.Tensor) -> None:
        """Count a step.

        Args:
            held: for which weights the condition held, bool (weights,).
            step: number of the step, from 1.
        """
        here = tf.cast(held, tf.int64)
        # A layer counts a step once, even if the condition held for several of its weights.
        by_layer = tf.math.unsorted_segment_max(here, self._layer_of, self._layers)
        self._counts.assign_add(tf.concat([here, by_layer], 0))
        self._first.assign(tf.where((self._first == 0) & held, step, self._first))

    def read(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the numbers of steps since the reset, (weights,) and (layers,).

        The third array, (weights,), is the number of the first such step, 0 if there is none.
        """
        by_weight, by_layer = np.split(self._counts.numpy(), [len(self._layer_of)])
        return by_weight, by_layer, self._first.numpy()

    def reset(self) -> None:
        """Start a new record."""
        self._counts.assign(tf.zeros_like(self._counts))
        self._first.assign(tf.zeros_like(self._first))


def _count_if(condition: tf.Tensor, count: Callable[[], None]) -> None:
    """Count only in the steps where a condition holds; the other steps must not pay for it."""

    def counted() -> tf.Tensor:
        count()
        return tf.constant(True)

    tf.cond(condition, counted, lambda: tf.constant(False))


def _is_finite(gradient: Any) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(gradient)))


def _dense(gradient: Any, variable: keras.Variable) -> tf.Tensor:
    if gradient is None:
        return tf.zeros(variable.shape)
    # Rows of an embedding that occur twice in IndexedSlices must be added before they are squared.
    return tf.cast(tf.convert_to_tensor(gradient), tf.float32)


def _stride(shape: tuple[int, ...], sample: int) -> int:
    """Return the smallest step through a flattened array that meets every row and column."""
    stride = max(1, -(-math.prod(shape) // sample))
    while math.gcd(stride, math.prod(shape)) > 1:
        stride += 1
    return stride

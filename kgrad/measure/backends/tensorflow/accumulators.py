"""Two ways to fold gradients into totals inside a compiled step, with the same result.

Which way is cheaper depends on the compiler. Measured on two cores, ten dense layers of 64 and of
256 units (see docs/benchmarks.md):

- TensorFlow's own executor has a cost per operation and vectorizes reductions. `StepTotals`
  therefore reduces every gradient in its step, small gradients together.
- XLA on a CPU has nearly no cost per operation but does not vectorize reductions of floats (it must
  not reorder a sum). `EntryTotals` therefore only adds, entry by entry, into a buffer of the
  gradient's shape, and reduces that buffer once per record.

The squares of numbers above 1e19 or below 1e-19 leave the range of float32. Exploding and vanishing
gradients have such entries. `EntryTotals` therefore scales a gradient to about 1 before it squares
it. `StepTotals` does so for large gradients whose squares would be lost, and squares the others in
float64. Sums of |g| are not scaled: above 1e34, near the end of float32's range, they may become
infinite.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kgrad.records.statistics import L2_NORM, MAX_ABS, MEAN_ABS, GradientStatistic

# Gradients with fewer entries are small and are reduced together: one operation for all biases.
_SMALL = 1024
# Gradients with at least this many entries are large: a pass in float64 would cost more than a
# check whether float32 lost a square.
_LARGE = 16384


class Accumulator(Protocol):
    """The interface that both ways have."""

    def update(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Fold in one step's gradients and return which of them are finite, bool (weights,).

        The result is in the accumulator's own order; `by_weight` puts it into that of the weights.
        """

    def by_weight(self, values: tf.Tensor) -> tf.Tensor:
        """Put the result of `update` into the order of the weights."""

    def totals(self, steps: int) -> dict[str, np.ndarray]:
        """Return the folds over the `steps` steps since the reset: float64 (weights,) each."""

    def reset(self) -> None:
        """Start a new record."""


# Makes an accumulator from the shape of each weight and the statistics.
Way = Callable[[Sequence[tuple[int, ...]], Sequence[GradientStatistic]], Accumulator]


def cheapest_way(jit_compile: bool, optimizer: keras.optimizers.Optimizer | None = None) -> Way:
    """Choose the accumulator that costs least.

    Args:
        jit_compile: whether XLA compiles the steps.
        optimizer: a built optimizer if many steps are compiled into one function, otherwise None.

    Returns:
        A function that makes the accumulator: `StepTotals`, or `EntryTotals` for XLA on a CPU.
    """
    if not jit_compile or tf.config.list_logical_devices("GPU"):
        return StepTotals
    has_slots = optimizer is None or any(len(variable.shape) for variable in optimizer.variables)
    return functools.partial(EntryTotals, keep=not has_slots)


class StepTotals:
    """Totals per weight: each step reduces its gradients before it adds them.

    Args:
        shapes: shape of each weight.
        statistics: the statistics to fold; `MEAN_ABS` and `L2_NORM` are the first two.
    """

    def __init__(
        self, shapes: Sequence[tuple[int, ...]], statistics: Sequence[GradientStatistic]
    ) -> None:
        sizes = np.array([math.prod(shape) for shape in shapes])
        self._statistics = statistics
        self._names = [statistic.name for statistic in statistics]
        self._small = np.flatnonzero(sizes < _SMALL).tolist()
        self._medium = np.flatnonzero((sizes >= _SMALL) & (sizes < _LARGE)).tolist()
        self._large = np.flatnonzero(sizes >= _LARGE).tolist()
        # Position of weight i in the order of `update`: the small ones, the medium, the large.
        self._position = np.argsort(self._small + self._medium + self._large)
        self._segments = np.repeat(np.arange(len(self._small)), sizes[self._small])
        self._large_sizes = sizes[self._large].astype(np.float32)
        self._totals = variable_per_replica(tf.zeros([len(statistics), len(sizes)], tf.float64))

    def update(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Fold in one step's gradients and return which of them are finite, bool (weights,).

        The small gradients come first, then the medium, then the large; see `by_weight`.
        """
        groups = [
            fold([gradients[i] for i in chosen])
            for chosen, fold in (
                (self._small, self._fold_small),
                (self._medium, self._fold_medium),
                (self._large, self._fold_large),
            )
            if chosen
        ]
        by_statistic = [tf.concat(parts, 0) for parts in zip(*groups, strict=True)]
        folds = tf.stack(by_statistic)
        if all(s.fold == "sum" for s in self._statistics):
            self._totals.assign_add(folds)
        else:
            is_max = np.array([[s.fold == "max"] for s in self._statistics])
            larger = tf.maximum(self._totals, folds)
            self._totals.assign(tf.where(is_max, larger, self._totals + folds))
        return tf.math.is_finite(by_statistic[0])  # the sum of |g|

    def by_weight(self, values: tf.Tensor) -> tf.Tensor:
        """Put the result of `update` into the order of the weights."""
        return tf.gather(values, self._position)

    def totals(self, steps: int) -> dict[str, np.ndarray]:
        """Return the folds over the `steps` steps since the reset: float64 (weights,) each."""
        totals = self._totals.numpy()[:, self._position]
        return _with_nonfinite(dict(zip(self._names, totals, strict=True)))

    def reset(self) -> None:
        """Start a new record."""
        self._totals.assign(tf.zeros_like(self._totals))

    def _fold_small(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Fold the small gradients, concatenated: per statistic one float64 (small weights,)."""
        entries = tf.cast(tf.concat([tf.reshape(g, [-1]) for g in gradients], 0), tf.float64)
        # XLA lacks segment_sum, the variant for sorted segments.
        folds = {"sum": tf.math.unsorted_segment_sum, "max": tf.math.unsorted_segment_max}
        return [
            folds[s.fold](s.entry(ops, entries), self._segments, len(gradients))
            for s in self._statistics
        ]

    def _fold_medium(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Fold each gradient on its own: per statistic one float64 (medium weights,)."""
        wide = [tf.cast(g, tf.float64) for g in gradients]
        return [_fold_each(s, wide) for s in self._statistics]

    def _fold_large(self, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """Fold each in float32 unless squares are lost: per statistic float64 (large weights,)."""
        folds = {s: _fold_each(s, gradients) for s in self._statistics}
        abs_sum, squares = folds[MEAN_ABS], folds[L2_NORM]
        # If the mean square is above 1e-30, squares below float32's 1e-38 do not matter.
        in_range = (squares >= 1e-30 * self._large_sizes) & (squares <= 2e38) | (abs_sum == 0)
        folds[L2_NORM] = tf.cond(
            tf.reduce_all(in_range),
            lambda: tf.cast(squares, tf.float64),
            lambda: self._scaled_squares(gradients, abs_sum),
        )
        return [tf.cast(folds[s], tf.float64) for s in self._statistics]

    def _scaled_squares(self, gradients: list[tf.Tensor], abs_sum: tf.Tensor) -> tf.Tensor:
        """Sum squares of any magnitude, which takes another pass over the gradients."""
        # The scale at which the mean |g| is 1; 0 if every entry is 0.
        scale = tf.minimum(tf.math.divide_no_nan(self._large_sizes, abs_sum), 1e30)
        scaled = [g * k for g, k in zip(gradients, tf.unstack(scale), strict=True)]
        squares = tf.cast(_fold_each(L2_NORM, scaled), tf.float64)
        return tf.math.divide_no_nan(squares, tf.square(tf.cast(scale, tf.float64)))


class EntryTotals:
    """Totals per entry of the gradients, reduced over the entries when they are read.

    A gradient is multiplied by its weight's scale before it is squared. The scale is a power of two
    that is set at each reading: `l2_norm` is right as long as a weight's gradient grows or shrinks
    less than 10^18-fold between two readings. If squares are lost all the same, Σ_i (Σ_t |g_ti|)²
    replaces their sum: an upper bound, nearly equal if the gradient of one step is much larger than
    all others.

    Args:
        shapes: shape of each weight.
        statistics: the statistics to fold; `MEAN_ABS` and `L2_NORM` are the first two.
        keep: whether to copy the medium and large gradients into variables, so that their buffers
            live until the step ends. This saves time if the optimizer has no slots (plain SGD): XLA
            would reuse a gradient's buffer as soon as it is folded, and a step of 10×64 would take
            86 µs instead of 68.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        statistics: Sequence[GradientStatistic],
        *,
        keep: bool = False,
    ) -> None:
        self._statistics = statistics
        self._sums = [s for s in statistics if s.fold == "sum"]
        self._maxima = [s for s in statistics if s.fold == "max"]
        self._sizes = np.array([math.prod(shape) for shape in shapes])
        self._scale = variable_per_replica(tf.ones(len(shapes)))
        # One buffer per weight and kind of fold, (statistics, *shape): one loop updates it.
        self._sum_entries = [variable_per_replica(tf.zeros((len(self._sums), *s))) for s in shapes]
        self._max_entries = [
            variable_per_replica(tf.zeros((len(self._maxima), *s))) for s in shapes
        ]
        self._kept = {
            i: variable_per_replica(tf.zeros(shape))
            for i, shape in enumerate(shapes)
            if keep and math.prod(shape) >= _SMALL
        }
        self._totals = {s.name: np.zeros(len(shapes)) for s in statistics}
        self._steps_read = 0
        # Traced once, here: TensorFlow counts the traces of a method over all instances and warns
        # if there are many.
        self._read = tf.function(self._fold_and_empty).get_concrete_function()

    def update(self, gradients: Sequence[tf.Tensor]) -> tf.Tensor:
        """Fold in one step's gradients and return which of them are finite, bool (weights,)."""
        scales = tf.unstack(self._scale)
        for i, kept in self._kept.items():
            kept.assign(gradients[i])
        for i, (gradient, scale) in enumerate(zip(gradients, scales, strict=True)):
            scaled = gradient * scale
            self._sum_entries[i].assign_add(
                tf.stack([s.entry(ops, scaled if s is L2_NORM else gradient) for s in self._sums])
            )
            if self._maxima:
                entries = tf.stack([s.entry(ops, gradient) for s in self._maxima])
                self._max_entries[i].assign(tf.maximum(self._max_entries[i], entries))
        return tf.reduce_all(tf.math.is_finite(_column_means(gradients)), axis=1)

    def by_weight(self, values: tf.Tensor) -> tf.Tensor:
        """Return the values: `update` returns them in the order of the weights."""
        return values

    def totals(self, steps: int) -> dict[str, np.ndarray]:
        """Return the folds over the `steps` steps since the reset: float64 (weights,) each."""
        if steps > self._steps_read:
            self._fold_in(one_step=steps - self._steps_read == 1)
            self._steps_read = steps
        return _with_nonfinite(self._totals)

    def reset(self) -> None:
        """Start a new record; only `totals` empties the buffers, so it must have read all steps."""
        self._totals = {name: np.zeros_like(total) for name, total in self._totals.items()}
        self._steps_read = 0

    def _fold_in(self, one_step: bool) -> None:
        """Add the buffers to the totals, empty them, and set the scale accordingly.

        Args:
            one_step: whether the buffers hold a single step.
        """
        folds = {name: fold.numpy() for name, fold in self._read().items()}
        squares_of_abs = folds.pop("squares_of_abs")
        squares = folds[L2_NORM.name] / np.square(self._scale.numpy().astype(np.float64))
        # After one step the buffer holds |g| itself, whose squares in float64 are exact.
        lost = one_step | ~np.isfinite(squares) | (squares == 0)
        folds[L2_NORM.name] = np.where(lost, squares_of_abs, squares)
        for statistic in self._statistics:
            combine = np.add if statistic.fold == "sum" else np.maximum
            name = statistic.name
            self._totals[name] = combine(self._totals[name], folds[name])
        self._set_scale(folds[MEAN_ABS.name])

    def _fold_and_empty(self) -> dict[str, tf.Tensor]:
        """Fold each buffer over its entries and empty it: statistic → float64 (weights,)."""
        columns = []
        for sums, maxima in zip(self._sum_entries, self._max_entries, strict=True):
            entries = tf.cast(tf.reshape(sums, [len(self._sums), -1]), tf.float64)
            largest = tf.cast(tf.reshape(maxima, [len(self._maxima), -1]), tf.float64)
            squares_of_abs = 2.0 * tf.nn.l2_loss(entries[0])
            parts = [tf.reduce_sum(entries, 1), tf.reduce_max(largest, 1), [squares_of_abs]]
            columns.append(tf.concat(parts, 0))
            sums.assign(tf.zeros_like(sums))
            maxima.assign(tf.zeros_like(maxima))
        names = [s.name for s in self._sums + self._maxima] + ["squares_of_abs"]
        return dict(zip(names, tf.unstack(tf.stack(columns, axis=1)), strict=True))

    def _set_scale(self, abs_sum: np.ndarray) -> None:
        """Choose each weight's power of two, which brings Σ_t |g_ti|, averaged over i, near 1."""
        known = np.isfinite(abs_sum) & (abs_sum > 0)
        mean = np.where(known, abs_sum, 1.0) / np.maximum(self._sizes, 1)
        exponent = np.clip(-np.round(np.log2(mean)), -120, 120)
        self._scale.assign(np.where(known, np.exp2(exponent), self._scale).astype(np.float32))


def variable_per_replica(initial: tf.Tensor) -> tf.Variable:
    """Make a variable to fold into that also works under a distribution strategy.

    Every replica folds the same reduced gradients into its own copy, so that any copy can be read.
    """
    return tf.Variable(
        initial,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def _with_nonfinite(totals: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the totals with NaN or infinity where scaling or a maximum may have lost one.

    The sum of |g| always keeps it.
    """
    abs_sum = totals[MEAN_ABS.name]
    shown = dict(totals)
    shown[L2_NORM.name] = np.where(np.isfinite(abs_sum), totals[L2_NORM.name], abs_sum)
    if MAX_ABS.name in totals:
        shown[MAX_ABS.name] = np.where(np.isnan(abs_sum), np.nan, totals[MAX_ABS.name])
    return shown


def _fold_each(statistic: GradientStatistic, gradients: list[tf.Tensor]) -> tf.Tensor:
    """Fold each gradient on its own, in its dtype: (gradients,)."""
    if statistic is L2_NORM:  # l2_loss is half a sum of squares, in a single operation
        return 2.0 * tf.stack([tf.nn.l2_loss(g) for g in gradients])
    fold = tf.reduce_sum if statistic.fold == "sum" else tf.reduce_max
    return tf.stack([fold(statistic.entry(ops, g)) for g in gradients])


def _column_means(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return the mean of each column of each gradient: (weights, most columns), padded with zeros.

    A mean is finite exactly if all its entries are, because a mean of finite entries does not
    overflow. For a matrix product XLA calls a vectorized library; it does not vectorize reductions.
    """
    means = []
    for gradient in gradients:
        columns = gradient.shape[-1] if gradient.shape.rank else 1
        rows = math.prod(gradient.shape) // columns
        entries = tf.reshape(gradient, [rows, columns])
        means.append(entries if rows == 1 else tf.matmul(tf.fill([1, rows], 1 / rows), entries))
    widest = max(mean.shape[1] for mean in means)
    return tf.concat([tf.pad(m, [[0, 0], [0, widest - m.shape[1]]]) for m in means], 0)

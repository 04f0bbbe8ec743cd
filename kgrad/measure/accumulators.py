"""Two ways to fold gradients into totals inside a training step, with the same result.

Which way is cheaper depends on what runs the step. Measured on two cores, ten dense layers of 64
and of 256 units (see docs/benchmarks.md):

- TensorFlow's own executor and torch have a cost per operation and vectorize reductions.
  `StepTotals` therefore reduces every gradient in its step, small gradients together.
- XLA on a CPU has nearly no cost per operation but does not vectorize reductions of floats (it must
  not reorder a sum). `EntryTotals` therefore only adds, entry by entry, into a buffer of the
  gradient's shape, which is reduced once per record.

Everything is float32, the only type that all backends have. The squares of numbers above 1e19 or
below 1e-19 leave its range, and exploding and vanishing gradients have such entries. Both ways
therefore multiply a gradient by a power of two before they square it, where that is needed. Sums of
|g| are not scaled: above 1e34, near the end of float32's range, they may become infinite.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops

from kgrad.measure.backends.current import backend
from kgrad.records.statistics import L2_NORM, MEAN_ABS, GradientStatistic

Arrays = Mapping[str, Any]

# Gradients with fewer entries are small.
SMALL = 1024
# The powers of two by which gradients are multiplied before they are squared: as they are, tiny
# ones, huge ones.
_SCALES = (1.0, 2.0**80, 2.0**-80)


class Accumulator(Protocol):
    """The interface that both ways have.

    Attributes:
        initial: the arrays that it folds into, by name. All but `scale` begin at 0.
    """

    initial: dict[str, np.ndarray]

    def step(self, gradients: Sequence[Any]) -> tuple[dict[str, Any], Any]:
        """Prepare one step's gradients; in the step.

        Args:
            gradients: a float32 tensor for each weight.

        Returns:
            What `merge` needs of them, and which of them are finite, bool (weights,).
        """

    def merge(self, ops: Any, values: Arrays, step: Arrays) -> dict[str, Any]:
        """Return the arrays with a step folded in; `ops` is `keras.ops` or NumPy."""

    def take(self, values: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
        """Return the folds that the arrays hold, statistic → float64 (weights,).

        Args:
            values: the arrays after some steps from the initial values.
            steps: the number of these steps.
        """


# Makes an accumulator from the shape of each weight, in ascending order of size, and the
# statistics.
Way = Callable[[Sequence[tuple[int, ...]], Sequence[GradientStatistic]], Accumulator]


def cheapest_way(jit_compile: bool, optimizer: keras.optimizers.Optimizer | None = None) -> Way:
    """Choose the accumulator that costs least.

    Args:
        jit_compile: whether XLA compiles the steps.
        optimizer: a built optimizer if many steps are compiled into one function, otherwise None.

    Returns:
        A function that makes the accumulator: `StepTotals`, or `EntryTotals` for XLA on a CPU.
    """
    if not backend.xla_on_cpu(jit_compile):
        return StepTotals
    has_slots = optimizer is None or any(len(variable.shape) for variable in optimizer.variables)
    return functools.partial(EntryTotals, keep=not has_slots)


class StepTotals:
    """Totals per weight: each step reduces its gradients before it adds them.

    Squares are added up in three totals per weight, one for each of `_SCALES`. A step whose squares
    float32 cannot hold takes another pass over its gradients.

    Args:
        shapes: shape of each weight, in ascending order of size.
        statistics: the statistics to fold; `MEAN_ABS` and `L2_NORM` are the first two.
        together: gradients with fewer entries than this are reduced together: one operation for all
            biases.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        statistics: Sequence[GradientStatistic],
        *,
        together: int = SMALL,
    ) -> None:
        sizes = np.array([math.prod(shape) for shape in shapes])
        self._together = int(np.sum(sizes < together))
        self._segments = np.repeat(
            np.arange(self._together, dtype=np.int32), sizes[: self._together]
        )
        self._sizes = sizes.astype(np.float32)
        self._means = [s for s in statistics if s.fold == "sum" and s is not L2_NORM]
        self._maxima = [s for s in statistics if s.fold == "max"]
        # Means over the entries: sums of large numbers could leave float32's range.
        self.initial = {"sums": np.zeros((len(self._means) + len(_SCALES), len(sizes)), np.float32)}
        if self._maxima:
            self.initial["maxima"] = np.zeros((len(self._maxima), len(sizes)), np.float32)

    def step(self, gradients: Sequence[Any]) -> tuple[dict[str, Any], Any]:
        """Reduce one step's gradients; see `Accumulator.step`."""
        together = None
        if self._together:
            flat = [ops.reshape(g, (-1,)) for g in gradients[: self._together]]
            together = ops.concatenate(flat)
        alone = gradients[self._together :]

        def fold(statistic: GradientStatistic, scales: Any = None) -> Any:
            """Fold each gradient, multiplied by its scale: (weights,)."""
            parts = []
            if together is not None:
                entries = together
                if scales is not None:
                    entries = entries * ops.take(scales, self._segments)
                segment = ops.segment_sum if statistic.fold == "sum" else ops.segment_max
                mapped = statistic.entry(ops, entries)
                parts.append(segment(mapped, self._segments, num_segments=self._together))
            if alone:
                of_alone = [] if scales is None else ops.unstack(scales[self._together :])
                scaled = (
                    [g * k for g, k in zip(alone, of_alone, strict=True)] if of_alone else alone
                )
                parts.append(ops.stack([_fold_one(statistic, g) for g in scaled]))
            return ops.concatenate(parts) if len(parts) > 1 else parts[0]

        sums = {statistic: fold(statistic) for statistic in self._means}
        abs_sum, squares = sums[MEAN_ABS], fold(L2_NORM)
        finite = ops.isfinite(abs_sum)
        # If the mean square is above 1e-30, squares below float32's 1e-38 do not matter. The sum
        # over the steps of a reading stays in range if each is below 1e30.
        is_tiny = ops.less(squares, 1e-30 * self._sizes) & (abs_sum > 0) & finite
        is_huge = (squares > 1e30) & finite
        zeros = ops.zeros_like(squares)

        def rescaled() -> Any:
            scales = ops.where(is_tiny, _SCALES[1], ops.where(is_huge, _SCALES[2], _SCALES[0]))
            of_scaled = fold(L2_NORM, ops.cast(scales, "float32"))
            as_they_are = ops.where(is_tiny | is_huge, zeros, of_scaled)
            return ops.stack(
                [as_they_are, *(ops.where(mask, of_scaled, zeros) for mask in (is_tiny, is_huge))]
            )

        by_scale = ops.cond(
            ops.any(is_tiny | is_huge), rescaled, lambda: ops.stack([squares, zeros, zeros])
        )
        means = ops.divide(ops.stack(list(sums.values())), self._sizes)
        parts = {"sums": ops.concatenate([means, by_scale])}
        if self._maxima:
            parts["maxima"] = ops.stack([fold(statistic) for statistic in self._maxima])
        return parts, finite

    def merge(self, ops: Any, values: Arrays, step: Arrays) -> dict[str, Any]:
        """Return the arrays with a step folded in; see `Accumulator.merge`."""
        merged = {"sums": values["sums"] + step["sums"]}
        if self._maxima:
            merged["maxima"] = ops.maximum(values["maxima"], step["maxima"])
        return merged

    def take(self, values: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
        """Return the folds that the arrays hold; see `Accumulator.take`."""
        sums = values["sums"].astype(np.float64)
        means, by_scale = sums[: len(self._means)], sums[len(self._means) :]
        folds = {s.name: mean * self._sizes for s, mean in zip(self._means, means, strict=True)}
        folds[L2_NORM.name] = np.square(1 / np.array(_SCALES)) @ by_scale
        maxima = values.get("maxima", np.empty((0, len(self._sizes)))).astype(np.float64)
        return folds | {s.name: row for s, row in zip(self._maxima, maxima, strict=True)}


class EntryTotals:
    """Totals per entry of the gradients, reduced over the entries when they are read.

    A gradient is multiplied by its weight's scale before it is squared. The scale is a power of two
    that is set at each reading: `l2_norm` is right as long as a weight's gradient grows or shrinks
    less than 10^18-fold between two readings. If squares are lost all the same, Σ_i (Σ_t |g_ti|)²
    replaces their sum: an upper bound, nearly equal if the gradient of one step is much larger than
    all others.

    Args:
        shapes: shape of each weight, in ascending order of size.
        statistics: the statistics to fold; `MEAN_ABS` and `L2_NORM` are the first two.
        keep: whether to copy the larger gradients into arrays, so that their buffers live until the
            step ends. This saves time if the optimizer has no slots (plain SGD): XLA would reuse a
            gradient's buffer as soon as it is folded, and a step of 10×64 would take 86 µs instead
            of 68.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, ...]],
        statistics: Sequence[GradientStatistic],
        *,
        keep: bool = False,
    ) -> None:
        self._sums = [s for s in statistics if s.fold == "sum"]
        self._maxima = [s for s in statistics if s.fold == "max"]
        self._sizes = np.array([math.prod(shape) for shape in shapes])
        self.initial = {"scale": np.ones(len(shapes), np.float32)}
        for i, shape in enumerate(shapes):
            # One buffer per weight and kind of fold, (statistics, *shape): one loop updates it.
            self.initial[f"sums_{i}"] = np.zeros((len(self._sums), *shape), np.float32)
            if self._maxima:
                self.initial[f"maxima_{i}"] = np.zeros((len(self._maxima), *shape), np.float32)
            if keep and math.prod(shape) >= SMALL:
                self.initial[f"kept_{i}"] = np.zeros(shape, np.float32)

    def step(self, gradients: Sequence[Any]) -> tuple[dict[str, Any], Any]:
        """Pass on one step's gradients; see `Accumulator.step`."""
        finite = ops.all(ops.isfinite(_column_means(gradients)), axis=1)
        return {f"gradient_{i}": gradient for i, gradient in enumerate(gradients)}, finite

    def merge(self, ops: Any, values: Arrays, step: Arrays) -> dict[str, Any]:
        """Return the arrays with a step folded in; see `Accumulator.merge`."""
        merged = {"scale": values["scale"]}
        for i in range(len(self._sizes)):
            gradient = step[f"gradient_{i}"]
            scaled = gradient * values["scale"][i]
            entries = [s.entry(ops, scaled if s is L2_NORM else gradient) for s in self._sums]
            merged[f"sums_{i}"] = values[f"sums_{i}"] + ops.stack(entries)
            if self._maxima:
                entries = [s.entry(ops, gradient) for s in self._maxima]
                merged[f"maxima_{i}"] = ops.maximum(values[f"maxima_{i}"], ops.stack(entries))
            if f"kept_{i}" in self.initial:
                merged[f"kept_{i}"] = gradient
        return merged

    def take(self, values: Mapping[str, np.ndarray], steps: int) -> dict[str, np.ndarray]:
        """Return the folds that the arrays hold and set the scale; see `Accumulator.take`."""
        names = [s.name for s in self._sums + self._maxima]
        columns = []
        for i, scale in enumerate(values["scale"].astype(np.float64)):
            entries = values[f"sums_{i}"].reshape(len(self._sums), -1)
            folds = dict(zip(names, entries.sum(axis=1, dtype=np.float64).tolist(), strict=False))
            squares = folds[L2_NORM.name] / scale**2
            # After one step the buffer holds |g| itself, whose squares in float64 are exact.
            if steps == 1 or not np.isfinite(squares) or squares == 0:
                squares = float(np.einsum("i,i->", entries[0], entries[0], dtype=np.float64))
            folds[L2_NORM.name] = squares
            if self._maxima:
                largest = values[f"maxima_{i}"].reshape(len(self._maxima), -1).max(axis=1)
                folds |= {s.name: x for s, x in zip(self._maxima, largest.tolist(), strict=True)}
            columns.append([folds[name] for name in names])
        totals = dict(zip(names, np.array(columns, np.float64).T, strict=True))
        self._set_scale(totals[MEAN_ABS.name], values["scale"])
        return totals

    def _set_scale(self, abs_sum: np.ndarray, scale: np.ndarray) -> None:
        """Choose each weight's power of two, which brings Σ_t |g_ti|, averaged over i, near 1."""
        known = np.isfinite(abs_sum) & (abs_sum > 0)
        mean = np.where(known, abs_sum, 1.0) / np.maximum(self._sizes, 1)
        exponent = np.clip(-np.round(np.log2(mean)), -120, 120)
        self.initial["scale"] = np.where(known, np.exp2(exponent), scale).astype(np.float32)


def _fold_one(statistic: GradientStatistic, gradient: Any) -> Any:
    if statistic is L2_NORM:
        return backend.sum_of_squares(gradient)
    fold = ops.sum if statistic.fold == "sum" else ops.max
    return fold(statistic.entry(ops, gradient))


def _column_means(gradients: Sequence[Any]) -> Any:
    """Return the mean of each column of each gradient: (weights, most columns), padded with zeros.

    A mean is finite exactly if all its entries are, because a mean of finite entries does not
    overflow. For a matrix product XLA calls a vectorized library; it does not vectorize reductions.
    """
    means = []
    for gradient in gradients:
        shape = tuple(gradient.shape)
        columns = shape[-1] if shape else 1
        rows = math.prod(shape) // columns
        entries = ops.reshape(gradient, (rows, columns))
        ones = ops.full((1, rows), 1 / rows, dtype="float32")
        means.append(entries if rows == 1 else ops.matmul(ones, entries))
    widest = max(mean.shape[1] for mean in means)
    return ops.concatenate([ops.pad(m, [[0, 0], [0, widest - m.shape[1]]]) for m in means])

"""Folds the gradients of a record inside the training steps: `Folds`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kgrad.measure.accumulators import Accumulator, Way
from kgrad.measure.backends.current import backend
from kgrad.records.distributions import BINS
from kgrad.records.statistics import L2_NORM, MAX_ABS, MEAN_ABS, GradientStatistic, select


class Folds:
    """Everything about the gradients of a record that is computed in the steps themselves.

    The steps fold into arrays of float32 and int32, which the backend keeps. `drain` moves them to
    float64 and int64: it is needed at least every `STEPS_BETWEEN_READINGS` steps.

    Args:
        variables: the variables whose gradients are measured.
        layer_of: position of each variable's layer, (weights,).
        statistics: the statistics to fold.
        clipped: whether to measure the gradients after clipping, too.
        distributions: whether to count the entries of each gradient by magnitude.
        way: how to fold gradients, see `cheapest_way`.

    Attributes:
        totals: the arrays that the steps fold into.
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
        way: Way,
    ) -> None:
        sizes = np.array([math.prod(variable.shape) for variable in variables])
        # Inside, the weights are in ascending order of size.
        order = np.argsort(sizes, kind="stable")
        self._place = np.argsort(order)  # of each weight in that order
        self._variables = [variables[i] for i in order]
        shapes = [tuple(variable.shape) for variable in self._variables]
        self._sizes = sizes[order]
        self._statistics = statistics
        self._accumulator: Accumulator = way(shapes, statistics)
        self._clipped: Accumulator | None = way(shapes, select(())) if clipped else None
        self._exponents = _Exponents(shapes) if distributions else None
        self._in_layer = np.eye(int(layer_of.max()) + 1, dtype=np.float32)[layer_of[order]]
        self.can_skip = False
        self._totals: dict[str, np.ndarray] = {}
        self._clipped_totals: dict[str, np.ndarray] = {}
        self.totals = backend.Totals(self._initial())
        self._first = np.zeros(len(variables), np.int64)
        self.reset()

    def update(
        self,
        variables: Sequence[Any],
        gradients: Sequence[Any],
        clipped: Sequence[Any],
        made: Any = None,
    ) -> None:
        """Fold in the gradients of one step; in the step.

        Args:
            variables: the variables that the step updates.
            gradients: one per variable: a tensor of its shape, or None if the loss does not depend
                on the variable.
            clipped: the same gradients after clipping.
            made: scalar bool, whether the update stays; None for True.
        """
        contained, present = self._found(variables, gradients)
        dense = self._dense(variables, gradients)
        step, finite = self._accumulator.step(dense)
        # A step that could have been skipped was counted by `attempt`.
        bad = ops.zeros_like(finite) if self.can_skip else ops.logical_not(finite)
        held = [bad]
        if self._clipped is not None:
            after = self._dense(variables, clipped)
            of_clipped, _ = self._clipped.step(after)
            step |= {f"clipped_{name}": part for name, part in of_clipped.items()}
            held.append(ops.stack([_shrunk(*pair) for pair in zip(after, dense, strict=True)]))
        if self._exponents is not None:
            step["exponents"] = self._exponents.counts(dense)
        counted = [0, 1, 0] if self.can_skip else [1, 1, 0]
        step["bad"] = bad
        step["counts"] = self._counts(np.concatenate([counted, contained, present]), held)
        self.totals.fold(self._merge, step, made)

    def attempt(self, variables: Sequence[Any], gradients: Sequence[Any]) -> None:
        """Count a step that its optimizer skips if a gradient is not finite.

        `update` follows if it is not skipped.

        Args:
            variables: the variables that the step would update.
            gradients: one per variable, in any scale: only whether they are finite matters.
        """
        # An overflow in a weight that is not measured skips the step, too.
        present = [g for g in gradients if g is not None]
        all_finite = ops.all(ops.stack([ops.all(ops.isfinite(g)) for g in present]))
        dense = self._dense(variables, gradients)
        bad = ops.logical_not(ops.stack([ops.all(ops.isfinite(g)) for g in dense]))
        self.can_skip = True
        nothing = np.zeros(2 * len(dense), np.int32)
        held = [bad] if self._clipped is None else [bad, ops.zeros_like(bad)]
        counts = self._counts(np.concatenate([[1, 0, 0], nothing]), held)
        skipped = ops.cast(ops.logical_not(all_finite), "int32")
        counts = counts + ops.multiply(skipped, np.eye(1, counts.shape[0], 2, dtype=np.int32)[0])
        self.totals.fold(self._merge_counts, {"counts": counts, "bad": bad})

    def drain(self) -> None:
        """Move what the steps have folded to float64 and int64, and empty their arrays."""
        values = self.totals.take()
        counts = values["counts"].astype(np.int64)
        steps = int(counts[1])
        first = values["first"].astype(np.int64)
        self._first = np.where(
            (self._first == 0) & (first > 0), self._counted[0] + first, self._first
        )
        self._counted += counts
        # A weight that a step does not contain, or that has no gradient, is folded as zeros.
        weights = len(self._variables)
        folded_as_zeros = steps - counts[3 + weights : 3 + 2 * weights]
        if self._exponents is not None:
            self._exponent_counts += values["exponents"]
            self._exponent_counts[::BINS] -= folded_as_zeros * self._exponents.samples
        for accumulator, totals, prefix in self._parts():
            own = {name: values[prefix + name] for name in accumulator.initial}
            folds = accumulator.take(own, steps) if steps else {}
            for statistic in (s for s in self._statistics if s.name in folds):
                name, fold = statistic.name, folds[statistic.name]
                if statistic.fold == "max":
                    totals[name] = np.maximum(totals[name], fold)
                else:
                    of_zeros = folded_as_zeros * self._sizes * statistic.entry(np, np.zeros(()))
                    totals[name] = totals[name] + fold - of_zeros
        self._write_scales()

    def steps(self) -> tuple[int, int, int]:
        """Return the number of steps since the reset: all, folded, and skipped ones."""
        counts = self._counted[:3] + self.totals.read("counts")["counts"][:3]
        attempted, folded, skipped = (int(count) for count in counts)
        return attempted, folded, skipped

    def updates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of updates that contained each weight, int64 (weights,).

        The second array is the number of those in which its gradient was not None. This and the
        following methods tell what has been drained.
        """
        contained, present, *_ = self._split()
        return contained[self._place], present[self._place]

    def folded(self) -> dict[str, np.ndarray]:
        """Return the folds since the reset: statistic → (weights,)."""
        return self._shown(self._totals, self._statistics)

    def folded_clipped(self) -> dict[str, np.ndarray] | None:
        """Return what `folded` returns for the gradients after clipping, if they are measured."""
        return None if self._clipped is None else self._shown(self._clipped_totals, select(()))

    def nonfinite_steps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the numbers of steps with a NaN or an infinity: (weights,), (layers,), (weights,).

        The third array is the number of the first such step, 0 if there is none.
        """
        _, _, by_weight, by_layer, *_ = self._split()
        return by_weight[self._place], by_layer, self._first[self._place]

    def clipped_steps(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return the numbers of updates in which clipping acted: (weights,), (layers,)."""
        if self._clipped is None:
            return None
        *_, by_weight, by_layer = self._split()
        return by_weight[self._place], by_layer

    def exponent_counts(self) -> np.ndarray | None:
        """Return the number of entries per bin, int64 (weights, 256), if they are counted."""
        if self._exponents is None:
            return None
        return self._exponent_counts.reshape(-1, BINS)[self._place]

    def reset(self) -> None:
        """Start a new record."""
        self.totals.take()
        self._write_scales()
        initial = self._initial()
        self._counted = initial["counts"].astype(np.int64)
        self._first = initial["first"].astype(np.int64)
        weights = len(self._variables)
        self._totals = {s.name: np.zeros(weights) for s in self._statistics}
        self._clipped_totals = {s.name: np.zeros(weights) for s in select(())}
        if self._exponents is not None:
            self._exponent_counts = initial["exponents"].astype(np.int64)

    def _initial(self) -> dict[str, np.ndarray]:
        """Return the initial values of the arrays."""
        weights, layers = self._in_layer.shape
        conditions = 1 if self._clipped is None else 2
        # Steps: all; those folded, which leaves out skipped ones; those skipped. Weights: updates
        # that contain it, gradients that are there. Then per condition: weights and layers.
        counts = 3 + 2 * weights + conditions * (weights + layers)
        initial = {"counts": np.zeros(counts, np.int32), "first": np.zeros(weights, np.int32)}
        if self._exponents is not None:
            initial["exponents"] = np.zeros(weights * BINS, np.int32)
        for accumulator, _, prefix in self._parts():
            initial |= {prefix + name: array for name, array in accumulator.initial.items()}
        return initial

    def _write_scales(self) -> None:
        """Set what does not begin at 0."""
        for accumulator, _, prefix in self._parts():
            if "scale" in accumulator.initial:
                self.totals.write(**{prefix + "scale": accumulator.initial["scale"]})

    def _parts(self) -> list[tuple[Accumulator, dict[str, np.ndarray], str]]:
        parts = [(self._accumulator, self._totals, "")]
        if self._clipped is not None:
            parts.append((self._clipped, self._clipped_totals, "clipped_"))
        return parts

    def _counts(self, plain: np.ndarray, held: Sequence[Any]) -> Any:
        """Return what a step adds to the counts.

        Args:
            plain: its part that does not depend on the gradients.
            held: for each condition for which weights it held, bool (weights,).
        """
        parts = [ops.convert_to_tensor(plain.astype(np.int32))]
        for condition in held:
            here = ops.cast(condition, "float32")
            # A layer counts a step once, even if the condition held for several of its weights.
            by_layer = ops.matmul(here[None], self._in_layer)[0] > 0
            parts += [ops.cast(here, "int32"), ops.cast(by_layer, "int32")]
        return ops.concatenate(parts)

    def _merge(self, ops: Any, values: Mapping[str, Any], step: Mapping[str, Any]) -> dict:
        merged = self._merge_counts(ops, values, step)
        for accumulator, _, prefix in self._parts():
            size = len(prefix)
            own_values = {name: values[prefix + name] for name in accumulator.initial}
            own_step = {name[size:]: part for name, part in step.items() if name.startswith(prefix)}
            parts = accumulator.merge(ops, own_values, own_step)
            merged |= {prefix + name: value for name, value in parts.items()}
        if self._exponents is not None:
            merged["exponents"] = values["exponents"] + step["exponents"]
        return merged

    def _merge_counts(self, ops: Any, values: Mapping[str, Any], step: Mapping[str, Any]) -> dict:
        counts = values["counts"] + step["counts"]
        is_first = (values["first"] == 0) & step["bad"]
        return dict(values) | {
            "counts": counts,
            "first": ops.where(is_first, counts[0], values["first"]),
        }

    def _found(
        self, variables: Sequence[Any], gradients: Sequence[Any]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return which weights an update contains, and which have a gradient: int32 (weights,)."""
        by_id = {id(v): g for v, g in zip(variables, gradients, strict=True)}
        keys = [self._key(variable, by_id) for variable in self._variables]
        contained = [key in by_id for key in keys]
        present = [by_id.get(key) is not None for key in keys]
        return np.array(contained, np.int32), np.array(present, np.int32)

    def _dense(self, variables: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
        """Return the gradient of each measured variable as float32, zeros if there is none."""
        by_id = {id(v): g for v, g in zip(variables, gradients, strict=True)}
        found = [by_id.get(self._key(variable, by_id)) for variable in self._variables]
        return [
            ops.zeros(v.shape, "float32") if g is None else ops.cast(g, "float32")
            for g, v in zip(found, self._variables, strict=True)
        ]

    def _key(self, variable: keras.Variable, by_id: Mapping[int, Any]) -> int:
        # A user's own loop may pass the optimizer the backend's variables instead of Keras's.
        return id(variable) if id(variable) in by_id else id(variable._value)

    def _split(self) -> list[np.ndarray]:
        weights, layers = self._in_layer.shape
        sizes = [weights, weights] + [weights, layers] * (1 if self._clipped is None else 2)
        return np.split(self._counted[3:], np.cumsum(sizes)[:-1])

    def _shown(
        self, totals: Mapping[str, np.ndarray], statistics: Sequence[GradientStatistic]
    ) -> dict[str, np.ndarray]:
        """Return totals with NaN or infinity where scaling or a maximum may have lost one.

        The sum of |g| always keeps it.
        """
        abs_sum = totals[MEAN_ABS.name]
        shown = dict(totals)
        shown[L2_NORM.name] = np.where(np.isfinite(abs_sum), totals[L2_NORM.name], abs_sum)
        if MAX_ABS.name in totals:
            shown[MAX_ABS.name] = np.where(np.isnan(abs_sum), np.nan, totals[MAX_ABS.name])
        return {s.name: shown[s.name][self._place] for s in statistics}


class _Exponents:
    """Counts a gradient's entries by their float32 exponent: a histogram of log10 |g|.

    The exponent is eight bits of the number itself: neither a logarithm nor a search among bin
    edges is needed. In a large gradient only every n-th entry is counted, at most `SAMPLE` of them.

    Args:
        shapes: shape of each weight.

    Attributes:
        samples: number of entries of each weight that a step counts, (weights,).
    """

    SAMPLE = 2048

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self._strides = [_stride(shape, self.SAMPLE) for shape in shapes]
        pairs = zip(shapes, self._strides, strict=True)
        self.samples = np.array([-(-math.prod(shape) // stride) for shape, stride in pairs])
        self._offsets = np.repeat(np.arange(len(shapes), dtype=np.int32) * BINS, self.samples)
        self._bins = len(shapes) * BINS

    def counts(self, gradients: Sequence[Any]) -> Any:
        """Count the entries of one step's gradients: int32 (weights · 256,)."""
        entries = [
            ops.reshape(g, (-1,))[::k] for g, k in zip(gradients, self._strides, strict=True)
        ]
        places = ops.add(backend.exponents(ops.concatenate(entries)), self._offsets)
        return backend.count_places(places, self._bins)


def _stride(shape: tuple[int, ...], sample: int) -> int:
    """Return the smallest step through a flattened array that meets every row and column."""
    stride = max(1, -(-math.prod(shape) // sample))
    while math.gcd(stride, math.prod(shape)) > 1:
        stride += 1
    return stride


def _shrunk(after: Any, before: Any) -> Any:
    """Return whether clipping made an entry smaller, beyond rounding, or NaN: a scalar bool."""
    # Keras computes g · limit / max(norm, limit), which differs from g in the last bit.
    kept = ops.abs(after) >= (1 - 1e-6) * ops.abs(before)
    # An entry that was NaN before was not clipped.
    return ops.any(ops.logical_not(kept) & (before == before))

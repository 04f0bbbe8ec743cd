"""Measures the gradients of a training run: folds them in the compiled step, drains to a history.

`train_and_track_gradients` and `GradientTracker` call `Recorder.update` with the gradients of each
step, inside the compiled function, and `Recorder.record` between calls of it.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.backends.tensorflow.accumulators import Accumulator, StepTotals, Way
from kgrad.measure.backends.tensorflow.counters import (
    ExponentCounts,
    StepCounts,
    variable_per_replica,
)
from kgrad.measure.keras_models.weights import describe_weights
from kgrad.records.files import LineWriter
from kgrad.records.history import GradientHistory
from kgrad.records.statistics import L2_NORM, STATISTICS, Statistic, select


class Recorder:
    """Turns the gradients of training steps into the records of a `GradientHistory`.

    Args:
        model: a built Keras model.
        statistics: names of statistics beyond those that are always on.
        variables: the variables whose gradients are measured; by default all that are trained.
        clipped: whether to measure what clipping makes of the gradients.
        distributions: whether to count the entries of each gradient by magnitude.
        outputs: names of the layer outputs of which `record` will be given activations.
        way: how to fold gradients, see `accumulators.cheapest_way`.
        journal: file that each record is written to as it is made.
        metadata: what the history shall say about the run.

    Attributes:
        history: the records so far.
        variables: the variables whose gradients are measured.

    Raises:
        OSError: if the journal cannot be written.
        ValueError: if a statistic is unknown.
    """

    def __init__(
        self,
        model: keras.Model,
        statistics: Iterable[str] = (),
        *,
        variables: Sequence[keras.Variable] | None = None,
        clipped: bool = False,
        distributions: bool = False,
        outputs: Sequence[str] = (),
        way: Way = StepTotals,
        journal: str | os.PathLike[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._statistics = select(statistics)
        self.variables = list(model.trainable_variables if variables is None else variables)
        described = describe_weights(model)
        weights = [described[id(variable)] for variable in self.variables]
        folded = {s.name for s in self._statistics}
        names = [
            name
            for name, row in STATISTICS.items()
            if name in folded or (type(row) is Statistic and (row.recorded == "always" or clipped))
        ]
        self._columns = weights, names, tuple(outputs)
        shapes = [weight.shape for weight in weights]
        self._accumulator: Accumulator = way(shapes, self._statistics)
        self._clipped: Accumulator | None = way(shapes, select(())) if clipped else None
        self._exponents = ExponentCounts(shapes) if distributions else None
        layers = list(dict.fromkeys(weight.layer for weight in weights))
        self._layer_of = np.array([layers.index(weight.layer) for weight in weights])
        self._sizes = np.array([weight.size for weight in weights], dtype=np.float64)
        # Since the last record: steps; those folded, which leaves out skipped ones; those skipped.
        self._steps = variable_per_replica(tf.zeros(3, tf.int64))
        # Steps with a non-finite gradient and the first of them, by weight and then by layer.
        self._nonfinite = StepCounts(self._layer_of)
        self._clips = StepCounts(self._layer_of) if clipped else None
        self._can_skip = False
        self._journal: LineWriter | None = None
        self.begin(journal, metadata)

    def begin(
        self, journal: str | os.PathLike[str] | None, metadata: Mapping[str, Any] | None
    ) -> None:
        """Begin a new history, of a training that starts from the weights as they are."""
        weights, names, outputs = self._columns
        self.history = GradientHistory(weights, names, metadata, outputs=outputs)
        self.reread_weights()
        self._reset()
        self._journal_path = journal
        self._journal = None if journal is None else LineWriter(journal)
        try:
            self._write(self.history.header())
        except BaseException:
            self.close()
            raise

    def update(
        self, variables: Sequence[Any], gradients: Sequence[Any], clipped: Sequence[Any]
    ) -> None:
        """Fold in the gradients of one step; graph operations only, for use in a `tf.function`.

        Args:
            variables: the variables that the step updates.
            gradients: one a variable: a tensor of its shape, `IndexedSlices`, or None where the
                loss does not depend on it.
            clipped: what clipping left of them.
        """
        dense = self._dense(variables, gradients)
        finite = self._accumulator.update(dense)
        # A step that could have been skipped was counted by `attempt`.
        counted = [0, 1, 0] if self._can_skip else [1, 1, 0]
        # Where the data end in a call, what does not depend on them runs all the same.
        with tf.control_dependencies([finite]):
            self._steps.assign_add(counted)
        if not self._can_skip:
            by_weight = self._accumulator.by_weight
            self._count_if(
                ~tf.reduce_all(finite), lambda: self._nonfinite.add(~by_weight(finite), self._step)
            )
        if self._exponents is not None:
            self._exponents.update(dense)
        if self._clipped is not None and self._clips is not None:
            after = self._dense(variables, clipped)
            self._clipped.update(after)
            # A NaN differs from itself: what was not a number before was not clipped.
            changed = [
                tf.reduce_any((a != g) & (g == g)) for a, g in zip(after, dense, strict=True)
            ]
            self._clips.add(tf.stack(changed), self._step)

    def attempt(self, variables: Sequence[Any], gradients: Sequence[Any]) -> None:
        """Count a step that its optimizer skips if a gradient is not finite; else `update` follows.

        Args:
            variables: the variables that the step would update.
            gradients: one a variable, in any scale: only whether they are finite matters.
        """
        # An overflow in a weight that is not measured skips the step too.
        present = [g for g in gradients if g is not None]
        all_finite = tf.reduce_all([_is_finite(g) for g in present])
        finite = tf.stack([_is_finite(g) for g in self._dense(variables, gradients)])
        self._can_skip = True
        with tf.control_dependencies([finite]):
            self._steps.assign_add([1, 0, 0])

        def skipped() -> None:
            self._steps.assign_add([0, 0, 1])
            self._nonfinite.add(~finite, self._step)

        self._count_if(~all_finite, skipped)

    def record(
        self,
        epoch: int,
        step: int,
        logs: Mapping[str, float],
        *,
        before_training: bool = False,
        activations: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Make a record of the steps since the last one.

        Args:
            epoch: the epoch the steps belong to.
            step: the last of them.
            logs: loss and metrics.
            before_training: the one step so far was measured to know the gradient before it: the
                record shows the weights as they were, and the step counts again in the next one.
            activations: statistics of the layers' outputs, if they were measured.
        """
        steps, folded, skipped = (int(count) for count in self._steps.numpy())
        values = self._folded(folded)
        bad, bad_layers, first = self._nonfinite.read()
        last = self.last[1]
        # Fewer updates than training steps are made where an optimizer accumulates gradients.
        share = (step - last) / max(steps, 1)
        first = np.where(first > 0, last + np.ceil(first * share), 0).astype(np.int64)
        values |= {"nonfinite_steps": bad, "first_nonfinite_step": first}
        layer_values = {"nonfinite_steps": bad_layers}
        if self._clips is not None:
            values["clipped_steps"], layer_values["clipped_steps"], _ = self._clips.read()
        values |= self._weight_norms(move=not before_training)
        if self._can_skip:
            logs = {**logs, "skipped_steps": float(skipped)}
        counts = None if self._exponents is None else self._exponents.counts()
        self.history.append(
            epoch,
            step,
            values,
            logs,
            layer_values,
            activations=activations if self.history.outputs else None,
            distributions=counts,
        )
        self._write(self.history.record(-1))
        if not before_training:
            self._reset()

    def read(self) -> None:
        """Move what was folded so far to float64: worth it once in some thousand steps."""
        self._accumulator.totals(self.measured_steps)
        if self._clipped is not None:
            self._clipped.totals(self.measured_steps)

    def resume(self) -> None:
        """Go on after `close`, from the weights as they are now and with an open journal."""
        if self._journal_path is not None:
            self._journal = LineWriter(self._journal_path, append=True)
        self._can_skip = False  # which the optimizer of this training decides
        self.reread_weights()
        self._reset()

    def reread_weights(self) -> None:
        """Measure the weights' change from where they are now."""
        self._values = _values(self.variables)

    @property
    def pending_steps(self) -> int:
        """Number of steps since the last record."""
        return int(self._steps.numpy()[0])

    @property
    def last(self) -> tuple[int, int]:
        """Epoch and step of the last record; 0 and 0 before the first."""
        if not len(self.history):
            return 0, 0
        record = self.history.record(-1)
        return record["epoch"], record["step"]

    @property
    def measured_steps(self) -> int:
        """Number of steps since the last record that were measured: all but the skipped ones."""
        return int(self._steps.numpy()[1])

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    @property
    def _step(self) -> tf.Tensor:
        return self._steps[0]

    def _dense(self, variables: Sequence[Any], gradients: Sequence[Any]) -> list[tf.Tensor]:
        """The gradient of each measured variable, in their order."""
        by_id = {id(v): g for v, g in zip(variables, gradients, strict=True)}
        # A loop of one's own may hand the optimizer TensorFlow's variables instead of Keras's.
        found = [by_id.get(id(v), by_id.get(id(v.value))) for v in self.variables]
        return [_dense(g, v) for g, v in zip(found, self.variables, strict=True)]

    def _count_if(self, condition: tf.Tensor, count: Callable[[], None]) -> None:
        """Count only in the steps where a condition holds: the others must not pay for it."""

        def counted() -> tf.Tensor:
            count()
            return tf.constant(True)

        tf.cond(condition, counted, lambda: tf.constant(False))

    def _folded(self, steps: int) -> dict[str, np.ndarray]:
        """The statistics of the steps since the last record: NaN where there was none."""
        if not steps:
            names = [s.name for s in self._statistics] + (["clipped_l2"] if self._clipped else [])
            return {name: np.full(len(self._sizes), np.nan) for name in names}
        totals = self._accumulator.totals(steps)
        values = {s.name: s.finish(totals[s.name], self._sizes, steps) for s in self._statistics}
        if self._clipped is not None:
            squares = self._clipped.totals(steps)[L2_NORM.name]
            values["clipped_l2"] = L2_NORM.finish(squares, self._sizes, steps)
        return values

    def _weight_norms(self, move: bool) -> dict[str, np.ndarray]:
        """Norms of the weights and of their change since the last record."""
        if not move:
            norms = np.array([_norm(value) for value in self._values])
            return {"weight_l2": norms, "update_l2": np.zeros_like(norms)}
        before, self._values = self._values, _values(self.variables)
        pairs = zip(self._values, before, strict=True)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity less infinity is NaN: data
            return {
                "weight_l2": np.array([_norm(value) for value in self._values]),
                "update_l2": np.array([_norm(new - old) for new, old in pairs]),
            }

    def _reset(self) -> None:
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

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.write(line)


def _is_finite(gradient: Any) -> tf.Tensor:
    return tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(gradient)))


def _dense(gradient: Any, variable: keras.Variable) -> tf.Tensor:
    """The gradient as a float32 tensor, zeros where there is none."""
    if gradient is None:
        return tf.zeros(variable.shape)
    # Rows of an embedding that occur twice in IndexedSlices must be added before they are squared.
    return tf.cast(tf.convert_to_tensor(gradient), tf.float32)


def _values(variables: Sequence[keras.Variable]) -> list[np.ndarray]:
    # Copied: on a CPU `numpy()` may show the variable's own memory, which the next step overwrites.
    return [variable.value.numpy().astype(np.float32).ravel() for variable in variables]


def _norm(vector: np.ndarray) -> float:
    # Not np.linalg.norm: einsum squares in float64 without a copy, and without BLAS's threads,
    # which fight with TensorFlow's.
    return float(np.sqrt(np.einsum("i,i->", vector, vector, dtype=np.float64)))

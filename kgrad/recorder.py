"""Measures the gradients of a training run: folds them in the compiled step, drains to a history.

`train_and_track_gradients` and `measure_gradients` call `Recorder.update` with the gradients of
each step, inside the compiled function, and `Recorder.record` between calls of that function.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kgrad.accumulators import Accumulator, EntryTotals, StepTotals
from kgrad.history import GradientHistory, Weight
from kgrad.jsonl import LineWriter
from kgrad.statistics import RECORDED_BESIDE, select


class Recorder:
    """Turns the gradients of training steps into the records of a `GradientHistory`.

    Args:
        model: a built Keras model.
        statistics: names of statistics beyond those that are always on.
        by_entry: fold entry by entry, cheaper under XLA on a CPU; see `kgrad.accumulators`.
        journal: file that each record is written to as it is made.
        metadata: what the history shall say about the run.

    Attributes:
        history: the records so far. It begins with the first record, which names the logs.

    Raises:
        OSError: if the journal cannot be written.
        ValueError: if a statistic is unknown.
    """

    def __init__(
        self,
        model: keras.Model,
        statistics: Iterable[str] = (),
        *,
        by_entry: bool = False,
        journal: str | os.PathLike[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._history: GradientHistory | None = None
        self._statistics = select(statistics)
        self._variables = list(model.trainable_variables)
        self._weights = describe_weights(model)
        self._metadata = metadata
        shapes = [weight.shape for weight in self._weights]
        way = EntryTotals if by_entry else StepTotals
        self._accumulator: Accumulator = way(shapes, self._statistics)
        layers = list(dict.fromkeys(weight.layer for weight in self._weights))
        owner = [layers.index(weight.layer) for weight in self._weights]
        self._layer_of = np.array(owner)
        # Since the last record: non-finite steps of each weight and of each layer, and all steps.
        self._counts = tf.Variable(tf.zeros(len(owner) + len(layers) + 1, tf.int64))
        self._values = _values(self._variables)
        self._journal = LineWriter(journal) if journal is not None else None

    def update(self, gradients: Sequence[Any]) -> None:
        """Fold in the gradients of one step; graph operations only, for use in a `tf.function`.

        Args:
            gradients: one a trainable variable, in the model's order: a tensor of the variable's
                shape, `IndexedSlices`, or None where the loss does not depend on the variable.
        """
        dense = [_dense(g, v) for g, v in zip(gradients, self._variables, strict=True)]
        bad = tf.cast(self._accumulator.update(dense), tf.int64)
        bad_layers = tf.math.unsorted_segment_max(bad, self._layer_of, self._layer_of.max() + 1)
        self._counts.assign_add(tf.concat([bad, bad_layers, [1]], 0))

    def record(
        self, epoch: int, step: int, logs: Mapping[str, float], *, before_training: bool = False
    ) -> None:
        """Make a record of the steps since the last one.

        Args:
            epoch: the epoch the steps belong to.
            step: the last of them.
            logs: loss and metrics.
            before_training: the one step so far was measured to know the gradient before it: the
                record shows the weights as they were, and the step counts again in the next one.
        """
        counts = self._counts.numpy()
        steps = int(counts[-1])
        if self._history is None:
            names = [s.name for s in self._statistics] + list(RECORDED_BESIDE)
            self._history = GradientHistory(self._weights, names, logs, self._metadata)
            self._write(self._history.header())
        totals = self._accumulator.totals(steps)
        sizes = np.array([weight.size for weight in self._weights], dtype=np.float64)
        values = {s.name: s.finish(totals[s.name], sizes, steps) for s in self._statistics}
        values["nonfinite_steps"], by_layer = np.split(counts[:-1], [len(self._weights)])
        values |= self._weight_norms(move=not before_training)
        self._history.append(epoch, step, values, logs, {"nonfinite_steps": by_layer})
        self._write(self._history.record(-1))
        if not before_training:
            self._accumulator.reset()
            self._counts.assign(tf.zeros_like(self._counts))

    def read(self) -> None:
        """Move what was folded so far to float64: worth it once in some thousand steps."""
        self._accumulator.totals(self.pending_steps)

    @property
    def history(self) -> GradientHistory:
        """The records so far."""
        if self._history is None:
            raise RuntimeError("the history begins with the first record, and there is none yet")
        return self._history

    @property
    def has_records(self) -> bool:
        """Whether there is a record yet."""
        return self._history is not None

    @property
    def pending_steps(self) -> int:
        """Number of steps since the last record."""
        return int(self._counts.numpy()[-1])

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def _weight_norms(self, move: bool) -> dict[str, np.ndarray]:
        """Norms of the weights and of their change since the last record."""
        if not move:
            norms = np.array([_norm(value) for value in self._values])
            return {"weight_l2": norms, "update_l2": np.zeros_like(norms)}
        before, self._values = self._values, _values(self._variables)
        pairs = zip(self._values, before, strict=True)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity less infinity is NaN: data
            return {
                "weight_l2": np.array([_norm(value) for value in self._values]),
                "update_l2": np.array([_norm(new - old) for new, old in pairs]),
            }

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._journal.write(line)


def describe_weights(model: keras.Model) -> tuple[Weight, ...]:
    """Name the trainable variables of a built model, in the model's order.

    A layer name or a path that occurs twice, as in nested models, gets a number, never merged.
    """
    owners = {
        id(variable): layer
        # A layer's own variables are not public; `weights` would also hold those of its parts.
        for layer in model._flatten_layers(include_self=True, recursive=True)
        for variable in layer._trainable_variables
    }
    layer_names: dict[int, str] = {}
    paths: set[str] = set()
    weights = []
    for variable in model.trainable_variables:
        layer = owners[id(variable)]
        if id(layer) not in layer_names:
            layer_names[id(layer)] = _unique(layer.name, layer_names.values())
        path = _unique(variable.path, paths)
        paths.add(path)
        weights.append(Weight(layer_names[id(layer)], variable.name, path, tuple(variable.shape)))
    return tuple(weights)


def _unique(name: str, taken: Iterable[str]) -> str:
    taken, candidate, number = set(taken), name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate


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

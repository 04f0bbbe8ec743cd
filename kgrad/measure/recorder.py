"""Turns the gradients of training steps into the records of a history: `Recorder`."""

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import keras
import numpy as np

from kgrad._version import __version__
from kgrad.measure.accumulators import Way, cheapest_way
from kgrad.measure.backends.current import backend
from kgrad.measure.folds import Folds
from kgrad.measure.interrupts import interrupt_deferred
from kgrad.measure.keras_models.graph import describe_topology
from kgrad.measure.keras_models.layers import loss_name
from kgrad.measure.keras_models.weights import describe_weights
from kgrad.measure.taps import listen_to_updates
from kgrad.records.history import GradientHistory
from kgrad.records.journal import JournalWriter
from kgrad.records.statistics import L2_NORM, STATISTICS, Statistic, layers_of, select

# The folds must be drained at least this often: after more additions float32 sums lose the fifth
# digit. A fixed number, so that the same run is drained at the same steps.
STEPS_BETWEEN_READINGS = 8192


class Recorder:
    """Turns the gradients of training steps into the records of a `GradientHistory`.

    The training calls `update` with the gradients of each step, inside the compiled function, and
    `record` between calls of that function.

    Args:
        model: a built Keras model.
        statistics: names of statistics beyond those that are always recorded.
        variables: the variables whose gradients are measured; by default all that are trained.
        clipped: whether to measure the gradients after clipping, too.
        distributions: whether to count the entries of each gradient by magnitude.
        outputs: names of the layer outputs whose activations `record` will be given.
        way: how to fold gradients, see `cheapest_way`.
        metadata: what to save about the run in the history.

    Attributes:
        history: the records so far.
        variables: the variables whose gradients are measured.
        resumed: epoch and step at which the training of the journal was resumed; None if it begins.
        lost_weights: whether the last record has no norms of the weights, because the training
            keeps them outside of the model.

    Raises:
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
        way: Way | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
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
        layers = layers_of(weights)
        layer_of = np.array([layers.index(weight.layer) for weight in weights])
        self._folds = Folds(
            self.variables,
            layer_of,
            self._statistics,
            clipped=clipped,
            distributions=distributions,
            way=way or cheapest_way(jit_compile=False),
        )
        self._sizes = np.array([weight.size for weight in weights], dtype=np.float64)
        self._values: list[np.ndarray]
        self._were_assigned: Callable[[], bool]
        self.begin(metadata)

    def begin(self, metadata: Mapping[str, Any] | None) -> None:
        """Start a new history, of a training that starts from the weights as they are."""
        weights, names, outputs = self._columns
        self.history = GradientHistory(weights, names, metadata, outputs=outputs)
        self.reread_weights()
        self._folds.reset()
        self._journal: JournalWriter | None = None
        self.resumed: tuple[int, int] | None = None
        self.lost_weights = False

    def write_to(self, journal: JournalWriter, steps_per_epoch: int | None = None) -> None:
        """Write each record to a journal as soon as it is made; before the first record.

        Args:
            journal: the journal; if it has records, they become the first of the history.
            steps_per_epoch: see `JournalWriter.begin`.

        Raises:
            OSError, ValueError: see `JournalWriter.begin`.
        """
        self._journal = journal
        try:
            self.history = journal.begin(self.history, steps_per_epoch)
        except BaseException:
            self.close()
            raise
        if journal.recorded is not None:
            at = self.history.metadata["resumed"][-1]
            self.resumed = at["epoch"], at["step"]

    def listen_to(self, optimizer: keras.optimizers.Optimizer) -> Callable[[], None]:
        """Measure the updates of an optimizer from now on; return a function that ends it."""
        return listen_to_updates(optimizer, self)

    def update(
        self,
        variables: Sequence[Any],
        gradients: Sequence[Any],
        clipped: Sequence[Any],
        made: Any = None,
    ) -> None:
        """Fold in the gradients of one step; see `Folds.update`."""
        self._folds.update(variables, gradients, clipped, made)

    def attempt(self, variables: Sequence[Any], gradients: Sequence[Any]) -> None:
        """Count a step that may yet be skipped; see `Folds.attempt`."""
        self._folds.attempt(variables, gradients)

    @interrupt_deferred()  # with Ctrl-C in between, history and journal would differ
    def record(
        self,
        epoch: int,
        step: int,
        logs: Mapping[str, float],
        *,
        before_training: bool = False,
        activations: Mapping[str, np.ndarray] | None = None,
        weights: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Make a record of the steps since the last one.

        Args:
            epoch: the epoch that the steps belong to.
            step: the number of the last step.
            logs: loss and metrics.
            before_training: whether the only step so far was measured to know the gradient before
                training. The record then has the weights as they were before it, and the step
                counts again in the next record.
            activations: statistics of the layers' outputs, if they were measured.
            weights: values of the model's trainable variables; by default those that these hold.
        """
        self._folds.drain()
        steps, _, skipped = self._folds.steps()
        values = self._gradient_statistics()
        bad, bad_layers, first = self._folds.nonfinite_steps()
        last = self.last[1]
        if self.resumed is not None:
            last = max(last, self.resumed[1])
        # An optimizer that accumulates gradients makes fewer updates than there are steps. The
        # step measured before training is the first one.
        share = (step - last) / max(steps, 1)
        at = last + np.maximum(np.ceil(first * share), 1)
        values |= {
            "nonfinite_steps": bad,
            "first_nonfinite_step": np.where(first > 0, at, 0).astype(np.int64),
        }
        layer_values = {"nonfinite_steps": bad_layers}
        clips = self._folds.clipped_steps()
        if clips is not None:
            values["clipped_steps"], layer_values["clipped_steps"] = clips
        kept = self._values, self._were_assigned
        if before_training:
            now = self._values
        else:
            now = self._weights_now(weights, changed=bool(values["gradients_present"].any()))
        values |= self._weight_norms(now)
        if self._folds.can_skip:
            logs = {**logs, "skipped_steps": float(skipped)}
        try:
            self.history.append(
                epoch,
                step,
                values,
                logs,
                layer_values,
                activations=activations if self.history.outputs else None,
                distributions=self._folds.exponent_counts(),
            )
        except BaseException:  # a refused record can be made again, with the same change of weights
            self._values, self._were_assigned = kept
            raise
        if self._journal is not None:
            self._journal.write_records(self.history)
        if not before_training:
            self._folds.reset()

    def drain(self) -> None:
        """Move the folds so far to float64: needed every `STEPS_BETWEEN_READINGS` steps."""
        self._folds.drain()

    def resume(self) -> None:
        """Continue after `close`, from the weights as they are now and with an open journal."""
        if self._journal is not None:
            self._journal.reopen(self.history)
        self._folds.can_skip = False  # depends on the optimizer of the new training
        self.reread_weights()
        self._folds.reset()

    def reread_weights(self) -> None:
        """Measure the change of the weights from their current values on."""
        self._values = backend.weight_values(self._model, self.variables)
        self._were_assigned = backend.notice_assignment(self._model, self.variables)

    @property
    def totals(self) -> backend.Totals:
        """The arrays that the steps fold into."""
        return self._folds.totals

    @property
    def pending_steps(self) -> int:
        """Number of steps since the last record."""
        return self._folds.steps()[0]

    @property
    def has_journal(self) -> bool:
        """Whether the records are written to a journal."""
        return self._journal is not None

    @property
    def lost_journal(self) -> bool:
        """Whether another training writes to the journal now."""
        return self._journal is not None and self._journal.is_taken

    @property
    def last(self) -> tuple[int, int]:
        """Epoch and step of the last record; 0 and 0 before the first."""
        if not len(self.history):
            return 0, 0
        record = self.history.record(-1)
        return record["epoch"], record["step"]

    @property
    def measured_steps(self) -> int:
        """Number of measured steps since the last record: all but the skipped ones."""
        return self._folds.steps()[1]

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.finish(self.history)

    def _gradient_statistics(self) -> dict[str, np.ndarray]:
        """Return the statistics of the updates since the last record, and the numbers of these."""
        updates, present = self._folds.updates()
        totals = self._folds.folded()
        values = {s.name: s.finish(totals[s.name], self._sizes, present) for s in self._statistics}
        clipped = self._folds.folded_clipped()
        if clipped is not None:
            values["clipped_l2"] = L2_NORM.finish(clipped[L2_NORM.name], self._sizes, present)
        return values | {"updates": updates, "gradients_present": present}

    def _weights_now(self, given: Sequence[np.ndarray] | None, changed: bool) -> list[np.ndarray]:
        """Return the values of the weights; NaN if they are kept outside of the model.

        Args:
            given: see `record`.
            changed: whether updates have changed them.
        """
        self.lost_weights = given is None and changed and not self._were_assigned()
        self._were_assigned = backend.notice_assignment(self._model, self.variables)
        if self.lost_weights:
            return [np.full_like(value, np.nan) for value in self._values]
        if given is None:
            return backend.weight_values(self._model, self.variables)
        places = {id(v): i for i, v in enumerate(self._model.trainable_variables)}
        chosen = [given[places[id(variable)]] for variable in self.variables]
        return [array.astype(np.float32).ravel() for array in chosen]

    def _weight_norms(self, now: list[np.ndarray]) -> dict[str, np.ndarray]:
        """Return the norms of the weights and of their change since the last record."""
        before, self._values = self._values, now
        pairs = zip(now, before, strict=True)
        with np.errstate(over="ignore", invalid="ignore"):  # ∞ - ∞ = NaN is data
            return {
                "weight_l2": np.array([_norm(value) for value in now]),
                "update_l2": np.array(
                    [0.0 if new is old else _norm(new - old) for new, old in pairs]
                ),
            }


def describe_run(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer | None,
    loss: Callable[[Any, Any], Any] | None = None,
) -> dict[str, Any]:
    """Describe in JSON types what is needed to repeat a run."""
    return {
        "kgrad": __version__,
        "keras": keras.__version__,
        keras.backend.backend(): backend.version(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        **backend.describe_device(),
        "model": model.name,
        "optimizer": None if optimizer is None else optimizer.name,
        "loss": loss_name(getattr(model, "loss", None) if loss is None else loss) or "as compiled",
        "graph": describe_topology(model),
    }


def time_now() -> str:
    """Return the time in UTC, to the second, in ISO format."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _norm(vector: np.ndarray) -> float:
    # Unlike np.linalg.norm, einsum squares in float64 without a copy, and without BLAS's threads,
    # which compete with the backend's.
    return float(np.sqrt(np.einsum("i,i->", vector, vector, dtype=np.float64)))

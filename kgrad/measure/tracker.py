"""`GradientTracker`: a callback that measures the gradients of any Keras model as they update it.

`fit` compiles a step that computes gradients and passes them to the optimizer. The tracker makes
Keras trace that step anew while it listens to the optimizer's updates, so that the recorder's
operations become part of the step: no second backward pass, no other data, and weights that equal
those of an untracked run bit for bit.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from typing_extensions import Self

from kgrad.diagnosis import ModelFacts
from kgrad.diagnosis.diagnosing import Watch
from kgrad.measure.backends.current import backend
from kgrad.measure.keras_models.facts import read_facts
from kgrad.measure.keras_models.weights import Selection, checked_selection
from kgrad.measure.probe import Probe
from kgrad.measure.recorder import STEPS_BETWEEN_READINGS
from kgrad.measure.recordings import COMPILED, RecordingOptions, Recordings
from kgrad.measure.taps import listen_to_fit
from kgrad.measure.tensorboard import tracker_logs, write_last_record
from kgrad.records.checks import require_every, require_json, require_one_of, require_probe
from kgrad.records.history import GradientHistory
from kgrad.records.statistics import select

if TYPE_CHECKING:
    from kgrad.measure.event_files import TensorBoardWriter


class GradientTracker(keras.callbacks.Callback):
    """Records the gradients that train a Keras model.

    Pass it to `fit`, before the callbacks that use its logs. In your own loop, attach it to the
    optimizer and call `record` at the end of each record:

        with GradientTracker().attach(optimizer, model) as tracker:
            for epoch in range(10):
                for X, y in batches:
                    train_step(X, y)     # calls optimizer.apply_gradients or optimizer.apply
                tracker.record()

    The recorded gradient is that of the loss, unscaled and before clipping. If the optimizer
    accumulates gradients it is their average, which makes the update; under a distribution strategy
    it is the sum over the replicas. The first record, epoch 0, is the gradient before the first
    update. It is missing if `steps_per_execution` is above 1: `fit` does not return between those
    steps.

    A second `fit` continues the history. If it trains other weights (after unfreezing) or another
    model, a new history begins, and `previous` holds the old one.

    Args:
        statistics: names of statistics beyond those that are always recorded.
        every: `"epoch"`, or the number of steps per record.
        weights: the weights to watch: None for all, a layer's name, a path, a pattern
            (`"encoder*"`), several of these, or a function of a `Weight`.
        journal: file that each record is written to as soon as it is made; an existing file is
            replaced. The journal of a second history has `-2` appended to its name, that of a
            further optimizer the optimizer's name.
        log: whether to add `grad/l2_norm`, `grad/first_to_last`, `grad/update_ratio` and
            `grad/nonfinite_steps` to the logs of an epoch with a record (see `tracker_logs`);
            `"layers"` adds `grad/mean_abs/<layer>` for each layer.
        clipped: whether to record the norm of the clipped gradients and how often clipping acted,
            as `clipped_l2` and `clipped_steps`; by default if the optimizer clips.
        distributions: whether to count each gradient's entries by magnitude: a histogram of
            log10 |g| of at most 2,048 entries per weight and step, in `history.distributions`.
        probe: (X, y): a fixed batch on which the activations and the signals that come back to
            them are measured at each record, in `history.activations`.
        log_dir: folder for TensorBoard to which every record is also written; needs
            `pip install "kgrad[tensorboard]"`.
        diagnose: whether to log a warning to "kgrad" when a finding first appears, one line each.
        stop_on: rules whose findings end the `fit`: `("nonfinite", "exploding")`.
        metadata: entries for the history's metadata besides versions and settings.

    Raises:
        ModuleNotFoundError: if `log_dir` is given and the package tensorboard is missing.
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is not as described. Errors that depend on the model or the
            optimizer are raised by `fit` and `attach`, before they train; OSError if the journal or
            the folder cannot be written.

    Example:
        >>> from kgrad import create_model, make_dataset
        >>> data = make_dataset("moons", 64)
        >>> model = create_model(2, "relu", "he", units=8, input_shape=(2,), seed=0)
        >>> model.compile("sgd", "binary_crossentropy")
        >>> tracker = GradientTracker()
        >>> _ = model.fit(data.X, data.y, epochs=3, verbose=0, callbacks=[tracker])
        >>> tracker.history.by_layer("mean_abs").shape  # (records, layers)
        (4, 3)
    """

    def __init__(
        self,
        statistics: Iterable[str] = (),
        *,
        every: int | Literal["epoch"] = "epoch",
        weights: Selection = None,
        journal: str | os.PathLike[str] | None = None,
        log: bool | Literal["layers"] = True,
        clipped: bool | None = None,
        distributions: bool = False,
        probe: tuple[Any, Any] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        diagnose: bool = False,
        stop_on: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require_every(every)
        for name, value, accepted in (
            ("log", log, (True, False, "layers")),
            ("clipped", clipped, (None, True, False)),
            ("distributions", distributions, (True, False)),
            ("diagnose", diagnose, (True, False)),
        ):
            require_one_of(name, value, accepted)
        require_probe(probe)
        self._recordings = Recordings(
            RecordingOptions(
                statistics=[statistic.name for statistic in select(statistics)],
                weights=checked_selection(weights),
                clipped=clipped,
                distributions=distributions,
                journal=journal,
                metadata={"every": every, **require_json("metadata", metadata or {})},
            )
        )
        self._every, self._log, self._probe_data, self._stops = every, log, probe, bool(stop_on)
        self._log_dir = log_dir
        if log_dir is not None:
            # Needs a package of its own; without it this raises, long before the first record.
            import kgrad.measure.event_files  # noqa: F401
        self._watch = Watch(stop_on) if diagnose or stop_on else None
        self._read_facts: Callable[[], ModelFacts] | None = None
        self._writer: TensorBoardWriter | None = None
        # Keras then may call this callback from a thread, without waiting for a step's result.
        self.async_safe = every == "epoch"
        self._stop_fit: Callable[[], None] | None = None
        self._probe: Probe | None = None
        self._position = FitPosition()
        self._begun: set[str] = set()  # the optimizers that made an update in this fit

    @property
    def histories(self) -> dict[str, GradientHistory]:
        """The history of each optimizer that made an update, by the model's name for it."""
        return self._recordings.histories

    @property
    def history(self) -> GradientHistory:
        """The history, if one optimizer trains the model.

        Raises:
            RuntimeError: if nothing was tracked yet.
            ValueError: if several optimizers train it.
        """
        return self._recordings.only_history()

    @property
    def previous(self) -> list[GradientHistory]:
        """Histories that ended because other weights or another model began to be trained."""
        return self._recordings.previous

    def attach(
        self, optimizer: keras.optimizers.Optimizer, model: keras.Model, name: str = COMPILED
    ) -> Self:
        """Record the updates that an optimizer makes in your own loop.

        Attach before the loop's `tf.function` is traced: the recording becomes part of every
        function traced afterwards. Several optimizers can be attached under different names.

        Args:
            optimizer: the optimizer whose `apply_gradients` or `apply` the loop calls.
            model: the model whose weights it updates.
            name: the name of its history.

        Returns:
            The tracker: `with tracker.attach(optimizer, model):` detaches at the end.

        Raises:
            TypeError: if the optimizer or the model is not one of Keras's.
            ValueError: if the name is already attached, `weights` matches no weight, or the tracker
                has an argument that works only in `fit`.
        """
        if self._every != "epoch" or self._probe_data is not None or self._stops:
            raise ValueError(
                "every, probe and stop_on work only in fit: in your own loop call "
                "tracker.record(), kgrad.Probe.measure() or kgrad.diagnose()"
            )
        self._open_writer()
        self._recordings.begin(name, optimizer, model)
        return self

    def record(self, logs: Mapping[str, float] | None = None, epoch: int | None = None) -> None:
        """Make a record of the steps since the last one. `fit` does so automatically.

        Args:
            logs: loss and metrics to save in the record.
            epoch: the epoch that the steps belong to; by default one more than the last.
        """
        for name, recorder in self._recordings.recorders.items():
            if recorder.pending_steps:
                last_epoch, last_step = recorder.last
                number = last_epoch + 1 if epoch is None else epoch
                self._record(name, number, last_step + recorder.pending_steps, logs or {}, None)

    def detach(self) -> None:
        """Restore optimizers and model; the records stay. `fit` does so automatically.

        If an exception in another callback ended `fit`, the optimizers and the model are restored
        when this method is called, or by the next `fit`.
        """
        if self._stop_fit is not None:
            self.interrupted()
        self._end()

    def _end(self) -> None:
        self._recordings.end()
        if self._stop_fit is not None:
            self._stop_fit()
            self._stop_fit = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.detach()

    # Methods that Keras's `fit` calls.

    def set_model(self, model: keras.Model) -> None:
        """Refuse a model that cannot be tracked, before the training starts."""
        super().set_model(model)
        backend.require_fit_strategy(model)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Have the training step traced anew while listening to the updates."""
        if self._stop_fit is not None and self._position.model is self.model:
            return  # listed twice; after a crashed fit the taps would have reported it already
        self.detach()
        self._position.begin_fit(self.model, self.params.get("steps"))
        self._begun.clear()
        if self._probe_data is not None:
            self._probe = Probe(self.model, *self._probe_data)
        self._open_writer()
        self._follow_model()
        self._stop_fit = listen_to_fit(self.model, self)
        self._activations = self._probed()

    def carried(self) -> list[tuple[keras.optimizers.Optimizer, backend.Totals]]:
        """Tell what the step folds into: the arrays of each optimizer's recorder."""
        return self._recordings.carried()

    def before_trace(self) -> None:
        """Find the trained weights again: a callback changed the model and the step is retraced."""
        self._record_rest({})
        self._recordings.end()
        self._begun.clear()
        self._follow_model()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Number the epoch so that a second fit continues where the first one ended."""
        self._position.begin_epoch(epoch)

    def after_execution(self, logs: Mapping[str, Any]) -> None:
        """Record the gradient before training once the first update is made."""
        self._position.after_execution()
        executions = max(1, STEPS_BETWEEN_READINGS // int(self.model.steps_per_execution))
        for name, recorder in self._recordings.recorders.items():
            if name not in self._begun and recorder.measured_steps:
                self._begun.add(name)
                # In an execution of several steps the first one cannot be separated.
                if recorder.measured_steps == 1 and not len(recorder.history):
                    at = self._position.epoch - 1, self._position.epoch_start
                    self._record(name, *at, logs, self._activations, before_training=True)
            elif self._position.executions % executions == 0:
                recorder.drain()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Count the steps, and make a record if one is due."""
        self._position.after_batch(batch)
        if self._every != "epoch":
            due = self._position.step - self._every
            recorders = self._recordings.recorders.items()
            self._record_rest(logs or {}, [name for name, r in recorders if r.last[1] <= due])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Make the epoch's record, and add its numbers to the logs."""
        logs = {} if logs is None else logs
        if self._every == "epoch":
            self._record_rest(logs)
        for name, recorder in self._recordings.recorders.items():
            # In an epoch without a record the numbers of an older one would mislead.
            if self._log and len(recorder.history) and recorder.last[0] == self._position.epoch:
                prefix = self._recordings.prefix(name)
                logs.update(tracker_logs(recorder.history, prefix, layers=self._log == "layers"))

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Record the remaining steps, and restore the model."""
        self._record_rest(logs or {})
        self._end()

    def interrupted(self) -> None:
        """Make a last record of the steps before an exception or Ctrl-C."""
        for recorder in self._recordings.recorders.values():
            recorder.history.metadata["interrupted"] = True
        self._position.at_interruption()
        self._record_rest({})
        self._end()

    def _follow_model(self) -> None:
        # Read only once per fit, when the first record is diagnosed.
        self._read_facts = cache(partial(read_facts, self.model))
        outputs = () if self._probe is None else self._probe.outputs
        try:
            self._recordings.begin_all(self.model, outputs)
        except BaseException:  # a refused model must be left as it was
            self._end()
            raise

    def _open_writer(self) -> None:
        if self._log_dir is not None and self._writer is None:
            from kgrad.measure.event_files import TensorBoardWriter

            self._writer = TensorBoardWriter(self._log_dir)

    def _probed(self) -> dict[str, np.ndarray] | None:
        return None if self._probe is None else self._probe.measure()

    def _record_rest(self, logs: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
        """Make a record for each optimizer, or those named, with updates since its last record."""
        chosen = self._recordings.recorders if names is None else names
        pending = [name for name in chosen if self._recordings.recorders[name].pending_steps]
        activations = self._probed() if pending else None
        for name in pending:
            self._record(name, self._position.epoch, self._position.step, logs, activations)

    def _record(
        self,
        name: str,
        epoch: int,
        step: int,
        logs: Mapping[str, Any],
        activations: Mapping[str, np.ndarray] | None,
        *,
        before_training: bool = False,
    ) -> None:
        recorder = self._recordings.recorders[name]
        scalars = {key: float(value) for key, value in logs.items() if np.ndim(value) == 0}
        recorder.record(
            epoch, step, scalars, before_training=before_training, activations=activations
        )
        if self._writer is not None:
            time = epoch if self._every == "epoch" else step
            prefix = self._recordings.prefix(name)
            write_last_record(recorder.history, self._writer, time, prefix)
        if self._watch is not None and self._watch.look(recorder.history, self._read_facts):
            self.model.stop_training = True


class FitPosition:
    """The epoch and the step that a `fit` has reached, counted on from one `fit` to the next.

    Attributes:
        model: the model that was last fitted.
        epoch: the current epoch, from 1; 0 before the first.
        step: the number of steps done.
        epoch_start: the number of steps done when the epoch began.
        executions: calls of the compiled step in this `fit`.
    """

    def __init__(self) -> None:
        self.epoch = self.step = self.epoch_start = self.executions = 0
        self.model: keras.Model | None = None

    def begin_fit(self, model: keras.Model, steps: int | None) -> None:
        """Start a `fit`; another model starts from 0.

        Args:
            model: the model that is fitted.
            steps: steps per epoch, None if Keras does not know it.
        """
        if model is not self.model:
            self.model, self.epoch, self.step = model, 0, 0
        self._steps, self._size = steps, int(model.steps_per_execution)
        self.executions = 0
        self._epochs_before: int | None = None

    def begin_epoch(self, index: int) -> None:
        """Start an epoch, which Keras counts from 0 or from an `initial_epoch`."""
        if self._epochs_before is None:
            # An initial_epoch may already count on from the last fit.
            self._epochs_before = max(0, self.epoch - index)
        self.epoch = self._epochs_before + index + 1
        self.epoch_start, self._executions_before = self.step, self.executions

    def after_execution(self) -> None:
        """Count a call of the compiled step."""
        self.executions += 1

    def after_batch(self, index: int) -> None:
        """Count the steps up to a batch, which may be the last one of an execution of several."""
        # Keras reports a whole execution, even if the epoch ended before it was complete.
        done = index + 1
        self.step = self.epoch_start + (done if self._steps is None else min(done, self._steps))

    def at_interruption(self) -> None:
        """Count steps that Keras did not report before the `fit` was interrupted."""
        done = (self.executions - self._executions_before) * self._size
        self.step = max(self.step, self.epoch_start + done)

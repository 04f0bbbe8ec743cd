"""`GradientTracker`: a callback that measures the gradients of any Keras model as they update it.

`fit` compiles a step that computes gradients and passes them to the optimizer. The tracker makes
Keras trace that step anew while it listens to the optimizer's updates, so that the recorder's
operations become part of the step: no second backward pass, no other data, and weights that equal
those of an untracked run bit for bit.
"""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
from typing_extensions import Self

from kgrad.diagnosis import ModelFacts
from kgrad.diagnosis.diagnosing import Watch
from kgrad.measure.backends.current import backend
from kgrad.measure.keras_models.data import read_data
from kgrad.measure.keras_models.facts import read_facts
from kgrad.measure.keras_models.weights import Selection, checked_selection, describe_weights
from kgrad.measure.probe import Probe
from kgrad.measure.recorder import STEPS_BETWEEN_READINGS, Recorder
from kgrad.measure.recordings import COMPILED, RecordingOptions, Recordings
from kgrad.measure.taps import as_compiled, listen_to_fit
from kgrad.measure.tensorboard import tracker_logs, write_last_record
from kgrad.records.checks import (
    require_every,
    require_json,
    require_one_of,
    require_path,
    require_probe,
)
from kgrad.records.history import GradientHistory
from kgrad.records.journal import JOURNAL_MODES, JournalMode
from kgrad.records.statistics import layers_of, select

if TYPE_CHECKING:
    from kgrad.measure.event_files import TensorBoardWriter
    from kgrad.measure.live import LiveView


_UNHEARD = (
    "no update of an attached optimizer was seen: the loop must call apply_gradients or apply of "
    "the attached optimizer, in functions that are compiled after attach"
)


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
        journal: file that each record is written to as soon as it is made. The journal of a second
            history has `-2` appended to its name, that of a further optimizer the optimizer's name.
        journal_mode: what to do with a journal that already has records. `"refuse"` continues it if
            `fit` resumes (`initial_epoch`, `BackupAndRestore`), and otherwise raises; `"continue"`
            continues it; `"replace"` overwrites it. The records of a continued journal are the
            first of the history, without those of epochs that the resumed `fit` repeats.
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
            the extra `tensorboard`.
        diagnose: whether to log a warning to "kgrad" when a finding first appears, one line each.
            What shows in the model and in the data of the probe is logged before the first step.
        stop_on: rules whose findings end the `fit`: `("nonfinite", "exploding")`. A finding before
            the first step is an error: `("output_loss_mismatch", "wrong_embedding_inputs")`.
        live: whether to redraw one picture while the model trains, with loss, gradients and
            findings, in a notebook's cell or in a terminal, where it takes the place of Keras's
            progress bar. Drawing takes at most 2 % of the time; elsewhere nothing is drawn.
        metadata: entries for the history's metadata besides versions and settings.

    Raises:
        ModuleNotFoundError: if `log_dir` is given and the package tensorboard is missing.
        TypeError: if an argument has the wrong type.
        ValueError: if an argument is not as described. Errors that depend on the model or the
            optimizer are raised by `fit` and `attach`, before they train, and so is a finding that
            `stop_on` names; OSError if the journal or the folder cannot be written.

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
        journal_mode: JournalMode = "refuse",
        log: bool | Literal["layers"] = True,
        clipped: bool | None = None,
        distributions: bool = False,
        probe: tuple[Any, Any] | None = None,
        log_dir: str | os.PathLike[str] | None = None,
        diagnose: bool = False,
        stop_on: Iterable[str] = (),
        live: bool = False,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Check the arguments; the model comes later."""
        super().__init__()
        require_every(every)
        for name, value, accepted in (
            ("journal_mode", journal_mode, JOURNAL_MODES),
            ("log", log, (True, False, "layers")),
            ("clipped", clipped, (None, True, False)),
            ("distributions", distributions, (True, False)),
            ("diagnose", diagnose, (True, False)),
            ("live", live, (True, False)),
        ):
            require_one_of(name, value, accepted)
        require_probe(probe)
        for name, path in (("journal", journal), ("log_dir", log_dir)):
            if path is not None:
                require_path(name, path)
        self._recordings = Recordings(
            RecordingOptions(
                statistics=[statistic.name for statistic in select(statistics)],
                weights=checked_selection(weights),
                clipped=clipped,
                distributions=distributions,
                journal=journal,
                journal_mode=journal_mode,
                metadata={"every": every, **require_json("metadata", metadata or {})},
            )
        )
        self._every, self._log, self._probe_data, self._stop_on = every, log, probe, bool(stop_on)
        self._log_dir, self._live = log_dir, live
        if live:
            import kgrad.measure.live  # takes a second: here, and not while the model trains
        if log_dir is not None:
            # Needs a package of its own; without it this raises, long before the first record.
            import kgrad.measure.event_files  # noqa: F401
        self._watch = Watch(stop_on) if diagnose or stop_on else None
        self._leave_training()

    def _leave_training(self) -> None:
        """Forget the model and what belongs to its training."""
        self._model: Any = None
        self._read_facts: Callable[[], ModelFacts] | None = None
        self._writer: TensorBoardWriter | None = None
        self._view: LiveView | None = None
        self._stop_fit: Callable[[], None] | None = None
        self._probe: Probe | None = None
        self._activations: dict[str, np.ndarray] | None = None
        self._position = FitPosition()
        self._has_begun = False  # the first epoch of this fit
        self._has_warned = False  # in this fit
        self._begun: set[str] = set()  # the optimizers that made an update in this fit

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy and a pickled tracker keep: the arguments and the histories."""
        kept = object.__new__(type(self))
        kept.__dict__ |= self.__dict__
        kept._leave_training()
        return kept.__dict__

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

        Attach before the loop's functions are compiled: the recording becomes part of every
        function compiled afterwards. Several optimizers can be attached under different names.

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
        if self._every != "epoch" or self._probe_data is not None or self._stop_on:
            raise ValueError(
                "every, probe and stop_on work only in fit: in your own loop call "
                "tracker.record(), kgrad.Probe.measure() or kgrad.diagnose()"
            )
        self._has_warned = False
        self._recordings.attach(name, optimizer, model)
        try:
            self._open_writer(model)
            self._open_view(model)
        except BaseException:
            self._end()
            raise
        return self

    def record(
        self,
        logs: Mapping[str, float] | None = None,
        epoch: int | None = None,
        *,
        weights: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Make a record of the steps since the last one. `fit` does so automatically.

        Args:
            logs: loss and metrics to save in the record.
            epoch: the epoch that the steps belong to; by default one more than the last.
            weights: the values of the model's trainable variables, in a loop that keeps them
                itself, as `optimizer.stateless_apply` returns them on JAX; of several optimizers
                by name. Without them, the record's norms of the weights are NaN, and a warning
                says so. The first values are those in the model when the tracker is attached.

        Raises:
            RuntimeError: if no update of an attached optimizer was seen.
            ValueError: if the weights are not those of the model.
        """
        if not self._recordings.heard:
            self._has_warned = True  # an error says it, too
            raise RuntimeError(f"there is nothing to record, because {_UNHEARD}")
        values = self._recordings.checked_weights(weights)
        for name, recorder in self._recordings.recorders.items():
            if recorder.pending_steps:
                last_epoch, last_step = recorder.last
                number = last_epoch + 1 if epoch is None else epoch
                step = last_step + recorder.pending_steps
                self._record(name, number, step, logs or {}, None, weights=values.get(name))

    def detach(self) -> None:
        """Record the remaining steps, and restore the optimizers. `fit` does so automatically.

        If an exception in another callback, or on PyTorch in the data, ended `fit`, the remaining
        steps are recorded and the optimizers and the model restored when this method is called, at
        the end of a block `with tracker:`, or by the next `fit`.
        """
        if self._stop_fit is not None:
            self.interrupted()
        elif self._recordings.heard:
            self.record()
        histories = [recorder.history for recorder in self._recordings.recorders.values()]
        if histories and not any(len(one) or "interrupted" in one.metadata for one in histories):
            self._warn(f"nothing was recorded, because {_UNHEARD}")
        self._end()

    def _end(self) -> None:
        self._recordings.end()
        if self._stop_fit is not None:
            self._stop_fit()
            self._stop_fit = None
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._view is not None:
            self._view.close()
            self._view = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if kind is not None:
            for recorder in self._recordings.recorders.values():
                recorder.history.metadata["interrupted"] = True
        self.detach()

    # Methods that Keras's `fit` calls.

    def set_model(self, model: keras.Model) -> None:
        """Refuse a model that cannot be tracked, before the training starts."""
        super().set_model(model)
        backend.require_fit_strategy(model)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Have the training step traced anew while listening to the updates."""
        if self._stop_fit is not None and self._position.model is self._model:
            return  # listed twice; after a crashed fit the taps would have reported it already
        self.detach()
        self._position.begin_fit(self.model, (self.params or {}).get("steps"))
        self._has_begun = self._has_warned = False
        self._begun.clear()
        if self._probe_data is not None:
            self._probe = Probe(self.model, *self._probe_data)
        self._open_writer(self.model)
        self._follow_model()
        if self._watch is not None and self.model.built and self._read_facts is not None:
            data = None
            with suppress(TypeError):  # of inputs that are no numbers, such as texts
                if self._probe_data is not None:
                    data = read_data(self.model, *self._probe_data)
            try:
                self._watch.look_before_training(self._read_facts(), data)
            except BaseException:  # a refused model must be left as it was
                self._end()
                raise
        self._open_view(self.model)
        if self._view is not None:
            self._view.replace_progress_bar((self.params or {}).get("verbose"))
        self._stop_fit = listen_to_fit(self.model, self)

    def carried(self) -> list[tuple[keras.optimizers.Optimizer, backend.Totals]]:
        """Tell what the step folds into: the arrays of each optimizer's recorder."""
        return self._recordings.carried()

    def before_trace(self) -> None:
        """Find the trained weights again: a callback changed the model and the step is retraced."""
        self._record_rest({})
        self._recordings.end()
        self._begun.clear()
        self._follow_model()
        self._recordings.begin_training(self._position.first_epoch, self._position.steps_per_epoch)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Number the epoch so that a second fit continues where the first one ended."""
        self._position.begin_epoch(epoch)
        if self._stop_fit is None or self._has_begun:
            return
        # Not earlier: callbacks such as BackupAndRestore change weights when the training begins.
        self._has_begun = True
        try:
            self._recordings.begin_training(epoch, self._position.steps_per_epoch)
            self._activations = self._probed()
            for recorder in self._recordings.recorders.values():
                self._continue_journal(recorder)
        except BaseException:  # a refused model must be left as it was
            self._end()
            raise

    def after_execution(self, logs: Mapping[str, Any]) -> None:
        """Count the steps, and make a record if one is due.

        The first update of a fit gives the record of the gradient before training.
        """
        self._require_begun()
        self._position.after_execution()
        executions = max(1, STEPS_BETWEEN_READINGS // self._position.steps_per_execution)
        for name, recorder in self._recordings.recorders.items():
            if name not in self._begun and recorder.measured_steps:
                self._begun.add(name)
                self._continue_journal(recorder)
                # In an execution of several steps the first one cannot be separated.
                if recorder.measured_steps == 1 and not len(recorder.history):
                    at = self._position.epoch - 1, self._position.epoch_start
                    self._record(name, *at, logs, self._activations, before_training=True)
            elif self._position.executions % executions == 0:
                recorder.drain()
        if self._every != "epoch":
            due = self._position.step - self._every
            recorders = self._recordings.recorders.items()
            self._record_rest(logs, [name for name, r in recorders if r.last[1] <= due])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Make the epoch's record, and add its numbers to the logs."""
        logs = {} if logs is None else logs
        if self._stop_fit is None:
            self._warn(
                f"the gradients of epoch {epoch + 1} are not recorded, because another fit of this "
                "model ended the tracking, or on_train_begin was not called"
            )
            return
        self._require_begun()
        if not self._recordings.heard:
            self._warn(
                f"the gradients of epoch {epoch + 1} are not recorded, because no update of an "
                "optimizer of this model was seen: attach the tracker to the optimizer that trains "
                "it, before the training step is compiled"
            )
        elif not any(
            r.pending_steps or len(r.history) for r in self._recordings.recorders.values()
        ):
            self._warn(
                f"the gradients of epoch {epoch + 1} are not recorded, because none came back from "
                "the training step: a train_step of your own must return the optimizer variables "
                "that optimizer.stateless_apply returned"
            )
        if not self._position.executions_in_epoch:  # the user's own step updates the weights
            recorders = self._recordings.recorders.values()
            self._position.add_steps(max((r.pending_steps for r in recorders), default=0))
        if self._every == "epoch" or not self._position.executions_in_epoch:
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
        recorders = self._recordings.recorders
        for recorder in recorders.values():
            recorder.history.metadata["interrupted"] = True
        self._record_rest({}, [name for name, one in recorders.items() if not one.lost_journal])
        self._end()

    def _follow_model(self) -> None:
        # Read only once per fit.
        self._read_facts = cache(partial(read_facts, self.model))
        outputs = () if self._probe is None else self._probe.outputs
        now = {id(variable) for variable in self.model.trainable_variables}
        try:
            with as_compiled(self.model):
                compiled = {id(variable) for variable in self.model.trainable_variables}
                self._recordings.begin_all(self.model, outputs)
        except BaseException:  # a refused model must be left as it was
            self._end()
            raise
        self._warn_of_uncompiled(now, compiled)

    def _warn_of_uncompiled(self, now: set[int], compiled: set[int]) -> None:
        """Warn of layers whose `trainable` was changed without `compile`."""
        weights = describe_weights(self.model)
        for ids, verb in ((compiled - now, "are still trained"), (now - compiled, "are not")):
            layers = layers_of([weights[key] for key in weights if key in ids])
            if layers:
                warnings.warn(
                    f"trainable was changed after model {self.model.name!r} was compiled, and "
                    f"without compile() Keras ignores it: {', '.join(layers):.200} {verb}",
                    stacklevel=2,
                )

    def _continue_journal(self, recorder: Recorder) -> None:
        """Count on from where a journal's training was resumed."""
        if recorder.resumed is not None:
            self._position.resume(*recorder.resumed)

    def _require_begun(self) -> None:
        if not self._has_begun:
            self._end()
            raise RuntimeError(
                "on_epoch_begin must be called before the first step of an epoch, and was not: "
                "call it in your loop, or attach the tracker to the optimizer"
            )

    def _warn(self, message: str) -> None:
        """Warn once in a fit."""
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(message, stacklevel=2)

    def _open_writer(self, model: keras.Model) -> None:
        if self._log_dir is None or self._writer is not None:
            return
        if backend.workers(model).is_chief:
            from kgrad.measure.event_files import TensorBoardWriter

            self._writer = TensorBoardWriter(self._log_dir)

    def _open_view(self, model: keras.Model) -> None:
        if self._live and self._view is None and backend.workers(model).is_chief:
            from kgrad.measure.live import LiveView

            self._view = LiveView()

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
        weights: Sequence[np.ndarray] | None = None,
    ) -> None:
        recorder = self._recordings.recorders[name]
        scalars = {key: float(value) for key, value in logs.items() if np.ndim(value) == 0}
        recorder.record(
            epoch,
            step,
            scalars,
            before_training=before_training,
            activations=activations,
            weights=weights,
        )
        if recorder.lost_weights:
            self._warn(
                "the norms of the weights are not recorded, because the loop keeps the weights "
                "outside of the model: call tracker.record(weights=trainable_variables) with the "
                "values that optimizer.stateless_apply returned"
            )
        if self._writer is not None:
            time = epoch if self._every == "epoch" else step
            prefix = self._recordings.prefix(name)
            write_last_record(recorder.history, self._writer, time, prefix)
        if self._view is not None:
            self._view.show(self._recordings.histories, self._read_facts)
        if self._watch is not None and self._watch.look(recorder.history, self._read_facts):
            self._model.stop_training = True


class FitPosition:
    """The epoch and the step that a `fit` has reached, counted on from one `fit` to the next.

    Attributes:
        model: the model that was last fitted.
        epoch: the current epoch, from 1; 0 before the first.
        first_epoch: the number that Keras gives the first epoch of this `fit`.
        step: the number of steps done.
        epoch_start: the number of steps done when the epoch began.
        executions: calls of the compiled step in this `fit`.
        steps_per_epoch: number of steps of an epoch, None if Keras does not know it.
        steps_per_execution: number of steps that a call of the compiled step makes.
    """

    def __init__(self) -> None:
        self.epoch = self.first_epoch = self.step = self.epoch_start = self.executions = 0
        self._fit_start = self._executions_before = 0
        self.model: keras.Model | None = None
        self.steps_per_epoch: int | None = None
        self.steps_per_execution = 1

    def begin_fit(self, model: keras.Model, steps_per_epoch: int | None) -> None:
        """Start a `fit`; another model starts from 0."""
        if model is not self.model:
            self.model, self.epoch, self.step = model, 0, 0
        self.steps_per_epoch = steps_per_epoch
        self.steps_per_execution = int(model.steps_per_execution)
        self.executions, self._fit_start = 0, self.step
        self._epochs_before: int | None = None

    def begin_epoch(self, index: int) -> None:
        """Start an epoch, which Keras counts from 0 or from an `initial_epoch`."""
        if self._epochs_before is None:
            # An initial_epoch may already count on from the last fit.
            self._epochs_before = max(0, self.epoch - index)
            self.first_epoch = index
        self.epoch = self._epochs_before + index + 1
        self.epoch_start, self._executions_before = self.step, self.executions

    def resume(self, epoch: int, step: int) -> None:
        """Count on, in the first epoch, from the epoch and the step that a training had reached."""
        epochs, steps = max(0, epoch + 1 - self.epoch), max(0, step - self._fit_start)
        self._epochs_before = (self._epochs_before or 0) + epochs
        self.epoch += epochs
        self._fit_start += steps
        self.step += steps
        self.epoch_start += steps

    @property
    def executions_in_epoch(self) -> int:
        """Calls of the compiled step in this epoch."""
        return self.executions - self._executions_before

    def after_execution(self) -> None:
        """Count a call of the compiled step."""
        self.executions += 1
        # The last execution of an epoch may make fewer steps than the others.
        done = self.executions_in_epoch * self.steps_per_execution
        self.step = self.epoch_start + min(done, self.steps_per_epoch or done)

    def add_steps(self, count: int) -> None:
        """Count steps that were not made by the compiled step of `fit`."""
        self.step += count

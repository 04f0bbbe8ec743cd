"""`GradientTracker`: the gradients of any Keras model, measured in the updates they make.

`fit` compiles a step that computes gradients and hands them to the optimizer. The tracker has that
step traced anew with the optimizer's update listened to, so that the recorder's operations become
part of it: no second backward pass, no other data, and weights that are bit for bit those of an
untracked run.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, Literal, Self

import keras
import numpy as np

from kgrad.diagnosis import ModelFacts
from kgrad.diagnosis.diagnosing import Watch
from kgrad.measure.backends.tensorflow.event_files import TensorBoardWriter
from kgrad.measure.backends.tensorflow.probe import Probe
from kgrad.measure.backends.tensorflow.taps import listen_to_fit
from kgrad.measure.inputs import require_fit_strategy
from kgrad.measure.keras_models.weights import Selection, checked_selection
from kgrad.measure.model_facts import read_facts
from kgrad.measure.position import FitPosition
from kgrad.measure.recordings import COMPILED, Options, Tracks
from kgrad.measure.summaries import summarize, write_last
from kgrad.records.checks import require_every, require_json, require_one_of, require_probe
from kgrad.records.history import GradientHistory
from kgrad.records.statistics import select

# Float32 buffers lose the fifth digit when they are added to for longer.
_STEPS_BETWEEN_READINGS = 8192


class GradientTracker(keras.callbacks.Callback):
    """Records the gradients that train a Keras model.

    Give it to `fit`, before the callbacks that shall see its logs. For a loop of your own, attach
    it to the optimizer and say when a record ends:

        with GradientTracker().attach(optimizer, model) as tracker:
            for epoch in range(10):
                for X, y in batches:
                    train_step(X, y)     # calls optimizer.apply_gradients or optimizer.apply
                tracker.record()

    What is recorded is the gradient of the loss, unscaled and before clipping; with accumulated
    gradients their average, which makes the update; under a distribution strategy the sum over
    the replicas. The first record, epoch 0, is the gradient before the first update (with
    `steps_per_execution` above 1 there is none: `fit` does not return between its steps).

    A second `fit` continues the history. If other weights are trained then, as after unfreezing,
    or another model, a new history begins, and the one before is in `previous`.

    Args:
        statistics: names of statistics beside those that are always recorded.
        every: `"epoch"`, or the number of steps that make a record.
        weights: which weights to watch: None for all, a layer's name, a path, a pattern
            (`"encoder*"`), several of these, or a function of a `Weight`.
        journal: file that each record is written to as it is made; an existing one is replaced. A
            second history gets its name with `-2`, that of a further optimizer the optimizer's.
        log: whether to add `grad/l2_norm`, `grad/first_to_last`, `grad/update_ratio` and
            `grad/nonfinite_steps` to the logs of an epoch with a record (see `summarize`);
            `"layers"` adds `grad/mean_abs/<layer>` for each layer.
        clipped: whether to record what clipping left and how often it acted, as `clipped_l2` and
            `clipped_steps`; by default if the optimizer clips.
        distributions: whether to count each gradient's entries by magnitude: a histogram of
            log10 |g| of at most 2,048 entries a weight and step, in `history.distributions`.
        probe: (X, y): a fixed batch on which the activations and the signals that come back to
            them are measured at each record, in `history.activations`.
        log_dir: folder for TensorBoard to which every record is written too.
        diagnose: whether to log a warning to "kgrad" when a finding first holds, a line each.
        stop_on: rules whose findings end the `fit`: `("nonfinite", "exploding")`.
        metadata: what the history's metadata shall say beside versions and settings.

    Raises:
        TypeError: if an argument is of another kind.
        ValueError: if an argument is not as said here. `fit` and `attach` raise, before they
            train, what only they can know; OSError if journal or folder cannot be written.

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
        self._tracks = Tracks(
            Options(
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
        self._watch = Watch(stop_on) if diagnose or stop_on else None
        self._read_facts: Callable[[], ModelFacts] | None = None
        self._writer: TensorBoardWriter | None = None
        # Keras may call what is safe from a thread without waiting for a step's result.
        self.async_safe = every == "epoch"
        self._stop_fit: Callable[[], None] | None = None
        self._probe: Probe | None = None
        self._position = FitPosition()
        self._begun: set[str] = set()  # the optimizers that made an update in this fit

    @property
    def histories(self) -> dict[str, GradientHistory]:
        """The history of each optimizer that made an update, by the model's name for it."""
        return self._tracks.histories

    @property
    def history(self) -> GradientHistory:
        """The history, where one optimizer trains the model.

        Raises:
            RuntimeError: if nothing was tracked yet.
            ValueError: if there are several.
        """
        return self._tracks.only_history()

    @property
    def previous(self) -> list[GradientHistory]:
        """Histories that ended because other weights, or another model's, came to be trained."""
        return self._tracks.previous

    def attach(
        self, optimizer: keras.optimizers.Optimizer, model: keras.Model, name: str = COMPILED
    ) -> Self:
        """Record the updates that an optimizer makes in a loop of your own.

        Attach before the loop's `tf.function` is traced: the recording becomes part of what is
        traced from now on. Several optimizers can be attached under different names.

        Args:
            optimizer: the optimizer whose `apply_gradients` or `apply` the loop calls.
            model: the model whose weights it updates.
            name: the name of its history.

        Returns:
            The tracker: `with tracker.attach(optimizer, model):` detaches at the end.

        Raises:
            TypeError: if it is no optimizer of Keras or no model.
            ValueError: if the name is attached already, `weights` matches no weight, or the tracker
                was asked for what it does in `fit` only.
        """
        if self._every != "epoch" or self._probe_data is not None or self._stops:
            raise ValueError(
                "every, probe and stop_on are for fit, received one for a loop of your own: there "
                "record() makes a record, kgrad.Probe measures a batch, kgrad.diagnose tells"
            )
        self._open_writer()
        self._tracks.follow(name, optimizer, model)
        return self

    def record(self, logs: Mapping[str, float] | None = None, epoch: int | None = None) -> None:
        """Make a record of the steps since the last one. In `fit` this happens by itself.

        Args:
            logs: loss and metrics to go with it.
            epoch: the epoch that the steps belong to; by default one more than the last.
        """
        for name, recorder in self._tracks.recorders.items():
            if recorder.pending_steps:
                last_epoch, last_step = recorder.last
                number = last_epoch + 1 if epoch is None else epoch
                self._record(name, number, last_step + recorder.pending_steps, logs or {}, None)

    def detach(self) -> None:
        """Leave optimizers and model as they were; what was recorded stays. `fit` does it.

        A `fit` that an exception in another callback ended does not: the tracker hears of it when
        this is called, or by the next `fit`.
        """
        if self._stop_fit is not None:
            self.interrupted()
        self._end()

    def _end(self) -> None:
        self._tracks.end()
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

    # What Keras's `fit` calls.

    def set_model(self, model: keras.Model) -> None:
        """Refuse what cannot be tracked, before the training starts."""
        super().set_model(model)
        require_fit_strategy(model)

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Have the training step traced anew, with the updates listened to."""
        if self._stop_fit is not None and self._position.model is self.model:
            return  # listed twice: of a fit of this model that died the hooks would have told
        self.detach()
        self._position.begin_fit(self.model, self.params.get("steps"))
        self._begun.clear()
        if self._probe_data is not None:
            self._probe = Probe(self.model, *self._probe_data)
        self._open_writer()
        self._follow_model()
        self._stop_fit = listen_to_fit(self.model, self)
        self._activations = self._probed()

    def before_trace(self) -> None:
        """A callback changed the model and has the step traced anew: look again what it trains."""
        self._record_rest({})
        self._tracks.end()
        self._begun.clear()
        self._follow_model()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Number the epoch so that a second fit goes on where the first one ended."""
        self._position.begin_epoch(epoch)

    def after_execution(self, logs: Mapping[str, Any]) -> None:
        """Record the gradient before training once the first update is made."""
        self._position.after_execution()
        executions = max(1, _STEPS_BETWEEN_READINGS // int(self.model.steps_per_execution))
        for name, recorder in self._tracks.recorders.items():
            if name not in self._begun and recorder.measured_steps:
                self._begun.add(name)
                # An execution of several steps does not tell its first one from the others.
                if recorder.measured_steps == 1 and not len(recorder.history):
                    at = self._position.epoch - 1, self._position.epoch_start
                    self._record(name, *at, logs, self._activations, before_training=True)
            elif self._position.executions % executions == 0:
                recorder.read()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Count the steps; make a record of every so many."""
        self._position.after_batch(batch)
        if self._every != "epoch":
            due = self._position.step - self._every
            recorders = self._tracks.recorders.items()
            self._record_rest(logs or {}, [name for name, r in recorders if r.last[1] <= due])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Make the epoch's record, and add what it says to the logs."""
        logs = {} if logs is None else logs
        if self._every == "epoch":
            self._record_rest(logs)
        for name, recorder in self._tracks.recorders.items():
            # Of an epoch without a record the logs say nothing: an older one would mislead.
            if self._log and len(recorder.history) and recorder.last[0] == self._position.epoch:
                prefix = self._tracks.prefix(name)
                logs.update(summarize(recorder.history, prefix, layers=self._log == "layers"))

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Record what is left, and leave the model as it was."""
        self._record_rest(logs or {})
        self._end()

    def interrupted(self) -> None:
        """Keep what an exception or Ctrl-C cut off as a last record."""
        for recorder in self._tracks.recorders.values():
            recorder.history.metadata["interrupted"] = True
        self._position.at_interruption()
        self._record_rest({})
        self._end()

    def _follow_model(self) -> None:
        # Read only once per fit, when the first record is diagnosed.
        self._read_facts = cache(partial(read_facts, self.model))
        outputs = () if self._probe is None else self._probe.outputs
        try:
            self._tracks.follow_all(self.model, outputs)
        except BaseException:  # what is refused shall leave no trace
            self._end()
            raise

    def _open_writer(self) -> None:
        if self._log_dir is not None and self._writer is None:
            self._writer = TensorBoardWriter(self._log_dir)

    def _probed(self) -> dict[str, np.ndarray] | None:
        return None if self._probe is None else self._probe.measure()

    def _record_rest(self, logs: Mapping[str, Any], names: Iterable[str] | None = None) -> None:
        """Make a record of each optimizer, or of those named, that made updates since its last."""
        chosen = self._tracks.recorders if names is None else names
        pending = [name for name in chosen if self._tracks.recorders[name].pending_steps]
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
        recorder = self._tracks.recorders[name]
        scalars = {key: float(value) for key, value in logs.items() if np.ndim(value) == 0}
        recorder.record(
            epoch, step, scalars, before_training=before_training, activations=activations
        )
        if self._writer is not None:
            time = epoch if self._every == "epoch" else step
            write_last(recorder.history, self._writer, time, self._tracks.prefix(name))
        if self._watch is not None and self._watch.look(recorder.history, self._read_facts):
            self.model.stop_training = True

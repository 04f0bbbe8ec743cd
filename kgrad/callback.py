"""`GradientTracker`: the gradients of any Keras model, measured in the updates they make.

`fit` compiles a step that computes gradients and hands them to the optimizer. The tracker has that
step traced anew with the optimizer's update listened to, so that the recorder's operations become
part of it: no second backward pass, no other data, and weights that are bit for bit those of an
untracked run. (The exceptions differ in last bits: TensorFlow folds one constant factor into another
only where nobody else reads the product. They are `global_clipnorm`, unless `clipped=False`, and
accumulation over, or a `loss_scale_factor` of, a number that is not a power of two.)
"""

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Self

import keras
import numpy as np
import tensorflow as tf

from kgrad.descriptions import Selection
from kgrad.history import GradientHistory
from kgrad.hooks import listen_to_fit
from kgrad.inputs import require_positive
from kgrad.probe import Probe
from kgrad.statistics import select
from kgrad.summaries import summarize, write_last
from kgrad.tensorboard import TensorBoardWriter
from kgrad.tracks import COMPILED, Options, Tracks

# Float32 buffers lose the fifth digit when they are added to for longer.
_EXECUTIONS_BETWEEN_READINGS = 8192


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

    A second `fit` continues the history. If other weights are trained then, as after unfreezing, or
    another model, a new history begins, and the one before is in `previous`.

    Args:
        statistics: names of statistics beside those that are always recorded.
        every: `"epoch"`, or the number of steps that make a record.
        weights: which weights to watch: None for all, a layer's name, a path, a pattern
            (`"encoder*"`), several of these, or a function of a `Weight`.
        journal: file that each record is appended to as it is made. A second history gets the
            file's name with `-2`, that of a further optimizer one with the optimizer's name.
        log: whether to add `grad/l2_norm`, `grad/first_to_last`, `grad/update_ratio` and
            `grad/nonfinite_steps` to the logs of each epoch (see `summarize`); `"layers"`
            adds `grad/mean_abs/<layer>` for each layer.
        clipped: whether to record what clipping left and how often it acted, as `clipped_l2` and
            `clipped_steps`; by default if the optimizer clips.
        distributions: whether to count each gradient's entries by magnitude: a histogram of
            log10 |g| of at most 4,096 entries a weight and step, in `history.distributions`.
        probe: (X, y): a fixed batch on which the activations and the signals that come back to
            them are measured at each record, in `history.activations`.
        log_dir: folder for TensorBoard to which every record is written too.
        metadata: what the history's metadata shall say beside versions and settings.

    Raises:
        OSError: if the journal or the folder cannot be written.
        TypeError: if `weights` or `statistics` is of another kind.
        ValueError: if another argument is not as said here.

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
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if every != "epoch":
            require_positive('every, where it is not "epoch",', every)
        if log not in (True, False, "layers"):
            raise ValueError(f'log must be True, False or "layers", received {log!r}')
        self._tracks = Tracks(
            Options(
                [statistic.name for statistic in select(statistics)],
                weights,
                clipped,
                distributions,
                journal,
                {"every": every, **(metadata or {})},
            )
        )
        self._every, self._log, self._probe_data = every, log, probe
        self._log_dir = log_dir
        self._writer: TensorBoardWriter | None = None
        # Keras may call what is safe from a thread without waiting for a step's result.
        self.async_safe = every == "epoch"
        self._stop_fit: Callable[[], None] | None = None
        self._probe: Probe | None = None
        self._activations: dict[str, np.ndarray] | None = None
        self._fitted: keras.Model | None = None
        self._epoch = self._epochs_before = 0
        self._step = self._steps_before = self._executions = 0
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
        self,
        optimizer: keras.optimizers.Optimizer,
        model: keras.Model,
        name: str = COMPILED,
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
            ValueError: if the name is attached already, or `weights` matches no weight.
        """
        self._open_writer()
        self._tracks.follow(name, optimizer, model)
        return self

    def record(self, logs: Mapping[str, float] | None = None, epoch: int | None = None) -> None:
        """Make a record of the steps since the last one. In `fit` this happens by itself.

        Args:
            logs: loss and metrics to go with it.
            epoch: the epoch that the steps belong to; by default one more than the last.
        """
        for name, recorder in self._tracks.recorders:
            if recorder.pending_steps:
                last_epoch, last_step = recorder.last
                number = last_epoch + 1 if epoch is None else epoch
                self._record(name, number, last_step + recorder.pending_steps, logs or {})

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
        strategy = model.distribute_strategy
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(
                "GradientTracker works in fit under every strategy that fit supports, received "
                "MultiWorkerMirroredStrategy, under which Keras's fit fails: train with "
                "kgrad.train_and_track_gradients or a loop of your own"
            )

    def on_train_begin(self, logs: Mapping[str, float] | None = None) -> None:
        """Have the training step traced anew, with the updates listened to."""
        model = self.model
        self.detach()  # an earlier fit may have ended without a word
        if model is not self._fitted:
            self._fitted, self._epoch, self._step = model, 0, 0
        self._executions = 0
        self._begun.clear()
        if self._probe_data is not None:
            self._probe = Probe(model, *self._probe_data)
        on_gpu = bool(tf.config.list_logical_devices("GPU"))
        found = {
            "jit_compile": bool(model.jit_compile),
            "steps_per_execution": int(model.steps_per_execution),
            "run_eagerly": bool(model.run_eagerly),
        }
        self._open_writer()
        try:
            self._tracks.follow_all(
                model,
                outputs=() if self._probe is None else self._probe.outputs,
                by_entry=bool(model.jit_compile) and not on_gpu,
                metadata=found,
            )
        except BaseException:  # what is refused shall leave no trace
            self._end()
            raise
        self._stop_fit = listen_to_fit(model, self)
        self._activations = None if self._probe is None else self._probe.measure()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Number the epoch so that a second fit goes on where the first one ended."""
        if not self._executions:
            # fit counts from 0, or from an initial_epoch that goes on by itself.
            self._epochs_before = max(0, self._epoch - epoch)
        self._epoch = self._epochs_before + epoch + 1
        self._steps_before = self._step

    def after_execution(self, logs: Mapping[str, Any]) -> None:
        """Record the gradient before training once the first update is made."""
        self._executions += 1
        for name, recorder in self._tracks.recorders:
            if name not in self._begun and recorder.measured_steps:
                self._begun.add(name)
                # An execution of several steps does not tell its first one from the others.
                if recorder.measured_steps == 1 and not len(recorder.history):
                    epoch, step = self._epoch - 1, self._steps_before
                    self._record(name, epoch, step, logs, before_training=True)
            elif self._executions % _EXECUTIONS_BETWEEN_READINGS == 0:
                recorder.read()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Count the steps; make a record of every so many."""
        # An execution of several steps is told of as whole, also where it ended the epoch early.
        steps = self.params.get("steps") or batch + 1
        self._step = self._steps_before + min(batch + 1, steps)
        if self._every != "epoch":
            for name, recorder in self._tracks.recorders:
                if self._step - recorder.last[1] >= self._every and recorder.pending_steps:
                    self._record(name, self._epoch, self._step, logs or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Make the epoch's record, and add what it says to the logs."""
        logs = {} if logs is None else logs
        if self._every == "epoch":
            self._record_rest(logs)
        if self._log:
            for name, recorder in self._tracks.recorders:
                if len(recorder.history):
                    layers = self._log == "layers"
                    logs.update(
                        summarize(recorder.history, self._tracks.prefix(name), layers=layers)
                    )

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        """Record what is left, and leave the model as it was."""
        self._record_rest(logs or {})
        self._end()

    def interrupted(self) -> None:
        """Keep what an exception or Ctrl-C cut off as a last record."""
        for _, recorder in self._tracks.recorders:
            recorder.history.metadata["interrupted"] = True
            # Keras may not have told of the last steps yet.
            self._step = max(self._step, recorder.last[1] + recorder.pending_steps)
        self._record_rest({})
        self._end()

    def _open_writer(self) -> None:
        if self._log_dir is not None and self._writer is None:
            self._writer = TensorBoardWriter(self._log_dir)

    def _record_rest(self, logs: Mapping[str, Any]) -> None:
        for name, recorder in self._tracks.recorders:
            if recorder.pending_steps:
                self._record(name, self._epoch, self._step, logs)

    def _record(
        self,
        name: str,
        epoch: int,
        step: int,
        logs: Mapping[str, Any],
        *,
        before_training: bool = False,
    ) -> None:
        recorder = dict(self._tracks.recorders)[name]
        if self._probe is not None and not before_training:
            self._activations = self._probe.measure()
        recorder.record(
            epoch,
            step,
            {key: float(value) for key, value in logs.items() if np.ndim(value) == 0},
            before_training=before_training,
            activations=self._activations if recorder.history.outputs else None,
        )
        if self._writer is not None:
            time = epoch if self._every == "epoch" else step
            write_last(recorder.history, self._writer, time, self._tracks.prefix(name))

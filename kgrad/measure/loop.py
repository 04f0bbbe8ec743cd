"""`train_and_track_gradients`: many training steps in one call of one compiled function.

The loop is Keras's `fit` without the Python code between the steps. `fit` returns to Python after
each step; here the steps of a whole epoch run inside one compiled function, which also measures the
gradients.
"""

import math
import os
import time
import warnings
import zlib
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias, cast

import keras
import numpy as np

from kgrad.measure.accumulators import cheapest_way
from kgrad.measure.backends.current import backend
from kgrad.measure.inputs import (
    as_arrays,
    choose_loss,
    choose_optimizer,
    require_labels,
    require_trainable,
)
from kgrad.measure.interrupts import (
    interrupt_deferred,
    interrupts_collected,
    interrupts_noticed,
    termination_as_interrupt,
)
from kgrad.measure.probe import Probe
from kgrad.measure.progress import progress_bar
from kgrad.measure.recorder import STEPS_BETWEEN_READINGS, Recorder, describe_run, time_now
from kgrad.measure.taps import clips
from kgrad.records.checks import (
    require_every,
    require_integer,
    require_one_of,
    require_path,
    require_probe,
    require_seed,
)
from kgrad.records.history import GradientHistory
from kgrad.records.journal import JOURNAL_MODES, JournalMode, JournalWriter

# Python handles a Ctrl-C only between calls of the compiled function.
_SECONDS_BETWEEN_CALLS = 0.2

Pieces: TypeAlias = Generator[GradientHistory, int | None, GradientHistory]
"""A training in pieces, see `Training.run_in_pieces`."""


def train_and_track_gradients(
    model: keras.Model,
    X: Any,
    y: Any,
    epochs: int,
    *,
    batch_size: int = 32,
    optimizer: Any = None,
    loss: Any = None,
    statistics: Iterable[str] = (),
    clipped: bool | None = None,
    distributions: bool = False,
    probe: tuple[Any, Any] | None = None,
    every: int | Literal["epoch"] = "epoch",
    shuffle: bool = True,
    seed: int | None = None,
    jit_compile: bool | Literal["auto"] = "auto",
    journal: str | os.PathLike[str] | None = None,
    journal_mode: JournalMode = "refuse",
    metadata: Mapping[str, Any] | None = None,
    verbose: int = 0,
) -> GradientHistory:
    """Train a model and record the gradients that train it.

    Trains as `fit` does: every sample once per epoch, the last partial batch included, with
    `training=True`, regularization losses and the compiled metrics. The recorded gradient is that
    of the loss, unscaled and before clipping, of the very step that updates the weights. The first
    record, epoch 0, is the gradient before the first update: that of the first step, which also
    counts in epoch 1.

    Under TensorFlow's `MirroredStrategy` and `MultiWorkerMirroredStrategy` each replica takes its
    part of every batch; see `docs/tracking.md`. Every process passes all samples, and the chief
    writes the journal.

    Ctrl-C ends the training between two steps. The records so far are returned, the unfinished
    epoch as the last one, with `metadata["interrupted"]` true. SIGTERM, which batch systems and
    containers send, does the same, and then ends the process.

    Args:
        model: a built Keras model with one output; it is trained in place.
        X: inputs, (samples, ...), as the model takes them.
        y: targets, (samples,) or (samples, ...).
        epochs: number of passes over the data, at least 1.
        batch_size: samples per step.
        optimizer: a Keras optimizer, its name or configuration; by default the one the model was
            compiled with, otherwise SGD with learning rate 0.01.
        loss: a Keras loss, its name or a function; by default the one the model was compiled with,
            otherwise the one that fits the last activation (sigmoid: binary cross-entropy, softmax:
            categorical cross-entropy, linear: mean squared error).
        statistics: names of statistics beyond those that are always recorded.
        clipped: whether to record the norm of the clipped gradients and how often clipping acted,
            as `clipped_l2` and `clipped_steps`; by default if the optimizer clips.
        distributions: whether to count each gradient's entries by magnitude: a histogram of
            log10 |g| of at most 2,048 entries per weight and step, in `history.distributions`.
        probe: (X, y): a fixed batch on which the activations and the signals that come back to
            them are measured at each record, in `history.activations`.
        every: `"epoch"`, or the number of steps per record.
        shuffle: whether each epoch takes the samples in a new order.
        seed: seed of that order; None draws one from NumPy's global generator, which
            `keras.utils.set_random_seed` sets. It is saved in the history's metadata.
        jit_compile: whether XLA (on torch `torch.compile`) compiles the loop. "auto": if every
            layer supports it, on JAX; on TensorFlow if also the run is long enough, 5,000 steps, to
            repay the compilation; on torch never.
        journal: file that each record is appended to as soon as it is made.
        journal_mode: what to do with a journal that already has records: `"refuse"` raises;
            `"continue"` appends to it, and its records are the first of the history; `"replace"`
            overwrites it.
        metadata: entries for the history's metadata besides versions, device and arguments.
        verbose: 0 for silence, 1 for a progress bar with loss and time left.

    Returns:
        The history: one record before training, then one per epoch or per `every` steps.

    Raises:
        OSError: if the journal cannot be written. If that happens later, a warning says so, the
            training goes on, and each record tries again to write what is missing.
        TypeError: if the model is not a Keras model or the data are not numbers that fit it.
        ValueError: if another argument is not as described. All are raised before training starts.

    Example:
        >>> from kgrad import create_model, make_dataset
        >>> data = make_dataset("moons", 64)
        >>> model = create_model(2, "relu", "he", units=8, input_shape=(2,), seed=0)
        >>> history = train_and_track_gradients(model, data.X, data.y, epochs=3, seed=0)
        >>> history.epochs
        array([0, 1, 2, 3])
        >>> history.by_layer("mean_abs").shape  # (records, layers)
        (4, 3)
    """
    settings = TrainingSettings(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        loss=loss,
        statistics=statistics,
        clipped=clipped,
        distributions=distributions,
        probe=probe,
        every=every,
        shuffle=shuffle,
        jit_compile=jit_compile,
    )
    training = Training(model, X, y, settings)
    return training.run(
        seed, journal=journal, journal_mode=journal_mode, metadata=metadata, verbose=verbose
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The arguments of `train_and_track_gradients` that all runs of a `Training` share."""

    epochs: int
    batch_size: int
    optimizer: Any
    loss: Any
    statistics: Iterable[str]
    clipped: bool | None
    distributions: bool
    probe: tuple[Any, Any] | None
    every: int | Literal["epoch"]
    shuffle: bool
    jit_compile: bool | Literal["auto"]


class Training:
    """A training of `train_and_track_gradients` that can be run several times, compiled once.

    Each run trains the model from the weights that it has then, with the optimizer in the state in
    which it was when this object was made.

    Args:
        model: a built Keras model with one output.
        X: inputs, (samples, ...).
        y: targets, (samples,) or (samples, ...).
        settings: as for `train_and_track_gradients`, which also lists the errors.
    """

    def __init__(self, model: keras.Model, X: Any, y: Any, settings: TrainingSettings) -> None:
        """Check the arguments and compile the loop."""
        require_trainable(model)
        _require_outside_scope("train_and_track_gradients", model)
        self._model = model
        # NumPy's integers can be neither combined with tensors nor written to JSON.
        self._epochs = require_integer("epochs", settings.epochs, 1)
        batch_size = require_integer("batch_size", settings.batch_size, 1)
        require_every(settings.every)
        for name, accepted in (
            ("clipped", (None, True, False)),
            ("distributions", (True, False)),
            ("shuffle", (True, False)),
        ):
            require_one_of(name, getattr(settings, name), accepted)
        require_probe(settings.probe)
        self._every = settings.every if settings.every == "epoch" else int(settings.every)
        X, y = as_arrays(model, X, y)
        loss = choose_loss(model, y, settings.loss)
        require_labels(model, X, y, settings.loss)
        with backend.variable_scope(model):
            optimizer = choose_optimizer(model, settings.optimizer)
        backend.require_loop_strategy(
            model,
            optimizer,
            loss,
            samples=len(X),
            batch_size=batch_size,
            jit_compile=settings.jit_compile,
            probe=settings.probe is not None,
        )
        jit = _resolve_jit(settings.jit_compile, model, self._epochs * -(-len(X) // batch_size))
        self._shuffle = settings.shuffle
        self._described = describe_run(model, optimizer, loss) | {
            "jit_compile": jit,
            "shuffle": settings.shuffle,
            "epochs": self._epochs,
            "batch_size": batch_size,
            "every": self._every,
            "samples": len(X),
        }
        self._workers = backend.workers(model)
        if self._workers.replicas > 1:
            self._described["replicas"] = self._workers.replicas
        self._require_alike("the data", X, y)
        arguments = (self._epochs, batch_size, self._every, self._shuffle, jit)
        self._require_alike("the arguments", np.array(repr(arguments)))
        self._probe = None if settings.probe is None else Probe(model, *settings.probe, loss)
        self._recorder = Recorder(
            model,
            settings.statistics,
            clipped=clips(optimizer) if settings.clipped is None else settings.clipped,
            distributions=settings.distributions,
            outputs=() if self._probe is None else self._probe.outputs,
            way=cheapest_way(jit, optimizer),
        )
        self._loop = backend.TrainingLoop(
            model, X, y, batch_size, optimizer, loss, jit, self._recorder
        )
        self._sample = X[:32]
        self._optimizer_start = [(v, keras.ops.copy(v)) for v in optimizer.variables]

    def run(
        self,
        seed: int | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        journal_mode: JournalMode = "refuse",
        metadata: Mapping[str, Any] | None = None,
        verbose: int = 0,
    ) -> GradientHistory:
        """Train from the weights as they are; see `train_and_track_gradients`."""
        pieces = self._pieces(seed, journal, journal_mode, metadata, verbose, pauses=False)
        with termination_as_interrupt():
            try:
                next(pieces)
            except StopIteration as end:
                return cast(GradientHistory, end.value)
        raise RuntimeError("a training without pauses paused")

    def run_in_pieces(
        self,
        seed: int | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        journal_mode: JournalMode = "refuse",
        metadata: Mapping[str, Any] | None = None,
    ) -> Pieces:
        """Train as `run` does, but pause before each piece, which takes 0.2 seconds or less.

        A piece ends at a record at the latest, and never changes what is trained. Close the
        generator to end the training between two pieces.

        Yields:
            The history so far.

        Receives:
            None; or with `send` the number of steps after which a record is made, in addition to
            the regular ones.

        Returns:
            The history.
        """
        return self._pieces(seed, journal, journal_mode, metadata, 0, pauses=True)

    def _pieces(
        self,
        seed: int | None,
        journal: str | os.PathLike[str] | None,
        journal_mode: JournalMode,
        metadata: Mapping[str, Any] | None,
        verbose: int,
        pauses: bool,
    ) -> Pieces:
        require_seed(seed)
        seed = int(np.random.randint(2**31)) if seed is None else int(seed)  # noqa: NPY002 (Keras's seed)
        require_one_of("journal_mode", journal_mode, JOURNAL_MODES)
        if journal is not None:
            require_path("journal", journal)
        # All workers take the samples in the chief's order.
        seed = int(self._workers.everyone([seed])[0, 0]) if self._shuffle else None
        weights = backend.weight_values(self._model, self._recorder.variables)
        self._require_alike("the weights", *weights)
        journal = journal if self._workers.is_chief else None
        begun = {"seed": seed, "started": time_now()}
        self._recorder.begin(self._described | begun | dict(metadata or {}))
        try:
            if journal is not None:
                self._recorder.write_to(JournalWriter(journal, journal_mode))
            for variable, start in self._optimizer_start:
                # Copied, as JAX's steps take the arrays away from the variables.
                variable.assign(keras.ops.copy(start))
            if self._workers.count == 1:
                return (yield from self._record_training(seed, verbose, pauses))
            with interrupts_collected() as interrupted:
                history = yield from self._record_training(seed, verbose, pauses, interrupted)
                if interrupted():
                    history.metadata["interrupted"] = True
                return history
        finally:
            self._recorder.close()

    def _has_diverged(self) -> bool:
        """Return whether the model's outputs are NaN or infinite."""
        outputs = keras.ops.convert_to_numpy(self._model(self._sample))
        return not bool(np.isfinite(outputs).all())

    def _require_alike(self, what: str, *arrays: np.ndarray) -> None:
        """Raise unless arrays are the same in all workers: each takes its own part."""
        if self._workers.count == 1:
            return
        digest = 0
        for array in arrays:
            digest = zlib.crc32(np.ascontiguousarray(array).data, digest)
        found = self._workers.everyone([digest])[:, 0]
        if len(set(found.tolist())) > 1:
            raise ValueError(
                f"{what} must be the same in all {self._workers.count} workers, received "
                "different ones: give each worker all samples and the same seed"
            )

    def _record_training(
        self,
        seed: int | None,
        verbose: int,
        pauses: bool,
        interrupted: Callable[[], bool] | None = None,
    ) -> Pieces:
        """Run the loop; between its calls make the records and move the progress bar.

        Args:
            seed: seed of the order of the samples; None for no shuffling.
            verbose: whether to show the progress bar.
            pauses: whether to pause before each call of the compiled loop.
            interrupted: whether Ctrl-C was pressed in this worker; if any reports it, all stop.
        """
        loop, recorder = self._loop, self._recorder
        random = None if seed is None else np.random.default_rng(seed)
        steps_per_record = loop.steps_per_epoch if self._every == "epoch" else self._every
        probed = (lambda: None) if self._probe is None else self._probe.measure
        activations_before = probed()
        loop.reset_logs()
        steps = self._epochs * loop.steps_per_epoch
        done = 0
        epochs_before, steps_before = recorder.last  # of a journal that is continued
        begun = bool(len(recorder.history))
        asked = None  # the number of steps after which the caller asked for a record
        extra = 0  # the steps since the last regular record that other records hold
        seconds_per_step = math.inf  # the first call compiles: its time means nothing
        # While it pauses, Ctrl-C is the caller's.
        noticed = nullcontext(lambda: False) if pauses else interrupts_noticed()
        with progress_bar(steps, verbose) as show, noticed as lost:
            try:
                while done < steps:
                    if lost():
                        raise KeyboardInterrupt
                    if pauses:
                        asked = yield recorder.history
                    epoch, first = divmod(done, loop.steps_per_epoch)
                    if first == 0 and random is not None:
                        loop.set_order(random.permutation(loop.samples))
                    start = time.perf_counter()
                    pending = steps_before + done - recorder.last[1]
                    due = steps_per_record - extra - pending
                    most = min(
                        max(1, int(_SECONDS_BETWEEN_CALLS / seconds_per_step)),
                        due if asked is None else min(due, asked),
                        STEPS_BETWEEN_READINGS - pending % STEPS_BETWEEN_READINGS,
                    )
                    if interrupted is not None:
                        # Workers stop together, and run as many steps per call as the chief.
                        agreed = self._workers.everyone([interrupted(), most])
                        if agreed[:, 0].any():
                            raise KeyboardInterrupt
                        most = int(agreed[0, 1])
                    count = loop.run(first, most if begun else 1)
                    seconds_per_step = (time.perf_counter() - start) / count
                    done += count
                    # Workers read the metrics together, whether they show them or not.
                    logs = loop.logs if interrupted is None else loop.logs().copy
                    show(done, partial(_described, epoch + 1, logs))
                    with interrupt_deferred():
                        # An optimizer that accumulates gradients makes no update in its first step.
                        if not begun and (recorder.pending_steps or done == steps_per_record):
                            begun = True
                            recorder.record(
                                0,
                                0,
                                loop.logs(),
                                before_training=True,
                                activations=activations_before,
                            )
                        if count in (due, asked):
                            extra = 0 if count == due else extra + pending + count
                            recorder.record(
                                epochs_before + epoch + 1,
                                steps_before + done,
                                loop.logs(),
                                activations=probed(),
                            )
                            loop.reset_logs()
                        elif (pending + count) % STEPS_BETWEEN_READINGS == 0:
                            recorder.drain()
            except KeyboardInterrupt:
                if not len(recorder.history):
                    raise
                recorder.history.metadata["interrupted"] = True
            except Exception as error:
                # PyTorch refuses a cross-entropy of NaN, with which the other backends train on.
                if not len(recorder.history) or not self._has_diverged():
                    raise
                recorder.history.metadata["interrupted"] = True
                recorder.history.metadata["error"] = f"{type(error).__name__}: {error}"
                warnings.warn(
                    f"training stopped after step {done}, because the outputs of the model are not "
                    f"finite: {type(error).__name__}: {error}",
                    stacklevel=3,
                )
        try:
            with interrupt_deferred():
                if recorder.pending_steps:  # interrupted, or `every` does not divide the run
                    # Ctrl-C may have come after the last call, before its steps were counted.
                    at = max(steps_before + done, recorder.last[1] + recorder.pending_steps)
                    epoch = epochs_before - (steps_before - at) // loop.steps_per_epoch
                    recorder.record(epoch, at, loop.logs(), activations=probed())
        except KeyboardInterrupt:
            recorder.history.metadata["interrupted"] = True
        return recorder.history


def measure_gradients(
    model: keras.Model, X: Any, y: Any, loss: Any = None, *, statistics: Iterable[str] = ()
) -> GradientHistory:
    """Measure the gradients of one backward pass over all of `X`, without training.

    The pass is one of training (dropout drops, batch normalization uses the moments of the batch).
    Everything that it changes in the model is restored.

    Args:
        model: a built Keras model with one output.
        X: inputs, (samples, ...): one batch.
        y: targets, (samples,) or (samples, ...).
        loss: as in `train_and_track_gradients`.
        statistics: names of statistics beyond those that are always recorded.

    Returns:
        A history with a single record, epoch 0.

    Raises:
        TypeError: if the model is not a Keras model or the data are not numbers that fit it.
        ValueError: if another argument cannot be used; see `train_and_track_gradients`.

    Example:
        >>> from kgrad import create_model, make_dataset
        >>> data = make_dataset("moons", 64)
        >>> model = create_model(2, "relu", "he", units=8, input_shape=(2,), seed=0)
        >>> measure_gradients(model, data.X, data.y)["mean_abs"].shape  # (records, weights)
        (1, 6)
    """
    require_trainable(model)
    _require_outside_scope("measure_gradients", model)
    X, y = as_arrays(model, X, y)
    loss_function = choose_loss(model, y, loss)
    require_labels(model, X, y, loss)
    metadata = describe_run(model, None, loss_function) | {"samples": len(X)}
    recorder = Recorder(model, statistics, metadata=metadata)
    state = [keras.ops.copy(variable) for variable in model.non_trainable_variables]
    try:
        value, gradients, _ = backend.backward(model, X, y, loss_function)
    finally:
        for variable, before in zip(model.non_trainable_variables, state, strict=True):
            variable.assign(before)
    readable = backend.readable_gradients(gradients)
    recorder.update(recorder.variables, readable, readable)
    recorder.record(0, 0, {"loss": float(value)}, before_training=True)
    return recorder.history


def _require_outside_scope(function: str, model: keras.Model) -> None:
    """Raise in the scope of a strategy: what is computed there belongs to no replica."""
    if backend.under_strategy() and backend.workers(model).replicas > 1:
        raise ValueError(
            f"{function} must be called outside of the scope of a distribution strategy, received "
            "a call inside: leave `with strategy.scope():` once model and optimizer are made"
        )


def _resolve_jit(jit_compile: bool | str, model: keras.Model, steps: int) -> bool:
    if jit_compile not in (True, False, "auto"):
        raise ValueError(f'jit_compile must be True, False or "auto", received {jit_compile!r}')
    if jit_compile != "auto":
        return bool(jit_compile)
    supported = all(layer.supports_jit for layer in model._flatten_layers())
    return supported and steps >= backend.STEPS_THAT_REPAY_COMPILING


def _described(epoch: int, logs: Callable[[], dict[str, float]]) -> str:
    """Return the epoch and its logs in a line."""
    return "  ".join([f"epoch {epoch}", *(f"{name} {value:.4g}" for name, value in logs().items())])

"""`train_and_track_gradients`: many training steps in one call of one compiled function.

The loop is Keras's `fit` with the parts between the steps taken out. `fit` returns to Python after
each step; here the steps of a whole epoch run inside one `tf.function`, with the gradients measured
where they are made.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.backends.tensorflow.accumulators import cheapest_way
from kgrad.measure.backends.tensorflow.probe import Probe
from kgrad.measure.backends.tensorflow.recorder import Recorder
from kgrad.measure.backends.tensorflow.steps import TrainingLoop, backward
from kgrad.measure.backends.tensorflow.taps import clips
from kgrad.measure.descriptions import describe_run
from kgrad.measure.inputs import as_arrays, choose_loss, choose_optimizer, require_trainable
from kgrad.measure.record_loop import track
from kgrad.records.checks import require_every, require_integer, require_probe, require_seed
from kgrad.records.history import GradientHistory

# XLA compiles for about a second and then saves 0.1 to 1 ms a step: it pays beyond this many.
_STEPS_THAT_REPAY_XLA = 5000


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
    metadata: Mapping[str, Any] | None = None,
    verbose: int = 0,
) -> GradientHistory:
    """Train a model and record the gradients that trained it.

    Trains as `fit` would: every sample once an epoch, the last partial batch included,
    `training=True`, regularisation losses and the compiled metrics counted. What is recorded is the
    gradient of the loss at each step, unscaled and before clipping, of the very step that updates
    the weights. The first record, epoch 0, is the gradient before the first update: that of the
    first step, which counts in epoch 1 as well.

    Ctrl-C ends the training between two steps; what was recorded is returned, the unfinished
    epoch as a last record, with `metadata["interrupted"]` true.

    Args:
        model: a built Keras model with one output; it is trained in place.
        X: inputs, (samples, ...), as the model takes them.
        y: targets, (samples,) or (samples, ...).
        epochs: number of passes over the data, at least 1.
        batch_size: samples a step.
        optimizer: a Keras optimizer, its name or configuration; by default the one the model was
            compiled with, else SGD with learning rate 0.01.
        loss: a Keras loss, its name or a function; by default the one the model was compiled with,
            else what its last activation asks for (sigmoid: binary cross-entropy, softmax:
            categorical cross-entropy, linear: mean squared error).
        statistics: names of statistics beside those that are always recorded.
        clipped: whether to record what clipping left and how often it acted, as `clipped_l2` and
            `clipped_steps`; by default if the optimizer clips.
        distributions: whether to count each gradient's entries by magnitude: a histogram of
            log10 |g| of at most 2,048 entries a weight and step, in `history.distributions`.
        probe: (X, y): a fixed batch on which the activations and the signals that come back to
            them are measured at each record, in `history.activations`.
        every: `"epoch"`, or the number of steps that make a record.
        shuffle: whether each epoch takes the samples in a new order.
        seed: of that order; None takes one from NumPy's global generator, which
            `keras.utils.set_random_seed` sets. It is in the history's metadata.
        jit_compile: whether XLA compiles the loop. "auto" means: if every layer supports it and
            the run is long enough, 5,000 steps, to repay the compilation.
        journal: file that each record is appended to as it is made.
        metadata: what the history's metadata shall say beside versions, device and arguments.
        verbose: 0 for silence, 1 for a progress bar with loss and time left.

    Returns:
        The history: one record before training, then one an epoch or every `every` steps.

    Raises:
        OSError: if the journal cannot be written.
        TypeError: if the model is not a Keras model or the data are not numbers that fit it.
        ValueError: if another argument is not as said here. All raised before training starts.

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
    training = Training(
        model,
        X,
        y,
        epochs,
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
    return training.run(seed, journal=journal, metadata=metadata, verbose=verbose)


class Training:
    """What `train_and_track_gradients` does, made once, to be run from several starts.

    A run trains the model from the weights that it then has, with the optimizer as it was when this
    was made. The steps are compiled in the first run only.

    Args and errors are those of `train_and_track_gradients`.
    """

    def __init__(
        self,
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
        jit_compile: bool | Literal["auto"] = "auto",
    ) -> None:
        """Refuse what cannot be trained, and make what all runs share."""
        require_trainable(model)
        for name, value in (("epochs", epochs), ("batch_size", batch_size)):
            require_integer(name, value, 1)
        require_every(every)
        require_probe(probe)
        # NumPy's integers would not mix with TensorFlow's, nor go into a JSON file.
        self._epochs, batch_size = int(epochs), int(batch_size)
        self._every = every if every == "epoch" else int(every)
        X, y = as_arrays(model, X, y)
        loss_function = choose_loss(model, y, loss)
        optimizer = choose_optimizer(model, optimizer)
        jit = _resolve_jit(jit_compile, model, self._epochs * -(-len(X) // batch_size))
        self._shuffle = shuffle
        self._described = describe_run(model, optimizer, loss_function) | {
            "jit_compile": jit,
            "shuffle": shuffle,
            "epochs": self._epochs,
            "batch_size": batch_size,
            "every": self._every,
            "samples": len(X),
        }
        self._probe = None if probe is None else Probe(model, *probe, loss_function)
        self._recorder = Recorder(
            model,
            statistics,
            clipped=clips(optimizer) if clipped is None else clipped,
            distributions=distributions,
            outputs=() if self._probe is None else self._probe.outputs,
            way=cheapest_way(jit, optimizer),
        )
        self._loop = TrainingLoop(
            model, X, y, batch_size, optimizer, loss_function, jit, self._recorder
        )
        self._optimizer_start = [(v, v.numpy()) for v in optimizer.variables]

    def run(
        self,
        seed: int | None = None,
        *,
        journal: str | os.PathLike[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        verbose: int = 0,
    ) -> GradientHistory:
        """Train from the weights as they are."""
        require_seed(seed)
        seed = int(np.random.randint(2**31)) if seed is None else int(seed)  # noqa: NPY002 (Keras's seed)
        seed = seed if self._shuffle else None
        self._recorder.begin(journal, self._described | {"seed": seed} | dict(metadata or {}))
        try:
            for variable, start in self._optimizer_start:
                variable.assign(start)
            return track(
                self._loop, self._recorder, self._probe, self._epochs, self._every, seed, verbose
            )
        finally:
            self._recorder.close()


def measure_gradients(
    model: keras.Model, X: Any, y: Any, loss: Any = None, *, statistics: Iterable[str] = ()
) -> GradientHistory:
    """Measure the gradients of one backward pass over all of `X`, without training.

    The pass is one of training (dropout drops, batch normalisation takes the batch's moments), and
    everything it changes in the model is put back.

    Args:
        model: a built Keras model with one output.
        X: inputs, (samples, ...): one batch.
        y: targets, (samples,) or (samples, ...).
        loss: as in `train_and_track_gradients`.
        statistics: names of statistics beside those that are always recorded.

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
    X, y = as_arrays(model, X, y)
    loss_function = choose_loss(model, y, loss)
    metadata = describe_run(model, None, loss_function) | {"samples": len(X)}
    recorder = Recorder(model, statistics, metadata=metadata)
    state = [variable.numpy() for variable in model.non_trainable_variables]
    try:
        value, gradients, _ = backward(model, tf.constant(X), tf.constant(y), loss_function)
    finally:
        for variable, before in zip(model.non_trainable_variables, state, strict=True):
            variable.assign(before)
    recorder.update(recorder.variables, gradients, gradients)
    recorder.record(0, 0, {"loss": float(value)}, before_training=True)
    return recorder.history


def _resolve_jit(jit_compile: bool | str, model: keras.Model, steps: int) -> bool:
    if jit_compile not in (True, False, "auto"):
        raise ValueError(f'jit_compile must be True, False or "auto", received {jit_compile!r}')
    if jit_compile != "auto":
        return bool(jit_compile)
    supported = all(layer.supports_jit for layer in model._flatten_layers())
    return supported and steps >= _STEPS_THAT_REPAY_XLA

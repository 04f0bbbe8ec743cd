"""`GradientTracker` from the first fit to the last: what it leaves behind, survives and refuses."""

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tape_oracle import Tape, assert_records, assert_same_training, batches_of, fit, statistics

import kgrad.measure.tracker
from kgrad.measure.tracker import GradientTracker
from kgrad.records.history import GradientHistory

TREE = Path(kgrad.__file__).parents[1]
RANDOM = np.random.default_rng(12345)
X = RANDOM.normal(size=(29, 5)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
STEPS = 4
# Keras's own, of saving under NumPy 2.
SAVING_WARNS = "ignore:__array__ implementation doesn't accept a copy keyword"


def plain(optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9), **options):
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, "tanh", name="hidden"), layers.Dense(1, name="output")]
    )
    model.compile(optimizer(), "mse", **options)
    return model


def go_on(model, callbacks=(), **options):
    """Train a model further, in the same order."""
    options = {"epochs": 1, "batch_size": 8, "shuffle": False, "verbose": 0} | options
    return model.fit(X, Y, callbacks=list(callbacks), **options)


def tape_of(epochs, x=X, **options):
    """A tape's record of an untracked training."""
    tape = Tape(batches_of(x, Y))
    fit(plain, x, Y, callbacks=[tape], epochs=epochs, **options)
    return tape


# ---- No trace ------------------------------------------------------------------------------------


class FailureError(Exception):
    """What goes wrong in these tests."""


class Raises(keras.callbacks.Callback):
    def __init__(self, error, step=6):
        super().__init__()
        self.error, self.left = error, step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise self.error


class Stops(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.model.stop_training = batch == 1


class FailingStep(keras.Sequential):
    """Fails when its step is traced for the last, partial batch."""

    def train_step(self, data):
        x, _ = data
        if x.shape[0] != 8:
            raise FailureError
        return super().train_step(data)


class InterruptedStep(keras.Sequential):
    def train_step(self, data):
        raise KeyboardInterrupt


def batches_that_fail():
    yield from batches_of(X, Y)
    yield from batches_of(X, Y)[:2]
    raise FailureError


def failing_data(tracker):
    model = plain()
    with pytest.raises(tf.errors.OpError):
        model.fit(batches_that_fail(), verbose=0, shuffle=False, callbacks=[tracker])
    return model


def failing_callback(tracker):
    model = plain()
    with pytest.raises(FailureError):
        go_on(model, [tracker, Raises(FailureError())], epochs=3)
    tracker.detach()
    return model


def interrupting_callback(tracker):
    model = plain()
    with pytest.raises(KeyboardInterrupt):
        go_on(model, [Raises(KeyboardInterrupt()), tracker], epochs=3)
    tracker.detach()
    return model


def interrupted_with(tracker):
    model = plain()
    with pytest.raises(KeyboardInterrupt), tracker:
        go_on(model, [tracker, Raises(KeyboardInterrupt())], epochs=3)
    return model


def failing_step(tracker, kind=FailingStep, error=FailureError):
    model = kind(plain().layers)
    model.build((None, 5))
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(error):
        go_on(model, [tracker])
    return model


def interrupted_step(tracker):
    return failing_step(tracker, InterruptedStep, KeyboardInterrupt)


def whole(tracker):
    model = plain()
    go_on(model, [tracker], epochs=2)
    return model


def stopped(tracker):
    model = plain()
    go_on(model, [Stops(), tracker], epochs=2)
    return model


def with_two_trackers(tracker):
    model = plain()
    go_on(model, [tracker, GradientTracker(every=1, weights="hidden")], epochs=2)
    return model


ENDS = [
    whole,
    stopped,
    with_two_trackers,
    failing_data,
    failing_callback,
    interrupting_callback,
    interrupted_with,
    failing_step,
    interrupted_step,
]


def state(instance):
    """What an instance holds, but for what every use of it changes."""
    return {name: type(value) for name, value in vars(instance).items() if name != "history"}


@pytest.mark.parametrize("end", ENDS)
def test_nothing_is_left_in_the_model(end):
    class Idle(keras.callbacks.Callback):
        def detach(self):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            pass

    keras.utils.set_random_seed(3)
    tracked = end(GradientTracker())
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    untracked = end(Idle())
    for one, other in ((tracked, untracked), (tracked.optimizer, untracked.optimizer)):
        assert state(one) == state(other)
    assert tracked.train_function.__qualname__ == untracked.train_function.__qualname__
    assert_same_training(tracked, untracked)
    assert tracked.optimizer.get_config() == untracked.optimizer.get_config()


@pytest.mark.parametrize("end", [whole, failing_data, failing_callback])
def test_a_further_fit_is_not_recorded_and_is_that_of_a_model_never_tracked(end):
    def further(model):
        go_on(model, epochs=2)
        return model

    keras.utils.set_random_seed(3)
    tracker = GradientTracker()
    model = end(tracker)
    records = len(tracker.history)
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    twin = plain()
    go_on(twin, epochs=1)
    if end is whole:
        go_on(twin, epochs=1)
    else:
        twin.fit(X[:16], Y[:16], batch_size=8, shuffle=False, verbose=0)
    for a, b in zip(further(model).get_weights(), further(twin).get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(tracker.history) == records


def saved(model, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


@pytest.mark.filterwarnings(SAVING_WARNS)
@pytest.mark.parametrize("attached", [False, True])
def test_a_model_can_be_saved_and_copied_as_ever(tmp_path, attached):
    model, untracked = fit(plain, X, Y, callbacks=[tracker := GradientTracker()]), plain()
    if attached:  # as after an exception in a callback
        tracker.attach(model.optimizer, model)
    model.evaluate(X, Y, verbose=0)
    expected = model.predict(X, verbose=0)
    for copied in (
        saved(model, tmp_path),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ):
        np.testing.assert_array_equal(copied.predict(X, verbose=0), expected)
        copied.fit(X, Y, verbose=0)
        assert not {"_clip_gradients", "make_train_function"} & {
            *vars(copied),
            *vars(copied.optimizer),
        }
    assert keras.models.clone_model(model).get_config() == model.get_config()
    model.export(tmp_path / "export", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(loaded.serve(X), expected, 1e-5, 1e-6)
    configs = [m.get_compile_config()["optimizer"]["config"] for m in (model, untracked)]
    assert configs[0] | {"name": ""} == configs[1] | {"name": ""}
    before = len(tracker.history)
    tracker.detach()
    assert len(tracker.history) == before


def test_evaluate_and_predict_are_not_tracked():
    tracker = GradientTracker()
    model = plain()
    model.evaluate(X, Y, verbose=0, callbacks=[tracker])
    model.predict(X, verbose=0, callbacks=[tracker])
    with pytest.raises(RuntimeError, match="nothing was tracked yet"):
        _ = tracker.history
    go_on(model, [tracker], validation_data=(X, Y))
    before = len(tracker.history)
    model.evaluate(X, Y, verbose=0, callbacks=[tracker])
    model.predict(X, verbose=0, callbacks=[tracker])
    assert len(tracker.history) == before == 2
    assert set(tracker.history.logs) == {"loss", "val_loss"}


def test_two_trackers_at_once_record_the_same():
    one, other = GradientTracker(), GradientTracker(["max_abs"], every=2)
    tracked = fit(plain, X, Y, callbacks=[one, other])
    tape = tape_of(2)
    assert_records(one.history, tape.records())
    steps = tape.steps
    assert_records(other.history, [steps[:1], *(steps[i : i + 2] for i in range(0, 8, 2))])
    assert_same_training(tracked, fit(plain, X, Y))


# ---- Cut off -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "epochs", "steps"),
    [
        (failing_data, [0, 1], [0, 6]),
        (failing_callback, [0, 1, 2], [0, 4, 6]),
        (interrupting_callback, [0, 1, 2], [0, 4, 6]),
        (interrupted_with, [0, 1, 2], [0, 4, 6]),
        (failing_step, [0, 1], [0, 3]),
    ],
)
def test_what_was_cut_off_is_a_last_record(end, epochs, steps):
    keras.utils.set_random_seed(3)
    tracker = GradientTracker()
    end(tracker)
    assert tracker.history.metadata["interrupted"] is True
    assert tracker.history.epochs.tolist() == epochs
    assert tracker.history.steps.tolist() == steps
    if end is failing_step:
        return
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    tape, model = Tape(batches_of(X, Y)), plain()
    go_on(model, [tape], epochs=2)
    ends = [1, *steps[1:]]
    starts = [0, 0, *steps[1:-1]]
    cut = [tape.steps[a:b] for a, b in zip(starts, ends, strict=True)]
    assert_records(tracker.history, cut)


def test_the_next_fit_mends_what_an_exception_in_a_callback_left():
    keras.utils.set_random_seed(3)
    tracker, model = GradientTracker(), plain()
    with pytest.raises(FailureError):
        go_on(model, [tracker, Raises(FailureError())], epochs=3)
    go_on(model)  # without the tracker
    assert tracker.history.metadata["interrupted"] is True
    assert tracker.history.steps.tolist() == [0, 4, 6]
    assert "make_train_function" not in vars(model)
    go_on(model, [tracker])
    assert tracker.history.steps[-1] == 10


def test_another_model_after_an_exception_begins_a_new_history():
    keras.utils.set_random_seed(3)
    tracker, model = GradientTracker(), plain()
    with pytest.raises(FailureError):
        go_on(model, [tracker, Raises(FailureError())], epochs=3)
    go_on(plain(), [tracker])
    assert [h.steps.tolist() for h in tracker.previous] == [[0, 4, 6]]
    assert tracker.history.steps.tolist() == [0, 4]
    assert "_clip_gradients" not in vars(model.optimizer)


def test_a_fit_that_is_stopped_records_what_there_was():
    keras.utils.set_random_seed(3)
    tracker = GradientTracker()
    stopped(tracker)
    assert tracker.history.steps.tolist() == [0, 2]
    assert "interrupted" not in tracker.history.metadata


# ---- Fit and fit again ---------------------------------------------------------------------------


def test_a_second_fit_goes_on(tmp_path):
    journal = tmp_path / "j.jsonl"
    tracker = GradientTracker(journal=journal)
    model = fit(plain, X, Y, callbacks=[tracker])
    go_on(model, [tracker], epochs=3)
    history = tracker.history
    assert history.epochs.tolist() == [0, 1, 2, 3, 4, 5]
    assert history.steps.tolist() == [0, 4, 8, 12, 16, 20]
    assert_records(history, tape_of(5).records())
    history.save(tmp_path / "saved")
    assert journal.read_bytes() == (tmp_path / "saved").read_bytes()
    assert tracker.previous == []


def test_steps_between_two_fits_are_not_recorded():
    keras.utils.set_random_seed(3)
    model, tracker = plain(), GradientTracker()
    go_on(model, [tracker])
    before = model.get_weights()
    go_on(model)
    between = model.get_weights()
    go_on(model, [tracker])
    assert tracker.history.steps.tolist() == [0, 4, 8]
    moved = [np.linalg.norm(a - b) for a, b in zip(model.get_weights(), between, strict=True)]
    np.testing.assert_allclose(tracker.history["update_l2"][-1], moved, 1e-4)
    assert not np.array_equal(before[0], between[0])


def test_an_initial_epoch_is_respected():
    tracker = GradientTracker()
    model = fit(plain, X, Y, callbacks=[tracker], epochs=5, initial_epoch=3)
    assert tracker.history.epochs.tolist() == [3, 4, 5]  # before the fourth: the state after 3
    go_on(model, [tracker], epochs=7, initial_epoch=5)
    assert tracker.history.epochs.tolist() == [3, 4, 5, 6, 7]
    assert tracker.history.steps.tolist() == [0, 4, 8, 12, 16]


def test_unfreezing_begins_a_new_history_and_epochs_go_on(tmp_path):
    keras.utils.set_random_seed(3)
    tracker, model = GradientTracker(journal=tmp_path / "j.jsonl"), plain()
    model.layers[0].trainable = False
    model.compile("sgd", "mse")
    go_on(model, [tracker], epochs=2)
    frozen = tracker.history
    assert frozen.layers == ("output",)
    model.layers[0].trainable = True
    model.compile("sgd", "mse")
    go_on(model, [tracker], epochs=2)
    assert tracker.previous == [frozen]
    assert tracker.history.layers == ("hidden", "output")
    assert frozen.epochs.tolist() == [0, 1, 2]
    # The first is the gradient before the first update of these weights.
    assert tracker.history.epochs.tolist() == [2, 3, 4]
    assert tracker.history.steps.tolist() == [8, 12, 16]
    assert len(GradientHistory.load(tmp_path / "j.jsonl")) == 3
    assert len(GradientHistory.load(tmp_path / "j-2.jsonl")) == 3


def test_another_model_begins_a_new_history():
    tracker = GradientTracker()
    fit(plain, X, Y, callbacks=[tracker])
    first = tracker.history
    fit(plain, X, Y, callbacks=[tracker], epochs=1)
    assert tracker.previous == [first]
    assert tracker.history.epochs.tolist() == [0, 1]
    assert tracker.history.steps.tolist() == [0, 4]
    np.testing.assert_array_equal(tracker.history["mean_abs"], first["mean_abs"][:2])


def test_a_second_compile_with_the_same_weights_goes_on():
    tracker = GradientTracker()
    model = fit(plain, X, Y, callbacks=[tracker], epochs=1)
    model.compile("adam", "mae")
    go_on(model, [tracker])
    assert tracker.history.steps.tolist() == [0, 4, 8]
    assert tracker.previous == []


def test_an_optimizer_that_skips_no_steps_may_follow_one_that_does():
    tracker = GradientTracker()
    scaled = keras.optimizers.LossScaleOptimizer
    model = fit(lambda: plain(lambda: scaled(keras.optimizers.SGD(0.1))), X, Y, callbacks=[tracker])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    go_on(model, [tracker])
    model.compile(scaled(keras.optimizers.SGD(0.1)), "mse")
    go_on(model, [tracker])
    assert tracker.history.steps.tolist() == [0, 4, 8, 12, 16]
    tape = Tape(batches_of(X, Y))
    fit(lambda: plain(lambda: keras.optimizers.SGD(0.1)), X, Y, callbacks=[tape], epochs=4)
    assert_records(tracker.history, tape.records())


# ---- Every so many steps -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "epochs", "steps"),
    [
        (1, [0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3], list(range(13))),
        (3, [0, 1, 2, 3, 3], [0, 3, 6, 9, 12]),
        (5, [0, 2, 3, 3], [0, 5, 10, 12]),
        (100, [0, 3], [0, 12]),
    ],
)
def test_a_record_every_so_many_steps(every, epochs, steps):
    tracker = GradientTracker(every=every)
    tracked = fit(plain, X, Y, callbacks=[tracker], epochs=3)
    assert tracker.history.epochs.tolist() == epochs
    assert tracker.history.steps.tolist() == steps
    tape = tape_of(3)
    parts = [tape.steps[a:b] for a, b in pairwise(steps)]
    assert_records(tracker.history, [tape.steps[:1], *parts])
    assert_same_training(tracked, fit(plain, X, Y, epochs=3))
    assert tracker.history.metadata["every"] == every


# ---- NaN -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", ["epoch", 1, 3])
def test_nan_is_recorded_and_its_first_step_known(every):
    x = X.copy()
    x[17] = np.nan  # in the third step, after which the weights are NaN too
    tracker = GradientTracker(["max_abs"], every=every)
    tracked = fit(plain, x, Y, callbacks=[tracker], epochs=3)
    history = tracker.history
    ends = history.steps.tolist()
    for i in range(1, len(history)):
        steps = range(ends[i - 1] + 1, ends[i] + 1)
        bad = [step for step in steps if step >= 3]
        assert (history["nonfinite_steps"][i] == len(bad)).all()
        assert (history["first_nonfinite_step"][i] == (bad[0] if bad else 0)).all()
        for name in ("mean_abs", "l2_norm", "max_abs"):
            assert (np.isnan(history[name][i]) == bool(bad)).all()
    assert_same_training(tracked, fit(plain, x, Y, epochs=3))


class Zeros(keras.constraints.Constraint):
    """Sets a weight to 0 after each update."""

    def __call__(self, weight):
        return tf.zeros_like(weight)


def test_a_nan_in_one_layer_is_not_one_of_the_others():
    class Poisoned(keras.Sequential):
        def train_step(self, data):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(data[0], training=True) - data[1]) ** 2)
            gradients = tape.gradient(loss, self.trainable_variables)
            gradients[1] += tf.where(self.optimizer.iterations.value == 5, np.nan, 0.0)
            self.optimizer.apply(gradients, self.trainable_variables)
            return {"loss": loss}

    keras.utils.set_random_seed(3)
    model = Poisoned(plain().layers)
    model.layers[0].bias.constraint = Zeros()  # so that the NaN does not stay
    model.compile(keras.optimizers.SGD(0.1))
    tracker = GradientTracker()
    go_on(model, [tracker], epochs=2)
    np.testing.assert_array_equal(tracker.history["nonfinite_steps"][-1], [0, 1, 0, 0])
    np.testing.assert_array_equal(tracker.history["first_nonfinite_step"][-1], [0, 6, 0, 0])
    np.testing.assert_array_equal(tracker.history.by_layer("nonfinite_steps")[-1], [1, 0])


# ---- Logs ----------------------------------------------------------------------------------------


def test_the_logs_say_what_the_history_says(tmp_path):
    tracker = GradientTracker(log="layers")
    keras.utils.set_random_seed(3)
    model = plain()
    fitted = go_on(
        model, [tracker, keras.callbacks.CSVLogger(tmp_path / "log.csv")], epochs=3
    ).history
    history = tracker.history
    norm = np.sqrt((history["l2_norm"] ** 2).sum(axis=1))[1:]
    means = history.by_layer("mean_abs")[1:]
    moved, weights = (np.linalg.norm(history[n], axis=1)[1:] for n in ("update_l2", "weight_l2"))
    expected = {
        "grad/l2_norm": norm,
        "grad/first_to_last": means[:, 0] / means[:, 1],
        "grad/update_ratio": moved / weights,
        "grad/nonfinite_steps": [0, 0, 0],
        "grad/mean_abs/hidden": means[:, 0],
        "grad/mean_abs/output": means[:, 1],
    }
    assert set(fitted) == {"loss", *expected}
    for name, values in expected.items():
        np.testing.assert_allclose(fitted[name], values, 1e-12, err_msg=name)
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    assert set(header.split(",")) >= {"epoch", *fitted}
    assert len(rows) == 3
    # What the history keeps of the logs is the loss, not its own numbers again.
    assert set(history.logs) == {"loss"}
    np.testing.assert_allclose(history.logs["loss"][1:], fitted["loss"], 1e-12)


@pytest.mark.filterwarnings(SAVING_WARNS)
def test_callbacks_behind_the_tracker_can_act_on_its_logs(tmp_path):
    stop = keras.callbacks.EarlyStopping("grad/l2_norm", mode="max", patience=0)
    keep = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}.keras", "grad/l2_norm", mode="min", save_best_only=True
    )
    slow = keras.callbacks.ReduceLROnPlateau(
        "grad/nonfinite_steps", mode="min", factor=0.5, patience=1, min_delta=0.5
    )
    keras.utils.set_random_seed(3)
    model = plain(lambda: keras.optimizers.SGD(0.1))
    fitted = go_on(model, [GradientTracker(), keep, slow, stop], epochs=9).history
    norms = fitted["grad/l2_norm"]
    assert len(norms) < 9
    assert norms[-1] <= max(norms[:-1])
    best = [i + 1 for i in range(len(norms)) if norms[i] < min([*norms[:i], np.inf])]
    assert sorted(int(p.stem) for p in tmp_path.iterdir()) == best
    assert float(model.optimizer.learning_rate) < 0.1


def test_no_logs_where_none_are_asked_for():
    keras.utils.set_random_seed(3)
    assert set(go_on(plain(), [GradientTracker(log=False)]).history) == {"loss"}
    several = {"loss", "grad/l2_norm", "grad/first_to_last", "grad/update_ratio"}
    assert set(go_on(plain(), [GradientTracker()]).history) == several | {"grad/nonfinite_steps"}


# ---- The journal ---------------------------------------------------------------------------------

KILLED = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, sys.argv[2])
from kgrad.measure.tracker import GradientTracker
from tape_oracle import fit
from measure.test_tracker_cases import X, Y, plain
fit(plain, X, Y, callbacks=[GradientTracker(journal=sys.argv[1])], epochs=10**6)
"""


def test_what_is_killed_leaves_its_records(tmp_path):
    journal = tmp_path / "j.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(journal), str(TREE / "tests")],
        env=os.environ | {"PYTHONPATH": str(TREE)},
    )
    try:
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 5:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    killed = GradientHistory.load(journal)
    assert killed.steps.tolist() == [STEPS * i for i in range(len(killed))]
    expected = [statistics(steps)["mean_abs"] for steps in tape_of(3).records()]
    np.testing.assert_allclose(killed["mean_abs"][:4], expected, 1e-5)


def test_a_journal_that_cannot_be_written_is_an_os_error_before_training(tmp_path):
    model = plain()
    with pytest.raises(OSError, match="nowhere"):
        go_on(model, [GradientTracker(journal=tmp_path / "nowhere" / "j.jsonl")])
    assert not model.optimizer.iterations.numpy()
    assert "_clip_gradients" not in vars(model.optimizer)
    assert "make_train_function" not in vars(model)
    go_on(model)


# ---- Distributions, a probe, TensorBoard ---------------------------------------------------------


def exponents(steps):
    """Counts of float32 exponents, as np.frexp has them: (weights, 256)."""
    counts = np.zeros((len(steps[0]), 256), dtype=int)
    for step in steps:
        for row, gradient in zip(counts, step, strict=True):
            values = gradient.astype(np.float32).ravel()
            exponent = np.frexp(values)[1] + 126
            np.add.at(row, np.where(values == 0, 0, np.clip(exponent, 0, 255)), 1)
    return counts


@pytest.mark.parametrize("jit", [False, True])
def test_distributions_count_the_exponents_of_every_entry(jit):
    def make():
        return plain(jit_compile=jit)

    tracker, tape = GradientTracker(distributions=True), Tape(batches_of(X, Y))
    tracked = fit(make, X, Y, callbacks=[tracker])
    assert_same_training(tracked, fit(make, X, Y, callbacks=[tape]))
    expected = np.stack([exponents(steps) for steps in tape.records()])
    counts = tracker.history.distributions
    np.testing.assert_array_equal(counts.sum(axis=2), expected.sum(axis=2))
    # An entry next to a power of two may be rounded across it.
    assert np.abs(counts - expected).sum() <= 2


def test_a_probe_measures_at_each_record():
    # The activations of the plain model by hand, with the weights of each record.
    values = []

    class Weights(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            values.append(self.model.get_weights())

        def on_epoch_end(self, epoch, logs=None):
            values.append(self.model.get_weights())

    tracker = GradientTracker(probe=(X, Y))
    tracked = fit(plain, X, Y, callbacks=[tracker, Weights()])
    assert_same_training(tracked, fit(plain, X, Y))
    history = tracker.history
    assert history.outputs == ("hidden", "output")
    hidden = [np.tanh(X @ kernel + bias) for kernel, bias, *_ in values]
    means = [a.mean(dtype=np.float64) for a in hidden]
    np.testing.assert_allclose(history.activations["activation_mean"][:, 0], means, 1e-4, 1e-7)
    signals = []
    for a, (*_, kernel, bias) in zip(hidden, values, strict=True):
        signals.append(np.linalg.norm(2 / len(X) * (a @ kernel + bias - Y).astype(np.float64)))
    np.testing.assert_allclose(history.activations["signal_l2"][:, 1], signals, 1e-4)


def test_a_probe_does_not_change_the_training():
    def make():
        model = keras.Sequential(
            [
                keras.Input((5,)),
                layers.Dense(6),
                layers.BatchNormalization(),
                layers.Dropout(0.4),
                layers.Dense(1),
            ]
        )
        model.compile("adam", "mse", metrics=["mae"])
        return model

    tracked = fit(make, X, Y, callbacks=[GradientTracker(probe=(X, Y))])
    assert_same_training(tracked, fit(make, X, Y))


def accumulated(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def test_records_are_written_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    tracker = GradientTracker(log_dir=tmp_path)
    fit(plain, X, Y, callbacks=[tracker])
    events = accumulated(tmp_path)
    written = {
        event.step: float(tf.make_ndarray(event.tensor_proto))
        for event in events.Tensors("grad/mean_abs/hidden")
    }
    means = tracker.history.by_layer("mean_abs")[:, 0]
    assert list(written) == [0, 1, 2]
    np.testing.assert_allclose(list(written.values()), means, 1e-6)


def test_every_so_many_steps_tensorboard_has_distributions(tmp_path):
    pytest.importorskip("tensorboard")
    tracker = GradientTracker(log_dir=tmp_path, distributions=True, every=3)
    fit(plain, X, Y, callbacks=[tracker])
    events = accumulated(tmp_path)
    histograms = events.Tensors("grad/log10_abs/sequential/hidden/kernel")
    assert [event.step for event in histograms] == tracker.history.steps.tolist() == [0, 3, 6, 8]
    counts = tf.make_ndarray(histograms[1].tensor_proto)[:, 2]
    assert counts.sum() == 3 * 30


# ---- Under a distribution strategy ---------------------------------------------------------------

MIRRORED = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, sys.argv[2])
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kgrad.measure.tracker import GradientTracker
from tape_oracle import assert_same_training, fit
from measure.test_tracker_cases import X, Y, plain
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2

for clipnorm in (None, 0.5):
    def make():
        with strategy.scope():
            return plain(lambda: keras.optimizers.SGD(0.1, clipnorm=clipnorm))

    tracker = GradientTracker(["max_abs"], distributions=True)
    tracked = fit(make, X[:24], Y[:24], callbacks=[tracker])
    assert_same_training(tracked, fit(make, X[:24], Y[:24]))
    assert "_clip_gradients" not in vars(tracked.optimizer)
    tracker.history.save(f"{sys.argv[1]}/{clipnorm}")
"""


def test_under_a_mirrored_strategy_the_gradient_is_that_of_the_whole_batch(tmp_path):
    subprocess.run(
        [sys.executable, "-c", MIRRORED, str(tmp_path), str(TREE / "tests")],
        env=os.environ | {"PYTHONPATH": str(TREE)},
        check=True,
        timeout=120,
    )

    tape = Tape(batches_of(X[:24], Y[:24]))
    fit(lambda: plain(lambda: keras.optimizers.SGD(0.1)), X[:24], Y[:24], callbacks=[tape])
    history, clipped = (GradientHistory.load(tmp_path / name) for name in ("None", "0.5"))
    assert history.steps.tolist() == clipped.steps.tolist() == [0, 3, 6]
    assert_records(history, tape.records())
    assert (history.distributions[0].sum(axis=1) == [30, 6, 6, 1]).all()
    # Clipping makes the training another one, but not the first gradient.
    np.testing.assert_allclose(clipped["l2_norm"][0], history["l2_norm"][0], 1e-6)
    assert (clipped["clipped_l2"][0] <= clipped["l2_norm"][0] * (1 + 1e-6)).all()
    assert clipped["clipped_steps"].sum()


# ---- Refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "every"),
        ({"every": "step"}, (TypeError, ValueError), "every"),
        ({"every": 2.5}, (TypeError, ValueError), "every"),
        ({"log": "all"}, ValueError, "log must be True, False or \"layers\", received 'all'"),
        ({"statistics": ["median"]}, ValueError, "median"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(options, error, message):
    with pytest.raises(error, match=message) as raised:
        GradientTracker(**options)
    assert "\n" not in str(raised.value)


def test_a_model_without_weights_to_train_is_refused_before_training():
    model = plain()
    model.trainable = False
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="must have trainable weights, received none"):
        go_on(model, [GradientTracker()])


class Pair(keras.Model):
    """Two models side by side, with two optimizers that know their weights."""

    def __init__(self):
        super().__init__()
        self.parts = [keras.Sequential([layers.Dense(5, name=name)]) for name in ("one", "other")]
        self.first, self.second = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1)
        for part, optimizer in zip(self.parts, (self.first, self.second), strict=True):
            part.build((None, 5))
            optimizer.build(part.trainable_variables)
        self.built = True

    def train_step(self, data):
        for part, optimizer in zip(self.parts, (self.first, self.second), strict=True):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(part(data[0]) ** 2)
            gradients = tape.gradient(loss, part.trainable_variables)
            optimizer.apply(gradients, part.trainable_variables)
        return {"loss": loss}


def test_each_optimizer_has_a_journal_and_logs_of_its_own(tmp_path):
    keras.utils.set_random_seed(3)
    model = Pair()
    model.compile()
    tracker = GradientTracker(journal=tmp_path / "j.jsonl")
    fitted = go_on(model, [tracker], epochs=2).history
    assert sorted(path.name for path in tmp_path.iterdir()) == ["j-first.jsonl", "j-second.jsonl"]
    for name, layer in (("first", "sequential/one"), ("second", "sequential_1/other")):
        read = GradientHistory.load(tmp_path / f"j-{name}.jsonl")
        assert read.layers == (layer,)
        np.testing.assert_array_equal(read["l2_norm"], tracker.histories[name]["l2_norm"])
        norms = np.linalg.norm(read["l2_norm"], axis=1)[1:]
        np.testing.assert_allclose(fitted[f"grad/{name}/l2_norm"], norms, 1e-12)


def test_what_is_refused_for_one_of_two_optimizers_leaves_no_trace_in_the_other():
    model = Pair()
    model.compile()
    with pytest.raises(ValueError, match=r"weights must match a .*, received 'one-'"):
        go_on(model, [GradientTracker(weights=["o*", "one-"])])
    assert "_clip_gradients" not in vars(model.first)
    tracker = GradientTracker(journal="/nowhere/j.jsonl")
    with pytest.raises(OSError, match="nowhere"):
        go_on(model, [tracker])
    for optimizer in (model.first, model.second):
        assert "_clip_gradients" not in vars(optimizer)
        assert not optimizer.iterations.numpy()


def test_one_of_two_optimizers_is_watched():
    keras.utils.set_random_seed(3)
    model = Pair()
    model.compile()
    tracker = GradientTracker(weights="other")
    assert "grad/l2_norm" in go_on(model, [tracker], epochs=2).history
    assert list(tracker.histories) == ["second"]
    assert tracker.history.layers == ("sequential_1/other",)
    assert len(tracker.history) == 3


def test_several_workers_are_refused_in_one_sentence(monkeypatch):
    class Workers:
        pass

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", Workers)
    model = plain()
    tracker = GradientTracker()
    monkeypatch.setattr(type(model), "distribute_strategy", Workers())
    with pytest.raises(ValueError, match="MultiWorkerMirroredStrategy, under which Keras's fit"):
        tracker.set_model(model)


def test_the_metadata_say_what_was_asked_for(tmp_path):
    tracker = GradientTracker(metadata={"note": "a try"})
    fit(plain, X, Y, callbacks=[tracker], epochs=1)
    metadata = tracker.history.metadata
    assert metadata["note"] == "a try"
    since = datetime.now(timezone.utc) - datetime.fromisoformat(metadata["started"])
    assert timedelta(0) <= since < timedelta(minutes=5)
    assert metadata["every"] == "epoch"
    assert metadata["optimizer"].lower() == "sgd"
    json.dumps(metadata)


def test_a_refused_record_can_be_made_again():
    model = kgrad.create_model(2, "relu", "he", units=8, input_shape=(4,), seed=0)
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    ones = [keras.ops.ones(v.shape) for v in model.trainable_variables]
    with GradientTracker().attach(model.optimizer, model) as tracker:
        model.optimizer.apply(ones, model.trainable_variables)
        with pytest.raises(ValueError, match="epoch"):
            tracker.record(epoch=-1)
        tracker.record()
    sizes = [weight.size for weight in tracker.history.weights]
    np.testing.assert_allclose(tracker.history["update_l2"], [0.1 * np.sqrt(sizes)], 1e-5)


def test_a_loop_whose_updates_were_not_seen_is_told_so():
    model = kgrad.create_model(2, "relu", "he", units=8, input_shape=(4,), seed=0)
    model.compile("sgd", "binary_crossentropy")
    tracker = GradientTracker().attach(model.optimizer, model)
    model.trainable_variables[0].assign(keras.ops.zeros((4, 8)))
    with pytest.warns(UserWarning, match="nothing was recorded, because no update"):
        tracker.detach()

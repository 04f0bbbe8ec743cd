"""What only JAX has: loops without side effects, steps that pass their state, many devices."""

import _thread
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import jax
import keras
import numpy as np
import oracle
import pytest
from keras import layers, optimizers

from kgrad.measure.loop import Training, TrainingSettings, train_and_track_gradients
from kgrad.measure.tracker import GradientTracker

RANDOM = np.random.default_rng(12345)
X = RANDOM.normal(size=(24, 6)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
BATCHES = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 24, 8)]
EPOCHS = 2
# Float32 rounds gradients that cancel, by different amounts on different processors.
ROUNDING = 1e-6


def made(optimizer):
    """A model with state beyond its weights, and its optimizer, from the same seed each time."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    hidden = layers.Dense(8, "tanh"), layers.BatchNormalization(), layers.Dropout(0.2)
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(1)])
    optimizer.build(model.trainable_variables)
    return model, optimizer


def values(variables):
    return [v.value for v in variables]


def arrays(tree):
    return [np.array(a) for a in jax.tree.leaves(tree)]  # a view of one keeps it from donation


# ---- A loop of one's own -------------------------------------------------------------------------


class Loop:
    """A loop as Keras documents it for JAX, which takes down its own gradients and weights.

    Attributes:
        state: values of the trainable and the other variables, and of the optimizer's.
        gradients: of each step.
        weights: the trainable values at the start and after each epoch.
    """

    def __init__(self, model, optimizer, how="step", donate=False):
        self.model, self.optimizer, self.how = model, optimizer, how
        donated = (0,) if donate else ()
        step = {
            "step": jax.jit(self._step, donate_argnums=donated),
            "scan": jax.jit(
                lambda state, batches: jax.lax.scan(self._step, state, batches),
                donate_argnums=donated,
            ),
            "eager": self._step,
        }
        self.step = step[how]
        variables = model.trainable_variables, model.non_trainable_variables, optimizer.variables
        self.state = tuple(values(kind) for kind in variables)
        self.gradients, self.weights = [], [arrays(self.state[0])]

    def _step(self, state, batch):
        trainable, rest, of_optimizer = state
        x, y = batch

        def loss(trainable):
            y_pred, new = self.model.stateless_call(trainable, rest, x, training=True)
            value = keras.losses.MeanSquaredError()(y, y_pred)
            return value * 1024 if self.scaled else value, new

        (_, rest), gradients = jax.value_and_grad(loss, has_aux=True)(trainable)
        trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return (trainable, rest, of_optimizer), gradients

    @property
    def scaled(self):
        return isinstance(self.optimizer, optimizers.LossScaleOptimizer)

    def epoch(self):
        if self.how == "scan":
            stacked = tuple(np.stack(part) for part in zip(*BATCHES, strict=True))
            self.state, gradients = self.step(self.state, stacked)
            of_steps = [[g[i] for g in gradients] for i in range(len(BATCHES))]
        else:
            of_steps = []
            for batch in BATCHES:
                self.state, gradients = self.step(self.state, batch)
                of_steps.append(gradients)
        scale = 1024 if self.scaled else 1
        self.gradients += [[np.float64(g) / scale for g in step] for step in of_steps]
        self.weights.append(arrays(self.state[0]))


def norms(gradients):
    return [np.linalg.norm(np.ravel(np.float64(g))) for g in gradients]


def l2_of(steps):
    return np.sqrt(np.mean([np.square(norms(step)) for step in steps], axis=0))


def by_epoch(steps):
    return [steps[i : i + len(BATCHES)] for i in range(0, len(steps), len(BATCHES))]


def changes(weights):
    return [
        norms(np.float64(a) - b for a, b in zip(new, old, strict=True))
        for old, new in pairwise(weights)
    ]


LOOP_OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.1),
    "clipped Adam": lambda: optimizers.Adam(0.01, clipnorm=0.05),
    "averaged AdamW": lambda: optimizers.AdamW(0.01, use_ema=True, global_clipnorm=0.1),
    "scaled": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1), 1024.0),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("SGD", "step"),
        ("SGD", "eager"),
        ("clipped Adam", "scan"),
        ("averaged AdamW", "step"),
        ("scaled", "scan"),
    ],
)
def test_a_loop_of_ones_own_is_recorded_and_not_changed(name, how):
    untracked = Loop(*made(LOOP_OPTIMIZERS[name]()), how)
    for _ in range(EPOCHS):
        untracked.epoch()
    loop = Loop(*made(LOOP_OPTIMIZERS[name]()), how)
    with GradientTracker().attach(loop.optimizer, loop.model) as tracker:
        for epoch in range(EPOCHS):
            loop.epoch()
            tracker.record({"loss": float(epoch)}, weights=loop.state[0])
    for one, other in zip(arrays(untracked.state), arrays(loop.state), strict=True):
        np.testing.assert_array_equal(one, other)
    history = tracker.history
    wanted = [l2_of(steps) for steps in by_epoch(untracked.gradients)]
    np.testing.assert_allclose(history["l2_norm"], wanted, 1e-5, ROUNDING)
    np.testing.assert_array_equal(history["updates"], 3)
    np.testing.assert_array_equal(history.steps, [3, 6])
    np.testing.assert_allclose(history["weight_l2"], [norms(w) for w in loop.weights[1:]], 1e-6)
    np.testing.assert_allclose(history["update_l2"], changes(loop.weights), 1e-5, 1e-7)


def test_accumulated_gradients_count_when_they_make_an_update():
    loop = Loop(*made(optimizers.SGD(0.1, gradient_accumulation_steps=2)), "scan")
    with GradientTracker().attach(loop.optimizer, loop.model) as tracker:
        for _ in range(2):  # 6 steps, 3 updates: after the steps 2, 4 and 6
            loop.epoch()
            tracker.record(weights=loop.state[0])
    g = loop.gradients
    averages = [[(a + b) / 2 for a, b in zip(*g[i : i + 2], strict=True)] for i in (0, 2, 4)]
    wanted = [l2_of(averages[:1]), l2_of(averages[1:])]
    np.testing.assert_allclose(tracker.history["l2_norm"], wanted, 1e-5, ROUNDING)
    np.testing.assert_array_equal(tracker.history["updates"][:, 0], [1, 2])


def test_a_step_that_is_skipped_is_counted_and_changes_no_weight():
    loop = Loop(*made(optimizers.LossScaleOptimizer(optimizers.SGD(0.1), 1024.0)), "scan")
    bad = Y.copy()
    bad[9] = np.inf  # in the second of three batches
    stacked = np.stack([x for x, _ in BATCHES]), bad.reshape(3, 8, 1)
    with GradientTracker().attach(loop.optimizer, loop.model) as tracker:
        loop.state, gradients = loop.step(loop.state, stacked)
        tracker.record(weights=loop.state[0])
    of_steps = [[np.float64(g[i]) for g in gradients] for i in (0, 2)]
    of_steps = [
        [g / scale for g in step] for step, scale in zip(of_steps, (1024, 1024), strict=True)
    ]
    history = tracker.history
    assert history.logs["skipped_steps"] == [1.0]
    np.testing.assert_array_equal(history["updates"], 2)
    assert np.isfinite(history["l2_norm"]).all()


def test_weights_that_the_loop_keeps_are_never_taken_from_the_model():
    loop = Loop(*made(optimizers.SGD(0.1)))
    with (
        pytest.warns(UserWarning, match=r"call tracker.record\(weights=trainable_variables\)"),
        GradientTracker().attach(loop.optimizer, loop.model) as tracker,
    ):
        for weights in (None, loop, loop):
            loop.epoch()
            tracker.record(weights=weights and loop.state[0])
    history = tracker.history
    assert np.isfinite(history["l2_norm"]).all()
    assert np.isnan(history["weight_l2"][0]).all() and np.isnan(history["update_l2"][:2]).all()
    np.testing.assert_allclose(history["weight_l2"][1:], [norms(w) for w in loop.weights[2:]], 1e-6)
    np.testing.assert_allclose(history["update_l2"][2:], changes(loop.weights)[2:], 1e-5)


@pytest.mark.parametrize("donate", [False, True])
def test_weights_that_the_loop_assigns_are_found_in_the_model(donate):
    loop = Loop(*made(optimizers.SGD(0.1)), donate=donate)
    with GradientTracker().attach(loop.optimizer, loop.model) as tracker:
        for _ in range(EPOCHS):
            loop.epoch()
            for variable, value in zip(loop.model.trainable_variables, loop.state[0], strict=True):
                variable.assign(value)
            tracker.record()
    np.testing.assert_allclose(tracker.history["update_l2"], changes(loop.weights), 1e-5)


def test_weights_of_arrays_that_were_donated_are_unknown():
    loop = Loop(*made(optimizers.SGD(0.1)), donate=True)
    loop.epoch()  # the model's own arrays are gone
    with GradientTracker().attach(loop.optimizer, loop.model) as tracker:
        for _ in range(2):
            loop.epoch()
            tracker.record(weights=loop.state[0])
    history = tracker.history
    np.testing.assert_allclose(history["weight_l2"], [norms(w) for w in loop.weights[2:]], 1e-6)
    assert np.isnan(history["update_l2"][0]).all()
    np.testing.assert_allclose(history["update_l2"][1:], changes(loop.weights)[2:], 1e-5)


def test_a_step_that_was_compiled_before_is_traced_anew():
    loop = Loop(*made(optimizers.SGD(0.1)))
    loop.epoch()
    with GradientTracker().attach(loop.optimizer, loop.model) as tracker:
        loop.epoch()
        tracker.record(weights=loop.state[0])
    np.testing.assert_allclose(
        tracker.history["l2_norm"], [l2_of(loop.gradients[3:])], 1e-5, ROUNDING
    )


def test_a_step_that_cannot_be_traced_anew_is_no_silence():
    loop = Loop(*made(optimizers.SGD(0.1)))
    loop.step = loop.step.lower(loop.state, BATCHES[0]).compile()
    tracker = GradientTracker().attach(loop.optimizer, loop.model)
    loop.epoch()
    with pytest.raises(RuntimeError, match="functions that are compiled after attach"):
        tracker.record()
    tracker.detach()


def test_each_of_several_optimizers_has_its_weights():
    first, second = (Loop(*made(optimizers.SGD(rate))) for rate in (0.1, 0.2))
    tracker = GradientTracker().attach(first.optimizer, first.model, "first")
    tracker.attach(second.optimizer, second.model, "second")
    for loop in (first, second):
        loop.epoch()
    tracker.record(weights={"first": first.state[0], "second": second.state[0]})
    tracker.detach()
    for name, loop in (("first", first), ("second", second)):
        history = tracker.histories[name]
        np.testing.assert_allclose(history["l2_norm"], [l2_of(loop.gradients)], 1e-5, ROUNDING)
        np.testing.assert_allclose(history["update_l2"], changes(loop.weights), 1e-5)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (lambda own: own[:-1], "4 arrays, received 3 arrays or other shapes: pass what"),
        (lambda own: own[::-1], "4 arrays, received 4 arrays or other shapes: pass what"),
        (lambda own: {"other": own}, "received other names than optimizer"),
    ],
)
def test_weights_of_another_model_are_refused(weights, sentence):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8), layers.Dense(1)])
    optimizer = optimizers.SGD(0.1)
    optimizer.build(model.trainable_variables)
    loop = Loop(model, optimizer)
    tracker = GradientTracker().attach(optimizer, model)
    loop.epoch()
    with pytest.raises(ValueError, match=sentence):
        tracker.record(weights=weights(loop.state[0]))
    tracker.record(weights=loop.state[0])  # nothing was lost
    tracker.detach()
    np.testing.assert_allclose(tracker.history["l2_norm"], [l2_of(loop.gradients)], 1e-5, ROUNDING)


# ---- `fit` ---------------------------------------------------------------------------------------


class TwoParts(keras.Model):
    """Two networks, each trained by an optimizer of its own, in a step of JAX's signature."""

    def __init__(self):
        super().__init__()
        self.one, self.two = layers.Dense(1, name="one"), layers.Dense(1, name="two")
        self.mean = keras.metrics.Mean("gap")
        self.build((None, 6))

    def build(self, shape):
        self.one.build(shape)
        self.two.build(shape)
        self.built = True

    def compile(self, optimizer, second_optimizer):
        super().compile(optimizer)
        self.second_optimizer = second_optimizer
        optimizer.build(self.one.trainable_variables)
        second_optimizer.build(self.two.trainable_variables)

    @property
    def metrics(self):
        return [self.mean]

    def train_step(self, state, data):
        trainable, rest, of_optimizer, metrics = state
        x, y = data

        def loss(part, values):
            return jax.numpy.mean((part.stateless_call(values, [], x)[0] - y) ** 2)

        first = jax.grad(lambda v: loss(self.one, v))(trainable[:2])
        second = jax.grad(lambda v: loss(self.two, v))(trainable[2:])
        one, of_optimizer = self.optimizer.stateless_apply(of_optimizer, first, trainable[:2])
        of_second = values(self.second_optimizer.variables)
        two, _ = self.second_optimizer.stateless_apply(of_second, second, trainable[2:])
        metrics = self.mean.stateless_update_state(metrics, loss(self.one, one))
        logs = {"gap": self.mean.stateless_result(metrics)}
        return logs, (one + two, rest, of_optimizer, metrics)


def fitted(make, callbacks=(), epochs=2, **options):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    model = make()
    start = arrays(values(model.trainable_variables))
    settings = {"batch_size": 8, "epochs": epochs, "shuffle": False, "verbose": 0}
    model.fit(X, Y, callbacks=list(callbacks), **settings | options)
    return model, start


def dense(optimizer=None, **options):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(1)])
    model.compile(optimizer or optimizers.SGD(0.1), "mse", **options)
    return model


def numpy_records(start, epochs, activations=("tanh", "linear"), rate=0.1):
    """The l2 norms of the first step and of each epoch, in float64 NumPy."""
    steps = oracle.sgd(
        start, activations, X, Y, "mean_squared_error", epochs=epochs, batch_size=8, rate=rate
    )
    parts = [steps[:1], *by_epoch(steps)]
    return [l2_of([step.gradients for step in part]) for part in parts]


@pytest.mark.parametrize("eager", [False, True])
def test_a_step_of_jax_s_signature_with_two_optimizers(eager):
    def make():
        model = TwoParts()
        model.compile(optimizers.SGD(0.1), optimizers.SGD(0.05))
        model.run_eagerly = eager
        return model

    tracker = GradientTracker()
    untracked, start = fitted(make)
    tracked, _ = fitted(make, [tracker])
    for a, b in zip(untracked.variables, tracked.variables, strict=True):
        np.testing.assert_array_equal(a.value, b.value)
    assert set(tracker.histories) == {"optimizer", "second_optimizer"}
    for name, weights, rate in (
        ("optimizer", start[:2], 0.1),
        ("second_optimizer", start[2:], 0.05),
    ):
        wanted = numpy_records(weights, 2, ["linear"], rate)
        history = tracker.histories[name]
        np.testing.assert_allclose(history["l2_norm"], wanted, 1e-5, ROUNDING, err_msg=name)
        moved = zip(values(tracked.trainable_variables), start, strict=True)
        assert all(np.any(np.asarray(a) != b) for a, b in moved)
        assert (history["update_l2"][1:] > 0).all()


class Stop(keras.callbacks.Callback):
    """Raises in the second epoch, where a Ctrl-C or an error of a callback arrives."""

    def __init__(self, error, at):
        super().__init__()
        self.error, self.at, self.epoch = error, at, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("of a callback")])
def test_after_an_exception_the_records_are_there_and_the_next_fit_is_right(error):
    tracker, made_models = GradientTracker(), []

    def make():
        made_models.append(dense())
        return made_models[-1]

    with pytest.raises(type(error)), tracker:
        fitted(make, [tracker, Stop(error, (1, 1))])
    model = made_models[-1]
    first = tracker.history
    assert first.metadata["interrupted"] and first.steps.tolist() == [0, 3, 5]
    model.jax_state_sync()
    start = arrays(values(model.trainable_variables))
    assert not any(np.isnan(w).any() for w in start)
    again = GradientTracker()
    model.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0, callbacks=[again])
    np.testing.assert_allclose(again.history["l2_norm"], numpy_records(start, 2), 1e-5, ROUNDING)
    assert "train_step" not in vars(model) and len(model.optimizer.variables) == 2


class Bad(keras.utils.PyDataset):
    """Data whose second epoch fails in its second batch."""

    def __init__(self, error):
        super().__init__()
        self.error, self.asked = error, 0

    def __len__(self):
        return 3

    def __getitem__(self, i):
        self.asked += 1
        if self.asked == 5:
            raise self.error
        return X[8 * i : 8 * (i + 1)], Y[8 * i : 8 * (i + 1)]


def test_after_an_exception_in_the_data_the_model_is_usable():
    model, tracker = dense(), GradientTracker()
    with pytest.raises(RuntimeError, match="of the data"), tracker:
        model.fit(Bad(RuntimeError("of the data")), epochs=2, verbose=0, callbacks=[tracker])
    assert tracker.history.steps.tolist()[:2] == [0, 3]
    assert np.isfinite(tracker.history["weight_l2"]).all()
    assert np.isfinite(model.predict(X, verbose=0)).all()
    start = arrays(values(model.trainable_variables))
    again = GradientTracker()
    model.fit(X, Y, batch_size=8, epochs=1, shuffle=False, verbose=0, callbacks=[again])
    np.testing.assert_allclose(again.history["l2_norm"], numpy_records(start, 1), 1e-5, ROUNDING)


def test_a_checkpoint_in_mid_fit_has_the_whole_state_of_the_optimizer(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    saves = keras.callbacks.ModelCheckpoint(path)
    tracked, _ = fitted(lambda: dense(optimizers.Adam(0.01)), [GradientTracker(), saves])
    half, _ = fitted(lambda: dense(optimizers.Adam(0.01)), epochs=1)
    for epoch, model in ((1, half), (2, tracked)):
        loaded = keras.models.load_model(path.format(epoch=epoch))
        pairs = (
            zip(loaded.weights, model.weights, strict=True),
            zip(loaded.optimizer.variables, model.optimizer.variables, strict=True),
        )
        for a, b in (pair for kind in pairs for pair in kind):
            np.testing.assert_array_equal(a.value, b.value, err_msg=a.path)


def test_models_are_copied_and_fitted_again_after_a_fit_with_two_trackers():
    trackers = GradientTracker(), GradientTracker(["max_abs"])
    model, start = fitted(dense, trackers)
    for tracker in trackers:
        np.testing.assert_allclose(
            tracker.history["l2_norm"], numpy_records(start, 2), 1e-5, ROUNDING
        )
    copied = pickle.loads(pickle.dumps(model))
    middle = arrays(values(model.trainable_variables))
    for one in (model, copied):
        one.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=[trackers[0]])
    assert trackers[0].previous[0].epochs.tolist() == [0, 1, 2, 3]
    wanted = numpy_records(middle, 1)
    np.testing.assert_allclose(trackers[0].previous[0]["l2_norm"][3], wanted[1], 1e-5, ROUNDING)
    np.testing.assert_allclose(trackers[0].history["l2_norm"], wanted, 1e-5, ROUNDING)


# ---- `train_and_track_gradients` -----------------------------------------------------------------


def arguments(**changes):
    """All settings of a `Training`."""
    settings = dict.fromkeys(["optimizer", "loss", "clipped", "probe"])
    settings |= {"statistics": ["max_abs", "zero_fraction"], "distributions": False}
    settings |= {"epochs": 3, "batch_size": 7, "every": "epoch", "shuffle": True}
    return TrainingSettings(**settings | {"jit_compile": True} | changes)


@pytest.mark.parametrize("jit_compile", [True, False])
def test_the_loop_is_gradient_descent_in_numpy(jit_compile):
    keras.utils.set_random_seed(3)
    model = dense()
    training = Training(model, X, Y, arguments(jit_compile=jit_compile))
    for seed in (7, 8):  # a second run goes on from the weights of the first
        start = arrays(values(model.trainable_variables))
        history = training.run(seed)
        random = np.random.default_rng(seed)
        order = [random.permutation(24) for _ in range(3)]
        settings = {"epochs": 3, "batch_size": 7, "rate": 0.1, "order": order}
        steps = oracle.sgd(start, ["tanh", "linear"], X, Y, "mean_squared_error", **settings)
        parts = [steps[:1], *(steps[i : i + 4] for i in range(0, 12, 4))]
        assert history.steps.tolist() == [0, 4, 8, 12]
        for i, part in enumerate(parts):
            wanted = oracle.statistics([step.gradients for step in part])
            for name in ("mean_abs", "l2_norm", "max_abs", "zero_fraction"):
                np.testing.assert_allclose(
                    history[name][i], wanted[name], 1e-5, ROUNDING, err_msg=name
                )
            losses = [step.loss * step.samples for step in part]
            loss = sum(losses) / sum(step.samples for step in part)
            np.testing.assert_allclose(history.logs["loss"][i], loss, 1e-5)
        for variable, weight in zip(model.trainable_variables, steps[-1].weights, strict=True):
            np.testing.assert_allclose(variable.value, weight, 1e-5, 1e-6)


def test_each_run_starts_with_the_optimizer_as_it_was():
    keras.utils.set_random_seed(3)
    model = dense(optimizers.Adam(0.01))
    training = Training(model, X, Y, arguments(shuffle=False))
    start = arrays(values(model.trainable_variables))
    found = []
    for _ in range(2):
        for variable, weight in zip(model.trainable_variables, start, strict=True):
            variable.assign(weight)
        history = training.run()
        found.append([*arrays(values(model.variables)), history["l2_norm"]])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_ctrl_c_returns_the_history_and_leaves_the_model_usable():
    keras.utils.set_random_seed(3)
    model = dense(optimizers.SGD(1e-6))  # does not arrive before the interrupt
    start = arrays(values(model.trainable_variables))
    # A test that runs in the background of a shell ignores Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupt = threading.Timer(6, _thread.interrupt_main)
    interrupt.start()
    settings = {"batch_size": 8, "shuffle": False, "jit_compile": True, "every": 3000}
    try:
        history = train_and_track_gradients(model, X, Y, 10**6, **settings)
    finally:
        interrupt.join()
        signal.signal(signal.SIGINT, before)
    assert history.metadata["interrupted"] and len(history) > 2
    assert int(model.optimizer.iterations.value) == history.steps[-1]
    first = oracle.backprop(start, ["tanh", "linear"], X[:8], Y[:8], "mean_squared_error")[1]
    np.testing.assert_allclose(history["l2_norm"][0], norms(first), 1e-5, ROUNDING)
    middle = arrays(values(model.trainable_variables))
    again = train_and_track_gradients(model, X, Y, 2, **settings | {"every": "epoch"})
    np.testing.assert_allclose(
        again["l2_norm"], numpy_records(middle, 2, rate=1e-6), 1e-5, ROUNDING
    )


# ---- Several devices and processes ---------------------------------------------------------------


def started(devices, **arguments):
    """A training in a process of its own: JAX learns of devices and processes when it starts."""
    script = Path(__file__).with_name("jax_runs.py")
    root = str(Path(__file__).parents[2])
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": root, "XLA_FLAGS": flags}
    return subprocess.Popen(
        [sys.executable, script, json.dumps(arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcomes(processes):
    """What each process found; none waits for another forever."""
    try:
        printed = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, printed, strict=True):
        assert process.returncode == 0, errors[-3000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in printed]


def expected_records(weights):
    """Two epochs of gradient descent in float64 NumPy, on whole batches in one place."""
    activations = ["tanh", "linear"]
    steps = oracle.sgd(
        weights, activations, X, Y, "mean_squared_error", epochs=2, batch_size=8, rate=0.1
    )
    epochs = [steps[:3], steps[3:]]
    records = [oracle.statistics([step.gradients for step in part]) for part in epochs]
    found = {name: [record[name] for record in records] for name in records[0]}
    at_ends = [[np.asarray(w) for w in weights], *(part[-1].weights for part in epochs)]
    found["weight_l2"] = [norms(w) for w in at_ends[1:]]
    found["update_l2"] = changes(at_ends)
    return found


def assert_expected(found, wanted, weights, *, is_chief=True):
    for how, recorded in found.items():
        for name in ("mean_abs", "l2_norm", "max_abs", "weight_l2", "update_l2"):
            values = recorded[name][-2:]  # without the record before training
            np.testing.assert_allclose(
                values, wanted[name], 2e-5, ROUNDING, err_msg=f"{how} {name}"
            )
        np.testing.assert_array_equal(recorded["updates"][-2:], 3, how)
        assert recorded["journal"] == is_chief, how
        if how != "own loop":
            first = oracle.backprop(weights, ["tanh", "linear"], X[:8], Y[:8], "mean_squared_error")
            np.testing.assert_allclose(
                recorded["l2_norm"][0], norms(first[1]), 2e-5, ROUNDING, err_msg=how
            )


HOW = {"fit", "own loop", "loop", "compiled loop"}


def test_on_several_devices_the_gradient_is_that_of_the_whole_batch(tmp_path):
    arguments = {"folder": str(tmp_path), "layouts": ["data", "model"]}
    (outcome,) = outcomes([started(4, **arguments)])
    wanted = expected_records(outcome["weights"])
    for layout in ("data", "model"):
        assert set(outcome["found"][layout]) == HOW
        assert_expected(outcome["found"][layout], wanted, outcome["weights"])


def test_two_processes_record_the_whole_batch_and_one_writes_the_journal(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = {"folder": str(tmp_path), "layouts": ["data", "model"], "port": port}
    pair = outcomes([started(2, **arguments, processes=2, process=i) for i in range(2)])
    for process, outcome in enumerate(pair):
        wanted = expected_records(outcome["weights"])
        for layout in ("data", "model"):
            found = outcome["found"][layout]
            assert set(found) == HOW
            if process != 0:  # JAX gives what a compiled function reports to one process
                assert found.pop("own loop")["l2_norm"] == []
            assert_expected(found, wanted, outcome["weights"], is_chief=process == 0)


def test_a_train_step_that_drops_the_state_of_its_optimizer_is_told_so():
    class Drops(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = keras.layers.Dense(1)

        def call(self, x):
            return self.inner(x)

        def train_step(self, state, data):
            x, y = data
            trainable, fixed, optimizer, metrics = state

            def loss(values):
                y_pred, _ = self.stateless_call(values, fixed, x)
                return keras.ops.mean((y_pred - y) ** 2)

            value, gradients = jax.value_and_grad(loss)(trainable)
            trainable, _ = self.optimizer.stateless_apply(optimizer, gradients, trainable)
            return {"loss": value}, (trainable, fixed, optimizer, metrics)

    model = Drops()
    model.compile(optimizers.SGD(0.1), "mse")
    model(X[:1])
    tracker = GradientTracker()
    with pytest.warns(UserWarning, match="none came back from the training step"):
        model.fit(X, Y, batch_size=8, epochs=1, verbose=0, callbacks=[tracker])

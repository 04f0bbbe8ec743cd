"""The tracker on torch: loops of one's own, compiled steps, several optimizers and processes.

What is recorded is held against gradients that the loop itself kept, a tape of its own, or the
float64 oracle; what is trained, against the same training without a tracker, bit for bit.
"""

import copy
import functools
import os
import pickle
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import oracle
import pytest
import torch
from backends import torch_processes
from keras import layers, ops, optimizers
from tape_oracle import (
    Tape,
    assert_records,
    assert_same_training,
    assert_weight_norms,
    batches_of,
    fit,
)
from torch.utils.data import DataLoader, TensorDataset

import kgrad
from kgrad.measure.tracker import GradientTracker
from kgrad.records.history import GradientHistory

RANDOM = np.random.default_rng(12345)
X = RANDOM.normal(size=(24, 6)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
STEPS = 3  # batches of 8
REPLACED = {"_clip_gradients", "_backend_update_step", "make_train_function", "train_on_batch"}


def dense():
    return keras.Sequential([keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(1)])


def compiled(optimizer=None, make=dense, **options):
    model = make()
    model.compile(optimizer or optimizers.SGD(0.1), "mse", **options)
    return model


def assert_restored(model):
    assert not REPLACED & {*vars(model), *vars(model.optimizer)}


def check(make, x=X, y=Y, **options):
    """Train with a tracker and with a tape; return the model that the tracker saw and the tape."""
    tape, tracker = Tape(batches_of(X, Y)), GradientTracker(["max_abs", "zero_fraction"])
    tracked = fit(make, x, y, callbacks=[tracker], **options)
    assert_same_training(tracked, fit(make, x, y, callbacks=[tape], **options))
    assert_records(tracker.history, tape.records())
    assert_weight_norms(tracker.history, tape.values)
    assert_restored(tracked)
    return tracked, tape


# ---- Loops of one's own --------------------------------------------------------------------------


OPTIMIZERS = {
    "SGD": lambda: optimizers.SGD(0.1),
    "Adam, clipped": lambda: optimizers.Adam(0.01, clipnorm=0.01),
    "LossScaleOptimizer": lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1), 1024.0),
}


def by_hand(make_optimizer, tracker=None, attach=None):
    """A plain loop of torch; returns model, optimizer and the unscaled gradients of each step."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    model, optimizer, steps = dense(), make_optimizer(), []
    optimizer.build(model.trainable_variables)
    if tracker is not None:
        (attach or tracker.attach)(optimizer, model)
    data = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8)
    for _ in range(2):
        for x, y in data:
            model.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x, training=True), y)
            optimizer.scale_loss(loss).backward()
            gradients = [variable.value.grad for variable in model.trainable_variables]
            scale = float(optimizer.scale_loss(torch.ones(())))
            steps.append([gradient.numpy().astype(np.float64) / scale for gradient in gradients])
            with torch.no_grad():
                optimizer.apply(gradients, model.trainable_variables)
        if tracker is not None:
            tracker.record({"loss": float(loss.detach())})
    if tracker is not None:
        tracker.detach()
    return model, optimizer, steps


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_plain_loop_of_torch(name):
    untracked, before, steps = by_hand(OPTIMIZERS[name])
    tracker = GradientTracker(["max_abs", "zero_fraction"])
    tracked, after, _ = by_hand(OPTIMIZERS[name], tracker)
    pairs = zip(
        [*tracked.variables, *after.variables],
        [*untracked.variables, *before.variables],
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_array_equal(one.value.detach(), other.value.detach(), err_msg=one.path)
    assert_records(tracker.history, [steps[:STEPS], steps[STEPS:]])
    assert not REPLACED & {*vars(after)}


def in_parts():
    parts = optimizers.OptimizerMap(optimizers.SGD(0.1), {".*dense_1/.*": optimizers.Adam(0.01)})
    return optimizers.MultiOptimizer(parts)


def test_each_part_of_an_optimizer_is_attached():
    untracked, before, steps = by_hand(in_parts)
    tracker = GradientTracker(["max_abs"])
    with pytest.raises(ValueError, match="attach each of its `optimizers` under a name of its own"):
        tracker.attach(before, untracked)

    def attached(optimizer, model):
        for part in optimizer.optimizers:
            tracker.attach(part, model, part.name)

    tracked, _, _ = by_hand(in_parts, tracker, attached)
    for one, other in zip(tracked.variables, untracked.variables, strict=True):
        np.testing.assert_array_equal(one.value.detach(), other.value.detach())
    for name, places in (("sgd", slice(0, 2)), ("adam", slice(2, 4))):
        of_part = [step[places] for step in steps]
        assert_records(tracker.histories[name], [of_part[:STEPS], of_part[STEPS:]])


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (lambda model: (torch.optim.SGD(model.parameters()), model), "torch.optim.sgd.SGD"),
        (lambda model: (optimizers.SGD(), torch.nn.Linear(2, 2)), "torch.nn.modules.linear.Linear"),
    ],
)
def test_what_is_not_of_keras_is_refused_by_its_name(arguments, found):
    with pytest.raises(TypeError, match=f"^(optimizer|model) must be .*, received a {found}$"):
        GradientTracker().attach(*arguments(dense()))


# ---- Steps of one's own --------------------------------------------------------------------------


class OwnStep(keras.Sequential):
    """Keras's guide to a step of one's own on torch, with a loss that Keras does not know."""

    def train_step(self, data):
        x, y = data
        self.zero_grad()
        loss = ops.mean(ops.square(self(x, training=True) - y)) + 0.1 * ops.mean(ops.abs(self(x)))
        loss.backward()
        variables = self.trainable_weights
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in variables], variables)
        return {"loss": loss.detach()}


def own_step():
    model = OwnStep([keras.Input((6,)), layers.Dense(8, "tanh"), layers.Dense(1)])
    model.compile(optimizers.Adam(0.01))
    return model


def test_a_step_of_ones_own():
    def loss(model, x, y):
        y = torch.from_numpy(y)
        return ((model(x) - y) ** 2).mean() + 0.1 * model(x).abs().mean()

    tape, tracker = Tape(batches_of(X, Y), loss), GradientTracker()
    tracked = fit(own_step, X, Y, callbacks=[tracker])
    assert_same_training(tracked, fit(own_step, X, Y, callbacks=[tape]))
    assert_records(tracker.history, tape.records())


class Gan(keras.Model):
    """Two models, two optimizers; keeps the gradients by which they are trained."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((3,)), layers.Dense(6)])
        self.critic = keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, "tanh"), layers.Dense(1)]
        )
        self.built = True

    def compile(self):
        super().compile()
        self.g_optimizer, self.c_optimizer = optimizers.Adam(0.01), optimizers.SGD(0.1)
        self.steps = {"g_optimizer": [], "c_optimizer": []}

    def update(self, name, part, loss):
        self.zero_grad()
        loss.backward()
        gradients = [variable.value.grad for variable in part.trainable_weights]
        self.steps[name].append([g.numpy().astype(np.float64) for g in gradients])
        with torch.no_grad():
            getattr(self, name).apply(gradients, part.trainable_weights)

    def train_step(self, x):
        made = self.generator(x[:, :3])
        critic_loss = ops.mean(self.critic(made.detach())) - ops.mean(self.critic(x))
        self.update("c_optimizer", self.critic, critic_loss)
        self.update("g_optimizer", self.generator, -ops.mean(self.critic(made)))
        return {"critic_loss": critic_loss.detach()}


def gan():
    model = Gan()
    model.compile()
    return model


def test_two_optimizers_in_one_step():
    tracker = GradientTracker(["max_abs"])
    tracked, untracked = fit(gan, X, callbacks=[tracker]), fit(gan, X)
    assert_same_training(tracked, untracked)
    assert set(tracker.histories) == {"g_optimizer", "c_optimizer"}
    for name, history in tracker.histories.items():
        steps = untracked.steps[name]
        assert_records(history, [steps[:1], steps[:STEPS], steps[STEPS:]])


def test_a_step_that_torch_compiles(monkeypatch):
    """The backend of the default writes C++, which takes a minute; what is traced is the same."""
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", functools.partial(plain, backend="aot_eager"))
    tracker = GradientTracker(["max_abs"])
    make = functools.partial(compiled, jit_compile=True)
    tape = Tape(batches_of(X, Y))
    tracked = fit(make, X, Y, callbacks=[tracker])
    assert_same_training(tracked, fit(make, X, Y))
    fit(compiled, X, Y, callbacks=[tape])
    assert_records(tracker.history, tape.records())
    assert tracker.history.metadata["jit_compile"] is True
    assert_restored(tracked)
    records = len(tracker.history)
    tracked.fit(X, Y, batch_size=8, verbose=0)
    assert len(tracker.history) == records
    tracked.fit(X, Y, batch_size=8, verbose=0, callbacks=[tracker])
    assert tracker.history.steps.tolist() == [0, 3, 6, 9]


# ---- Data, and the end of a fit ------------------------------------------------------------------


def test_a_data_loader_is_data():
    loader = DataLoader(TensorDataset(torch.from_numpy(X), torch.from_numpy(Y)), batch_size=8)
    check(compiled, loader, None)


class Raises(keras.callbacks.Callback):
    def __init__(self, error, step=5):
        super().__init__()
        self.error, self.left = error, step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise self.error


class Breaks(keras.Sequential):
    """Its fifth step fails, once it has made its update."""

    calls, error = 0, None

    def compute_metrics(self, *args, **options):
        self.calls += 1
        if self.calls == 5 and self.error is not None:
            raise self.error
        return super().compute_metrics(*args, **options)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
@pytest.mark.parametrize("where", ["step", "callback"])
def test_what_is_cut_off_is_recorded_and_the_model_is_as_before(error, where):
    def make():
        return compiled(make=lambda: Breaks(dense().layers))

    tape, tracker = Tape(batches_of(X, Y)), GradientTracker()
    fit(make, X, Y, callbacks=[tape])
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(3)
    model = make()
    model.error = error
    callbacks = [tracker, Raises(error())] if where == "callback" else [tracker]
    model.calls = 0 if where == "step" else 5
    with pytest.raises(error):
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, shuffle=False, callbacks=callbacks)
    tracker.detach()
    assert_restored(model)
    assert tracker.history.metadata["interrupted"] is True
    # A step that failed has made its update, but was not counted.
    assert tracker.history.steps.tolist() == [0, 3, 5 if where == "callback" else 4]
    assert_records(tracker.history, [tape.steps[:1], tape.steps[:3], tape.steps[3:5]])
    model.fit(X, Y, batch_size=8, verbose=0, callbacks=[tracker])
    assert tracker.history.epochs.tolist() == [0, 1, 2, 3]


def saved(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


class Copies(keras.callbacks.Callback):
    """Copies the model in every way while it is trained."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.copies = folder, []

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.copies = copies_of(self.model, self.folder)


def copies_of(model, folder):
    return [saved(model, folder), pickle.loads(pickle.dumps(model)), copy.deepcopy(model)]


def test_a_model_is_saved_and_copied_as_one_without_a_tracker(tmp_path):
    trained, during = [], []
    for callbacks in ([], [GradientTracker()]):
        folder = tmp_path / str(len(callbacks))
        folder.mkdir()
        checkpoint = keras.callbacks.ModelCheckpoint(folder / "{epoch}.keras")
        copies = Copies(folder)
        model = fit(
            functools.partial(compiled, optimizers.Adam(0.01)),
            X,
            Y,
            callbacks=[*callbacks, copies, checkpoint],
        )
        from_file = keras.models.load_model(folder / "1.keras")
        trained.append(model)
        during.append([*copies.copies, from_file, *copies_of(model, folder)])
    for tracked, untracked in zip(*during, strict=True):
        assert_restored(tracked)
        assert_same_training(tracked, untracked)
    # One that was saved in mid-fit goes on as the training itself did.
    early = during[1][0]
    early.fit(X, Y, batch_size=8, shuffle=False, verbose=0)
    assert_same_training(early, trained[1])


def test_a_second_fit_goes_on_and_two_trackers_record_the_same():
    one, other = GradientTracker(), GradientTracker(["max_abs"], every=2)
    tape = Tape(batches_of(X, Y))
    model, twin = (fit(compiled, X, Y, callbacks=list(c)) for c in ((one, other), (tape,)))
    for again, callbacks in ((model, [one, other]), (twin, [tape])):
        again.fit(X, Y, batch_size=8, shuffle=False, verbose=0, callbacks=callbacks)
    assert_same_training(model, twin)
    steps = tape.steps
    assert_records(one.history, tape.records())
    assert one.history.steps.tolist() == [0, 3, 6, 9]
    pairs = pairwise([0, 2, 4, 6, 8, 9])
    assert_records(other.history, [steps[:1], *(steps[a:b] for a, b in pairs)])


# ---- Several processes ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """The folder in which one process alone and two together have left what they recorded."""
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tree = Path(kgrad.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, torch_processes.__file__, rank, count, str(port), str(folder)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank, count in (("0", "1"), ("0", "2"), ("1", "2"))
    ]
    try:
        for process in started:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
    finally:
        for process in started:
            process.kill()
    return folder


@pytest.mark.parametrize("one", ["0 of 1", "0 of 2", "1 of 2"])
def test_the_gradient_is_that_of_the_whole_batch(processes, one):
    history = GradientHistory.load(processes / one / "history.jsonl")
    steps = oracle.sgd(
        torch_processes.dense().get_weights(),
        torch_processes.ACTIVATIONS,
        torch_processes.X,
        torch_processes.Y,
        "mean_squared_error",
        epochs=torch_processes.EPOCHS,
        batch_size=torch_processes.BATCH,
        rate=torch_processes.RATE,
    )
    of_epochs = [[s.gradients for s in steps if s.epoch == epoch] for epoch in history.epochs]
    assert_records(history, of_epochs)
    with np.load(processes / one / "weights.npz") as weights:
        for name, expected in zip(weights, steps[-1].weights, strict=True):
            np.testing.assert_allclose(weights[name], expected, 1e-5, 1e-6)


def test_all_processes_record_the_same_and_one_writes_the_journal(processes):
    chief, other = (GradientHistory.load(processes / f"{i} of 2/history.jsonl") for i in (0, 1))
    for name in chief.statistics:
        np.testing.assert_array_equal(chief[name], other[name])
    journal = GradientHistory.load(processes / "0 of 2/journal.jsonl")
    np.testing.assert_array_equal(journal["l2_norm"], chief["l2_norm"])
    files = {path.name for path in (processes / "1 of 2").iterdir()}
    assert files == {"history.jsonl", "weights.npz", "refused.txt"}
    assert (processes / "0 of 2/logs").is_dir()


def test_what_several_processes_cannot_do_is_one_sentence(processes):
    loop, wrapper = (processes / "1 of 2/refused.txt").read_text().splitlines()
    assert loop == (
        "train_and_track_gradients trains in one process on torch, received a group of 2: "
        "use GradientTracker in a loop of your own"
    )
    assert "model must be a Keras model and not its wrapper" in wrapper

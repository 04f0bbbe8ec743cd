"""`train_and_track_gradients` on every backend, against a float64 loop in NumPy."""

import os
import signal
import threading
import time

import keras
import numpy as np
import oracle
import pytest
from keras import layers
from tape_oracle import assert_records

from kgrad.measure.loop import Training, TrainingSettings, train_and_track_gradients

BACKEND = keras.backend.backend()
RANDOM = np.random.default_rng(12345)
X = RANDOM.normal(size=(29, 5)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
ACTIVATIONS = ["tanh", "sigmoid"]
EPOCHS, BATCH, RATE, SEED = 3, 8, 0.1, 7


def dense():
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [keras.Input((5,)), layers.Dense(6, "tanh"), layers.Dense(1, "sigmoid")]
    )


def expected_steps(weights, loss="binary_crossentropy"):
    """The steps of an epoch each, in the order of the samples that the seed gives."""
    random = np.random.default_rng(SEED)
    order = [random.permutation(len(X)) for _ in range(EPOCHS)]
    options = {"epochs": EPOCHS, "batch_size": BATCH, "rate": RATE, "order": order}
    return oracle.sgd(weights, ACTIVATIONS, X, Y, loss, **options)


def assert_trained(history, model, steps):
    epochs = [[s for s in steps if s.epoch == epoch] for epoch in range(1, EPOCHS + 1)]
    gradients = [[s.gradients for s in epoch] for epoch in epochs]
    assert_records(history, [gradients[0][:1], *gradients])
    losses = [np.average([s.loss for s in e], weights=[s.samples for s in e]) for e in epochs]
    np.testing.assert_allclose(history.logs["loss"], [steps[0].loss, *losses], 1e-5)
    for weight, expected in zip(model.get_weights(), steps[-1].weights, strict=True):
        np.testing.assert_allclose(weight, expected, 1e-5, 1e-6)


@pytest.mark.parametrize("jit_compile", [False, "auto"])
@pytest.mark.parametrize("given", ["compiled", "named", "function"])
def test_it_is_the_loop_of_numpy(given, jit_compile):
    model, name = dense(), "binary_crossentropy"
    steps = expected_steps(model.get_weights())
    options = {"optimizer": keras.optimizers.SGD(RATE)}
    if given == "compiled":
        model.compile(loss=name, **options)
        options = {}
    else:
        options["loss"] = name if given == "named" else keras.losses.binary_crossentropy
    history = train_and_track_gradients(
        model,
        X,
        Y,
        EPOCHS,
        batch_size=BATCH,
        seed=SEED,
        statistics=["max_abs", "zero_fraction"],
        jit_compile=jit_compile,
        **options,
    )
    assert_trained(history, model, steps)
    # JAX without a compiler runs each operation by itself; the others compile what repays it.
    assert history.metadata["jit_compile"] is (BACKEND == "jax" and jit_compile == "auto")


def test_several_runs_of_one_training_each_start_as_the_first_did():
    model = dense()
    settings = TrainingSettings(
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=keras.optimizers.SGD(RATE, momentum=0.9),
        loss="mse",
        statistics=(),
        clipped=None,
        distributions=False,
        probe=None,
        every="epoch",
        shuffle=True,
        jit_compile="auto",
    )
    training = Training(model, X, Y, settings)
    start, runs = model.get_weights(), []
    for seed in (SEED, SEED + 1, SEED):
        model.set_weights(start)
        runs.append((training.run(seed), model.get_weights()))
    (first, weights), (other, _), (again, same_weights) = runs
    np.testing.assert_array_equal(first["l2_norm"], again["l2_norm"])
    for one, two in zip(weights, same_weights, strict=True):
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first["l2_norm"], other["l2_norm"])
    assert [h.epochs.tolist() for h in (first, other, again)] == [[0, 1, 2, 3]] * 3


def test_ctrl_c_returns_what_was_recorded(tmp_path):
    journal, model = tmp_path / "journal.jsonl", dense()

    def interrupt():
        for _ in range(6000):
            if journal.exists() and len(journal.read_bytes().splitlines()) > 4:
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.01)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        history = train_and_track_gradients(
            model, X, Y, 1_000_000, batch_size=BATCH, shuffle=False, journal=journal
        )
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert history.metadata["interrupted"] is True
    assert len(history) == len(journal.read_bytes().splitlines()) - 1
    # The weights are those after exactly the steps that were recorded.
    steps = int(history.steps[-1])
    twin = dense()
    options = {"epochs": -(-steps // 4), "batch_size": BATCH, "rate": 0.01}
    made = oracle.sgd(twin.get_weights(), ACTIVATIONS, X, Y, "binary_crossentropy", **options)
    for weight, expected in zip(model.get_weights(), made[steps - 1].weights, strict=True):
        np.testing.assert_allclose(weight, expected, 1e-3, 1e-4)


def test_a_run_that_diverges_keeps_its_records():
    """PyTorch refuses a cross-entropy of NaN; the other backends train on with NaN."""
    keras.utils.set_random_seed(1)
    hidden = [layers.Dense(8, "relu", kernel_initializer="he_normal") for _ in range(4)]
    model = keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(1e20), "binary_crossentropy")
    if BACKEND == "torch":
        with pytest.warns(UserWarning, match="training stopped after step .*: RuntimeError: "):
            history = train_and_track_gradients(model, X, Y, EPOCHS, batch_size=BATCH, seed=SEED)
        assert history.metadata["interrupted"] and len(history) >= 1
    else:
        history = train_and_track_gradients(model, X, Y, EPOCHS, batch_size=BATCH, seed=SEED)
        assert history.epochs.tolist() == [0, 1, 2, 3]


def test_an_error_of_a_loss_is_raised():
    def failing(y, p):
        raise ArithmeticError("of the loss")

    with pytest.raises(ArithmeticError, match="of the loss"):
        train_and_track_gradients(dense(), X, Y, EPOCHS, loss=failing)


def test_a_training_in_pieces_is_the_same_and_records_where_it_is_asked_to():
    model = dense()
    start = model.get_weights()
    settings = TrainingSettings(
        epochs=2,
        batch_size=8,
        optimizer=keras.optimizers.SGD(0.1),
        loss="binary_crossentropy",
        statistics=(),
        clipped=None,
        distributions=False,
        probe=None,
        every="epoch",
        shuffle=True,
        jit_compile="auto",
    )
    training = Training(model, X, Y, settings)
    whole, weights = training.run(3), model.get_weights()
    model.set_weights(start)
    pieces, asked = training.run_in_pieces(3), [1, 2]
    next(pieces)
    while True:
        try:
            history = pieces.send(asked.pop(0) if asked else None)
        except StopIteration as end:
            history = end.value
            break
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    per_epoch = -(-len(X) // 8)
    assert whole.steps.tolist() == [0, per_epoch, 2 * per_epoch]
    assert history.steps.tolist() == [0, 1, 3, per_epoch, 2 * per_epoch]
    assert history.epochs.tolist() == [0, 1, 1, 1, 2]
    np.testing.assert_array_equal(history["l2_norm"][[0, -1]], whole["l2_norm"][[0, -1]])
    training.run_in_pieces(3).close()

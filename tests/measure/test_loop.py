"""The loop against `model.fit`, against plain tapes, and against everything that can go wrong."""

import _thread
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import FunctionType

import keras
import numpy as np
import oracle
import pytest
import tensorflow as tf

import kgrad.measure.loop
from kgrad.experiments.models import create_model
from kgrad.measure.accumulators import cheapest_way
from kgrad.measure.backends.tensorflow.steps import TrainingLoop, backward
from kgrad.measure.inputs import choose_loss, choose_optimizer, require_labels
from kgrad.measure.keras_models.weights import describe_weights
from kgrad.measure.loop import measure_gradients, train_and_track_gradients
from kgrad.measure.recorder import Recorder
from kgrad.records.history import GradientHistory

TREE = Path(kgrad.__file__).parents[1]


@pytest.fixture
def data(random):
    X = random.normal(size=(29, 5)).astype(np.float32)
    return X, (X[:, :1] > 0).astype(np.float32)


def small_model(**options):
    return create_model(2, "tanh", "he", **{"units": 6, "input_shape": (5,), "seed": 1} | options)


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- The same training as fit's ------------------------------------------------------------------


def plain():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(1, activation="sigmoid")])


def regularized():
    l2, l1 = keras.regularizers.L2(0.03), keras.regularizers.L1(0.02)
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(6, "tanh", kernel_regularizer=l2, bias_regularizer=l1),
            keras.layers.Dense(1, "sigmoid", kernel_regularizer=l2, activity_regularizer=l1),
        ]
    )


def normalized():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(6),
            keras.layers.BatchNormalization(),
            keras.layers.Activation("relu"),
            keras.layers.Dropout(0.3, seed=4),
            keras.layers.GaussianNoise(0.1, seed=5),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )


MOMENTUM = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True).get_config()
CLIPPED = keras.optimizers.Adam(0.01, clipnorm=0.05, weight_decay=0.01).get_config()


@pytest.mark.parametrize(
    ("build", "optimizer", "loss", "jit"),
    [
        (plain, "sgd", "binary_crossentropy", False),
        (regularized, "adam", None, False),
        (regularized, CLIPPED, None, False),
        (normalized, MOMENTUM, None, False),
        (normalized, MOMENTUM, "binary_crossentropy", False),
        # a compilation takes a second, and fit needs one as well
        (normalized, CLIPPED, None, True),
    ],
)
def test_losses_metrics_and_weights_are_those_of_fit(data, build, optimizer, loss, jit):
    X, y = data

    def fresh():
        keras.utils.set_random_seed(2)
        model = build()
        new = optimizer
        if isinstance(optimizer, dict):
            kind = keras.optimizers.SGD if optimizer is MOMENTUM else keras.optimizers.Adam
            new = kind.from_config(optimizer)
        # XLA draws other random numbers than TensorFlow: fit must use the same of the two.
        model.compile(new, "binary_crossentropy", metrics=["accuracy", "mae"], jit_compile=jit)
        return model

    ours, theirs = fresh(), fresh()
    assert_same_weights(ours, theirs)
    history = train_and_track_gradients(
        ours, X, y, 4, batch_size=8, shuffle=False, jit_compile=jit, loss=loss
    )
    fitted = theirs.fit(X, y, batch_size=8, epochs=4, shuffle=False, verbose=0)
    assert set(history.logs) == set(fitted.history) == {"loss", "accuracy", "mae"}
    for name, values in fitted.history.items():
        np.testing.assert_allclose(history.logs[name][1:], values, rtol=1e-5, err_msg=name)
    for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert int(ours.optimizer.iterations.numpy()) == history.steps[-1] == 16


def test_regularization_is_in_the_recorded_gradient(data):
    X, y = data
    l2 = keras.regularizers.L2(0.03)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(6, "tanh", kernel_regularizer=l2),
            keras.layers.Dense(1, "sigmoid", kernel_regularizer=l2),
        ]
    )
    start = model.get_weights()
    history = train_and_track_gradients(
        model, X, y, 2, batch_size=8, optimizer=keras.optimizers.SGD(0.1), shuffle=False
    )
    steps = oracle.sgd(
        start,
        ["tanh", "sigmoid"],
        X,
        y,
        "binary_crossentropy",
        epochs=2,
        batch_size=8,
        rate=0.1,
        l2=0.03,
    )
    for i, record in enumerate([steps[:1], steps[:4], steps[4:]]):
        expected = oracle.statistics([step.gradients for step in record])
        np.testing.assert_allclose(history["l2_norm"][i], expected["l2_norm"], rtol=1e-5)
        losses = np.average([s.loss for s in record], weights=[s.samples for s in record])
        np.testing.assert_allclose(history.logs["loss"][i], losses, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("jit", [False, True])
def test_tracking_does_not_change_a_single_bit(data, optimizer, jit):
    X, y = data
    # Wide enough for weights that are folded on their own.
    tracked, untracked, before = (small_model(units=40) for _ in range(3))
    for model, track in ((tracked, True), (untracked, False)):
        recorder = None
        chosen, loss = choose_optimizer(model, optimizer), choose_loss(model, y, None)
        if track:
            way = cheapest_way(jit, chosen)
            recorder = Recorder(model, ["max_abs", "zero_fraction"], way=way)
        loop = TrainingLoop(model, X, y, 8, chosen, loss, jit, recorder)
        for _ in range(5):
            assert loop.run(0, 99) == 3
            if not jit:  # the same steps in another size, for another second of compilation
                assert loop.run(3, 99) == 1
    assert_same_weights(tracked, untracked)
    assert recorder is None
    assert not np.array_equal(tracked.get_weights()[0], before.get_weights()[0])


def without_noise():
    """XLA and TensorFlow draw different random numbers."""
    quiet = [lay for lay in normalized().layers if "seed" not in lay.get_config()]
    return keras.Sequential([keras.Input((5,)), *quiet])


def test_xla_and_tensorflow_train_alike(data):
    X, y = data
    histories = []
    for jit in (False, True):
        keras.utils.set_random_seed(2)
        histories.append(
            train_and_track_gradients(
                without_noise(),
                X,
                y,
                3,
                batch_size=8,
                jit_compile=jit,
                seed=5,
                statistics=["max_abs"],
            )
        )
    one, other = histories
    for name in one.statistics:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(one.logs["loss"], other.logs["loss"], rtol=1e-5)


# ---- Data and order -----------------------------------------------------------------------------


def orders(epochs, seed, samples=11, **options):
    """The order in which a run takes its samples, read from the gradients of a model at rest.

    With zero weights the gradient of the mean squared error by the bias is −2 y.
    """
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.set_weights([np.zeros((1, 1)), np.zeros(1)])
    y = np.arange(1.0, samples + 1)
    history = train_and_track_gradients(
        model,
        np.ones((samples, 1)),
        y,
        epochs,
        batch_size=1,
        every=1,
        seed=seed,
        optimizer=keras.optimizers.SGD(0.0),
        **options,
    )
    found = history["mean_abs"][1:, 1] / 2
    return history, np.rint(found).astype(int).reshape(epochs, samples) - 1


def test_every_epoch_takes_every_sample_once_in_an_order_of_its_own():
    history, found = orders(4, seed=3)
    assert (np.sort(found, axis=1) == np.arange(11)).all()
    assert len({tuple(order) for order in found}) == 4
    assert history.metadata["seed"] == 3
    assert (orders(4, seed=3)[1] == found).all()
    assert not (orders(4, seed=4)[1] == found).all()
    assert (orders(2, seed=3)[1] == found[:2]).all()


def test_without_shuffling_the_order_is_that_of_the_data():
    history, found = orders(2, seed=3, shuffle=False)
    assert (found == np.arange(11)).all()
    assert history.metadata["shuffle"] is False
    assert history.metadata["seed"] is None


def test_without_a_seed_the_order_follows_keras():
    found = []
    for keras_seed in (1, 1, 2):
        keras.utils.set_random_seed(keras_seed)
        found.append(orders(2, seed=None))
    assert (found[0][1] == found[1][1]).all()
    assert not (found[0][1] == found[2][1]).all()
    seed = found[0][0].metadata["seed"]
    assert isinstance(seed, int)
    assert (orders(2, seed=seed)[1] == found[0][1]).all()


def test_shuffled_runs_agree_with_float64_in_the_same_order(data):
    X, y = data
    order = orders(3, seed=8, samples=29)[1]
    model = small_model()
    start = model.get_weights()
    history = train_and_track_gradients(
        model, X, y, 3, batch_size=8, seed=8, optimizer=keras.optimizers.SGD(0.1)
    )
    steps = oracle.sgd(
        start,
        ["tanh", "tanh", "sigmoid"],
        X,
        y,
        "binary_crossentropy",
        epochs=3,
        batch_size=8,
        rate=0.1,
        order=order,
    )
    for i, record in enumerate([steps[:1], steps[:4], steps[4:8], steps[8:]]):
        expected = oracle.statistics([step.gradients for step in record])
        np.testing.assert_allclose(history["mean_abs"][i], expected["mean_abs"], rtol=1e-5)


@pytest.mark.parametrize("jit", [False, True])
def test_the_same_seed_gives_the_same_history(data, jit):
    X, y = data
    one, other, third = (
        train_and_track_gradients(
            small_model(), X[:24], y[:24], 3, batch_size=8, seed=seed, jit_compile=jit
        )
        for seed in (1, 1, 2)
    )
    for name in one.statistics:
        np.testing.assert_array_equal(one[name], other[name])
    np.testing.assert_array_equal(one.logs["loss"], other.logs["loss"])
    assert not np.array_equal(one["mean_abs"][1:], third["mean_abs"][1:])


@pytest.mark.parametrize(
    ("batch_size", "every", "steps"),
    [
        (29, "epoch", [0, 1, 2]),
        (100, "epoch", [0, 1, 2]),
        (28, "epoch", [0, 2, 4]),
        (1, 29, [0, 29, 58]),
        (15, 1, [0, 1, 2, 3, 4]),
        (15, 3, [0, 3, 4]),  # a record across two epochs
        (15, 99, [0, 4]),
        (np.int64(15), np.int64(2), [0, 2, 4]),
    ],
)
def test_records_stand_where_they_were_asked_for(data, batch_size, every, steps):
    X, y = data
    model = small_model()
    history = train_and_track_gradients(
        model, X, y, np.int64(2), batch_size=batch_size, every=every
    )
    assert history.steps.tolist() == steps
    an_epoch = -(-29 // int(batch_size))
    assert history.epochs.tolist() == [-(-step // an_epoch) for step in steps]


def test_targets_without_the_last_axis_are_not_broadcast(data):
    X, y = data
    column = measure_gradients(small_model(), X, y)
    vector = measure_gradients(small_model(), X, y[:, 0])
    np.testing.assert_array_equal(column["mean_abs"], vector["mean_abs"])
    for loss in (None, "binary_crossentropy"):
        model = small_model()
        model.compile("sgd", "binary_crossentropy")
        compiled = measure_gradients(model, X, y[:, 0], loss)
        np.testing.assert_allclose(column["mean_abs"], compiled["mean_abs"], rtol=1e-6)


def test_data_are_taken_in_the_forms_that_fit_takes_them(data):
    X, y = data
    expected = measure_gradients(small_model(), X, y)["mean_abs"]
    for convert in (np.float64, np.ndarray.tolist, tf.constant, keras.ops.convert_to_tensor):
        found = measure_gradients(small_model(), convert(X), convert(y))["mean_abs"]
        np.testing.assert_array_equal(found, expected)
    for dtype in (int, bool, np.uint8):
        found = measure_gradients(small_model(), X, y.astype(dtype))["mean_abs"]
        np.testing.assert_array_equal(found, expected)


class Counting(keras.layers.Layer):
    """Counts how often Python, not a compiled function, runs it."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x


@pytest.mark.parametrize(("every", "jit"), [("epoch", False), (3, False), ("epoch", True)])
def test_later_epochs_trace_nothing(data, jit, every):
    X, y = data
    counts = []
    for epochs in (1, 3):
        counting = Counting()
        model = keras.Sequential([keras.Input((5,)), counting, keras.layers.Dense(1, "sigmoid")])
        before = counting.calls
        train_and_track_gradients(model, X, y, epochs, batch_size=8, jit_compile=jit, every=every)
        counts.append(counting.calls - before)
    # Once for the full batches and once for the last; autograph traces a loop's body twice at most.
    assert counts[0] == counts[1]
    assert 2 <= counts[0] <= 4


# ---- Which gradient it is -----------------------------------------------------------------------


def first_gradients(model, X, y, loss="binary_crossentropy"):
    """Of one eager tape, on plain TensorFlow."""
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(keras.losses.get(loss)(y, model(X, training=True)))
    return tape.gradient(value, [v.value for v in model.trainable_variables])


@pytest.mark.parametrize(
    ("clip", "jit"),
    [("clipnorm", False), ("clipnorm", True), ("global_clipnorm", False), ("clipvalue", False)],
)
def test_the_gradient_is_recorded_before_clipping(data, clip, jit):
    X, y = data
    histories = []
    for options in ({}, {clip: 1e-4}):
        history = train_and_track_gradients(
            small_model(),
            X,
            y,
            1,
            batch_size=29,
            jit_compile=jit,
            optimizer=keras.optimizers.SGD(1.0, **options),
        )
        histories.append(history)
    free, clipped = histories
    np.testing.assert_allclose(clipped["l2_norm"], free["l2_norm"], rtol=1e-6)
    np.testing.assert_allclose(free["update_l2"][1], free["l2_norm"][1], rtol=1e-4)
    assert (clipped["update_l2"][1] < 1e-3).all()  # it did clip
    assert (free["update_l2"][1] > 1e-2).all()


def test_rounding_is_not_clipping(data):
    X, y = data
    optimizer = keras.optimizers.SGD(clipnorm=2.3)
    history = train_and_track_gradients(small_model(), X, y, 2, optimizer=optimizer)
    assert history["l2_norm"].max() < 2
    assert not history["clipped_steps"].any()


def scaled(kind):
    if kind == "factor":
        return keras.optimizers.SGD(0.1, loss_scale_factor=1024.0)
    inner = keras.optimizers.SGD(0.1)
    return keras.optimizers.LossScaleOptimizer(inner, initial_scale=512.0, dynamic_growth_steps=3)


@pytest.mark.parametrize(
    ("kind", "jit"), [("factor", False), ("dynamic", False), ("dynamic", True)]
)
def test_the_gradient_is_recorded_unscaled(data, kind, jit):
    X, y = data
    histories = [
        train_and_track_gradients(
            small_model(),
            X[:24],
            y[:24],
            3,
            batch_size=8,
            jit_compile=jit,
            optimizer=optimizer,
            seed=0,
        )
        for optimizer in (keras.optimizers.SGD(0.1), scaled(kind))
    ]
    for name in histories[0].statistics:
        np.testing.assert_allclose(
            histories[1][name], histories[0][name], rtol=1e-5, atol=1e-7, err_msg=name
        )
    np.testing.assert_allclose(histories[1].logs["loss"], histories[0].logs["loss"], rtol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_four_accumulated_batches_are_recorded_as_one_of_four_times_the_size(data, jit):
    X, y = data
    accumulated, whole = (
        train_and_track_gradients(
            small_model(), X[:24], y[:24], 3, batch_size=size, shuffle=False, jit_compile=jit,
            optimizer=keras.optimizers.SGD(0.5, gradient_accumulation_steps=count),
        )
        for size, count in ((6, 4), (24, None))
    )  # fmt: skip
    for name in whole.statistics:
        np.testing.assert_allclose(
            accumulated[name], whole[name], rtol=1e-4, atol=1e-7, err_msg=name
        )
    assert accumulated.steps.tolist() == [0, 4, 8, 12]
    assert accumulated.epochs.tolist() == [0, 1, 2, 3]


def test_epochs_without_an_update_have_no_gradient(data):
    X, y = data
    history = train_and_track_gradients(
        small_model(), X[:16], y[:16], 3, batch_size=8,
        optimizer=keras.optimizers.SGD(0.5, gradient_accumulation_steps=4),
    )  # fmt: skip
    assert history.epochs.tolist() == [0, 1, 2, 3]
    assert np.isnan(history["l2_norm"]).all(axis=1).tolist() == [True, True, False, True]


@pytest.mark.parametrize("bias", [False, True])
def test_without_biases_a_relu_net_shares_one_product_of_weight_and_gradient(random, bias):
    """⟨W_l, ∂L/∂W_l⟩ is the same in every layer where each is homogeneous of degree 1."""
    f = keras.layers.Dense
    model = keras.Sequential(
        [
            keras.Input((5,)),
            *[f(8, "relu", use_bias=bias, bias_initializer="ones") for _ in range(4)],
            f(2, use_bias=False),
        ]
    )
    X = random.normal(size=(20, 5)).astype(np.float32)
    y = random.normal(size=(20, 2)).astype(np.float32)
    loss = keras.losses.mean_squared_error
    _, gradients, _ = backward(model, tf.constant(X), tf.constant(y), loss)
    kernels = [i for i, v in enumerate(model.trainable_variables) if v.name == "kernel"]
    products = [
        np.sum(np.float64(model.trainable_variables[i].numpy()) * gradients[i].numpy())
        for i in kernels
    ]
    assert (max(products) - min(products) < 1e-5 * abs(np.mean(products))) is not bias
    if not bias:
        _, expected = oracle.backprop(
            model.get_weights(), ["relu"] * 4 + ["linear"], X, y, "mean_squared_error", biased=False
        )
        recorded = measure_gradients(model, X, y)["l2_norm"][0]
        np.testing.assert_allclose(recorded, oracle.norms(expected), rtol=1e-5)
        exact = [np.sum(w * g) for w, g in zip(model.get_weights(), expected, strict=True)]
        np.testing.assert_allclose(products, exact, rtol=1e-5)


class Lookup(keras.layers.Layer):
    """An embedding as a product with one-hot rows: its gradient is dense."""

    def build(self, shape):
        self.table = self.add_weight((7, 3), "normal", name="embeddings")

    def call(self, X):
        return keras.ops.matmul(keras.ops.one_hot(X, 7), self.table)


@pytest.mark.parametrize("jit", [False, True])
def test_rows_of_an_embedding_that_repeat_are_added(random, jit):
    X = random.integers(5, size=(12, 6)).astype(np.int32)  # rows 5 and 6 of the table: never
    y = random.normal(size=(12, 1)).astype(np.float32)
    histories = []
    for layer in (keras.layers.Embedding(7, 3), Lookup()):
        head = [keras.layers.Flatten(), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((6,), dtype="int32"), layer, *head])
        values = np.random.default_rng(1)
        model.set_weights([values.normal(size=w.shape) for w in model.get_weights()])
        histories.append(
            train_and_track_gradients(
                model,
                X,
                y,
                2,
                batch_size=4,
                seed=0,
                jit_compile=jit,
                statistics=["max_abs", "zero_fraction"],
                optimizer=keras.optimizers.SGD(0.01),
            )
        )
    sparse, dense = histories
    for name in sparse.statistics:
        np.testing.assert_allclose(sparse[name], dense[name], rtol=1e-5, atol=1e-7, err_msg=name)
    assert (sparse["zero_fraction"][:, 0] >= 2 / 7).all()


def test_a_weight_that_the_loss_does_not_depend_on_has_no_gradient(data):
    X, y = data
    inputs = keras.Input((5,))
    used = keras.layers.Dense(1, "sigmoid", name="used")
    unused = keras.layers.Dense(3, name="unused")

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.unused, self.used = unused, used

        def call(self, x):
            self.unused(x)
            return self.used(x)

    model = Model()
    model(inputs)
    history = measure_gradients(model, X, y, statistics=["zero_fraction"], loss="mse")
    assert history["updates"].tolist() == [[1, 1, 1, 1]]
    assert history["gradients_present"].tolist() == [[0, 0, 1, 1]]
    for statistic in ("mean_abs", "zero_fraction"):
        assert np.isnan(history.by_layer(statistic)).tolist() == [[True, False]]


# ---- A probe ------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, True])
def test_a_probe_measures_before_training_and_at_each_record(data, jit):
    X, y = data
    model, weights = small_model(), []

    def probed(epochs):
        """A record's activations and signal by hand, from the weights that a run ends with."""
        again = small_model()
        if epochs:
            train_and_track_gradients(again, X, y, epochs, batch_size=8, seed=3, jit_compile=jit)
        weights.append(again.get_weights())
        (*_, W2, b2, W3, b3) = (array.astype(np.float64) for array in weights[-1])
        a = np.tanh(np.tanh(X @ weights[-1][0] + weights[-1][1]) @ W2 + b2)
        p = 1 / (1 + np.exp(-(a @ W3 + b3)))
        return a.mean(), np.linalg.norm((p - y) / len(y) @ W3.T)

    history = train_and_track_gradients(
        model, X, y, 3, batch_size=8, seed=3, jit_compile=jit, probe=(X, y)
    )
    assert history.outputs == ("hidden_1", "hidden_2", "output")
    expected = np.array([probed(epochs) for epochs in range(4)])
    for name, column in zip(("activation_mean", "signal_l2"), expected.T, strict=True):
        np.testing.assert_allclose(history.activations[name][:, 1], column, rtol=1e-4)
    for one, other in zip(model.get_weights(), weights[-1], strict=True):
        np.testing.assert_array_equal(one, other)  # the probe changed nothing


def test_a_probe_leaves_dropout_and_moving_averages_alone(data):
    X, y = data
    probed, plain = (normalized() for _ in range(2))
    plain.set_weights(probed.get_weights())
    for model, probe in ((probed, (X, y)), (plain, None)):
        keras.utils.set_random_seed(4)
        train_and_track_gradients(model, X, y, 2, seed=0, probe=probe, jit_compile=False)
    assert_same_weights(probed, plain)


# ---- measure_gradients --------------------------------------------------------------------------


def test_measuring_leaves_the_model_as_it_was(data):
    X, y = data
    for compiled in (False, True):
        model = normalized()
        if compiled:
            model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
        before = [v.numpy().copy() for v in model.variables]
        assert any("seed_generator_state" in v.path for v in model.variables)
        results = [measure_gradients(model, X, y) for _ in range(2)]
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)
        for name in results[0].statistics:  # the same dropout each time
            np.testing.assert_array_equal(results[0][name], results[1][name])


def test_measuring_puts_the_model_back_even_when_it_fails(data):
    X, y = data
    model = normalized()
    before = [v.numpy().copy() for v in model.variables]

    def fails(y, p):
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        measure_gradients(model, X, y, fails)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_measuring_is_a_pass_of_training(data):
    """The first record of a run in one batch, with dropout and batch moments."""
    X, y = data
    measured = []
    for measure in (True, False):
        keras.utils.set_random_seed(2)
        model = normalized()
        history = (
            measure_gradients(model, X, y)
            if measure
            else train_and_track_gradients(model, X, y, 1, batch_size=29, shuffle=False)
        )
        measured.append(history)
    for name in measured[0].statistics:
        np.testing.assert_allclose(measured[0][name][0], measured[1][name][0], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(measured[0].logs["loss"][0], measured[1].logs["loss"][0], rtol=1e-6)


def test_a_recurrent_net_against_a_tape_of_its_own(random):
    X = random.normal(size=(6, 4, 3)).astype(np.float32)
    y = random.normal(size=(6, 1)).astype(np.float32)
    layers = [keras.layers.LSTM(5, return_sequences=True), keras.layers.LSTM(4)]
    model = keras.Sequential([keras.Input((4, 3)), *layers, keras.layers.Dense(1)])
    history = measure_gradients(model, X, y, statistics=["max_abs"])
    expected = [g.numpy() for g in first_gradients(model, X, y, "mean_squared_error")]
    for name, value in oracle.statistics([expected]).items():
        if name in history.statistics:
            np.testing.assert_allclose(history[name][0], value, rtol=1e-5)
    assert len(history.weights) == 8
    assert len(history.layers) == 3
    trained = train_and_track_gradients(model, X, y, 2, batch_size=6)
    assert trained.metadata["jit_compile"] is False  # an LSTM's own choice
    np.testing.assert_allclose(trained["mean_abs"][0], history["mean_abs"][0], rtol=1e-5)


# ---- Names and metadata -------------------------------------------------------------------------


def test_weights_of_nested_models_keep_the_names_of_their_models():
    one, other = (
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="dense")], name=name)
        for name in ("one", "other")
    )
    shared = keras.layers.Dense(3, name="shared")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.add([other(shared(one(inputs))), shared(inputs)]))
    weights = list(describe_weights(model).values())
    assert [(w.layer, w.name, w.shape) for w in weights] == [
        (w.layer, v.name, tuple(v.shape))
        for w, v in zip(weights, model.trainable_variables, strict=True)
    ]
    assert sorted({w.layer for w in weights}) == ["one/dense", "other/dense", "shared"]
    assert len({w.path for w in weights}) == len(weights) == 6


def test_only_what_is_trained_is_recorded(data):
    X, y = data
    model = small_model()
    model.get_layer("hidden_1").trainable = False
    frozen = model.get_layer("hidden_1").kernel.numpy().copy()
    history = train_and_track_gradients(model, X, y, 2)
    assert history.layers == ("hidden_2", "output")
    np.testing.assert_array_equal(model.get_layer("hidden_1").kernel.numpy(), frozen)


def test_the_metadata_say_how_to_make_the_run_again(data, tmp_path):
    X, y = data
    history = train_and_track_gradients(
        small_model(), X, y, 2, optimizer="adam", every=3, seed=5, journal=tmp_path / "j"
    )
    metadata = history.metadata
    expected = {
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "optimizer": "adam",
        "loss": "binary_crossentropy",
        "jit_compile": False,
        "seed": 5,
        "shuffle": True,
        "epochs": 2,
        "batch_size": 32,
        "every": 3,
        "samples": 29,
    }
    assert {key: metadata[key] for key in expected} == expected
    since = datetime.now(timezone.utc) - datetime.fromisoformat(metadata["started"])
    assert timedelta(0) <= since < timedelta(minutes=5)
    assert json.loads(json.dumps(metadata)) == metadata
    assert GradientHistory.load(tmp_path / "j").metadata == metadata


@pytest.mark.parametrize(
    ("output", "units", "targets", "loss"),
    [
        ("sigmoid", 1, (29, 1), "binary_crossentropy"),
        ("linear", 2, (29, 2), "mean_squared_error"),
        ("softmax", 3, (29, 3), "categorical_crossentropy"),
        ("softmax", 3, (29,), "sparse_categorical_crossentropy"),
        ("softmax", 3, (29, 1), "sparse_categorical_crossentropy"),
    ],
)
def test_the_last_activation_names_the_loss(data, output, units, targets, loss):
    X, _ = data
    y = np.ones(targets)
    named, default = (
        measure_gradients(small_model(output_units=units, output_activation=output), X, y, given)
        for given in (loss, None)
    )
    assert default.metadata["loss"] == loss
    np.testing.assert_array_equal(named["mean_abs"], default["mean_abs"])


def test_the_compiled_optimizer_and_loss_are_used_unless_others_are_named(data):
    X, y = data

    def compiled():
        model = small_model()
        model.compile(keras.optimizers.SGD(0.5), "mean_absolute_error", metrics=["mse"])
        return model

    model = compiled()
    history = train_and_track_gradients(model, X, y, 1, batch_size=29, shuffle=False)
    np.testing.assert_allclose(history["update_l2"][1], 0.5 * history["l2_norm"][1], rtol=1e-5)
    functions = ["tanh", "tanh", "sigmoid"]
    p = oracle.backprop(compiled().get_weights(), functions, X, y, "mean_squared_error")
    np.testing.assert_allclose(history.logs["mse"][0], p[0], rtol=1e-5)
    assert set(history.logs) == {"loss", "mse"}

    model = compiled()
    history = train_and_track_gradients(
        model, X, y, 1, batch_size=29, shuffle=False, loss="mse", optimizer="sgd"
    )
    np.testing.assert_allclose(history["l2_norm"][1], oracle.norms(p[1]), rtol=1e-5)
    np.testing.assert_allclose(history["update_l2"][1], 0.01 * history["l2_norm"][1], rtol=1e-4)
    assert int(model.optimizer.iterations.numpy()) == 0


def test_a_second_run_goes_on_where_the_first_ended(data):
    X, y = data
    together, apart = small_model(), small_model()
    options = {"batch_size": 8, "shuffle": False}
    whole = train_and_track_gradients(together, X, y, 4, optimizer="adam", **options)
    optimizer = keras.optimizers.Adam()
    parts = [
        train_and_track_gradients(apart, X, y, 2, optimizer=optimizer, **options) for _ in range(2)
    ]
    assert_same_weights(together, apart)
    # The first step of each run is added up on its own, which rounds differently.
    np.testing.assert_allclose(parts[1]["mean_abs"][1:], whole["mean_abs"][3:], rtol=1e-6)


@pytest.mark.parametrize(("steps", "jit"), [(4999, False), (5000, True)])
def test_auto_compiles_what_repays_it(steps, jit):
    model = small_model()
    assert kgrad.measure.loop._resolve_jit("auto", model, steps) is jit
    for asked in (True, False):
        assert kgrad.measure.loop._resolve_jit(asked, model, steps) is asked


def test_the_progress_bar_speaks_only_when_asked(data, capfd):
    X, y = data
    train_and_track_gradients(small_model(), X, y, 2)
    assert capfd.readouterr() == ("", "")
    train_and_track_gradients(small_model(), X, y, 2, verbose=1)
    assert "loss" in capfd.readouterr().out


# ---- Interrupted --------------------------------------------------------------------------------


@pytest.fixture
def sigint():
    """Python's own handler, which a process that was started in the background lacks."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("samples", "batch_size", "epochs"),
    [(4_000_000, 1, 5), (40, 8, 100_000)],  # minutes
    ids=["within a long epoch", "between short epochs"],
)
def test_ctrl_c_returns_soon_with_what_was_recorded(tmp_path, sigint, samples, batch_size, epochs):
    journal = tmp_path / "j.jsonl"
    X = np.ones((samples, 1), np.float32)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(1e-9)
    pressed = []

    def press():
        while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
            time.sleep(0.01)
        time.sleep(0.7)  # the first calls adapt their length to the speed
        pressed.append(time.perf_counter())
        _thread.interrupt_main()

    thread = threading.Thread(target=press)
    thread.start()
    history = train_and_track_gradients(
        model,
        X,
        X[:, 0],
        epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        shuffle=False,
        jit_compile=False,
        journal=journal,
    )
    waited = time.perf_counter() - pressed[0]
    thread.join()
    assert waited < 1
    assert history.metadata["interrupted"] is True
    assert history.steps[0] == 0
    assert history.steps[-1] == int(optimizer.iterations.numpy()) > 1
    an_epoch = samples // batch_size
    assert (history.steps[:-1] % an_epoch == 0).all()
    np.testing.assert_array_equal(history.epochs, -(-history.steps // an_epoch))
    loaded = GradientHistory.load(journal)
    np.testing.assert_array_equal(loaded.steps, history.steps)
    np.testing.assert_array_equal(loaded["mean_abs"], history["mean_abs"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_within_a_destructor_which_python_drops_ends_the_training(data, sigint, monkeypatch):
    class Interrupted:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    class Loop(TrainingLoop):
        def run(self, first, most):
            if first and not destroyed:
                destroyed.append(True)
                Interrupted()
            return super().run(first, most)

    destroyed = []
    monkeypatch.setattr(kgrad.measure.loop.backend, "TrainingLoop", Loop)
    history = train_and_track_gradients(small_model(), *data, 10_000, batch_size=8)
    assert history.metadata["interrupted"] is True
    assert len(history) < 10


PLACES = {
    "before the record": ("kgrad.measure.folds.Folds.drain", "before"),
    "in the record": ("kgrad.measure.folds.Folds.folded", "before"),
    "before it is kept": ("kgrad.records.history.GradientHistory.append", "before"),
    "after it is kept": ("kgrad.records.history.GradientHistory.append", "after"),
    "before it is written": ("kgrad.records.files.LineWriter.write", "before"),
    "after it is written": ("kgrad.records.files.LineWriter.write", "after"),
    "before the reset": ("kgrad.measure.folds.Folds.reset", "before"),
    "after the reset": ("kgrad.measure.folds.Folds.reset", "after"),
    "before the logs' reset": (
        "kgrad.measure.backends.tensorflow.steps.TrainingLoop.reset_logs",
        "before",
    ),
    "after steps": ("kgrad.measure.backends.tensorflow.steps.TrainingLoop.run", "after"),
    "in a probe": ("kgrad.measure.probe.Probe.measure", "before"),
}


@pytest.mark.parametrize(("target", "when"), PLACES.values(), ids=PLACES)
def test_ctrl_c_at_any_place_counts_every_step_once(
    data, tmp_path, monkeypatch, sigint, target, when
):
    """The signal may come between any two instructions; here it does in the third record."""
    X, y = data
    owner, name = target.rsplit(".", 1)
    module, class_name = owner.rsplit(".", 1)
    owner = getattr(sys.modules[module], class_name)
    original = getattr(owner, name)
    fired = []

    def interrupted(self, *arguments, **options):
        due = journal.exists() and journal.read_bytes().count(b"\n") >= 4 and not fired
        if due:
            fired.append(True)
        if due and when == "before":
            signal.raise_signal(signal.SIGINT)
        result = original(self, *arguments, **options)
        if due and when == "after":
            signal.raise_signal(signal.SIGINT)
        return result

    journal = tmp_path / "j"
    monkeypatch.setattr(owner, name, interrupted)
    optimizer = keras.optimizers.SGD(0.1)
    model = small_model()
    start = model.get_weights()
    history = train_and_track_gradients(
        model,
        X,
        y,
        9,
        batch_size=8,
        every=1,
        optimizer=optimizer,
        shuffle=False,
        jit_compile=False,
        journal=journal,
        probe=(X, y),
    )
    assert fired
    assert history.metadata["interrupted"] is True
    done = int(optimizer.iterations.numpy())
    assert history.steps.tolist() == list(range(done + 1))
    steps = oracle.sgd(
        start,
        ["tanh", "tanh", "sigmoid"],
        X,
        y,
        "binary_crossentropy",
        epochs=9,
        batch_size=8,
        rate=0.1,
    )
    for i in range(1, done + 1):
        expected = oracle.statistics([steps[i - 1].gradients])["mean_abs"]
        np.testing.assert_allclose(history["mean_abs"][i], expected, rtol=1e-5)
        np.testing.assert_allclose(history.logs["loss"][i], steps[i - 1].loss, rtol=1e-5)
    loaded = GradientHistory.load(journal)
    np.testing.assert_array_equal(loaded.steps, history.steps)
    np.testing.assert_array_equal(loaded["mean_abs"], history["mean_abs"])


def test_ctrl_c_before_the_first_record_is_an_interrupt(data, monkeypatch):
    X, y = data

    def interrupted(self, first, count):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingLoop, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_and_track_gradients(small_model(), X, y, 1)


KILLED = """
import sys, numpy as np
from kgrad.experiments.models import create_model
from kgrad.measure.loop import train_and_track_gradients
model = create_model(2, "tanh", "he", units=6, input_shape=(5,), seed=1)
X = np.random.default_rng(0).normal(size=(29, 5))
train_and_track_gradients(model, X, X[:, 0] > 0, 10**6, batch_size=8, journal=sys.argv[1], seed=3)
"""


def test_what_is_killed_leaves_its_records(tmp_path):
    journal = tmp_path / "j.jsonl"
    environment = os.environ | {"PYTHONPATH": str(TREE)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(journal)], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < 8:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    killed = GradientHistory.load(journal)
    assert killed.steps.tolist() == [4 * i for i in range(len(killed))]
    assert len(killed) >= 7
    X = np.random.default_rng(0).normal(size=(29, 5))
    whole = train_and_track_gradients(small_model(), X, X[:, 0] > 0, 6, batch_size=8, seed=3)
    np.testing.assert_allclose(killed["mean_abs"][:7], whole["mean_abs"], rtol=1e-5)


def test_the_journal_is_the_history(data, tmp_path):
    X, y = data
    history = train_and_track_gradients(
        small_model(), X, y, 3, journal=tmp_path / "j", statistics=["max_abs"], every=2
    )
    history.save(tmp_path / "h")
    assert (tmp_path / "j").read_bytes() == (tmp_path / "h").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_a_full_disk_is_an_os_error(data):
    X, y = data
    with pytest.raises(OSError, match="No space left on device"):
        train_and_track_gradients(small_model(), X, y, 1, journal="/dev/full")


# ---- Refused ------------------------------------------------------------------------------------


def other_optimizer():
    optimizer = keras.optimizers.SGD(name="mine")
    optimizer.build(small_model(units=3).trainable_variables)
    return optimizer


def untrainable():
    model = small_model()
    model.trainable = False
    model.name = "m"
    return model


def unbuilt():
    return keras.Sequential([keras.layers.Dense(1)], name="m")


def several_outputs():
    inputs = keras.Input((5,))
    outputs = [keras.layers.Dense(1)(inputs), keras.layers.Dense(1)(inputs)]
    return keras.Model(inputs, outputs, name="m")


def tanh_output():
    model = small_model(output_activation="tanh")
    model.name = "m"
    return model


X0, Y0 = np.ones((29, 5), np.float32), np.ones((29, 1), np.float32)
HOLED = X0.copy()
HOLED[3, 1] = np.nan
HOLED[4, 2] = -np.inf
POSITIVE = "must be an integer of at least 1, received"
NUMBERS = "statistics must be among mean_abs, l2_norm, max_abs, zero_fraction, updates, "
NUMBERS += "gradients_present, nonfinite_steps, "
NUMBERS += "first_nonfinite_step, weight_l2, update_l2, received 'max'; did you mean 'max_abs'?"
REFUSED = [
    (ValueError, {"epochs": 0}, f"epochs {POSITIVE} 0"),
    (ValueError, {"epochs": True}, f"epochs {POSITIVE} True"),
    (ValueError, {"epochs": 2.0}, f"epochs {POSITIVE} 2.0"),
    (ValueError, {"epochs": "3"}, f"epochs {POSITIVE} '3'"),
    (ValueError, {"batch_size": -1}, f"batch_size {POSITIVE} -1"),
    (ValueError, {"batch_size": True}, f"batch_size {POSITIVE} True"),
    (ValueError, {"batch_size": None}, f"batch_size {POSITIVE} None"),
    (ValueError, {"every": 0}, f'every, unless it is "epoch", {POSITIVE} 0'),
    (ValueError, {"every": True}, f'every, unless it is "epoch", {POSITIVE} True'),
    (ValueError, {"every": "step"}, f"every, unless it is \"epoch\", {POSITIVE} 'step'"),
    (
        ValueError,
        {"jit_compile": "yes"},
        "jit_compile must be True, False or \"auto\", received 'yes'",
    ),
    (ValueError, {"statistics": ["max"]}, NUMBERS),
    (
        TypeError,
        {"statistics": "max_abs"},
        "statistics must be a sequence of names, received 'max_abs': ['max_abs']?",
    ),
    (
        ValueError,
        {"loss": "mseee"},
        "loss must be a Keras loss, its name or a function, received 'mseee'",
    ),
    (
        ValueError,
        {"optimizer": "sgdd"},
        "optimizer must be a Keras optimizer or its name, received 'sgdd'",
    ),
    (
        ValueError,
        {"optimizer": other_optimizer},
        "optimizer 'mine' was built for the weights of another model, model 'm' needs one of its "
        "own: pass a new optimizer",
    ),
    (
        ValueError,
        {"y": Y0[:28]},
        "X and y must have the same length, received 29 and 28 samples",
    ),
    (
        ValueError,
        {"X": X0[:0], "y": Y0[:0]},
        "X must hold at least one sample, received shape (0, 5)",
    ),
    (ValueError, {"y": []}, "y must hold at least one sample, received shape (0,)"),
    (ValueError, {"X": 1.0}, "X must hold at least one sample, received shape ()"),
    (
        ValueError,
        {"X": HOLED},
        "X must be finite, received 2 NaN or infinite entries: remove or impute them",
    ),
    (
        ValueError,
        {"y": Y0 * np.nan},
        "y must be finite, received 29 NaN or infinite entries: remove or impute them",
    ),
    (
        ValueError,
        {"X": X0[:, :3]},
        "X must have the shape (None, 5) that model 'm' takes, received (29, 3)",
    ),
    (
        ValueError,
        {"X": X0[:, 0]},
        "X must have the shape (None, 5) that model 'm' takes, received (29,)",
    ),
    (
        TypeError,
        {"X": X0.astype(int)},
        "X must be floating point for model 'm', received int64: use X.astype('float32')",
    ),
    (TypeError, {"X": X0.astype(str)}, "X must be an array of numbers, received dtype <U32"),
    (TypeError, {"y": ["a"] * 29}, "y must be an array of numbers, received dtype <U1"),
    *(
        (
            TypeError,
            {"X": X},
            f"X must be an array of numbers, received {received}: pass an array, or use "
            "GradientTracker in fit",
        )
        for X, received in (
            (None, "None"),
            ({"a": X0}, "a dict"),
            (lambda: tf.data.Dataset.from_tensor_slices((X0, Y0)).batch(4), "a tf.data.Dataset"),
            (iter([X0]), "a list_iterator"),
            (lambda: Batches(), "a Batches"),
        )
    ),
    (TypeError, {"model": "m"}, "model must be a keras.Model, received str"),
    (
        ValueError,
        {"model": unbuilt},
        "model 'm' must be built, received one without weights: give it a keras.Input, or call it "
        "once on a batch",
    ),
    (
        ValueError,
        {"model": untrainable},
        "model 'm' must have trainable weights, received none: set trainable = True on a layer",
    ),
    (
        ValueError,
        {"model": several_outputs},
        "model 'm' must have one output, received 2: make a keras.Model with the output to study",
    ),
    (
        ValueError,
        {"model": tanh_output},
        "loss must be named for model 'm', which is not compiled and ends in the activation "
        "'tanh': pass loss='mean_squared_error' or another",
    ),
]


class Batches(keras.utils.PyDataset):
    """Batches that must not be read."""

    def __len__(self):
        return 2

    def __getitem__(self, i):
        raise AssertionError


def build(arguments):
    """Models and optimizers are made in the test, not when the table is read."""
    return {k: v() if isinstance(v, FunctionType) else v for k, v in arguments.items()}


def call(arguments, journal=None):
    model = small_model()
    model.name = "m"
    given = {"model": model, "X": X0, "y": Y0, "epochs": 1, "journal": journal} | arguments
    return train_and_track_gradients(**build(given))


@pytest.mark.parametrize(
    ("error", "arguments", "message"), REFUSED, ids=[r[2][:50] for r in REFUSED]
)
def test_what_cannot_be_used_is_refused_in_one_sentence(error, arguments, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$") as raised:
        call(arguments)
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("error", "arguments", "start"),
    [
        (ValueError, {"seed": -1}, "seed must be "),
        ((TypeError, ValueError), {"seed": "three"}, "seed must be "),
        (TypeError, {"probe": X0}, "probe must be None or a tuple \\(X, y\\), received ndarray"),
        (ValueError, {"probe": (X0, Y0[:3])}, "X and y must have the same length"),
        (ValueError, {"X": [[1.0] * 5] * 28 + [[1.0]]}, "X must "),  # ragged
        (ValueError, {"X": np.full((29, 5), 1e300)}, "X must be finite"),  # as float32
        (ValueError, {"y": np.full((29, 1), -1e300)}, "y must be finite"),
    ],
)
def test_more_that_cannot_be_used(tmp_path, error, arguments, start):
    journal = tmp_path / "j"
    journal.write_text("an earlier run")
    with pytest.raises(error, match=f"^{start}"):
        call(arguments, journal)
    assert journal.read_text() == "an earlier run"


def test_a_refused_call_changes_nothing(tmp_path):
    journal = tmp_path / "j"
    journal.write_text("an earlier run")
    for _, arguments, _ in REFUSED:
        with pytest.raises((TypeError, ValueError)):
            call(arguments, journal)
    assert journal.read_text() == "an earlier run"


def test_measuring_refuses_the_same(data):
    X, y = data
    for error, arguments, message in REFUSED:
        if set(arguments) <= {"model", "X", "y", "loss", "statistics"}:
            model = small_model()
            model.name = "m"
            given = {"model": model, "X": X, "y": y} | arguments
            with pytest.raises(error, match=f"^{re.escape(message)}$"):
                measure_gradients(**build(given))


def test_a_journal_that_cannot_be_opened_is_an_os_error_before_training(tmp_path, data):
    X, y = data
    for path in (tmp_path / "none" / "j", tmp_path):
        model = small_model()
        before = model.get_weights()
        with pytest.raises(OSError, match=re.escape(str(path))):
            train_and_track_gradients(model, X, y, 1, journal=path)
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)
    assert list(tmp_path.iterdir()) == []


def test_integers_are_fine_where_the_model_looks_rows_up(random):
    X = random.integers(5, size=(8, 3))
    layers = [keras.layers.Embedding(5, 2), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    assert len(train_and_track_gradients(model, X, X[:, 0].astype(float), 1)) == 2


def test_the_progress_bar_shows_epoch_loss_and_end(data, capsys):
    X, y = data
    train_and_track_gradients(small_model(), X, y, 2, jit_compile=False, verbose=1)
    shown = capsys.readouterr().out
    assert "epoch 2  loss 0." in shown
    assert "100%" in shown


# ---- Targets that the loss has no value for ------------------------------------------------------


def classifier(outputs, activation):
    return small_model(output_units=outputs, output_activation=activation)


@pytest.mark.parametrize("jit_compile", [True, False])
@pytest.mark.parametrize(
    ("outputs", "activation", "labels", "message"),
    [
        (3, "softmax", (1, 2, 3), "labels from 0 to 2, .* has 3 outputs, received labels from 1"),
        (3, "softmax", (-1, 0, 1), "received labels from -1 to 1"),
        (1, "sigmoid", (1, 2), "from 0 to 1 for binary cross-entropy, .* values from 1 to 2"),
        (1, "sigmoid", (-1, 1), "values from -1 to 1: recode the targets"),
    ],
)
def test_labels_without_an_output_are_refused(
    data, outputs, activation, labels, message, jit_compile
):
    y = np.resize(labels, len(data[0]))
    model = classifier(outputs, activation)
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        train_and_track_gradients(model, data[0], y, 1, jit_compile=jit_compile)
    with pytest.raises(ValueError, match=message):
        measure_gradients(model, data[0], y)
    for one, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_labels_that_a_loss_ignores_or_that_were_asked_for_are_taken(data):
    X = data[0]
    y = np.resize([0, 1, 2, -1], len(X))
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    assert len(train_and_track_gradients(classifier(3, "softmax"), X, y, 1, loss=loss)) == 2
    signs = np.resize([-1.0, 1.0], (len(X), 1)).astype(np.float32)
    assert len(train_and_track_gradients(classifier(1, "sigmoid"), X, signs, 1, loss="mse")) == 2
    compiled = classifier(3, "softmax")
    compiled.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        train_and_track_gradients(compiled, X, y, 1)


def test_a_model_without_an_output_shape_and_classes_on_another_axis_are_taken(data):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3, activation="softmax")

        def call(self, x):
            return self.dense(x)

    X, y = data[0], np.resize([0, 1, 2], len(data[0]))
    model = Subclassed()
    model(X[:1])
    loss = keras.losses.SparseCategoricalCrossentropy()
    assert len(train_and_track_gradients(model, X, y, 1, loss=loss)) == 2
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        train_and_track_gradients(model, X, y + 1, 1, loss=loss)
    images = np.ones((6, 5, 2, 2), np.float32)
    first = keras.Sequential([keras.Input((5, 2, 2)), keras.layers.Rescaling(0.5)])
    labels = np.full((6, 2, 2), 4)
    require_labels(first, images, labels, keras.losses.SparseCategoricalCrossentropy(axis=1))
    with pytest.raises(ValueError, match="labels from 0 to 4"):
        require_labels(
            first, images, labels + 1, keras.losses.SparseCategoricalCrossentropy(axis=1)
        )


def test_a_program_that_ignores_ctrl_c_is_not_ended_by_it(data, sigint):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Timer(1.0, signal.raise_signal, [signal.SIGINT]).start()
    try:
        history = train_and_track_gradients(small_model(), *data, 2000, every=500)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted" not in history.metadata
    assert history.epochs[-1] == 2000

"""Remedies: the runs that are trained, their ranking, and the reasons for impossible changes."""

import random as python_random
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.diagnosis import model_rules
from kgrad.diagnosis.diagnosing import DECLARED
from kgrad.diagnosis.findings import Diagnosis, Finding
from kgrad.experiments import PRESETS, Experiment
from kgrad.experiments.engines import prepare
from kgrad.experiments.models import create_model
from kgrad.experiments.remedies import trying as module
from kgrad.experiments.remedies.plans import CHANGES
from kgrad.experiments.remedies.trying import REMEDIES, try_remedies
from kgrad.measure.tracker import GradientTracker

layers = keras.layers
SMALL = Experiment(num_layers=3, units=8, samples=64, features=4, seed=5)


# --- experiments


def test_a_deep_sigmoid_network_is_fixed_by_the_remedies_that_its_finding_names():
    ill = PRESETS["vanishing"][0]
    trials = try_remedies(ill, remedies=["initializer", "activation", "normalization"])
    assert {t.name for t in trials[1:3]} == {
        "activation relu, initializer he", "normalization batch",
    }  # fmt: skip
    assert trials[1].loss < trials[0].loss / 2
    assert trials.first_to_last(trials[0]) < 1e-8 < 1e-2 < trials.first_to_last(trials[1])
    assert trials[1].note.startswith("large improvement")


def trained_by_hand(model, X, y, seed=0, batch_size=32):
    """Train for an epoch on the samples in the order of a trial, without what makes trials."""
    orders = np.random.default_rng(seed)
    orders.permutation(len(X))  # Keras ends an epoch before the first one
    order = orders.permutation(len(X))
    with GradientTracker(log=False) as tracker:
        model.fit(
            X[order], y[order], batch_size=batch_size, shuffle=False, verbose=0, callbacks=[tracker]
        )
    return tracker.history


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("activation relu", {"activation": "relu"}),
        ("skip connections", {"skip_connections": True}),
        ("clipping, norm 1", {"clip_norm": 1.0}),
        ("learning rate ×0.1", {"learning_rate": 0.005}),
    ],
)
def test_a_trial_of_an_experiment_is_the_experiment_with_the_change(name, attributes):
    ill = replace(SMALL, activation="tanh", weight_initializer="normal")
    trials = try_remedies(ill, epochs=1, remedies=[name])
    for trial, experiment in zip(trials, (ill, replace(ill, **attributes)), strict=True):
        _, data, model, optimizer = prepare(experiment)
        model.compile(optimizer, data.loss)
        by_hand = trained_by_hand(model, data.X, data.y, seed=5)
        if name != "skip connections":  # whose projection is drawn anew
            assert_allclose(trial.history["l2_norm"], by_hand["l2_norm"], rtol=1e-5)
            assert trial.loss == pytest.approx(by_hand.logs["loss"][-1])
        assert trial.history.layers == by_hand.layers


def test_changes_that_an_experiment_has_already_are_refused_in_one_sentence():
    full = replace(SMALL, normalization="batch", skip_connections=True, clip_norm=0.5)
    kinds = ["activation relu", "normalization", "skip_connections"]
    reasons = dict(try_remedies(full, epochs=1, remedies=[*kinds, "clipping, norm 1"]).not_possible)
    assert reasons == {
        "activation relu": "the activation is already relu in activation_1 … activation_3, "
        "3 layers",
        "normalization batch": "layer norm_1 already normalizes",
        "normalization layer": "layer norm_1 already normalizes",
        "skip connections": reasons["skip connections"],
        "clipping, norm 1": "the optimizer already clips: global_clipnorm=0.5",
    }
    assert reasons["skip connections"].endswith("skip connections need a chain of Dense layers")


# --- models


def regression(random, scale=1.0):
    X = random.normal(size=(128, 4)).astype("float32")
    return X, scale * (X @ random.normal(size=(4, 1))).astype("float32")


def test_a_learning_rate_that_diverges_is_fixed_by_a_tenth_of_it(random):
    """If XᵀX/n = 1, each step of rate η multiplies the error of a linear model by 1 - 2η."""
    X = np.linalg.qr(random.normal(size=(128, 5)) - [[1, 0, 0, 0, 0]])[0][:, :4]
    X = (np.linalg.qr(X - X.mean(axis=0))[0] * np.sqrt(128)).astype("float32")
    y = X @ np.array([[1], [2], [3], [4]], "float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(5.0), "mse")
    trials = try_remedies(model, X, y, 30, batch_size=128, remedies=["learning_rate"])
    first, second, third = trials[0].history.logs["loss"][1:4]
    assert second / first == pytest.approx(81, rel=1e-3) == third / second
    assert trials[0].loss == np.inf and len(trials[0].history) < 31  # it ends where it broke down
    names = [trial.name for trial in trials]
    assert set(names[-2:]) == {"learning rate ×10", "learning rate ×100"}
    best = trials.best
    assert best.name == "learning rate ×0.1" and best.loss < 1e-9
    assert best.skill == pytest.approx(1)
    assert best.note == "large improvement: training no longer breaks down"
    assert trials[-1].note == "training breaks down, as in the baseline"


def test_a_trial_of_a_model_is_the_training_of_a_model_built_by_hand(random):
    X, y = regression(random)

    def build(activation):
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(8, activation),
                layers.Dropout(0.3),
                layers.Dense(8, activation),
                layers.Dense(1),
            ]
        )
        model.compile(keras.optimizers.Adam(0.01), "mse")
        return model

    trials = try_remedies(
        build("tanh"), X, y, epochs=1, seed=4, batch_size=16, remedies=["activation"]
    )
    for name, activation in (("unchanged", "tanh"), ("activation gelu", "gelu")):
        (trial,) = (trial for trial in trials if trial.name == name)
        keras.utils.set_random_seed(4)
        model = build(activation)
        by_hand = trained_by_hand(model, X, y, seed=4, batch_size=16)
        assert_allclose(trial.history["l2_norm"], by_hand["l2_norm"], rtol=1e-5)
        assert trial.loss == pytest.approx(by_hand.logs["loss"][-1])
        errors = (y - model.predict(X, verbose=0)) ** 2
        assert trial.skill == pytest.approx(1 - errors.sum() / ((y - y.mean()) ** 2).sum())


def test_the_model_and_the_random_state_are_left_as_they_were(random):
    X, y = regression(random)
    model = create_model(2, "tanh", "normal", units=4, input_shape=(4,), output_activation=None)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(X, y, epochs=1, verbose=0)
    config, weights = model.get_config(), model.get_weights()
    optimizer, slots = model.optimizer, [v.numpy() for v in model.optimizer.variables]
    python, numpy = python_random.getstate(), np.random.get_state()  # noqa: NPY002
    trials = try_remedies(model, X, y, epochs=1)
    assert len(trials) > 9 and not model.layers[-1].name.endswith("_1")
    assert python_random.getstate() == python
    assert_array_equal(np.random.get_state()[1], numpy[1])  # noqa: NPY002
    assert model.get_config() == config and model.optimizer is optimizer
    assert all(map(np.array_equal, model.get_weights(), weights))
    assert all(map(np.array_equal, [v.numpy() for v in optimizer.variables], slots))
    assert np.isfinite(model.fit(X, y, epochs=1, verbose=0).history["loss"]).all()


def test_the_random_numbers_of_keras_and_tensorflow_go_on_as_if_nothing_had_been(random):
    X, y = regression(random)
    model = several()
    draws = []
    for tried in (False, True):
        keras.utils.set_random_seed(9)
        if tried:
            try_remedies(model, {"a": X[:, :3], "b": X[:, :2]}, [y, y > 0], 1, remedies="clipping")
        draws.append([keras.random.normal((3,)).numpy(), tf.random.normal((3,)).numpy()])
    assert_array_equal(draws[0], draws[1])


def test_a_model_that_was_not_compiled_trains_with_plain_descent(random):
    X, y = regression(random)
    model = create_model(1, "relu", "he", units=4, input_shape=(4,), output_activation=None, seed=1)
    trials = try_remedies(model, X, y, epochs=1, remedies="clipping")
    by_hand = create_model(
        1, "relu", "he", units=4, input_shape=(4,), output_activation=None, seed=1
    )
    by_hand.compile("sgd", "mean_squared_error")
    wanted = trained_by_hand(by_hand, X, y)
    assert_array_equal(trials[0].history["l2_norm"], wanted["l2_norm"])
    assert not model.compiled


def test_a_convolutional_and_a_recurrent_network(random):
    cnn = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    X, y = random.normal(size=(32, 6, 6, 1)), random.integers(0, 2, 32)
    trials = try_remedies(cnn, X, y, epochs=1)
    assert {trial.name: trial.change for trial in trials} == {
        "unchanged": "",
        "output and loss that fit": f"{cnn.layers[-1].name}: 1 sigmoid outputs, "
        "binary_crossentropy",
        "initializer that fits": "he_normal in conv",
        "activation gelu": "gelu in conv",
        "normalization batch": "batch normalization before the activation of conv",
        "normalization layer": "layer normalization before the activation of conv",
        "clipping, norm 1": "global_clipnorm=1",
        "learning rate ×0.01": "learning rate 0.01 → 0.0001",
        "learning rate ×0.1": "learning rate 0.01 → 0.001",
        "learning rate ×10": "learning rate 0.01 → 0.1",
        "learning rate ×100": "learning rate 0.01 → 1",
        "optimizer Adam": "Adam with learning rate 0.001",
    }
    assert {name for name, _ in trials.not_possible} == {
        "activation relu", "activation relu, initializer he", "skip connections", "no clipping",
        "inputs standardized", "targets standardized", "inputs and targets standardized",
        "data standardized, output and loss that fit", "default learning rate",
        "learning rate made positive", "constant learning rate",
        "learning rate for updates of 0.3 %",
        "samples with NaN left out", "dropout 0.2", "no dropout", "penalties ×0.01",
        "batch normalization, momentum 0.9", "classes weighted alike",
    }  # fmt: skip
    lstm = keras.Sequential([keras.Input((5, 1)), layers.LSTM(3, name="lstm"), layers.Dense(1)])
    trials = try_remedies(lstm, random.normal(size=(32, 5, 1)), y, 1, remedies=["normalization"])
    assert len(trials) == 1
    assert trials.not_possible[0] == (
        "normalization batch",
        "only lstm has a hidden activation, which is applied within each time step",
    )


def several(compiled=True):
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    h = layers.Dense(4, "tanh", name="h")(layers.Concatenate()([a, b]))
    ends = [layers.Dense(1, name="p")(h), layers.Dense(2, "softmax", name="q")(h)]
    model = keras.Model({"a": a, "b": b}, ends)
    if compiled:
        losses = ["mse", "sparse_categorical_crossentropy"]
        model.compile("sgd", losses, loss_weights=[1.0, 0.0])
    return model


def test_a_model_of_several_inputs_and_outputs(random):
    X = {"a": random.normal(size=(40, 3)), "b": random.normal(size=(40, 2))}
    y = [random.normal(size=(40, 1)), random.integers(0, 2, 40)]
    first, again = (
        try_remedies(several(), X, y, 2, remedies=["activation", "learning_rate"]) for _ in range(2)
    )
    assert {t.name for t in first} >= {"unchanged", "activation relu", "learning rate ×10"}
    assert [t.loss for t in first] == [t.loss for t in again]
    history = first[0].history
    assert history.steps[-1] == 2 * 2  # 40 samples in batches of 32: a partial one each epoch
    at_q = [i for i, w in enumerate(history.weights) if w.layer == "q"]
    assert not history["l2_norm"][:, at_q].any()  # the loss weights hold
    with pytest.raises(ValueError, match=r"has several outputs and must be compiled: call compile"):
        try_remedies(several(compiled=False), X, y)
    with pytest.raises(ValueError, match=r"same number of samples, at least 1, received 40, 39, "):
        try_remedies(several(), X | {"b": X["b"][:39]}, y)


# --- what is chosen, what fails, what is interrupted


def test_a_diagnosis_chooses_and_orders_the_remedies():
    def finding(*tries):
        return Finding("a_rule", "critical", (), 0, (), "", (), "", tries)

    diagnosis = Diagnosis(
        [finding("learning rate ×0.1", "clipping"), finding("normalization", "learning_rate")]
    )
    names = [change.name for change in module._chosen(diagnosis)]
    assert names == [
        "learning rate ×0.1", "clipping, norm 1", "no clipping", "normalization batch",
        "normalization layer", "batch normalization, momentum 0.9", "constant learning rate",
        "learning rate for updates of 0.3 %", "learning rate ×10", "default learning rate",
        "learning rate ×0.01", "learning rate ×100", "learning rate made positive",
    ]  # fmt: skip
    assert module._chosen(Diagnosis([])) == []


def test_the_changes_of_every_rule_are_known():
    rules = [remedy for rule in DECLARED.values() for remedy in rule.remedies]
    mismatches = model_rules._Mismatch(None, "", "").tries
    named = {name for remedy in rules for name in remedy.tries} | set(mismatches)
    assert named <= {*REMEDIES, *(change.name for change in CHANGES)}


def test_the_remedy_of_the_cause_is_tried_first(random):
    """Inputs of 1000 in size: everything else that goes wrong follows from them."""
    X = random.normal(1000, 300, (1024, 4)).astype("float32")
    y = (X[:, :1] > X[:, 1:2]).astype("float32")
    model = create_model(3, "relu", "he", units=16, input_shape=(4,))
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    trials = try_remedies(model, X, y, seconds=0.01)
    assert [trial.name for trial in trials] == ["unchanged", "inputs standardized"]
    assert trials.best.skill > 0.6 > 0.1 > trials[0].skill
    reason = "the 0.01 seconds were over: pass more, or remedies=[…]"
    assert trials.not_possible[0] == ("inputs and targets standardized", reason)
    assert len(trials.not_possible) == len(CHANGES) - 1


def test_a_skill_compares_runs_whose_losses_mean_something_else(random):
    """A sigmoid with a squared error for targets of 50 to 150, which it cannot reach."""
    X = random.normal(size=(256, 3)).astype("float32")
    y = (100 + 50 * np.tanh(X @ [[1], [-1], [0.5]])).astype("float32")
    model = keras.Sequential([keras.Input((3,)), layers.Dense(16, "relu"), layers.Dense(1)])
    model.add(layers.Activation("sigmoid"))
    model.compile(keras.optimizers.SGD(0.05), "mse")
    trials = try_remedies(model, X, y, 40, remedies=["output", "data"])
    best = trials.best
    assert best.name == "data standardized, output and loss that fit" and best.skill > 0.9
    assert best.change == (
        "targets with mean 0 and standard deviation 1; "
        f"{model.layers[1].name}: 1 linear outputs, mean_squared_error"
    )
    # R² in the units of the targets, of which 1 − MSE of standardized targets is an estimate.
    assert best.skill == pytest.approx(1 - best.loss, abs=0.03)
    assert trials[0].skill < -1


def test_samples_with_nan_are_left_out(random):
    X, y = regression(random)
    X[3, 1], y[7] = np.nan, np.inf
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    trials = try_remedies(model, X, y, epochs=20, remedies=["samples"])
    assert trials.best.change == "without 2 of 128 samples" and trials.best.skill > 0.99
    assert trials.best.note == "large improvement: training no longer breaks down"
    clean = np.delete(X, [3, 7], axis=0), np.delete(y, [3, 7], axis=0)
    reasons = dict(try_remedies(model, *clean, epochs=1, remedies=["samples"]).not_possible)
    assert reasons == {"samples with NaN left out": "no sample has a NaN or an infinity"}


@pytest.mark.parametrize(("rate", "wanted"), [(1e-7, 1e-3), (30.0, 1e-3), (2e-3, None)])
def test_the_rate_that_the_movement_of_the_weights_suggests(random, rate, wanted):
    """Adam moves each of 4 × 16 weights of size 0.5 by its rate: 0.3 % of them is 1.5e-3."""
    X, y = regression(random)
    start = keras.initializers.RandomNormal(stddev=0.5)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(16, "tanh", kernel_initializer=start), layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(rate), "mse")
    trials = try_remedies(model, X, y, 1, remedies=["learning rate for updates of 0.3 %"])
    if wanted is None:
        assert "already" in trials.not_possible[0][1]
        return
    found = float(trials[1].change.split("→")[1])
    assert wanted / 4 < found < wanted * 4


def test_epochs_fit_into_the_time(random):
    X, y = regression(random)  # 4 steps per epoch: 125 epochs
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    long = try_remedies(model, X, y, remedies=["clipping"], seconds=600)
    assert [len(trial.history) for trial in long] == [126, 126]
    short = try_remedies(model, X, y, remedies=["clipping"], seconds=0.01)
    assert [len(trial.history) for trial in short] == [2, 2]


def test_a_trial_that_raises_is_reported_with_its_reason(monkeypatch):
    def train(self, trainable, epochs, *callbacks):
        if "global_clipnorm" in trainable.words:
            raise RuntimeError("out of\nluck")
        return trained(self, trainable, epochs, *callbacks)

    trained = module._Trying._trained
    monkeypatch.setattr(module._Trying, "_trained", train)
    trials = try_remedies(SMALL, epochs=1, remedies=["clipping", "learning rate ×0.1"])
    assert trials.not_possible == (
        ("clipping, norm 1", "training raised RuntimeError: out of luck"),
        ("no clipping", "the optimizer does not clip"),
    )
    assert len(trials) == 2


def test_ctrl_c_returns_what_is_finished(monkeypatch):
    def train(self, trainable, epochs, *callbacks):
        if trainable.words.endswith("→ 0.5"):
            raise KeyboardInterrupt
        return trained(self, trainable, epochs, *callbacks)

    trained = module._Trying._trained
    monkeypatch.setattr(module._Trying, "_trained", train)
    kinds = ["learning rate ×0.1", "learning rate ×10", "learning rate ×100", "clipping"]
    trials = try_remedies(SMALL, epochs=1, remedies=kinds)
    assert {trial.name for trial in trials} == {"unchanged", "learning rate ×0.1"}
    reason = "not finished: interrupted by Ctrl-C"
    left = ("learning rate ×10", "learning rate ×100", "clipping, norm 1", "no clipping")
    assert trials.not_possible == tuple((name, reason) for name in left)
    monkeypatch.setattr(module._Trying, "_trained", lambda *_: _interrupt())
    with pytest.raises(KeyboardInterrupt):
        try_remedies(SMALL, epochs=1)


def _interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"remedies": ["clip"]}, "remedies must be among output, samples, inputs, targets, data, "
         "initializer, activation, normalization, skip_connections, clipping, learning_rate, "
         "optimizer, dropout, penalties, class_weights, received 'clip'; did you mean 'clipping'?"),
        ({"seconds": 0}, "seconds must be a number above 0, received 0"),
        ({"remedies": "normalisation"}, "did you mean 'normalization'?"),
        ({"X": np.ones((2, 2))}, "X must be left out with an Experiment, which has its own"),
        ({"batch_size": 8}, "batch_size must be left out with an Experiment"),
        ({"epochs": 0}, "epochs must be an integer of at least 1, received 0"),
        ({"seed": -1}, "seed must be None or an integer of at least 0, received -1"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(ValueError) as refusal:
        try_remedies(SMALL, **arguments)
    assert sentence in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_model_that_cannot_be_trained_is_refused_in_one_sentence(random):
    X = random.normal(size=(8, 4)).astype("float32")
    model = create_model(1, "relu", "he", input_shape=(4,), output_units=3)
    model.compile("sgd", "categorical_crossentropy")
    with pytest.raises(
        ValueError, match=r"^the unchanged model must train, but raised ValueError"
    ) as e:
        try_remedies(model, X, np.ones((8, 1)), 1)
    assert "\n" not in str(e.value)
    assert "; output: the targets have 1 column, the output has 3 units. Give output" in str(
        e.value
    )
    with pytest.raises(TypeError, match=r"^remedies must be names of remedies or a Diagnosis, rec"):
        try_remedies(SMALL, remedies=3)
    with pytest.raises(TypeError, match=r"^y must be an array of numbers, received list of str32"):
        try_remedies(model, X, ["a"] * 8)


def test_a_model_needs_its_data():
    with pytest.raises(
        ValueError, match=r"^X and y must be given with a model, received None: pass both$"
    ):
        try_remedies(create_model(1, "relu", "he"))
    with pytest.raises(TypeError, match=r"^model must be a keras\.Model, received str$"):
        try_remedies("relu")

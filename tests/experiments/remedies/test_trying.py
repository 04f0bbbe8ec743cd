"""Remedies: the runs that are trained, their ranking, and the reasons for impossible changes."""

import random as python_random
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from numpy.testing import assert_array_equal

from kgrad.diagnosis.diagnosing import DECLARED
from kgrad.diagnosis.findings import Diagnosis, Finding
from kgrad.experiments import PRESETS, Experiment, run_experiment
from kgrad.experiments.models import create_model
from kgrad.experiments.remedies import trying as module
from kgrad.experiments.remedies.plans import CHANGES
from kgrad.experiments.remedies.trying import REMEDIES, try_remedies
from kgrad.measure.loop import train_and_track_gradients

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


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("initializer that fits", {"weight_initializer": "xavier"}),
        ("activation relu", {"activation": "relu"}),
        (
            "activation relu, initializer he",
            {"activation": "relu", "weight_initializer": "he"},
        ),
        ("normalization layer", {"normalization": "layer"}),
        ("skip connections", {"skip_connections": True}),
        ("clipping, norm 1", {"clip_norm": 1.0}),
        ("learning rate ×0.1", {"learning_rate": 0.005}),
    ],
)
def test_a_trial_of_an_experiment_is_the_experiment_with_the_change(name, attributes):
    ill = replace(SMALL, activation="tanh", weight_initializer="normal")
    (change,) = (change for change in CHANGES if change.name == name)
    trials = try_remedies(ill, epochs=2, remedies=[change.remedy])
    (trial,) = (trial for trial in trials if trial.name == name)
    by_hand = run_experiment(replace(ill, epochs=2, **attributes))
    assert_array_equal(trial.history["l2_norm"], by_hand["l2_norm"])
    assert trial.loss == by_hand.logs["loss"][-1]
    asked = trial.history.metadata["experiment"]
    assert {key: asked[key] for key in attributes} == attributes and asked["seed"] == 5
    unchanged = run_experiment(replace(ill, epochs=2))
    assert_array_equal(trials[0].history["l2_norm"], unchanged["l2_norm"])


def test_changes_that_an_experiment_has_already_are_refused_in_one_sentence():
    full = replace(SMALL, normalization="batch", skip_connections=True, clip_norm=0.5)
    assert dict(try_remedies(full, epochs=1).not_possible) == {
        "initializer that fits": "the initializer he already fits relu",
        "activation relu": "the activation is already relu",
        "activation relu, initializer he": "the activation is already relu",
        "normalization batch": "the layers already have batch normalization",
        "normalization layer": "the layers already have batch normalization",
        "skip connections": "the layers already have skip connections",
        "clipping, norm 1": "the optimizer already clips: clip_norm=0.5",
    }


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
    assert trials[0].loss == np.inf
    assert [trial.name for trial in trials[1:]] == [
        "learning rate ×0.1", "learning rate ×0.01", "learning rate ×10", "learning rate ×100",
    ]  # fmt: skip
    assert trials[1].loss < 1e-9
    assert trials[1].note == "large improvement: training no longer breaks down"
    assert trials[3].note == "training breaks down, as in the baseline"


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
        build("tanh"), X, y, epochs=2, seed=4, batch_size=16, remedies=["activation"]
    )
    for name, activation in (("unchanged", "tanh"), ("activation gelu", "gelu")):
        (trial,) = (trial for trial in trials if trial.name == name)
        keras.utils.set_random_seed(4)
        by_hand = train_and_track_gradients(build(activation), X, y, 2, batch_size=16, seed=4)
        assert_array_equal(trial.history["l2_norm"], by_hand["l2_norm"])
        assert trial.loss == by_hand.logs["loss"][-1]


def test_the_model_and_the_random_state_are_left_as_they_were(random):
    X, y = regression(random)
    model = create_model(2, "tanh", "normal", units=4, input_shape=(4,), output_activation=None)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(X, y, epochs=1, verbose=0)
    config, weights = model.get_config(), model.get_weights()
    optimizer, slots = model.optimizer, [v.numpy() for v in model.optimizer.variables]
    python, numpy = python_random.getstate(), np.random.get_state()  # noqa: NPY002
    trials = try_remedies(model, X, y, epochs=1)
    assert len(trials) > 9
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
    wanted = train_and_track_gradients(by_hand, X, y, 1, seed=0)
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
        "initializer that fits": "he_normal in conv",
        "activation gelu": "gelu in conv",
        "normalization batch": "batch normalization before the activation of conv",
        "normalization layer": "layer normalization before the activation of conv",
        "clipping, norm 1": "global_clipnorm=1",
        "learning rate ×0.01": "learning rate 0.01 → 0.0001",
        "learning rate ×0.1": "learning rate 0.01 → 0.001",
        "learning rate ×10": "learning rate 0.01 → 0.1",
        "learning rate ×100": "learning rate 0.01 → 1",
    }
    assert [name for name, _ in trials.not_possible] == [
        "activation relu", "activation relu, initializer he", "skip connections", "no clipping",
    ]  # fmt: skip
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


def test_a_model_of_several_inputs_and_outputs_is_trained_by_fit(random):
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
    with pytest.raises(
        ValueError, match=r"has several inputs or outputs and must be compiled: call"
    ):
        try_remedies(several(compiled=False), X, y)


# --- what is chosen, what fails, what is interrupted


def test_a_diagnosis_chooses_and_orders_the_remedies():
    def finding(rule):
        return Finding(rule, "critical", (), 0, (), "", (), "")

    diagnosis = Diagnosis([finding("moving_too_far"), finding("layer_out_of_line")])
    names = [change.name for change in module._chosen(diagnosis)]
    assert names == [
        "learning rate ×0.01", "learning rate ×0.1", "learning rate ×10", "learning rate ×100",
        "clipping, norm 1", "no clipping", "initializer that fits", "normalization batch",
        "normalization layer",
    ]  # fmt: skip
    assert module._chosen(Diagnosis([])) == []


def test_the_remedies_of_every_rule_are_known():
    assert {kind for rule in DECLARED.values() for kind in rule.tries} <= set(REMEDIES)


def test_a_trial_that_raises_is_reported_with_its_reason(monkeypatch):
    def train(prepared):
        if prepared.experiment.clip_norm:
            raise RuntimeError("out of\nluck")
        return run_experiment(prepared)

    monkeypatch.setattr(module, "run_experiment", train)
    trials = try_remedies(SMALL, epochs=1, remedies=["clipping", "learning_rate"])
    assert trials.not_possible == (
        ("clipping, norm 1", "training raised RuntimeError: out of luck"),
        ("no clipping", "the optimizer does not clip"),
    )
    assert len(trials) == 5


@pytest.mark.parametrize("kind", ["raised", "returned"])
def test_ctrl_c_returns_what_is_finished(monkeypatch, kind):
    def train(prepared):
        history = run_experiment(prepared)
        if prepared.experiment.learning_rate == 0.5:
            if kind == "raised":
                raise KeyboardInterrupt
            history.metadata["interrupted"] = True
        return history

    monkeypatch.setattr(module, "run_experiment", train)
    trials = try_remedies(SMALL, epochs=1, remedies=["learning_rate", "clipping"])
    names = {trial.name for trial in trials}
    assert names == {"unchanged", "learning rate ×0.01", "learning rate ×0.1"}
    reason = "not finished: interrupted by Ctrl-C"
    left = ("learning rate ×10", "learning rate ×100", "clipping, norm 1", "no clipping")
    assert trials.not_possible == tuple((name, reason) for name in left)
    monkeypatch.setattr(module, "run_experiment", lambda prepared: _interrupt())
    with pytest.raises(KeyboardInterrupt):
        try_remedies(SMALL, epochs=1)


def _interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"remedies": ["clip"]}, "remedies must be among initializer, activation, normalization, "
         "skip_connections, clipping, learning_rate, received 'clip'; did you mean 'clipping'?"),
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


def test_a_model_needs_its_data():
    with pytest.raises(
        ValueError, match=r"^X and y must be given with a model, received None: pass both$"
    ):
        try_remedies(create_model(1, "relu", "he"))
    with pytest.raises(TypeError, match=r"^model must be a keras\.Model, received str$"):
        try_remedies("relu")

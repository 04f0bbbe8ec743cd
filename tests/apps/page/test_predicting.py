"""Tests of rough predictions: close to the full prediction and to measurements, and fast."""

from dataclasses import replace

import numpy as np
import pytest

from kgrad import measure_gradients
from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.predicting import predicted
from kgrad.experiments import Experiment, predict_experiment, prepare
from kgrad.experiments.prediction.single_networks import ROUGHEST

TEN = Configuration(activation="relu", initializer="he")


@pytest.mark.parametrize(
    "configuration",
    [
        TEN,
        Configuration(),
        replace(TEN, normalization="batch"),
        replace(TEN, skip=True),
        replace(TEN, activation="tanh", initializer="xavier"),
    ],
    ids=str,
)
def test_a_rough_prediction_is_near_to_the_full_one(configuration):
    rough, said = predicted(configuration)
    full = predict_experiment(Experiment(**configuration.experiment()))
    assert said == ""
    for statistic in ("mean_abs", "l2_norm"):
        np.testing.assert_allclose(
            rough.by_layer(statistic), full.by_layer(statistic), rtol=0.15, atol=0
        )
        widths = [
            np.log(one.upper.by_layer(statistic) / one.lower.by_layer(statistic))
            for one in (rough, full)
        ]
        assert np.min(widths[0] / widths[1]) > 0.7
        assert np.max(widths[0] / widths[1]) < 1.6


def test_the_rough_band_holds_most_networks_that_are_measured():
    configuration = Configuration(layers=4, units=16, activation="tanh", initializer="xavier")
    prediction, _ = predicted(configuration)
    inside = []
    for seed in range(20):
        parts = prepare(Experiment(**replace(configuration, seed=seed).experiment()))
        batch = np.random.default_rng(0).permutation(len(parts.dataset.X))[:32]
        X, y = parts.dataset.X[batch], parts.dataset.y[batch]
        measured = measure_gradients(parts.model, X, y, parts.dataset.loss).by_layer("l2_norm")
        low, high = (one.by_layer("l2_norm") for one in (prediction.lower, prediction.upper))
        inside.append((measured > low) & (measured < high))
    assert np.mean(inside) > 0.8


def test_what_theory_does_not_look_at_costs_no_second_prediction():
    first, _ = predicted(replace(TEN, layers=2, units=8))
    again, _ = predicted(replace(TEN, layers=2, units=8, seed=5, epochs=7, learning_rate=1.0))
    other, _ = predicted(replace(TEN, layers=2, units=9))
    assert again is first
    assert other is not first


def test_what_would_take_long_and_what_cannot_be_read_is_said():
    prediction, said = predicted(replace(TEN, layers=100, batch_size=256, normalization="batch"))
    assert prediction is None
    assert said.startswith("theory would take too long for so many layers and samples")
    prediction, said = predicted(replace(TEN, layers=2, units=8, initializer="normal:100"))
    assert (prediction is None) == bool(said)


@pytest.mark.parametrize(
    "configuration",
    [replace(TEN, layers=30, units=16), replace(TEN, layers=24, units=16, normalization="layer")],
    ids=str,
)
def test_between_the_layers_that_are_computed_a_rough_prediction_is_interpolated(
    configuration, monkeypatch
):
    experiment = Experiment(**configuration.experiment())
    few = predict_experiment(experiment, rough=True)
    monkeypatch.setattr(
        "kgrad.experiments.prediction.single_networks.ROUGHEST", ROUGHEST._replace(places=10**9)
    )
    every = predict_experiment(experiment, rough=True)
    np.testing.assert_array_equal(few["l2_norm"], every["l2_norm"])
    for statistic in ("mean_abs", "l2_norm"):
        for bound in ("lower", "upper"):
            one, other = (getattr(p, bound).by_layer(statistic) for p in (few, every))
            assert np.abs(np.log2(one / other)).max() < 1
        low, high = (getattr(every, one).by_layer(statistic) for one in ("lower", "upper"))
        line = few.by_layer(statistic)
        assert ((low < line) & (line < high)).all()

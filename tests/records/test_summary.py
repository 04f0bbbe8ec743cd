"""Summaries of histories and predictions, by hand."""

import math

import numpy as np
import pytest

from kgrad.records.history import GradientHistory, Weight
from kgrad.records.prediction import Prediction
from kgrad.records.summary import summarize, summarize_prediction


def test_summary_of_a_history_by_hand():
    names = ("hidden_1", "norm_1", "hidden_2", "hidden_3", "output")
    weights = [Weight(name, "kernel", f"{name}/kernel", (2,)) for name in names]
    history = GradientHistory(weights, ["mean_abs"])
    history.append(0, 0, {"mean_abs": [1e-6, 7.0, 1e-5, 1e-4, 9.0]}, {"loss": 2.0})
    history.append(1, 8, {"mean_abs": [5.0, 5.0, 5.0, 5.0, 5.0]}, {"loss": 1.5})
    assert summarize(history) == pytest.approx(
        {
            "loss_first": 2.0,
            "loss_last": 1.5,
            "gradient_first": 1e-6,
            "gradient_last": 1e-4,
            "ratio": 1e-2,
            "decades_per_layer": -1.0,
        }
    )


def test_summary_of_gradients_that_are_zero_or_nan():
    weights = [Weight(f"hidden_{i}", "kernel", f"{i}", (2,)) for i in (1, 2)]
    for first, last, ratio in ((0.0, 1.0, 0.0), (1.0, 0.0, math.inf), (math.nan, 1.0, math.nan)):
        history = GradientHistory(weights, ["mean_abs"])
        history.append(0, 0, {"mean_abs": [first, last]}, {"loss": 1.0})
        assert summarize(history)["ratio"] == pytest.approx(ratio, nan_ok=True)


def test_summary_leaves_out_layers_without_a_gradient():
    weights = [Weight(f"hidden_{i}", "kernel", f"{i}", (2,)) for i in range(1, 6)]
    values = [math.nan, 1e-3, 1e-2, 1e-1, math.nan]

    def summary(present):
        history = GradientHistory(weights, ["mean_abs", "updates", "gradients_present"])
        counts = {"updates": [4] * 5, "gradients_present": present}
        history.append(0, 0, {"mean_abs": values} | counts, {"loss": 1.0})
        return summarize(history)

    found = summary([0, 4, 4, 4, 0])
    assert (found["gradient_first"], found["gradient_last"]) == (1e-3, 1e-1)
    assert found["ratio"] == pytest.approx(1e-2)
    assert found["decades_per_layer"] == pytest.approx(-1)  # over the two layers between them
    assert math.isnan(summary([4, 4, 4, 4, 0])["ratio"])  # a NaN that was measured
    nothing = summary([0] * 5)
    assert all(math.isnan(nothing[key]) for key in nothing if not key.startswith("loss"))


def test_summary_of_a_prediction_by_hand():
    names = ("hidden_1", "norm_1", "hidden_2", "output")
    weights = [Weight(name, "kernel", f"{name}/kernel", (2,)) for name in names]
    values = {"mean_abs": np.array([1e-6, 7.0, 1e-4, 9.0])}
    prediction = Prediction(
        weights, values, lower=values, upper=values, sigma_w2={}, sigma_b2={}, activations={}
    )
    assert summarize_prediction(prediction) == pytest.approx(
        {"predicted_first": 1e-6, "predicted_last": 1e-4, "predicted_ratio": 1e-2}
    )

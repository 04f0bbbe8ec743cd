"""A prediction prints as one line per layer."""

import numpy as np
import pytest

from kgrad.records.history import Weight
from kgrad.records.prediction import Prediction


def made_prediction(layers):
    """Return a prediction of a kernel and a bias per layer, whose norms are 3k and 4k."""
    weights = [
        Weight(f"hidden_{k}", name, f"hidden_{k}/{name}", (2, 2) if name == "kernel" else (2,))
        for k in range(1, layers + 1)
        for name in ("kernel", "bias")
    ]
    norms = np.array([factor * k for k in range(1, layers + 1) for factor in (3.0, 4.0)])
    lower, upper = ({"l2_norm": factor * norms} for factor in (0.5, 2.0))
    return Prediction(
        weights, {"l2_norm": norms}, lower=lower, upper=upper, sigma_w2={}, sigma_b2={},
        activations={},
    )  # fmt: skip


def test_a_prediction_prints_the_norm_and_the_band_of_each_layer():
    assert str(made_prediction(2)).splitlines()[1:] == [
        "hidden_1  5         [2.5, 10]",
        "hidden_2  10        [5, 20]",
    ]
    assert repr(made_prediction(2)) == "Prediction(4 weights in 2 layers)"


@pytest.mark.parametrize("layers", [11, 12, 13, 100])
def test_a_prediction_of_many_layers_prints_the_first_and_the_last(layers):
    head, *lines = str(made_prediction(layers)).splitlines()
    assert "before training" in head and len(lines) == 11
    named = [line.split()[0] for line in lines if "more layers" not in line]
    assert named[:5] == [f"hidden_{k}" for k in range(1, 6)]
    assert named[-5:] == [f"hidden_{k}" for k in range(layers - 4, layers + 1)]
    left_out = [int(line.split()[1]) for line in lines if "more layers" in line]
    assert len(named) + sum(left_out) == layers

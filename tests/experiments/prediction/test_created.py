"""Tests that a network described from `create_model`'s arguments is the one that it builds."""

import itertools

import keras
import numpy as np
import pytest

import kgrad
from kgrad.experiments import Experiment, predict_experiment
from kgrad.experiments.engines import prepare
from kgrad.experiments.prediction.created import describe_created_network
from kgrad.experiments.prediction.networks import read_dense_network
from kgrad.theory.networks import Unit

OPTIONS = [
    {"normalization": normalization, "skip_connections": skip, "num_layers": depth, "units": units}
    for normalization, skip, (depth, units) in itertools.product(
        (None, "batch", "layer"),
        (False, True),
        ((1, 4), (2, 3), (5, 3), (4, (3, 3, 4, 4)), (4, (3, 5, 5, 5)), (6, 20)),
    )
]


def described(node):
    """Return a node's description, in which functions are compared by their values."""
    if not isinstance(node, Unit):
        return node
    u = np.linspace(-3, 3, 25)
    functions = [np.stack([one.f(u), one.df(u)]) for one in (node.map.before, node.map.after)]
    return (
        node.source, node.map.norm, node.map.epsilon, node.map.after.kinks,
        np.array(functions).tolist(),
    )  # fmt: skip


@pytest.mark.parametrize("activation", ["tanh", "linear", "leaky_relu"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_described_network_is_the_one_that_is_read_from_the_built_model(options, activation):
    arguments = options | {
        "activation": activation,
        "weight_initializer": "xavier_uniform",
        "bias_initializer": "zeros" if options["num_layers"] == 5 else "normal:0.3",
        "input_shape": (2, 10),
        "output_units": 3,
        "output_activation": "softmax" if options["skip_connections"] else "linear",
        "seed": 0,
    }
    found = describe_created_network(**arguments)
    read = read_dense_network(kgrad.create_model(**arguments), "initializer")
    assert list(map(described, found.nodes)) == list(map(described, read.nodes))
    assert list(found.parameters.items()) == list(read.parameters.items())
    assert list(found.layers.items()) == list(read.layers.items())
    assert found.head == read.head


def test_an_activation_with_weights_is_left_to_the_built_model():
    experiment = Experiment(activation="prelu", num_layers=2, units=4, samples=32)
    for one in (experiment, prepare(experiment)):
        with pytest.raises(ValueError, match=r"activation_1.*PReLU"):
            predict_experiment(one)


@pytest.mark.parametrize("dataset", ["classification", "digits", "regression", "spirals"])
def test_predictions_are_those_of_the_built_model(dataset):
    experiment = Experiment(
        num_layers=5,
        units=12,
        bias_initializer="normal:0.3",
        dataset=dataset,
        batch_size=16,
        skip_connections=True,
    )
    parts = prepare(experiment)
    batch = np.random.default_rng(0).permutation(len(parts.dataset.X))[:16]
    X, y = parts.dataset.X[batch], parts.dataset.y[batch]
    model = kgrad.predict_gradients(parts.model, X, y, keras.losses.get(parts.dataset.loss))
    found = predict_experiment(experiment)
    assert found.weights == model.weights
    for one, other in ((found, model), (found.lower, model.lower), (found.upper, model.upper)):
        for statistic in ("mean_abs", "l2_norm"):
            np.testing.assert_array_equal(one[statistic], other[statistic])
    assert found.sigma_w2 == model.sigma_w2
    assert found.sigma_b2 == model.sigma_b2
    biased = {name: value for name, value in found.sigma_b2.items() if value}
    assert list(biased) == [*(f"hidden_{k}" for k in range(1, 6)), "output"]
    np.testing.assert_allclose(list(biased.values()), 0.3**2)
    names = [{key: f.name for key, f in one.activations.items()} for one in (found, model)]
    assert names[0] == names[1]


def test_a_rough_prediction_of_a_projection_is_not_that_of_its_neighbors():
    """Its kernel has fewer entries, and each is as much larger."""
    experiment = Experiment(num_layers=40, units=64, activation="tanh", skip_connections=True)
    rough, full = (predict_experiment(experiment, rough=rough) for rough in (True, False))
    names = [weight.path for weight in full.weights]
    assert names.index("projection_1/kernel") == 2
    for statistic in ("mean_abs", "l2_norm"):
        assert rough[statistic][0, 2] == pytest.approx(full[statistic][0, 2], rel=0.2)

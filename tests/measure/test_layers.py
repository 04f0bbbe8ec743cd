"""The readers of one layer in `kgrad.measure.keras_models.layers`."""

import keras
import numpy as np
import pytest

from kgrad import theory
from kgrad.experiments.prediction.networks import numpy_activation
from kgrad.measure.keras_models.layers import (
    activation_name,
    initializer_fits,
    loss_name,
    named_activation,
)

layers = keras.layers


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (keras.activations.tanh, ("tanh", {})),
        (layers.Activation("gelu"), ("gelu", {})),
        (layers.ReLU(), ("relu", {})),
        (layers.ReLU(negative_slope=0.25), ("leaky_relu", {"negative_slope": 0.25})),
        (layers.ReLU(max_value=6.0), None),
        (layers.ReLU(threshold=1.0), None),
        (layers.LeakyReLU(negative_slope=0.5), ("leaky_relu", {"negative_slope": 0.5})),
        (layers.ELU(alpha=0.5), ("elu", {"alpha": 0.5})),
        (layers.Softmax(), ("softmax", {})),
        (lambda x: x, None),
        (None, None),
    ],
)
def test_an_activation_of_keras_is_read_with_its_parameters(f, expected):
    assert named_activation(f) == expected


@pytest.mark.parametrize(
    "f",
    [
        layers.LeakyReLU(negative_slope=0.5),
        layers.ReLU(negative_slope=0.25),
        layers.ReLU(max_value=1.5),
        layers.ELU(alpha=0.5),
        layers.Activation("silu"),
    ],
)
def test_in_numpy_it_has_the_values_of_the_layer(f):
    x = np.linspace(-3, 3, 13)
    found = numpy_activation(f)
    assert isinstance(found, theory.Activation)
    expected = keras.ops.convert_to_numpy(f(keras.ops.convert_to_tensor(x, "float32")))
    np.testing.assert_allclose(found.f(x), expected, rtol=1e-5, atol=1e-6)


def test_the_name_of_an_activation_is_that_of_the_function_a_layer_applies():
    found = [
        activation_name(layer)
        for layer in (
            layers.Dense(2, "tanh"),
            layers.Dense(2),
            layers.TimeDistributed(layers.Dense(2, "gelu")),
            layers.LSTM(2),
            layers.PReLU(),
            layers.Dense(2, activation=layers.ELU()),
            layers.Flatten(),
        )
    ]
    assert found == ["tanh", "linear", "gelu", "tanh", "prelu", "elu", "linear"]


@pytest.mark.parametrize(
    ("initializer", "activation", "fits"),
    [
        (keras.initializers.HeUniform(), "relu", True),
        (keras.initializers.GlorotNormal(), "tanh", True),
        (keras.initializers.GlorotNormal(), "relu", False),
        (keras.initializers.LecunNormal(), "selu", True),
        (keras.initializers.RandomNormal(), "tanh", False),
    ],
)
def test_an_initializer_fits_if_its_variance_is_scaled_for_the_activation(
    initializer, activation, fits
):
    assert initializer_fits(initializer, activation) is fits


@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("mse", "mean_squared_error"),
        ("BinaryCrossentropy", "binary_crossentropy"),
        (keras.losses.MeanAbsoluteError(), "mean_absolute_error"),
        (keras.losses.MeanAbsoluteError, "mean_absolute_error"),
        (keras.losses.mean_absolute_error, "mean_absolute_error"),
        (["mse", "mse"], ""),
        (None, ""),
    ],
)
def test_a_loss_has_the_name_that_keras_gives_it(loss, name):
    assert loss_name(loss) == name

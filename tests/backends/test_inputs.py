"""The forms of data that the loop takes, on whatever backend Keras runs on."""

import keras
import numpy as np
import pandas as pd
import pytest

from kgrad.measure.loop import measure_gradients, train_and_track_gradients

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(12, 3)).astype(np.float32)
Y = X[:, :1] - X[:, 1:2]


def tensor(array):
    return keras.ops.convert_to_tensor(array)


def tensor_with_gradient(array):
    made = tensor(array)
    return made.requires_grad_() if keras.backend.backend() == "torch" else made


def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)]
    )


@pytest.mark.parametrize("form", [np.ndarray.tolist, pd.DataFrame, tensor, tensor_with_gradient])
def test_what_is_an_array_to_fit_is_one_to_the_loop(form):
    def run(X, y):
        history = train_and_track_gradients(model(), X, y, 2, batch_size=4, seed=0)
        return history["l2_norm"], measure_gradients(model(), X, y)["l2_norm"]

    for found, expected in zip(run(form(X), form(Y)), run(X, Y), strict=True):
        np.testing.assert_array_equal(found, expected)

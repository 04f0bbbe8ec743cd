"""The diagnosis with model and data, on the backend that KERAS_BACKEND names."""

import keras
import numpy as np
import pytest

from kgrad import GradientTracker, diagnose
from kgrad.measure.keras_models.data import read_data
from kgrad.measure.keras_models.facts import read_facts

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(256, 3)).astype(np.float32)
Y = (X[:, :1] * X[:, 1:2] > 0).astype(np.float32)


def made(*layers, loss, optimizer="adam"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(optimizer, loss)
    return model


def found(model, x, y, epochs=6):
    tracker = GradientTracker(log=False)
    model.fit(x, y, epochs=epochs, verbose=0, callbacks=[tracker])
    return diagnose(tracker.history, model, x, y)


def test_the_losses_of_a_constant_and_of_perfect_predictions_are_those_of_numpy():
    model = made(keras.layers.Dense(1, "sigmoid"), loss="binary_crossentropy")
    p = Y.mean()
    data = read_data(model, X, Y)
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert data.constant_loss == pytest.approx(entropy, rel=1e-4)
    assert data.perfect_loss == pytest.approx(0, abs=1e-6)
    outputs = data.predict()
    np.testing.assert_allclose(outputs[0], model.predict(X, verbose=0), 1e-5)
    takes_logits = keras.backend.backend() == "tensorflow"
    assert read_facts(model).head.from_activation == takes_logits


def test_a_healthy_run_has_no_findings_and_unscaled_data_are_found():
    hidden = [keras.layers.Dense(32, "relu", kernel_initializer="he_normal") for _ in range(2)]
    model = made(
        *hidden,
        keras.layers.Dense(1, "sigmoid"),
        loss="binary_crossentropy",
        optimizer=keras.optimizers.Adam(0.01),
    )
    assert found(model, X, Y, epochs=12).rules == ()
    model = made(keras.layers.Dense(32, "relu"), keras.layers.Dense(1), loss="mse")
    assert found(model, X, 2e5 + 5e4 * X[:, :1])[0].rule == "targets_out_of_scale"
    model = made(keras.layers.Dense(32, "relu"), keras.layers.Dense(1), loss="mse")
    assert "inputs_out_of_scale" in found(model, 1e4 * X, Y).rules


@pytest.mark.filterwarnings("ignore:.*received `from_logits=True`")
def test_softmax_twice_is_a_finding_where_it_is_applied_twice():
    labels = (2 * Y[:, 0] + (X[:, 2] > 0)).astype(int)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    hidden = keras.layers.Dense(32, "relu", kernel_initializer="he_normal")
    adam = keras.optimizers.Adam(0.01)
    model = made(hidden, keras.layers.Dense(4, "softmax"), loss=loss, optimizer=adam)
    diagnosis = found(model, X, labels, epochs=12)
    if keras.backend.backend() == "tensorflow":
        assert "output_loss_mismatch" not in diagnosis.rules
    else:
        assert diagnosis[0].rule == "output_loss_mismatch"

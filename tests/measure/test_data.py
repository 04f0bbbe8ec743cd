"""What is read from data: rows, losses of simple answers; against closed forms in NumPy."""

import time

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import kgrad
from kgrad import GradientTracker, diagnose
from kgrad.measure.keras_models.data import read_data

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 4)).astype(np.float32)
NUMBERS = (3 + 2 * RANDOM.normal(size=(120, 1))).astype(np.float32)
LABELS = RANDOM.choice(3, size=120, p=[0.6, 0.3, 0.1])
ONE_HOT = np.eye(3, dtype=np.float32)[LABELS]
BITS = (RANDOM.random((120, 1)) < 0.2).astype(np.float32)


def model_of(units, activation=None, loss="mse", **options):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])
    model.compile("sgd", loss, **options)
    return model


def entropy(y):
    p = y.astype(np.float64).mean(axis=0)
    return float(-(p * np.log(p)).sum())


BIT_ENTROPY = entropy(np.hstack([BITS, 1 - BITS]))
MEDIAN = float(np.abs(NUMBERS - np.median(NUMBERS)).mean())


@pytest.mark.parametrize(
    ("model", "y", "constant"),
    [
        (lambda: model_of(1), NUMBERS, NUMBERS.var()),
        (lambda: model_of(1), NUMBERS[:, 0], NUMBERS.var()),
        (lambda: model_of(1, loss="mae"), NUMBERS, MEDIAN),
        (lambda: model_of(1, "sigmoid", "binary_crossentropy"), BITS, BIT_ENTROPY),
        (
            lambda: model_of(1, loss=keras.losses.BinaryCrossentropy(from_logits=True)),
            BITS,
            BIT_ENTROPY,
        ),
        (lambda: model_of(3, "softmax", "categorical_crossentropy"), ONE_HOT, entropy(ONE_HOT)),
        (
            lambda: model_of(3, "softmax", "sparse_categorical_crossentropy"),
            LABELS,
            entropy(ONE_HOT),
        ),
        (
            lambda: model_of(3, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
            LABELS[:, None],
            entropy(ONE_HOT),
        ),
        (
            lambda: model_of(1, loss=lambda t, p: keras.ops.mean(keras.ops.square(t - p)) - 100),
            NUMBERS,
            NUMBERS.var() - 100,
        ),
    ],
)
def test_the_loss_of_the_best_constant_is_variance_deviation_or_entropy(model, y, constant):
    data = read_data(model(), X, y)
    assert data.constant_loss == pytest.approx(float(constant), rel=1e-4)
    perfect = -100 if constant < -50 else 0
    assert data.perfect_loss == pytest.approx(perfect, abs=2e-4)
    assert not data.summed and data.samples == 120


def test_a_loss_that_sums_is_told_from_one_that_averages():
    added = model_of(1, loss=lambda t, p: keras.ops.sum(keras.ops.square(t - p)))
    assert read_data(added, X, NUMBERS).summed
    assert not read_data(model_of(1), X, NUMBERS).summed


def test_losses_of_several_outputs_add_up_with_their_weights():
    inputs = keras.Input((4,))
    outputs = [keras.layers.Dense(1, name=name)(inputs) for name in "ab"]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", ["mse", "mae"], loss_weights=[1.0, 10.0])
    data = read_data(model, X, [NUMBERS, NUMBERS])
    assert data.constant_loss == pytest.approx(NUMBERS.var() + 10 * MEDIAN, rel=1e-4)
    assert len(data.targets) == 2


def test_a_loss_of_other_predictions_than_targets_is_unknown():
    def likelihood(y, parameters):
        return parameters[:, 1] + (y[:, 0] - parameters[:, 0]) ** 2

    data = read_data(model_of(2, loss=likelihood), X, NUMBERS)
    assert np.isnan([data.constant_loss, data.perfect_loss]).all() or not np.isfinite(
        data.constant_loss
    )


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return X[30 * i :][:30], NUMBERS[30 * i :][:30]


@pytest.mark.parametrize(
    "data",
    [
        (X, NUMBERS),
        (X.tolist(), NUMBERS.tolist()),
        (pd.DataFrame(X), pd.Series(NUMBERS[:, 0])),
        (tf.constant(X), tf.constant(NUMBERS)),
        ({"a": X}, NUMBERS),
        (tf.data.Dataset.from_tensor_slices((X, NUMBERS)).batch(50), None),
        (Batches(), None),
        ([(X[:60], NUMBERS[:60]), (X[60:], NUMBERS[60:])], None),
    ],
    ids=["arrays", "lists", "tables", "tensors", "dict", "Dataset", "PyDataset", "batches"],
)
def test_data_are_taken_as_fit_takes_them(data):
    found = read_data(model_of(1), *data)
    np.testing.assert_array_equal(found.inputs[0], X)
    np.testing.assert_array_equal(found.targets[0].reshape(-1, 1), NUMBERS)


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        ((X, NUMBERS[:7]), ValueError, r"same number of rows, received \[7, 120\]"),
        (
            (X.astype(str), NUMBERS),
            TypeError,
            "X must be an array of numbers, received ndarray of str",
        ),
        (("text", NUMBERS), TypeError, "X must be an array of numbers or, for X, a data set"),
        ((Batches(), NUMBERS), ValueError, "y must be left out with X=Batches"),
        (([(X[:0], NUMBERS[:0])], None), ValueError, "at least one batch"),
        ((iter([X, X]), None), TypeError, r"batches \(inputs, targets\), received ndarray"),
    ],
)
def test_what_is_no_data_is_refused_in_a_sentence(data, error, words):
    with pytest.raises(error, match=words) as raised:
        read_data(model_of(1), *data)
    assert "\n" not in str(raised.value)


def test_of_a_million_rows_a_sample_is_read():
    x, y = np.zeros((1_000_000, 4), np.float32), np.zeros((1_000_000, 1), np.float32)
    model = model_of(1)
    read_data(model, X, NUMBERS)
    start = time.perf_counter()
    data = read_data(model, x, y)
    assert time.perf_counter() - start < 3
    assert len(data.inputs[0]) == 2000 and data.samples == 1_000_000


def test_the_model_is_left_as_it_was():
    model = model_of(1, metrics=["mae"])
    tracker = GradientTracker()
    model.fit(X, NUMBERS, verbose=0, callbacks=[tracker])
    before = model.get_weights(), model.get_metrics_result()
    diagnose(tracker.history, model, X, NUMBERS)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before[0], strict=True))
    assert model.get_metrics_result() == before[1]


def test_targets_as_the_third_argument_are_accepted_with_a_warning():
    model = model_of(1)
    tracker = GradientTracker()
    model.fit(X, NUMBERS, verbose=0, callbacks=[tracker])
    with pytest.warns(DeprecationWarning, match="pass y as a keyword: the third argument is X now"):
        old = kgrad.diagnose(tracker.history, model, NUMBERS)
    assert old.rules == kgrad.diagnose(tracker.history, model, y=NUMBERS).rules
    with pytest.raises(ValueError, match="received them without a model"):
        kgrad.diagnose(tracker.history, X=X, y=NUMBERS)

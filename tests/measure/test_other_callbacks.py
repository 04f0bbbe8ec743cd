"""Callbacks of others record and monitor gradients with no adapter."""

import csv

import keras
import numpy as np
import pytest
from mlflow import MlflowClient, set_tracking_uri, start_run
from mlflow.keras import MlflowCallback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from kgrad import GradientTracker, create_model, make_dataset

KEYS = ["grad/first_to_last", "grad/l2_norm", "grad/nonfinite_steps", "grad/update_ratio"]


@pytest.fixture
def fit():
    """A function that trains with the tracker before other callbacks: (tracker, Keras's logs)."""
    data = make_dataset("moons", 64, seed=0)
    model = create_model(2, "tanh", "he", units=4, input_shape=(2,), seed=0)
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")

    def run(*callbacks, epochs=4, **settings):
        tracker = GradientTracker(**settings)
        arguments = {"verbose": 0, "shuffle": False, "callbacks": [tracker, *callbacks]}
        return tracker, model.fit(data.X, data.y, epochs=epochs, **arguments).history

    return run


# Keras reads its learning rate in a way that NumPy warns of.
keras_warns = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def norms(tracker):
    """The norm over all weights in each epoch, by NumPy."""
    return np.sqrt(np.square(tracker.history["l2_norm"][1:]).sum(axis=1))


def test_history_has_the_documented_keys(fit):
    tracker, logs = fit()
    assert sorted(logs) == [*KEYS, "loss"]
    history = tracker.history
    np.testing.assert_allclose(logs["grad/l2_norm"], norms(tracker), rtol=1e-12)
    by_layer = history.by_layer("mean_abs")[1:]
    np.testing.assert_allclose(logs["grad/first_to_last"], by_layer[:, 0] / by_layer[:, -1])
    moved, weights = (np.square(history[s][1:]).sum(axis=1) for s in ("update_l2", "weight_l2"))
    np.testing.assert_allclose(logs["grad/update_ratio"], np.sqrt(moved / weights))
    assert logs["grad/nonfinite_steps"] == [0, 0, 0, 0]


def test_every_layer_on_request_and_nothing_if_not_wanted(fit):
    tracker, logs = fit(log="layers")
    for place, layer in enumerate(tracker.history.layers):
        expected = tracker.history.by_layer("mean_abs")[1:, place]
        np.testing.assert_array_equal(logs[f"grad/mean_abs/{layer}"], expected)
    assert list(fit(log=False)[1]) == ["loss"]


def test_csv_logger(fit, tmp_path):
    tracker, _ = fit(keras.callbacks.CSVLogger(str(tmp_path / "log.csv")))
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    written = [float(row["grad/l2_norm"]) for row in rows]
    np.testing.assert_allclose(written, norms(tracker), rtol=1e-12)


def test_early_stopping_on_the_gradient(fit):
    stop = keras.callbacks.EarlyStopping("grad/l2_norm", mode="min", patience=0, min_delta=1e9)
    tracker, logs = fit(stop)
    assert len(logs["loss"]) == 2  # the second epoch did not improve by a billion
    assert tracker.history.epochs.tolist() == [0, 1, 2]


@keras_warns
def test_model_checkpoint_and_reduced_learning_rate(fit, tmp_path):
    path = tmp_path / "{epoch}-{grad/nonfinite_steps:.0f}.weights.h5"
    checkpoint = keras.callbacks.ModelCheckpoint(str(path), save_weights_only=True)
    plateau = keras.callbacks.ReduceLROnPlateau(
        "grad/l2_norm", mode="min", factor=0.5, patience=1, min_delta=1e9
    )
    _, logs = fit(checkpoint, plateau)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{n}-0.weights.h5" for n in (1, 2, 3, 4)]
    assert logs["learning_rate"] == [0.5, 0.5, 0.25, 0.125]


@keras_warns
def test_tensorboard(fit, tmp_path):
    tracker, _ = fit(keras.callbacks.TensorBoard(str(tmp_path)))
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    found = [make_ndarray(e.tensor_proto) for e in events.Tensors("epoch_grad/l2_norm")]
    np.testing.assert_allclose(found, norms(tracker), rtol=1e-6)


def test_mlflow_in_a_local_file_store(fit, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    set_tracking_uri((tmp_path / "runs").as_uri())
    with start_run() as run:
        tracker, _ = fit(MlflowCallback())
    metrics = MlflowClient().get_metric_history(run.info.run_id, "grad/l2_norm")
    np.testing.assert_allclose([m.value for m in metrics], norms(tracker), rtol=1e-12)

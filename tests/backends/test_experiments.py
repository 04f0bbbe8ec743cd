"""Models, predictions, remedies, experiments, the program and the report on every backend."""

import csv

import keras
import numpy as np
import oracle
import pytest
from keras import layers
from tape_oracle import assert_records

import kgrad
from kgrad.apps.command.main import main
from kgrad.apps.command.run import main as run_program
from kgrad.experiments import Experiment
from kgrad.experiments.data import make_dataset
from kgrad.experiments.engines import run_experiment
from kgrad.records.history import GradientHistory

BACKEND = keras.backend.backend()
SMALL = Experiment(num_layers=2, units=6, dataset="moons", samples=64, epochs=2, seed=3)


def experiment_steps(skipped=0):
    """The steps of `SMALL`, in NumPy: its seed is that of the weights and of the order.

    Keras may end epochs of a `PyDataset` before the first one: these orders are skipped.
    """
    data = make_dataset("moons", 64, seed=0)
    model = kgrad.create_model(2, "relu", "he", units=6, input_shape=(2,), seed=3)
    random = np.random.default_rng(3)
    return oracle.sgd(
        model.get_weights(),
        ["relu", "relu", "sigmoid"],
        data.X,
        np.reshape(data.y, (-1, 1)),
        "binary_crossentropy",
        epochs=2,
        batch_size=32,
        rate=0.05,
        order=[random.permutation(64) for _ in range(2 + skipped)][skipped:],
    )


def test_an_experiment_is_the_loop_of_numpy():
    history = run_experiment(SMALL)
    gradients = [step.gradients for step in experiment_steps()]
    assert_records(history, [gradients[:1], gradients[:2], gradients[2:]])
    assert BACKEND in history.metadata


def test_the_baseline_of_remedies_is_the_experiment():
    trials = kgrad.try_remedies(SMALL, epochs=2, remedies=["learning_rate", "normalization"])
    first = trials[0].history["l2_norm"][0]
    possible = [[step.gradients for step in experiment_steps(k)] for k in range(4)]
    (gradients,) = [
        one
        for one in possible
        if np.allclose([np.linalg.norm(g) for g in one[0]], first, rtol=1e-4)
    ]
    assert_records(trials[0].history, [gradients[:1], gradients[:2], gradients[2:]])
    names = {trial.name for trial in trials}
    assert {"unchanged", "learning rate ×10", "normalization batch"} <= names
    assert all(np.isfinite(trial.loss) for trial in trials)


def test_remedies_of_a_model_that_fit_trains_leave_it_as_it_was():
    """Two outputs: `fit` trains it, and the loss of the baseline is that of a fit by hand."""
    random = np.random.default_rng(12345)
    X = random.normal(size=(32, 4)).astype(np.float32)
    y = [X[:, :1], X[:, 1:2]]
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "tanh")(inputs)
    model = keras.Model(inputs, [layers.Dense(1)(hidden), layers.Dense(1)(hidden)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    before = model.get_weights()
    trials = kgrad.try_remedies(model, X, y, epochs=2, seed=0, remedies=["activation"])
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert trials[0].name == "unchanged"
    assert len(trials) > 1
    for trial in trials:
        assert trial.history.logs["loss"][-1] == pytest.approx(trial.loss)
        assert np.isfinite(trial.history["l2_norm"]).all()


def test_one_linear_layer_is_predicted_in_closed_form():
    """h = X w, L = mean (h − y)²: E‖∂L/∂w‖² = E‖(2/B) Xᵀ(X w − y)‖² with Var w = 2/(5 + 1)."""
    random = np.random.default_rng(12345)
    X = random.normal(size=(8, 5)).astype(np.float32)
    y = random.normal(size=8).astype(np.float32)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1, use_bias=False)])
    XtX = X.T.astype(np.float64) @ X
    expected = 4 / 64 * (2 / 6 * np.sum(XtX**2) + np.sum((X.T @ y) ** 2))
    found = kgrad.predict_gradients(model, X, y)["l2_norm"][0, 0]
    assert found**2 == pytest.approx(expected, rel=0.01)


def test_a_deep_network_is_predicted_as_it_is_measured():
    """The root mean square over networks that are drawn anew lies in the band of a single one."""
    data = make_dataset("moons", 32, seed=0)

    def made(seed):
        return kgrad.create_model(4, "tanh", "he", units=32, input_shape=(2,), seed=seed)

    measured = [
        kgrad.measure_gradients(made(seed), data.X, data.y)["l2_norm"][0] for seed in range(5)
    ]
    root = np.sqrt(np.mean(np.square(measured), axis=0))
    prediction = kgrad.predict_gradients(made(0), data.X, data.y)
    assert (root > prediction.lower["l2_norm"].ravel()).all()
    assert (root < prediction.upper["l2_norm"].ravel()).all()


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The folder of a run of the program."""
    folder = tmp_path_factory.mktemp("program")
    arguments = "--preset vanishing --epochs 2 --seeds 1 --layers 2 --units 6 --samples 64".split()
    assert run_program([*arguments, "--distributions", "--probe", "--output", str(folder)]) == 0
    return folder


def test_the_program_records_and_draws(program):
    history = GradientHistory.load(program / "vanishing-seed-0.jsonl")
    assert history.epochs.tolist() == [0, 1, 2]
    assert history.distributions is not None
    assert set(history.outputs) == {"hidden_1", "hidden_2", "output"}
    assert (program / "report.html").stat().st_size > 100_000
    with (program / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert "vanishing" in row.values()


def test_a_recorded_run_is_diagnosed_and_reported(program, capsys, tmp_path):
    journal = str(program / "vanishing-seed-0.jsonl")
    assert main(["diagnose", journal]) == 1  # initial weights of N(0, 0.05²) are too small
    assert "vanishing (1 seed) cause: " in " ".join(capsys.readouterr().out.split())
    assert main(["report", journal, "--output", str(tmp_path / "page.html")]) == 0
    assert "vanishing" in (tmp_path / "page.html").read_text()

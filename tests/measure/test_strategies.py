"""The loop under TensorFlow's distribution strategies, on virtual devices and in two processes.

What it records is compared with the float64 oracle and with the same training on one device.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import pytest
from measure import strategies
from measure.strategies import ACTIVATIONS, L2, X, Y

import kgrad
from kgrad.measure.loop import measure_gradients
from kgrad.records.history import GradientHistory

TREE = Path(kgrad.__file__).parents[1]


def start(mode, folder, **environment):
    path = os.pathsep.join([str(TREE), str(TREE / "tests")])
    return subprocess.Popen(
        [sys.executable, strategies.__file__, mode, str(folder)],
        env=os.environ | {"PYTHONPATH": path} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    try:
        for process in processes:
            output, _ = process.communicate(timeout=240)
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirrored")
    finish(start("mirrored", folder))
    return folder


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]}
    for one in sockets:
        one.close()
    processes = []
    for number in range(2):
        (folder / str(number)).mkdir()
        config = {"cluster": cluster, "task": {"type": "worker", "index": number}}
        processes.append(start("worker", folder, TF_CONFIG=json.dumps(config)))
    finish(*processes)
    return folder


def assert_plain_sgd(folder, name, batch_size=8):
    """The records and the weights are those of the oracle, in the order of the seed."""
    random = np.random.default_rng(3)
    order = [random.permutation(len(X)) for _ in range(3)]
    steps = oracle.sgd(
        strategies.dense().get_weights(),
        ACTIVATIONS,
        X,
        Y,
        "binary_crossentropy",
        epochs=3,
        batch_size=batch_size,
        rate=0.01,
        order=order,
        l2=L2,
    )
    history = GradientHistory.load(folder / f"{name}.jsonl")
    assert history.steps.tolist() == [0, 4, 8, 12]
    assert (history["nonfinite_steps"] == 0).all()
    parts = [steps[:1], steps[:4], steps[4:8], steps[8:]]
    for i, part in enumerate(parts):
        expected = oracle.statistics([step.gradients for step in part])
        for statistic in ("mean_abs", "l2_norm", "max_abs"):
            np.testing.assert_allclose(history[statistic][i], expected[statistic], rtol=2e-5)
        losses = np.average([s.loss for s in part], weights=[s.samples for s in part])
        np.testing.assert_allclose(history.logs["loss"][i], losses, rtol=1e-5)
        counts = history.distributions[i].sum(axis=-1)
        np.testing.assert_array_equal(
            counts, len(part) * np.array([w.size for w in history.weights])
        )
    with np.load(folder / f"{name}.npz") as weights:
        for found, expected in zip(weights.values(), steps[-1].weights, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return history


def assert_same(one, other, *, rtol=1e-4):
    """Two histories agree within rounding."""
    assert one.statistics == other.statistics
    assert one.steps.tolist() == other.steps.tolist()
    for name in one.statistics:
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=1e-9, err_msg=name)
    assert set(one.logs) == set(other.logs)
    for name, values in one.logs.items():
        np.testing.assert_allclose(values, other.logs[name], rtol=1e-5, err_msg=name)


def on_one_device(train, model, folder):
    train(model, folder, "alone")
    return GradientHistory.load(folder / "alone.jsonl")


@pytest.mark.parametrize(("name", "batch_size"), [("plain", 8), ("uneven", 9)])
def test_replicas_train_on_parts_of_the_batch(mirrored, name, batch_size):
    history = assert_plain_sgd(mirrored, name, batch_size)
    assert history.metadata["replicas"] == 2


def test_clipping_accumulation_and_metrics_are_those_of_the_whole_batch(mirrored, tmp_path):
    alone = on_one_device(strategies.adam, strategies.compiled(), tmp_path)
    assert alone["clipped_steps"].any()
    assert {"accuracy", "mae"} <= set(alone.logs)
    assert_same(GradientHistory.load(mirrored / "adam.jsonl"), alone)


def test_rows_of_an_embedding_are_added_over_the_replicas(mirrored, tmp_path):
    alone = on_one_device(strategies.embedded, strategies.lookup(), tmp_path)
    assert_same(GradientHistory.load(mirrored / "embedded.jsonl"), alone)


def test_one_pass_is_not_divided_by_the_replicas(mirrored):
    alone = measure_gradients(strategies.compiled(), X, Y)
    assert_same(GradientHistory.load(mirrored / "measured.jsonl"), alone)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("scope", "train_and_track_gradients must be called outside of the scope of a distri"),
        ("measure", "measure_gradients must be called outside of the scope of a distribution"),
        ("jit", 'jit_compile must be False or "auto" under MirroredStrategy'),
        ("probe", "probe must be None under MirroredStrategy, received data"),
        (
            "optimizer",
            "must be made in the scope of the strategy, received one that was made outside",
        ),
        ("scale", "must not be a LossScaleOptimizer under MirroredStrategy"),
        ("loss", "loss must be a mean over the batch under MirroredStrategy"),
        ("compute_loss", "must have Keras's own compute_loss under MirroredStrategy"),
        ("batch", "a sample for each of the 2 replicas of MirroredStrategy, received one of 1"),
        ("last", "a sample for each of the 2 replicas of MirroredStrategy, received one of 1"),
        ("mask", "must not mask its output under a distribution strategy"),
        ("strategy", "MultiWorkerMirroredStrategy, received CentralStorageStrategy"),
        ("outside", "train_and_track_gradients must be called outside of the scope of a distri"),
    ],
)
def test_what_cannot_be_distributed_is_refused(mirrored, name, message):
    refused = json.loads((mirrored / "refused.json").read_text())
    assert message in refused.get(name, "nothing")


def test_two_processes_train_as_one(workers):
    for number in "01":
        history = assert_plain_sgd(workers / number, "plain")
        assert history.metadata["replicas"] == 2


def test_only_the_chief_writes_the_journal(workers):
    assert (workers / "0/journal.jsonl").read_text() == (workers / "0/plain.jsonl").read_text()
    assert not (workers / "1/journal.jsonl").exists()


def test_workers_agree_on_order_and_metrics(workers):
    chief, other = (GradientHistory.load(workers / n / "adam.jsonl") for n in "01")
    assert chief.metadata["seed"] == other.metadata["seed"]
    assert_same(chief, other, rtol=0)
    with np.load(workers / "0/adam.npz") as one, np.load(workers / "1/adam.npz") as two:
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    model = strategies.compiled()
    alone = kgrad.train_and_track_gradients(
        model, X, Y, 2, batch_size=9, every=3, seed=chief.metadata["seed"]
    )
    assert_same(chief, alone)


def test_ctrl_c_in_one_worker_stops_all_at_the_same_step(workers):
    chief, other = (GradientHistory.load(workers / n / "interrupted.jsonl") for n in "01")
    assert chief.metadata["interrupted"] is other.metadata["interrupted"] is True
    assert chief.steps.tolist() == other.steps.tolist() == [0, 4, 8]


@pytest.mark.parametrize("number", ["0", "1"])
def test_workers_with_other_data_or_arguments_are_refused(workers, number):
    refused = json.loads((workers / number / "refused.json").read_text())
    assert "the data must be the same in all 2 workers" in refused["data"]
    assert "the arguments must be the same in all 2 workers" in refused["arguments"]


def test_keras_fit_fails_before_it_asks_a_callback(workers):
    """The tracker's documentation says so."""
    for number in "01":
        assert "PerReplica" in (workers / number / "fit.txt").read_text()

"""Tests of snapshots: what the worker takes is what a network says, and the page reads it."""

import numpy as np
import pytest

from kgrad.apps.page.configuration import Configuration
from kgrad.apps.page.figures import boundary
from kgrad.apps.page.network import drawing
from kgrad.apps.page.snapshots import (
    BINS,
    GRID,
    Snapshot,
    Snapshots,
    is_taken,
    map_of,
    snapshot_of,
    snapshots_path,
)
from kgrad.experiments.data import make_dataset
from kgrad.records.history import GradientHistory, Weight


def outputs_of(X):
    """Two hidden units x and -x, and an output that is 1 where x > y."""
    return [np.stack([X[:, 0], -X[:, 0]], axis=1), (X[:, :1] > X[:, 1:2]).astype(float)]


def test_the_map_holds_the_output_at_its_places_and_survives_its_file(random, tmp_path):
    X = random.normal(size=(50, 2))
    taken = snapshot_of(4, X, outputs_of)
    x, y = map_of(X)
    assert (x[0] < X[:, 0].min(), y[-1] > X[:, 1].max()) == (True, True)
    expected = [[255 * (x[j] > y[i]) for j in range(GRID)] for i in range(GRID)]
    np.testing.assert_array_equal(taken.outputs[..., 0], expected)
    read = Snapshot.from_json(taken.to_json())
    np.testing.assert_array_equal(read.outputs, taken.outputs)
    np.testing.assert_array_equal(read.counts, taken.counts)
    np.testing.assert_allclose(read.ranges, taken.ranges)


def test_every_activation_is_in_a_bin(random):
    X = random.normal(size=(100, 3))
    taken = snapshot_of(0, X, outputs_of)
    assert taken.outputs is None
    assert taken.counts.shape == (2, BINS)
    assert taken.counts.sum(axis=1).tolist() == [200, 100]
    np.testing.assert_array_equal(taken.counts[0], taken.counts[0][::-1])  # of x and -x
    assert taken.counts[1][0] + taken.counts[1][-1] == 100  # 0 and 1


def test_activations_that_are_not_finite_have_no_range(random):
    X = random.normal(size=(100, 2))
    taken = snapshot_of(
        0, X, lambda X: [np.full((len(X), 2), np.nan), np.full((len(X), 1), np.inf)]
    )
    read = Snapshot.from_json(taken.to_json())
    assert np.isnan(read.ranges).all()
    assert not read.counts.any()
    content = drawing(Configuration(layers=1, dataset="moons"), None, read, 0)
    assert content["nodes"][1]["text"] == "hidden_1: no finite activation"


def test_a_growing_file_is_read_line_by_line(random, tmp_path):
    X, journal = random.normal(size=(20, 2)), tmp_path / "run.jsonl"
    lines = [snapshot_of(record, X, outputs_of).to_json() + "\n" for record in (0, 5)]
    snapshots = Snapshots(journal)
    snapshots.read()
    assert snapshots.at(3) is None
    snapshots_path(journal).write_text(lines[0] + lines[1][:40])
    snapshots.read()
    assert snapshots.at(9).record == 0
    with snapshots_path(journal).open("a") as file:
        file.write(lines[1][40:])
    snapshots.read()
    assert [snapshots.at(record).record for record in (0, 4, 5, 9)] == [0, 0, 5, 5]


def test_a_long_run_has_about_two_hundred_snapshots():
    assert all(is_taken(record, 200) for record in range(200))
    assert 100 <= sum(is_taken(record, 1000) for record in range(1001)) <= 201


@pytest.mark.parametrize("name", ["moons", "blobs"])
def test_the_boundary_has_the_color_of_the_class_that_is_more_likely(name):
    data = make_dataset(name)
    classes = max(2, data.output_units)
    labels = np.arange(GRID * GRID).reshape(GRID, GRID) % classes
    p = np.eye(classes)[labels]
    outputs = np.rint(255 * (p[..., 1:] if classes == 2 else p)).astype(np.uint8)
    blank = np.zeros((2, BINS), int)
    figure = boundary(data, Snapshot(0, blank, np.zeros((2, 2)), outputs))
    image, *points = figure.data
    assert [len(one.x) for one in points] == [
        np.sum(data.y.ravel()[:400] == label) for label in range(classes)
    ]
    for label, one in enumerate(points):
        colors = np.asarray(image.z)[labels == label].astype(int)
        wanted = np.array([int(one.marker.color[i : i + 2], 16) for i in (1, 3, 5)])
        assert (colors == colors[0]).all()
        assert np.abs(colors[0] - (255 + 0.6 * (wanted - 255))).max() <= 1


def history_with_signals(signals):
    """Return a history of one record with these signals: output → |∂L/∂a|."""
    history = GradientHistory(
        [Weight("d", "kernel", "d/kernel", (2, 3))], ["mean_abs"], outputs=list(signals)
    )
    values = {"signal_l2": list(signals.values())}
    history.append(0, 0, {"mean_abs": [0.1]}, {"loss": 0.5}, activations=values)
    return history


def test_an_edge_is_as_thick_as_the_gradient_that_flows_back_through_it():
    history = history_with_signals({"hidden_1": 1e-3, "hidden_2": 0.0, "output": 1.0})
    content = drawing(Configuration(layers=2), history, None, 0)
    assert [one["name"] for one in content["nodes"]] == [
        "input", "hidden_1", "hidden_2", "output", "loss",
    ]  # fmt: skip
    assert [one["kind"] for one in content["edges"]] == ["unknown", "measured", "zero", "measured"]
    _, middle, zero, widest = (one["width"] for one in content["edges"])
    assert middle - zero == pytest.approx((widest - zero) / 2)  # three of six decades
    assert not content["arcs"]


def test_skip_connections_carry_the_gradient_of_their_sum():
    signals = {"hidden_1": 1e-6, "hidden_2": 1.0, "skip_1": 1.0, "output": 1.0}
    content = drawing(Configuration(layers=2, skip=True), history_with_signals(signals), None, 0)
    (arc,) = content["arcs"]
    assert (arc["from"], arc["to"], arc["kind"]) == (1, 2, "measured")
    assert arc["width"] == content["edges"][2]["width"] > content["edges"][1]["width"]
    assert content["edges"][2]["text"] == "|∂L/∂a| at skip_1: 1"

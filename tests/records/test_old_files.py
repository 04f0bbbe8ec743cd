"""A history that kgrad 0.1 recorded, NaN and infinity included, loads and draws as it did."""

import json
from pathlib import Path

import numpy as np

import kgrad
from kgrad.experiments import experiment_of

FILE = Path(__file__).parent / "data" / "run_of_0_1.jsonl"


def test_a_history_of_the_first_release_holds_what_its_file_says():
    header, *records = map(json.loads, FILE.read_text(encoding="utf-8").splitlines())
    history = kgrad.GradientHistory.load(FILE)
    assert [weight._asdict() | {"shape": list(weight.shape)} for weight in history.weights] == (
        header["weights"]
    )
    assert list(history.statistics) == header["statistics"]
    assert list(history.outputs) == header["outputs"]
    assert history.metadata == header["metadata"]
    assert history.epochs.tolist() == [record["epoch"] for record in records]
    assert history.steps.tolist() == [record["step"] for record in records]
    found_nan = False
    for name in header["statistics"]:
        # float reads "NaN" and "Infinity", too.
        expected = [[float(value) for value in record["values"][name]] for record in records]
        np.testing.assert_array_equal(history[name], expected)
        found_nan |= np.isnan(expected).any()
    assert found_nan
    for name, table in history.activations.items():
        expected = [[float(value) for value in record["activations"][name]] for record in records]
        np.testing.assert_array_equal(table, expected)
    counted = [
        sum(d["zeros"]) + sum(map(sum, d["counts"])) + sum(d["nonfinite"])
        for d in (record["distributions"] for record in records)
    ]
    assert history.distributions.sum(axis=(1, 2)).tolist() == counted
    assert (
        experiment_of(history).weight_initializer == header["metadata"]["experiment"]["initializer"]
    )


def test_a_history_of_the_first_release_is_drawn_and_diagnosed():
    history = kgrad.GradientHistory.load(FILE)
    lines = kgrad.visualize_gradients(history, "Exploding").axes[0].get_lines()
    drawn = next(line for line in lines if len(line.get_xdata()) == len(history))
    np.testing.assert_array_equal(drawn.get_xdata(), history.epochs)
    assert "nonfinite" in kgrad.diagnose(history).rules
    graph = kgrad.flow_graph_from_history(history)
    assert not graph.graph["assumed"]
    norms = [graph.nodes[layer]["gradient_norm"] for layer in history.layers]
    np.testing.assert_array_equal(norms, history.by_layer("l2_norm")[-1])

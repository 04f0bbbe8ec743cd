"""Heads, normalization and outputs of graphs drawn by hand; the levels of kernels behind heads."""

import numpy as np
import pytest
from diagnosis.test_diagnosing import FLAT, history_of

from kgrad.diagnosis import diagnose
from kgrad.diagnosis.evidence import Evidence
from kgrad.diagnosis.structure import Structure


def graph(edges, **kinds):
    names = list(dict.fromkeys(name for edge in edges.split() for name in edge.split(">")))
    nodes = [{"id": name, "kind": kinds.get(name, "Dense")} for name in names]
    return {"nodes": nodes, "edges": [edge.split(">") for edge in edges.split()], "assumed": False}


def test_a_head_is_the_last_kernel_before_an_output():
    found = Structure(graph("a>b b>c c>flat a>d", flat="Flatten"), ["a", "b", "c", "d"]).heads()
    assert found == {"a": ("c", "d"), "b": ("c",), "c": ("c",), "d": ("d",)}


@pytest.mark.parametrize(
    "described",
    [None, {"nodes": 3}, graph("a>b") | {"assumed": True}, graph("a>x")],
    ids=["not recorded", "malformed", "a guess", "without a layer"],
)
def test_without_a_graph_the_last_weight_is_the_head(described):
    assert Structure(described, ["a", "b"]).heads() == {"a": ("b",), "b": ("b",)}


def test_a_layer_is_normalized_if_nothing_else_takes_its_output():
    described = graph("a>n n>b a2>n2 a2>b", n="BatchNormalization", n2="LayerNormalization")
    found = Structure(described, ["a", "a2", "b"])
    assert [found.is_normalized(name) for name in ("a", "a2", "b")] == [True, False, False]


def test_encodings_and_poolings_cannot_die_but_activations_can():
    described = graph("a>r r>p p>b", r="ReLU", p="MaxPooling2D")
    described["nodes"][1]["layers"] = described["nodes"][2]["layers"] = []
    found = Structure(described, ["a", "b"])
    names = ("a", "r", "r_1", "p", "b", "of a shared model")
    assert [found.can_die(name) for name in names] == [True, True, True, False, True, True]
    assert [found.is_hidden(name) for name in names] == [True, True, True, True, False, True]


def test_each_head_has_its_own_error():
    """hidden_1 feeds hidden_2 → output and hidden_3 → hidden_4, heads of different errors."""
    edges = "hidden_1>hidden_2 hidden_2>output hidden_1>hidden_3 hidden_3>hidden_4"
    error = np.array([5.0, 3.0, 4.0, 4.0, 3.0])  # the trunk gets √(3² + 4²)
    history = history_of(error, FLAT, metadata={"graph": graph(edges)})
    for r in range(len(history)):
        history.record(r)["values"]["l2_norm"][1::2] = error
    np.testing.assert_allclose(Evidence(history).level, 1)
    np.testing.assert_allclose(Evidence(history).level_by_bias, 1)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_head_with_another_loss_scale_is_no_finding(scale):
    """By the last weight alone, all layers of the first head would vanish or explode."""
    edges = "hidden_1>hidden_2 hidden_2>hidden_3 hidden_4>output"
    error = np.array([1.0, 1, 1, scale, scale])
    history = history_of(error, FLAT, metadata={"graph": graph(edges)})
    for r in range(len(history)):
        history.record(r)["values"]["l2_norm"][1::2] = error
    assert diagnose(history).rules == ()
    assert diagnose(history_of(error / scale, FLAT)).rules != ()

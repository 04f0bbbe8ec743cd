"""The flow graph of a history and its JSON, without Keras: numbers by hand, and malformed input."""

import json
import math

import pytest

import kgrad
from kgrad.records.flow_graph import NOT_IN_RECORD
from kgrad.records.history import GradientHistory, Weight


def hand_made(records=3, metadata=None, probed=(0, 2)):
    """Return the history of a chain of three layers, with a probe in some of the records."""
    names = ["one", "two", "three"]
    weights = [Weight(name, "kernel", f"{name}/kernel", (2,)) for name in names]
    history = GradientHistory(weights, ["l2_norm"], metadata, outputs=names)
    for i in range(records):
        signal = {"signal_l2": [10.0 + i, 20.0 + i, 30.0 + i]} if i in probed else {}
        history.append(i, 5 * i, {"l2_norm": [i, 1 + i, 2 + i]}, activations=signal)
    return history


def test_every_record_is_kept_and_the_last_or_an_epochs_is_shown():
    history = hand_made()
    graph = kgrad.flow_graph_from_history(history)
    assert graph.nodes["two"]["gradient_norm"] == 3
    assert graph.nodes["two"]["norms"] == (1, 2, 3)
    assert graph.edges["one", "two"]["norms"] == (10, None, 12)
    assert (graph.graph["epoch"], graph.graph["step"]) == (2, 10)
    graph = kgrad.flow_graph_from_history(history, epoch=1)
    assert graph.nodes["two"]["gradient_norm"] == 2
    assert graph.edges["one", "two"]["gradient_norm"] is None
    assert graph.edges["one", "two"]["reason"] == NOT_IN_RECORD


def test_a_file_that_says_nothing_of_the_topology_is_a_chain_and_says_so():
    graph = kgrad.flow_graph_from_history(hand_made())
    assert graph.graph["assumed"]
    assert list(graph.edges) == [("one", "two"), ("two", "three")]
    assert graph.edges["two", "three"]["gradient_norm"] == 22


def test_a_nested_model_is_one_node_or_its_layers():
    """Layers one and three are in model m; weights are listed in the history's order."""
    described = {
        "nodes": [
            {"id": "a"},
            {"id": "three", "kind": "Dense", "within": ["m", "n"]},
            {"id": "one", "kind": "Dense", "within": ["m"]},
            {"id": "two", "kind": "Dense"},
        ],
        "edges": [
            ["a", "three", [None]], ["three", "one"], ["one", "two", ["one", "one (2)"]],
            ["three", "two"], ["two", "two"],
        ],
    }  # fmt: skip
    history = hand_made(metadata={"graph": described})
    opened = kgrad.flow_graph_from_history(history, nested="opened")
    outputs = {edge: opened.edges[edge]["outputs"] for edge in opened.edges}
    assert outputs == {
        ("a", "three"): (None,), ("three", "one"): ("three",), ("one", "two"): ("one", "one (2)"),
        ("three", "two"): ("three",), ("two", "two"): ("two",),
    }  # fmt: skip
    folded = kgrad.flow_graph_from_history(history)
    assert list(folded) == ["a", "m", "two"]
    assert (folded.nodes["m"]["kind"], folded.nodes["two"]["kind"]) == ("Model", "Dense")
    assert folded.nodes["m"]["layers"] == ("three", "one")
    assert folded.nodes["m"]["shapes"] == ("one kernel (2,)", "three kernel (2,)")
    assert folded.nodes["two"]["shapes"] == ("kernel (2,)",)
    assert folded.nodes["m"]["gradient_norm"] == math.hypot(2, 4)
    outputs = {edge: folded.edges[edge]["outputs"] for edge in folded.edges}
    assert outputs == {
        ("a", "m"): (None,), ("m", "two"): ("one", "one (2)", "three"), ("two", "two"): ("two",)
    }  # fmt: skip


NODE = {"id": "one", "kind": "Dense"}
TOPOLOGY = (
    "graph must have nodes (each with id) and edges ([source, target] or [source, target, outputs])"
)


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ("<script>", "Expected `object`, got `str`"),
        ({"nodes": {}, "edges": []}, "Expected `array`, got `object` - at `$.nodes`"),
        ({"nodes": []}, "Object missing required field `edges`"),
        ({"nodes": [NODE, NODE], "edges": []}, "expected distinct nodes, received 'one' twice"),
        ({"nodes": [3], "edges": []}, "Expected `object`, got `int` - at `$.nodes[0]`"),
        (
            {"nodes": [{"id": ["one"]}], "edges": []},
            "Expected `str`, got `array` - at `$.nodes[0].id`",
        ),
        ({"nodes": [{}], "edges": []}, "Object missing required field `id` - at `$.nodes[0]`"),
        (
            {"nodes": [NODE | {"within": "x"}], "edges": []},
            "Expected `array`, got `str` - at `$.nodes[0].within`",
        ),
        (
            {"nodes": [NODE | {"layers": [1]}], "edges": []},
            "Expected `str`, got `int` - at `$.nodes[0].layers[0]`",
        ),
        (
            {"nodes": [NODE], "edges": [["one", "two"]]},
            "expected edges between the nodes, received 'one' to 'two'",
        ),
        (
            {"nodes": [NODE], "edges": [["two", "one"]]},
            "expected edges between the nodes, received 'two' to 'one'",
        ),
        (
            {"nodes": [NODE], "edges": [["one"]]},
            "Expected `array` of at least length 2, got 1 - at `$.edges[0]`",
        ),
        (
            {"nodes": [NODE], "edges": [["one", "one", [], []]]},
            "Expected `array` of at most length 3, got 4 - at `$.edges[0]`",
        ),
        (
            {"nodes": [NODE], "edges": [["one", "one", None]]},
            "Expected `array`, got `null` - at `$.edges[0][2]`",
        ),
        (
            {"nodes": [NODE], "edges": [["one", "one", [1]]]},
            "Expected `str | null`, got `int` - at `$.edges[0][2][0]`",
        ),
        (
            {"nodes": [NODE], "edges": [["one", [], []]]},
            "Expected `str`, got `array` - at `$.edges[0][1]`",
        ),
        (
            {"nodes": [NODE] * 100_001, "edges": []},
            "Expected `array` of length <= 100000 - at `$.nodes`",
        ),
        (
            {"nodes": [NODE], "edges": [["one", "one"]] * 100_001},
            "Expected `array` of length <= 100000 - at `$.edges`",
        ),
    ],
)
def test_a_malformed_topology_is_refused_in_one_sentence(described, reason):
    history = hand_made(metadata={"graph": described})
    with pytest.raises(ValueError) as caught:
        kgrad.flow_graph_from_history(history)
    assert str(caught.value) == f"{TOPOLOGY} ({reason})"


def test_bad_arguments_are_refused_in_one_sentence():
    history = hand_made()
    for call, error, sentence in (
        (lambda: kgrad.flow_graph_from_history("run.jsonl"), TypeError, "received str"),
        (lambda: kgrad.flow_graph_from_history(history, epoch=7), ValueError, "from 0 to 2"),
        (lambda: kgrad.flow_graph_from_history(history, epoch=True), ValueError, "received True"),
        (
            lambda: kgrad.flow_graph_from_history(history, nested="open"),
            ValueError,
            "'folded', 'opened' or 'blocks', received 'open'",
        ),
        (lambda: kgrad.flow_graph_from_history(hand_made(0)), ValueError, "at least one record"),
    ):
        with pytest.raises(error) as caught:
            call()
        assert sentence in str(caught.value)


# JSON


def special():
    """Return a graph with NaN, infinity, 0 and None."""
    history = hand_made()
    history.append(
        3, 15, {"l2_norm": [math.nan, math.inf, 0]}, activations={"signal_l2": [math.inf, 0, 1]}
    )
    return kgrad.flow_graph_from_history(history)


def test_json_has_the_shape_that_other_programs_write():
    content = kgrad.graph_to_json(kgrad.flow_graph_from_history(hand_made()))
    assert [(node["id"], node["gradient_norm"]) for node in content["nodes"]] == [
        ("one", 2), ("two", 3), ("three", 4)
    ]  # fmt: skip
    assert [(e["source"], e["target"], e["gradient_norm"]) for e in content["edges"]] == [
        ("one", "two", 12), ("two", "three", 22)
    ]  # fmt: skip


def test_json_writes_special_numbers_as_a_historys_file_does():
    content = kgrad.graph_to_json(special(), every_record=True)
    json.dumps(content, allow_nan=False)
    assert [node["gradient_norm"] for node in content["nodes"]] == ["NaN", "Infinity", 0]
    assert content["edges"][0]["gradient_norm"] == "Infinity"
    assert content["records"][3]["nodes"] == ["NaN", "Infinity", 0]
    assert content["records"][1]["edges"] == [None, None]
    assert content["records"][1]["epoch"] == 1


def test_what_is_written_is_read_back():
    graph = special()
    text = json.dumps(kgrad.graph_to_json(graph, every_record=True))
    again = kgrad.graph_from_json(json.loads(text))
    assert again.graph == graph.graph
    assert list(again) == list(graph)
    for ours, theirs in ((graph.nodes, again.nodes), (graph.edges, again.edges)):
        assert list(ours) == list(theirs)
        for name in ours:  # as text: NaN equals no NaN
            assert sorted(map(repr, ours[name].items())) == sorted(map(repr, theirs[name].items()))
    assert "records" not in kgrad.graph_to_json(graph)


def test_json_says_what_is_folded():
    described = {
        "nodes": [{"id": "one", "within": ["m"]}, {"id": "two", "within": ["m"]}, {"id": "three"}],
        "edges": [["one", "two"], ["two", "three"]],
    }
    graph = kgrad.flow_graph_from_history(hand_made(metadata={"graph": described}))
    content = json.loads(json.dumps(kgrad.graph_to_json(graph)))
    assert [node.get("folded") for node in content["nodes"]] == [["one", "two"], None]
    again = kgrad.graph_from_json(content)
    assert again.nodes["m"]["folded"] == ("one", "two")
    assert "folded" not in again.nodes["three"]


def test_a_graph_with_nothing_but_ids_and_norms_is_read():
    graph = kgrad.graph_from_json(
        {
            "nodes": [
                {"id": "fc1", "gradient_norm": 0.8044},
                {"id": "fc2", "gradient_norm": 0.5383},
            ],
            "edges": [{"source": "fc1", "target": "fc2", "gradient_norm": 2.9235}],
        }
    )
    assert graph.edges["fc1", "fc2"]["gradient_norm"] == 2.9235
    assert graph.nodes["fc2"]["norms"] == ()


def test_not_a_number_is_read_as_pythons_json_reads_it():
    content = json.loads('{"nodes": [{"id": "a", "gradient_norm": NaN}], "edges": []}')
    assert math.isnan(kgrad.graph_from_json(content).nodes["a"]["gradient_norm"])


A = {"id": "a", "gradient_norm": 1}
EDGE = {"source": "a", "target": "a", "gradient_norm": 1}
RECORD = {"epoch": 1, "step": 1, "nodes": [1], "edges": []}


NORM = 'norms and statistics must be numbers of at least 0, "NaN", "Infinity" or null, received '


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([], "(Expected `object`, got `array`)"),
        ({}, "(Object missing required field `nodes`)"),
        ({"nodes": [A]}, "(Object missing required field `edges`)"),
        (
            {"format": "kgrad-history", "nodes": [], "edges": []},
            'expected a graph ("format": "kgrad-graph", "version": 1) with nodes (each with id and '
            "gradient_norm) and edges (each with source, target and gradient_norm) (Invalid enum "
            "value 'kgrad-history' - at `$.format`)",
        ),
        ({"version": 2, "nodes": [], "edges": []}, "(Invalid enum value 2 - at `$.version`)"),
        ({"nodes": [A, A], "edges": []}, "nodes must have distinct ids, received 'a' twice"),
        (
            {"nodes": [{"id": 1, "gradient_norm": 1}], "edges": []},
            "(Expected `str`, got `int` - at `$.nodes[0].id`)",
        ),
        (
            {"nodes": [{"gradient_norm": 1}], "edges": []},
            "(Object missing required field `id` - at `$.nodes[0]`)",
        ),
        (
            {"nodes": [{"id": "a"}], "edges": []},
            "(Object missing required field `gradient_norm` - at `$.nodes[0]`)",
        ),
        ({"nodes": [A | {"gradient_norm": "1"}], "edges": []}, f"{NORM}'1'"),
        (
            {"nodes": [A | {"gradient_norm": True}], "edges": []},
            "(Expected `float | str | null`, got `bool` - at `$.nodes[0].gradient_norm`)",
        ),
        ({"nodes": [A | {"gradient_norm": -1}], "edges": []}, f"{NORM}-1.0"),
        ({"nodes": [A | {"gradient_norm": "-Infinity"}], "edges": []}, f"{NORM}'-Infinity'"),
        (
            {"nodes": [A | {"gradient_norm": [1]}], "edges": []},
            "(Expected `float | str | null`, got `array` - at `$.nodes[0].gradient_norm`)",
        ),
        (
            {"nodes": [A | {"gradient_norm": 10**400}], "edges": []},
            "(Number out of range - at `$.nodes[0].gradient_norm`)",
        ),
        (
            {"nodes": [A | {"statistics": []}], "edges": []},
            "(Expected `object`, got `array` - at `$.nodes[0].statistics`)",
        ),
        ({"nodes": [A | {"statistics": {"x": -0.5}}], "edges": []}, f"{NORM}-0.5"),
        (
            {"nodes": [A | {"layers": [3]}], "edges": []},
            "(Expected `str`, got `int` - at `$.nodes[0].layers[0]`)",
        ),
        (
            {"nodes": [A], "edges": [EDGE | {"target": "b"}]},
            "edges must join nodes, received 'a' to 'b'",
        ),
        (
            {"nodes": [A], "edges": [EDGE | {"source": {}}]},
            "(Expected `str`, got `object` - at `$.edges[0].source`)",
        ),
        ({"nodes": [A], "edges": [EDGE | {"gradient_norm": -2}]}, f"{NORM}-2.0"),
        (
            {"nodes": [A], "edges": [EDGE], "epoch": "1"},
            "(Expected `int | null`, got `str` - at `$.epoch`)",
        ),
        (
            {"nodes": [A], "edges": [EDGE], "epoch": True},
            "(Expected `int | null`, got `bool` - at `$.epoch`)",
        ),
        (
            {"nodes": [A], "edges": [], "records": [{}]},
            "(Object missing required field `epoch` - at `$.records[0]`)",
        ),
        (
            {"nodes": [A], "edges": [], "records": [RECORD | {"nodes": []}]},
            "records must have 1 numbers of nodes, received 0",
        ),
        (
            {"nodes": [A], "edges": [], "records": [RECORD | {"edges": [1]}]},
            "records must have 0 numbers of edges, received 1",
        ),
        ({"nodes": [A], "edges": [], "records": [RECORD | {"nodes": ["x"]}]}, f"{NORM}'x'"),
        (
            {"nodes": [A] * 100_001, "edges": []},
            "(Expected `array` of length <= 100000 - at `$.nodes`)",
        ),
        (
            {"nodes": [A], "edges": [EDGE] * 100_001},
            "(Expected `array` of length <= 100000 - at `$.edges`)",
        ),
    ],
)
def test_malformed_json_is_refused_in_one_sentence(content, sentence):
    with pytest.raises(ValueError) as caught:
        kgrad.graph_from_json(content)
    assert str(caught.value).endswith(sentence)
    assert "\n" not in str(caught.value)


def counted(weights, rows):
    """Return a history of these weights: per record (l2_norm, updates, gradients_present)."""
    names = ("l2_norm", "zero_fraction", "updates", "gradients_present", "weight_l2")
    history = GradientHistory(weights, names)
    for r, (norms, updates, present) in enumerate(rows):
        known = [norms, [0.5] * len(weights), updates, present, [7.0] * len(weights)]
        history.append(r, 5 * r, dict(zip(names, known, strict=True)))
    return history


def test_a_node_without_a_gradient_says_why_in_every_record():
    nan = math.nan
    weights = [Weight(name, "kernel", f"{name}/kernel", (2,)) for name in ("one", "two")]
    rows = [
        ([nan, 3.0], [0, 4], [0, 4]),
        ([1.0, nan], [4, 4], [2, 0]),
        ([nan, 2.0], [4, 4], [2, 4]),  # a NaN that was measured
    ]
    graph = kgrad.flow_graph_from_history(counted(weights, rows), epoch=0)
    one, two = graph.nodes["one"], graph.nodes["two"]
    assert one["reasons"] == ("not updated", "", "")
    assert two["reasons"] == ("", "no path to the loss", "")
    assert (one["gradient_norm"], one["reason"]) == (None, "not updated")
    assert (two["gradient_norm"], two["reason"]) == (3.0, "")
    assert one["norms"][:2] == (None, 1.0) and math.isnan(one["norms"][2])
    assert two["norms"] == (3.0, None, 2.0)
    # What needs no gradient is there.
    assert one["statistics"] == {
        "l2_norm": None, "zero_fraction": None, "updates": 0, "gradients_present": 0, "weight_l2": 7
    }  # fmt: skip
    content = kgrad.graph_to_json(graph, every_record=True)
    assert [record["reasons"] for record in content["records"][:2]] == [
        ["not updated", ""],
        ["", "no path to the loss"],
    ]
    assert "reasons" not in content["records"][2]
    again = kgrad.graph_from_json(json.loads(json.dumps(content)))
    for name in graph:
        assert again.nodes[name]["reasons"] == graph.nodes[name]["reasons"]
        assert again.nodes[name]["reason"] == graph.nodes[name]["reason"]
    assert kgrad.graph_to_json(again, every_record=True) == content
    content["records"][0]["reasons"] = ["not updated"]
    with pytest.raises(ValueError, match=r"^records must have 2 reasons or none, received 1$"):
        kgrad.graph_from_json(content)


def test_a_node_of_several_layers_leaves_out_those_without_a_gradient():
    nan = math.nan
    weights = [Weight(name, "kernel", f"{name}/kernel", (2,)) for name in ("one", "two", "three")]
    rows = [
        ([3.0, 4.0, 1.0], [4, 4, 4], [4, 4, 4]),
        ([3.0, nan, 1.0], [4, 4, 4], [4, 0, 4]),
        ([nan, nan, 1.0], [0, 4, 4], [0, 0, 4]),
        ([nan, nan, 1.0], [0, 0, 4], [0, 0, 4]),
    ]
    history = counted(weights, rows)
    history.metadata["graph"] = {
        "nodes": [
            {"id": "one", "within": ["m"]}, {"id": "two", "within": ["m"]}, {"id": "three"}
        ],
        "edges": [["one", "two"], ["two", "three"]],
    }  # fmt: skip
    node = kgrad.flow_graph_from_history(history).nodes["m"]
    assert node["norms"] == (5.0, 3.0, None, None)
    assert node["reasons"] == ("", "", "no path to the loss", "not updated")

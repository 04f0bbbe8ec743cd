"""The flow graph of a Keras model: its edges and numbers against networks in NumPy."""

import json
import math

import keras
import numpy as np
import pytest
from keras import layers
from numpy.testing import assert_allclose

import kgrad
from kgrad.measure.keras_models.graph import describe_topology
from kgrad.records.flow_graph import NO_HISTORY, NO_PROBE, NO_WEIGHTS, NOT_SEEN
from kgrad.records.history import GradientHistory, Weight

SAMPLES = 12


class ByHand(keras.Model):
    """A model that tells nobody how its layers are joined."""

    def __init__(self, inner):
        super().__init__()
        self.first, self.inner, self.last = layers.Dense(3), inner, layers.Dense(1)

    def call(self, x):
        return self.last(self.inner(x) + self.first(x))


def linear(units, name):
    return layers.Dense(units, use_bias=False, name=name)


def branched():
    """Two inputs through one nested model, which is called twice, and a branch beside it."""
    encoder = keras.Sequential(
        [keras.Input((4,)), linear(3, "narrow"), linear(3, "square")], name="encoder"
    )
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    joined = layers.Concatenate(name="join")([encoder(a), encoder(b), linear(2, "beside")(a)])
    return keras.Model([a, b], [linear(1, "out")(joined), linear(1, "aside")(joined)])


def skipping(add):
    x = keras.Input((4,), name="x")
    hidden = linear(3, "hidden")(x)
    return keras.Model(x, linear(1, "out")(add(hidden, linear(3, "around")(hidden))))


def tracked(model, X, y, **options):
    model.compile("sgd", "mse")
    tracker = kgrad.GradientTracker(**{"probe": (X, y)} | options)
    model.fit(X, y, epochs=2, batch_size=SAMPLES, shuffle=False, callbacks=[tracker], verbose=0)
    return tracker.history


def data(random, inputs=1, outputs=1):
    X = [random.normal(size=(SAMPLES, 4)).astype("float32") for _ in range(inputs)]
    y = [random.normal(size=(SAMPLES, 1)).astype("float32") for _ in range(outputs)]
    return (X if inputs > 1 else X[0]), (y if outputs > 1 else y[0])


def double(model, *names):
    return [model.get_layer(name).kernel.numpy().astype(np.float64) for name in names]


def edges_of(model, **options):
    return list(kgrad.flow_graph(model, **options).edges)


# Topology


def test_a_sequential_model_is_a_chain():
    model = kgrad.create_model(2, "relu", "he", input_shape=(4,))
    assert edges_of(model) == [("input", "hidden_1"), ("hidden_1", "hidden_2"),
                               ("hidden_2", "output")]  # fmt: skip
    assert not kgrad.flow_graph(model).graph["assumed"]


def test_a_skip_leads_past_the_layers_that_it_skips():
    add = layers.Add(name="add")
    assert set(edges_of(skipping(lambda *both: add(both)))) == {
        ("x", "hidden"), ("hidden", "around"), ("hidden", "add"), ("around", "add"),
        ("add", "out"),
    }  # fmt: skip


def test_a_nested_model_is_one_node_or_its_layers():
    model = branched()
    outside = {("a", "beside"), ("beside", "join"), ("join", "out"), ("join", "aside")}
    assert set(edges_of(model)) == outside | {
        ("a", "encoder"), ("b", "encoder"), ("encoder", "join")
    }  # fmt: skip
    assert set(edges_of(model, nested="opened")) == outside | {
        ("a", "encoder/narrow"),
        ("b", "encoder/narrow"),
        ("encoder/narrow", "encoder/square"),
        ("encoder/square", "join"),
    }  # fmt: skip
    assert kgrad.flow_graph(model).nodes["encoder"]["layers"] == (
        "encoder/narrow",
        "encoder/square",
    )


def test_a_model_within_a_nested_model_is_folded_with_it():
    inner = keras.Sequential([keras.Input((4,)), linear(4, "deep")], name="inner")
    outer = keras.Sequential([keras.Input((4,)), inner, linear(4, "after")], name="outer")
    model = keras.Sequential([keras.Input((4,)), outer, linear(1, "out")])
    assert edges_of(model)[1:] == [("outer", "out")]
    assert edges_of(model, nested="opened")[1:] == [
        ("outer/inner/deep", "outer/after"), ("outer/after", "out")
    ]  # fmt: skip


def two_blocks():
    """A stem and two residual blocks, the first with a layer in its skip, as Keras names them."""
    x = keras.Input((4,), name="x")
    flow = linear(3, "stem")(x)
    for k, around in ((1, True), (2, False)):
        inner = linear(3, f"s1_block{k}_1_dense")(flow)
        inner = layers.Dense(3, "tanh", name=f"s1_block{k}_2_dense")(inner)
        skip = linear(3, f"s1_block{k}_0_dense")(flow) if around else flow
        flow = layers.Add(name=f"s1_block{k}_add")([skip, inner])
        flow = layers.Activation("tanh", name=f"s1_block{k}_out")(flow)
    return keras.Model(x, linear(1, "y")(flow))


def test_a_block_is_one_node_with_the_norm_of_all_its_weights(random):
    model, (X, y) = two_blocks(), data(random)
    history = tracked(model, X, y)
    graph = kgrad.flow_graph(model, history, nested="blocks")
    assert list(graph.edges) == [
        ("x", "stem"), ("stem", "s1_block1"), ("s1_block1", "s1_block2"), ("s1_block2", "y")
    ]  # fmt: skip
    opened = kgrad.flow_graph(model, history)
    for block in ("s1_block1", "s1_block2"):
        node = graph.nodes[block]
        inner = [name for name in opened if name.startswith(block)]
        assert node["kind"] == "Block"
        assert set(node["folded"]) == set(inner)
        of_layers = history.by_layer("l2_norm")[
            :, [history.layers.index(name) for name in inner if name in history.layers]
        ]
        assert of_layers.shape[1] == 2 + (block == "s1_block1")
        squares = np.sum(np.square(of_layers), axis=1)
        np.testing.assert_allclose(node["norms"], np.sqrt(squares), rtol=1e-6)
        np.testing.assert_allclose(node["gradient_norm"], np.sqrt(squares[-1]), rtol=1e-6)
        assert len(node["shapes"]) == 3 + (block == "s1_block1")  # kernels, and one bias
    signals = dict(zip(history.outputs, history.activations["signal_l2"].T, strict=True))
    for source, target, output in (
        ("stem", "s1_block1", "stem"), ("s1_block1", "s1_block2", "s1_block1_out"),
        ("s1_block2", "y", "s1_block2_out"),
    ):  # fmt: skip
        edge = graph.edges[source, target]
        assert edge["outputs"] == (output,)
        np.testing.assert_allclose(edge["norms"], signals[output], rtol=1e-6)


def test_a_block_can_be_opened(random):
    model, (X, y) = two_blocks(), data(random)
    history = tracked(model, X, y)
    opened = kgrad.flow_graph(model, history, epoch=1)
    graph = kgrad.flow_graph(model, history, epoch=1, nested="blocks")
    inside = graph.nodes["s1_block2"]["inside"]
    names = [f"s1_block2_{part}" for part in ("1_dense", "2_dense", "add", "out")]
    # With the layer that feeds it, but nothing that leads there.
    assert list(inside) == ["s1_block1_out", *names]
    assert set(inside.edges) == {
        ("s1_block1_out", names[0]), ("s1_block1_out", names[2]), (names[0], names[1]),
        (names[1], names[2]), (names[2], names[3]),
    }  # fmt: skip
    for name in inside:
        assert inside.nodes[name] == opened.nodes[name]
    for edge in inside.edges:
        assert inside.edges[edge] == opened.edges[edge]
    assert inside.graph == opened.graph | {"name": "s1_block2"}
    assert kgrad.plot_flow_graph(inside).axes


def test_a_nested_model_is_folded_before_blocks_and_can_be_opened():
    model = branched()
    graph = kgrad.flow_graph(model)
    assert list(graph.nodes["encoder"]["inside"]) == ["a", "b", "encoder/narrow", "encoder/square"]
    x = keras.Input((4,), name="x")
    inner = keras.Sequential([keras.Input((4,)), linear(4, "deep")], name="inner")
    out = layers.Add(name="add")([x, inner(linear(4, "before")(x))])
    graph = kgrad.flow_graph(keras.Model(x, linear(1, "out")(out)), nested="blocks")
    assert list(graph) == ["x", "before … add", "out"]
    block = graph.nodes["before … add"]
    assert block["folded"] == ("before", "inner", "add")
    assert block["layers"] == ("before", "inner/deep")
    assert list(block["inside"].nodes["inner"]["inside"]) == ["before", "inner/deep"]


def test_a_chain_that_is_assumed_has_no_blocks():
    class Numbered(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [linear(4, f"block1_{part}") for part in "ab"]

        def call(self, x):
            return self.parts[1](self.parts[0](x))

    model = Numbered()
    model(np.ones((2, 4)))
    assert list(kgrad.flow_graph(model, nested="blocks")) == ["block1_a", "block1_b"]


def test_a_layer_called_on_what_it_put_out_leads_to_itself():
    x, shared = keras.Input((4,), name="x"), linear(4, "shared")
    model = keras.Model(x, linear(1, "out")(shared(shared(x))))
    assert edges_of(model) == [("x", "shared"), ("shared", "shared"), ("shared", "out")]
    graph = kgrad.flow_graph(model)
    assert graph.edges["shared", "shared"]["outputs"] == ("shared",)
    assert graph.edges["shared", "out"]["outputs"] == ("shared (2)",)


def test_a_layer_that_uses_an_output_twice_has_one_edge():
    x = keras.Input((4,), name="x")
    hidden = linear(3, "hidden")(x)
    model = keras.Model(x, layers.Dense(1)(layers.Multiply(name="square")([hidden, hidden])))
    assert kgrad.flow_graph(model).edges["hidden", "square"]["outputs"] == ("hidden",)


def test_a_call_of_ones_own_is_a_chain_that_is_said_to_be_assumed():
    inner = keras.Sequential([keras.Input((4,)), linear(3, "narrow")], name="inner")
    model = ByHand(inner)
    model(np.ones((2, 4)))
    graph = kgrad.flow_graph(model, nested="opened")
    first, last = model.first.name, model.last.name
    assert graph.graph["assumed"]
    assert sorted(graph) == sorted([first, "inner/narrow", last])
    assert len(graph.edges) == 2


def test_a_functional_model_whose_call_is_replaced_is_not_believed():
    class Odd(keras.Model):
        def call(self, x):
            return x

    x = keras.Input((4,))
    model = Odd(x, linear(1, "out")(x))
    assert describe_topology(model)["assumed"]
    outer = keras.Sequential([keras.Input((4,)), model])
    assert [node["kind"] for node in describe_topology(outer)["nodes"]] == ["InputLayer", "Odd"]


def test_a_nested_model_with_several_inputs_outputs_and_names_for_them_is_opened():
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((4,), name="a")}
    parts = {"v": linear(2, "of_a")(inputs["a"]), "u": linear(2, "of_b")(inputs["b"])}
    inner = keras.Model(inputs, parts, name="inner")
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    out = inner({"a": one, "b": two})
    model = keras.Model([one, two], [linear(1, "from_a")(out["v"]), linear(1, "from_b")(out["u"])])
    assert set(edges_of(model, nested="opened")) == {
        ("one", "inner/of_a"),
        ("two", "inner/of_b"),
        ("inner/of_a", "from_a"),
        ("inner/of_b", "from_b"),
    }  # fmt: skip
    assert len(edges_of(model)) == 4


def test_a_nested_model_that_is_given_more_than_its_inputs_stays_one_node():
    x = keras.Input((3, 4), name="x")
    inner = keras.Sequential([keras.Input((3, 4)), linear(2, "inside")], name="inner")
    inner.supports_masking = True
    mask = layers.Masking(name="masking").compute_mask(x)
    model = keras.Model(x, linear(1, "out")(inner(x, mask=mask)))
    graph = kgrad.flow_graph(model, nested="opened")
    assert graph.nodes["inner"]["layers"] == ("inner/inside",)
    assert ("inner", "out") in graph.edges


def test_layers_that_hold_layers_are_one_node():
    inner = keras.Sequential([layers.Dense(3, name="inside")])
    x = keras.Input((5, 4), name="x")
    attended = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    both = layers.Bidirectional(layers.LSTM(3, name="lstm"), name="both")
    mapped = layers.TimeDistributed(inner, name="mapped")(attended)
    graph = kgrad.flow_graph(keras.Model(x, both(mapped)))
    assert list(graph.edges) == [("x", "attention"), ("attention", "mapped"), ("mapped", "both")]
    assert graph.nodes["mapped"]["layers"] == ("mapped/sequential/inside",)
    assert graph.nodes["attention"]["layers"][0] == "attention/query"
    assert len(graph.nodes["both"]["layers"]) == 2


def test_reading_the_topology_calls_no_layer_and_leaves_no_trace(monkeypatch):
    model = branched()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]

    def called(*_, **__):
        raise AssertionError("called")

    monkeypatch.setattr(layers.Dense, "call", called)
    described = describe_topology(model)
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    assert json.loads(json.dumps(described)) == described


# What stands on nodes and edges


def test_a_skips_source_has_the_sum_of_what_comes_back(random):
    """∂L/∂h = g vᵀ(I + Uᵀ) for y = (h + hU)v, on the edge to U as on the one past it."""
    add = layers.Add(name="add")
    model = skipping(lambda *both: add(both))
    X, y = data(random)
    W, U, v = double(model, "hidden", "around", "out")
    h = X @ W
    g = 2 * ((h + h @ U) @ v - y) / SAMPLES
    graph = kgrad.flow_graph(model, tracked(model, X, y), epoch=0)
    at_add = g @ v.T
    at_hidden = at_add + at_add @ U.T
    norms = {edge: graph.edges[edge]["gradient_norm"] for edge in graph.edges}
    assert_allclose(norms["add", "out"], np.linalg.norm(at_add), rtol=1e-5)
    assert_allclose(norms["around", "add"], np.linalg.norm(at_add), rtol=1e-5)
    assert_allclose(norms["hidden", "add"], np.linalg.norm(at_hidden), rtol=1e-5)
    assert_allclose(norms["hidden", "around"], np.linalg.norm(at_hidden), rtol=1e-5)
    assert graph.nodes["hidden"]["gradient_norm"] == pytest.approx(
        np.linalg.norm(X.T @ at_hidden), rel=1e-5
    )
    assert graph.nodes["add"]["gradient_norm"] is None
    assert graph.nodes["add"]["reason"] == NO_WEIGHTS
    assert norms["x", "hidden"] is None
    assert graph.edges["x", "hidden"]["reason"] == NOT_SEEN


def test_the_calls_of_a_shared_model_are_taken_as_one_vector(random):
    model = branched()
    X, y = data(random, 2, 2)
    N, S, B, out, aside = double(model.get_layer("encoder"), "narrow", "square") + double(
        model, "beside", "out", "aside"
    )
    a, b = X
    joined = np.hstack([a @ N @ S, b @ N @ S, a @ B])
    # Keras sums the losses of the outputs.
    signal = sum(
        2 * (joined @ v - target) / SAMPLES @ v.T for v, target in zip((out, aside), y, strict=True)
    )
    of_a, of_b = signal[:, :3], signal[:, 3:6]
    history = tracked(model, X, y)
    graph = kgrad.flow_graph(model, history, epoch=0)
    assert_allclose(
        graph.edges["encoder", "join"]["gradient_norm"],
        math.hypot(np.linalg.norm(of_a), np.linalg.norm(of_b)),
        rtol=1e-5,
    )
    at_square = np.vstack([of_a, of_b])
    at_narrow = at_square @ S.T
    opened = kgrad.flow_graph(model, history, epoch=0, nested="opened")
    assert_allclose(
        opened.edges["encoder/narrow", "encoder/square"]["gradient_norm"],
        np.linalg.norm(at_narrow),
        rtol=1e-5,
    )
    both = np.vstack([a, b])
    of_weights = [both.T @ at_narrow, (both @ N).T @ at_square]
    assert_allclose(
        graph.nodes["encoder"]["gradient_norm"],
        math.hypot(*map(np.linalg.norm, of_weights)),
        rtol=1e-5,
    )
    assert_allclose(
        graph.nodes["encoder"]["statistics"]["mean_abs"],
        np.abs(np.concatenate([one.ravel() for one in of_weights])).mean(),
        rtol=1e-5,
    )


def test_each_call_of_a_shared_layer_has_the_signal_of_its_own_edge(random):
    x, shared = keras.Input((4,), name="x"), linear(4, "shared")
    model = keras.Model(x, linear(1, "out")(shared(shared(x))))
    X, y = data(random)
    S, v = double(model, "shared", "out")
    second = 2 * (X @ S @ S @ v - y) / SAMPLES @ v.T
    graph = kgrad.flow_graph(model, tracked(model, X, y), epoch=0)
    norms = {edge: graph.edges[edge]["gradient_norm"] for edge in graph.edges}
    assert_allclose(norms["shared", "out"], np.linalg.norm(second), rtol=1e-5)
    assert_allclose(norms["shared", "shared"], np.linalg.norm(second @ S.T), rtol=1e-5)


def test_what_a_probe_does_not_see_is_not_measured_and_says_so(random):
    X, y = data(random)
    model = skipping(lambda one, other: one + other)
    graph = kgrad.flow_graph(model, tracked(model, X, y))
    (plus,) = set(graph) - {"x", "hidden", "around", "out"}
    assert graph.edges[plus, "out"]["reason"] == NOT_SEEN
    assert graph.edges["around", plus]["gradient_norm"] > 0

    tokens = keras.Input((3, 4), name="x")
    sequence, state, _ = layers.LSTM(3, return_sequences=True, return_state=True, name="lstm")(
        tokens
    )
    flat = layers.Flatten(name="flat")(sequence)
    joined = layers.Concatenate(name="join")([flat, state])
    model = keras.Model(tokens, linear(1, "out")(joined))
    X = random.normal(size=(SAMPLES, 3, 4)).astype("float32")
    graph = kgrad.flow_graph(model, tracked(model, X, y))
    assert graph.edges["lstm", "flat"]["gradient_norm"] > 0
    assert graph.edges["lstm", "join"]["gradient_norm"] is None  # its second output
    assert graph.nodes["lstm"]["gradient_norm"] > 0


def test_without_a_probe_or_a_history_the_edges_say_so(random):
    X, y = data(random)
    model = kgrad.create_model(1, "relu", "he", input_shape=(4,), output_activation=None)
    graph = kgrad.flow_graph(model)
    for part in (*graph.nodes.values(), *graph.edges.values()):
        assert part["gradient_norm"] is None
        assert part["reason"] == NO_HISTORY
    history = kgrad.measure_gradients(model, X, y, loss="mse")
    graph = kgrad.flow_graph(model, history)
    assert {edge["reason"] for edge in graph.edges.values()} == {NO_PROBE}
    assert graph.nodes["output"]["gradient_norm"] == history.by_layer("l2_norm")[-1, -1]


def test_a_loaded_run_is_drawn_without_its_model(random, tmp_path):
    model = branched()
    X, y = data(random, 2, 2)
    history = tracked(model, X, y, journal=tmp_path / "run.jsonl")
    loaded = GradientHistory.load(tmp_path / "run.jsonl")
    for nested in ("folded", "opened"):
        ours = kgrad.flow_graph(model, history, nested=nested)
        theirs = kgrad.flow_graph_from_history(loaded, nested=nested)
        assert kgrad.graph_to_json(theirs, every_record=True) == kgrad.graph_to_json(
            ours, every_record=True
        )
        assert not theirs.graph["assumed"]


def test_the_loop_records_the_topology_too(random):
    X, y = data(random)
    model = kgrad.create_model(2, "relu", "he", input_shape=(4,), output_activation=None)
    history = kgrad.train_and_track_gradients(model, X, y, 1, loss="mse")
    assert list(kgrad.flow_graph_from_history(history).edges) == edges_of(model)


def test_watching_a_part_of_the_weights_leaves_the_others_without_a_number(random):
    X, y = data(random)
    model = branched()
    X, y = data(random, 2, 2)
    graph = kgrad.flow_graph(model, tracked(model, X, y, weights=["out", "square"]))
    assert graph.nodes["beside"]["reason"] == NO_WEIGHTS
    assert graph.nodes["out"]["gradient_norm"] > 0


def test_bad_arguments_are_refused_in_one_sentence(random):
    model = kgrad.create_model(1, "relu", "he", input_shape=(4,))
    history = GradientHistory([Weight("one", "kernel", "one/kernel", (2,))], ["l2_norm"])
    history.append(0, 0, {"l2_norm": [1]})
    for call, error, sentence in (
        (lambda: kgrad.flow_graph(3), TypeError, "received int"),
        (lambda: kgrad.flow_graph(keras.Sequential([layers.Dense(1)])), ValueError, "built"),
        (lambda: kgrad.flow_graph(model, history), ValueError, "received one with layer 'one'"),
        (lambda: kgrad.flow_graph(model, [1]), TypeError, "history must be a GradientHistory"),
        (lambda: kgrad.flow_graph(model, epoch=1), ValueError, "epoch needs a history"),
    ):
        with pytest.raises(error) as caught:
            call()
        assert sentence in str(caught.value)

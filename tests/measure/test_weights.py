"""Names of layers and weights say where they stand in the model, and select them."""

import keras
import numpy as np
import pytest
from keras import layers

import kgrad
from kgrad.measure.keras_models.facts import read_facts
from kgrad.measure.keras_models.weights import (
    all_built,
    describe_weights,
    name_layers,
    select_weights,
    short_layer_names,
)

X = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")


def block(name, width=4):
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(width, "relu", name="ffn")(inputs), name=name)


def blocks():
    """Three blocks that are models, the last one with a model inside, and a head."""
    inputs = keras.Input((4,))
    deep = keras.Sequential([keras.Input((4,)), block("inner"), layers.Dense(4, name="out")])
    deep.name = "block_2"
    x = deep(block("block_1")(block("block_0")(inputs)))
    return keras.Model(inputs, layers.Dense(1, name="head")(x), name="net")


class Gate(layers.Layer):
    """A layer with a weight of its own and a layer inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = layers.Dense(4, name="dense")

    def build(self, shape):
        self.scale = self.add_weight(shape=(4,), name="scale")
        self.dense.build(shape)

    def call(self, x):
        return self.dense(x) * self.scale


class Subclassed(keras.Model):
    def __init__(self, **options):
        super().__init__(**options)
        self.gate, self.head = Gate(name="gate"), layers.Dense(1, name="head")

    def call(self, x):
        return self.head(self.gate(x))


def chosen(model, selection):
    described = describe_weights(model)
    short = short_layer_names(model)
    weights = list(described.values())
    at = select_weights(weights, selection, [short[key] for key in described])
    return [f"{weights[i].layer}/{weights[i].name}" for i in at]


def test_a_layer_has_the_names_of_the_models_around_it_as_a_prefix():
    model = blocks()
    assert list(dict.fromkeys(w.layer for w in describe_weights(model).values())) == [
        "block_0/ffn",
        "block_1/ffn",
        "block_2/inner/ffn",
        "block_2/out",
        "head",
    ]
    names = name_layers(model)
    assert len(set(names.values())) == len(names)
    assert names[id(model)] == "net"


def test_two_models_of_one_name_are_numbered_with_what_is_inside():
    inputs = keras.Input((4,))
    twins = [keras.Sequential([layers.Dense(4, name="a")], name="twin") for _ in range(2)]
    outer = [keras.Sequential([twin], name=name) for twin, name in zip(twins, "xx", strict=True)]

    class Both(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = outer

        def call(self, x):
            return self.parts[1](self.parts[0](x))

    model = Both()
    model(X)
    assert model(inputs).shape == (None, 4)
    assert {w.layer for w in describe_weights(model).values()} == {"x/twin/a", "x (2)/twin/a"}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("block_1*", ["block_1/ffn/kernel", "block_1/ffn/bias"]),
        ("block_1", ["block_1/ffn/kernel", "block_1/ffn/bias"]),
        ("block_1/ffn", ["block_1/ffn/kernel", "block_1/ffn/bias"]),
        ("block_1/ffn/bias", ["block_1/ffn/bias"]),
        (
            "block_2",
            [f"block_2/{n}" for n in ("inner/ffn/kernel", "inner/ffn/bias")]
            + ["block_2/out/kernel", "block_2/out/bias"],
        ),
        ("block_2/inner", ["block_2/inner/ffn/kernel", "block_2/inner/ffn/bias"]),
        # The names without those of the models select as they did when layers were named by them.
        ("out", ["block_2/out/kernel", "block_2/out/bias"]),
        ("o*", ["block_2/out/kernel", "block_2/out/bias"]),
        (["head", "out"], ["block_2/out/kernel", "block_2/out/bias", "head/kernel", "head/bias"]),
        (
            "f*n",
            [
                f"{b}/ffn/{n}"
                for b in ("block_0", "block_1", "block_2/inner")
                for n in ("kernel", "bias")
            ],
        ),
        ("*/ffn/bias", ["block_0/ffn/bias", "block_1/ffn/bias", "block_2/inner/ffn/bias"]),
    ],
)
def test_models_and_layers_inside_them_are_selected_by_name(selection, expected):
    assert chosen(blocks(), selection) == expected


def test_a_name_of_several_layers_is_refused_and_a_whole_name_is_not():
    with pytest.raises(
        ValueError,
        match=r"'ffn', the name of block_0/ffn, block_1/ffn, block_2/inner/ffn: write one of these",
    ):
        chosen(blocks(), "ffn")
    model = keras.Sequential([keras.Input((4,)), block("part"), layers.Dense(1, name="ffn")])
    assert chosen(model, "ffn") == ["ffn/kernel", "ffn/bias"]
    assert len(chosen(model, "ff*")) == 4  # a pattern selects all that it matches
    with pytest.raises(ValueError, match="of the layers part/ffn, ffn, received 'fnf'; did you"):
        chosen(model, "fnf")


def test_a_layer_selects_itself_before_what_is_inside():
    model = Subclassed()
    model(X)
    assert chosen(model, "gate") == ["gate/scale"]
    assert chosen(model, "gate/dense") == ["gate/dense/kernel", "gate/dense/bias"]
    with pytest.raises(ValueError, match="must match a weight"):
        chosen(model, "dense")  # the layer around is no model: its name is part of the layer's


def test_the_history_the_graph_the_probe_and_the_diagnosis_use_the_same_names():
    model = blocks()
    for layer in (model.get_layer("block_1"), model.get_layer("block_2")):
        kernel = next(v for v in layer.variables if v.name == "kernel")
        kernel.assign(np.zeros(kernel.shape))
    model.compile("sgd", "mse")
    tracker = kgrad.GradientTracker(probe=(X, X[:, :1]))
    model.fit(X, X[:, :1], verbose=0, callbacks=[tracker])
    history = tracker.history
    assert set(history.layers) <= set(history.outputs)
    opened = kgrad.flow_graph(model, history, nested="opened")
    assert set(history.layers) <= set(opened.nodes)
    assert opened.edges["block_2/out", "head"]["gradient_norm"] > 0
    folded = kgrad.flow_graph(model, history)
    assert {"block_0", "block_1", "block_2", "head"} <= set(folded.nodes)
    facts = read_facts(model)
    assert set(facts.equal_units) == {"block_1/ffn", "block_2/inner/ffn"}
    assert facts.head.layer == "head"
    whole = keras.Sequential([keras.Input((4,)), model])
    assert read_facts(whole).head.layer == "net/head"


def test_what_is_built():
    model = Subclassed()
    assert not all_built(model)
    with pytest.warns(UserWarning, match="looks like it has unbuilt state"):
        model.build((None, 4))
    assert model.built
    assert not all_built(model)  # Keras says that it is
    model(X)
    assert all_built(model)

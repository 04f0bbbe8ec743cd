"""Clones with one change, against models built by hand with that change."""

import random as python_random
from contextlib import suppress

import keras
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from kgrad.experiments.models import create_model
from kgrad.experiments.remedies.changes import changed_clone, random_state_kept, seed_all
from kgrad.experiments.remedies.plans import CHANGES
from kgrad.experiments.remedies.skill import read_task
from kgrad.measure.keras_models.graph import LayerGraph
from kgrad.measure.keras_models.layers import activation_name, initializer_fits

BY_NAME = {change.name: change for change in CHANGES}
layers = keras.layers


def clone(model, name=None, X=None, seed=0):
    return changed_clone(model, X, BY_NAME[name] if name else None, seed)


def refusal(model, name):
    with pytest.raises(ValueError) as raised:
        clone(model, name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def assert_same_weights(one, other):
    assert [v.shape for v in one.weights] == [v.shape for v in other.weights]
    for a, b in zip(one.weights, other.weights, strict=True):
        assert_array_equal(a.numpy(), b.numpy())


def deep(activation="sigmoid", initializer="normal", **options):
    return create_model(5, activation, initializer, units=8, input_shape=(6,), seed=3, **options)


def cnn():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(8, activation="tanh", name="dense"),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )


def lstm():
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Embedding(10, 4, name="table"),
            layers.LSTM(5, name="lstm"),
            layers.Dense(1, activation="sigmoid", name="head"),
        ]
    )


# --- the unchanged clone


def test_an_unchanged_clone_begins_as_a_model_that_is_built_after_set_random_seed():
    for build in (cnn, lstm):
        keras.utils.set_random_seed(7)
        by_hand = build()
        keras.utils.set_random_seed(99)
        assert_same_weights(clone(build(), seed=7)[0], by_hand)


def test_another_seed_draws_other_weights():
    model = cnn()
    one, two = (clone(model, seed=seed)[0].get_weights()[0] for seed in (0, 1))
    assert not np.array_equal(one, two)


def test_a_clone_is_compiled_as_the_model_with_an_optimizer_of_its_own():
    model = cnn()
    model.compile(keras.optimizers.Adam(0.003, beta_1=0.7), "sparse_categorical_crossentropy")
    copy, words = clone(model)
    assert words == ""
    assert copy.optimizer is not model.optimizer
    assert copy.optimizer.get_config() == model.optimizer.get_config()
    assert copy.loss == "sparse_categorical_crossentropy"


# --- changes, against models built by hand


@pytest.mark.parametrize(
    ("start", "name", "wanted"),
    [
        (("relu", "normal"), "initializer that fits", ("relu", "he")),
        (("tanh", "normal"), "initializer that fits", ("tanh", "xavier")),
        (("selu", "he"), "initializer that fits", ("selu", "lecun")),
        (("sigmoid", "normal"), "activation relu", ("relu", "normal")),
        (("relu", "he"), "activation gelu", ("gelu", "he")),
        (("sigmoid", "normal"), "activation relu, initializer he", ("relu", "he")),
    ],
)
def test_initializer_and_activation_are_those_of_a_model_built_with_them(start, name, wanted):
    copy, _ = clone(deep(*start), name)
    by_hand = deep(*wanted)
    for k in range(1, 6):
        ours, theirs = (model.get_layer(f"hidden_{k}") for model in (copy, by_hand))
        assert ours.get_config() == theirs.get_config()
        # With seeds in the initializers the very numbers are the same.
        assert_array_equal(ours.kernel.numpy(), theirs.kernel.numpy())
    output, before = copy.get_layer("output"), deep(*start).get_layer("output")
    assert output.get_config() == before.get_config()
    assert_array_equal(output.kernel.numpy(), before.kernel.numpy())


@pytest.mark.parametrize("kind", ["batch", "layer"])
def test_normalization_computes_what_a_model_built_with_it_computes(kind, random):
    X = random.normal(size=(16, 6)).astype("float32")
    copy, _ = clone(deep("tanh", "xavier"), f"normalization {kind}")
    by_hand = deep("tanh", "xavier", normalization=kind)
    assert_same_weights(copy, by_hand)
    for training in (False, True):
        ours, theirs = (model(X, training=training).numpy() for model in (copy, by_hand))
        assert_allclose(ours, theirs, rtol=1e-6)
    assert not np.allclose(copy(X, training=True), deep("tanh", "xavier")(X), atol=1e-3)


def test_normalization_stands_before_activation_layers_and_convolutions(random):
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(3, 3, activation=layers.LeakyReLU(negative_slope=0.1), name="conv"),
            layers.Flatten(),
            layers.Dense(4, name="dense"),
            layers.ReLU(name="relu"),
            layers.Dense(1, activation="sigmoid", name="head"),
        ]
    )
    copy, words = clone(model, "normalization batch")
    assert words == "batch normalization before the activation of conv, relu"
    x = random.normal(size=(4, 5, 5, 2)).astype("float32")

    def normalized(h):
        axes = tuple(range(h.ndim - 1))
        return (h - h.mean(axes)) / np.sqrt(h.var(axes) + 1e-3)

    conv, dense, head = (copy.get_layer(name) for name in ("conv", "dense", "head"))
    h = normalized(keras.ops.conv(x, conv.kernel).numpy())
    h = np.where(h > 0, h, 0.1 * h).reshape(4, -1)
    h = np.maximum(normalized(h @ dense.kernel.numpy()), 0)
    wanted = 1 / (1 + np.exp(-(h @ head.kernel.numpy())))
    assert_allclose(copy(x, training=True).numpy(), wanted, rtol=1e-4)


def test_skip_connections_compute_what_a_model_built_with_them_computes(random):
    X = random.normal(size=(16, 6)).astype("float32")
    copy, words = clone(deep("tanh", "xavier"), "skip connections")
    by_hand = deep("tanh", "xavier", skip_connections=True)
    assert words == "around 2 pairs of layers, hidden_1 … hidden_4"
    assert sorted(layer.name for layer in copy.layers) == sorted(
        layer.name for layer in by_hand.layers
    )
    projection = copy.get_layer("projection_1").kernel
    assert not np.array_equal(projection, copy.get_layer("hidden_1").kernel)
    by_hand.get_layer("projection_1").set_weights([projection.numpy()])
    assert_same_weights(copy, by_hand)
    assert_allclose(copy(X).numpy(), by_hand(X).numpy(), rtol=1e-6)


@pytest.mark.parametrize("seed", [None, 1])
def test_the_matrix_of_a_skip_connection_is_drawn_anew_and_from_the_seed(seed):
    """A kernel of the same shape with the same initializer has other values."""

    def build():
        drawn = keras.initializers.HeNormal(seed)
        second = layers.Dense(6, "relu", kernel_initializer=drawn, name="second")
        return keras.Sequential([keras.Input((4,)), layers.Dense(4), second, layers.Dense(1)])

    model = build()
    copies = [clone(one, "skip connections")[0] for one in (model, build())]
    projections = [copy.get_layer("projection_1").kernel.numpy() for copy in copies]
    assert_array_equal(*projections)
    for one in (model, *copies):
        assert not np.array_equal(projections[0], one.get_layer("second").kernel.numpy())


def test_what_a_change_leaves_begins_with_the_same_weights_and_random_states():
    """Also if the change draws more numbers than before: here a kernel was zeros."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(6, "relu", kernel_initializer="zeros", name="zeros"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(6, "relu", kernel_initializer="he_normal", name="after"),
            layers.Dense(1, name="head"),
        ]
    )
    base, copy = clone(model)[0], clone(model, "initializer that fits")[0]
    assert np.ptp(copy.get_layer("zeros").kernel) > 0
    for name in ("drop", "after", "head"):
        pairs = zip(base.get_layer(name).variables, copy.get_layer(name).variables, strict=True)
        for a, b in pairs:
            assert_array_equal(a.numpy(), b.numpy())


def test_clipping_and_learning_rate_change_the_optimizer_and_no_weight():
    model = cnn()
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), "sparse_categorical_crossentropy")
    base = clone(model)[0]
    for name, entry, words in (
        ("clipping, norm 1", {"global_clipnorm": 1.0}, "global_clipnorm=1"),
        ("learning rate ×0.1", {"learning_rate": 0.02}, "learning rate 0.2 → 0.02"),
        ("learning rate ×10", {"learning_rate": 2.0}, "learning rate 0.2 → 2"),
    ):
        copy, said = clone(model, name)
        assert said == words
        config, before = copy.optimizer.get_config(), model.optimizer.get_config()
        rate = entry.get("learning_rate", 0.2)
        assert config.pop("learning_rate") == pytest.approx(rate, rel=1e-6)
        assert config == {k: v for k, v in (before | entry).items() if k != "learning_rate"}
        assert_same_weights(copy, base)


def test_clipping_is_taken_away():
    model = cnn()
    model.compile(keras.optimizers.SGD(0.2, clipvalue=0.5), "mse")
    copy, said = clone(model, "no clipping")
    assert said == "no clipvalue=0.5"
    before, after = model.optimizer.get_config(), copy.optimizer.get_config()
    assert after["clipvalue"] is after["global_clipnorm"] is after["clipnorm"] is None
    assert before["clipvalue"] == 0.5


def test_a_loss_scaling_optimizer_clips_inside():
    model = cnn()
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.2)), "mse")
    copy, _ = clone(model, "clipping, norm 1")
    assert isinstance(copy.optimizer, keras.optimizers.LossScaleOptimizer)
    assert copy.optimizer.inner_optimizer.global_clipnorm == 1.0


def test_wrapped_and_nested_layers_change_in_their_place():
    inner = keras.Sequential(
        [
            keras.Input((4, 3)),
            layers.TimeDistributed(layers.Dense(5, "tanh"), name="wrapped"),
            layers.Bidirectional(layers.SimpleRNN(2, "relu"), name="both"),
        ],
        name="inner",
    )
    model = keras.Sequential([keras.Input((4, 3)), inner, layers.Dense(1, "tanh", name="head")])
    copy = clone(model, "activation gelu")[0]
    nested = copy.get_layer("inner")
    assert nested.get_layer("wrapped").layer.activation is keras.activations.gelu
    assert nested.get_layer("both").forward_layer.activation is keras.activations.relu
    assert copy.get_layer("head").activation is keras.activations.tanh
    both = clone(model, "initializer that fits")[0].get_layer("inner").get_layer("both")
    for one in (both.forward_layer, both.backward_layer):
        assert isinstance(one.kernel_initializer, keras.initializers.HeNormal)


def test_functions_that_keras_does_not_know_are_kept(random):
    def cubed(x):
        return x**3

    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, cubed, name="own"), layers.Dense(1, name="head")]
    )
    x = random.normal(size=(2, 3)).astype("float32")
    copy = clone(model)[0]
    h = (x @ copy.get_layer("own").kernel.numpy()) ** 3
    assert_allclose(copy(x), h @ copy.get_layer("head").kernel.numpy(), rtol=1e-5)


def test_shared_layers_stay_shared(random):
    inputs = keras.Input((3,))
    twice = layers.Dense(3, "tanh", name="twice")
    model = keras.Model(inputs, layers.Dense(1)(twice(twice(inputs)) + inputs))
    copy = clone(model, "activation relu")[0]
    assert len(copy.weights) == len(model.weights) == 4
    assert refusal(model, "normalization batch") == "layer twice is shared: it is called 2 times"


# --- refusals


@pytest.mark.parametrize(
    ("build", "name", "sentence"),
    [
        (cnn, "skip connections", "skip connections need Dense layers, but layer conv is of "
         "class Conv2D"),
        (lstm, "initializer that fits", "the hidden layers' initializers already fit their "
         "activations"),
        (lstm, "activation relu", "only lstm has a hidden activation, which is applied within "
         "each time step"),
        (lstm, "normalization batch", "only lstm has a hidden activation, which is applied "
         "within each time step"),
        (lstm, "skip connections", "skip connections need Dense layers, but layer table is of "
         "class Embedding"),
        (lambda: deep("relu"), "activation relu", "the activation is already relu in hidden_1 … "
         "hidden_5, 5 layers"),
        (lambda: deep(normalization="batch"), "normalization layer", "layer norm_1 already "
         "normalizes"),
        (lambda: deep(skip_connections=True), "skip connections", "layer input feeds 2 layers: "
         "skip connections need a chain of Dense layers"),
        (lambda: create_model(1, "relu", "he"), "skip connections", "a skip connection spans two "
         "hidden Dense layers, but there is only one"),
        (lambda: deep("linear"), "normalization batch", "no hidden layer has an activation"),
        (lstm, "dropout 0.2", "no dropout layer has a rate above 0.2"),
        (cnn, "penalties ×0.01", "no layer has a penalty on its weights or outputs"),
    ],
)  # fmt: skip
def test_what_cannot_be_changed_is_said_in_one_sentence(build, name, sentence):
    assert refusal(build(), name) == sentence


def test_dropout_is_lowered_and_taken_from_the_outputs():
    inputs = keras.Input((4,))
    x = layers.Dropout(0.9, name="much")(layers.Dense(8, "relu", name="a")(inputs))
    x = layers.Dropout(0.1, name="little")(layers.Dense(8, "relu", name="b")(x))
    outputs = layers.Dropout(0.1, name="last")(layers.Dense(2, name="c")(x))
    copy, words = clone(keras.Model(inputs, outputs), "dropout 0.2")
    rates = {name: copy.get_layer(name).rate for name in ("much", "little", "last")}
    assert rates == {"much": 0.2, "little": 0.1, "last": 0.0}
    assert words == "much 0.9 → 0.2, last 0.1 → 0"
    copy, _ = clone(keras.Model(inputs, outputs), "no dropout")
    assert [copy.get_layer(name).rate for name in ("much", "little", "last")] == [0, 0, 0]


def test_penalties_are_a_hundredth():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, "relu", kernel_regularizer=keras.regularizers.L1L2(0.1, 0.3)),
            layers.Dense(1, activity_regularizer=keras.regularizers.L2(2.0)),
        ]
    )
    first, last = clone(model, "penalties ×0.01")[0].layers[-2:]
    assert first.kernel_regularizer.get_config() == pytest.approx({"l1": 0.001, "l2": 0.003})
    assert float(last.activity_regularizer.l2) == pytest.approx(0.02)


def test_a_linear_network_gets_activations_and_a_linear_part_is_left():
    linear, words = clone(deep("linear"), "activation relu")
    assert [activation_name(linear.get_layer(f"hidden_{k}")) for k in range(1, 6)] == ["relu"] * 5
    assert words == "relu in hidden_1 … hidden_5, 5 layers"
    inputs = keras.Input((4,))
    x = layers.Dense(8, "tanh", name="a")(inputs)
    x = layers.Dense(2, name="bottleneck")(x)
    model = keras.Model(inputs, layers.Dense(1, name="c")(layers.Dense(8, "tanh", name="b")(x)))
    assert clone(model, "activation relu")[1] == "relu in a, b"


# targets, loss and output as they are; units, activation and loss that fit
FITTING = {
    "labels 1 and 2": ([1, 2], "binary_crossentropy", (1, "sigmoid"),
                       (1, "sigmoid", "binary_crossentropy")),
    "three classes": ([0, 1, 2], "binary_crossentropy", (1, "sigmoid"),
                      (3, "softmax", "sparse_categorical_crossentropy")),
    "one-hot rows": (np.eye(3), "mse", (3, "sigmoid"), (3, "softmax", "categorical_crossentropy")),
    "labels": ([[0, 1, 1], [1, 1, 0], [0, 0, 0]], "mse", (3, "softmax"),
               (3, "sigmoid", "binary_crossentropy")),
    "numbers": (np.linspace(-4, 2, 30), "binary_crossentropy", (1, "sigmoid"),
                (1, "linear", "mean_squared_error")),
}  # fmt: skip


@pytest.mark.parametrize("kind", FITTING)
@pytest.mark.parametrize("apart", [False, True])
def test_the_output_that_fits_the_targets(kind, apart):
    values, loss, (units, activation), (new_units, new_activation, new_loss) = FITTING[kind]
    y = np.array(list(values) * 20, float)
    inputs = keras.Input((4,))
    out = layers.Dense(units, None if apart else activation, name="out")(inputs)
    out = layers.Activation(activation, name="act")(out) if apart else out
    model = keras.Model(inputs, out)
    model.compile("sgd", loss)
    tasks = [read_task(y, loss, activation)]
    copy, words = changed_clone(model, None, BY_NAME["output and loss that fit"], tasks=tasks)
    assert copy.output_shape == (None, new_units) and copy.loss == new_loss
    last = copy.layers[-1]
    assert {activation_name(copy.get_layer("out")), activation_name(last)} <= {
        new_activation, "linear",
    }  # fmt: skip
    assert new_activation in (activation_name(copy.get_layer("out")), activation_name(last))
    assert words == f"out: {new_units} {new_activation} outputs, {new_loss}"


def test_an_output_that_fits_is_left():
    model = deep()
    model.compile("sgd", "binary_crossentropy")
    tasks = [read_task(np.array([0.0, 1] * 20), "binary_crossentropy", "sigmoid")]
    with pytest.raises(ValueError, match=r"^1 sigmoid outputs with binary_crossentropy fit"):
        changed_clone(model, None, BY_NAME["output and loss that fit"], tasks=tasks)


def test_what_the_optimizer_cannot_change_is_said_in_one_sentence():
    model = cnn()
    model.compile(keras.optimizers.SGD(0.1, clipnorm=0.5), "mse")
    assert refusal(model, "clipping, norm 1") == "the optimizer already clips: clipnorm=0.5"
    assert refusal(cnn(), "no clipping") == "the optimizer does not clip"
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 9)), "mse")
    assert refusal(model, "learning rate ×10") == "the learning rate follows a schedule"
    model.compile(keras.optimizers.Adam(0.0015), "mse")
    schedule = keras.optimizers.schedules.ExponentialDecay(0.3, 10, 0.1)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    copy, words = clone(model, "constant learning rate")
    assert float(copy.optimizer.learning_rate) == pytest.approx(0.3)
    assert words == "ExponentialDecay → constant 0.3"
    model.compile(keras.optimizers.Adam(0.0015), "mse")
    assert refusal(model, "constant learning rate") == "the learning rate is constant: 0.0015"
    near = "the learning rate 0.0015 is near the default, 0.001"
    assert refusal(model, "default learning rate") == near
    assert (
        refusal(model, "learning rate made positive") == "the learning rate 0.0015 is not negative"
    )
    assert refusal(model, "optimizer Adam") == "the optimizer is Adam already"


def test_the_default_learning_rate_the_other_sign_and_adam():
    model = cnn()
    model.compile(keras.optimizers.RMSprop(-0.5), "mse")
    rates = {
        name: float(clone(model, name)[0].optimizer.learning_rate)
        for name in ("default learning rate", "learning rate made positive", "optimizer Adam")
    }
    usual = float(keras.optimizers.RMSprop().learning_rate)
    assert rates == pytest.approx(
        {
            "default learning rate": usual,
            "learning rate made positive": 0.5,
            "optimizer Adam": 0.001,
        }
    )
    assert type(clone(model, "optimizer Adam")[0].optimizer) is keras.optimizers.Adam


class Subclassed(keras.Model):
    def __init__(self, units=3, **options):
        super().__init__(**options)
        self.first = layers.Dense(units, "tanh")

    def call(self, x):
        return self.first(x)


class WithoutConfig(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x):
        return self.layer(x)


def test_a_subclassed_model_gets_another_optimizer_and_no_other_layers(random):
    X = random.normal(size=(8, 2)).astype("float32")
    model = Subclassed(name="mine")
    model(X)
    copy, words = clone(model, "learning rate ×0.1", X)
    assert (type(copy), words) == (Subclassed, "learning rate 0.01 → 0.001")
    assert [v.shape for v in copy.weights] == [v.shape for v in model.weights]
    assert refusal(model, "activation relu") == (
        "model 'mine' is subclassed: its own code makes and calls its layers"
    )


def test_a_model_without_a_config_cannot_be_rebuilt(random):
    X = random.normal(size=(8, 2)).astype("float32")
    model = WithoutConfig(layers.Dense(2))
    model(X)
    with pytest.raises(ValueError, match=r"^model 'without_config' cannot be rebuilt from its "):
        clone(model, None, X)


# --- nothing is left behind


@pytest.mark.parametrize("name", [None, *BY_NAME])
def test_the_model_and_the_random_state_are_left_as_they_were(name):
    model = deep("tanh")
    bound = 1.0 if name == "no clipping" else None
    model.compile(keras.optimizers.Adam(clipnorm=bound), "binary_crossentropy")
    config, optimizer = model.get_config(), model.optimizer
    weights = model.get_weights()
    python, numpy = python_random.getstate(), np.random.get_state()  # noqa: NPY002
    with suppress(ValueError):  # of changes that this model has no use for
        clone(model, name, seed=5)
    assert python_random.getstate() == python
    assert_array_equal(np.random.get_state()[1], numpy[1])  # noqa: NPY002
    assert model.get_config() == config
    assert model.optimizer is optimizer and not optimizer.built
    assert all(map(np.array_equal, model.get_weights(), weights))


def test_random_state_is_put_back_after_an_error():
    before = python_random.getstate()
    with pytest.raises(ZeroDivisionError), random_state_kept():
        seed_all(1)
        raise ZeroDivisionError
    assert python_random.getstate() == before


# --- what layers are


def test_the_activation_after_a_layer_may_be_a_layer_further_on():
    model = deep("tanh", normalization="batch", skip_connections=True)
    graph = LayerGraph(model)
    assert graph.activation_after(model.get_layer("hidden_2")) == "tanh"
    # Its output is added to the skip connection, and no activation follows before a kernel.
    assert graph.activation_after(model.get_layer("projection_1")) == "linear"
    hidden = {one.name for one in graph.hidden()}
    assert "activation_5" in hidden and "output" not in hidden


def test_names_of_activations():
    assert activation_name(layers.LeakyReLU()) == "leaky_relu"
    assert activation_name(layers.Dense(1, activation=layers.ELU())) == "elu"
    assert activation_name(layers.Activation("gelu")) == "gelu"
    assert activation_name(layers.LSTM(2)) == "tanh"
    assert activation_name(layers.Flatten()) == "linear"


def test_an_initializer_fits_by_its_variance():
    kinds = keras.initializers
    assert initializer_fits(kinds.HeUniform(), "relu")
    assert initializer_fits(kinds.VarianceScaling(2.0, "fan_in"), "gelu")
    assert initializer_fits(kinds.GlorotUniform(), "tanh")
    assert not initializer_fits(kinds.HeNormal(), "tanh")
    assert not initializer_fits(kinds.RandomNormal(), "relu")

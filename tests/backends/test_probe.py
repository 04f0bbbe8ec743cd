"""The probe against layers written out in float64 NumPy, and the model it must not change."""

import importlib
import pickle

import keras
import numpy as np
import oracle
import pytest
from keras import layers, ops

from kgrad.measure.probe import PROBE_STATISTICS, Probe

MSE = "mean_squared_error"
BACKEND = keras.backend.backend()
if BACKEND == "tensorflow":
    import tensorflow as tf

    compiled = tf.function
elif BACKEND == "jax":
    import jax

    compiled = jax.jit
elif BACKEND == "torch":
    import torch


def statistics(outputs, signals):
    """Of float64 outputs and signals, as the definitions have them; saturation is elsewhere."""
    zero = [a == 0 for a in outputs]
    return {
        "activation_mean": [np.mean(a) for a in outputs],
        "activation_std": [np.std(a) for a in outputs],
        "activation_zero_fraction": [np.mean(z) for z in zero],
        "activation_dead": [np.mean(z.reshape(-1, z.shape[-1]).all(axis=0)) for z in zero],
        "signal_mean_abs": [np.mean(abs(s)) for s in signals],
        "signal_l2": [np.sqrt(np.sum(s**2)) for s in signals],
    }


def assert_measures(probe, outputs, signals, rtol=1e-5, atol=1e-7):
    measured = probe.measure()
    assert tuple(measured) == PROBE_STATISTICS
    for name, expected in statistics(outputs, signals).items():
        assert measured[name].dtype == np.float64
        np.testing.assert_allclose(measured[name], expected, rtol, atol, err_msg=name)


def numeric_gradient(f, *arrays, step=1e-5):
    """∂f/∂array for each array, by central differences of a function that is float64 throughout."""
    gradients = []
    for array in arrays:
        gradient = np.zeros(array.shape)
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + step
            above = f()
            array[place] = kept - step
            gradient[place] = (above - f()) / (2 * step)
            array[place] = kept
        gradients.append(gradient)
    return gradients


def dense(layer, x):
    """A linear dense layer in float64."""
    kernel, *bias = (np.asarray(w, np.float64) for w in layer.get_weights())
    return x @ kernel + (bias[0] if bias else 0)


def mse(y, p):
    return np.mean((np.asarray(y, np.float64) - p) ** 2)


def row(probe, name):
    """The statistics of one output."""
    place = probe.outputs.index(name)
    return {statistic: values[place] for statistic, values in probe.measure().items()}


@pytest.fixture(name="X")
def inputs(random):
    return random.normal(size=(30, 5))


@pytest.fixture(name="y")
def targets(X):
    return X[:, :1] - X[:, 1:2] ** 2


# ---- A dense network -----------------------------------------------------------------------------


def backprop(model, activations, X, y, loss):
    """The outputs of dense layers and ∂L/∂output, with the oracle's activations and losses."""
    inputs, z, a = np.asarray(X, np.float64), [], []
    for layer, name in zip(model.layers, activations, strict=True):
        z.append(dense(layer, inputs))
        a.append(oracle.ACTIVATIONS[name][0](z[-1]))
        inputs = a[-1]
    _, signal = oracle.LOSSES[loss](np.asarray(y, np.float64), a[-1])
    signals = [signal]
    for i in range(len(a) - 1, 0, -1):
        by_z = oracle.ACTIVATIONS[activations[i]][1](signals[0], z[i], a[i])
        signals.insert(0, by_z @ model.layers[i].get_weights()[0].astype(np.float64).T)
    if loss.endswith("categorical_crossentropy"):
        signals[-1] += 1 / len(X)  # Keras divides the output by its sum, which is 1
    return a, signals


def dense_model(activations, units, **options):
    inputs = keras.Input((5,))
    bias = keras.initializers.RandomNormal(0, 0.5, seed=3)
    parts = [
        layers.Dense(n, f, bias_initializer=bias, **options)
        for f, n in zip(activations, [7] * (len(activations) - 1) + [units], strict=True)
    ]
    return keras.Sequential([inputs, *parts])


@pytest.mark.parametrize("how", ["compiled", "named", "instance"])
@pytest.mark.parametrize(
    ("last", "loss"),
    [
        ("linear", "mean_squared_error"),
        # Keras takes these two of the logits; the signal of the last layer is of its output.
        ("sigmoid", "binary_crossentropy"),
        ("softmax", "categorical_crossentropy"),
        ("softmax", "sparse_categorical_crossentropy"),
    ],
)
def test_a_dense_network_is_as_in_numpy(last, loss, how, X, y):
    activations = ["relu", "tanh", "sigmoid", last]
    units = {"linear": 1, "sigmoid": 1, "softmax": 3}[last]
    model = dense_model(activations, units)
    classes = np.digitize(y[:, 0], [-1, 0])
    targets = {
        "mean_squared_error": y,
        "binary_crossentropy": (y > 0).astype(float),
        "categorical_crossentropy": np.eye(3)[classes],
        "sparse_categorical_crossentropy": classes,
    }[loss]
    class_name = "".join(part.capitalize() for part in loss.split("_"))
    instance = getattr(keras.losses, class_name)()
    given = {"compiled": None, "named": loss, "instance": instance}[how]
    if how == "compiled":
        model.compile("adam", loss)
    probe = Probe(model, X, targets, given)
    assert probe.outputs == ("dense", "dense_1", "dense_2", "dense_3")
    outputs, signals = backprop(model, activations, X, targets, loss)
    assert_measures(probe, outputs, signals)
    share = probe.measure()["activation_saturated"]
    # tanh' = 1 − a² < 0.01, and σ' = a (1 − a) < 0.01 / 4
    expected = [np.mean(outputs[0] == 0), np.mean(outputs[1] ** 2 > 0.99)]
    expected += [np.mean(a * (1 - a) < 0.0025) for a in outputs[2:]]
    expected[3] = {"linear": 0, "softmax": np.nan}.get(last, expected[3])
    np.testing.assert_array_equal(share, expected)


def test_it_measures_the_weights_as_they_are(X, y):
    model = dense_model(["tanh", "relu", "linear"], 1)
    probe = Probe(model, X, y, MSE)
    for _ in range(2):
        assert_measures(probe, *backprop(model, ["tanh", "relu", "linear"], X, y, MSE))
        model.set_weights([1.5 * w for w in model.get_weights()])


def test_layers_without_weights_before_them_have_signals_too(X, y):
    model = keras.Sequential([keras.Input((5,)), layers.ReLU(), layers.Dense(1, trainable=False)])
    a = np.maximum(X, 0)
    end = dense(model.layers[1], a)
    by_end = 2 * (end - y) / y.size
    kernel = model.layers[1].get_weights()[0].astype(np.float64)
    assert_measures(Probe(model, X, y, MSE), [a, end], [by_end @ kernel.T, by_end])


def test_a_function_is_a_loss_and_targets_need_no_last_axis(X, y):
    model = dense_model(["tanh", "linear"], 1)
    probe = Probe(model, X, y[:, 0], lambda y_true, y_pred: ops.abs(y_true - y_pred) ** 2)
    assert_measures(probe, *backprop(model, ["tanh", "linear"], X, y, MSE))


@pytest.mark.parametrize("how", ["compiled", "named"])
def test_what_layers_add_to_the_loss_counts(how, X, y):
    """L2 of a kernel does not depend on any output; of an output, it adds 2 λ a / samples."""
    regularizer = keras.regularizers.L2(0.3)
    model = dense_model(["tanh", "linear"], 1)
    model.layers[0].activity_regularizer = regularizer
    model.layers[1].kernel_regularizer = keras.regularizers.L2(0.5)
    model.compile("sgd", MSE)
    a, signals = backprop(model, ["tanh", "linear"], X, y, MSE)
    probe = Probe(model, X, y, None if how == "compiled" else MSE)
    assert_measures(probe, a, [signals[0] + 2 * 0.3 * a[0] / len(X), signals[1]])


def test_signals_that_float32_can_hardly_square_are_measured(X, y):
    model = dense_model(["linear", "linear"], 1)
    targets = 1e-30 * y

    def product(y_true, y_pred):
        return ops.mean(y_true * y_pred)

    probe = Probe(model, X, targets, product)
    a, signals = backprop(model, ["linear", "linear"], X, targets, "product")
    assert 0 < np.linalg.norm(signals[0]) < 1e-29
    assert_measures(probe, a, signals, atol=0)


def test_nan_is_recorded_and_is_neither_zero_nor_dead(X, y):
    model = dense_model(["relu", "relu", "linear"], 1)
    weights = model.get_weights()
    weights[2][:] = np.nan
    model.set_weights(weights)
    measured = Probe(model, X, y, MSE).measure()
    assert np.isfinite(measured["activation_mean"][0])
    for name in ("activation_mean", "activation_std"):
        assert np.isnan(measured[name][1:]).all()
    np.testing.assert_array_equal(measured["activation_zero_fraction"][1:], 0)
    np.testing.assert_array_equal(measured["activation_dead"][1:], 0)
    assert np.isnan(measured["activation_saturated"][1])
    assert np.isnan(measured["signal_mean_abs"][[0, 2]]).all()
    assert np.isnan(measured["signal_l2"][[0, 2]]).all()


# ---- Activations ---------------------------------------------------------------------------------


def test_a_unit_is_dead_if_it_is_zero_in_the_whole_batch(random):
    images = random.normal(size=(6, 5, 5, 2))
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(4, 2, activation="relu", name="conv"),
            layers.Flatten(name="flat"),
            layers.Dense(5, "relu", name="hidden"),
            layers.Dense(1, name="end"),
        ]
    )
    conv, _, hidden, _ = model.layers
    conv.bias.assign([-100, 0, -100, 0])
    hidden.bias.assign([-100, 100, 100, 100, -100])
    measured = Probe(model, images, np.zeros(6), MSE).measure()
    # In `flat` each position is a unit: 4 × 4 of each channel.
    np.testing.assert_allclose(measured["activation_dead"], [1 / 2, 1 / 2, 2 / 5, 0], atol=0.1)
    assert measured["activation_dead"][[0, 2]].tolist() == [1 / 2, 2 / 5]
    assert measured["activation_zero_fraction"][0] > 1 / 2
    assert measured["activation_saturated"][0] == measured["activation_zero_fraction"][0]
    assert measured["activation_saturated"][2] == measured["activation_dead"][2]


def test_saturation_is_of_the_layers_own_activation(random):
    z = random.uniform(-12, 12, size=(40, 6)).astype(np.float32)
    negative = np.mean(z < 0)
    alpha = keras.initializers.Constant
    bound = np.log((1 + np.sqrt(0.99)) / (1 - np.sqrt(0.99)))  # where σ' = 0.01 / 4
    one = keras.initializers.Identity()
    expected = {
        layers.Activation("sigmoid"): np.mean(abs(z) > bound),
        layers.Activation("tanh"): np.mean(abs(z) > bound / 2),
        layers.Dense(6, "sigmoid", kernel_initializer=one): np.mean(abs(z) > bound),
        layers.Dense(6, layers.LeakyReLU(0.009), kernel_initializer=one): negative,
        layers.Dense(6, layers.LeakyReLU(0.011), kernel_initializer=one): 0,
        layers.Dense(6, kernel_initializer=one): 0,
        layers.Dense(6, "softmax"): np.nan,
        layers.ReLU(): negative,
        layers.ReLU(max_value=6): np.mean((z < 0) | (z > 6)),
        layers.LeakyReLU(0.009): negative,
        layers.LeakyReLU(0.3): 0,
        layers.ELU(): np.mean(z < np.log(0.01)),
        layers.PReLU(alpha(0.005)): negative,
        layers.PReLU(alpha(0.5)): 0,
        layers.Softmax(): np.nan,
        layers.Dropout(0.5): np.nan,
        layers.BatchNormalization(): np.nan,
        layers.EinsumDense("ab,bc->ac", output_shape=6, activation="relu"): None,
    }
    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Add()([layer(inputs) for layer in expected]))
    probe = Probe(model, z, np.zeros((40, 6)), MSE)
    measured = dict(zip(probe.outputs, probe.measure()["activation_saturated"], strict=True))
    for layer, share in expected.items():
        if share is None:
            share = np.mean(z.astype(np.float64) @ layer.get_weights()[0] < 0)
        np.testing.assert_equal(measured[layer.name], share, err_msg=layer.name)


class Sometimes(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.activation = keras.activations.relu

    def call(self, x, active):
        return self.activation(x) if active else 2 * x


def test_saturation_is_of_the_call_itself(X, y):
    inputs, sometimes = keras.Input((5,)), Sometimes(name="sometimes")
    both = [sometimes(inputs, active=True), sometimes(inputs, active=False)]
    model = keras.Model(inputs, layers.Dense(1, name="end")(layers.Add(name="sum")(both)))
    probe = Probe(model, X, y, MSE)
    assert probe.outputs == ("sometimes", "sometimes (2)", "sum", "end")
    expected = [np.mean(X < 0), np.nan, np.nan, 0]
    np.testing.assert_array_equal(probe.measure()["activation_saturated"], expected)


def test_a_layer_that_hands_its_input_on_has_a_signal_of_its_own(X, y):
    """One path of two: its signal is 3 times smaller than that of what both start from."""
    inputs = keras.Input((5,))
    start = layers.Dense(4, name="start")(inputs)
    branches = [layers.Activation("linear", name="linear")(start), start, start]
    model = keras.Model(inputs, layers.Dense(1, name="end")(layers.Add()(branches)))
    probe = Probe(model, X, y, MSE)
    three, one = row(probe, "start")["signal_l2"], row(probe, "linear")["signal_l2"]
    np.testing.assert_allclose(three, 3 * one, rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow's losses look for logits")
def test_a_sigmoid_behind_which_a_layer_does_nothing_is_still_taken_of_its_logits(X, y):
    targets = (y > 0).astype(float)
    model = dense_model(["tanh", "sigmoid"], 1)
    model.layers[1].bias.assign([40.0])  # σ = 1: taken of the output, its slope is 0
    a = np.tanh(dense(model.layers[0], X))
    logits = dense(model.layers[1], a)
    by_logits = (oracle.sigmoid(logits) - targets) / len(X)
    expected = by_logits @ model.layers[1].get_weights()[0].astype(np.float64).T
    longer = keras.Sequential([*model.layers, layers.Dropout(0.0)])
    longer.build((None, 5))
    for net in (model, longer):
        measured = Probe(net, X, targets, "binary_crossentropy").measure()
        np.testing.assert_allclose(measured["signal_l2"][0], np.linalg.norm(expected), rtol=1e-5)


# ---- Any model -----------------------------------------------------------------------------------


def test_a_shared_layer_has_an_output_for_each_call(random):
    X = {"one": random.normal(size=(9, 4)), "two": random.normal(size=(9, 3))}
    y = {"a": random.normal(size=(9, 1)), "b": random.normal(size=(9, 2))}
    one, two = keras.Input((4,), name="one"), keras.Input((3,), name="two")
    adapter, shared = layers.Dense(4, name="adapter"), layers.Dense(5, "tanh", name="shared")
    both = layers.Concatenate(name="both")([shared(one), shared(adapter(two))])
    heads = {"a": layers.Dense(1, name="a"), "b": layers.Dense(2, name="b")}
    model = keras.Model(
        {"one": one, "two": two}, {name: head(both) for name, head in heads.items()}
    )
    model.compile("sgd", {"a": MSE, "b": MSE}, loss_weights={"a": 2.0, "b": 0.5})
    probe = Probe(model, X, y)
    assert sorted(probe.outputs) == ["a", "adapter", "b", "both", "shared", "shared (2)"]
    order = [probe.outputs.index(name) for name in ("adapter", "shared (2)", "both")]
    assert order == sorted(order)

    adapted = dense(adapter, X["two"])
    first, second = np.tanh(dense(shared, X["one"])), np.tanh(dense(shared, adapted))
    if probe.outputs.index("shared") > probe.outputs.index("adapter"):
        assert row(probe, "shared")["activation_mean"] == pytest.approx(np.mean(first), rel=1e-4)

    def loss(weights=(2.0, 0.5)):
        inner = np.concatenate([first, second], axis=1)
        return sum(
            weight * mse(y[name], dense(head, inner))
            for weight, (name, head) in zip(weights, heads.items(), strict=True)
        )

    outputs = {"shared": first, "shared (2)": second}
    for weights, probed in (((2.0, 0.5), probe), ((1.0, 1.0), Probe(model, X, y, MSE))):
        signals = numeric_gradient(lambda w=weights: loss(w), first, second)
        for (name, a), signal in zip(outputs.items(), signals, strict=True):
            for statistic, (expected,) in statistics([a], [signal]).items():
                assert row(probed, name)[statistic] == pytest.approx(expected, rel=1e-4)


class Residual(layers.Layer):
    """A layer of one's own that holds layers, and does something with what they put out."""

    def __init__(self, units, **options):
        super().__init__(**options)
        self.inner = keras.Sequential(
            [layers.Dense(units, "relu", name="widen"), layers.Dense(units, name="narrow")],
            name="inner",
        )

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return x + self.inner(x)


class HandsOn(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.last = layers.Dense(2, name="handed_on")

    def build(self, shape):
        self.last.build(shape)

    def call(self, x):
        return self.last(x)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [Residual(5, name=f"block_{i}") for i in range(2)]
        self.never_called = layers.ReLU(name="never_called")
        self.end = HandsOn(name="hands_on")

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return 2 * self.end(x)


def test_a_subclassed_model_is_opened_to_what_it_calls(X, y):
    model = Subclassed()
    model(X)
    y = np.concatenate([y, y], axis=1)
    # As one layer among others it is opened all the same, and is no row although it doubles.
    whole = keras.Sequential([keras.Input((5,)), model, layers.Dense(2, name="after")])
    assert Probe(whole, X, y, MSE).outputs[-3:] == (
        "subclassed/block_1",
        "subclassed/hands_on/handed_on",
        "after",
    )
    probe = Probe(model, X, y, MSE)
    assert probe.outputs == (
        "block_0/inner/widen",
        "block_0/inner/narrow",
        "block_0",
        "block_1/inner/widen",
        "block_1/inner/narrow",
        "block_1",
        "hands_on/handed_on",
    )
    first, second = (block.inner.layers for block in model.blocks)
    wide = np.maximum(dense(first[0], X), 0)
    narrow = dense(first[1], wide)
    block = X + narrow

    def loss():
        inner = np.maximum(dense(second[0], block), 0)
        return mse(y, 2 * dense(model.end.last, block + dense(second[1], inner)))

    (signal,) = numeric_gradient(loss, block)
    measured = row(probe, "block_0")
    for statistic, (expected,) in statistics([block], [signal]).items():
        assert measured[statistic] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(measured["activation_saturated"])
    # The sum hands the same signal to both its terms.
    assert row(probe, "block_0/inner/narrow")["signal_l2"] == measured["signal_l2"]
    assert row(probe, "block_0/inner/widen")["activation_mean"] == pytest.approx(
        wide.mean(), rel=1e-5
    )


def test_nested_models_are_opened_and_not_counted(X, y):
    hidden = layers.Dense(4, "relu", name="in_part")
    part = keras.Sequential([keras.Input((4,)), hidden], name="part")
    inputs = keras.Input((5,))
    body = keras.Model(inputs, part(part(layers.Dense(4, name="before")(inputs))), name="body")
    model = keras.Sequential([keras.Input((5,)), body, layers.Dense(1, name="after")])
    probe = Probe(model, X, y, MSE)
    inner = "body/part/in_part"
    assert probe.outputs == ("body/before", inner, f"{inner} (2)", "after")
    before = dense(body.layers[1], X)
    once = np.maximum(dense(part.layers[0], before), 0)
    twice = np.maximum(dense(part.layers[0], once), 0)
    means = probe.measure()["activation_mean"][:3]
    np.testing.assert_allclose(means, [before.mean(), once.mean(), twice.mean()], rtol=1e-4)


def lstm(layer, x):
    """The last state of an LSTM, gates in Keras's order: input, forget, candidate, output."""
    kernel, recurrent, bias = (w.astype(np.float64) for w in layer.get_weights())
    h = c = np.zeros((len(x), layer.units))
    for t in range(x.shape[1]):
        i, f, g, o = np.split(x[:, t] @ kernel + h @ recurrent + bias, 4, axis=1)
        c = oracle.sigmoid(f) * c + oracle.sigmoid(i) * np.tanh(g)
        h = oracle.sigmoid(o) * np.tanh(c)
    return h


def test_a_recurrent_layer_is_one_output(random):
    X, y = random.normal(size=(4, 3, 2)), random.normal(size=(4, 1))
    model = keras.Sequential(
        [
            keras.Input((3, 2)),
            layers.TimeDistributed(layers.Dense(3, "tanh"), name="each"),
            layers.LSTM(4, name="lstm"),
            layers.Dense(1, name="end"),
        ]
    )
    probe = Probe(model, X, y, MSE)
    assert probe.outputs == ("each", "lstm", "end")
    each = np.tanh(dense(model.layers[0], X))
    state = lstm(model.layers[1], each)

    def loss():
        return mse(y, dense(model.layers[2], lstm(model.layers[1], each)))

    (by_each,) = numeric_gradient(loss, each)
    (by_state,) = numeric_gradient(lambda: mse(y, dense(model.layers[2], state)), state)
    end = dense(model.layers[2], state)
    by_end = 2 * (end - y) / y.size
    assert_measures(probe, [each, state, end], [by_each, by_state, by_end], rtol=1e-4)
    assert np.isnan(probe.measure()["activation_saturated"][:2]).all()


def test_every_kind_of_layer_has_the_row_it_should(random):
    X = random.integers(0, 9, size=(4, 6))
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 8, name="rows"),
            layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True), name="both_ways"),
            layers.SimpleRNN(5, return_sequences=True, unroll=True, name="unrolled"),
            layers.Conv1D(4, 2, activation="relu", name="conv"),
            layers.SpectralNormalization(layers.Dense(4), name="spectral"),
            layers.LSTM(3, return_state=True, name="states"),
            layers.Lambda(lambda tensors: tensors[0] + tensors[2], name="of_states"),
            layers.Dense(1, name="end"),
        ]
    )
    probe = Probe(model, X, np.zeros((4, 1)), MSE)
    names = "rows both_ways unrolled conv spectral states of_states end"
    assert probe.outputs == tuple(names.split())
    measured = probe.measure()
    assert all(
        np.isfinite(measured[n]).all() for n in PROBE_STATISTICS if n != "activation_saturated"
    )
    assert (measured["signal_l2"] > 0).all()
    # An entry of the table, looked up as often as its row is in X.
    looked_up = model.layers[0].get_weights()[0].astype(np.float64)[X]
    assert measured["activation_mean"][0] == pytest.approx(looked_up.mean(), rel=1e-5)


def test_outputs_that_are_not_floats_have_no_row(random):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Discretization([-1.0, 0.0, 1.0], name="integers"),
            layers.CategoryEncoding(4, output_mode="count", name="counts"),
            layers.Dense(1, name="end"),
        ]
    )
    probe = Probe(model, random.normal(size=(5, 3)), np.zeros(5), MSE)
    assert probe.outputs == ("counts", "end")


def test_attention_is_as_in_numpy(random):
    X, y = random.normal(size=(2, 4, 3)), random.normal(size=(2, 4, 3))
    inputs = keras.Input((4, 3))
    attention = layers.MultiHeadAttention(2, 5, name="attention")
    start = layers.Dense(3, name="start")
    h = start(inputs)
    model = keras.Model(inputs, layers.Add(name="sum")([h, attention(h, h)]))
    probe = Probe(model, X, y, MSE)
    assert probe.outputs == ("start", "attention", "sum")
    q, bq, k, bk, v, bv, o, bo = (w.astype(np.float64) for w in attention.get_weights())

    def attend(h):
        query, key, value = (
            np.einsum("btd,dhe->bthe", h, w) + b for w, b in ((q, bq), (k, bk), (v, bv))
        )
        scores = oracle.softmax(np.einsum("bthe,bshe->bhts", query, key) / np.sqrt(5))
        return np.einsum("bhts,bshe,hed->btd", scores, value, o) + bo

    h = dense(start, X)
    a = attend(h)
    (by_h,) = numeric_gradient(lambda: mse(y, h + attend(h)), h)
    by_sum = 2 * (h + a - y) / y.size
    assert_measures(probe, [h, a, h + a], [by_h, by_sum, by_sum], rtol=1e-4)


def test_a_convolution_is_as_in_numpy(random):
    X, y = random.normal(size=(3, 5, 5, 2)), random.normal(size=(3, 1))
    model = keras.Sequential(
        [
            keras.Input((5, 5, 2)),
            layers.Conv2D(3, 2, activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(1, name="end"),
        ]
    )
    kernel, bias = (w.astype(np.float64) for w in model.layers[0].get_weights())
    windows = np.lib.stride_tricks.sliding_window_view(X, (2, 2), axis=(1, 2))
    z = np.einsum("nxycij,ijco->nxyo", windows, kernel) + bias
    conv = np.maximum(z, 0)
    pool = conv.mean(axis=(1, 2))
    end = dense(model.layers[2], pool)
    by_end = 2 * (end - y) / y.size
    by_pool = by_end @ model.layers[2].get_weights()[0].astype(np.float64).T
    by_conv = np.broadcast_to(by_pool[:, None, None] / 16, conv.shape)
    probe = Probe(model, X, y, MSE)
    assert_measures(probe, [conv, pool, end], [by_conv, by_pool, by_end])
    assert probe.measure()["activation_saturated"][0] == np.mean(z < 0)


def test_masked_positions_do_not_count_in_the_loss(random):
    X, y = np.array([[1, 2, 0], [3, 0, 0]]), random.normal(size=(2, 3, 1))
    model = keras.Sequential(
        [
            keras.Input((3,), dtype="int32"),
            layers.Embedding(4, 2, mask_zero=True),
            layers.Dense(1, name="end"),
        ]
    )
    model.compile("sgd", MSE)
    rows = model.layers[0].get_weights()[0].astype(np.float64)[X]
    by_end = (X != 0)[..., None] * 2 * (dense(model.layers[1], rows) - y) / 3
    for loss in (None, MSE):
        measured = row(Probe(model, X, y, loss), "end")
        assert measured["signal_l2"] == pytest.approx(np.linalg.norm(by_end), rel=1e-5)


def mapped(function, x):
    if BACKEND == "tensorflow":  # where Keras's own `map` calls the function outside, too
        return importlib.import_module("tensorflow").map_fn(function, x)
    return ops.map(function, x)


class InLoop(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(5, "tanh", name="in_loop")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return mapped(lambda sample: self.inner(sample[None])[0], x)


@pytest.mark.skipif(BACKEND == "torch", reason="torch's loops are Python's, and are seen")
def test_what_happens_in_a_loop_is_not_seen_but_its_layer_is(X, y):
    model = keras.Sequential([keras.Input((5,)), InLoop(name="loop"), layers.Dense(1, name="end")])
    probe = Probe(model, X, y, MSE)
    assert probe.outputs == ("loop", "end")
    expected = np.tanh(dense(model.layers[0].inner, X))
    assert row(probe, "loop")["activation_mean"] == pytest.approx(expected.mean(), rel=1e-5)
    assert row(probe, "loop")["signal_l2"] > 0


def test_an_output_without_a_path_to_the_loss_has_signal_zero(X, y):
    inputs = keras.Input((5,))
    shared = layers.Dense(3, name="shared")(inputs)
    used, unused = layers.Dense(1, name="used"), layers.Dense(1, name="unused")
    model = keras.Model(inputs, [used(shared), unused(shared)])
    model.compile("sgd", [MSE, None])
    probe = Probe(model, X, [y, y])
    signals = {name: row(probe, name) for name in probe.outputs}
    assert signals["unused"]["signal_l2"] == signals["unused"]["signal_mean_abs"] == 0
    assert signals["used"]["signal_l2"] > 0
    assert signals["shared"]["signal_l2"] > 0


def test_a_loss_of_the_models_own_is_taken(X, y):
    class OwnLoss(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return 3 * keras.ops.sum(y_pred)

    model = dense_model(["tanh", "linear"], 1)
    own = OwnLoss(model.inputs, model.outputs)
    own.compile("sgd")
    kernel = model.layers[1].get_weights()[0].astype(np.float64)
    a = np.tanh(dense(model.layers[0], X))
    expected = [np.broadcast_to(3 * kernel.T, a.shape), np.full(y.shape, 3.0)]
    assert_measures(Probe(own, X, y), [a, dense(model.layers[1], a)], expected)


# ---- As in training ------------------------------------------------------------------------------


def test_layers_behave_as_in_training(X):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.BatchNormalization(name="norm", epsilon=1e-3),
            layers.Dropout(0.5, name="drop", seed=3),
            layers.Dense(1, name="end"),
        ]
    )
    X = 3 + 2 * X
    probe = Probe(model, X, np.zeros(len(X)), MSE)
    variance = X.var(axis=0)
    normal = (X - X.mean(axis=0)) / np.sqrt(variance + 1e-3)
    norm, drop = row(probe, "norm"), row(probe, "drop")
    assert norm["activation_mean"] == pytest.approx(0, abs=1e-6)
    assert norm["activation_std"] == pytest.approx(normal.std(), rel=1e-5)
    assert 0.3 < drop["activation_zero_fraction"] < 0.7
    assert row(probe, "drop")["activation_mean"] == drop["activation_mean"]  # the same mask


class Counted(layers.Layer):
    """State of all kinds: a Keras variable, one of the backend, global random numbers."""

    def build(self, shape):
        self.calls = self.add_weight(name="calls", initializer="zeros", trainable=False)
        self.seed = None
        if BACKEND == "tensorflow":
            self.raw = tf.Variable(1.0, trainable=False)
        elif BACKEND == "torch":
            self.register_buffer("raw", torch.ones(()))
        else:  # where neither can change in a compiled step
            self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        self.calls.assign_add(1.0)
        if BACKEND == "tensorflow":
            self.raw.assign(2 * self.raw)
        elif BACKEND == "torch":
            self.raw.mul_(2)
            x = x + 0.01 * torch.randn(x.shape)
        return x + 0.01 * keras.random.normal(ops.shape(x), seed=self.seed)


def stateful_model(*first):
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(4)
    l2 = keras.regularizers.L2(0.01)
    model = keras.Sequential(
        [
            keras.Input((6, 5), batch_size=10),
            *first,
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.GaussianNoise(0.1),
            Counted(),
            layers.Flatten(),
            layers.Dense(6, "relu", activity_regularizer=l2, kernel_regularizer=l2),
            layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile("adam", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC(5)])
    return model


def state(model):
    """Every number that training depends on, or that training reports."""
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    seeds = [v for layer in model._flatten_layers() for v in layer.variables]
    raw = [layer.raw.numpy() for layer in model.layers if hasattr(layer, "raw")]
    raw += [torch.get_rng_state().numpy()] if BACKEND == "torch" else []
    values = [ops.convert_to_numpy(v.value) for v in [*variables, *seeds]]
    return [np.copy(value) for value in [*values, *raw]]


def attributes(model):
    """What the attributes of the layers hold, by identity: `_called` marks that a layer was."""
    return {
        (number, name): id(value)
        for number, layer in enumerate(model._flatten_layers())
        for name, value in vars(layer).items()
        if name != "_called" and not name.endswith("dropout_mask")
    }


def assert_same(before, after):
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def sequences(random):
    return random.normal(size=(20, 6, 5)), random.integers(0, 2, size=(20, 1))


def test_a_measurement_changes_nothing(sequences):
    X, y = sequences
    # A state that is carried over, and a trainable kernel that the forward pass divides.
    recurrent = layers.SimpleRNN(4, return_sequences=True, stateful=True, dropout=0.2)
    model = stateful_model(recurrent, layers.SpectralNormalization(layers.Dense(6, "tanh")))
    model.fit(X, y, batch_size=10, epochs=1, verbose=0, shuffle=False)
    config, held, before = model.get_config(), attributes(model), state(model)
    losses = [id(loss) for loss in model.layers[-2]._losses]
    probe = Probe(model, X[:10], y[:10])
    assert_same(before, state(model))
    first = probe.measure()
    assert_same(before, state(model))
    second = probe.measure()
    assert_same(before, state(model))
    for name in PROBE_STATISTICS:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    assert attributes(model) == held
    assert model.get_config() == config
    assert [id(loss) for loss in model.layers[-2]._losses] == losses


def test_training_goes_on_as_without_a_probe(sequences):
    X, y = sequences
    runs = []
    for probed in (False, True):
        model = stateful_model()
        if probed:
            probe = Probe(model, X[:10], y[:10])
            probe.measure()
        history = {}
        for _ in range(2):
            fitted = model.fit(X, y, batch_size=10, epochs=2, verbose=0)
            history |= fitted.history
            if probed:
                probe.measure()
        runs.append((history, state(model)))
    assert runs[0][0] == runs[1][0]
    assert_same(runs[0][1], runs[1][1])


# Keras's, of NumPy 2, whether a model was probed or not.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_probed_model_is_saved_and_copied_as_before(X, y, tmp_path):
    def functional():
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(5)
        model = dense_model(["relu", "tanh", "linear"], 1)
        model.compile("adam", MSE)
        model.optimizer.build(model.trainable_variables)
        return model

    plain, probed = functional(), functional()
    Probe(probed, X, y).measure()
    assert probed.get_config() == plain.get_config()
    assert probed.to_json() == plain.to_json()
    assert probed.get_compile_config() == plain.get_compile_config()

    def saved(model):
        model.save(tmp_path / "model.keras")
        return keras.models.load_model(tmp_path / "model.keras")

    for copied in (saved, lambda model: pickle.loads(pickle.dumps(model))):
        one, other = copied(plain), copied(probed)
        assert one.get_config() == other.get_config()
        assert_same(plain.get_weights(), other.get_weights())
    one, other = keras.models.clone_model(plain), keras.models.clone_model(probed)
    assert one.get_config() == other.get_config()


def test_attributes_that_a_layer_had_already_come_back(X, y):
    model = dense_model(["relu", "linear"], 1)
    layer, own = model.layers[0], model.layers[0].call

    def patched(*args, **options):
        return own(*args, **options)

    layer.__dict__["call"] = patched
    Probe(model, X, y, MSE).measure()
    assert layer.__dict__["call"] is patched
    assert "call" not in vars(model.layers[1])


class Breaks(layers.Layer):
    """Fails in the forward pass, either while it is traced or when a value is not finite."""

    fails = False

    def call(self, x):
        if self.fails:
            raise RuntimeError("broken")
        if BACKEND == "tensorflow":
            return tf.debugging.check_numerics(x, "not finite")
        if BACKEND == "torch" and not torch.isfinite(x).all():
            raise RuntimeError("not finite")
        return x


def breaking_model():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, "relu", activity_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            Counted(),
            Breaks(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", MSE)
    return model


def test_a_failure_while_tracing_leaves_the_model_as_it_was(X, y):
    model = breaking_model()
    model(X)
    held, before = attributes(model), state(model)
    model.layers[-2].fails = True
    with pytest.raises(RuntimeError, match="broken"):
        Probe(model, X, y)
    model.layers[-2].fails = False
    del model.layers[-2].fails
    assert attributes(model) == held
    assert_same(before, state(model))


@pytest.mark.skipif(BACKEND == "jax", reason="a compiled function of JAX raises nothing")
def test_a_failure_in_a_measurement_leaves_the_model_as_it_was(X, y):
    model = breaking_model()
    probe = Probe(model, X, y)
    whole = probe.measure()
    kernel = model.layers[0].kernel
    kept = kernel.numpy()
    kernel.assign(np.full(kept.shape, np.inf))
    held, before = attributes(model), state(model)
    with pytest.raises(Exception, match="not finite"):
        probe.measure()
    assert attributes(model) == held
    assert_same(before, state(model))
    kernel.assign(kept)
    for name, values in probe.measure().items():
        np.testing.assert_array_equal(values, whole[name])


# ---- Precision -----------------------------------------------------------------------------------


def test_layers_that_train_in_float8_are_seen(X, y):
    model = dense_model(["relu", "linear"], 1)
    a, _ = backprop(model, ["relu", "linear"], X, y, MSE)
    model.layers[0].quantize("float8")
    probe = Probe(model, X, y, MSE)
    assert probe.outputs == ("dense", "dense_1")
    means = probe.measure()["activation_mean"]
    np.testing.assert_allclose(means, [np.mean(output) for output in a], rtol=0.1)


@pytest.mark.parametrize(
    ("policy", "rtol"),
    [("mixed_float16", 0.01), ("mixed_bfloat16", 0.05)] + [("float64", 1e-5)] * (BACKEND != "jax"),
)
def test_other_precisions_give_nearly_the_same(policy, rtol, X, y):
    activations = ["relu", "tanh", "linear"]
    model = dense_model(activations, 1, dtype=policy)
    model.compile("adam", MSE)
    probe = Probe(model, X, y)
    a, signals = backprop(model, activations, X, y, MSE)
    measured = probe.measure()
    for name, expected in statistics(a, signals).items():
        assert measured[name].dtype == np.float64
        atol = 0.02 * np.max(np.abs(expected)) if rtol > 0.001 else 1e-7
        np.testing.assert_allclose(measured[name], expected, rtol, atol, err_msg=name)


def test_float16_signals_are_those_of_the_scaled_loss(X, y):
    """1e-8 is nothing in float16; the optimizer scales the loss by 2^15 so that it is something."""
    activations = ["tanh", "linear"]
    model = dense_model(activations, 1, dtype="mixed_float16")
    targets = 1e-6 * y

    def product(y_true, y_pred):
        return y_true * y_pred

    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), product)
    _, signals = backprop(model, activations, X, targets, "product")
    measured = Probe(model, X, targets).measure()["signal_l2"]
    np.testing.assert_allclose(measured, [np.linalg.norm(s) for s in signals], rtol=0.02)


# ---- Refusals ------------------------------------------------------------------------------------


def small():
    return keras.Sequential([keras.Input((5,)), layers.Dense(1)], name="small")


class Hidden(keras.Model):
    def __init__(self):
        super().__init__(name="hidden")
        self.end = layers.Dense(1)
        self.end.build((None, 5))

    def call(self, x):
        return compiled(self.end)(x)


def hidden():
    model = Hidden()
    model(np.zeros((1, 5)))
    return model


ACCEPTED = "numbers or strings" if BACKEND == "tensorflow" else "numbers"


@pytest.mark.parametrize(
    ("make", "change", "error", "sentence"),
    [
        (
            lambda: layers.Dense(1),
            {},
            TypeError,
            "model must be a keras.Model, received Dense",
        ),
        (
            lambda: keras.Sequential([layers.Dense(1)], name="unbuilt"),
            {},
            ValueError,
            "model 'unbuilt' must be built, received one without weights: give it a keras.Input, "
            "or call it once on a batch",
        ),
        (
            small,
            {"loss": None},
            ValueError,
            "loss must be named for model 'small', which is not compiled: pass "
            "loss='mean_squared_error' or another",
        ),
        (
            small,
            {"loss": "mean_square"},
            ValueError,
            "loss must be a Keras loss, its name or a function, received 'mean_square'",
        ),
        (
            small,
            {"y": np.zeros((29, 1))},
            ValueError,
            "X and y must have the same length, received 30 and 29 samples",
        ),
        (
            small,
            {"y": [np.zeros(30), np.zeros(28)]},
            ValueError,
            "X and y must have the same length, received 30 and 30, 28 samples",
        ),
        (
            small,
            {"y": [np.zeros(30), np.zeros(30)]},
            ValueError,
            "y must hold an array for each output of model 'small', received 2 for 1",
        ),
        (
            small,
            {"X": np.zeros((0, 5))},
            ValueError,
            "X must hold at least one sample, received shape (0, 5)",
        ),
        (
            small,
            {"X": [1.0, 2.0]},
            ValueError,
            "X must hold at least one sample, received shape ()",
        ),
        (
            small,
            {"y": None},
            TypeError,
            f"y must be arrays of {ACCEPTED}, received dtype object",
        ),
        (
            lambda: keras.Model(*[keras.Input((5,))] * 2, name="empty"),
            {"y": np.zeros((30, 5))},
            ValueError,
            "model 'empty' must call a layer that puts out floats, received none: what it calls "
            "in a compiled function of its own cannot be seen",
        ),
        pytest.param(
            hidden,
            {},
            ValueError,
            "model 'hidden' must call a layer that puts out floats, received none: what it calls "
            "in a compiled function of its own cannot be seen",
            marks=pytest.mark.skipif(BACKEND == "torch", reason="nothing is compiled"),
        ),
        (
            lambda: keras.Model(name="gan"),
            {},
            ValueError,
            "model 'gan' must have a `call` to be probed, received one without: probe one of the "
            "models or layers that its training step calls",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_in_a_sentence(make, change, error, sentence, X, y):
    arguments = {"X": X, "y": y, "loss": MSE} | change
    with pytest.raises(error) as raised:
        Probe(make(), arguments["X"], arguments["y"], arguments["loss"])
    assert str(raised.value) == sentence

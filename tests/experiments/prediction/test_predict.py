"""Predicted gradients against those measured in Keras models, and against exact NumPy formulas.

Networks are redrawn by assigning new weights to one compiled step, so that a case takes a few
seconds. The standard deviations are written here and not taken from the tested code.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

import kgrad
from kgrad import theory
from kgrad.experiments.prediction.networks import numpy_activation, read_dense_network
from kgrad.theory.network_draws import DrawnNetworks, narrowed
from kgrad.theory.network_gradients import NetworkGradients, Parameter
from kgrad.theory.networks import Add, BatchMoments, Dense, Input, Unit
from kgrad.theory.units import UnitMap, UnitMoments, mean_of_gaussian

LAYERS = keras.layers
RELU, TANH = theory.activation("relu"), theory.activation("tanh")


def batch(samples=32, features=20, seed=3):
    random = np.random.default_rng(seed)
    X = random.normal(size=(samples, features)).astype("float32")
    return X, (X[:, 0] + X[:, 1] > 0).astype("float32")


def measured(model, X, y, loss, seeds, *, fan):
    """Return norm and mean |g| of every variable of redrawn networks: (2, seeds, weights)."""
    X, y, loss = tf.constant(X), tf.constant(y), keras.losses.get(loss)
    variables, random = model.trainable_variables, np.random.default_rng(0)
    kernels = [v for v in variables if v.name == "kernel"]
    deviations = [fan(v.shape) for v in kernels]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            answer = model(X, training=True)
            target = y if len(y.shape) == len(answer.shape) or "sparse" in loss.__name__ else None
            target = tf.expand_dims(y, -1) if target is None else target
            value = tf.reduce_mean(loss(target, answer))
        gradients = tape.gradient(value, [v.value for v in variables])
        return [tf.norm(g) for g in gradients], [tf.reduce_mean(tf.abs(g)) for g in gradients]

    runs = []
    for _ in range(seeds):
        for kernel, deviation in zip(kernels, deviations, strict=True):
            kernel.assign((random.normal(size=kernel.shape) * deviation).astype("float32"))
        runs.append(step())
    return np.moveaxis(np.array(runs, np.float64), 1, 0)


def he(shape):
    return np.sqrt(2 / shape[0])


def xavier(shape):
    return np.sqrt(2 / (shape[0] + shape[1]))


FANS = {"he": he, "xavier": xavier}


def close(found, runs, within):
    """Check that means over seeds agree within a relative bound, or three standard errors."""
    mean, error = runs.mean(0), runs.std(0) / np.sqrt(len(runs))
    bound = np.maximum(within * mean, 3 * error)
    assert (np.abs(found - mean) <= bound).all(), np.round(found / mean, 3)
    # Otherwise the standard errors would make the check pass by chance.
    assert np.median(error / mean) < 0.1


CASES = {
    "plain tanh": ("tanh", "xavier", {}),
    "plain relu": ("relu", "he", {}),
    "sigmoid": ("sigmoid", "xavier", {}),
    "gelu": ("gelu", "he", {}),
    "batch": ("relu", "he", {"normalization": "batch"}),
    "layer": ("tanh", "xavier", {"normalization": "layer"}),
    "skips": ("relu", "he", {"skip_connections": True}),
    "all": ("tanh", "xavier", {"normalization": "batch", "skip_connections": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_weight_s_gradient_is_as_large_as_measured(case):
    activation, initializer, options = CASES[case]
    X, y = batch()
    # A width of 96 at first, so that the first skip needs a projection.
    units = [96, 160, 128, 160]
    model = kgrad.create_model(4, activation, initializer, units=units, **options)
    prediction = kgrad.predict_gradients(model, X, y, loss="binary_crossentropy")
    norms, means = measured(model, X, y, "binary_crossentropy", 150, fan=FANS[initializer])
    kept = prediction["l2_norm"][0] > 0
    close(prediction["l2_norm"][0, kept] ** 2, norms[:, kept] ** 2, 0.13)
    close(prediction["mean_abs"][0, kept], means[:, kept], 0.07)
    removed = [w.name == "bias" and "hidden" in w.layer for w in prediction.weights]
    if options.get("normalization") == "batch":
        assert (kept == ~np.array(removed)).all()
        assert norms[:, ~kept].max() < 1e-5 * norms[:, kept].mean()
    else:
        assert kept.all()
    for name, runs in (("l2_norm", norms), ("mean_abs", means)):
        lower, upper = prediction.lower[name][0, kept], prediction.upper[name][0, kept]
        inside = np.mean((runs[:, kept] >= lower) & (runs[:, kept] <= upper), axis=0)
        assert inside.min() >= 0.88, inside  # 150 seeds: ± 0.02
        assert 0.92 <= np.mean(inside) <= 0.99, inside


def test_it_is_read_as_a_history_is():
    X, y = batch()
    model = kgrad.create_model(3, "relu", "he", units=16, normalization="batch")
    prediction = kgrad.predict_gradients(model, X, y)
    history = kgrad.measure_gradients(model, X, y)
    assert prediction.weights == history.weights
    assert prediction.layers == history.layers
    for one in (prediction, prediction.lower, prediction.upper):
        for name in ("l2_norm", "mean_abs"):
            assert one[name].shape == history[name].shape
            assert one.by_layer(name).shape == history.by_layer(name).shape
    sizes = np.array([w.size for w in prediction.weights if w.layer == "norm_1"])
    at = [i for i, w in enumerate(prediction.weights) if w.layer == "norm_1"]
    layer = prediction.layers.index("norm_1")
    expected = np.average(prediction["mean_abs"][0, at], weights=sizes)
    assert prediction.by_layer("mean_abs")[0, layer] == pytest.approx(expected)
    expected = np.sqrt(np.sum(prediction.lower["l2_norm"][0, at] ** 2))
    assert prediction.lower.by_layer("l2_norm")[0, layer] == pytest.approx(expected)
    with pytest.raises(KeyError):
        prediction["max_abs"]


def test_variances_and_activations_are_named_by_layer():
    model = kgrad.create_model(2, "gelu", "xavier", units=[30, 10], input_shape=(2, 5))
    prediction = kgrad.predict_gradients(model, np.ones((4, 2, 5), "float32"), np.ones(4))
    expected = {"hidden_1": 10 * 2 / 40, "hidden_2": 30 * 2 / 40, "output": 10 * 2 / 11}
    assert prediction.sigma_w2 == pytest.approx(expected)
    assert prediction.sigma_b2 == dict.fromkeys(expected, 0)
    assert {k: phi.name for k, phi in prediction.activations.items()} == {
        "hidden_1": "gelu",
        "hidden_2": "gelu",
    }


def test_the_model_is_left_as_it_was_and_the_numbers_are_the_same_again():
    X, y = batch()
    model = kgrad.create_model(2, "relu", "he", units=8, normalization="batch", seed=1)
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    before = [v.numpy() for v in model.variables]
    first, again = (kgrad.predict_gradients(model, X, y) for _ in range(2))
    assert all((a == b.numpy()).all() for a, b in zip(before, model.variables, strict=True))
    for name in ("l2_norm", "mean_abs"):
        np.testing.assert_array_equal(first[name], again[name])
        np.testing.assert_array_equal(first.upper[name], again.upper[name])


def test_one_linear_layer_is_predicted_in_closed_form():
    """h = w·x, L = mean (h - y)²: E‖∂w‖² = E‖(2/B) Xᵀ(Xw - y)‖², in NumPy."""
    X, y = batch(8, 5)
    model = keras.Sequential([keras.Input((5,)), LAYERS.Dense(1, use_bias=False)])
    v = 2 / (5 + 1)
    XtX = X.T.astype(np.float64) @ X
    expected = 4 / 64 * (v * np.sum(XtX**2) + np.sum((X.T @ y) ** 2))
    found = kgrad.predict_gradients(model, X, y)["l2_norm"][0, 0]
    assert found**2 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size"])
def test_the_loss_may_be_a_sum_over_the_batch(reduction):
    X, y = batch()
    model = kgrad.create_model(2, "tanh", "he", units=32)
    mean = kgrad.predict_gradients(model, X, y, loss="binary_crossentropy")
    loss = keras.losses.BinaryCrossentropy(reduction=reduction)
    found = kgrad.predict_gradients(model, X, y, loss=loss)
    factor = 32 if reduction == "sum" else 1
    np.testing.assert_allclose(found["l2_norm"], factor * mean["l2_norm"], rtol=1e-4)


def test_the_compiled_loss_and_a_softmax_of_classes():
    X, _ = batch()
    y = np.arange(32) % 3
    model = kgrad.create_model(2, "relu", "he", units=64, output_units=3, output_activation=None)
    model = keras.Sequential([model.layers[0], *model.layers[1:], LAYERS.Softmax()])
    model.compile("sgd", "sparse_categorical_crossentropy")
    found = kgrad.predict_gradients(model, X, y)
    named = kgrad.predict_gradients(model, X, y, loss="sparse_categorical_crossentropy")
    np.testing.assert_allclose(found["l2_norm"], named["l2_norm"], rtol=1e-5)
    norms, _ = measured(model, X, y, "sparse_categorical_crossentropy", 100, fan=he)
    close(found["l2_norm"][0] ** 2, norms**2, 0.1)


def test_the_weights_variances_may_be_taken_in_place_of_the_initializers():
    X, y = batch()
    model = kgrad.create_model(2, "tanh", "xavier", units=64, seed=0)
    for layer in model.layers[1:]:
        layer.kernel.assign(3 * layer.kernel)
        layer.bias.assign(np.linspace(-1, 1, layer.units))
    found = kgrad.predict_gradients(model, X, y, variances="weights")
    assert found.sigma_w2["hidden_2"] == pytest.approx(9, rel=0.05)
    assert found.sigma_b2["hidden_2"] == pytest.approx(np.mean(np.linspace(-1, 1, 64) ** 2))
    assert kgrad.predict_gradients(model, X, y).sigma_w2["hidden_2"] == pytest.approx(1)


def hand_written(kind):
    x = inputs = keras.Input((20,))
    if kind == "activation layers":
        for layer in (
            LAYERS.ReLU(),
            LAYERS.LeakyReLU(0.1),
            LAYERS.ELU(),
            LAYERS.Activation("tanh"),
        ):
            x = layer(LAYERS.Dense(128, kernel_initializer="he_normal")(x))
    elif kind == "normalized after":
        for _ in range(3):
            x = LAYERS.Dense(128, "relu", kernel_initializer="he_normal")(x)
            x = LAYERS.BatchNormalization()(x)
    elif kind == "normalized before":
        x = LAYERS.Dense(128, kernel_initializer="he_normal")(x)
        for _ in range(2):
            y = LAYERS.Activation("relu")(LAYERS.LayerNormalization()(x))
            y = LAYERS.Dense(128, kernel_initializer="he_normal")(y)
            x = LAYERS.Add()([x, y])
    else:
        x = LAYERS.Dense(128, "tanh", kernel_initializer="he_normal")(x)
        ways = [LAYERS.Dense(128, kernel_initializer="he_normal")(x) for _ in range(3)]
        x = LAYERS.Activation("relu")(LAYERS.Add()(ways))
    outputs = LAYERS.Dense(1, "sigmoid", kernel_initializer="he_normal")(x)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    "kind", ["activation layers", "normalized after", "normalized before", "three ways"]
)
def test_networks_written_by_hand_are_read(kind):
    X, y = batch()
    model = hand_written(kind)
    found = kgrad.predict_gradients(model, X, y)
    norms, means = measured(model, X, y, "binary_crossentropy", 150, fan=he)
    close(found["l2_norm"][0] ** 2, norms**2, 0.12)
    close(found["mean_abs"][0], means, 0.1)


def test_activations_become_numpy_functions():
    x = np.linspace(-3, 3, 61) + 1e-3
    for layer in (
        LAYERS.ReLU(),
        LAYERS.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.2),
        LAYERS.LeakyReLU(0.2),
        LAYERS.ELU(0.7),
        LAYERS.Activation("mish"),
        LAYERS.Activation(lambda x: keras.ops.sin(x)),
    ):
        phi = numpy_activation(layer)
        u = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(u)
            expected = layer(u)
        np.testing.assert_allclose(phi.f(x), expected, atol=1e-6)
        np.testing.assert_allclose(phi.df(x), tape.gradient(expected, u), atol=2e-4)


def refused(kind):
    x = inputs = keras.Input((8, 8, 1) if kind == "convolution" else (8,))
    dense = LAYERS.Dense(8)
    if kind == "convolution":
        x = LAYERS.Flatten()(LAYERS.Conv2D(2, 3, name="conv")(x))
    elif kind == "dropout":
        x = LAYERS.Dropout(0.5, name="drop")(dense(x))
    elif kind == "shared":
        x = dense(dense(x))
    elif kind == "regularizer":
        x = LAYERS.Dense(8, kernel_regularizer="l2", name="regular")(x)
    elif kind == "constant":
        x = LAYERS.Dense(8, bias_initializer="ones", name="ones")(x)
    elif kind == "entangled":
        x = dense(x)
        x = LAYERS.Add(name="sum")([x, LAYERS.ReLU()(x)])
    elif kind == "after a sum":
        x = LAYERS.Dense(8, "relu")(x)
        x = LAYERS.ReLU(name="late")(LAYERS.Add()([x, LAYERS.Dense(8, "relu")(x)]))
    elif kind == "softmax":
        x = LAYERS.Dense(8, "softmax")(x)
    elif kind == "two norms":
        x = LAYERS.LayerNormalization(name="b")(LAYERS.LayerNormalization(name="a")(dense(x)))
    elif kind == "gamma":
        x = LAYERS.BatchNormalization(gamma_initializer="zeros", name="norm")(dense(x))
    elif kind == "end":
        x = dense(x)
        return keras.Model(inputs, LAYERS.Add(name="last")([x, LAYERS.Dense(8)(x)]))
    return keras.Model(inputs, LAYERS.Dense(1)(x))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (
            "convolution",
            r"must consist only of Input, Flatten, Dense, .* received 'conv' \(Conv2D\)",
        ),
        ("dropout", r"received 'drop' \(Dropout\): pass a model without such layers$"),
        ("shared", r"each called once, for a prediction, received 'dense\w*' \(Dense\): use a new"),
        (
            "regularizer",
            r"without regularizers, for a prediction, received 'regular' \(Dense\): pass a model w",
        ),
        ("constant", r"bias of layer 'ones': an initializer must .* received Ones\(\)"),
        (
            "entangled",
            "layer 'sum' must add tensors of one shape, separated from each other by a Dense",
        ),
        ("after a sum", "'late' must not follow an Add of activations .* put it before the Add"),
        ("softmax", "a hidden activation must be elementwise for a prediction, received 'softmax'"),
        ("two norms", "there must be at most one normalization, .* received 'a', 'b'"),
        ("gamma", "gamma of layer 'norm' must be 1 everywhere"),
        ("end", "must end in a Dense layer and its activation .* received 'last'"),
    ],
)
def test_what_theory_does_not_cover_is_refused_in_a_sentence(kind, sentence):
    model = refused(kind)
    X = np.zeros((4, *model.input_shape[1:]), "float32")
    y = np.zeros((4, *model.output_shape[1:]), "float32")
    with pytest.raises(ValueError, match=sentence):
        kgrad.predict_gradients(model, X, y, loss="mse")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = LAYERS.Dense(1)

    def call(self, x):
        return self.dense(x)


def test_other_refusals_are_sentences_too():
    X, y = batch(8)
    subclassed = Subclassed()
    subclassed(X)
    with pytest.raises(ValueError, match=r"must be functional or sequential .* a Subclassed"):
        kgrad.predict_gradients(subclassed, X, y, loss="mse")
    with pytest.raises(ValueError, match="must be built"):
        kgrad.predict_gradients(keras.Sequential([LAYERS.Dense(1)]), X, y)
    model = kgrad.create_model(1, "relu", "he", units=8)
    many = np.zeros((2049, 20), "float32")
    with pytest.raises(ValueError, match=r"at most 2,048 samples, received 2,049: pass a mini-b"):
        kgrad.predict_gradients(model, many, many[:, 0])
    with pytest.raises(ValueError, match='variances must be "initializer" or "weights"'):
        kgrad.predict_gradients(model, X, y, variances="both")
    with pytest.raises(ValueError, match="same length"):
        kgrad.predict_gradients(model, X, y[:3])


# The parts, against NumPy


def test_a_network_that_is_a_plain_stack_is_one():
    """Compare with propagate_batch, which the tests of the theory compare with simulations."""
    X, _ = batch(12)
    widths, sigma_w2 = (20, 50, 70, 3), 1.7
    variances = tuple(sigma_w2 / n for n in widths[:-1])
    stack = theory.DenseStack(widths, variances, (TANH, RELU), (0.1, 0.2, 0.3))
    nodes = [Input()]
    for n, v, b, phi in zip(
        widths[1:], variances, stack.bias_variances, (TANH, RELU, None), strict=True
    ):
        nodes.append(Dense(len(nodes) - 1, n, v, b))
        nodes += [Unit(len(nodes) - 1, UnitMap(after=phi))] if phi else []
    errors = np.random.default_rng(0).normal(size=(1, 12, 3))
    found = NetworkGradients(BatchMoments(tuple(nodes), X), errors)
    A_0 = X.astype(np.float64) @ X.T / 20
    expected = theory.propagate_batch(stack, A_0, errors[0] @ errors[0].T)
    for i, place in enumerate((1, 3, 5)):
        for kind, squares in (
            ("kernel", expected.weight_norm_squared),
            ("bias", expected.bias_norm_squared),
        ):
            norm = found.norm_squared(Parameter(kind, place))
            assert norm == pytest.approx(squares[i], rel=1e-6)


@pytest.mark.parametrize("norm", ["batch", "layer", None])
@pytest.mark.parametrize("before", [TANH, theory.activation("linear")])
def test_the_jacobian_of_a_unit_is_that_of_finite_differences(norm, before):
    if norm == "layer" and before is TANH:
        pytest.skip("layer normalization uses the mean and variance of all units, not of one")
    B, random = 5, np.random.default_rng(0)
    h = random.normal(size=(7, B))
    unit = UnitMap(before, norm, TANH, 0.01)

    def f(h):
        u = before.f(h)
        if norm == "batch":
            u = (u - u.mean(-1, keepdims=True)) / np.sqrt(u.var(-1, keepdims=True) + 0.01)
        elif norm == "layer":
            u = u / np.sqrt(2.5 + 0.01)
        return np.tanh(u)

    moments = UnitMoments(unit, 2.5 * np.eye(B), np.zeros(B), lambda: h, norm != "batch")
    J = np.stack([(f(h + d) - f(h - d)) / 2e-5 for d in 1e-5 * np.eye(B)], axis=-1)
    y, rows = random.normal(size=(7, B)), slice(None)
    np.testing.assert_allclose(moments.x, f(h), atol=1e-12)
    np.testing.assert_allclose(moments.jvp(y, rows), np.einsum("mab,mb->ma", J, y), atol=1e-8)
    if norm == "batch":
        G = random.normal(size=(B, B))
        G = G @ G.T
        pulled = np.einsum("mab,ac,mcd->bd", J, G, J) / 7
        pushed = np.einsum("mab,bc,mdc->ad", J, G, J) / 7
        np.testing.assert_allclose(moments.pull(G), pulled, atol=1e-7)
        np.testing.assert_allclose(moments.push(G), pushed, atol=1e-7)


def test_signals_that_have_all_but_died_out_have_a_mean():
    means = mean_of_gaussian(theory.activation("softplus"), np.array([-1e-30, 0.0]))
    np.testing.assert_allclose(means, np.log(2), rtol=1e-12)


@pytest.mark.parametrize(("batch_size", "within"), [(8, 0.03), (32, 0.015), (64, 0.015)])
def test_deep_batch_norm_grows_at_the_closed_rate(batch_size, within):
    """Yang et al. 2019, theorem 8: 25 layers, away from both ends."""
    nodes = [Input()]
    for _ in range(25):
        nodes.append(Dense(len(nodes) - 1, 100, 1 / 100))
        nodes.append(Unit(len(nodes) - 1, UnitMap(norm="batch", after=RELU, epsilon=0.0)))
    nodes.append(Dense(len(nodes) - 1, 100, 1 / 100))
    X = np.random.default_rng(0).normal(size=(batch_size, 100))
    moments = BatchMoments(tuple(nodes), X)
    G = moments.backward(np.eye(batch_size))
    traces = [np.trace(G[place]) for place in range(1, len(nodes), 2)]
    rate = (traces[4] / traces[19]) ** (1 / 15)
    assert rate == pytest.approx(theory.batch_norm_relu_rate(batch_size), rel=within)


def test_drawn_networks_are_differentiated_as_keras_does():
    """Compare ‖g‖ of every variable with a Keras model that has the drawn weights."""
    X, y = batch(10)
    for options in (
        {"normalization": "batch", "skip_connections": True},
        {"normalization": "layer", "skip_connections": True},
        {},
    ):
        model = kgrad.create_model(3, "tanh", "he", units=[8, 12, 12], **options)
        network = read_dense_network(model, "initializer")

        def errors(h):
            return 1 / (1 + np.exp(-h)) - y[:, None]

        drawn = DrawnNetworks(tuple(network.nodes), X, 2, errors, np.random.default_rng(0))
        found = {weight.path: one for weight, one in network.parameters.items()}
        parameters = {id(v): found[v.path] for v in model.trainable_variables}
        # In the first layer only X Wᵀ equals Keras's: its 20 columns are represented by 10.
        root = np.linalg.lstsq(X.astype(np.float64), drawn._x[0][0], rcond=None)[0]
        for variable in model.trainable_variables:
            if variable.name == "kernel":
                W = drawn._weights[parameters[id(variable)].place][1]
                variable.assign(root @ W if len(W) == 10 else W)
        found = kgrad.measure_gradients(model, X, y)["l2_norm"][0]
        for variable, norm in zip(model.trainable_variables, found, strict=True):
            squares = drawn.norm_squared(parameters[id(variable)])
            assert np.sqrt(squares[1]) == pytest.approx(norm, rel=1e-3, abs=1e-6)


def test_drawn_networks_whose_errors_die_out_are_the_same_in_float32():
    """∂L/∂W of 1e-40 and less, where float32 rounds 1e-38 to 0, with another unit of errors."""
    nodes = [Input()]
    for _ in range(44):
        nodes += [
            Dense(len(nodes) - 1, 16, 0.005),
            Unit(len(nodes), UnitMap(after=theory.activation("sigmoid"))),
        ]
    nodes = (*nodes, Dense(len(nodes) - 1, 1, 0.1))
    X, _ = batch(10)
    exact, small = (
        DrawnNetworks(nodes, X, 3, np.ones_like, np.random.default_rng(0), dtype, unit)
        for dtype, unit in ((np.float64, 1.0), (np.float32, 1e16))
    )
    for place in (1, 45, 89):
        squares = exact.norm_squared(Parameter("kernel", place))
        np.testing.assert_allclose(
            small.norm_squared(Parameter("kernel", place)), squares, rtol=1e-4
        )
        assert (squares[0] < 1e-80) == (place == 1)


def test_networks_are_narrowed_with_the_variance_of_their_signals_kept():
    nodes = (Input(), Dense(0, 256, 0.1), Unit(1, UnitMap(after=TANH)), Dense(2, 128, 0.02, 0.3))
    nodes = (*nodes, Dense(3, 3, 0.01))
    found, factor = narrowed(nodes)
    assert factor == 4
    assert found == (
        nodes[0],
        Dense(0, 64, 0.1),
        nodes[2],
        Dense(2, 32, 0.08, 0.3),
        Dense(3, 3, 0.04),
    )
    assert narrowed(found) == (found, 1)


@pytest.mark.parametrize("width", [40, 160])
def test_the_band_is_as_wide_as_single_networks_scatter(width):
    """Hanin & Nica 2018: ln‖g‖² of one sample has variance 5 Σ 1/n if the error is constant."""
    model = kgrad.create_model(
        6, "relu", "he", units=width, input_shape=(1000,), output_activation=None
    )
    X = np.random.default_rng(0).normal(size=(1, 1000))
    # An error that hardly depends on the output, and only one sample.
    found = kgrad.predict_gradients(model, X, np.array([1e6]), loss="mse")
    spread = np.log(found.upper["l2_norm"] / found.lower["l2_norm"])[0, ::2][:6]
    np.testing.assert_allclose(spread, 1.96 * np.sqrt(5 * 6 / width), rtol=0.25)


def test_what_passes_down_is_what_was_sent_up():
    """n ⟨Q, G⟩ of a weight is the same at every cut through a network with skip connections."""
    X, _ = batch(10)
    model = kgrad.create_model(
        4, "relu", "he", units=[16, 24, 24, 24], normalization="batch", skip_connections=True
    )
    network = read_dense_network(model, "initializer")
    moments = BatchMoments(tuple(network.nodes), X)
    gradients = NetworkGradients(moments, np.random.default_rng(0).normal(size=(3, 10, 1)))
    adjoint = moments.forward_adjoint(1, moments.A[0])
    last = len(network.nodes) - 1
    assert any(isinstance(node, Add) for node in network.nodes)
    sent = moments.widths[1] * np.sum(adjoint[1] * gradients.G[1])
    arrived = moments.widths[last] * np.sum(adjoint[last] * gradients.G[last])
    assert arrived == pytest.approx(sent, rel=1e-9)


@pytest.mark.parametrize(
    ("activation", "depth", "level", "small"),
    [("relu", 30, 0.1, 0.01), ("relu", 100, 0.14, 0.05), ("tanh", 30, 0.01, 0.002)],
)
def test_signals_that_die_out_are_followed_to_the_end(activation, depth, level, small):
    """If weights are s times as large, each gradient is s^depth times as large.

    This holds for ReLU, and for tanh where it is almost linear.
    """
    X, y = batch(32)
    found = []
    for stddev in (level, small):
        weights = keras.initializers.RandomNormal(stddev=stddev)
        model = kgrad.create_model(depth, activation, weights, seed=0)
        one = kgrad.predict_gradients(model, X, y, "binary_crossentropy", rough=True)
        kernels = [weight.name == "kernel" for weight in one.weights]
        found.append([part["l2_norm"][0, kernels] for part in (one, one.lower, one.upper)])
    for before, after in zip(*found, strict=True):
        expected = np.log(before) + depth * np.log(small / level)
        np.testing.assert_allclose(np.log(after), expected, atol=0.01)


def test_a_signal_whose_square_float32_does_not_hold_has_a_band():
    X, y = batch(32)
    large = keras.initializers.RandomNormal(stddev=20)
    stack = [LAYERS.Dense(32, "relu", kernel_initializer=large) for _ in range(10)]
    end = [LAYERS.Dense(32), LAYERS.BatchNormalization(), LAYERS.Activation("tanh")]
    model = keras.Sequential([keras.Input((20,)), *stack, *end, LAYERS.Dense(1, "sigmoid")])
    with np.errstate(over="raise"):
        found = kgrad.predict_gradients(model, X, y, "binary_crossentropy", rough=True)
    some = found["l2_norm"] > 0
    assert (found.upper["l2_norm"][some] > 1.2 * found.lower["l2_norm"][some]).all()


@pytest.mark.parametrize(
    "ones",
    [
        keras.initializers.Constant(np.ones(64)),
        keras.initializers.Constant(1.0),
        lambda shape, dtype=None: np.ones(shape, dtype),
    ],
)
def test_whatever_begins_at_one_may_be_a_gamma(ones):
    X, y = batch(8)
    model = keras.Sequential([keras.Input((20,)), LAYERS.Dense(64)])
    model.add(LAYERS.BatchNormalization(gamma_initializer=ones, name="norm"))
    model.add(LAYERS.Dense(1, "sigmoid"))
    assert np.isfinite(kgrad.predict_gradients(model, X, y, "mse", rough=True)["l2_norm"]).all()
    model.get_layer("norm").gamma.assign(np.full(64, 3.0))
    with pytest.raises(ValueError, match="gamma of layer 'norm' must be 1 everywhere"):
        kgrad.predict_gradients(model, X, y, "mse", variances="weights")

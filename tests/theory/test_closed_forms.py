"""Gradients that the tracker measures, in cases with a known closed form.

An error δ_t is read from the gradient of weights that a known input passes once: of a kernel after
one-hot samples, one row per sample, or of a bias.
"""

from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf

import kgrad
from kgrad import theory

LAYERS, KINDS = keras.layers, keras.initializers
SMALL = 1e-3  # of an input: tanh is linear there


def product(y, p):
    """Return a loss whose gradient with respect to p is y."""
    return keras.ops.sum(y * p, axis=-1)


def tracked(model, X, y):
    """Return the history of one epoch of one full batch, with a learning rate of 0."""
    tracker = kgrad.GradientTracker()
    model.compile(keras.optimizers.SGD(0.0), product)
    model.fit(X, y, batch_size=len(X), epochs=1, callbacks=[tracker], verbose=0)
    return tracker.history


def norm(history, name):
    (at,) = [i for i, w in enumerate(history.weights) if f"{w.layer}/{w.name}" == name]
    return history["l2_norm"][0, at]


def pulses(n, steps):
    """Return sequences: sample k has SMALL in input k at the first step, and 0 afterwards."""
    X = np.zeros((n, steps, n), "float32")
    X[:, 0] = SMALL * np.eye(n)
    return X


@pytest.mark.parametrize("activation", ["linear", "tanh"])
@pytest.mark.parametrize(("gain", "expected"), [(0.9, 0.121577), (1.0, 1.0), (1.1, 6.72750)])
def test_an_orthogonal_recurrence_carries_errors_by_its_gain_to_the_power_of_the_steps(
    activation, gain, expected
):
    n, steps = 16, 20
    inputs = keras.Input((steps + 1, n))
    recurrent = KINDS.Orthogonal(gain, seed=1)
    layer = LAYERS.SimpleRNN(n, activation, recurrent_initializer=recurrent, name="rnn")
    model = keras.Model(inputs, layer(inputs))
    history = tracked(model, pulses(n, steps + 1), np.eye(n, dtype="float32"))
    # Each row of the kernel's gradient is a row of ∂h_T/∂h_0; the loss is a mean of n samples.
    found = norm(history, "rnn/kernel") * n / SMALL / np.sqrt(n)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("forget", "f"), [(True, 0.731059), (False, 0.5)])
def test_an_lstm_at_rest_forgets_slower_than_its_forget_gate(forget, f):
    n, steps = 32, 20
    inputs = keras.Input((steps, n))
    recurrent = KINDS.Orthogonal(seed=1)
    layer = LAYERS.LSTM(n, unit_forget_bias=forget, recurrent_initializer=recurrent, name="lstm")
    model = keras.Model(inputs, layer(inputs))
    U_g = np.asarray(layer.cell.recurrent_kernel)[:, 2 * n : 3 * n].astype(np.float64)
    step = f * np.eye(n) + 0.25 * U_g
    expected = np.linalg.norm(np.linalg.matrix_power(step, steps - 1)) * f / np.sqrt(n)
    # tanh(g) enters c by ½, and c leaves in h by ½.
    history = tracked(model, pulses(n, steps), np.eye(n, dtype="float32"))
    found = norm(history, "lstm/kernel") * n / SMALL / 0.25 * f / np.sqrt(n)
    assert found == pytest.approx(expected, rel=1e-3)
    if forget:
        assert found == pytest.approx(0.01826, rel=0.15)
        assert found > 8 * f**steps  # which is 0.00190


@pytest.mark.parametrize(
    ("gain", "current", "rate"), [(1.0, 0.25, 0.7615), (1.0, 1.0, 0.6316), (1.2, 0.25, 0.8647)]
)
def test_an_input_current_makes_a_tanh_recurrence_forget(gain, current, rate):
    n, steps = 256, 24
    norms = []
    for pulse in (10, 20):
        inputs = keras.Input((steps, n + 1))
        probe = LAYERS.Dense(n, use_bias=False, kernel_initializer="zeros", name="probe")
        recurrent = KINDS.Orthogonal(gain, seed=1)
        rnn = LAYERS.SimpleRNN(
            n, kernel_initializer="identity", recurrent_initializer=recurrent, name="rnn"
        )
        model = keras.Model(inputs, rnn(inputs[:, :, :n] + probe(inputs[:, :, n:])))
        random = np.random.default_rng(0)
        X = np.zeros((1, steps, n + 1), "float32")
        X[0, :, :n] = random.normal(size=(steps, n)) * np.sqrt(current)
        X[0, pulse, n] = 1
        y = random.normal(size=(1, n)).astype("float32")
        norms.append(norm(kgrad.measure_gradients(model, X, y, product), "probe/kernel"))
    assert (norms[0] / norms[1]) ** (1 / 10) == pytest.approx(rate, rel=0.02)


# He et al. 2015: input channels of conv2 to conv10 of their small model, with filters of 3 × 3.
CHANNELS = (64, 128, 128, 256, 256, 512, 512, 512, 512)


def test_he_s_standard_deviations():
    found = []
    for channels in (64, 128, 256, 512):
        layer = LAYERS.Conv2D(64, 3, kernel_initializer="he_normal")
        layer.build((None, 8, 8, channels))
        found.append(np.std(layer.kernel))
    np.testing.assert_allclose(found, [0.059, 0.042, 0.029, 0.021], atol=6e-4)


def convolutions(deviation):
    """Ten convolutions with a tenth of the channels, so that the test is quick."""
    inputs = keras.Input((20, 20, 3))
    x = LAYERS.Conv2D(CHANNELS[0] // 10, 1, activation="relu", name="conv1")(inputs)
    random = np.random.default_rng(0)
    for i, (channels, following) in enumerate(pairwise([*CHANNELS, 512])):
        n, m = channels // 10, following // 10
        layer = LAYERS.Conv2D(m, 3, activation="relu", name=f"conv{i + 2}")
        x = layer(x)
        # Scaled to ten times as many channels.
        wide = np.sqrt(2 / (9 * channels)) if deviation is None else deviation
        kernel = random.normal(size=(3, 3, n, m)) * wide * np.sqrt(channels / n)
        layer.kernel.assign(kernel.astype("float32"))
    return keras.Model(inputs, LAYERS.Flatten()(x))


def test_a_standard_deviation_of_001_shrinks_he_s_gradient_17000_times():
    """Bias gradients are compared: δ is scaled once by the weights of every layer above."""
    X = np.random.default_rng(1).normal(size=(2, 20, 20, 3)).astype("float32")
    ratios = []
    for deviation in (None, 0.01):
        keras.utils.set_random_seed(0)
        model = convolutions(deviation)
        y = np.random.default_rng(2).normal(size=(2, *model.output_shape[1:])).astype("float32")
        history = kgrad.measure_gradients(model, X, y, product)
        ratios.append(norm(history, "conv1/bias") / norm(history, "conv10/bias"))
    shrunk = np.prod([np.sqrt(2 / (9 * c)) / 0.01 for c in CHANNELS])
    assert shrunk == pytest.approx(16_729, rel=0.001)
    assert ratios[0] / ratios[1] == pytest.approx(shrunk, rel=1e-3)


def jacobian(model, z):
    z = tf.constant(z, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(z)
        answer = model(z)
    return tape.jacobian(answer, z)[0, :, 0].numpy()


@pytest.mark.parametrize(
    ("initializer", "expected"),
    [
        ("glorot_uniform", 8 / (3 * np.pi)),
        (KINDS.RandomUniform(-(400**-0.5), 400**-0.5, seed=1), 8 / (3 * np.pi * np.sqrt(3))),
    ],
)
def test_glorot_s_mean_singular_values(initializer, expected):
    """For ∂z'/∂z in a unit's linear range: 0.849 normalized, 0.490 standard (2010)."""
    layer = LAYERS.Dense(400, "tanh", kernel_initializer=initializer)
    J = jacobian(keras.Sequential([keras.Input((400,)), layer]), np.full((1, 400), 1e-6))
    assert np.linalg.svd(J, compute_uv=False).mean() == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("n", "expected"), [(2, 0.9249), (3, 0.6993), (5, 0.2485)])
def test_networks_that_are_born_dead_have_no_gradient(n, expected):
    """Expect 1 - (1 - 2⁻ⁿ)^9 for Keras networks with nine hidden layers and zero biases."""
    inputs = x = keras.Input((n,))
    layers = [LAYERS.Dense(n, "relu") for _ in range(9)]
    for layer in layers:
        x = layer(x)
    model, random, seeds = keras.Model(inputs, x), np.random.default_rng(0), 400

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(model(tf.ones((1, n))))
        return [tf.norm(g) for g in tape.gradient(value, [v.kernel.value for v in layers])]

    dead = []
    for _ in range(seeds):
        for layer in layers:
            layer.kernel.assign(random.normal(size=(n, n)).astype("float32"))
        dead.append(not np.any(step()))
    error = np.sqrt(expected * (1 - expected) / seeds)
    assert np.mean(dead) == pytest.approx(expected, abs=3 * error)
    history = kgrad.measure_gradients(model, np.ones((1, n)), np.ones((1, n)), product)
    assert (history["l2_norm"].max() == 0) == dead[-1]


def test_the_spectrum_of_a_keras_network_s_jacobian():
    """Pennington et al. 2017, linear layers: orthogonal weights keep every singular value at 1."""
    n, depth = 200, 4
    for orthogonal in (True, False):
        kind = KINDS.Orthogonal if orthogonal else KINDS.LecunNormal
        layers = [
            LAYERS.Dense(n, use_bias=False, kernel_initializer=kind(seed=i)) for i in range(depth)
        ]
        model = keras.Sequential([keras.Input((n,)), *layers])
        squares = np.linalg.svd(jacobian(model, np.ones((1, n))), compute_uv=False) ** 2
        mean, variance = theory.jacobian_moments(
            theory.activation("linear"), 1.0, 1.0, depth, orthogonal=orthogonal
        )
        assert (mean, variance) == pytest.approx((1.0, 0.0 if orthogonal else depth))
        assert squares.mean() == pytest.approx(1.0, rel=1e-4 if orthogonal else 0.05)
        assert squares.var() == pytest.approx(variance, rel=0.2, abs=1e-4)


def weight_times_gradient(model, X, y):
    """Return ⟨W, ∂L/∂W⟩ and ‖W‖‖∂L/∂W‖ of every kernel, from the norms before and after a step.

    |W - ηg|² = |W|² - 2η⟨W, g⟩ + |ηg|².
    """
    rate = 0.5
    before = [float(keras.ops.norm(v)) for v in model.trainable_variables]
    history = kgrad.train_and_track_gradients(
        model, X, y, 1, batch_size=len(X), optimizer=keras.optimizers.SGD(rate), loss=product
    )
    kernels = [i for i, w in enumerate(history.weights) if w.name == "kernel"]
    W, after, update = (
        np.array(one, np.float64)[kernels]
        for one in (before, history["weight_l2"][-1], history["update_l2"][-1])
    )
    inner = (W**2 - after**2 + update**2) / (2 * rate)
    return inner, W * update / rate


def test_weights_times_gradients_are_the_same_in_every_layer_of_a_relu_network(random):
    """Euler's theorem: with biases 0 the output is homogeneous in every kernel."""
    model = kgrad.create_model(
        5, "relu", "he", units=[20, 30, 40, 30, 20], output_units=3, output_activation=None
    )
    X, y = random.normal(size=(16, 20)), random.normal(size=(16, 3))
    inner, scale = weight_times_gradient(model, X, y)
    np.testing.assert_allclose(inner, inner[-1], atol=1e-4 * scale.max())
    assert abs(inner[-1]) > 1e-2 * scale.min()


def test_weights_times_gradients_vanish_before_a_normalization(random):
    model = kgrad.create_model(
        3, "relu", "he", units=40, output_activation=None, normalization="batch"
    )
    X, y = random.normal(size=(64, 20)), random.normal(size=(64, 1))
    inner, scale = weight_times_gradient(model, X, y)
    # Not quite, as ε does not scale with the weights.
    assert np.abs(inner[:-1] / scale[:-1]).max() < 3e-3
    assert abs(inner[-1] / scale[-1]) > 1e-2

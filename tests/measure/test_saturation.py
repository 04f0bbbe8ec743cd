"""Saturation against the derivative of each activation, written out in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kgrad.measure.backends.tensorflow.saturation import saturated_share


def logit(p):
    return np.log(p / (1 - p))


# σ' = σ(1 − σ) < 0.01 · 1/4 where σ is outside (1 ± √0.99) / 2
SIGMOID = logit((1 + np.sqrt(0.99)) / 2)
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

# activation → where it is flat, by the formula of its slope
FLAT = {
    "sigmoid": lambda z: abs(z) > SIGMOID,
    "tanh": lambda z: abs(z) > np.arctanh(np.sqrt(0.99)),  # 1 − tanh² < 0.01
    "relu": lambda z: z < 0,
    "relu6": lambda z: (z < 0) | (z > 6),
    "leaky_relu": lambda z: np.zeros(z.shape, bool),  # slope 0.2
    "elu": lambda z: z < np.log(0.01),  # exp(z) < 0.01
    "celu": lambda z: z < np.log(0.01),
    # the largest slope is λα, just left of 0, not λ; there it is λα exp(z)
    "selu": lambda z: z < np.log(0.01),
    "softplus": lambda z: z < logit(0.01),  # σ(z) < 0.01
    "log_sigmoid": lambda z: -z < logit(0.01),
    "softsign": lambda z: abs(z) > 9,  # 1 / (1 + |z|)² < 0.01
    "hard_sigmoid": lambda z: abs(z) > 3,
    "hard_tanh": lambda z: abs(z) > 1,
    "soft_shrink": lambda z: abs(z) < 0.5,
    "tanh_shrink": lambda z: np.tanh(z) ** 2 < 0.01,
    # (1 + z / √(z² + 4)) / 2 < 0.01 where z / √(z² + 4) < −0.98
    "squareplus": lambda z: z < -0.98 * 2 / np.sqrt(1 - 0.98**2),
    "linear": lambda z: np.zeros(z.shape, bool),
}


@pytest.fixture
def z(random):
    return random.uniform(-12, 12, size=(50, 8)).astype(np.float32)


@pytest.mark.parametrize("name", FLAT)
def test_it_is_the_share_of_inputs_where_the_slope_is_small(name, z):
    expected = np.mean(FLAT[name](z.astype(np.float64)))
    assert saturated_share(keras.activations.get(name), tf.constant(z)).numpy() == expected


def test_the_largest_slope_is_that_of_the_real_line_not_of_the_inputs():
    far = tf.constant([[7.0, 8.0, -9.0]])  # alike, and all flat
    assert saturated_share(keras.activations.sigmoid, far).numpy() == 1
    steep = tf.constant([[0.1, 0.2, -0.1]])
    assert saturated_share(keras.activations.sigmoid, steep).numpy() == 0


def test_a_slope_that_falls_is_as_steep_as_one_that_rises(z):
    # |−2z exp(−z²)| is largest at √½, both ways
    slope = abs(2 * z.astype(np.float64) * np.exp(-(z.astype(np.float64) ** 2)))
    expected = np.mean(slope < 0.01 * np.sqrt(2 / np.e))
    assert saturated_share(lambda z: tf.exp(-tf.square(z)), tf.constant(z)).numpy() == expected


def test_a_formula_may_fail_far_out(z):
    """The slope of exp(z) is infinite where it is not wanted, and 0 · ∞ is NaN."""
    expected = np.mean(z.astype(np.float64) < np.log(0.01))

    def elu(z):
        return tf.where(z > 0, z, tf.exp(z) - 1)

    assert saturated_share(elu, tf.constant(z)).numpy() == expected
    assert np.isnan(saturated_share(elu, tf.constant([[100.0]])).numpy())


def test_an_activation_may_have_parameters_of_its_own_for_every_unit(z):
    alpha = tf.constant([0.5, 0.001, 1.0, 0.0, 0.2, 0.009, 0.011, 2.0])
    expected = np.mean((z < 0) & (alpha.numpy() < 0.01 * 2))  # 2 is the largest slope of all

    def prelu(z):
        return tf.where(z > 0, z, alpha * z)

    assert saturated_share(prelu, tf.constant(z)).numpy() == expected


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (keras.activations.softmax, "mixes the units"),
        (lambda z: keras.activations.softmax(z, axis=1), "mixes the positions"),
        (lambda z: z - tf.reduce_mean(z), "mixes all entries"),
        (keras.activations.log_softmax, "mixes the units"),
        (keras.activations.sparsemax, "mixes the units"),
        (lambda z: z[..., ::2], "halves the units"),
        (keras.activations.exponential, "has no largest slope"),
        (tf.square, "has no largest slope"),
        (tf.sign, "has no slope"),
        (tf.zeros_like, "does not depend on its input"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("units", [2, 3, 8, 1000])
def test_it_is_nan_where_saturation_means_nothing(f, reason, units, random):
    z = tf.constant(random.normal(size=(3, 4, units)).astype(np.float32))
    assert np.isnan(saturated_share(f, z).numpy()), reason


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2, 3), (2, 30, 30, 4), (1, 4001)])
def test_inputs_may_have_any_shape(shape, random):
    z = random.uniform(-12, 12, size=shape).astype(np.float32)
    share = saturated_share(keras.activations.sigmoid, tf.constant(z))
    assert share.dtype == tf.float64
    assert share.numpy() == np.mean(abs(z) > SIGMOID)


def test_it_works_where_a_graph_does_not_know_the_length(z):
    function = tf.function(lambda z: saturated_share(keras.activations.tanh, z))
    unknown = function.get_concrete_function(tf.TensorSpec([None, None], tf.float32))
    assert unknown(tf.constant(z)).numpy() == np.mean(FLAT["tanh"](z.astype(np.float64)))


@pytest.mark.parametrize("f", ["relu", "sigmoid", "linear"])
def test_a_nan_among_the_inputs_shows(f):
    z = tf.constant([[1.0, np.nan]])
    assert np.isnan(saturated_share(keras.activations.get(f), z).numpy())


def test_infinite_inputs_are_flat():
    z = tf.constant([[np.inf, -np.inf, 0.5, 0.5]])
    assert saturated_share(keras.activations.tanh, z).numpy() == 0.5


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", FLAT)
def test_other_floats_give_nearly_the_same(name, dtype, z):
    share = saturated_share(keras.activations.get(name), tf.cast(z, dtype))
    # Near the bound a slope of few digits falls on either side: bfloat16 has 8 bits.
    expected = np.mean(FLAT[name](z.astype(np.float64)))
    assert share.dtype == tf.float64
    np.testing.assert_allclose(share.numpy(), expected, atol=0.06)

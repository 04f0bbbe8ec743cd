"""Saturation against the derivative of each activation, written out in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from kgrad.measure.saturation import count_saturated


def saturated_share(f, z, dtype="float32"):
    """The share of the entries; NaN where there is no count."""
    (count,) = count_saturated(f, [ops.convert_to_tensor(z, dtype)])
    assert keras.backend.standardize_dtype(count.dtype) == "int32"
    return np.nan if int(count) == -1 else int(count) / np.size(z)


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
    assert saturated_share(keras.activations.get(name), z) == expected


def test_the_largest_slope_is_that_of_the_real_line_not_of_the_inputs():
    far = np.float32([[7.0, 8.0, -9.0]])  # alike, and all flat
    assert saturated_share(keras.activations.sigmoid, far) == 1
    steep = np.float32([[0.1, 0.2, -0.1]])
    assert saturated_share(keras.activations.sigmoid, steep) == 0


def test_a_slope_that_falls_is_as_steep_as_one_that_rises(z):
    # |−2z exp(−z²)| is largest at √½, both ways
    slope = abs(2 * z.astype(np.float64) * np.exp(-(z.astype(np.float64) ** 2)))
    expected = np.mean(slope < 0.01 * np.sqrt(2 / np.e))
    assert saturated_share(lambda z: ops.exp(-ops.square(z)), z) == expected


def test_a_formula_may_fail_far_out(z):
    """The slope of exp(z) is infinite where it is not wanted, and 0 · ∞ is NaN."""
    expected = np.mean(z.astype(np.float64) < np.log(0.01))

    def elu(z):
        return ops.where(z > 0, z, ops.exp(z) - 1)

    assert saturated_share(elu, z) == expected
    assert np.isnan(saturated_share(elu, np.float32([[100.0]])))


def test_an_activation_may_have_parameters_of_its_own_for_every_unit(z):
    alpha = np.float32([0.5, 0.001, 1.0, 0.0, 0.2, 0.009, 0.011, 2.0])
    expected = np.mean((z < 0) & (alpha < 0.01 * 2))  # 2 is the largest slope of all

    def prelu(z):
        return ops.where(z > 0, z, ops.convert_to_tensor(alpha) * z)

    assert saturated_share(prelu, z) == expected


@pytest.mark.parametrize(
    ("f", "reason"),
    [
        (keras.activations.softmax, "mixes the units"),
        (lambda z: keras.activations.softmax(z, axis=1), "mixes the positions"),
        (lambda z: z - ops.mean(z), "mixes all entries"),
        (keras.activations.log_softmax, "mixes the units"),
        (keras.activations.sparsemax, "mixes the units"),
        (lambda z: z[..., ::2], "halves the units"),
        (keras.activations.exponential, "has no largest slope"),
        (ops.square, "has no largest slope"),
        (ops.sign, "has no slope"),
        (ops.zeros_like, "does not depend on its input"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("units", [2, 3, 8, 1000])
def test_it_is_nan_where_saturation_means_nothing(f, reason, units, random):
    z = random.normal(size=(3, 4, units))
    assert np.isnan(saturated_share(f, z)), reason


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2, 3), (2, 30, 30, 4), (1, 4001)])
def test_inputs_may_have_any_shape(shape, random):
    z = random.uniform(-12, 12, size=shape).astype(np.float32)
    share = saturated_share(keras.activations.sigmoid, z)
    assert share == np.mean(abs(z) > SIGMOID)


@pytest.mark.parametrize("f", ["relu", "sigmoid", "linear"])
def test_a_nan_among_the_inputs_shows(f):
    z = np.float32([[1.0, np.nan]])
    assert np.isnan(saturated_share(keras.activations.get(f), z))


def test_infinite_inputs_are_flat():
    z = np.float32([[np.inf, -np.inf, 0.5, 0.5]])
    assert saturated_share(keras.activations.tanh, z) == 0.5


# JAX has float64 only where it is switched on, for everything.
FLOATS = ["float16", "bfloat16"] + ["float64"] * (keras.backend.backend() != "jax")


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", FLAT)
def test_other_floats_give_nearly_the_same(name, dtype, z):
    share = saturated_share(keras.activations.get(name), z, dtype)
    # Near the bound a slope of few digits falls on either side: bfloat16 has 8 bits.
    expected = np.mean(FLAT[name](z.astype(np.float64)))
    np.testing.assert_allclose(share, expected, atol=0.06)


def test_several_inputs_are_counted_one_by_one(random):
    z = random.uniform(-12, 12, size=(3, 20, 4)).astype(np.float32)
    z[1, 0, 0] = np.nan
    counts = count_saturated(keras.activations.tanh, [ops.convert_to_tensor(one) for one in z])
    expected = np.sum(abs(z) > np.arctanh(np.sqrt(0.99)), axis=(1, 2))  # 1 − tanh² < 0.01
    assert ops.convert_to_numpy(counts).tolist() == [expected[0], -1, expected[2]]

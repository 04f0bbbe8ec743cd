"""kgrad's theory, compared with closed forms, exact values, published tables and simulations.

The simulated networks are in NumPy and share only φ and φ' with the tested code; these are first
compared with Keras and its automatic differentiation.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import multivariate_normal

from kgrad import theory
from kgrad.theory.activations import _TABLE

RELU, TANH, ERF = (theory.activation(name) for name in ("relu", "tanh", "erf"))


def stack(phi, widths, sigma_w2, sigma_b2=0.0):
    """Return a stack with σ_w² = fan-in · v and the same φ in every layer."""
    depth = len(widths) - 1
    variances = tuple(sigma_w2 / n for n in widths[:-1])
    return theory.DenseStack(widths, variances, (phi,) * (depth - 1), (sigma_b2,) * depth)


def simulate(network, X, errors, random):
    """Return ∂L/∂W^l, ∂L/∂b^l and δ^l of a drawn network; L is the mean of losses with `errors`."""
    x, h, weights = [X], [], []
    for i, v in enumerate(network.weight_variances):
        shape = network.widths[i], network.widths[i + 1]
        weights.append(random.normal(size=shape) * np.sqrt(v))
        b = random.normal(size=shape[1]) * np.sqrt(network.bias_variances[i])
        h.append(x[-1] @ weights[-1] + b)
        if i < len(network.activations):
            x.append(network.activations[i].f(h[-1]))
    deltas = [errors]
    for W, u, phi in zip(weights[:0:-1], h[-2::-1], network.activations[::-1], strict=True):
        deltas.insert(0, (deltas[0] @ W.T) * phi.df(u))
    of_weights = [a.T @ d / len(X) for a, d in zip(x, deltas, strict=True)]
    return of_weights, [d.mean(axis=0) for d in deltas], deltas


# Activation functions


def keras_function(name):
    return keras.ops.erf if name == "erf" else getattr(keras.activations, name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [(name, {}) for name in _TABLE]
    + [
        ("leaky_relu", {"negative_slope": 0.05}),
        ("elu", {"alpha": 0.7}),
        ("celu", {"alpha": 2.0}),
        ("gelu", {"approximate": True}),
        ("hard_shrink", {"threshold": 1.5}),
        ("soft_shrink", {"threshold": 1.5}),
        ("squareplus", {"b": 1.0}),
    ],
)
def test_each_function_and_its_slope_are_keras_s(name, parameters):
    x = np.linspace(-8, 8, 999) + 1e-3  # not at a kink
    u = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(u)
        expected = keras_function(name)(u, **parameters)
    phi = theory.activation(name, **parameters)
    # Keras holds some of its constants in float32.
    np.testing.assert_allclose(phi.f(x), expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(phi.df(x), tape.gradient(expected, u), rtol=1e-6, atol=2e-7)


def test_keras_has_no_elementwise_function_that_is_missing():
    not_elementwise = {"softmax", "log_softmax", "glu", "sparsemax"}
    grows_too_fast, no_defaults = {"exponential"}, {"threshold"}
    no_functions = {"get", "serialize", "deserialize", "stft"}
    for name in set(dir(keras.activations)) - not_elementwise - grows_too_fast - no_defaults:
        if name.islower() and name[0] != "_" and name not in no_functions:
            theory.activation(name)


# In sparse_plus only φ'' jumps at ±1, which is not searched for.
@pytest.mark.parametrize("name", sorted(set(_TABLE) - {"sparse_plus"}))
def test_of_a_plain_function_slope_and_kinks_are_found(name):
    phi = theory.activation(name)
    plain = theory.activation(lambda x: phi.f(x))
    x = np.linspace(-6, 6, 241) + 1e-3
    np.testing.assert_allclose(plain.df(x), phi.df(x), rtol=0, atol=3e-11)
    assert set(plain.kinks) == {0.0, *phi.kinks}
    for q in (0.5, 4.0):
        moments = theory.second_moment(phi, q), theory.squared_slope(phi, q)
        found = theory.second_moment(plain, q), theory.squared_slope(plain, q)
        assert found == pytest.approx(moments, rel=1e-10)


def test_a_kink_that_is_given_is_not_searched_for():
    plain = theory.activation(lambda x: 3 + np.maximum(x - 30.5, 0), kinks=[30.5])
    assert plain.kinks == (30.5,)
    x = 30.5 + np.array([-1e-4, -1e-9, -1e-13, 1e-13, 1e-9, 1e-4])
    np.testing.assert_allclose(plain.df(x), [0, 0, 0, 1, 1, 1], atol=1e-6)


def test_a_slope_that_is_given_is_used():
    assert theory.activation(np.tanh, derivative=np.cos).df is np.cos


@pytest.mark.parametrize("name", ["ReLU", "leaky relu", "Hard-Swish", "logistic", "identity"])
def test_names_are_taken_as_people_write_them(name):
    known = {"Hard-Swish": "hard_silu", "logistic": "sigmoid", "identity": "linear"}
    expected = known.get(name, name.lower().replace(" ", "_"))
    assert theory.activation(name).name == expected


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: theory.activation("rleu"), ValueError, "received 'rleu'; did you mean 'relu'"),
        (lambda: theory.activation("softmax"), ValueError, "phi must be one of celu, elu, erf"),
        (
            lambda: theory.activation("elu", slope=1),
            ValueError,
            "elu takes alpha, received slope=1",
        ),
        (
            lambda: theory.activation("tanh", alpha=1),
            ValueError,
            "tanh takes no parameters, received alpha=1",
        ),
        (lambda: theory.activation(3), TypeError, "phi must be a name .* received 3"),
        (lambda: theory.activation(np.sum), ValueError, r"numbers from -2 to 2 to shape \(\)"),
        (lambda: theory.activation(np.tanh, alpha=1), ValueError, "bind them in the function"),
        (lambda: theory.activation("relu", kinks=[0]), ValueError, "belong to a function"),
        (lambda: theory.DenseStack((3,), (), ()), ValueError, r"widths must .* received \(3,\)"),
        (lambda: theory.DenseStack((3, 0), (1,), ()), ValueError, "each 1 or more"),
        (
            lambda: theory.DenseStack((3, 2), (1,), (TANH,)),
            ValueError,
            "activations must hold 0 entries for 1 layers, received 1: none for the last layer",
        ),
        (
            lambda: theory.DenseStack((3, 2), (-1,), ()),
            ValueError,
            "weight_variances must be finite numbers of at least 0, received -1",
        ),
        (lambda: theory.propagate(stack(TANH, (3, 2), 1), np.nan), ValueError, "a_0 must be"),
        (
            lambda: theory.propagate_batch(stack(TANH, (3, 2), 1), np.eye(2), np.eye(3)),
            ValueError,
            r"have the same shape \(B, B\), received \(2, 2\) and \(3, 3\)",
        ),
        (
            lambda: theory.mean_abs_gradients(stack(TANH, (3, 2), 1), np.eye(3), np.eye(3)),
            ValueError,
            r"the shapes \(B, 3\) and \(B, 2\), received \(3, 3\) and \(3, 3\)",
        ),
        (
            lambda: theory.pair_expectation(np.tanh, np.tanh, 1.0, 1.0, 1.5),
            ValueError,
            "c must be correlations from -1 to 1, received 1.5",
        ),
        (lambda: theory.fixed_point(TANH, -1.0), ValueError, "sigma_w2 must be"),
        (
            lambda: theory.critical_point(RELU, 0.1),
            ValueError,
            "sigma_b2 must be one at which relu has a critical σ_w², received 0.1",
        ),
        (
            lambda: theory.batch_norm_relu_rate(3),
            ValueError,
            "batch_size must be an integer of at least 4 .* received 3",
        ),
    ],
)
def test_bad_input_is_refused_in_a_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


# Quadrature


# E[φ(√q z)²] and E[φ'(√q z)²], mpmath with 30 digits.
HIGH_PRECISION = [
    ("tanh", 0.3, 0.19726338750221825, 0.68587155289605394),
    ("tanh", 1.0, 0.39429449039784117, 0.46440290244826824),
    ("tanh", 20.0, 0.82510712643882568, 0.11799636699615206),
    ("sigmoid", 0.3, 0.26641131826237191, 0.054988873901290319),
    ("sigmoid", 1.0, 0.29337903585809296, 0.044836241350194372),
    ("sigmoid", 20.0, 0.41711122125502774, 0.014414085976385483),
    ("gelu", 0.3, 0.10354028684143443, 0.36872610764542639),
    ("gelu", 1.0, 0.42522148257029867, 0.45585086564928712),
    ("gelu", 20.0, 9.9606224964948342, 0.51015591808612137),
    ("silu", 0.3, 0.088594406029021818, 0.30816109476376204),
    ("silu", 1.0, 0.35577551981735216, 0.37948235163282931),
    ("silu", 20.0, 9.7805192704368097, 0.50620951083989886),
    ("softplus", 0.3, 0.60942892931521233, 0.26641131826237191),
    ("softplus", 1.0, 0.92124590885930028, 0.29337903585809296),
    ("softplus", 20.0, 10.192605796606302, 0.41711122125502774),
    ("selu", 0.3, 0.38393087237713083, 1.3216616618554462),
    ("selu", 1.0, 1.0, 1.0715749924557993),
    ("selu", 20.0, 12.194143280374377, 0.68818820528936515),
    ("hard_sigmoid", 0.3, 0.25833333263401572, 0.027777776577649151),
    ("hard_sigmoid", 1.0, 0.2776390910565126, 0.027702783442687217),
    ("hard_sigmoid", 20.0, 0.41462231232966997, 0.013824029045541609),
    ("hard_silu", 0.3, 0.082499992889919559, 0.28333329813258993),
    ("hard_silu", 1.0, 0.33156737513790769, 0.35853151717860524),
    ("hard_silu", 20.0, 9.8539891961751772, 0.53173803354830331),
    ("softsign", 0.3, 0.095830014514405316, 0.35499663949249583),
    ("softsign", 1.0, 0.1830140212665475, 0.2276713404221825),
    ("softsign", 20.0, 0.50887317145967328, 0.058480350750219497),
]


@pytest.mark.parametrize(("name", "q", "of_f", "of_df"), HIGH_PRECISION)
def test_moments_equal_high_precision_values(name, q, of_f, of_df):
    phi = theory.activation(name)
    assert theory.second_moment(phi, q) == pytest.approx(of_f, rel=1e-12)
    assert theory.squared_slope(phi, q) == pytest.approx(of_df, rel=1e-12)


@pytest.mark.parametrize("q", [0.0, 1e-8, 0.1, 1.0, 30.0, 1e4, 1e8])
def test_moments_of_erf_and_relu_equal_their_closed_forms_at_every_scale(q):
    erf_f, erf_df = 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)), 4 / np.pi / np.sqrt(1 + 4 * q)
    assert theory.second_moment(ERF, q) == pytest.approx(erf_f, rel=1e-10)
    assert theory.squared_slope(ERF, q) == pytest.approx(erf_df, rel=1e-10)
    assert theory.second_moment(RELU, q) == pytest.approx(q / 2, rel=1e-12)
    assert theory.squared_slope(RELU, q) == pytest.approx(0.5, rel=1e-12)


def arc_cosine(c):
    """Return Cho & Saul's J of order 1 (2009), and π times the orthant probability."""
    angle = np.arccos(c)
    return (np.sin(angle) + (np.pi - angle) * c) / (2 * np.pi), (np.pi - angle) / (2 * np.pi)


CORRELATIONS = [-1.0, -0.999, -0.5, 0.0, 0.3, 0.9, 0.999999, 1.0]


@pytest.mark.parametrize("c", CORRELATIONS)
@pytest.mark.parametrize(("q_a", "q_b"), [(1.0, 1.0), (0.01, 3.0), (90.0, 100.0)])
def test_pairs_of_relu_and_erf_equal_their_closed_forms(c, q_a, q_b):
    of_f, of_df = arc_cosine(c)
    f, df = (
        theory.pair_expectation(g, g, q_a, q_b, c, RELU.kinks).item() for g in (RELU.f, RELU.df)
    )
    assert f == pytest.approx(np.sqrt(q_a * q_b) * of_f, rel=1e-10, abs=1e-12)
    assert df == pytest.approx(of_df, rel=1e-10, abs=1e-12)
    norms, k = (1 + 2 * q_a) * (1 + 2 * q_b), c * np.sqrt(q_a * q_b)
    f, df = (theory.pair_expectation(g, g, q_a, q_b, c).item() for g in (ERF.f, ERF.df))
    assert f == pytest.approx(2 / np.pi * np.arcsin(2 * k / np.sqrt(norms)), rel=1e-10, abs=1e-13)
    assert df == pytest.approx(4 / np.pi / np.sqrt(norms - 4 * k**2), rel=1e-10)


@pytest.mark.parametrize(
    ("name", "q_a", "q_b", "c", "of_f", "of_df"),
    [  # mpmath with 20 digits
        ("tanh", 1.0, 2.0, 0.5, 0.20960307942782, 0.308432310271723),
        ("tanh", 0.5, 0.5, -0.8, -0.215856274746277, 0.565745994624105),
        ("silu", 1.0, 2.0, 0.5, 0.27675240398231, 0.321128364051758),
        ("silu", 0.5, 0.5, -0.8, -0.0740191369113836, 0.182735138755746),
    ],
)
def test_pairs_equal_high_precision_values(name, q_a, q_b, c, of_f, of_df):
    phi = theory.activation(name)
    assert theory.pair_expectation(phi.f, phi.f, q_a, q_b, c).item() == pytest.approx(of_f, 1e-12)
    assert theory.pair_expectation(phi.df, phi.df, q_a, q_b, c).item() == pytest.approx(
        of_df, 1e-12
    )


@pytest.mark.parametrize("c", [-0.7, 0.2, 0.95, 0.9999])
@pytest.mark.parametrize(("q_a", "q_b"), [(1.0, 1.0), (9.0, 4.0), (30.0, 31.0)])
def test_kinks_away_from_0_are_met_in_pairs_too(c, q_a, q_b):
    """For hard_sigmoid, E[φ'φ'] is the probability of a box."""
    box = np.array([3 / np.sqrt(q_a), 3 / np.sqrt(q_b)])
    expected = multivariate_normal(cov=[[1, c], [c, 1]]).cdf(box, lower_limit=-box)
    phi = theory.activation("hard_sigmoid")
    found = theory.pair_expectation(phi.df, phi.df, q_a, q_b, c, phi.kinks).item()
    assert 36 * found == pytest.approx(expected, rel=1e-10)


def test_pairs_are_broadcast():
    found = theory.pair_expectation(np.tanh, np.tanh, [[1.0], [2.0]], 1.0, [0.1, 0.2, 0.3])
    assert found.shape == (2, 3)
    assert found[1, 2] == theory.pair_expectation(np.tanh, np.tanh, 2.0, 1.0, 0.3).item()


# The recursion


def test_a_network_of_unequal_widths_propagates_as_simulated():
    """The factor of |δ|² is n_l v_{l+1}; with n_{l+1} instead of n_l it would be 8 times off."""
    widths = (30, 240, 120, 480, 60, 10)
    variances = tuple(2.5 / (m + n) for m, n in itertools.pairwise(widths))
    network = theory.DenseStack(widths, variances, (TANH,) * 4, (0.05,) * 5)
    random = np.random.default_rng(0)
    x, error = random.normal(size=(1, 30)), random.normal(size=(1, 10))
    predicted = theory.propagate(network, np.mean(x**2), np.sum(error**2))
    runs = [simulate(network, x, error, random) for _ in range(60)]
    measured = [[np.sum(g**2) for g in weights] for weights, _, _ in runs]
    np.testing.assert_allclose(np.mean(measured, 0), predicted.weight_norm_squared, rtol=0.1)
    measured = [[np.sum(g**2) for g in biases] for _, biases, _ in runs]
    np.testing.assert_allclose(np.mean(measured, 0), predicted.bias_norm_squared, rtol=0.1)


@pytest.mark.parametrize(("name", "sigma_w2"), [("relu", 2.0), ("tanh", 1.5), ("gelu", 2.0)])
def test_mini_batch_gradients_are_as_large_as_simulated(name, sigma_w2):
    network = stack(theory.activation(name), (20, 200, 300, 200, 250, 3), sigma_w2, 0.02)
    random = np.random.default_rng(1)
    X, errors = random.normal(size=(16, 20)) + 0.5, random.normal(size=(16, 3))
    predicted = theory.propagate_batch(network, X @ X.T / 20, errors @ errors.T)
    runs = [simulate(network, X, errors, random) for _ in range(60)]
    measured = [[np.sum(g**2) for g in weights] for weights, _, _ in runs]
    np.testing.assert_allclose(np.mean(measured, 0), predicted.weight_norm_squared, rtol=0.08)
    measured = [[np.sum(g**2) for g in biases] for _, biases, _ in runs]
    np.testing.assert_allclose(np.mean(measured, 0), predicted.bias_norm_squared, rtol=0.08)


def test_a_batch_of_one_is_the_recursion_for_one_sample():
    network = stack(TANH, (20, 50, 40, 3), 1.5, 0.02)
    one = theory.propagate(network, 0.8, 1.7)
    batch = theory.propagate_batch(network, np.array([[0.8]]), np.array([[1.7]]))
    np.testing.assert_allclose(batch.weight_norm_squared, one.weight_norm_squared, rtol=1e-12)
    np.testing.assert_allclose(batch.bias_norm_squared, one.bias_norm_squared, rtol=1e-12)


def test_many_pairs_are_interpolated():
    """Compared with the same matrix in parts of 25 samples, which are not interpolated."""
    phi = theory.activation("hard_sigmoid")
    X = np.random.default_rng(0).normal(size=(50, 20))
    K = 1.5 * X @ X.T / 20
    many = theory.gram_moments(phi, K)
    for part in (slice(0, 25), slice(25, 50)):
        for interpolated, exact in zip(many, theory.gram_moments(phi, K[part, part]), strict=True):
            error = np.abs(interpolated[part, part] - exact).max() / exact.max()
            assert 0 < error < 0.02


@pytest.mark.parametrize("q", [0.01, 1.5, 20.0])
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("tanh", 1e-5), ("relu", 1e-6), ("gelu", 1e-3), ("selu", 5e-3), ("sigmoid", 1e-6)],
)
def test_all_pairs_of_a_batch_equal_their_integrals(name, tolerance, q):
    """The samples include equal, opposite and nearly equal ones, and multiples."""
    phi, X = theory.activation(name), np.random.default_rng(0).normal(size=(8, 20))
    X[1], X[2] = 1.3 * X[0], X[0] + 0.05 * X[3]
    X[4] = -X[0]
    K = q * X @ X.T / 20
    s = np.sqrt(np.diag(K))
    c = np.clip(K / np.outer(s, s), -1, 1)
    for found, f in zip(theory.gram_moments(phi, K), (phi.f, phi.df), strict=True):
        exact = theory.pair_expectation(f, f, s[:, None] ** 2, s**2, c, phi.kinks)
        assert np.abs(found - exact).max() < tolerance * np.abs(exact).max()


def test_the_frozen_values_of_neural_tangents_are_met():
    """Values of neural-tangents 0.6.5: ntk(x, x) in standard parameterization, (Θ' - K')/Θ."""
    widths = (50, *(256,) * 10, 1)
    relu = theory.propagate(stack(RELU, widths, 2.0), 1.0)
    assert relu.weight_norm_squared.sum() == pytest.approx(2610.0, rel=1e-9)
    of_erf = theory.propagate(stack(ERF, widths, 1.5), 1.0)
    assert of_erf.weight_norm_squared.sum() == pytest.approx(1493.19213, rel=4e-9)
    with_biases = theory.propagate(stack(ERF, widths, 1.5, 0.05), 1.0)
    factors = [theory.chi(ERF, q, 1.5) for q in with_biases.q[:5]]
    expected = [0.71176254, 0.90285211, 0.97634489, 1.00801717, 1.02232304]
    np.testing.assert_allclose(factors, expected, atol=5e-9)


def test_critical_tanh_is_flat_in_the_weights_and_a_power_law_in_the_errors():
    moments = theory.propagate(stack(TANH, (256,) * 51, 1.0), 1.0)
    assert round(moments.S[0] / moments.S[-1], 4) == 0.0146
    weight = moments.weight_norm_squared
    assert round(weight[0] / weight[-1], 2) == 1.40
    assert round(weight[-2] / weight[-1], 2) == 1.0


def test_errors_of_two_samples_come_apart_in_a_relu_network():
    """Orthogonal inputs give Π (1 - arccos(c_l)/π), 0.0337 after 10 layers, not 2⁻¹⁰."""
    moments = theory.propagate_batch(stack(RELU, (256,) * 12, 2.0), np.eye(2), np.ones((2, 2)))
    assert round(moments.S[0, 0, 1] / moments.S[0, 0, 0], 4) == 0.0337


def test_he_s_gradient_with_a_standard_deviation_of_001():
    """He et al. 2015: conv10 → conv2 shrinks 1.7 × 10⁴ times; channels and 3 × 3 filters."""
    channels = [64, *[128] * 2, *[256] * 2, *[512] * 4]
    fan_in = [9 * n for n in channels]
    rates = [theory.chi(RELU, 1.0, n * 0.01**2) for n in fan_in]
    assert round(1 / np.sqrt(np.prod(rates))) == 16729
    stds = [np.sqrt(theory.critical_point(RELU)[0] / (9 * n)) for n in (64, 128, 256, 512)]
    np.testing.assert_allclose(stds, [0.059, 0.042, 0.029, 0.021], atol=5e-4)


# Fixed points and depth scales


@pytest.mark.parametrize(
    ("name", "sigma_b2", "sigma_w2", "digits"),
    [
        ("relu", 0.0, 2.0, 10),
        ("tanh", 0.0, 1.0, 10),
        ("tanh", 0.04, 1.70080, 5),
        ("tanh", 0.05, 1.76095, 5),
        ("elu", 0.0, 1.0, 10),
        ("elu", 0.04, 1.51106, 5),
        ("erf", 0.0, np.pi / 4, 10),
        ("sigmoid", 0.0, 103.0, 1),
    ],
)
def test_critical_points(name, sigma_b2, sigma_w2, digits):
    found, q = theory.critical_point(theory.activation(name), sigma_b2)
    assert round(found - sigma_w2, digits) == 0
    if q > 0:
        phi = theory.activation(name)
        assert theory.variance_map(phi, q, found, sigma_b2) == pytest.approx(q, rel=1e-9)
        assert theory.chi(phi, q, found) == pytest.approx(1, rel=1e-12)


def test_critical_deviations_that_are_quoted():
    """σ_w at σ_b = 0.2, more accurate than Hayou et al.'s 1.302 and 1.227."""
    found = [theory.critical_point(theory.activation(n), 0.04)[0] for n in ("tanh", "elu")]
    assert np.sqrt(found).round(5).tolist() == [1.30415, 1.22925]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gelu", (1.98305826, 0.17292239, (3 + np.sqrt(17)) / 2)),
        ("silu", (1.98800468, 0.55514317, 14.320174)),
        ("relu", (2.0, 0.0, 0.0)),
        ("tanh", (1.0, 0.0, 0.0)),
        ("erf", (np.pi / 4, 0.0, 0.0)),
        ("elu", (1.0, 0.0, 0.0)),
    ],
)
def test_doubly_critical_points(name, expected):
    found = theory.doubly_critical_point(theory.activation(name))
    np.testing.assert_allclose(found[:2], expected[:2], rtol=0, atol=5e-9)
    assert found[2] == pytest.approx(expected[2], abs=5e-7)


@pytest.mark.parametrize(
    ("sigma_w2", "expected"),
    [
        (1.0, (0.19359, 0.75903, 3.63, 1, 3.63)),
        (1.5, (0.41804, 0.93864, 15.79, 1, 15.79)),
        (2.0, (0.72176, 1.04767, 21.48, 0.7441, 25.21)),
        (3.0, (1.42801, 1.20893, 5.27, 0.2993, 9.05)),
    ],
)
def test_the_table_of_tanh_at_a_bias_variance_of_005(sigma_w2, expected):
    functions = (
        theory.fixed_point,
        theory.chi_1,
        theory.gradient_depth_scale,
        theory.fixed_correlation,
        theory.correlation_depth_scale,
    )
    found = [function(TANH, sigma_w2, 0.05) for function in functions]
    assert [round(x, d) for x, d in zip(found, (5, 5, 2, 4, 2), strict=True)] == list(expected)


@pytest.mark.parametrize(
    ("name", "sigma_w2", "factor", "norm"),
    [
        ("tanh", 1, 1.0, 1.0),
        ("tanh", 2, 1.1055, 1.0514),
        ("sigmoid", 1, 0.05572, 0.2361),
        ("sigmoid", 2, 0.1010, 0.3178),
        ("relu", 2, 1.0, 1.0),
        ("relu", 1, 0.5, 0.7071),
        ("softplus", 1, 0.2887, 0.5373),
        ("selu", 1, 1.07157, 1.0352),
    ],
)
def test_rates_of_keras_s_initializers_in_square_layers(name, sigma_w2, factor, norm):
    found = theory.chi_1(theory.activation(name), sigma_w2)
    digits = len(str(factor).split(".")[1])
    assert round(found, digits) == factor
    assert round(np.sqrt(found), 4) == norm


def test_fixed_points_of_every_kind():
    q, factor = theory.fixed_point(TANH, 1.5), theory.chi_1(TANH, 1.5)
    assert (round(q, 6), round(factor, 6)) == (0.286894, 1.040568)
    for name in ("gelu", "silu"):
        for sigma_w2 in (1, 2):
            assert theory.fixed_point(theory.activation(name), sigma_w2) == 0
    assert theory.fixed_point(RELU, 2.0) == 1
    assert theory.fixed_point(RELU, 1.5, 0.1) == pytest.approx(0.1 / 0.25)
    assert theory.fixed_point(RELU, 2.0, 0.1) == np.inf
    assert theory.fixed_point(theory.activation("selu"), 1.0) == pytest.approx(1, abs=1e-12)
    assert theory.gradient_depth_scale(RELU, 2.0) == np.inf
    assert theory.fixed_correlation(RELU, 2.0) == 1
    assert np.isnan(theory.fixed_correlation(RELU, 3.0))
    assert np.isnan(theory.correlation_depth_scale(RELU, 3.0))


def test_the_variance_settles_as_fast_as_its_depth_scale_says():
    q = [1.2 * theory.fixed_point(TANH, 1.5, 0.05)]
    for _ in range(40):
        q.append(theory.variance_map(TANH, q[-1], 1.5, 0.05))
    q = np.array(q) - theory.fixed_point(TANH, 1.5, 0.05)
    measured = -1 / np.log(q[16] / q[15])
    assert theory.variance_depth_scale(TANH, 1.5, 0.05) == pytest.approx(measured, rel=1e-3)


def test_the_correlation_settles_as_fast_as_its_depth_scale_says():
    c, star = [0.9], theory.fixed_correlation(TANH, 3.0, 0.05)
    q = theory.fixed_point(TANH, 3.0, 0.05)
    for _ in range(60):
        c.append(theory.correlation_map(TANH, c[-1], q, 3.0, 0.05))
    measured = -1 / np.log((c[60] - star) / (c[59] - star))
    assert theory.correlation_depth_scale(TANH, 3.0, 0.05) == pytest.approx(measured, rel=1e-2)


# Finite width


@pytest.mark.parametrize(("n", "mean", "variance"), [(50, -1.035, 2.163), (100, -0.508, 1.039)])
def test_relu_networks_scatter_as_the_binomial_form_says(n, mean, variance):
    of_one = theory.relu_log_ratio(n)
    assert (round(20 * of_one[0], 3), round(20 * of_one[1], 3)) == (mean, variance)
    network = stack(RELU, (n,) * 22, 2.0)
    beta = theory.log_gradient_variance(network, 1.0)
    np.testing.assert_allclose(beta, 20 * 5 / n)


def test_relu_log_ratio_at_width_2_is_counted_by_hand():
    """K = 1 has weight 2/3: ln χ²_1; K = 2 has weight 1/3: ln χ²_2, with mean ln 2 - γ."""
    of_1, of_2 = -np.euler_gamma - np.log(2), np.log(2) - np.euler_gamma
    mean = 2 / 3 * of_1 + 1 / 3 * of_2
    variance = 2 / 3 * (np.pi**2 / 2 + of_1**2) + 1 / 3 * (np.pi**2 / 6 + of_2**2) - mean**2
    assert theory.relu_log_ratio(2) == pytest.approx((mean, variance))


@pytest.mark.parametrize(
    ("name", "sigma_w2", "sigma_b2"), [("relu", 2.0, 0.0), ("tanh", 2.5, 0.05), ("selu", 1.0, 0.0)]
)
def test_gradients_of_single_networks_scatter_as_predicted(name, sigma_w2, sigma_b2):
    widths = (50, 60, 80, 60, 100, 60, 10)
    network = stack(theory.activation(name), widths, sigma_w2, sigma_b2)
    random = np.random.default_rng(3)
    measured = []
    for _ in range(600):
        x, error = random.normal(size=(1, 50)), random.normal(size=(1, 10))
        x, error = x / np.sqrt(np.mean(x**2)), error / np.linalg.norm(error)
        weights, _, _ = simulate(network, x, error, random)
        measured.append([np.log(np.sum(g**2)) for g in weights])
    predicted = theory.log_gradient_variance(network, 1.0)
    np.testing.assert_allclose(np.var(measured, 0), predicted, rtol=0.2)


def test_networks_that_are_born_dead():
    probabilities = [theory.born_dead_probability(n, 9) for n in (2, 3, 5, 10)]
    assert [round(p, 4) for p in probabilities] == [0.9249, 0.6993, 0.2485, 0.0088]


# Single entries


@pytest.mark.parametrize("name", ["relu", "tanh"])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_entries_are_as_large_as_simulated(name, batch_size):
    network = stack(theory.activation(name), (20, 150, 200, 150, 1), 2.0, 0.02)
    random = np.random.default_rng(4)
    X = random.normal(size=(batch_size, 20)) + 0.3
    errors = random.choice([-0.5, 0.4], size=(batch_size, 1))
    predicted = theory.mean_abs_gradients(network, X, errors)
    runs = [simulate(network, X, errors, random) for _ in range(100)]
    for k in (0, 1):
        measured = np.mean([[np.abs(g).mean() for g in run[k]] for run in runs], axis=0)
        np.testing.assert_allclose(measured, predicted[k], rtol=0.06)


def test_entries_of_one_sample_through_tanh_are_a_product_in_closed_form():
    """E|g| = √(2/π) √(v S) E|φ'| E|x|; after a linear unit E|x| = √(2q/π)."""
    linear = theory.activation("linear")
    network = stack(linear, (4, 64, 64, 1), 1.5)
    X, errors = np.array([[1.0, -2.0, 0.5, 0.1]]), np.array([[0.3]])
    q = theory.propagate(network, np.mean(X**2)).q
    S_2 = 1.5 * 0.3**2  # |δ²|² = n_2 v_3 · 0.3²
    expected = 2 / np.pi * np.sqrt(S_2 / 64 * q[0])
    weight, _ = theory.mean_abs_gradients(network, X, errors, draws=20000)
    assert weight[1] == pytest.approx(expected, rel=0.02)


# Normalization, skips, spectra


@pytest.mark.parametrize(
    ("batch_size", "rate"),
    [(8, 1.78819), (16, 1.58995), (32, 1.52195), (64, 1.49306), (128, 1.47968)],
)
def test_batch_norm_with_relu(batch_size, rate):
    assert round(theory.batch_norm_relu_rate(batch_size), 5) == rate


def test_rates_of_normalized_networks():
    assert round(theory.batch_norm_linear_rate(8), 3) == 1.2
    assert theory.batch_norm_rate(RELU) == pytest.approx(np.pi / (np.pi - 1), rel=1e-12)
    assert theory.batch_norm_relu_rate(10**7) == pytest.approx(np.pi / (np.pi - 1), rel=1e-6)
    rates = [theory.layer_norm_rate(theory.activation(n)) for n in ("relu", "tanh", "gelu")]
    assert [round(rate, 4) for rate in rates] == [1.0, 1.1778, 1.0720]


def normalized_rate(phi, axis, B, random, n=200, layers=16):
    """Return the factor of |δ|² per layer: dense, norm over samples (0) or units (1), φ."""
    x, passed = random.normal(size=(B, n)), []
    for _ in range(layers):
        W = random.normal(size=(n, n)) * np.sqrt(1.7 / n)
        h = x @ W
        deviation = h.std(axis, keepdims=True)
        y = (h - h.mean(axis, keepdims=True)) / deviation
        passed.append((W, deviation, y))
        x = phi.f(y)
    d, norms = random.normal(size=(B, n)), []
    for W, deviation, y in reversed(passed):
        e = d * phi.df(y)
        e = e - e.mean(axis, keepdims=True) - y * (e * y).mean(axis, keepdims=True)
        norms.append(np.sum((e / deviation) ** 2))
        d = (e / deviation) @ W.T
    return (norms[-5] / norms[3]) ** (1 / (layers - 8))


@pytest.mark.parametrize(
    ("name", "axis", "B", "predicted"),
    [
        ("relu", 0, 16, lambda phi: theory.batch_norm_relu_rate(16)),
        ("linear", 0, 16, lambda phi: theory.batch_norm_linear_rate(16)),
        ("tanh", 0, 100, theory.batch_norm_rate),
        ("gelu", 0, 100, theory.batch_norm_rate),
        ("tanh", 1, 16, theory.layer_norm_rate),
        ("gelu", 1, 16, theory.layer_norm_rate),
    ],
)
def test_normalized_networks_grow_as_predicted(name, axis, B, predicted):
    phi, random = theory.activation(name), np.random.default_rng(5)
    measured = np.mean([normalized_rate(phi, axis, B, random) for _ in range(4)])
    assert measured == pytest.approx(predicted(phi), rel=0.025)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_a_residual_block_grows_as_predicted(name):
    phi, random, n, ratios = theory.activation(name), np.random.default_rng(6), 200, []
    for _ in range(60):
        W, V = random.normal(size=(2, n, n)) * np.sqrt([[[2 / n]], [[0.7 / n]]])
        h, d = W @ random.normal(size=n), random.normal(size=n)
        ratios.append(np.sum((d + W.T @ (phi.df(h) * (V.T @ d))) ** 2) / np.sum(d**2))
    predicted = theory.residual_rate(phi, 2.0, 2.0, 0.7)
    assert np.mean(ratios) == pytest.approx(predicted, rel=0.03)
    if name == "relu":
        assert predicted == pytest.approx(1.7)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize(("name", "sigma_w2"), [("tanh", 1.5), ("linear", 1.0)])
def test_the_spectrum_of_the_jacobian(name, sigma_w2, orthogonal):
    phi, random, n = theory.activation(name), np.random.default_rng(7), 150
    means, variances = [], []
    for _ in range(8):
        J = np.eye(n)
        for _ in range(3):
            W = random.normal(size=(n, n)) / np.sqrt(n)
            W = np.linalg.qr(W)[0] if orthogonal else W
            J = phi.df(random.normal(size=(n, 1)) * np.sqrt(0.6)) * W @ J * np.sqrt(sigma_w2)
        squares = np.linalg.svd(J, compute_uv=False) ** 2
        means.append(squares.mean())
        variances.append(squares.var())
    found = theory.jacobian_moments(phi, 0.6, sigma_w2, 3, orthogonal=orthogonal)
    assert np.mean(means) == pytest.approx(found[0], rel=0.05)
    assert np.mean(variances) == pytest.approx(found[1], rel=0.12, abs=1e-12)


def test_the_simulation_differentiates_as_tensorflow_does():
    """Most tests above depend on this simulation."""
    network = stack(TANH, (3, 5, 4, 2), 1.5, 0.1)
    random = np.random.default_rng(8)
    X, errors = random.normal(size=(6, 3)), random.normal(size=(6, 2))
    weights, biases, _ = simulate(network, X, errors, np.random.default_rng(9))
    again, variables, x = np.random.default_rng(9), [], tf.constant(X)
    with tf.GradientTape() as tape:
        for i, v in enumerate(network.weight_variances):
            shape = network.widths[i], network.widths[i + 1]
            W = tf.Variable(again.normal(size=shape) * np.sqrt(v))
            b = tf.Variable(again.normal(size=shape[1]) * np.sqrt(0.1))
            variables += [W, b]
            x = x @ W + b
            x = tf.tanh(x) if i < 2 else x
        loss = tf.reduce_sum(x * errors) / len(X)
    expected = tape.gradient(loss, variables)
    for found, kernel, bias in zip(
        zip(weights, biases, strict=True), expected[::2], expected[1::2], strict=True
    ):
        np.testing.assert_allclose(found[0], kernel, atol=1e-14)
        np.testing.assert_allclose(found[1], bias, atol=1e-14)

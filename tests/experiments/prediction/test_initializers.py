"""Variances of Keras's initializers and recommendations, against draws and closed forms."""

import keras
import numpy as np
import pytest

import kgrad
from kgrad import theory
from kgrad.experiments.prediction.initializers import initial_variance

KINDS = keras.initializers


@pytest.mark.parametrize(
    "initializer",
    [
        KINDS.GlorotUniform(seed=1),
        KINDS.GlorotNormal(seed=1),
        KINDS.HeUniform(seed=1),
        KINDS.HeNormal(seed=1),
        KINDS.LecunUniform(seed=1),
        KINDS.LecunNormal(seed=1),
        KINDS.RandomNormal(stddev=0.3, seed=1),
        KINDS.RandomUniform(-0.2, 0.2, seed=1),
        KINDS.TruncatedNormal(stddev=0.3, seed=1),
        KINDS.Orthogonal(gain=1.3, seed=1),
        KINDS.VarianceScaling(1.7, "fan_in", "untruncated_normal", seed=1),
        KINDS.VarianceScaling(1.7, "fan_out", "truncated_normal", seed=1),
        KINDS.VarianceScaling(1.7, "fan_avg", "uniform", seed=1),
    ],
    ids=lambda one: type(one).__name__,
)
@pytest.mark.parametrize("shape", [(300, 200), (150, 400)])
def test_the_variance_is_that_of_what_is_drawn(initializer, shape):
    drawn = np.asarray(initializer(shape), np.float64)
    assert initial_variance(initializer, shape) == pytest.approx(np.mean(drawn**2), rel=0.02)


@pytest.mark.parametrize("initializer", [KINDS.Zeros(), KINDS.Constant(0.0)])
def test_what_starts_at_0_has_no_variance(initializer):
    assert initial_variance(initializer, (5,)) == 0


@pytest.mark.parametrize(
    ("initializer", "received"),
    [
        (KINDS.Ones(), r"received Ones\(\)"),
        (KINDS.Constant(0.1), r"received Constant\(value=0.1\)"),
        (KINDS.RandomNormal(mean=0.5), r"received RandomNormal\(mean=0.5, stddev=0.05\)"),
        (KINDS.RandomUniform(0.0, 1.0), r"received RandomUniform\(minval=0.0, maxval=1.0\)"),
        (KINDS.Identity(), r"received Identity\(.*\): pass variances='weights'"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_is_not_drawn_around_0_is_refused_by_name(initializer, received):
    with pytest.raises(ValueError, match=received):
        initial_variance(initializer, (4, 4))


@pytest.mark.parametrize("num_layers", [2, 10, 40])
def test_for_relu_he_is_recommended_at_every_depth(num_layers):
    found = kgrad.recommend_initializer("relu", num_layers, instead_of="xavier")
    assert found.sigma_w2 == pytest.approx(2, rel=1e-9)
    np.testing.assert_allclose(found.after, 1, rtol=1e-8)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu", "silu", "selu", "elu"])
def test_errors_arrive_as_large_as_they_left_in_simulated_networks(name):
    """Compare δ¹ with δ⁷ in NumPy networks of width 300, drawn with the recommended variance."""
    found, random = kgrad.recommend_initializer(name, 6, 300), np.random.default_rng(0)
    phi, ratios = theory.activation(name), []
    for seed in range(40):
        initializer = type(found.initializer).from_config(
            found.initializer.get_config() | {"seed": seed}
        )
        x, h = random.normal(size=20), []
        x /= np.sqrt(np.mean(x**2))
        Ws = [np.asarray(initializer((20, 300)), np.float64)]
        scale = Ws[0].std() * np.sqrt(20 / 300)
        Ws += [random.normal(size=(300, 300)) * scale for _ in range(5)]
        for W in Ws:
            h.append(x @ W)
            x = phi.f(h[-1])
        d = random.normal(size=300) * scale * phi.df(h[-1])
        for W, u in zip(Ws[:0:-1], h[-2::-1], strict=True):
            d = (d @ W.T) * phi.df(u)
        ratios.append(np.sum(d**2))
    assert np.mean(ratios) == pytest.approx(1, rel=0.25)
    assert found.after[0] == pytest.approx(1, abs=1e-9)


def test_for_tanh_it_nears_1_with_depth():
    found = [kgrad.recommend_initializer("tanh", d).sigma_w2 for d in (1, 10, 100)]
    assert found == sorted(found, reverse=True)
    assert 1 < found[-1] < 1.3


def test_the_comparison_is_with_the_initializer_that_is_named():
    """Ten hidden ReLU layers with Xavier: square layers halve |δ|²; 64 → 1 has 128/65."""
    found = kgrad.recommend_initializer("relu", 10, 64, instead_of="xavier")
    output_layer = 2 * 64 / 65
    assert found.before[0] == pytest.approx(np.sqrt(0.5**10 * output_layer), rel=1e-9)
    assert found.before.shape == found.after.shape == (11,)
    text = str(found)
    assert "variance 2/fan_in" in text
    assert f"With xavier it would be {found.before[0]:.3g} times as large." in text


def test_the_initializer_goes_into_create_model():
    found = kgrad.recommend_initializer("tanh", 3, 64, instead_of=KINDS.RandomNormal())
    model = kgrad.create_model(3, "tanh", found.initializer, seed=0)
    kernel = np.asarray(model.get_layer("hidden_2").kernel)
    assert 64 * kernel.var() == pytest.approx(found.sigma_w2, rel=0.06)
    assert found.instead_of == "RandomNormal"


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: kgrad.recommend_initializer("tnh"), "did you mean 'tanh'"),
        (
            lambda: kgrad.recommend_initializer("tanh", 3, [8, 8]),
            r"^units must be one width or one per hidden layer \(3\), received 2: \[8, 8\]$",
        ),
        (lambda: kgrad.recommend_initializer("tanh", 0), "^num_layers must be an integer of at"),
        (
            lambda: kgrad.recommend_initializer("tanh", instead_of="xaver"),
            r"^instead_of must be among .*, received 'xaver'; did you mean 'xavier'\?$",
        ),
        (
            lambda: kgrad.recommend_initializer(lambda x: np.minimum(np.abs(x), 1e-9), 2),
            "activation must have a variance that keeps errors level, received '<lambda>'",
        ),
    ],
)
def test_what_cannot_be_recommended_is_said(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()

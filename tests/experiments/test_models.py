"""`create_model`: layers, weights and names, against NumPy and the papers' formulas."""

import inspect
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest

from kgrad.experiments.models import create_model


def kernel(model, layer):
    return model.get_layer(layer).get_weights()[0]


def names(model):
    return [layer.name for layer in model.layers]


def same_weights(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True)
    )


def test_the_signature_is_the_contract():
    contract = inspect.getfullargspec(create_model)
    assert contract.args == ["num_layers", "activation", "weight_initializer"]
    assert contract.kwonlydefaults == {
        "bias_initializer": "zeros",
        "units": 64,
        "input_shape": (20,),
        "output_units": 1,
        "output_activation": "sigmoid",
        "normalization": None,
        "skip_connections": False,
        "seed": None,
    }


def test_layers_are_named_by_their_place_whatever_was_built_before():
    for _ in range(2):
        model = create_model(3, "tanh", "he", units=[8, 6, 4])
        assert names(model) == ["input", "hidden_1", "hidden_2", "hidden_3", "output"]
        assert [tuple(w.shape) for w in model.weights[::2]] == [(20, 8), (8, 6), (6, 4), (4, 1)]
        assert [w.path for w in model.weights[:2]] == ["hidden_1/kernel", "hidden_1/bias"]
        assert model.name == "dense_network"


def test_the_plain_network_computes_what_numpy_does():
    model = create_model(
        2, "tanh", "xavier", units=5, input_shape=(2, 3), output_units=2,
        output_activation="linear", seed=1,
    )  # fmt: skip
    x = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32)
    h = x.reshape(4, 6)
    for layer in ("hidden_1", "hidden_2"):
        h = np.tanh(h @ kernel(model, layer))
    np.testing.assert_allclose(model(x), h @ kernel(model, "output"), atol=1e-6)


def test_skip_connections_compute_what_numpy_does():
    model = create_model(
        5, "relu", "he", units=[6, 8, 8, 8, 4], skip_connections=True, seed=2,
        output_activation="linear",
    )  # fmt: skip
    assert names(model).count("projection_1") == 1  # 20 → 8
    assert "projection_2" not in names(model)  # 8 → 8
    assert "skip_3" not in names(model)  # the fifth layer is alone

    def f(x, k):
        return np.maximum(x @ kernel(model, f"hidden_{k}"), 0)

    x = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    h = x @ kernel(model, "projection_1") + f(f(x, 1), 2)
    h = h + f(f(h, 3), 4)
    np.testing.assert_allclose(model(x), f(h, 5) @ kernel(model, "output"), rtol=1e-5, atol=1e-5)
    assert not model.get_layer("projection_1").use_bias


@pytest.mark.parametrize(
    ("normalization", "kind"),
    [
        ("batch", keras.layers.BatchNormalization),
        ("layer", keras.layers.LayerNormalization),
        ("BatchNormalization", keras.layers.BatchNormalization),
        ("layer norm", keras.layers.LayerNormalization),
    ],
)
def test_normalization_stands_before_the_activation(normalization, kind):
    model = create_model(2, "relu", "he", units=4, normalization=normalization)

    def source(layer):
        return layer.input._keras_history.operation

    for k in (1, 2):
        f = model.get_layer(f"activation_{k}")
        assert f.activation is keras.activations.relu
        assert isinstance(source(f), kind)
        assert source(f).name == f"norm_{k}"
        assert source(source(f)) is model.get_layer(f"hidden_{k}")
        assert source(source(f)).activation is keras.activations.linear
    assert source(model.get_layer("output")) is model.get_layer("activation_2")


@pytest.mark.parametrize(
    ("initializer", "variance"),  # of a 300 x 200 kernel; the formulas are the papers'
    [
        ("he", 2 / 300),
        ("He Normal", 2 / 300),
        ("kaiming-uniform", 2 / 300),
        ("xavier", 2 / 500),
        ("Xavier Uniform", 2 / 500),
        ("glorot_normal", 2 / 500),
        ("lecun", 1 / 300),
        ("normal", 0.05**2),
        ("uniform", 0.1**2 / 12),
        ("orthogonal", 1 / 300),
        (keras.initializers.RandomNormal(stddev=0.3), 0.09),
        ("normal:0.3", 0.09),
        ("Normal: 0.3", 0.09),
        ({"class_name": "RandomNormal", "config": {"stddev": 0.2}}, 0.04),
        (keras.initializers.HeNormal, 2 / 300),
    ],
)
def test_variance_of_the_initial_weights(initializer, variance):
    model = create_model(1, "relu", initializer, units=200, input_shape=(300,), seed=0)
    assert kernel(model, "hidden_1").var() == pytest.approx(variance, rel=0.03)
    assert not model.get_layer("hidden_1").bias.numpy().any()


def test_biases_are_drawn_with_their_standard_deviation_and_change_no_kernel():
    build = partial(create_model, 2, "relu", "he", units=400, output_units=300, seed=0)
    model, without = build(bias_initializer="normal:0.3"), build()
    for layer in ("hidden_1", "hidden_2", "output"):
        biases = model.get_layer(layer).bias.numpy()
        assert biases.std() == pytest.approx(0.3, rel=0.12)  # 3 standard errors of 300
        assert abs(biases.mean()) < 3 * 0.3 / 300**0.5
        np.testing.assert_array_equal(kernel(model, layer), kernel(without, layer))
    assert same_weights(model, build(bias_initializer="Normal: 0.3"))
    assert same_weights(without, build(bias_initializer="zeros"))


def test_biases_of_layers_and_seeds_differ_and_are_not_the_numbers_of_the_kernel():
    build = partial(create_model, 3, "relu", "normal:0.3", bias_initializer="normal:0.3")
    model = build(units=64, seed=1)
    drawn = [model.get_layer(f"hidden_{k}").bias.numpy() for k in (1, 2, 3)]
    drawn += [kernel(model, f"hidden_{k}").ravel()[:64] for k in (1, 2, 3)]
    drawn.append(build(units=64, seed=2).get_layer("hidden_1").bias.numpy())
    assert abs(np.corrcoef(drawn) - np.eye(7)).max() < 0.5  # 4 standard errors of 64
    free = [build(units=64).get_layer(f"hidden_{k}").bias.numpy() for k in (1, 2)]
    assert abs(np.corrcoef(free)[0, 1]) < 0.5


@pytest.mark.parametrize(
    ("initializer", "half_width"),
    [("xavier", None), ("xavier_uniform", (6 / 500) ** 0.5), ("uniform", 0.05)],
)
def test_only_the_uniform_kinds_are_bounded_by_the_uniform_limit(initializer, half_width):
    model = create_model(1, "relu", initializer, units=200, input_shape=(300,), seed=0)
    largest = abs(kernel(model, "hidden_1")).max()
    if half_width is None:
        assert largest > (6 / 500) ** 0.5
    else:
        assert largest == pytest.approx(half_width, rel=0.001)


SEEDED = {"num_layers": 4, "activation": "relu", "weight_initializer": "he", "seed": 7}


def test_the_seed_gives_the_same_weights_in_another_process():
    code = (
        "import keras; keras.layers.Dense(3)(keras.Input((2,)));"
        "from kgrad.experiments.models import create_model;"
        f"m = create_model(**{SEEDED}, skip_connections=True);"
        "print(b''.join(w.tobytes() for w in m.get_weights()).hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = create_model(**SEEDED, skip_connections=True).get_weights()
    assert run.stdout.strip() == b"".join(w.tobytes() for w in here).hex()


def test_seeds_and_layers_differ_and_depths_share():
    model = create_model(**SEEDED)
    assert same_weights(model, create_model(**SEEDED))
    assert not same_weights(model, create_model(**SEEDED | {"seed": 8}))
    middle = [kernel(model, f"hidden_{k}") for k in (2, 3, 4)]
    correlation = np.corrcoef([w.ravel() for w in middle]) - np.eye(3)
    assert abs(correlation).max() < 0.1
    deeper = create_model(**SEEDED | {"num_layers": 6, "skip_connections": True})
    for layer in ("hidden_1", "hidden_4", "output"):
        np.testing.assert_array_equal(kernel(model, layer), kernel(deeper, layer))


@pytest.mark.parametrize("own", [None, 11, -11, "generator"])
@pytest.mark.parametrize("seed", [None, 7])
def test_one_initializer_instance_does_not_make_layers_equal(own, seed):
    def build():
        own_seed = keras.random.SeedGenerator(11) if own == "generator" else own
        initializer = keras.initializers.HeNormal(seed=own_seed)
        return create_model(3, "relu", initializer, units=20, seed=seed)

    model = build()
    kernels = [kernel(model, layer).ravel() for layer in ("hidden_1", "hidden_2", "hidden_3")]
    assert abs(np.corrcoef(kernels) - np.eye(3)).max() < 0.2
    assert same_weights(model, build()) == (own is not None or seed is not None)


def test_without_a_seed_keras_decides():
    def build():
        keras.utils.set_random_seed(5)
        return create_model(2, "relu", "he", units=4)

    model = build()
    assert not same_weights(model, create_model(2, "relu", "he", units=4))
    assert same_weights(model, build())


def test_an_initializer_of_the_users_own_is_used_as_it_is():
    def halves(shape, dtype=None):
        return keras.ops.full(shape, 0.5, dtype=dtype)

    for initializer in (halves, keras.initializers.Constant(0.5)):
        model = create_model(1, "relu", initializer, units=3, seed=1)
        assert (kernel(model, "hidden_1") == 0.5).all()
        assert (kernel(model, "output") == 0.5).all()


@pytest.mark.parametrize(
    ("activation", "expected"),  # at -1, 0 and 2
    [
        ("Leaky ReLU", [-0.2, 0, 2]),
        ("lrelu", [-0.2, 0, 2]),
        ("Swish", [-1 / (1 + np.e), 0, 2 / (1 + np.exp(-2))]),
        ("logistic", [1 / (1 + np.e), 0.5, 1 / (1 + np.exp(-2))]),
        (None, [-1, 0, 2]),
        (keras.ops.square, [1, 0, 4]),
        (keras.layers.LeakyReLU(negative_slope=0.5), [-0.5, 0, 2]),
        (keras.layers.ReLU, [0, 0, 2]),
        (keras.saving.serialize_keras_object(keras.layers.LeakyReLU(0.25)), [-0.25, 0, 2]),
        ("PReLU", [0, 0, 2]),
    ],
)
def test_activations_under_every_kind_of_name(activation, expected):
    options = {"units": 3, "input_shape": (3,), "output_units": 3}
    x = np.array([[-1.0, 0.0, 2.0]], np.float32)
    hidden = create_model(1, activation, "identity", output_activation="linear", **options)
    np.testing.assert_allclose(hidden(x)[0], expected, rtol=1e-6)
    output = create_model(1, "linear", "identity", output_activation=activation, **options)
    np.testing.assert_allclose(output(x)[0], expected, rtol=1e-6)


def test_a_layer_as_activation_is_copied_for_each_layer():
    model = create_model(2, keras.layers.PReLU(), "he", units=4)
    one, other = model.get_layer("activation_1"), model.get_layer("activation_2")
    assert one.alpha is not other.alpha
    assert [w.path for w in model.weights][2:5] == [
        "activation_1/alpha",
        "hidden_2/kernel",
        "hidden_2/bias",
    ]


# Keras 3.15 copies a variable as NumPy 2 would rather not have it.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("normalization", [None, "batch", "layer"])
def test_a_saved_model_comes_back(tmp_path, normalization):
    model = create_model(
        3, keras.layers.PReLU(), "he", units=4, normalization=normalization, skip_connections=True
    )
    model.save(tmp_path / "model.keras")
    x = np.ones((2, 20), np.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(x), model(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "rellu"}, r"^activation must be among .*, received 'rellu'; .* 'relu'\?$"),
        ({"activation": 3}, "^activation must be a name, .*, received 3$"),
        ({"output_activation": "sigmod"}, r"^output_activation .* did you mean 'sigmoid'\?$"),
        ({"weight_initializer": "Xaver"}, r"^weight_initializer .* did you mean 'xavier'\?$"),
        (
            {"weight_initializer": "normal:wide"},
            "^weight_initializer with a colon must be "
            "normal:STDDEV, such as normal:0.5, received 'normal:wide'$",
        ),
        ({"weight_initializer": "zzz"}, "^weight_initializer .*, received 'zzz'$"),
        ({"weight_initializer": None}, "^weight_initializer must be .*, received None$"),
        *(
            (
                {"bias_initializer": other},
                "^bias_initializer must be zeros or normal:STDDEV, such as normal:0.2, "
                f"received {other!r}$",
            )
            for other in ("ones", "normal", "normal:0", "normal:wide", "he", 0.2, None)
        ),
        ({"num_layers": 0}, "^num_layers must be an integer of at least 1, received 0$"),
        ({"num_layers": True}, "^num_layers must be an integer of at least 1, received True$"),
        ({"num_layers": 2.0}, "^num_layers must be an integer of at least 1, received 2.0$"),
        ({"units": 0}, "^units must be an integer of at least 1, received 0$"),
        ({"units": [4, 4]}, r"^units must be one width or one per hidden layer \(3\), received 2"),
        ({"units": (4, True, 4)}, "^units must be an integer of at least 1, received True$"),
        ({"output_units": -1}, "^output_units must be an integer of at least 1, received -1$"),
        ({"input_shape": 20}, r"^input_shape must be a tuple such as \(20,\), received 20$"),
        ({"input_shape": ()}, r"^input_shape must be a tuple such as \(20,\), received \(\)$"),
        ({"input_shape": (None,)}, "^every size in input_shape must be .*, received None$"),
        ({"normalization": "group"}, "^normalization must be None, 'batch' or 'layer', received"),
        ({"seed": -1}, "^seed must be an integer of at least 0, received -1$"),
    ],
)
def test_errors_say_what_is_accepted(change, message):
    with pytest.raises(ValueError, match=message):
        create_model(**{"num_layers": 3, "activation": "relu", "weight_initializer": "he"} | change)


def test_numpy_integers_are_integers():
    three = np.int64(3)
    model = create_model(
        three, "relu", "he", units=three, input_shape=(three,), output_units=three, seed=three
    )
    assert model.output_shape == (None, 3)


@pytest.mark.parametrize("name", ["glu", "threshold"])
def test_an_activation_that_does_not_keep_the_shape_is_refused(name):
    with pytest.raises(ValueError, match=f"^activation must map a tensor .*'{name}'"):
        create_model(2, name, "he")

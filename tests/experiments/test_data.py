"""Data sets: shapes, types and scales, reproducibility, and whether the tasks can be learned."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from kgrad.experiments.data import DATASETS, make_dataset

DEFAULT_SHAPES = {
    "classification": (1024, 20),
    "regression": (1024, 20),
    "circles": (1024, 2),
    "moons": (1024, 2),
    "blobs": (1024, 2),
    "spirals": (1024, 2),
    "noise": (1024, 20),
    "digits": (1797, 64),
}
BINARY = ("classification", "circles", "moons", "spirals")
REAL = ("regression", "noise")
SEVERAL_CLASSES = {"blobs": 3, "digits": 10}


def digest(data):
    return hashlib.sha256(data.X.tobytes() + data.y.tobytes()).hexdigest()


@pytest.mark.parametrize("name", DATASETS)
def test_inputs_are_float32_and_standardized(name):
    data = make_dataset(name)
    assert data.name == name
    assert data.X.shape == DEFAULT_SHAPES[name]
    assert data.X.dtype == np.float32
    varies = np.ptp(data.X, axis=0) > 0
    np.testing.assert_allclose(data.X.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(data.X.std(axis=0, dtype=np.float64)[varies], 1, atol=1e-6)
    assert (data.X[:, ~varies] == 0).all()


@pytest.mark.parametrize("name", BINARY)
def test_binary_targets(name):
    data = make_dataset(name, 400)
    assert data.y.shape == (400, 1)
    assert data.y.dtype == np.float32
    assert set(data.y.ravel()) == {0.0, 1.0}
    assert abs(data.y.mean() - 0.5) < 0.05
    assert data[3:] == ("binary_crossentropy", 1, "sigmoid")


@pytest.mark.parametrize("name", REAL)
def test_regression_targets(name):
    data = make_dataset(name, 400)
    assert data.y.shape == (400, 1)
    assert data.y.dtype == np.float32
    np.testing.assert_allclose([data.y.mean(), data.y.std()], [0, 1], atol=1e-5)
    assert data[3:] == ("mean_squared_error", 1, "linear")


@pytest.mark.parametrize(("name", "classes"), SEVERAL_CLASSES.items())
def test_labels_of_several_classes(name, classes):
    data = make_dataset(name, 400)
    assert data.y.shape == (400,)
    assert data.y.dtype == np.int32
    assert set(data.y) == set(range(classes))
    assert data[3:] == ("sparse_categorical_crossentropy", classes, "softmax")


@pytest.mark.parametrize("name", DATASETS)
def test_the_seed_decides_every_byte(name):
    first, again, other = (digest(make_dataset(name, 100, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_digits_are_the_real_ones_with_blank_pixels_at_zero():
    pixels, labels = load_digits(return_X_y=True)
    spread = pixels.std(axis=0)
    expected = (pixels - pixels.mean(axis=0)) / np.where(spread > 0, spread, 1)
    data = make_dataset("digits")
    np.testing.assert_allclose(data.X, expected, atol=1e-5)
    np.testing.assert_array_equal(data.y, labels)
    assert (spread == 0).any()  # or the line on blank pixels would test nothing


def test_a_subset_of_the_digits_holds_none_twice():
    data = make_dataset("digits", 1796, seed=5)
    assert len(np.unique(load_digits().data, axis=0)) == 1797
    assert len(np.unique(data.X, axis=0)) == 1796
    everyone, kept = np.bincount(load_digits().target), np.bincount(data.y)
    assert (everyone - kept).sum() == 1
    assert (everyone >= kept).all()


@pytest.mark.parametrize("name", ["circles", "moons", "spirals"])
def test_curved_shapes_want_more_than_a_straight_line(name):
    X, y = make_dataset(name)[1:3]
    train, test = slice(0, 700), slice(700, None)

    def accuracy(classifier):
        return classifier.fit(X[train], y[train, 0]).score(X[test], y[test, 0])

    assert accuracy(LogisticRegression()) < 0.92
    assert accuracy(KNeighborsClassifier(5)) > 0.95


def test_noise_has_nothing_to_learn_and_regression_has():
    def explained(name):
        X, y = make_dataset(name, 1024)[1:3]
        rest = y - X @ np.linalg.lstsq(X, y, rcond=None)[0]
        return 1 - rest.var()

    assert explained("noise") < 0.05  # 20 of 1,000 degrees of freedom fit 0.02 by chance
    assert explained("regression") > 0.95


@pytest.mark.parametrize("name", ["circles", "moons", "spirals", "blobs"])
def test_columns_beyond_a_shape_are_noise_of_their_own(name):
    X = make_dataset(name, 2000, features=5).X
    assert X.shape == (2000, 5)
    np.testing.assert_array_equal(X[:, :2], make_dataset(name, 2000).X)
    correlation = np.corrcoef(X, rowvar=False)[2:] - np.eye(5)[2:]
    assert abs(correlation).max() < 0.1
    assert (abs(X[:, 2:]) < 1).mean() == pytest.approx(0.683, abs=0.02)  # normal


@pytest.mark.parametrize("features", [2, 3, 5, 50])
def test_classification_takes_any_width_from_two(features):
    assert make_dataset("classification", 50, features).X.shape == (50, features)


@pytest.mark.parametrize("name", DATASETS)
def test_one_sample_is_all_zeros(name):
    data = make_dataset(name, 1)
    assert not data.X.any()
    assert len(data.y) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("moon",), r"^name must be among .*moons.*, received 'moon'; did you mean 'moons'\?$"),
        (("zzz",), "^name must be among .*digits, received 'zzz'$"),
        (("moons", 0), "^samples of 'moons' must be an integer of at least 1, received 0$"),
        (("moons", True), "^samples of 'moons' must be .*, received True$"),
        (
            ("digits", 1798),
            "^samples of 'digits' must be an integer from 1 to 1797, received 1798$",
        ),
        (("digits", None, 20), "^features of 'digits' must be 64, received 20"),
        (("spirals", 10, 1), "^features of 'spirals' must be .* at least 2, received 1$"),
        (("classification", 10, 1), "^features of 'classification' must be .* at least 2"),
        (("noise", 10, 2.0), "^features of 'noise' must be .*, received 2.0$"),
        (("noise", 10, 2, -1), "^seed must be an integer from 0 to 4294967295, received -1$"),
    ],
)
def test_errors_say_what_is_accepted(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_dataset(*arguments)


def test_the_entries_are_read_without_heavy_libraries():
    code = (
        "import sys\n"
        "from kgrad.experiments.data import DATASETS\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'pandas', 'keras'} & set(sys.modules)\n"
        "assert DATASETS and not heavy, heavy"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_help_describes_every_data_set():
    for name, recipe in DATASETS.items():
        (line,) = (line for line in make_dataset.__doc__.splitlines() if line.split()[:1] == [name])
        assert recipe.task in line
        assert line.endswith(f"({DEFAULT_SHAPES[name][1]} features)")

"""Data sets to train on: seven synthetic ones, and the handwritten digits of scikit-learn.

Each comes standardised, with the loss and the output layer that its task wants, so that a gradient
that vanishes is the network's doing and not that of badly scaled data.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

from kgrad.records.checks import did_you_mean, require_integer


class Dataset(NamedTuple):
    """Inputs, targets, and what a network needs in order to learn one from the other.

    Attributes:
        name: one of `DATASETS`.
        X: inputs, float32, (samples, features); every column has mean 0 and standard deviation 1,
            or is 0 throughout if it was constant.
        y: targets: float32 (samples, 1) where there is one output (0 or 1 for a binary task, mean 0
            and standard deviation 1 for a regression); int32 (samples,) labels for several classes.
        loss: Keras's name of the task's loss.
        output_units: width of the output layer.
        output_activation: Keras's name of the output layer's activation.
    """

    name: str
    X: np.ndarray
    y: np.ndarray
    loss: str
    output_units: int
    output_activation: str


def make_dataset(
    name: str, samples: int | None = None, features: int | None = None, seed: int = 0
) -> Dataset:
    """Make a data set: the same arguments give the same bytes.

    | name           | task                                             | features |
    |----------------|--------------------------------------------------|----------|
    | classification | two classes of Gaussian clusters                 | 20       |
    | regression     | a noisy linear function of half of the features  | 20       |
    | noise          | regression of noise on noise: nothing to learn   | 20       |
    | circles        | two classes: a ring inside a ring                | 2        |
    | moons          | two classes: interleaved half circles            | 2        |
    | spirals        | two classes: arms of one and a half turns        | 2        |
    | blobs          | three classes: Gaussians on a triangle           | 2        |
    | digits         | ten classes: 1,797 real 8×8 images, flattened    | 64       |

    Args:
        name: one of `DATASETS`.
        samples: number of samples, at least 1. `None` means 1,024, and every digit in its original
            order; fewer digits are a random subset without replacement.
        features: number of input columns; `None` means the table's. A two-dimensional shape takes
            more, which are standard normal noise; classification takes 2 or more; digits has 64.
        seed: decides everything random, from 0 to 2³² - 1.

    Returns:
        The data set, its X of shape (samples, features).

    Raises:
        ValueError: if the name is unknown or a number is out of range.

    Example:
        >>> data = make_dataset("moons", samples=300)
        >>> data.X.shape, data.y.shape, data.loss
        ((300, 2), (300, 1), 'binary_crossentropy')
    """
    if name not in _RECIPES:
        raise ValueError(
            f"name must be one of {', '.join(DATASETS)}, received {name!r}"
            f"{did_you_mean(name, DATASETS)}"
        )
    recipe = _RECIPES[name]
    most_samples, most_features = (_DIGITS, 64) if name == "digits" else (None, None)
    if samples is None:
        samples = most_samples or 1024
    if features is None:
        features = recipe.features
    require_integer("seed", seed, 0, 2**32 - 1)
    require_integer(f"samples of {name!r}", samples, 1, most_samples)
    require_integer(f"features of {name!r}", features, recipe.least_features, most_features)

    X, y = recipe.draw(samples, features, seed)
    # [seed, 1]: a stream apart from the one that drew the spirals.
    rng = np.random.default_rng([seed, 1])
    padding = rng.standard_normal((samples, features - X.shape[1]))
    X = _standardised(np.hstack([X, padding]))
    if recipe.loss == "sparse_categorical_crossentropy":
        y = y.astype(np.int32)
    elif recipe.loss == "binary_crossentropy":
        y = y.astype(np.float32).reshape(-1, 1)
    else:
        # reshape: of one sample, scikit-learn's regression makes a y without an axis.
        y = _standardised(y.reshape(-1, 1))
    return Dataset(name, X, y, recipe.loss, recipe.output_units, recipe.output_activation)


def _standardised(columns: np.ndarray) -> np.ndarray:
    """(x - mean) / std of each column, in float32; a constant column becomes 0."""
    return StandardScaler().fit_transform(columns.astype(np.float64)).astype(np.float32)


_Arrays = tuple[np.ndarray, np.ndarray]


def _classification(samples: int, features: int, seed: int) -> _Arrays:
    # Four clusters stand on the corners of a cube, which has to have two dimensions at least.
    informative = max(2, features // 2)
    redundant = min(features // 4, features - informative)
    return datasets.make_classification(
        samples, features, n_informative=informative, n_redundant=redundant, random_state=seed
    )


def _regression(samples: int, features: int, seed: int) -> _Arrays:
    used = max(1, features // 2)
    return datasets.make_regression(
        samples, features, n_informative=used, noise=10.0, random_state=seed
    )


def _noise(samples: int, features: int, seed: int) -> _Arrays:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, features)), rng.standard_normal(samples)


def _circles(samples: int, features: int, seed: int) -> _Arrays:
    return datasets.make_circles(samples, noise=0.1, factor=0.5, random_state=seed)


def _moons(samples: int, features: int, seed: int) -> _Arrays:
    return datasets.make_moons(samples, noise=0.1, random_state=seed)


def _blobs(samples: int, features: int, seed: int) -> _Arrays:
    # Fixed centres: with random ones, how hard the task is would hang on the seed.
    centres = [[0.0, 3.0], [-2.6, -1.5], [2.6, -1.5]]
    return datasets.make_blobs(samples, centers=centres, random_state=seed)


def _spirals(samples: int, features: int, seed: int) -> _Arrays:
    """Two arms of r (cos φ, sin φ), φ = 3π r + π·class, 0 ≤ r ≤ 1, plus a little noise."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(samples) % 2)
    # An arm's length grows as r², so the root spreads the points evenly along it.
    r = np.sqrt(rng.uniform(size=samples))
    angle = 3 * np.pi * r + np.pi * y
    X = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)
    return X + rng.normal(scale=0.02, size=X.shape), y


def _digits(samples: int, features: int, seed: int) -> _Arrays:
    X, y = datasets.load_digits(return_X_y=True)
    if samples == _DIGITS:
        return X, y
    chosen = np.random.default_rng(seed).choice(_DIGITS, samples, replace=False)
    return X[chosen], y[chosen]


class _Recipe(NamedTuple):
    draw: Callable[[int, int, int], _Arrays]  # (samples, features, seed) → X, y; see the padding
    features: int
    least_features: int
    loss: str
    output_units: int
    output_activation: str


_BINARY = ("binary_crossentropy", 1, "sigmoid")
_REAL = ("mean_squared_error", 1, "linear")
_CLASSES = "sparse_categorical_crossentropy"
_DIGITS = 1797
_RECIPES = {
    "classification": _Recipe(_classification, 20, 2, *_BINARY),
    "regression": _Recipe(_regression, 20, 1, *_REAL),
    "circles": _Recipe(_circles, 2, 2, *_BINARY),
    "moons": _Recipe(_moons, 2, 2, *_BINARY),
    "blobs": _Recipe(_blobs, 2, 2, _CLASSES, 3, "softmax"),
    "spirals": _Recipe(_spirals, 2, 2, *_BINARY),
    "noise": _Recipe(_noise, 20, 1, *_REAL),
    "digits": _Recipe(_digits, 64, 64, _CLASSES, 10, "softmax"),
}

DATASETS = tuple(_RECIPES)
"""The names that `make_dataset` takes."""

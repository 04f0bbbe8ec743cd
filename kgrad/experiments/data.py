"""Data sets to train on: synthetic ones, and the handwritten digits of scikit-learn.

A data set is one entry of `DATASETS`: `make_dataset`, `kgrad run --help` and the app read it.

All inputs are standardized, and each data set comes with the loss and the output layer for its
task. A vanishing gradient is then caused by the network, not by badly scaled data.
"""

# The command line's --help and the app's links read DATASETS: NumPy and scikit-learn, which take
# a second to import, are imported inside the functions that need them.

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from kgrad.records.requirements import saying_what_to_install

if TYPE_CHECKING:
    import numpy as np

    Arrays = tuple[np.ndarray, np.ndarray]
    Draw = Callable[[int, int, int], Arrays]


class Dataset(NamedTuple):
    """Inputs, targets, and what a network needs in order to learn one from the other.

    Attributes:
        name: a name in `DATASETS`.
        X: inputs, float32, (samples, features); each column has mean 0 and standard deviation 1,
            or is 0 everywhere if it was constant.
        y: targets. With one output, float32 (samples, 1): 0 or 1 for a binary task, mean 0 and
            standard deviation 1 for a regression. With several classes, int32 labels (samples,).
        loss: Keras's name of the loss for this task.
        output_units: width of the output layer.
        output_activation: Keras's name of the output layer's activation.
    """

    name: str
    X: "np.ndarray"
    y: "np.ndarray"
    loss: str
    output_units: int
    output_activation: str


class Recipe(NamedTuple):
    """Everything that is particular to one data set.

    Attributes:
        task: what a network learns from it, in a few words.
        draw: function of (samples, features, seed) that returns X and y, not yet standardized. If
            X has fewer than `features` columns, the others are filled with standard normal noise.
        loss, output_units, output_activation: as in `Dataset`.
        features: default number of input columns.
        least_features: smallest number of input columns.
        most_features: largest number of input columns; None for no bound.
        real_samples: number of samples of a data set that was collected, which is also the default
            and the largest number; None for a synthetic data set, which has no bound.
    """

    task: str
    draw: "Draw"
    loss: str
    output_units: int
    output_activation: str
    features: int
    least_features: int
    most_features: int | None = None
    real_samples: int | None = None


DATASETS: dict[str, Recipe] = {}
"""Name → everything that is particular to the data set."""

_SYNTHETIC_SAMPLES = 1024
_BINARY: dict[str, Any] = {
    "loss": "binary_crossentropy", "output_units": 1, "output_activation": "sigmoid"
}  # fmt: skip
_REGRESSION: dict[str, Any] = {
    "loss": "mean_squared_error", "output_units": 1, "output_activation": "linear"
}  # fmt: skip
_CLASSES: dict[str, Any] = {
    "loss": "sparse_categorical_crossentropy", "output_activation": "softmax"
}  # fmt: skip
_PLANE: dict[str, Any] = {"features": 2, "least_features": 2}


def _entry(name: str, **particulars: Any) -> "Callable[[Draw], Draw]":
    """Add the decorated function to `DATASETS`, with the other fields of its `Recipe`."""

    def add(draw: "Draw") -> "Draw":
        DATASETS[name] = Recipe(draw=draw, **particulars)
        return draw

    return add


@_entry(
    "classification",
    task="two classes of Gaussian clusters",
    **_BINARY,
    features=20,
    least_features=2,  # the four clusters are on the corners of a square
)
def _classification(samples: int, features: int, seed: int) -> "Arrays":
    from sklearn.datasets import make_classification

    informative = max(2, features // 2)
    redundant = min(features // 4, features - informative)
    return make_classification(
        samples, features, n_informative=informative, n_redundant=redundant, random_state=seed
    )


@_entry(
    "regression",
    task="a noisy linear function of half of the features",
    **_REGRESSION,
    features=20,
    least_features=1,
)
def _regression(samples: int, features: int, seed: int) -> "Arrays":
    from sklearn.datasets import make_regression

    used = max(1, features // 2)
    return make_regression(samples, features, n_informative=used, noise=10.0, random_state=seed)


@_entry("circles", task="two classes: a ring inside a ring", **_BINARY, **_PLANE)
def _circles(samples: int, features: int, seed: int) -> "Arrays":
    from sklearn.datasets import make_circles

    return make_circles(samples, noise=0.1, factor=0.5, random_state=seed)


@_entry("moons", task="two classes: interleaved half circles", **_BINARY, **_PLANE)
def _moons(samples: int, features: int, seed: int) -> "Arrays":
    from sklearn.datasets import make_moons

    return make_moons(samples, noise=0.1, random_state=seed)


@_entry(
    "blobs", task="three classes: Gaussians on a triangle", **_CLASSES, output_units=3, **_PLANE
)
def _blobs(samples: int, features: int, seed: int) -> "Arrays":
    from sklearn.datasets import make_blobs

    # Fixed centers: with random ones, the difficulty of the task would depend on the seed.
    centers = [[0.0, 3.0], [-2.6, -1.5], [2.6, -1.5]]
    return make_blobs(samples, centers=centers, random_state=seed)


@_entry("spirals", task="two classes: arms of one and a half turns", **_BINARY, **_PLANE)
def _spirals(samples: int, features: int, seed: int) -> "Arrays":
    """Two arms of r (cos φ, sin φ), φ = 3π r + π·class, 0 ≤ r ≤ 1, plus a little noise."""
    import numpy as np

    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(samples) % 2)
    # An arm's length grows as r², so the square root spreads the points evenly along it.
    r = np.sqrt(rng.uniform(size=samples))
    angle = 3 * np.pi * r + np.pi * y
    X = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1)
    return X + rng.normal(scale=0.02, size=X.shape), y


@_entry(
    "noise",
    task="regression of noise on noise: nothing to learn",
    **_REGRESSION,
    features=20,
    least_features=1,
)
def _noise(samples: int, features: int, seed: int) -> "Arrays":
    import numpy as np

    rng = np.random.default_rng(seed)
    return rng.standard_normal((samples, features)), rng.standard_normal(samples)


@_entry(
    "digits",
    task="ten classes: 1,797 real 8×8 images, flattened",
    **_CLASSES,
    output_units=10,
    features=64,
    least_features=64,
    most_features=64,
    real_samples=1797,
)
def _digits(samples: int, features: int, seed: int) -> "Arrays":
    import numpy as np
    from sklearn.datasets import load_digits

    X, y = load_digits(return_X_y=True)
    if samples == len(X):
        return X, y  # in their original order
    chosen = np.random.default_rng(seed).choice(len(X), samples, replace=False)
    return X[chosen], y[chosen]


def require_recipe(argument: str, name: str) -> Recipe:
    """Return the entry of `DATASETS` with a name.

    Args:
        argument: the argument as the user spelled it.
        name: its value.

    Raises:
        ValueError: if there is no such data set.
    """
    from kgrad.records.checks import did_you_mean

    if name not in DATASETS:
        raise ValueError(
            f"{argument} must be among {', '.join(DATASETS)}, received {name!r}"
            f"{did_you_mean(name, DATASETS)}"
        )
    return DATASETS[name]


def data_shape(name: str, samples: int | None, features: int | None) -> tuple[int, int]:
    """Return the shape of X.

    Args:
        name: a name in `DATASETS`.
        samples: as in `make_dataset`.
        features: as in `make_dataset`.

    Raises:
        ValueError: if a number is out of range.
    """
    from kgrad.records.checks import require_integer

    recipe = DATASETS[name]
    if samples is None:
        samples = recipe.real_samples or _SYNTHETIC_SAMPLES
    if features is None:
        features = recipe.features
    require_integer(f"samples of {name!r}", samples, 1, recipe.real_samples)
    require_integer(f"features of {name!r}", features, recipe.least_features, recipe.most_features)
    return samples, features


def make_dataset(
    name: str, samples: int | None = None, features: int | None = None, seed: int = 0
) -> Dataset:
    """Make a data set; the same arguments give the same bytes.

    Args:
        name: a name in `DATASETS`.
        samples: number of samples, at least 1. `None` means 1,024 of a synthetic data set, and
            every sample of a real one, in the original order. Fewer samples of a real data set are
            a random subset without replacement.
        features: number of input columns; `None` means the data set's default. Additional columns
            of a two-dimensional shape are standard normal noise.
        seed: seed of everything random, from 0 to 2³² - 1.

    Returns:
        The data set, its X of shape (samples, features).

    Raises:
        ValueError: if the name is unknown or a number is out of range.

    Example:
        >>> data = make_dataset("moons", samples=300)
        >>> data.X.shape, data.y.shape, data.loss
        ((300, 2), (300, 1), 'binary_crossentropy')
    """
    import numpy as np

    from kgrad.records.checks import require_integer

    recipe = require_recipe("name", name)
    require_integer("seed", seed, 0, 2**32 - 1)
    samples, features = data_shape(name, samples, features)

    with saying_what_to_install("make_dataset"):
        X, y = recipe.draw(samples, features, seed)
    # [seed, 1]: a stream that is independent of the one that drew the samples.
    rng = np.random.default_rng([seed, 1])
    padding = rng.standard_normal((samples, features - X.shape[1]))
    X = _standardized(np.hstack([X, padding]))
    if recipe.loss == "sparse_categorical_crossentropy":
        y = y.astype(np.int32)
    elif recipe.loss == "binary_crossentropy":
        y = y.astype(np.float32).reshape(-1, 1)
    else:
        # reshape: for one sample, scikit-learn's make_regression returns a y without an axis.
        y = _standardized(y.reshape(-1, 1))
    return Dataset(name, X, y, recipe.loss, recipe.output_units, recipe.output_activation)


def _standardized(columns: "np.ndarray") -> "np.ndarray":
    """Return (x - mean) / std of each column, in float32; a constant column becomes 0."""
    import numpy as np
    from sklearn.preprocessing import StandardScaler

    return StandardScaler().fit_transform(columns.astype(np.float64)).astype(np.float32)


def dataset_lines() -> list[str]:
    """Return one line for each data set: its name, its task and its default number of features."""
    width = max(map(len, DATASETS))
    return [
        f"{name:{width}}  {recipe.task} ({recipe.features} features)"
        for name, recipe in DATASETS.items()
    ]


make_dataset.__doc__ = "\n        ".join(
    [f"{make_dataset.__doc__ or ''}\n    Data sets:", *dataset_lines()]
)

"""Small data sets of a few hundred samples, and the loss of the best constant prediction."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kgrad import make_dataset

_BINARY = ("binary_crossentropy", 1, "sigmoid")
_REAL = "mean_squared_error"
REGRESSIONS = (_REAL, "mean_absolute_error")
_CLASSES = "sparse_categorical_crossentropy"


class Task(NamedTuple):
    """Inputs and targets, with the loss and the last layer that suit them."""

    X: np.ndarray
    y: np.ndarray
    loss: str
    output_units: int
    output_activation: str


def _bundled(name: str, samples: int, seed: int) -> Task:
    data = make_dataset(name, samples, seed=seed)
    return Task(data.X, data.y, data.loss, data.output_units, data.output_activation)


def _images(samples: int, seed: int) -> Task:
    data = make_dataset("digits", samples, seed=seed)
    return Task(data.X.reshape(-1, 8, 8, 1), data.y, data.loss, 10, "softmax")


def _imbalanced(samples: int, seed: int) -> Task:
    """Make two Gaussian classes in 10 dimensions; one sample in ten is from the second."""
    random = np.random.default_rng(seed)
    y = (np.arange(samples) % 10 == 0).astype(np.float32)[:, None]
    X = random.normal(size=(samples, 10)) + 1.2 * y
    return Task(X.astype(np.float32), y, *_BINARY)


def _flipped(samples: int, seed: int) -> Task:
    """Make moons with 15 % of the labels flipped: the loss cannot approach 0."""
    data = make_dataset("moons", samples, seed=seed)
    wrong = np.random.default_rng(seed).random((samples, 1)) < 0.15
    return Task(data.X, np.where(wrong, 1 - data.y, data.y).astype(np.float32), *_BINARY)


def _sine(samples: int, seed: int) -> Task:
    X = np.random.default_rng(seed).uniform(-2, 2, (samples, 1)).astype(np.float32)
    return Task(X, np.sin(2 * X), _REAL, 1, "linear")


def _reconstruction(samples: int, seed: int) -> Task:
    X = make_dataset("digits", samples, seed=seed).X
    return Task(X, X, _REAL, X.shape[1], "linear")


def _sequences(samples: int, seed: int, length: int = 20, telling: int = 20) -> Task:
    """Make noisy series; the class is the sign of the mean of the first `telling` numbers."""
    random = np.random.default_rng(seed)
    level = random.choice([-1.0, 1.0], samples)
    X = random.normal(size=(samples, length, 2))
    X[:, :telling, 0] += level[:, None]
    return Task(X.astype(np.float32), (level > 0).astype(np.float32)[:, None], *_BINARY)


def _forecast(samples: int, seed: int, length: int = 16) -> Task:
    """Make noisy sines of unknown phase; the target is the next value."""
    random = np.random.default_rng(seed)
    phase = random.uniform(0, 2 * np.pi, (samples, 1))
    series = np.sin(phase + 0.5 * np.arange(length + 1))
    X = series[:, :-1] + random.normal(scale=0.1, size=(samples, length))
    return Task(
        X[:, :, None].astype(np.float32), series[:, -1:].astype(np.float32), _REAL, 1, "linear"
    )


def _tokens(samples: int, seed: int, length: int = 16, words: int = 50) -> Task:
    """Make texts; the class is the half of the vocabulary that most words come from."""
    random = np.random.default_rng(seed)
    y = random.integers(2, size=samples)
    from_second = random.random((samples, length)) < np.where(y, 0.75, 0.25)[:, None]
    X = random.integers(words // 2, size=(samples, length)) + words // 2 * from_second
    return Task(X.astype(np.int32), y.astype(np.int32), _CLASSES, 2, "softmax")


def _ratings(samples: int, seed: int, words: int = 50) -> Task:
    """Make pairs of numbers; the target is a product of a hidden factor of each."""
    random = np.random.default_rng(seed)
    X = random.integers(words, size=(samples, 2))
    factors = random.choice([-1.0, 1.0], size=(2, words))
    y = factors[0, X[:, 0]] * factors[1, X[:, 1]]
    return Task(X.astype(np.int32), y[:, None].astype(np.float32), _REAL, 1, "linear")


def _noisy_series(samples: int, seed: int, length: int = 20) -> Task:
    """Make one noisy series in windows; the target is the next value, most of it noise."""
    random = np.random.default_rng(seed)
    series = np.sin(0.2 * np.arange(samples + length)) + random.normal(0, 0.6, samples + length)
    windows = np.lib.stride_tricks.sliding_window_view(series, length + 1) / series.std()
    X, y = windows[:, :length, None], windows[:, length:]
    return Task(X.astype(np.float32), y.astype(np.float32), _REAL, 1, "linear")


_OWN: dict[str, Callable[..., Task]] = {
    "images": _images,
    "imbalanced": _imbalanced,
    "flipped": _flipped,
    "sine": _sine,
    "reconstruction": _reconstruction,
    "sequences": _sequences,
    "forecast": _forecast,
    "tokens": _tokens,
    "ratings": _ratings,
    "noisy_series": _noisy_series,
}
_BUNDLED = ("classification", "regression", "circles", "moons", "blobs", "spirals", "digits")
TASKS = (*_OWN, *_BUNDLED)


def make_task(
    name: str,
    seed: int,
    *,
    samples: int = 512,
    input_scale: float = 1.0,
    input_shift: float = 0.0,
    target_scale: float = 1.0,
    target_shift: float = 0.0,
    nan_inputs: int = 0,
    shuffled: bool = False,
    **options: Any,
) -> Task:
    """Make the data of a task; scales and shifts imitate missing or wrong preprocessing."""
    own = _OWN.get(name)
    task = own(samples, seed, **options) if own else _bundled(name, samples, seed)
    X, y = task.X, task.y
    if (input_scale, input_shift) != (1.0, 0.0):
        X = (X * input_scale + input_shift).astype(np.float32)
    if (target_scale, target_shift) != (1.0, 0.0):
        y = (y * target_scale + target_shift).astype(y.dtype)
    if shuffled:
        y = np.random.default_rng(seed).permutation(y)
    if nan_inputs:
        X = X.copy()
        X[len(X) // 2 :][:nan_inputs] = np.nan
    return task._replace(X=X, y=y)


def trivial(y: np.ndarray, loss: str, by: str) -> float:
    """Return the loss, or accuracy, of the best constant prediction."""
    y = np.asarray(y, np.float64)
    if by == "accuracy":
        return float(np.unique(y, return_counts=True)[1].max() / y.size)
    if loss == _REAL:
        return float(y.var(axis=0).mean())
    if loss == "mean_absolute_error":
        return float(np.abs(y - np.median(y, axis=0)).mean())
    share = np.unique(y, return_counts=True)[1] / y.size
    return float(-(share * np.log(share)).sum())

"""Small data sets of a few hundred samples, and the losses of the simplest predictions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from kgrad import make_dataset

_BINARY = ("binary_crossentropy", 1, "sigmoid")
_REAL = "mean_squared_error"
REGRESSIONS = (_REAL, "mean_absolute_error", "huber", "poisson", "cosine_similarity", "gaussian")
_SMOOTHING = 0.1
_CLASSES = "sparse_categorical_crossentropy"


class Task(NamedTuple):
    """Inputs and targets, with the loss and the last layer that suit them.

    A model with several outputs has a list of targets and of losses, a generator has no targets.
    """

    X: np.ndarray
    y: Any
    loss: Any
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


def _two_targets(samples: int, seed: int, heads: int = 2) -> Task:
    """Make a class and numbers to predict from the same inputs, by a head each."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(samples, 8)).astype(np.float32)
    signals = np.tanh(X @ random.normal(size=(8, heads)))
    numbers = [signals[:, [k]].astype(np.float32) for k in range(1, heads)]
    y = [(signals[:, :1] > 0).astype(np.float32), *numbers]
    return Task(X, y, ["binary_crossentropy"] + [_REAL] * (heads - 1), 1, "linear")


def _noisy_sine(samples: int, seed: int) -> Task:
    """Make a small sine with smaller noise: the log-likelihood of a good answer is positive."""
    random = np.random.default_rng(seed)
    X = random.uniform(-2, 2, (samples, 1))
    y = 0.3 * np.sin(2 * X) + random.normal(0, 0.03, (samples, 1))
    return Task(X.astype(np.float32), y.astype(np.float32), "gaussian", 2, "linear")


def _weak_signal(samples: int, seed: int) -> Task:
    """Make numbers of which 60 % of the variance is noise."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(samples, 6))
    y = 0.63 * np.tanh(X @ random.normal(size=(6, 1))) + random.normal(0, 0.6, (samples, 1))
    return Task(X.astype(np.float32), y.astype(np.float32), _REAL, 1, "linear")


def _directions(samples: int, seed: int) -> Task:
    random = np.random.default_rng(seed)
    X = random.normal(size=(samples, 6))
    y = np.tanh(X @ random.normal(size=(6, 4)))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    return Task(X.astype(np.float32), y.astype(np.float32), "cosine_similarity", 4, "linear")


def _counts(samples: int, seed: int) -> Task:
    random = np.random.default_rng(seed)
    X = random.normal(size=(samples, 5))
    y = random.poisson(np.exp(1 + np.tanh(X @ random.normal(size=(5, 1)))))
    return Task(X.astype(np.float32), y.astype(np.float32), "poisson", 1, "softplus")


def _outliers(samples: int, seed: int) -> Task:
    random = np.random.default_rng(seed)
    X = random.normal(size=(samples, 5))
    y = X @ random.normal(size=(5, 1)) + 5 * (random.random((samples, 1)) < 0.03)
    return Task(X.astype(np.float32), y.astype(np.float32), "huber", 1, "linear")


def _tags(samples: int, seed: int, tags: int = 5) -> Task:
    """Make samples that may have several tags, one in three on average."""
    random = np.random.default_rng(seed)
    X = random.normal(size=(samples, 10))
    y = X @ random.normal(size=(10, tags)) / np.sqrt(10) > 0.45
    return Task(X.astype(np.float32), y.astype(np.float32), "binary_crossentropy", tags, "sigmoid")


def _margins(samples: int, seed: int) -> Task:
    data = make_dataset("moons", samples, seed=seed)
    return Task(data.X, 2 * data.y - 1, "hinge", 1, "tanh")


def _masks(samples: int, seed: int) -> Task:
    """Make noisy images; the target is the mask of the bright pixels of the clean image."""
    clean = _images(samples, seed).X
    noise = np.random.default_rng(seed).normal(0, 0.3 * clean.std(), clean.shape)
    mask = (clean > clean.mean()).astype(np.float32)
    return Task((clean + noise).astype(np.float32), mask, "binary_crossentropy", 1, "sigmoid")


def _next_tokens(samples: int, seed: int, length: int = 12, words: int = 20) -> Task:
    """Make texts in which a word depends on the one before; every word is to be predicted."""
    random = np.random.default_rng(seed)
    follows = random.permutation(words)
    text = [random.integers(words, size=samples)]
    for _ in range(length):
        known, other = follows[text[-1]], random.integers(words, size=samples)
        text.append(np.where(random.random(samples) < 0.8, known, other))
    tokens = np.stack(text, axis=1).astype(np.int32)
    return Task(tokens[:, :-1], tokens[:, 1:], _CLASSES, words, "softmax")


def _one_hot_inputs(samples: int, seed: int, categories: int = 12) -> Task:
    """Make three categories as one-hot columns; the class depends on their values."""
    random = np.random.default_rng(seed)
    chosen = random.integers(categories, size=(samples, 3))
    value = random.normal(size=(3, categories))
    y = sum(value[k, chosen[:, k]] for k in range(3)) > 0
    X = np.concatenate([np.eye(categories)[chosen[:, k]] for k in range(3)], axis=1)
    return Task(X.astype(np.float32), y.astype(np.float32)[:, None], *_BINARY)


def _ring(samples: int, seed: int) -> Task:
    """Make points of two dimensions whose distribution a generator is to learn."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * np.pi, samples)
    X = np.stack([np.cos(angle), np.sin(angle)], axis=1) + random.normal(0, 0.1, (samples, 2))
    return Task((X + 0.5).astype(np.float32), None, "binary_crossentropy", 2, "linear")


_OWN: dict[str, Callable[..., Task]] = {
    "two_targets": _two_targets,
    "noisy_sine": _noisy_sine,
    "weak_signal": _weak_signal,
    "directions": _directions,
    "counts": _counts,
    "outliers": _outliers,
    "tags": _tags,
    "margins": _margins,
    "masks": _masks,
    "next_tokens": _next_tokens,
    "one_hot_inputs": _one_hot_inputs,
    "ring": _ring,
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
    if y is not None and (target_scale, target_shift) != (1.0, 0.0):
        y = (y * target_scale + target_shift).astype(y.dtype)
    if shuffled:
        y = np.random.default_rng(seed).permutation(y)
    if nan_inputs:
        X = X.copy()
        X[len(X) // 2 :][:nan_inputs] = np.nan
    return task._replace(X=X, y=y)


def gained(loss: Any, y: Any, value: float) -> float:
    """Return the gain of a loss over the best constant prediction, as a share of what is possible.

    For the negative log-likelihood of a Gaussian, which has no smallest value, it is the gain in
    the variance that it corresponds to.
    """
    constant = trivial(y, loss, "loss")
    if loss == "gaussian":
        return 1 - float(np.exp(2 * (value - constant)))
    return (constant - value) / (constant - perfect(y, loss))


def perfect(y: Any, loss: Any) -> float:
    """Return the loss of predictions that equal the targets."""
    if isinstance(loss, list):
        return sum(perfect(*pair) for pair in zip(y, loss, strict=True))
    if loss == "cosine_similarity":
        return -1.0
    if loss == "poisson":
        return float(np.mean(y - y * np.log(np.maximum(y, 1e-7))))
    return _entropy(np.array([_SMOOTHING / 2, 1 - _SMOOTHING / 2])) if loss == "smoothed" else 0.0


def trivial(y: Any, loss: Any, by: str) -> float:
    """Return the loss, or accuracy, of the best constant prediction."""
    if isinstance(loss, list):
        return sum(trivial(*pair, by) for pair in zip(y, loss, strict=True))
    y = np.asarray(y, np.float64)
    if by == "accuracy":
        return float(np.unique(y, return_counts=True)[1].max() / y.size)
    if loss == _REAL:
        return float(y.var(axis=0).mean())
    if loss == "mean_absolute_error":
        return float(np.abs(y - np.median(y, axis=0)).mean())
    if loss == "gaussian":
        return float(0.5 * (np.log(y.var()) + 1))
    if loss == "cosine_similarity":
        return -float(np.linalg.norm(y.mean(axis=0)))
    if loss == "poisson":
        return float(y.mean() * (1 - np.log(y.mean())))
    if loss == "hinge":
        return 2 * float(min((y > 0).mean(), (y < 0).mean()))
    if loss == "huber":
        return _smallest(lambda c: _huber(y - c), y.min(), y.max())
    share = np.unique(y, return_counts=True)[1] / y.size
    if loss == "binary_focal_crossentropy":
        p1 = y.mean()
        return _smallest(
            lambda p: -(p1 * (1 - p) ** 2 * np.log(p) + (1 - p1) * p**2 * np.log(1 - p)),
            0.001,
            0.999,
        )
    if loss == "smoothed":
        share = share * (1 - _SMOOTHING) + _SMOOTHING / 2
    if loss == "binary_crossentropy" and y.ndim == 2 and y.shape[1] > 1:  # tags
        return float(np.mean([_entropy(np.array([p, 1 - p])) for p in y.mean(axis=0)]))
    return _entropy(share)


def _entropy(share: np.ndarray) -> float:
    return float(-(share * np.log(share)).sum())


def _huber(error: np.ndarray) -> float:
    size = np.abs(error)
    return float(np.where(size < 1, size**2 / 2, size - 0.5).mean())


def _smallest(f: Callable[[float], float], low: float, high: float) -> float:
    return float(minimize_scalar(f, bounds=(low, high), method="bounded").fun)

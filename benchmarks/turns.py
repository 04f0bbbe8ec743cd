"""Models to train, and whole `fit`s that take turns: the benchmarks of the tracker share them.

Each `fit` runs in a thread of its own and waits at the beginning of every epoch until it is its
turn. So each is traced once, what is timed is all that `fit` does, on any backend, and a drift of
the machine's speed affects all of them equally.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from kgrad import GradientTracker, create_model

_WARM = 2  # epochs that trace and compile


class Case(NamedTuple):
    """A model, rebuilt for each `fit`, with the data of one epoch."""

    make: Callable[[], keras.Model]
    X: np.ndarray
    y: np.ndarray
    batch_size: int

    @property
    def steps(self) -> int:
        """Number of steps of an epoch."""
        return -(-len(self.X) // self.batch_size)


def mlp(width: int = 256, batch_size: int = 128, steps: int = 40) -> Case:
    def make() -> keras.Model:
        model = create_model(10, "relu", "he", units=width, input_shape=(20,), seed=0)
        model.compile("adam", "binary_crossentropy")
        return model

    X = np.random.default_rng(0).normal(size=(batch_size * steps, 20)).astype(np.float32)
    return Case(make, X, (X[:, :1] > 0).astype(np.float32), batch_size)


def images(samples: int, size: int, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(samples, size, size, channels)).astype(np.float32)
    return X, random.integers(classes, size=samples)


def cnn() -> Case:
    def make() -> keras.Model:
        model = keras.Sequential([keras.Input((28, 28, 1))])
        for filters in (32, 64):
            model.add(layers.Conv2D(filters, 3, activation="relu"))
            model.add(layers.MaxPooling2D())
        model.add(layers.Flatten())
        model.add(layers.Dense(128, activation="relu"))
        model.add(layers.Dense(10, activation="softmax"))
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    return Case(make, *images(64 * 20, 28, 1, 10), 64)


def transformer() -> Case:
    length, width, words = 64, 64, 1000

    def make() -> keras.Model:
        tokens = keras.Input((length,), dtype="int32")
        x = layers.Embedding(words, width)(tokens)
        for _ in range(2):
            normal = layers.LayerNormalization()(x)
            x = layers.add([x, layers.MultiHeadAttention(4, width // 4)(normal, normal)])
            normal = layers.LayerNormalization()(x)
            x = layers.add([x, layers.Dense(width)(layers.Dense(4 * width, "gelu")(normal))])
        out = layers.Dense(2, activation="softmax")(layers.GlobalAveragePooling1D()(x))
        model = keras.Model(tokens, out)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    X = np.random.default_rng(0).integers(words, size=(32 * 20, length)).astype(np.int32)
    return Case(make, X, X[:, 0] % 2, 32)


def take_turns(
    case: Case, trackers: Mapping[str, Callable[[], GradientTracker | None]], rounds: int
) -> dict[str, np.ndarray]:
    """Return the milliseconds per step of each `fit`: name → (rounds,)."""
    fits = {name: _Fit(case, make(), _WARM + rounds) for name, make in trackers.items()}
    random = np.random.default_rng(0)
    for _ in range(_WARM + rounds):
        for name in random.permutation(list(fits)):
            fits[name].epoch()
    return {name: np.array(fit.seconds[_WARM:]) / case.steps * 1e3 for name, fit in fits.items()}


class _Fit(keras.callbacks.Callback):
    """A `fit` that trains one epoch at each call of `epoch`."""

    def __init__(self, case: Case, tracker: GradientTracker | None, epochs: int) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self._start: float | None = None
        self._turn, self._over = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None

        def train() -> None:
            try:
                keras.utils.set_random_seed(0)
                callbacks = [self] if tracker is None else [tracker, self]
                data = {"x": case.X, "y": case.y, "batch_size": case.batch_size, "shuffle": False}
                case.make().fit(**data, epochs=epochs, verbose=0, callbacks=callbacks)
            except BaseException as error:
                self._error = error
                self._over.release()

        threading.Thread(target=train, daemon=True).start()
        self._wait()

    def epoch(self) -> None:
        """Train one epoch, up to the beginning of the next."""
        self._turn.release()
        self._wait()

    def _wait(self) -> None:
        self._over.acquire()
        if self._error is not None:
            raise self._error

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """End the turn, and wait for the next."""
        self.on_train_end()
        self._turn.acquire()
        self._start = time.perf_counter()

    def on_train_end(self, logs: object = None) -> None:
        """End the turn."""
        if self._start is not None:
            self.seconds.append(time.perf_counter() - self._start)
        self._over.release()

"""What `GradientTracker` costs inside `fit`: tracked over untracked, measured in one run.

The same model is trained by `fit` without a tracker and with trackers of several kinds, in turn,
round by round; a ratio is the median over the rounds of the ratio within a round. The first epoch
of each `fit`, which traces the step, is not counted; the making of the records is.

    python benchmarks/callback.py
    python benchmarks/callback.py --models mlp cnn --rounds 9
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from kgrad import GradientTracker, create_model

TRACKERS: dict[str, Callable[[], GradientTracker | None]] = {
    "untracked": lambda: None,
    "default statistics": GradientTracker,
    "every=10": lambda: GradientTracker(every=10),
    "distributions": lambda: GradientTracker(distributions=True),
    "all statistics": lambda: GradientTracker(["max_abs", "zero_fraction"]),
}
TARGETS = {"default statistics": 1.05, "distributions": 1.15, "every=10": 1.05}


class Case(NamedTuple):
    """A model with data for one epoch."""

    model: keras.Model
    X: np.ndarray
    y: np.ndarray
    batch_size: int
    epochs: int
    trackers: tuple[str, ...] = tuple(TRACKERS)
    targets: dict[str, float] = TARGETS


class Clock(keras.callbacks.Callback):
    """The seconds from the second epoch's begin to the end of training."""

    async_safe = True

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start behind the first epoch."""
        if epoch == 1:
            self._start = time.perf_counter()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self._start


def images(samples: int, size: int, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(samples, size, size, channels)).astype(np.float32)
    return X, random.integers(classes, size=samples)


def mlp() -> Case:
    model = create_model(10, "relu", "he", units=256, input_shape=(20,), seed=0)
    model.compile("adam", "binary_crossentropy")
    X = np.random.default_rng(0).normal(size=(128 * 40, 20)).astype(np.float32)
    return Case(model, X, (X[:, :1] > 0).astype(np.float32), 128, 6)


def cnn() -> Case:
    model = keras.Sequential([keras.Input((28, 28, 1))])
    for filters in (32, 64):
        model.add(layers.Conv2D(filters, 3, activation="relu"))
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(128, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    return Case(model, *images(64 * 20, 28, 1, 10), 64, 4)


def transformer() -> Case:
    length, width, words = 64, 64, 1000
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
    X = np.random.default_rng(0).integers(words, size=(32 * 20, length)).astype(np.int32)
    return Case(model, X, X[:, 0] % 2, 32, 4)


def resnet() -> Case:
    """The size and batch of its paper's training images on one device; two steps an epoch."""
    model = keras.applications.ResNet50(weights=None)
    model.compile("adam", "sparse_categorical_crossentropy")
    X, y = images(64, 224, 3, 1000)
    kinds = ("untracked", "default statistics")
    return Case(model, X, y, 32, 2, kinds, {"default statistics": 1.02})


CASES = {"mlp": mlp, "cnn": cnn, "transformer": transformer, "resnet": resnet}


def measure(case: Case, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds a step of each way: name → (rounds,)."""
    start = case.model.get_weights()
    times: dict[str, list[float]] = {name: [] for name in case.trackers}
    steps = -(-len(case.X) // case.batch_size) * (case.epochs - 1)
    for _ in range(rounds):
        for name in case.trackers:
            case.model.set_weights(start)
            clock, tracker = Clock(), TRACKERS[name]()
            case.model.fit(
                case.X,
                case.y,
                batch_size=case.batch_size,
                epochs=case.epochs,
                verbose=0,
                callbacks=[clock] if tracker is None else [tracker, clock],
            )
            times[name].append(clock.seconds / steps * 1e3)
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds (default 7)")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    print("| model | ms a step | " + " | ".join(list(TRACKERS)[1:]) + " |")
    print("|---|" + "---|" * len(TRACKERS))
    for name in arguments.models:
        case = CASES[name]()
        times = measure(case, arguments.rounds)
        cells = [f"{np.median(times['untracked']):.1f}"]
        for kind in list(TRACKERS)[1:]:
            ratio = f"{np.median(times[kind] / times['untracked']):.3f}" if kind in times else "–"
            target = case.targets.get(kind) if kind in times else None
            cells.append(ratio if target is None else f"{ratio} (≤ {target})")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        del case, times
        keras.utils.clear_session()


if __name__ == "__main__":
    main()

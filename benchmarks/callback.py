"""What `GradientTracker` costs inside `fit`: tracked over untracked, measured in one run.

The same model is trained by `fit` without a tracker and with trackers of several kinds. Each `fit`
runs in a thread of its own, and they take turns, an epoch each, so that a machine whose speed
drifts slows all of them; a ratio is the median over the rounds of the ratio within a round. The
first rounds, which trace the steps and warm up, are not counted; the making of the records is.

    python benchmarks/callback.py
    python benchmarks/callback.py --models mlp cnn --rounds 50
"""

import argparse
import os
import threading
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
    "untracked again": lambda: None,
    "default statistics": GradientTracker,
    "every=10": lambda: GradientTracker(every=10),
    "distributions": lambda: GradientTracker(distributions=True),
    "all statistics": lambda: GradientTracker(["max_abs", "zero_fraction"]),
}
TARGETS = {"default statistics": 1.05, "distributions": 1.15, "every=10": 1.05}


class Case(NamedTuple):
    """A model, made anew for each way of training, with data for one epoch."""

    make: Callable[[], keras.Model]
    X: np.ndarray
    y: np.ndarray
    batch_size: int
    rounds: int
    trackers: tuple[str, ...] = tuple(TRACKERS)
    targets: dict[str, float] = TARGETS


class Turns:
    """Lets several threads go on one after the other, in another order each round.

    In a fixed order each would inherit the caches of the same one, round after round.
    """

    def __init__(self, count: int, rounds: int) -> None:
        random = np.random.default_rng(0)
        self._order = [int(n) for _ in range(rounds) for n in random.permutation(count)]
        self._done, self._changed = 0, threading.Condition()

    def wait_for(self, number: int) -> None:
        """Wait until it is this thread's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._order[self._done] == number)

    def pass_on(self) -> None:
        """Let the next thread go on."""
        with self._changed:
            self._done = min(self._done + 1, len(self._order) - 1)
            self._changed.notify_all()


class Clock(keras.callbacks.Callback):
    """Waits for its turn before each epoch, and times the epoch with all callbacks before it."""

    async_safe = True

    def __init__(self, turns: Turns, number: int) -> None:
        super().__init__()
        self._turns, self._number, self.seconds = turns, number, []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Wait, and start."""
        self._turns.wait_for(self._number)
        self._start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop, and let the next one go on."""
        self.seconds.append(time.perf_counter() - self._start)
        self._turns.pass_on()


def images(samples: int, size: int, channels: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(samples, size, size, channels)).astype(np.float32)
    return X, random.integers(classes, size=samples)


def mlp() -> Case:
    def make() -> keras.Model:
        model = create_model(10, "relu", "he", units=256, input_shape=(20,), seed=0)
        model.compile("adam", "binary_crossentropy")
        return model

    X = np.random.default_rng(0).normal(size=(128 * 40, 20)).astype(np.float32)
    return Case(make, X, (X[:, :1] > 0).astype(np.float32), 128, 40)


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

    return Case(make, *images(64 * 20, 28, 1, 10), 64, 40)


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
    return Case(make, X, X[:, 0] % 2, 32, 40)


def resnet() -> Case:
    """ResNet-50 at its paper's size of images, 32 a batch, a step an epoch."""

    def make() -> keras.Model:
        model = keras.applications.ResNet50(weights=None)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    kinds = ("untracked", "untracked again", "default statistics")
    return Case(make, *images(32, 224, 3, 1000), 32, 9, kinds, {"default statistics": 1.02})


CASES = {"mlp": mlp, "cnn": cnn, "transformer": transformer, "resnet": resnet}


def measure(case: Case, rounds: int) -> dict[str, np.ndarray]:
    """Milliseconds a step of each way: name → (rounds,)."""
    warm = 2
    turns = Turns(len(case.trackers), warm + rounds)
    clocks = {name: Clock(turns, number) for number, name in enumerate(case.trackers)}
    threads = []
    for name, clock in clocks.items():
        keras.utils.set_random_seed(0)
        model, tracker = case.make(), TRACKERS[name]()
        options = {
            "batch_size": case.batch_size,
            "epochs": warm + rounds,
            "verbose": 0,
            "callbacks": [clock] if tracker is None else [tracker, clock],
        }
        threads.append(threading.Thread(target=model.fit, args=(case.X, case.y), kwargs=options))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = -(-len(case.X) // case.batch_size)
    return {name: np.array(clock.seconds[warm:]) / steps * 1e3 for name, clock in clocks.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="counted rounds (default 40; 9 for resnet)")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    print("| model | ms a step | " + " | ".join(list(TRACKERS)[1:]) + " |")
    print("|---|" + "---|" * len(TRACKERS))
    for name in arguments.models:
        case = CASES[name]()
        times = measure(case, arguments.rounds or case.rounds)
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

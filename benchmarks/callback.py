"""Measure the cost of `GradientTracker` in `fit`: tracked ÷ untracked times, in one run.

The same model is trained without a tracker and with different trackers, by calling Keras's compiled
step and callback list as `fit` calls them. The variants take turns, one epoch each, in a different
order every round, so that a drift of the machine's speed affects all of them equally. Ratios are
computed within a round; the table shows their medians. "untracked again" shows the variation by
chance. The first rounds trace the steps and are not measured; making the records is measured. Each
ResNet-50 trains in its own process, one at a time.

    python benchmarks/callback.py
    python benchmarks/callback.py --models mlp cnn --rounds 50
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from turns import cnn, images, mlp, transformer

from kgrad import GradientTracker

TRACKERS: dict[str, Callable[[], GradientTracker | None]] = {
    "untracked": lambda: None,
    "untracked again": lambda: None,
    "default statistics": GradientTracker,
    "every=10": lambda: GradientTracker(every=10),
    "distributions": lambda: GradientTracker(distributions=True),
    "all statistics": lambda: GradientTracker(["max_abs", "zero_fraction"]),
}
_WARM = 2
TARGETS = {"default statistics": 1.05, "distributions": 1.15, "every=10": 1.05}


class Case(NamedTuple):
    """A model, rebuilt for each variant, with the data of one epoch.

    With `apart`, each variant runs in its own process: the speed of large models depends on memory.
    """

    make: Callable[[], keras.Model]
    X: np.ndarray
    y: np.ndarray
    batch_size: int
    rounds: int
    trackers: tuple[str, ...] = tuple(TRACKERS)
    targets: dict[str, float] = TARGETS
    apart: bool = False


class Training:
    """The work of `fit`, one epoch at a time.

    Alternating between whole fits would retrace the step each time.
    """

    def __init__(self, case: Case, tracker: GradientTracker | None) -> None:
        keras.utils.set_random_seed(0)
        self._model, self._epoch = case.make(), 0
        self._data = tf.data.Dataset.from_tensor_slices((case.X, case.y))
        self._data = self._data.batch(case.batch_size).prefetch(1)
        self.steps = -(-len(case.X) // case.batch_size)
        trackers = [] if tracker is None else [tracker]
        self._callbacks = keras.callbacks.CallbackList(trackers, model=self._model)
        self._callbacks.set_params({"epochs": 1, "steps": self.steps, "verbose": 0})
        self._model.make_train_function()
        self._callbacks.on_train_begin()

    def epoch(self) -> float:
        """Train one epoch and return the milliseconds per step."""
        start = time.perf_counter()
        self._model.reset_metrics()
        self._callbacks.on_epoch_begin(self._epoch)
        batches = iter(self._data)
        for step in range(self.steps):
            self._callbacks.on_train_batch_begin(step)
            logs = self._model.train_function(batches)
            self._callbacks.on_train_batch_end(step, logs)
        logs = {name: float(value) for name, value in self._model.get_metrics_result().items()}
        self._callbacks.on_epoch_end(self._epoch, logs)
        self._epoch += 1
        return (time.perf_counter() - start) / self.steps * 1e3


def resnet() -> Case:
    """Return ResNet-50 with its paper's image size, batch size 8, four steps per epoch."""

    def make() -> keras.Model:
        model = keras.applications.ResNet50(weights=None)
        model.compile("adam", "sparse_categorical_crossentropy")
        return model

    kinds = ("untracked", "untracked again", "default statistics")
    return Case(make, *images(32, 224, 3, 1000), 8, 5, kinds, {"default statistics": 1.02}, True)


CASES: dict[str, Callable[[], Case]] = {
    "mlp": lambda: Case(*mlp(), 40),
    "cnn": lambda: Case(*cnn(), 40),
    "transformer": lambda: Case(*transformer(), 40),
    "resnet": resnet,
}


def measure_apart(name: str, case: Case, rounds: int) -> dict[str, np.ndarray]:
    """Measure like `measure`, but run each variant in its own process."""
    random, times = np.random.default_rng(0), {kind: [] for kind in case.trackers}
    for _ in range(rounds):
        for kind in random.permutation(list(times)):
            command = [sys.executable, __file__, "--models", name, "--only", kind]
            times[kind].append(float(subprocess.check_output(command, text=True)))
    return {kind: np.array(row) for kind, row in times.items()}


def measure(case: Case, rounds: int) -> dict[str, np.ndarray]:
    """Return the milliseconds per step of each variant: name → (rounds,)."""
    trainings = {name: Training(case, TRACKERS[name]()) for name in case.trackers}
    random, times = np.random.default_rng(0), {name: [] for name in trainings}
    for number in range(_WARM + rounds):
        for name in random.permutation(list(trainings)):
            milliseconds = trainings[name].epoch()
            if number >= _WARM:
                times[name].append(milliseconds)
    return {name: np.array(row) for name, row in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, help="measured rounds (default: 40; resnet: 5)")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--only", choices=TRACKERS, help="measure one variant and print its time")
    arguments = parser.parse_args()
    if arguments.only:
        training = Training(CASES[arguments.models[0]](), TRACKERS[arguments.only]())
        # The first epoch traces the step.
        print(np.median([training.epoch() for _ in range(6)][1:]))
        return
    print("| model | ms per step | " + " | ".join(list(TRACKERS)[1:]) + " |")
    print("|---|" + "---|" * len(TRACKERS))
    for name in arguments.models:
        case = CASES[name]()
        rounds = arguments.rounds or case.rounds
        times = measure_apart(name, case, rounds) if case.apart else measure(case, rounds)
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

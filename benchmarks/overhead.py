"""Measure the cost of tracking, and compare it with the alternatives, in one run.

All ways of training use the same model, data and optimizer. They take turns, round by round, so
that a drift of the machine's speed affects all of them equally. Ratios are computed within a round;
the tables show their medians over the rounds.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --rounds 9 --optimizer sgd
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from kgrad.experiments.models import create_model
from kgrad.measure.accumulators import cheapest_way
from kgrad.measure.backends.tensorflow.steps import TrainingLoop
from kgrad.measure.inputs import choose_loss
from kgrad.measure.recorder import Recorder

LAYERS, FEATURES = 10, 20
SIZES = {"10×64, batch 32": (64, 32), "10×256, batch 128": (256, 128)}
TARGETS = (
    # numerator, denominator, direction, target per size (None: no target)
    ("kgrad tracked", "kgrad untracked", "≤", (1.10, 1.10)),
    ("kgrad tracked, XLA", "kgrad untracked, XLA", "≤", (1.10, 1.10)),
    ("model.fit", "kgrad tracked", "≥", (7.0, 1.8)),
    ("model.fit", "kgrad tracked, XLA", "≥", (7.0, 1.8)),
    ("eager tape with .numpy()", "kgrad tracked", "≥", (50.0, 7.0)),
    ("eager tape with .numpy()", "kgrad tracked, XLA", "≥", (50.0, 7.0)),
    ("PyTorch, one hook per layer", "kgrad tracked", "≥", (4.0, None)),
    ("PyTorch, one hook per layer", "kgrad tracked, XLA", "≥", (4.0, None)),
)
Way = tuple[Callable[[], None], int]  # a function that trains, and its number of steps


def make_model(width: int, optimizer: str) -> keras.Model:
    model = create_model(LAYERS, "relu", "he", units=width, input_shape=(FEATURES,), seed=0)
    model.compile(keras.optimizers.get(optimizer), "binary_crossentropy", jit_compile=False)
    return model


def make_data(samples: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    X = random.normal(size=(samples, FEATURES)).astype(np.float32)
    return X, (X[:, :1] > 0).astype(np.float32)


def kgrad_way(width: int, batch: int, optimizer: str, steps: int, jit: bool, track: bool) -> Way:
    model = make_model(width, optimizer)
    X, y = make_data(batch * steps)
    model.optimizer.build(model.trainable_variables)
    recorder = Recorder(model, way=cheapest_way(jit, model.optimizer)) if track else None
    loss = choose_loss(model, y, "binary_crossentropy")
    loop = TrainingLoop(model, X, y, batch, model.optimizer, loss, jit, recorder)
    epoch = 0

    def train() -> None:
        nonlocal epoch
        epoch += 1
        loop.reset_logs()
        loop.run(0, steps)
        logs = loop.logs()  # reading the loss waits until the steps are done
        if recorder is not None:
            recorder.record(epoch, epoch * steps, logs)

    return train, steps


def fit_way(width: int, batch: int, optimizer: str, steps: int) -> Way:
    model = make_model(width, optimizer)
    X, y = make_data(batch * steps)
    return lambda: model.fit(X, y, batch_size=batch, epochs=1, verbose=0), steps


def eager_way(width: int, batch: int, optimizer: str, steps: int) -> Way:
    """Train with the loop of many tutorials: an eager tape and one number per layer and step."""
    model = make_model(width, optimizer)
    X, y = make_data(batch * steps)
    loss = keras.losses.BinaryCrossentropy()

    def train() -> None:
        for i in range(steps):
            batch_X, batch_y = X[i * batch : (i + 1) * batch], y[i * batch : (i + 1) * batch]
            with tf.GradientTape() as tape:
                value = loss(batch_y, model(batch_X, training=True))
            gradients = tape.gradient(value, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            for gradient in gradients:
                np.mean(np.abs(gradient.numpy()))

    return train, steps


def torch_way(width: int, batch: int, optimizer: str, steps: int) -> Way:
    """Train in PyTorch, with a hook per layer that fetches the mean |gradient| of its weights."""
    import torch

    widths = [FEATURES] + [width] * LAYERS
    layers: list[torch.nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers, torch.nn.Linear(width, 1), torch.nn.Sigmoid())
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    opt = kinds[optimizer](model.parameters(), lr=0.001)
    seen: dict[str, float] = {}

    def hook(name: str) -> Callable[[torch.Tensor], None]:
        def keep(parameter: torch.Tensor) -> None:
            seen[name] = parameter.grad.abs().mean().item()

        return keep

    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(hook(name))
    X, y = (torch.from_numpy(array) for array in make_data(batch * steps))
    loss = torch.nn.BCELoss()

    def train() -> None:
        for i in range(steps):
            opt.zero_grad()
            span = slice(i * batch, (i + 1) * batch)
            loss(model(X[span]), y[span]).backward()
            opt.step()

    return train, steps


def ways(width: int, batch: int, optimizer: str) -> dict[str, Way]:
    many = 2000 if width == 64 else 200
    found = {
        "eager tape with .numpy()": eager_way(width, batch, optimizer, 10),
        "model.fit": fit_way(width, batch, optimizer, many // 5),
        "kgrad untracked": kgrad_way(width, batch, optimizer, many, False, False),
        "kgrad tracked": kgrad_way(width, batch, optimizer, many, False, True),
        "kgrad untracked, XLA": kgrad_way(width, batch, optimizer, many, True, False),
        "kgrad tracked, XLA": kgrad_way(width, batch, optimizer, many, True, True),
    }
    try:
        found["PyTorch, one hook per layer"] = torch_way(width, batch, optimizer, many // 10)
    except ImportError:
        print("PyTorch is not installed; its rows are omitted", file=sys.stderr)
    return found


def measure(found: dict[str, Way], rounds: int) -> dict[str, np.ndarray]:
    """Return the microseconds per step of each way: name → (rounds,)."""
    times: dict[str, list[float]] = {name: [] for name in found}
    for number in range(rounds + 1):
        for name, (train, steps) in found.items():
            start = time.perf_counter()
            train()
            if number:  # the first round compiles
                times[name].append((time.perf_counter() - start) / steps * 1e6)
    return {name: np.array(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (default: 7)")
    parser.add_argument("--optimizer", nargs="+", choices=("sgd", "adam"), default=["adam", "sgd"])
    arguments = parser.parse_args()
    for optimizer in arguments.optimizer:
        times = [measure(ways(*size, optimizer), arguments.rounds) for size in SIZES.values()]
        print(f"\n### {optimizer}\n")
        print("| microseconds per step, median | " + " | ".join(SIZES) + " |")
        print("|---|" + "---|" * len(SIZES))
        for name in times[0]:
            print(f"| {name} | " + " | ".join(f"{np.median(t[name]):.0f}" for t in times) + " |")
        print("\n| ratio, median over rounds | " + " | ".join(SIZES) + " |")
        print("|---|" + "---|" * len(SIZES))
        for above, below, sign, targets in TARGETS:
            if above not in times[0]:
                continue
            cells = []
            for t, target in zip(times, targets, strict=True):
                goal = "" if target is None else f" (target {sign} {target:g})"
                cells.append(f"{np.median(t[above] / t[below]):.2f}{goal}")
            print(f"| {above} ÷ {below} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()

"""Measure the cost of tracking on the backend that Keras runs on, on a GPU or on a CPU.

It needs one backend only: JAX or PyTorch suffice. Whole `fit`s take turns, an epoch each; so do the
loop and its alternatives. The table shows medians of ratios within a round; "by chance" is a second
untracked `fit`.

    KERAS_BACKEND=jax python benchmarks/gpu.py
    KERAS_BACKEND=torch python benchmarks/gpu.py --rounds 25
"""

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from turns import cnn, mlp, take_turns, transformer

from kgrad import GradientTracker
from kgrad.measure.accumulators import cheapest_way
from kgrad.measure.backends.current import backend
from kgrad.measure.inputs import choose_loss
from kgrad.measure.recorder import Recorder

CASES = {
    "MLP 10×64, batch 32": partial(mlp, 64, 32, 100),
    "MLP 10×256, batch 128": mlp,
    "CNN": cnn,
    "transformer": transformer,
}
TRACKERS = {
    "untracked": lambda: None,
    "untracked again": lambda: None,
    "tracked": GradientTracker,
}
_LOOP_STEPS = 500


def loop_ways() -> dict[str, Callable[[], None]]:
    """Ways to train the MLP 10×64 for an epoch, without callbacks of Keras."""
    case = mlp(64, 32, _LOOP_STEPS)
    jits = {"": False, ", XLA": True} if keras.backend.backend() == "tensorflow" else {"": True}
    if keras.backend.backend() == "torch":
        jits = {"": False}
    ways = {
        f"loop {name}{suffix}": loop_way(case, jit, tracked)
        for suffix, jit in jits.items()
        for name, tracked in (("untracked", False), ("tracked", True))
    }
    ways["model.fit"] = fit_way(case)
    if keras.backend.backend() == "jax":
        ways["hand-written scan"] = scan_way(case)
    return ways


def fit_way(case: Any) -> Callable[[], None]:
    """Return a function that trains an epoch with `fit`, untracked."""
    model = case.make()
    data = {"x": case.X, "y": case.y, "batch_size": case.batch_size, "shuffle": False}
    return lambda: model.fit(**data, verbose=0)


def loop_way(case: Any, jit_compile: bool, tracked: bool) -> Callable[[], None]:
    """Return a function that trains an epoch with the loop of `train_and_track_gradients`."""
    model = case.make()
    model.optimizer.build(model.trainable_variables)
    way = cheapest_way(jit_compile, model.optimizer)
    recorder = Recorder(model, way=way) if tracked else None
    loop = backend.TrainingLoop(
        model, case.X, case.y, case.batch_size, model.optimizer,
        choose_loss(model, case.y, "binary_crossentropy"), jit_compile, recorder,
    )  # fmt: skip
    epoch = 0

    def train() -> None:
        nonlocal epoch
        epoch += 1
        loop.reset_logs()
        loop.run(0, case.steps)
        logs = loop.logs()  # reading the loss waits until the steps are done
        if recorder is not None:
            recorder.record(epoch, epoch * case.steps, logs)

    return train


def scan_way(case: Any) -> Callable[[], None]:
    """Return what a user of JAX writes: one scan per epoch, with Σ|g| and Σg² of each weight."""
    import jax
    import jax.numpy as jnp

    model = case.make()
    model.optimizer.build(model.trainable_variables)
    loss = keras.losses.BinaryCrossentropy()
    X, y = (
        jnp.asarray(array).reshape(case.steps, case.batch_size, -1) for array in (case.X, case.y)
    )

    def loss_of(trainable: Any, fixed: Any, batch_X: Any, batch_y: Any) -> Any:
        y_pred, fixed = model.stateless_call(trainable, fixed, batch_X, training=True)
        return loss(batch_y, y_pred), fixed

    def step(state: Any, batch: Any) -> Any:
        trainable, fixed, optimizer, sums = state
        (value, fixed), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            trainable, fixed, *batch
        )
        trainable, optimizer = model.optimizer.stateless_apply(optimizer, gradients, trainable)
        sums = [
            (absolute + jnp.sum(jnp.abs(g)), squares + jnp.sum(g * g))
            for (absolute, squares), g in zip(sums, gradients, strict=True)
        ]
        return (trainable, fixed, optimizer, sums), value

    @partial(jax.jit, donate_argnums=0)
    def epoch(state: Any) -> Any:
        return jax.lax.scan(step, state, (X, y))

    none = [(jnp.zeros(()), jnp.zeros(())) for _ in model.trainable_variables]
    lists = model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
    state = (
        [jnp.copy(v.value) for v in lists[0]],
        *([jnp.copy(v.value) for v in o] for o in lists[1:]),
        none,
    )

    def train() -> None:
        nonlocal state
        state, losses = epoch(state)
        float(losses.mean())

    return train


def measure_loops(rounds: int) -> dict[str, np.ndarray]:
    """Return the milliseconds per step of each way to loop: name → (rounds,)."""
    ways = loop_ways()
    random, times = np.random.default_rng(0), {name: [] for name in ways}
    for number in range(1 + rounds):
        for name in random.permutation(list(ways)):
            start = time.perf_counter()
            ways[name]()
            if number:  # the first compiles
                times[name].append((time.perf_counter() - start) / _LOOP_STEPS * 1e3)
    return {name: np.array(row) for name, row in times.items()}


def table(rounds: int) -> str:
    """Measure everything; return Markdown."""
    name, device = keras.backend.backend(), backend.describe_device()["device"]
    lines = [
        f"### {name} {backend.version()}, {device}",
        "",
        "| `fit`, ms per step | untracked | tracked | tracked ÷ untracked | by chance |",
        "|---|---|---|---|---|",
    ]
    for label, make in CASES.items():
        times = take_turns(make(), TRACKERS, rounds)
        plain = times["untracked"]
        lines.append(
            f"| {label} | {np.median(plain):.3g} | {np.median(times['tracked']):.3g} "
            f"| {np.median(times['tracked'] / plain):.2f} "
            f"| {np.median(times['untracked again'] / plain):.2f} |"
        )
    times = measure_loops(rounds)
    plain, fit = times["loop untracked"], times["model.fit"]
    lines += [
        "",
        "| MLP 10×64, batch 32 | ms per step | ÷ loop untracked | `model.fit` ÷ this |",
        "|---|---|---|---|",
    ]
    for label, row in times.items():
        lines.append(
            f"| {label} | {np.median(row):.3g} | {np.median(row / plain):.2f} "
            f"| {np.median(fit / row):.1f} |"
        )
    if "hand-written scan" in times:
        ratio = np.median(times["loop tracked"] / times["hand-written scan"])
        lines += ["", f"Loop tracked ÷ hand-written scan: {ratio:.2f}."]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each comparison")
    print(table(parser.parse_args().rounds))

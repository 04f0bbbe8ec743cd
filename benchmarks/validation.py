"""What theory predicts and simulated networks measure: one table, written to docs/validation.md.

Networks are drawn and differentiated in NumPy, at the width of 1,000 for which the accuracy is
stated. A fast subset of the same comparisons runs in the tests.

    python benchmarks/validation.py
    python benchmarks/validation.py --seeds 3 --output /tmp/validation.md
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kgrad import theory

WIDTH, DEPTH = 1000, 30
CASES = (  # φ, σ_w² of square layers, name
    ("tanh", 1.5, "tanh, σ_w² = 1.5"),
    ("relu", 2.0, "ReLU, He"),
    ("sigmoid", 1.0, "sigmoid, Glorot"),
    ("tanh", 1.0, "tanh, Glorot"),
    ("selu", 1.0, "SELU, LeCun"),
    ("gelu", 2.0, "GELU, He"),
)
HEADER = """# Predicted and measured

Written by `benchmarks/validation.py`: kgrad's theory against networks that are drawn and
differentiated in NumPy. Errors are relative to what is predicted; s.e. is the standard error of
what was measured, over the seeds. A deep GELU network with He's variance scatters so widely that
ten seeds cannot tell an error of 0.5 %: its signal dies out, and the rate depends on its size.

| | what | predicted | measured | error | s.e. | wanted | | seeds |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """A line of the table; `within` and `standard_error` are relative to what is predicted."""

    case: str
    what: str
    predicted: float
    measured: float
    standard_error: float
    within: float
    seeds: int

    @property
    def verdict(self) -> str:
        """Whether the error is within what is wanted, or may be chance."""
        error = abs(self.measured / self.predicted - 1)
        if error <= self.within:
            return "met"
        return "within 3 s.e." if error <= 3 * self.standard_error else "**missed**"

    def __str__(self) -> str:
        return (
            f"| {self.case} | {self.what} | {self.predicted:.5g} | {self.measured:.5g} | "
            f"{self.measured / self.predicted - 1:+.2%} | {self.standard_error:.2%} | "
            f"{self.within:.1%} | {self.verdict} | {self.seeds} |"
        )


def worst_layer(
    case: str, what: str, predicted: np.ndarray, runs: np.ndarray, within: float
) -> Row:
    """The layer that fits worst; `runs` is (seeds, layers)."""
    mean = runs.mean(axis=0)
    k = int(np.argmax(np.abs(np.log(mean / predicted))))
    error = runs[:, k].std() / np.sqrt(len(runs)) / predicted[k]
    ends = float(predicted[k]), float(mean[k])
    return Row(case, f"{what}, worst layer ({k + 1})", *ends, float(error), within, len(runs))


def mean_row(case: str, what: str, predicted: float, runs: np.ndarray, within: float) -> Row:
    """The mean of `runs`, (seeds,)."""
    error = np.std(runs) / np.sqrt(len(runs)) / abs(predicted)
    return Row(case, what, predicted, float(np.mean(runs)), float(error), within, len(runs))


def simulate(network, X, errors, random):
    """∂L/∂W^l and δ^l of one drawn network whose output errors are given; L is a mean."""
    x, h, weights = [X], [], []
    for i, v in enumerate(network.weight_variances):
        shape = network.widths[i], network.widths[i + 1]
        weights.append(random.normal(size=shape) * np.sqrt(v))
        h.append(x[-1] @ weights[-1])
        if i < len(network.activations):
            x.append(network.activations[i].f(h[-1]))
    deltas = [errors]
    for W, u, phi in zip(weights[:0:-1], h[-2::-1], network.activations[::-1], strict=True):
        deltas.insert(0, (deltas[0] @ W.T) * phi.df(u))
    return [a.T @ d / len(X) for a, d in zip(x, deltas, strict=True)], deltas


def square(name: str, sigma_w2: float, width: int, depth: int) -> theory.DenseStack:
    phi = theory.activation(name)
    return theory.DenseStack(
        (width,) * (depth + 1), (sigma_w2 / width,) * depth, (phi,) * (depth - 1)
    )


def norm_ratios(seeds: int, width: int = WIDTH, depth: int = DEPTH) -> Iterator[Row]:
    """|δ^l|/|δ^{l+1}|: its geometric mean over the layers, and single layers."""
    for name, sigma_w2, case in CASES:
        network = square(name, sigma_w2, width, depth)
        logs = []
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            x, error = random.normal(size=(1, width)), random.normal(size=(1, width))
            _, deltas = simulate(network, x / np.sqrt(np.mean(x**2)), error, random)
            logs.append([np.log(np.sum(d**2)) / 2 for d in deltas])
        predicted = np.exp(-np.diff(np.log(theory.propagate(network, 1.0).S)) / 2)
        ratios = np.exp(-np.diff(logs, axis=1))
        yield mean_row(
            case,
            f"norm ratio of δ a layer, mean of {depth - 1}",
            float(np.exp(np.log(predicted).mean())),
            np.exp(np.log(ratios).mean(axis=1)),
            0.005,
        )
        yield worst_layer(case, "the same", predicted, ratios, 0.05)


def mini_batch_norms(seeds: int, width: int = WIDTH, depth: int = 10) -> Iterator[Row]:
    """‖∂W^l‖² of a mini-batch of 16, the mean over seeds."""
    for name, sigma_w2, case in CASES:
        network = square(name, sigma_w2, width, depth)
        random = np.random.default_rng(0)
        X, errors = random.normal(size=(16, width)), random.normal(size=(16, width))
        X[:, : width // 2] = X[:1, : width // 2]  # half of the input is common to all samples
        predicted = theory.propagate_batch(network, X @ X.T / width, errors @ errors.T)
        runs = [
            [np.sum(g**2) for g in simulate(network, X, errors, random)[0]] for _ in range(seeds)
        ]
        what = "‖∂W‖² of a mini-batch"
        # 3 % of the norm
        yield worst_layer(case, what, predicted.weight_norm_squared, np.array(runs), 0.06)


def mean_abs_entries(seeds: int, width: int = 300, depth: int = 6) -> Iterator[Row]:
    """Mean |∂W_ij| of a mini-batch of 16."""
    for name, sigma_w2, case in CASES:
        network = square(name, sigma_w2, width, depth)
        random = np.random.default_rng(0)
        X, errors = random.normal(size=(16, width)) + 0.5, random.normal(size=(16, width))
        predicted, _ = theory.mean_abs_gradients(network, X, errors)
        runs = [
            [np.mean(np.abs(g)) for g in simulate(network, X, errors, random)[0]]
            for _ in range(seeds)
        ]
        yield worst_layer(case, "mean abs ∂W of a mini-batch", predicted, np.array(runs), 0.03)


def batch_norm_rates(seeds: int, width: int = 384, depth: int = 25) -> Iterator[Row]:
    """|δ|² a layer of dense, batch normalisation, ReLU, away from both ends."""
    for batch_size, within in ((8, 0.03), (32, 0.015), (64, 0.015)):
        rates = [
            batch_norm_rate(np.random.default_rng(seed), batch_size, width, depth)
            for seed in range(seeds)
        ]
        predicted = theory.batch_norm_relu_rate(batch_size)
        what = f"rate of ‖δ‖² at batch {batch_size}"
        yield mean_row("BatchNorm, ReLU", what, predicted, np.array(rates), within)


def batch_norm_rate(random, batch_size: int, width: int, depth: int) -> float:
    x, passed = random.normal(size=(batch_size, width)), []
    for _ in range(depth):
        W = random.normal(size=(width, width)) / np.sqrt(width)
        h = x @ W
        y = (h - h.mean(0)) / h.std(0)
        passed.append((W, h.std(0), y))
        x = np.maximum(y, 0)
    d, norms = random.normal(size=(batch_size, width)), []
    for W, deviation, y in reversed(passed):
        e = d * (y > 0)
        delta = (e - e.mean(0) - y * (e * y).mean(0)) / deviation
        norms.append(np.sum(delta**2))
        d = delta @ W.T
    return float((norms[-7] / norms[4]) ** (1 / (depth - 11)))


def relu_scatter(seeds: int) -> Iterator[Row]:
    """Of ln ‖x^L‖² of ReLU networks, He, 20 layers: mean and variance over networks."""
    for n in (50, 100):
        logs = np.zeros(seeds)
        random = np.random.default_rng(n)
        for k in range(seeds):
            x = np.full(n, 1.0)
            for _ in range(20):
                x = np.maximum(random.normal(size=(n, n)) @ x * np.sqrt(2 / n), 0)
            logs[k] = np.log(np.mean(x**2))
        mean, variance = theory.relu_log_ratio(n)
        case = f"ReLU, He, width {n}"
        yield mean_row(case, "mean of ln ‖x²⁰‖²", 20 * mean, logs, 0.1)
        squares = (logs - logs.mean()) ** 2
        yield mean_row(case, "variance of ln ‖x²⁰‖²", 20 * variance, squares, 0.1)


def born_dead(seeds: int) -> Iterator[Row]:
    """Zero biases, 9 hidden layers of width n, one input."""
    random = np.random.default_rng(0)
    for n in (2, 3, 5):
        x = np.ones((seeds, n, 1))
        for _ in range(9):
            x = np.maximum(random.normal(size=(seeds, n, n)) @ x, 0)
        dead = ~x.any(axis=(1, 2))
        predicted = theory.born_dead_probability(n, 9)
        yield mean_row(f"ReLU, width {n}", "share that is born dead", predicted, dead, 0.03)


def singular_values(seeds: int, n: int = 400) -> Iterator[Row]:
    """Glorot & Bengio 2010: mean singular value of a layer's Jacobian, linear: 8/(3π) σ_w."""
    for case, sigma_w2 in (("linear, normalised", 1.0), ("linear, standard", 1 / 3)):
        means = []
        for seed in range(seeds):
            W = np.random.default_rng(seed).normal(size=(n, n)) * np.sqrt(sigma_w2 / n)
            means.append(np.linalg.svd(W, compute_uv=False).mean())
        predicted = 8 / (3 * np.pi) * np.sqrt(sigma_w2)
        yield mean_row(case, "mean singular value", predicted, np.array(means), 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare kgrad's theory with simulated networks.")
    parser.add_argument("--seeds", type=int, default=10, help="networks a case (default 10)")
    parser.add_argument("--output", type=Path, default=Path("docs/validation.md"))
    arguments = parser.parse_args()
    seeds, start, rows = arguments.seeds, time.perf_counter(), []
    for part in (
        norm_ratios(seeds),
        mini_batch_norms(4 * seeds),
        mean_abs_entries(4 * seeds),
        batch_norm_rates(seeds),
        relu_scatter(200 * seeds),
        born_dead(2000 * seeds),
        singular_values(seeds),
    ):
        for row in part:
            print(row, flush=True)
            rows.append(row)
    missed = sum("missed" in row.verdict for row in rows)
    arguments.output.write_text(HEADER + "\n".join(map(str, rows)) + "\n", encoding="utf-8")
    print(f"{arguments.output}: {missed} missed, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

"""Compare the theory's predictions with simulated networks, and write docs/validation.md.

Some networks are Keras models, compiled once and redrawn many times, with the width of 1,000 for
which the documentation states the accuracy. The others are simulated in NumPy. The tests run a fast
subset of the same comparisons. Takes about eight minutes on two cores.

    python benchmarks/validation.py
    python benchmarks/validation.py --only keras --seeds 3 --output /tmp/validation.md
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import kgrad
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
KERAS_CASES = (  # activation, weight_initializer, its σ_w² as a function of n_in and n_out, name
    ("tanh", keras.initializers.VarianceScaling(1.5), lambda m, n: 1.5, "tanh, σ_w² = 1.5"),
    ("relu", "he", lambda m, n: 2.0, "ReLU, He"),
    ("sigmoid", "xavier", lambda m, n: 2 * m / (m + n), "sigmoid, Glorot"),
    ("tanh", "xavier", lambda m, n: 2 * m / (m + n), "tanh, Glorot"),
    ("selu", "lecun", lambda m, n: 1.0, "SELU, LeCun"),
    ("gelu", "he", lambda m, n: 2.0, "GELU, He"),
)
KERAS_OPTIONS = (  # options of create_model, name
    ({"normalization": "batch"}, "BatchNorm"),
    ({"normalization": "layer"}, "LayerNorm"),
    ({"skip_connections": True}, "skips"),
    ({"normalization": "batch", "skip_connections": True}, "BatchNorm and skips"),
    ({"normalization": "layer", "skip_connections": True}, "LayerNorm and skips"),
)
HEADER = """# Predicted and measured

This page compares the predictions of kgrad's theory with networks that were drawn at random and
differentiated. Quantities that begin with "Keras" were measured in Keras models, all others in
NumPy. `benchmarks/validation.py` writes this page.

- *error* and *s.e.* are relative to the prediction. *s.e.* is the standard error of the measurement
  over the seeds.
- *verdict* is "met" if the error is within the tolerance, and "within 3 s.e." if it is larger but
  may be due to chance.
- Norms are root mean squares over the seeds.
- "Worst layer" and "worst weight" are those with the largest error; their number is in parentheses.
- "In the band" is the share of single networks between `lower` and `upper`, in the layer with the
  smallest share. The largest share is in parentheses.

| network | quantity | predicted | measured | error | s.e. | tolerance | verdict | seeds |
|---|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """A row of the table; `standard_error` and `within` are relative to the prediction."""

    case: str
    what: str
    predicted: float
    measured: float
    standard_error: float
    within: float
    seeds: int

    @property
    def verdict(self) -> str:
        """Tell if the error is within the tolerance, may be due to chance, or is too large."""
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
    """Return the row of the layer with the largest error; `runs` is (seeds, layers)."""
    mean = runs.mean(axis=0)
    k = int(np.argmax(np.abs(np.log(mean / predicted))))
    error = runs[:, k].std() / np.sqrt(len(runs)) / predicted[k]
    ends = float(predicted[k]), float(mean[k])
    return Row(case, f"{what} ({k + 1})", *ends, float(error), within, len(runs))


def worst_norm(case: str, what: str, predicted: np.ndarray, runs: np.ndarray, within: float) -> Row:
    """Return the same for root mean squares; `runs` contains norms, (seeds, layers)."""
    squares = worst_layer(case, what, predicted**2, runs**2, 2 * within)
    ends = float(np.sqrt(squares.predicted)), float(np.sqrt(squares.measured))
    return Row(case, squares.what, *ends, squares.standard_error / 2, within, len(runs))


def mean_row(case: str, what: str, predicted: float, runs: np.ndarray, within: float) -> Row:
    """Return the row of a mean over seeds; `runs` is (seeds,)."""
    error = np.std(runs) / np.sqrt(len(runs)) / abs(predicted)
    return Row(case, what, predicted, float(np.mean(runs)), float(error), within, len(runs))


def simulate(network, X, errors, random):
    """Draw a network and return its ∂L/∂W^l and δ^l for given output errors; L is a mean."""
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
    """Compare |δ^l|/|δ^{l+1}| of Keras layers: geometric mean over layers, and single layers."""
    for name, sigma_w2, case in CASES:
        network = square(name, sigma_w2, width, depth)
        predicted = np.exp(-np.diff(np.log(theory.propagate(network, 1.0).S)) / 2)
        # Deep GELU networks vary more: their signal dies out, and the rate depends on its size.
        count = seeds * (6 if name == "gelu" else 1)
        errors = redrawn_errors(name, sigma_w2, width, depth, count)
        ratios = errors[:, :-1] / errors[:, 1:]
        yield mean_row(
            case,
            f"Keras, {depth} × {width}: norm ratio of δ per layer, mean of {depth - 1}",
            float(np.exp(np.log(predicted).mean())),
            np.exp(np.log(ratios).mean(axis=1)),
            0.005,
        )
        yield worst_layer(case, "Keras: the same, worst layer", predicted, ratios, 0.05)


def redrawn_errors(name: str, sigma_w2: float, width: int, depth: int, seeds: int) -> np.ndarray:
    """Return |δ^l| of one sample in Keras models, the norm of the bias gradient: (seeds, depth)."""
    layers = [keras.layers.Dense(width, name if i < depth - 1 else None) for i in range(depth)]
    model = keras.Sequential([keras.Input((width,)), *layers])
    biases, random = [layer.bias for layer in layers], tf.random.Generator.from_seed(0)
    draw = drawing([layer.kernel for layer in layers], lambda m, n: sigma_w2, random)

    @tf.function
    def step():
        x, error = tf.unstack(random.normal((2, 1, width)))
        x = x / tf.sqrt(tf.reduce_mean(x**2))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(x, training=True) * error)
        return [tf.norm(g) for g in tape.gradient(loss, [b.value for b in biases])]

    runs = []
    for _ in range(seeds):
        draw()
        runs.append(step())
    return np.array(runs, np.float64)


def drawing(kernels, sigma_w2, random):
    """Return a compiled function that redraws the kernels."""

    @tf.function
    def draw():
        for kernel in kernels:
            deviation = np.sqrt(sigma_w2(*kernel.shape) / kernel.shape[0])
            kernel.assign(random.normal(tuple(kernel.shape)) * np.float32(deviation))

    return draw


def mean_abs_entries(seeds: int, width: int = 300, depth: int = 6) -> Iterator[Row]:
    """Compare the mean |∂W_ij| of a mini-batch of 16."""
    for name, sigma_w2, case in CASES:
        network = square(name, sigma_w2, width, depth)
        random = np.random.default_rng(0)
        X, errors = random.normal(size=(16, width)) + 0.5, random.normal(size=(16, width))
        predicted, _ = theory.mean_abs_gradients(network, X, errors)
        runs = [
            [np.mean(np.abs(g)) for g in simulate(network, X, errors, random)[0]]
            for _ in range(seeds)
        ]
        yield worst_layer(
            case, "mean abs ∂W of a mini-batch, worst layer", predicted, np.array(runs), 0.03
        )


def batch_norm_rates(seeds: int, width: int = 384, depth: int = 25) -> Iterator[Row]:
    """Compare the rate of |δ|² per dense, batch norm and ReLU block, away from both ends."""
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


def keras_kernels(seeds: int, width: int = WIDTH, depth: int = 10) -> Iterator[Row]:
    """Compare `predict_gradients` with wide Keras models on a batch of 16: norms of the kernels.

    There are as many outputs as units, and the errors are given, which leaves little to chance.
    """
    random = np.random.default_rng(3)
    X, y = random.normal(size=(2, 16, width)).astype("float32")
    for activation, initializer, sigma_w2, case in KERAS_CASES:
        model = kgrad.create_model(
            depth,
            activation,
            initializer,
            units=width,
            input_shape=(width,),
            output_units=width,
            output_activation=None,
        )
        found = kgrad.predict_gradients(model, X, y, loss=product)
        norms, _ = redrawn(model, X, y, sigma_w2, seeds, product)
        kernels = [i for i, w in enumerate(found.weights) if w.name == "kernel"]
        what = f"Keras, {depth} × {width}: ‖∂W‖ of a mini-batch, worst layer"
        yield worst_norm(case, what, found["l2_norm"][0, kernels], norms[:, kernels], 0.03)


def product(y, output):
    """Return a loss whose derivative is y."""
    return tf.reduce_sum(y * output, axis=-1)


def keras_weights(seeds: int, width: int = 256, depth: int = 6) -> Iterator[Row]:
    """Compare `predict_gradients` with normalized and residual Keras models: every weight."""
    X, y = batch(32)
    for options, name in KERAS_OPTIONS:
        for activation, initializer, sigma_w2, case in (KERAS_CASES[1], KERAS_CASES[3]):
            model = kgrad.create_model(depth, activation, initializer, units=width, **options)
            found = kgrad.predict_gradients(model, X, y, loss="binary_crossentropy")
            norms, means = redrawn(model, X, y, sigma_w2, seeds)
            kept = found["l2_norm"][0] > 0  # the biases before BatchNorm have gradient 0
            case = f"{case}, {name}"
            what = f"Keras, {depth} × {width}: "
            predicted = found["l2_norm"][0, kept]
            yield worst_norm(case, what + "‖g‖, worst weight", predicted, norms[:, kept], 0.05)
            predicted = found["mean_abs"][0, kept]
            yield worst_layer(
                case, what + "mean abs g, worst weight", predicted, means[:, kept], 0.05
            )


def finite_width(seeds: int) -> Iterator[Row]:
    """Compare E‖∂W‖² at several widths: the error halves as the width doubles."""
    X, y = batch(32)
    for (options, name), k in zip((KERAS_OPTIONS[2], KERAS_OPTIONS[0]), (1, 3), strict=True):
        activation, initializer, sigma_w2, case = KERAS_CASES[k]
        for width in (64, 128, 256):
            model = kgrad.create_model(6, activation, initializer, units=width, **options)
            found = kgrad.predict_gradients(model, X, y, loss="binary_crossentropy")
            norms, _ = redrawn(model, X, y, sigma_w2, seeds)
            kernels = [i for i, w in enumerate(found.weights) if w.name == "kernel"]
            ratios = (norms[:, kernels] / found["l2_norm"][0, kernels]) ** 2
            what = f"Keras, 6 × {width}: ‖∂W‖² over predicted, mean of kernels"
            yield mean_row(f"{case}, {name}", what, 1.0, ratios.mean(axis=1), 12 / width)


def keras_bands(seeds: int) -> Iterator[Row]:
    """Compare the share of narrow Keras models in the band, in the layer with the fewest."""
    X, y = batch(32)
    cases = [(*case[:3], {}, case[3]) for case in KERAS_CASES]
    cases += [
        (*KERAS_CASES[k][:3], options, f"{KERAS_CASES[k][3]}, {name}")
        for options, name in KERAS_OPTIONS
        for k in (1, 3)
    ]
    for depth, width in ((3, 32), (6, 64), (20, 64), (10, 128)):
        for activation, initializer, sigma_w2, options, case in cases:
            model = kgrad.create_model(depth, activation, initializer, units=width, **options)
            found = kgrad.predict_gradients(model, X, y, loss="binary_crossentropy")
            norms, _ = redrawn(model, X, y, sigma_w2, seeds)
            layers = list(found.layers)
            at = [layers.index(weight.layer) for weight in found.weights]
            by_layer = np.sqrt([np.bincount(at, row**2) for row in norms])
            lower, upper = (one.by_layer("l2_norm")[0] for one in (found.lower, found.upper))
            inside = (by_layer >= lower) & (by_layer <= upper)
            shares = inside.mean(axis=0)
            k = int(np.argmin(shares))
            what = f"Keras, {depth} × {width}: in the band ({shares.max():.1%})"
            yield mean_row(case, what, 0.95, inside[:, k], 0.053)


def batch(samples: int) -> tuple[np.ndarray, np.ndarray]:
    X = np.random.default_rng(3).normal(size=(samples, 20)).astype("float32")
    return X, (X[:, 0] + X[:, 1] > 0).astype("float32")


def redrawn(
    model, X, y, sigma_w2, seeds: int, loss_function=keras.losses.binary_crossentropy
) -> tuple[np.ndarray, np.ndarray]:
    """Return the norm and mean |g| of each trainable variable, with redrawn kernels per seed."""
    X, y = tf.constant(X), tf.constant(y.reshape(len(y), -1))
    variables, random = model.trainable_variables, tf.random.Generator.from_seed(0)
    draw = drawing([v for v in variables if v.name == "kernel"], sigma_w2, random)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(loss_function(y, model(X, training=True)))
        gradients = tape.gradient(loss, [v.value for v in variables])
        return [tf.norm(g) for g in gradients], [tf.reduce_mean(tf.abs(g)) for g in gradients]

    runs = []
    for _ in range(seeds):
        draw()
        runs.append(step())
    norms, means = np.moveaxis(np.array(runs, np.float64), 1, 0)
    return norms, means


def relu_scatter(seeds: int) -> Iterator[Row]:
    """Compare the mean and variance of ln ‖x^L‖² over ReLU networks with He weights, 20 layers."""
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
    """Compare the share of dead networks: zero biases, 9 hidden layers of width n, one input."""
    random = np.random.default_rng(0)
    for n in (2, 3, 5):
        x = np.ones((seeds, n, 1))
        for _ in range(9):
            x = np.maximum(random.normal(size=(seeds, n, n)) @ x, 0)
        dead = ~x.any(axis=(1, 2))
        predicted = theory.born_dead_probability(n, 9)
        yield mean_row(f"ReLU, width {n}", "share of networks born dead", predicted, dead, 0.03)


def singular_values(seeds: int, n: int = 400) -> Iterator[Row]:
    """Compare the mean singular value of a linear layer, 8/(3π) σ_w (Glorot & Bengio 2010)."""
    for case, sigma_w2 in (("linear, normalized", 1.0), ("linear, standard", 1 / 3)):
        means = []
        for seed in range(seeds):
            W = np.random.default_rng(seed).normal(size=(n, n)) * np.sqrt(sigma_w2 / n)
            means.append(np.linalg.svd(W, compute_uv=False).mean())
        predicted = 8 / (3 * np.pi) * np.sqrt(sigma_w2)
        yield mean_row(case, "mean singular value", predicted, np.array(means), 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare kgrad's theory with simulated networks.")
    parser.add_argument("--seeds", type=int, default=10, help="networks per case (default: 10)")
    parser.add_argument(
        "--output", type=Path, default=Path("docs/validation.md"), help="file to write"
    )
    parser.add_argument("--only", default="", help="run only the parts whose names begin with this")
    arguments = parser.parse_args()
    seeds, start, rows = arguments.seeds, time.perf_counter(), []
    parts = (
        (norm_ratios, 1),
        (mean_abs_entries, 4),
        (keras_kernels, 4),
        (keras_weights, 50),
        (finite_width, 80),
        (keras_bands, 20),
        (batch_norm_rates, 1),
        (relu_scatter, 100),
        (born_dead, 2000),
        (singular_values, 1),
    )
    for part, factor in parts:
        if not part.__name__.startswith(arguments.only):
            continue
        for row in part(factor * seeds):
            print(row, flush=True)
            rows.append(row)
    missed = sum("missed" in row.verdict for row in rows)
    arguments.output.write_text(HEADER + "\n".join(map(str, rows)) + "\n", encoding="utf-8")
    print(f"{arguments.output}: {missed} missed, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

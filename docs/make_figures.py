"""Draw the figures of `docs/vanishing_and_exploding.md` and print the numbers of its tables.

    python docs/make_figures.py

Also draws the figures of `docs/theory.md`. Takes about three minutes.
"""

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

import kgrad
from kgrad import theory
from kgrad.experiments import PRESETS, Experiment, prepare, replicates, run_experiment
from kgrad.figures.looks import SERIES, STYLE
from kgrad.figures.scale import Scale
from kgrad.figures.static.panels import name_lines
from kgrad.figures.static.parts import draw_strips, magnitude_axis_of
from kgrad.records.summary import summarize
from kgrad.theory.depths import depth_table, trainable_depths

FIGURES = Path(__file__).parent / "figures"
SEEDS = 5
VANISHING, HEALTHY = PRESETS["vanishing"][0], PRESETS["healthy"][0]
EXPLODING_RELU, EXPLODING_TANH = PRESETS["exploding"]


def at_initialization(experiment: Experiment) -> kgrad.GradientHistory:
    """Return the gradients of one pass over the whole data set, before training."""
    _, dataset, model, _ = prepare(experiment)
    return kgrad.measure_gradients(model, dataset.X, dataset.y, dataset.loss)


def median_summary(experiment: Experiment, seeds: int = SEEDS) -> dict[str, float]:
    """Return each number of `summarize` at initialization, as its median over seeds."""
    rows = [summarize(at_initialization(one)) for one in replicates(experiment, seeds)]
    return {key: float(np.median([row[key] for row in rows])) for key in rows[0]}


def table(title: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    print(f"\n{title}\n\n| " + " | ".join(head) + " |")
    print("|" + "---|" * len(list(head)))
    for row in rows:
        cells = [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row]
        print("| " + " | ".join(cells) + " |")


def save(name: str, figure: Figure) -> None:
    FIGURES.mkdir(exist_ok=True)
    figure.savefig(FIGURES / f"{name}.png", dpi=110)
    plt.close(figure)


def lines(
    title: str,
    xlabel: str,
    ylabel: str,
    series: dict[str, tuple[np.ndarray, np.ndarray]],
    xscale: str = "linear",
    yscale: str = "log",
) -> Figure:
    """Draw a small figure of lines that are named where they end; NaN is marked at the top."""
    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
    for (label, (x, y)), style, color in zip(series.items(), styles, SERIES, strict=False):
        # With markers, because a point between two NaN has no line.
        ax.plot(x, y, ".", label=label, linestyle=style, color=color, linewidth=2, markersize=7)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    ax.grid(alpha=0.3)
    scale = Scale.of(ylabel, [y for _, y in series.values()])
    if scale.special:
        magnitude_axis_of(ax, scale)
    name_lines(ax)
    for (x, y), color in zip(series.values(), SERIES, strict=False):
        draw_strips(ax, y[:, None], x, scale, edge=color)
    return figure


def activations() -> None:
    x = tf.constant(np.linspace(-6, 6, 601), tf.float32)
    values, slopes, rows = {}, {}, []
    for name in ("sigmoid", "tanh", "relu", "leaky_relu"):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = keras.activations.get(name)(x)
        slope = tape.gradient(y, x).numpy()
        values[name], slopes[name] = (x.numpy(), y.numpy()), (x.numpy(), slope)
        at_four = float(slope[np.argmin(np.abs(x.numpy() - 4))])
        rows.append([name, float(slope.max()), at_four, float(slope.max()) ** 10])
    table(
        "Derivatives of activations",
        ["activation", "largest φ′", "φ′(4)", "largest φ′ to the power 10"],
        rows,
    )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    titles = "Activations φ(h)", "Their slopes φ′(h): small where a unit saturates"
    for ax, curves, label in zip(axes, (values, slopes), titles, strict=True):
        for (name, (h, y)), style, color in zip(
            curves.items(), ("-", "--", "-.", ":"), SERIES, strict=False
        ):
            ax.plot(h, y, style, label=name, color=color, linewidth=2)
        ax.set(xlabel="pre-activation h", title=label, ylim=(-1.2, 2.0))
        ax.grid(alpha=0.3)
    axes[0].legend(frameon=False)
    save("activations", figure)


def presets() -> None:
    experiments = [VANISHING, HEALTHY, EXPLODING_RELU, EXPLODING_TANH]
    histories = {e.name: run_experiment(e) for e in experiments}
    rows = []
    for name, history in histories.items():
        numbers = summarize(history)
        start = history.by_layer("weight_l2")[0]
        moved = history.by_layer("update_l2")[1] / start
        nonfinite = history["nonfinite_steps"].max(axis=1)
        first_bad = f"epoch {history.epochs[np.argmax(nonfinite > 0)]}" if nonfinite.any() else "–"
        rows.append(
            [
                name,
                numbers["loss_first"],
                numbers["loss_last"],
                float(moved[0]),
                float(moved[9]),
                first_bad,
            ]
        )
    table(
        "What the gradients do to training (seed 0)",
        [
            "run",
            "loss, first step",
            "loss, epoch 30",
            "‖ΔW‖/‖W‖ in epoch 1, hidden_1",
            "hidden_10",
            "first NaN",
        ],
        rows,
    )
    save(
        "vanishing",
        kgrad.visualize_gradients(
            histories["vanishing"], "Vanishing: each sigmoid layer passes on about a tenth"
        ),
    )
    save(
        "healthy",
        kgrad.visualize_gradients(
            histories["healthy"], "Healthy (ReLU, He): the loss falls, and the gradients with it"
        ),
    )
    save(
        "comparison",
        kgrad.plot_gradients(histories, title="Vanishing, healthy, and two forms of exploding"),
    )
    loss = {name: (h.epochs, h.logs["loss"]) for name, h in histories.items()}
    save(
        "losses",
        lines("Only the healthy network learns", "epoch", "binary cross-entropy", loss),
    )


def depth() -> None:
    cases = {
        "sigmoid, normal": Experiment(activation="sigmoid", weight_initializer="normal"),
        "sigmoid, xavier": Experiment(activation="sigmoid", weight_initializer="xavier"),
        "tanh, xavier": Experiment(activation="tanh", weight_initializer="xavier"),
        "relu, he": Experiment(activation="relu", weight_initializer="he"),
        "tanh, normal:1": Experiment(activation="tanh", weight_initializer="normal:1"),
    }
    depths = np.array([2, 3, 5, 8, 12, 20, 30])
    series, rows = {}, []
    for name, case in cases.items():
        ratios = [median_summary(replace(case, num_layers=int(n)), 3)["ratio"] for n in depths]
        series[name] = (depths, np.array(ratios))
        rows.append([name, *(float(r) for r in ratios)])
    table("First over last hidden layer's mean |gradient|", ["network", *map(str, depths)], rows)
    save(
        "depth",
        lines(
            "Depth raises the factor per layer to a power",
            "hidden layers",
            "mean |gradient|: first ÷ last",
            series,
        ),
    )


def weight_scale() -> None:
    stddevs = np.geomspace(0.02, 1.5, 12)
    series = {}
    for activation in ("sigmoid", "tanh", "relu"):
        decades = [
            median_summary(
                Experiment(activation=activation, weight_initializer=f"normal:{s:.4g}"), 3
            )["decades_per_layer"]
            for s in stddevs
        ]
        series[activation] = (stddevs * 8, np.array(decades))
    head = ["σ_w = √n · standard deviation", *series]
    columns = zip(stddevs * 8, *(y for _, y in series.values()), strict=True)
    table("Decades per layer, toward the input", head, [map(float, row) for row in columns])
    save(
        "weight_scale",
        lines(
            "Sigmoid gradients vanish at every scale; tanh's may explode",
            "$σ_w$ = √n · standard deviation of the weights",
            "decades per layer, toward the input",
            series,
            xscale="log",
            yscale="linear",
        ),
    )


def mitigation(name: str, title: str, cases: dict[str, Experiment]) -> None:
    """Draw gradient against depth at initialization, and print the ratios, for several networks."""
    histories = {label: at_initialization(case) for label, case in cases.items()}
    rows = []
    for label, case in cases.items():
        numbers = median_summary(case)
        trained = [run_experiment(one).logs["loss"][-1] for one in replicates(case, 3)]
        rows.append(
            [label, numbers["ratio"], numbers["decades_per_layer"], float(np.median(trained))]
        )
    table(title, ["network", "first ÷ last", "decades per layer", "loss after 30 epochs"], rows)
    save(name, kgrad.plot_gradient_by_depth(histories, title=title))


def initialization() -> None:
    mitigation(
        "initialization",
        "Before training: an initializer that fits keeps gradients level",
        {
            f"{activation}, {initializer}": Experiment(
                activation=activation, weight_initializer=initializer
            )
            for activation, initializer in (
                ("relu", "normal"), ("relu", "xavier"), ("relu", "he"),
                ("tanh", "normal"), ("tanh", "xavier"),
                ("sigmoid", "normal"), ("sigmoid", "xavier"),
            )
        },
    )  # fmt: skip


def activation_choice() -> None:
    names = {"sigmoid": "xavier", "tanh": "xavier", "relu": "he", "leaky_relu": "he", "elu": "he"}
    mitigation(
        "activation_choice",
        "With suitable initializers, only the sigmoid lets gradients vanish",
        {f"{a}, {i}": Experiment(activation=a, weight_initializer=i) for a, i in names.items()},
    )


def normalization() -> None:
    mitigation(
        "normalization",
        "Batch normalization keeps gradients level",
        {
            f"{activation} {initializer}, {norm or 'none'}": Experiment(
                activation=activation, weight_initializer=initializer, normalization=norm
            )
            for activation, initializer in (("sigmoid", "normal"), ("relu", "normal:0.5"))
            for norm in (None, "batch", "layer")
        },
    )


def skip_connections() -> None:
    mitigation(
        "skip",
        "Skip connections keep the gradients of 30 layers level",
        {
            f"{activation}, xavier, {'skip' if skip else 'plain'}": Experiment(
                activation=activation,
                weight_initializer="xavier",
                num_layers=30,
                skip_connections=skip,
                learning_rate=0.01,
            )
            for activation in ("sigmoid", "tanh", "relu")
            for skip in (False, True)
        },
    )  # fmt: skip


def clipping() -> None:
    series, rows = {}, []
    for base in (EXPLODING_RELU, EXPLODING_TANH):
        for norm in (None, 1.0):
            case = replace(base, clip_norm=norm)
            label = f"{base.name}, {'unclipped' if norm is None else 'clipped to 1'}"
            history = run_experiment(case)
            bad = int(history["nonfinite_steps"].max(axis=1).sum())
            rows.append(
                [label, summarize(history)["gradient_first"],
                 float(history["update_l2"][1].max()), float(history.logs["loss"][-1]), bad]
            )  # fmt: skip
            series[label] = (history.epochs, history.logs["loss"])
    table(
        "Clipping the norm of all gradients together to 1",
        ["run", "mean |g|, hidden_1, epoch 0", "largest ‖ΔW‖ in epoch 1", "loss, epoch 30",
         "non-finite steps, of 960"],
        rows,
    )  # fmt: skip
    save(
        "clipping",
        lines(
            "Clipping saves the ReLU network from NaN, and slows tanh",
            "epoch",
            "binary cross-entropy",
            series,
        ),
    )


def recurrent_cells() -> dict[str, keras.layers.Layer]:
    """Return three cells with Keras's defaults, and two whose gates start nearly open."""
    units = 32
    # Keras orders the gates in the bias as i, f, c, o (LSTM) and z, r, h (GRU).
    lstm_bias = np.repeat([0.0, 3.0, 0.0, 0.0], units)
    gru_bias = np.stack([np.repeat([3.0, 0.0, 0.0], units), np.zeros(3 * units)])
    return {
        "SimpleRNN": keras.layers.SimpleRNN(units),
        "GRU": keras.layers.GRU(units),
        "LSTM": keras.layers.LSTM(units),
        "GRU, update gate biased by 3": keras.layers.GRU(
            units, bias_initializer=lambda shape, dtype=None: gru_bias
        ),
        "LSTM, forget gate biased by 3": keras.layers.LSTM(
            units,
            unit_forget_bias=False,
            bias_initializer=lambda shape, dtype=None: lstm_bias,
        ),
    }


def recurrence() -> None:
    """Draw the mean |∂L/∂x_t| per time step of untrained networks; L depends on the last step."""
    steps, batch = 60, 64
    random = np.random.default_rng(0)
    X = tf.constant(random.normal(size=(batch, steps, 8)), tf.float32)
    y = tf.constant(random.normal(size=(batch, 1)), tf.float32)
    curves: dict[str, list[np.ndarray]] = {}
    for seed in range(SEEDS):
        keras.utils.set_random_seed(seed)
        for name, cell in recurrent_cells().items():
            inputs = keras.Input((steps, 8))
            model = keras.Model(inputs, keras.layers.Dense(1)(cell(inputs)))
            with tf.GradientTape() as tape:
                tape.watch(X)
                loss = keras.ops.mean(keras.losses.mean_squared_error(y, model(X)))
            gradient = tape.gradient(loss, X).numpy()
            curves.setdefault(name, []).append(np.abs(gradient).mean(axis=(0, 2)))
    series = {
        name: (np.arange(1, steps + 1), np.median(runs, axis=0)) for name, runs in curves.items()
    }
    table(
        "Mean |∂L/∂x_t| relative to the last step",
        ["cell", "10 steps back", "20 steps back", "40 steps back"],
        [
            [name, *(float(curve[-1 - k] / curve[-1]) for k in (10, 20, 40))]
            for name, (_, curve) in series.items()
        ],
    )
    save(
        "recurrence",
        lines(
            "Open gates carry gradients through 60 time steps",
            "time step t",
            "mean $|∂L/∂x_t|$",
            series,
        ),
    )


def predictions() -> None:
    """Draw the predicted gradients of a mini-batch and those of 10 networks per case."""
    cases = {
        "sigmoid, Glorot": Experiment(activation="sigmoid", weight_initializer="xavier"),
        "ReLU, He": Experiment(activation="relu", weight_initializer="he"),
        "tanh, He": Experiment(activation="tanh", weight_initializer="he"),
        "SELU, LeCun": Experiment(activation="selu", weight_initializer="lecun"),
        "ReLU, He, BatchNorm": Experiment(
            activation="relu", weight_initializer="he", normalization="batch"
        ),
        "ReLU, He, residual": Experiment(
            activation="relu", weight_initializer="he", skip_connections=True
        ),
    }
    predicted, measured, rows = {}, {}, []
    for name, case in cases.items():
        made = [prepare(one) for one in replicates(case, 10)]
        _, data, model, _ = made[0]
        X, y = data.X[:32], data.y[:32]
        predicted[name] = kgrad.predict_gradients(model, X, y, data.loss)
        measured[name] = [kgrad.measure_gradients(one.model, X, y, data.loss) for one in made]
        line = predicted[name].by_layer("mean_abs")[0]
        at = [predicted[name].layers.index(f"hidden_{i}") for i in (1, 10)]
        points = np.array([one.by_layer("mean_abs")[0, at] for one in measured[name]])
        rows.append(
            [name, float(line[at[0]] / line[at[1]]), float(np.divide(*points.mean(axis=0)))]
        )
    table(
        "First ÷ last hidden layer, 10 seeds", ["network", "predicted", "measured, of means"], rows
    )
    title = "Before training, theory predicts the gradients of ten hidden layers"
    save("prediction_six", kgrad.plot_prediction(measured, predicted, title=title))


def phases() -> None:
    case = prepare(Experiment(activation="tanh", weight_initializer="xavier"))
    X, y = case.dataset.X[:32], case.dataset.y[:32]
    prediction = kgrad.predict_gradients(case.model, X, y, case.dataset.loss)
    figure = kgrad.plot_phase_diagram(
        "tanh",
        prediction=prediction,
        title="Glorot initialization: the gradients of tanh layers keep their size",
    )
    save("prediction_phases", figure)
    print("\nTrainable depth of tanh networks: a rule of thumb\n")
    points = [(1.0, 0.05), (1.5, 0.05), (1.76, 0.05), (2.0, 0.05), (3.0, 0.05)]
    print(depth_table(trainable_depths(theory.activation("tanh"), points)))


if __name__ == "__main__":
    plt.style.use(STYLE)
    for make in (
        activations, presets, depth, weight_scale, initialization, activation_choice, clipping,
        normalization, skip_connections, recurrence, predictions, phases,
    ):  # fmt: skip
        make()

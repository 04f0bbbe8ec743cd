"""Draw the README's figure: gradient against depth, beside the losses of the same networks.

    python docs/readme_figure.py

Trains the three networks of the main job's presets with seed 0. Takes about 15 seconds.
"""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kgrad import GradientHistory
from kgrad.experiments import PRESETS, run_experiment

NETWORKS = {
    "vanishing": (PRESETS["vanishing"][0], "sigmoid, N(0, 0.05²)", "#0072b2", "--", "v"),
    "healthy": (PRESETS["healthy"][0], "ReLU, He", "#00785a", "-", "o"),
    "exploding": (PRESETS["exploding"][1], "tanh, N(0, 1)", "#c1440e", "-.", "^"),
}
TITLE = "Where gradients vanish or explode towards the input, training gets stuck"


def draw(histories: dict[str, GradientHistory]) -> Figure:
    """Draw the two panels; each line is named at its end."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(TITLE, fontsize=14)
    for name, history in histories.items():
        _, made_of, color, dashes, marker = NETWORKS[name]
        look = {"color": color, "linestyle": dashes, "linewidth": 2.2}
        gradient = history.by_layer("mean_abs")[0, :10]
        depth = np.arange(1, 11)
        left.plot(depth, gradient, marker=marker, markersize=6, **look)
        right.plot(history.epochs, history.logs["loss"], **look)
        left.annotate(
            f"{name} ({made_of})",
            (2.3, gradient[1]),
            (4, 12 if name == "exploding" else -20),
            textcoords="offset points",
            color=color,
            fontsize=12,
        )
        label(right, name, float(history.logs["loss"][-1]), color)
    left.set_yscale("log")
    left.set_ylim(1e-14, 1e3)
    left.set_xlabel("hidden layer, from the input (1) to the output (10)", fontsize=12)
    left.set_ylabel("mean |gradient| before training", fontsize=12)
    left.set_xticks(range(1, 11))
    right.set_yscale("log")
    right.set_xlabel("epoch", fontsize=12)
    right.set_ylabel("loss (binary cross-entropy)", fontsize=12)
    right.set_xlim(0, 38)
    right.set_xticks(range(0, 31, 5))
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=11)
        ax.grid(alpha=0.25)
    return figure


def label(ax: Axes, name: str, loss: float, color: str) -> None:
    """Name a loss at the end of its line; two of the three end close together."""
    shift = {"vanishing": 7, "exploding": -9}.get(name, 0)
    ax.annotate(
        name,
        (30, loss),
        (5, shift),
        textcoords="offset points",
        color=color,
        fontsize=12,
        verticalalignment="center",
    )


if __name__ == "__main__":
    runs = {name: run_experiment(one[0]) for name, one in NETWORKS.items()}
    path = Path(__file__).parent / "figures" / "readme.png"
    draw(runs).savefig(path, dpi=110)
    for name, history in runs.items():
        gradient = history.by_layer("mean_abs")[0]
        print(name, f"{gradient[0]:.2g} … {gradient[9]:.2g}", f"{history.logs['loss'][-1]:.3g}")

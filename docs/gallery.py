"""Write docs/gallery.md and its pictures: every figure function, with the code that drew it.

    python docs/gallery.py

Trains three small networks, which takes less than a minute.
"""

import os
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

HERE = Path(__file__).parent
PICTURES = HERE / "figures" / "gallery"
SHARPNESS = 160  # pixels per inch: sharp on a phone and on a projector

HEAD = """# Gallery

Every figure function, with the code that drew it. `kgrad.interactive` has the same functions, apart
from `visualize_gradients`, for figures to zoom and hover over. [Read the
figures](reading_figures.md)
explains what to look for. Written by `python docs/gallery.py`.

All examples begin with these runs, which take less than a minute:

```python
{setup}
```
"""

SETUP = """\
import keras
import kgrad

keras.utils.set_random_seed(0)
data = kgrad.make_dataset("moons")


def train(activation, initializer, seed=0):
    model = kgrad.create_model(8, activation, initializer, input_shape=(2,), seed=seed)
    return model, kgrad.train_and_track_gradients(
        model, data.X, data.y, epochs=20, distributions=True, probe=(data.X[:256], data.y[:256])
    )


model, healthy = train("relu", "he")
sigmoid, vanishing = train("sigmoid", "xavier")"""


class Example(NamedTuple):
    """A figure function, what its figure answers, and code that ends with the figure."""

    function: str
    answers: str
    shows: str  # for those who cannot see the picture
    code: str


EXAMPLES = (
    Example(
        "visualize_gradients",
        "The first figure of a run: does every layer learn?",
        "Lines and heatmap of eight sigmoid layers, whose gradients are smaller near the input",
        'figure = kgrad.visualize_gradients(vanishing, "Eight sigmoid layers")',
    ),
    Example(
        "plot_gradients",
        "The same for several runs, on the same scales.",
        "Lines and heatmaps of a ReLU and a sigmoid network, side by side",
        'figure = kgrad.plot_gradients({"ReLU, He": healthy, "sigmoid, Xavier": vanishing})',
    ),
    Example(
        "plot_lines",
        "One line per layer. Up to twelve are named at their ends; more have a color bar.",
        "The gradients of eight ReLU layers, one line each",
        'figure = kgrad.plot_lines(healthy, title="Eight ReLU layers")',
    ),
    Example(
        "plot_heatmap",
        "Many layers in little room: one row per layer.",
        "A heatmap of layer by epoch for each of two networks",
        'figure = kgrad.plot_heatmap({"ReLU, He": healthy, "sigmoid, Xavier": vanishing})',
    ),
    Example(
        "plot_gradient_by_depth",
        "Does the gradient shrink or grow from layer to layer?",
        "Gradient against depth at three epochs",
        "figure = kgrad.plot_gradient_by_depth(vanishing, epochs=[0, 5, 20])",
    ),
    Example(
        "plot_seed_spread",
        "Is it luck? The spread over networks that differ in their initial weights alone.",
        "Gradient against depth with a band over three seeds",
        """\
seeds = [healthy, *(train("relu", "he", seed)[1] for seed in (1, 2))]
figure = kgrad.plot_seed_spread(seeds)""",
    ),
    Example(
        "plot_prediction",
        "What theory expects before training, with what was measured.",
        "A predicted line with its band, and measured points",
        """\
prediction = kgrad.predict_gradients(sigmoid, data.X, data.y)
figure = kgrad.plot_prediction(vanishing, prediction)""",
    ),
    Example(
        "plot_phase_diagram",
        "Which initial weights let gradients through a deep network? The points are its layers.",
        "Growth of the gradient per layer over the variances of weights and biases",
        """\
tanh = kgrad.create_model(8, "tanh", "xavier", input_shape=(2,), seed=0)
prediction = kgrad.predict_gradients(tanh, data.X, data.y)
figure = kgrad.plot_phase_diagram("tanh", prediction=prediction)""",
    ),
    Example(
        "plot_sweep",
        "How does a result depend on two settings? The runs of a sweep, the median over its seeds.",
        "The last loss over learning rate and number of layers",
        """\
from tempfile import mkdtemp
from kgrad.experiments import Experiment, grid, replicates

small = Experiment(dataset="moons", units=16, samples=256, epochs=3)
networks = grid(small, learning_rate=[0.01, 0.1, 1.0], num_layers=[2, 4, 8])
runs = [run for network in networks for run in replicates(network, 2)]
sweep = kgrad.run_sweep(runs, mkdtemp(), verbose=0)
figure = kgrad.plot_sweep(sweep, "learning_rate", "num_layers")""",
    ),
    Example(
        "plot_trainability",
        "How deep may a network be with these initial weights? Lines: what theory expects.",
        "The share by which the loss fell, over the variance of weights and the number of layers",
        """\
small = Experiment(activation="tanh", dataset="moons", units=32, samples=512, epochs=3)
stddevs = [f"normal:{stddev}" for stddev in (0.1, 0.15, 0.22, 0.33, 0.5)]
networks = grid(small, weight_initializer=stddevs, num_layers=[5, 15, 25])
sweep = kgrad.run_sweep(networks, mkdtemp(), verbose=0)
figure = kgrad.plot_trainability(sweep)""",
    ),
    Example(
        "plot_distributions",
        "Are most entries of a gradient tiny? Needs `distributions=True` while training.",
        "Per layer, how the magnitudes of the gradient's entries are distributed over training",
        'figure = kgrad.plot_distributions(healthy, title="Entries of the gradients")',
    ),
    Example(
        "plot_activations",
        "Do units die or saturate? Needs `probe` while training.",
        "Statistics of each layer's output and of the signal that flows back",
        'figure = kgrad.plot_activations(healthy, title="Activations of eight ReLU layers")',
    ),
    Example(
        "plot_flow_graph",
        "Where does the gradient flow? For networks with branches, too.",
        "The layers as a graph with the gradients that flow back",
        """\
graph = kgrad.flow_graph(sigmoid, vanishing)
figure = kgrad.plot_flow_graph(graph, title="Eight sigmoid layers")""",
    ),
    Example(
        "plot_remedies",
        "Which change helps? Each one trains a copy on the same data with the same seed.",
        "Loss and gradients of the unchanged network and of two changed ones",
        """\
sigmoid.compile("adam", "binary_crossentropy")
trials = kgrad.try_remedies(
    sigmoid, data.X, data.y, epochs=5, remedies=["activation", "normalization"]
)
figure = kgrad.plot_remedies(trials)""",
    ),
)

TAIL = """
## Pages

[`write_report`](report.md) puts runs, findings and interactive figures into one HTML file, and
[`write_flow_graph`](flow_graph.md#interactive-figures) a flow graph with a slider over training:

```python
kgrad.write_report({"ReLU, He": healthy, "sigmoid, Xavier": vanishing}, "report.html")
kgrad.write_flow_graph(graph, "graph.html")
```
"""


def page() -> str:
    """Return the page: for each function the picture, and the code under it."""
    parts = [HEAD.format(setup=SETUP)]
    for one in EXAMPLES:
        parts.append(
            f"## {one.function}\n\n{one.answers}\n\n"
            f"![{one.shows}](figures/gallery/{one.function}.png)\n\n```python\n{one.code}\n```\n"
        )
    return "\n".join(parts) + TAIL


def draw() -> None:
    """Run all examples in the order of the page, and save each one's figure."""
    names: dict[str, object] = {}
    exec(SETUP, names)
    PICTURES.mkdir(parents=True, exist_ok=True)
    for one in EXAMPLES:
        exec(one.code, names)
        names["figure"].savefig(PICTURES / f"{one.function}.png", dpi=SHARPNESS)


if __name__ == "__main__":
    draw()
    (HERE / "gallery.md").write_text(page(), encoding="utf-8")

"""Makes the figure of `docs/flow_graph.md`: `python docs/flow_figure.py`."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib

matplotlib.use("Agg")

import kgrad


def main() -> None:
    data = kgrad.make_dataset("moons")
    model = kgrad.create_model(
        8, "sigmoid", "xavier", input_shape=(2,), skip_connections=True, seed=0
    )
    model.compile("sgd", "binary_crossentropy")
    tracker = kgrad.GradientTracker(probe=(data.X[:64], data.y[:64]))
    model.fit(data.X, data.y, epochs=5, callbacks=[tracker], verbose=0)
    graph = kgrad.flow_graph(model, tracker.history)
    figure = kgrad.plot_flow_graph(graph, "Eight sigmoid layers with skips", threshold=0.05)
    figure.savefig(Path(__file__).parent / "figures" / "flow_residual.png", dpi=100)


if __name__ == "__main__":
    main()

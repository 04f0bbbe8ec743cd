"""Draw the figures of `docs/flow_graph.md` and `docs/report.md`.

    python docs/flow_figure.py

The interactive figures are screenshots taken in Chromium.
"""

import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("Agg")

import numpy as np
from playwright.sync_api import Page, sync_playwright

import kgrad
from kgrad.apps.report import write_flow_graph, write_report
from kgrad.experiments import PRESETS, replicates, run_all

FIGURES = Path(__file__).parent / "figures"
THRESHOLD = 0.05
TITLES = {
    "mlp": "Eight sigmoid layers",
    "residual": "Eight sigmoid layers with skips",
    "branched": "Two blocks of four branches",
}


def mlp(**options: bool) -> keras.Model:
    """Make eight sigmoid layers."""
    return kgrad.create_model(8, "sigmoid", "xavier", input_shape=(2,), seed=0, **options)


def branched() -> keras.Model:
    """Make two blocks of four branches each, as in GoogLeNet."""
    relu = {"padding": "same", "activation": "relu"}
    image = keras.Input((16, 16, 1), name="image")
    x = keras.layers.Conv2D(4, 3, name="stem", **relu)(image)
    for k in (1, 2):
        branches = [keras.layers.Conv2D(4, n, name=f"{n}x{n}_{k}", **relu)(x) for n in (1, 3, 5)]
        pooled = keras.layers.MaxPooling2D(3, 1, "same", name=f"pool_{k}")(x)
        branches.append(keras.layers.Conv2D(4, 1, name=f"project_{k}", **relu)(pooled))
        x = keras.layers.Concatenate(name=f"join_{k}")(branches)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(image, keras.layers.Dense(1, "sigmoid", name="output")(x))


def tracked(model: keras.Model, X: np.ndarray, y: np.ndarray) -> kgrad.GradientHistory:
    """Train for five epochs with a probe, and return the history."""
    model.compile("sgd", "binary_crossentropy")
    tracker = kgrad.GradientTracker(probe=(X[:64], y[:64]))
    model.fit(X, y, epochs=5, callbacks=[tracker], verbose=0)
    return tracker.history


def resnet() -> kgrad.GradientHistory:
    """Train a ResNet-50 for two steps on random images, and return the history."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    X = random.normal(size=(32, 32, 32, 3)).astype("float32")
    y = random.integers(0, 10, 32)
    model = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    tracker = kgrad.GradientTracker(probe=(X[:8], y[:8]))
    model.fit(X, y, batch_size=16, callbacks=[tracker], verbose=0)
    return tracker.history


def histories() -> dict[str, kgrad.GradientHistory]:
    """Return the histories of the three kinds of models."""
    moons = kgrad.make_dataset("moons")
    images = np.random.default_rng(0).normal(size=(256, 16, 16, 1)).astype("float32")
    bright = (images.mean((1, 2, 3)) > 0).astype("float32")
    keras.utils.set_random_seed(0)
    return {
        "mlp": tracked(mlp(), moons.X, moons.y),
        "residual": tracked(mlp(skip_connections=True), moons.X, moons.y),
        "branched": tracked(branched(), images, bright),
    }


def screenshot(page: Page, source: Path, name: str, moment: int, **options: bool) -> None:
    """Move the slider of a page and take a screenshot."""
    page.goto(source.as_uri())
    page.wait_for_selector("html[data-ready]")
    page.locator("#moment").fill(str(moment))
    page.locator("#moment").blur()
    page.wait_for_selector(f'html[data-marked="{moment}"]')
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # wait for the click and the resize
    page.screenshot(path=FIGURES / f"{name}.png", **options)


def main() -> None:
    """Train the networks, write the pages and take the screenshots."""
    recorded = histories()
    graph = kgrad.flow_graph_from_history(recorded["residual"])
    figure = kgrad.plot_flow_graph(graph, title=TITLES["residual"], threshold=THRESHOLD)
    figure.savefig(FIGURES / "flow_residual.png", dpi=100)
    graph = kgrad.flow_graph_from_history(resnet(), nested="blocks")
    figure = kgrad.plot_flow_graph(graph, title="ResNet-50")
    figure.savefig(FIGURES / "flow_resnet50.png", dpi=100)
    presets = [network for preset in PRESETS.values() for network in preset]
    runs = run_all([run for network in presets for run in replicates(network, 2)])
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        source = Path(folder) / "page.html"
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 700, "height": 600})
        for name, history in recorded.items():
            graph = kgrad.flow_graph_from_history(history)
            write_flow_graph(graph, source, TITLES[name], threshold=THRESHOLD)
            screenshot(page, source, f"flow_interactive_{name}", 3, full_page=True)
        page.set_viewport_size({"width": 1000, "height": 1330})
        write_report(runs, source)
        screenshot(page, source, "report", 6)
        browser.close()


if __name__ == "__main__":
    main()

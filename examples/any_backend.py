"""A residual CNN on real digits, trained on each Keras backend: the gradients are the same.

python examples/any_backend.py    # trains with every backend that is installed, and draws

A process has one backend, so each training is a process of its own. Its history is kept in this
folder: with the backends in several environments, run the script in each.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns

import kgrad

STYLES = {
    "tensorflow": {"color": "lightsteelblue", "linewidth": 7},
    "jax": {"color": "tab:orange", "linewidth": 3},
    "torch": {"color": "black", "linewidth": 1, "linestyle": "--"},
}


def train(backend):
    """Train from the same weights, on the same batches, whatever the backend."""
    import keras
    import numpy as np
    from keras import layers

    random = np.random.default_rng(0)
    data = kgrad.make_dataset("digits")
    images = data.X.reshape(-1, 8, 8, 1)

    x = inputs = keras.Input((8, 8, 1))
    for block, filters in (("block1", 16), ("block2", 32)):
        shortcut = layers.Conv2D(filters, 1, name=f"{block}_shortcut")(x)
        for number in (1, 2):
            x = layers.Conv2D(filters, 3, padding="same", name=f"{block}_conv{number}")(x)
            x = layers.BatchNormalization(name=f"{block}_norm{number}")(x)
            x = layers.Activation("relu")(x)
        x = layers.add([x, shortcut])
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax", name="classes")(x))
    for weight in model.trainable_variables:
        if weight.name == "kernel":  # backends draw different random numbers
            fan_in = np.prod(weight.shape[:-1])
            weight.assign(random.normal(scale=(2 / fan_in) ** 0.5, size=weight.shape))

    model.compile("adam", "sparse_categorical_crossentropy")
    tracker = kgrad.GradientTracker(weights="*kernel")
    model.fit(images, data.y, epochs=12, verbose=2, shuffle=False, callbacks=[tracker])
    tracker.history.save(f"any_backend_{backend}.jsonl")


def draw():
    """Draw the mean absolute gradients of all histories over each other."""
    paths = {backend: Path(f"any_backend_{backend}.jsonl") for backend in STYLES}
    histories = {
        backend: kgrad.GradientHistory.load(path)
        for backend, path in paths.items()
        if path.exists()
    }
    layers = next(iter(histories.values())).layers
    sns.set_theme(style="whitegrid")
    figure, axes = plt.subplots(
        2, 4, figsize=(10, 5), sharex=True, sharey=True, layout="constrained"
    )
    for number, layer in enumerate(layers):
        ax = axes.flat[number]
        for backend, history in histories.items():
            values = history.by_layer("mean_abs")[:, number]
            ax.semilogy(history.epochs, values, label=backend, **STYLES[backend])
        ax.set(title=layer)
    for ax in axes.flat[len(layers) :]:
        ax.set_axis_off()
    axes.flat[-1].legend(*axes.flat[0].get_legend_handles_labels(), loc="center")
    figure.supxlabel("epoch")
    figure.supylabel("mean |gradient| of the kernel")
    figure.savefig("any_backend.png", dpi=150)
    first = next(iter(histories.values()))
    for backend, history in histories.items():
        apart = abs(history["mean_abs"] / first["mean_abs"] - 1).max(axis=1)
        if history is not first:
            print(
                f"mean |gradient| on {backend} and on {next(iter(histories))} differs by at most "
                f"{apart[0]:.0e} of its value before training, {apart[1]:.0e} in epoch 1, "
                f"{apart[-1]:.0e} in epoch {history.epochs[-1]}"
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(sys.argv[1])
    else:
        for backend in filter(find_spec, STYLES):
            print(f"{backend}:")
            environment = os.environ | {"KERAS_BACKEND": backend}
            subprocess.run([sys.executable, __file__, backend], env=environment, check=True)
        draw()

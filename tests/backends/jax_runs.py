"""Trains a small network on several devices or in one of several processes, and prints the results.

A program of its own, because JAX must know of devices and processes before anything else. Argument:
a JSON object with `folder`, `layouts`, and of several processes `port`, `process` and `processes`.
"""

import json
import sys
from pathlib import Path

import jax
import keras
import numpy as np

from kgrad import GradientTracker, train_and_track_gradients

RANDOM = np.random.default_rng(12345)
X = RANDOM.normal(size=(24, 6)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
EPOCHS, RATE = 2, 0.1
arguments = json.loads(sys.argv[1])
PROCESSES, PROCESS = arguments.get("processes", 1), arguments.get("process", 0)


def made():
    keras.utils.set_random_seed(3)
    first, last = keras.layers.Dense(8, "tanh", name="first"), keras.layers.Dense(1, name="last")
    model = keras.Sequential([keras.Input((6,)), first, last])
    model.compile(keras.optimizers.SGD(RATE), "mse")
    return model


def distribution(name):
    if name == "data":
        return keras.distribution.DataParallel(auto_shard_dataset=False)
    count = len(jax.devices())
    mesh = keras.distribution.DeviceMesh((2, count // 2), ["batch", "model"])
    layouts = keras.distribution.LayoutMap(mesh)
    layouts["first/kernel"] = (None, "model")
    layouts["first/bias"] = ("model",)
    return keras.distribution.ModelParallel(
        layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False
    )


def fit(journal):
    # Each process passes its part of every batch.
    own = np.arange(24).reshape(3, PROCESSES, -1)[:, PROCESS].ravel()
    model, tracker = made(), GradientTracker(["max_abs"], journal=journal)
    options = {"batch_size": 8 // PROCESSES, "epochs": EPOCHS, "shuffle": False, "verbose": 0}
    model.fit(X[own], Y[own], callbacks=[tracker], **options)
    return tracker.history


def loop(journal, **options):
    settings = {"epochs": EPOCHS, "batch_size": 8, "shuffle": False, "journal": journal}
    settings["statistics"] = ["max_abs"]
    return train_and_track_gradients(made(), X, Y, **settings | options)


def own_loop(journal):
    model = made()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    layout = keras.distribution.distribution().get_data_layout((8, 6)).backend_layout

    @jax.jit
    def step(trainable, of_optimizer, x, y):
        def loss(trainable):
            return jax.numpy.mean((model.stateless_call(trainable, [], x)[0] - y) ** 2)

        gradients = jax.grad(loss)(trainable)
        return optimizer.stateless_apply(of_optimizer, gradients, trainable)

    def placed(array):
        return jax.make_array_from_callback(array.shape, layout, lambda place: array[place])

    trainable = [v.value for v in model.trainable_variables]
    of_optimizer = [v.value for v in optimizer.variables]
    tracker = GradientTracker(["max_abs"], journal=journal)
    with tracker.attach(optimizer, model):
        for _ in range(EPOCHS):
            for i in range(0, 24, 8):
                batch = placed(X[i : i + 8]), placed(Y[i : i + 8])
                trainable, of_optimizer = step(trainable, of_optimizer, *batch)
            tracker.record(weights=trainable)
    return tracker.history


def results(name, how, run):
    journal = Path(arguments["folder"]) / f"{name} {how} {PROCESS}.jsonl"
    history = run(journal)
    names = ("mean_abs", "l2_norm", "max_abs", "weight_l2", "update_l2")
    recorded = {one: history[one].tolist() for one in names}
    return recorded | {"journal": journal.exists(), "updates": history["updates"].tolist()}


if __name__ == "__main__":
    if PROCESSES > 1:  # before anything is computed
        jax.distributed.initialize(f"127.0.0.1:{arguments['port']}", PROCESSES, PROCESS)
    weights = [np.array(v.value).tolist() for v in made().trainable_variables]
    found = {}
    for name in arguments["layouts"]:
        keras.distribution.set_distribution(name and distribution(name))
        found[name] = {
            "fit": results(name, "fit", fit),
            "own loop": results(name, "own", own_loop),
            "loop": results(name, "loop", loop),
            "compiled loop": results(name, "xla", lambda path: loop(path, jit_compile=True)),
        }
    print(json.dumps({"weights": weights, "found": found}))

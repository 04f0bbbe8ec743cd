"""The processes of `test_strategies.py`: a training under a strategy of TensorFlow.

`python strategies.py mirrored FOLDER` trains on virtual devices of one process;
`python strategies.py worker FOLDER`, in several processes with `TF_CONFIG`, on one device in each.
"""

import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["TF_NUM_INTEROP_THREADS"] = "1"

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.loop import measure_gradients, train_and_track_gradients
from kgrad.measure.recorder import Recorder

X = np.random.default_rng(5).normal(size=(29, 5)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
ACTIVATIONS = ["tanh", "sigmoid"]
L2 = 0.03


def dense():
    """A nestrategyrk that knows no batch: its gradient is the mean of those of the samples."""
    keras.utils.set_random_seed(1)
    kernel = {"kernel_regularizer": keras.regularizers.L2(L2)}
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(6, "tanh", **kernel),
            keras.layers.Dense(1, "sigmoid", **kernel),
        ]
    )


def compiled():
    model = dense()
    optimizer = keras.optimizers.Adam(
        0.01, clipnorm=0.05, weight_decay=0.01, gradient_accumulation_steps=2
    )
    model.compile(optimizer, "binary_crossentropy", metrics=["accuracy", "mae"])
    return model


def lookup(**options):
    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(7, 3, **options),
            keras.layers.Dense(1, "tanh"),
        ]
    )


def save(history, model, folder, name):
    history.save(folder / f"{name}.jsonl")
    np.savez(folder / f"{name}.npz", *model.get_weights())


def plain_sgd(model, folder, name, **options):
    """Train by plain SGD, in an order of its own in each epoch."""
    options = {"optimizer": "sgd", "loss": "binary_crossentropy", "batch_size": 8} | options
    history = train_and_track_gradients(
        model, X, Y, 3, seed=3, statistics=["max_abs"], distributions=True, **options
    )
    save(history, model, folder, name)


def adam(model, folder, name):
    save(
        train_and_track_gradients(model, X, Y, 3, batch_size=8, seed=3, every=3),
        model,
        folder,
        name,
    )


def embedded(model, folder, name):
    places = np.arange(29 * 4).reshape(29, 4) * 3 % 7
    y = X[:, :4, None]
    history = train_and_track_gradients(model, places, y, 2, batch_size=8, seed=3, loss="mse")
    save(history, model, folder, name)


@contextmanager
def refusal(refused, name):
    try:
        yield
    except (TypeError, ValueError) as error:
        refused[name] = str(error)


def mirrored(folder):
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model, optimizer = dense(), keras.optimizers.SGD()
    plain_sgd(model, folder, "plain", optimizer=optimizer)
    values = model.variables[0].value.values  # one per replica
    np.testing.assert_array_equal(values[0].numpy(), values[1].numpy())
    # Keras's own losses divide by the number of replicas, functions do not.
    with strategy.scope():
        model = dense()
    loss = keras.losses.BinaryCrossentropy()
    plain_sgd(model, folder, "uneven", optimizer="sgd", loss=loss, batch_size=9)
    with strategy.scope():
        model = compiled()
    adam(model, folder, "adam")
    with strategy.scope():
        model = lookup()
    embedded(model, folder, "embedded")
    with strategy.scope():
        model = compiled()
    measure_gradients(model, X, Y).save(folder / "measured.jsonl")
    (folder / "refused.json").write_text(json.dumps(refusals(strategy)))


def refusals(strategy):
    refused = {}

    def refuse(name, model, X=X, Y=Y, **options):
        with refusal(refused, name):
            train_and_track_gradients(model, X, Y, 1, **{"batch_size": 8} | options)

    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean((y - y_pred) ** 2)

    with strategy.scope():
        model, scaled = dense(), keras.optimizers.SGD()
        own = Own([keras.Input((5,)), keras.layers.Dense(1)])
        own.compile("sgd", "mse")
        masked = lookup(mask_zero=True)
        scaled = keras.optimizers.LossScaleOptimizer(scaled)
        refuse("scope", model)
        with refusal(refused, "measure"):
            measure_gradients(model, X, Y)
    refuse("jit", model, jit_compile=True)
    refuse("probe", model, probe=(X, Y))
    refuse("optimizer", model, optimizer=keras.optimizers.SGD())
    refuse("scale", model, optimizer=scaled)
    refuse("loss", model, loss=keras.losses.MeanSquaredError(reduction="sum"))
    refuse("compute_loss", own)
    refuse("batch", model, batch_size=1)
    refuse("last", model, batch_size=7)
    refuse("mask", masked, np.ones((8, 4), int), np.ones((8, 4, 1), "f"), loss="mse")
    outside = dense()
    central = tf.distribute.experimental.CentralStorageStrategy(["CPU:0", "CPU:1"], "CPU:0")
    with central.scope():
        stored = dense()
    refuse("strategy", stored)
    with strategy.scope():
        refuse("outside", outside)
    assert not model.compiled
    return refused


def worker(folder):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    number = strategy.cluster_resolver.task_id
    own = folder / str(number)
    with strategy.scope():
        model = dense()
    plain_sgd(model, own, "plain", journal=own / "journal.jsonl")
    with strategy.scope():
        model = compiled()
    np.random.seed(number)  # noqa: NPY002 (the generator that draws the seed of the order)
    history = train_and_track_gradients(
        model, X, Y, 2, batch_size=7 + 2, every=3, verbose=1 - number
    )
    save(history, model, own, "adam")

    refused = {}
    with refusal(refused, "data"):
        train_and_track_gradients(model, X[number:], Y[number:], 1)
    with refusal(refused, "arguments"):
        train_and_track_gradients(model, X, Y, 1 + number)
    (own / "refused.json").write_text(json.dumps(refused))

    record = Recorder.record

    def interrupted(recorder, *args, **options):
        record(recorder, *args, **options)
        if len(recorder.history) == 3 and number == 1:  # Ctrl-C in one of the workers
            signal.raise_signal(signal.SIGINT)

    Recorder.record = interrupted
    history = train_and_track_gradients(model, X, Y, 1000, batch_size=8)
    save(history, model, own, "interrupted")
    try:
        model.fit(X, Y, verbose=0, callbacks=[Unasked()])
    except ValueError as error:
        (own / "fit.txt").write_text(str(error))


class Unasked(keras.callbacks.Callback):
    def set_model(self, model):
        raise AssertionError("Keras asks callbacks: the tracker can refuse the strategy")


if __name__ == "__main__":
    {"mirrored": mirrored, "worker": worker}[sys.argv[1]](Path(sys.argv[2]))

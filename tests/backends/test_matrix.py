"""Every form of training that a user may choose in `fit`, on whatever backend Keras runs on.

Each form is trained twice from the same seed: untracked, with a backward pass of its own before
each step, and tracked. Tracking changes no bit of the weights, the random states and the optimizer;
and the recorded gradients are those of the backward passes.
"""

import inspect
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import pytest
from backward import value_of
from keras import layers, ops, optimizers, regularizers
from tape_oracle import Tape, assert_records, assert_same_training, batches_of, fit

from kgrad.measure.tracker import GradientTracker

BACKEND = keras.backend.backend()
RANDOM = np.random.default_rng(12345)
SAMPLES, STEPS, EPOCHS = 24, 3, 2  # batches of 8
X = RANDOM.normal(size=(SAMPLES, 6)).astype(np.float32)
Y = (X[:, :1] > 0).astype(np.float32)
IMAGES = RANDOM.normal(size=(SAMPLES, 6, 6, 1)).astype(np.float32)
SERIES = RANDOM.normal(size=(SAMPLES, 5, 4)).astype(np.float32)
WORDS = RANDOM.integers(0, 12, size=(SAMPLES, 6)).astype(np.int32)
WEIGHT = RANDOM.uniform(0.5, 2, size=SAMPLES).astype(np.float32)


def an_epoch_each(steps):
    return [steps[:1], *(steps[i : i + STEPS] for i in range(0, len(steps), STEPS))]


@dataclass(frozen=True)
class Form:
    """A form of training.

    Attributes:
        make: makes the compiled model.
        x, y, fit: what `fit` gets.
        batches: what the tape takes of each step, by default of x and y.
        scale: of (model), by which the optimizer scales the loss.
        tracker: arguments of the tracker.
        records: the steps of each record.
        rtol, atol: of the gradients.
        backends: on which it can be trained.
    """

    make: Any
    x: Any = field(default_factory=lambda: X)
    y: Any = field(default_factory=lambda: Y)
    fit: dict = field(default_factory=dict)
    batches: Any = None
    scale: Any = None
    tracker: dict = field(default_factory=dict)
    records: Any = an_epoch_each
    rtol: float = 1e-5
    atol: float = 0.0
    backends: tuple = ("tensorflow", "jax", "torch")


# ---- Models --------------------------------------------------------------------------------------


def compiled(model, optimizer=None, loss="mse", **options):
    model.compile(optimizer or optimizers.SGD(0.1), loss, **options)
    return model


def sequential(*middle, shape=(6,), dtype="float32", **options):
    inputs = keras.Input(shape, dtype=dtype)
    return compiled(keras.Sequential([inputs, *middle, layers.Dense(1, name="output")]), **options)


def mlp(optimizer=None, **options):
    hidden = layers.Dense(8, "tanh", name="first"), layers.Dense(7, "gelu", name="second")
    return sequential(*hidden, optimizer=optimizer, **options)


def of_optimizer(optimizer, **options):
    """A form of training with an optimizer, which is made anew for each training."""
    return Form(lambda: mlp(optimizer()), **options)


def sgd(**options):
    return of_optimizer(lambda: optimizers.SGD(**{"learning_rate": 0.1} | options))


def convolutional():
    return sequential(
        layers.Conv2D(3, 3, activation="relu"),
        layers.DepthwiseConv2D(2, use_bias=False),  # its gradient would be rounding errors
        layers.BatchNormalization(),
        layers.MaxPooling2D(),
        layers.Flatten(),
        shape=IMAGES.shape[1:],
    )


def attentive():
    words = keras.Input(WORDS.shape[1:], dtype="int32")
    x = layers.Embedding(12, 8)(words)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    return compiled(keras.Model(words, layers.Dense(1)(layers.GlobalAveragePooling1D()(x))))


def nested_and_shared():
    block = keras.Sequential([layers.Dense(6, "tanh"), layers.Dense(6)], name="block")
    inputs = keras.Input((6,))
    return compiled(keras.Model(inputs, layers.Dense(1)(block(block(inputs)))))


def two_heads():
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    shared = layers.Dense(5, "tanh")(layers.Concatenate()([a, b]))
    heads = {"one": layers.Dense(1, name="one")(shared), "two": layers.Dense(2, name="two")(shared)}
    losses = {"one": "mse", "two": "mae"}
    return compiled(
        keras.Model({"a": a, "b": b}, heads), loss=losses, loss_weights={"one": 0.3, "two": 2.0}
    )


@keras.saving.register_keras_serializable("matrix")
class Residual(keras.Model):
    """A model of a class of its own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(6, "tanh"), layers.Dense(6, "tanh")
        self.head = layers.Dense(1)

    def call(self, x):
        x = x + self.first(x)
        return self.head(x + self.second(x))


def subclassed():
    model = Residual()
    model(X[:1])  # builds it: the tape takes the gradient before the first step
    return compiled(model)


class OwnWeights(layers.Layer):
    """Weights of its own, one with a constraint, one that is not trained, and an extra loss."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", constraint="non_neg")
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False)
        super().build(shape)

    def call(self, x):
        self.seen.assign(self.seen + 1.0)
        self.add_loss(0.1 * ops.mean(ops.square(x * self.scale)))
        return x * self.scale


class InTwoParts(keras.utils.PyDataset):
    """Batches from a `PyDataset`."""

    def __len__(self):
        return STEPS

    def __getitem__(self, i):
        return X[8 * i : 8 * (i + 1)], Y[8 * i : 8 * (i + 1)]


def frozen():
    model = mlp()
    model.layers[0].trainable = False
    return compiled(model)


def in_precision(policy, optimizer):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return mlp(optimizer)
    finally:
        keras.config.set_dtype_policy(before)


def of_magnitude(factor):
    """A loss whose gradients are of this magnitude."""

    def loss(y, y_pred):
        return ops.mean(ops.square(y - y_pred), axis=-1) * factor

    return Form(lambda: mlp(optimizers.SGD(0.1 / factor), loss=loss))


def dynamic_scale(model):
    scaled = model.optimizer
    return value_of(scaled.dynamic_scale) if scaled.built else scaled.initial_scale


def scaled(scale):
    return lambda: optimizers.LossScaleOptimizer(optimizers.SGD(0.1), scale, dynamic_growth_steps=4)


def in_parts():
    parts = optimizers.OptimizerMap(optimizers.SGD(0.1), {".*output/.*": optimizers.Adam(0.01)})
    return optimizers.MultiOptimizer(parts)


def average_of(k):
    """The steps of each record if k gradients make an update."""

    def records(steps):
        updates = {
            end: [np.mean(gs, axis=0) for gs in zip(*steps[end - k : end], strict=True)]
            for end in range(k, len(steps) + 1, k)
        }
        epochs = [range(i + 1, i + STEPS + 1) for i in range(0, len(steps), STEPS)]
        of_epochs = [[updates[end] for end in epoch if end in updates] for epoch in epochs]
        return [[updates[k]], *of_epochs]

    return records


# ---- Forms ---------------------------------------------------------------------------------------

NO_UPDATE_OF_THEIR_OWN = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
OPTIMIZERS = {
    name: of_optimizer(lambda kind=kind: kind(learning_rate=0.01))
    for name, kind in vars(optimizers).items()
    if inspect.isclass(kind)
    and issubclass(kind, optimizers.Optimizer)
    and name not in NO_UPDATE_OF_THEIR_OWN
}
schedule = optimizers.schedules.ExponentialDecay
FORMS = (
    OPTIMIZERS
    | {
        # Optimizers
        "Nesterov momentum": sgd(momentum=0.9, nesterov=True),
        "weight_decay": sgd(weight_decay=0.1),
        "clipnorm": sgd(clipnorm=0.05),
        "global_clipnorm": sgd(global_clipnorm=0.1),
        "clipvalue": sgd(clipvalue=0.01),
        "moving average": sgd(use_ema=True, ema_momentum=0.9),
        "moving average as weights": sgd(use_ema=True, ema_momentum=0.9, ema_overwrite_frequency=2),
        "loss_scale_factor": sgd(loss_scale_factor=1024.0),
        "schedule": of_optimizer(lambda: optimizers.Adam(schedule(0.1, 2, 0.5))),
        "learning rate of a function": of_optimizer(lambda: optimizers.SGD(lambda: 0.05)),
        "accumulation of 2": of_optimizer(
            lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2), records=average_of(2)
        ),
        "accumulation of 3, Adam, clipped": of_optimizer(
            lambda: optimizers.Adam(0.01, gradient_accumulation_steps=3, clipnorm=0.1),
            records=average_of(3),
        ),
        "accumulation and moving average": of_optimizer(
            lambda: optimizers.SGD(0.1, gradient_accumulation_steps=2, use_ema=True),
            records=average_of(2),
        ),
        "LossScaleOptimizer": of_optimizer(scaled(1024.0), scale=dynamic_scale),
        "mixed_bfloat16": Form(  # eight bits of precision, rounded elsewhere in a compiled step
            lambda: in_precision("mixed_bfloat16", optimizers.SGD(0.1)), rtol=2e-2
        ),
        "mixed_float16": Form(
            lambda: in_precision("mixed_float16", scaled(1024.0)()), scale=dynamic_scale, rtol=5e-3
        ),
        # How the step is compiled
        "run_eagerly": Form(lambda: mlp(run_eagerly=True)),
        "run_eagerly, accumulation": Form(
            lambda: mlp(optimizers.SGD(0.1, gradient_accumulation_steps=2), run_eagerly=True),
            records=average_of(2),
        ),
        "jit_compile=False": Form(lambda: mlp(jit_compile=False)),
        "jit_compile=True": Form(lambda: mlp(jit_compile=True), backends=("tensorflow", "jax")),
        # Data
        "partial batch": Form(mlp, X[:21], Y[:21]),
        "sample_weight": Form(
            mlp, fit={"sample_weight": WEIGHT}, batches=lambda: batches_of(X, Y, WEIGHT)
        ),
        "class_weight": Form(
            mlp,
            fit={"class_weight": {0: 0.5, 1: 3.0}},
            batches=lambda: batches_of(X, Y, np.where(Y[:, 0] > 0, 3.0, 0.5).astype(np.float32)),
        ),
        "PyDataset": Form(mlp, InTwoParts(), None, batches=lambda: batches_of(X, Y)),
        "validation data": Form(mlp, fit={"validation_data": (X[:5], Y[:5])}),
        # Losses
        "regularizers": Form(
            lambda: sequential(
                layers.Dense(
                    5, "tanh", kernel_regularizer="l2", activity_regularizer=regularizers.L1()
                )
            )
        ),
        "gradients of 1e-30": of_magnitude(1e-30),
        "gradients of 1e30": of_magnitude(1e30),
        # Models
        "normalization and dropout": Form(
            lambda: sequential(
                layers.Dense(6),
                layers.BatchNormalization(),
                layers.Activation("relu"),
                layers.Dropout(0.3),
            ),
            # The bias before the normalization has a gradient of rounding noise, 1e-8.
            atol=1e-7,
        ),
        "convolutions": Form(convolutional, IMAGES),
        "GRU": Form(lambda: sequential(layers.GRU(5), shape=SERIES.shape[1:]), SERIES),
        "bidirectional LSTM": Form(
            lambda: sequential(layers.Bidirectional(layers.LSTM(3)), shape=SERIES.shape[1:]), SERIES
        ),
        "embedding and attention": Form(attentive, WORDS, atol=1e-6),  # that of the keys' bias is 0
        "nested and shared": Form(nested_and_shared),
        "two inputs, two outputs": Form(
            two_heads, {"a": X, "b": X[::-1].copy()}, {"one": Y, "two": X[:, :2]}
        ),
        "subclassed": Form(subclassed),
        "weights of a layer's own": Form(lambda: sequential(OwnWeights(), layers.Dense(3, "tanh"))),
        "frozen layer": Form(frozen),
        # What is recorded
        "every 2 steps": Form(
            mlp,
            tracker={"every": 2},
            records=lambda steps: [steps[:1], *(steps[i : i + 2] for i in range(0, 6, 2))],
        ),
        "all statistics": Form(mlp, tracker={"statistics": ["max_abs", "zero_fraction"]}),
    }
)


def trainable():
    return [name for name, form in FORMS.items() if BACKEND in form.backends]


def train(form, *callbacks):
    return fit(form.make, form.x, form.y, callbacks=callbacks, epochs=EPOCHS, **form.fit)


@pytest.mark.parametrize("name", trainable())
def test_form(name):
    form = FORMS[name]
    batches = batches_of(form.x, form.y) if form.batches is None else form.batches()
    tape, tracker = Tape(batches, scale=form.scale), GradientTracker(**form.tracker)
    untracked = train(form, tape)
    assert_same_training(train(form, tracker), untracked)
    assert_records(tracker.history, form.records(tape.steps), rtol=form.rtol, atol=form.atol)


def test_every_optimizer_of_keras_is_tried():
    assert {"SGD", "Adam", "AdamW", "Lion", "Muon", "Lamb", "Adafactor"} <= set(OPTIMIZERS)
    assert len(trainable()) >= 40

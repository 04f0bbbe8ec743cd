"""Healthy training of many kinds, which no rule may object to: data synthetic, seconds each."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from sklearn.datasets import load_digits

import kgrad
from kgrad import diagnose

DIGITS = load_digits()
X = (DIGITS.data[:512] / 16).astype("float32")
Y = DIGITS.target[:512]
CLASSES = "sparse_categorical_crossentropy"
Dense = layers.Dense


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


def mlp(*, units=64, depth=2, out=10, activation="softmax", **options):
    hidden = [Dense(units, "relu", kernel_initializer="he_normal", **options) for _ in range(depth)]
    return keras.Sequential([keras.Input((64,)), *hidden, Dense(out, activation)])


def fitted(model, optimizer, loss, y=Y, *, epochs=5, every="epoch", **options):
    model.compile(optimizer, loss)
    tracker = kgrad.GradientTracker(every=every)
    model.fit(X, y, epochs=epochs, verbose=0, callbacks=[tracker], **options)
    return tracker.history, model, y


def every_few_steps():
    return fitted(mlp(), "adam", CLASSES, epochs=3, every=4)


def every_step():
    return fitted(mlp(), keras.optimizers.SGD(0.05), CLASSES, epochs=2, every=1)


def accumulated():
    adam = keras.optimizers.Adam(5e-3, gradient_accumulation_steps=4)
    return fitted(mlp(), adam, CLASSES)


def mixed_precision_with_skipped_steps():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        hidden = Dense(64, "relu")
        model = keras.Sequential(
            [keras.Input((64,)), hidden, Dense(10, "softmax", dtype="float32")]
        )
        scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(), initial_scale=2.0**24)
        run = fitted(model, scaled, CLASSES)
    finally:
        keras.config.set_dtype_policy(policy)
    assert run[0].logs["skipped_steps"].max() > 0
    return run


def cosine_decay_to_nothing():
    schedule = keras.optimizers.schedules.CosineDecay(0.2, 16 * 6)
    return fitted(mlp(), keras.optimizers.SGD(schedule), CLASSES, epochs=8)


def residual_branches_that_begin_at_zero():
    x = inputs = keras.Input((64,))
    for _ in range(5):
        inside = Dense(64, "relu", kernel_initializer="he_normal")(x)
        x = layers.Add()([x, Dense(64, kernel_initializer="zeros")(inside)])
    model = keras.Model(inputs, Dense(10, "softmax")(x))
    return fitted(model, keras.optimizers.SGD(0.02, 0.9), CLASSES)


def selu_with_alpha_dropout():
    hidden = []
    for _ in range(8):
        hidden += [Dense(48, "selu", kernel_initializer="lecun_normal"), layers.AlphaDropout(0.02)]
    model = keras.Sequential([keras.Input((64,)), *hidden, Dense(10, "softmax")])
    return fitted(model, keras.optimizers.SGD(0.01, 0.9), CLASSES)


def regression_with_large_targets():
    y = 1e4 * (X[:, 20:21] - X[:, 30:31])
    return fitted(mlp(out=1, activation=None), keras.optimizers.Adam(0.1), "mse", y, epochs=6)


def rare_labels():
    y = np.eye(10)[Y] * (np.arange(512) % 4 == 0)[:, None]
    return fitted(mlp(out=10, activation="sigmoid"), "adam", "binary_crossentropy", y)


def label_smoothing():
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    return fitted(mlp(), keras.optimizers.Adam(3e-3), loss, np.eye(10)[Y])


def regularization_far_above_the_cross_entropy():
    model = mlp(units=128, kernel_regularizer=keras.regularizers.L2(1e-2))
    return fitted(model, keras.optimizers.SGD(0.03), CLASSES)


def negative_log_likelihood():
    def loss(y, p):
        return ops.mean(p[:, 1] + 0.5 * ops.square((y[:, 0] - p[:, 0]) / ops.exp(p[:, 1])))

    y = 0.05 * X[:, 20:21]
    return fitted(mlp(out=2, activation=None), keras.optimizers.Adam(3e-3), loss, y)


def fine_tuned_with_tiny_steps():
    model = mlp()
    model.compile("adam", CLASSES)
    model.fit(X, Y, epochs=5, verbose=0)
    return fitted(model, keras.optimizers.Adam(1e-5), CLASSES)


class Tied(keras.Model):
    """An autoencoder whose decoder is its encoder's transpose: its only layer is no output."""

    def __init__(self):
        super().__init__()
        self.encoder = Dense(16, "tanh")
        self.shift = self.add_weight(shape=(64,), initializer="zeros", name="shift")

    def call(self, x):
        return ops.sigmoid(
            ops.matmul(self.encoder(x), ops.transpose(self.encoder.kernel)) + self.shift
        )


def tied_weights():
    return fitted(Tied(), keras.optimizers.Adam(3e-3), "binary_crossentropy", X)


def an_operation_behind_the_last_layer():
    inputs = keras.Input((64,))
    outputs = ops.softmax(Dense(10)(Dense(32, "relu")(inputs)))
    return fitted(keras.Model(inputs, outputs), "adam", CLASSES)


def one_class_left_out():
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    return fitted(mlp(), "adam", loss, np.where(Y == 3, -1, Y))


def attached(steps, *optimizers_and_models):
    tracker = kgrad.GradientTracker()
    for number, (optimizer, model) in enumerate(optimizers_and_models):
        optimizer.build(model.trainable_variables)
        tracker.attach(optimizer, model, str(number))
    for _ in range(5):
        tracker.record({"loss": float(np.mean([steps(i) for i in range(0, 512, 32)]))})
    tracker.detach()
    return list(tracker.histories.values())


def contrastive():
    encoder = keras.Sequential(
        [keras.Input((64,)), Dense(64, "relu"), Dense(16), layers.UnitNormalization()]
    )
    adam = keras.optimizers.Adam(1e-3)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            one, other = (encoder(x + tf.random.normal((32, 64), 0, 0.1)) for _ in range(2))
            alike = tf.matmul(one, other, transpose_b=True) / 0.1
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(tf.range(32), alike)
            )
        weights = encoder.trainable_variables
        adam.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    return attached(lambda i: step(X[i : i + 32]), (adam, encoder))


@pytest.mark.parametrize(
    "train",
    [
        every_few_steps,
        every_step,
        accumulated,
        mixed_precision_with_skipped_steps,
        cosine_decay_to_nothing,
        residual_branches_that_begin_at_zero,
        selu_with_alpha_dropout,
        regression_with_large_targets,
        rare_labels,
        label_smoothing,
        regularization_far_above_the_cross_entropy,
        negative_log_likelihood,
        fine_tuned_with_tiny_steps,
        tied_weights,
        an_operation_behind_the_last_layer,
        one_class_left_out,
    ],
)
def test_healthy_training_has_no_findings(train):
    history, model, y = train()
    assert history.logs["loss"][-1] < history.logs["loss"][1]
    found = diagnose(history, model, y=y)
    assert found.rules == (), found


def test_contrastive_training_in_a_loop_of_ones_own_has_no_findings():
    for history in contrastive():
        found = diagnose(history)
        assert found.rules == (), found


def test_steps_too_small_for_weights_that_were_never_trained_are_found():
    """The same as the fine-tuning above, but for the training before."""
    history, model, y = fitted(mlp(), keras.optimizers.Adam(1e-7), CLASSES)
    assert diagnose(history, model, y=y).rules == ("not_moving",)

"""To read a gradient must not change in which place TensorFlow rounds the update made of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, optimizers
from tape_oracle import assert_same_training

from kgrad import GradientTracker, train_and_track_gradients
from kgrad.measure.backends.tensorflow.gradients import unshared

random = np.random.default_rng(0)
X = random.normal(size=(44, 6)).astype(np.float32)
Y = random.normal(size=(44, 1)).astype(np.float32)


class Exponential(layers.Layer):
    """A layer whose gradient ends in a product."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],))

    def call(self, x):
        return x * keras.ops.exp(self.w)


MODELS = {
    "dense": [layers.Dense(8, "tanh")],
    "batch normalization": [layers.Dense(8), layers.BatchNormalization(), layers.ReLU()],
    "exponential": [layers.Dense(8, "tanh"), Exponential()],
}
OPTIMIZERS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov and decay": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "clipnorm": {"momentum": 0.9, "clipnorm": 0.1},
    "three accumulated": {"gradient_accumulation_steps": 3},
    "scaled by 3": {"loss_scale_factor": 3.0},
    "scaled by 1000": {"loss_scale_factor": 1000.0},
}


def made(model, optimizer):
    keras.utils.set_random_seed(1)
    parts = [layer.__class__.from_config(layer.get_config()) for layer in MODELS[model]]
    network = keras.Sequential([keras.Input((6,)), *parts, layers.Dense(1, name="output")])
    network.compile(optimizers.SGD(0.01, **OPTIMIZERS[optimizer]), "mse")
    return network


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_a_tracked_fit_is_an_untracked_one_to_the_last_bit(model, optimizer):
    one, other = made(model, optimizer), made(model, optimizer)
    options = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
    tracker = GradientTracker(["max_abs"], distributions=True)
    one.fit(X, Y, callbacks=[tracker], **options)
    other.fit(X, Y, **options)
    assert_same_training(one, other)
    assert len(tracker.history) == 4


def test_the_loop_is_tracked_without_a_trace_in_the_last_bit():
    """Statistics on request, distributions and clipping add readers, and change nothing."""
    one, other = (made("batch normalization", "global_clipnorm") for _ in range(2))
    options = {"batch_size": 8, "shuffle": False, "jit_compile": False}
    train_and_track_gradients(one, X, Y, 3, clipped=False, **options)
    train_and_track_gradients(
        other, X, Y, 3, statistics=["max_abs", "zero_fraction"], distributions=True, **options
    )
    assert_same_training(one, other)


def test_copies_have_the_values_and_another_operation():
    @tf.function(autograph=False)
    def both(x, y):
        product = x * y
        slices = tf.IndexedSlices(product * 2.0, tf.constant([0, 1]), tf.constant([4, 3]))
        tensors = [tf.matmul(x, y, transpose_b=True), product / 3.0 + product, slices, None]
        copies = unshared(tensors)
        assert copies[0] is tensors[0] and copies[3] is None
        assert copies[1] is not tensors[1]
        assert copies[2].values is not slices.values and copies[2].indices is slices.indices
        return tensors[:3], copies[:3]

    x, y = (tf.constant(random.normal(size=(2, 3)), tf.float32) for _ in range(2))
    for tensor, copy in zip(*both(x, y), strict=True):
        np.testing.assert_array_equal(
            tf.convert_to_tensor(tensor).numpy(), tf.convert_to_tensor(copy).numpy()
        )
    assert unshared([x])[0] is x

"""Saturation in a graph of TensorFlow; tests/backends has what holds on every backend."""

import keras
import numpy as np
import tensorflow as tf

from kgrad.measure.saturation import count_saturated


def test_it_works_where_a_graph_does_not_know_the_length(random):
    z = random.uniform(-12, 12, size=(50, 8)).astype(np.float32)
    function = tf.function(lambda z: count_saturated(keras.activations.tanh, [z]))
    unknown = function.get_concrete_function(tf.TensorSpec([None, None], tf.float32))
    expected = np.sum(abs(z) > np.arctanh(np.sqrt(0.99)))  # 1 − tanh² < 0.01
    assert unknown(tf.constant(z)).numpy() == expected

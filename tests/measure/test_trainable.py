"""What is trained: `trainable` for a while, and the optimizers that a model holds."""

import keras
import pytest
from keras import layers

from kgrad.measure.keras_models.trainable import known_to_optimizers, trainable_as


def network():
    inner = keras.Sequential([layers.Dense(4, name="a"), layers.BatchNormalization(name="bn")])
    return keras.Sequential([keras.Input((3,)), inner, layers.Dropout(0.5), layers.Dense(1)])


def flags(model):
    parts = model._flatten_layers(include_self=True, recursive=True)
    return [part.trainable for part in parts], [v.trainable for v in model.variables]


def test_exactly_the_given_variables_are_trainable_and_only_for_a_while():
    model = network()
    inner = model.layers[0]
    inner.trainable = False
    kernel, gamma = inner.layers[0].kernel, inner.layers[1].gamma
    before = flags(model)
    with trainable_as(model, frozenset({id(kernel), id(gamma)})):
        assert model.trainable_variables == [kernel, gamma]
        assert inner.layers[1].trainable  # batch normalization uses the batch's moments
        assert not model.layers[-1].trainable
    assert flags(model) == before
    with pytest.raises(KeyError), trainable_as(model, frozenset()):
        assert model.trainable_variables == []
        raise KeyError
    assert flags(model) == before
    with trainable_as(model, None):
        assert flags(model) == before


def test_the_variables_that_optimizers_know():
    model = network()
    model.layers[0].trainable = False
    model.compile("adam", "mse")
    assert known_to_optimizers(model) == []
    model.optimizer.build(model.trainable_variables)
    model.layers[0].trainable = True
    assert known_to_optimizers(model) == model.layers[-1].trainable_variables

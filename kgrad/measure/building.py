"""Builds what `fit` builds before its first step, for passes that are run without `fit`."""

from typing import Any

import keras
from keras.src.backend import compute_output_spec

from kgrad.measure.backends.current import backend


def build_as_fit_does(model: keras.Model, X: Any, y: Any) -> None:
    """Make the variables that `fit` makes before its first step.

    They are those of layers that are not built and those of the compiled loss. A variable that is
    made while a step is compiled would have no value afterwards on JAX.

    Args:
        model: a model whose `call` can be run.
        X: a structure of arrays that the model takes.
        y: the structure of targets.
    """
    loss = model._compile_loss if model.compiled else None
    loss_is_built = loss is None or loss.built
    if loss_is_built and all(layer.built for layer in model._flatten_layers()):
        return
    with backend.variable_scope(model):
        X, y = keras.tree.map_structure(_symbolic, (X, y))
        y_pred = compute_output_spec(model, X, training=False)
        if not loss_is_built:
            compute_output_spec(model.compute_loss, X, y, y_pred, training=False)


def _symbolic(array: Any) -> keras.KerasTensor:
    tensor = keras.ops.convert_to_tensor(array)
    return keras.KerasTensor(tensor.shape, keras.backend.standardize_dtype(tensor.dtype))

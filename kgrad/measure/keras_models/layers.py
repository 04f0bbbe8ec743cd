"""Readers of one layer: its activation, its kernel, its initializer; and of a loss's name."""

from typing import Any

import keras

from kgrad.measure.aliases import fitting_initializer

# Layers that are an activation function → the name of the function.
ACTIVATION_LAYERS = {
    keras.layers.ReLU: "relu",
    keras.layers.LeakyReLU: "leaky_relu",
    keras.layers.PReLU: "prelu",
    keras.layers.ELU: "elu",
    keras.layers.Softmax: "softmax",
}


def unwrapped(layer: Any) -> Any:
    """Return the layer that a wrapper such as `TimeDistributed` or `Bidirectional` applies."""
    while (inner := getattr(layer, "forward_layer", getattr(layer, "layer", None))) is not None:
        layer = inner
    return layer


def has_kernel(operation: Any) -> bool:
    """Return whether an operation has a weight with two axes or more."""
    return any(len(weight.shape) >= 2 for weight in getattr(operation, "weights", ()))


def is_recurrent(layer: Any) -> bool:
    """Return whether a layer applies its activation once per time step."""
    return isinstance(unwrapped(layer), keras.layers.RNN)


def is_activation(layer: Any) -> bool:
    """Return whether a layer is nothing but an activation function."""
    return isinstance(layer, (keras.layers.Activation, *ACTIVATION_LAYERS))


def activation_name(layer: Any) -> str:
    """Return Keras's name of a layer's activation function, "linear" if the layer has none."""
    layer = unwrapped(layer)
    f = getattr(getattr(layer, "cell", layer), "activation", None)
    for one in (layer, f):
        if type(one) in ACTIVATION_LAYERS:
            return ACTIVATION_LAYERS[type(one)]
    return "linear" if f is None else getattr(f, "__name__", type(f).__name__)


def named_activation(f: Any) -> tuple[str, dict[str, Any]] | None:
    """Return the name and the parameters of one of Keras's activation functions.

    Args:
        f: a function, or a layer that is an activation function.

    Returns:
        The name in `keras.activations` and the parameters that are not the default; None if f is
        not one of Keras's functions, or has parameters that this function does not read.

    Example:
        >>> named_activation(keras.layers.ReLU(negative_slope=0.25))
        ('leaky_relu', {'negative_slope': 0.25})
    """
    if type(f) is keras.layers.Activation:
        f = f.activation
    if isinstance(f, keras.layers.Softmax):
        return "softmax", {}
    if isinstance(f, keras.layers.ELU):
        return "elu", {"alpha": float(f.alpha)}
    if isinstance(f, keras.layers.LeakyReLU) or (
        isinstance(f, keras.layers.ReLU) and f.max_value is None and not f.threshold
    ):
        slope = float(f.negative_slope)
        return ("leaky_relu", {"negative_slope": slope}) if slope else ("relu", {})
    name = getattr(f, "__name__", "")
    return (name, {}) if name and getattr(keras.activations, name, None) is f else None


def initializer_fits(initializer: Any, activation: str) -> bool:
    """Return whether an initializer scales its variance as the one that fits the activation."""
    if not isinstance(initializer, keras.initializers.VarianceScaling):
        return False
    fitting = keras.initializers.get(fitting_initializer(activation))
    return (initializer.scale, initializer.mode) == (fitting.scale, fitting.mode)


def loss_name(loss: Any) -> str:
    """Return the name of a loss as Keras writes it: `binary_crossentropy`.

    It is empty if there is no loss, or several losses for several outputs.
    """
    if isinstance(loss, str | type):  # "mse" and "BinaryCrossentropy", too
        loss = keras.losses.get(loss)
    return str(getattr(loss, "name", getattr(loss, "__name__", "")))

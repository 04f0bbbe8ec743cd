"""Other names of Keras's initializers, activations and normalizations.

Plain strings, so that code that must not import Keras can read them.
"""

import math

# Name in papers and other libraries → name in `keras.initializers`.
INITIALIZERS = {
    "he": "he_normal",
    "kaiming": "he_normal",
    "kaiming_normal": "he_normal",
    "kaiming_uniform": "he_uniform",
    "xavier": "glorot_normal",
    "glorot": "glorot_normal",
    "xavier_normal": "glorot_normal",
    "xavier_uniform": "glorot_uniform",
    "lecun": "lecun_normal",
    "normal": "random_normal",
    "uniform": "random_uniform",
}
# Name in papers and other libraries → name in `keras.activations`.
ACTIVATIONS = {"identity": "linear", "logistic": "sigmoid", "lrelu": "leaky_relu"}
# What is normalized over → class in `keras.layers`.
NORMALIZATIONS = {"batch": "BatchNormalization", "layer": "LayerNormalization"}

# Activation → the initializer made for it; for all others it is Glorot's.
_FITTING = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "relu6", "elu", "celu"), "he_normal"),
    **dict.fromkeys(("gelu", "silu", "swish", "mish", "hard_silu", "softplus"), "he_normal"),
    "selu": "lecun_normal",
}


def normal_stddev(name: str) -> float | None:
    """Return the standard deviation in `"normal:0.5"`; None for a name without a colon.

    Raises:
        ValueError: if there is a colon, but no normal distribution before it or no positive, finite
            number after it.

    Example:
        >>> normal_stddev("normal:0.5"), normal_stddev("he")
        (0.5, None)
    """
    kind, colon, number = name.partition(":")
    if not colon:
        return None
    try:
        stddev = float(number)
    except ValueError:
        stddev = math.nan
    if kind.strip().lower() != "normal" or not 0 < stddev < math.inf:
        raise ValueError(
            f"with a colon must be normal:STDDEV, such as normal:0.5, received {name!r}"
        )
    return stddev


def short_initializer(name: str) -> str:
    """Return the first alias of a Keras initializer, or the name itself if it has none.

    Example:
        >>> short_initializer("glorot_normal"), short_initializer("zeros")
        ('xavier', 'zeros')
    """
    return next((alias for alias, full in INITIALIZERS.items() if full == name), name)


def initializer_class(name: str) -> str:
    """Return the class in `keras.initializers` that a name or an alias means.

    Example:
        >>> initializer_class("xavier_uniform"), initializer_class("he_uniform")
        ('GlorotUniform', 'HeUniform')
    """
    return "".join(part.capitalize() for part in INITIALIZERS.get(name, name).split("_"))


def fitting_initializer(activation: str) -> str:
    """Return Keras's name of the initializer that keeps the variance with an activation.

    Example:
        >>> fitting_initializer("relu"), fitting_initializer("tanh")
        ('he_normal', 'glorot_normal')
    """
    return _FITTING.get(activation, "glorot_normal")

"""Other names of Keras's initializers, activations and normalizations.

Plain strings, so that code that must not import Keras can read them.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kgrad.records.checks import did_you_mean

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

# Not for one tensor or kernel; stft needs kernels of three axes.
_NO_NAMES = ("get", "serialize", "deserialize", "stft")


@cache
def exported_names(module: str) -> tuple[str, ...]:
    """Return the names that a module of Keras exports, read from its source.

    Importing Keras takes seconds, which a misspelled name should not cost.

    Args:
        module: the module, such as "activations".

    Returns:
        The names; none if Keras is not installed.
    """
    spec = find_spec("keras")
    if spec is None or spec.origin is None:
        return ()
    source = Path(spec.origin).with_name(module) / "__init__.py"
    imports = ast.parse(source.read_bytes()).body
    return tuple(
        alias.asname or alias.name
        for statement in imports
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    )


def accepted_names(exported: Iterable[str], aliases: Mapping[str, Any]) -> dict[str, Any]:
    """Return the accepted names, and what each means.

    Args:
        exported: the names that `keras.activations` or `keras.initializers` has.
        aliases: other names → what they mean.
    """
    names = {name: name for name in exported if name.islower() and name[0] != "_"}
    return {name: full for name, full in (names | dict(aliases)).items() if name not in _NO_NAMES}


def meaning(name: str, accepted: Mapping[str, Any]) -> Any:
    """Return what a name means, in any case, with spaces or hyphens; None if it is unknown."""
    return {without_separators(one): accepted[one] for one in accepted}.get(
        without_separators(name)
    )


def without_separators(name: str) -> str:
    """Return a name in lower case, without spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]", "", name.lower())


def unknown_name(argument: str, name: str, accepted: Iterable[str]) -> ValueError:
    """Return the error for a name that is not among the accepted ones."""
    return ValueError(
        f"{argument} must be among {', '.join(sorted(accepted))}, or registered with Keras, "
        f"received {name!r}{did_you_mean(name, accepted)}"
    )


def normalization_class(value: Any) -> str | None:
    """Return the name of the layer's class; "batch_norm" and "LayerNormalization" are accepted.

    Raises:
        ValueError: if there is no such normalization.
    """
    if value is None:
        return None
    kind = re.sub("norm(alization)?$", "", without_separators(str(value)))
    if kind not in NORMALIZATIONS:
        raise ValueError(f"normalization must be None, 'batch' or 'layer', received {value!r}")
    return NORMALIZATIONS[kind]


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

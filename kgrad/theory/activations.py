"""Activation functions φ in float64 NumPy, each with its derivative φ' and its kinks.

φ' is the factor of the backward pass: the derivative where it exists. A jump of φ, as in
hard_shrink, does not contribute to it.
"""

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

Function = Callable[[np.ndarray], np.ndarray]
_Parts = tuple[Function, Function, tuple[float, ...]]


@dataclass(frozen=True)
class Activation:
    """An elementwise activation function.

    Attributes:
        name: its name.
        f: φ, array to array of the same shape.
        df: φ'.
        kinks: points where φ or φ' is not smooth, at which integrals over φ must be split.
    """

    name: str
    f: Function
    df: Function
    kinks: tuple[float, ...] = ()


def activation(
    phi: str | Function | Activation,
    *,
    derivative: Function | None = None,
    kinks: Sequence[float] | None = None,
    **parameters: float,
) -> Activation:
    """Return the activation function of a name, or one made from a NumPy function.

    Args:
        phi: a name in Keras (case, spaces, hyphens and underscores do not matter), or a function
            from a float64 array to an array of the same shape.
        derivative: φ', if `phi` is a function. By default φ' is a central difference of fourth
            order, accurate to about 1e-12, that never reaches across a kink.
        kinks: points where `phi` is not smooth, if it is a function. By default kinks and jumps
            between -20 and 20 are searched for, and found if they are further apart than 0.02. A
            jump of φ'' alone is not found, except at 0, where every function is assumed to have a
            kink.
        **parameters: Keras's parameters of a named function: `negative_slope` (leaky_relu, 0.2),
            `alpha` (elu and celu, 1), `approximate` (gelu, False), `threshold` (hard_shrink and
            soft_shrink, 0.5), `b` (squareplus, 4).

    Returns:
        The activation function with its derivative and kinks.

    Raises:
        ValueError: if the name or a parameter is unknown, or the function is not elementwise.
        TypeError: if `phi` is neither a name nor a function.

    Example:
        >>> phi = activation("leaky_relu", negative_slope=0.1)
        >>> phi.f(np.array([-1.0, 2.0])), phi.df(np.array([-1.0, 2.0])), phi.kinks
        (array([-0.1,  2. ]), array([0.1, 1. ]), (0.0,))
    """
    if isinstance(phi, Activation):
        return phi
    if isinstance(phi, str):
        if derivative is not None or kinks is not None:
            raise ValueError(
                f"derivative and kinks belong to a function, received them with the name {phi!r}: "
                "pass the function itself, or leave them out"
            )
        return _named(phi, parameters)
    return _of_function(phi, derivative, kinks, parameters)


def _of_function(
    phi: Any,
    derivative: Function | None,
    kinks: Sequence[float] | None,
    parameters: dict[str, Any],
) -> Activation:
    if not callable(phi):
        raise TypeError(f"phi must be a name such as 'relu' or a NumPy function, received {phi!r}")
    if parameters:
        raise ValueError(
            f"parameters belong to a name, received {', '.join(parameters)} with a function: "
            "bind them in the function"
        )
    _require_elementwise(phi)
    found = _find_kinks(phi) if kinks is None else tuple(sorted(float(kink) for kink in kinks))
    df = _central_difference(phi, found) if derivative is None else derivative
    return Activation(getattr(phi, "__name__", "phi"), phi, df, found)


def _named(name: str, parameters: dict[str, Any]) -> Activation:
    def key(text: str) -> str:
        return re.sub(r"[\s_-]", "", text.lower())

    table = {key(known): known for known in _TABLE} | {key(a): _ALIASES[a] for a in _ALIASES}
    if key(name) not in table:
        near = difflib.get_close_matches(key(name), table, n=1)
        hint = f"; did you mean {table[near[0]]!r}?" if near else ""
        raise ValueError(
            f"phi must be one of {', '.join(sorted(_TABLE))} or a NumPy function, "
            f"received {name!r}{hint}"
        )
    name = table[key(name)]
    accepted = _PARAMETERS.get(name, {})
    unknown = [parameter for parameter in parameters if parameter not in accepted]
    if unknown:
        takes = f"takes {', '.join(accepted)}" if accepted else "takes no parameters"
        raise ValueError(f"{name} {takes}, received {unknown[0]}={parameters[unknown[0]]!r}")
    return Activation(name, *_TABLE[name](*(accepted | parameters).values()))


def _require_elementwise(phi: Function) -> None:
    values = np.asarray(phi(np.linspace(-2.0, 2.0, 8).reshape(2, 4)))
    if values.shape != (2, 4) or not np.isfinite(values).all():
        raise ValueError(
            "phi must map a float64 array to finite numbers of the same shape, received a function "
            f"that maps (2, 4) numbers from -2 to 2 to shape {values.shape}: {values.tolist()}"
        )


def _central_difference(f: Function, kinks: tuple[float, ...]) -> Function:
    def df(x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, np.float64)
        for kink in kinks:  # closer to it, too few digits are left for a difference
            beside = kink + np.where(x < kink, -1e-6, 1e-6)
            x = np.where(np.abs(x - kink) < 1e-6, beside, x)
        h = 1e-3 * np.maximum(1.0, np.abs(x))
        for kink in kinks:
            h = np.minimum(h, np.abs(x - kink) / 2.5)
        near = (f(x + h) - f(x - h)) / (2 * h)
        far = (f(x + 2 * h) - f(x - 2 * h)) / (4 * h)
        return (4 * near - far) / 3

    return df


def _find_kinks(f: Function) -> tuple[float, ...]:
    """Find the x at which f(x-s) - 2f(x) + f(x+s) falls no faster than s as s goes to 0."""

    def bend(x: np.ndarray, s: float) -> np.ndarray:
        return np.abs(f(x - s) - 2 * f(x) + f(x + s)) / s

    x, s = np.linspace(-20, 20, 4001), 0.01
    bends = bend(x, s)
    peaks = (bends[1:-1] >= bends[:-2]) & (bends[1:-1] >= bends[2:]) & (bends[1:-1] > 1e-4)
    kinks = {0.0}
    for peak, coarse in zip(x[1:-1][peaks], bends[1:-1][peaks], strict=True):
        width = s
        while width > 1e-8:
            near = peak + np.linspace(-1.5, 1.5, 61) * width
            width /= 20
            fine = bend(near, width)
            peak = near[fine.argmax()]
        if fine.max() > 0.1 * coarse:  # for a smooth function it would be a millionth
            # Kinks are usually at short numbers, and the search comes within 1e-9 of them.
            kinks.add(float(round(peak, 7)) + 0.0)
    return tuple(sorted(kinks))


def _leaky(slope: float) -> _Parts:
    return (
        lambda x: np.where(x > 0, x, slope * x),
        lambda x: np.where(x > 0, 1.0, slope),
        (0.0,),
    )


def _clipped(low: float, high: float, slope: float = 1.0, offset: float = 0.0) -> _Parts:
    """Return slope · x + offset between two kinks, constant beyond them."""
    return (
        lambda x: slope * np.clip(x, low, high) + offset,
        lambda x: np.where((x > low) & (x < high), slope, 0.0),
        (low, high),
    )


def _elu(alpha: float, scale: float = 1.0) -> _Parts:
    return (
        lambda x: scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
        lambda x: scale * np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0))),
        (0.0,),
    )


def _celu(alpha: float) -> _Parts:
    return (
        lambda x: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0) / alpha)),
        lambda x: np.exp(np.minimum(x, 0) / alpha),
        (0.0,),
    )


def _gelu(approximate: bool) -> _Parts:
    if not approximate:
        density = 1 / np.sqrt(2 * np.pi)
        return (
            lambda x: x * special.ndtr(x),
            lambda x: special.ndtr(x) + x * density * np.exp(-(x**2) / 2),
            (),
        )

    def t(x: np.ndarray) -> np.ndarray:
        return np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))

    def df(x: np.ndarray) -> np.ndarray:
        inner = np.sqrt(2 / np.pi) * (1 + 3 * 0.044715 * x**2)
        return (1 + t(x) + x * (1 - t(x) ** 2) * inner) / 2

    return lambda x: x * (1 + t(x)) / 2, df, ()


def _logistic_density(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))  # so that no tail is a difference of nearly equal numbers
    return e / (1 + e) ** 2


def _silu() -> _Parts:
    sigma = special.expit
    return lambda x: x * sigma(x), lambda x: sigma(x) * (1 + x * sigma(-x)), ()


def _mish() -> _Parts:
    def t(x: np.ndarray) -> np.ndarray:
        return np.tanh(np.logaddexp(0, x))

    return lambda x: x * t(x), lambda x: t(x) + x * (1 - t(x) ** 2) * special.expit(x), ()


def _sparse_plus() -> _Parts:
    return (
        lambda x: np.where(x < 1, np.maximum(x + 1, 0) ** 2 / 4, x),
        lambda x: np.clip((x + 1) / 2, 0, 1),
        (-1.0, 1.0),
    )


def _shrink(threshold: float, soft: bool) -> _Parts:
    pull = threshold if soft else 0.0
    return (
        lambda x: np.where(np.abs(x) > threshold, x - pull * np.sign(x), 0.0),
        lambda x: np.where(np.abs(x) > threshold, 1.0, 0.0),
        (-threshold, threshold),
    )


def _hard_silu() -> _Parts:
    return (
        lambda x: x * np.clip(x + 3, 0, 6) / 6,
        lambda x: np.where(np.abs(x) < 3, (2 * x + 3) / 6, x > 0),
        (-3.0, 3.0),
    )


_TABLE: dict[str, Callable[..., _Parts]] = {
    "celu": _celu,
    "elu": _elu,
    "erf": lambda: (special.erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2)), ()),
    "gelu": _gelu,
    "hard_shrink": lambda threshold: _shrink(threshold, soft=False),
    "hard_sigmoid": lambda: _clipped(-3.0, 3.0, 1 / 6, 0.5),
    "hard_silu": _hard_silu,
    "hard_tanh": lambda: _clipped(-1.0, 1.0),
    "leaky_relu": _leaky,
    "linear": lambda: (lambda x: x, np.ones_like, ()),
    "log_sigmoid": lambda: (lambda x: -np.logaddexp(0, -x), lambda x: special.expit(-x), ()),
    "mish": _mish,
    "relu": lambda: _leaky(0.0),
    "relu6": lambda: _clipped(0.0, 6.0),
    # α and λ of Klambauer et al., "Self-Normalizing Neural Networks" (2017).
    "selu": lambda: _elu(1.6732632423543772848, 1.0507009873554804934),
    "sigmoid": lambda: (special.expit, _logistic_density, ()),
    "silu": _silu,
    "soft_shrink": lambda threshold: _shrink(threshold, soft=True),
    "softplus": lambda: (lambda x: np.logaddexp(0, x), special.expit, ()),
    "softsign": lambda: (
        lambda x: x / (1 + np.abs(x)),
        lambda x: 1 / (1 + np.abs(x)) ** 2,
        (0.0,),
    ),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": lambda: _clipped(-1.0, 1.0, 0.5, 0.5),
    "squareplus": lambda b: (
        lambda x: (x + np.sqrt(x**2 + b)) / 2,
        lambda x: (1 + x / np.sqrt(x**2 + b)) / 2,
        (),
    ),
    "tanh": lambda: (np.tanh, lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2, ()),
    "tanh_shrink": lambda: (lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2, ()),
}
_PARAMETERS: dict[str, dict[str, Any]] = {
    "celu": {"alpha": 1.0},
    "elu": {"alpha": 1.0},
    "gelu": {"approximate": False},
    "hard_shrink": {"threshold": 0.5},
    "leaky_relu": {"negative_slope": 0.2},
    "soft_shrink": {"threshold": 0.5},
    "squareplus": {"b": 4.0},
}
_ALIASES = {
    "identity": "linear",
    "logistic": "sigmoid",
    "lrelu": "leaky_relu",
    "swish": "silu",
    "hard_swish": "hard_silu",
}

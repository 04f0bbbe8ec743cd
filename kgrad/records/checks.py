"""Checks of arguments that need no Keras, each with its refusal in one sentence."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def require_integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return an integer argument as Python's `int`.

    Args:
        name: the argument as the user spelled it.
        value: its value.
        least: the smallest value that is accepted.
        most: the largest; None for no bound.

    Raises:
        ValueError: if it is no integer or out of range. `True` is no integer: whoever wrote it
            misplaced an argument.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least or (most is not None and value > most):
        accepted = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} must be an integer {accepted}, received {value!r}")
    return int(value)


def require_every(value: Any) -> None:
    """Raise unless `value` is "epoch" or a number of steps."""
    # By its kind first: an array would be compared entry by entry.
    if not (isinstance(value, str) and value == "epoch"):
        require_integer('every, unless it is "epoch",', value, 1)


def require_probe(value: Any) -> None:
    """Raise unless `value` is None or a pair of data and targets."""
    if value is not None and not (isinstance(value, tuple) and len(value) == 2):
        raise TypeError(f"probe must be None or a tuple (X, y), received {type(value).__name__}")


def require_one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> None:
    """Raise unless `value` is one of the accepted values."""
    # By identity first: 1 equals True, and an array equals nothing.
    if not any(value is one or (isinstance(one, str) and str(value) == one) for one in accepted):
        *most, last = (repr(one).replace("'", '"') for one in accepted)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, received {value!r:.100}")


def require_json(name: str, value: Any) -> dict[str, Any]:
    """Return a mapping as a dict that can be written as JSON.

    Raises:
        TypeError: if it is no mapping, or holds what JSON cannot.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, received {value!r:.100}")
    try:
        json.dumps(dict(value))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must hold what JSON can, received {value!r:.100}: {error}"
        ) from None
    return dict(value)


def require_seed(value: Any) -> None:
    """Raise unless `value` is None or an integer that can seed a generator."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if value is not None and not (whole and value >= 0):
        raise ValueError(f"seed must be None or an integer of at least 0, received {value!r}")


def did_you_mean(name: Any, known: Iterable[str], cutoff: float = 0.4) -> str:
    """Return the end of an error that names the nearest known name.

    Args:
        name: the name that was received.
        known: the names that are accepted.
        cutoff: how similar the nearest must be, from 0 (not at all) to 1.

    Returns:
        `"; did you mean 'max_abs'?"`, or an empty text if no known name is similar.

    Example:
        >>> did_you_mean("max_ab", ["mean_abs", "max_abs"])
        "; did you mean 'max_abs'?"
        >>> did_you_mean("loss", ["mean_abs", "max_abs"])
        ''
    """
    nearest = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""

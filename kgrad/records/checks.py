"""Checks of arguments and of names that need no Keras; each error is one sentence."""

import difflib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from numbers import Integral
from pathlib import Path
from typing import Any

MOST_DEPTH = 100


def require_integer(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return an integer argument as Python's `int`.

    Args:
        name: the argument as the user spelled it.
        value: its value.
        least: the smallest value that is accepted.
        most: the largest value that is accepted; None for no bound.

    Raises:
        ValueError: if it is not an integer or is out of range. `True` is not accepted as 1: it is
            probably a misplaced argument.
    """
    if not _is_integer(value) or value < least or (most is not None and value > most):
        accepted = f"an integer from {least} to {most}"
        if most is None:
            accepted = f"an integer of at least {least}"
        elif least == most:
            accepted = str(most)
        raise ValueError(f"{name} must be {accepted}, received {value!r}")
    return int(value)


def _is_integer(value: Any) -> bool:
    # NumPy's integers are registered as such, too.
    return isinstance(value, Integral) and not isinstance(value, bool)


def hidden_widths(num_layers: int, units: int | Sequence[int]) -> list[int]:
    """Return the width of each hidden layer.

    Args:
        num_layers: number of hidden layers.
        units: width of all hidden layers, or a sequence of one width per hidden layer.

    Raises:
        ValueError: if a number is not positive, or the number of widths is not `num_layers`.
    """
    require_integer("num_layers", num_layers, 1)
    if isinstance(units, Iterable) and not isinstance(units, str):
        widths: list[Any] = list(units)
    else:
        widths = [units] * int(num_layers)
    if len(widths) != num_layers:
        raise ValueError(
            f"units must be one width or one per hidden layer ({num_layers}), "
            f"received {len(widths)}: {units!r}"
        )
    return [require_integer("units", width, 1) for width in widths]


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


def require_path(name: str, value: Any) -> Path:
    """Return a path argument as a `Path`.

    Raises:
        TypeError: if it is no path. An integer would be taken for an open file of the process, 1
            for the one that prints.
        ValueError: if no file can have its name.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise TypeError(f"{name} must be a path, such as 'run.jsonl', received {value!r:.100}")
    if "\0" in os.fspath(value):
        raise ValueError(f"{name} must be a path without a zero character, received {value!r:.100}")
    return Path(value)


def require_text(name: str, value: Any) -> None:
    """Raise unless `value` is a text."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, received {value!r:.100}")


def bias_stddev(value: Any) -> float:
    """Return the standard deviation of the biases: 0 for `"zeros"`, 0.2 for `"normal:0.2"`.

    Raises:
        ValueError: if the value is neither.

    Example:
        >>> bias_stddev("zeros"), bias_stddev("normal:0.2")
        (0.0, 0.2)
    """
    if isinstance(value, str):
        if value.strip().lower() == "zeros":
            return 0.0
        with suppress(ValueError):
            if (stddev := normal_stddev(value)) is not None:
                return stddev
    raise ValueError(
        f"bias_initializer must be zeros or normal:STDDEV, such as normal:0.2, received "
        f"{value!r:.100}"
    )


def require_every(value: Any) -> None:
    """Raise unless `value` is "epoch" or a number of steps."""
    # The type first: an array would be compared entry by entry.
    if not (isinstance(value, str) and value == "epoch"):
        require_integer('every, unless it is "epoch",', value, 1)


def require_probe(value: Any) -> None:
    """Raise unless `value` is None or a pair of data and targets."""
    if value is not None and not (isinstance(value, tuple) and len(value) == 2):
        raise TypeError(f"probe must be None or a tuple (X, y), received {type(value).__name__}")


def require_one_of(name: str, value: Any, accepted: tuple[Any, ...]) -> None:
    """Raise unless `value` is one of the accepted values."""
    if type(value).__name__ in ("bool", "bool_"):  # NumPy's, too, as a table has them
        value = bool(value)
    # By identity: 1 equals True, and comparing an array gives no single answer.
    if not any(value is one or (isinstance(one, str) and str(value) == one) for one in accepted):
        *most, last = (repr(one).replace("'", '"') for one in accepted)
        raise ValueError(f"{name} must be {', '.join(most)} or {last}, received {value!r:.100}")


def require_json(name: str, value: Any) -> dict[str, Any]:
    """Return a mapping as a dict that can be written as JSON.

    Raises:
        TypeError: if it is not a mapping, or holds a value that JSON cannot represent.
        ValueError: if it is nested too deeply.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping, received {value!r:.100}")
    require_shallow(name, value)
    try:
        json.dumps(dict(value))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{name} must hold only what JSON can represent, received {value!r:.100}: {error}"
        ) from None
    return dict(value)


def require_seed(value: Any) -> None:
    """Raise unless `value` is None or an integer that can seed a generator."""
    if value is not None and not (_is_integer(value) and value >= 0):
        raise ValueError(f"seed must be None or an integer of at least 0, received {value!r}")


def did_you_mean(name: Any, known: Iterable[str], cutoff: float = 0.4) -> str:
    """Return the end of an error message that suggests the nearest known name.

    Args:
        name: the name that was received.
        known: the names that are accepted.
        cutoff: how similar the nearest name must be, from 0 (not at all) to 1.

    Returns:
        `"; did you mean 'max_abs'?"`, or an empty string if no known name is similar.

    Example:
        >>> did_you_mean("max_ab", ["mean_abs", "max_abs"])
        "; did you mean 'max_abs'?"
        >>> did_you_mean("loss", ["mean_abs", "max_abs"])
        ''
    """
    nearest = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def unique_name(name: str, taken: Iterable[str]) -> str:
    """Return the name, followed by a number if it is already taken.

    Example:
        >>> unique_name("dense", ["dense", "dense (2)"])
        'dense (3)'
    """
    taken, candidate, number = set(taken), name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate


def require_shallow(name: str, value: Any) -> None:
    """Raise unless lists and mappings are nested at most 100 deep.

    Recursive functions copy, compare and write such values, and Python limits their depth.
    """
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            child
            for parent in level
            if isinstance(parent, Mapping | list | tuple)
            for child in (parent.values() if isinstance(parent, Mapping) else parent)
        ]
        if not level:
            return
    raise ValueError(f"{name} must be nested at most {MOST_DEPTH} levels deep, received more")

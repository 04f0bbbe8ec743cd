"""One record of a history: its parts checked on their way in, its weights combined to layers."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from kgrad.jsonl import numbers


def checked_time(name: str, number: Any, least: int) -> int:
    """The number of an epoch or a step, not before `least`.

    Raises:
        ValueError: if it is not such a number.
    """
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    if not whole or not least <= number < 2**63:
        raise ValueError(f"{name} must be an integer of at least {least}, received {number!r}")
    return int(number)


def checked_rows(
    group: str, given: Mapping[str, Any], width: int, wanted: Iterable[str] | None = None
) -> dict[str, np.ndarray]:
    """The numbers of every name: float64, (width,).

    Args:
        group: what the names are names of, for the error.
        given: name → numbers.
        width: how many numbers each name has.
        wanted: the names that must be there, and no others; None for any names.

    Raises:
        ValueError: if a name is missing, unknown or no text, or what it names are not `width`
            numbers.
    """
    if not all(isinstance(name, str) for name in given):
        raise ValueError(f"{group} must have names that are text, received {list(given)!r:.80}")
    if wanted is not None and set(given) != set(wanted):
        raise ValueError(f"{group} must name {sorted(wanted)}, received {sorted(given)}")
    rows = {}
    for name in given if wanted is None else wanted:
        row = numbers(given[name], width)
        if row is None:
            raise ValueError(
                f"{group}[{name!r}] must be {width} numbers, received {given[name]!r:.80}"
            )
        rows[name] = row
    return rows


def checked_logs(given: Mapping[str, Any]) -> dict[str, float]:
    """The number of every name.

    Raises:
        ValueError: if a name is no text, or what it names is no number.
    """
    rows = checked_rows("logs", {name: [value] for name, value in given.items()}, 1)
    return {name: float(row[0]) for name, row in rows.items()}


def combine(statistic: str, values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The values of a layer from those of its weights, as `GradientHistory.by_layer` says.

    Args:
        statistic: its name.
        values: (records, weights of the layer).
        sizes: number of entries of each weight, float64.

    Returns:
        float64 of shape (records,).

    Raises:
        ValueError: if there is no rule for the statistic.
    """
    if statistic in ("mean_abs", "zero_fraction"):
        return values @ (sizes / sizes.sum())
    if statistic in ("l2_norm", "clipped_l2", "weight_l2", "update_l2"):
        # hypot neither overflows nor underflows where a sum of squares would.
        return np.hypot.reduce(values, axis=1)
    if statistic in ("max_abs", "nonfinite_steps", "clipped_steps"):
        return values.max(axis=1)
    if statistic == "first_nonfinite_step":  # 0 is none
        first = np.where(values == 0, np.inf, values).min(axis=1)
        return np.where(np.isinf(first), 0, first)
    raise ValueError(f"there is no rule to combine the weights of a layer for {statistic!r}")

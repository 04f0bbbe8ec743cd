"""The statistics that a history can hold: one row each, with everything specific to it.

A statistic of a gradient is an elementwise map and a fold of the mapped entries, a sum or a
maximum. Both folds are associative and commutative: entries, steps, weights and replicas may be
folded in any order and grouping, and the result stays exact.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from kgrad.records.checks import did_you_mean

Tensor = Any  # a tensor of any backend, or a NumPy array
Ops = Any  # keras.ops inside a training step; NumPy has the same functions


@dataclass(frozen=True, eq=False, kw_only=True)
class Statistic:
    """One number per weight and record.

    Attributes:
        name: its name in a history.
        label: its name on an axis.
        definition: what it is over a weight's gradient g and the updates of a record, for the docs.
        recorded: "always", "on request" (named in `statistics=`) or "clipped" (if clipping is
            measured).
        by_layer: function of (values, sizes) that combines the weights of a layer: values is
            (records, weights of the layer), sizes their numbers of entries (weights of the layer,);
            it returns (records,).
        linear: whether its axis is linear, as for shares and counts; otherwise logarithmic.
        whole: whether its values are whole numbers.
        needs_gradient: whether it is NaN for a weight without a gradient in the record.
    """

    name: str
    label: str
    definition: str
    recorded: Literal["always", "on request", "clipped"]
    by_layer: Callable[[np.ndarray, np.ndarray], np.ndarray]
    linear: bool = False
    whole: bool = False
    needs_gradient: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class GradientStatistic(Statistic):
    """A statistic that is a fold of a gradient's entries.

    Attributes:
        entry: function of (ops, gradient) that maps a gradient entry by entry to a tensor of the
            same shape and dtype.
        fold: how mapped entries combine, over a weight and over updates.
        finish: function of (total of the fold, number of entries, number of updates with a
            gradient), each (weights,), that returns the statistic in float64; NaN for weights
            without a gradient.
    """

    needs_gradient: bool = True
    entry: Callable[[Ops, Tensor], Tensor]
    fold: Literal["sum", "max"]
    finish: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def _mean(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Average over entries, so that larger weights count more."""
    # A matrix product would round one record differently from several.
    shares = sizes / sizes.sum()
    return np.add.reduce([column * share for column, share in zip(values.T, shares, strict=True)])


def _norm(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Compute the norm of all entries as one vector."""
    # hypot neither overflows nor underflows when a sum of squares would.
    return np.hypot.reduce(values, axis=1)


def _largest(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    return values.max(axis=1)


def _earliest(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the smallest number above 0, or 0 if there is none."""
    first = np.where(values == 0, np.inf, values).min(axis=1)
    return np.where(np.isinf(first), 0, first)


def _average(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Divide a total by the number of its terms; NaN if it has none."""
    total, count = np.broadcast_arrays(total, count)
    return np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)


MEAN_ABS = GradientStatistic(
    name="mean_abs",
    label="mean |gradient|",
    definition="mean of |g| over entries and updates, (1/T) Σ_t (1/n) Σ_i |g_ti|",
    recorded="always",
    by_layer=_mean,
    entry=lambda ops, g: ops.abs(g),
    fold="sum",
    finish=lambda total, n, updates: _average(total, n * updates),
)
L2_NORM = GradientStatistic(
    name="l2_norm",
    label="gradient L2 norm",
    definition="root mean square over the updates of ‖g‖₂, √((1/T) Σ_t Σ_i g_ti²)",
    recorded="always",
    by_layer=_norm,
    entry=lambda ops, g: ops.square(g),
    fold="sum",
    finish=lambda total, n, updates: np.sqrt(_average(total, updates)),
)
MAX_ABS = GradientStatistic(
    name="max_abs",
    label="max |gradient|",
    definition="largest |g| of any entry and update, max_t max_i |g_ti|",
    recorded="on request",
    by_layer=_largest,
    entry=lambda ops, g: ops.abs(g),
    fold="max",
    finish=lambda total, n, updates: np.where(updates > 0, total, np.nan),
)
ZERO_FRACTION = GradientStatistic(
    name="zero_fraction",
    label="share of exact zeros",
    definition="share of entries that are exactly 0, (1/T) Σ_t (1/n) Σ_i [g_ti = 0]",
    recorded="on request",
    by_layer=_mean,
    linear=True,
    entry=lambda ops, g: ops.where(ops.equal(g, 0), ops.ones_like(g), ops.zeros_like(g)),
    fold="sum",
    finish=lambda total, n, updates: _average(total, n * updates),
)
# The recorder counts updates, and measures each weight and its change once per record.
_MEASURED_BESIDE = (
    Statistic(
        name="updates",
        label="updates of the weight",
        definition=(
            "number of updates that contained the weight; 0: the weight was not updated. Updates "
            "that were skipped for overflow do not count"
        ),
        recorded="always",
        by_layer=_largest,
        linear=True,
        whole=True,
    ),
    Statistic(
        name="gradients_present",
        label="updates with a gradient",
        definition=(
            "T, the number of these updates in which the weight had a gradient; 0: the loss had no "
            "path to the weight (or the weight was not updated)"
        ),
        recorded="always",
        by_layer=_largest,
        linear=True,
        whole=True,
    ),
    Statistic(
        name="nonfinite_steps",
        label="updates with a non-finite gradient",
        definition="number of updates, made or skipped, in which g has a NaN or an infinity",
        recorded="always",
        by_layer=_largest,
        linear=True,
        whole=True,
    ),
    Statistic(
        name="first_nonfinite_step",
        label="training step of the first non-finite gradient, 0: none",
        definition="training step of the first of these updates, from 1; 0 if there is none",
        recorded="always",
        by_layer=_earliest,
        linear=True,
        whole=True,
    ),
    Statistic(
        name="weight_l2",
        label="‖W‖₂",
        definition="norm of the weight at the end of the record",
        recorded="always",
        by_layer=_norm,
    ),
    Statistic(
        name="update_l2",
        label="‖ΔW‖₂ over the record",
        definition="norm of the change of the weight over the record",
        recorded="always",
        by_layer=_norm,
    ),
    Statistic(
        name="clipped_l2",
        label="L2 norm of the clipped gradient",
        definition="`l2_norm` of the gradient after clipping",
        recorded="clipped",
        by_layer=_norm,
        needs_gradient=True,
    ),
    Statistic(
        name="clipped_steps",
        label="updates that were clipped",
        definition="number of updates in which clipping changed the gradient",
        recorded="clipped",
        by_layer=_largest,
        linear=True,
        whole=True,
    ),
)
STATISTICS: dict[str, Statistic] = {
    row.name: row for row in (MEAN_ABS, L2_NORM, MAX_ABS, ZERO_FRACTION, *_MEASURED_BESIDE)
}
"""Every statistic by its name."""


class _Weight(Protocol):
    @property
    def layer(self) -> str: ...
    @property
    def size(self) -> int: ...


def layers_of(weights: Iterable[_Weight]) -> tuple[str, ...]:
    """Return the names of the layers that own the weights, each once, in order."""
    return tuple(dict.fromkeys(weight.layer for weight in weights))


def by_layer(
    statistic: str,
    values: np.ndarray,
    weights: Sequence[_Weight],
    present: np.ndarray | None = None,
) -> np.ndarray:
    """Combine the weights of each layer, taken as one vector.

    Args:
        statistic: a name in `STATISTICS`.
        values: (records, weights).
        weights: the weights, in the order of the columns.
        present: which weights had a gradient, bool (records, weights); None for all. A statistic
            that needs a gradient leaves out the others.

    Returns:
        float64 of shape (records, layers), the layers in the order of `layers_of`; NaN for a layer
        of which no weight had the gradient that the statistic needs.

    Raises:
        ValueError: if the statistic is unknown.
    """
    if statistic not in STATISTICS:
        raise ValueError(f"there is no rule to combine the weights of a layer for {statistic!r}")
    members: dict[str, list[int]] = {}
    for i, weight in enumerate(weights):
        members.setdefault(weight.layer, []).append(i)
    sizes = np.array([weight.size for weight in weights], dtype=np.float64)
    if present is None or not STATISTICS[statistic].needs_gradient:
        present = np.ones(values.shape, bool)
    combined = [
        combine(statistic, values[:, own], sizes[own], present[:, own]) for own in members.values()
    ]
    return np.stack(combined, axis=1)


def combine(
    statistic: str, values: np.ndarray, sizes: np.ndarray, present: np.ndarray
) -> np.ndarray:
    """Combine the weights that are present, as `by_layer` does: (records, weights) → (records,)."""
    rule = STATISTICS[statistic].by_layer
    if present.all():
        return rule(values, sizes)
    combined = np.full(len(values), np.nan)
    for kept in np.unique(present, axis=0):
        rows = (present == kept).all(axis=1)
        if kept.any():
            combined[rows] = rule(values[rows][:, kept], sizes[kept])
    return combined


NOT_UPDATED, NO_PATH = "not updated", "no path to the loss"


def needs_gradient(statistic: str) -> bool:
    """Return whether a statistic is NaN for a weight without a gradient."""
    return statistic in STATISTICS and STATISTICS[statistic].needs_gradient


def why_missing(updates: np.ndarray, gradients_present: np.ndarray) -> np.ndarray:
    """Return why there is no gradient: `NOT_UPDATED`, `NO_PATH`, or "" where there is one."""
    reasons = np.full(updates.shape, "", dtype=object)
    reasons[gradients_present == 0] = NO_PATH
    reasons[updates == 0] = NOT_UPDATED
    return reasons


def select(names: Iterable[str]) -> tuple[GradientStatistic, ...]:
    """Return the folds of gradients to record: those always recorded, and those asked for.

    Args:
        names: names of further statistics; one that is always recorded may be named too.

    Raises:
        TypeError: if `names` is one string.
        ValueError: if a name is unknown; suggests the nearest one.

    Example:
        >>> [statistic.name for statistic in select(["max_abs"])]
        ['mean_abs', 'l2_norm', 'max_abs']
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        hint = f": [{names!r}]?" if isinstance(names, str) else ""
        raise TypeError(f"statistics must be a sequence of names, received {names!r}{hint}")
    wanted = set(names)
    known = [name for name, row in STATISTICS.items() if row.recorded != "clipped"]
    for name in sorted(wanted - set(known), key=str):
        raise ValueError(
            f"statistics must be among {', '.join(known)}, received {name!r}"
            f"{did_you_mean(name, known)}"
        )
    return tuple(
        row
        for row in STATISTICS.values()
        if isinstance(row, GradientStatistic) and (row.recorded == "always" or row.name in wanted)
    )

"""From a gradient to one number: the statistics, each defined once.

A statistic is an elementwise map of the gradient and a way to fold its entries together, a sum or a
maximum. Both are associative and commutative: entries, steps, weights and replicas may be folded in
any order and grouping, and the result stays exact.
"""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from keras import ops

Tensor = Any  # a tensor of the Keras backend, of any shape


class Statistic(NamedTuple):
    """One number for a weight's gradient over the steps of a record.

    Attributes:
        name: its name in a history.
        entry: elementwise map, gradient → tensor of the same shape and dtype.
        fold: how mapped entries combine, over a weight and over steps.
        finish: (total of the fold, number of entries, number of steps) → the statistic; float64.
    """

    name: str
    entry: Callable[[Tensor], Tensor]
    fold: Literal["sum", "max"]
    finish: Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def _is_zero(gradient: Tensor) -> Tensor:
    return ops.cast(ops.equal(gradient, 0), gradient.dtype)


# (1/T) Σ_t (1/n) Σ_i |g_ti|
MEAN_ABS = Statistic("mean_abs", ops.abs, "sum", lambda total, n, steps: total / (n * steps))
# √((1/T) Σ_t Σ_i g_ti²)
L2_NORM = Statistic("l2_norm", ops.square, "sum", lambda total, n, steps: np.sqrt(total / steps))
# max_t max_i |g_ti|
MAX_ABS = Statistic("max_abs", ops.abs, "max", lambda total, n, steps: total)
# (1/T) Σ_t (1/n) Σ_i [g_ti = 0]
ZERO_FRACTION = Statistic(
    "zero_fraction", _is_zero, "sum", lambda total, n, steps: total / (n * steps)
)

ALWAYS = (MEAN_ABS, L2_NORM)
ON_REQUEST = (MAX_ABS, ZERO_FRACTION)
# Not functions of one gradient: the recorder counts the steps in which a gradient has a NaN or an
# infinity and notes the first of them (0: none), and takes the norm of each weight and of its
# change once a record.
RECORDED_BESIDE = ("nonfinite_steps", "first_nonfinite_step", "weight_l2", "update_l2")
# Where clipping is measured: `l2_norm` of what was left, and the number of steps it changed.
CLIPPED = ("clipped_l2", "clipped_steps")


def select(names: Iterable[str]) -> tuple[Statistic, ...]:
    """The statistics that are always on, and those asked for.

    Args:
        names: names of further statistics; one that is always on may be named too.

    Raises:
        TypeError: if `names` is one string.
        ValueError: if a name is unknown; says the nearest one.

    Example:
        >>> [statistic.name for statistic in select(["max_abs"])]
        ['mean_abs', 'l2_norm', 'max_abs']
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        hint = f": [{names!r}]?" if isinstance(names, str) else ""
        raise TypeError(f"statistics must be a sequence of names, received {names!r}{hint}")
    wanted = set(names)
    known = [statistic.name for statistic in ALWAYS + ON_REQUEST] + list(RECORDED_BESIDE)
    for name in sorted(wanted - set(known), key=str):
        nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f", did you mean {nearest[0]!r}?" if nearest else ":"
        raise ValueError(f"statistics received {name!r}{hint} Known are {', '.join(known)}")
    return ALWAYS + tuple(statistic for statistic in ON_REQUEST if statistic.name in wanted)

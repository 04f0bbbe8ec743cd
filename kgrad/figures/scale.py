"""`Scale`: places of a statistic's values on an axis and in a color ramp.

Magnitudes are logarithmic, and a logarithmic axis has no place for 0, NaN and infinity; a gradient
that does not exist has no place on any axis. Here each of them has a strip along the axis's edge
and a color outside the ramp, so none is a mere gap.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator
from typing_extensions import Self

from kgrad.records import statistics
from kgrad.records.statistics import STATISTICS

STRIP = 0.07  # height of the strip of one special value, as a fraction of the axis
MARGIN = 0.03
SMALLEST, LARGEST = -323.0, 307.9  # log10 of what float64 and a color bar hold
STRANDED = 10.0  # decades from its neighbor at which a lone value is left outside the scale
OUTSIDE = 0.05  # the largest share of the values that may be left outside
EXTEND = {
    (False, False): "neither",
    (True, False): "min",
    (False, True): "max",
    (True, True): "both",
}
SINGULAR = -280.0  # log10; matplotlib takes a range far below this for empty


def _own_nan(code: int) -> float:
    """Return a NaN that differs in its bits from any other, as the missing value of R does.

    A gradient that does not exist is drawn from the same arrays as the others: arithmetic and plots
    take it for a NaN, and `Special.found` knows it.
    """
    return float(np.uint64(0x7FF8_0000_0000_0000 + code).view(np.float64))


class Special(NamedTuple):
    """A value that has no place on a logarithmic axis, with its mark.

    Attributes:
        name: its name in legends.
        short: its name where there is little room.
        value: the number that stands for it in arrays.
        marker: its marker, as matplotlib names it.
        color: its color, as matplotlib reads it.
        at_top: whether its strip is at the axis's upper end.
    """

    name: str
    short: str
    value: float
    marker: str
    color: str
    at_top: bool

    def found(self, values: np.ndarray) -> np.ndarray:
        """Return True where `values` has this value: bool, of the shape of `values`."""
        if self is ZERO:
            return values == 0
        if self is INFINITE:
            return np.isinf(values)
        if self is NAN:
            return np.isnan(values) & ~NO_PATH.found(values) & ~NOT_UPDATED.found(values)
        return np.asarray(values, np.float64).view(np.uint64) == np.float64(self.value).view(
            np.uint64
        )


ZERO = Special("0 (exactly)", "0", 0.0, "o", "black", at_top=False)
INFINITE = Special("infinite", "∞", np.inf, "^", "#d55e00", at_top=True)
NAN = Special("NaN", "NaN", np.nan, "X", "0.35", at_top=True)
NO_PATH = Special(
    f"no gradient: {statistics.NO_PATH}", "no path", _own_nan(1), "D", "#cc79a7", at_top=False
)
NOT_UPDATED = Special(statistics.NOT_UPDATED, "no update", _own_nan(2), "s", "0.7", at_top=False)
SPECIAL = (ZERO, INFINITE, NAN, NO_PATH, NOT_UPDATED)
"""Every special value, in the order of legends."""


def with_missing(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return a copy of `values` with `NO_PATH` and `NOT_UPDATED` where `missing` names them."""
    marked = values.copy()
    marked[missing == statistics.NO_PATH] = NO_PATH.value
    marked[missing == statistics.NOT_UPDATED] = NOT_UPDATED.value
    return marked


@dataclass(frozen=True)
class Scale:
    """The scale of one statistic's values, for an axis and a color ramp.

    Attributes:
        statistic: its name.
        low: the smallest value on the ramp and the axis, above 0 if the scale is logarithmic.
        high: the largest value, finite.
        special: which special values occur and need a place of their own.
        blank: whether nothing else occurs.
        extend: the ends at which values are outside, as matplotlib's color bars name them.
        logarithmic: whether equal distances are equal ratios.
    """

    statistic: str
    low: float
    high: float
    special: tuple[Special, ...]
    blank: bool
    extend: str
    logarithmic: bool

    @classmethod
    def of(
        cls, statistic: str, arrays: Sequence[np.ndarray], logarithmic: bool | None = None
    ) -> Self:
        """Return the scale that holds the values of `arrays`.

        A logarithmic scale spans at least one decade. A few values many decades away from all
        others, as in the last step before a run breaks down, are left outside: lines leave the
        axis and colors saturate there.

        Args:
            statistic: its name; an unknown one is its own label and logarithmic.
            arrays: the values, in any shapes.
            logarithmic: whether the scale is logarithmic; None for the statistic's own axis.
        """
        values = np.concatenate([array.ravel() for array in arrays])
        ordinary = values[np.isfinite(values)]
        if logarithmic is None:
            logarithmic = statistic not in STATISTICS or not STATISTICS[statistic].linear
        if not logarithmic:
            low, high = 0.0, ordinary.max(initial=1.0)
        else:
            ordinary = ordinary[ordinary > 0]
            ends = _without_stranded(np.log10(ordinary)) if ordinary.size else np.zeros(2)
            wider = max(0.0, 1 - (ends[1] - ends[0])) / 2
            low, high = 10 ** np.clip(
                [ends[0] - wider, ends[1] + wider], [SMALLEST, SINGULAR], LARGEST
            )
        special = tuple(
            one for one in SPECIAL if one.found(values).any() and (logarithmic or one is not ZERO)
        )
        extend = EXTEND[
            bool((ordinary < low * (1 - 1e-9)).any()), bool((ordinary > high * (1 + 1e-9)).any())
        ]
        blank = not ordinary.size
        return cls(statistic, float(low), float(high), special, blank, extend, logarithmic)

    @property
    def label(self) -> str:
        """Return the statistic's name on an axis."""
        row = STATISTICS.get(self.statistic)
        return self.statistic if row is None else row.label

    @cached_property
    def norm(self) -> Normalize:
        """Return the scale as a color norm, the same object for every panel."""
        return (LogNorm if self.logarithmic else Normalize)(self.low, self.high)

    @property
    def limits(self) -> tuple[float, float]:
        """Return the ends of the axis: `low` and `high`, with room for the strips."""
        low, high = self._forward(np.array([self.low, self.high]))
        tops = sum(one.at_top for one in self.special)
        below = STRIP * (len(self.special) - tops) + MARGIN
        above = STRIP * tops + MARGIN
        span = (high - low) / (1 - below - above)
        ends = np.array([low - below * span, high + above * span])
        if self.logarithmic:
            ends = 10 ** np.clip(ends, SMALLEST, LARGEST)
        return float(ends[0]), float(ends[1])

    def ordinary(self, values: np.ndarray) -> np.ndarray:
        """Return True where a value has a place on the axis itself."""
        return np.isfinite(values) & ((values > 0) | (not self.logarithmic))

    def height(self, special: Special) -> float:
        """Return the center of a special value's strip, as a fraction of the axis."""
        same_end = [one for one in self.special if one.at_top == special.at_top]
        if special.at_top:
            return 1 - STRIP * (same_end.index(special) + 0.5)
        # 0 is next to the axis, and what is no number below it.
        return STRIP * (same_end[::-1].index(special) + 0.5)

    def heights(self, values: np.ndarray) -> np.ndarray:
        """Return where each value is drawn, as fractions of the axis."""
        bottom, top = self._forward(np.array(self.limits))
        with np.errstate(divide="ignore", invalid="ignore"):
            heights = (self._forward(values) - bottom) / (top - bottom)
        for special in self.special:
            heights[special.found(values)] = self.height(special)
        return heights

    def value_at(self, height: float) -> float:
        """Return the value that is drawn at a height, a fraction of the axis."""
        bottom, top = self._forward(np.array(self.limits))
        at = bottom + height * (top - bottom)
        return float(10**at if self.logarithmic else at)

    def ticks(self, most: int = 7) -> np.ndarray:
        """Return about `most` round values from `low` to `high`, at most; none on a blank scale."""
        if self.blank:
            return np.empty(0)
        if not self.logarithmic:
            row = STATISTICS.get(self.statistic)
            locator = MaxNLocator(most - 1, integer=row is not None and row.whole)
            ticks = np.array(locator.tick_values(self.low, self.high))
            slack = 1e-9 * (self.high - self.low)  # the locator's 1 may be 1.0000000000000002
            return ticks[(ticks >= self.low - slack) & (ticks <= self.high + slack)]
        slack = 1e-9
        first = np.ceil(np.log10(self.low) - slack)
        last = np.floor(np.log10(self.high) + slack)
        if last - first >= 2:
            step = next(s for s in (1, 2, 3, 5, 10, 20, 50, 100, 200) if (last - first) / s < most)
            return 10.0 ** np.arange(np.ceil(first / step) * step, last + 1, step)
        decades = 10.0 ** np.arange(first - 1, last + 1)
        mantissas = [1, 3] if self.high > 30 * self.low else [1, 2, 5]
        with np.errstate(over="ignore"):  # beyond float64 is beyond `high`
            ticks = np.outer(decades, mantissas).ravel()
        return ticks[(ticks >= self.low * (1 - slack)) & (ticks <= self.high * (1 + slack))]

    def tick_label(self, value: float, position: int | None = None) -> str:
        """Return a tick's text: a decimal such as 0.02 near 1, otherwise a power of ten."""
        if not self.logarithmic or (self.low >= 1e-3 and self.high <= 1e4):
            return f"{value:g}"
        exponent = int(np.floor(np.log10(value) + 1e-9))
        mantissa = round(float(value / 10.0**exponent))
        return f"${'' if mantissa == 1 else f'{mantissa}·'}10^{{{exponent}}}$"

    def _forward(self, values: np.ndarray) -> np.ndarray:
        return np.log10(values) if self.logarithmic else values


def _without_stranded(exponents: np.ndarray) -> np.ndarray:
    """Return the smallest and largest exponents without a few that are far from all others."""
    exponents = np.sort(exponents)
    few = int(OUTSIDE * len(exponents))
    gaps = np.diff(exponents) > STRANDED
    low = gaps[:few].nonzero()[0].max(initial=-1) + 1
    high = len(gaps) - few + gaps[len(gaps) - few :].nonzero()[0].min(initial=few)
    return exponents[[low, high]]

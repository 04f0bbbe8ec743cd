"""Distributions as panels of cells: pooled counts, shares and medians, and the common axis."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from typing_extensions import Self

from kgrad.figures.looks import BY_DEPTH, DEPTH, TIME, Color, ramp
from kgrad.figures.scale import MARGIN, NO_PATH, NOT_UPDATED, Special, with_missing
from kgrad.figures.selection import chosen_epochs, time_axis
from kgrad.figures.thinning import cell_edges, denser_early
from kgrad.records.checks import did_you_mean
from kgrad.records.distributions import LOG10_EDGES
from kgrad.records.history import GradientHistory, require_history

STRIP_HEIGHT = (
    0.12  # height of the strip of zeros, or of NaN and infinities, as a fraction of the axis
)
DENSITY_LABEL = "share of entries per factor of 2"
MISSING_OPACITY = 0.3  # of the color that fills a column without a gradient
MOST_PANELS = 12  # the largest number of layers that have a panel each
_MOST_MOMENTS = 4  # drawn against depth by default
_TAIL = 1e-3  # share of a column's entries at each end that the axis may leave out


class Panel(NamedTuple):
    """One panel of cells: a layer over time, or a moment over depth.

    Attributes:
        title: the layer's name, or the moment.
        counts: counts of exponents, (columns, 256).
        missing: why columns without counts have none, as `GradientHistory.missing`, (columns,).
        color: of the line of medians.
    """

    title: str
    counts: np.ndarray
    missing: np.ndarray
    color: Color

    @property
    def found(self) -> dict[Special, np.ndarray]:
        """Return the special values that stand for missing gradients → where, bool (columns,)."""
        values = with_missing(np.zeros(len(self.missing)), self.missing)
        return {one: one.found(values) for one in (NO_PATH, NOT_UPDATED) if one.found(values).any()}

    @property
    def zeros(self) -> np.ndarray:
        """Return the share of each column's entries that is 0, (columns,)."""
        return self.counts[:, 0] / np.maximum(self.counts.sum(axis=1), 1)

    @property
    def nonfinite(self) -> np.ndarray:
        """Return the share of each column's entries that is NaN or infinite, (columns,)."""
        return self.counts[:, -1] / np.maximum(self.counts.sum(axis=1), 1)


class Span(NamedTuple):
    """The y axis of all panels: log10 |g| from `low` to `high`, with strips at its ends.

    Attributes:
        low: the smallest log10 |g|.
        high: the largest.
        zeros: whether there is a strip of zeros at the lower end.
        nonfinite: whether there is a strip of NaN and infinities at the upper end.
        blank: whether no entry is finite and above 0.
    """

    low: float
    high: float
    zeros: bool
    nonfinite: bool
    blank: bool

    @classmethod
    def of(cls, counts: np.ndarray) -> Self:
        """Return the span of all columns in `counts`, (columns, 256), without their thin tails."""
        below = np.cumsum(shares_of(counts), axis=1)
        below = below[below[:, -1] > 0]
        low, high = -1.0, 0.0
        if len(below):
            low = LOG10_EDGES[1 + (below > _TAIL).argmax(axis=1).min()]
            high = LOG10_EDGES[2 + (below >= 1 - _TAIL).argmax(axis=1).max()]
        zeros, nonfinite = bool(counts[:, 0].any()), bool(counts[:, -1].any())
        return cls(low, high, zeros, nonfinite, not len(below))

    @property
    def limits(self) -> tuple[float, float]:
        """Return the ends of the axis."""
        below, above = STRIP_HEIGHT * self.zeros + MARGIN, STRIP_HEIGHT * self.nonfinite + MARGIN
        size = (self.high - self.low) / (1 - below - above)
        return self.low - below * size, self.high + above * size

    def ticks(self) -> tuple[list[float], list[str]]:
        """Return places and texts of ticks: powers of ten, and the strips."""
        bottom, top = self.limits
        decades = MaxNLocator(5, integer=True, steps=[1, 2, 3, 5, 10])
        places = [] if self.blank else list(decades.tick_values(self.low, self.high))
        places = [float(place) for place in places if self.low <= place <= self.high]
        texts = [f"$10^{{{place:.0f}}}$" for place in places]
        for wanted, text, at in (
            (self.zeros, "0", STRIP_HEIGHT / 2),
            (self.nonfinite, "NaN ∞", 1 - STRIP_HEIGHT / 2),
        ):
            if wanted:
                places.append(bottom + at * (top - bottom))
                texts.append(text)
        return places, texts


class Cells(NamedTuple):
    """The contents of a figure of distributions.

    Attributes:
        panels: what each panel shows.
        centers: where each column is centered, (columns,).
        edges: the columns' bounds, (columns + 1,).
        label: name of the x axis.
        layers: names of the columns if they are layers; otherwise empty.
    """

    panels: list[Panel]
    centers: np.ndarray
    edges: np.ndarray
    label: str
    layers: tuple[str, ...]

    @property
    def span(self) -> Span:
        """Return the y axis of all panels."""
        return Span.of(self._counts())

    @property
    def densest(self) -> tuple[float, bool]:
        """Return the share at the end of the color ramp, and whether some cell exceeds it."""
        peaks = shares_of(self._counts()).max(axis=1)
        top = float(np.quantile(peaks[peaks > 0], 0.95)) if peaks.any() else 1.0
        return top, bool(peaks.max() > top * (1 + 1e-9))

    def _counts(self) -> np.ndarray:
        return np.concatenate([panel.counts for panel in self.panels])


def drawable_cells(
    history: Any,
    layers: Sequence[str] | None,
    epochs: Sequence[int] | None,
    most: int | None = None,
) -> Cells:
    """Return what to draw of a history's distributions.

    Args:
        history: a history with distributions.
        layers: which of its layers; None for all.
        epochs: which epochs, against depth; None for a panel per layer, or for some moments if
            there are many layers or a single record.
        most: the largest number of columns over time, each the sum of several records; None for
            one column per record.

    Raises:
        TypeError: if `history` is not a `GradientHistory`, or `layers` is one string.
        ValueError: if no record has distributions, or a layer or an epoch is unknown.
    """
    require_history("history", history)
    layers = _chosen_layers(history, layers)
    counts = _pooled_counts(history, layers)
    drawn = np.flatnonzero(counts.any(axis=(1, 2)))
    if not drawn.size:
        raise ValueError(
            "history must have distributions, received none: ask for them when you train"
        )
    places = [history.layers.index(layer) for layer in layers]
    missing = np.where(counts.any(axis=2), "", history.missing_by_layer[:, places])
    time, (times,) = time_axis([history])
    if epochs is None and len(drawn) > 1 and len(layers) <= MOST_PANELS:
        centers, edges, summed, without = _summed(times[drawn], counts[drawn], missing[drawn], most)
        named = zip(layers, ramp(DEPTH, len(layers)), strict=True)
        panels = [
            Panel(name, summed[:, i], without[:, i], color) for i, (name, color) in enumerate(named)
        ]
        return Cells(panels, centers, edges, time, ())
    if epochs is None:
        drawn = drawn[denser_early(len(drawn), _MOST_MOMENTS)]
    else:
        time, times = "epoch", history.epochs
        moments = chosen_epochs(epochs, [times[drawn]])
        drawn = np.array([drawn[times[drawn] == moment][-1] for moment in moments])
    colors = ramp(TIME, len(drawn))
    panels = [
        Panel(f"{time} {times[i]}", counts[i], missing[i], color)
        for i, color in zip(drawn, colors, strict=True)
    ]
    depth = np.arange(len(layers))
    return Cells(panels, depth, cell_edges(depth), BY_DEPTH, layers)


def shares_of(counts: np.ndarray) -> np.ndarray:
    """Return shares of the finite entries above 0, (columns, 254); zeros if there are none."""
    ordinary = counts[:, 1:-1]
    return ordinary / np.maximum(ordinary.sum(axis=1, keepdims=True), 1)


def medians_of(shares: np.ndarray) -> np.ndarray:
    """Return the median of log10 |g|, (columns,), with entries evenly spread within a bin."""
    below = np.cumsum(shares, axis=1)
    result = np.full(len(shares), np.nan)
    for i in np.flatnonzero(below[:, -1] > 0):
        b = int((below[i] >= 0.5).argmax())
        part = (0.5 - (below[i, b] - shares[i, b])) / shares[i, b]
        result[i] = LOG10_EDGES[b + 1] + part * (LOG10_EDGES[b + 2] - LOG10_EDGES[b + 1])
    return result


def held_bins(span: Span) -> np.ndarray:
    """Return which of the 254 ordinary bins the span holds entirely: bool.

    A cell of the tail must not be drawn in a strip.
    """
    return (LOG10_EDGES[1:-2] >= span.low) & (LOG10_EDGES[2:-1] <= span.high)


def _chosen_layers(history: GradientHistory, layers: Any) -> tuple[str, ...]:
    """Return the layers to draw, in forward order."""
    if layers is None:
        return history.layers
    if isinstance(layers, str):
        raise TypeError(f"layers must be a sequence of names, received {layers!r}: [{layers!r}]?")
    unknown = [name for name in layers if name not in history.layers]
    if unknown or not len(layers):
        received = "none"
        if unknown:
            received = f"{unknown[0]!r}{did_you_mean(unknown[0], history.layers)}"
        raise ValueError(
            f"layers must be among {', '.join(history.layers):.200}, received {received}"
        )
    return tuple(name for name in history.layers if name in layers)


def _pooled_counts(history: GradientHistory, layers: Sequence[str]) -> np.ndarray:
    """Return the counts of each layer's weights together: int64, (records, layers, 256)."""
    counts = history.distributions
    members = [[weight.layer == layer for weight in history.weights] for layer in layers]
    return np.stack([counts[:, chosen].sum(axis=1) for chosen in members], axis=1)


def _summed(
    times: np.ndarray, counts: np.ndarray, missing: np.ndarray, most: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return at most `most` columns, each the sum of some records.

    Returns:
        centers, bounds and counts of the columns, and why those without counts have none.
    """
    edges = cell_edges(times)
    if most is None or len(times) <= most:
        return times, edges, counts, missing
    bounds = np.linspace(0, len(times), most + 1).round().astype(int)
    edges, starts = edges[bounds], bounds[:-1]
    summed = np.add.reduceat(counts, starts, axis=0)
    without = np.where(summed.any(axis=2), "", missing[starts])
    return (edges[:-1] + edges[1:]) / 2, edges, summed, without

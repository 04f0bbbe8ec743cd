"""The figure of how the entries of the gradients are distributed."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kgrad.figures.scale import INFINITE, MARGIN, ZERO
from kgrad.figures.static.panels import (
    DEPTH,
    TIME,
    cell_edges,
    ramp,
    shortened,
    thinned,
    without_neighbours,
)
from kgrad.figures.static.parts import (
    columns_for,
    new_figure,
    recorded_epochs,
    require_drawable,
    spread_out,
    style,
    time_axis,
)
from kgrad.records.deprecations import old_arguments
from kgrad.records.distributions import LOG10_EDGES
from kgrad.records.history import GradientHistory

DENSITY: Colormap = sns.color_palette("mako_r", as_cmap=True)
MOST_PANELS = 12  # as many layers have a panel each
STRIP = 0.12  # height of the strip of zeros, or of NaN and infinities, as a fraction of the axis
TAIL = 1e-3  # share of a column's entries at each end that the axis need not hold


class Cells(NamedTuple):
    """What one panel shows: columns of counts, (columns, 256), and where each is centred."""

    title: str
    centers: np.ndarray
    counts: np.ndarray
    color: Any


class Span(NamedTuple):
    """What the y axis holds: log10 |g| from `low` to `high`, and strips at its ends."""

    low: float
    high: float
    zeros: bool
    nonfinite: bool
    blank: bool

    @classmethod
    def of(cls, counts: np.ndarray) -> Self:
        """The span of all columns in `counts`, (columns, 256), without their thin tails."""
        below = np.cumsum(shares_of(counts), axis=1)
        below = below[below[:, -1] > 0]
        low, high = -1.0, 0.0
        if len(below):
            low = LOG10_EDGES[1 + (below > TAIL).argmax(axis=1).min()]
            high = LOG10_EDGES[2 + (below >= 1 - TAIL).argmax(axis=1).max()]
        zeros, nonfinite = bool(counts[:, 0].any()), bool(counts[:, -1].any())
        return cls(low, high, zeros, nonfinite, not len(below))

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the axis."""
        below, above = STRIP * self.zeros + MARGIN, STRIP * self.nonfinite + MARGIN
        size = (self.high - self.low) / (1 - below - above)
        return self.low - below * size, self.high + above * size

    def ticks(self) -> tuple[list[float], list[str]]:
        """Places and texts: powers of ten, and the strips."""
        bottom, top = self.limits
        decades = MaxNLocator(5, integer=True, steps=[1, 2, 3, 5, 10])
        places = [] if self.blank else list(decades.tick_values(self.low, self.high))
        places = [float(place) for place in places if self.low <= place <= self.high]
        texts = [f"$10^{{{place:.0f}}}$" for place in places]
        for wanted, text, at in (
            (self.zeros, "0", STRIP / 2),
            (self.nonfinite, "NaN ∞", 1 - STRIP / 2),
        ):
            if wanted:
                places.append(bottom + at * (top - bottom))
                texts.append(text)
        return places, texts


@old_arguments("title")
def plot_distributions(
    history: GradientHistory,
    *,
    title: str = "",
    layers: Sequence[str] | None = None,
    epochs: Sequence[int] | None = None,
) -> Figure:
    """Draw how the magnitudes of each layer's gradient entries are distributed over training.

    Colour is density over log10 |g|, and a line follows the median: both of the entries that are
    finite and above 0. Strips at the edges show the share of all entries that is 0 (or below
    2^-126), and that is NaN or infinite, from none to all. A layer's weights are pooled. The axis
    may leave out the outermost 0.1 % of the entries.

    Up to 12 layers have a panel each, over time. With more layers, with one record, or where
    `epochs` are named, moments have a panel each, over depth.

    Args:
        history: what was measured, with distributions.
        title: stands above the figure.
        layers: which of `history.layers` to draw; by default all.
        epochs: which epochs to draw, each by its last record (0 is before training).

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is not a `GradientHistory`, or `layers` is one string.
        ValueError: if no record has distributions, or a layer or an epoch is unknown.

    References:
        X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural
        networks, 2010: histograms of each layer's gradients; here of logarithmic magnitudes.
    """
    layers, counts, drawn = drawable_counts(history, layers)
    time, (times,) = time_axis([history])
    if epochs is None and len(drawn) > 1 and len(layers) <= MOST_PANELS:
        colors = ramp(DEPTH, len(layers))
        cells = [
            Cells(shortened(name), times[drawn], counts[drawn, i], colors[i])
            for i, name in enumerate(layers)
        ]
        return _distribution_figure(cells, title, time)
    if epochs is None:
        drawn = drawn[spread_out(len(drawn), 4)]
    else:
        time, times = "epoch", history.epochs
        moments = recorded_epochs(epochs, [times[drawn]])
        drawn = np.array([drawn[times[drawn] == moment][-1] for moment in moments])
    depth = np.arange(len(layers))
    cells = [
        Cells(f"{time} {times[i]}", depth, counts[i], color)
        for i, color in zip(drawn, ramp(TIME, len(drawn)), strict=True)
    ]
    return _distribution_figure(cells, title, "layer, input → output", layers)


def chosen_layers(history: GradientHistory, layers: Any) -> tuple[str, ...]:
    """The layers to draw, in forward order."""
    if layers is None:
        return history.layers
    if isinstance(layers, str):
        raise TypeError(f"layers must be a sequence of names, received {layers!r}: [{layers!r}]?")
    unknown = [name for name in layers if name not in history.layers]
    if unknown or not len(layers):
        received = repr(unknown[0]) if unknown else "none"
        raise ValueError(
            f"layers must be among {', '.join(history.layers):.200}, received {received}"
        )
    return tuple(name for name in history.layers if name in layers)


def drawable_counts(
    history: GradientHistory, layers: Sequence[str] | None
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """The layers chosen, their pooled counts, and the records that have any.

    Raises:
        TypeError: if `history` is not a `GradientHistory`, or `layers` is one string.
        ValueError: if no record has distributions, or a layer is unknown.
    """
    require_drawable({"history": history}, getattr(history, "statistics", ("",))[0])
    chosen = chosen_layers(history, layers)
    counts = pooled_counts(history, chosen)
    drawn = np.flatnonzero(counts.any(axis=(1, 2)))
    if not drawn.size:
        raise ValueError(
            "history must have distributions, received none: ask for them when you train"
        )
    return chosen, counts, drawn


def pooled_counts(history: GradientHistory, layers: Sequence[str]) -> np.ndarray:
    """Counts of each layer's weights together: int64, (records, layers, 256)."""
    counts = history.distributions
    members = [[weight.layer == layer for weight in history.weights] for layer in layers]
    return np.stack([counts[:, chosen].sum(axis=1) for chosen in members], axis=1)


def shares_of(counts: np.ndarray) -> np.ndarray:
    """Shares of the finite entries above 0, (columns, 254); zeros where a column has none."""
    ordinary = counts[:, 1:-1]
    return ordinary / np.maximum(ordinary.sum(axis=1, keepdims=True), 1)


def medians_of(shares: np.ndarray) -> np.ndarray:
    """Median of log10 |g|, (columns,): within its bin, entries count as evenly spread."""
    below = np.cumsum(shares, axis=1)
    result = np.full(len(shares), np.nan)
    for i in np.flatnonzero(below[:, -1] > 0):
        b = int((below[i] >= 0.5).argmax())
        part = (0.5 - (below[i, b] - shares[i, b])) / shares[i, b]
        result[i] = LOG10_EDGES[b + 1] + part * (LOG10_EDGES[b + 2] - LOG10_EDGES[b + 1])
    return result


def _distribution_figure(
    panels: Sequence[Cells], title: str, x_label: str, layers: Sequence[str] = ()
) -> Figure:
    """The panels on shared scales; `layers` are the names of their columns."""
    counts = np.concatenate([panel.counts for panel in panels])
    span = Span.of(counts)
    peaks = shares_of(counts).max(axis=1)
    norm = Normalize(0, float(np.quantile(peaks[peaks > 0], 0.95)) if peaks.any() else 1.0)
    columns = columns_for(len(panels))
    rows = -(-len(panels) // columns)
    with style():
        figure = new_figure(title, 1.8 + (3.6 if rows == 1 else 2.3 * rows))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            _draw_cells(ax, panel, span, norm)
            if layers:
                named = thinned(len(layers), 12 // columns)
                ax.set_xticks(
                    named,
                    [shortened(layers[i]) for i in named],
                    rotation=40,
                    ha="right",
                    rotation_mode="anchor",
                )
            else:
                ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        _label_edges(axes, len(panels), columns, x_label)
        _add_keys(figure, panels[-1].color, span, norm, peaks.max(), 15 * rows)
    return figure


def _add_keys(
    figure: Figure, color: Any, span: Span, norm: Normalize, peak: float, aspect: float
) -> None:
    """A bar for the density, a legend for line and strips."""
    if not span.blank:
        bar = figure.colorbar(
            ScalarMappable(norm, DENSITY),
            ax=list(figure.axes),
            pad=0.02,
            aspect=aspect,
            extend="max" if peak > (norm.vmax or 0) * (1 + 1e-9) else "neither",
            format=PercentFormatter(1, decimals=0),
        )
        bar.set_label("share of entries per factor of 2")
        bar.outline.set_visible(False)
    handles: list[Any] = []
    if not span.blank:
        handles.append(Line2D([], [], color=color, linewidth=2, label="median"))
    if span.zeros:
        handles.append(Patch(color=ZERO.color, label="zeros, 0 to 100 % of entries"))
    if span.nonfinite:
        handles.append(Patch(color=INFINITE.color, label="NaN or infinite, 0 to 100 %"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


def _draw_cells(ax: Axes, panel: Cells, span: Span, norm: Normalize) -> None:
    """Density as colour, the median as a line, special shares as filled steps in their strips."""
    edges, shares = cell_edges(panel.centers), shares_of(panel.counts)
    # A cell of the tail must not stand in a strip.
    beyond = (LOG10_EDGES[1:-2] < span.low) | (LOG10_EDGES[2:-1] > span.high)
    density = np.ma.masked_where((shares == 0) | beyond, shares).T
    ax.pcolormesh(edges, LOG10_EDGES[1:-1], density, cmap=DENSITY, norm=norm, rasterized=True)
    ax.plot(
        panel.centers,
        medians_of(shares),
        color=panel.color,
        linewidth=2,
        marker="o",
        markersize=4,
        markevery=without_neighbours(shares.sum(axis=1) > 0),
        path_effects=[withStroke(linewidth=4, foreground="white")],
    )
    total = np.maximum(panel.counts.sum(axis=1), 1)
    for wanted, column, base, color in (
        (span.zeros, 0, 0.0, ZERO.color),
        (span.nonfinite, -1, 1 - STRIP, INFINITE.color),
    ):
        if wanted:
            strip = Rectangle(
                (0, base), 1, STRIP, transform=ax.transAxes, color="0.93", linewidth=0
            )
            ax.add_patch(strip).set_zorder(0)
            ax.stairs(
                base + STRIP * panel.counts[:, column] / total,
                edges,
                baseline=base,
                fill=True,
                color=color,
                transform=ax.get_xaxis_transform(),
            )
    if span.blank:
        note = "no finite value\nabove 0"
        ax.text(0.5, 0.5, note, transform=ax.transAxes, ha="center", va="center")
    ax.set(title=panel.title, xlim=edges[[0, -1]], ylim=span.limits)
    ax.set_yticks(*span.ticks())


def _label_edges(axes: np.ndarray, used: int, columns: int, x_label: str) -> None:
    """Remove the axes that are not used; label those at the left, and the lowest of each column."""
    for ax in axes[used:]:
        ax.remove()
    for ax in axes[:used:columns]:
        ax.set_ylabel("|gradient entry|")
    for i in range(max(0, used - columns), used):
        axes[i].tick_params(labelbottom=True)
        if i // columns == (used - 1) // columns:
            axes[i].set_xlabel(x_label)

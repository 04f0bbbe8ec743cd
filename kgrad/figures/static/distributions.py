"""The static figure of how the entries of the gradients are distributed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import PercentFormatter

from kgrad.figures.distribution_cells import (
    DENSITY_LABEL,
    MISSING_OPACITY,
    STRIP_HEIGHT,
    Cells,
    Panel,
    Span,
    drawable_cells,
    held_bins,
    medians_of,
    shares_of,
)
from kgrad.figures.looks import DENSITY, columns_for, shortened
from kgrad.figures.scale import INFINITE, NO_PATH, NOT_UPDATED, ZERO
from kgrad.figures.static.parts import (
    add_legend,
    draw_strip,
    layer_axis_of,
    new_figure,
    special_style,
    style,
    time_axis_of,
)
from kgrad.figures.thinning import sampled_cells, without_neighbors
from kgrad.records.deprecations import old_arguments
from kgrad.records.distributions import LOG10_EDGES
from kgrad.records.history import GradientHistory


@old_arguments("title")
def plot_distributions(
    history: GradientHistory,
    *,
    title: str = "",
    layers: Sequence[str] | None = None,
    epochs: Sequence[int] | None = None,
) -> Figure:
    """Draw how the magnitudes of each layer's gradient entries are distributed over training.

    Color is the density over log10 |g|, and a line follows the median; both are of the entries that
    are finite and above 0. Strips at the edges show the share of all entries that is 0 (or below
    2^-126), and that is NaN or infinite, from 0 to 100 %. A column is shaded and marked where the
    layer has no gradient. A layer's weights are pooled. The axis may leave out the outermost 0.1 %
    of the entries.

    Up to 12 layers have a panel each, over time. With more layers, with a single record, or if
    `epochs` are given, moments have a panel each, over depth.

    Args:
        history: a run's history, with distributions.
        title: text above the figure.
        layers: which of `history.layers` to draw; by default all.
        epochs: the epochs to draw, each by its last record (0 is before training).

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is not a `GradientHistory`, or `layers` is one string.
        ValueError: if no record has distributions, or a layer or an epoch is unknown.

    References:
        X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural
        networks, 2010: histograms of each layer's gradients; here of logarithmic magnitudes.
    """
    cells = drawable_cells(history, layers, epochs)
    span, (densest, exceeded) = cells.span, cells.densest
    norm = Normalize(0, densest)
    columns = columns_for(len(cells.panels))
    rows = -(-len(cells.panels) // columns)
    with style():
        figure = new_figure(title, 1.8 + (3.6 if rows == 1 else 2.3 * rows))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, panel in zip(axes, cells.panels, strict=False):
            _draw_panel(ax, panel, cells, span, norm)
            if cells.layers:
                layer_axis_of(ax, cells.layers, 0, 12 // columns)
            else:
                time_axis_of(ax, "")
        _label_edges(axes, len(cells.panels), columns, cells.label)
        if not span.blank:
            bar = figure.colorbar(
                ScalarMappable(norm, DENSITY),
                ax=list(figure.axes),
                pad=0.02,
                aspect=15 * rows,
                extend="max" if exceeded else "neither",
                format=PercentFormatter(1, decimals=0),
            )
            bar.set_label(DENSITY_LABEL)
            bar.outline.set_visible(False)
        found = {special for panel in cells.panels for special in panel.found}
        special = [one for one in (NO_PATH, NOT_UPDATED) if one in found]
        add_legend(figure, special, _keys(span, cells.panels[-1].color))
    return figure


def _keys(span: Span, color: Any) -> list[Any]:
    """Return the legend's handles of line and strips."""
    handles: list[Any] = []
    if not span.blank:
        handles.append(Line2D([], [], color=color, linewidth=2, label="median"))
    if span.zeros:
        handles.append(Patch(color=ZERO.color, label="share of zeros (a full strip: 100 %)"))
    if span.nonfinite:
        handles.append(
            Patch(color=INFINITE.color, label="share of NaN or infinite (a full strip: 100 %)")
        )
    return handles


def _draw_panel(ax: Axes, panel: Panel, cells: Cells, span: Span, norm: Normalize) -> None:
    """Draw density as color, the median as a line, and special shares as filled steps."""
    shares = shares_of(panel.counts)
    density = np.ma.masked_where((shares == 0) | ~held_bins(span), shares).T
    ax.pcolormesh(cells.edges, LOG10_EDGES[1:-1], density, cmap=DENSITY, norm=norm, rasterized=True)
    ax.plot(
        cells.centers,
        medians_of(shares),
        color=panel.color,
        linewidth=2,
        marker="o",
        markersize=4,
        markevery=without_neighbors(shares.sum(axis=1) > 0),
        path_effects=[withStroke(linewidth=4, foreground="white")],
    )
    for wanted, share, base, color in (
        (span.zeros, panel.zeros, 0.0, ZERO.color),
        (span.nonfinite, panel.nonfinite, 1 - STRIP_HEIGHT, INFINITE.color),
    ):
        if wanted:
            draw_strip(ax, base, STRIP_HEIGHT)
            ax.stairs(
                base + STRIP_HEIGHT * share,
                cells.edges,
                baseline=base,
                fill=True,
                color=color,
                transform=ax.get_xaxis_transform(),
            )
    for special, found in panel.found.items():
        ax.stairs(
            found.astype(float),
            cells.edges,
            fill=True,
            color=special.color,
            alpha=MISSING_OPACITY,
            linewidth=0,
            transform=ax.get_xaxis_transform(),
        )
        _, marked = sampled_cells(found[None], 6)
        ax.plot(
            cells.centers[marked],
            np.full(len(marked), 0.5),
            transform=ax.get_xaxis_transform(),
            **special_style(special),
        )
    if span.blank:
        note = "no finite value\nabove 0"
        ax.text(0.5, 0.5, note, transform=ax.transAxes, ha="center", va="center")
    ax.set_title(shortened(panel.title), parse_math=False)
    ax.set(xlim=cells.edges[[0, -1]], ylim=span.limits)
    ax.set_yticks(*span.ticks())


def _label_edges(axes: np.ndarray, used: int, columns: int, x_label: str) -> None:
    """Remove unused axes; label those at the left and the lowest of each column."""
    for ax in axes[used:]:
        ax.remove()
    for ax in axes[:used:columns]:
        ax.set_ylabel("|gradient entry|")
    for i in range(max(0, used - columns), used):
        axes[i].tick_params(labelbottom=True)
        if i // columns == (used - 1) // columns:
            axes[i].set_xlabel(x_label)

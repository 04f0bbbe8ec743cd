"""The interactive figure of how the entries of the gradients are distributed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

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
from kgrad.figures.interactive.parts import (
    STRIP_COLOR,
    axis_title,
    colorscale,
    depth_axis_of,
    panel_grid,
    place_of,
    plain,
    special_key,
    special_marker,
    superscript,
    time_axis_of,
    translucent,
)
from kgrad.figures.looks import DENSITY
from kgrad.figures.scale import INFINITE, ZERO
from kgrad.figures.thinning import sampled_cells
from kgrad.records.deprecations import old_arguments
from kgrad.records.distributions import LOG10_EDGES
from kgrad.records.history import GradientHistory

_MOST = 120  # columns of a panel


@old_arguments("title")
def plot_distributions(
    history: GradientHistory,
    *,
    title: str = "",
    layers: Sequence[str] | None = None,
    epochs: Sequence[int] | None = None,
) -> go.Figure:
    """Draw how the magnitudes of each layer's gradient entries are distributed over training.

    Color is the density over log10 |g|, and a line follows the median; both are of the entries that
    are finite and above 0. Strips at the edges show the share of all entries that is 0 (or below
    2^-126), and that is NaN or infinite, from 0 to 100 %. A column is shaded and marked where the
    layer has no gradient. A layer's weights are pooled. The axis may leave out the outermost 0.1 %
    of the entries.

    Up to 12 layers have a panel each, over time. With more layers, with a single record, or if
    `epochs` are given, moments have a panel each, over depth. In a long history a column adds up
    several records.

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
    cells = drawable_cells(history, layers, epochs, _MOST)
    span, columns = cells.span, min(2, len(cells.panels))
    rows = -(-len(cells.panels) // columns)
    names = [panel.title for panel in cells.panels]
    figure = panel_grid(
        title,
        names,
        [138.0 if rows > 1 else 240.0] * rows,
        columns=columns,
        gap=32,
        shared_xaxes=True,
        shared_yaxes=True,
    )
    figure.update_layout(bargap=0, barmode="overlay")
    places, texts = span.ticks()
    y_axis = {"tickvals": places, "ticktext": [superscript(text) for text in texts]}
    figure.update_yaxes(y_axis | {"range": span.limits, "automargin": True, "showgrid": False})
    figure.update_yaxes(zeroline=False)
    axis = time_axis_of(cells.label, cells.edges, columns)
    if cells.layers:
        axis = depth_axis_of(cells.layers, 0, columns)
    figure.update_xaxes(axis | {"title": None, "showgrid": False})
    figure.update_xaxes(title=axis["title"], row=rows)
    figure.update_yaxes(title=axis_title("|gradient entry|"), row=1 + (rows - 1) // 2, col=1)
    for number, panel in enumerate(cells.panels):
        place = place_of(number, columns)
        _draw_density(figure, panel, cells, span, place)
        _draw_strips(figure, panel, cells, span, place)
        _draw_missing(figure, panel, cells, span, place)
    bar: dict[str, Any] = {"thickness": 14, "outlinewidth": 0, "xpad": 6, "tickformat": ".0%"}
    bar["title"] = axis_title(DENSITY_LABEL) | {"side": "right"}
    ramp = {"colorscale": colorscale(DENSITY), "cmin": 0, "cmax": cells.densest[0], "colorbar": bar}
    figure.update_layout(coloraxis=ramp | {"showscale": not span.blank})
    return figure


def _draw_density(
    figure: go.Figure, panel: Panel, cells: Cells, span: Span, place: dict[str, int]
) -> None:
    """Draw density as color, and the median as a line."""
    shares = shares_of(panel.counts)
    below, above = LOG10_EDGES[1:-2], LOG10_EDGES[2:-1]
    rows = np.flatnonzero(held_bins(span) & (shares > 0).any(axis=0))
    if len(rows):
        rows = np.arange(rows[0], rows[-1] + 1)
        figure.add_heatmap(
            x=cells.edges,
            y=np.append(below[rows], above[rows[-1]]),
            z=np.where(shares > 0, shares, np.nan)[:, rows].T.astype(np.float32),
            coloraxis="coloraxis",
            hoverongaps=False,
            hovertemplate=f"{plain(panel.title)}<br>%{{z:.1%}} of entries near 10^%{{y:.1f}}"
            f"{'' if cells.layers else ', at %{x:.0f}'}<extra></extra>",
            **place,
        )
    figure.add_scatter(
        x=cells.centers,
        y=medians_of(shares),
        mode="lines+markers",
        line={"color": to_hex(panel.color), "width": 2},
        marker={"size": 4, "line": {"color": "white", "width": 1}},
        hovertemplate=f"{_at(panel, cells)}<br>median 10^%{{y:.2f}}<extra></extra>",
        **_common("median", cells, place),
    )


def _draw_strips(
    figure: go.Figure, panel: Panel, cells: Cells, span: Span, place: dict[str, int]
) -> None:
    """Draw the shares of zeros, and of NaN and infinities, as bars in their strips."""
    bottom, top = span.limits
    height = STRIP_HEIGHT * (top - bottom)
    for wanted, share, base, color, name in (
        (span.zeros, panel.zeros, bottom, ZERO.color, "zeros"),
        (span.nonfinite, panel.nonfinite, top - height, INFINITE.color, "NaN or infinite"),
    ):
        if wanted:
            box = {"y0": base, "y1": base + height, "x0": cells.edges[0], "x1": cells.edges[-1]}
            figure.add_shape(
                type="rect", **box, fillcolor=STRIP_COLOR, line_width=0, layer="below", **place
            )
            figure.add_bar(
                x=cells.centers,
                y=height * share,
                base=base,
                width=np.diff(cells.edges),
                textposition="none",
                customdata=share,
                marker={"color": to_hex(color), "line": {"width": 0}},
                hovertemplate=f"{_at(panel, cells)}<br>%{{customdata:.1%}} {name}<extra></extra>",
                **_common(f"{name}, 0 to 100 % of entries", cells, place),
            )


def _draw_missing(
    figure: go.Figure, panel: Panel, cells: Cells, span: Span, place: dict[str, int]
) -> None:
    """Shade and mark the columns without a gradient."""
    bottom, top = span.limits
    for special, found in panel.found.items():
        figure.add_bar(
            x=cells.centers[found],
            y=np.full(found.sum(), top - bottom),
            base=bottom,
            width=np.diff(cells.edges)[found],
            marker={"color": translucent(special.color, MISSING_OPACITY), "line": {"width": 0}},
            showlegend=False,
            hoverinfo="skip",
            **place,
        )
        _, marked = sampled_cells(found[None], 6)
        named = [plain(cells.layers[i]) for i in marked] if cells.layers else None
        figure.add_scatter(
            x=cells.centers[marked],
            y=np.full(len(marked), (bottom + top) / 2),
            text=named,
            mode="markers",
            marker=special_marker(special),
            **special_key(figure, special),
            hovertemplate=f"{_at(panel, cells)}<br>{special.name}<extra></extra>",
            **place,
        )


def _common(name: str, cells: Cells, place: dict[str, int]) -> dict[str, Any]:
    """Return what lines and bars have in common; the legend names those of the first panel."""
    first = place == {"row": 1, "col": 1}
    names = [plain(layer) for layer in cells.layers] or None
    return {"text": names, "name": name, "legendgroup": name, "showlegend": first, **place}


def _at(panel: Panel, cells: Cells) -> str:
    """Return a panel's name and a column's, for a hover template."""
    return f"{plain(panel.title)}, " + ("%{text}" if cells.layers else "%{x:.0f}")

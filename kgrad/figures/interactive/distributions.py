"""The interactive figure of how the entries of the gradients are distributed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex
from plotly.subplots import make_subplots

from kgrad.figures.interactive.looks import (
    STRIP_COLOR,
    colors,
    colorscale,
    layer_axis_of,
    new_figure,
    plain,
    superscript,
    time_axis_of,
)
from kgrad.figures.scale import INFINITE, ZERO
from kgrad.figures.static.distributions import (
    DENSITY,
    MOST_PANELS,
    STRIP,
    Cells,
    Span,
    drawable_counts,
    medians_of,
    shares_of,
)
from kgrad.figures.static.panels import DEPTH, TIME, cell_edges
from kgrad.figures.static.parts import recorded_epochs, spread_out, time_axis
from kgrad.records.distributions import LOG10_EDGES
from kgrad.records.history import GradientHistory

_MOST = 120  # columns of a panel


def plot_distributions(
    history: GradientHistory,
    *,
    title: str = "",
    layers: Sequence[str] | None = None,
    epochs: Sequence[int] | None = None,
) -> go.Figure:
    """Draw how the magnitudes of each layer's gradient entries are distributed over training.

    Up to 12 layers have a panel each, over time. With more layers, with one record, or if `epochs`
    are named, moments have a panel each, over depth. In a long history a column adds up several
    records.

    Args:
        history: a run's history, with distributions.
        title: text above the figure.
        layers: which of `history.layers` to draw; by default all.
        epochs: which epochs to draw, each by its last record (0 is before training).

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is not a `GradientHistory`, or `layers` is one string.
        ValueError: if no record has distributions, or a layer or an epoch is unknown.
    """
    layers, counts, drawn = drawable_counts(history, layers)
    time, (times,) = time_axis([history])
    if epochs is None and len(drawn) > 1 and len(layers) <= MOST_PANELS:
        edges, summed = _summed(times[drawn], counts[drawn])
        centers = (edges[:-1] + edges[1:]) / 2 if len(summed) < len(drawn) else times[drawn]
        panels = [
            Cells(plain(name), centers, summed[:, i], color)
            for i, (name, color) in enumerate(zip(layers, colors(DEPTH, len(layers)), strict=True))
        ]
        return _distribution_figure(panels, edges, title, time)
    if epochs is None:
        drawn = drawn[spread_out(len(drawn), 4)]
    else:
        time, times = "epoch", history.epochs
        moments = recorded_epochs(epochs, [times[drawn]])
        drawn = np.array([drawn[times[drawn] == moment][-1] for moment in moments])
    depth = np.arange(len(layers))
    panels = [
        Cells(f"{time} {times[i]}", depth, counts[i], color)
        for i, color in zip(drawn, colors(TIME, len(drawn)), strict=True)
    ]
    return _distribution_figure(panels, cell_edges(depth), title, "layer, input → output", layers)


def _summed(times: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds and counts of at most so many columns, each the sum of a few records."""
    edges = cell_edges(times)
    if len(times) <= _MOST:
        return edges, counts
    bounds = np.linspace(0, len(times), _MOST + 1).round().astype(int)
    return edges[bounds], np.add.reduceat(counts, bounds[:-1], axis=0)


def _distribution_figure(
    panels: Sequence[Cells],
    edges: np.ndarray,
    title: str,
    x_label: str,
    layers: Sequence[str] = (),
) -> go.Figure:
    """The panels on shared scales; `layers` are the names of their columns."""
    counts = np.concatenate([panel.counts for panel in panels])
    span, peaks = Span.of(counts), shares_of(counts).max(axis=1)
    rows = -(-len(panels) // 2)
    height = 170 * rows + 130
    figure = make_subplots(
        figure=new_figure(title, height, bargap=0, barmode="overlay"),
        rows=rows,
        cols=min(2, len(panels)),
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=32 / height,
        horizontal_spacing=0.03,
        subplot_titles=[f"<b>{panel.title}</b>" for panel in panels],
    )
    figure.update_annotations(font_size=13)
    places, texts = span.ticks()
    y_axis = {"tickvals": places, "ticktext": [superscript(text) for text in texts]}
    figure.update_yaxes(y_axis | {"range": span.limits, "automargin": True, "showgrid": False})
    axis = time_axis_of(x_label, edges)
    if layers:
        axis |= layer_axis_of(layers, 0, 6) | {"tickangle": 40}
    figure.update_xaxes(axis | {"title": None, "showgrid": False, "zeroline": False})
    figure.update_xaxes(title_text=x_label, row=rows)
    figure.update_yaxes(title_text="|gradient entry|", row=1 + (rows - 1) // 2, col=1)
    names = [plain(name) for name in layers]
    for i, panel in enumerate(panels):
        _draw_cells(figure, i, panel, edges, span, names or [])
    top = float(np.quantile(peaks[peaks > 0], 0.95)) if peaks.any() else 1.0
    bar: dict[str, Any] = {"thickness": 14, "outlinewidth": 0, "xpad": 6, "tickformat": ".0%"}
    bar["title"] = {"text": "share per factor of 2", "side": "right"}
    ramp = {"colorscale": colorscale(DENSITY), "cmin": 0, "cmax": top, "colorbar": bar}
    figure.update_layout(coloraxis=ramp | {"showscale": not span.blank})
    return figure


def _draw_cells(
    figure: go.Figure, number: int, panel: Cells, edges: np.ndarray, span: Span, names: list[str]
) -> None:
    """Density as colour, the median as a line, special shares as bars in their strips."""
    at = {"row": 1 + number // 2, "col": 1 + number % 2}
    shares = shares_of(panel.counts)
    below, above = LOG10_EDGES[1:-2], LOG10_EDGES[2:-1]
    held = (below >= span.low) & (above <= span.high) & (shares > 0).any(axis=0)
    rows = np.arange(held.argmax(), len(held) - held[::-1].argmax()) if held.any() else np.arange(0)
    where = "%{x:.0f}" if not names else "%{text}"
    if len(rows):
        density = np.where(shares > 0, shares, np.nan)[:, rows].T
        figure.add_heatmap(
            x=edges,
            y=np.append(below[rows], above[rows[-1]]),
            z=density.astype(np.float32),
            coloraxis="coloraxis",
            hoverongaps=False,
            hovertemplate=f"{panel.title}<br>%{{z:.1%}} of entries near 10^%{{y:.1f}}"
            f"{'' if names else ', at %{x:.0f}'}<extra></extra>",
            **at,
        )
    figure.add_scatter(
        x=panel.centers,
        y=medians_of(shares),
        text=names or None,
        mode="lines+markers",
        line={"color": panel.color, "width": 2},
        marker={"size": 4, "line": {"color": "white", "width": 1}},
        name="median",
        legendgroup="median",
        showlegend=not number,
        hovertemplate=f"{panel.title}, {where}<br>median 10^%{{y:.2f}}<extra></extra>",
        **at,
    )
    total = np.maximum(panel.counts.sum(axis=1), 1)
    bottom, top = span.limits
    height = STRIP * (top - bottom)
    for wanted, column, base, color, name in (
        (span.zeros, 0, bottom, ZERO.color, "zeros"),
        (span.nonfinite, -1, top - height, INFINITE.color, "NaN or infinite"),
    ):
        if wanted:
            box = {"y0": base, "y1": base + height, "x0": edges[0], "x1": edges[-1]}
            figure.add_shape(
                type="rect", **box, fillcolor=STRIP_COLOR, line_width=0, layer="below", **at
            )
            share = panel.counts[:, column] / total
            figure.add_bar(
                x=panel.centers,
                y=height * share,
                base=base,
                width=np.diff(edges),
                text=names or None,
                textposition="none",
                customdata=share,
                marker={"color": to_hex(color), "line": {"width": 0}},
                name=f"{name}, 0 to 100 % of entries",
                legendgroup=name,
                showlegend=not number,
                hovertemplate=f"{panel.title}, {where}<br>%{{customdata:.1%}} {name}"
                "<extra></extra>",
                **at,
            )

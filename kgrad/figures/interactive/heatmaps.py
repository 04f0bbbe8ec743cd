"""Interactive heatmaps of layer × record, of one run or of several on one scale."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex
from plotly.subplots import make_subplots

from kgrad.figures.interactive.looks import (
    NAMED,
    colorscale,
    compact,
    layer_axis_of,
    new_figure,
    plain,
    shapes_of,
    special_marker,
    ticks_of,
    time_axis_of,
    when,
)
from kgrad.figures.scale import Scale
from kgrad.figures.static.panels import MAGNITUDE, sampled_cells
from kgrad.figures.static.parts import keyed, require_drawable, require_mapping, time_axis
from kgrad.figures.thinning import MOST_COLUMNS, Columns
from kgrad.records.history import GradientHistory


def plot_heatmap(
    history: GradientHistory | Mapping[str, GradientHistory],
    *,
    title: str = "",
    statistic: str = "mean_abs",
) -> go.Figure:
    """Draw layer × record as a heatmap, colored by value, with the input on top.

    Args:
        history: a run's history with at least one record; or a mapping from each run's name to its
            history: one heatmap per run, all with the same colors and the same time axis.
        title: text above the figure.
        statistic: a statistic that every history recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is neither a `GradientHistory` nor a mapping of them.
        ValueError: if there is no history, no record or no such statistic.
    """
    return heatmap_figure(history, statistic, title=title)


def heatmap_figure(
    history: GradientHistory | Mapping[str, GradientHistory],
    statistic: str,
    *,
    title: str = "",
    most: int = MOST_COLUMNS,
) -> go.Figure:
    """Draw heatmaps as `plot_heatmap` does, each with at most `most` columns."""
    if isinstance(history, Mapping):
        histories = require_mapping("history", history)
        require_drawable(keyed("history", histories), statistic)
    else:
        histories = {"": history}
        require_drawable({"history": history}, statistic)
    return _heatmaps(histories, title, statistic, most)


def _heatmaps(
    histories: Mapping[str, GradientHistory], title: str, statistic: str, most: int
) -> go.Figure:
    """A heatmap a history, one below the other; an empty name is not written."""
    values = [history.by_layer(statistic) for history in histories.values()]
    scale = Scale.of(statistic, values)
    time, times = time_axis(histories.values())
    heights = [float(np.interp(one.shape[1], [5, 40], [150, 420])) for one in values]
    whole = sum(heights) + 46 * len(heights)
    figure = make_subplots(
        figure=new_figure(title, whole + 110),
        rows=len(heights),
        cols=1,
        shared_xaxes=True,
        row_heights=heights,
        vertical_spacing=46 / whole,
        subplot_titles=[f"<b>{plain(name)}</b>" if name else "" for name in histories],
    )
    figure.update_annotations(x=0, xanchor="left", font_size=13)
    every = [Columns.of(v, t, scale, most) for v, t in zip(values, times, strict=True)]
    for row, (history, columns) in enumerate(zip(histories.values(), every, strict=True), start=1):
        _draw_heatmap(figure, row, history, columns, scale, time)
    start = min(columns.edges[0] for columns in every)
    end = max(columns.edges[-1] for columns in every)
    axis = time_axis_of(time, np.array([start, end])) | {"showgrid": False, "title": None}
    figure.update_xaxes(axis)
    figure.update_xaxes(title_text=time, row=len(heights), col=1)
    _add_color_axis(figure, scale)
    return figure


def _draw_heatmap(
    figure: go.Figure,
    row: int,
    history: GradientHistory,
    columns: Columns,
    scale: Scale,
    time: str,
) -> None:
    """One history's cells, and what is special among them."""
    layers = history.layers
    numbered = [
        f"{plain(name)}<br>{shape}" for name, shape in zip(layers, shapes_of(history), strict=True)
    ]
    ordinary = columns.values.T
    # Of its centres Plotly tells the time, which is not the middle of a cell of another width.
    centred = columns.records == 1 and len(columns.centers) > 1
    x = columns.centers if centred else columns.edges
    common: dict[str, Any] = {"x": x, "y": numbered, "hoverongaps": False}
    moment = when(time, columns)
    figure.add_heatmap(
        z=(np.log10(ordinary) if scale.logarithmic else ordinary).astype(np.float32),
        customdata=compact(ordinary),
        coloraxis="coloraxis",
        hovertemplate=f"%{{y}}<br>{moment}: %{{customdata:.3g}}<extra></extra>",
        **common,
        row=row,
        col=1,
    )
    for special, found in columns.found.items():
        if not found.any():
            continue
        color = to_hex(special.color)
        figure.add_heatmap(
            z=np.where(found.T, 0, np.nan).astype(np.float32),
            colorscale=[[0, color], [1, color]],
            showscale=False,
            name=special.name,
            hovertemplate=f"%{{y}}<br>{moment}: {special.name}<extra></extra>",
            **common,
            row=row,
            col=1,
        )
        # A marker has a shape, which greyscale keeps, and a size that a thousand records keep.
        rows, cells = sampled_cells(found.T, 6)
        shown = {one.name for one in figure.data if one.type == "scatter"}
        figure.add_scatter(
            x=columns.centers[cells],
            y=[numbered[i] for i in rows],
            mode="markers",
            marker=special_marker(special),
            name=special.name,
            legendgroup=special.name,
            showlegend=special.name not in shown,
            hoverinfo="skip",
            cliponaxis=False,
            row=row,
            col=1,
        )
    axis = layer_axis_of(layers, 0, NAMED) | {"type": "category", "showgrid": False}
    # At its very place Plotly would put a tick's short text for the layer in what pointing tells.
    axis["tickvals"] = [place + 2e-3 * len(layers) for place in axis["tickvals"]]
    axis |= {"categoryarray": numbered, "range": [len(layers) - 0.5, -0.5]}
    figure.update_yaxes(axis, row=row, col=1)


def _add_color_axis(figure: go.Figure, scale: Scale) -> None:
    """The scale's ramp, and its key."""
    ends = np.array([scale.low, scale.high])
    low, high = np.log10(ends) if scale.logarithmic else ends
    bar = {"title": {"text": scale.label, "side": "right"}, "thickness": 14, "outlinewidth": 0}
    bar |= {"xpad": 6, **ticks_of(scale, logarithms=True)}
    figure.update_layout(
        coloraxis={
            "colorscale": colorscale(MAGNITUDE),
            "cmin": float(low),
            "cmax": float(high),
            "showscale": not scale.blank,
            "colorbar": bar,
        }
    )

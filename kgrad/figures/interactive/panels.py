"""Panels of interactive figures: views of arrays, added to a figure on a given `Scale`."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from kgrad.figures.interactive.parts import (
    NAMED,
    add_special_points,
    add_strips,
    colors,
    compact,
    in_template,
    layer_axis_of,
    magnitude_axis_of,
    marks_by_depth,
    marks_over_time,
    note_blank,
    place_of,
    plain,
    special_key,
    special_marker,
    time_axis_of,
    translucent,
    when,
)
from kgrad.figures.looks import (
    BAND,
    BAND_LABEL,
    DEPTH,
    FEW,
    PREDICTED,
    PREDICTED_BAND,
    PREDICTED_LABEL,
)
from kgrad.figures.scale import Scale
from kgrad.figures.selection import Predicted, Profile, range_of
from kgrad.figures.thinning import Columns, sampled_cells, without_neighbors


class OverTime(NamedTuple):
    """The contents of one run's panels over time.

    Attributes:
        layers: names of the layers.
        texts: the layers' hover texts.
        columns: the values over time, thinned if there are many records.
        scale: the scale that all runs of the figure share.
        time: "epoch", "step" or "record".
    """

    layers: Sequence[str]
    texts: Sequence[str]
    columns: Columns
    scale: Scale
    time: str


def share_time_axis(figure: go.Figure, drawn: Sequence[OverTime], rows: int, columns: int) -> None:
    """Give the panels of the first `rows` rows one time axis, named below the last of them."""
    edges = [run.columns.edges for run in drawn]
    ends = np.array([min(one[0] for one in edges), max(one[-1] for one in edges)])
    time = drawn[0].time
    for number in range(rows * columns):
        place = place_of(number, columns)
        lowest = place["row"] == rows
        axis = time_axis_of(time, ends, columns) | {"matches": "x" if number else None}
        axis |= {"showticklabels": lowest} | ({} if lowest else {"title": None})
        figure.update_xaxes(axis, **place)


def heatmap_height(layers: int) -> float:
    """Return the height of a heatmap in pixels."""
    return float(np.interp(layers, [5, 40], [150, 420]))


def add_lines(figure: go.Figure, run: OverTime, **place: int) -> None:
    """Add one line per layer, dots for values between gaps, and marks of special values."""
    layers, columns, scale, time = run.layers, run.columns, run.scale, run.time
    figure.update_yaxes(magnitude_axis_of(scale), **place)
    add_strips(figure, scale, **place)
    width = float(np.interp(len(layers), [8, 60], [2.2, 0.9]))
    x, y = compact(columns.centers), compact(columns.values)
    moment = when(time, columns)
    named = {trace.name for trace in figure.data}
    for i, color in enumerate(colors(DEPTH, len(layers))):
        line, name = y[:, i], plain(layers[i])
        look: dict[str, Any] = {
            "name": name,
            "legendgroup": name,
            "hovertemplate": f"{in_template(run.texts[i])}<br>{moment}: %{{y:.3g}}<extra></extra>",
        }
        figure.add_scatter(
            x=x,
            y=line,
            mode="lines",
            line={"color": color, "width": width},
            showlegend=len(layers) <= FEW and name not in named,
            **look,
            **place,
        )
        lonely = without_neighbors(~np.isnan(line))
        if lonely.any():
            dots = {"color": color, "size": 5}
            look |= {"x": x[lonely], "y": line[lonely], "showlegend": False}
            figure.add_scatter(mode="markers", marker=dots, **look, **place)
    marks = marks_over_time(columns, time, layers)
    add_special_points(figure, scale, marks, "white", **place)
    note_blank(figure, scale, **place)


def add_heatmap(figure: go.Figure, run: OverTime, **place: int) -> None:
    """Add one run's cells, with the input on top, and marks of special values."""
    columns, scale, numbered = run.columns, run.scale, list(run.texts)
    ordinary = columns.values.T
    # Plotly's hover shows a cell's center, which is not its time if cells differ in width.
    centered = columns.records == 1 and len(columns.centers) > 1
    x = columns.centers if centered else columns.edges
    common: dict[str, Any] = {"x": x, "y": numbered, "hoverongaps": False, **place}
    moment = when(run.time, columns)
    figure.add_heatmap(
        z=(np.log10(ordinary) if scale.logarithmic else ordinary).astype(np.float32),
        customdata=compact(ordinary),
        coloraxis="coloraxis",
        hovertemplate=f"%{{y}}<br>{moment}: %{{customdata:.3g}}<extra></extra>",
        **common,
    )
    for special, found in columns.found.items():
        if not found.any():
            continue
        color = to_hex(special.color)
        figure.add_heatmap(
            z=np.where(found.T, 0, np.nan).astype(np.float32),
            colorscale=[[0, color], [1, color]],
            showscale=False,
            showlegend=False,
            name=special.name,
            hovertemplate=f"%{{y}}<br>{moment}: {special.name}<extra></extra>",
            **common,
        )
        # Unlike a color, a marker survives grayscale; unlike a cell, it stays visible if narrow.
        rows, cells = sampled_cells(found.T, 6)
        figure.add_scatter(
            x=columns.centers[cells],
            y=[numbered[i] for i in rows],
            mode="markers",
            marker=special_marker(special),
            **special_key(figure, special),
            hoverinfo="skip",
            cliponaxis=False,
            **place,
        )
    axis = layer_axis_of(run.layers, 0, NAMED) | {"type": "category", "showgrid": False}
    # If a tick is exactly at a layer, Plotly shows the tick's short text when hovering over it.
    axis["tickvals"] = [value + 2e-3 * len(run.layers) for value in axis["tickvals"]]
    axis |= {"categoryarray": numbered, "range": [len(run.layers) - 0.5, -0.5]}
    figure.update_yaxes(axis, **place)
    figure.update_xaxes(showgrid=False, **place)


def add_profile(
    figure: go.Figure,
    profile: Profile,
    texts: Sequence[str],
    color: str,
    scale: Scale,
    **place: int,
) -> None:
    """Add the line of one moment, and marks of special values.

    Over several replicates the line is the median, with a band from minimum to maximum.
    """
    depth = np.arange(1, profile.values.shape[1] + 1)
    low, middle, high = range_of(profile.values, scale.logarithmic)
    several = len(profile.values) > 1
    label = profile.label
    prefix = f"{label}: " if label else ""
    hover = f"%{{text}}<br>{prefix}%{{y:.3g}}"
    if several:
        bottom, top = np.clip([low, high], *scale.limits)
        add_band(figure, depth, bottom, top, color, **place)
        hover = (
            f"%{{text}}<br>{prefix}median %{{y:.3g}}"
            "<br>from %{customdata[0]:.3g} to %{customdata[1]:.3g}"
        )
    figure.add_scatter(
        x=depth,
        y=np.where(scale.ordinary(middle), middle, np.nan),
        text=list(texts),
        customdata=np.stack([low, high], axis=1) if several else None,
        mode="lines+markers",
        line={"color": color, "width": 2},
        marker={"size": float(np.interp(len(depth), [10, 60], [6, 3]))},
        **(in_legend(figure, label) if label else {"showlegend": False}),
        hovertemplate=f"{hover}<extra></extra>",
        **place,
    )
    hovers = [f"{text}<br>{label}" if label else text for text in texts]
    marks = marks_by_depth(profile.values, depth, scale, hovers)
    add_special_points(figure, scale, marks, color, **place)


def add_band(
    figure: go.Figure,
    depth: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    color: str,
    **place: int,
) -> None:
    """Add a band between two lines, interrupted where these are NaN."""
    x: list[Any] = []
    y: list[Any] = []
    for part in np.ma.clump_unmasked(np.ma.masked_invalid(low)):
        x += [*depth[part], *depth[part][::-1], None]
        y += [*high[part], *low[part][::-1], None]
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines",
        line={"width": 0},
        fill="toself",
        fillcolor=translucent(color, BAND),
        showlegend=False,
        hoverinfo="skip",
        **place,
    )


def add_predicted(
    figure: go.Figure,
    predicted: Predicted,
    names: Sequence[str],
    depth: np.ndarray,
    scale: Scale,
    **place: int,
) -> None:
    """Add the band, the line and the marks of a prediction; names and depth are of dense layers."""
    # Where the band reaches 0 or infinity, it ends at the edge of the axis.
    low, high = np.clip([predicted.low, predicted.high], *scale.limits)
    line = predicted.line
    unseen = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    # The upper end comes first: "tonexty" fills from a trace to the one before.
    figure.add_scatter(x=depth, y=high, showlegend=False, legendgroup="band", **unseen, **place)
    figure.add_scatter(
        x=depth,
        y=low,
        **in_legend(figure, BAND_LABEL, "band"),
        **unseen,
        fill="tonexty",
        fillcolor=translucent(PREDICTED, PREDICTED_BAND),
        **place,
    )
    figure.add_scatter(
        x=depth,
        y=np.where(scale.ordinary(line), line, np.nan),
        customdata=np.stack([low, high], axis=1),
        text=[plain(name) for name in names],
        mode="lines+markers",
        line={"color": PREDICTED, "width": 2},
        marker={
            "symbol": "line-ew",
            "size": np.where(without_neighbors(scale.ordinary(line)), 12, 0),
            "line": {"width": 2, "color": PREDICTED},
        },
        **in_legend(figure, PREDICTED_LABEL),
        hovertemplate="%{text}<br>predicted, epoch 0: %{y:.3g}<br>"
        "95 % from %{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
        **place,
    )
    hovers = [f"{plain(name)}<br>predicted, epoch 0" for name in names]
    marks = marks_by_depth(line[None], depth, scale, hovers)
    add_special_points(figure, scale, marks, PREDICTED, **place)


def in_legend(figure: go.Figure, name: str, group: str = "") -> dict[str, Any]:
    """Return a trace's name and legend group; only the first trace of a name is in the legend."""
    known = {trace.name for trace in figure.data}
    return {"name": name, "legendgroup": group or name, "showlegend": name not in known}

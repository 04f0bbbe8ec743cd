"""`add_loss`: the loss in a panel above a figure over training, on the same time axis."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from kgrad.figures.interactive.parts import (
    add_special_points,
    add_strips,
    axis_title,
    compact,
    in_template,
    magnitude_axis_of,
    marks_over_time,
    plain,
    strips_height,
    time_axis_of,
    when,
)
from kgrad.figures.looks import MARK, RUNS
from kgrad.figures.selection import loss_scale, time_axis
from kgrad.figures.thinning import Columns, without_neighbors
from kgrad.records.history import GradientHistory

_COLORS = [color for color in RUNS if color != MARK]
_HEIGHT, _GAP = 130, 36  # pixels
_AXIS = "99"  # a number that no panel of the figure has
_DASHES = ("solid", "dash", "dot", "dashdot")


def add_loss(figure: go.Figure, histories: Mapping[str, GradientHistory], most: int) -> None:
    """Add a panel with the loss of each run above a figure over training.

    Nothing is added if no run recorded its loss.

    Args:
        figure: the figure, whose panels are below each other and share their time axis.
        histories: name → the run; the figure is of exactly these.
        most: the largest number of points of a line.
    """
    time, times = time_axis(histories.values())
    recorded = {
        name: (history.logs["loss"], at)
        for (name, history), at in zip(histories.items(), times, strict=True)
        if "loss" in history.logs
    }
    if not recorded:
        return
    scale = loss_scale([loss for loss, _ in recorded.values()])
    panel = _HEIGHT + strips_height(scale)
    _make_room(figure, panel + _GAP)
    axes = {"xaxis": f"x{_AXIS}", "yaxis": f"y{_AXIS}"}
    for number, (name, (loss, at)) in enumerate(recorded.items()):
        columns = Columns.of(loss[:, None], at, scale, most)
        # A value between two that are not finite, such as the last before a NaN, has no line.
        lonely = without_neighbors(~np.isnan(columns.values[:, 0]))
        color = _COLORS[number % len(_COLORS)]
        # Through the gaps of a line the ones below it are seen: losses often coincide.
        dash = _DASHES[(number + number // len(_COLORS)) % len(_DASHES)]
        figure.add_scatter(
            x=compact(columns.centers),
            y=compact(columns.values[:, 0]),
            mode="lines+markers",
            marker={"size": np.where(lonely, 6, 0), "color": color, "opacity": 1},
            line={"color": color, "width": 2.5, "dash": dash},
            name=f"loss of {plain(name)}",
            showlegend=len(histories) > 1,
            hovertemplate=f"{in_template(plain(name))}<br>loss, {when(time, columns)}: %{{y:.4g}}"
            "<extra></extra>",
            **axes,
        )
        marks = marks_over_time(columns, time, [], name)
        add_special_points(figure, scale, marks, color, **axes)
    add_strips(figure, scale, xref=f"x{_AXIS} domain", yref=f"y{_AXIS} domain")
    bottom = 1 - panel / _plotted(figure)
    y = magnitude_axis_of(scale) | {
        "domain": [bottom, 1],
        "anchor": f"x{_AXIS}",
        "title": axis_title("loss"),
    }
    x = time_axis_of(time, figure.layout.xaxis.range) | {"anchor": f"y{_AXIS}", "matches": "x"}
    x |= {"showticklabels": False, "title": None}
    figure.update_layout({f"xaxis{_AXIS}": x, f"yaxis{_AXIS}": y})


def _plotted(figure: go.Figure) -> float:
    """Return the height of a figure without its margins, in pixels."""
    margin = figure.layout.margin
    return float(figure.layout.height - margin.t - margin.b)


def _make_room(figure: go.Figure, pixels: float) -> None:
    """Move everything in a figure down, to leave room above it."""
    before = _plotted(figure)
    figure.update_layout(height=round(figure.layout.height + pixels))
    share = before / _plotted(figure)
    figure.for_each_yaxis(lambda axis: axis.update(domain=[share * end for end in axis.domain]))
    figure.for_each_annotation(
        lambda note: note.update(y=share * note.y) if note.yref == "paper" else None
    )
    bars = [
        one.marker.colorbar for one in figure.data if one.type == "scatter" and one.marker.showscale
    ]
    if figure.layout.coloraxis.colorscale:
        bars.append(figure.layout.coloraxis.colorbar)
    for bar in bars:
        y, length = (0.5 if bar.y is None else bar.y), (1 if bar.len is None else bar.len)
        bar.update(y=share * y, len=share * length)

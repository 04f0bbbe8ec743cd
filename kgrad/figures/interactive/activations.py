"""The interactive figure of layer outputs and of the signal that flows back to them."""

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from kgrad.figures.interactive.parts import (
    add_depth_bar,
    add_special_points,
    add_strips,
    colors,
    compact,
    depth_axis_of,
    few_names,
    in_template,
    magnitude_axis_of,
    note_blank,
    panel_grid,
    plain,
    time_axis_of,
    when,
)
from kgrad.figures.looks import DEPTH, FEW, TIME, ramp
from kgrad.figures.selection import (
    ACTIVATION_TITLES,
    MEAN,
    STD,
    Activations,
    deviation_bars,
    drawable_activations,
)
from kgrad.figures.thinning import MOST_COLUMNS, Columns
from kgrad.records.history import GradientHistory


def plot_activations(history: GradientHistory, *, title: str = "") -> go.Figure:
    """Draw statistics of each layer's output, and of the signal that flows back, over training.

    The panels are: mean and standard deviation of the activations, the shares of them that are 0 or
    saturated, the share of dead units, and the mean magnitude of the loss's derivative with respect
    to them. A panel is left out if nothing was measured for it. There is one line per layer output,
    light at the input. If a single record has activations, they are drawn against depth, the mean
    with bars of one standard deviation.

    Args:
        history: a run's history, with activations.
        title: text above the figure.

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is not a `GradientHistory`.
        ValueError: if no record has activations.

    References:
        X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural
        networks, 2010: mean and standard deviation of each layer's activations over training.
    """
    drawn = drawable_activations(history)
    names = [name for row in drawn.rows for name in row]
    titles = [ACTIVATION_TITLES[name] for name in names]
    figure = panel_grid(title, titles, [150.0] * len(names), shared_xaxes=True)
    over_time = len(drawn.times) > 1
    for row, name in enumerate(names, start=1):
        axis = magnitude_axis_of(drawn.scales[name]) | {"title": None}
        figure.update_yaxes(axis, row=row, col=1)
        add_strips(figure, drawn.scales[name], row=row, col=1)
        (_draw_over_time if over_time else _draw_by_depth)(figure, name, drawn, history, row)
        note_blank(figure, drawn.scales[name], row=row, col=1)
    if not over_time:
        axis = depth_axis_of(history.outputs)
        figure.update_xaxes(axis | {"title": None})
        figure.update_xaxes(title=axis["title"], row=len(names))
    elif len(history.outputs) > FEW:
        add_depth_bar(figure, input_at_top=True)
    return figure


def _draw_over_time(
    figure: go.Figure, name: str, drawn: Activations, history: GradientHistory, row: int
) -> None:
    """Draw one line per output."""
    scale, outputs = drawn.scales[name], history.outputs
    columns = Columns.of(drawn.tables[name], drawn.times, scale, MOST_COLUMNS)
    axis = time_axis_of(drawn.time, columns.edges)
    last = row == sum(map(len, drawn.rows))
    figure.update_xaxes(axis if last else axis | {"title": None}, row=row, col=1)
    x, y = compact(columns.centers), compact(columns.values)
    width = float(np.interp(len(outputs), [8, 60], [2.2, 0.9]))
    moment = when(drawn.time, columns)
    for i, color in enumerate(colors(DEPTH, len(outputs))):
        output = plain(outputs[i])
        figure.add_scatter(
            x=x,
            y=y[:, i],
            mode="lines+markers" if len(x) <= 60 else "lines",
            line={"color": color, "width": width},
            marker={"size": 4},
            name=output,
            legendgroup=output,
            showlegend=len(outputs) <= FEW and row == 1,
            hovertemplate=f"{in_template(output)}<br>{moment}: %{{y:.3g}}<extra></extra>",
            row=row,
            col=1,
        )
    points = []
    for special, found in columns.found.items():
        where = np.flatnonzero(found.any(axis=1))
        hovers = [
            f"{drawn.time} {columns.centers[k]:g}<br>{few_names(outputs, found[k])}" for k in where
        ]
        points.append((special, columns.centers[where].tolist(), hovers))
    add_special_points(figure, scale, points, row=row, col=1)


def _draw_by_depth(
    figure: go.Figure, name: str, drawn: Activations, history: GradientHistory, row: int
) -> None:
    """Draw the single record's values from input to output."""
    scale, values = drawn.scales[name], drawn.tables[name][0]
    outputs = [plain(output) for output in history.outputs]
    depth, color = np.arange(1, len(outputs) + 1), to_hex(ramp(TIME, 1)[0])
    bars = None
    if name == MEAN and STD in drawn.tables:
        low, high = deviation_bars(drawn.tables)
        bars = {"type": "data", "array": (high - low) / 2, "color": color, "width": 0}
    figure.add_scatter(
        x=depth,
        y=np.where(scale.ordinary(values), values, np.nan),
        error_y=bars,
        text=outputs,
        mode="lines+markers",
        line={"color": color, "width": 2},
        marker={"size": 6},
        showlegend=False,
        hovertemplate="%{text}: %{y:.3g}<extra></extra>",
        row=row,
        col=1,
    )
    points = []
    for special in scale.special:
        where = np.flatnonzero(special.found(values))
        points.append((special, depth[where].tolist(), [outputs[i] for i in where]))
    add_special_points(figure, scale, points, color, row=row, col=1)

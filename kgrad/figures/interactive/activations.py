"""The interactive figure of layer outputs and of the signal that flows back to them."""

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from kgrad.figures.interactive.panels import OverTime, add_lines, share_time_axis
from kgrad.figures.interactive.parts import (
    add_depth_bar,
    add_special_points,
    add_strips,
    depth_axis_of,
    magnitude_axis_of,
    marks_by_depth,
    note_blank,
    panel_grid,
    plain,
)
from kgrad.figures.looks import FEW, TIME, ramp
from kgrad.figures.selection import (
    ACTIVATION_TITLES,
    MEAN,
    STD,
    Activations,
    deviation_bars,
    drawable_activations,
)
from kgrad.figures.thinning import Columns
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
    figure = panel_grid(title, titles, [150.0] * len(names))
    outputs = [plain(output) for output in history.outputs]
    if len(drawn.times) > 1:
        runs = []
        for name in names:
            scale = drawn.scales[name]
            columns = Columns.of(drawn.tables[name], drawn.times, scale)
            runs.append(OverTime(history.outputs, outputs, columns, scale, drawn.time))
        share_time_axis(figure, runs, len(names), 1)
        for row, run in enumerate(runs, start=1):
            add_lines(figure, run, row=row, col=1)
        if len(outputs) > FEW:
            add_depth_bar(figure, input_at_top=True)
    else:
        axis = depth_axis_of(history.outputs)
        for row, name in enumerate(names, start=1):
            lowest = row == len(names)
            own = axis | {"showticklabels": lowest} | ({} if lowest else {"title": None})
            figure.update_xaxes(own, row=row, col=1)
            _draw_by_depth(figure, name, drawn, outputs, row)
    figure.update_yaxes(title=None)
    return figure


def _draw_by_depth(
    figure: go.Figure, name: str, drawn: Activations, outputs: list[str], row: int
) -> None:
    """Draw the single record's values from input to output."""
    scale, values, place = drawn.scales[name], drawn.tables[name], {"row": row, "col": 1}
    depth, color = np.arange(1, len(outputs) + 1), to_hex(ramp(TIME, 1)[0])
    figure.update_yaxes(magnitude_axis_of(scale), **place)
    add_strips(figure, scale, **place)
    bars = None
    if name == MEAN and STD in drawn.tables:
        low, high = deviation_bars(drawn.tables)
        bars = {"type": "data", "array": (high - low) / 2, "color": color, "width": 0}
    figure.add_scatter(
        x=depth,
        y=np.where(scale.ordinary(values[0]), values[0], np.nan),
        error_y=bars,
        text=outputs,
        mode="lines+markers",
        line={"color": color, "width": 2},
        marker={"size": 6},
        showlegend=False,
        hovertemplate="%{text}: %{y:.3g}<extra></extra>",
        **place,
    )
    marks = marks_by_depth(values, depth, scale, outputs)
    add_special_points(figure, scale, marks, color, **place)
    note_blank(figure, scale, **place)

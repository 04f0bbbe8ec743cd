"""The static figure of layer outputs and of the signal that flows back to them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kgrad.figures.looks import BY_DEPTH, DEPTH, FEW, TIME, ramp, shortened
from kgrad.figures.scale import INFINITE, NAN, ZERO
from kgrad.figures.selection import (
    ACTIVATION_TITLES,
    MEAN,
    SHARES,
    STD,
    Activations,
    deviation_bars,
    drawable_activations,
)
from kgrad.figures.static.panels import draw_by_depth, draw_over_time
from kgrad.figures.static.parts import add_legend, depth_colorbar, new_figure, note_blank, style
from kgrad.records.deprecations import old_arguments
from kgrad.records.history import GradientHistory


@old_arguments("title")
def plot_activations(history: GradientHistory, *, title: str = "") -> Figure:
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
    over_time = len(drawn.times) > 1
    with style():
        figure = new_figure(title, 1.8 + (2.5 if over_time else 2.9) * len(drawn.rows))
        axes = _axes(figure, drawn.rows, sharex=over_time)
        for name, ax in axes.items():
            if over_time:
                draw_over_time(ax, drawn.tables[name], drawn.times, drawn.scales[name])
            else:
                _draw_by_depth(ax, name, drawn, history.outputs)
            if name in SHARES and np.nanmax(drawn.tables[name], initial=0.0) == 0:
                # A line along the axis is easily taken for none.
                note = "0 in every layer"
                ax.text(0.5, 0.5, note, transform=ax.transAxes, ha="center", va="center")
        for name in drawn.rows[-1]:
            axes[name].set_xlabel(drawn.time if over_time else BY_DEPTH)
        _add_keys(figure, history.outputs if over_time else (), drawn)
    return figure


def _axes(figure: Figure, rows: Sequence[Sequence[str]], sharex: bool) -> dict[str, Axes]:
    """Return axes by name, those of a row equally wide."""
    grid = figure.add_gridspec(len(rows), 6)
    axes: dict[str, Axes] = {}
    for i, row in enumerate(rows):
        width = 6 // len(row)
        for j, name in enumerate(row):
            first = next(iter(axes.values()), None) if sharex else None
            place = grid[i, j * width : (j + 1) * width]
            axes[name] = figure.add_subplot(place, sharex=first, title=ACTIVATION_TITLES[name])
    return axes


def _draw_by_depth(ax: Axes, name: str, drawn: Activations, outputs: Sequence[str]) -> None:
    scale, color = drawn.scales[name], ramp(TIME, 1)[0]
    most = 5 if name in SHARES else 8
    draw_by_depth(ax, drawn.tables[name], outputs, scale, color, most=most)
    note_blank(ax, scale)
    if name == MEAN and STD in drawn.tables:
        depth = np.arange(1, len(outputs) + 1)
        ax.vlines(depth, *deviation_bars(drawn.tables), color=color)


def _add_keys(figure: Figure, outputs: Sequence[str], drawn: Activations) -> None:
    """Add keys to the lines of the outputs, by name or as a bar, and to the special values."""
    colors = ramp(DEPTH, len(outputs)) if len(outputs) <= FEW else []
    handles = [
        Line2D([], [], color=color, linewidth=2, label=shortened(name))
        for name, color in zip(outputs, colors, strict=False)
    ]
    if len(outputs) > FEW:
        depth_colorbar(figure, ax=list(figure.axes), pad=0.02, aspect=40)
    found = {special for scale in drawn.scales.values() for special in scale.special}
    add_legend(figure, [one for one in (ZERO, INFINITE, NAN) if one in found], handles)

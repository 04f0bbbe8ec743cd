"""The interactive figure of remedies: gradients with and without each, and the skills."""

import textwrap

import numpy as np
import plotly.graph_objects as go

from kgrad.figures.interactive.panels import (
    OverTime,
    add_heatmap,
    heatmap_height,
    share_time_axis,
)
from kgrad.figures.interactive.parts import (
    add_magnitude_bar,
    add_special_points,
    add_strips,
    compact,
    described,
    magnitude_axis_of,
    marks_over_time,
    note_blank,
    panel_grid,
    plain,
    when,
)
from kgrad.figures.looks import RUNS
from kgrad.figures.scale import Scale
from kgrad.figures.selection import compared_values, drawable_trials, time_axis, trial_values
from kgrad.figures.thinning import Columns
from kgrad.records.trials import Trials

_DASHES = ("dash", "solid", "dashdot", "dot", "longdashdot")
_SYMBOLS = ("circle", "square", "diamond", "triangle-down", "cross")
_LINES = 240.0  # pixels of height


def plot_remedies(
    trials: Trials,
    *,
    most: int = 3,
    title: str = "Remedies tried",
    statistic: str = "mean_abs",
) -> go.Figure:
    """Draw the unchanged run above the best remedies: a heatmap each, and all skills below.

    Losses are drawn if the skills are unknown.

    The heatmaps share one color scale and show the layers with kernels of the unchanged run; layers
    that a remedy added are left out.

    Args:
        trials: what `try_remedies` returned.
        most: how many remedies to draw, the best first, from 1 to 4.
        title: text above the figure.
        statistic: a statistic that the histories recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `trials` is no `Trials`.
        ValueError: if `most` is out of range, or the statistic was not recorded.
    """
    shown = drawable_trials(trials, most, statistic)
    time, times = time_axis([trial.history for trial in shown])
    values = trial_values(trials, shown, statistic)
    scale = Scale.of(statistic, values)
    layers = trials.layers
    texts = dict(zip(shown[0].history.layers, described(shown[0].history), strict=True))
    drawn = [
        OverTime(layers, [texts[name] for name in layers], Columns.of(v, t, scale), scale, time)
        for v, t in zip(values, times, strict=True)
    ]
    heights = [*[heatmap_height(len(layers))] * len(shown), _LINES]
    names = [textwrap.shorten(trial.name, 50, placeholder="…") for trial in shown]
    compared, lines, at, own = compared_values(trials, shown, times)
    figure = panel_grid(title, [*names, compared], heights)
    for note, color in zip(figure.layout.annotations, RUNS[: len(shown)], strict=False):
        note.font.color = color
    share_time_axis(figure, drawn, len(heights), 1)
    for row, run in enumerate(drawn, start=1):
        add_heatmap(figure, run, row=row, col=1)
        note_blank(figure, scale, row=row, col=1)
    bottom, top = figure.layout.yaxis.domain[0], figure.layout.yaxis.domain[1]
    add_magnitude_bar(figure, scale, y=(bottom + top) / 2, len=top - bottom)
    _add_lines(figure, names, lines, at, own, time)
    return figure


def _add_lines(
    figure: go.Figure,
    names: list[str],
    lines: list[np.ndarray],
    times: list[np.ndarray],
    scale: Scale,
    time: str,
) -> None:
    """Add the last panel: one line per run."""
    place = {"row": len(names) + 1, "col": 1}
    figure.update_yaxes(magnitude_axis_of(scale) | {"title": None}, **place)
    add_strips(figure, scale, **place)
    for i, (name, line, at) in enumerate(zip(names, lines, times, strict=True)):
        columns = Columns.of(line[:, None], at, scale)
        figure.add_scatter(
            x=compact(columns.centers),
            y=compact(columns.values[:, 0]),
            mode="lines+markers" if len(at) <= 60 else "lines",
            line={"color": RUNS[i], "dash": _DASHES[i], "width": 2.5},
            marker={"symbol": _SYMBOLS[i], "size": 7},
            name=plain(name),
            hovertemplate=f"{when(time, columns)}: %{{y:.4g}}",
            **place,
        )
        marks = marks_over_time(columns, time, (), name)
        add_special_points(figure, scale, marks, RUNS[i], **place)

"""The static figure of remedies: gradients with and without each, and the skills.

The runs are side by side on one scale, so that only the remedy differs.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kgrad.figures.looks import RUNS
from kgrad.figures.scale import Scale
from kgrad.figures.selection import compared_values, drawable_trials, time_axis, trial_values
from kgrad.figures.static.panels import draw_heatmap
from kgrad.figures.static.parts import (
    add_legend,
    draw_strips,
    magnitude_axis_of,
    magnitude_colorbar,
    new_figure,
    note_blank,
    style,
)
from kgrad.records.deprecations import old_arguments
from kgrad.records.trials import Trials

_DASHES: tuple[Any, ...] = ("--", "-", "-.", ":", (0, (5, 1, 1, 1)))
_MARKERS = ("o", "s", "D", "v", "P")


@old_arguments("most", "title", "statistic")
def plot_remedies(
    trials: Trials,
    *,
    most: int = 3,
    title: str = "Remedies tried",
    statistic: str = "mean_abs",
) -> Figure:
    """Draw the unchanged run beside the best remedies: a heatmap each, and all skills below.

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
    with style():
        figure = new_figure(title, 8.0)
        grid = figure.add_gridspec(2, len(shown), height_ratios=[1.2, 1])
        panels = [figure.add_subplot(grid[0, i]) for i in range(len(shown))]
        for i, ax in enumerate(panels):
            mesh = draw_heatmap(ax, values[i], times[i], trials.layers, scale, time, 8)
            name = textwrap.fill(shown[i].name, 64 // len(shown), break_long_words=False)
            ax.set_title(name, color=RUNS[i], parse_math=False)
            ax.tick_params(labelleft=i == 0)
            note_blank(ax, scale)
        magnitude_colorbar(figure, mesh, scale, ax=panels, pad=0.02)
        name, lines, at, own = compared_values(trials, shown, times)
        ax = figure.add_subplot(grid[1, :])
        handles = _draw_lines(ax, [trial.name for trial in shown], lines, at, own)
        ax.set(xlabel=time, ylabel=name)
        add_legend(figure, scale.special + own.special, handles)
    return figure


def _draw_lines(
    ax: Axes,
    names: Sequence[str],
    values: Sequence[np.ndarray],
    times: Sequence[np.ndarray],
    scale: Scale,
) -> list[Line2D]:
    """Draw one line per run, and return the lines."""
    magnitude_axis_of(ax, scale)
    lines = []
    for i, (name, line) in enumerate(zip(names, values, strict=True)):
        lines += ax.plot(
            times[i],
            line,
            color=RUNS[i],
            linestyle=_DASHES[i],
            marker=_MARKERS[i],
            linewidth=2.2,
            markersize=6,
            label=name,
        )
        draw_strips(ax, line[:, None], times[i], scale, edge=RUNS[i])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return lines

"""The figure of remedies that were tried: gradients before and after, and what the loss made of it.

The runs stand side by side on one scale, so that only the remedy differs.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kgrad.figures.scale import Scale, Special
from kgrad.figures.static.panels import draw_heatmap, draw_strips, dress_colorbar, magnitude_axis
from kgrad.figures.static.parts import (
    add_legend,
    new_figure,
    note_blank,
    require_drawable,
    style,
    time_axis,
)
from kgrad.records.deprecations import old_arguments
from kgrad.records.trials import Trial, Trials

MOST = 4  # as many remedies can be told apart, and their panels read
_COLORS = ("0.25", "#0072b2", "#117733", "#aa4499", "#8a5a00")
_LINES: tuple[Any, ...] = ("--", "-", "-.", ":", (0, (5, 1, 1, 1)))
_MARKERS = ("o", "s", "D", "v", "P")
_LOG_FROM = 1.3  # decades
_LEAST_SPAN = 0.1  # of the loss


@old_arguments("most", "title", "statistic")
def plot_remedies(
    trials: Trials,
    *,
    most: int = 3,
    title: str = "Remedies tried",
    statistic: str = "mean_abs",
) -> Figure:
    """Draw the unchanged run beside the best remedies: a heatmap each, and all losses below.

    The heatmaps share the scale of their colours and show the layers with kernels that the
    unchanged run has; those that a remedy added are left out.

    Args:
        trials: what `try_remedies` returned.
        most: how many remedies to draw, the best first, from 1 to 4.
        title: stands above the figure.
        statistic: one that the histories recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `trials` is no `Trials`.
        ValueError: if `most` is out of range, or the statistic was not recorded.
    """
    if not isinstance(trials, Trials):
        raise TypeError(
            f"trials must be Trials, received {type(trials).__name__}: pass what try_remedies "
            "returned"
        )
    if most not in range(1, MOST + 1):
        raise ValueError(f"most must be an integer from 1 to {MOST}, received {most!r}")
    shown = trials[: most + 1]
    named = {f"trials[{i}].history": trial.history for i, trial in enumerate(shown)}
    require_drawable(named, statistic)
    time, times = time_axis(named.values())
    values = [trials.by_layer(trial, statistic) for trial in shown]
    scale = Scale.of(statistic, values)
    with style():
        figure = new_figure(title, 8.0)
        grid = figure.add_gridspec(2, len(shown), height_ratios=[1.2, 1])
        panels = [figure.add_subplot(grid[0, i]) for i in range(len(shown))]
        for i, ax in enumerate(panels):
            mesh = draw_heatmap(ax, values[i], times[i], trials.layers, scale, most=8)
            name = textwrap.fill(shown[i].name, 64 // len(shown), break_long_words=False)
            ax.set_title(name, color=_COLORS[i])
            ax.set_xlabel(time)
            ax.tick_params(labelleft=i == 0)
            note_blank(ax, scale)
        if not scale.blank:
            bar = figure.colorbar(mesh, ax=panels, pad=0.02, extend=scale.extend)
            dress_colorbar(bar, scale)
        ax = figure.add_subplot(grid[1, :])
        handles, special = _draw_losses(ax, shown, times)
        ax.set(xlabel=time, ylabel="loss")
        both = tuple(dict.fromkeys([*scale.special, *special]))
        add_legend(figure, replace(scale, special=both), handles)
    return figure


def _draw_losses(
    ax: Axes, shown: Sequence[Trial], times: Sequence[np.ndarray]
) -> tuple[list[Line2D], tuple[Special, ...]]:
    """A line a run; returns the lines, and the special values that the losses have."""
    losses = [trial.history.logs["loss"] for trial in shown]
    scale = Scale.of("loss", losses)
    every = np.concatenate(losses)
    finite = every[np.isfinite(every)]
    if finite.size and finite.min() > 0 and np.log10(np.ptp(finite) / finite.min() + 1) > _LOG_FROM:
        magnitude_axis(ax, scale)
    else:
        scale = replace(scale, special=tuple(one for one in scale.special if one.at_top))
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
        # A loss that hardly moves shall look so.
        wider = max(0.0, _LEAST_SPAN * abs(high) - (high - low)) / 2
        low, high = low - wider, high + wider
        room = 0.08 * (high - low or 1.0)
        ax.set_ylim(low - room, high + room * (1 + 1.5 * len(scale.special)))
    lines = []
    for i, (trial, loss) in enumerate(zip(shown, losses, strict=True)):
        look = {"color": _COLORS[i], "linestyle": _LINES[i], "marker": _MARKERS[i]}
        lines += ax.plot(times[i], loss, linewidth=2.2, markersize=6, label=trial.name, **look)
        draw_strips(ax, loss[:, None], times[i], scale, edge=_COLORS[i])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return lines, scale.special

"""Static maps of a sweep: a number of its runs over two fields of the experiments."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator

from kgrad.figures.looks import shortened
from kgrad.figures.static.parts import (
    add_legend,
    magnitude_colorbar,
    new_figure,
    note_blank,
    style,
)
from kgrad.figures.sweep_maps import (
    BOUNDARY_LABEL,
    DEPTH_FIELD,
    GAINED,
    NO_RUN,
    NO_RUN_COLOR,
    SIGMA_W2,
    Mark,
    SweepMap,
)
from kgrad.records.sweep import Sweep

_INCHES = (7.0, 4.2)  # of the panel, about: marks fit into its cells
_MOST_TICKS = 10


def plot_sweep(
    sweep: Sweep | pd.DataFrame,
    x: str,
    y: str,
    value: str = "loss_last",
    *,
    title: str = "",
    theory: bool | None = None,
) -> Figure:
    """Draw a number of a sweep's runs as colors over two fields of their experiments.

    A cell has the runs with the same x and y, which may differ in the seed only. Its color is the
    median of the runs that have a number; the color bar says of how many runs. Cells with runs that
    diverged (the last loss is NaN or infinite) or failed have marks. Colors are logarithmic if the
    values are positive and span two decades.

    Args:
        sweep: the sweep, or rows of its `to_frame()`.
        x: field of the experiment, such as "learning_rate". "sigma_w2" is σ_w² = units · stddev²,
            if all initializers are normal:STDDEV.
        y: another field.
        value: column of numbers, or "loss_gained": 1 - loss_last / loss_first.
        title: text above the figure; by default it names the runs.
        theory: whether to draw what mean-field theory expects on an axis of "sigma_w2", with the
            σ_b² of the runs: the critical σ_w², and over "num_layers" the depth 6 ξ_c, a rule of
            thumb for the largest that can be trained. By default it is drawn if the axes and the
            runs allow it.

    Returns:
        The figure.

    Raises:
        TypeError: if `sweep` is neither a `Sweep` nor a DataFrame.
        ValueError: if there is no run, a column is none of its kind, a cell would have networks
            that differ, or `theory` is True and there is none for these runs.

    References:
        S. S. Schoenholz et al., "Deep information propagation", 2017.
    """
    drawn = SweepMap.of(sweep, x, y, value, theory)
    with style():
        figure = new_figure(title or drawn.title, 6.0)
        ax = figure.subplots()
        mesh, keys = draw_sweep(ax, drawn)
        magnitude_colorbar(figure, mesh, drawn.scale, ax=ax, pad=0.02)
        add_legend(figure, (), keys)
    return figure


def plot_trainability(sweep: Sweep | pd.DataFrame, *, title: str = "") -> Figure:
    """Draw which depths train over σ_w², with the limits that theory expects.

    Color is the decrease of the loss as a share of the first loss: 1 - loss_last / loss_first.
    Lines are the critical σ_w² and 6 ξ_c, if theory knows the networks: see `plot_sweep`.

    Args:
        sweep: a sweep of networks with initializers normal:STDDEV and several depths, or rows of
            its `to_frame()`.
        title: text above the figure; by default it names the runs.

    Returns:
        The figure.

    Raises:
        TypeError: if `sweep` is neither a `Sweep` nor a DataFrame.
        ValueError: as `plot_sweep`.
    """
    return plot_sweep(sweep, SIGMA_W2, DEPTH_FIELD, GAINED, title=title)


def draw_sweep(
    ax: Axes, drawn: SweepMap, most: int = _MOST_TICKS, size: float = 1.0
) -> tuple[QuadMesh, list[Any]]:
    """Draw a map.

    Args:
        ax: where to draw.
        drawn: its content.
        most: about the largest number of ticks along an axis.
        size: size of the panel as a fraction of that of `plot_sweep`.

    Returns:
        The mesh, for a color bar, and the handles of a legend.
    """
    x, y = drawn.x, drawn.y
    keys: list[Any] = []
    shown = np.ma.masked_array(drawn.values, ~drawn.scale.ordinary(drawn.values))
    mesh = ax.pcolormesh(
        x.edges, y.edges, shown, cmap=drawn.cmap, norm=drawn.scale.norm, rasterized=True
    )
    if drawn.empty.any():
        blank = np.ma.masked_array(np.zeros(drawn.empty.shape), ~drawn.empty)
        gray = ListedColormap([NO_RUN_COLOR])
        ax.pcolormesh(x.edges, y.edges, blank, cmap=gray, rasterized=True)
        keys.append(Patch(color=NO_RUN_COLOR, label=NO_RUN))
    _draw_axes(ax, drawn, most)
    width, height = (72 * size * inches for inches in _INCHES)
    most_points = 0.45 * min(width / len(x.places), height / len(y.places))
    for mark, rows, columns in drawn.marks:
        points = float(np.clip(most_points * (1.3 if mark.marker in "sX" else 1), 2.5, 13))
        ax.plot(x.places[columns], y.places[rows], label=mark.name, **_style(mark, points))
        keys.append(Line2D([], [], label=mark.name, **_style(mark, 11)))
    keys += _draw_theory(ax, drawn)
    if drawn.scale.blank and not drawn.marks:
        note_blank(ax, drawn.scale)
    return mesh, keys


def _draw_axes(ax: Axes, drawn: SweepMap, most: int) -> None:
    for axis, own, name in ((drawn.x, ax.xaxis, "x"), (drawn.y, ax.yaxis, "y")):
        if axis.logarithmic:
            ax.set(**{f"{name}scale": "log"})
        own.set_minor_locator(NullLocator())
        ticks = axis.ticks(most)
        own.set_ticks(
            axis.places[ticks], [shortened(axis.names[i]) for i in ticks], parse_math=False
        )
        own.set_label_text(
            "$σ_w^2$ = units · variance of a weight" if axis.field == SIGMA_W2 else axis.label
        )
    ax.set(xlim=drawn.x.edges[[0, -1]], ylim=drawn.y.edges[[0, -1]])
    if max(map(len, drawn.x.names)) > 6:
        ax.tick_params(axis="x", labelrotation=40)
        for text in ax.get_xticklabels():
            text.set(horizontalalignment="right", rotation_mode="anchor")
    ax.grid(False)


def _style(mark: Mark, size: float) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": mark.marker,
        "markersize": size,
        "markerfacecolor": "white" if mark.hollow else mark.color,
        "markeredgecolor": mark.color if mark.hollow else "white",
        "markeredgewidth": size / 8,
    }


def _critical_label(drawn: SweepMap) -> str:
    at = f" at $σ_b^2$ = {drawn.sigma_b2:.3g}" * (drawn.sigma_b2 > 0)
    return f"critical $σ_w^2$ = {drawn.critical_sigma_w2:.3g}{at}"


def _draw_theory(ax: Axes, drawn: SweepMap) -> list[Any]:
    """Draw theory's lines, white around black so that they are visible on every color."""
    keys: list[Any] = []
    for points, dashes, label in (
        (drawn.critical, "--", _critical_label(drawn)),
        (drawn.boundary, "-", BOUNDARY_LABEL.replace("ξ", "$ξ_c$")),
    ):
        if points is not None:
            ax.plot(*points.T, color="white", linewidth=5)
            keys += ax.plot(*points.T, dashes, color="black", linewidth=2.2, label=label)
    return keys

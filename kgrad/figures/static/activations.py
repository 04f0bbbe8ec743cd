"""The figure of what a model's layers put out, and of the signal that comes back to them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kgrad.figures.scale import INFINITE, NAN, ZERO, Scale
from kgrad.figures.static.gradients import FEW
from kgrad.figures.static.panels import DEPTH, TIME, draw_by_depth, draw_over_time, ramp, shortened
from kgrad.figures.static.parts import (
    add_legend,
    depth_colorbar,
    new_figure,
    note_blank,
    require_drawable,
    style,
    time_axis,
)
from kgrad.records.deprecations import old_arguments
from kgrad.records.history import GradientHistory

MEAN, STD = "activation_mean", "activation_std"
SHARES = {
    "activation_zero_fraction": "share of zeros",
    "activation_saturated": "share saturated",
    "activation_dead": "share of dead units",
}
ROWS: tuple[dict[str, str], ...] = (
    {MEAN: "mean activation", STD: "standard deviation"},
    SHARES,
    {"signal_mean_abs": "back-propagated signal, mean |∂loss/∂activation|"},
)
TITLES = {name: title for row in ROWS for name, title in row.items()}


@old_arguments("title")
def plot_activations(history: GradientHistory, *, title: str = "") -> Figure:
    """Draw what each layer puts out, and the signal that comes back to it, over training.

    Mean and standard deviation of the activations, the shares of them that are 0 or saturated and
    of units that are dead, and the mean magnitude of the loss's derivative by them, each where it
    was measured. One line a layer output, light at the input. If a single record has activations,
    they are drawn against depth, the mean with bars of one standard deviation.

    Args:
        history: what was measured, with activations.
        title: stands above the figure.

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is not a `GradientHistory`.
        ValueError: if no record has activations.

    References:
        X. Glorot and Y. Bengio, Understanding the difficulty of training deep feedforward neural
        networks, 2010: mean and standard deviation of each layer's activations over training.
    """
    require_drawable({"history": history}, getattr(history, "statistics", ("",))[0])
    records = [i for i in range(len(history)) if history.record(i)["activations"]]
    tables = {name: table[records] for name, table in history.activations.items()}
    rows = [[name for name in row if name in tables and _applies(name, tables)] for row in ROWS]
    rows = [row for row in rows if row]
    if not rows:
        raise ValueError(
            "history must have activations, received none: ask for them when you train"
        )
    time, (times,) = time_axis([history])
    over_time = len(records) > 1
    scales = {name: _scale(name, tables) for row in rows for name in row}
    with style():
        figure = new_figure(title, 1.8 + (2.5 if over_time else 2.9) * len(rows))
        axes = _axes(figure, rows, sharex=over_time)
        for name, ax in axes.items():
            if over_time:
                draw_over_time(ax, tables[name], times[records], scales[name])
            else:
                _draw_by_depth(ax, name, tables, history.outputs, scales[name])
            note_blank(ax, scales[name])
        for name in rows[-1]:
            axes[name].set_xlabel(time if over_time else "layer, input → output")
        _add_keys(figure, history.outputs if over_time else (), scales)
    return figure


def _applies(name: str, tables: Mapping[str, np.ndarray]) -> bool:
    """Whether any layer has the share: NaN stands for one that cannot saturate."""
    return name not in SHARES or not np.isnan(tables[name]).all()


def _scale(name: str, tables: Mapping[str, np.ndarray]) -> Scale:
    """Linear for shares and means, which may be negative; else logarithmic."""
    values = tables[name]
    if name in SHARES:
        return Scale.of("zero_fraction", [values[~np.isnan(values)]])
    if name != MEAN:
        return Scale.of(name, [values])
    ends = np.append(values, 0.0)
    if len(values) == 1 and STD in tables:
        ends = np.append(_bars(tables), ends)
    ends = ends[np.isfinite(ends)]
    low, high = float(ends.min()), float(ends.max())
    # A share's name makes the scale a linear one.
    scale = Scale.of("zero_fraction", [values])
    return replace(scale, low=low, high=high if high > low else 1.0)


def _bars(tables: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first record's mean less and plus a standard deviation, (2, outputs); NaN if infinite."""
    mean, std = (np.where(np.isfinite(t[0]), t[0], np.nan) for t in (tables[MEAN], tables[STD]))
    return np.stack([mean - std, mean + std])


def _axes(figure: Figure, rows: Sequence[Sequence[str]], sharex: bool) -> dict[str, Axes]:
    """Axes by name, those of a row equally wide."""
    grid = figure.add_gridspec(len(rows), 6)
    axes: dict[str, Axes] = {}
    for i, row in enumerate(rows):
        width = 6 // len(row)
        for j, name in enumerate(row):
            first = next(iter(axes.values()), None) if sharex else None
            place = grid[i, j * width : (j + 1) * width]
            axes[name] = figure.add_subplot(place, sharex=first, title=TITLES[name])
    return axes


def _draw_by_depth(
    ax: Axes,
    name: str,
    tables: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    scale: Scale,
) -> None:
    color = ramp(TIME, 1)[0]
    draw_by_depth(ax, tables[name], outputs, scale, color, most=5 if name in SHARES else 8)
    if name == MEAN and STD in tables:
        depth = np.arange(1, len(outputs) + 1)
        ax.vlines(depth, *_bars(tables), color=color)


def _add_keys(figure: Figure, outputs: Sequence[str], scales: Mapping[str, Scale]) -> None:
    """Keys to the lines of the outputs, by name or as a bar, and to the special values."""
    colors = ramp(DEPTH, len(outputs)) if len(outputs) <= FEW else []
    handles = [
        Line2D([], [], color=color, linewidth=2, label=shortened(name))
        for name, color in zip(outputs, colors, strict=False)
    ]
    if len(outputs) > FEW:
        depth_colorbar(figure, ax=list(figure.axes), pad=0.02, aspect=40)
    found = {special for scale in scales.values() for special in scale.special}
    special = tuple(one for one in (ZERO, INFINITE, NAN) if one in found)
    add_legend(figure, replace(next(iter(scales.values())), special=special), handles)

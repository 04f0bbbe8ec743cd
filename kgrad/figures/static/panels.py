"""Panels: one view of one array, drawn on a given Axes and on a given `Scale`."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import ListedColormap, to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullLocator
from matplotlib.transforms import Transform

from kgrad.figures.looks import (
    BAND,
    BAND_LABEL,
    BY_DEPTH,
    DEPTH,
    LOSS,
    MAGNITUDE,
    MEASURED,
    PREDICTED,
    PREDICTED_BAND,
    PREDICTED_LABEL,
    Color,
    measured_label,
    ramp,
    shortened,
)
from kgrad.figures.scale import Scale
from kgrad.figures.selection import Predicted, range_of
from kgrad.figures.static.parts import (
    draw_strips,
    layer_axis_of,
    magnitude_axis_of,
    note_beyond,
    note_blank,
    special_style,
    time_axis_of,
)
from kgrad.figures.thinning import cell_edges, evenly_spaced, sampled_cells, without_neighbors


def draw_over_time(
    ax: Axes, values: np.ndarray, times: np.ndarray, scale: Scale, time: str = ""
) -> None:
    """Draw one line per layer, from the lightest at the input to the darkest at the output.

    Args:
        ax: where to draw.
        values: (records, layers).
        times: when each record was made, (records,).
        scale: the scale of the y axis.
        time: name of the x axis.
    """
    layers = values.shape[1]
    magnitude_axis_of(ax, scale)
    width = float(np.interp(layers, [8, 60], [2.2, 0.9]))
    for color, column in zip(ramp(DEPTH, layers), values.T, strict=True):
        lonely = without_neighbors(scale.ordinary(column))
        ax.plot(
            times, column, color=color, linewidth=width, marker="o", markersize=4, markevery=lonely
        )
    draw_strips(ax, values, times, scale)
    note_beyond(ax, values, times, scale)
    time_axis_of(ax, time)
    note_blank(ax, scale)


def draw_loss(
    ax: Axes, losses: np.ndarray, times: np.ndarray, scale: Scale, time: str = ""
) -> None:
    """Draw a run's loss as a slim strip, to stand above what it trained.

    Args:
        ax: where to draw.
        losses: (records,).
        times: when each record was made, (records,).
        scale: the scale of the y axis.
        time: name of the x axis.
    """
    magnitude_axis_of(ax, scale, most=3)
    ax.yaxis.set_minor_locator(NullLocator())  # the strips are too slim for names
    lonely = without_neighbors(scale.ordinary(losses))
    ax.plot(times, losses, color=LOSS, linewidth=1.8, marker="o", markersize=4, markevery=lonely)
    draw_strips(ax, losses[:, None], times, scale)
    time_axis_of(ax, time)
    ax.set_ylabel("loss")
    note_blank(ax, scale)


def draw_heatmap(
    ax: Axes,
    values: np.ndarray,
    times: np.ndarray,
    layers: Sequence[str],
    scale: Scale,
    time: str,
    most: int = 12,
) -> QuadMesh:
    """Draw layer × record, colored by value, with the input on top.

    Args:
        ax: where to draw.
        values: (records, layers).
        times: when each record was made, (records,), increasing.
        layers: names of the layers.
        scale: the scale of the colors.
        time: name of the x axis.
        most: about the largest number of layers to name; half as many special values are marked
            per side.

    Returns:
        The mesh, for a color bar.
    """
    x, y = cell_edges(times), np.arange(len(layers) + 1) - 0.5
    shown = np.ma.masked_array(values, ~scale.ordinary(values)).T
    mesh = ax.pcolormesh(x, y, shown, cmap=MAGNITUDE, norm=scale.norm, rasterized=True)
    for special in scale.special:
        found = special.found(values).T
        flat = np.ma.masked_array(np.zeros(found.shape), ~found)
        ax.pcolormesh(x, y, flat, cmap=ListedColormap([special.color]), rasterized=True)
        # Unlike a color, a marker survives grayscale; unlike a cell, it stays visible if narrow.
        rows, columns = sampled_cells(found, max(2, most // 2))
        marker = special_style(special) | {"markersize": 8}
        ax.plot(times[columns], rows, label=special.name, **marker)
    ax.set_ylim(y[-1], y[0])
    named = evenly_spaced(len(layers), most)
    ax.set_yticks(named, [shortened(layers[i]) for i in named], parse_math=False)
    time_axis_of(ax, time)
    ax.grid(False)
    return mesh


def draw_by_depth(
    ax: Axes,
    values: np.ndarray,
    layers: Sequence[str],
    scale: Scale,
    color: str | Color = "black",
    label: str = "",
    most: int = 12,
    axis: Sequence[str] = (),
) -> None:
    """Draw values from input to output: a line, or the median and range of several.

    Args:
        ax: where to draw.
        values: (replicates, layers).
        layers: names of the layers.
        scale: the scale of the y axis.
        color: of line and band.
        label: of the line, for a legend.
        most: about the largest number of layers to name.
        axis: names of all layers on the x axis; by default those of the values.
    """
    axis = axis or layers
    depth = np.array([axis.index(layer) for layer in layers]) + 1
    magnitude_axis_of(ax, scale)
    low, middle, high = range_of(values, scale.logarithmic)
    if len(values) > 1:
        # Where the line is a mark, a band would be a wedge from there to its neighbors.
        low, high = np.where(scale.ordinary(middle), np.clip([low, high], *scale.limits), np.nan)
        ax.fill_between(depth, low, high, color=color, alpha=BAND, linewidth=0)
    size = float(np.interp(len(layers), [10, 60], [6, 2.5]))
    size *= 0.6 if len(values) > 1 else 1  # a large marker would hide the band
    ax.plot(depth, middle, color=color, linewidth=2, marker="o", markersize=size, label=label)
    draw_strips(ax, values.T, depth, scale, edge=color)
    layer_axis_of(ax, axis, 1, most)


def draw_predicted(ax: Axes, predicted: Predicted, depth: np.ndarray, scale: Scale) -> None:
    """Draw a prediction's line and band over the dense layers.

    Args:
        ax: where to draw.
        predicted: the numbers.
        depth: where along x each dense layer is, (dense layers,).
        scale: the scale of the y axis.
    """
    low, high = np.clip([predicted.low, predicted.high], *scale.limits)
    ax.fill_between(depth, low, high, color=PREDICTED, alpha=PREDICTED_BAND, linewidth=0)
    ax.plot(
        depth,
        predicted.line,
        color=PREDICTED,
        linewidth=2,
        marker="_",
        markersize=14,
        markeredgewidth=2,
        markevery=without_neighbors(scale.ordinary(predicted.line)),
        label=PREDICTED_LABEL,
    )
    draw_strips(ax, predicted.line[:, None], depth, scale, edge=PREDICTED)


def draw_prediction(
    ax: Axes,
    measured: np.ndarray,
    layers: Sequence[str],
    predicted: Predicted,
    scale: Scale,
    most: int,
) -> None:
    """Draw a network's predicted line and band over its dense layers, and measured points.

    Args:
        ax: where to draw.
        measured: epoch 0 of each replicate, (replicates, layers).
        layers: names of all layers.
        predicted: what theory predicts.
        scale: the scale of the y axis.
        most: about the largest number of layers to name.
    """
    names = [name for name, dense in zip(layers, predicted.dense, strict=True) if dense]
    depth = np.arange(1, len(names) + 1)
    magnitude_axis_of(ax, scale)
    draw_predicted(ax, predicted, depth, scale)
    size = float(np.interp(len(names), [10, 60], [5, 3]))  # a large point would hide the band
    points = measured[:, predicted.dense]
    for one in points:
        ax.plot(depth, one, **_point_style(size), label="measured")
    draw_strips(ax, points.T, depth, scale, edge=MEASURED)
    layer_axis_of(ax, names, 1, most)
    ax.margins(x=0.06)
    ax.set(xlabel=BY_DEPTH, ylabel=scale.label)
    note_blank(ax, scale)


def predicted_keys() -> list[Any]:
    """Return the legend's handles of a prediction's line and band."""
    return [
        Line2D([], [], color=PREDICTED, linewidth=2, label=PREDICTED_LABEL),
        Patch(color=PREDICTED, alpha=PREDICTED_BAND, linewidth=0, label=BAND_LABEL),
    ]


def measured_key(replicates: int) -> Line2D:
    """Return the legend's handle of measured points."""
    return Line2D([], [], **_point_style(8), label=measured_label(replicates))


def label_lines(
    ax: Axes, values: np.ndarray, time: float, layers: Sequence[str], scale: Scale
) -> None:
    """Write each layer's name beside the end of its line, moved apart if names would collide.

    Args:
        ax: where `draw_over_time` has drawn.
        values: the last record, (layers,).
        time: when it was made.
        layers: names of the layers, few enough to fit above each other.
        scale: the scale of the y axis.
    """
    names = [shortened(name) for name in layers]
    label_ends(ax, values, time, names, ramp(DEPTH, len(names)), scale)


def label_ends(
    ax: Axes,
    values: np.ndarray,
    at: float,
    names: Sequence[str],
    colors: Sequence[str | Color],
    scale: Scale,
) -> None:
    """Write each line's name beside its end, moved apart if names would collide.

    Args:
        ax: where the lines are drawn.
        values: where they end, (lines,).
        at: the end's place on the x axis.
        names: few enough to fit above each other.
        colors: of the lines; more than enough.
        scale: the scale of the y axis.
    """
    ends = np.column_stack([np.full(len(values), at), scale.heights(values)])
    _name_ends(ax, ends, ax.get_xaxis_transform(), names, colors)


def name_lines(ax: Axes) -> None:
    """Write the name of each labeled line beside its last point, in place of a legend.

    For axes of one's own beside kgrad's figures. Call it after everything is drawn, because the
    places depend on the limits of the axes.

    Args:
        ax: axes with few labeled lines; a point that is not finite is no end of a line.
    """
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    ax.autoscale_view()  # limits are computed late
    ends, named = [], []
    for line in lines:
        points = ax.transAxes.inverted().transform(
            line.get_transform().transform(line.get_xydata())
        )
        finite = points[np.isfinite(points).all(axis=1)]
        if len(finite):
            named.append(line)
            ends.append(finite[-1])
    if not ends:
        return
    names = [str(line.get_label()) for line in named]
    colors = [to_rgba(line.get_color()) for line in named]
    _name_ends(ax, np.clip(ends, 0, 1), ax.transAxes, names, colors)


def _name_ends(
    ax: Axes,
    ends: np.ndarray,
    coordinates: Transform,
    names: Sequence[str],
    colors: Sequence[str | Color],
) -> None:
    """Write names beside ends, (lines, 2), whose heights are fractions of the axes."""
    height = ax.get_window_extent().height * 72 / ax.figure.dpi
    gap = min(1.3 * float(ax.yaxis.label.get_fontsize()) / height, 1 / len(names))
    order = np.argsort(ends[:, 1], kind="stable")
    places, top = np.empty(len(names)), 1 - gap / 2  # half a line below what is above the axes
    places[order] = top * _apart(ends[order, 1] / top, gap / top)
    for name, color, end, place in zip(names, colors, ends, places, strict=False):
        ax.annotate(
            name,
            xy=tuple(end),
            xycoords=coordinates,
            xytext=(1.06, place),
            textcoords="axes fraction",
            verticalalignment="center",
            annotation_clip=False,
            parse_math=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 3,
            },
        )


def _point_style(size: float) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": "o",
        "markersize": size,
        "markerfacecolor": MEASURED,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }


def _apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Return increasing places in [0, 1], moved as little as keeps them `gap` apart."""
    offsets = gap * np.arange(len(places))
    pushed_up = np.maximum.accumulate(places - offsets)
    pushed_down = np.minimum.accumulate((places - offsets)[::-1])[::-1]
    lowest = np.clip((pushed_up + pushed_down) / 2, 0, 1 - offsets[-1])
    return lowest + offsets

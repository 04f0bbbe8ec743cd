"""Panels: one view of one array each, drawn on an Axes that is given, on a `Scale` that is given.

Colour carries depth in lines, light at the input, and magnitude in heatmaps. The three ramps have
monotone luminance, so that greyscale keeps their order, and what is drawn on white shows on it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from kgrad.figures.scale import STRIP, Scale, Special
from kgrad.figures.thinning import cell_edges

Color = tuple[float, float, float, float]

DEPTH: Colormap = sns.color_palette("flare", as_cmap=True)
TIME: Colormap = sns.color_palette("crest", as_cmap=True)
MAGNITUDE: Colormap = sns.color_palette("viridis", as_cmap=True)


def draw_over_time(ax: Axes, values: np.ndarray, times: np.ndarray, scale: Scale) -> None:
    """One line a layer, from the lightest at the input to the darkest at the output.

    Args:
        ax: where to draw.
        values: (records, layers).
        times: when each record was made, (records,).
        scale: the scale of the y axis.
    """
    layers = values.shape[1]
    magnitude_axis(ax, scale)
    width = float(np.interp(layers, [8, 60], [2.2, 0.9]))
    for color, column in zip(ramp(DEPTH, layers), values.T, strict=True):
        lonely = without_neighbours(scale.ordinary(column))
        ax.plot(
            times, column, color=color, linewidth=width, marker="o", markersize=4, markevery=lonely
        )
    draw_strips(ax, values, times, scale)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))


def draw_heatmap(
    ax: Axes,
    values: np.ndarray,
    times: np.ndarray,
    layers: Sequence[str],
    scale: Scale,
    most: int = 12,
) -> QuadMesh:
    """Layer × record, coloured by value, the input on top.

    Args:
        ax: where to draw.
        values: (records, layers).
        times: when each record was made, (records,), increasing.
        layers: names of the layers.
        scale: the scale of the colours.
        most: how many layers to name at most, and special values to mark along a side.

    Returns:
        The mesh, for a colour bar.
    """
    x, y = cell_edges(times), np.arange(len(layers) + 1) - 0.5
    shown = np.ma.masked_array(values, ~scale.ordinary(values)).T
    mesh = ax.pcolormesh(x, y, shown, cmap=MAGNITUDE, norm=scale.norm, rasterized=True)
    for special in scale.special:
        found = special.found(values).T
        flat = np.ma.masked_array(np.zeros(found.shape), ~found)
        ax.pcolormesh(x, y, flat, cmap=ListedColormap([special.color]), rasterized=True)
        # A marker has a shape, which greyscale keeps, and a size that a thousand records keep.
        rows, columns = sampled_cells(found, most)
        marker = special_style(special)
        ax.plot(times[columns], rows, label=special.name, **marker)
    ax.set_ylim(y[-1], y[0])
    named = thinned(len(layers), most)
    ax.set_yticks(named, [shortened(layers[i]) for i in named])
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
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
) -> None:
    """The layers' values from input to output: one line, or the median and range of several.

    The median is taken of the logarithms where the scale is logarithmic. Zeros and infinities
    count in it as what they are; NaN has no rank, and is left out of it and marked.

    Args:
        ax: where to draw.
        values: (replicates, layers).
        layers: names of the layers.
        scale: the scale of the y axis.
        color: of line and band.
        label: of the line, for a legend.
        most: how many layers to name at most.
    """
    depth = np.arange(1, len(layers) + 1)
    magnitude_axis(ax, scale)
    low, middle, high = _range(values, scale.logarithmic)
    if len(values) > 1:
        low, high = np.clip([low, high], *scale.limits)
        ax.fill_between(depth, low, high, color=color, alpha=0.25, linewidth=0)
    size = float(np.interp(len(layers), [10, 60], [6, 2.5]))
    ax.plot(depth, middle, color=color, linewidth=2, marker="o", markersize=size, label=label)
    draw_strips(ax, values.T, depth, scale, edge=color)
    name_layers(ax, layers, most)


def name_layers(ax: Axes, layers: Sequence[str], most: int) -> None:
    """Name at most `most` of the layers, which stand at x = 1, 2, …, aslant below the axis."""
    named = thinned(len(layers), most)
    ax.set_xticks(named + 1, [shortened(layers[i]) for i in named])
    ax.tick_params(axis="x", labelrotation=40)
    for text in ax.get_xticklabels():
        text.set(horizontalalignment="right", rotation_mode="anchor")


def label_lines(
    ax: Axes, values: np.ndarray, time: float, layers: Sequence[str], scale: Scale
) -> None:
    """Each layer's name beside the end of its line, moved apart where they would collide.

    Args:
        ax: where `draw_over_time` has drawn.
        values: the last record, (layers,).
        time: when it was made.
        layers: names of the layers, few enough to stand above each other.
        scale: the scale of the y axis.
    """
    ends = scale.heights(values)
    height = ax.get_window_extent().height * 72 / ax.figure.dpi
    gap = min(1.3 * float(ax.yaxis.label.get_fontsize()) / height, 1 / len(layers))
    order = np.argsort(ends, kind="stable")
    places = np.empty(len(layers))
    places[order] = _apart(ends[order], gap)
    for name, color, end, place in zip(layers, ramp(DEPTH, len(layers)), ends, places, strict=True):
        ax.annotate(
            shortened(name),
            xy=(time, end),
            xycoords=ax.get_xaxis_transform(),
            xytext=(1.06, place),
            textcoords="axes fraction",
            verticalalignment="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": color,
                "relpos": (0, 0.5),
                "shrinkA": 0,
                "shrinkB": 3,
            },
        )


def ramp(colors: Colormap, count: int) -> list[Color]:
    """`count` colours from one end of a ramp to the other; the dark end if there is one only."""
    return [colors(float(t)) for t in (np.linspace(0, 1, count) if count > 1 else [1.0])]


def thinned(count: int, most: int) -> np.ndarray:
    """At most `most` indices below `count`, evenly spaced, the first and the last among them."""
    stride = max(1, int(np.ceil((count - 1) / max(1, most - 1))))
    indices = np.arange(0, count, stride)
    return np.append(indices[count - 1 - indices >= 0.7 * stride], count - 1)


def shortened(name: str, most: int = 16) -> str:
    """The name, or its end where it is long: that is where names of layers differ."""
    return name if len(name) <= most else "…" + name[1 - most :]


def dress_colorbar(colorbar: Colorbar, scale: Scale) -> None:
    """Give a colour bar the scale's name and ticks."""
    axis = colorbar.long_axis
    axis.set_major_locator(FixedLocator(scale.ticks().tolist()))
    axis.set_major_formatter(FuncFormatter(scale.tick_label))
    axis.set_minor_locator(NullLocator())
    colorbar.set_label(scale.label)
    colorbar.outline.set_visible(False)


def special_style(special: Special, edge: Any = "white") -> dict[str, Any]:
    """How `Axes.plot` and `Line2D` are told to draw a special value."""
    return {
        "linestyle": "none",
        # At the edge of the axes a marker is drawn whole, and takes no room from them.
        "clip_on": False,
        "in_layout": False,
        "marker": special.marker,
        "markersize": 10,
        "markerfacecolor": special.color,
        "markeredgecolor": edge,
        "markeredgewidth": 1.2,
    }


def magnitude_axis(ax: Axes, scale: Scale) -> None:
    """Make the y axis the scale's."""
    if scale.logarithmic:
        ax.set_yscale("log", nonpositive="mask")
    ax.set_ylim(*scale.limits)
    ax.yaxis.set_major_locator(FixedLocator(scale.ticks().tolist()))
    ax.yaxis.set_major_formatter(FuncFormatter(scale.tick_label))
    ax.yaxis.set_minor_locator(NullLocator())


def draw_strips(
    ax: Axes, values: np.ndarray, x: np.ndarray, scale: Scale, edge: Any = "white"
) -> None:
    """Mark each x at which any of its values, (x, …), is special."""
    for special in scale.special:
        height = scale.height(special)
        corner = (0, height - STRIP / 2)
        strip = Rectangle(corner, 1, STRIP, transform=ax.transAxes, color="0.93", linewidth=0)
        ax.add_patch(strip).set_zorder(0)
        where = x[special.found(values).any(axis=1)]
        ax.plot(
            where,
            np.full(where.shape, height),
            transform=ax.get_xaxis_transform(),
            label=special.name,
            zorder=3,
            **special_style(special, edge),
        )


def without_neighbours(shown: np.ndarray) -> np.ndarray:
    """True for each point that no line segment reaches: bool, (points,)."""
    padded = np.pad(shown, 1)
    return shown & ~padded[:-2] & ~padded[2:]


def sampled_cells(found: np.ndarray, most: int) -> tuple[list[int], list[int]]:
    """Rows and columns of some true cells, so spaced that each true cell is close to one."""
    rows, columns = [], []
    for group in np.array_split(np.arange(len(found)), min(most, len(found))):
        left = np.flatnonzero(found[group].any(axis=0))
        while left.size:
            members = group[found[group, left[0]]]
            rows.append(int(members[len(members) // 2]))
            columns.append(int(left[0]))
            left = left[left >= left[0] + found.shape[1] / most]
    return rows, columns


def _range(values: np.ndarray, logarithmic: bool) -> np.ndarray:
    """Least, median and greatest of each column, NaN left out: (replicates, n) → (3, n)."""
    result = np.full((3, values.shape[1]), np.nan)
    for i, column in enumerate(values.T):
        ranked = np.sort(column[~np.isnan(column)])
        if ranked.size:
            below, above = ranked[(ranked.size - 1) // 2], ranked[ranked.size // 2]
            result[:, i] = ranked[0], _middle(below, above, logarithmic), ranked[-1]
    return result


def _middle(below: float, above: float, logarithmic: bool) -> float:
    """The mean of two numbers, or of their logarithms."""
    if below == above:
        return below
    with np.errstate(invalid="ignore"):  # 0 and infinity have no middle
        return np.sqrt(below) * np.sqrt(above) if logarithmic else below / 2 + above / 2


def _apart(places: np.ndarray, gap: float) -> np.ndarray:
    """Increasing places in [0, 1], moved as little as keeps them `gap` apart."""
    offsets = gap * np.arange(len(places))
    pushed_up = np.maximum.accumulate(places - offsets)
    pushed_down = np.minimum.accumulate((places - offsets)[::-1])[::-1]
    lowest = np.clip((pushed_up + pushed_down) / 2, 0, 1 - offsets[-1])
    return lowest + offsets

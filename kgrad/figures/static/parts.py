"""The parts of every static figure: the figure itself, axes, color bars, marks and legends."""

import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullLocator,
)

from kgrad.figures.looks import DEPTH, STRIP_SHADE, blank_note, columns_for, shortened
from kgrad.figures.scale import STRIP, Scale, Special
from kgrad.figures.thinning import evenly_spaced, well_apart
from kgrad.records.checks import require_text

WIDTH = 10.0  # inches; with the sizes below, text is legible if a figure is 400 pixels wide
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "center",  # whatever style is in use
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 13,
    "figure.titlesize": 16,
}
MOST_MARKS = 14  # of one special value along an axis: more would overlap
STRIP_COLOR = str(1 - STRIP_SHADE)


class NotebookFigure(Figure):
    """A figure that pyplot does not manage and that a notebook shows if a cell returns it."""

    def _repr_png_(self) -> bytes:
        # Called by IPython unless its inline backend, which does the same, is active.
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", bbox_inches="tight")
        return drawn.getvalue()


def show(figures: Iterable[Figure]) -> None:
    """Open figures in windows and wait until these are closed.

    From then on pyplot manages the figures. Without a display nothing is opened.

    Args:
        figures: figures of this package, which pyplot does not manage by itself.
    """
    import matplotlib.pyplot as plt

    with matplotlib.rc_context({"figure.max_open_warning": 0}):
        for figure in figures:
            # matplotlib 3.11 accepts plt.figure(figure); 3.10 manages only figures that it makes.
            make: Any = lambda given=figure, **_: given  # noqa: E731
            plt.figure(FigureClass=make)
    plt.show()


@contextmanager
def style() -> Iterator[None]:
    """Apply the look of every figure while one is made."""
    with sns.axes_style("ticks"), matplotlib.rc_context(STYLE):
        yield


def new_figure(title: str, height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure, in inches, that pyplot does not manage."""
    require_text("title", title)
    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # a plain figure's canvas cannot draw
    figure.get_layout_engine().set(h_pad=0.07)  # type: ignore[union-attr,call-arg]
    figure.suptitle(textwrap.fill(title, int(7 * width)), parse_math=False)
    return figure


def panel_grid(
    title: str, names: Sequence[str], **shared: Any
) -> tuple[Figure, dict[str, Axes], int]:
    """Return a figure with one panel per name, these panels, and how many are side by side."""
    columns = columns_for(len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(title, 1.6 + 3.2 * rows if columns > 1 else 5.5)
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for ax, name in zip(axes, names, strict=False):
        ax.set_title(textwrap.fill(str(name), 26), parse_math=False)
    for ax in axes[len(names) :]:
        ax.remove()
    return figure, dict(zip(names, axes, strict=False)), columns


def time_axis_of(ax: Axes, time: str) -> None:
    """Make the x axis one of epochs, steps or records."""
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    ax.set_xlabel(time)


def layer_axis_of(ax: Axes, layers: Sequence[str], first: int, most: int) -> None:
    """Make the x axis one of layers, numbered from `first`, with about `most` slanted names."""
    named = evenly_spaced(len(layers), most)
    ax.set_xticks(named + first, [shortened(layers[i]) for i in named], parse_math=False)
    ax.tick_params(axis="x", labelrotation=40)
    for text in ax.get_xticklabels():
        text.set(horizontalalignment="right", rotation_mode="anchor")


def magnitude_axis_of(ax: Axes, scale: Scale, most: int = 7) -> None:
    """Make the y axis the scale's, with about `most` ticks and the strips named beside it."""
    if scale.logarithmic:
        ax.set_yscale("log", nonpositive="mask")
    ax.set_ylim(*scale.limits)
    ax.yaxis.set_major_locator(FixedLocator(scale.ticks(most).tolist()))
    ax.yaxis.set_major_formatter(FuncFormatter(scale.tick_label))
    strips = [scale.value_at(scale.height(special)) for special in scale.special]
    ax.yaxis.set_minor_locator(FixedLocator(strips))
    ax.yaxis.set_minor_formatter(FixedFormatter([special.short for special in scale.special]))
    ax.tick_params(axis="y", which="minor", length=0, labelsize=10)


def special_style(special: Special, edge: Any = "white") -> dict[str, Any]:
    """Return how `Axes.plot` and `Line2D` draw a special value."""
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


def draw_strip(ax: Axes, bottom: float, height: float) -> None:
    """Shade a strip across the axes, in fractions of their height."""
    strip = Rectangle(
        (0, bottom), 1, height, transform=ax.transAxes, color=STRIP_COLOR, linewidth=0
    )
    ax.add_patch(strip).set_zorder(0)


def draw_strips(
    ax: Axes, values: np.ndarray, x: np.ndarray, scale: Scale, edge: Any = "white"
) -> None:
    """Mark each x at which any of its values, (x, …), is special, in that value's strip."""
    for special in scale.special:
        height = scale.height(special)
        where = x[special.found(values).any(axis=1)]
        if len(where):  # a strip without marks would need an explanation
            draw_strip(ax, height - STRIP / 2, STRIP)
        ax.plot(
            where,
            np.full(where.shape, height),
            transform=ax.get_xaxis_transform(),
            label=special.name,
            zorder=3,
            markevery=well_apart(where, np.ptp(x) / MOST_MARKS),
            **special_style(special, edge),
        )


def note_beyond(ax: Axes, values: np.ndarray, x: np.ndarray, scale: Scale) -> None:
    """Write the largest of the values, (x, …), beside the place where it is above the axis."""
    found = np.where(scale.ordinary(values), values, -np.inf).max(axis=1)
    at = int(np.argmax(found))
    if found[at] <= scale.limits[1]:
        return
    strips = STRIP * sum(special.at_top for special in scale.special)
    is_left = x[at] <= (x[0] + x[-1]) / 2
    ax.annotate(
        f"↑ {scale.tick_label(found[at])}",
        (x[at], 1 - strips),
        (8 if is_left else -8, -3),
        xycoords=ax.get_xaxis_transform(),
        textcoords="offset points",
        horizontalalignment="left" if is_left else "right",
        verticalalignment="top",
        fontsize=11,
    )


def note_blank(ax: Axes, scale: Scale) -> None:
    """Write a note on a panel that has nothing but zeros, NaN and infinities."""
    if scale.blank:
        note = blank_note(scale).replace(" above", "\nabove")
        ax.text(0.5, 0.5, note, transform=ax.transAxes, ha="center", va="center")


def magnitude_colorbar(figure: Figure, mesh: Any, scale: Scale, **where: Any) -> None:
    """Add the key to a heatmap's colors, unless nothing has one."""
    if scale.blank:
        return
    bar: Colorbar = figure.colorbar(mesh, extend=scale.extend, **where)
    axis = bar.long_axis
    axis.set_major_locator(FixedLocator(scale.ticks().tolist()))
    axis.set_major_formatter(FuncFormatter(scale.tick_label))
    axis.set_minor_locator(NullLocator())
    bar.set_label(scale.label)
    bar.outline.set_visible(False)


def depth_colorbar(figure: Figure, input_at_top: bool = True, **where: Any) -> None:
    """Add the key to the colors of lines; if horizontal, the input is at the left."""
    bar = figure.colorbar(ScalarMappable(cmap=DEPTH), ticks=[0, 1], **where)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    if bar.orientation == "vertical":
        bar.ax.set_yticklabels(["input", "output"], rotation=90)
        first, last = bar.ax.get_yticklabels()
        first.set_verticalalignment("bottom")
        last.set_verticalalignment("top")
        if input_at_top:
            bar.ax.invert_yaxis()
            first.set_verticalalignment("top")
            last.set_verticalalignment("bottom")
    else:
        bar.set_ticklabels(["input", "output"])
        bar.set_label("depth of the layer")
        first, last = bar.ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")


def add_legend(figure: Figure, special: Iterable[Special], handles: Sequence[Any] = ()) -> None:
    """Add one legend below the panels: the handles, then the special values, each once."""
    handles = [
        *handles,
        *(Line2D([], [], label=one.name, **special_style(one)) for one in dict.fromkeys(special)),
    ]
    if handles:
        # In inches: a line before each label, and a letter of its size.
        width = 0.7 + 0.1 * max(len(handle.get_label()) for handle in handles)
        rows = -(-len(handles) // max(1, int(figure.get_figwidth() / width)))
        columns = -(-len(handles) // rows)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)

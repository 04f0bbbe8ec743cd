"""The parts of every interactive figure: the figure itself, axes, color keys, marks and words."""

import html
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import Colormap, to_hex
from plotly.subplots import make_subplots

from kgrad.figures.looks import (
    BY_DEPTH,
    DEPTH,
    INK,
    MAGNITUDE,
    STRIP_SHADE,
    blank_note,
    ramp,
    shortened,
)
from kgrad.figures.scale import SPECIAL, STRIP, Scale, Special
from kgrad.figures.thinning import Columns, evenly_spaced
from kgrad.records.checks import require_text
from kgrad.records.history import GradientHistory

SYMBOLS = {
    "o": "circle",
    "^": "triangle-up",
    "X": "x",
    "D": "diamond",
    "s": "square",
}  # matplotlib's markers
Marks = list[tuple[Special, list[float], list[str]]]  # value, where along x, hover texts
NAMED = 12  # the largest number of layers that are named along an axis
HALO = "1px 1px 2px white, 1px -1px 2px white, -1px 1px 2px white, -1px -1px 2px white"
STRIP_COLOR = f"rgba(0,0,0,{STRIP_SHADE})"
_GRID = "rgba(0,0,0,0.1)"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


def compact(values: np.ndarray) -> np.ndarray:
    """Return the values as float32 if that keeps seven digits of each: files are half as large."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    limits = np.finfo(np.float32)
    fits = not size.size or (size.min() >= limits.tiny and size.max() <= limits.max)
    return values.astype(np.float32) if fits else values


def plain(text: Any) -> str:
    """Return text such that Plotly, which reads some HTML, shows it unchanged."""
    return html.escape(str(text), quote=False)


def in_template(text: str) -> str:
    """Return text such that it is shown unchanged in a hover template, where %{ is a variable."""
    return text.replace("%{", "%&#123;")


def shapes_of(history: GradientHistory) -> list[str]:
    """Return the names and shapes of each layer's weights, one text per layer."""
    return [
        ", ".join(f"{w.name} {w.shape}" for w in history.weights if w.layer == layer)
        for layer in history.layers
    ]


def described(history: GradientHistory) -> list[str]:
    """Return each layer's name and the shapes of its weights, as a hover text."""
    return [
        f"{plain(name)}<br>{shapes}"
        for name, shapes in zip(history.layers, shapes_of(history), strict=True)
    ]


def colors(cmap: Colormap, count: int) -> list[str]:
    """Return `count` colors of a ramp, as `kgrad.figures.looks.ramp` does."""
    return [to_hex(color) for color in ramp(cmap, count)]


def translucent(color: Any, opacity: float) -> str:
    """Return a color with an opacity."""
    red, green, blue = (int(part, 16) for part in re.findall("..", to_hex(color)[1:]))
    return f"rgba({red},{green},{blue},{opacity})"


def colorscale(cmap: Colormap) -> list[list[Any]]:
    """Return a whole ramp."""
    places = np.linspace(0, 1, 65)
    return [[float(place), to_hex(cmap(float(place)))] for place in places]


def new_figure(title: str, height: float, **layout: Any) -> go.Figure:
    """Return an empty figure as wide as its page, transparent around white panels."""
    require_text("title", title)
    return go.Figure(
        layout={
            "title": {"text": plain(title), "x": 0, "xref": "paper", "font": {"size": 16}},
            "height": round(height),
            "template": "none",
            "font": {"family": _FONT, "size": 13, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "white",
            "margin": {"l": 10, "r": 10, "t": 50 if title else 20, "b": 10},
            "legend": {
                "orientation": "h",
                "traceorder": "normal",
                "yref": "container",
                "y": 0,
                "yanchor": "bottom",
                "xanchor": "left",
                "x": 0,
                # Colors made for white are named on white on a dark page, too.
                "bgcolor": "white",
                "font": {"color": INK},
            },
            "hoverlabel": {"align": "left", "namelength": -1},
        }
        | layout
    )


def panel_grid(
    title: str,
    names: Sequence[str],
    heights: Sequence[float],
    *,
    columns: int = 1,
    gap: float = 46,
    **shared: Any,
) -> go.Figure:
    """Return a figure of empty panels, row by row, with bold names above them.

    Args:
        title: text above the figure.
        names: name of each panel; an empty one is not written.
        heights: height of each row in pixels.
        columns: panels per row.
        gap: pixels between rows, with room for names.
        **shared: `shared_xaxes` and `shared_yaxes` of Plotly's `make_subplots`.
    """
    whole = sum(heights) + gap * len(heights)
    figure = make_subplots(
        figure=new_figure(title, whole + 110),
        rows=len(heights),
        cols=columns,
        row_heights=list(heights),
        vertical_spacing=gap / whole,
        horizontal_spacing=0.03,
        subplot_titles=[f"<b>{plain(name)}</b>" if name else "" for name in names],
        **shared,
    )
    figure.update_annotations(font_size=13)
    if title and any(names):
        figure.update_layout(margin_t=66)
    if columns == 1:
        figure.update_annotations(x=0, xanchor="left")
    return figure


def place_of(number: int, columns: int) -> dict[str, int]:
    """Return the row and column of a panel, as Plotly takes them."""
    return {"row": 1 + number // columns, "col": 1 + number % columns}


def hide_unused(figure: go.Figure, used: int, columns: int) -> None:
    """Hide the last row's panels after the first `used` panels."""
    for number in range(used, -(-used // columns) * columns):
        figure.update_xaxes(visible=False, **place_of(number, columns))
        figure.update_yaxes(visible=False, **place_of(number, columns))


def time_axis_of(time: str, edges: np.ndarray, columns: int = 1) -> dict[str, Any]:
    """Return an axis of epochs, steps or records, from the first edge to the last.

    Args:
        time: name of the axis.
        edges: increasing times.
        columns: panels per row.
    """
    return {
        "title": axis_title(time),
        "range": [float(edges[0]), float(edges[-1])],
        "automargin": True,
        "tickformat": "d",
        "gridcolor": _GRID,
        "zeroline": False,
        # Plotly would write 0.5 between two epochs.
        **({"dtick": 1} if edges[-1] - edges[0] <= 8 / columns else {"nticks": 8 // columns}),
    }


def layer_axis_of(layers: Sequence[str], first: int, most: int) -> dict[str, Any]:
    """Return an axis along the layers, numbered from `first`, with about `most` names."""
    named = evenly_spaced(len(layers), most)
    return {
        "tickmode": "array",
        "tickvals": (named + first).tolist(),
        "ticktext": [plain(shortened(layers[i])) for i in named],
        "ticklabeloverflow": "allow",  # otherwise a narrow figure leaves out the last name
        "automargin": True,
        "zeroline": False,
    }


def depth_axis_of(layers: Sequence[str], first: int = 1, columns: int = 1) -> dict[str, Any]:
    """Return an axis along the layers with slanted names.

    Args:
        layers: names of the layers.
        first: number of the first layer.
        columns: panels per row; several have less room for words.
    """
    words = BY_DEPTH if columns == 1 else BY_DEPTH.removeprefix("layer, ")
    return layer_axis_of(layers, first, NAMED // columns) | {
        "range": [first - 0.5, first + len(layers) - 0.5],
        "title": axis_title(words),
        "tickangle": 40,
        "showgrid": False,
    }


def magnitude_axis_of(scale: Scale) -> dict[str, Any]:
    """Return the y axis that `scale` describes, with the strips named beside it."""
    ends = np.array(scale.limits)
    ticks = ticks_of(scale)
    ticks["tickvals"] += [special_height(scale, special) for special in scale.special]
    ticks["ticktext"] += [special.short for special in scale.special]
    return {
        "title": axis_title(scale.label),
        "type": "log" if scale.logarithmic else "linear",
        "range": (np.log10(ends) if scale.logarithmic else ends).tolist(),
        "gridcolor": _GRID,
        "zeroline": False,
        "automargin": True,
        **ticks,
    }


def ticks_of(scale: Scale, logarithms: bool = False) -> dict[str, Any]:
    """Return the scale's ticks, at their values or at the logarithms of these."""
    ticks = scale.ticks()
    places = np.log10(ticks) if logarithms and scale.logarithmic else ticks
    return {
        "tickmode": "array",
        "tickvals": places.tolist(),
        "ticktext": [superscript(scale.tick_label(float(tick))) for tick in ticks],
    }


def superscript(text: str) -> str:
    """Return matplotlib's `$10^{-3}$` as Plotly writes it."""
    return re.sub(r"\^\{(.*?)\}", r"<sup>\1</sup>", text.strip("$")).replace("-", "−")


def dashes_of(lengths: Sequence[float]) -> str:
    """Return a line's dashes and gaps in pixels, as Plotly takes them."""
    return ",".join(f"{length:g}px" for length in lengths) or "solid"


def special_height(scale: Scale, special: Special) -> float:
    """Return the value at the center of a special value's strip on the scale's axis."""
    return scale.value_at(scale.height(special))


def add_strips(figure: go.Figure, scale: Scale, **place: Any) -> None:
    """Add a gray strip along a panel's edge for each special value of the scale.

    Args:
        figure: the figure.
        scale: the scale of the panel's y axis.
        place: the panel, as `Figure.add_shape` takes it: row and col, or xref and yref.
    """
    for special in scale.special:
        height = scale.height(special)
        figure.add_shape(
            type="rect",
            x0=0,
            x1=1,
            y0=height - STRIP / 2,
            y1=height + STRIP / 2,
            fillcolor=STRIP_COLOR,
            line_width=0,
            layer="below",
            **{"xref": "x domain", "yref": "y domain"} | place,
        )


def strips_height(scale: Scale) -> float:
    """Return the pixels that special values add to a panel, so that their strips are legible."""
    return 24.0 * len(scale.special)


def special_key(figure: go.Figure, special: Special) -> dict[str, Any]:
    """Return a trace's name and place in the legend, which names each special value once."""
    named = {trace.name for trace in figure.data if trace.showlegend is not False}
    return {
        "name": special.name,
        "legendgroup": special.name,
        "legendrank": 1001 + SPECIAL.index(special),  # after all others, which have 1000
        "showlegend": special.name not in named,
    }


def special_marker(special: Special, edge: str = "white") -> dict[str, Any]:
    """Return how Plotly draws a special value."""
    return {
        "symbol": SYMBOLS[special.marker],
        "size": 10,
        "color": to_hex(special.color),
        "line": {"color": edge, "width": 1.2},
    }


def add_special_points(
    figure: go.Figure,
    scale: Scale,
    points: Marks,
    edge: str = "white",
    **place: Any,
) -> None:
    """Add markers of special values in their strips; the legend names each value once.

    Args:
        figure: a figure with the axes of `magnitude_axis_of`.
        scale: the scale of the y axis.
        points: each special value, where along x it occurs, and the hover texts there.
        edge: color around the markers.
        **place: row and column of the panel.
    """
    for special, x, texts in points:
        if len(x):
            figure.add_scatter(
                x=np.asarray(x, float),
                y=np.full(len(x), special_height(scale, special)),
                text=list(texts),
                mode="markers",
                marker=special_marker(special, edge),
                cliponaxis=False,
                **special_key(figure, special),
                hovertemplate=f"{special.name}<br>%{{text}}<extra></extra>",
                **place,
            )


def marks_over_time(columns: Columns, time: str, layers: Sequence[str], run: str = "") -> Marks:
    """Return where special values are over time, for `add_special_points`.

    Args:
        columns: the values, thinned.
        time: "epoch", "step" or "record".
        layers: names of the values' columns, for the hover texts; empty for a single one.
        run: name of the run, for the hover texts.
    """
    marks = []
    for special, found in columns.found.items():
        where = np.flatnonzero(found.any(axis=1))
        texts = []
        for k in where.tolist():
            parts = [plain(run), f"{time} {columns.centers[k]:g}"]
            parts.append(few_names(layers, found[k]) if len(layers) else "")
            texts.append("<br>".join(part for part in parts if part))
        marks.append((special, columns.centers[where].tolist(), texts))
    return marks


def marks_by_depth(
    values: np.ndarray, depth: np.ndarray, scale: Scale, texts: Sequence[str]
) -> Marks:
    """Return where special values are against depth, for `add_special_points`.

    Args:
        values: (replicates, layers).
        depth: where along x each layer is, (layers,).
        scale: the scale of the y axis.
        texts: the layers' hover texts.
    """
    marks = []
    for special in scale.special:
        where = np.flatnonzero(special.found(values).any(axis=0)).tolist()
        marks.append((special, depth[where].tolist(), [texts[i] for i in where]))
    return marks


def note_blank(figure: go.Figure, scale: Scale, **place: int) -> None:
    """Add a note to a panel that has nothing but zeros, NaN and infinities."""
    if scale.blank:
        figure.add_annotation(
            text=blank_note(scale),
            x=0.5,
            y=0.5,
            xref="x domain",
            yref="y domain",
            showarrow=False,
            font_color=INK,
            **place,
        )


def add_magnitude_bar(figure: go.Figure, scale: Scale, **place: Any) -> None:
    """Add the color axis of all heatmaps, with its key.

    Args:
        figure: a figure with heatmaps on "coloraxis".
        scale: the scale of the colors.
        **place: where the key is, as Plotly takes it.
    """
    ends = np.array([scale.low, scale.high])
    low, high = np.log10(ends) if scale.logarithmic else ends
    bar = {"title": axis_title(scale.label) | {"side": "right"}, "thickness": 14}
    bar |= {"outlinewidth": 0, "xpad": 6, **ticks_of(scale, logarithms=True), **place}
    figure.update_layout(
        coloraxis={
            "colorscale": colorscale(MAGNITUDE),
            "cmin": float(low),
            "cmax": float(high),
            "showscale": not scale.blank,
            "colorbar": bar,
        }
    )


def add_depth_bar(figure: go.Figure, input_at_top: bool, **place: Any) -> None:
    """Add the key to the colors of lines."""
    ramp, ends = colorscale(DEPTH), ["input", "output"]
    if input_at_top:  # the bar's values grow upwards
        ramp, ends = [[1 - at, color] for at, color in reversed(ramp)], ends[::-1]
    bar = {"thickness": 14, "outlinewidth": 0, "tickvals": [0, 1], "ticktext": ends}
    key = {"color": [0], "cmin": 0, "cmax": 1, "colorscale": ramp, "showscale": True}
    key |= {"colorbar": bar | {"xpad": 6} | place}
    figure.add_scatter(
        x=[None], y=[None], mode="markers", marker=key, showlegend=False, hoverinfo="skip"
    )


def when(time: str, columns: Columns) -> str:
    """Return when a value was recorded, for a hover template."""
    if columns.records == 1:
        return f"{time} %{{x:d}}"
    return f"about {time} %{{x:.0f}}, least or greatest of {columns.records} records"


def axis_title(text: str) -> dict[str, Any]:
    """Return the title of an axis or of a color bar."""
    return {"text": text, "font": {"size": 13}}


def few_names(layers: Sequence[str], found: np.ndarray) -> str:
    """Return the layers at which `found`, (layers,), is true: three names, and how many more."""
    names = [plain(layers[i]) for i in np.flatnonzero(found).tolist()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

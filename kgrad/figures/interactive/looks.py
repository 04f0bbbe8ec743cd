"""What every interactive figure is made with: the colours and scales of the static."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import Colormap, to_hex

from kgrad.figures.scale import STRIP, Scale, Special
from kgrad.figures.static.panels import ramp, shortened, thinned
from kgrad.figures.thinning import Columns
from kgrad.records.history import GradientHistory

SYMBOLS = {"o": "circle", "^": "triangle-up", "X": "x"}  # matplotlib's markers
NAMED = 12  # as many layers are named along an axis
GRID = "rgba(0,0,0,0.1)"
STRIP_COLOR = "rgba(0,0,0,0.07)"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"


def compact(values: np.ndarray) -> np.ndarray:
    """The values as float32 where that holds each with seven digits: a page is half as large."""
    size = np.abs(values[np.isfinite(values) & (values != 0)])
    limits = np.finfo(np.float32)
    fits = not size.size or (size.min() >= limits.tiny and size.max() <= limits.max)
    return values.astype(np.float32) if fits else values


def plain(text: Any) -> str:
    """Text that Plotly, which reads some HTML, shows as it is."""
    return html.escape(str(text), quote=False)


def shapes_of(history: GradientHistory) -> list[str]:
    """The shapes of each layer's weights, in a line a layer."""
    return [
        ", ".join(f"{w.name} {w.shape}" for w in history.weights if w.layer == layer)
        for layer in history.layers
    ]


def colors(cmap: Colormap, count: int) -> list[str]:
    """`count` colours of a ramp, as `kgrad.figures.static.panels.ramp` has them."""
    return [to_hex(color) for color in ramp(cmap, count)]


def colorscale(cmap: Colormap) -> list[list[Any]]:
    """A whole ramp."""
    places = np.linspace(0, 1, 65)
    return [[float(place), to_hex(cmap(float(place)))] for place in places]


def new_figure(title: str, height: float, **layout: Any) -> go.Figure:
    """An empty figure that takes the page's width and colour."""
    return go.Figure(
        layout={
            "title": {"text": plain(title), "x": 0, "xref": "paper", "font": {"size": 16}},
            "height": round(height),
            "template": "none",
            "font": {"family": _FONT, "size": 13, "color": "#222"},
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
                # What is drawn on white is named on white, on a dark page, too.
                "bgcolor": "white",
                "font": {"color": "#222"},
            },
            "hoverlabel": {"align": "left", "namelength": -1},
        }
        | layout
    )


def time_axis_of(time: str, edges: np.ndarray) -> dict[str, Any]:
    """An axis of epochs, steps or records, from one edge to the other."""
    return {
        "title": {"text": time},
        "range": [float(edges[0]), float(edges[-1])],
        "automargin": True,
        "tickformat": "d",
        "gridcolor": GRID,
        "zeroline": False,
        # Plotly would write 0.5 between two epochs.
        **({"dtick": 1} if edges[-1] - edges[0] <= 8 else {"nticks": 8}),
    }


def magnitude_axis_of(scale: Scale) -> dict[str, Any]:
    """The y axis that `scale` describes."""
    ends = np.array(scale.limits)
    return {
        "title": {"text": scale.label},
        "type": "log" if scale.logarithmic else "linear",
        "range": (np.log10(ends) if scale.logarithmic else ends).tolist(),
        "gridcolor": GRID,
        "zeroline": False,
        "automargin": True,
        **ticks_of(scale),
    }


def ticks_of(scale: Scale, logarithms: bool = False) -> dict[str, Any]:
    """The scale's ticks, at their values or at the logarithms of these."""
    ticks = scale.ticks()
    places = np.log10(ticks) if logarithms and scale.logarithmic else ticks
    return {
        "tickmode": "array",
        "tickvals": places.tolist(),
        "ticktext": [superscript(scale.tick_label(float(tick))) for tick in ticks],
    }


def superscript(text: str) -> str:
    """`$10^{-3}$`, as matplotlib reads it, as Plotly does."""
    return re.sub(r"\^\{(.*?)\}", r"<sup>\1</sup>", text.strip("$")).replace("-", "−")


def layer_axis_of(layers: Sequence[str], first: int, most: int) -> dict[str, Any]:
    """An axis along the layers, numbered from `first`, at most `most` of them named."""
    named = thinned(len(layers), most)
    return {
        "tickmode": "array",
        "tickvals": (named + first).tolist(),
        "ticktext": [plain(shortened(layers[i])) for i in named],
        "ticklabeloverflow": "allow",  # or the last name is left out where it is narrow
        "automargin": True,
        "zeroline": False,
    }


def dashes_of(lengths: Sequence[float]) -> str:
    """A line's dashes and gaps in pixels, as Plotly takes them."""
    return ",".join(f"{length:g}px" for length in lengths) or "solid"


def special_height(scale: Scale, special: Special) -> float:
    """Where a special value's strip is centred on the scale's axis, as a value."""
    low, high = _forward(scale, np.array(scale.limits))
    at = low + scale.height(special) * (high - low)
    return float(10**at if scale.logarithmic else at)


def add_strips(figure: go.Figure, scale: Scale) -> None:
    """A grey strip along the panel's edge for each special value of the scale."""
    for special in scale.special:
        height = scale.height(special)
        figure.add_shape(
            type="rect",
            xref="x domain",
            yref="y domain",
            x0=0,
            x1=1,
            y0=height - STRIP / 2,
            y1=height + STRIP / 2,
            fillcolor=STRIP_COLOR,
            line_width=0,
            layer="below",
        )


def special_marker(special: Special, edge: str = "white") -> dict[str, Any]:
    """How Plotly is told to draw a special value."""
    return {
        "symbol": SYMBOLS[special.marker],
        "size": 10,
        "color": to_hex(special.color),
        "line": {"color": edge, "width": 1.2},
    }


def add_special_points(
    figure: go.Figure,
    scale: Scale,
    points: Iterable[tuple[Special, Sequence[float], Sequence[str]]],
    edge: str = "white",
    showlegend: bool = True,
) -> None:
    """A marker in its strip for each special value: (special, x, hover texts).

    Args:
        figure: with the axes of `magnitude_axis_of`.
        scale: the scale of the y axis.
        points: of each special value, where along x it occurs and what is said there.
        edge: colour around the markers.
        showlegend: whether the legend names them.
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
                name=special.name,
                legendgroup=special.name,
                showlegend=showlegend,
                hovertemplate=f"{special.name}<br>%{{text}}<extra></extra>",
            )


def note_blank(figure: go.Figure, scale: Scale) -> None:
    """Say so where there is nothing but zeros, NaN and infinities."""
    if scale.blank:
        figure.add_annotation(
            text="no finite value" + (" above 0" if scale.logarithmic else ""),
            x=0.5,
            y=0.5,
            xref="x domain",
            yref="y domain",
            showarrow=False,
            font_color="#222",
        )


def when(time: str, columns: Columns) -> str:
    """When a value was recorded, as a hover text."""
    if columns.records == 1:
        return f"{time} %{{x:d}}"
    return f"about {time} %{{x:.0f}}, least or greatest of {columns.records} records"


def few_names(layers: Sequence[str], found: np.ndarray) -> str:
    """The layers at which `found`, (layers,), is true: the first three and how many more."""
    names = [plain(layers[i]) for i in np.flatnonzero(found).tolist()]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _forward(scale: Scale, values: np.ndarray) -> np.ndarray:
    return np.log10(values) if scale.logarithmic else values

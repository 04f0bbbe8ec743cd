"""The figures of the page: gradient against depth side by side on one scale, the loss, the map.

They change in place, because Streamlit removes its own figures and draws them anew at every change.
"""

import colorsys
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import plotly
import plotly.graph_objects as go
import streamlit as st
from matplotlib.colors import to_rgb
from streamlit.components.v1 import declare_component

from kgrad.apps.page.snapshots import GRID, Snapshot, map_of
from kgrad.experiments.data import Dataset
from kgrad.figures.interactive.depth import depth_figure, prediction_figure
from kgrad.figures.interactive.parts import (
    add_special_points,
    add_strips,
    axis_title,
    compact,
    magnitude_axis_of,
    marks_over_time,
    new_figure,
    note_blank,
    plain,
    time_axis_of,
    when,
)
from kgrad.figures.scale import Scale
from kgrad.figures.selection import shared_scale, time_axis
from kgrad.figures.thinning import Columns
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

COLORS = ("#1b6ca8", "#c8553d")  # of the two configurations; they also differ in grayscale
_CLASSES = ("#c8553d", "#1b6ca8", "#3a8f5c")  # of the data's classes
_MOMENT = "moment"  # name of the line that marks the moment on show
_SCRIPT = """
const loaded = () => window.kgradPlotly ??= new Promise((done, failed) => {
  const script = document.createElement("script");
  script.src = new URL("component/SERVED/plotly.min.js", document.baseURI);
  script.onload = () => done(window.Plotly);
  script.onerror = failed;
  document.head.append(script);
});

export default async function ({ data, parentElement, setTriggerValue }) {
  const place = parentElement.querySelector(".figure");
  const figure = JSON.parse(data);
  place.style.height = `${figure.layout.height ?? 450}px`;
  const Plotly = await loaded();
  await Plotly.react(place, { ...figure, config: { displayModeBar: false } });
  if (!place.watched) {
    place.on("plotly_click", ({ points }) => {
      const cell = points.find(({ z }) => z !== undefined);
      if (cell) setTriggerValue("clicked", cell.pointNumber);
    });
    place.watched = new ResizeObserver(() => place.clientWidth && Plotly.Plots.resize(place));
    place.watched.observe(place);
  }
}
"""


def draw(figure: go.Figure, key: str, clicked: Callable[[], None] = lambda: None) -> None:
    """Show a figure in the page's theme, in place of the previous one with this key.

    Args:
        figure: the figure; its layout sets the height.
        key: unique in the page.
        clicked: called after a click on a cell of a map; `st.session_state[key].clicked` has its
            row and column.
    """
    _component()(key=key, data=themed(figure, is_dark()), on_clicked_change=clicked)


def is_dark() -> bool:
    """Return whether the page has a dark theme."""
    return st.context.theme.type == "dark"


@cache
def _component() -> Any:
    """Return the component that draws figures; made with the first page, not before."""
    # Serves the folder of Plotly's package, so that the page needs no other server for plotly.js.
    served = declare_component("plotly", path=str(Path(plotly.__file__).parent / "package_data"))
    return st.components.v2.component(
        "kgrad.figure",
        html="<div class='figure'></div>",
        js=_SCRIPT.replace("SERVED", served.name),
        isolate_styles=False,
    )


def themed(figure: go.Figure, dark: bool) -> str:
    """Return a figure as JSON, with colors for a light or a dark page."""
    text = figure.to_json()
    if not dark:
        return text
    content = json.loads(text)
    # The panels are as dark as the page. Heatmaps keep their colors: these fill their panels.
    for part in (content["layout"], *content["data"]):
        _darken(part)
    content["layout"]["plot_bgcolor"] = "rgba(255,255,255,0.03)"
    content["layout"].setdefault("legend", {})["bgcolor"] = "rgba(0,0,0,0)"
    return json.dumps(content)


def _darken(part: dict[str, Any]) -> None:
    """Replace the colors of a figure's part by colors for a dark page, in place."""
    for key, value in part.items():
        if key in ("colorscale", "coloraxis", "template"):
            continue
        if isinstance(value, dict):
            if "bdata" not in value:  # numbers
                _darken(value)
        elif key.endswith("color") and isinstance(value, str):
            part[key] = on_dark(value)
        elif key == "color" and isinstance(value, list):
            part[key] = [on_dark(one) if isinstance(one, str) else one for one in value]
        elif key == "shadow" and isinstance(value, str):
            part[key] = value.replace("white", "#111")
        elif key in ("annotations", "shapes"):
            for one in value:
                _darken(one)


@cache
def on_dark(color: str) -> str:
    """Convert a color for a white page to one for a dark page.

    Grays are inverted. Other colors keep their hue and the order of their lightness, and become
    light enough to be seen.
    """
    rgba = re.fullmatch(r"rgba\((\d+), ?(\d+), ?(\d+), ?([\d.]+)\)", color)
    if rgba:
        red, green, blue = (int(one) / 255 for one in rgba.groups()[:3])
    else:
        red, green, blue = to_rgb(color)
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    is_gray = max(red, green, blue) - min(red, green, blue) < 0.06
    lightness = 0.07 + 0.86 * (1 - lightness) if is_gray else 0.48 + 0.4 * lightness
    parts = [round(255 * one) for one in colorsys.hls_to_rgb(hue, lightness, saturation)]
    opacity = rgba.group(4) if rgba else "1"
    return f"rgba({parts[0]},{parts[1]},{parts[2]},{opacity})"


def mark_moment(figure: go.Figure, time: float | None) -> go.Figure:
    """Mark a time in all panels of a figure over time, in place of the time marked before."""
    shapes = [one for one in figure.layout.shapes if one.name != _MOMENT]
    if time is not None:
        axes = {trace.xaxis or "x" for trace in figure.data}
        for axis in sorted(axes):
            shapes.append(
                go.layout.Shape(
                    name=_MOMENT,
                    type="line",
                    xref=axis,
                    yref=f"y{axis[1:]} domain",
                    x0=time,
                    x1=time,
                    y0=0,
                    y1=1,
                    line={"color": "#777", "width": 1.5, "dash": "dot"},
                )
            )
    figure.layout.shapes = shapes
    return figure


def time_of(history: GradientHistory, others: Sequence[GradientHistory], record: int) -> float:
    """Return the time of a record on an axis that several histories share."""
    _, times = time_axis([history, *others])
    return float(times[0][min(record, len(times[0]) - 1)])


def profiles(
    histories: Mapping[str, GradientHistory | None],
    predictions: Mapping[str, Prediction],
    statistic: str,
    *,
    record: int | None = None,
    epochs: Sequence[int] | None = None,
) -> dict[str, go.Figure]:
    """Draw gradient against depth for each run, on one scale: measured, or only predicted.

    Args:
        histories: name → the run; None before it has a record.
        predictions: name → the prediction, if there is one.
        statistic: the statistic that is drawn.
        record: number of the record to draw, beside the first one.
        epochs: the epochs to draw; by default as in `plot_gradient_by_depth`.

    Returns:
        A figure for each run that has a record or a prediction.
    """
    measured = [history for history in histories.values() if history is not None]
    scale = shared_scale(measured, list(predictions.values()), statistic)
    drawn = {}
    for name, history in histories.items():
        prediction = predictions.get(name)
        if history is not None:
            chosen = epochs
            if record is not None:
                history = history.first(record + 1)
                chosen = sorted({int(history.epochs[0]), int(history.epochs[-1])})
            drawn[name] = depth_figure(
                history, statistic, epochs=chosen, prediction=prediction, scale=scale
            )
        elif prediction is not None:
            drawn[name] = prediction_figure(prediction, statistic, scale=scale)
    return drawn


def losses(
    histories: Mapping[str, GradientHistory], epochs: int = 0, record: int | None = None
) -> go.Figure:
    """Draw the loss of each run on a logarithmic scale; NaN and infinity are markers.

    Args:
        histories: name → the run; empty before there is a record.
        epochs: the number of epochs there will be, so that the axis does not move.
        record: number of the record that is marked.
    """
    if not histories:
        return _no_losses(epochs)
    time, times = time_axis(histories.values())
    known = {name: _loss_of(history)[:, None] for name, history in histories.items()}
    scale = Scale.of("loss", list(known.values()))
    end = max(epochs if time == "epoch" else 0, *(at[-1] for at in times))
    edges = np.array([min(at[0] for at in times) - 0.5, end + 0.5])
    figure = new_figure("", 380, xaxis=time_axis_of(time, edges), yaxis=magnitude_axis_of(scale))
    add_strips(figure, scale)
    for (name, loss), at, color in zip(known.items(), times, COLORS, strict=False):
        columns = Columns.of(loss, at, scale)
        figure.add_scatter(
            x=compact(columns.centers),
            y=compact(columns.values[:, 0]),
            mode="lines+markers" if len(at) <= 60 else "lines",
            marker={"size": 5},
            line={"color": color, "width": 2.5},
            name=plain(name),
            showlegend=len(known) > 1,
            hovertemplate=f"{when(time, columns)}: %{{y:.4g}}<extra></extra>",
        )
        add_special_points(figure, scale, marks_over_time(columns, time, ()), color)
    note_blank(figure, scale)
    if record is not None:
        longest = max(times, key=len)
        mark_moment(figure, float(longest[min(record, len(longest) - 1)]))
    return figure


def _no_losses(epochs: int) -> go.Figure:
    """Draw the axes of the losses before there is one."""
    edges = np.array([-0.5, epochs + 0.5])
    y_axis = {"title": axis_title("loss"), "showticklabels": False, "zeroline": False}
    figure = new_figure("", 380, xaxis=time_axis_of("epoch", edges), yaxis=y_axis)
    figure.update_yaxes(range=[0, 1], gridcolor="rgba(0,0,0,0.1)", automargin=True)
    figure.add_annotation(
        text="The loss appears here<br>while the network trains.",
        x=0.5, y=0.5, xref="x domain", yref="y domain", showarrow=False, font_color="#777",
    )  # fmt: skip
    return figure


def _loss_of(history: GradientHistory) -> np.ndarray:
    return history.logs.get("loss", np.full(len(history), np.nan))


def boundary(data: Dataset, snapshot: Snapshot | None, dark: bool = False) -> go.Figure:
    """Draw data with two features, over what the network says of every point of the plane.

    Args:
        data: the data set, with two classes or more.
        snapshot: the network; None to draw the data alone.
        dark: whether the page is dark.
    """
    x, y = map_of(data.X)
    colors = _CLASSES[: max(2, data.output_units)]
    axis = {"zeroline": False, "showgrid": False, "automargin": True, "nticks": 5}
    figure = new_figure(
        "",
        380,
        xaxis=axis | {"range": [x[0], x[-1]], "title": axis_title("feature 1")},
        yaxis=axis | {"range": [y[0], y[-1]], "title": axis_title("feature 2")},
        hovermode=False,
    )
    if snapshot is not None and snapshot.outputs is not None:
        figure.add_image(
            z=_colored(snapshot.outputs, colors, 24 if dark else 255),
            hoverinfo="skip",
            x0=x[0], dx=(x[-1] - x[0]) / (GRID - 1), y0=y[0], dy=(y[-1] - y[0]) / (GRID - 1),
        )  # fmt: skip
        figure.update_yaxes(scaleanchor=False)  # an image would keep its pixels square
    labels = data.y.ravel().astype(int)
    shown = slice(400)
    for label, color in enumerate(colors):
        mine = labels[shown] == label
        figure.add_scatter(
            x=compact(data.X[shown][mine, 0]),
            y=compact(data.X[shown][mine, 1]),
            mode="markers",
            marker={"size": 6, "color": color, "line": {"color": "white", "width": 0.8}},
            name=f"class {label}",
        )
    return figure


def _colored(outputs: np.ndarray, colors: Sequence[str], even_gray: int) -> np.ndarray:
    """Return the color of each point of the map: gray where the classes are equally likely.

    Args:
        outputs: from 0 to 255, (rows, columns, 1) for two classes or (rows, columns, classes).
        colors: color of each class.
        even_gray: lightness where the classes are equally likely, from 0 to 255.
    """
    p = outputs / 255
    if p.shape[-1] == 1:
        p = np.concatenate([1 - p, p], axis=-1)
    even = 1 / p.shape[-1]
    sure = np.clip((p.max(axis=-1, keepdims=True) - even) / (1 - even), 0, 1)
    full = 255 * np.array([to_rgb(one) for one in colors])
    most = full[p.argmax(axis=-1)]
    return np.asarray(even_gray + 0.6 * sure * (most - even_gray), np.uint8)

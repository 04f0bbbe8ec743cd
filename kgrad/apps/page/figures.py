"""The figures of the page: gradient against depth side by side on one scale, and the loss.

They change in place, because Streamlit removes its own figures and draws them anew at every change.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import plotly
import plotly.graph_objects as go
import streamlit as st
from streamlit.components.v1 import declare_component

from kgrad.figures.interactive.depth import depth_figure, prediction_figure
from kgrad.figures.interactive.parts import (
    add_special_points,
    add_strips,
    compact,
    magnitude_axis_of,
    marks_over_time,
    new_figure,
    note_blank,
    plain,
    time_axis_of,
    when,
)
from kgrad.figures.looks import INK, INK_ON_DARK
from kgrad.figures.scale import Scale
from kgrad.figures.selection import shared_scale, time_axis
from kgrad.figures.thinning import Columns
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

COLORS = ("#1b6ca8", "#c8553d")  # of the two configurations; they also differ in grayscale
_SCRIPT = """
const loaded = () => window.kgradPlotly ??= new Promise((done, failed) => {
  const script = document.createElement("script");
  script.src = new URL("component/SERVED/plotly.min.js", document.baseURI);
  script.onload = () => done(window.Plotly);
  script.onerror = failed;
  document.head.append(script);
});

export default async function ({ data, parentElement }) {
  const place = parentElement.querySelector(".figure");
  const figure = JSON.parse(data);
  place.style.height = `${figure.layout.height ?? 450}px`;
  const Plotly = await loaded();
  await Plotly.react(place, { ...figure, config: { displayModeBar: false } });
  if (!place.watched) {
    place.watched = new ResizeObserver(() => place.clientWidth && Plotly.Plots.resize(place));
    place.watched.observe(place);
  }
}
"""


def draw(figure: go.Figure, key: str) -> None:
    """Show a figure in the page's theme, in place of the previous one with this key.

    Args:
        figure: the figure; its layout sets the height.
        key: unique in the page.
    """
    dark = st.context.theme.type == "dark"
    _component()(key=key, data=themed(figure, dark).to_json())


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


def themed(figure: go.Figure, dark: bool) -> go.Figure:
    """Make the text outside of a figure's white panels legible on a light or a dark page."""
    figure.update_layout(
        font_color=INK_ON_DARK if dark else INK,
        legend_font_color=INK,
        hoverlabel={"bgcolor": "white", "font": {"color": INK}},
    )
    return figure


def profiles(
    histories: Mapping[str, GradientHistory | None],
    predictions: Mapping[str, Prediction],
    statistic: str,
    *,
    epochs: Sequence[int] | None = None,
    ends_only: bool = False,
) -> dict[str, go.Figure]:
    """Draw gradient against depth for each run, on one scale: measured, or only predicted.

    Args:
        histories: name → the run; None before it has a record.
        predictions: name → the prediction, if there is one.
        statistic: the statistic that is drawn.
        epochs: the epochs to draw; by default as in `plot_gradient_by_depth`.
        ends_only: draw only the first and the last epoch, as during training.

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
            if ends_only:
                chosen = sorted({int(history.epochs[0]), int(history.epochs[-1])})
            drawn[name] = depth_figure(
                history, statistic, epochs=chosen, prediction=prediction, scale=scale
            )
        elif prediction is not None:
            drawn[name] = prediction_figure(prediction, statistic, scale=scale)
    return drawn


def losses(histories: Mapping[str, GradientHistory], epochs: int = 0) -> go.Figure:
    """Draw the loss of each run on a logarithmic scale; NaN and infinity are markers.

    Args:
        histories: name → the run.
        epochs: the number of epochs there will be, so that the axis does not move.
    """
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
    return figure


def _loss_of(history: GradientHistory) -> np.ndarray:
    return history.logs.get("loss", np.full(len(history), np.nan))

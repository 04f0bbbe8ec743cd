"""The figures of the page: those of `kgrad.web`, side by side on one scale, and the loss."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from kgrad.figures.interactive.gradients import depth_figure, prediction_figure, shared_scale
from kgrad.figures.interactive.looks import (
    add_special_points,
    add_strips,
    compact,
    magnitude_axis_of,
    new_figure,
    note_blank,
    plain,
    time_axis_of,
    when,
)
from kgrad.figures.scale import Scale
from kgrad.figures.static.parts import time_axis
from kgrad.figures.thinning import Columns
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

COLORS = ("#1b6ca8", "#c8553d")  # of the two configurations, told apart in greyscale, too


def profiles(
    histories: Mapping[str, GradientHistory | None],
    predictions: Mapping[str, Prediction],
    statistic: str,
    *,
    epochs: Sequence[int] | None = None,
    ends_only: bool = False,
) -> dict[str, go.Figure]:
    """Gradient against depth of each run on one scale: measured, or only predicted.

    Args:
        histories: name of each run → what was measured, None before there is a record.
        predictions: name → what is expected, where that is known.
        statistic: what is drawn.
        epochs: which epochs; by default as in `plot_gradient_by_depth`.
        ends_only: the first epoch and the last alone, as is done while training.

    Returns:
        A figure for each run of which something is known.
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
            # A file may be of other layers than its prediction, or begin later.
            fits = prediction is not None and prediction.layers == history.layers
            fits = fits and 0 in history.epochs
            drawn[name] = depth_figure(
                history,
                statistic,
                epochs=chosen,
                prediction=prediction if fits else None,
                scale=scale,
            )
        elif prediction is not None:
            drawn[name] = prediction_figure(prediction, statistic, scale=scale)
    return drawn


def losses(histories: Mapping[str, GradientHistory], epochs: int = 0) -> go.Figure:
    """The loss of each run over training, on a logarithmic scale; NaN and infinity as markers.

    Args:
        histories: name of each run → what was measured.
        epochs: how many there will be, so that the axis need not move.

    Returns:
        The figure.
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
        points = []
        for special, found in columns.found.items():
            where = np.flatnonzero(found[:, 0])
            texts = [f"{time} {columns.centers[i]:g}" for i in where]
            points.append((special, columns.centers[where].tolist(), texts))
        add_special_points(figure, scale, points, edge=color)
    note_blank(figure, scale)
    return figure


def themed(figure: go.Figure, dark: bool) -> go.Figure:
    """The figure with what stands outside of its white panels legible on a page of that theme."""
    figure.update_layout(
        font_color="#e8e8ee" if dark else "#222",
        legend_font_color="#222",
        hoverlabel={"bgcolor": "white", "font": {"color": "#222"}},
    )
    return figure


def _loss_of(history: GradientHistory) -> np.ndarray:
    return history.logs.get("loss", np.full(len(history), np.nan))

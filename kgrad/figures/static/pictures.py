"""Small pictures of results as SVG, for the pages that a notebook shows.

They belong to no library's figure and have no background: text, axes and the loss have the color of
the page around them, so that one picture is legible on a light and on a dark page.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kgrad.figures.looks import BY_DEPTH, FINDING
from kgrad.figures.scale import Scale
from kgrad.figures.selection import (
    Predicted,
    layer_values,
    losses_of,
    time_axis,
    trial_values,
)
from kgrad.figures.static.panels import (
    draw_by_depth,
    draw_heatmap,
    draw_loss,
    draw_predicted,
    predicted_keys,
)
from kgrad.figures.static.parts import (
    STRIP_COLOR,
    add_legend,
    layer_axis_of,
    magnitude_axis_of,
    magnitude_colorbar,
    new_figure,
    note_blank,
    style,
)
from kgrad.figures.static.sweeps import draw_sweep
from kgrad.figures.sweep_maps import SweepMap
from kgrad.figures.thinning import cell_edges
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction
from kgrad.records.trials import Trials

_SMALL: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9,
}
_INK = "#262626"  # of seaborn's text and axes, and of predictions
_MOST_NAMES = 9  # layers that are named at the heatmap


def picture_of_history(
    history: GradientHistory,
    layers: Sequence[str] = (),
    since: int = 0,
    statistic: str = "mean_abs",
) -> str:
    """Return a picture of a run: a heatmap below the loss; of a single record, a line by depth.

    Args:
        history: a history with at least one record.
        layers: names of layers to frame in the heatmap.
        since: the epoch from which they are framed.
        statistic: a statistic that the history recorded.
    """
    values = layer_values(history, statistic)
    scale = Scale.of(statistic, [values])
    with _small_style():
        if len(history) == 1:
            figure = new_figure("", 2.6, 6.0)
            ax = figure.subplots()
            draw_by_depth(ax, values, history.layers, scale, FINDING, most=_MOST_NAMES)
            note_blank(ax, scale)
            ax.set(xlabel=BY_DEPTH, ylabel=scale.label)
        else:
            figure, columns = _columns([history])
            _draw_run(columns[0], history, values, history.layers, scale)
            _frame(columns[0][-1], history, layers, since)
            magnitude_colorbar(
                figure, columns[0][-1].collections[0], scale, ax=columns[0][-1], pad=0.02
            )
        add_legend(figure, scale.special)
        return _svg(figure, "Gradients over training")


def picture_of_trials(trials: Trials, statistic: str = "mean_abs") -> str:
    """Return a picture of the unchanged run beside the best other one, on one scale."""
    shown = trials[:2]
    values = trial_values(trials, shown, statistic)
    scale = Scale.of(statistic, values)
    with _small_style():
        figure, columns = _columns([trial.history for trial in shown])
        for i, (trial, own, axes) in enumerate(zip(shown, values, columns, strict=True)):
            _draw_run(axes, trial.history, own, trials.layers, scale)
            axes[0].set_title(trial.name, parse_math=False)
            for ax in axes:
                ax.tick_params(which="both", labelleft=i == 0)
                ax.set_ylabel(ax.get_ylabel() if i == 0 else "")
        panels = [axes[-1] for axes in columns]
        magnitude_colorbar(figure, panels[0].collections[0], scale, ax=panels[-1], pad=0.04)
        add_legend(figure, scale.special)
        return _svg(figure, "Gradients of the unchanged run and of the best trial")


def picture_of_prediction(prediction: Prediction, statistic: str = "mean_abs") -> str:
    """Return a picture of a prediction: its line and its band against depth."""
    predicted = Predicted.of(prediction, statistic)
    scale = Scale.of(statistic, predicted.drawn())
    pairs = zip(prediction.layers, predicted.dense, strict=True)
    names = [name for name, dense in pairs if dense]
    with _small_style():
        figure = new_figure("", 2.6, 6.0)
        ax = figure.subplots()
        magnitude_axis_of(ax, scale)
        draw_predicted(ax, predicted, np.arange(1, len(names) + 1), scale)
        layer_axis_of(ax, names, 1, _MOST_NAMES)
        ax.set(xlabel=BY_DEPTH, ylabel=scale.label)
        note_blank(ax, scale)
        add_legend(figure, scale.special, predicted_keys())
        return _svg(figure, "Predicted gradients against depth")


def picture_of_sweep(frame: pd.DataFrame, x: str, y: str) -> str:
    """Return a picture of a sweep's last losses over two fields of its experiments."""
    drawn = SweepMap.of(frame, x, y, "loss_last", None)
    with _small_style():
        figure = new_figure("", 3.0, 6.0)
        ax = figure.subplots()
        mesh, keys = draw_sweep(ax, drawn, _MOST_NAMES, 0.5)
        magnitude_colorbar(figure, mesh, drawn.scale, ax=ax, pad=0.02)
        add_legend(figure, (), keys)
        return _svg(figure, "Last loss over two fields of the experiments")


@contextmanager
def _small_style() -> Iterator[None]:
    with style(), matplotlib.rc_context(_SMALL):
        yield


def _columns(histories: Sequence[GradientHistory]) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with a column of panels per run: its loss, if it has one, and a heatmap."""
    losses = losses_of(histories)
    heights = [0.6, 2.0] if losses else [2.0]
    figure = new_figure("", sum(heights) + 0.4, 6.0)
    axes = figure.subplots(
        len(heights),
        len(histories),
        squeeze=False,
        sharex="col",
        height_ratios=heights,
    )
    if losses is not None:
        _, times = time_axis(histories)
        for ax, one, at in zip(axes[0], losses.values, times, strict=True):
            draw_loss(ax, one, at, losses.scale)
    return figure, [list(column) for column in axes.T]


def _draw_run(
    axes: Sequence[Axes],
    history: GradientHistory,
    values: np.ndarray,
    layers: Sequence[str],
    scale: Scale,
) -> None:
    time, (times,) = time_axis([history])
    draw_heatmap(axes[-1], values, times, layers, scale, time, _MOST_NAMES)
    note_blank(axes[-1], scale)


def _frame(ax: Axes, history: GradientHistory, layers: Sequence[str], since: int) -> None:
    """Frame each stretch of neighboring layers, from the first record of an epoch on."""
    _, (times,) = time_axis([history])
    edges = cell_edges(times)
    start = edges[int(np.searchsorted(history.epochs, since).clip(0, len(times) - 1))]
    rows = [history.layers.index(name) for name in layers if name in history.layers]
    for _, stretch in groupby(enumerate(rows), key=lambda pair: pair[1] - pair[0]):
        first, *rest = [row for _, row in stretch]
        ax.add_patch(
            Rectangle(
                (start, first - 0.5),
                edges[-1] - start,
                1 + len(rest),
                fill=False,
                edgecolor=FINDING,
                linewidth=2,
                clip_on=False,
            )
        )


def _svg(figure: Figure, subject: str) -> str:
    """Return a figure as SVG that has the color of the text around it and fits its width."""
    drawn = io.StringIO()
    # The salt makes equal pictures equal; text stays text, which is sharp and can be searched.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kgrad"}):
        figure.savefig(drawn, format="svg", transparent=True, dpi=144, metadata={"Date": None})
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", drawn.getvalue(), flags=re.DOTALL)
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    svg = svg.replace(
        f"fill: {matplotlib.colors.to_hex(STRIP_COLOR)}", "fill: currentColor; fill-opacity: 0.07"
    )
    attributes = f'role="img" aria-label="{subject}" style="max-width: 100%; height: auto"'
    return svg.replace("<svg ", f"<svg {attributes} ", 1)

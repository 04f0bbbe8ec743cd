"""Interactive figures of gradients over training: lines, heatmaps, and both.

Hovering over a value shows its layer, the shapes of the layer's weights, when it was recorded, and
its size. Long histories are thinned as `kgrad.figures.thinning` describes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from kgrad.figures.interactive.depth import (
    add_measured_and_predicted,
    depth_figure,
    plot_prediction,
)
from kgrad.figures.interactive.loss import add_loss
from kgrad.figures.interactive.panels import (
    OverTime,
    add_heatmap,
    add_lines,
    heatmap_height,
    share_time_axis,
)
from kgrad.figures.interactive.parts import (
    add_depth_bar,
    add_magnitude_bar,
    add_strips,
    described,
    hide_unused,
    magnitude_axis_of,
    panel_grid,
    place_of,
    strips_height,
)
from kgrad.figures.looks import FEW
from kgrad.figures.scale import Scale
from kgrad.figures.selection import (
    Runs,
    drawable_runs,
    input_is_above,
    layer_values,
    require_predicted,
    scale_before_training,
    time_axis,
)
from kgrad.figures.thinning import MOST_COLUMNS, Columns
from kgrad.records.deprecations import old_arguments
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

_LINES_HEIGHT = 264.0  # pixels of a panel of lines


def plot_gradients(
    history: Runs,
    *,
    title: str = "",
    statistic: str = "mean_abs",
    prediction: Prediction | None = None,
) -> go.Figure:
    """Draw every layer's gradient over training, as lines and as a heatmap of layer × record.

    A panel above them has the loss of the runs that recorded it. Magnitudes are logarithmic; the
    share of zeros and the number of non-finite steps are linear. Values that are exactly 0, NaN or
    infinite are marked. The time axis counts epochs, or steps if an epoch has several records.
    Several runs are drawn below each other: the axes of time and magnitude and the colors are the
    same for all. Histories of a single record are drawn against depth instead.

    Args:
        history: a run's history with at least one record; or a mapping from each run's name to its
            history, to compare the runs.
        title: text above the figure.
        statistic: a statistic that every history recorded.
        prediction: what `predict_gradients` returned for the same model. It adds a panel of epoch
            0, as `plot_prediction` draws it. Only for a single run.

    Returns:
        The figure.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if there is no history, no record or no such statistic, or the prediction does
            not fit.
    """
    runs = drawable_runs(history, statistic)
    if prediction is not None and isinstance(history, Mapping):
        raise ValueError(
            f"prediction must be None if history holds several runs, received "
            f"{type(prediction).__name__}: plot_prediction draws several runs with predictions"
        )
    if prediction is not None:
        require_predicted("history", history, "prediction", prediction, statistic)
    if all(len(one) == 1 for one in runs.values()):
        if prediction is not None:
            return plot_prediction(history, prediction, title=title, statistic=statistic)
        return depth_figure(history, statistic, title=title)
    parts = ("lines", "heatmap")
    figure = _figure_over_time(runs, title, statistic, parts, prediction=prediction)
    add_loss(figure, runs, MOST_COLUMNS)
    return figure


@old_arguments("title", "statistic")
def plot_lines(history: Runs, *, title: str = "", statistic: str = "mean_abs") -> go.Figure:
    """Draw every layer's gradient over training, one line per layer, light at the input.

    Args:
        history: a run's history with at least one record; or a mapping from each run's name to its
            history: one panel per run, all on the same axes.
        title: text above the figure.
        statistic: a statistic that every history recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is neither a `GradientHistory` nor a mapping of them.
        ValueError: if there is no history, no record or no such statistic.
    """
    return lines_figure(history, statistic, title=title)


@old_arguments("title", "statistic", histories="history")
def plot_heatmap(history: Runs, *, title: str = "", statistic: str = "mean_abs") -> go.Figure:
    """Draw layer × record as a heatmap, colored by value, with the input on top.

    Args:
        history: a run's history with at least one record; or a mapping from each run's name to its
            history: one heatmap per run, all with the same colors and the same time axis.
        title: text above the figure.
        statistic: a statistic that every history recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is neither a `GradientHistory` nor a mapping of them.
        ValueError: if there is no history, no record or no such statistic.
    """
    return heatmap_figure(history, statistic, title=title)


def lines_figure(
    history: Runs,
    statistic: str,
    *,
    title: str = "",
    most: int = MOST_COLUMNS,
    scale: Scale | None = None,
) -> go.Figure:
    """Draw what `plot_lines` draws, with fewer points or on a scale that several figures share.

    Args:
        history: see `plot_lines`.
        statistic: see `plot_lines`.
        title: text above the figure.
        most: the largest number of points of a line.
        scale: the scale of the y axis; None for one that covers all records.
    """
    runs = drawable_runs(history, statistic)
    return _figure_over_time(runs, title, statistic, ("lines",), most=most, scale=scale)


def heatmap_figure(
    history: Runs, statistic: str, *, title: str = "", most: int = MOST_COLUMNS
) -> go.Figure:
    """Draw what `plot_heatmap` draws, with fewer columns.

    Args:
        history: see `plot_heatmap`.
        statistic: see `plot_heatmap`.
        title: text above the figure.
        most: the largest number of columns of a heatmap.
    """
    runs = drawable_runs(history, statistic)
    return _figure_over_time(runs, title, statistic, ("heatmap",), most=most)


def _figure_over_time(
    runs: Mapping[str, GradientHistory],
    title: str,
    statistic: str,
    parts: tuple[str, ...],
    *,
    most: int = MOST_COLUMNS,
    scale: Scale | None = None,
    prediction: Prediction | None = None,
) -> go.Figure:
    """Draw runs on one scale and one time axis, each as its parts: "lines" above a "heatmap".

    A prediction adds a panel of epoch 0 below a single run.
    """
    values = [layer_values(history, statistic) for history in runs.values()]
    scale = scale or Scale.of(statistic, values)
    time, times = time_axis(runs.values())
    drawn = [
        OverTime(one.layers, described(one), Columns.of(v, t, scale, most), scale, time)
        for one, v, t in zip(runs.values(), values, times, strict=True)
    ]
    columns = 2 if parts == ("lines",) and len(runs) > 1 else 1
    heights = [
        _LINES_HEIGHT + strips_height(scale) if part == "lines" else heatmap_height(len(run.layers))
        for run in drawn[::columns]
        for part in parts
    ]
    names = [name if part == parts[0] else "" for name in runs for part in parts]
    below = ["epoch 0, before training"] * (prediction is not None)
    figure = panel_grid(
        title,
        [*names, *below],
        [*heights, *[_LINES_HEIGHT] * len(below)],
        columns=columns,
        gap=80 if below else 46,
        shared_yaxes=columns > 1,
    )
    share_time_axis(figure, drawn, len(heights), columns)
    add = {"lines": add_lines, "heatmap": add_heatmap}
    for number, run in enumerate(drawn):
        for offset, part in enumerate(parts):
            add[part](figure, run, **place_of(number * len(parts) + offset, columns))
    figure.update_yaxes(title_text="", col=2)
    hide_unused(figure, len(names), columns)
    _add_keys(figure, drawn, parts)
    if prediction is not None:
        histories = list(runs.values())
        own = scale_before_training([(histories, prediction)], statistic)
        place = place_of(len(parts), columns)
        figure.update_yaxes(magnitude_axis_of(own), **place)
        add_strips(figure, own, **place)
        add_measured_and_predicted(figure, histories, prediction, own, 1, **place)
    return figure


def _add_keys(figure: go.Figure, drawn: Sequence[OverTime], parts: tuple[str, ...]) -> None:
    """Add the color bars of depth, if lines are too many to be named, and of magnitude.

    With both parts, each bar is beside the first panel of its part. A single bar is as high as the
    figure.
    """
    many = any(len(run.layers) > FEW for run in drawn)
    where: dict[str, dict[str, Any]] = {part: {} for part in parts}
    if len(parts) == 2:
        for part, axis in zip(parts, (figure.layout.yaxis, figure.layout.yaxis2), strict=True):
            bottom, top = axis.domain
            where[part] = {"y": (bottom + top) / 2, "len": top - bottom}
    if "lines" in parts and many:
        above = input_is_above(drawn[0].columns.values, drawn[0].scale)
        add_depth_bar(figure, above, **where["lines"])
    if "heatmap" in parts:
        add_magnitude_bar(figure, drawn[0].scale, **where["heatmap"])

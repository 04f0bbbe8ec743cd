"""Static figures of gradients over training: lines, heatmaps, and both."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kgrad.figures.looks import FEW_AT_LINES, columns_for
from kgrad.figures.scale import Scale
from kgrad.figures.selection import (
    Losses,
    Predicted,
    Profile,
    Runs,
    at_epoch_0,
    drawable_runs,
    input_is_above,
    layer_values,
    losses_of,
    require_drawable,
    require_predicted,
    scale_before_training,
    time_axis,
)
from kgrad.figures.static.depth import depth_figure, plot_prediction
from kgrad.figures.static.panels import (
    draw_heatmap,
    draw_loss,
    draw_over_time,
    draw_prediction,
    label_lines,
    measured_key,
    predicted_keys,
)
from kgrad.figures.static.parts import (
    add_legend,
    depth_colorbar,
    magnitude_colorbar,
    new_figure,
    style,
)
from kgrad.records.deprecations import old_arguments
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction


@old_arguments("title", "statistic", histories="history")
def plot_gradients(
    history: Runs,
    *,
    title: str = "",
    statistic: str = "mean_abs",
    prediction: Prediction | None = None,
) -> Figure:
    """Draw every layer's gradient over training, as lines and as a heatmap of layer × record.

    Magnitudes are logarithmic; the share of zeros and the number of non-finite steps are linear.
    Values that are exactly 0, NaN or infinite are marked. The time axis counts epochs, or steps if
    an epoch has several records. The loss is drawn above the lines if it was recorded. Several runs
    are drawn side by side: the axes of time and magnitude and the colors are the same for all.
    Histories of a single record are drawn against depth instead.

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
    if not isinstance(history, Mapping):
        return _one_run("history", history, title, statistic, prediction)
    if prediction is not None:
        raise ValueError(
            f"prediction must be None if history holds several runs, received "
            f"{type(prediction).__name__}: plot_prediction draws several runs with predictions"
        )
    return _several_runs(drawable_runs(history, statistic), title, statistic, ("lines", "heatmap"))


def visualize_gradients(
    gradients_history: GradientHistory,
    title: str,
    statistic: str = "mean_abs",
    *,
    prediction: Prediction | None = None,
) -> Figure:
    """Draw every layer's gradient over training: `plot_gradients` of a single run.

    Args:
        gradients_history: the run's history, with at least one record.
        title: text above the figure.
        statistic: one of `gradients_history.statistics`.
        prediction: what `predict_gradients` returned for the same model.

    Returns:
        The figure.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if there is no record or no such statistic, or the prediction does not fit.

    Example:
        >>> from kgrad.records.history import GradientHistory, Weight
        >>> weight = Weight("dense", "kernel", "dense/kernel", (2,))
        >>> history = GradientHistory([weight], ["l2_norm"])
        >>> history.append(epoch=0, step=0, values={"l2_norm": [0.5]})
        >>> history.append(epoch=1, step=10, values={"l2_norm": [0.25]})
        >>> figure = visualize_gradients(history, "One layer", statistic="l2_norm")
        >>> figure.axes[0].get_ylabel()
        'gradient L2 norm'
    """
    return _one_run("gradients_history", gradients_history, title, statistic, prediction)


def plot_lines(history: Runs, *, title: str = "", statistic: str = "mean_abs") -> Figure:
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
    runs = drawable_runs(history, statistic)
    if list(runs) != [""]:
        return _several_runs(runs, title, statistic, ("lines",))
    scale = Scale.of(statistic, [layer_values(runs[""], statistic)])
    with style():
        figure = new_figure(title, 5.0)
        _draw_lines(figure, figure.subplots(), runs[""], scale)
        add_legend(figure, scale.special)
    return figure


def plot_heatmap(history: Runs, *, title: str = "", statistic: str = "mean_abs") -> Figure:
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
    runs = drawable_runs(history, statistic)
    if list(runs) != [""]:
        return _several_runs(runs, title, statistic, ("heatmap",))
    scale = Scale.of(statistic, [layer_values(runs[""], statistic)])
    with style():
        figure = new_figure(title, _height(len(runs[""].layers)))
        _draw_heatmap(figure, figure.subplots(), runs[""], scale)
        add_legend(figure, scale.special)
    return figure


def _one_run(
    argument: str,
    history: GradientHistory,
    title: str,
    statistic: str,
    prediction: Prediction | None,
) -> Figure:
    """Draw lines beside a heatmap, and with a prediction a panel of epoch 0 below them."""
    require_drawable({argument: history}, statistic)
    if prediction is not None:
        require_predicted(argument, history, "prediction", prediction, statistic)
    values = layer_values(history, statistic)
    scale = Scale.of(statistic, [values])
    if len(history) == 1:
        if prediction is not None:
            return plot_prediction(history, prediction, title=title, statistic=statistic)
        return depth_figure({"": (history.layers, [Profile("", values)])}, title, scale)
    with style():
        losses = losses_of([history])
        rows, heights = ["LR"], [_height(len(history.layers))]
        if losses is not None:  # above the lines, on their axis of time
            rows, heights = ["lR", "LR"], [1.0, heights[0] - 0.6]
        if prediction is not None:
            rows, heights = [*rows, "DD"], [*heights, 3.4]
        figure = new_figure(title, sum(heights))
        axes = figure.subplot_mosaic(";".join(rows), height_ratios=heights)
        axes["R"].sharex(axes["L"])
        if losses is not None:
            axes["l"].sharex(axes["L"])
            _draw_loss(axes["l"], history, losses, 0)
        _draw_lines(figure, axes["L"], history, scale)
        _draw_heatmap(figure, axes["R"], history, scale)
        special, keys = scale.special, []
        if losses is not None:
            special += losses.scale.special
        if prediction is not None:
            own = scale_before_training([([history], prediction)], statistic)
            measured = at_epoch_0([history], statistic)
            predicted = Predicted.of(prediction, statistic)
            draw_prediction(axes["D"], measured, history.layers, predicted, own, 12)
            axes["D"].set_title("epoch 0, before training")
            special += own.special
            keys = [*predicted_keys(), measured_key(1)]
        add_legend(figure, special, keys)
    return figure


def _several_runs(
    runs: Mapping[str, GradientHistory], title: str, statistic: str, parts: tuple[str, ...]
) -> Figure:
    """Draw runs side by side on shared scales, each as its parts: "lines" above a "heatmap"."""
    values = {name: layer_values(history, statistic) for name, history in runs.items()}
    scale = Scale.of(statistic, list(values.values()))
    if len(parts) == 2 and all(len(history) == 1 for history in runs.values()):
        panels = {n: (h.layers, [Profile("", values[n])]) for n, h in runs.items()}
        return depth_figure(panels, title, scale)
    time, times = time_axis(runs.values())
    columns = columns_for(len(runs))
    blocks = -(-len(runs) // columns)
    losses = losses_of(runs.values()) if "lines" in parts else None
    if losses is not None:
        parts = ("loss", *parts)
    same_layers = len({history.layers for history in runs.values()}) == 1
    with style():
        # With room for the strips of special values, which are fractions of a panel.
        heights = (
            {"loss": 1.0, "lines": 2.3, "heatmap": 2.3} if "lines" in parts else {"heatmap": 3}
        )
        height = 2 + sum(heights[part] for part in parts) * blocks
        height += 0.5 * max(0, len(scale.special) - 2) * ("lines" in parts) * blocks
        figure = new_figure(title, height)
        axes = figure.subplots(
            len(parts) * blocks,
            columns,
            sharex=True,
            squeeze=False,
            height_ratios=[heights[part] for part in parts] * blocks,
        )
        for i, (name, history) in enumerate(runs.items()):
            row, first = len(parts) * (i // columns), i % columns == 0
            own = dict(zip(parts, axes[row:, i % columns], strict=False))
            if losses is not None:
                ax = own["loss"]
                _draw_loss(ax, history, losses, i)
                ax.set_ylabel("loss" if first else "")
                ax.tick_params(which="both", labelleft=first)
            if "lines" in own:
                ax = own["lines"]
                if i:
                    ax.sharey(axes[parts.index("lines"), 0])
                draw_over_time(ax, values[name], times[i], scale)
                ax.set_ylabel(scale.label if first else "")
                ax.tick_params(which="both", labelleft=first)
            if "heatmap" in own:
                ax = own["heatmap"]
                mesh = draw_heatmap(ax, values[name], times[i], history.layers, scale, "", 6)
                ax.tick_params(labelleft=first or not same_layers)
            own[parts[0]].set_title(textwrap.fill(str(name), 26), parse_math=False)
            own[parts[-1]].set_xlabel(time)
            own[parts[-1]].tick_params(labelbottom=True)
        for ax in axes[-len(parts) :, columns + len(runs) - columns * blocks :].ravel():
            ax.remove()
        below: dict[str, Any] = {"ax": figure.axes.copy(), "pad": 0.15 / height}
        below |= {"location": "bottom", "aspect": 60}
        if "heatmap" in parts:
            magnitude_colorbar(figure, mesh, scale, **below)
        if "lines" in parts:
            depth_colorbar(figure, **below)
        special = scale.special if losses is None else scale.special + losses.scale.special
        add_legend(figure, special)
    return figure


def _height(layers: int) -> float:
    """Return the height in inches of a figure with a heatmap."""
    return float(np.interp(layers, [15, 200], [5.0, 7.5]))


def _draw_loss(ax: Axes, history: GradientHistory, losses: Losses, number: int) -> None:
    """Draw the loss of one of several runs, without names at the axis of time."""
    _, (times,) = time_axis([history])
    draw_loss(ax, losses.values[number], times, losses.scale)
    ax.tick_params(labelbottom=False)


def _draw_lines(figure: Figure, ax: Axes, history: GradientHistory, scale: Scale) -> None:
    """Draw one run's lines, with a key: names beside few lines, otherwise a color bar."""
    values = layer_values(history, scale.statistic)
    time, (times,) = time_axis([history])
    draw_over_time(ax, values, times, scale, time)
    ax.set_ylabel(scale.label)
    if len(history.layers) <= FEW_AT_LINES:
        label_lines(ax, values[-1], times[-1], history.layers, scale)
    else:
        depth_colorbar(figure, input_is_above(values, scale), ax=ax, pad=0.02)


def _draw_heatmap(figure: Figure, ax: Axes, history: GradientHistory, scale: Scale) -> None:
    """Draw one run's heatmap with its color bar."""
    values = layer_values(history, scale.statistic)
    time, (times,) = time_axis([history])
    mesh = draw_heatmap(ax, values, times, history.layers, scale, time)
    magnitude_colorbar(figure, mesh, scale, ax=ax, pad=0.03)

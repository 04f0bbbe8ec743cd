"""Static figures of gradient against depth: at some moments, over seeds, and predicted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kgrad.figures.looks import BY_DEPTH, SERIES, TIME, ramp, spread_label
from kgrad.figures.scale import Scale
from kgrad.figures.selection import (
    Panels,
    Predicted,
    Replicates,
    Runs,
    at_epoch_0,
    drawable_groups,
    drawable_runs,
    predicted_groups,
    predictions_of,
    profiles,
    scale_before_training,
    scale_of_panels,
)
from kgrad.figures.static.panels import (
    draw_by_depth,
    draw_predicted,
    draw_prediction,
    label_ends,
    measured_key,
    predicted_keys,
)
from kgrad.figures.static.parts import add_legend, note_blank, panel_grid, style
from kgrad.records.deprecations import old_arguments
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction


@old_arguments("epochs", "title", "statistic")
def plot_gradient_by_depth(
    history: Runs,
    *,
    title: str = "Gradient against depth",
    epochs: Sequence[int] | None = None,
    statistic: str = "mean_abs",
    prediction: Prediction | Mapping[str, Prediction] | None = None,
) -> Figure:
    """Draw gradient against depth, from input to output, at some moments of training.

    Args:
        history: a run's history with at least one record; or a mapping from each run's name to its
            history: one panel per run on a shared scale.
        title: text above the figure.
        epochs: the epochs to draw, each by its last record (0 is before training); by default up to
            five records from the first to the last that all runs have, denser early on.
        statistic: a statistic that every history recorded.
        prediction: what `predict_gradients` returned for the same model, or a mapping from names to
            predictions if `history` is a mapping. Its line and band, for epoch 0, are drawn over
            the dense layers.

    Returns:
        The figure.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if there is no history or record, the statistic or an epoch was not recorded, or
            a prediction does not fit.
    """
    runs = drawable_runs(history, statistic)
    predictions = predictions_of(runs, prediction, statistic)
    panels = profiles({name: [one] for name, one in runs.items()}, statistic, epochs)
    predicted = {name: Predicted.of(one, statistic) for name, one in predictions.items()}
    scale = scale_of_panels(panels, statistic, predicted.values())
    return depth_figure(panels, title, scale, predicted=predicted)


@old_arguments("epochs", "title", "statistic")
def plot_seed_spread(
    histories: Sequence[GradientHistory] | Mapping[str, Sequence[GradientHistory]],
    *,
    title: str = "Gradient against depth, over seeds",
    epochs: Sequence[int] | None = None,
    statistic: str = "mean_abs",
) -> Figure:
    """Draw gradient against depth for runs that differ in their seed: median, minimum and maximum.

    The median is that of logarithms if the axis is logarithmic. Zeros and infinities are ranked as
    what they are. NaN has no rank: it is left out of line and band, and marked.

    Args:
        histories: the replicates; or a mapping from names to replicates: one panel per name on a
            shared scale.
        title: text above the figure.
        epochs: the epochs to draw, each by its last record (0 is before training); by default the
            first and the last record that all replicates have.
        statistic: a statistic that every history recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `histories` is neither a sequence of `GradientHistory` nor a mapping to such.
        ValueError: if there is no history or record, replicates have different layers, or the
            statistic or an epoch was not recorded.
    """
    groups = drawable_groups(histories, statistic)
    panels = profiles(groups, statistic, epochs, 2)
    scale = scale_of_panels(panels, statistic)
    return depth_figure(panels, title, scale, band=spread_label(list(groups.values())))


@old_arguments("title")
def plot_prediction(
    history: Replicates | Mapping[str, Replicates],
    prediction: Prediction | Mapping[str, Prediction],
    *,
    title: str = "Gradients, predicted and measured",
    statistic: str = "mean_abs",
) -> Figure:
    """Draw gradient against depth before training: predicted line and band, and measured points.

    The band holds 95 % of single networks. A point is one dense layer of one history at epoch 0.
    Layers of normalization are left out: their few weights are on another scale.

    Args:
        history: a history, or several histories that are replicates of one network; or a mapping
            from names to these: one panel per network on a shared scale.
        prediction: the network's prediction; or a mapping from the same names to predictions.
        title: text above the figure.
        statistic: "mean_abs" or "l2_norm".

    Returns:
        The figure.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a history has no record of epoch 0 or other layers than its prediction, the
            names differ, or the statistic is not predicted.
    """
    groups = predicted_groups(history, prediction, statistic)
    scale = scale_before_training(groups.values(), statistic)
    with style():
        figure, axes, columns = panel_grid(title, list(groups), sharey=True)
        for number, (name, (some, one)) in enumerate(groups.items()):
            measured, predicted = at_epoch_0(some, statistic), Predicted.of(one, statistic)
            most = 12 if columns < 3 else 5
            draw_prediction(axes[name], measured, one.layers, predicted, scale, most)
            axes[name].set_ylabel("" if number % columns else scale.label)
        replicates = max(len(some) for some, _ in groups.values())
        add_legend(figure, scale.special, [*predicted_keys(), measured_key(replicates)])
    return figure


def depth_figure(
    panels: Panels,
    title: str,
    scale: Scale,
    *,
    band: str = "",
    predicted: Mapping[str, Predicted] | None = None,
) -> Figure:
    """Draw one panel per name with its profiles.

    Args:
        panels: name → layers and profiles; all panels have the same moments.
        title: text above the figure.
        scale: the scale of all y axes.
        band: the legend's name of bands over replicates, if there are any.
        predicted: name → prediction, for some panels.
    """
    predicted = predicted or {}
    if _fit_one_panel(panels) and not predicted and not band:
        return _one_panel(panels, title, scale)
    colors = ramp(TIME, len(next(iter(panels.values()))[1]))
    with style():
        figure, axes, columns = panel_grid(title, list(panels), sharey=True)
        for number, (name, (layers, some)) in enumerate(panels.items()):
            ax = axes[name]
            if name in predicted:
                depth = predicted[name].dense.nonzero()[0] + 1
                draw_predicted(ax, predicted[name], depth, scale)
            for color, profile in zip(colors, some, strict=True):
                most = 12 if columns < 3 else 5
                draw_by_depth(ax, profile.values, layers, scale, color, profile.label, most)
            ax.set(xlabel=BY_DEPTH, ylabel="" if number % columns else scale.label)
            note_blank(ax, scale)
        handles: list[Any] = [
            Line2D([], [], color=color, marker="o", linewidth=2, label=profile.label)
            for color, profile in zip(colors, some, strict=True)
            if profile.label
        ]
        if band:
            handles.append(Patch(color="0.8", label=band))
        if predicted:
            handles += predicted_keys()
        if scale.special and len(colors) > 1:
            note = "marks (outlined in their line's color):"
            handles.append(Line2D([], [], linestyle="none", label=note))
        add_legend(figure, scale.special, handles)
    return figure


def _fit_one_panel(panels: Panels) -> bool:
    """Return whether the panels are a few lines of one moment over layers that fit on one axis."""
    lines = all(len(some) == 1 and len(some[0].values) == 1 for _, some in panels.values())
    return 1 < len(panels) <= len(SERIES) + 1 and bool(_axis_of(panels)) and lines


def _axis_of(panels: Panels) -> tuple[str, ...]:
    """Return the layers of the panel that has those of all others, in their order; or none."""
    longest = max((layers for layers, _ in panels.values()), key=len)
    for layers, _ in panels.values():
        rest = iter(longest)
        if not all(layer in rest for layer in layers) or layers[-1] != longest[-1]:
            return ()
    return tuple(longest)


def _one_panel(panels: Panels, title: str, scale: Scale) -> Figure:
    """Draw each run as a line that is named where it ends."""
    colors = [*SERIES, "#8a8a8a"]
    ((moment, _),) = next(iter(panels.values()))[1]
    axis = _axis_of(panels)
    with style():
        figure, axes, _ = panel_grid(title, [""])
        ax = axes[""]
        for color, (name, (layers, (profile,))) in zip(colors, panels.items(), strict=False):
            draw_by_depth(ax, profile.values, layers, scale, color, str(name), axis=axis)
        ends = np.array([some[0].values[0, -1] for _, some in panels.values()])
        label_ends(ax, ends, len(axis), list(map(str, panels)), colors, scale)
        ax.set(xlabel=BY_DEPTH, ylabel=scale.label, title=moment)
        note_blank(ax, scale)
        add_legend(figure, scale.special)
    return figure

"""Interactive figures of gradient against depth: at some moments, over seeds, and predicted."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from kgrad.figures.interactive.panels import add_predicted, add_profile, in_legend
from kgrad.figures.interactive.parts import (
    add_special_points,
    add_strips,
    colors,
    depth_axis_of,
    described,
    hide_unused,
    magnitude_axis_of,
    marks_by_depth,
    note_blank,
    panel_grid,
    place_of,
    strips_height,
    translucent,
)
from kgrad.figures.looks import BAND, MEASURED, TIME, measured_label, spread_label
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
    shared_scale,
)
from kgrad.records.deprecations import old_arguments
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction


@old_arguments("title", "statistic")
def plot_gradient_by_depth(
    history: Runs,
    *,
    title: str = "Gradient against depth",
    epochs: Sequence[int] | None = None,
    statistic: str = "mean_abs",
    prediction: Prediction | Mapping[str, Prediction] | None = None,
) -> go.Figure:
    """Draw gradient against depth, from input to output, at some moments of training.

    The y axis covers all records, so that figures of different moments can be compared.

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
    return depth_figure(history, statistic, title=title, epochs=epochs, prediction=prediction)


def plot_seed_spread(
    histories: Sequence[GradientHistory] | Mapping[str, Sequence[GradientHistory]],
    *,
    title: str = "Gradient against depth, over seeds",
    epochs: Sequence[int] | None = None,
    statistic: str = "mean_abs",
) -> go.Figure:
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
    texts = {name: described(group[0]) for name, group in groups.items()}
    figure = profiles_figure(panels, title, scale, texts)
    key = {"symbol": "square", "size": 12, "color": translucent("black", BAND)}
    name = spread_label(list(groups.values()))
    figure.add_scatter(x=[None], y=[None], mode="markers", marker=key, name=name, hoverinfo="skip")
    return figure


def plot_prediction(
    history: Replicates | Mapping[str, Replicates],
    prediction: Prediction | Mapping[str, Prediction],
    *,
    title: str = "Gradients, predicted and measured",
    statistic: str = "mean_abs",
) -> go.Figure:
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
    figure = _panels(list(groups), title, scale)
    columns = _columns(len(groups))
    for number, (some, one) in enumerate(groups.values()):
        place = place_of(number, columns)
        add_measured_and_predicted(figure, some, one, scale, columns, **place)
    replicates = max(len(some) for some, _ in groups.values())
    figure.update_traces(name=measured_label(replicates), selector={"legendgroup": "measured"})
    return figure


def depth_figure(
    history: Runs,
    statistic: str,
    *,
    title: str = "",
    epochs: Sequence[int] | None = None,
    prediction: Prediction | Mapping[str, Prediction] | None = None,
    scale: Scale | None = None,
) -> go.Figure:
    """Draw what `plot_gradient_by_depth` draws, on a scale that several figures share.

    Args:
        history: see `plot_gradient_by_depth`.
        statistic: see `plot_gradient_by_depth`.
        title: text above the figure.
        epochs: see `plot_gradient_by_depth`.
        prediction: see `plot_gradient_by_depth`.
        scale: the scale of the y axis; None for one that covers all records and the prediction.
    """
    runs = drawable_runs(history, statistic)
    predictions = predictions_of(runs, prediction, statistic)
    panels = profiles({name: [one] for name, one in runs.items()}, statistic, epochs)
    scale = scale or shared_scale(runs.values(), predictions.values(), statistic)
    texts = {name: described(one) for name, one in runs.items()}
    return profiles_figure(panels, title, scale, texts, predictions)


def prediction_figure(
    prediction: Prediction, statistic: str, *, title: str = "", scale: Scale | None = None
) -> go.Figure:
    """Draw a prediction alone, before there is a record.

    Args:
        prediction: what `predict_gradients` returned.
        statistic: one of `prediction.statistics`.
        title: text above the figure.
        scale: the scale of the y axis; None for the prediction's own.
    """
    scale = scale or shared_scale([], [prediction], statistic)
    return profiles_figure({"": (prediction.layers, [])}, title, scale, {}, {"": prediction})


def profiles_figure(
    panels: Panels,
    title: str,
    scale: Scale,
    texts: Mapping[str, Sequence[str]],
    predictions: Mapping[str, Prediction] | None = None,
) -> go.Figure:
    """Draw one panel per name with its profiles, over its prediction if there is one.

    Args:
        panels: name → layers and profiles; all panels have the same moments.
        title: text above the figure.
        scale: the scale of all y axes.
        texts: name → the hover text of each layer.
        predictions: name → prediction, for some panels.
    """
    figure, columns = _panels(list(panels), title, scale), _columns(len(panels))
    for number, (name, (layers, some)) in enumerate(panels.items()):
        place = place_of(number, columns)
        figure.update_xaxes(depth_axis_of(layers, columns=columns), **place)
        if predictions and name in predictions:
            one = predictions[name]
            predicted = Predicted.of(one, scale.statistic)
            depth = np.flatnonzero(predicted.dense) + 1
            names = [one.layers[i - 1] for i in depth]
            add_predicted(figure, predicted, names, depth, scale, **place)
        for color, profile in zip(colors(TIME, len(some)), some, strict=True):
            add_profile(figure, profile, texts[name], color, scale, **place)
        note_blank(figure, scale, **place)
    return figure


def add_measured_and_predicted(
    figure: go.Figure,
    histories: Sequence[GradientHistory],
    prediction: Prediction,
    scale: Scale,
    columns: int,
    **place: int,
) -> None:
    """Add the dense layers at epoch 0 to a panel: predicted line and band, measured points.

    Args:
        figure: a figure of `panel_grid`, with a y axis of the scale.
        histories: the replicates.
        prediction: what theory predicts for them.
        scale: the scale of the y axis.
        columns: panels per row.
        **place: row and column of the panel.
    """
    predicted = Predicted.of(prediction, scale.statistic)
    dense = np.flatnonzero(predicted.dense)
    depth, names = np.arange(1, len(dense) + 1), [prediction.layers[i] for i in dense]
    figure.update_xaxes(depth_axis_of(names, columns=columns), **place)
    add_predicted(figure, predicted, names, depth, scale, **place)
    points = at_epoch_0(histories, scale.statistic)[:, dense]
    texts = [described(histories[0])[i] for i in dense]
    x, y = np.tile(depth, len(points)), points.ravel()
    figure.add_scatter(
        x=x,
        y=np.where(scale.ordinary(y), y, np.nan),
        text=texts * len(points),
        mode="markers",
        marker={
            "size": float(np.interp(len(names), [10, 60], [9, 5])),
            "color": to_hex(MEASURED),
            "line": {"color": "white", "width": 0.6},
        },
        **in_legend(figure, "measured"),
        hovertemplate="%{text}<br>measured, epoch 0: %{y:.3g}<extra></extra>",
        **place,
    )
    marks = marks_by_depth(points, depth, scale, [f"{one}<br>measured, epoch 0" for one in texts])
    add_special_points(figure, scale, marks, to_hex(MEASURED), **place)
    note_blank(figure, scale, **place)


def _columns(panels: int) -> int:
    return 1 if panels == 1 else 2


def _panels(names: Sequence[str], title: str, scale: Scale) -> go.Figure:
    """Return empty panels of magnitude against depth on one scale, at most two per row."""
    columns = _columns(len(names))
    rows = -(-len(names) // columns)
    figure = panel_grid(
        title,
        names,
        [(304.0 if columns == 1 else 220.0) + strips_height(scale)] * rows,
        columns=columns,
        gap=46 if rows == 1 else 120,  # with room for the names of layers
        shared_yaxes=True,
    )
    if len(names) > 1:  # the legend may be long
        figure.update_layout(height=figure.layout.height + 70)
    figure.update_yaxes(magnitude_axis_of(scale))
    figure.update_yaxes(title_text="", col=2)
    for number in range(len(names)):
        add_strips(figure, scale, **place_of(number, columns))
    hide_unused(figure, len(names), columns)
    return figure

"""Figures of what theory predicts: gradients beside their measurement, and the phase diagram."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kgrad.figures.scale import Scale
from kgrad.figures.static.panels import (
    DEPTH,
    draw_strips,
    magnitude_axis,
    name_layers,
    without_neighbours,
)
from kgrad.figures.static.parts import (
    add_legend,
    columns_for,
    new_figure,
    note_blank,
    require_drawable,
    require_mapping,
    require_replicates,
    style,
)
from kgrad.records.deprecations import old_arguments
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

PREDICTED, MEASURED = "0.15", DEPTH(0.35)
Histories = GradientHistory | Sequence[GradientHistory]


@old_arguments("title")
def plot_prediction(
    history: Histories | Mapping[str, Histories],
    prediction: Prediction | Mapping[str, Prediction],
    *,
    title: str = "Gradients, predicted and measured",
    statistic: str = "mean_abs",
) -> Figure:
    """Draw gradient against depth before training: the prediction's line and band, and the points.

    The band holds 95 % of single networks. A point is one dense layer of one history at epoch 0.
    Layers of normalisation are left out: their few weights are on another scale.

    Args:
        history: what was measured; several histories are replicates of one network; or name → any
            of these, each network drawn in a panel of its own on a shared scale.
        prediction: of that network; or name → prediction, with the same names.
        title: stands above the figure.
        statistic: "mean_abs" or "l2_norm".

    Returns:
        The figure.

    Raises:
        TypeError: if an argument is not what it should be.
        ValueError: if a history has no record of epoch 0 or other layers than its prediction, the
            names differ, or the statistic is not predicted.
    """
    groups, predictions = _paired(history, prediction)
    for name, some in groups.items():
        at = f"[{name!r}]" if name else ""
        for i, one in enumerate(some):
            label = f"history{at}[{i}]" if len(some) > 1 else f"history{at}"
            require_predicted(label, one, f"prediction{at}", predictions[name], statistic)
    scale = _scale([(groups[n], p) for n, p in predictions.items()], statistic)
    columns = columns_for(len(groups))
    rows = -(-len(groups) // columns)
    with style():
        figure = new_figure(title, 1.6 + 3.2 * rows if columns > 1 else 5.5)
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for ax, (name, some) in zip(axes, groups.items(), strict=False):
            draw_prediction(ax, some, predictions[name], scale, 12 if columns == 1 else 5)
            ax.set_title(textwrap.fill(str(name), 26))
            if not ax.get_subplotspec().is_first_col():
                ax.set_ylabel("")
        for ax in axes[len(groups) :]:
            ax.remove()
        add_legend(figure, scale, prediction_keys(max(map(len, groups.values()))))
    return figure


def draw_prediction(
    ax: Axes,
    histories: Sequence[GradientHistory],
    prediction: Prediction,
    scale: Scale,
    most: int,
) -> None:
    """A network's predicted line and band over its dense layers, and what was measured as points.

    Args:
        ax: where to draw.
        histories: replicates, each with a record of epoch 0.
        prediction: of their network.
        scale: the scale of the y axis.
        most: how many layers to name at most.
    """
    layers = [name for name in prediction.layers if name in prediction.sigma_w2]
    low, line, high, points = _values(histories, prediction, scale.statistic)
    depth = np.arange(1, len(layers) + 1)
    magnitude_axis(ax, scale)
    low, high = np.clip([low, high], *scale.limits)
    ax.fill_between(depth, low, high, color=PREDICTED, alpha=0.2, linewidth=0)
    ax.plot(
        depth,
        line,
        color=PREDICTED,
        linewidth=2,
        marker="_",
        markersize=14,
        markeredgewidth=2,
        markevery=without_neighbours(scale.ordinary(line)),
        label="predicted",
    )
    draw_strips(ax, line[:, None], depth, scale, edge=PREDICTED)
    size = float(np.interp(len(layers), [10, 60], [7, 3.5]))
    for one in points:
        ax.plot(depth, one, **_point_style(size), label="measured")
    draw_strips(ax, points.T, depth, scale, edge=MEASURED)
    name_layers(ax, layers, most)
    ax.margins(x=0.06)
    ax.set(xlabel="layer, input → output", ylabel=scale.label)
    note_blank(ax, scale)


def draw_prediction_alone(
    ax: Axes, history: GradientHistory, prediction: Prediction, statistic: str
) -> Scale:
    """`draw_prediction` of one history, on a scale of its own, which is returned."""
    scale = _scale([([history], prediction)], statistic)
    draw_prediction(ax, [history], prediction, scale, 12)
    ax.set_title("epoch 0, before training")
    return scale


def prediction_keys(replicates: int) -> list[Any]:
    """What line, band and points are, for a legend."""
    seeds = f", {replicates} seeds" if replicates > 1 else ""
    return [
        Line2D([], [], color=PREDICTED, linewidth=2, label="predicted"),
        Patch(color=PREDICTED, alpha=0.2, linewidth=0, label="95 % of networks"),
        Line2D([], [], **_point_style(8), label=f"measured{seeds}"),
    ]


def require_predicted(
    argument: str, history: Any, prediction_argument: str, prediction: Any, statistic: str
) -> None:
    """The history can be drawn, at epoch 0, over this prediction."""
    require_drawable({argument: history}, statistic)
    if not isinstance(prediction, Prediction):
        raise TypeError(
            f"{prediction_argument} must be a Prediction, received {type(prediction).__name__}: "
            "pass what predict_gradients returned"
        )
    if statistic not in prediction.statistics:
        raise ValueError(
            f"statistic must be one that is predicted ({', '.join(prediction.statistics)}), "
            f"received {statistic!r}: choose one of these"
        )
    if 0 not in history.epochs:
        raise ValueError(
            f"{argument} must have a record of epoch 0, received epochs from "
            f"{history.epochs[0]} on: gradients are predicted before training"
        )
    if history.layers != prediction.layers:
        raise ValueError(
            f"{argument} must have the layers of {prediction_argument} "
            f"({', '.join(prediction.layers):.60}), received {len(history.layers)} "
            f"({', '.join(history.layers):.60}): predict the model that was measured"
        )


def _paired(
    history: Any, prediction: Any
) -> tuple[dict[str, list[GradientHistory]], dict[str, Any]]:
    """Name → replicates, and name → prediction; the name is empty where there is one network."""
    if not isinstance(history, Mapping) and not isinstance(prediction, Mapping):
        return {"": _replicates("history", history)}, {"": prediction}
    given = require_mapping("history", history)
    if not isinstance(prediction, Mapping) or set(prediction) != set(given):
        received = (
            ", ".join(map(repr, prediction))
            if isinstance(prediction, Mapping)
            else type(prediction).__name__
        )
        raise ValueError(
            f"prediction must map the names in history ({', '.join(map(repr, given)):.100}) to "
            f"predictions, received {received:.100}: pass one for each"
        )
    groups = {name: _replicates(f"history[{name!r}]", some) for name, some in given.items()}
    return groups, {name: prediction[name] for name in given}


def _replicates(argument: str, given: Any) -> list[Any]:
    return [given] if isinstance(given, GradientHistory) else require_replicates(argument, given)


def _scale(pairs: Sequence[tuple[Sequence[GradientHistory], Prediction]], statistic: str) -> Scale:
    """The scale that holds lines, bands and points of several networks."""
    arrays = []
    for histories, prediction in pairs:
        low, line, high, points = _values(histories, prediction, statistic)
        # The band has no marks: where it reaches 0 or infinity it leaves the axis.
        band = np.concatenate([low, high])
        arrays += [line, points, band[np.isfinite(band) & (band > 0)]]
    return Scale.of(statistic, arrays)


def _values(
    histories: Sequence[GradientHistory], prediction: Prediction, statistic: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of the dense layers: the band's lower end, the line, its upper end and the points."""
    dense = [name in prediction.sigma_w2 for name in prediction.layers]
    first = [np.flatnonzero(history.epochs == 0)[0] for history in histories]
    points = [one.by_layer(statistic)[i] for i, one in zip(first, histories, strict=True)]
    low, line, high = (
        one.by_layer(statistic)[0, dense]
        for one in (prediction.lower, prediction, prediction.upper)
    )
    return low, line, high, np.stack(points)[:, dense]


def _point_style(size: float) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": "o",
        "markersize": size,
        "markerfacecolor": MEASURED,
        "markeredgecolor": "white",
        "markeredgewidth": 0.6,
    }

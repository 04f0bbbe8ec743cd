"""Interactive figures of lines: over training, and against depth.

Colours, scales and what is refused are those of `kgrad.plots`. Pointing at a value tells its layer,
the shapes of the layer's weights, when it was recorded and how large it is. Long histories are
thinned as `kgrad.figures.thinning` says.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.colors import to_hex

from kgrad.figures.interactive.looks import (
    NAMED,
    add_special_points,
    add_strips,
    colors,
    colorscale,
    compact,
    few_names,
    layer_axis_of,
    magnitude_axis_of,
    new_figure,
    note_blank,
    plain,
    shapes_of,
    time_axis_of,
    when,
)
from kgrad.figures.scale import Scale
from kgrad.figures.static.gradients import FEW
from kgrad.figures.static.panels import (
    DEPTH,
    TIME,
    without_neighbours,
)
from kgrad.figures.static.parts import (
    recorded_epochs,
    require_drawable,
    spread_out,
    time_axis,
)
from kgrad.figures.static.predictions import PREDICTED, require_predicted
from kgrad.figures.thinning import MOST_COLUMNS, Columns
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction


def plot_lines(
    history: GradientHistory,
    *,
    title: str = "",
    statistic: str = "mean_abs",
) -> go.Figure:
    """Draw every layer's gradient over training, one line per layer, light at the input.

    Args:
        history: a run's history with at least one record.
        title: text above the figure.
        statistic: one of `history.statistics`.

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is not a `GradientHistory`.
        ValueError: if it has no record or no such statistic.
    """
    return lines_figure(history, statistic, title=title)


def lines_figure(
    history: GradientHistory,
    statistic: str,
    *,
    title: str = "",
    most: int = MOST_COLUMNS,
    scale: Scale | None = None,
) -> go.Figure:
    """Draw one run's lines with a chosen number of points and on a chosen scale.

    Args:
        history: a run's history with at least one record.
        statistic: one of `history.statistics`.
        title: text above the figure.
        most: the largest number of points of a line.
        scale: the scale of the y axis if figures share one, from `shared_scale`.

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is not a `GradientHistory`.
        ValueError: if it has no record or no such statistic.
    """
    require_drawable({"history": history}, statistic)
    values = history.by_layer(statistic)
    scale = scale or Scale.of(statistic, [values])
    time, (times,) = time_axis([history])
    columns = Columns.of(values, times, scale, most)
    layers, shapes = history.layers, shapes_of(history)
    figure = new_figure(title, 420, xaxis=time_axis_of(time, columns.edges))
    figure.update_layout(yaxis=magnitude_axis_of(scale), hovermode="closest")
    add_strips(figure, scale)
    width = float(np.interp(len(layers), [8, 60], [2.2, 0.9]))
    x, y = compact(columns.centers), compact(columns.values)
    for i, color in enumerate(colors(DEPTH, len(layers))):
        line = y[:, i]
        look: dict[str, Any] = {
            "name": plain(layers[i]),
            "legendgroup": f"layer {i}",
            "hovertemplate": _hover(layers[i], shapes[i], time, columns),
        }
        figure.add_scatter(
            x=x,
            y=line,
            mode="lines",
            line={"color": color, "width": width},
            showlegend=len(layers) <= FEW,
            **look,
        )
        lonely = without_neighbours(~np.isnan(line))
        if lonely.any():
            dots = {"color": color, "size": 5}
            look |= {"x": x[lonely], "y": line[lonely], "showlegend": False}
            figure.add_scatter(mode="markers", marker=dots, **look)
    if len(layers) > FEW:
        _add_depth_bar(figure)
    points = []
    for special, found in columns.found.items():
        where = np.flatnonzero(found.any(axis=1))
        texts = [f"{time} {columns.centers[k]:g}<br>{few_names(layers, found[k])}" for k in where]
        points.append((special, columns.centers[where].tolist(), texts))
    add_special_points(figure, scale, points)
    note_blank(figure, scale)
    return figure


def plot_gradient_by_depth(
    history: GradientHistory,
    *,
    title: str = "Gradient against depth",
    epochs: Sequence[int] | None = None,
    statistic: str = "mean_abs",
    prediction: Prediction | None = None,
) -> go.Figure:
    """Draw gradient against depth, from input to output, at some moments of training.

    Args:
        history: a run's history with at least one record.
        title: text above the figure.
        epochs: which epochs to draw, each by its last record (0 is before training); by default
            up to four records from the first to the last, denser early on.
        statistic: one of `history.statistics`.
        prediction: what `predict_gradients` returned for the same model.

    Returns:
        The figure.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if there is no such record, statistic or epoch, or the prediction does not fit.
    """
    return depth_figure(history, statistic, title=title, epochs=epochs, prediction=prediction)


def depth_figure(
    history: GradientHistory,
    statistic: str,
    *,
    title: str = "",
    epochs: Sequence[int] | None = None,
    prediction: Prediction | None = None,
    scale: Scale | None = None,
) -> go.Figure:
    """Draw one run's gradient against depth on a chosen scale.

    The axis holds all records, so that figures of other moments compare. With a prediction its
    line, for epoch 0, and the band that holds 95 % of networks are drawn over the dense layers.

    Args:
        history: a run's history with at least one record.
        statistic: one of `history.statistics`.
        title: text above the figure.
        epochs: which epochs to draw, each by its last record (0 is before training); by default
            up to four records from the first to the last, denser early on.
        prediction: what `predict_gradients` returned for the same model.
        scale: of the y axis, where figures share one, from `shared_scale`.

    Returns:
        The figure.

    Raises:
        TypeError: if an argument is not of its type.
        ValueError: if there is no record, statistic or epoch of that name, or the prediction does
            not fit.
    """
    require_drawable({"history": history}, statistic)
    if prediction is not None:
        require_predicted("history", history, "prediction", prediction, statistic)
    values = history.by_layer(statistic)
    time, (times,) = time_axis([history])
    if epochs is None:
        moments = times[spread_out(len(times), 4)]
    else:
        time, times = "epoch", history.epochs
        moments = np.array(recorded_epochs(epochs, [times]))
    scale = scale or depth_scale(history, statistic, prediction)
    layers, shapes = history.layers, shapes_of(history)
    figure = _empty_depth_figure(layers, title, scale)
    if prediction is not None:
        _add_prediction(figure, prediction, scale)
    for color, moment in zip(colors(TIME, len(moments)), moments, strict=True):
        profile = values[times <= moment][-1]
        depth = np.arange(1, len(layers) + 1)
        figure.add_scatter(
            x=depth,
            y=np.where(scale.ordinary(profile), profile, np.nan),
            text=[f"{plain(n)}<br>{s}" for n, s in zip(layers, shapes, strict=True)],
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": float(np.interp(len(layers), [10, 60], [6, 3]))},
            name=f"{time} {moment}",
            hovertemplate=f"%{{text}}<br>{time} {moment}: %{{y:.3g}}<extra></extra>",
        )
        points = []
        for special in scale.special:
            where = np.flatnonzero(special.found(profile))
            texts = [f"{plain(layers[i])}<br>{time} {moment}" for i in where]
            points.append((special, depth[where].tolist(), texts))
        add_special_points(figure, scale, points, edge=color, showlegend=False)
    note_blank(figure, scale)
    return figure


def prediction_figure(
    prediction: Prediction,
    statistic: str,
    *,
    title: str = "",
    scale: Scale | None = None,
) -> go.Figure:
    """Gradient against depth as it is predicted, before there is anything to measure.

    Args:
        prediction: what `predict_gradients` returned.
        title: stands above the figure.
        statistic: one of `prediction.statistics`.
        scale: of the y axis, where figures share one, from `shared_scale`.

    Returns:
        The figure.
    """
    scale = scale or shared_scale([], [prediction], statistic)
    figure = _empty_depth_figure(prediction.layers, title, scale)
    _add_prediction(figure, prediction, scale)
    note_blank(figure, scale)
    return figure


def depth_scale(
    history: GradientHistory, statistic: str, prediction: Prediction | None = None
) -> Scale:
    """The scale of `depth_figure`: of all records, and of the prediction's line and band."""
    return shared_scale([history], [] if prediction is None else [prediction], statistic)


def shared_scale(
    histories: Sequence[GradientHistory], predictions: Sequence[Prediction], statistic: str
) -> Scale:
    """The scale on which figures of several runs compare: of all records, lines and bands."""
    arrays = [history.by_layer(statistic) for history in histories]
    for prediction in predictions:
        dense = [name in prediction.sigma_w2 for name in prediction.layers]
        for one in (prediction.lower, prediction, prediction.upper):
            drawn = one.by_layer(statistic)[0, dense]
            arrays.append(drawn[np.isfinite(drawn) & (drawn > 0)])
    return Scale.of(statistic, arrays)


def _empty_depth_figure(layers: Sequence[str], title: str, scale: Scale) -> go.Figure:
    """An empty panel of magnitude against depth."""
    x_axis = layer_axis_of(layers, 1, NAMED) | {"range": [0.5, len(layers) + 0.5]}
    x_axis |= {"title": {"text": "layer, input → output"}, "tickangle": 40, "showgrid": False}
    figure = new_figure(title, 460, xaxis=x_axis, yaxis=magnitude_axis_of(scale))
    add_strips(figure, scale)
    return figure


def _add_prediction(figure: go.Figure, prediction: Prediction, scale: Scale) -> None:
    """The band, its upper end first, and the line."""
    dense = np.array([name in prediction.sigma_w2 for name in prediction.layers])
    depth = np.flatnonzero(dense) + 1
    low, line, high = (
        one.by_layer(scale.statistic)[0, dense]
        for one in (prediction.lower, prediction, prediction.upper)
    )
    # A band's end at 0 or infinity leaves the axis.
    low, high = np.clip([low, high], *scale.limits)
    color = to_hex(PREDICTED)
    unseen = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_scatter(x=depth, y=high, showlegend=False, legendgroup="band", **unseen)
    fill = {"fill": "tonexty", "fillcolor": "rgba(38,38,38,0.18)"}
    figure.add_scatter(
        x=depth, y=low, name="95 % of networks", legendgroup="band", **unseen, **fill
    )
    figure.add_scatter(
        x=depth,
        y=np.where(scale.ordinary(line), line, np.nan),
        customdata=np.stack([low, high], axis=1),
        text=[plain(prediction.layers[i - 1]) for i in depth],
        mode="lines+markers",
        line={"color": color, "width": 2},
        marker={"symbol": "line-ew", "size": 12, "line": {"width": 2, "color": color}},
        name="predicted",
        hovertemplate="%{text}<br>predicted, epoch 0: %{y:.3g}<br>"
        "95 % from %{customdata[0]:.3g} to %{customdata[1]:.3g}<extra></extra>",
    )


def _add_depth_bar(figure: go.Figure) -> None:
    """The key to the colour of lines, the input on top."""
    bar = {"thickness": 14, "outlinewidth": 0, "tickvals": [0, 1], "ticktext": ["output", "input"]}
    # A bar grows upwards, and the input stands on top.
    ramp = [[1 - place, color] for place, color in reversed(colorscale(DEPTH))]
    key = {"color": [0], "cmin": 0, "cmax": 1, "colorscale": ramp, "showscale": True}
    key |= {"colorbar": bar | {"xpad": 6}}
    figure.add_scatter(
        x=[None], y=[None], mode="markers", marker=key, showlegend=False, hoverinfo="skip"
    )


def _hover(layer: str, shapes: str, time: str, columns: Columns) -> str:
    """What pointing at a line tells. In a template %{ would begin a variable."""
    named = f"{plain(layer)}<br>{shapes}".replace("%{", "%&#123;")
    return f"{named}<br>{when(time, columns)}: %{{y:.3g}}<extra></extra>"

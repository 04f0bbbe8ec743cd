"""Figures of gradient histories: data in, a matplotlib `Figure` out.

The figures are made through pyplot, so that a later `plt.show()` finds them; nothing here shows
one, picks a backend or changes a global setting. Zero, NaN and infinity are drawn, never left out.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kgrad.figures.scale import Scale
from kgrad.figures.static.panels import (
    TIME,
    draw_by_depth,
    draw_heatmap,
    draw_over_time,
    dress_colorbar,
    label_lines,
    ramp,
)
from kgrad.figures.static.parts import (
    add_legend,
    columns_for,
    depth_colorbar,
    keyed,
    new_figure,
    note_blank,
    recorded_epochs,
    require_drawable,
    require_mapping,
    require_replicates,
    spread_out,
    style,
    time_axis,
)
from kgrad.figures.static.predictions import (
    draw_prediction_alone,
    plot_prediction,
    prediction_keys,
    require_predicted,
)
from kgrad.records.deprecations import old_arguments
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

FEW = 8  # as many lines are told apart by name; more by a colour bar


class Profile(NamedTuple):
    """What is drawn against depth at one moment: a label and values, (replicates, layers)."""

    label: str
    values: np.ndarray


def plot_gradients(
    history: GradientHistory | Mapping[str, GradientHistory],
    *,
    title: str = "",
    statistic: str = "mean_abs",
    prediction: Prediction | None = None,
) -> Figure:
    """Draw every layer's gradient over training, as lines and as a heatmap of layer × record.

    Magnitudes are logarithmic; the share of zeros and the number of non-finite steps are linear.
    Values that are exactly 0, NaN or infinite are marked. The time axis counts epochs, or steps if
    an epoch has several records. Several runs are drawn side by side: the axes of time and
    magnitude and the colors are the same for all. Histories of a single record are drawn against
    depth instead.

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

    Example:
        >>> from kgrad.records.history import GradientHistory, Weight
        >>> weight = Weight("dense", "kernel", "dense/kernel", (2,))
        >>> history = GradientHistory([weight], ["l2_norm"])
        >>> history.append(epoch=0, step=0, values={"l2_norm": [0.5]})
        >>> history.append(epoch=1, step=10, values={"l2_norm": [0.25]})
        >>> figure = plot_gradients(history, title="One layer", statistic="l2_norm")
        >>> figure.axes[0].get_ylabel()
        'gradient L2 norm'
    """
    if not isinstance(history, Mapping):
        return _one_run("history", history, title, statistic, prediction)
    if prediction is not None:
        raise ValueError(
            f"prediction must be None if history holds several runs, received "
            f"{type(prediction).__name__}: plot_prediction draws several runs with predictions"
        )
    return _several_runs("history", history, title, statistic, ("lines", "heatmap"))


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
    """
    return _one_run("gradients_history", gradients_history, title, statistic, prediction)


def plot_lines(
    history: GradientHistory | Mapping[str, GradientHistory],
    *,
    title: str = "",
    statistic: str = "mean_abs",
) -> Figure:
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
    if isinstance(history, Mapping):
        return _several_runs("history", history, title, statistic, ("lines",))
    require_drawable({"history": history}, statistic)
    values = history.by_layer(statistic)
    scale = Scale.of(statistic, [values])
    time, (times,) = time_axis([history])
    with style():
        figure = new_figure(title, 5.0)
        _draw_lines(figure, figure.subplots(), values, times, history.layers, scale, time)
        add_legend(figure, scale)
    return figure


def plot_heatmap(
    history: GradientHistory | Mapping[str, GradientHistory],
    *,
    title: str = "",
    statistic: str = "mean_abs",
) -> Figure:
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
    if isinstance(history, Mapping):
        return _several_runs("history", history, title, statistic, ("heatmap",))
    require_drawable({"history": history}, statistic)
    values = history.by_layer(statistic)
    scale = Scale.of(statistic, [values])
    time, (times,) = time_axis([history])
    with style():
        figure = new_figure(title, _height(len(history.layers)))
        _draw_heatmap(figure, figure.subplots(), values, times, history.layers, scale, time)
        add_legend(figure, scale)
    return figure


def compare_gradients(
    histories: Mapping[str, GradientHistory],
    title: str = "Gradients compared",
    statistic: str = "mean_abs",
) -> Figure:
    """Draw several runs side by side: `plot_gradients` of a mapping."""
    return _several_runs("histories", histories, title, statistic, ("lines", "heatmap"))


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
    values = history.by_layer(statistic)
    scale = Scale.of(statistic, [values])
    if len(history) == 1:
        if prediction is not None:
            return plot_prediction(history, prediction, title=title, statistic=statistic)
        return _depth_figure({"": (history.layers, [Profile("", values)])}, title, scale)
    time, (times,) = time_axis([history])
    layers = history.layers
    with style():
        height = _height(len(layers))
        figure = new_figure(title, height if prediction is None else height + 3.4)
        axes = figure.subplot_mosaic("LR" if prediction is None else "LR;DD")
        left, right = axes["L"], axes["R"]
        right.sharex(left)
        _draw_lines(figure, left, values, times, layers, scale, time)
        _draw_heatmap(figure, right, values, times, layers, scale, time)
        keys = []
        if prediction is not None:
            own = draw_prediction_alone(axes["D"], history, prediction, statistic)
            scale = replace(scale, special=tuple(dict.fromkeys((*scale.special, *own.special))))
            keys = prediction_keys(1)
        add_legend(figure, scale, keys)
    return figure


def _height(layers: int) -> float:
    """Return the height in inches of a heatmap that names some of its layers."""
    return float(np.interp(layers, [15, 200], [5.0, 7.5]))


def _draw_lines(
    figure: Figure,
    ax: Axes,
    values: np.ndarray,
    times: np.ndarray,
    layers: Sequence[str],
    scale: Scale,
    time: str,
) -> None:
    """Draw one run's lines, with a key: names beside few lines, otherwise a color bar."""
    draw_over_time(ax, values, times, scale)
    ax.set(xlabel=time, ylabel=scale.label)
    if len(layers) <= FEW:
        label_lines(ax, values[-1], times[-1], layers, scale)
    else:
        depth_colorbar(figure, ax=ax, pad=0.02)
    note_blank(ax, scale)


def _draw_heatmap(
    figure: Figure,
    ax: Axes,
    values: np.ndarray,
    times: np.ndarray,
    layers: Sequence[str],
    scale: Scale,
    time: str,
) -> None:
    """Draw one run's heatmap with its color bar."""
    mesh = draw_heatmap(ax, values, times, layers, scale)
    ax.set(xlabel=time)
    if not scale.blank:
        dress_colorbar(figure.colorbar(mesh, ax=ax, pad=0.03, extend=scale.extend), scale)


def _several_runs(
    argument: str, given: Any, title: str, statistic: str, parts: tuple[str, ...]
) -> Figure:
    """Draw runs side by side on shared scales, each as the parts: "lines" above a "heatmap"."""
    histories = require_mapping(argument, given)
    require_drawable(keyed(argument, histories), statistic)
    values = {name: history.by_layer(statistic) for name, history in histories.items()}
    scale = Scale.of(statistic, list(values.values()))
    if len(parts) == 2 and all(len(history) == 1 for history in histories.values()):
        panels = {n: (h.layers, [Profile("", values[n])]) for n, h in histories.items()}
        return _depth_figure(panels, title, scale)
    time, times = time_axis(histories.values())
    columns = columns_for(len(histories))
    blocks = -(-len(histories) // columns)
    same_layers = len({history.layers for history in histories.values()}) == 1
    with style():
        height = 2 + (4.6 if len(parts) == 2 else 3.0) * blocks
        figure = new_figure(title, height)
        axes = figure.subplots(len(parts) * blocks, columns, sharex=True, squeeze=False)
        for i, (name, history) in enumerate(histories.items()):
            row = len(parts) * (i // columns)
            own = dict(zip(parts, axes[row:, i % columns], strict=False))
            first = i % columns == 0
            if "lines" in own:
                if i:
                    own["lines"].sharey(axes[0, 0])
                draw_over_time(own["lines"], values[name], times[i], scale)
                note_blank(own["lines"], scale)
                own["lines"].set_ylabel(scale.label if first else "")
                own["lines"].tick_params(labelleft=first)
            if "heatmap" in own:
                mesh = draw_heatmap(
                    own["heatmap"], values[name], times[i], history.layers, scale, most=6
                )
                own["heatmap"].tick_params(labelleft=first or not same_layers)
            own[parts[0]].set_title(textwrap.fill(str(name), 26))
            own[parts[-1]].set_xlabel(time)
            own[parts[-1]].tick_params(labelbottom=True)
        for ax in axes[-len(parts) :, columns + len(histories) - columns * blocks :].ravel():
            ax.remove()
        across: dict[str, Any] = {"ax": figure.axes.copy(), "pad": 0.15 / height}
        across |= {"location": "bottom", "aspect": 60}
        if "heatmap" in parts and not scale.blank:
            dress_colorbar(figure.colorbar(mesh, **across, extend=scale.extend), scale)
        if "lines" in parts:
            depth_colorbar(figure, **across)
        add_legend(figure, scale)
    return figure


@old_arguments("epochs", "title", "statistic")
def plot_gradient_by_depth(
    history: GradientHistory | Mapping[str, GradientHistory],
    *,
    title: str = "Gradient against depth",
    epochs: Sequence[int] | None = None,
    statistic: str = "mean_abs",
) -> Figure:
    """Draw gradient against depth, from input to output, at some moments of training.

    Args:
        history: what was measured; or name of the run → what was measured in it, each run drawn
            in a panel of its own on a shared scale.
        epochs: which epochs to draw, each by its last record (0 is before training); by default
            up to five records from the first to the last that all runs have, denser early on.
        title: stands above the figure.
        statistic: one that every history recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `history` is neither a `GradientHistory` nor a mapping of them.
        ValueError: if there is no history or record, the statistic was not recorded, or an epoch
            was not.
    """
    if isinstance(history, GradientHistory):
        groups = {"": [history]}
        require_drawable({"history": history}, statistic)
    else:
        given = require_mapping("history", history)
        groups = {name: [one] for name, one in given.items()}
        require_drawable(keyed("history", given), statistic)
    panels = _profiles(groups, statistic, epochs, 5)
    return _depth_figure(panels, title, _scale_of(panels, statistic))


@old_arguments("epochs", "title", "statistic")
def plot_seed_spread(
    histories: Sequence[GradientHistory] | Mapping[str, Sequence[GradientHistory]],
    *,
    title: str = "Gradient against depth, over seeds",
    epochs: Sequence[int] | None = None,
    statistic: str = "mean_abs",
) -> Figure:
    """Draw gradient against depth for runs that differ in their seed: median, least and greatest.

    The median is taken of logarithms where the axis is logarithmic, with zeros and infinities
    ranked as what they are. A NaN has no rank: it is left out of line and band, and marked.

    Args:
        histories: the replicates; or name → replicates, each group drawn in a panel of its own on
            a shared scale.
        epochs: which epochs to draw, each by its last record (0 is before training); by default
            the first and the last record that all replicates have.
        title: stands above the figure.
        statistic: one that every history recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `histories` is not a sequence of `GradientHistory`, nor a mapping to such.
        ValueError: if there is no history or record, replicates have different layers, the
            statistic was not recorded, or an epoch was not.
    """
    if isinstance(histories, Mapping):
        given = require_mapping("histories", histories)
        groups = {
            name: require_replicates(f"histories[{name!r}]", some) for name, some in given.items()
        }
    else:
        groups = {"": require_replicates("histories", histories)}
    for name, group in groups.items():
        label = f"histories[{name!r}]" if name else "histories"
        require_drawable({f"{label}[{i}]": one for i, one in enumerate(group)}, statistic)
        for i, one in enumerate(group):
            if one.layers != group[0].layers:
                raise ValueError(
                    f"{label} must all have the same layers, but [{i}] has {len(one.layers)} "
                    f"({', '.join(one.layers):.60}) and [0] has {len(group[0].layers)} "
                    f"({', '.join(group[0].layers):.60}): pass runs of one model"
                )
    panels = _profiles(groups, statistic, epochs, 2)
    counts = {len(group) for group in groups.values()}
    seeds = f" of {counts.pop()} seeds" if len(counts) == 1 else " over seeds"
    return _depth_figure(panels, title, _scale_of(panels, statistic), f"least to greatest{seeds}")


Panels = Mapping[str, tuple[Sequence[str], list[Profile]]]


def _depth_figure(panels: Panels, title: str, scale: Scale, band: str = "") -> Figure:
    """One panel a name, each with its profiles, on the scale that is given."""
    columns = columns_for(len(panels))
    rows = -(-len(panels) // columns)
    profiles = next(iter(panels.values()))[1]
    colors = ramp(TIME, len(profiles))
    with style():
        figure = new_figure(title, 1.6 + 3.2 * rows if columns > 1 else 5.5)
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for ax, (name, (layers, profiles)) in zip(axes, panels.items(), strict=False):
            for color, profile in zip(colors, profiles, strict=True):
                most = 5 if columns > 1 else 12
                draw_by_depth(ax, profile.values, layers, scale, color, profile.label, most)
            ax.set(title=textwrap.fill(str(name), 26), xlabel="layer, input → output")
            if ax.get_subplotspec().is_first_col():
                ax.set_ylabel(scale.label)
            note_blank(ax, scale)
        for ax in axes[len(panels) :]:
            ax.remove()
        handles: list[Any] = [
            Line2D([], [], color=color, marker="o", linewidth=2, label=profile.label)
            for color, profile in zip(colors, profiles, strict=True)
            if profile.label
        ]
        if band:
            handles.append(Patch(color="0.8", label=band))
        add_legend(figure, scale, handles)
    return figure


def _profiles(
    groups: Mapping[str, Sequence[GradientHistory]],
    statistic: str,
    epochs: Sequence[int] | None,
    most: int,
) -> Panels:
    """The values to draw against depth, at `epochs` or at `most` moments that all runs have."""
    histories = [history for group in groups.values() for history in group]
    if epochs is None:
        time, times = time_axis(histories)
        common = sorted(set.intersection(*(set(one.tolist()) for one in times)))
        if not common:
            raise ValueError(
                f"the histories must have a recorded {time} in common, received none: pass "
                "runs that were recorded at the same times"
            )
        moments = [common[i] for i in spread_out(len(common), most)]
    else:
        time, times = "epoch", [history.epochs for history in histories]
        moments = recorded_epochs(epochs, times)
    at = iter(times)
    panels = {}
    for name, group in groups.items():
        runs = [(next(at), history.by_layer(statistic)) for history in group]
        # The last record of each moment, of all replicates.
        profiles = [
            Profile(f"{time} {moment}", np.stack([v[t <= moment][-1] for t, v in runs]))
            for moment in moments
        ]
        panels[name] = (group[0].layers, profiles)
    return panels


def _scale_of(panels: Panels, statistic: str) -> Scale:
    """The scale that holds all that the panels draw."""
    return Scale.of(statistic, [one.values for _, some in panels.values() for one in some])

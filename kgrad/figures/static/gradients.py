"""Figures of gradient histories: data in, a matplotlib `Figure` out.

The figures are made through pyplot, so that a later `plt.show()` finds them; nothing here shows
one, picks a backend or changes a global setting. Zero, NaN and infinity are drawn, never left out.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
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
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

FEW = 8  # as many lines are told apart by name; more by a colour bar


class Profile(NamedTuple):
    """What is drawn against depth at one moment: a label and values, (replicates, layers)."""

    label: str
    values: np.ndarray


def visualize_gradients(
    gradients_history: GradientHistory,
    title: str,
    statistic: str = "mean_abs",
    *,
    prediction: Prediction | None = None,
) -> Figure:
    """Draw every layer's gradient over training: as lines, and as a heatmap of layer × record.

    Both are logarithmic (the share of zeros and the number of non-finite steps are linear). What
    is exactly 0, NaN or infinite is marked as such. The time axis counts epochs, or steps where
    an epoch has several records. A history of one record is drawn against depth instead. With a
    prediction there is a panel of epoch 0, as `plot_prediction` draws it, too.

    Args:
        gradients_history: what was measured, of at least one record.
        title: stands above the figure.
        statistic: one of `gradients_history.statistics`.
        prediction: what `predict_gradients` returned for the same model.

    Returns:
        The figure.

    Raises:
        TypeError: if an argument is not of its type.
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
    history = gradients_history
    require_drawable({"gradients_history": history}, statistic)
    if prediction is not None:
        require_predicted("gradients_history", history, "prediction", prediction, statistic)
    values = history.by_layer(statistic)
    scale = Scale.of(statistic, [values])
    if len(history) == 1:
        if prediction is not None:
            return plot_prediction(history, prediction, title, statistic=statistic)
        return _depth_figure({"": (history.layers, [Profile("", values)])}, title, scale)
    time, (times,) = time_axis([history])
    layers = history.layers
    with style():
        height = float(np.interp(len(layers), [15, 200], [5.0, 7.5]))
        figure = new_figure(title, height if prediction is None else height + 3.4)
        axes = figure.subplot_mosaic("LR" if prediction is None else "LR;DD")
        left, right = axes["L"], axes["R"]
        right.sharex(left)
        draw_over_time(left, values, times, scale)
        left.set(xlabel=time, ylabel=scale.label)
        if len(layers) <= FEW:
            label_lines(left, values[-1], times[-1], layers, scale)
        else:
            depth_colorbar(figure, ax=left, pad=0.02)
        note_blank(left, scale)
        mesh = draw_heatmap(right, values, times, layers, scale)
        right.set(xlabel=time)
        if not scale.blank:
            dress_colorbar(figure.colorbar(mesh, ax=right, pad=0.03, extend=scale.extend), scale)
        keys = []
        if prediction is not None:
            own = draw_prediction_alone(axes["D"], history, prediction, statistic)
            scale = replace(scale, special=tuple(dict.fromkeys((*scale.special, *own.special))))
            keys = prediction_keys(1)
        add_legend(figure, scale, keys)
    return figure


def compare_gradients(
    histories: Mapping[str, GradientHistory],
    title: str = "Gradients compared",
    statistic: str = "mean_abs",
) -> Figure:
    """Draw several runs side by side on shared scales: each as lines above a heatmap.

    The axes of time and magnitude and the colours are the same for all runs. If every run has one
    record only, each is drawn against depth.

    Args:
        histories: name of the run → what was measured in it.
        title: stands above the figure.
        statistic: one that every history recorded.

    Returns:
        The figure.

    Raises:
        TypeError: if `histories` is not a mapping of `GradientHistory`.
        ValueError: if it is empty, a history has no records, or the statistic was not recorded.
    """
    histories = require_mapping("histories", histories)
    require_drawable(keyed("histories", histories), statistic)
    values = {name: history.by_layer(statistic) for name, history in histories.items()}
    scale = Scale.of(statistic, list(values.values()))
    if all(len(history) == 1 for history in histories.values()):
        panels = {n: (h.layers, [Profile("", values[n])]) for n, h in histories.items()}
        return _depth_figure(panels, title, scale)
    time, times = time_axis(histories.values())
    columns = columns_for(len(histories))
    blocks = -(-len(histories) // columns)
    same_layers = len({history.layers for history in histories.values()}) == 1
    with style():
        height = 2 + 4.6 * blocks
        figure = new_figure(title, height)
        axes = figure.subplots(2 * blocks, columns, sharex=True, squeeze=False)
        for i, (name, history) in enumerate(histories.items()):
            above, below = axes[2 * (i // columns) :, i % columns][:2]
            if i:
                above.sharey(axes[0, 0])
            draw_over_time(above, values[name], times[i], scale)
            note_blank(above, scale)
            mesh = draw_heatmap(below, values[name], times[i], history.layers, scale, most=6)
            above.set_title(textwrap.fill(str(name), 26))
            below.set_xlabel(time)
            first = i % columns == 0
            above.set_ylabel(scale.label if first else "")
            above.tick_params(labelleft=first)
            below.tick_params(labelleft=first or not same_layers, labelbottom=True)
        for ax in axes[-2:, columns + len(histories) - columns * blocks :].ravel():
            ax.remove()
        across: dict[str, Any] = {"ax": figure.axes.copy(), "pad": 0.15 / height}
        across |= {"location": "bottom", "aspect": 60}
        if not scale.blank:
            dress_colorbar(figure.colorbar(mesh, **across, extend=scale.extend), scale)
        depth_colorbar(figure, **across)
        add_legend(figure, scale)
    return figure


def plot_gradient_by_depth(
    history: GradientHistory | Mapping[str, GradientHistory],
    epochs: Sequence[int] | None = None,
    title: str = "Gradient against depth",
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


def plot_seed_spread(
    histories: Sequence[GradientHistory] | Mapping[str, Sequence[GradientHistory]],
    epochs: Sequence[int] | None = None,
    title: str = "Gradient against depth, over seeds",
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

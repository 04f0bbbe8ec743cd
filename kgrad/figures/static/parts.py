"""What every figure is made with: arguments checked, a look, and keys to what is drawn."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kgrad.figures.scale import Scale
from kgrad.figures.static.panels import DEPTH, special_style
from kgrad.records.checks import did_you_mean
from kgrad.records.history import GradientHistory, require_history
from kgrad.records.statistics import STATISTICS

WIDTH = 10.0  # inches; with the sizes below, text is legible where a figure is 400 pixels wide
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.labelsize": 13,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 13,
    "figure.titlesize": 16,
}


def time_axis(histories: Iterable[GradientHistory]) -> tuple[str, list[np.ndarray]]:
    """What counts the time in all histories, the coarsest that does, and when records were."""
    histories = list(histories)
    for name, times in (
        ("epoch", [history.epochs for history in histories]),
        ("step", [history.steps for history in histories]),
    ):
        if all((np.diff(one) > 0).all() for one in times):
            return name, times
    return "record", [np.arange(len(history)) for history in histories]


def recorded_epochs(epochs: Sequence[int], times: Sequence[np.ndarray]) -> list[int]:
    """The epochs, each once, all of which every history has."""
    if not len(epochs):
        raise ValueError(
            "epochs must name at least one epoch, received none: leave it out for the default"
        )
    for epoch in epochs:
        for known in times:
            if epoch not in known:
                listed = [str(one) for one in np.unique(known)]
                if len(listed) > 8:
                    listed = [*listed[:5], "…", *listed[-2:]]
                raise ValueError(
                    f"epochs must be among those recorded ({', '.join(listed)}), received "
                    f"{epoch!r}: choose one of these"
                )
    return [int(epoch) for epoch in dict.fromkeys(epochs)]


def spread_out(count: int, most: int) -> list[int]:
    """At most `most` indices below `count`, the first and the last, denser at the start."""
    return sorted({round(i) - 1 for i in np.geomspace(1, count, min(most, count))})


@contextmanager
def style() -> Iterator[None]:
    """The look of every figure, for as long as one is made."""
    with sns.axes_style("ticks"), plt.rc_context(STYLE):
        yield


def new_figure(title: str, height: float) -> Figure:
    """An empty figure, known to pyplot, so that `plt.show()` finds it."""
    figure = plt.figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(textwrap.fill(title, 70))
    return figure


def columns_for(count: int) -> int:
    """How many panels stand beside each other."""
    return 2 if count == 4 else min(count, 3)


def depth_colorbar(figure: Figure, **where: Any) -> None:
    """The key to the colour of lines, the input on top or on the left."""
    bar = figure.colorbar(ScalarMappable(cmap=DEPTH), ticks=[0, 1], **where)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    if bar.orientation == "vertical":
        bar.ax.invert_yaxis()
        bar.ax.set_yticklabels(["input", "output"], rotation=90)
        first, last = bar.ax.get_yticklabels()
        first.set_verticalalignment("top")
        last.set_verticalalignment("bottom")
    else:
        bar.set_ticklabels(["input", "output"])
        bar.set_label("depth of the layer")
        first, last = bar.ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")


def note_blank(ax: Axes, scale: Scale) -> None:
    """Say so where there is nothing but zeros, NaN and infinities."""
    if scale.blank:
        note = "no finite value\nabove 0" if scale.logarithmic else "no finite value"
        ax.text(0.5, 0.5, note, transform=ax.transAxes, ha="center", va="center")


def add_legend(figure: Figure, scale: Scale, handles: Sequence[Any] = ()) -> None:
    """One legend under the panels: the handles, then the special values that occur."""
    handles = [
        *handles,
        *(Line2D([], [], label=one.name, **special_style(one)) for one in scale.special),
    ]
    if handles:
        # In inches: a line before each label, and a letter of its size.
        width = 0.7 + 0.1 * max(len(handle.get_label()) for handle in handles)
        rows = -(-len(handles) // max(1, int(figure.get_figwidth() / width)))
        columns = -(-len(handles) // rows)
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def require_mapping(argument: str, given: Any) -> dict[str, Any]:
    """The mapping as a dict."""
    if not isinstance(given, Mapping):
        raise TypeError(
            f"{argument} must map names to histories, received {type(given).__name__}: "
            'pass a dict such as {"relu": history}'
        )
    if not given:
        raise ValueError(f"{argument} must hold at least one history, received an empty mapping")
    return dict(given)


def keyed(argument: str, histories: Mapping[str, Any]) -> dict[str, Any]:
    """The same, each under the expression that names it in an error."""
    return {f"{argument}[{name!r}]": one for name, one in histories.items()}


def require_replicates(argument: str, given: Any) -> list[Any]:
    """The replicates as a list."""
    if isinstance(given, GradientHistory | str) or not isinstance(given, Sequence):
        raise TypeError(
            f"{argument} must be a sequence of histories, received {type(given).__name__}: "
            "pass a list with one history a seed"
        )
    if not given:
        raise ValueError(f"{argument} must hold at least one history, received none")
    return list(given)


def require_drawable(histories: Mapping[str, Any], statistic: str) -> None:
    """Every history, named by its argument, has records, and the statistic in them."""
    for argument, history in histories.items():
        require_history(argument, history)
        if statistic not in history.statistics:
            fix = ": ask for it when you train"
            if statistic not in STATISTICS:
                fix = did_you_mean(statistic, history.statistics, cutoff=0)
            raise ValueError(
                f"statistic must be one that {argument} recorded "
                f"({', '.join(history.statistics)}), received {statistic!r}{fix}"
            )

"""What is shown of runs that have ended, or are looked at: figures in tabs, and findings."""

from collections.abc import Callable, Mapping
from typing import Any

import streamlit as st

from kgrad.apps.page.downloads import downloads
from kgrad.apps.page.drawing import draw
from kgrad.apps.page.figures import profiles
from kgrad.apps.page.runs import Run
from kgrad.apps.page.texts import escaped, observations
from kgrad.figures.interactive import plot_distributions, plot_flow_graph, plot_heatmap
from kgrad.figures.interactive.gradients import depth_figure, lines_figure, shared_scale
from kgrad.records import statistics
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory

TABS = (
    "Observations", "Heatmap", "Lines", "Depth", "Prediction", "Distributions", "Flow graph",
    "Download",
)  # fmt: skip
_MOST_LAYERS = 400


def view(runs: list[Run], statistic: str) -> None:
    """Draw the tabs; what stands in one is made when it is opened."""
    shown = {run.name: history for run in runs if (history := run.history) is not None}
    runs = [run for run in runs if run.name in shown]
    for name, history in shown.items():
        if len(history.layers) > _MOST_LAYERS:
            st.warning(
                f"{escaped(name)} has {len(history.layers):,} layers, more than the {_MOST_LAYERS} "
                "that this page draws. kgrad report draws them."
            )
            return
    statistic = _recorded(shown, statistic)
    places = st.tabs(list(TABS), on_change="rerun", key="view")
    contents: dict[str, Callable[[], None]] = {
        "Observations": lambda: _beside(runs, _observations),
        "Heatmap": lambda: _heatmaps(runs, shown, statistic),
        "Lines": lambda: _lines(runs, shown, statistic),
        "Depth": lambda: _beside(runs, lambda run: _depth(run, shown, statistic)),
        "Prediction": lambda: _predictions(runs, shown, statistic),
        "Distributions": lambda: _beside(runs, _distributions),
        "Flow graph": lambda: _beside(runs, _flow),
        "Download": lambda: _beside(runs, downloads),
    }
    for name, place in zip(TABS, places, strict=True):
        if place.open:
            with place:
                contents[name]()


def kept(run: Run, key: Any, make: Callable[[], Any]) -> Any:
    """What `make` returns, made anew only when the run has grown."""
    key = (key, len(run.history or ()))
    if key not in run.made:
        run.made[key] = make()
    return run.made[key]


def _recorded(shown: Mapping[str, GradientHistory], statistic: str) -> str:
    """The statistic, or one that all runs have."""
    common = [
        name
        for name in next(iter(shown.values())).statistics
        if all(name in history.statistics for history in shown.values())
    ]
    return statistic if statistic in common or not common else common[0]


def _beside(runs: list[Run], content: Callable[[Run], None]) -> None:
    """The same of each run, in columns."""
    for run, column in zip(runs, st.columns(len(runs)), strict=True):
        with column:
            if len(runs) > 1:
                st.markdown(f"**{escaped(run.name)}**")
            content(run)


def _observations(run: Run) -> None:
    history = _history(run)
    for kind, text in kept(run, "observations", lambda: list(observations(history))):
        getattr(st, kind)(text)


def _heatmaps(runs: list[Run], shown: dict[str, GradientHistory], statistic: str) -> None:
    st.caption("One row a layer, the input on top. The colour is a logarithmic magnitude.")
    if len(runs) == 1:
        history = _history(runs[0])
        make = lambda: plot_heatmap(history, statistic=statistic)  # noqa: E731
    else:
        make = lambda: plot_heatmap(shown, statistic=statistic)  # noqa: E731
    draw(kept(runs[-1], ("heatmap", statistic, len(runs)), make), "heatmap")


def _lines(runs: list[Run], shown: dict[str, GradientHistory], statistic: str) -> None:
    st.caption("One line a layer, light at the input.")
    scale = shared_scale(list(shown.values()), [], statistic)

    def content(run: Run) -> None:
        key = ("lines", statistic, scale)
        draw(
            kept(run, key, lambda: lines_figure(_history(run), statistic, scale=scale)),
            f"lines {run.name}",
        )

    _beside(runs, content)


def _depth(run: Run, shown: dict[str, GradientHistory], statistic: str) -> None:
    scale = shared_scale(list(shown.values()), [], statistic)
    draw(
        kept(
            run,
            ("depth", statistic, scale),
            lambda: depth_figure(_history(run), statistic, scale=scale),
        ),
        f"depth {run.name}",
    )


def _predictions(runs: list[Run], shown: dict[str, GradientHistory], statistic: str) -> None:
    """Epoch 0, predicted and measured."""
    st.caption(
        "Before training: dark, what theory expects and the band that holds 95 % of networks "
        "drawn anew, roughly; coloured, what was measured in this one."
    )
    predictions = {
        run.name: run.prediction
        for run in runs
        if run.prediction is not None and statistic in run.prediction.statistics
    }
    first = {name: history for name, history in shown.items() if 0 in history.epochs}
    drawn = profiles(first, predictions, statistic, epochs=[0]) if first else {}

    def content(run: Run) -> None:
        if run.name not in predictions or run.name not in drawn:
            reason = run.unpredicted or "There is no prediction of what this run recorded."
            st.info(escaped(reason))
        if run.name in drawn:
            draw(drawn[run.name], f"prediction {run.name}")

    _beside(runs, content)


def _distributions(run: Run) -> None:
    try:
        figure = kept(run, "distributions", lambda: plot_distributions(_history(run)))
    except ValueError as error:  # none were recorded
        st.info(escaped(error))
        return
    draw(figure, f"distributions {run.name}")


def _flow(run: Run) -> None:
    try:
        figure = kept(
            run,
            "flow",
            lambda: plot_flow_graph(flow_graph_from_history(_history(run)), relative=True),
        )
    except ValueError as error:
        st.info(escaped(error))
        return
    st.caption(
        "What flows back between the layers; red and dashed is below a hundredth of the largest."
    )
    draw(figure, f"flow {run.name}")


def _history(run: Run) -> GradientHistory:
    if run.history is None:
        raise ValueError(f"{run.name} has no record")
    return run.history


STATISTICS = {name: statistics.STATISTICS[name].label for name in ("mean_abs", "l2_norm")}

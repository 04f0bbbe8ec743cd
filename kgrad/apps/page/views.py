"""The tabs below a training or a recording: findings, figures and downloads."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import streamlit as st

from kgrad.apps.findings import consequences_to_markdown, escape_markdown, to_markdown
from kgrad.apps.page.configuration import Configuration, from_experiment
from kgrad.apps.page.downloads import downloads
from kgrad.apps.page.figures import draw, mark_moment, profiles, time_of
from kgrad.apps.page.remedies import cures
from kgrad.apps.page.runs import Run, drawable_predictions
from kgrad.apps.run_groups import diagnose_runs
from kgrad.diagnosis import Finding
from kgrad.figures.distribution_cells import MOST_PANELS
from kgrad.figures.interactive import plot_distributions, plot_heatmap
from kgrad.figures.interactive.depth import depth_figure
from kgrad.figures.interactive.flow import flow_figure
from kgrad.figures.interactive.gradients import lines_figure
from kgrad.figures.selection import shared_scale
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory
from kgrad.records.statistics import STATISTICS
from kgrad.records.summary import summarize

LABELS = {name: STATISTICS[name].label for name in ("mean_abs", "l2_norm")}
TABS = (
    "Observations", "Heatmap", "Lines", "Depth", "Prediction", "Distributions", "Flow graph",
    "Download",
)  # fmt: skip
_MOST_LAYERS = 400
_MOST_REMEDIES = 4  # that are offered for a finding


Apply: TypeAlias = Callable[[Configuration, Configuration], None]


def view(runs: list[Run], statistic: str, record: int, apply: Apply) -> None:
    """Draw the tabs; the content of a tab is made when the tab is opened.

    Args:
        runs: the runs, each with a record.
        statistic: the statistic to draw.
        record: number of the record on show.
        apply: opens a run's configuration beside one with a remedy.
    """
    shown = {run.name: history for run in runs if (history := run.history) is not None}
    for name, history in shown.items():
        if len(history.layers) > _MOST_LAYERS:
            st.warning(
                f"{escape_markdown(name)} has {len(history.layers):,} layers; this page draws at "
                f"most {_MOST_LAYERS}. Use kgrad report instead."
            )
            return
    statistic = _recorded(shown, statistic)
    places = st.tabs(list(TABS), on_change="rerun", key="view")
    contents: dict[str, Callable[[], None]] = {
        "Observations": lambda: _beside(runs, lambda run: _observations(run, apply, len(runs) > 1)),
        "Heatmap": lambda: _heatmaps(runs, shown, statistic, record),
        "Lines": lambda: _lines(runs, shown, statistic, record),
        "Depth": lambda: _depth(runs, shown, statistic, record),
        "Prediction": lambda: _predictions(runs, shown, statistic),
        "Distributions": lambda: _beside(runs, lambda run: _distributions(run, record)),
        "Flow graph": lambda: _beside(runs, lambda run: _flow(run, record)),
        "Download": lambda: _beside(runs, downloads),
    }
    for name, place in zip(TABS, places, strict=True):
        if place.open:
            with place:
                contents[name]()


def kept(run: Run, key: Any, make: Callable[[], Any]) -> Any:
    """Return what `make` returns, and call it again only when the run has grown."""
    key = (key, len(run.history or ()))
    if key not in run.made:
        run.made[key] = make()
    return run.made[key]


class Observed(NamedTuple):
    """An observation about a run.

    Attributes:
        kind: "error", "warning", "success" or "info".
        text: the observation in Markdown.
        finding: the finding that it describes; None if it describes none, or several.
    """

    kind: str
    text: str
    finding: Finding | None = None


def observations(history: GradientHistory) -> Iterator[Observed]:
    """Describe a run in plain words: its findings, then its numbers."""
    diagnoses, reason = diagnose_runs([history])
    if reason:
        yield Observed("info", escape_markdown(f"This run cannot be diagnosed: {reason}"))
        return
    diagnosis = diagnoses[0]
    if not diagnosis:
        yield Observed("success", "Nothing is wrong with the gradients of this run.")
    for place, finding in enumerate([*diagnosis[:1], *diagnosis.also_wrong]):
        kind = "error" if finding.severity == "critical" else "warning"
        yield Observed(kind, to_markdown(finding, place), finding)
    if diagnosis.consequences:
        yield Observed("info", consequences_to_markdown(diagnosis.consequences))
    summary = _summary(history)
    if summary:
        yield Observed("info", escape_markdown(summary))


def _summary(history: GradientHistory) -> str:
    """Return the run's six numbers in a sentence or two."""
    if "loss" not in history.logs or "mean_abs" not in history.statistics:
        return ""
    n = summarize(history)
    text = (
        f"The loss went from {n['loss_first']:.4g} to {n['loss_last']:.4g}. Before training, the "
        f"mean |gradient| was {n['gradient_first']:.2g} in the first hidden layer and "
        f"{n['gradient_last']:.2g} in the last."
    )
    decades = abs(n["decades_per_layer"])
    if decades <= 0.005:
        return text
    change = "shrinks" if n["ratio"] < 1 else "grows"
    return f"{text} Towards the input it {change} by a factor of {10**decades:.3g} per layer."


def _recorded(shown: Mapping[str, GradientHistory], statistic: str) -> str:
    """Return the statistic, or another one that all runs have."""
    common = [
        name
        for name in next(iter(shown.values())).statistics
        if all(name in history.statistics for history in shown.values())
    ]
    return statistic if statistic in common or not common else common[0]


def _beside(runs: list[Run], content: Callable[[Run], None]) -> None:
    """Draw the same content for each run, in columns."""
    for run, column in zip(runs, st.columns(len(runs)), strict=True):
        with column:
            if len(runs) > 1:
                st.markdown(f"**{escape_markdown(run.name)}**")
            content(run)


def _observations(run: Run, apply: Apply, is_compared: bool) -> None:
    """Draw a run's observations, each finding with buttons that apply its remedies.

    Args:
        run: the run.
        apply: as in `view`.
        is_compared: whether another run is on show, which a remedy replaces.
    """
    found = kept(run, "observations", lambda: list(observations(run.recorded())))
    configuration = run.configuration
    if configuration is None:
        configuration = from_experiment(run.recorded().metadata.get("experiment"))
    instead = " in place of the other" if is_compared else ""
    for number, one in enumerate(found):
        getattr(st, one.kind)(one.text)
        if one.finding is None or not one.finding.tries:
            continue
        if configuration is None:
            st.caption(
                "This page applies remedies only to networks that its settings describe; "
                "`kgrad.try_remedies` tries them on your own model."
            )
            continue
        remedies = cures(one.finding, configuration)[:_MOST_REMEDIES]
        if not remedies:
            continue
        st.caption(f"Apply this remedy{instead}, and race the two networks:")
        with st.container(horizontal=True):
            for place, cure in enumerate(remedies):
                clicked = st.button(
                    cure.name,
                    icon=":material/healing:",
                    key=f"cure {run.name} {number} {place}",
                    help=f"Train this network beside one with: {cure.name}.",
                )
                if clicked:
                    apply(configuration, cure.configuration)
                    st.rerun()


def _heatmaps(
    runs: list[Run], shown: dict[str, GradientHistory], statistic: str, record: int
) -> None:
    st.caption("One row per layer, the input on top. The color is a logarithmic magnitude.")
    histories = list(shown.values())
    make = lambda: plot_heatmap(  # noqa: E731
        histories[0] if len(runs) == 1 else shown, statistic=statistic
    )
    figure = kept(runs[-1], ("heatmap", statistic, len(runs)), make)
    longest = max(histories, key=len)
    draw(mark_moment(figure, time_of(longest, histories, record)), "heatmap")


def _lines(runs: list[Run], shown: dict[str, GradientHistory], statistic: str, record: int) -> None:
    st.caption("One line per layer, light at the input.")
    scale = shared_scale(list(shown.values()), [], statistic)

    def content(run: Run) -> None:
        key = ("lines", statistic, scale)
        figure = kept(run, key, lambda: lines_figure(run.recorded(), statistic, scale=scale))
        draw(mark_moment(figure, time_of(run.recorded(), [], record)), f"lines {run.name}")

    _beside(runs, content)


def _depth(runs: list[Run], shown: dict[str, GradientHistory], statistic: str, record: int) -> None:
    """Draw up to five records, up to the one on show, on the scale of all."""
    scale = shared_scale(list(shown.values()), [], statistic)
    _beside(
        runs,
        lambda run: draw(
            depth_figure(run.recorded().first(record + 1), statistic, scale=scale),
            f"depth {run.name}",
        ),
    )


def _predictions(runs: list[Run], shown: dict[str, GradientHistory], statistic: str) -> None:
    """Draw epoch 0, predicted and measured."""
    st.caption(
        "Before training. Dark: the prediction, with the band that holds about 95 % of random "
        "initializations. Colored: this network, measured."
    )
    predictions = drawable_predictions(runs, statistic)
    first = {name: history for name, history in shown.items() if 0 in history.epochs}
    drawn = profiles(first, predictions, statistic, epochs=[0]) if first else {}

    def content(run: Run) -> None:
        if run.name not in predictions:
            reason = run.no_prediction or "the predicted statistics were not recorded"
            st.info(escape_markdown(f"No prediction: {reason}."))
        if run.name in drawn:
            draw(drawn[run.name], f"prediction {run.name}")

    _beside(runs, content)


def _distributions(run: Run, record: int) -> None:
    history = run.recorded()
    try:
        figure = kept(run, "distributions", lambda: plot_distributions(history))
    except ValueError as error:  # none were recorded
        st.info(escape_markdown(error))
        return
    if len(history.layers) > MOST_PANELS:  # over depth, some moments: this one alone
        figure = plot_distributions(history.first(record + 1), epochs=[_epoch_of(history, record)])
    else:
        figure = mark_moment(figure, time_of(history, [], record))
    draw(figure, f"distributions {run.name}")


def _flow(run: Run, record: int) -> None:
    history = run.recorded()
    try:
        epoch = _epoch_of(history, record)
        if (history.epochs == epoch).sum() > 1:  # an epoch is drawn by its last record
            history = history.first(record + 1)
        graph = flow_graph_from_history(history, epoch=epoch)
        figure = flow_figure(graph, relative=True, most=1)
    except ValueError as error:
        st.info(escape_markdown(error))
        return
    st.caption(
        "The gradient that flows back between layers; red and dashed: at most 1 % of the largest."
    )
    draw(figure, f"flow {run.name}")


def _epoch_of(history: GradientHistory, record: int) -> int:
    return int(history.epochs[min(record, len(history) - 1)])

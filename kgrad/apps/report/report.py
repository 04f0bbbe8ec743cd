"""`write_report`: runs in one file that opens offline, with figures linked by epoch."""

import base64
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from kgrad.apps.report.flow_page import MOST_MOMENTS, flow_place
from kgrad.apps.report.html import Place, render
from kgrad.apps.report.reproduce import code_of, description_of, facts_of, metadata_of
from kgrad.apps.report.sweep_page import write_sweep_report
from kgrad.apps.run_groups import RunGroup, group_histories, kind_of_layers, read_groups
from kgrad.figures.flow_looks import NOT_MEASURED
from kgrad.figures.interactive import plot_distributions
from kgrad.figures.interactive.depth import depth_figure
from kgrad.figures.interactive.flow_drawing import FlowDrawing
from kgrad.figures.interactive.gradients import heatmap_figure, lines_figure
from kgrad.figures.interactive.loss import add_loss
from kgrad.figures.interactive.parts import SYMBOLS, described, special_height
from kgrad.figures.looks import MARK
from kgrad.figures.selection import layer_values, require_drawable, shared_scale, time_axis
from kgrad.figures.thinning import notable_records
from kgrad.records.files import written_whole
from kgrad.records.flow_graph import flow_graph_from_history
from kgrad.records.history import GradientHistory, refuse_tracker
from kgrad.records.prediction import Prediction
from kgrad.records.sweep import Sweep

TITLE = "Gradients while training"
_LARGEST = 6_000_000  # bytes
_DRAWN_COLUMNS = (400, 200, 100, 50, 25, 12)  # of a heatmap; the first that fit into the file
_MOST_PARTS = 1000  # of a flow graph
_MOST_OPEN = 40  # layers of a flow graph whose blocks are not folded
Histories = Mapping[str, GradientHistory | Sequence[GradientHistory]] | Sequence[GradientHistory]


def write_report(
    histories: Histories | Sweep,
    path: str | os.PathLike[str],
    title: str = TITLE,
    *,
    statistic: str = "mean_abs",
    predictions: Mapping[str, Prediction] | None = None,
) -> None:
    """Write a report: one HTML file of at most 6 MB that needs no network.

    It opens with what is wrong with each run and what to change, and with the loss and the
    gradients on one time axis. It also has a table of the runs, the findings of `kgrad.diagnose`,
    figures in which one slider marks the same moment, the prediction if the history describes an
    experiment, and how to reproduce each run. Long histories are thinned
    (`kgrad.figures.thinning`). Nothing in a history is executed, neither here nor in the browser.

    The report of a sweep counts the first findings and has maps over the two fields with the most
    values, colored by the decrease of the loss and by the change of the gradient from layer to
    layer. A click on a cell opens its network, as does a click on a row of the table. Of more than
    200 networks it has 200 that are evenly spread over the fields.

    Args:
        histories: the runs, or a sweep. In a sequence, runs of one experiment that differ in the
            seed alone are grouped. A mapping gives names: name → history, or name → histories of
            one experiment; the figures show the first.
        path: the file to write; an existing file is replaced.
        title: the title of the report.
        statistic: the statistic that is drawn; every history must have it.
        predictions: name → prediction, if they are known already; by default they are computed. A
            sweep's networks are not predicted.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if something is not a `GradientHistory`.
        ValueError: if there is no history, or one has no record or lacks the statistic; if a sweep
            has no run that is finished or failed.

    Example:
        >>> import tempfile
        >>> from kgrad.records.history import Weight
        >>> history = GradientHistory([Weight("d", "kernel", "d/kernel", (2, 3))], ["mean_abs"])
        >>> history.append(epoch=0, step=0, values={"mean_abs": [0.5]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report([history], f"{folder}/report.html")
    """
    if isinstance(histories, Sweep):
        write_sweep_report(histories, Path(path), title, statistic)
        return
    _require(histories, statistic)
    if not (predictions is None or isinstance(predictions, Mapping)):
        raise TypeError(
            f"predictions must be a mapping from names, received {type(predictions).__name__}"
        )
    if isinstance(histories, Mapping):
        grouped: dict[str, Sequence[GradientHistory]] = {
            str(name): [some] if isinstance(some, GradientHistory) else some
            for name, some in histories.items()
        }
    else:
        named = {f"history {i}": history for i, history in enumerate(histories, start=1)}
        grouped = dict(group_histories(named))
    write_groups(read_groups(grouped, predictions=predictions), path, title, statistic)


def write_groups(
    groups: Sequence[RunGroup],
    path: str | os.PathLike[str],
    title: str = TITLE,
    statistic: str = "mean_abs",
) -> None:
    """Write the report of groups that are diagnosed and predicted already."""
    sections = [_Section(group, statistic) for group in groups]
    for most in _DRAWN_COLUMNS:
        html = _html(sections, title, statistic, most).encode()
        if len(html) <= _LARGEST:
            break
    with written_whole(path) as draft:
        draft.write_bytes(html)


def _require(histories: Any, statistic: str) -> None:
    """Check that every history can be drawn."""
    refuse_tracker("histories", histories)
    if isinstance(histories, GradientHistory) or not isinstance(histories, Mapping | Sequence):
        raise TypeError(
            f"histories must be a sequence of histories or a mapping to them, received "
            f"{type(histories).__name__}: pass [history]"
        )
    if not len(histories):
        raise ValueError("histories must hold at least one history, received none")
    keyed: dict[str, Any] = {}
    pairs = histories.items() if isinstance(histories, Mapping) else enumerate(histories)
    for key, some in pairs:
        given = some if isinstance(some, list | tuple) else [some]
        if not given:
            raise ValueError(f"histories[{key!r}] must hold at least one history, received none")
        keyed |= {f"histories[{key!r}][{i}]": one for i, one in enumerate(given)}
    require_drawable(keyed, statistic)


class _Section:
    """The part of the report that shows one group.

    Attributes:
        group: the group; without its prediction if that lacks the statistic.
        history: the run that the figures show, the group's first.
        shown: the name of that run, which says its seed if the group has others.
        flow: its flow graph; None if the history does not say how its layers are connected.
        no_flow: the reason why there is no flow graph although the history says that.
        places: the figures' places.
    """

    def __init__(self, group: RunGroup, statistic: str) -> None:
        if group.prediction and statistic not in group.prediction.statistics:
            reason = f"{statistic} is not predicted"
            group = replace(group, prediction=None, no_prediction=reason)
        self.group, self.history = group, group.histories[0]
        self.shown = ", ".join(filter(None, [group.name, group.run(0)]))
        self.places: list[Place] = []
        self.flow: FlowDrawing | None = None
        self.no_flow = ""
        if "graph" in self.history.metadata:  # an assumed chain shows nothing new
            try:
                self.flow = _flow_drawing(self.history)
            except ValueError as error:
                self.no_flow = str(error)
        self.description, self.code = description_of(group), code_of(group)
        self.metadata = metadata_of(self.history)


def _flow_drawing(history: GradientHistory) -> FlowDrawing:
    graph = flow_graph_from_history(history)
    if len(graph) > _MOST_OPEN:
        graph = flow_graph_from_history(history, nested="blocks")
    parts = _parts(graph)
    if parts > _MOST_PARTS:
        raise ValueError(f"it has {parts:,} layers and edges, more than {_MOST_PARTS:,}")
    for node in graph.nodes.values():
        if "inside" in node and _parts(node["inside"]) > _MOST_PARTS:
            del node["inside"]
    return FlowDrawing(graph)


def _parts(graph: nx.DiGraph) -> int:
    return len(graph) + len(graph.edges)


class _Moments:
    """The moments that the slider can mark, in each section's own records.

    Attributes:
        labels: the moments' names.
        times: the moments in the time that all histories count, (moments,).
        records: each history's last record at each moment, (sections, moments).
    """

    def __init__(self, sections: Sequence[_Section], statistic: str, most: int) -> None:
        name, recorded = time_axis([section.history for section in sections])
        every = np.unique(np.concatenate(recorded))
        records = np.stack(
            [np.maximum(np.searchsorted(one, every, "right") - 1, 0) for one in recorded]
        )
        values = [
            table[rows]
            for section, rows in zip(sections, records, strict=True)
            for table in (
                layer_values(section.history, statistic),
                *([section.flow.values] if section.flow else []),
            )
        ]
        kept = notable_records(np.hstack(values), min(most, MOST_MOMENTS))
        self.times, self.records = every[kept], records[:, kept]
        self.labels = [f"{name} {time}" for time in self.times]


def _html(sections: Sequence[_Section], title: str, statistic: str, most: int) -> str:
    """Return the report with heatmaps and lines of at most `most` columns."""
    moments = _Moments(sections, statistic, most)
    drawn = _Drawn(moments)
    shown = {section.shown: section.history for section in sections}
    if len(sections) > 1:
        figure = heatmap_figure(shown, statistic, most=most)
        caption = "One row per layer, the input on top."
    else:
        figure = lines_figure(sections[0].history, statistic, most=most)
        caption = "Every layer over training."
    opening = None
    if len(sections) > 1 or len(sections[0].history) > 1:
        if any("loss" in history.logs for history in shown.values()):
            add_loss(figure, shown, most)
            caption = f"The loss, and below it the gradients at the same time. {caption}"
        opening = drawn.over_time(figure, caption, moments.times)
    for section, records in zip(sections, moments.records, strict=True):
        section.places = list(_places(drawn, section, statistic, most, records, len(sections) == 1))
    groups = [section.group for section in sections]
    rows = [
        row | {"number": number}
        for number, group in enumerate(groups, start=1)
        for row in group.rows()
    ]
    return render(
        "report.html",
        title,
        {"labels": moments.labels, "figures": drawn.figures},
        columns={
            key: name
            for key, name in table_columns(groups).items()
            if any(row.get(key) is not None for row in rows)
        },
        rows=rows,
        facts=facts_of(groups, datetime.now(timezone.utc)),
        opening=opening,
        sections=sections,
        without_edges=[one.group.name for one in sections if one.flow and one.flow.silent],
    )


def table_columns(groups: Sequence[RunGroup]) -> dict[str, str]:
    """Return key of a row → head of its column."""
    kind = kind_of_layers(groups)
    return {
        "loss_first": "loss, first",
        "loss_last": "loss, last",
        "gradient_first": f"mean |gradient|, first {kind}",
        "gradient_last": f"last {kind}",
        "ratio": "ratio",
        "predicted_ratio": "ratio predicted",
        "decades_per_layer": "decades per layer",
    }


def _places(
    drawn: "_Drawn", section: _Section, statistic: str, most: int, records: np.ndarray, alone: bool
) -> Iterator[Place]:
    """Draw a section's figures.

    Args:
        drawn: the page's figures.
        section: the section.
        statistic: the statistic that is drawn.
        most: the most columns of a heatmap or line.
        records: the section's record at each moment.
        alone: whether the report has no other section: it then opens with the lines.
    """
    history, prediction = section.history, section.group.prediction
    _, (times,) = time_axis([history])
    marks = times[records]
    if alone:
        figure = heatmap_figure(history, statistic, most=most)
        yield drawn.over_time(figure, "One row per layer, the input on top.", marks)
    elif len(history) > 1:
        figure = lines_figure(history, statistic, most=most)
        caption = "Every layer over training."
        if "loss" in history.logs:
            add_loss(figure, {"": history}, most)
            caption = "The loss, and below it every layer over training."
        yield drawn.over_time(figure, caption, marks)
    yield drawn.profile(history, prediction, statistic, records)
    if section.flow:
        yield drawn.flow(section.flow, records)
    if history.has_distributions:
        figure = plot_distributions(history)
        caption = "The distribution of each layer's gradient over magnitudes."
        if len(figure.data) and figure.layout.xaxis.tickmode != "array":
            yield drawn.over_time(figure, caption, marks)
        else:
            yield drawn.place(figure, caption)


class _Drawn:
    """The figures of the report, as the page's script takes them.

    Attributes:
        figures: one entry per figure.
    """

    def __init__(self, moments: _Moments) -> None:
        self._labels = moments.labels
        self.figures: list[dict[str, Any]] = []

    def place(self, figure: go.Figure, caption: str, **entry: Any) -> Place:
        """Add a figure; returns its place in the page."""
        identifier = f"figure-{len(self.figures)}"
        drawn = {"id": identifier, "figure": json.loads(figure.to_json() or ""), "marks": None}
        self.figures.append(drawn | entry)
        return Place(identifier, caption)

    def over_time(self, figure: go.Figure, caption: str, marks: np.ndarray) -> Place:
        """Add a figure whose x axes are time, with a line at the marked moment."""
        if len(self._labels) == 1:
            return self.place(figure, caption)
        for axis in _x_axes(figure):
            line = {"color": MARK, "width": 2}
            at = {"xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1}
            at |= {"x0": float(marks[0]), "x1": float(marks[0])}
            figure.add_shape(type="line", name="marked", line=line, **at)
        return self.place(figure, caption, marks=[float(mark) for mark in marks])

    def flow(self, drawing: FlowDrawing, records: np.ndarray) -> Place:
        """Add a flow graph, which shows only the marked moment."""
        rows, place = np.unique(records, return_inverse=True)
        identifier = f"figure-{len(self.figures)}"
        notes = [note for note in drawing.notes if not note.startswith(NOT_MEASURED)]
        notes = ["The marked moment.", *notes]
        flow, figures = flow_place(drawing, identifier, rows.tolist(), place.tolist(), notes=notes)
        self.figures += figures
        return flow

    def profile(
        self,
        history: GradientHistory,
        prediction: Prediction | None,
        statistic: str,
        records: np.ndarray,
    ) -> Place:
        """Add the gradient against depth, with a line that follows the marked moment."""
        figure = depth_figure(history, statistic, prediction=prediction)
        rows, place = np.unique(records, return_inverse=True)
        marked = None
        if len(self._labels) > 1:
            scale = shared_scale([history], [prediction] if prediction else [], statistic)
            values = layer_values(history, statistic)[rows]
            codes = np.zeros(values.shape, "u1")  # 0 for an ordinary number, otherwise from 1
            for code, special in enumerate(scale.special, start=1):
                codes[special.found(values)] = code
            marked = {
                "values": _base64(values.astype("<f8")),
                "codes": _base64(codes),
                "layers": len(history.layers),
                "trace": len(figure.data),
                "special": [
                    {
                        "name": special.name,
                        "symbol": SYMBOLS[special.marker],
                        "height": special_height(scale, special),
                    }
                    for special in scale.special
                ],
            }
            _add_marked_profile(figure, history, f"{self._labels[0]}, marked")
        caption = "From the input to the output; the thick line is the marked moment."
        if prediction is not None:
            caption += " Gray: what theory expects before training."
        return self.place(figure, caption, profile=marked, rows=place.tolist())


def _add_marked_profile(figure: go.Figure, history: GradientHistory, label: str) -> None:
    """Add the traces that the page's script fills: ordinary values, and markers of all values."""
    named = described(history)
    for mode, width, size in (("lines+markers", 3, 8), ("markers", 0, 11)):
        figure.add_scatter(
            x=np.arange(1, len(history.layers) + 1),
            y=[None] * len(history.layers),
            text=named,
            mode=mode,
            line={"color": MARK, "width": width},
            marker={"color": MARK, "size": size},
            name=label,
            showlegend=mode != "markers",
            cliponaxis=mode != "markers",
            hovertemplate="%{text}<br>%{customdata}<extra></extra>",
        )


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()


def _x_axes(figure: go.Figure) -> list[str]:
    """Return the numbers of the x axes with data: "" for the first, "2" for the second."""
    names = dict.fromkeys((trace.xaxis or "x") for trace in figure.data)
    return [name.removeprefix("x") for name in names]

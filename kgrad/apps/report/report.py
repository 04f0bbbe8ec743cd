"""`write_report`: runs in one file that opens offline, with figures linked by epoch."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from kgrad.apps.report.flow_page import flow_entry
from kgrad.apps.report.page import (
    findings,
    flow_notes,
    heading,
    how_to_reproduce,
    overview,
    packed,
    page,
    plot,
    slider,
    what_was_run,
)
from kgrad.apps.report.runs import Network, networks_of
from kgrad.figures.interactive.distributions import plot_distributions
from kgrad.figures.interactive.flow_drawing import FlowDrawing
from kgrad.figures.interactive.gradients import depth_figure, depth_scale, lines_figure
from kgrad.figures.interactive.heatmaps import heatmap_figure
from kgrad.figures.interactive.looks import SYMBOLS, plain, shapes_of, special_height
from kgrad.figures.scale import INFINITE, NAN, ZERO
from kgrad.figures.static.parts import require_drawable, time_axis
from kgrad.figures.thinning import telling
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction

MARK = "#aa4499"
_LARGEST = 6_000_000  # bytes
_COLUMNS = (400, 200, 100, 50, 25, 12)
_MOST_MOMENTS = 200
_SPECIAL = {"zero": ZERO, "infinite": INFINITE, "nan": NAN}

Histories = Mapping[str, GradientHistory | Sequence[GradientHistory]] | Sequence[GradientHistory]


def write_report(
    histories: Histories,
    path: str | os.PathLike[str],
    title: str = "Gradients while training",
    *,
    statistic: str = "mean_abs",
    predictions: Mapping[str, Prediction] | None = None,
) -> None:
    """Write a report: one HTML file of at most 6 MB that needs no network.

    It says what was run, what `kgrad.diagnose` finds, shows figures in which one slider marks the
    same moment, a table, what theory predicts where the run can be rebuilt from what its history
    says, and how to run it again. Long histories are thinned (`kgrad.figures.thinning`). Nothing in
    a history is executed, here or in the browser.

    Args:
        histories: what was measured; runs of one experiment that differ in their seed belong
            together. Or name → history, or histories that do; of these the figures show the first.
        path: where to write; what stands there is replaced.
        title: stands above it.
        statistic: one that every history recorded.
        predictions: name → prediction, where they are known already; by default they are made.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if something is not a `GradientHistory`.
        ValueError: if there is no history, or one has no record or not the statistic.

    Example:
        >>> import tempfile
        >>> from kgrad.records.history import Weight
        >>> history = GradientHistory([Weight("d", "kernel", "d/kernel", (2, 3))], ["mean_abs"])
        >>> history.append(epoch=0, step=0, values={"mean_abs": [0.5]})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_report([history], f"{folder}/report.html")
    """
    _require(histories, statistic)
    networks = networks_of(histories, predictions, statistic)
    plotly = get_plotlyjs()
    for most in _COLUMNS:
        html = _html(networks, title, statistic, most, plotly).encode()
        if len(html) <= _LARGEST:
            break
    Path(path).write_bytes(html)


def _require(histories: Any, statistic: str) -> None:
    """Every history can be drawn."""
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


class _Moments:
    """The moments that the slider can stand at, in every network's own records.

    Attributes:
        labels: what each is called.
        times: each in the time that all networks count, (moments,).
        records: the record of each network that is the last at that moment, (networks, moments).
    """

    def __init__(self, networks: Sequence[Network], statistic: str, most: int) -> None:
        name, recorded = time_axis([network.histories[0] for network in networks])
        every = np.unique(np.concatenate(recorded))
        records = np.stack(
            [np.maximum(np.searchsorted(one, every, "right") - 1, 0) for one in recorded]
        )
        values = [
            table[rows]
            for network, rows in zip(networks, records, strict=True)
            for table in (
                network.histories[0].by_layer(statistic),
                *([network.flow.values] if network.flow else []),
            )
        ]
        kept = telling(np.hstack(values), min(most, _MOST_MOMENTS))
        self.times, self.records = every[kept], records[:, kept]
        self.labels = [f"{name} {time}" for time in self.times]


def _html(networks: Sequence[Network], title: str, statistic: str, most: int, plotly: str) -> str:
    firsts = {network.name: network.histories[0] for network in networks}
    moments = _Moments(networks, statistic, most)
    moving = len(moments.times) > 1
    drawn: list[dict[str, Any]] = []
    sections = [overview(networks)]
    sections += [slider(moments.labels)] if moving else []
    if len(firsts) > 1:
        sections.append("<h2>The same measure, the same scale</h2>")
        figure = heatmap_figure(firsts, statistic, most=most)
        sections.append(_place(drawn, figure, "One row a layer, the input on top.", moments.times))
    for i, network in enumerate(networks):
        history, records = network.histories[0], moments.records[i]
        _, (own,) = time_axis([history])
        sections += [heading(network.name), what_was_run(network), findings(network)]
        if len(history) > 1:
            figure = lines_figure(history, statistic, most=most)
            caption = "Every layer over training."
            sections.append(_place(drawn, figure, caption, own[records]))
        if len(firsts) == 1:
            figure = heatmap_figure(history, statistic, most=most)
            caption = "One row a layer, the input on top."
            sections.append(_place(drawn, figure, caption, own[records]))
        sections.append(_profile(drawn, network, statistic, moments.labels, records))
        if network.flow:
            sections.append(_flow(drawn, network.flow, records))
        if history.distributions.any():
            figure = plot_distributions(history)
            caption = "How large the entries of each layer's gradient are."
            over_time = len(figure.data) and figure.layout.xaxis.tickmode != "array"
            sections.append(_place(drawn, figure, caption, own[records] if over_time else None))
        sections.append(flow_notes(network))
        sections.append(how_to_reproduce(network))
    if not moving:
        for one in drawn:
            one["marks"] = None
    return page(title, sections, packed({"labels": moments.labels, "figures": drawn}), plotly)


def _place(
    drawn: list[dict[str, Any]], figure: go.Figure, caption: str, marks: np.ndarray | None
) -> str:
    """Put a figure among those drawn; where its x axis is time, with a line at each moment."""
    if marks is not None:
        for axis in _x_axes(figure):
            line = {"color": MARK, "width": 2}
            at = {"xref": f"x{axis}", "yref": f"y{axis} domain", "y0": 0, "y1": 1}
            at |= {"x0": float(marks[0]), "x1": float(marks[0])}
            figure.add_shape(type="line", name="marked", line=line, **at)
    identifier = f"figure-{len(drawn)}"
    positions = None if marks is None else [float(mark) for mark in marks]
    drawn.append(
        {"id": identifier, "figure": json.loads(figure.to_json() or ""), "marks": positions}
    )
    return plot(identifier, caption)


def _x_axes(figure: go.Figure) -> list[str]:
    """Numbers of the x axes that data are drawn on: "" for the first, then "2" and so on."""
    names = dict.fromkeys((trace.xaxis or "x") for trace in figure.data)
    return [name.removeprefix("x") for name in names]


def _flow(drawn: list[dict[str, Any]], drawing: FlowDrawing, records: np.ndarray) -> str:
    """The flow graph, which is wholly the marked moment's."""
    rows, place = np.unique(records, return_inverse=True)
    identifier = f"figure-{len(drawn)}"
    drawn.append(flow_entry(drawing, identifier, rows.tolist(), place.tolist()))
    return plot(identifier, f"The marked moment. {' '.join(drawing.notes)}")


def _profile(
    drawn: list[dict[str, Any]],
    network: Network,
    statistic: str,
    labels: Sequence[str],
    records: np.ndarray,
) -> str:
    """Gradient against depth, with a line that is the marked moment's."""
    history, prediction = network.histories[0], network.prediction
    figure = depth_figure(history, statistic, prediction=prediction)
    rows, place = np.unique(records, return_inverse=True)
    values = history.by_layer(statistic)[rows]
    scale = depth_scale(history, statistic, prediction)
    named = [
        f"{plain(name)}<br>{shape}"
        for name, shape in zip(history.layers, shapes_of(history), strict=True)
    ]
    profile = None
    if len(labels) > 1:
        profile = {
            "values": base64.b64encode(values.astype("<f8").tobytes()).decode(),
            "layers": len(history.layers),
            "trace": len(figure.data),
            "strips": {
                key: special_height(scale, one)
                for key, one in _SPECIAL.items()
                if one in scale.special
            },
            "symbols": {key: SYMBOLS[one.marker] for key, one in _SPECIAL.items()},
        }
        for mode, width, size in (("lines+markers", 3, 8), ("markers", 0, 11)):
            figure.add_scatter(
                x=np.arange(1, len(history.layers) + 1),
                y=[None] * len(history.layers),
                text=named,
                mode=mode,
                line={"color": MARK, "width": width},
                marker={"color": MARK, "size": size},
                name=labels[0],
                showlegend=mode != "markers",
                cliponaxis=mode != "markers",
                hovertemplate="%{text}<br>%{customdata}<extra></extra>",
            )
    caption = "From the input to the output; the thick line is the marked moment."
    if prediction is not None:
        caption += " Dark: what theory expects before training."
    section = _place(drawn, figure, caption, None)
    drawn[-1] |= {"profile": profile, "rows": place.tolist()}
    return section

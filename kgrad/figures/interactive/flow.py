"""The interactive flow graph: layers, the gradients between them, and a slider of epochs."""

import textwrap
from collections.abc import Sequence
from typing import Any

import networkx as nx
import plotly.graph_objects as go

from kgrad.figures.interactive.flow_drawing import FlowDrawing
from kgrad.figures.interactive.parts import plain
from kgrad.figures.thinning import notable_records
from kgrad.records.deprecations import old_arguments

_LETTERS = 62  # of a line on a phone
_LINE, _TITLE, _SLIDER = 17, 40, 75  # pixels of height


@old_arguments("title")
def plot_flow_graph(
    graph: nx.DiGraph, *, title: str = "", threshold: float = 0.01, relative: bool = False
) -> go.Figure:
    """Draw a flow graph: the forward pass from top to bottom, and the gradients that flow back.

    A node's size is the gradient norm of its weights, and an edge's width is the norm of the
    gradient that flows back along it, both on logarithmic scales of all epochs. Edges above the
    threshold are green and solid, others red and dashed, and those that were not measured gray and
    dotted. 0, infinity, NaN and a gradient that does not exist have a marker. A slider of epochs
    begins at the graph's own epoch; for a long history it has the records that
    `kgrad.figures.thinning.notable_records` selects.

    Args:
        graph: what `flow_graph`, `flow_graph_from_history` or `graph_from_json` returned.
        title: text above the figure.
        threshold: the norm up to which an edge is red, or with `relative` a share of the largest.
        relative: compare edges with the largest one of their epoch, for models whose gradients are
            all small.

    Returns:
        The figure.

    Raises:
        TypeError: if `graph` is not a graph.
        ValueError: if the graph has no nodes, or the threshold is not a norm or a share.
    """
    return flow_figure(graph, title=title, threshold=threshold, relative=relative)


def flow_figure(
    graph: nx.DiGraph,
    *,
    title: str = "",
    threshold: float = 0.01,
    relative: bool = False,
    width: int = 400,
    most: int = 50,
) -> go.Figure:
    """Draw a flow graph as `plot_flow_graph` does, for a chosen width and length of the slider.

    Args:
        graph: see `plot_flow_graph`.
        title: see `plot_flow_graph`.
        threshold: see `plot_flow_graph`.
        relative: see `plot_flow_graph`.
        width: pixels that the figure is arranged for. It is legible at this width and above; a
            deep graph continues in as many columns as fit.
        most: the largest number of records on the slider, at least 5; 1 draws only the graph's own
            record, without a slider.

    Example:
        >>> graph = nx.DiGraph([("dense", "output")], epoch=1)
        >>> graph.nodes["output"]["gradient_norm"] = 0.8
        >>> graph.edges["dense", "output"]["gradient_norm"] = 0.002
        >>> flow_figure(graph).data[0].line.color  # red: below the threshold
        '#c1272d'
    """
    drawing = FlowDrawing(graph, threshold, relative)
    records = [drawing.own]
    if most > 1:
        records = sorted({drawing.own, *notable_records(drawing.values, most - 1).tolist()})
    arrangement = drawing.arranged(width)
    figure = drawing.figure(arrangement, drawing.own, records, title)
    slider = _slider(drawing, records, arrangement.names) if len(records) > 1 else None
    _add_above(figure, drawing.notes, slider)
    return figure


def _slider(drawing: FlowDrawing, records: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    """Return a slider that restyles the traces where records differ."""
    states = [drawing.restyled(record, names) for record in records]
    moving = [key for key in states[0] if any(one[key] != states[0][key] for one in states)]
    # Below the slider there is room for numbers.
    prefix = "epoch " if "step" not in drawing.labels[0] else ""
    traces = list(range(len(states[0]["text"])))
    steps = [
        {
            "label": drawing.labels[record].removeprefix(prefix),
            "method": "restyle",
            "args": [{key: state[key] for key in moving}, traces],
        }
        for record, state in zip(records, states, strict=True)
    ]
    return {
        "active": list(records).index(drawing.own),
        "steps": steps,
        "currentvalue": {"font": {"size": 15}, "prefix": prefix},
        "y": 1,
        "yanchor": "bottom",
        "pad": {"t": 0, "b": 6, "l": 6, "r": 6},
    }


def _add_above(figure: go.Figure, notes: Sequence[str], slider: dict[str, Any] | None) -> None:
    """Add the notes between the title and the graph, and the slider below them."""
    lines = textwrap.wrap(" ".join(notes), _LETTERS)
    below = _SLIDER if slider else 6
    above = below + _LINE * len(lines) + (_TITLE if figure.layout.title.text else 8)
    figure.add_annotation(
        text="<br>".join(plain(line) for line in lines),
        x=0, xref="paper", xanchor="left", y=1, yref="paper", yanchor="bottom", yshift=below,
        align="left", showarrow=False, font_size=12,
    )  # fmt: skip
    figure.update_layout(
        sliders=[slider] if slider else [],
        title={"yref": "container", "y": 1, "yanchor": "top", "pad": {"t": 12}},
        margin_t=above,
        height=figure.layout.height + above - figure.layout.margin.t,
    )

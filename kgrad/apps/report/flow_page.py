"""`write_flow_graph`: the interactive flow graph in one file that opens offline."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import networkx as nx
from plotly.offline import get_plotlyjs

from kgrad.apps.report.page import packed, page, plot, slider
from kgrad.figures.interactive.flow_drawing import WIDTHS, FlowDrawing
from kgrad.figures.thinning import telling

_MOST_MOMENTS = 200


def write_flow_graph(
    graph: nx.DiGraph,
    path: str | os.PathLike[str],
    title: str = "Flow graph",
    *,
    threshold: float = 0.01,
    relative: bool = False,
) -> None:
    """Write a flow graph as a page with a slider of epochs: one HTML file that needs no network.

    It is the interactive flow graph in the report's page, with the report's policy: nothing in the
    graph is executed. The page arranges the graph anew where it is wide.

    Args:
        graph: what `flow_graph`, `flow_graph_from_history` or `graph_from_json` returned.
        path: where to write; what stands there is replaced.
        title: stands above it.
        threshold: the norm up to which an edge is red, or with `relative` a share of the largest.
        relative: measure edges by the largest one of their epoch.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if `graph` is not a graph.
        ValueError: if it has no nodes, or the threshold is no norm or share.
    """
    drawing = FlowDrawing(graph, threshold, relative)
    records = sorted({drawing.own, *telling(drawing.values, _MOST_MOMENTS).tolist()})
    labels = [drawing.labels[record] for record in records]
    own = records.index(drawing.own)
    entry = flow_entry(drawing, "flow", records, list(range(len(records))))
    sections = [slider(labels, own)] if len(records) > 1 else []
    sections.append(plot("flow", " ".join(drawing.notes)))
    data = packed({"labels": labels, "figures": [entry]})
    Path(path).write_text(page(title, sections, data, get_plotlyjs()), encoding="utf-8")


def flow_entry(
    drawing: FlowDrawing, identifier: str, records: Sequence[int], rows: Sequence[int]
) -> dict[str, Any]:
    """A flow graph as the page's script takes it.

    Args:
        drawing: what is drawn.
        identifier: of its place in the page.
        records: those that the page can show.
        rows: of each moment of the page's slider the place of its record in `records`.
    """
    figure = drawing.figure(drawing.arranged(WIDTHS[0]), records[rows[0]], records)
    return {
        "id": identifier,
        "figure": json.loads(figure.to_json() or ""),
        "marks": None,
        "rows": list(rows),
        "flow": drawing.packed(records),
    }

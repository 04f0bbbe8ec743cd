"""`write_flow_graph`: the interactive flow graph in one file that opens offline."""

import json
import os
from collections.abc import Sequence
from typing import Any

import networkx as nx

from kgrad.apps.report.html import Block, Place, render
from kgrad.figures.flow_looks import OF_WEIGHTS, named
from kgrad.figures.interactive.flow_drawing import WIDTHS, FlowDrawing
from kgrad.figures.thinning import notable_records
from kgrad.records.files import written_whole

MOST_MOMENTS = 200  # of a page's slider


def write_flow_graph(
    graph: nx.DiGraph,
    path: str | os.PathLike[str],
    title: str = "Flow graph",
    *,
    threshold: float = 0.01,
    relative: bool = False,
) -> None:
    """Write a flow graph as one HTML file with a slider over epochs; it needs no network.

    The figure is that of `kgrad.interactive.plot_flow_graph`, arranged again when the window's
    width changes. Nothing in the graph is executed.

    Args:
        graph: a graph from `flow_graph`, `flow_graph_from_history` or `graph_from_json`.
        path: the file to write; an existing file is replaced.
        title: the title of the page.
        threshold: the largest norm at which an edge is red, or with `relative` the largest share
            of the largest norm.
        relative: whether edges are compared with the largest norm of their epoch.

    Raises:
        OSError: if the file cannot be written.
        TypeError: if `graph` is not a graph.
        ValueError: if the graph has no nodes, or the threshold is not a norm or share.
    """
    drawing = FlowDrawing(graph, threshold, relative)
    records = sorted({drawing.own, *notable_records(drawing.values, MOST_MOMENTS).tolist()})
    start = records.index(drawing.own)
    place, figures = flow_place(
        drawing, "flow", records, list(range(len(records))), start=start, notes=drawing.notes
    )
    labels = [drawing.labels[record] for record in records]
    html = render(
        "flow_graph.html",
        title,
        {"labels": labels, "figures": figures},
        start=start,
        place=place,
    )
    with written_whole(path) as draft:
        draft.write_text(html, encoding="utf-8")


def flow_place(
    drawing: FlowDrawing,
    identifier: str,
    records: Sequence[int],
    rows: Sequence[int],
    *,
    start: int = 0,
    notes: Sequence[str],
) -> tuple[Place, list[dict[str, Any]]]:
    """Return a flow graph's place in a page, and its figures as the page's script draws them.

    The first figure is the graph's own, the others are those of its blocks.

    Args:
        drawing: the flow graph.
        identifier: the id of the element to draw in.
        records: the records that the page can show.
        rows: for each moment of the page's slider, the place of its record in `records`.
        start: the moment at which the page opens.
        notes: the sentences below the figure.
    """
    own, inside = _entry(drawing, identifier, records, rows), drawing.inside
    norms = drawing.nodes.shown(records[rows[start]])
    blocks = [
        Block(
            f"{identifier}-{i}",
            drawing.names[i],
            drawing.layers[i],
            f", {named(OF_WEIGHTS, norms[i])}" if norms[i] else "",
        )
        for i in inside
    ]
    own["flow"]["blocks"] = [
        {"node": i, "id": block.identifier} for i, block in zip(inside, blocks, strict=True)
    ]
    figures = [
        _entry(one, block.identifier, records, rows)
        for one, block in zip(inside.values(), blocks, strict=True)
    ]
    caption = " ".join(notes)
    if blocks:
        caption += " A node with a number of layers is folded: click it, or open it below."
    return Place(identifier, caption, tuple(blocks)), [own, *figures]


def _entry(
    drawing: FlowDrawing, identifier: str, records: Sequence[int], rows: Sequence[int]
) -> dict[str, Any]:
    """Return the figure of a flow graph, or of a block, as the page's script draws it."""
    figure = drawing.figure(drawing.arranged(WIDTHS[0]), records[rows[0]], records)
    return {
        "id": identifier,
        "figure": json.loads(figure.to_json() or ""),
        "marks": None,
        "rows": list(rows),
        "flow": drawing.to_json(records) | {"blocks": []},
    }

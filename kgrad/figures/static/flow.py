"""The static flow graph: gradients as sizes of nodes and widths of edges.

The interactive flow graph has the same colors, sizes and words, from `kgrad.figures.flow_looks`,
and the same layout, from `kgrad.figures.flow_layout`.
"""

import math
import textwrap
from collections.abc import Mapping
from typing import Any

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import AbstractPathEffect, withStroke

from kgrad.figures.flow_layout import (
    Grid,
    Layout,
    Room,
    ends_of,
    layered,
    middle_of,
)
from kgrad.figures.flow_looks import (
    AREAS,
    BARE_AREA,
    DATA,
    EDGE_WIDTHS,
    LOOKS,
    NODE,
    NODE_EDGE,
    OF_EDGE,
    OF_WEIGHTS,
    SPECIAL,
    Verdict,
    beside,
    between,
    drawn_norm,
    labels_of,
    limit_of,
    notes_of,
    numbered,
    require_graph,
    scale_of,
    share_of,
    text_of,
    verdict_of,
)
from kgrad.figures.looks import shortened
from kgrad.figures.scale import Scale
from kgrad.figures.static.parts import new_figure, special_style, style
from kgrad.records.deprecations import old_arguments

_LANES = (1.3, 2.5)  # inches from a node to the next one beside it: smallest and largest distance
_LETTER = 0.09  # inches: mean width of a letter of a label
_NUMBER = "0.00012"  # as long as any
_ARROW = 0.2  # inches from a node's center to an arrowhead
_STEEP = 0.5  # inches: an edge that moves less to the side counts as vertical
# Keeps text legible across a line.
_HALO: list[AbstractPathEffect] = [withStroke(linewidth=3, foreground="white")]


@old_arguments("title")
def plot_flow_graph(
    graph: nx.DiGraph, *, title: str = "", threshold: float = 0.01, relative: bool = False
) -> Figure:
    """Draw a flow graph: the forward pass from top to bottom, and the gradients that flow back.

    A node's size is the gradient norm of its weights, and an edge's width is the norm of the
    gradient that flows back along it, both on logarithmic scales of all epochs. Edges above the
    threshold are green and solid, others red and dashed, and those that were not measured gray and
    dotted. 0, infinity, NaN and a gradient that does not exist have a marker. Each norm is written
    beside its node or edge; edges that carry the same signal share one number. A deep graph
    continues in another column.

    Args:
        graph: what `flow_graph`, `flow_graph_from_history` or `graph_from_json` returned.
        title: text above the figure.
        threshold: the norm up to which an edge is red, or with `relative` a share of the largest.
        relative: compare edges with the largest one, for models whose gradients are all small.

    Returns:
        The figure.

    Raises:
        TypeError: if `graph` is not a graph.
        ValueError: if the graph has no nodes, or the threshold is not a norm or a share.
    """
    require_graph(graph)
    norms = [edge.get("gradient_norm") for edge in graph.edges.values()]
    limit = limit_of(norms, threshold, relative)
    layout = layered(graph)
    grid = Grid(layout, _room(graph))
    with style():
        figure = new_figure(title, grid.drawn + 2.4, grid.width)
        ax = figure.add_subplot()
        ax.set(
            xlim=(-grid.room.margin, grid.width - grid.room.margin), ylim=(-grid.drawn + 0.3, 0.45)
        )
        ax.set_axis_off()
        edges, nodes = scale_of(graph.edges.values()), scale_of(graph.nodes.values())
        _draw_edges(ax, graph, layout, grid, edges, limit)
        _draw_nodes(ax, graph, layout, grid, nodes)
        epoch = graph.graph.get("epoch")
        notes = " ".join(
            [
                *([] if epoch is None else [f"Epoch {epoch}."]),
                *notes_of(graph, relative, threshold),
            ]
        )
        ax.set_title(textwrap.fill(notes, int(12 * grid.width)), fontsize=11, loc="left")
        handles = _handles(graph, limit, nodes)
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=2 if grid.width < 8 else 3,
            frameon=False,
            fontsize=11,
            labelspacing=0.8,
        )
    return figure


def _room(graph: nx.DiGraph) -> Room:
    """Return the figure's sizes in inches; the longest label sets the width of a lane."""
    lines = [beside(_label(name), node, _NUMBER) for name, node in graph.nodes.items()]
    lane = 0.45 + _LETTER * max(len(line) for text in lines for line in text.split("\n"))
    return Room(
        row=0.75,
        lane=min(max(_LANES[0], lane), _LANES[1]),
        gutter=0.5,
        loop=0.7,
        margin=0.45,
        least=5.4,
        widest=11.5,
    )


def _draw_edges(
    ax: Axes, graph: nx.DiGraph, layout: Layout, grid: Grid, scale: Scale, limit: float
) -> None:
    """Draw each edge as a curve, with its norm unless another edge of the same signal has it."""
    with_number = set(numbered(graph, layout))
    for source, target in graph.edges:
        edge = graph.edges[source, target]
        norm, way = edge.get("gradient_norm"), layout.ways[source, target]
        verdict = verdict_of(norm, limit)
        color = LOOKS[verdict][0]
        width = EDGE_WIDTHS[0]
        if verdict in ("above", "below"):
            width = between(EDGE_WIDTHS, share_of(norm, scale))
        is_back = (source, target) in layout.back
        path = grid.loop(way) if is_back else grid.path(way)
        patch = PathPatch(
            path, fill=False, edgecolor=color, linestyle=_dashes(verdict, width), linewidth=width
        )
        patch.set_gid(f"{source} → {target}")
        ax.add_patch(patch)
        middle, slope = middle_of(path, _STEEP)
        if is_back:
            ax.plot(*middle, marker="^", color=color, markersize=8)
        else:
            _draw_arrowheads(ax, path, "" if norm is None else color)
        if verdict in SPECIAL:
            ax.plot(*middle, **special_style(SPECIAL[verdict]))
        if norm is not None and (source, target) in with_number:
            offset, horizontal, vertical = (9.0, 0.0), "left", "center"
            if is_back:
                offset, horizontal = (-9.0, 0.0), "right"
            elif slope is None:  # a turn to another column, with room above it
                offset, horizontal, vertical = (0.0, 3.0), "center", "bottom"
            elif slope:
                offset, vertical = (5.0, 4.0 * slope), "bottom" if slope > 0 else "top"
            text = ax.annotate(
                f"{OF_EDGE} {text_of(norm)}",
                middle,
                offset,
                textcoords="offset points",
                ha=horizontal,
                va=vertical,
                color=color if verdict in ("above", "below") else "black",
                fontsize=11,
                zorder=2.5,
            )
            text.set_path_effects(_HALO)


def _draw_arrowheads(ax: Axes, path: Path, color: str) -> None:
    """Draw where data arrive, and where a gradient of this color does; edges end vertically."""
    gradient, data = ends_of(path, _ARROW)
    white: dict[str, Any] = {
        "markerfacecolor": "white",
        "markeredgecolor": DATA,
        "markeredgewidth": 1,
    }
    ax.plot(*data, marker="v", markersize=6, zorder=2.2, gid="data", **white)
    if color:
        ax.plot(*gradient, marker="^", markersize=9, color=color, zorder=2.2, gid="gradient")


def _dashes(verdict: Verdict, width: float) -> Any:
    """Return dashes for matplotlib, which multiplies them by the width of the line."""
    dashes = LOOKS[verdict][1]
    return (0, tuple(dash / width for dash in dashes)) if dashes else "solid"


def _draw_nodes(ax: Axes, graph: nx.DiGraph, layout: Layout, grid: Grid, scale: Scale) -> None:
    """Draw each node as a circle or as a special value's marker, with its name and its norm."""
    for name, node in graph.nodes.items():
        x, y = grid.at(layout.nodes[name])
        norm = _norm_of(node)
        verdict = verdict_of(norm, 0.0)
        if verdict in SPECIAL:
            ax.plot(x, y, zorder=3, **special_style(SPECIAL[verdict]) | {"markersize": 14})
        else:
            look = _node_look(norm, scale)
            ax.scatter([x], [y], zorder=3, gid=name, **look)
        number = "" if norm is None else text_of(norm)
        ax.annotate(
            beside(_label(name), node, number),
            (x, y),
            (15, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=11.5,
            linespacing=1.05,
            parse_math=False,
            zorder=2.6,
        ).set_path_effects(_HALO)


def _norm_of(node: Mapping[str, Any]) -> float | None:
    return drawn_norm(node.get("gradient_norm"), node.get("reason", ""))


def _node_look(norm: float | None, scale: Scale) -> dict[str, Any]:
    """Return the look of a node's circle, as arguments of `Axes.scatter`."""
    if norm is None:
        return {"s": BARE_AREA, "facecolor": "white", "edgecolor": "0.5", "linewidth": 1.2}
    area = between(AREAS, share_of(norm, scale))
    return {"s": area, "facecolor": NODE, "edgecolor": NODE_EDGE, "linewidth": 1.2}


def _label(name: str) -> str:
    return shortened(name, 22)


def _handles(graph: nx.DiGraph, limit: float, scale: Scale) -> list[Any]:
    """Return the legend's entries: edges and markers that occur, smallest and largest node."""
    edges = [edge.get("gradient_norm") for edge in graph.edges.values()]
    nodes = [_norm_of(node) for node in graph.nodes.values()]
    occur = {verdict_of(norm, limit) for norm in edges}
    handles: list[Any] = []
    for verdict, label in labels_of(f"{limit:.2g}").items():
        if verdict in occur or (verdict == "below" and "zero" in occur):
            look = {"color": LOOKS[verdict][0], "linestyle": _dashes(verdict, 2.5)}
            handles.append(Line2D([], [], linewidth=2.5, label=label, **look))
    occur |= {verdict_of(norm, 0.0) for norm in nodes}
    for verdict, special in SPECIAL.items():
        if verdict in occur:
            handles.append(Line2D([], [], label=special.name, **special_style(special)))
    finite = [n for n in nodes if n is not None and 0 < n < math.inf]
    for norm in sorted({min(finite), max(finite)}) if finite else []:
        look = _node_look(norm, scale)
        handles.append(_circle(look, f"node: {OF_WEIGHTS} {text_of(norm)}"))
    if None in nodes:
        handles.append(_circle(_node_look(None, scale), "node: not measured"))
    return handles


def _circle(look: dict[str, Any], label: str) -> Line2D:
    """Return a legend entry that looks like the node with this `_node_look`."""
    return Line2D(
        [],
        [],
        linestyle="none",
        marker="o",
        markersize=math.sqrt(look["s"]),
        markerfacecolor=look["facecolor"],
        markeredgecolor=look["edgecolor"],
        label=label,
    )

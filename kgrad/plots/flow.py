"""The flow graph as a figure: nodes as large, edges as thick as the gradient that they carry."""

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch
from matplotlib.patheffects import AbstractPathEffect, withStroke

from kgrad.flow.layout import Layout, layered
from kgrad.flow.verdicts import Verdict, limit_of, verdict_of
from kgrad.plots.flow_grid import MARGIN, Grid, middle_of
from kgrad.plots.panels import shortened, special_style
from kgrad.plots.parts import new_figure, style
from kgrad.plots.scale import INFINITE, NAN, ZERO, Scale, Special

# Colour, and dashes in points. A blue green and a dark red differ to every kind of colour vision.
LOOKS: dict[Verdict, tuple[str, tuple[float, ...]]] = {
    "above": ("#00915f", ()),
    "below": ("#c1272d", (7, 4)),
    "zero": ("#c1272d", (7, 4)),
    "NaN": (NAN.color, (6, 2, 1, 2)),
    "infinite": (INFINITE.color, ()),
    "not measured": ("0.55", (1.2, 2.4)),
}
SPECIAL: dict[Verdict, Special] = {"zero": ZERO, "NaN": NAN, "infinite": INFINITE}

AREAS = (70.0, 520.0)  # points², of a node
WIDTHS = (1.2, 6.0)  # points, of an edge
HALO: list[AbstractPathEffect] = [
    withStroke(linewidth=3, foreground="white")
]  # text stays legible across a line


def plot_flow_graph(
    graph: nx.DiGraph, title: str, *, threshold: float = 0.01, relative: bool = False
) -> Figure:
    """Draw a flow graph: the forward pass from top to bottom, and the gradients that come back.

    A node is as large as the gradient of its weights, an edge as thick as the signal that it
    carries back, both on a logarithmic scale from the smallest to the largest. Edges above the
    threshold are green and solid, others red and dashed. 0, NaN and infinity have a marker, what
    was not measured is dotted. A number stands at each node, and one below it: the signal at its
    output, once for all edges that carry the same. A deep graph goes on in another column.

    Args:
        graph: what `flow_graph` or `graph_from_json` returned.
        title: stands above the figure.
        threshold: the norm up to which an edge is red, or with `relative` a share of the largest.
        relative: measure edges by the largest one: what is small depends on the model.

    Returns:
        The figure.

    Raises:
        TypeError: if `graph` is not a graph.
        ValueError: if it has no nodes, or the threshold is no norm or share.
    """
    if not isinstance(graph, nx.DiGraph):
        raise TypeError(
            f"graph must be a networkx DiGraph, received {type(graph).__name__}: "
            "pass what flow_graph returned"
        )
    if not graph:
        raise ValueError("graph must have at least one node, received none")
    norms = [edge.get("gradient_norm") for edge in graph.edges.values()]
    limit = limit_of(norms, threshold, relative)
    layout = layered(graph)
    grid = Grid(layout, max(len(_label(name)) for name in graph))
    with style():
        figure = new_figure(title, grid.height)
        figure.set_size_inches(grid.width, grid.height)
        figure.suptitle(textwrap.fill(title, int(6.5 * grid.width)))
        ax = figure.add_subplot()
        ax.set(xlim=(-MARGIN, grid.width - MARGIN), ylim=(-grid.drawn + 0.3, 0.45))
        ax.set_axis_off()
        edges, nodes = _scale(norms), _scale(n.get("gradient_norm") for n in graph.nodes.values())
        _draw_edges(ax, graph, layout, grid, edges, limit)
        _draw_nodes(ax, graph, layout, grid, nodes)
        notes = _notes(graph, relative, threshold)
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


def _scale(norms: Iterable[float | None]) -> Scale:
    values = [np.nan if norm is None else norm for norm in norms]
    return Scale.of("l2_norm", [np.array(values, dtype=np.float64)])


def _share(norm: float, scale: Scale) -> float:
    """Where a norm stands on a scale, from 0 to 1."""
    low, high = math.log10(scale.low), math.log10(scale.high)
    return min(max((math.log10(norm) - low) / (high - low), 0.0), 1.0)


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share


def _draw_edges(
    ax: Axes, graph: nx.DiGraph, layout: Layout, grid: Grid, scale: Scale, limit: float
) -> None:
    said = set()
    # The shortest first: it is the one that carries the number.
    for source, target in sorted(graph.edges, key=lambda edge: len(layout.ways[edge])):
        edge = graph.edges[source, target]
        norm, way = edge.get("gradient_norm"), layout.ways[source, target]
        verdict = verdict_of(norm, limit)
        color = LOOKS[verdict][0]
        width = WIDTHS[0]
        if verdict in ("above", "below"):
            width = _between(WIDTHS, _share(norm, scale))
        is_back = (source, target) in layout.back
        path = grid.loop(way) if is_back else grid.path(way)
        patch = PathPatch(
            path, fill=False, edgecolor=color, linestyle=_dashes(verdict, width), linewidth=width
        )
        patch.set_gid(f"{source} → {target}")
        ax.add_patch(patch)
        middle, slope = middle_of(path)
        if is_back:
            ax.plot(*middle, marker="^", color=color, markersize=8)
        if verdict in SPECIAL:
            ax.plot(*middle, **special_style(SPECIAL[verdict]))
        output = (source, edge.get("outputs", ()), _text(norm) if norm is not None else "")
        if norm is not None and output not in said:
            said.add(output)
            place, across, up = (9.0, 0.0), "left", "center"
            if is_back:
                place, across = (-9.0, 0.0), "right"
            elif slope is None:  # a turn to another column, above which there is room
                place, across, up = (0.0, 3.0), "center", "bottom"
            elif slope:
                place, up = (5.0, 4.0 * slope), "bottom" if slope > 0 else "top"
            text = ax.annotate(
                _text(norm),
                middle,
                place,
                textcoords="offset points",
                ha=across,
                va=up,
                color=color if verdict in ("above", "below") else "black",
                fontsize=11,
                zorder=2.5,
            )
            text.set_path_effects(HALO)


def _dashes(verdict: Verdict, width: float) -> Any:
    """Dashes as matplotlib takes them, which multiplies them by the width of the line."""
    dashes = LOOKS[verdict][1]
    return (0, tuple(dash / width for dash in dashes)) if dashes else "solid"


def _draw_nodes(ax: Axes, graph: nx.DiGraph, layout: Layout, grid: Grid, scale: Scale) -> None:
    for name, node in graph.nodes.items():
        x, y = grid.at(layout.nodes[name])
        norm = node.get("gradient_norm")
        verdict = verdict_of(norm, 0.0)
        if verdict in SPECIAL:
            ax.plot(x, y, zorder=3, **special_style(SPECIAL[verdict]) | {"markersize": 14})
        else:
            look = _node_look(norm, scale)
            ax.scatter([x], [y], zorder=3, gid=name, **look)
        second = "" if norm is None else f"\n{_text(norm)}"
        ax.annotate(
            _label(name) + second,
            (x, y),
            (15, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            fontsize=11.5,
            linespacing=1.05,
            parse_math=False,
            zorder=2.6,
        ).set_path_effects(HALO)


def _node_look(norm: float | None, scale: Scale) -> dict[str, Any]:
    if norm is None:
        return {"s": 60, "facecolor": "white", "edgecolor": "0.5", "linewidth": 1.2}
    area = _between(AREAS, _share(norm, scale))
    return {"s": area, "facecolor": "0.8", "edgecolor": "0.15", "linewidth": 1.2}


def _label(name: str) -> str:
    return shortened(name, 18)


def _text(norm: float) -> str:
    if math.isinf(norm):
        return "∞"
    return "NaN" if math.isnan(norm) else f"{norm:.2g}"


def _notes(graph: nx.DiGraph, relative: bool, threshold: float) -> str:
    epoch = graph.graph.get("epoch")
    notes = [] if epoch is None else [f"Epoch {epoch}."]
    notes.append("Down: the forward pass. At a node: ‖∂L/∂W‖; on an edge: ‖∂L/∂a‖ coming back.")
    if relative:
        notes.append(f"Threshold: {threshold:g} of the largest edge.")
    if graph.graph.get("assumed"):
        notes.append("The edges are assumed: the model does not tell how its layers are joined.")
    edges = list(graph.edges.values())
    reasons = {edge.get("reason") or "no number was given" for edge in edges}
    if edges and all(edge.get("gradient_norm") is None for edge in edges) and len(reasons) == 1:
        notes.append(f"Edges were not measured: {reasons.pop()}.")
    return " ".join(notes)


def _handles(graph: nx.DiGraph, limit: float, scale: Scale) -> list[Any]:
    """The key: what lines and markers mean, as far as they occur; the sizes of nodes."""
    edges = [edge.get("gradient_norm") for edge in graph.edges.values()]
    nodes = [node.get("gradient_norm") for node in graph.nodes.values()]
    occur = {verdict_of(norm, limit) for norm in edges}
    labels: dict[Verdict, str] = {
        "above": f"edge above {limit:.2g}",
        "below": f"edge at or below {limit:.2g}",
        "not measured": "edge: not measured",
    }
    handles: list[Any] = []
    for verdict, label in labels.items():
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
        handles.append(_circle(look, f"node: {norm:.2g}"))
    if None in nodes:
        handles.append(_circle(_node_look(None, scale), "node without a gradient"))
    return handles


def _circle(look: dict[str, Any], label: str) -> Line2D:
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

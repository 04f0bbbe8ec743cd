"""What a flow graph is drawn with, on paper and on a page: colours, dashes, sizes and words."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import networkx as nx
import numpy as np

from kgrad.figures.flow_layout import Edge, Layout
from kgrad.figures.flow_verdicts import Verdict
from kgrad.figures.scale import INFINITE, NAN, ZERO, Scale, Special

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

AREAS = (70.0, 520.0)  # of a node, and of one without a gradient: squares of diameters in points
BARE_AREA = 60.0
WIDTHS = (1.2, 6.0)  # points, of an edge
NODE, NODE_EDGE = "0.8", "0.15"


def require_graph(graph: Any) -> None:
    """It is a graph, and has something to draw."""
    if not isinstance(graph, nx.DiGraph):
        raise TypeError(
            f"graph must be a networkx DiGraph, received {type(graph).__name__}: "
            "pass what flow_graph returned"
        )
    if not graph:
        raise ValueError("graph must have at least one node, received none")


def scale_of(parts: Iterable[Mapping[str, Any]]) -> Scale:
    """The scale of the norms of nodes or edges: of all records, so that epochs compare."""
    norms = [n for part in parts for n in (part.get("gradient_norm"), *part.get("norms", ()))]
    known = [norm for norm in norms if norm is not None]
    return Scale.of("l2_norm", [np.array(known, dtype=np.float64)])


def share_of(norm: Any, scale: Scale) -> Any:
    """Where a norm, or an array of norms, stands on a scale, from 0 to 1."""
    low, high = math.log10(scale.low), math.log10(scale.high)
    return np.clip((np.log10(norm) - low) / (high - low), 0.0, 1.0)


def between(ends: tuple[float, float], share: Any) -> Any:
    """The number, or the array of numbers, at a share of the way from one end to the other."""
    return ends[0] + (ends[1] - ends[0]) * share


def text_of(norm: float) -> str:
    """A norm in two digits."""
    if math.isinf(norm):
        return "∞"
    return "NaN" if math.isnan(norm) else f"{norm:.2g}"


def numbered(graph: nx.DiGraph, layout: Layout) -> list[Edge]:
    """The edges that have a number: of those that carry the same signal the shortest."""
    said: dict[tuple[Any, ...], Edge] = {}
    for ends in sorted(graph.edges, key=lambda edge: len(layout.ways[edge])):
        edge = graph.edges[ends]
        norms = edge.get("norms") or (edge.get("gradient_norm"),)
        if any(norm is not None for norm in norms):
            # As bytes: NaN is not equal to itself.
            signal = np.array(norms, dtype=np.float64).tobytes()
            said.setdefault((ends[0], edge.get("outputs", ()), signal), ends)
    return list(said.values())


def labels_of(threshold: str) -> dict[Verdict, str]:
    """What the key says of edges.

    Args:
        threshold: what they are measured by, in words.
    """
    return {
        "above": f"edge above {threshold}",
        "below": f"edge at or below {threshold}",
        "not measured": "edge: not measured",
    }


def notes_of(graph: nx.DiGraph, relative: bool, threshold: float) -> list[str]:
    """What is to be known about all epochs of a figure, in sentences."""
    notes = ["Down: the forward pass. At a node: ‖∂L/∂W‖; on an edge: ‖∂L/∂a‖ coming back."]
    if relative:
        notes.append(f"Threshold: {threshold:g} of the largest edge.")
    if graph.graph.get("assumed"):
        notes.append("The edges are assumed: the model does not tell how its layers are joined.")
    edges = list(graph.edges.values())
    reasons = {edge.get("reason") or "no number was given" for edge in edges}
    silent = all(edge.get("gradient_norm") is None and not edge.get("norms") for edge in edges)
    if edges and silent and len(reasons) == 1:
        notes.append(f"Edges were not measured: {reasons.pop()}.")
    return notes

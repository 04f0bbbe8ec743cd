"""The flow graph's verdicts on norms, and their look: colors, dashes, sizes and words."""

import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import networkx as nx
import numpy as np

from kgrad.figures.flow_layout import Edge, Layout
from kgrad.figures.scale import INFINITE, NAN, NO_PATH, NOT_UPDATED, ZERO, Scale, Special
from kgrad.records import statistics

Verdict = Literal[
    "above", "below", "zero", "NaN", "infinite", "no path", "not updated", "not measured"
]

# Color, and dashes in points. A blue green and a dark red differ for every kind of color vision.
NOT_MEASURED = "Edges were not measured"  # the beginning of a note
LOOKS: dict[Verdict, tuple[str, tuple[float, ...]]] = {
    "above": ("#00915f", ()),
    "below": ("#c1272d", (7, 4)),
    "zero": ("#c1272d", (7, 4)),
    "NaN": (NAN.color, (6, 2, 1, 2)),
    "infinite": (INFINITE.color, ()),
    "not measured": ("0.55", (1.2, 2.4)),
}
SPECIAL: dict[Verdict, Special] = {
    "zero": ZERO,
    "infinite": INFINITE,
    "NaN": NAN,
    "no path": NO_PATH,
    "not updated": NOT_UPDATED,
}
_BITS: dict[bytes, Verdict] = {  # faster than `Special.found`, once per part and record
    struct.pack("d", NO_PATH.value): "no path",
    struct.pack("d", NOT_UPDATED.value): "not updated",
}
_MISSING = {statistics.NO_PATH: NO_PATH.value, statistics.NOT_UPDATED: NOT_UPDATED.value}

AREAS = (70.0, 520.0)  # of nodes, and of one without a gradient: squares of diameters in points
BARE_AREA = 60.0
OF_WEIGHTS, OF_EDGE = "∂W", "∂a"  # what the numbers of nodes and of edges are called
_LONGEST = 4  # digits before the point
EDGE_WIDTHS = (1.2, 6.0)  # points, of an edge
NODE, NODE_EDGE = "0.8", "0.15"
DATA = (
    "0.35"  # of the arrowheads along which data flows; those of gradients have their edge's color
)


def limit_of(norms: Iterable[float | None], threshold: float, relative: bool) -> float:
    """Return the norm up to which a gradient counts as small.

    Args:
        norms: the norms of all edges; None for one that was not measured.
        threshold: a norm, or with `relative` a share of the largest finite one of `norms`.
        relative: see `threshold`.

    Raises:
        ValueError: if the threshold is no finite number of at least 0, or a share above 1.
    """
    is_number = isinstance(threshold, int | float) and not isinstance(threshold, bool)
    if not is_number or not 0 <= threshold < (math.inf if not relative else 1 + 1e-12):
        accepted = "a share from 0 to 1" if relative else "a finite number of at least 0"
        raise ValueError(f"threshold must be {accepted}, received {threshold!r}")
    if not relative:
        return float(threshold)
    return threshold * max((n for n in norms if n is not None and math.isfinite(n)), default=0.0)


def drawn_norm(norm: float | None, reason: str) -> float | None:
    """Return a norm, or the special value that is drawn if there is none for this reason."""
    return _MISSING.get(reason) if norm is None else norm


def verdict_of(norm: float | None, limit: float) -> Verdict:
    """Return the verdict on what `drawn_norm` returned: a norm at or below the limit is small."""
    if norm is None:
        return "not measured"
    if math.isnan(norm):
        return _BITS.get(struct.pack("d", norm), "NaN")
    if math.isinf(norm):
        return "infinite"
    if norm == 0:
        return "zero"
    return "above" if norm > limit else "below"


def require_graph(graph: Any) -> None:
    """Check that the argument `graph` is a graph with at least one node."""
    if not isinstance(graph, nx.DiGraph):
        raise TypeError(
            f"graph must be a networkx DiGraph, received {type(graph).__name__}: "
            "pass what flow_graph returned"
        )
    if not graph:
        raise ValueError("graph must have at least one node, received none")


def scale_of(parts: Iterable[Mapping[str, Any]]) -> Scale:
    """Return the scale of the norms of nodes or edges at all records, so that epochs compare."""
    norms = [n for part in parts for n in (part.get("gradient_norm"), *part.get("norms", ()))]
    known = [norm for norm in norms if norm is not None]
    return Scale.of("l2_norm", [np.array(known, dtype=np.float64)])


def share_of(norm: Any, scale: Scale) -> Any:
    """Return the place of a norm, or of an array of norms, on a scale, from 0 to 1."""
    low, high = math.log10(scale.low), math.log10(scale.high)
    return np.clip((np.log10(norm) - low) / (high - low), 0.0, 1.0)


def between(ends: tuple[float, float], share: Any) -> Any:
    """Return the number, or the array of numbers, at a share of the way between two ends."""
    return ends[0] + (ends[1] - ends[0]) * share


def text_of(norm: float) -> str:
    """Return a norm with two digits, or the short name of a special value."""
    verdict = verdict_of(norm, 0.0)
    if verdict in SPECIAL:
        return SPECIAL[verdict].short
    mantissa, exponent = f"{norm:.1e}".split("e")
    if -4 <= int(exponent) < _LONGEST:
        return f"{float(f'{norm:.1e}'):g}"
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def beside(name: str, node: Mapping[str, Any], number: str) -> str:
    """Return the text beside a node: its name, then what it is and its number, if it has one.

    Args:
        name: the node's name, shortened; "" for none.
        node: the node's attributes.
        number: the text of its norm; "" for none.
    """
    known = [layers_in(node), f"{OF_WEIGHTS} {number}" if number else ""]
    return "\n".join(filter(None, [name, ", ".join(filter(None, known))]))


def layers_in(node: Mapping[str, Any]) -> str:
    """Return the number of layers of a node that others are folded into; otherwise ""."""
    count = len(node.get("folded", ()))
    return f"{count} layer{'s' * (count != 1)}" if count else ""


def numbered(graph: nx.DiGraph, layout: Layout) -> list[Edge]:
    """Return the edges that have a number: the shortest of those that carry the same signal."""
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
    """Return the legend's names of edges.

    Args:
        threshold: the threshold, in words.
    """
    return {
        "above": f"edge above {threshold}",
        "below": f"edge at or below {threshold}",
        "not measured": "edge: not measured",
    }


def notes_of(graph: nx.DiGraph, relative: bool, threshold: float) -> list[str]:
    """Return notes that hold at all epochs of a figure, in sentences."""
    notes = [
        f"Data flows down (▽), gradients up (▲). {OF_WEIGHTS}: gradient norm of a node's weights, "
        f"‖∂L/∂W‖. {OF_EDGE}: norm of the gradient that flows back along an edge, ‖∂L/∂a‖."
    ]
    if relative:
        notes.append(f"Threshold: {threshold:g} of the largest edge.")
    if graph.graph.get("assumed"):
        notes.append("The edges are assumed: the model does not say how its layers are connected.")
    edges = list(graph.edges.values())
    reasons = {edge.get("reason") or "no number was given" for edge in edges}
    silent = all(edge.get("gradient_norm") is None and not edge.get("norms") for edge in edges)
    if edges and silent and len(reasons) == 1:
        notes.append(f"{NOT_MEASURED}: {reasons.pop()}.")
    return notes

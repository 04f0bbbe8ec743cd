"""A model's graph as a history's file has it: checked, folded, or a chain where there is none."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

Crossing = tuple[str | None, ...]


class Node(NamedTuple):
    """One layer, or a nested model that is folded.

    Attributes:
        name: the layer's, unique.
        kind: name of its class.
        within: the nested models that it is part of, outermost first.
        layers: the layers of a history that it is or holds.
    """

    name: str
    kind: str
    within: tuple[str, ...]
    layers: tuple[str, ...]


class Topology(NamedTuple):
    """Which node hands its output to which.

    Attributes:
        nodes: in the order of their first call.
        edges: (source, target) → what crosses, by its name in `GradientHistory.outputs`, None for
            what no probe sees.
        assumed: whether the edges are a guess.
    """

    nodes: tuple[Node, ...]
    edges: dict[tuple[str, str], Crossing]
    assumed: bool


def chain(layers: Sequence[str]) -> Topology:
    """Layers one behind the other: what is assumed where a file does not say."""
    nodes = tuple(Node(name, "", (), (name,)) for name in layers)
    edges: dict[tuple[str, str], Crossing] = {
        (source, target): (source,) for source, target in pairwise(layers)
    }
    return Topology(nodes, edges, assumed=True)


def topology_of(described: Any) -> Topology:
    """The graph that a history's metadata describe.

    Raises:
        ValueError: if it is none.
    """
    fields = described if isinstance(described, Mapping) else {}
    given_nodes, given_edges = fields.get("nodes"), fields.get("edges")
    if not isinstance(given_nodes, list) or not isinstance(given_edges, list):
        raise ValueError(f"graph must have lists of nodes and of edges, received {described!r:.80}")
    nodes: dict[str, Node] = {}
    for given in given_nodes:
        node = _node(given)
        if node.name in nodes:
            raise ValueError(f"graph must have distinct nodes, received {node.name!r:.80} twice")
        nodes[node.name] = node
    edges: dict[tuple[str, str], Crossing] = {}
    for given in given_edges:
        source, target, crossing = _edge(given)
        if source not in nodes or target not in nodes:
            raise ValueError(f"graph must have edges between its nodes, received {given!r:.80}")
        edges[source, target] = crossing
    return Topology(tuple(nodes.values()), edges, bool(fields.get("assumed", False)))


def folded(topology: Topology) -> Topology:
    """The same with each outermost nested model as one node."""
    homes = {node.name: node.within[0] if node.within else node.name for node in topology.nodes}
    nodes: dict[str, Node] = {}
    for node in topology.nodes:
        name = homes[node.name]
        before = nodes[name].layers if name in nodes else ()
        kind = "Model" if node.within else node.kind
        nodes[name] = Node(name, kind, (), tuple(dict.fromkeys((*before, *node.layers))))
    edges: dict[tuple[str, str], Crossing] = {}
    within = {node.name: node.within[:1] for node in topology.nodes}
    for (source, target), crossing in topology.edges.items():
        if within[source] and within[source] == within[target]:
            continue
        ends = homes[source], homes[target]
        edges[ends] = tuple(dict.fromkeys((*edges.get(ends, ()), *crossing)))
    return Topology(tuple(nodes.values()), edges, topology.assumed)


def _node(given: Any) -> Node:
    fields = given if isinstance(given, Mapping) else {}
    name, kind = fields.get("id"), fields.get("kind", "")
    within, layers = fields.get("within", []), fields.get("layers", [name])
    if not isinstance(name, str) or not isinstance(kind, str) or not _texts(within, layers):
        raise ValueError(
            f"graph must have nodes with id, kind, within and layers, received {given!r:.80}"
        )
    return Node(name, kind, tuple(within), tuple(layers))


def _edge(given: Any) -> tuple[str, str, Crossing]:
    if isinstance(given, list) and len(given) in (2, 3) and _texts(given[:2]):
        source, target, *rest = given
        outputs = rest[0] if rest else [source]
        if isinstance(outputs, list) and _texts([one for one in outputs if one is not None]):
            return source, target, tuple(outputs)
    raise ValueError(
        "graph must have edges [source, target] or [source, target, outputs], "
        f"received {given!r:.80}"
    )


def _texts(*lists: Any) -> bool:
    return all(isinstance(one, list) and all(isinstance(n, str) for n in one) for one in lists)

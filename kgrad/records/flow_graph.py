"""Flow graphs: a model's layers and connections with their gradients, and the JSON form.

A node is a layer with the gradient of its weights. An edge leads from a layer to one that uses its
output a, and has the signal ∂L/∂a that flows back, if a probe recorded it. Without a number a node
or an edge has None and the reason.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, TypeVar, get_args

import msgspec
import networkx as nx
import numpy as np

from kgrad.records.blocks import blocks_of
from kgrad.records.files import MOST_NAMES, MOST_PARTS, NONFINITE, number_to_json
from kgrad.records.history import GradientHistory, Weight, require_history
from kgrad.records.statistics import NO_PATH, NOT_UPDATED, combine, needs_gradient

Nested = Literal["folded", "opened", "blocks"]
Series = tuple[float | None, ...]
Crossing = tuple[str | None, ...]

NO_HISTORY = "nothing was recorded: there is no history"
NO_PROBE = "no probe was recorded: train with GradientTracker(probe=(X, y))"
NO_WEIGHTS = "none of its weights was recorded"
NO_NORM = "its l2_norm was not recorded"
NOT_IN_RECORD = "this record has no measurement of the probe"
NOT_SEEN = "a probe does not see it: it is an input, an operation or a layer's second output"


# ---- The topology, as `history.metadata["graph"]` holds it ---------------------------------------

_Parts = msgspec.Meta(max_length=MOST_PARTS)


class Node(msgspec.Struct, frozen=True):
    """A layer, or a nested model that is folded.

    Attributes:
        name: name of the layer, unique.
        kind: name of its class.
        within: the nested models around it, outermost first.
        named_layers: the layers of a history that it is or contains; unset for itself alone.
    """

    name: str = msgspec.field(name="id")
    kind: str = ""
    within: tuple[str, ...] = ()
    named_layers: tuple[str, ...] | msgspec.UnsetType = msgspec.field(
        name="layers", default=msgspec.UNSET
    )

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of a history: `named_layers`, or the node itself."""
        if isinstance(self.named_layers, msgspec.UnsetType):
            return (self.name,)
        return self.named_layers


class Edge(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A connection between two nodes: [source, target] or [source, target, outputs] in JSON.

    Attributes:
        source: name of the node whose output is used.
        target: name of the node that uses it.
        outputs: names in `GradientHistory.outputs` of the tensors that cross, None for a tensor
            that no probe sees; unset for the source alone.
    """

    source: str
    target: str
    outputs: Crossing | msgspec.UnsetType = msgspec.UNSET

    @property
    def crossing(self) -> Crossing:
        """The tensors that cross: `outputs`, or the source's output."""
        return (self.source,) if isinstance(self.outputs, msgspec.UnsetType) else self.outputs


class Topology(msgspec.Struct, frozen=True):
    """The layers of a model and the connections between them.

    Attributes:
        nodes: in the order of their first call.
        edges: between nodes.
        assumed: whether the edges are a guess.
    """

    nodes: Annotated[tuple[Node, ...], _Parts]
    edges: Annotated[tuple[Edge, ...], _Parts]
    assumed: bool = False

    def __post_init__(self) -> None:
        names: set[str] = set()
        for node in self.nodes:
            if node.name in names:
                raise ValueError(f"expected distinct nodes, received {node.name!r:.80} twice")
            names.add(node.name)
        for edge in self.edges:
            if not names.issuperset((edge.source, edge.target)):
                ends = f"{edge.source!r:.60} to {edge.target!r:.60}"
                raise ValueError(f"expected edges between the nodes, received {ends}")


def topology_of(described: Any) -> Topology:
    """Return the topology that is described in a history's metadata.

    Raises:
        ValueError: if the description is malformed.
    """
    return _convert(
        described,
        Topology,
        "graph must have nodes (each with id) and edges ([source, target] or [source, target, "
        "outputs])",
    )


def chain(layers: Sequence[str]) -> Topology:
    """Return a chain of layers: the guess if no topology was recorded."""
    edges = [Edge(source, target) for source, target in pairwise(layers)]
    return Topology(tuple(map(Node, layers)), tuple(edges), assumed=True)


def folded(topology: Topology, homes: Mapping[str, str], kind: str) -> Topology:
    """Return the topology with some nodes folded into one.

    Args:
        topology: the topology.
        homes: name of a node → name of the node that it is folded into; without those that stay.
        kind: the kind of the nodes that others are folded into.
    """
    nodes: dict[str, Node] = {}
    for node in topology.nodes:
        name = homes.get(node.name, node.name)
        before = nodes[name].layers if name in nodes else ()
        layers = tuple(dict.fromkeys((*before, *node.layers)))
        nodes[name] = Node(name, kind if node.name in homes else node.kind, (), layers)
    crossings: dict[tuple[str, str], Crossing] = {}
    for edge in topology.edges:
        ends = homes.get(edge.source, edge.source), homes.get(edge.target, edge.target)
        if ends[0] == ends[1] and edge.source in homes:
            continue
        crossings[ends] = tuple(dict.fromkeys((*crossings.get(ends, ()), *edge.crossing)))
    edges = tuple(Edge(*ends, crossing) for ends, crossing in crossings.items())
    return Topology(tuple(nodes.values()), edges, topology.assumed)


def _models(topology: Topology) -> dict[str, str]:
    """Return the outermost nested model of each node that is in one."""
    return {node.name: node.within[0] for node in topology.nodes if node.within}


def _blocks(topology: Topology) -> dict[str, str]:
    """Return the block of each node that is in one; a guessed chain has none."""
    if topology.assumed:
        return {}
    names = [node.name for node in topology.nodes]
    return blocks_of(names, [(edge.source, edge.target) for edge in topology.edges])


# What is folded, step by step: what is folded into what, and the kind of the result.
_FOLDS = {
    "opened": (),
    "folded": ((_models, "Model"),),
    "blocks": ((_models, "Model"), (_blocks, "Block")),
}


# ---- The graph of a record -----------------------------------------------------------------------


def flow_graph_from_history(
    history: GradientHistory, *, epoch: int | None = None, nested: Nested = "folded"
) -> nx.DiGraph:
    """Return the flow graph of a history, for example of one that was loaded from a file.

    The topology is the recorded one, `history.metadata["graph"]`. If none was recorded, the layers
    are a chain in forward order, and the graph's `assumed` is True.

    Args:
        history: the recorded run.
        epoch: epoch whose last record to show; by default the last record.
        nested: see `flow_graph`.

    Returns:
        A directed graph with the attributes that `flow_graph` describes.

    Raises:
        TypeError: if `history` is not a history.
        ValueError: if there is no such record, or the recorded topology is malformed.
    """
    require_history("history", history)
    described = history.metadata.get("graph")
    topology = chain(history.layers) if described is None else topology_of(described)
    return graph_of(topology, history, str(history.metadata.get("model", "")), epoch, nested)


def graph_of(
    topology: Topology,
    history: GradientHistory | None,
    name: str,
    epoch: int | None,
    nested: Nested,
) -> nx.DiGraph:
    """Return the graph of a topology, with the gradients of one record of a history."""
    if nested not in get_args(Nested):
        raise ValueError(f"nested must be 'folded', 'opened' or 'blocks', received {nested!r}")
    if history is None and epoch is not None:
        raise ValueError(f"epoch needs a history, received {epoch!r} and no history")
    measured = _Measured(history)
    graph = _graph_of(topology, history, measured, name, epoch)
    for homes_of, kind in _FOLDS[nested]:
        homes, opened = homes_of(topology), graph
        topology = folded(topology, homes, kind)
        graph = _graph_of(topology, history, measured, name, epoch)
        _add_folded(graph, opened, homes)
    return graph


def _add_folded(graph: nx.DiGraph, opened: nx.DiGraph, homes: Mapping[str, str]) -> None:
    """Give each node that others were folded into their names and their own graph."""
    members: dict[str, list[str]] = {}
    for name in opened:
        if name in homes:
            members.setdefault(homes[name], []).append(name)
        else:
            graph.nodes[name].update(opened.nodes[name])
    for name, inner in members.items():
        edges = [edge for edge in opened.edges if edge[1] in inner]
        feeding = {source for source, _ in edges}
        inside = nx.DiGraph(**opened.graph | {"name": name})
        inside.add_nodes_from((n, opened.nodes[n]) for n in opened if n in inner or n in feeding)
        inside.add_edges_from((*edge, opened.edges[edge]) for edge in edges)
        graph.nodes[name].update(folded=tuple(inner), inside=inside)


def _graph_of(
    topology: Topology,
    history: GradientHistory | None,
    measured: "_Measured",
    name: str,
    epoch: int | None,
) -> nx.DiGraph:
    """Return the graph of a topology, with nothing folded."""
    graph = nx.DiGraph(name=name, assumed=topology.assumed, epoch=None, step=None)
    graph.graph |= {"epochs": (), "steps": ()}
    record = None
    if history is not None:
        record = _record(history, epoch)
        epochs, steps = history.epochs.tolist(), history.steps.tolist()
        graph.graph |= {"epochs": tuple(epochs), "steps": tuple(steps)}
        graph.graph |= {"epoch": epochs[record], "step": steps[record]}
    for node in topology.nodes:
        statistics, reasons, reason = measured.of_node(node.layers)
        if record is not None and reasons:
            reason = reason or reasons[record]
        graph.add_node(
            node.name,
            kind=node.kind,
            layers=node.layers,
            shapes=measured.shapes(node.layers),
            **_at(record, statistics.get("l2_norm", ()), reason),
            reasons=reasons,
            statistics={} if record is None else {k: v[record] for k, v in statistics.items()},
        )
    for edge in topology.edges:
        norms, reason = measured.of_edge(edge.crossing)
        attributes = _at(record, norms, reason)
        graph.add_edge(edge.source, edge.target, outputs=edge.crossing, **attributes)
    return graph


def _at(record: int | None, norms: Series, reason: str) -> dict[str, Any]:
    """Return a node's or an edge's norm in one record and in all, and the reason if it has none."""
    norm = norms[record] if norms and record is not None else None
    if norm is None and not reason:
        reason = NOT_IN_RECORD
    return {"gradient_norm": norm, "norms": norms, "reason": reason}


def _record(history: GradientHistory, epoch: int | None) -> int:
    """Return the index of the last record of an epoch, or of the run."""
    if epoch is None:
        return len(history) - 1
    found = np.flatnonzero(history.epochs == epoch)
    if not found.size or isinstance(epoch, bool):
        first, last = history.epochs[0], history.epochs[-1]
        raise ValueError(
            f"epoch must be one that was recorded, from {first} to {last}, received {epoch!r}"
        )
    return int(found[-1])


class _Measured:
    """The values of a history for nodes and edges, read once."""

    def __init__(self, history: GradientHistory | None) -> None:
        self._history = history
        self._weights: dict[str, list[tuple[int, Weight]]] = {}
        if history is None:
            return
        for place, weight in enumerate(history.weights):
            self._weights.setdefault(weight.layer, []).append((place, weight))
        self._places = {layer: i for i, layer in enumerate(history.layers)}
        self._tables = {name: history.by_layer(name) for name in history.statistics}
        self._missing = history.missing_by_layer
        sizes = [sum(w.size for _, w in self._weights[layer]) for layer in history.layers]
        self._sizes = np.array(sizes, dtype=np.float64)
        self._rows = {name: i for i, name in enumerate(history.outputs)}
        self._signals = history.activations.get("signal_l2")
        self._probed = [
            "signal_l2" in history.record(i)["activations"] for i in range(len(history))
        ]

    def shapes(self, layers: Sequence[str]) -> tuple[str, ...]:
        """Return the weights with their shapes, and with their layers if there are several."""
        weights = sorted(pair for layer in set(layers) for pair in self._weights.get(layer, ()))
        return tuple(
            f"{weight.layer} {weight.name} {weight.shape}"
            if len(layers) > 1
            else f"{weight.name} {weight.shape}"
            for _, weight in weights
        )

    def of_node(self, layers: Sequence[str]) -> tuple[dict[str, Series], tuple[str, ...], str]:
        """Return every statistic over all records, with the layers taken as one.

        A statistic that needs a gradient is None in a record without one.

        Returns:
            the statistics; why there is no gradient in each record, "" if there is one; and why
            there is no norm in any record.
        """
        if self._history is None:
            return {}, (), NO_HISTORY
        members = [self._places[layer] for layer in layers if layer in self._places]
        if not members:
            return {}, (), NO_WEIGHTS
        missing = self._missing[:, members]
        present = missing == ""
        statistics: dict[str, Series] = {}
        for name, table in self._tables.items():
            needed = present if needs_gradient(name) else np.ones_like(present)
            values = combine(name, table[:, members], self._sizes[members], needed).tolist()
            known = zip(values, needed.any(axis=1), strict=True)
            statistics[name] = tuple(value if is_known else None for value, is_known in known)
        reasons = tuple(min(row, key=("", NO_PATH, NOT_UPDATED).index) for row in missing)
        return statistics, reasons, "" if "l2_norm" in self._tables else NO_NORM

    def of_edge(self, crossing: Crossing) -> tuple[Series, str]:
        """Return the norm, over all records, of the signals that flow back."""
        if self._history is None:
            return (), NO_HISTORY
        if self._signals is None:
            return (), NO_PROBE
        if not crossing or any(name not in self._rows for name in crossing):
            return (), NOT_SEEN
        rows = [self._rows[name] for name in crossing if name is not None]
        norms = np.hypot.reduce(self._signals[:, rows], axis=1).tolist()
        return tuple(n if was else None for n, was in zip(norms, self._probed, strict=True)), ""


# ---- JSON ----------------------------------------------------------------------------------------

FORMAT: Final = "kgrad-graph"
VERSION: Final = 1

_Norm = float | str | None  # a string for NaN or infinity


class _JsonNode(msgspec.Struct):
    id: str
    gradient_norm: _Norm
    kind: str = ""
    layers: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()
    statistics: Annotated[dict[str, _Norm], msgspec.Meta(max_length=MOST_NAMES)] = {}
    reason: str = ""
    folded: tuple[str, ...] = ()


class _JsonEdge(msgspec.Struct):
    source: str
    target: str
    gradient_norm: _Norm
    outputs: Crossing = ()
    reason: str = ""


class _JsonRecord(msgspec.Struct):
    epoch: int
    step: int
    nodes: list[_Norm]
    edges: list[_Norm]
    reasons: list[str] = []


class _JsonGraph(msgspec.Struct):
    nodes: Annotated[list[_JsonNode], _Parts]
    edges: Annotated[list[_JsonEdge], _Parts]
    format: Literal["kgrad-graph"] = FORMAT
    version: Literal[1] = VERSION
    name: str = ""
    epoch: int | None = None
    step: int | None = None
    assumed: bool = False
    records: list[_JsonRecord] = []


def graph_to_json(graph: nx.DiGraph, *, every_record: bool = False) -> dict[str, Any]:
    """Return a flow graph in JSON's types.

    NaN and infinity, which JSON does not have, become the strings "NaN" and "Infinity", as in a
    history's file. What was not measured is None.

    Args:
        graph: a graph that `flow_graph` returned.
        every_record: whether to add `"records"`: the norms of all nodes and edges, in their order,
            in every record, and why nodes have none if any lacks its gradient.

    Returns:
        `"nodes"`, each with `"id"`, `"gradient_norm"` and more; `"edges"`, each with `"source"`,
        `"target"`, `"gradient_norm"` and more; and the graph's own attributes. The graphs inside
        nodes that are several layers are not written.

    Raises:
        TypeError: if `graph` is no graph.

    Example:
        >>> graph = nx.DiGraph(name="model", epoch=1, step=32, assumed=False)
        >>> graph.add_node("dense", gradient_norm=0.8)
        >>> graph_to_json(graph)["nodes"][0]["gradient_norm"]
        0.8
    """
    if not isinstance(graph, nx.DiGraph):
        raise TypeError(
            f"graph must be a graph from flow_graph, received {graph!r:.100}: pass flow_graph(…)"
        )
    nodes = [
        {
            "id": name,
            "gradient_norm": _norm_to_json(node.get("gradient_norm")),
            "kind": node.get("kind", ""),
            "layers": list(node.get("layers", ())),
            "shapes": list(node.get("shapes", ())),
            "statistics": {k: _norm_to_json(v) for k, v in node.get("statistics", {}).items()},
            "reason": node.get("reason", ""),
            **({"folded": list(node["folded"])} if node.get("folded") else {}),
        }
        for name, node in graph.nodes.items()
    ]
    edges = [
        {
            "source": source,
            "target": target,
            "gradient_norm": _norm_to_json(edge.get("gradient_norm")),
            "outputs": list(edge.get("outputs", ())),
            "reason": edge.get("reason", ""),
        }
        for (source, target), edge in graph.edges.items()
    ]
    own = {key: graph.graph.get(key) for key in ("name", "epoch", "step", "assumed")}
    described = {"format": FORMAT, "version": VERSION, **own, "nodes": nodes, "edges": edges}
    if every_record:
        described["records"] = _records_to_json(graph)
    return described


def graph_from_json(content: Any) -> nx.DiGraph:
    """Return the flow graph that `graph_to_json` described.

    Only `id` and `gradient_norm` of nodes and `source`, `target` and `gradient_norm` of edges are
    required, so that graphs that other programs write in this form can be read. Nothing in the
    content is executed.

    Args:
        content: the content of a JSON file, as `json.loads` returns it.

    Returns:
        The graph with the attributes that `flow_graph` describes; `norms` are empty if there are
        no records.

    Raises:
        ValueError: if the content is not such a graph.
    """
    given = _convert(
        content,
        _JsonGraph,
        f'expected a graph ("format": "{FORMAT}", "version": {VERSION}) with nodes (each with id '
        "and gradient_norm) and edges (each with source, target and gradient_norm)",
    )
    graph = nx.DiGraph(name=given.name, epoch=given.epoch, step=given.step, assumed=given.assumed)
    for node in given.nodes:
        if node.id in graph:
            raise ValueError(f"nodes must have distinct ids, received {node.id!r:.80} twice")
        graph.add_node(
            node.id,
            kind=node.kind,
            layers=node.layers,
            shapes=node.shapes,
            gradient_norm=_norm_from_json(node.gradient_norm),
            statistics={name: _norm_from_json(value) for name, value in node.statistics.items()},
            reason=node.reason,
            **({"folded": node.folded} if node.folded else {}),
        )
    for edge in given.edges:
        if edge.source not in graph or edge.target not in graph:
            raise ValueError(
                f"edges must join nodes, received {edge.source!r:.60} to {edge.target!r:.60}"
            )
        graph.add_edge(
            edge.source,
            edge.target,
            outputs=edge.outputs,
            gradient_norm=_norm_from_json(edge.gradient_norm),
            reason=edge.reason,
        )
    graph.graph["epochs"] = tuple(record.epoch for record in given.records)
    graph.graph["steps"] = tuple(record.step for record in given.records)
    nodes = list(graph.nodes.values())
    _add_norms("nodes", nodes, [record.nodes for record in given.records])
    _add_reasons(nodes, [record.reasons for record in given.records])
    _add_norms("edges", list(graph.edges.values()), [record.edges for record in given.records])
    return graph


def _records_to_json(graph: nx.DiGraph) -> list[dict[str, Any]]:
    def at(i: int, all_norms: list[Series]) -> list[Any]:
        return [_norm_to_json(norms[i]) if norms else None for norms in all_norms]

    def why(i: int) -> dict[str, list[str]]:
        reasons = [series[i] if series else "" for series in every_reason]
        return {"reasons": reasons} if any(reasons) else {}

    nodes = [node["norms"] for node in graph.nodes.values()]
    edges = [edge["norms"] for edge in graph.edges.values()]
    every_reason = [node.get("reasons", ()) for node in graph.nodes.values()]
    times = zip(graph.graph["epochs"], graph.graph["steps"], strict=True)
    return [
        {"epoch": epoch, "step": step, "nodes": at(i, nodes), "edges": at(i, edges), **why(i)}
        for i, (epoch, step) in enumerate(times)
    ]


def _add_norms(what: str, parts: list[dict[str, Any]], rows: list[list[_Norm]]) -> None:
    """Give nodes or edges their norms in all records, one row per record."""
    for row in rows:
        if len(row) != len(parts):
            raise ValueError(
                f"records must have {len(parts)} numbers of {what}, received {len(row)}"
            )
    for i, part in enumerate(parts):
        norms = tuple(_norm_from_json(row[i]) for row in rows)
        part["norms"] = norms if any(norm is not None for norm in norms) else ()


def _add_reasons(nodes: list[dict[str, Any]], rows: list[list[str]]) -> None:
    """Give nodes the reasons why they have no norm, one row per record; empty if all have one."""
    for row in rows:
        if len(row) not in (0, len(nodes)):
            raise ValueError(f"records must have {len(nodes)} reasons or none, received {len(row)}")
    for i, node in enumerate(nodes):
        node["reasons"] = tuple(row[i] if row else "" for row in rows)


def _norm_to_json(norm: float | None) -> float | str | None:
    return None if norm is None else number_to_json(norm)


def _norm_from_json(norm: _Norm) -> float | None:
    number = NONFINITE.get(norm, -1.0) if isinstance(norm, str) else norm
    if number is not None and number < 0:
        raise ValueError(
            'norms and statistics must be numbers of at least 0, "NaN", "Infinity" or null, '
            f"received {norm!r:.80}"
        )
    return number


_T = TypeVar("_T")


def _convert(content: Any, kind: type[_T], expected: str) -> _T:
    try:
        return msgspec.convert(content, kind)
    except ValueError as error:
        raise ValueError(f"{expected} ({error})") from None

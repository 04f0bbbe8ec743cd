"""A graph as JSON's types and back: what is read is checked, and nothing in it is executed."""

import math
from collections.abc import Mapping
from typing import Any

import networkx as nx

from kgrad.records.files import numbers
from kgrad.records.flow_graph import Series

FORMAT = "kgrad-graph"
VERSION = 1


def graph_to_json(graph: nx.DiGraph, *, every_record: bool = False) -> dict[str, Any]:
    """The graph in JSON's types.

    NaN and infinity, which JSON does not have, are the strings "NaN" and "Infinity", as in a
    history's file; what was not measured is None.

    Args:
        graph: what `flow_graph` returned.
        every_record: whether to add `"records"`: the norms of all nodes and edges, in their order,
            at every record.

    Returns:
        `"nodes"`, each with `"id"`, `"gradient_norm"` and more; `"edges"`, each with `"source"`,
        `"target"`, `"gradient_norm"` and more; and what the graph itself has.

    Example:
        >>> graph = nx.DiGraph(name="model", epoch=1, step=32, assumed=False)
        >>> graph.add_node("dense", gradient_norm=0.8)
        >>> graph_to_json(graph)["nodes"][0]["gradient_norm"]
        0.8
    """
    nodes = [
        {
            "id": name,
            "gradient_norm": _number(node.get("gradient_norm")),
            "kind": node.get("kind", ""),
            "layers": list(node.get("layers", ())),
            "shapes": list(node.get("shapes", ())),
            "statistics": {k: _number(v) for k, v in node.get("statistics", {}).items()},
            "reason": node.get("reason", ""),
        }
        for name, node in graph.nodes.items()
    ]
    edges = [
        {
            "source": source,
            "target": target,
            "gradient_norm": _number(edge.get("gradient_norm")),
            "outputs": list(edge.get("outputs", ())),
            "reason": edge.get("reason", ""),
        }
        for (source, target), edge in graph.edges.items()
    ]
    own = {key: graph.graph.get(key) for key in ("name", "epoch", "step", "assumed")}
    described = {"format": FORMAT, "version": VERSION, **own, "nodes": nodes, "edges": edges}
    if every_record:
        described["records"] = _records(graph)
    return described


def graph_from_json(content: Any) -> nx.DiGraph:
    """The graph that `graph_to_json` described.

    Only `id` and `gradient_norm` of nodes and `source`, `target` and `gradient_norm` of edges need
    be there, so that what other programs write in this shape can be read.

    Args:
        content: what a JSON reader made of the text.

    Returns:
        The graph as `flow_graph` has it; `norms` are empty where there are no records.

    Raises:
        ValueError: if it is not such a graph.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"expected a JSON object with nodes and edges, received {content!r:.80}")
    if content.get("format", FORMAT) != FORMAT or content.get("version", VERSION) != VERSION:
        raise ValueError(
            f"expected format {FORMAT!r} of version {VERSION}, received "
            f"{content.get('format')!r:.40} of version {content.get('version')!r:.40}"
        )
    graph = nx.DiGraph(
        name=_typed(content, "name", "", "a text"),
        epoch=_typed(content, "epoch", None, "an integer or null"),
        step=_typed(content, "step", None, "an integer or null"),
        assumed=_typed(content, "assumed", False, "true or false"),
    )
    for given in _objects(content, "nodes"):
        name = _text(given, "id")
        if name in graph:
            raise ValueError(f"nodes must have distinct ids, received {name!r:.80} twice")
        statistics = _typed(given, "statistics", {}, "an object")
        graph.add_node(
            name,
            kind=_typed(given, "kind", "", "a text"),
            layers=_names(given, "layers"),
            shapes=_names(given, "shapes"),
            gradient_norm=_norm(given),
            statistics={k: _read(v, "statistics") for k, v in statistics.items()},
            reason=_typed(given, "reason", "", "a text"),
        )
    for given in _objects(content, "edges"):
        source, target = _text(given, "source"), _text(given, "target")
        if source not in graph or target not in graph:
            raise ValueError(f"edges must join nodes, received {source!r:.60} to {target!r:.60}")
        graph.add_edge(
            source,
            target,
            outputs=_names(given, "outputs"),
            gradient_norm=_norm(given),
            reason=_typed(given, "reason", "", "a text"),
        )
    _add_records(graph, _objects(content, "records") if "records" in content else [])
    return graph


def _records(graph: nx.DiGraph) -> list[dict[str, Any]]:
    def at(i: int, all_norms: list[Series]) -> list[Any]:
        return [_number(norms[i]) if norms else None for norms in all_norms]

    nodes = [node["norms"] for node in graph.nodes.values()]
    edges = [edge["norms"] for edge in graph.edges.values()]
    times = zip(graph.graph["epochs"], graph.graph["steps"], strict=True)
    return [
        {"epoch": epoch, "step": step, "nodes": at(i, nodes), "edges": at(i, edges)}
        for i, (epoch, step) in enumerate(times)
    ]


def _add_records(graph: nx.DiGraph, records: list[Mapping[str, Any]]) -> None:
    graph.graph |= {
        f"{key}s": tuple(_typed(record, key, None, "an integer") for record in records)
        for key in ("epoch", "step")
    }
    for what, parts in (("nodes", graph.nodes), ("edges", graph.edges)):
        rows = []
        for record in records:
            row = record.get(what)
            if not isinstance(row, list) or len(row) != len(parts):
                raise ValueError(
                    f"records must have {len(parts)} numbers of {what}, received {row!r:.80}"
                )
            rows.append([_read(value, f"{what} of records") for value in row])
        for i, part in enumerate(parts.values()):
            norms = tuple(row[i] for row in rows)
            part["norms"] = norms if any(norm is not None for norm in norms) else ()


def _number(value: float | None) -> float | str | None:
    if value is None or math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _read(value: Any, what: str) -> float | None:
    if value is None:
        return None
    number = None if isinstance(value, bool) else numbers([value], 1)
    if number is None or number[0] < 0:
        raise ValueError(
            f'{what} must be a number of at least 0, "NaN", "Infinity" or null, '
            f"received {value!r:.80}"
        )
    return float(number[0])


def _norm(given: Mapping[str, Any]) -> float | None:
    if "gradient_norm" not in given:
        raise ValueError(f"nodes and edges must have a gradient_norm, received {given!r:.80}")
    return _read(given["gradient_norm"], "gradient_norm")


def _objects(content: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = content.get(key)
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise ValueError(f"{key} must be a list of objects, received {found!r:.80}")
    return found


def _text(given: Mapping[str, Any], key: str) -> str:
    if key not in given:
        raise ValueError(f"expected an object with {key}, received {given!r:.80}")
    return _typed(given, key, "", "a text")


def _names(given: Mapping[str, Any], key: str) -> tuple[str | None, ...]:
    found = _typed(given, key, [], "a list")
    if not all(isinstance(name, str | None) for name in found):
        raise ValueError(f"{key} must be names, received {found!r:.80}")
    return tuple(found)


_KINDS: dict[str, tuple[type, ...]] = {
    "a text": (str,),
    "true or false": (bool,),
    "an integer": (int,),
    "an integer or null": (int, type(None)),
    "a list": (list,),
    "an object": (dict,),
}


def _typed(given: Mapping[str, Any], key: str, default: Any, kind: str) -> Any:
    found = given.get(key, default)
    if type(found) not in _KINDS[kind]:  # not isinstance: True is an int to Python
        raise ValueError(f"{key} must be {kind}, received {found!r:.80}")
    return found

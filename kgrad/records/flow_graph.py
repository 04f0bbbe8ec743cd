"""A model as a graph that carries its gradients: nodes are layers, edges what flows back.

A node has the gradient of its weights. An edge has the signal ∂L/∂a that comes back to the output
a of its source, as a probe recorded it; where none did, it has None and the reason.
"""

from collections.abc import Sequence
from typing import Any, Literal

import networkx as nx
import numpy as np

from kgrad.records.history import GradientHistory, require_history
from kgrad.records.statistics import STATISTICS
from kgrad.records.topology import Crossing, Topology, chain, folded, topology_of

Nested = Literal["folded", "opened"]
Series = tuple[float | None, ...]

NO_HISTORY = "nothing was recorded: there is no history"
NO_PROBE = "no probe was recorded: train with GradientTracker(probe=(X, y))"
NO_WEIGHTS = "none of its weights was recorded"
NO_NORM = "its l2_norm was not recorded"
NOT_IN_RECORD = "this record has no measurement of the probe"
NOT_SEEN = "a probe does not see it: it is an input, an operation or a layer's second output"


def flow_graph_from_history(
    history: GradientHistory, *, epoch: int | None = None, nested: Nested = "folded"
) -> nx.DiGraph:
    """The same from a history alone, such as one loaded from a file.

    The topology is the one that was recorded in `history.metadata["graph"]`. Where none was, the
    layers are a chain in forward order, and the graph's `assumed` is True.

    Args:
        history: what was measured.
        epoch: whose last record to take; by default the last record.
        nested: "folded" makes a nested model one node, "opened" shows its layers.

    Returns:
        A directed graph as `flow_graph` has it.

    Raises:
        TypeError: if `history` is no history.
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
    if nested not in ("folded", "opened"):
        raise ValueError(f"nested must be 'folded' or 'opened', received {nested!r}")
    if nested == "folded":
        topology = folded(topology)
    graph = nx.DiGraph(name=name, assumed=topology.assumed, epoch=None, step=None)
    graph.graph |= {"epochs": (), "steps": ()}
    record = None
    if history is not None:
        record = _record(history, epoch)
        epochs, steps = history.epochs.tolist(), history.steps.tolist()
        graph.graph |= {"epochs": tuple(epochs), "steps": tuple(steps)}
        graph.graph |= {"epoch": epochs[record], "step": steps[record]}
    elif epoch is not None:
        raise ValueError(f"epoch needs a history to take it from, received {epoch!r} and none")
    statistics = _Statistics(history)
    for node in topology.nodes:
        of_all, reason = statistics.of_node(node.layers)
        graph.add_node(
            node.name,
            kind=node.kind,
            layers=node.layers,
            shapes=() if history is None else _shapes(history, node.layers),
            **_at(record, of_all.get("l2_norm", ()), reason),
            statistics={} if record is None else {k: v[record] for k, v in of_all.items()},
        )
    for (source, target), crossing in topology.edges.items():
        norms, reason = statistics.of_edge(crossing)
        graph.add_edge(source, target, outputs=crossing, **_at(record, norms, reason))
    return graph


def _shapes(history: GradientHistory, layers: Sequence[str]) -> tuple[str, ...]:
    """Weights with their shapes, and with their layers' names where there are several layers."""
    return tuple(
        f"{weight.layer} {weight.name} {weight.shape}"
        if len(layers) > 1
        else f"{weight.name} {weight.shape}"
        for weight in history.weights
        if weight.layer in layers
    )


def _at(record: int | None, norms: Series, reason: str) -> dict[str, Any]:
    """What a node or an edge has of one record and of all."""
    norm = norms[record] if norms and record is not None else None
    if norm is None and not reason:
        reason = NOT_IN_RECORD
    return {"gradient_norm": norm, "norms": norms, "reason": reason}


def _record(history: GradientHistory, epoch: int | None) -> int:
    """The last record of an epoch, or of all."""
    if epoch is None:
        return len(history) - 1
    found = np.flatnonzero(history.epochs == epoch)
    if not found.size or isinstance(epoch, bool):
        first, last = history.epochs[0], history.epochs[-1]
        raise ValueError(
            f"epoch must be one that was recorded, from {first} to {last}, received {epoch!r}"
        )
    return int(found[-1])


class _Statistics:
    """What a history has of the layers and of the signals, read once."""

    def __init__(self, history: GradientHistory | None) -> None:
        self._history = history
        if history is None:
            return
        self._places = {layer: i for i, layer in enumerate(history.layers)}
        self._tables = {name: history.by_layer(name) for name in history.statistics}
        self._sizes = np.zeros(len(history.layers))
        for weight in history.weights:
            self._sizes[self._places[weight.layer]] += weight.size
        self._rows = {name: i for i, name in enumerate(history.outputs)}
        self._signals = history.activations.get("signal_l2")
        self._probed = [
            "signal_l2" in history.record(i)["activations"] for i in range(len(history))
        ]

    def of_node(self, layers: Sequence[str]) -> tuple[dict[str, Series], str]:
        """Every statistic, over all records, of layers taken as one."""
        if self._history is None:
            return {}, NO_HISTORY
        members = [self._places[layer] for layer in layers if layer in self._places]
        if not members:
            return {}, NO_WEIGHTS
        sizes = self._sizes[members]
        return {
            name: tuple(STATISTICS[name].by_layer(table[:, members], sizes).tolist())
            for name, table in self._tables.items()
        }, "" if "l2_norm" in self._tables else NO_NORM

    def of_edge(self, crossing: Crossing) -> tuple[Series, str]:
        """The norm of the signals that cross, over all records."""
        if self._history is None:
            return (), NO_HISTORY
        if self._signals is None:
            return (), NO_PROBE
        if not crossing or any(name not in self._rows for name in crossing):
            return (), NOT_SEEN
        rows = [self._rows[name] for name in crossing if name is not None]
        norms = np.hypot.reduce(self._signals[:, rows], axis=1).tolist()
        return tuple(n if was else None for n, was in zip(norms, self._probed, strict=True)), ""

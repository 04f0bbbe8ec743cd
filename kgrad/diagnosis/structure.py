"""The network's graph for the rules: its heads, and which layers can die or are normalized.

The graph is the one that a tracker records in a history's metadata. Where it is unknown, as for a
subclassed model, the layers are taken as a chain in the order of their weights.
"""

from collections.abc import Sequence
from typing import Any

import networkx as nx

from kgrad.records.flow_graph import Topology, topology_of

_NORMALIZING = (
    "BatchNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "RMSNormalization",
    "UnitNormalization",
)
_ACTIVATING = ("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax")


class Structure:
    """The layers with kernels and their order.

    Attributes:
        is_known: whether the graph was recorded.

    Args:
        described: the graph in the metadata of a history; None if it was not recorded.
        layers: the layer of each kernel, in the order of the weights.
    """

    def __init__(self, described: Any, layers: Sequence[str]) -> None:
        self._layers = tuple(dict.fromkeys(layers))
        topology = _read(described)
        self.is_known = topology is not None
        self._graph = nx.DiGraph()
        self._kinds: dict[str, str] = {}
        self._homes: dict[str, str] = {}
        if topology is not None:
            self._graph.add_nodes_from(node.name for node in topology.nodes)
            self._graph.add_edges_from((edge.source, edge.target) for edge in topology.edges)
            self._kinds = {node.name: node.kind for node in topology.nodes}
            self._homes = {layer: node.name for node in topology.nodes for layer in node.layers}

    def heads(self) -> dict[str, tuple[str, ...]]:
        """Return the heads that each layer with a kernel feeds; a head feeds itself.

        A head is the last layer with a kernel on the way to an output.
        """
        if not self.is_known or any(layer not in self._homes for layer in self._layers):
            return dict.fromkeys(self._layers, self._layers[-1:])
        with_kernel: dict[str, str] = {}
        for layer in self._layers:  # of a node with several layers, the last one
            with_kernel[self._homes[layer]] = layer
        after = {node: nx.descendants(self._graph, node) & set(with_kernel) for node in with_kernel}
        heads = [node for node in with_kernel if not after[node]]
        return {
            layer: tuple(
                with_kernel[head]
                for head in heads
                if head == self._homes[layer] or head in after[self._homes[layer]]
            )
            for layer in self._layers
        }

    def is_normalized(self, layer: str) -> bool:
        """Return whether everything that follows a layer directly is a normalization."""
        home = self._homes.get(layer)
        following = [] if home is None else list(self._graph.successors(home))
        return bool(following) and all(self._kinds[one] in _NORMALIZING for one in following)

    def begins_with(self, kinds: Sequence[str]) -> bool:
        """Return whether all inputs first pass a layer of one of these classes."""
        inputs = [node for node, kind in self._kinds.items() if kind == "InputLayer"]
        first = {one for node in inputs for one in self._graph.successors(node)}
        return bool(first) and all(self._kinds[one] in kinds for one in first)

    def has(self, kind: str) -> bool:
        """Return whether a layer is of this class; False if the graph is unknown."""
        return kind in self._kinds.values()

    def has_part(self, parts: Sequence[str]) -> bool:
        """Return whether the name of a layer's class has one of these parts."""
        return any(part in kind for kind in self._kinds.values() for part in parts)

    def ends_with(self, kind: str) -> bool:
        """Return whether all outputs are those of a layer of this class."""
        last = [node for node in self._graph if not self._graph.out_degree(node)]
        return bool(last) and all(self._kinds[node] == kind for node in last)

    def can_die(self, output: str) -> bool:
        """Return whether an output of a probe is that of a layer with weights or an activation.

        An encoding or a pooling passes on zeros that are not its own.
        """
        node = self._node(output)
        return not node or self._kinds[node] in _ACTIVATING or node in self._homes.values()

    def is_hidden(self, output: str) -> bool:
        """Return whether a layer with a kernel follows an output of a probe; True if unknown."""
        if not (node := self._node(output)):
            return True
        kernels = {self._homes.get(layer) for layer in self._layers}
        return not kernels.isdisjoint(nx.descendants(self._graph, node))

    def _node(self, output: str) -> str:
        """Return the node of an output, which has a number from a layer's second call on."""
        node = output if output in self._kinds else output.rpartition("_")[0]
        return node if node in self._kinds else ""


def _read(described: Any) -> Topology | None:
    """Return the recorded graph; None if there is none, or if its edges are a guess."""
    if described is None:
        return None
    try:
        topology = topology_of(described)
    except ValueError:  # of a file that was edited; the measurements are diagnosed all the same
        return None
    return None if topology.assumed else topology

"""The flow graph of a Keras model: `flow_graph`."""

from typing import Any

import networkx as nx

from kgrad.measure.inputs import require_built
from kgrad.measure.keras_models.graph import describe_topology
from kgrad.records.flow_graph import Nested, graph_of, topology_of
from kgrad.records.history import GradientHistory, require_history


def flow_graph(
    model: Any,
    history: GradientHistory | None = None,
    *,
    epoch: int | None = None,
    nested: Nested = "folded",
) -> nx.DiGraph:
    """Return the graph of a model's layers, with the gradients of one record.

    Every node has `kind` (its class), `layers` (the layers of the history that are parts of it),
    `shapes` (of its weights, as text), `gradient_norm` (the L2 norm of the gradient of its weights,
    taken as one vector), `statistics` (all its recorded statistics, by name), `norms`
    (`gradient_norm` of every record), `reason` and `reasons`. Every edge has `outputs` (the names
    of the layer outputs whose signals it carries), `gradient_norm`, `norms` and `reason`. A value
    that was not measured is None, and so is the gradient of weights that were not updated or have
    no path to the loss. `reason` says why, for a node in every record `reasons`; otherwise they are
    empty.

    The norm on an edge is that of ∂L/∂a on the probe's batch (the recorded `signal_l2`), where a is
    the output of the source in the calls that the edge represents. If several layers consume a, it
    is the norm of the sum of the gradients that come back from all of them, and the same on each of
    their edges: backpropagation adds the parts, and the parts are not recorded. If a layer is
    shared and an edge represents several of its calls, their signals are taken as one vector.

    A node that is a nested model or a block also has `folded` (the names of its layers) and
    `inside` (their own flow graph, with the layers that feed them). Its gradient norm is that of
    all its weights, taken as one vector.

    The graph has the attributes `name`, `epoch` and `step` of the record, `epochs` and `steps` of
    all records, and `assumed`: whether the edges are a guess. They are if the model has its own
    `call`: its layers are then shown as a chain in the order in which the model holds them.

    Args:
        model: a built Keras model.
        history: a history of the model; None for the topology alone.
        epoch: the epoch whose last record to use; by default the last record.
        nested: "folded" makes a nested model one node, "opened" shows its layers, and "blocks" also
            makes the layers of a block one node: a residual block, for example. A block is what
            branches between two layers that every path passes, with the layer that joins it.

    Returns:
        A directed graph with the nodes in the order of their first call. A layer that is called on
        its own output makes a cycle.

    Raises:
        TypeError: if `model` is not a built Keras model or `history` is not a history.
        ValueError: if there is no such record, or the history is of another model.

    Example:
        >>> from kgrad import create_model, make_dataset, measure_gradients
        >>> data, model = make_dataset("moons", 32), create_model(1, "relu", "he", input_shape=(2,))
        >>> graph = flow_graph(model, measure_gradients(model, data.X, data.y))
        >>> list(graph.edges)
        [('input', 'hidden_1'), ('hidden_1', 'output')]
        >>> graph.nodes["input"]["reason"]
        'none of its weights was recorded'
    """
    require_built(model)
    topology = topology_of(describe_topology(model))
    if history is not None:
        require_history("history", history)
        known = {layer for node in topology.nodes for layer in node.layers}
        strange = [layer for layer in history.layers if layer not in known]
        if strange:
            raise ValueError(
                f"history must be of model {model.name!r}, received one with layer {strange[0]!r}: "
                "pass the model that was trained, or call flow_graph_from_history"
            )
    return graph_of(topology, history, model.name, epoch, nested)

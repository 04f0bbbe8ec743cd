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
    """The layers of a model, who hands an output to whom, and the gradients of one record.

    Every node has `kind` (its class), `layers` (the layers of the history that are parts of it),
    `shapes` (of its weights, in words), `gradient_norm` (the L2 norm of the gradient of its weights
    taken as one vector), `statistics` (all that was recorded of it, by name), `norms`
    (`gradient_norm` of every record) and `reason`.
    Every edge has `outputs` (whose signals it carries), `gradient_norm`, `norms` and `reason`.
    What was not measured is None, and `reason` says why; else that is empty.

    The norm on an edge is that of ∂L/∂a, a being all that its source puts out in the calls that the
    edge stands for, on the probe's batch: the recorded `signal_l2`. Where several layers consume a,
    it is the norm of the sum of what comes back from all of them, and the same on each of
    their edges: backpropagation adds the parts up, and the parts are not recorded. Where a layer is
    shared and an edge stands for several of its calls, their signals are taken as one vector.

    The graph itself has `name`, `epoch` and `step` of the record, `epochs` and `steps` of all, and
    `assumed`: whether the edges are a guess. They are where a model has a `call` of its own: its
    layers are then a chain in the order in which it holds them.

    Args:
        model: a built Keras model.
        history: what was measured of it; None for the topology alone.
        epoch: whose last record to take; by default the last record.
        nested: "folded" makes a nested model one node, "opened" shows its layers.

    Returns:
        A directed graph, its nodes in the order of their first call. A layer that is called on what
        it put out makes a cycle.

    Raises:
        TypeError: if `model` is not a built Keras model or `history` no history.
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
    # A history is drawn without them, in a hundredth of the time.

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

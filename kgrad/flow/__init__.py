"""A model as a graph that carries its gradients: made, written and read."""

from kgrad.flow.files import graph_from_json, graph_to_json
from kgrad.flow.graph import flow_graph, flow_graph_from_history

__all__ = ["flow_graph", "flow_graph_from_history", "graph_from_json", "graph_to_json"]

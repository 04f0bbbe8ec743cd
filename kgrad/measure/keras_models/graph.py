"""The graph of a Keras model: which layer feeds which."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras

from kgrad.measure.inputs import require_built
from kgrad.measure.keras_models.layers import activation_name, has_kernel
from kgrad.measure.keras_models.weights import name_layers
from kgrad.records.checks import unique_name


class Call(NamedTuple):
    """One call of an operation in the graph of a model.

    Attributes:
        operation: a layer, a nested model or an operation such as x + y.
        inputs: the symbolic tensors that it is called on; none for an input layer.
        outputs: the symbolic tensors that it returns.
    """

    operation: Any
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


def model_calls(model: keras.Model) -> list[Call]:
    """List the calls of a functional or sequential model in the order in which Keras runs them.

    A nested model is one call.
    """
    by_depth = getattr(model, "_functional", model)._nodes_by_depth
    nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
    return [Call(node.operation, node.input_tensors, node.outputs) for node in nodes]


class LayerGraph:
    """The layers of a functional or sequential model, in forward order.

    A layer is hidden if a layer with a kernel follows it. The last layer with a kernel and
    everything behind it belong to the output.

    Attributes:
        model: a functional model of the same layers; the model given stays as it was.
        operations: its layers and other operations, in forward order.

    Args:
        model: a built Keras model.

    Raises:
        ValueError: if the model is subclassed: its own code decides how its layers are called.
    """

    def __init__(self, model: keras.Model) -> None:
        require_built(model)
        if not getattr(model, "inputs", None):
            raise ValueError(
                f"model {model.name!r} is subclassed: its own code makes and calls its layers"
            )
        ends = [model.inputs[0], model.outputs[0]]
        if hasattr(model, "_inputs_struct"):  # the nested structure; a Sequential has one of each
            ends = [model._inputs_struct, model._outputs_struct]
        self.model = keras.Model(*ends, name=model.name)
        calls = model_calls(self.model)
        self.operations = list({id(call.operation): call.operation for call in calls}.values())
        self._calls: dict[int, int] = {}
        self._parents: dict[int, list[Any]] = {id(one): [] for one in self.operations}
        self._children: dict[int, list[Any]] = {id(one): [] for one in self.operations}
        makers = {id(tensor): i for i, call in enumerate(calls) for tensor in call.outputs}
        for operation, inputs, _ in calls:
            self._calls[id(operation)] = self._calls.get(id(operation), 0) + 1
            for maker in dict.fromkeys(makers[id(tensor)] for tensor in inputs):
                parent = calls[maker].operation
                self._parents[id(operation)].append(parent)
                self._children[id(parent)].append(operation)
        self._hidden: set[int] = set()
        for one in reversed(self.operations):
            if any(has_kernel(c) or id(c) in self._hidden for c in self._children[id(one)]):
                self._hidden.add(id(one))

    def hidden(self) -> list[Any]:
        """List the hidden operations, without those inside nested models, in forward order."""
        return [one for one in self.operations if id(one) in self._hidden]

    def hidden_inside(self, *, everything: bool = False) -> list[tuple["LayerGraph", Any]]:
        """List the hidden layers, also those inside nested models, each with its own graph.

        Args:
            everything: whether to list the layers that are not hidden, too.
        """
        found: list[tuple[LayerGraph, Any]] = []
        for one in self.operations:
            hidden = everything or id(one) in self._hidden
            if isinstance(one, keras.Model):
                if getattr(one, "inputs", None):  # a subclassed model cannot be opened
                    found += LayerGraph(one).hidden_inside(everything=hidden)
            elif hidden and isinstance(one, keras.Layer):
                found.append((self, one))
        return list({id(layer): (graph, layer) for graph, layer in found}.values())

    def calls(self, operation: Any) -> int:
        """Return how often an operation is called."""
        return self._calls[id(operation)]

    def fork(self) -> str:
        """Describe what keeps the model from being a chain; empty if it is a chain."""
        for one in self.operations:
            for there, word in ((self._parents, "takes"), (self._children, "feeds")):
                count = len(there[id(one)])
                if count > 1 or self.calls(one) > 1:
                    return f"layer {one.name} {word} {max(count, self.calls(one))} layers"
        return ""

    def activation_after(self, layer: keras.Layer) -> str:
        """Return the name of the first activation that a layer's output passes.

        It is the layer's own activation or that of a later layer before the next kernel.
        """
        own = activation_name(layer)
        at: Any = layer
        while own == "linear":
            following = self._children.get(id(at), [])
            if len(following) != 1 or has_kernel(following[0]):
                break
            at = following[0]
            own = activation_name(at)
        return own

    def nonlinearity_after(self, layer: keras.Layer, linear: Iterable[str]) -> str:
        """Return the name of the first non-linear operation between a layer and the next kernels.

        Args:
            layer: the layer, whose own activation counts.
            linear: beginnings of the names of classes that are linear.

        Returns:
            The activation's name, or the class of another operation; "linear" if there is none.
        """
        if (own := activation_name(layer)) != "linear":
            return own
        waiting, seen = list(self._children.get(id(layer), [])), set()
        while waiting:
            one = waiting.pop()
            if id(one) in seen or has_kernel(one):
                continue
            seen.add(id(one))
            kind = type(one).__name__
            own = activation_name(one)
            if own != "linear" or not (kind == "Activation" or kind.startswith(tuple(linear))):
                return own if own != "linear" else kind
            waiting += self._children[id(one)]
        return "linear"


def describe_topology(model: keras.Model) -> dict[str, Any]:
    """Describe the layers of a model and the edges between them in JSON types; no data are needed.

    Nested functional and sequential models are opened. The graph of a subclassed model cannot be
    read: at the top level its layers are assumed to be a chain in the order in which the model
    holds them, and `"assumed"` is true; inside another model it is one node.

    Returns:
        `"nodes"`: in the order of their first call, each with its `id`, its `kind` (class name),
        the names of the nested models around it (`within`, outermost first; left out if there are
        none), and the names of the layers with weights that are parts of it (`layers`; left out if
        that is the node itself alone).
        `"edges"`: each [source, target] or [source, target, outputs], `outputs` being the names in
        `Probe.outputs` of the tensors that pass along the edge, None for a tensor that a probe does
        not measure; left out if it is the source's name alone.
        `"assumed"`: whether the edges are a guess.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="output")])
        >>> describe_topology(model)["edges"][0][1:]
        ['output', [None]]
    """
    return _TopologyReader(model).described()


@dataclass(frozen=True)
class _Tensor:
    """A tensor's origin: the name of the layer, and the probe's name for it, if a probe sees it."""

    source: str
    row: str | None


_UNKNOWN = _Tensor("", None)


class _TopologyReader:
    """Follows a model's calls with names in place of tensors and notes nodes and edges."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._names = name_layers(model)
        self._nodes: dict[str, dict[str, Any]] = {}
        self._edges: dict[tuple[str, str], list[str | None]] = {}
        self._rows: set[str] = set()

    def described(self) -> dict[str, Any]:
        is_known = _is_graph(self._model)
        if is_known:
            inputs = [self._input(tensor) for tensor in getattr(self._model, "inputs", ())]
            self._run(self._model, inputs or [_UNKNOWN], ())
        else:
            layers = self._model._flatten_layers(include_self=False, recursive=False)
            self._run_chain(layers, [_UNKNOWN], ())
        edges = [
            [source, target] if outputs == [source] else [source, target, outputs]
            for (source, target), outputs in self._edges.items()
        ]
        return {"nodes": list(self._nodes.values()), "edges": edges, "assumed": not is_known}

    def _input(self, tensor: keras.KerasTensor) -> _Tensor:
        operation = tensor._keras_history.operation
        name = self._names.get(id(operation)) or self._name(operation)
        self._nodes[name] = {"id": name, "kind": "InputLayer", "layers": []}
        return _Tensor(name, None)

    def _run(
        self, model: keras.Model, inputs: list[_Tensor], within: tuple[str, ...]
    ) -> list[_Tensor]:
        """Follow the model's calls and return its outputs."""
        if isinstance(model, keras.Sequential):  # which may lack a graph
            return self._run_chain(model.layers, inputs, within)
        tensors = dict(zip(map(id, model.inputs), inputs, strict=True))
        for operation, taken, returned in model_calls(model):
            if taken:  # not an input layer
                outputs = self._call(operation, [tensors[id(t)] for t in taken], within)
                tensors.update(zip(map(id, returned), outputs, strict=False))
        return [tensors[id(tensor)] for tensor in model.outputs]

    def _run_chain(
        self, layers: Iterable[Any], tensors: list[_Tensor], within: tuple[str, ...]
    ) -> list[_Tensor]:
        for layer in layers:
            tensors = self._call(layer, tensors, within)
        return tensors

    def _call(
        self, operation: Any, inputs: list[_Tensor], within: tuple[str, ...]
    ) -> list[_Tensor]:
        name = self._name(operation)
        # A model that takes more than its inputs, such as a mask, stays one node.
        if _is_graph(operation) and len(inputs) == _inputs(operation):
            return self._run(operation, inputs, (*within, name))
        if name not in self._nodes:
            node: dict[str, Any] = {"id": name, "kind": type(operation).__name__}
            parts = self._parts(operation)
            node |= {"within": list(within)} if within else {}
            self._nodes[name] = node | ({} if parts == [name] else {"layers": parts})
        for tensor in inputs:
            if tensor.source:
                self._edges.setdefault((tensor.source, name), [])
                outputs = self._edges[tensor.source, name]
                if tensor.row not in outputs:
                    outputs.append(tensor.row)
        first = None
        if isinstance(operation, keras.Layer) and not isinstance(operation, keras.Model):
            first = unique_name(name, self._rows)
            self._rows.add(first)
        # A probe measures the first tensor that a layer returns.
        return [_Tensor(name, first), *[_Tensor(name, None)] * (_outputs(operation) - 1)]

    def _name(self, operation: Any) -> str:
        if id(operation) not in self._names:  # an operation that is no layer: x + y
            self._names[id(operation)] = unique_name(operation.name, self._names.values())
        return self._names[id(operation)]

    def _parts(self, operation: Any) -> list[str]:
        """List the names of the layers with weights among the operation and its parts."""
        if not isinstance(operation, keras.Layer):
            return []
        parts = operation._flatten_layers(include_self=True, recursive=True)
        names = [self._names[id(part)] for part in parts if part._trainable_variables]
        return list(dict.fromkeys(names))


def _is_graph(operation: Any) -> bool:
    """Return whether an operation is a model that runs its layers in the order of its graph."""
    if not isinstance(operation, keras.Sequential | keras.Function):
        return False
    # Keras's own `call` follows the graph; one that replaces it may do anything.
    caller = next(kind for kind in type(operation).__mro__ if "call" in vars(kind))
    return caller.__module__.startswith("keras.")


def _inputs(model: Any) -> int:
    """Return the number of tensors that a model is called on."""
    return 1 if isinstance(model, keras.Sequential) else len(model.inputs)


def _outputs(operation: Any) -> int:
    """Return the largest number of tensors that a call of an operation returns."""
    return max((len(node.outputs) for node in operation._inbound_nodes), default=1)

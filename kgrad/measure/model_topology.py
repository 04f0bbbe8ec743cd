"""Which layer hands its output to which: a model's graph in JSON's types, read without a batch."""

from dataclasses import dataclass
from typing import Any

import keras

from kgrad.measure.names import name_layers, unique_name


@dataclass(frozen=True)
class _Tensor:
    """What a call puts out, in place of the tensor: by whom, in which call, in which place."""

    source: str
    row: str | None  # the probe's name for it, if a probe sees it


_UNKNOWN = _Tensor("", None)


def describe_topology(model: keras.Model) -> dict[str, Any]:
    """The layers of a model and the edges between them, nested models opened.

    Functional and Sequential models tell which layer follows which. A model with a `call` of its
    own does not: at the top its layers are a chain, in the order in which it holds them, and
    `"assumed"` says so; within another model it is one node.

    Returns:
        `"nodes"`, in the order of their first call, each with its `id`, its `kind` (a class), the
        nested models that it is `within`, outermost first, and the `layers` of a history that are
        parts of it, where these are not itself alone; `"edges"`, each [source, target] or [source,
        target, what crosses]: by the names of `Probe.outputs`, None for what a probe does not see,
        where that is not the source alone; `"assumed"`.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="output")])
        >>> describe_topology(model)["edges"][0][1:]
        ['output', [None]]
    """
    return _Reader(model).described()


class _Reader:
    """Runs a model's graph with names in place of tensors, and notes who is called on what."""

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
            tensors = [_UNKNOWN]
            for layer in self._model._flatten_layers(include_self=False, recursive=False):
                tensors = self._call(layer, tensors, ())
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
        """What the model puts out for these inputs."""
        if isinstance(model, keras.Sequential):
            for layer in model.layers:
                inputs = self._call(layer, inputs, within)
            return inputs

        def call(operation: Any, *args: Any, **kwargs: Any) -> list[_Tensor]:
            tensors = keras.tree.flatten([args, kwargs])
            return self._call(operation, [t for t in tensors if isinstance(t, _Tensor)], within)

        # What `call` of a functional model runs, in the very order.
        return keras.tree.flatten(model._run_through_graph(inputs, call_fn=call))

    def _call(
        self, operation: Any, inputs: list[_Tensor], within: tuple[str, ...]
    ) -> list[_Tensor]:
        name = self._name(operation)
        # One that is given more than its inputs, such as a mask, stays one node.
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
        # A probe sees the first tensor that a layer returns.
        return [_Tensor(name, first), *[_Tensor(name, None)] * (_outputs(operation) - 1)]

    def _name(self, operation: Any) -> str:
        if id(operation) not in self._names:  # an operation, not a layer: x + y
            self._names[id(operation)] = unique_name(operation.name, self._names.values())
        return self._names[id(operation)]

    def _parts(self, operation: Any) -> list[str]:
        """The names of the layers with weights that it is and holds."""
        if not isinstance(operation, keras.Layer):
            return []
        parts = operation._flatten_layers(include_self=True, recursive=True)
        names = [self._names[id(part)] for part in parts if part._trainable_variables]
        return list(dict.fromkeys(names))


def _is_graph(operation: Any) -> bool:
    """Whether it is a model that tells which of its layers follows which."""
    if not isinstance(operation, keras.Sequential | keras.Function):
        return False
    # Keras's own `call` follows the graph; one that replaces it may do anything.
    caller = next(kind for kind in type(operation).__mro__ if "call" in vars(kind))
    return caller.__module__.startswith("keras.")


def _inputs(model: Any) -> int:
    """How many tensors it is called on."""
    return 1 if isinstance(model, keras.Sequential) else len(model.inputs)


def _outputs(operation: Any) -> int:
    """How many tensors a call returns at most."""
    return max((len(node.outputs) for node in operation._inbound_nodes), default=1)

"""What the layers of a model are to each other: who feeds whom, what is hidden, what activates.

A layer is hidden if one with a kernel comes after it. Everything from the last kernel on belongs to
the output.
"""

from collections.abc import Iterable
from typing import Any

import keras

from kgrad.measure.inputs import require_built

# The initializer made for an activation; for all others it is Glorot's.
_FITTING = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "relu6", "elu", "celu"), "he_normal"),
    **dict.fromkeys(("gelu", "silu", "swish", "mish", "hard_silu", "softplus"), "he_normal"),
    "selu": "lecun_normal",
}
# What VarianceScaling makes of each: (scale, mode).
_SCALING = {
    "he_normal": (2.0, "fan_in"),
    "lecun_normal": (1.0, "fan_in"),
    "glorot_normal": (1.0, "fan_avg"),
}
# Layers that are an activation function → its name.
_FUNCTIONS_AS_LAYERS = {
    keras.layers.ReLU: "relu",
    keras.layers.LeakyReLU: "leaky_relu",
    keras.layers.PReLU: "prelu",
    keras.layers.ELU: "elu",
    keras.layers.Softmax: "softmax",
}


class LayerGraph:
    """The layers of a functional or sequential model, in forward order.

    Attributes:
        model: a functional model on the very layers of the one given, which stays as it was.
        operations: its layers and other operations, in forward order.

    Args:
        model: a built Keras model.

    Raises:
        ValueError: if the model is subclassed: its layers meet in its own code.
    """

    def __init__(self, model: keras.Model) -> None:
        require_built(model)
        if not getattr(model, "inputs", None):
            raise ValueError(
                f"model {model.name!r} is subclassed: its own code makes and calls its layers"
            )
        ends = [model.inputs[0], model.outputs[0]]
        if hasattr(model, "_inputs_struct"):  # as its data is nested; a Sequential has one of each
            ends = [model._inputs_struct, model._outputs_struct]
        self.model = keras.Model(*ends, name=model.name)
        by_depth = self.model._nodes_by_depth
        nodes = [node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]]
        self.operations = list({id(node.operation): node.operation for node in nodes}.values())
        self._calls: dict[int, int] = {}
        self._parents: dict[int, list[Any]] = {id(one): [] for one in self.operations}
        self._children: dict[int, list[Any]] = {id(one): [] for one in self.operations}
        for node in nodes:
            self._calls[id(node.operation)] = self._calls.get(id(node.operation), 0) + 1
            for parent in node.parent_nodes:
                self._parents[id(node.operation)].append(parent.operation)
                self._children[id(parent.operation)].append(node.operation)
        self._hidden: set[int] = set()
        for one in reversed(self.operations):
            if any(has_kernel(c) or id(c) in self._hidden for c in self._children[id(one)]):
                self._hidden.add(id(one))

    def hidden(self) -> list[Any]:
        """The hidden operations outside of nested models, in forward order."""
        return [one for one in self.operations if id(one) in self._hidden]

    def hidden_inside(self, *, everything: bool = False) -> list[tuple["LayerGraph", Any]]:
        """The hidden layers, those of nested models in their place, each with its own graph."""
        found: list[tuple[LayerGraph, Any]] = []
        for one in self.operations:
            hidden = everything or id(one) in self._hidden
            if isinstance(one, keras.Model):
                if getattr(one, "inputs", None):  # what is subclassed is one piece
                    found += LayerGraph(one).hidden_inside(everything=hidden)
            elif hidden and isinstance(one, keras.Layer):
                found.append((self, one))
        return list({id(layer): (graph, layer) for graph, layer in found}.values())

    def calls(self, operation: Any) -> int:
        """How often it is called."""
        return self._calls[id(operation)]

    def fork(self) -> str:
        """What keeps the model from being a chain, in words; empty if it is one."""
        for one in self.operations:
            for there, word in ((self._parents, "takes"), (self._children, "feeds")):
                count = len(there[id(one)])
                if count > 1 or self.calls(one) > 1:
                    return f"layer {one.name} {word} {max(count, self.calls(one))} layers"
        return ""

    def activation_after(self, layer: keras.Layer) -> str:
        """Name of the activation that a layer's output passes first, its own or a later layer's."""
        own = activation_name(layer)
        at: Any = layer
        while own == "linear":
            following = self._children.get(id(at), [])
            if len(following) != 1 or has_kernel(following[0]):
                break
            at = following[0]
            own = activation_name(at)
        return own


def unwrapped(layer: Any) -> Any:
    """The layer that a wrapper such as `TimeDistributed` or `Bidirectional` applies."""
    while (inner := getattr(layer, "forward_layer", getattr(layer, "layer", None))) is not None:
        layer = inner
    return layer


def has_kernel(operation: Any) -> bool:
    """Whether an operation has a weight of two axes or more."""
    return any(len(weight.shape) >= 2 for weight in getattr(operation, "weights", ()))


def is_recurrent(layer: Any) -> bool:
    """Whether a layer's activation is applied once a time step."""
    return isinstance(unwrapped(layer), keras.layers.RNN)


def is_activation(layer: Any) -> bool:
    """Whether a layer is nothing but an activation function."""
    return isinstance(layer, (keras.layers.Activation, *_FUNCTIONS_AS_LAYERS))


def activation_name(layer: Any) -> str:
    """Keras's name of a layer's activation function; "linear" if it has none."""
    layer = unwrapped(layer)
    f = getattr(getattr(layer, "cell", layer), "activation", None)
    for one in (layer, f):
        if type(one) in _FUNCTIONS_AS_LAYERS:
            return _FUNCTIONS_AS_LAYERS[type(one)]
    return "linear" if f is None else getattr(f, "__name__", type(f).__name__)


def fitting_initializer(activation: str) -> str:
    """Keras's name of the initializer that keeps the variance with an activation.

    Example:
        >>> fitting_initializer("relu"), fitting_initializer("tanh")
        ('he_normal', 'glorot_normal')
    """
    return _FITTING.get(activation, "glorot_normal")


def initializer_fits(initializer: Any, activation: str) -> bool:
    """Whether an initializer scales its variance as the one that fits the activation."""
    if not isinstance(initializer, keras.initializers.VarianceScaling):
        return False
    return (initializer.scale, initializer.mode) == _SCALING[fitting_initializer(activation)]


def in_words(names: Iterable[str]) -> str:
    """Layers in a few words.

    Example:
        >>> in_words(["a", "b"]), in_words(["a", "b", "c"])
        ('a, b', 'a … c, 3 layers')
    """
    names = list(names)
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}, {len(names)} layers"

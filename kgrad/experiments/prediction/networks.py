"""Read a Keras model of dense layers as a network of `kgrad.theory`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np

from kgrad import theory
from kgrad.experiments.prediction.initializers import initial_variance
from kgrad.measure.keras_models.graph import Call, model_calls
from kgrad.measure.keras_models.layers import named_activation
from kgrad.measure.keras_models.weights import describe_weights
from kgrad.records.history import Weight
from kgrad.theory.network_gradients import Parameter
from kgrad.theory.networks import Add, Dense, Input, Node, Unit
from kgrad.theory.units import UnitMap

Variances = Literal["initializer", "weights"]
_L = keras.layers
_ACCEPTED = (
    "Input, Flatten, Dense, BatchNormalization, LayerNormalization, Add and layers that apply an "
    "activation function"
)
_NORMS = (_L.BatchNormalization, _L.LayerNormalization)
# A function passed as `activation` needs no entry: `numpy_activation` reads any elementwise one.
_KNOWN = (
    _L.InputLayer,
    _L.Flatten,
    _L.Dense,
    *_NORMS,
    _L.Add,
    _L.Activation,
    _L.ReLU,
    _L.LeakyReLU,
    _L.ELU,
    _L.Softmax,
)


@dataclass
class DenseNetwork:
    """A model as a network of `kgrad.theory`.

    Attributes:
        nodes: nodes of `theory.networks`; the last one is the output's pre-activations.
        head: functions of tensors that map the output's pre-activations to the model's output.
        parameters: trainable variables, in the model's order → their parameters.
        layers: index of a node → name of the dense layer that it represents.
    """

    nodes: list[Node] = field(default_factory=list)
    head: list[Callable[[Any], Any]] = field(default_factory=list)
    parameters: dict[Weight, Parameter] = field(default_factory=dict)
    layers: dict[int, str] = field(default_factory=dict)

    def output(self, h: Any) -> Any:
        """Return the model's output for the output layer's pre-activations h."""
        for function in self.head:
            h = function(h)
        return h


def read_dense_network(model: keras.Model, variances: Variances) -> DenseNetwork:
    """Read a functional or sequential Keras model.

    Args:
        model: a built model with one input and one output.
        variances: "initializer" for the variances of the initializers, "weights" for the mean
            square of the current values.

    Raises:
        ValueError: if the theory does not cover the model; names the layers.
    """
    _require_readable(model)
    reader = _Reader(variances)
    for layer, inputs, (output,) in _needed_calls(model):
        reader.read(layer, inputs, output)
    return reader.finished(model)


def _needed_calls(model: keras.Model) -> list[Call]:
    """List the calls that the output needs, branch by branch.

    This is the order of the nodes, and the theory draws random numbers node by node: in another
    order, predictions would differ by their sampling error.

    Raises:
        ValueError: if a layer is called twice, is not covered by the theory, or has a regularizer.
    """
    makers = {id(tensor): call for call in model_calls(model) for tensor in call.outputs}
    found: dict[int, Call] = {}
    stack = [model.outputs[0]]
    while stack:
        call = makers[id(stack[-1])]
        missing = [tensor for tensor in call.inputs if id(tensor) not in found]
        stack.extend(missing)
        if not missing:
            found[id(stack.pop())] = call
    calls = list(found.values())
    seen = [id(layer) for layer, _, _ in calls]
    shared = [layer for layer, _, _ in calls if seen.count(id(layer)) > 1]
    if shared:
        raise _refusal(model, shared, ", each called once,", "use a new layer for each call")
    unknown = [layer for layer, _, _ in calls if type(layer) not in _KNOWN]
    if unknown:
        raise _refusal(model, unknown, "", "pass a model without such layers")
    regularized = [layer for layer, _, _ in calls if _is_regularized(layer)]
    if regularized:
        raise _refusal(
            model, regularized, ", without regularizers,", "pass a model without regularizers"
        )
    return calls


def _require_readable(model: keras.Model) -> None:
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise ValueError(
            f"model {model.name!r} must be functional or sequential for a prediction, received a "
            f"{type(model).__name__}, whose order of layers cannot be read: build it from "
            f"{_ACCEPTED}"
        )


def _refusal(model: keras.Model, layers: list[Any], how: str, advice: str) -> ValueError:
    """Return the error for layers that the theory does not cover.

    Args:
        model: the model.
        layers: the layers that it must not have.
        how: a further condition on the accepted layers, between commas; may be empty.
        advice: what to do.
    """
    unique = dict.fromkeys(f"{layer.name!r} ({type(layer).__name__})" for layer in layers)
    return ValueError(
        f"model {model.name!r} must consist only of {_ACCEPTED}{how} for a prediction, "
        f"received {', '.join(unique):.300}: {advice}"
    )


def _is_regularized(layer: Any) -> bool:
    names = [name for name in vars(layer) if name.endswith("_regularizer")]
    return any(getattr(layer, name) is not None for name in [*names, "activity_regularizer"])


class _Reader:
    """A builder of a network's nodes, call by call.

    Activations and normalizations are collected until a Dense or Add layer reads their output.
    Then they become one `Unit`.
    """

    def __init__(self, variances: Variances) -> None:
        self.network = DenseNetwork()
        self._variances = variances
        self._nodes = self.network.nodes
        self._parameters: dict[int, Parameter] = {}  # by the `id` of the variable
        self._layers: dict[int, keras.layers.Dense] = {}  # by the index of the node
        # Tensor → the node of its units, and the functions applied to them after this node.
        self._chains: dict[int, tuple[int, list[Any]]] = {}
        self._read: dict[int, int] = {}  # tensor → its `Unit`, after a layer has read it
        self._norms: list[Any] = []  # in all unit maps: a normalization must be in only one
        # Node → the Dense nodes, or the input, that its units come from. An Add must not have the
        # same origin twice: theory assumes that the terms of a sum are independent.
        self._origins: dict[int, frozenset[int]] = {}

    def read(self, layer: Any, inputs: list[Any], output: Any) -> None:
        """Add a layer's call."""
        applied: list[Any] = []
        if isinstance(layer, _L.InputLayer):
            place = self._append(Input(), frozenset([0]))
        elif isinstance(layer, _L.Dense):
            place = self._dense(layer, inputs[0])
            applied = [] if is_linear(layer.activation) else [layer.activation]
        elif isinstance(layer, _L.Add):
            place = self._add(layer, inputs)
        else:
            place, applied = self._chains[id(inputs[0])]
            if isinstance(layer, _L.Flatten):
                if len(inputs[0].shape) > 2 and (place or applied):
                    raise ValueError(
                        f"layer {layer.name!r} must come right after the input for a prediction"
                    )
            elif not is_linear(getattr(layer, "activation", layer)):
                applied = [*applied, layer]
        self._chains[id(output)] = place, applied

    def _append(self, node: Node, origins: frozenset[int] | None = None) -> int:
        self._nodes.append(node)
        here = len(self._nodes) - 1
        self._origins[here] = frozenset([here]) if origins is None else origins
        return here

    def _dense(self, layer: Any, source: Any) -> int:
        if len(source.shape) != 2:
            raise ValueError(
                f"layer {layer.name!r} must take (batch, features) for a prediction, received "
                f"{tuple(source.shape)}: add a Flatten before it"
            )
        place = self._node_of(source, to_dense=True)
        kernel = self._variance(layer, "kernel")
        bias = self._variance(layer, "bias") if layer.use_bias else 0.0
        here = self._append(Dense(place, int(layer.units), kernel, bias))
        self._layers[here] = layer
        self._parameters[id(layer.kernel)] = Parameter("kernel", here)
        if layer.use_bias:
            self._parameters[id(layer.bias)] = Parameter("bias", here)
        return here

    def _add(self, layer: Any, inputs: list[Any]) -> int:
        places = [self._node_of(tensor) for tensor in inputs]
        origins = [self._origins[place] for place in places]
        together = frozenset().union(*origins)
        shapes = {tuple(tensor.shape) for tensor in inputs}
        if len(shapes) > 1 or len(together) < sum(map(len, origins)):
            raise ValueError(
                f"layer {layer.name!r} must add tensors of one shape, separated from each other by "
                "a Dense layer, for a prediction"
            )
        return self._append(Add(tuple(places)), together)

    def _node_of(self, tensor: Any, *, to_dense: bool = False) -> int:
        """Return the node of a tensor; adds a `Unit` for the functions applied to its units.

        Args:
            tensor: the tensor.
            to_dense: whether a Dense layer reads it: after another Dense layer it gets a `Unit`
                even without an activation, because predictions name each hidden layer's activation.
        """
        place, applied = self._chains[id(tensor)]
        if not applied and not (to_dense and isinstance(self._nodes[place], Dense)):
            return place
        if id(tensor) not in self._read:
            if applied and self._sums_activations(place):
                raise ValueError(
                    f"{getattr(applied[0], 'name', applied[0])!r} must not follow an Add of "
                    "activations for a prediction: put it before the Add"
                )
            unit_map = self._unit_map(applied, len(self._nodes))
            self._read[id(tensor)] = self._append(Unit(place, unit_map), self._origins[place])
        return self._read[id(tensor)]

    def _sums_activations(self, place: int) -> bool:
        node = self._nodes[place]
        if not isinstance(node, Add):
            return False
        return any(
            isinstance(self._nodes[one], Unit) or self._sums_activations(one)
            for one in node.sources
        )

    def _unit_map(self, applied: list[Any], here: int) -> UnitMap:
        """Return the unit map of an activation, a normalization and an activation.

        Args:
            applied: the functions, of which at most one of each is accepted, in this order.
            here: index that the node of the map will have.
        """
        norms = [one for one in applied if isinstance(one, _NORMS)]
        at = applied.index(norms[0]) if norms else 0
        before, after = applied[:at], applied[at + 1 :] if norms else applied
        twice = any(norm is one for norm in norms for one in self._norms)
        self._norms += norms
        if len(norms) > 1 or len(before) > 1 or len(after) > 1 or twice:
            names = ", ".join(repr(getattr(one, "name", one)) for one in applied)
            raise ValueError(
                "between two Dense layers there must be at most one normalization, and at most one "
                f"activation before and one after it, for a prediction, received {names}"
            )
        phi = [theory.activation("linear"), theory.activation("linear")]
        for i, one in enumerate((before, after)):
            if one:
                phi[i] = numpy_activation(one[0])
        if not norms:
            return UnitMap(after=phi[1])
        self._norm_parameters(norms[0], here)
        kind: Any = "batch" if isinstance(norms[0], _L.BatchNormalization) else "layer"
        return UnitMap(phi[0], kind, phi[1], float(norms[0].epsilon))

    def _norm_parameters(self, layer: Any, here: int) -> None:
        """Check that theory covers a normalization, and add its γ and β, of the node `here`."""
        plain = tuple(np.atleast_1d(layer.axis)) in ((-1,), (1,))
        plain = plain and not getattr(layer, "rms_scaling", False)
        plain = plain and not getattr(layer, "renorm", False)
        if not plain or not (layer.trainable or isinstance(layer, _L.LayerNormalization)):
            raise ValueError(
                f"layer {layer.name!r} must normalize the last axis of (batch, features) by the "
                "batch's or the sample's mean and variance for a prediction"
            )
        for name, start in (("gamma", 1.0), ("beta", 0.0)):
            variable = getattr(layer, name, None)
            if variable is None:
                continue
            if not self._is_constant(layer, name, start):
                raise ValueError(
                    f"{name} of layer {layer.name!r} must be {start:g} everywhere, its initial "
                    "value in Keras, for a prediction"
                )
            kind: Any = name
            self._parameters[id(variable)] = Parameter(kind, here)

    def _is_constant(self, layer: Any, name: str, value: float) -> bool:
        """Return whether all entries of a variable, initial or current, are equal to the value."""
        variable = getattr(layer, name)
        if self._variances == "weights":
            return bool(np.all(np.asarray(variable) == value))
        initializer, kinds = getattr(layer, f"{name}_initializer"), keras.initializers
        if type(initializer) in (kinds.Zeros, kinds.Ones):  # the usual case, without a draw
            return type(initializer) is (kinds.Ones if value else kinds.Zeros)
        return bool(np.all(np.asarray(initializer(variable.shape, variable.dtype)) == value))

    def _variance(self, layer: Any, name: str) -> float:
        variable = getattr(layer, name)
        if self._variances == "weights":
            return float(np.mean(np.asarray(variable, np.float64) ** 2))
        initializer = getattr(layer, f"{name}_initializer")
        return initializer_variance(initializer, tuple(variable.shape), name, layer.name)

    def finished(self, model: keras.Model) -> DenseNetwork:
        """Add the head and the names, and return the network.

        Raises:
            ValueError: if the model does not end in a Dense layer and its activation.
        """
        place, applied = self._chains[id(model.outputs[0])]
        last = place == len(self._nodes) - 1 and isinstance(self._nodes[place], Dense)
        if not last or any(isinstance(one, _NORMS) for one in applied):
            raise ValueError(
                f"model {model.name!r} must end in a Dense layer and its activation for a "
                f"prediction, received {model.layers[-1].name!r} as the last layer"
            )
        self.network.head = applied
        described = describe_weights(model)
        self.network.parameters = {
            described[id(v)]: self._parameters[id(v)] for v in model.trainable_variables
        }
        self.network.layers = {
            place: described[id(layer.kernel)].layer for place, layer in self._layers.items()
        }
        return self.network


def initializer_variance(
    initializer: Any, shape: tuple[int, ...], variable: str, layer: str
) -> float:
    """Return `initial_variance` of a layer's variable; an error names both."""
    try:
        return initial_variance(initializer, shape)
    except ValueError as error:
        raise ValueError(f"{variable} of layer {layer!r}: {error}") from None


def numpy_activation(function: Any) -> theory.Activation:
    """Return the activation of a Keras layer or function in NumPy.

    If `theory.activation` does not know its name, the function itself is called and its derivative
    is computed numerically.

    Raises:
        ValueError: if the activation is not elementwise.
    """
    named = named_activation(function)
    if named is not None:
        name, parameters = named
        try:
            return theory.activation(name, **parameters)
        except ValueError as error:
            if name in ("softmax", "log_softmax", "glu", "sparsemax"):
                raise ValueError(
                    f"a hidden activation must be elementwise for a prediction, received {name!r}"
                ) from error
    if type(function) is _L.Activation:
        function = function.activation

    def f(x: np.ndarray) -> np.ndarray:
        return np.asarray(function(keras.ops.convert_to_tensor(x, "float64")), np.float64)

    found = theory.activation(f)
    label = getattr(function, "__name__", getattr(function, "name", type(function).__name__))
    return theory.Activation(str(label), found.f, found.df, found.kinks)


def is_linear(function: Any) -> bool:
    """Return whether an activation leaves its argument as it is."""
    return function is None or function is keras.activations.linear

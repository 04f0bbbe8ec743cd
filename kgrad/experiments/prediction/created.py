"""The network that `create_model` builds, described from its arguments without building it.

Building a deep Keras model takes longer than predicting its gradients.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras

from kgrad.experiments.models import (
    checked_sizes,
    find_activation,
    find_bias_initializer,
    find_initializer,
    find_normalization,
)
from kgrad.experiments.prediction.networks import (
    DenseNetwork,
    initializer_variance,
    is_linear,
    numpy_activation,
)
from kgrad.records.history import Weight
from kgrad.theory.network_gradients import Parameter
from kgrad.theory.networks import Add, Dense, Input, Node, Unit
from kgrad.theory.units import LINEAR, UnitMap


def describe_created_network(
    num_layers: int,
    activation: Any,
    weight_initializer: Any,
    *,
    bias_initializer: str,
    units: int | Sequence[int],
    input_shape: Sequence[int],
    output_units: int,
    output_activation: Any,
    normalization: str | None,
    skip_connections: bool,
    seed: int | None,
) -> DenseNetwork | None:
    """Return what `read_dense_network` returns for the model that `create_model` builds.

    Nodes and weights have the same order, so that both give the same prediction to the last bit.

    Args:
        num_layers: as in `create_model`, and so are all others.
        activation: see there.
        weight_initializer: see there.
        bias_initializer: see there.
        units: see there.
        input_shape: see there.
        output_units: see there.
        output_activation: see there.
        normalization: see there.
        skip_connections: see there.
        seed: see there.

    Returns:
        The network; None if an activation is a layer, which only the built model describes.

    Raises:
        ValueError: if an argument is not accepted, or the theory does not cover the network.
    """
    widths = checked_sizes(num_layers, units, input_shape, output_units, seed)
    f = find_activation("activation", activation)
    output_f = find_activation("output_activation", output_activation)
    initializer = find_initializer("weight_initializer", weight_initializer)
    biases = find_bias_initializer(bias_initializer)
    norm_class = find_normalization(normalization)
    if isinstance(f, keras.Layer) or isinstance(output_f, keras.Layer):
        return None
    unit = UnitMap(after=LINEAR if is_linear(f) else numpy_activation(f))
    if norm_class:
        norm: Any = "batch" if norm_class is keras.layers.BatchNormalization else "layer"
        unit = UnitMap(LINEAR, norm, unit.after, float(norm_class().epsilon))

    network = DenseNetwork(head=[] if is_linear(output_f) else [output_f])
    width_of: list[int] = []

    def append(node: Node, width: int) -> int:
        network.nodes.append(node)
        width_of.append(width)
        return len(width_of) - 1

    def dense(source: int, name: str, width: int, *, biased: bool = True) -> int:
        variance = initializer_variance(initializer, (width_of[source], width), "kernel", name)
        of_bias = initializer_variance(biases, (width,), "bias", name) if biased else 0.0
        here = append(Dense(source, width, variance, of_bias), width)
        network.layers[here] = name
        return here

    def name_weights(layer: str, place: int, kinds: Sequence[Any], *shape: int) -> None:
        for kind in kinds:
            own = shape if kind == "kernel" else shape[-1:]
            network.parameters[Weight(layer, kind, f"{layer}/{kind}", own)] = Parameter(kind, place)

    x = start = append(Input(), math.prod(input_shape))
    for k, width in enumerate(widths, start=1):
        start = x if k % 2 == 1 else start
        adds = skip_connections and k % 2 == 0
        hidden, before = dense(x, f"hidden_{k}", width), width_of[x]
        shortcut, projects = start, adds and width_of[start] != width
        if projects:
            shortcut = dense(start, f"projection_{k // 2}", width, biased=False)
        # Without an activation, an Add reads the pre-activations.
        x = hidden if adds and unit == UnitMap() else append(Unit(hidden, unit), width)
        # Keras's order is by the distance from the output, which a normalization increases.
        if projects and norm_class is None:
            name_weights(f"projection_{k // 2}", shortcut, ["kernel"], width_of[start], width)
        name_weights(f"hidden_{k}", hidden, ["kernel", "bias"], before, width)
        if norm_class:
            name_weights(f"norm_{k}", x, ["gamma", "beta"], width)
        if projects and norm_class:
            name_weights(f"projection_{k // 2}", shortcut, ["kernel"], width_of[start], width)
        if adds:
            x = append(Add((shortcut, x)), width)
    name_weights(
        "output", dense(x, "output", output_units), ["kernel", "bias"], width, output_units
    )
    return network

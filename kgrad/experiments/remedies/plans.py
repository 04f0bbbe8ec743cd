"""What a change comes to in a model: which layers get what, or why it cannot be made to it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from kgrad.measure.aliases import NORMALIZATIONS
from kgrad.measure.keras_models.graph import LayerGraph
from kgrad.measure.keras_models.layers import (
    activation_name,
    fitting_initializer,
    has_kernel,
    initializer_fits,
    is_activation,
    is_recurrent,
    unwrapped,
)

_NORMALIZING = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)
_KEPT = ("linear", "softmax")  # activations that are none, or that attend


class Change(NamedTuple):
    """One thing to change.

    Attributes:
        remedy: the kind of change, as `try_remedies` takes it.
        name: what it is called in tables and figures.
        settings: what is set to what.
    """

    remedy: str
    name: str
    settings: Mapping[str, Any]


CHANGES = (
    Change("initializer", "initializer that fits", {"initializer": "fitting"}),
    Change("activation", "activation relu", {"activation": "relu"}),
    Change("activation", "activation gelu", {"activation": "gelu"}),
    Change(
        "activation",
        "activation relu, initializer he",
        {"activation": "relu", "initializer": "he_normal"},
    ),
    Change("normalization", "normalization batch", {"normalization": "batch"}),
    Change("normalization", "normalization layer", {"normalization": "layer"}),
    Change("skip_connections", "skip connections", {"skip_connections": True}),
    Change("clipping", "clipping, norm 1", {"global_clipnorm": 1.0}),
    Change("clipping", "no clipping", {"global_clipnorm": None}),
    Change("learning_rate", "learning rate ×0.01", {"learning_rate": 0.01}),
    Change("learning_rate", "learning rate ×0.1", {"learning_rate": 0.1}),
    Change("learning_rate", "learning rate ×10", {"learning_rate": 10.0}),
    Change("learning_rate", "learning rate ×100", {"learning_rate": 100.0}),
)


class Plan(NamedTuple):
    """What a change comes to in a model.

    Attributes:
        configs: entries of layers' configs to set, by the id of the layer.
        call: function of (original, layer, *args, **kwargs) that calls a clone's layer.
        words: the change in words; empty if there is none.
    """

    configs: Mapping[int, Mapping[str, Any]] = {}
    call: Callable[..., Any] | None = None
    words: str = ""


def plan_change(graph: LayerGraph, settings: Mapping[str, Any]) -> Plan:
    """Find what a change's settings come to in a model.

    Args:
        graph: the model's layers.
        settings: those of a `Change`; what is not about layers is passed over.

    Raises:
        ValueError: if the change cannot be made to this model, or would change nothing; in one
            sentence.
    """
    if "normalization" in settings:
        return _normalized(graph, settings["normalization"])
    if "skip_connections" in settings:
        return _skipping(graph)
    plans = []
    f = settings.get("activation")
    if f is not None:
        plans.append(_activated(graph, f))
    if "initializer" in settings:
        plans.append(_initialized(graph, f))
    configs: dict[int, dict[str, Any]] = {}
    for plan in plans:
        for layer, entries in plan.configs.items():
            configs.setdefault(layer, {}).update(entries)
    return Plan(configs, words="; ".join(plan.words for plan in plans))


def _activated(graph: LayerGraph, name: str) -> Plan:
    """Another activation in hidden layers: not where it is none, gates time steps or attends."""
    layers = [layer for _, layer in graph.hidden_inside() if _activates(layer)]
    usable = [layer for layer in layers if not is_recurrent(layer)]
    if not usable:
        raise ValueError(_no_activation("to replace", layers))
    changing = [layer for layer in usable if activation_name(layer) != name]
    if not changing:
        raise ValueError(f"{name} is the activation of {_named(usable)} already")
    configs = {id(layer): {"activation": name} for layer in changing}
    return Plan(configs, words=f"{name} in {_named(changing)}")


def _initialized(graph: LayerGraph, replaced_by: str | None) -> Plan:
    """The initializers of hidden layers that fit their activations, or what replaces those."""
    configs: dict[int, dict[str, Any]] = {}
    changing: dict[str, list[Any]] = {}
    for own_graph, layer in graph.hidden_inside():
        initializer = getattr(unwrapped(layer), "kernel_initializer", None)
        f = own_graph.activation_after(layer)
        if replaced_by and f not in _KEPT and not is_recurrent(layer):
            f = replaced_by
        if initializer is None or initializer_fits(initializer, f):
            continue
        target = keras.initializers.get(fitting_initializer(f))
        config: dict[str, Any] = getattr(initializer, "get_config", dict)()
        seed = config.get("seed") if isinstance(config.get("seed"), int) else None
        target = type(target)(seed=seed)
        configs[id(layer)] = {"kernel_initializer": keras.initializers.serialize(target)}
        changing.setdefault(fitting_initializer(f), []).append(layer)
    if not configs:
        raise ValueError(
            f"the hidden layers' initializers fit {replaced_by or 'their activations'} already"
        )
    return Plan(configs, words=", ".join(f"{n} in {_named(some)}" for n, some in changing.items()))


def _normalized(graph: LayerGraph, kind: str) -> Plan:
    """A normalization before each hidden activation; that of a layer becomes one of its own."""
    for layer in graph.model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, _NORMALIZING):
            raise ValueError(f"layer {layer.name} normalizes already")
    layers = [one for one in graph.hidden() if _activates(one)]
    sites = [one for one in layers if unwrapped(one) is one and not is_recurrent(one)]
    if not sites:
        raise ValueError(_no_activation("to normalize before", layers))
    for one in sites:
        if graph.calls(one) > 1:
            raise ValueError(f"layer {one.name} is shared, called {graph.calls(one)} times")
    chosen = {id(one) for one in sites}

    def call(original: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(original) not in chosen:
            return layer(*args, **kwargs)
        norm = getattr(keras.layers, NORMALIZATIONS[kind])(name=f"norm_{original.name}")
        if is_activation(original):
            return layer(norm(*args, **kwargs))
        f, name = original.activation, f"activation_{original.name}"
        if isinstance(f, keras.Layer):
            f = type(f).from_config(f.get_config() | {"name": name})
        else:
            f = keras.layers.Activation(f, name=name)
        return f(norm(layer(*args, **kwargs)))

    configs = {id(one): {"activation": "linear"} for one in sites if not is_activation(one)}
    return Plan(configs, call, f"{kind} normalization before the activation of {_named(sites)}")


def _skipping(graph: LayerGraph) -> Plan:
    """A skip connection around each pair of hidden Dense layers, as `create_model` has them."""
    if fork := graph.fork():
        raise ValueError(f"{fork}: skip connections are added to chains of Dense layers only")
    dense = [one for one in graph.operations if has_kernel(one)]
    for one in dense:
        if not isinstance(one, keras.layers.Dense):
            raise ValueError(
                "skip connections are added around Dense layers only, and layer "
                f"{one.name} is of class {type(one).__name__}"
            )
    *hidden, _ = dense
    if len(hidden) < 2:
        raise ValueError("a skip connection spans two hidden Dense layers, and there is one")
    places = {id(one): place for place, one in enumerate(graph.operations)}
    pairs = list(zip(hidden[0::2], hidden[1::2], strict=False))
    starts = {id(first) for first, _ in pairs}
    # Behind the activation, and whatever else comes before the next kernel.
    ends = {id(graph.operations[places[id(dense[2 * j + 2])] - 1]): j for j in range(len(pairs))}
    start: list[Any] = []

    def call(original: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(original) in starts:
            start[:] = args
        x = layer(*args, **kwargs)
        if id(original) not in ends:
            return x
        j = ends[id(original)]
        return _joined(start[0], x, pairs[j][1].kernel_initializer, j + 1)

    return Plan({}, call, "; ".join(f"around {a.name} and {b.name}" for a, b in pairs))


def _joined(start: Any, x: Any, initializer: Any, j: int) -> Any:
    """The output plus what came in, through a trained matrix where widths differ."""
    if start.shape[-1] != x.shape[-1]:
        if hasattr(initializer, "get_config"):
            config = initializer.get_config()
            if isinstance(seed := config.get("seed"), int):  # with the same it would equal a kernel
                config["seed"] = seed + 1
            initializer = type(initializer).from_config(config)
        start = keras.layers.Dense(
            x.shape[-1], use_bias=False, kernel_initializer=initializer, name=f"projection_{j}"
        )(start)
    return keras.layers.Add(name=f"skip_{j}")([start, x])


def _activates(layer: Any) -> bool:
    """Whether a layer applies an activation that might be another."""
    return not isinstance(layer, keras.Model) and activation_name(layer) not in _KEPT


def _no_activation(wanted: str, layers: Sequence[Any]) -> str:
    if not layers:
        return f"no hidden layer has an activation {wanted}"
    return (
        f"no hidden layer has an activation {wanted} but {_named(layers)}, which applies its own "
        "within each time step"
    )


def _named(layers: Sequence[Any]) -> str:
    return in_words([layer.name for layer in layers])


def in_words(names: Iterable[str]) -> str:
    """Return the names of layers in a few words.

    Example:
        >>> in_words(["a", "b"]), in_words(["a", "b", "c"])
        ('a, b', 'a … c, 3 layers')
    """
    names = list(names)
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}, {len(names)} layers"

"""Plans: which layers of a model a change affects and how, or why it cannot be made."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from kgrad.experiments.remedies.skill import Task
from kgrad.measure.aliases import NORMALIZATIONS, fitting_initializer
from kgrad.measure.keras_models.graph import LayerGraph
from kgrad.measure.keras_models.layers import (
    activation_name,
    has_kernel,
    initializer_fits,
    is_activation,
    is_recurrent,
    loss_name,
    unwrapped,
)

_NORMALIZING = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
)
_PLAIN = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
# Moving averages that settle within the steps of a trial; Keras's default needs hundreds.
_SETTLING = {"batch": {"momentum": 0.9}}
_KEPT = ("linear", "softmax")  # no activation, or that of an attention layer


class Change(NamedTuple):
    """One change.

    Attributes:
        remedy: the kind of change, as in the argument `remedies` of `try_remedies`.
        name: the name in tables and figures.
        settings: setting → its value. Of several settings of the data and the output, those that
            would change nothing are left out, as long as two are left.
    """

    remedy: str
    name: str
    settings: Mapping[str, Any]


CHANGES = (
    Change("output", "output and loss that fit", {"output": True}),
    Change("samples", "samples with NaN left out", {"samples": "finite"}),
    Change("inputs", "inputs standardized", {"inputs": True}),
    Change("targets", "targets standardized", {"targets": True}),
    Change("data", "inputs and targets standardized", {"inputs": True, "targets": True}),
    Change(
        "data",
        "data standardized, output and loss that fit",
        {"inputs": True, "targets": True, "output": True},
    ),
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
    Change("normalization", "batch normalization, momentum 0.9", {"momentum": 0.9}),
    Change("skip_connections", "skip connections", {"skip_connections": True}),
    Change("clipping", "clipping, norm 1", {"global_clipnorm": 1.0}),
    Change("clipping", "no clipping", {"global_clipnorm": None}),
    Change("learning_rate", "constant learning rate", {"learning_rate": "constant"}),
    Change("learning_rate", "learning rate for updates of 0.3 %", {"learning_rate": "fitting"}),
    Change("learning_rate", "learning rate ×0.1", {"learning_rate": 0.1}),
    Change("learning_rate", "learning rate ×10", {"learning_rate": 10.0}),
    Change("learning_rate", "default learning rate", {"learning_rate": "default"}),
    Change("learning_rate", "learning rate ×0.01", {"learning_rate": 0.01}),
    Change("learning_rate", "learning rate ×100", {"learning_rate": 100.0}),
    Change("learning_rate", "learning rate made positive", {"learning_rate": -1.0}),
    Change("optimizer", "optimizer Adam", {"optimizer": "adam"}),
    Change("dropout", "dropout 0.2", {"dropout": 0.2}),
    Change("dropout", "no dropout", {"dropout": 0.0}),
    Change("penalties", "penalties ×0.01", {"penalties": 0.01}),
    Change("class_weights", "classes weighted alike", {"class_weights": True}),
)


class Plan(NamedTuple):
    """The effect of a change on the layers of a model.

    Attributes:
        configs: `id` of a layer → the entries of its config to set.
        call: function of (original, layer, *args, **kwargs) that calls a clone's layer; None to
            call all layers as before.
        words: description of the change; empty if there is none.
        loss: name of the loss that replaces the model's; empty to keep it.
    """

    configs: Mapping[int, Mapping[str, Any]] = {}
    call: Callable[..., Any] | None = None
    words: str = ""
    loss: str = ""


def plan_change(
    graph: LayerGraph, settings: Mapping[str, Any], loss: Any = None, tasks: Sequence[Task] = ()
) -> Plan:
    """Plan a change of a model's layers.

    Args:
        graph: the model's layers.
        settings: the settings of a `Change`; those of the optimizer and the data are ignored.
        loss: the model's loss.
        tasks: what each output is asked for.

    Raises:
        ValueError: if the change cannot be made to this model, or would change nothing. The message
            is one sentence.
    """
    if "normalization" in settings:
        return _normalized(graph, settings["normalization"])
    if "skip_connections" in settings:
        return _skipping(graph)
    if "output" in settings:
        return _fitting_output(graph, loss, tasks)
    if "momentum" in settings:
        return _faster_averages(graph, settings["momentum"])
    if "dropout" in settings:
        return _less_dropout(graph, settings["dropout"])
    if "penalties" in settings:
        return _smaller_penalties(graph, settings["penalties"])
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


def _fitting_output(graph: LayerGraph, loss: Any, tasks: Sequence[Task]) -> Plan:
    """Plan the units and the activation of the last layer, and the loss, that fit the targets."""
    if len(tasks) != 1:
        raise ValueError("the model has several outputs")
    *_, last = [one for one in graph.operations if has_kernel(one)] or [None]
    if not isinstance(last, keras.layers.Dense):
        raise ValueError("the last layer with weights is not a Dense layer")
    behind = graph.operations[graph.operations.index(last) + 1 :]
    if any(not is_activation(one) for one in behind):
        raise ValueError(f"other layers follow the last Dense layer, {last.name}")
    task, now = tasks[0], activation_name(behind[-1] if behind else last)
    units = len(task.classes) if task.kind == "class" else last.units
    if task.kind == "class" and task.one_hot:
        wanted, better = "softmax", "categorical_crossentropy"
    elif task.kind == "class" and units > 2:
        wanted, better = "softmax", "sparse_categorical_crossentropy"
    elif task.kind == "class":
        units, wanted, better = 1, "sigmoid", "binary_crossentropy"
    elif task.kind == "labels":
        wanted, better = "sigmoid", "binary_crossentropy"
    else:
        wanted, better = "linear", "mean_squared_error"
    name, logits = loss_name(loss), getattr(loss, "_fn_kwargs", {}).get("from_logits", False)
    is_coded_well = task.classes == tuple(range(len(task.classes)))
    if (units, wanted, better) == (last.units, now, name) and is_coded_well and not logits:
        raise ValueError(f"{units} {wanted} outputs with {better} fit the targets already")
    configs: dict[int, dict[str, Any]] = {id(one): {"activation": "linear"} for one in behind}
    configs[id(last)] = {"units": units, "activation": wanted}
    return Plan(configs, words=f"{last.name}: {units} {wanted} outputs, {better}", loss=better)


def _faster_averages(graph: LayerGraph, momentum: float) -> Plan:
    layers = [layer for _, layer in graph.hidden_inside(everything=True)]
    found = [one for one in layers if isinstance(one, keras.layers.BatchNormalization)]
    changing = [one for one in found if one.momentum > momentum]
    if not changing:
        raise ValueError(f"no batch normalization has a momentum above {momentum:g}")
    words = f"momentum {momentum:g} in {_named(changing)}"
    return Plan({id(one): {"momentum": momentum} for one in changing}, words=words)


def _less_dropout(graph: LayerGraph, rate: float) -> Plan:
    layers = [layer for _, layer in graph.hidden_inside(everything=True)]
    hidden = {id(layer) for _, layer in graph.hidden_inside()}
    found = [one for one in layers if isinstance(one, keras.layers.Dropout)]
    limits = [(one, rate if id(one) in hidden else 0.0) for one in found]
    changing = [(one, limit) for one, limit in limits if one.rate > limit]
    if not changing:
        raise ValueError(f"no dropout layer has a rate above {rate:g}")
    words = ", ".join(f"{one.name} {one.rate:g} → {limit:g}" for one, limit in changing[:2])
    words += f" … {len(changing)} layers" if len(changing) > 2 else ""
    return Plan({id(one): {"rate": limit} for one, limit in changing}, words=words)


def _smaller_penalties(graph: LayerGraph, factor: float) -> Plan:
    configs: dict[int, dict[str, Any]] = {}
    changing = []
    for _, layer in graph.hidden_inside(everything=True):
        entries = {}
        for key in ("kernel_regularizer", "bias_regularizer", "activity_regularizer"):
            regularizer: Any = getattr(layer, key, None)
            config = {} if regularizer is None else regularizer.get_config()
            smaller = {k: v * factor for k, v in config.items() if isinstance(v, float)}
            if smaller:
                entries[key] = type(regularizer).from_config(config | smaller)
        if entries:
            configs[id(layer)] = entries
            changing.append(layer)
    if not changing:
        raise ValueError("no layer has a penalty on its weights or outputs")
    return Plan(configs, words=f"penalties × {factor:g} in {_named(changing)}")


def _activated(graph: LayerGraph, name: str) -> Plan:
    """Plan another activation in hidden layers.

    Those of attention and of recurrent layers are kept. So are linear ones, unless most dense and
    convolutional layers are linear.
    """
    layers = [layer for _, layer in graph.hidden_inside() if _activates(layer)]
    usable = [layer for layer in layers if not is_recurrent(layer)]
    plain = [pair for pair in graph.hidden_inside() if isinstance(pair[1], _PLAIN)]
    linear = [layer for inner, layer in plain if inner.activation_after(layer) == "linear"]
    if len(linear) > len(plain) / 2:
        usable += linear
    if not usable:
        raise ValueError(_no_activation(layers))
    changing = [layer for layer in usable if activation_name(layer) != name]
    if not changing:
        raise ValueError(f"the activation is already {name} in {_named(usable)}")
    configs = {id(layer): {"activation": name} for layer in changing}
    return Plan(configs, words=f"{name} in {_named(changing)}")


def _initialized(graph: LayerGraph, replaced_by: str | None) -> Plan:
    """Plan initializers of hidden layers that fit their activations, or the new activation."""
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
            f"the hidden layers' initializers already fit {replaced_by or 'their activations'}"
        )
    return Plan(configs, words=", ".join(f"{n} in {_named(some)}" for n, some in changing.items()))


def _normalized(graph: LayerGraph, kind: str) -> Plan:
    """Plan a normalization before each hidden activation.

    An activation that is part of a layer becomes a layer of its own.
    """
    for layer in graph.model._flatten_layers(include_self=False, recursive=True):
        if isinstance(layer, _NORMALIZING):
            raise ValueError(f"layer {layer.name} already normalizes")
    layers = [one for one in graph.hidden() if _activates(one)]
    sites = [one for one in layers if unwrapped(one) is one and not is_recurrent(one)]
    if not sites:
        raise ValueError(_no_activation(layers))
    for one in sites:
        if graph.calls(one) > 1:
            raise ValueError(f"layer {one.name} is shared: it is called {graph.calls(one)} times")
    chosen = {id(one) for one in sites}

    def call(original: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(original) not in chosen:
            return layer(*args, **kwargs)
        norm = getattr(keras.layers, NORMALIZATIONS[kind])(
            name=f"norm_{original.name}", **_SETTLING.get(kind, {})
        )
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
    """Plan a skip connection around each pair of hidden Dense layers, as in `create_model`."""
    if fork := graph.fork():
        raise ValueError(f"{fork}: skip connections need a chain of Dense layers")
    dense = [one for one in graph.operations if has_kernel(one)]
    for one in dense:
        if not isinstance(one, keras.layers.Dense):
            raise ValueError(
                f"skip connections need Dense layers, but layer {one.name} is of class "
                f"{type(one).__name__}"
            )
    *hidden, _ = dense
    if len(hidden) < 2:
        raise ValueError("a skip connection spans two hidden Dense layers, but there is only one")
    places = {id(one): place for place, one in enumerate(graph.operations)}
    pairs = list(zip(hidden[0::2], hidden[1::2], strict=False))
    starts = {id(first) for first, _ in pairs}
    # After the activation and everything else before the next kernel.
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

    first, last = pairs[0][0].name, pairs[-1][1].name
    several = f"{len(pairs)} pairs of layers, {first} … {last}"
    return Plan({}, call, f"around {several if len(pairs) > 1 else f'{first} and {last}'}")


def _joined(start: Any, x: Any, initializer: Any, j: int) -> Any:
    """Return x + start, with a trained projection of start if the widths differ."""
    if start.shape[-1] != x.shape[-1]:
        if hasattr(initializer, "get_config"):
            config = initializer.get_config()
            if isinstance(seed := config.get("seed"), int):  # the same seed would copy a kernel
                config["seed"] = seed + 1
            initializer = type(initializer).from_config(config)
        start = keras.layers.Dense(
            x.shape[-1], use_bias=False, kernel_initializer=initializer, name=f"projection_{j}"
        )(start)
    return keras.layers.Add(name=f"skip_{j}")([start, x])


def _activates(layer: Any) -> bool:
    """Return whether a layer applies an activation that can be replaced."""
    return not isinstance(layer, keras.Model) and activation_name(layer) not in _KEPT


def _no_activation(layers: Sequence[Any]) -> str:
    if not layers:
        return "no hidden layer has an activation"
    return f"only {_named(layers)} has a hidden activation, which is applied within each time step"


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

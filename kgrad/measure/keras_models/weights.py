"""The names of a model's layers and weights, and the selection of weights by name."""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras

from kgrad.records.checks import did_you_mean, unique_name
from kgrad.records.history import Weight
from kgrad.records.statistics import layers_of

# Which weights to watch: all (None), those whose layer or path equals or matches a name or pattern,
# or those for which a function returns True.
Selection = None | str | Sequence[str] | Callable[[Weight], bool]


def all_built(model: keras.Model) -> bool:
    """Return whether the weights of all layers of a model exist.

    `build(shape)` marks a subclassed model as built, but makes no weights of its layers.
    """
    return model.built and all(part.built for part in model._flatten_layers(include_self=False))


def name_layers(model: keras.Model) -> dict[int, str]:
    """Name every layer of a model by its place in the model.

    A layer inside another layer or model has the outer one's name as a prefix, such as
    `"attention/query"` or `"block_1/dense"`. A recurrent layer and its cell have one name. A name
    that occurs twice gets a number; two layers are never merged.

    Returns:
        The names by the `id` of their layer, in the model's order.
    """
    return {key: name for key, (name, _) in _layer_names(model).items()}


def _layer_names(model: keras.Model) -> dict[int, tuple[str, str]]:
    """Return each layer's name, and the same without the names of the models around it."""
    names = {id(model): (model.name, model.name)}
    taken = {model.name}

    def name_parts(layer: keras.layers.Layer, prefix: str, short_prefix: str) -> None:
        for part in layer._flatten_layers(include_self=False, recursive=False):
            if id(part) in names:
                continue
            if isinstance(layer, keras.layers.RNN) and part is layer.cell:
                name, short = names[id(part)] = names[id(layer)]
            else:
                name, short = unique_name(prefix + part.name, taken), short_prefix + part.name
                names[id(part)] = name, short
                taken.add(name)
            is_model = isinstance(part, keras.Model)
            name_parts(part, name + "/", "" if is_model else short + "/")

    name_parts(model, "", "")
    return names


def describe_weights(model: keras.Model) -> dict[int, Weight]:
    """Name the trainable variables of a built model, frozen ones included, in the model's order.

    Returns:
        The weights by the `id` of their variable. Layers are named by `name_layers`; a path that
        occurs twice gets a number.
    """
    names = name_layers(model)
    owners = _owners(model)
    paths: set[str] = set()
    described = {}
    for variable in (v for v in model.weights if id(v) in owners):
        path = unique_name(variable.path, paths)
        paths.add(path)
        shape = tuple(variable.shape)
        layer = names[owners[id(variable)]]
        described[id(variable)] = Weight(layer, variable.name, path, shape)
    return described


def short_layer_names(model: keras.Model) -> dict[int, str]:
    """Return each trainable variable's layer without the names of nested models, by its `id`."""
    names = _layer_names(model)
    return {variable: names[layer][1] for variable, layer in _owners(model).items()}


def _owners(model: keras.Model) -> dict[int, int]:
    """Return the `id` of the layer that owns each trainable variable."""
    return {
        id(variable): id(layer)
        # `weights` is public, but also lists the variables of a layer's parts.
        for layer in model._flatten_layers(include_self=True, recursive=True)
        for variable in layer._trainable_variables
    }


def checked_selection(selection: Any) -> Selection:
    """Check the type of a selection and return it; several names become a tuple.

    Raises:
        TypeError: if `select_weights` does not accept it.
    """
    if selection is None or isinstance(selection, str) or callable(selection):
        return selection
    names = tuple(selection) if isinstance(selection, Iterable) else ()
    if not names or isinstance(selection, dict) or not all(isinstance(n, str) for n in names):
        raise TypeError(
            "weights must be None, a layer's name or path, a pattern, several of these, or a "
            f"function of a Weight, received {selection!r:.100}"
        )
    return names


def select_weights(
    weights: Sequence[Weight], selection: Selection, short_layers: Sequence[str] = ()
) -> list[int]:
    """Return the positions of the selected weights.

    Args:
        weights: the weights to choose from.
        selection: None for all; names of layers or models, paths or patterns (`"encoder*"`), one or
            several; or a function of a `Weight`.
        short_layers: for each weight its layer's name without those of the models around it. It
            selects the layer if there is only one of that name.

    Raises:
        ValueError: if the selection, or one of its names, matches no weight or several layers.
    """
    if selection is None:
        return list(range(len(weights)))
    known = ", ".join(layers_of(weights))
    if callable(selection):
        chosen = [i for i, weight in enumerate(weights) if selection(weight)]
        if not chosen:
            raise ValueError(
                f"weights must choose a weight of the layers {known:.300}, received a function "
                "that chooses none"
            )
        return chosen
    patterns = [selection] if isinstance(selection, str) else selection
    chosen = []
    for pattern in patterns:
        matched = _matching(weights, short_layers, pattern)
        if not matched:
            hint = did_you_mean(pattern, layers_of(weights))
            raise ValueError(
                f"weights must match a weight of the layers {known:.300}, received "
                f"{pattern!r}{hint}"
            )
        chosen += matched
    return sorted(set(chosen))


def _matching(weights: Sequence[Weight], short_layers: Sequence[str], pattern: str) -> list[int]:
    named = [
        i
        for i, weight in enumerate(weights)
        if _matches(pattern, weight.layer, f"{weight.layer}/{weight.name}", weight.path)
    ]
    short = [i for i, name in enumerate(short_layers) if _matches(pattern, name)]
    if any(sign in pattern for sign in "*?["):
        named = sorted({*named, *short})
    elif not named:
        layers = layers_of([weights[i] for i in short])
        if len(layers) > 1:
            raise ValueError(
                f"weights must name one layer, received {pattern!r}, the name of "
                f"{', '.join(layers):.300}: write one of these names, or '*/{pattern}' for all"
            )
        named = short
    return named or [i for i, weight in enumerate(weights) if _matches(pattern, *_around(weight))]


def _matches(pattern: str, *names: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _around(weight: Weight) -> list[str]:
    """Return the names of the layers and models around a weight's layer."""
    parts = weight.layer.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]

"""The names of a model's layers and weights, and the selection of weights by name."""

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from kgrad.records.checks import did_you_mean, unique_name
from kgrad.records.history import Weight
from kgrad.records.statistics import layers_of

# Which weights to watch: all (None), those whose layer or path equals or matches a name or pattern,
# or those for which a function returns True.
Selection = None | str | Sequence[str] | Callable[[Weight], bool]


def name_layers(model: keras.Model) -> dict[int, str]:
    """Name every layer of a model as its user would.

    A layer inside another layer that is not a model, such as the query projection of an attention
    layer, has the outer layer's name as a prefix: `"attention/query"`. A recurrent layer and its
    cell have one name. A name that occurs twice, as in nested models, gets a number; two layers are
    never merged.

    Returns:
        The names by the `id` of their layer, in the model's order.
    """
    names = {id(model): model.name}

    def name_parts(layer: keras.layers.Layer, prefix: str) -> None:
        for part in layer._flatten_layers(include_self=False, recursive=False):
            is_cell = isinstance(layer, keras.layers.RNN) and part is layer.cell
            name = prefix.removesuffix("/") if is_cell else prefix + part.name
            if id(part) not in names:
                names[id(part)] = name if is_cell else unique_name(name, names.values())
                is_model = isinstance(part, keras.Model)
                name_parts(part, "" if is_model else names[id(part)] + "/")

    name_parts(model, "")
    return names


def describe_weights(model: keras.Model) -> dict[int, Weight]:
    """Name the trainable variables of a built model, frozen ones included, in the model's order.

    Returns:
        The weights by the `id` of their variable. Layers are named by `name_layers`; a path that
        occurs twice gets a number.
    """
    names = name_layers(model)
    owners = {
        id(variable): names[id(layer)]
        # `weights` is public, but also lists the variables of a layer's parts.
        for layer in model._flatten_layers(include_self=True, recursive=True)
        for variable in layer._trainable_variables
    }
    paths: set[str] = set()
    described = {}
    for variable in (v for v in model.weights if id(v) in owners):
        path = unique_name(variable.path, paths)
        paths.add(path)
        shape = tuple(variable.shape)
        described[id(variable)] = Weight(owners[id(variable)], variable.name, path, shape)
    return described


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


def select_weights(weights: Sequence[Weight], selection: Selection) -> list[int]:
    """Return the positions of the selected weights.

    Args:
        weights: the weights to choose from.
        selection: None for all; layer names, paths or patterns (`"encoder*"`), one or several; or a
            function of a `Weight`.

    Raises:
        ValueError: if the selection, or one of its names, matches no weight.
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
    for pattern in patterns:
        if not any(_matches(weight, pattern) for weight in weights):
            hint = did_you_mean(pattern, layers_of(weights))
            raise ValueError(
                f"weights must match a weight of the layers {known:.300}, received "
                f"{pattern!r}{hint}"
            )
    return [i for i, w in enumerate(weights) if any(_matches(w, p) for p in patterns)]


def _matches(weight: Weight, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in (weight.layer, weight.path))

"""The names of a model's layers, unique within it."""

from collections.abc import Iterable

import keras


def unique_name(name: str, taken: Iterable[str]) -> str:
    """The name, with a number behind it if it is taken."""
    taken, candidate, number = set(taken), name, 2
    while candidate in taken:
        candidate, number = f"{name} ({number})", number + 1
    return candidate


def name_layers(model: keras.Model) -> dict[int, str]:
    """Name every layer within a model, as its user would.

    A layer within another that is not a model, such as the query projection of an attention, has
    the other's name before its own: `"attention/query"`. A recurrent layer and its cell are one. A
    name that occurs twice, as in nested models, gets a number, never merged.

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

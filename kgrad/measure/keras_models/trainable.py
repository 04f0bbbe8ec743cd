"""Which variables of a model are trained: what its `trainable` attributes say, and optimizers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras


@contextmanager
def trainable_as(model: keras.Model, trained: frozenset[int] | None) -> Iterator[None]:
    """Make exactly the given variables of a model trainable, and restore its attributes at the end.

    Args:
        model: the model.
        trained: the `id` of each variable; None to leave the model as it is.
    """
    if trained is None:
        yield
        return
    layers = model._flatten_layers(include_self=True, recursive=True)
    variables = _variables(model)
    # Not the property, whose setter would change all parts of a layer.
    before = [(part, part._trainable) for part in (*layers, *variables)]
    try:
        for variable in variables:
            variable._trainable = id(variable) in trained
        for layer in layers:
            own = _variables(layer)
            if own:
                layer._trainable = any(variable._trainable for variable in own)
        yield
    finally:
        for part, trainable in before:
            part._trainable = trainable


def find_optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """Find the optimizers that a model holds and that make updates, by name of the attribute."""
    held: dict[str, Any] = {}
    # Attributes that begin with an underscore are Keras's own references to the same objects.
    attributes = {name: value for name, value in vars(model).items() if name[0] != "_"}
    for name, value in attributes.items():
        if isinstance(value, list | tuple):
            held |= {f"{name}_{i}": item for i, item in enumerate(value)}
        elif isinstance(value, dict):
            held |= {f"{name}_{key}": item for key, item in value.items()}
        else:
            held[name] = value
    found: dict[str, keras.optimizers.Optimizer] = {}
    for name, value in held.items():
        if isinstance(value, keras.optimizers.Optimizer) and value not in found.values():
            shared = getattr(value, "inner_optimizer", value)
            if not hasattr(shared, "optimizers"):
                found[name] = value
                continue
            # A MultiOptimizer makes no update itself: it passes its variables to its parts, which
            # it chooses when it is built.
            if model.built and not value.built:
                value.build(model.trainable_variables)
            for part in shared.optimizers:
                same = sum(other.name == part.name for other in found.values())
                found[f"{name}_{part.name}" + (f"_{same + 1}" if same else "")] = part
    return found


def known_to_optimizers(model: keras.Model) -> list[keras.Variable]:
    """List the trainable variables of a model that one of its optimizers was built for."""
    optimizers = find_optimizers(model).values()
    inner = [getattr(optimizer, "inner_optimizer", optimizer) for optimizer in optimizers]
    built = [optimizer for optimizer in inner if optimizer.built]
    known = {id(variable) for optimizer in built for variable in optimizer._trainable_variables}
    return [variable for variable in _variables(model) if id(variable) in known]


def _variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """List the variables of a layer and its parts that can be trained, frozen ones included."""
    parts = layer._flatten_layers(include_self=True, recursive=True)
    return [variable for part in parts for variable in part._trainable_variables]

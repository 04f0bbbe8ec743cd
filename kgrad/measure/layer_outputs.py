"""Records the outputs of a model's layers while it is called, without changing the model.

Keras calls a layer through its attribute `call`. During a call of the model, a stand-in for it
records inputs and outputs; afterwards the layer is restored.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
from keras.src.backend import get_keras_mask, set_keras_mask

from kgrad.measure.backends.current import backend
from kgrad.measure.keras_models.layers import ACTIVATION_LAYERS


class LayerOutput(NamedTuple):
    """The output of a layer in one call.

    Attributes:
        layer: the layer.
        a: the first tensor it returned, of floats.
        f: the activation that it applied last, or None.
        z: the input of f, or None.
    """

    layer: keras.Layer
    a: Any
    f: Callable[[Any], Any] | None
    z: Any


@contextmanager
def watched_layers(model: keras.Model, point: Callable[[Any], Any]) -> Iterator[list[LayerOutput]]:
    """Record the layers' outputs in the calls of a model that are made in this block.

    Nested models are opened. Keras's own layers are not: a recurrent, attention or wrapper layer
    has one output. A user's own layer that holds other layers is opened; its output is recorded,
    too, unless it is the output of one of them unchanged. Calls in a loop or a branch of a compiled
    graph, or in a compiled function of the model's own, are not recorded.

    Args:
        model: a built Keras model.
        point: copies a tensor; each layer returns the copy of its output, by which the backend can
            differentiate.

    Yields:
        The outputs so far, in the order of the calls.
    """
    outputs: list[LayerOutput] = []
    with _replaced([(layer, _stand_ins(layer, outputs, point)) for layer in _seen_in(model)]):
        yield outputs


@contextmanager
def own_losses(model: keras.Model) -> Iterator[None]:
    """Keep losses that layers add in this block out of the model's own losses."""
    layers = model._flatten_layers()
    with _replaced([(layer, {"_losses": [], "_loss_ids": set()}) for layer in layers]):
        yield


def copied(tensor: Any, copy: Callable[[Any], Any], *, logits: bool = True) -> Any:
    """Copy a tensor together with what Keras keeps with it.

    Args:
        tensor: a tensor.
        copy: copies the tensor alone.
        logits: whether to keep the logits behind a sigmoid or softmax, from which Keras computes
            some losses on TensorFlow.
    """
    result = copy(tensor)
    mask = get_keras_mask(tensor)
    if mask is not None:
        set_keras_mask(result, mask)
    if logits and hasattr(tensor, "_keras_logits"):
        result._keras_logits = tensor._keras_logits
    return result


def _seen_in(layer: keras.Layer) -> list[keras.Layer]:
    """List the layers inside a layer whose calls are recorded; a shared one may occur twice."""
    seen = []
    for part in layer._flatten_layers(include_self=False, recursive=False):
        if not isinstance(part, keras.Model):
            seen.append(part)
        if _is_opened(part):
            seen += _seen_in(part)
    return seen


def _is_opened(layer: keras.Layer) -> bool:
    if isinstance(layer, keras.Model):
        return True
    kinds = [kind for kind in type(layer).__mro__ if issubclass(kind, keras.Layer)]
    return not any(kind.__module__.startswith("keras.") for kind in kinds[:-1])


def _stand_ins(
    layer: keras.Layer, outputs: list[LayerOutput], point: Callable[[Any], Any]
) -> dict[str, Callable]:
    """Return the stand-ins for a layer's methods and activation, by attribute."""
    is_seen = backend.floats_of_this_trace()
    applied: list[tuple[Callable, Any]] = []

    def recorded_call(call: Callable) -> Callable:
        @functools.wraps(call)
        def stand_in(*args: Any, **options: Any) -> Any:
            applied.clear()
            before = len(outputs)
            result = call(*args, **options)
            first, *rest = keras.tree.flatten(result) or [None]
            if not is_seen(first) or any(first is inner.a for inner in outputs[before:]):
                return result
            if isinstance(layer, tuple(ACTIVATION_LAYERS)):
                applied.append((call, keras.tree.flatten([args, options])[0]))
            f, z = applied[-1] if applied else (None, None)
            # Also distinct if the layer returns its input unchanged.
            a = copied(first, point)
            outputs.append(LayerOutput(layer, a, f, z))
            return keras.tree.pack_sequence_as(result, [a, *rest])

        return stand_in

    def recorded_activation(f: Callable) -> Callable:
        @functools.wraps(f, updated=())
        def stand_in(z: Any, **options: Any) -> Any:
            if is_seen(z):
                applied.append((functools.partial(f, **options), z))
            return f(z, **options)

        return stand_in

    # Keras calls layers in float8 by the second name.
    replaced = {name: recorded_call(getattr(layer, name)) for name in ("call", "quantized_call")}
    # Torch keeps an activation that is a layer itself outside of `__dict__`.
    if callable(getattr(layer, "activation", None)):
        replaced["activation"] = recorded_activation(layer.activation)
    return replaced


@contextmanager
def _replaced(attributes: list[tuple[keras.Layer, dict[str, Any]]]) -> Iterator[None]:
    """Give layers other attributes in this block."""
    # With setattr a Keras layer would track and save the values.
    before = [
        {name: layer.__dict__[name] for name in new if name in layer.__dict__}
        for layer, new in attributes
    ]
    try:
        for layer, new in attributes:
            layer.__dict__.update(new)
        yield
    finally:
        for (layer, new), old in zip(attributes, before, strict=True):
            for name in new.keys() - old.keys():
                layer.__dict__.pop(name, None)
            layer.__dict__.update(old)

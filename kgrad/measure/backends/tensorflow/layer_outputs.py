"""Records the outputs of a model's layers while a call is traced, without changing the model.

Keras calls a layer through its attribute `call`. While a graph is traced, a stand-in for it records
inputs and outputs; afterwards the layer is restored, and only the graph keeps the tensors.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import tensorflow as tf

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
    a: tf.Tensor
    f: Callable[[tf.Tensor], tf.Tensor] | None
    z: tf.Tensor | None


@contextmanager
def watched_layers(model: keras.Model, tape: tf.GradientTape) -> Iterator[list[LayerOutput]]:
    """Record the layers' outputs in the calls of a model that are traced in this block.

    Nested models are opened. Keras's own layers are not: a recurrent, attention or wrapper layer
    has one output. A user's own layer that holds other layers is opened; its output is recorded,
    too, unless it is the output of one of them unchanged. Calls in a loop or a branch of the graph,
    or in a `tf.function` of the model's own, are not recorded.

    Args:
        model: a built Keras model.
        tape: watches the outputs, so that it can differentiate by them.

    Yields:
        The outputs so far, in the order of the calls.
    """
    outputs: list[LayerOutput] = []
    with _replaced([(layer, _stand_ins(layer, outputs, tape)) for layer in _seen_in(model)]):
        yield outputs


@contextmanager
def own_losses(model: keras.Model) -> Iterator[None]:
    """Keep losses that layers add in this block out of the model's own losses."""
    layers = model._flatten_layers()
    with _replaced([(layer, {"_losses": [], "_loss_ids": set()}) for layer in layers]):
        yield


def copied(tensor: tf.Tensor, *attributes: str) -> tf.Tensor:
    """Copy a tensor together with attributes of these names that Keras has set on it."""
    copy = tf.identity(tensor)
    for name in attributes:
        if hasattr(tensor, name):
            setattr(copy, name, getattr(tensor, name))
    return copy


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
    layer: keras.Layer, outputs: list[LayerOutput], tape: tf.GradientTape
) -> dict[str, Callable]:
    """Return the stand-ins for a layer's methods and activation, by attribute."""
    graph = tf.compat.v1.get_default_graph()
    applied: list[tuple[Callable, tf.Tensor]] = []

    def recorded_call(call: Callable) -> Callable:
        @functools.wraps(call)
        def stand_in(*args: Any, **options: Any) -> Any:
            applied.clear()
            before = len(outputs)
            result = call(*args, **options)
            inputs = keras.tree.flatten([args, options])
            if isinstance(result, tf.Tensor) and any(result is tensor for tensor in inputs):
                # The layer returns its input unchanged; a copy makes its output distinct.
                result = copied(result, "_keras_mask", "_keras_logits")
            a = next(iter(keras.tree.flatten(result)), None)
            if _is_float_in(graph, a) and not any(a is inner.a for inner in outputs[before:]):
                if isinstance(layer, tuple(ACTIVATION_LAYERS)):
                    applied.append((call, inputs[0]))
                f, z = applied[-1] if applied else (None, None)
                tape.watch(a)
                outputs.append(LayerOutput(layer, a, f, z))
            return result

        return stand_in

    def recorded_activation(f: Callable) -> Callable:
        @functools.wraps(f, updated=())
        def stand_in(z: Any, **options: Any) -> Any:
            if _is_float_in(graph, z):
                applied.append((functools.partial(f, **options), z))
            return f(z, **options)

        return stand_in

    # Keras calls layers in float8 by the second name.
    replaced = {name: recorded_call(getattr(layer, name)) for name in ("call", "quantized_call")}
    if callable(layer.__dict__.get("activation")):
        replaced["activation"] = recorded_activation(layer.activation)
    return replaced


def _is_float_in(graph: tf.Graph, tensor: Any) -> bool:
    """Return whether it is a tensor of floats of this graph, not of a loop or branch inside."""
    symbolic = isinstance(tensor, tf.Tensor) and tf.is_symbolic_tensor(tensor)
    return symbolic and tensor.graph is graph and tensor.dtype.is_floating


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

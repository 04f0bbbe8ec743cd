"""`create_model`: a dense network with every ingredient that decides how gradients flow in it.

The names of the layers, and with a seed their weights, depend on the arguments and nothing else.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from kgrad.measure.aliases import ACTIVATIONS, INITIALIZERS, NORMALIZATIONS
from kgrad.records.checks import did_you_mean, require_integer


def create_model(
    num_layers: int,
    activation: Any,
    weight_initializer: Any,
    *,
    units: int | Sequence[int] = 64,
    input_shape: Sequence[int] = (20,),
    output_units: int = 1,
    output_activation: Any = "sigmoid",
    normalization: str | None = None,
    skip_connections: bool = False,
    seed: int | None = None,
) -> keras.Model:
    """Build a fully connected network, not yet compiled.

    Hidden layer k computes h_k = f(norm(W_k h_{k-1} + b_k)) with biases that start at 0. A skip
    connection spans two hidden layers, k and k + 1 with k odd:

        h_{k+1} = P h_{k-1} + f(norm(W_{k+1} h_k + b_{k+1}))

    It joins after the activation, so that the gradient passes the shortcut unchanged. P is the
    identity or, where widths differ, a trained matrix. An odd last layer has no skip.

    Layers are called hidden_1 … hidden_N and output, and those that an argument adds flatten,
    norm_k, activation_k, skip_j and projection_j (of pair j), output_activation. With a seed each
    layer's own seed derives from it and the layer's name: models that differ only in depth share
    the layers that they have in common.

    Args:
        num_layers: number of hidden layers, at least 1.
        activation: f, as Keras takes it (a name, a config, a function), or a layer such as
            `keras.layers.PReLU()`, of which each hidden layer gets its own copy. Case, spaces and
            hyphens in a name do not matter; "lrelu", "prelu" and "logistic" are understood.
        weight_initializer: of every W and P, as Keras takes it (a name, a config, an instance, a
            function), or "xavier" (variance 2/(n_in + n_out)), "he" or "kaiming" (2/n_in) or
            "lecun" (1/n_in): normal, truncated at two standard deviations as Keras has it;
            "xavier_uniform" and the like are uniform. "normal" is Keras's, N(0, 0.05²).
        units: width of every hidden layer, or a sequence of one width for each.
        input_shape: shape of one sample; several axes are flattened into one.
        output_units: width of the output layer.
        output_activation: as `activation`, for the output layer.
        normalization: `None`, "batch" or "layer": what stands before each hidden activation.
        skip_connections: whether to add a skip connection around each pair of hidden layers.
        seed: from 0: the same weights in every process. `None` takes the seed of an initializer
            instance that has one, and else draws as Keras does, from
            `keras.utils.set_random_seed`.

    Returns:
        A functional model from (batch, *input_shape) to (batch, output_units).

    Raises:
        ValueError: if a name is unknown or a number is out of range.

    Example:
        >>> model = create_model(2, "relu", "he", units=8, seed=0)
        >>> [(layer.name, layer.count_params()) for layer in model.layers[1:]]
        [('hidden_1', 168), ('hidden_2', 72), ('output', 9)]
    """
    widths = _checked_sizes(num_layers, units, input_shape, output_units, seed)
    hidden_f = _activation("activation", activation)
    output_f = _activation("output_activation", output_activation)
    initializer = _resolve(
        "weight_initializer", weight_initializer, keras.initializers, INITIALIZERS
    )
    norm_class = _normalization(normalization)

    def dense(x: Any, name: str, width: int, **options: Any) -> Any:
        own = _reseeded(initializer, seed, name)
        return keras.layers.Dense(width, name=name, kernel_initializer=own, **options)(x)

    def activated(x: Any, name: str, width: int, f: Any, f_name: str, norm: Any = None) -> Any:
        if norm is None and not isinstance(f, keras.Layer):
            return dense(x, name, width, activation=f)
        x = dense(x, name, width)
        x = x if norm is None else norm(x)
        if isinstance(f, keras.Layer):  # a copy, for its weights are this layer's alone
            return f.from_config(f.get_config() | {"name": f_name})(x)
        return keras.layers.Activation(f, name=f_name)(x)

    inputs = x = keras.Input(tuple(map(int, input_shape)), name="input")
    if len(input_shape) > 1:
        x = keras.layers.Flatten(name="flatten")(x)
    for k, width in enumerate(widths, start=1):
        if k % 2 == 1:
            start = x
        norm = norm_class(name=f"norm_{k}") if norm_class else None
        x = activated(x, f"hidden_{k}", width, hidden_f, f"activation_{k}", norm)
        if skip_connections and k % 2 == 0:
            if start.shape[-1] != x.shape[-1]:
                start = dense(start, f"projection_{k // 2}", x.shape[-1], use_bias=False)
            x = keras.layers.Add(name=f"skip_{k // 2}")([start, x])
    outputs = activated(x, "output", int(output_units), output_f, "output_activation")
    return keras.Model(inputs, outputs, name="dense_network")


@contextmanager
def undrawn() -> Iterator[None]:
    """Models built inside are without values: that initializers draw takes half of the building.

    Theory asks only what they draw with.
    """
    # Keras would draw them after all, as soon as another such scope ends anywhere.
    waiting = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    before = len(waiting)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        del waiting[before:]


def _checked_sizes(
    num_layers: int, units: Any, input_shape: Any, output_units: int, seed: int | None
) -> list[int]:
    """The width of each hidden layer, once every number has been found acceptable."""
    require_integer("num_layers", num_layers, 1)
    widths = list(units) if isinstance(units, list | tuple) else [units] * int(num_layers)
    if len(widths) != num_layers:
        raise ValueError(
            f"units must be one width or one for each of {num_layers} hidden layers, "
            f"received {len(widths)}: {units!r}"
        )
    for width in widths:
        require_integer("units", width, 1)
    if not isinstance(input_shape, list | tuple) or not input_shape:
        raise ValueError(f"input_shape must be a tuple such as (20,), received {input_shape!r}")
    for size in input_shape:
        require_integer("every size in input_shape", size, 1)
    require_integer("output_units", output_units, 1)
    if seed is not None:
        require_integer("seed", seed, 0)
    return [int(width) for width in widths]


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.lower())


def _resolve(argument: str, value: Any, module: ModuleType, aliases: dict[str, Any]) -> Any:
    """What `module.get` makes of `value`, a name being taken as loosely as people write it."""
    if not isinstance(value, str):
        if not (callable(value) or isinstance(value, dict)):
            raise ValueError(
                f"{argument} must be a name, a config, a function or an instance, "
                f"received {value!r}"
            )
        return module.get(value)
    names = {name: name for name in dir(module) if name.islower() and name[0] != "_"} | aliases
    for name in ("get", "serialize", "deserialize", "stft"):  # stft is for kernels of three axes
        names.pop(name, None)
    try:
        # A name that is not in the table may still be one that the user registered with Keras.
        return module.get({_key(name): names[name] for name in names}.get(_key(value), value))
    except ValueError:
        raise ValueError(
            f"{argument} must be one of {', '.join(sorted(names))} or known to Keras, "
            f"received {value!r}{did_you_mean(value, names)}"
        ) from None


def _activation(argument: str, value: Any) -> Any:
    """A function, or a layer to be copied."""
    value = "linear" if value is None else value  # as in Keras
    aliases = ACTIVATIONS | {"prelu": keras.layers.PReLU}
    f = _resolve(argument, value, keras.activations, aliases)
    f = f() if isinstance(f, type) else f
    if not isinstance(f, keras.layers.Layer):
        try:
            shape = tuple(f(keras.ops.zeros((2, 4))).shape)
        except TypeError:  # Keras has activations that need more arguments
            shape = ()
        if shape != (2, 4):
            raise ValueError(
                f"{argument} must map one tensor to another of its shape, received {value!r}: "
                "pass a function of one tensor, such as relu"
            )
    return f


def _normalization(value: Any) -> Any:
    """The class of the layer; "batch_norm" and "LayerNormalization" are understood too."""
    if value is None:
        return None
    kind = re.sub("norm(alization)?$", "", _key(str(value)))
    if kind not in NORMALIZATIONS:
        raise ValueError(f"normalization must be None, 'batch' or 'layer', received {value!r}")
    return getattr(keras.layers, NORMALIZATIONS[kind])


def _reseeded(initializer: Any, seed: int | None, layer: str) -> Any:
    """A copy of `initializer` for one layer; itself if it has no seed to differ in.

    Keras draws the same numbers each time that an initializer with one integer seed, its own or
    a chosen one, is called: two layers that share it start out equal.
    """
    config: dict[str, Any] = getattr(initializer, "get_config", dict)()
    own = config.get("seed")
    # A dict is a SeedGenerator, which moves on by itself.
    if "seed" not in config or (seed is None and isinstance(own, dict)):
        return initializer
    root = own if seed is None else seed
    if root is not None:
        # % 2⁶⁴: Keras takes negative seeds, NumPy does not.
        words = [int(root) % 2**64, *layer.encode()]
        root = int(np.random.SeedSequence(words).generate_state(1)[0])
    return initializer.from_config(config | {"seed": root})

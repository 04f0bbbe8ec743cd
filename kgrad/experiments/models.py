"""`create_model`: a dense network with every ingredient that decides how gradients flow in it.

The names of the layers, and with a seed also their weights, depend only on the arguments.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from kgrad.measure.aliases import (
    ACTIVATIONS,
    INITIALIZERS,
    accepted_names,
    meaning,
    normalization_class,
    unknown_name,
)
from kgrad.records.checks import (
    bias_stddev,
    hidden_widths,
    normal_stddev,
    require_integer,
    require_one_of,
)


def create_model(
    num_layers: int,
    activation: Any,
    weight_initializer: Any,
    *,
    bias_initializer: str = "zeros",
    units: int | Sequence[int] = 64,
    input_shape: Sequence[int] = (20,),
    output_units: int = 1,
    output_activation: Any = "sigmoid",
    normalization: str | None = None,
    skip_connections: bool = False,
    seed: int | None = None,
) -> keras.Model:
    """Build a fully connected network, not yet compiled.

    Hidden layer k computes h_k = f(norm(W_k h_{k-1} + b_k)). A skip connection spans two hidden
    layers, k and k + 1 with k odd:

        h_{k+1} = P h_{k-1} + f(norm(W_{k+1} h_k + b_{k+1}))

    It is added after the activation, so the gradient passes the shortcut unchanged. P is the
    identity or, if the widths differ, a trained matrix. If the number of hidden layers is odd, the
    last one has no skip connection.

    Layers are named hidden_1 … hidden_N and output. The arguments may add flatten, norm_k,
    activation_k, skip_j and projection_j (for pair j), and output_activation. With a seed, the seed
    of each layer depends on the given seed and the layer's name only: models of different depth
    have the same weights in the layers that they have in common.

    Args:
        num_layers: number of hidden layers, at least 1.
        activation: f: a name, config or function, as in Keras, or a layer such as
            `keras.layers.PReLU()`, which is copied for each hidden layer. Case, spaces and hyphens
            in a name do not matter; "lrelu", "prelu" and "logistic" are accepted, too.
        weight_initializer: initializer of every W and P: a name, config, instance or function, as
            in Keras, or one of these names: "xavier" (variance 2/(n_in + n_out)), "he" or "kaiming"
            (2/n_in), "lecun" (1/n_in). These draw from a normal distribution truncated at two
            standard deviations; "xavier_uniform" and the like draw from a uniform distribution.
            "normal" is N(0, 0.05²), as in Keras, and "normal:0.5" is N(0, 0.5²).
        bias_initializer: initializer of every b: "zeros", or "normal:0.2" for N(0, 0.2²).
        units: width of all hidden layers, or a sequence of one width per hidden layer.
        input_shape: shape of one sample; several axes are flattened into one.
        output_units: width of the output layer.
        output_activation: activation of the output layer, in the same forms as `activation`.
        normalization: kind of the layer before each hidden activation: `None`, "batch" or "layer".
        skip_connections: whether to add a skip connection around each pair of hidden layers.
        seed: seed of the weights, at least 0; gives the same weights in every process. With `None`,
            an initializer instance keeps its own seed, and otherwise the weights depend on
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
    widths = checked_sizes(num_layers, units, input_shape, output_units, seed)
    hidden_f = find_activation("activation", activation)
    output_f = find_activation("output_activation", output_activation)
    initializer = find_initializer("weight_initializer", weight_initializer)
    biases = find_bias_initializer(bias_initializer)
    norm_class = find_normalization(normalization)
    require_one_of("skip_connections", skip_connections, (True, False))

    def dense(x: Any, name: str, width: int, **options: Any) -> Any:
        own = {
            "kernel_initializer": _reseeded(initializer, seed, name),
            "bias_initializer": _reseeded(biases, seed, f"{name}/bias"),
        }
        return keras.layers.Dense(width, name=name, **own, **options)(x)

    def activated(x: Any, name: str, width: int, f: Any, f_name: str, norm: Any = None) -> Any:
        if norm is None and not isinstance(f, keras.Layer):
            return dense(x, name, width, activation=f)
        x = dense(x, name, width)
        x = x if norm is None else norm(x)
        if isinstance(f, keras.Layer):  # a copy, as the layer may have weights
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
def without_initial_values() -> Iterator[None]:
    """Build models without drawing initial values, which takes half the build time.

    A prediction needs only the initializers' distributions.
    """
    # Keras would draw the values later, when another such scope ends.
    waiting = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    before = len(waiting)
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        del waiting[before:]


def checked_sizes(
    num_layers: int, units: Any, input_shape: Any, output_units: int, seed: int | None
) -> list[int]:
    """Check every number and return the width of each hidden layer."""
    widths = hidden_widths(num_layers, units)
    if not isinstance(input_shape, list | tuple) or not input_shape:
        raise ValueError(f"input_shape must be a tuple such as (20,), received {input_shape!r}")
    for size in input_shape:
        require_integer("every size in input_shape", size, 1)
    require_integer("output_units", output_units, 1)
    if seed is not None:
        require_integer("seed", seed, 0)
    return widths


def find_initializer(argument: str, value: Any) -> Any:
    """Return a Keras initializer.

    Args:
        argument: the argument as the user spelled it.
        value: a name, an alias, "normal:STDDEV", a config, an instance or a function.

    Raises:
        ValueError: if there is no such initializer.
    """
    if isinstance(value, str):
        try:
            stddev = normal_stddev(value)
        except ValueError as error:
            raise ValueError(f"{argument} {error}") from None
        if stddev is not None:
            return keras.initializers.RandomNormal(stddev=stddev)
    return _resolve(argument, value, keras.initializers, INITIALIZERS)


def find_bias_initializer(value: Any) -> Any:
    """Return the Keras initializer for "zeros" or "normal:STDDEV"; others are refused."""
    bias_stddev(value)
    return find_initializer("bias_initializer", value)


def _resolve(argument: str, value: Any, module: ModuleType, aliases: dict[str, Any]) -> Any:
    """Return `module.get(value)`; names may be aliases, in any case, with spaces or hyphens."""
    if not isinstance(value, str):
        found = None
        if callable(value) or isinstance(value, dict):
            with suppress(Exception):  # Keras's own, of a config that is none of its kind
                found = module.get(value)
        if not callable(found):  # a class that is none of its kind
            raise ValueError(
                f"{argument} must be a name, a config, a function or an instance, "
                f"received {value!r:.100}"
            )
        return found
    names = accepted_names(dir(module), aliases)
    try:
        # An unknown name may be registered with Keras by the user.
        return module.get(meaning(value, names) or value)
    except ValueError:
        raise unknown_name(argument, value, names) from None


def find_activation(argument: str, value: Any) -> Any:
    """Return the activation as a function, or as a layer to be copied."""
    value = "linear" if value is None else value  # as in Keras
    aliases = ACTIVATIONS | {"prelu": keras.layers.PReLU}
    f = _resolve(argument, value, keras.activations, aliases)
    f = f() if isinstance(f, type) else f
    if not isinstance(f, keras.layers.Layer):
        try:
            shape = tuple(f(keras.ops.zeros((2, 4))).shape)
        except (AttributeError, TypeError):  # some of Keras's activations need more arguments
            shape = ()
        if shape != (2, 4):
            raise ValueError(
                f"{argument} must map a tensor to a tensor of the same shape, received {value!r}: "
                "pass a function of one tensor, such as relu"
            )
    return f


def find_normalization(value: Any) -> Any:
    """Return the class of the layer; "batch_norm" and "LayerNormalization" are accepted, too."""
    name = normalization_class(value)
    return name and getattr(keras.layers, name)


def _reseeded(initializer: Any, seed: int | None, owner: str) -> Any:
    """Return a copy of `initializer` with a seed for a layer or bias; itself if it has no seed.

    An initializer with an integer seed draws the same numbers at each call, so two layers that
    share it would start with equal weights.
    """
    config: dict[str, Any] = getattr(initializer, "get_config", dict)()
    own = config.get("seed")
    # A dict describes a SeedGenerator, which draws new numbers at each call.
    if "seed" not in config or (seed is None and isinstance(own, dict)):
        return initializer
    root = own if seed is None else seed
    if root is not None:
        # % 2⁶⁴: Keras accepts negative seeds, NumPy does not.
        words = [int(root) % 2**64, *owner.encode()]
        root = int(np.random.SeedSequence(words).generate_state(1)[0])
    return initializer.from_config(config | {"seed": root})

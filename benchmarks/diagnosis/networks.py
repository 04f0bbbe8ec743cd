"""Networks by name, and changes to their weights before training.

Each network takes the shape of a sample, the last layer's units and activation, a seed, and its
options.
"""

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kgrad import create_model, make_dataset

Shape = tuple[int, ...]


def mlp(
    shape: Shape,
    out: tuple[int, str],
    seed: int,
    *,
    depth: int = 3,
    activation: str = "relu",
    init: Any = "he",
    units: int | Sequence[int] = 32,
    norm: str | None = None,
    skip: bool = False,
) -> keras.Model:
    return create_model(
        depth,
        activation,
        init,
        units=units,
        input_shape=shape,
        output_units=out[0],
        output_activation=out[1],
        normalization=norm,
        skip_connections=skip,
        seed=seed,
    )


def scaled_mlp(
    shape: Shape, out: tuple[int, str], seed: int, *, scale: float, offset: float, **options: Any
) -> keras.Model:
    """Make an MLP whose output is rescaled to the scale of the targets."""
    inner = mlp(shape, out, seed, **options)
    outputs = layers.Rescaling(scale, offset, name="unstandardize")(inner.output)
    return keras.Model(inner.input, outputs)


def dropout_mlp(
    shape: Shape,
    out: tuple[int, str],
    seed: int,
    *,
    depth: int = 2,
    units: int = 64,
    rate: float = 0.3,
    activation: str = "relu",
    init: str = "he_normal",
) -> keras.Model:
    x = inputs = keras.Input(shape)
    for k in range(depth):
        x = layers.Dense(units, activation, kernel_initializer=init, name=f"hidden_{k + 1}")(x)
        x = layers.Dropout(rate)(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


def penalized_mlp(
    shape: Shape,
    out: tuple[int, str],
    seed: int,
    *,
    depth: int = 3,
    activation: str = "relu",
    init: str = "he_normal",
    units: int = 32,
    penalty: float = 0.0,
) -> keras.Model:
    """Make an MLP with an L2 penalty on the kernels of its hidden layers."""
    x = inputs = keras.Input(shape)
    for k in range(depth):
        x = layers.Dense(
            units,
            activation,
            kernel_initializer=_KERAS_INIT.get(init, init),
            kernel_regularizer=keras.regularizers.L2(penalty),
            name=f"hidden_{k + 1}",
        )(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


_KERAS_INIT = {"he": "he_normal", "xavier": "glorot_uniform", "lecun": "lecun_normal"}


def low_rank_mlp(
    shape: Shape, out: tuple[int, str], seed: int, *, rank: int = 4, **options: Any
) -> keras.Model:
    """Make an MLP of frozen layers with trained low-rank adapters that start at 0 (LoRA)."""
    model = mlp(shape, out, seed, **options)
    for layer in model.layers:
        if layer.name.startswith("hidden"):
            layer.enable_lora(rank)
    return model


def zero_residual(
    shape: Shape, out: tuple[int, str], seed: int, *, blocks: int = 4, units: int = 32
) -> keras.Model:
    """Make a residual network whose branches all start at 0 (Fixup, ReZero)."""
    inputs = keras.Input(shape)
    x = layers.Dense(units, name="stem")(inputs)
    for k in range(blocks):
        y = layers.Dense(units, "relu", kernel_initializer="he_normal", name=f"open_{k + 1}")(x)
        y = layers.Dense(units, kernel_initializer="zeros", name=f"close_{k + 1}")(y)
        x = layers.Add()([x, y])
    return keras.Model(inputs, layers.Dense(*out, name="output")(layers.ReLU()(x)))


def factorization(
    shape: Shape, out: tuple[int, str], seed: int, *, words: int = 50, width: int = 8
) -> keras.Model:
    """Make a matrix factorization: the dot product of two embeddings."""
    inputs = keras.Input(shape, dtype="int32")
    table = layers.Embedding(words, width, embeddings_initializer="normal")
    other = layers.Embedding(words, width, embeddings_initializer="normal")
    x = layers.Multiply()([table(inputs[:, 0]), other(inputs[:, 1])])
    return keras.Model(inputs, ops.sum(x, axis=1, keepdims=True))


def frozen_mlp(
    shape: Shape, out: tuple[int, str], seed: int, *, frozen: int, **options: Any
) -> keras.Model:
    """Make an MLP whose first layers are frozen."""
    model = mlp(shape, out, seed, **options)
    for k in range(frozen):
        model.get_layer(f"hidden_{k + 1}").trainable = False
    return model


def pretrained_mlp(
    shape: Shape, out: tuple[int, str], seed: int, *, frozen: int, **options: Any
) -> keras.Model:
    """Make an MLP pretrained to separate low from high digits, with a new last layer."""
    data = make_dataset("digits", 600, seed=seed + 1)
    teacher = mlp(shape, (1, "sigmoid"), seed, **options)
    teacher.compile("adam", "binary_crossentropy")
    teacher.fit(data.X, (data.y > 4).astype(np.float32), epochs=5, verbose=0)
    model = frozen_mlp(shape, out, seed, frozen=frozen, **options)
    for layer in model.layers[:-1]:
        layer.set_weights(teacher.get_layer(layer.name).get_weights())
    return model


def cnn(
    shape: Shape,
    out: tuple[int, str],
    seed: int,
    *,
    filters: Sequence[int] = (8, 16),
    activation: str = "relu",
    init: Any = "he_normal",
    norm: bool = False,
    dense: int = 32,
) -> keras.Model:
    x = inputs = keras.Input(shape)
    for k, width in enumerate(filters, start=1):
        x = layers.Conv2D(
            width,
            3,
            padding="same",
            activation=None if norm else activation,
            kernel_initializer=init,
            name=f"conv_{k}",
        )(x)
        if norm:
            x = layers.Activation(activation)(layers.BatchNormalization()(x))
        if k <= 2:
            x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(dense, activation, kernel_initializer=init, name="hidden")(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


def residual_cnn(
    shape: Shape, out: tuple[int, str], seed: int, *, blocks: int = 3, filters: int = 8
) -> keras.Model:
    inputs = keras.Input(shape)
    x = layers.Conv2D(filters, 3, padding="same", name="stem")(inputs)
    for _ in range(blocks):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        y = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal")(y)
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


def recurrent(
    shape: Shape,
    out: tuple[int, str],
    seed: int,
    *,
    kind: str = "LSTM",
    units: Sequence[int] = (16,),
    activation: str = "tanh",
    bidirectional: bool = False,
) -> keras.Model:
    x = inputs = keras.Input(shape)
    for k, width in enumerate(units, start=1):
        layer = getattr(layers, kind)(
            width, activation=activation, return_sequences=k < len(units), name=f"recurrent_{k}"
        )
        x = layers.Bidirectional(layer)(x) if bidirectional else layer(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


def transformer(
    shape: Shape,
    out: tuple[int, str],
    seed: int,
    *,
    words: int = 50,
    width: int = 16,
    heads: int = 2,
    blocks: int = 1,
    activation: str = "gelu",
) -> keras.Model:
    inputs = keras.Input(shape, dtype="int32")
    x = layers.Embedding(words, width)(inputs)
    for _ in range(blocks):
        normal = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(normal, normal)])
        normal = layers.LayerNormalization()(x)
        wide = layers.Dense(2 * width, activation)(normal)
        x = layers.Add()([x, layers.Dense(width)(wide)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


def bag_of_words(
    shape: Shape, out: tuple[int, str], seed: int, *, words: int = 50, width: int = 8
) -> keras.Model:
    inputs = keras.Input(shape, dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(words, width)(inputs))
    x = layers.Dense(width, "relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


NETWORKS: dict[str, Callable[..., keras.Model]] = {
    function.__name__: function
    for function in (
        mlp,
        scaled_mlp,
        dropout_mlp,
        penalized_mlp,
        low_rank_mlp,
        zero_residual,
        factorization,
        frozen_mlp,
        pretrained_mlp,
        cnn,
        residual_cnn,
        recurrent,
        transformer,
        bag_of_words,
    )
}


def unclipped_log(y_true: Any, y_pred: Any) -> Any:
    """Compute the binary cross-entropy without clipping, so that log(0) can occur."""
    y_true = ops.cast(y_true, y_pred.dtype)
    return -ops.mean(y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred), axis=-1)


LOSSES: dict[str, Callable[[Any, Any], Any]] = {"unclipped_log": unclipped_log}


def change_weights(
    model: keras.Model, changes: Sequence[tuple[str, str, float]], seed: int
) -> None:
    """Apply each change to the weights whose paths match its pattern.

    "scale" multiplies the kernels by the number, "constant" sets them to it, "normal" and "uniform"
    redraw them from N(0, number²) and U(0, number). "bias" sets the biases to the number.
    """
    random = np.random.default_rng(seed)
    for kind, pattern, number in changes:
        for weight in model.trainable_variables:
            is_bias = len(weight.shape) < 2
            if fnmatch(weight.path, pattern) and is_bias == (kind == "bias"):
                weight.assign(_changed(kind, np.asarray(weight), number, random))


def _changed(
    kind: str, value: np.ndarray, number: float, random: np.random.Generator
) -> np.ndarray:
    if kind == "scale":
        return value * number
    if kind == "normal":
        return random.normal(scale=number, size=value.shape)
    if kind == "uniform":
        return random.uniform(high=number, size=value.shape)
    return np.full(value.shape, number)

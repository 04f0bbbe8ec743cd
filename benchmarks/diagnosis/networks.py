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


def narrow_mlp(
    shape: Shape,
    out: tuple[int, str],
    seed: int,
    *,
    units: int = 32,
    narrow: int = 4,
    cut: str = "",
) -> keras.Model:
    """Make an MLP with a narrow layer, behind which "round" or "stop_gradient" may cut the path."""
    inputs = keras.Input(shape)
    x = layers.Dense(units, "relu", kernel_initializer="he_normal", name="hidden_1")(inputs)
    x = layers.Dense(narrow, "tanh", name="hidden_2")(x)
    x = getattr(ops, cut)(x) if cut else x
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


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


def several_heads(
    shape: Shape, out: tuple[int, str], seed: int, *, units: int = 32, heads: int = 2
) -> keras.Model:
    """Make a shared trunk with a head for a class, and heads for numbers."""
    inputs = keras.Input(shape)
    x = layers.Dense(units, "relu", name="trunk_1")(inputs)
    x = layers.Dense(units, "relu", name="trunk_2")(x)
    numbers = [layers.Dense(1, name=f"number_{k}")(x) for k in range(1, heads)]
    return keras.Model(inputs, [layers.Dense(1, "sigmoid", name="label")(x), *numbers])


class _Sampling(layers.Layer):
    """Draw from a Gaussian, and add its divergence from a standard one to the loss."""

    def __init__(self, weight: float, seed: int, **options: Any) -> None:
        super().__init__(**options)
        self.weight, self.seed_generator = weight, keras.random.SeedGenerator(seed)

    def call(self, mean: Any, log_variance: Any) -> Any:
        divergence = -0.5 * ops.mean(1 + log_variance - mean**2 - ops.exp(log_variance))
        self.add_loss(self.weight * divergence)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(log_variance / 2) * noise


def vae(
    shape: Shape,
    out: tuple[int, str],
    seed: int,
    *,
    units: int = 48,
    latent: int = 6,
    weight: float = 0.01,
) -> keras.Model:
    """Make a variational autoencoder."""
    inputs = keras.Input(shape)
    x = layers.Dense(units, "relu", name="encode")(inputs)
    mean, log_variance = (
        layers.Dense(latent, name="mean")(x),
        layers.Dense(latent, name="spread")(x),
    )
    x = _Sampling(weight, seed)(mean, log_variance)
    x = layers.Dense(units, "relu", name="decode")(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


class _Adversaries(keras.Model):
    """A generator and a discriminator that train against each other (GAN), on TensorFlow."""

    def __init__(self, latent: int, units: int, dimensions: int, seed: int) -> None:
        super().__init__()
        self.latent, self.seed_generator = latent, keras.random.SeedGenerator(seed)
        self.generator, self.discriminator = (
            keras.Sequential(
                [
                    keras.Input((inputs,)),
                    layers.Dense(units, "leaky_relu"),
                    layers.Dense(units, "leaky_relu"),
                    layers.Dense(outputs),
                ],
                name=name,
            )
            for name, inputs, outputs in (
                ("generator", latent, dimensions),
                ("discriminator", dimensions, 1),
            )
        )
        self.built = True

    def compile(self, optimizer: Any, loss: Any, **_: Any) -> None:
        super().compile(optimizer)
        self.of_generator = type(optimizer).from_config(optimizer.get_config())
        self.of_discriminator = type(optimizer).from_config(optimizer.get_config())
        self.error = keras.losses.BinaryCrossentropy(from_logits=True)

    def generate(self, samples: int) -> Any:
        noise = keras.random.normal((samples, self.latent), seed=self.seed_generator)
        return self.generator(noise)

    def call(self, x: Any) -> Any:
        return self.discriminator(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        import tensorflow as tf

        real = data[0] if isinstance(data, tuple) else data
        count = tf.shape(real)[0]
        ones, zeros = tf.ones((count, 1)), tf.zeros((count, 1))
        with tf.GradientTape() as tape:
            made = self.discriminator(self.generate(count))
            d_loss = self.error(ones, self.discriminator(real)) + self.error(zeros, made)
        weights = self.discriminator.trainable_variables
        self.of_discriminator.apply(tape.gradient(d_loss, weights), weights)
        with tf.GradientTape() as tape:
            g_loss = self.error(ones, self.discriminator(self.generate(count)))
        weights = self.generator.trainable_variables
        self.of_generator.apply(tape.gradient(g_loss, weights), weights)
        return {"d_loss": d_loss, "g_loss": g_loss}


def gan(
    shape: Shape, out: tuple[int, str], seed: int, *, latent: int = 4, units: int = 32
) -> keras.Model:
    """Make a generative adversarial network."""
    return _Adversaries(latent, units, shape[-1], seed)


def conv1d(
    shape: Shape, out: tuple[int, str], seed: int, *, filters: Sequence[int] = (16, 16)
) -> keras.Model:
    x = inputs = keras.Input(shape)
    for width in filters:
        x = layers.Conv1D(width, 5, padding="causal", activation="relu")(x)
    x = layers.GlobalAveragePooling1D()(x) if out[1] != "linear" else x[:, -1]
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


def separable_cnn(
    shape: Shape, out: tuple[int, str], seed: int, *, filters: Sequence[int] = (16, 32)
) -> keras.Model:
    x = inputs = keras.Input(shape)
    for width in filters:
        x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


def unet(shape: Shape, out: tuple[int, str], seed: int, *, filters: int = 8) -> keras.Model:
    """Make a network that predicts each pixel, with a short cut past its narrow middle."""
    inputs = keras.Input(shape)
    wide = layers.Conv2D(filters, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D()(wide)
    x = layers.Conv2D(2 * filters, 3, padding="same", activation="relu")(x)
    x = layers.UpSampling2D()(x)
    x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([wide, x])
    return keras.Model(inputs, layers.Conv2D(out[0], 1, activation=out[1], name="output")(x))


def tagger(
    shape: Shape, out: tuple[int, str], seed: int, *, words: int = 20, width: int = 16
) -> keras.Model:
    """Make a recurrent network that predicts the next word at each place."""
    inputs = keras.Input(shape, dtype="int32")
    x = layers.Embedding(words, width)(inputs)
    x = layers.GRU(width, return_sequences=True)(x)
    return keras.Model(inputs, layers.Dense(*out, name="output")(x))


NETWORKS: dict[str, Callable[..., keras.Model]] = {
    function.__name__: function
    for function in (
        mlp,
        scaled_mlp,
        dropout_mlp,
        penalized_mlp,
        narrow_mlp,
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
        several_heads,
        vae,
        gan,
        conv1d,
        separable_cnn,
        unet,
        tagger,
    )
}


def unclipped_log(y_true: Any, y_pred: Any) -> Any:
    """Compute the binary cross-entropy without clipping, so that log(0) can occur."""
    y_true = ops.cast(y_true, y_pred.dtype)
    return -ops.mean(y_true * ops.log(y_pred) + (1 - y_true) * ops.log(1 - y_pred), axis=-1)


def gaussian(y_true: Any, y_pred: Any) -> Any:
    """Compute the negative log-likelihood, without ½ log 2π, of a mean and a log variance."""
    mean, log_variance = y_pred[:, :1], y_pred[:, 1:]
    return 0.5 * ops.mean(log_variance + (y_true - mean) ** 2 * ops.exp(-log_variance), axis=-1)


def smoothed(y_true: Any, y_pred: Any) -> Any:
    """Compute the binary cross-entropy with a tenth of each label smoothed away."""
    return keras.losses.binary_crossentropy(y_true, y_pred, label_smoothing=0.1)


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "unclipped_log": unclipped_log,
    "gaussian": gaussian,
    "smoothed": smoothed,
}


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

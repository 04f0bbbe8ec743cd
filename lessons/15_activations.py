# %% [markdown]
# # 15. Choosing an activation function: six in the same deep network
#
# **Part:** What helps · **Level:** intermediate · **After:** lessons 1 and 7
#
# **Question.** Which activation function trains a deep network best: ReLU, leaky ReLU, ELU, SELU,
# GELU or SiLU?
#
# **Predict first.** Take twenty plain layers, without normalization and without skip connections.
# Rank the six functions by the loss that you expect after a few epochs. Then write down what else
# the ranking may depend on.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fast mode: fewer seeds, only three of six trained
DEPTH = 20
data = kgrad.make_dataset("digits", 1024)
X, y = data.X, data.y


# %%
def network(activation):
    model = kgrad.create_model(
        DEPTH, activation, "he", input_shape=(64,), output_units=10, output_activation="softmax"
    )
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.SGD(0.02), loss, jit_compile=False)
    return model


# %%
def draw(model, sigma_w2, sigma_b2, seed):
    """Draw weights with variance σ_w²/n, biases with σ_b²; the output layer uses 1 and 0."""
    random = np.random.default_rng(seed)
    for layer in model.layers[1:]:
        w2, b2 = (1, 0) if layer.name == "output" else (sigma_w2, sigma_b2)
        fan_in = layer.kernel.shape[0]
        layer.kernel.assign(random.normal(0, np.sqrt(w2 / fan_in), layer.kernel.shape))
        layer.bias.assign(random.normal(0, np.sqrt(b2), layer.bias.shape))


# %% [markdown]
# ## The experiment
#
# We start the networks in two ways. In the first, all six functions get He's weights, σ_w² = 2, as
# if they were ReLU. In the second, each function gets its own pair (σ_w², σ_b²). With this pair,
# neither the signal nor the gradient grows or shrinks much from layer to layer. For GELU and SiLU
# this needs biases that are not 0.

# %%
own = {
    "relu": (2, 0),
    "leaky_relu": (2 / 1.04, 0),  # Keras's slope for negative values is 0.2
    "elu": (1.5, 0),
    "selu": (1, 0),
    "gelu": (1.983, 0.173),
    "silu": (1.988, 0.555),
}
starts = {"He's weights for all": dict.fromkeys(own, (2, 0)), "each with its own start": own}

# %%
models = {name: network(name) for name in own}
seeds = range(1 if FAST else 4)


def profile(name, start):
    """Return the gradient norm of each hidden layer (geometric mean over seeds)."""
    norms = []
    for seed in seeds:
        draw(models[name], *start[name], seed)
        history = kgrad.measure_gradients(models[name], X[:256], y[:256])
        norms.append(np.log(history.by_layer("l2_norm")[0, :DEPTH]))
    return np.exp(np.mean(norms, axis=0))


profiles = {title: {name: profile(name, start) for name in own} for title, start in starts.items()}

# %% tags=["figure"] jupyter={"source_hidden": true}
styles = dict(zip(own, ("k-", "k--", "C0-", "C1-", "C2-", "C3-"), strict=True))
titles = "He's weights for all: levels lie far apart", "Each with its own start: all are ordinary"
for title, lines in zip(titles, profiles.values(), strict=True):
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, line in lines.items():
        axes.semilogy(range(1, DEPTH + 1), line, styles[name], label=name)
    axes.set(xlabel="hidden layer", ylabel="gradient norm", title=title, ylim=(0.1, 30))
    axes.xaxis.get_major_locator().set_params(integer=True)
    name_lines(axes)
    plt.show()

# %%
level = {title: [line[0] for line in lines.values()] for title, lines in profiles.items()}
for title, first in level.items():
    print(f"{title}: first layer's gradient from {min(first):.2g} to {max(first):.2g}")

# %% [markdown]
# Each line is one network before training, from its first hidden layer (left) to its last. If all
# functions start with the same weights, the levels lie far apart: SELU's gradients are eighty times
# SiLU's. If each has its own start, every network has a gradient of ordinary size in every layer.
# So all six should train equally well. Do they?

# %%
trained = ["relu", "elu", "selu"] if FAST else list(own)


def loss_after_training(name, start):
    found = []
    for seed in seeds[:2]:
        draw(models[name], *start[name], seed)
        keras.utils.set_random_seed(seed)  # the order of the samples
        record = models[name].fit(X, y, batch_size=64, epochs=3, verbose=0)
        found.append(record.history["loss"][-1])
    return np.mean(found)


losses = {
    title: {name: loss_after_training(name, start) for name in trained}
    for title, start in starts.items()
}

# %%
print(f"{'loss (guessing: 2.30)':>24}", *(f"{name:>10}" for name in trained))
for title, by_name in losses.items():
    print(f"{title:>24}", *(f"{loss:>10.2f}" for loss in by_name.values()))

# %% [markdown]
# SELU does so well only with its own start: with He's weights its loss is more than twice as high.
# And even if all networks have their own start, and all gradients are in order, their losses differ
# greatly. It is not enough that gradients reach every layer. The *differences between samples* must
# also reach the last layer; otherwise it gets the same vector for every image. How similar have two
# images become after twenty layers?


# %%
def what_is_left(name, seed):
    """Return 1 - the mean cosine between the last hidden outputs of two different images."""
    draw(models[name], *own[name], seed)
    outputs = keras.Model(models[name].input, models[name].layers[-2].output)(X[:256]).numpy()
    outputs /= np.linalg.norm(outputs, axis=1, keepdims=True)
    return 1 - (np.sum(outputs @ outputs.T) - 256) / (256 * 255)


left = {name: np.mean([what_is_left(name, seed) for seed in seeds]) for name in own}

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name in trained:
    axes.semilogx(left[name], losses["each with its own start"][name], "o", color="C0")
    axes.annotate(
        name,
        (left[name], losses["each with its own start"][name]),
        (6, 6),
        textcoords="offset points",
    )
axes.axhline(np.log(10), color="gray", linestyle="--", linewidth=1)
axes.annotate("guessing", (0.02, np.log(10) + 0.03), xycoords=("axes fraction", "data"))
axes.set(
    xlabel="difference left between two images",
    ylabel="loss after 3 epochs",
    title="The more difference is left, the lower the loss",
)
axes.margins(0.15)
plt.show()

# %%
print(", ".join(f"{name} {value:.2g}" for name, value in left.items()))

# %% [markdown]
# ## What it shows, and why
#
# Let q be the variance of a pre-activation and c the correlation of two samples. In a wide network,
# the next layer has q′ and c′, and χ is the factor for the squared gradient:
#
# $$q' = \sigma_w^2 \, \mathbb{E}[\varphi(\sqrt{q} z)^2] + \sigma_b^2, \qquad
# c' = \frac{\sigma_w^2 \, \mathbb{E}[\varphi(u_a)\varphi(u_b)] + \sigma_b^2}{q'}, \qquad
# \chi = \sigma_w^2 \, \mathbb{E}[\varphi'(\sqrt{q} z)^2].$$
#
# The gradient is multiplied by √χ per layer. If χ is near 1, c still moves slowly toward 1, and its
# speed depends on φ. ReLU's outputs are never negative. So they have a common mean, and this mean
# grows at the expense of the differences. ELU and SELU also have negative outputs, so their mean is
# near 0 and the samples become similar only slowly. Take two images that have nothing in common.
# The theory predicts how much of their difference is left after twenty layers:


# %%
def left_in_theory(name, sigma_w2, sigma_b2, **parameters):
    phi = kgrad.theory.activation(name, **parameters)
    q = sigma_w2 + sigma_b2
    c = sigma_b2 / q
    for _ in range(DEPTH):
        c = kgrad.theory.correlation_map(phi, c, q, sigma_w2, sigma_b2)
        q = kgrad.theory.variance_map(phi, q, sigma_w2, sigma_b2)
    return 1 - c


theory = {name: left_in_theory(name, *start) for name, start in own.items()}
print(", ".join(f"{name} {value:.2g}" for name, value in theory.items()))

# %% [markdown]
# So there is no best activation function in general. There is a best one for a given start, depth
# and network. GELU and SiLU are mostly used together with normalization and skip connections, which
# this lesson leaves out.
#
# ## What must hold

# %% tags=["checks"] jupyter={"source_hidden": true}
own_loss, he_loss = losses["each with its own start"], losses["He's weights for all"]
spread = {title: max(first) / min(first) for title, first in level.items()}
assert spread["He's weights for all"] > 5 * spread["each with its own start"]
assert he_loss["selu"] > 2 * own_loss["selu"]
assert own_loss["selu"] < 0.85 * own_loss["elu"]
assert own_loss["elu"] < 0.75 * own_loss["relu"]
assert left["selu"] > left["elu"] > 2 * left["relu"]

# %% [markdown]
# ## Exercises
#
# **1.** By what factor does the mean square of SELU's signal grow over twenty layers with He's
# weights? Compute the factor from the theory, then measure it.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Apply the variance map once per layer, then compute E[φ²]. The mean square of the outputs reaches
# about 70, although SELU was designed to keep it at 1. So the signal, and with it the gradients,
# are much too large for the learning rate of 0.02.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
phi, q = kgrad.theory.activation("selu"), 2.0
for _ in range(DEPTH - 1):
    q = kgrad.theory.variance_map(phi, q, 2.0)
expected = kgrad.theory.second_moment(phi, q)
squares = []
for seed in range(4):
    draw(models["selu"], 2, 0, seed)
    last_hidden = keras.Model(models["selu"].input, models["selu"].layers[-2].output)
    squares.append(np.mean(last_hidden(X[:256]).numpy() ** 2))
print(f"mean square after {DEPTH} layers: theory {expected:.0f}, measured {np.mean(squares):.0f}")
assert 0.5 < np.mean(squares) / expected < 2

# %% [markdown]
# **2.** How much of the difference would be left after twenty layers of leaky ReLU with a slope of
# 0.01, of 0.5 or of 1 for negative values? (He's variance is then 2/(1 + slope²).) Why not take the
# slope that leaves most?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# The larger the slope, the more is left. With a slope of 1 everything is left, but then the
# function is linear, and twenty layers can do no more than one. Depth needs functions that bend,
# and a function that bends loses something in each layer.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
by_slope = {
    slope: left_in_theory("leaky_relu", 2 / (1 + slope**2), 0, negative_slope=slope)
    for slope in (0.01, 0.2, 0.5, 1.0)
}
print(", ".join(f"slope {slope}: {value:.2f}" for slope, value in by_slope.items()))
assert list(by_slope.values()) == sorted(by_slope.values())
assert abs(by_slope[1.0] - 1) < 1e-6

# %% [markdown]
# ## Source
#
# K. He et al., *Delving Deep into Rectifiers*, 2015 (PReLU). D.-A. Clevert et al., *Fast and
# Accurate Deep Network Learning by Exponential Linear Units*, 2016. G. Klambauer et al.,
# *Self-Normalizing Neural Networks*, 2017. D. Hendrycks, K. Gimpel, *Gaussian Error Linear
# Units*, 2016. B. Poole et al., *Exponential expressivity in deep neural networks through transient
# chaos*, 2016 (the correlation c).

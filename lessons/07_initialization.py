# %% [markdown]
# # 7. Initialization: choosing the variance of the weights
#
# **Part:** What helps · **Level:** intermediate · **After:** lesson 3
#
# **The idea.** The more singers a choir has, the softer each of them has to sing if the choir is to
# sound as loud as before. A unit of a network adds up one number from each of its inputs, and the
# same holds for its weights: the more inputs there are, the smaller the weights should be. If they
# are a little too small or too large, this repeats itself from layer to layer, and a deep network
# of ReLU layers fades to silence or grows to a roar.
#
# ![Two units that add up their inputs. The left one has 4 inputs and weights of size 1. The right
# one has 16 inputs and weights of size ½. The arrows that leave the two units are equally
# thick.](../docs/lessons/figures/07_idea.svg)
#
# **Question.** How large should the weights be at the start? Xavier's answer and He's answer differ
# by a factor of √2 in the standard deviation of the weights. Does that matter?
#
# **Predict first.** Two networks of thirty ReLU layers with 64 units learn to recognize ten kinds
# of handwritten digits. Guessing gives a loss of ln 10 = 2.303. One network starts with weights of
# standard deviation 0.125 (Xavier), the other with 0.177 (He). Write down the loss that you expect
# for each after eight epochs.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fewer networks and epochs, same claims
EPOCHS, SEEDS = (4, 1) if FAST else (8, 2)
digits = kgrad.make_dataset("digits")
# σ_w² of each initializer: the fan-in times the variance of a weight.
VARIANCES = {"normal": 64 * 0.05**2, "xavier": 64 * 2 / (64 + 64), "he": 64 * 2 / 64}


def network(initializer, seed=0, depth=30, activation="relu"):
    return kgrad.create_model(
        depth, activation, initializer, units=64, input_shape=(64,),
        output_units=10, output_activation="softmax", seed=seed,
    )  # fmt: skip


# %% [markdown]
# ## The experiment
#
# How large is the signal in each layer before training? Here the signal is the output of the layer
# in the forward pass. We compare three initializations.


# %%
def sizes(model):
    """Return the root mean square of each hidden layer's output."""
    outputs = keras.Model(model.input, [layer.output for layer in model.layers[1:-1]])
    return [np.sqrt(np.mean(np.square(a))) for a in outputs(digits.X[:256])]


signals = {
    name: np.exp(np.mean([np.log(sizes(network(name, seed))) for seed in range(SEEDS)], axis=0))
    for name in VARIANCES
}
factors = {name: (signal[29] / signal[0]) ** (1 / 29) for name, signal in signals.items()}

# %% tags=["figure"] jupyter={"source_hidden": true}
layers = np.arange(1, 31)
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, variance), marker in zip(VARIANCES.items(), "sov", strict=True):
    signal = signals[name]
    (points,) = axes.semilogy(layers, signal, marker, label=name)
    axes.semilogy(
        layers, signal[0] * (variance / 2) ** ((layers - 1) / 2), color=points.get_color()
    )
    print(f"{name:<6} factor per layer: measured {factors[name]:.3f}, √(σ_w²/2) = ", end="")
    print(f"{np.sqrt(variance / 2):.3f}; layer 30 ÷ layer 1: {signal[29] / signal[0]:.1e}")
axes.set(xlabel="layer, input → output", ylabel="RMS of the layer's output")
axes.set(title="Only $σ_w^2$ = 2 keeps signals level (lines: theory)")
name_lines(axes)
plt.show()

# %% [markdown]
# A factor of √½ does not look like much. But raised to the power of 29, it reduces the signal by
# more than four powers of ten. Now we train the Xavier network and the He network. Everything else
# is the same.

# %%
histories = {
    name: kgrad.train_and_track_gradients(
        network(name), digits.X, digits.y, EPOCHS, optimizer=keras.optimizers.SGD(0.02), seed=0
    )
    for name in ("xavier", "he")
}

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, history), style in zip(histories.items(), ["o--", "v-"], strict=True):
    axes.plot(range(1, EPOCHS + 1), history.logs["loss"][1:], style, label=name)
    print(f"{name:<6} loss after {EPOCHS} epochs: {history.logs['loss'][-1]:.3f}")
axes.axhline(np.log(10), color="0.5", linewidth=1, label="guessing")
axes.set(xlabel="epoch", ylabel="loss", title="Thirty ReLU layers learn with He's variance only")
name_lines(axes)
plt.show()

# %% [markdown]
# Here are the gradients before the first step, with kernels (filled markers) and biases (open
# markers) shown separately:

# %%
kernels = {name: history["l2_norm"][0, :60:2] for name, history in histories.items()}
biases = {name: history["l2_norm"][0, 1:60:2] for name, history in histories.items()}
for name, kernel in kernels.items():
    print(f"{name:<6} kernels from {kernel.min():.1e} to {kernel.max():.1e}; ", end="")
    print(f"biases, first ÷ last: {biases[name][0] / biases[name][29]:.1e}")

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, marker in zip(histories, "ov", strict=True):
    (points,) = axes.semilogy(layers, kernels[name], marker, label=f"{name}, kernels")
    look = {"color": points.get_color(), "fillstyle": "none", "label": f"{name}, biases"}
    axes.semilogy(layers, biases[name], marker, **look)
axes.set(
    xlabel="layer, input → output",
    ylabel="gradient norm",
    title="Xavier: the biases show the slope, the kernels do not",
)
name_lines(axes)
plt.show()

# %% [markdown]
# ## What it shows, and why
#
# A unit sums n_in products, z = Σ w a. The weights have mean 0, and they are independent of a and
# of each other. So the variances of the products add up, and ReLU keeps half of the second moment:
#
# $$\mathbb{E}[z^2] = n_\text{in} \operatorname{Var}(w)\, \mathbb{E}[a^2], \qquad
# \mathbb{E}[a^2] = \tfrac12\, \mathbb{E}[z^2] \text{ of the layer below (ReLU)}.$$
#
# Each layer multiplies the second moment by n_in Var(w)/2 = σ_w²/2. This factor is 1 if **Var(w) =
# 2/n_in: He**. In the backward pass, a unit's gradient is a sum over the n_out units of the layer
# above, and ReLU lets half of it pass:
#
# $$\mathbb{E}[\delta^2] = n_\text{out} \operatorname{Var}(w) \cdot
# \tfrac12\, \mathbb{E}[\delta^2] \text{ of the layer above}.$$
#
# An activation with slope 1 at 0, such as tanh, has no factor of one half. Then the forward pass
# needs a variance of 1/n_in, and the backward pass needs 1/n_out. If the widths differ, both cannot
# hold. The compromise is **Var(w) = 2/(n_in + n_out): Xavier**. For equal widths it is 1/n, which
# is half of what ReLU needs, so each ReLU layer multiplies the signal by √½.
#
# Look at the last figure. The bias gradients are sums of the backward signal δ, and they shrink
# from layer to layer. The kernel gradients of the Xavier network do not: *all* of them are tiny,
# and none is much smaller than the others. The reason is that a kernel gradient is δ times a. What
# δ loses on the way down, a has already lost on the way up (lesson 4). The level of the gradients
# reveals the problem; the ratio between layers does not. And the loss does not fall.

# %% [markdown]
# ## What must hold
#
# The measured factors agree with the derivation. The He network learns and the Xavier network does
# not. Its gradients are thousands of times smaller in every layer.

# %% tags=["checks"] jupyter={"source_hidden": true}
for name, variance in VARIANCES.items():
    assert abs(factors[name] / np.sqrt(variance / 2) - 1) < 0.15
assert histories["he"].logs["loss"][-1] < 2.1
assert abs(histories["xavier"].logs["loss"][-1] - np.log(10)) < 0.01
assert kernels["xavier"].max() < kernels["he"].min() / 300

# %% [markdown]
# ## Exercises
#
# **1.** Xavier initialization can work with ReLU: many networks were trained with it. Try ten
# layers instead of thirty. Why does it work there?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Ten layers multiply the signal by √½ to the power of 9, so it becomes 23 times smaller. A gradient
# that is about twenty times too small is still large enough to adjust the weights. With thirty
# layers the signal becomes 23,000 times smaller.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
shallow = kgrad.train_and_track_gradients(
    network("xavier", depth=10), digits.X, digits.y, 4, optimizer=keras.optimizers.SGD(0.05), seed=0
)
print(f"ten layers, Xavier: loss after 4 epochs {shallow.logs['loss'][-1]:.3f}")
print(f"2^(9/2) = {2**4.5:.0f}, 2^(29/2) = {2**14.5:.0f}")
assert shallow.logs["loss"][-1] < 2

# %% [markdown]
# **2.** Which variance does leaky ReLU need if its slope for negative inputs is 0.2? Derive it, and
# compare it with `kgrad.recommend_initializer`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# Half of the units have slope 1, and half have slope 0.2. The mean squared slope is (1 + 0.04)/2 =
# 0.52, and σ_w² must be 1/0.52 = 1.92. This is slightly less than He's 2, because a little of the
# signal passes for negative inputs too.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
recommended = kgrad.recommend_initializer("leaky_relu")
print(recommended)
assert np.isclose(recommended.sigma_w2, 2 / 1.04, rtol=0.01)

# %% [markdown]
# ## Source
#
# X. Glorot, Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*,
# 2010. K. He et al., *Delving deep into rectifiers*, 2015. This lesson is a small version of their
# comparison with 30 layers.

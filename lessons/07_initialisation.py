# %% [markdown]
# # 7. Initialisation: the variance that keeps a signal alive
#
# **Question.** How large should the weights be at the start? Xavier's answer and He's differ by a
# factor of √2 in the weights' standard deviation. Does that matter?
#
# **Predict first.** Thirty ReLU layers of 64 units, ten kinds of handwritten digits; guessing gives
# a loss of ln 10 = 2.303. One network starts with weights of standard deviation 0.125 (Xavier), the
# other with 0.177 (He). Write down the loss of each after eight epochs.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

FAST = "KGRAD_FAST" in os.environ  # fewer networks and epochs, the same claims
EPOCHS, SEEDS = (4, 1) if FAST else (8, 2)
digits = kgrad.make_dataset("digits")
# Initializer → σ_w², the fan-in times the variance of a weight.
VARIANCES = {"normal": 64 * 0.05**2, "xavier": 64 * 2 / (64 + 64), "he": 64 * 2 / 64}


def network(initializer, seed=0, depth=30, activation="relu"):
    return kgrad.create_model(
        depth, activation, initializer, units=64, input_shape=(64,),
        output_units=10, output_activation="softmax", seed=seed,
    )  # fmt: skip


# %% [markdown]
# ## The experiment
#
# Before any training: how large is the signal in each layer, for three initialisations?


# %%
def sizes(model):
    """Root mean square of what each hidden layer puts out."""
    outputs = keras.Model(model.input, [layer.output for layer in model.layers[1:-1]])
    return [np.sqrt(np.mean(np.square(a))) for a in outputs(digits.X[:256])]


signals = {
    name: np.exp(np.mean([np.log(sizes(network(name, seed))) for seed in range(SEEDS)], axis=0))
    for name in VARIANCES
}
factors = {name: (signal[29] / signal[0]) ** (1 / 29) for name, signal in signals.items()}

# %%
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
axes.set(xlabel="layer, input → output", ylabel="size of the signal")
axes.set(title="Points: measured. Lines: √(σ_w²/2) per layer")
axes.legend()
plt.show()

# %% [markdown]
# A factor of √½ does not look like much. To the power of 29 it is a loss of four decades and more.
# Now train the last two, everything else being equal.

# %%
histories = {
    name: kgrad.train_and_track_gradients(
        network(name), digits.X, digits.y, EPOCHS, optimizer=keras.optimizers.SGD(0.02), seed=0
    )
    for name in ("xavier", "he")
}

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, history), style in zip(histories.items(), ["o--", "v-"], strict=True):
    axes.plot(range(1, EPOCHS + 1), history.logs["loss"][1:], style, label=name)
    print(f"{name:<6} loss after {EPOCHS} epochs: {history.logs['loss'][-1]:.3f}")
axes.axhline(np.log(10), color="0.5", linewidth=1)
axes.set(xlabel="epoch", ylabel="loss", title="Thirty ReLU layers (grey: guessing)")
axes.legend()
plt.show()

# %% [markdown]
# And the gradients of the very first step, kernels (filled) and biases (open) apart:

# %%
first = {}  # of the kernels
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, history), marker in zip(histories.items(), "ov", strict=True):
    first[name], biases = history["l2_norm"][0, :60:2], history["l2_norm"][0, 1:60:2]
    (points,) = axes.semilogy(layers, first[name], marker, label=name)
    axes.semilogy(layers, biases, marker, color=points.get_color(), fillstyle="none")
    print(f"{name:<6} kernels from {first[name].min():.1e} to {first[name].max():.1e}; ", end="")
    print(f"biases, first ÷ last: {biases[0] / biases[29]:.1e}")
axes.set(xlabel="layer, input → output", ylabel="gradient norm", title="Before training")
axes.legend()
plt.show()

# %% [markdown]
# ## What it shows, and why
#
# A unit sums n_in products, z = Σ w a. The weights are independent of a and of each other, with
# mean 0. So variances add up, and ReLU hands on half of the second moment:
#
# $$\mathbb{E}[z^2] = n_\text{in} \operatorname{Var}(w)\, \mathbb{E}[a^2], \qquad
# \mathbb{E}[a^2] = \tfrac12\, \mathbb{E}[z^2] \text{ of the layer below (ReLU)}.$$
#
# Each layer multiplies by n_in Var(w)/2 = σ_w²/2. It is 1 if **Var(w) = 2/n_in: He**. On the way
# back a unit's gradient is a sum over the n_out units above it, of which ReLU lets half pass:
#
# $$\mathbb{E}[\delta^2] = n_\text{out} \operatorname{Var}(w) \cdot
# \tfrac12\, \mathbb{E}[\delta^2] \text{ of the layer above}.$$
#
# For a slope of 1 at 0, as tanh has, there is no half: forward wants 1/n_in, backward 1/n_out.
# Where widths differ one cannot have both; the compromise is **Var(w) = 2/(n_in + n_out): Xavier**.
# For equal widths it is 1/n, half of what ReLU needs, and a layer takes √½.
#
# Look at the last figure. The biases, which get δ itself, show the slope. The kernels of the Xavier
# network do not: *all* of them have a tiny gradient, none less than the others, for it is δ times
# a, and what δ loses on the way down a has lost on the way up (lesson 4). The level gives it away,
# not a ratio between layers. And the loss does not move.

# %% [markdown]
# ## What must hold
#
# The factors are those of the derivation. He trains and Xavier does not, with gradients that are
# thousands of times smaller in every layer.

# %%
for name, variance in VARIANCES.items():
    assert abs(factors[name] / np.sqrt(variance / 2) - 1) < 0.15
assert histories["he"].logs["loss"][-1] < 2.1
assert abs(histories["xavier"].logs["loss"][-1] - np.log(10)) < 0.01
assert first["xavier"].max() < first["he"].min() / 300

# %% [markdown]
# ## Exercises
#
# **1.** Xavier is no curse on ReLU: many networks were trained with it. Try ten layers instead of
# thirty. Why does it work there?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Ten layers lose √½ to the power of 9, a factor of 23. A gradient of a twentieth is small, but not
# hopeless: the weights adjust. Thirty layers lose a factor of 23,000.
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
# **2.** Which variance does leaky ReLU need, with a slope of 0.2 on the left? Derive it, and
# compare with `kgrad.recommend_initializer`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# Half of the units pass 1, half 0.2: the mean squared slope is (1 + 0.04)/2 = 0.52, and σ_w² must
# be 1/0.52 = 1.92. A little less than He's 2, as a little comes through on the left.
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
# 2010. K. He et al., *Delving deep into rectifiers*, 2015, whose 30-layer comparison this is in
# small.

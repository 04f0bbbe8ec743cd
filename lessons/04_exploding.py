# %% [markdown]
# # 4. Exploding: two faces, and an overflow
#
# **Question.** Weights that are too large make gradients grow on their way back. Is the first layer
# then the one with the largest gradient? And what becomes of the first steps of training?
#
# **Predict first.** Ten ReLU layers of 64 units, their weights from N(0, 0.5²): so large that each
# layer stretches a vector to nearly three times its length. Write down your guess for the gradient
# of the first kernel divided by that of the tenth. And after how many steps is the loss NaN?

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from kgrad.probe import Probe

import kgrad

FAST = "KGRAD_FAST" in os.environ  # fewer networks, the same claims
seeds = range(2 if FAST else 8)
data = kgrad.make_dataset("classification", samples=256, features=20, seed=0)
STDDEV = {"tanh": 1.0, "relu": 0.5}  # of the weights


def network(activation, seed=0):
    normal = keras.initializers.RandomNormal(stddev=STDDEV[activation])
    return kgrad.create_model(10, activation, normal, units=64, seed=seed)


# %% [markdown]
# ## The experiment
#
# Two kinds of networks that explode, with several seeds (line: median; shade: all). A history lists
# the weights in forward order: kernel, bias, kernel, bias …

# %%
layers = np.arange(1, 11)
kernels, biases = {}, {}  # gradient norms, (networks, layers)
for name in STDDEV:
    runs = [kgrad.measure_gradients(network(name, seed), data.X, data.y) for seed in seeds]
    norms = np.array([history["l2_norm"][0, :20] for history in runs])
    kernels[name], biases[name] = norms[:, ::2], norms[:, 1::2]

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, marker in (("relu", "o"), ("tanh", "s")):
    axes.semilogy(layers, np.median(kernels[name], axis=0), marker + "-", label=name)
    axes.fill_between(layers, kernels[name].min(axis=0), kernels[name].max(axis=0), alpha=0.2)
axes.set(xlabel="layer, input → output", ylabel="kernel's gradient norm", title="Before training")
axes.legend()
plt.show()

for name in STDDEV:
    kernel, bias = (np.median(norms[name][:, 0] / norms[name][:, 9]) for norms in (kernels, biases))
    print(f"{name}, layer 1 ÷ layer 10: kernels {kernel:.3g}, biases {bias:.3g}")

# %% [markdown]
# The first face, tanh: a staircase with the first layer on top. The second, ReLU: a plateau, about
# 10⁴ everywhere, and no ratio between layers that would give it away; the first kernel even gets
# the least. But the *biases* of the same network do grow towards the input. So take a kernel's
# gradient apart: it is made of what comes in from below, a, and of what comes back from above, δ.

# %%
model = network("relu")
activations = keras.Model(model.input, [layer.output for layer in model.layers[:10]])(data.X)
coming_in = [np.sqrt(np.mean(np.square(a))) for a in activations]

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.semilogy(layers, coming_in, "s-", color="C2", label="what comes in: a")
axes.semilogy(layers, biases["relu"][0], "v-", color="C3", label="what comes back: δ (the bias)")
axes.semilogy(layers, kernels["relu"][0], "o-", color="C0", label="both together (the kernel)")
axes.set(xlabel="layer, input → output", ylabel="size", title="ReLU: two slopes that cancel")
axes.legend()
plt.show()

up = (coming_in[9] / coming_in[0]) ** (1 / 9)
down = {name: np.exp(np.log(one[:, 0] / one[:, 9]).mean() / 9) for name, one in biases.items()}
print(f"δ per layer, downwards: ReLU {down['relu']:.2f}, tanh {down['tanh']:.2f}; a, up: {up:.2f}")
relu, tanh = kgrad.theory.activation("relu"), kgrad.theory.activation("tanh")
chi = kgrad.theory.chi(relu, 1.0, 16.0), kgrad.theory.chi_1(tanh, 64.0)
print(f"theory for δ: ReLU {np.sqrt(chi[0]):.2f}, tanh {np.sqrt(chi[1]):.2f}")

# %% [markdown]
# Now train both for eight steps, with an ordinary learning rate, and record every step.

# %%
histories = {}
for name in STDDEV:
    histories[name] = kgrad.train_and_track_gradients(
        network(name), data.X, data.y, 1, every=1, optimizer=keras.optimizers.SGD(0.05), seed=0
    )
    losses = "  ".join(f"{loss:.3g}" for loss in histories[name].logs["loss"][1:])
    bad = histories[name]["nonfinite_steps"].sum(axis=0).max()
    print(f"{name}: loss {losses};  {bad:.0f} steps with NaN or infinity")

lengths = [f"{length:.3g}" for length in histories["relu"]["weight_l2"][:4, 2]]
print("ReLU, length of the second kernel:", *lengths)
moved = histories["tanh"]["update_l2"][1, :20:2] / histories["tanh"]["weight_l2"][0, :20:2]
print(f"tanh, the first step moves kernel 1 by {moved[0]:.1g} of its length, 10 by {moved[9]:.1g}")

# %%
kgrad.visualize_gradients(histories["relu"], "ReLU, N(0, 0.5²): eight steps of training")
plt.show()

# %% [markdown]
# Each line is a layer, each cell a layer at a step; crosses are NaN. Step 0 is before training.
#
# ## What it shows, and why
#
# The signal δ of a layer is made from that of the next, and a kernel's gradient from δ and from
# what came in:
#
# $$\delta^{l} = \varphi'(z^{l}) \odot W^{l+1\top} \delta^{l+1}, \qquad
# \frac{\partial L}{\partial W^{l}} = \delta^{l} a^{l-1\top}, \qquad
# |\delta^{l}| \approx \sqrt{\chi}\, |\delta^{l+1}|, \quad
# \chi = \sigma_w^2\, \mathbb{E}[\varphi'(z)^2].$$
#
# With σ_w² = 64 · 0.5² = 16 and a slope of 1 in half of the units ReLU has √χ = √8 = 2.83, and its
# signal grows by the same factor on the way up. The first layer has nine such factors in its δ, the
# tenth has them in its a: the slopes cancel, and what all layers share is the *level*. Tanh holds a
# below 1. There only δ grows, and the kernels show it.
#
# While the biases are 0 ReLU keeps it exactly: any kernel scaled by c scales the logit f by c, so
#
# $$\left\langle W^{l}, \frac{\partial L}{\partial W^{l}} \right\rangle
# = \left\langle f, \frac{\partial L}{\partial f} \right\rangle \quad \text{for every layer } l.$$
#
# Then the steps. The first makes the second kernel 24 times as long, and the others too; the next
# loss is a product of eleven such kernels, about 10²⁵. The second step makes weights of 10²¹, whose
# product passes 3.4·10³⁸, the largest number of float32: infinity, and infinity minus infinity is
# NaN. Tanh stays finite, and does not learn: a step throws the first layer by twice its length.

# %% [markdown]
# ## What must hold
#
# Tanh grows towards the input; ReLU does not, in its kernels; the δ of both grow as theory says.
# ReLU overflows within eight steps, tanh does not. And the products are the same in all layers.

# %%
with tf.GradientTape() as tape:
    loss = keras.ops.mean(keras.losses.binary_crossentropy(data.y, model(data.X)))
matrices = [layer.kernel for layer in model.layers[1:]]
products = [
    float(keras.ops.sum(W * g))
    for W, g in zip(matrices, tape.gradient(loss, matrices), strict=True)
]
print(f"⟨W, ∂L/∂W⟩ of the eleven kernels: {min(products):.2f} to {max(products):.2f}")
assert np.ptp(products) < 1e-4 * np.mean(products)
assert (kernels["tanh"][:, 0] > 50 * kernels["tanh"][:, 9]).all()
assert (kernels["relu"][:, 0] < 3 * kernels["relu"][:, 9]).all() and kernels["relu"].min() > 100
assert 2.1 < down["relu"] < 3.2 and 1.9 < down["tanh"] < 2.6
assert not np.isfinite(histories["relu"].logs["loss"][-1])
assert np.isfinite(histories["tanh"].logs["loss"]).all()

# %% [markdown]
# ## Exercises
#
# **1.** At which depth does the signal of such a ReLU network overflow in the very first forward
# pass? Compute it, then multiply matrices until it does.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# log(3.4·10³⁸) / log(2.83) = 85 layers. Single draws lie a few layers to either side.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
signal, depth, random = data.X, 0, np.random.default_rng(0)
with np.errstate(over="ignore", invalid="ignore"):
    while np.isfinite(signal).all():
        weights = random.normal(0, 0.5, (signal.shape[1], 64)).astype("float32")
        signal, depth = np.maximum(signal @ weights, 0), depth + 1
print(f"computed: {np.log(3.4e38) / np.log(np.sqrt(8)):.0f} layers; tried: {depth}")
assert 75 < depth < 125

# %% [markdown]
# **2.** Which share of the tanh units is saturated? A saturated unit passes hardly anything (lesson
# 1). Why does the gradient grow nevertheless?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# About two thirds. The others pass nearly everything, through weights that are eight times longer
# than they should be: χ is 64 times the mean squared slope, and 64 times 0.07 is more than 1.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
probe = Probe(network("tanh"), data.X, data.y, "binary_crossentropy")
shares = probe.measure()["activation_saturated"][1:10]
print(f"saturated: {shares.mean():.2f};  χ = 64 × {chi[1] / 64:.3f} = {chi[1]:.1f}")
assert 0.5 < shares.mean() < 0.9

# %% [markdown]
# ## Source
#
# R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training recurrent neural networks*,
# 2013. S. Du, W. Hu, J. Lee, *Algorithmic regularization in learning deep homogeneous models*,
# 2018, for the equal products. S. Schoenholz et al., *Deep Information Propagation*, 2017, for χ.

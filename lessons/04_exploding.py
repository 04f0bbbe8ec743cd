# %% [markdown]
# # 4. Exploding gradients: two patterns, then an overflow
#
# **Part:** What goes wrong · **Level:** basic · **After:** lesson 3
#
# **The idea.** Fold a sheet of paper in half, again and again. A fold only doubles the thickness,
# but after 42 folds the stack would reach the moon. If the weights are too large, every layer
# multiplies the signal that travels back from the loss in the same way. Each factor looks harmless,
# but their product is enormous.
#
# ![Bars for six layers. The bar of the last layer, on the right, is low and has the number 1. To
# the left, each bar is three times as high as its neighbor: 3, 9, 27. The bars of 81 and 243 leave
# the picture at the top. An arrow points from the last layer to the
# first.](../docs/lessons/figures/04_idea.svg)
#
# **Question.** If the weights are too large, gradients grow on their way back to the input. Does
# the first layer then have the largest gradient? And what happens in the first steps of training?
#
# **Predict first.** A network has ten ReLU layers of 64 units, with weights drawn from N(0, 0.5²).
# These weights are so large that each layer stretches a vector to nearly three times its length.
# Write down your guess for the gradient of the first kernel divided by that of the tenth. And after
# how many training steps will the loss be NaN?

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad
from kgrad import Probe
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fewer networks, same claims
seeds = range(2 if FAST else 8)
data = kgrad.make_dataset("classification", samples=256, features=20, seed=0)
STDDEV = {"tanh": 1.0, "relu": 0.5}  # standard deviation of the initial weights


def network(activation, seed=0):
    normal = keras.initializers.RandomNormal(stddev=STDDEV[activation])
    return kgrad.create_model(10, activation, normal, units=64, seed=seed)


# %% [markdown]
# ## The experiment
#
# We measure two kinds of networks whose gradients explode, with several seeds each. The lines show
# the median over the seeds, and the shaded bands show all of them. A history in kgrad lists the
# weights in forward order: kernel, bias, kernel, bias …

# %%
layers = np.arange(1, 11)
kernels, biases = {}, {}  # gradient norms of shape (networks, layers)
for name in STDDEV:
    runs = [kgrad.measure_gradients(network(name, seed), data.X, data.y) for seed in seeds]
    norms = np.array([history["l2_norm"][0, :20] for history in runs])
    kernels[name], biases[name] = norms[:, ::2], norms[:, 1::2]

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, marker in (("relu", "o"), ("tanh", "s")):
    axes.semilogy(layers, np.median(kernels[name], axis=0), marker + "-", label=name)
    axes.fill_between(layers, kernels[name].min(axis=0), kernels[name].max(axis=0), alpha=0.2)
axes.set(
    xlabel="layer, input → output",
    ylabel="gradient norm, kernel",
    title="Before training: tanh explodes, ReLU's kernels stay level",
)
name_lines(axes)
plt.show()

# %%
for name in STDDEV:
    kernel, bias = (np.median(norms[name][:, 0] / norms[name][:, 9]) for norms in (kernels, biases))
    print(f"{name}, layer 1 ÷ layer 10: kernels {kernel:.3g}, biases {bias:.3g}")

# %% [markdown]
# The two networks show two patterns. In the tanh network the gradients grow steadily towards the
# input, and the first layer has the largest one. In the ReLU network all kernels have about the
# same gradient norm, about 10⁴. No ratio between layers reveals this problem, and the first kernel
# even has the smallest gradient. But the gradients of the *biases* in the same network do grow
# towards the input. To understand this, we split the gradient of a kernel into its two parts: the
# layer's input a, which comes from the layer below, and the signal δ, which comes back from the
# layer above.

# %%
model = network("relu")
activations = keras.Model(model.input, [layer.output for layer in model.layers[:10]])(data.X)
coming_in = [np.sqrt(np.mean(np.square(a))) for a in activations]

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.semilogy(layers, coming_in, "s-", color="C2", label="input a")
axes.semilogy(layers, biases["relu"][0], "v-", color="C3", label="signal δ (bias)")
axes.semilogy(layers, kernels["relu"][0], "o-", color="C0", label="both (kernel)")
axes.set(xlabel="layer, input → output", ylabel="size", title="ReLU: two slopes that cancel")
name_lines(axes)
plt.show()

# %%
up = (coming_in[9] / coming_in[0]) ** (1 / 9)
down = {name: np.exp(np.log(one[:, 0] / one[:, 9]).mean() / 9) for name, one in biases.items()}
print(f"growth of δ per layer, measured: ReLU {down['relu']:.2f}, tanh {down['tanh']:.2f}")
print(f"growth of a per layer, measured: ReLU {up:.2f}")
relu, tanh = kgrad.theory.activation("relu"), kgrad.theory.activation("tanh")
chi = kgrad.theory.chi(relu, 1.0, 16.0), kgrad.theory.chi_1(tanh, 64.0)
print(f"growth of δ per layer, theory:   ReLU {np.sqrt(chi[0]):.2f}, tanh {np.sqrt(chi[1]):.2f}")

# %% [markdown]
# Now we train both networks for eight steps with an ordinary learning rate, and record every step.

# %%
histories = {}
for name in STDDEV:
    histories[name] = kgrad.train_and_track_gradients(
        network(name), data.X, data.y, 1, every=1, optimizer=keras.optimizers.SGD(0.05), seed=0
    )
    losses = "  ".join(f"{loss:.3g}" for loss in histories[name].logs["loss"][1:])
    bad = histories[name]["nonfinite_steps"].sum(axis=0).max()
    print(f"{name}: loss {losses};  {bad:.0f} steps have NaN or infinity")

lengths = [f"{length:.3g}" for length in histories["relu"]["weight_l2"][:4, 2]]
print("ReLU: norm of the second kernel:", *lengths)
moved = histories["tanh"]["update_l2"][1, :20:2] / histories["tanh"]["weight_l2"][0, :20:2]
print(f"tanh: first step ÷ norm of the kernel: layer 1 {moved[0]:.1g}, layer 10 {moved[9]:.1g}")

# %%
kgrad.visualize_gradients(
    histories["relu"], "ReLU, weights from N(0, 0.5²): NaN within eight steps"
)

# %% [markdown]
# On the left each line is a layer. On the right each cell is a layer at one step. Crosses mark NaN.
# Step 0 is before training.
#
# ## What it shows, and why
#
# The signal δ of a layer follows from the signal of the layer above. The gradient of a kernel
# follows from δ and from the layer's input:
#
# $$\delta^{l} = \varphi'(z^{l}) \odot W^{l+1\top} \delta^{l+1}, \qquad
# \frac{\partial L}{\partial W^{l}} = \delta^{l} a^{l-1\top}, \qquad
# |\delta^{l}| \approx \sqrt{\chi}\, |\delta^{l+1}|, \quad
# \chi = \sigma_w^2\, \mathbb{E}[\varphi'(z)^2].$$
#
# The ReLU network has σ_w² = 64 · 0.5² = 16, and its slope is 1 in half of the units. So δ grows by
# a factor of √χ = √8 = 2.83 per layer on the way down, and a grows by the same factor per layer on
# the way up. In the first layer, nine such factors are in δ; in the tenth layer, they are in a. The
# two slopes cancel, so no layer stands out: what is wrong is the *level* of all gradients. Tanh
# keeps a below 1. There only δ grows, and the kernel gradients show it.
#
# As long as the biases of a ReLU network are 0, the layers agree exactly. Multiplying any one
# kernel by c multiplies the logit f by c, so
#
# $$\left\langle W^{l}, \frac{\partial L}{\partial W^{l}} \right\rangle
# = \left\langle f, \frac{\partial L}{\partial f} \right\rangle \quad \text{for every layer } l.$$
#
# Now the training steps. The first step makes the second kernel 24 times as long, and the other
# kernels grow as well. The next loss contains the product of eleven such kernels and is about 10²⁵.
# The second step produces weights of about 10²¹. Their product exceeds 3.4·10³⁸, the largest number
# in float32. The result is infinity, and infinity minus infinity is NaN. The tanh network stays
# finite, but it does not learn: one step moves the first layer by twice its own length.

# %% [markdown]
# ## What must hold
#
# In the tanh network, the kernel gradients grow towards the input; in the ReLU network they do not.
# In both networks δ grows as theory predicts. ReLU overflows within eight steps, and tanh does not.
# The products in the last formula are the same in all layers.

# %% tags=["checks"] jupyter={"source_hidden": true}
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
# pass? Compute the depth. Then check it: multiply random matrices until the result overflows.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# log(3.4·10³⁸) / log(2.83) = 85 layers. A single random draw can differ by a few layers.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
signal, depth, random = data.X, 0, np.random.default_rng(0)
with np.errstate(over="ignore", invalid="ignore"):
    while np.isfinite(signal).all():
        weights = random.normal(0, 0.5, (signal.shape[1], 64)).astype("float32")
        signal, depth = np.maximum(signal @ weights, 0), depth + 1
print(f"computed: {np.log(3.4e38) / np.log(np.sqrt(8)):.0f} layers; measured: {depth}")
assert 75 < depth < 125

# %% [markdown]
# **2.** What share of the tanh units is saturated? A saturated unit passes hardly any gradient
# (lesson 1). Why does the gradient grow nevertheless?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# About two thirds are saturated. The others pass nearly the whole gradient, and the weights, which
# are eight times as large as they should be, make it grow. The factor χ is 64 times the mean
# squared slope, and 64 times 0.07 is more than 1.
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

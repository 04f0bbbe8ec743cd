# %% [markdown]
# # 9. Normalization: effects of batch and layer normalization on gradients
#
# **Part:** What helps · **Level:** intermediate · **After:** lesson 7
#
# **The idea.** A photo app with automatic brightness and contrast turns a dim room and a bright
# beach into pictures of the same brightness and contrast. Normalization does this to the numbers
# inside a network: wherever they lie and however far they spread, it shifts and scales them to the
# same center and the same width. So on the way forward, their size can neither fade nor explode.
# But what does this do to the gradient on the way back?
#
# ![Two heaps of numbers before and after normalization. The first one is narrow and lies left of 0;
# it is shifted and stretched. The second one is wide and lies right of 0; it is shifted and shrunk.
# After that, both have the same center, 0, and the same
# width.](../docs/lessons/figures/09_idea.svg)
#
# **Question.** Batch normalization is known as a remedy for vanishing gradients. What does it do to
# a gradient that did not vanish in the first place?
#
# **Predict first.** A network has twenty ReLU layers with He initialization, so its gradient is
# about the same in all layers. Put batch normalization before each activation. Divide the gradient
# of the first layer by that of the last: is it a tenth, one, ten, or more? Write down your guess.

# %%
import functools
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad
from kgrad import theory
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fewer networks, same claims
data = kgrad.make_dataset("classification", seed=0)
X, y = data.X[:32], data.y[:32]  # one batch
KINDS = {"none": None, "batch": "batch", "layer": "layer"}


def network(depth, activation, normalization, seed=0, initializer=None):
    start = initializer or ("he" if activation == "relu" else "xavier")
    return kgrad.create_model(depth, activation, start, normalization=normalization, seed=seed)


# %% [markdown]
# ## The experiment
#
# First we look at the remedy: ten sigmoid layers, each with normalization before the activation.
# The axis is logarithmic. The points are measured in one network, and the line is the prediction
# from theory.

# %%
models = {name: network(10, "sigmoid", kind) for name, kind in KINDS.items()}
measured = {name: kgrad.measure_gradients(model, X, y) for name, model in models.items()}
predicted = {name: kgrad.predict_gradients(model, X, y) for name, model in models.items()}
kgrad.plot_prediction(
    measured, predicted, title="Ten sigmoid layers: batch normalization keeps gradients level"
)


# %%
def kernels(history):
    """Return the gradient norms of the hidden layers' kernels, without normalization layers."""
    hidden = [w.layer.startswith("hidden") and w.name == "kernel" for w in history.weights]
    return history["l2_norm"][0][hidden]


sigmoid = {name: kernels(one)[0] / kernels(one)[-1] for name, one in measured.items()}
for name, ratio in sigmoid.items():
    print(f"sigmoid, {name}: first ÷ last {ratio:.1e}")

# %% [markdown]
# Now we use ReLU with He initialization, which does not need a remedy:

# %%
depths = [5, 20] if FAST else [5, 10, 20]
seeds = range(1 if FAST else 3)


@functools.cache
def norms(depth, activation, kind, seed=0, size=32, initializer=None):
    model = network(depth, activation, kind, seed, initializer)
    return kernels(kgrad.measure_gradients(model, data.X[:size], data.y[:size]))


relu = {}
for name, kind in KINDS.items():
    drawn = [[norms(depth, "relu", kind, seed) for seed in seeds] for depth in depths]
    relu[name] = np.array([[g[0] / g[-1] for g in some] for some in drawn])

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, marker in zip(KINDS, "o^s", strict=True):
    axes.semilogy(depths, np.exp(np.log(relu[name]).mean(axis=1)), marker=marker, label=name)
growth = np.sqrt(theory.batch_norm_relu_rate(32))
axes.semilogy(depths, growth ** (np.array(depths) - 1), "k--", label=f"{growth:.3f} per layer")
axes.set(xlabel="ReLU layers", ylabel="gradient norm, first ÷ last")
axes.set(title="ReLU: with batch normalization, gradients grow", xticks=depths)
name_lines(axes)
plt.show()

# %%
for name in KINDS:
    print(f"20 ReLU layers, {name}: first ÷ last", np.round(relu[name][depths.index(20)], 2))

# %% [markdown]
# Next we fit the factor per layer over the layers 4 to 18 of 20, for two activations and both kinds
# of normalization. We compare it with the formula below. The theoretical values printed here assume
# batches of infinite size.

# %%


def factor(activation, kind, size=32):
    some = [np.log(norms(20, activation, kind, seed, size)) for seed in seeds]
    return np.exp(-np.polyfit(np.arange(3, 18), np.mean(some, axis=0)[3:18], 1)[0])


rates = {"batch": theory.batch_norm_rate, "layer": theory.layer_norm_rate}
factors = {}
for activation in ("relu", "sigmoid"):
    for kind, rate in rates.items():
        factors[activation, kind] = factor(activation, kind)
        expected = np.sqrt(rate(theory.activation(activation)))
        print(f"{activation}, {kind}: {factors[activation, kind]:.2f}, theory {expected:.2f}")

# %% [markdown]
# Does the remedy work in training? We train ten sigmoid layers for eight epochs. Guessing gives a
# loss of log 2 = 0.693.

# %%
losses = {}
for name, kind in KINDS.items():
    keras.utils.set_random_seed(0)  # for the order of the samples
    model = network(10, "sigmoid", kind)
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    fitted = model.fit(data.X, data.y, batch_size=32, epochs=4 if FAST else 8, verbose=0)
    losses[name] = fitted.history["loss"][-1]
    print(f"sigmoid, {name}: loss {losses[name]:.3f}")

# %% [markdown]
# ## What it shows, and why
#
# Let z = Wx, and let ẑ be z normalized to variance 1. If W is multiplied by a number, z and its
# standard deviation change by the same factor, so ẑ does not change: the scale of the weights
# cancels. In the forward pass, batch normalization takes the variance of z over the batch and
# subtracts the mean, so this variance is σ_w² Var[φ(ẑ)]. Layer normalization takes it over the
# units of a layer, where it is σ_w² E[φ(ẑ)²]. In the backward pass, each layer multiplies the
# squared gradient by σ_w² E[φ′²] and divides it by this variance:
#
# $$\chi_{\text{batch}} = \frac{\mathbb{E}[\varphi'(\hat z)^2]}
# {\operatorname{Var}[\varphi(\hat z)]}, \qquad
# \chi_{\text{layer}} = \frac{\mathbb{E}[\varphi'(\hat z)^2]}{\mathbb{E}[\varphi(\hat z)^2]}.$$
#
# For ReLU the numerator is ½, and E[φ²] is ½ as well, so layer normalization gives 1. The variance
# is smaller than E[φ²] by the squared mean, 1/(2π). So batch normalization gives π/(π − 1) = 1.467
# for the squared gradient and 1.211 for its norm. In batches of 32 the factor for the norm is
# 1.234. Gradients grow towards the input, whatever the weights are. For the sigmoid, E[φ²] is
# mostly the square of the mean, which is ½. Layer normalization counts this constant as signal, so
# the gradient still vanishes. Batch normalization removes it.
#
# So the remedy works, but it has a price, and the price grows with depth. Very deep networks add
# skip connections for this reason.

# %% [markdown]
# ## What must hold
#
# Batch normalization prevents vanishing in the sigmoid network, and it makes the gradients of the
# ReLU network grow at the predicted rate. Layer normalization does neither. Only batch
# normalization helps the sigmoid network to learn.

# %% tags=["checks"] jupyter={"source_hidden": true}
assert sigmoid["none"] < 1e-4 and 0.1 < sigmoid["batch"] < 10 and sigmoid["layer"] < 1e-2
assert relu["batch"][depths.index(20)].min() > 8 and relu["none"][-1].max() < 3
assert abs(factors["relu", "batch"] / growth - 1) < 0.08
assert 0.85 < factors["relu", "layer"] < 1.1
assert factors["sigmoid", "layer"] < 0.5 < 0.9 < factors["sigmoid", "batch"]
assert losses["batch"] < 0.6 < 0.68 < min(losses["none"], losses["layer"])

# %% [markdown]
# ## Exercises
#
# **1.** Multiply all weights by ten. (He's standard deviation for 64 units is √(2/64) = 0.177.)
# What changes in the ReLU network without normalization, and what changes with normalization?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Without normalization, the gradient is enormous. With it, the ratio between layers stays the same,
# because the scale of the weights cancels. If a weight is ten times larger, its gradient is ten
# times smaller.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
large = keras.initializers.RandomNormal(stddev=1.77)
for name, kind in KINDS.items():
    g = norms(20, "relu", kind, initializer=large)
    print(f"weights × 10, {name}: first layer {g[0]:.1e}, first ÷ last {g[0] / g[-1]:.2f}")
    assert (g[0] > 1e6) == (name == "none")

# %% [markdown]
# **2.** How does the growth depend on the batch size? Predict it with
# `kgrad.theory.batch_norm_relu_rate` for batches of 8 and of 256, and measure it.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# The smaller the batch, the faster the gradient grows. Each sample contributes to the mean and the
# variance of its own batch, and the fewer samples there are, the larger its contribution is. The
# function returns the rate for the squared gradient, so take the square root.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
of_size = {}
for size in (8, 256):
    of_size[size] = factor("relu", "batch", size)
    expected = np.sqrt(theory.batch_norm_relu_rate(size))
    print(f"batch of {size}: factor {of_size[size]:.2f}, theory {expected:.2f}")
    assert abs(of_size[size] / expected - 1) < 0.08
assert of_size[8] > of_size[256] + 0.05

# %% [markdown]
# ## Source
#
# S. Ioffe, C. Szegedy, *Batch Normalization*, 2015. J. Ba, J. Kiros, G. Hinton, *Layer
# Normalization*, 2016. G. Yang et al., *A Mean Field Theory of Batch Normalization*, 2019, for the
# growth. The formula for layer normalization is derived here in the same way.

# %% [markdown]
# # 10. Skip connections: a second path around every pair of layers
#
# **Part:** What helps · **Level:** intermediate · **After:** lesson 7
#
# **The idea.** In a plain network the layers are rooms in a row, and the gradient has to pass
# through the door of each. A skip connection is a corridor beside two rooms, in which nothing gets
# smaller. The corridors join, so there is a way back that leads through no room at all. However
# narrow the doors are, the gradient arrives.
#
# ![Three rooms in a row, with two layers in each, and a straight corridor beside them. The gradient
# comes from the loss, on the right. A thick arrow leads through the corridor to the first layer. In
# each room, an arrow comes in through a narrow door and becomes thin. Between the rooms there are
# openings to the corridor.](../docs/lessons/figures/10_idea.svg)
#
# **Question.** A residual network adds a second path around every pair of layers. How does this
# change the gradient and the training as the network gets deeper?
#
# **Predict first.** A network has forty sigmoid layers. Without skip connections, the gradient of
# the first layer is about 10⁻²⁵ of that of the last. Write down your guess for the same network
# with skip connections.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fewer depths, same claims
data = kgrad.make_dataset("classification", seed=0)
KINDS = {"plain": False, "residual": True}


def network(depth, activation, skip, seed=0, initializer="xavier"):
    return kgrad.create_model(depth, activation, initializer, skip_connections=skip, seed=seed)


# %% [markdown]
# ## The experiment
#
# We compare networks of twenty sigmoid layers with and without skip connections, before training.
# The vertical axis is logarithmic, and the input is on the left.

# %%
measured = {
    name: kgrad.measure_gradients(network(20, "sigmoid", skip), data.X, data.y)
    for name, skip in KINDS.items()
}

# %%
kgrad.plot_gradient_by_depth(
    measured, title="Twenty sigmoid layers: skip connections keep gradients level"
)

# %% [markdown]
# With skip connections the gradient has nearly the same size in all hidden layers. Is this true at
# every depth?

# %%
depths = [4, 40] if FAST else [4, 10, 20, 40]


def first_to_last(depth, activation, skip, **how):
    model = network(depth, activation, skip, **how)
    norms = kgrad.measure_gradients(model, data.X, data.y).by_layer("l2_norm")[0]
    return norms[0] / norms[-2]


ratios = {
    (activation, name): np.array([first_to_last(depth, activation, skip) for depth in depths])
    for activation in ("sigmoid", "tanh")
    for name, skip in KINDS.items()
}

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (activation, name), some in ratios.items():
    color = {"sigmoid": "C1", "tanh": "C0"}[activation]
    line = "-" if KINDS[name] else "--"
    axes.semilogy(depths, some, line, color=color, marker=".", label=f"{activation}, {name}")
    print(f"{activation}, {name}: first ÷ last", *(f"{value:.1e}" for value in some))
axes.set(
    xlabel="layers",
    ylabel="gradient norm, first ÷ last",
    title="With skip connections, depth hardly matters",
)
name_lines(axes)
plt.show()

# %% [markdown]
# A gradient that reaches the first layer is useful only if the network learns with it. Here we
# train tanh layers for eight epochs. Their gradient does not vanish even without skip connections.

# %%


def final_loss(depth, activation, skip, rate=0.01, initializer="xavier"):
    model = network(depth, activation, skip, initializer=initializer)
    sgd = keras.optimizers.SGD(rate)
    history = kgrad.train_and_track_gradients(model, data.X, data.y, 8, optimizer=sgd, seed=0)
    return history.logs["loss"][-1]


losses = {
    name: np.array([final_loss(depth, "tanh", skip) for depth in depths])
    for name, skip in KINDS.items()
}

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, marker in zip(KINDS, "os", strict=True):
    axes.plot(depths, losses[name], marker=marker, label=f"tanh, {name}")
    print(f"tanh, {name}: loss after 8 epochs", np.round(losses[name], 3))
axes.set(
    xlabel="layers",
    ylabel="loss after 8 epochs",
    title="More layers help the residual networks only",
    ylim=(0, None),
)
name_lines(axes)
plt.show()

# %% [markdown]
# ## What it shows, and why
#
# In a plain network, the gradient contains the product of the Jacobians F′ of all layers. A
# residual block adds its input to its output, y = x + F(x), so its Jacobian is I + F′. The product
# of these Jacobians expands into a sum over all paths through the network:
#
# $$\prod_{k=1}^{n} \left(I + F_k'\right) = I + \sum_k F_k' + \sum_{j<k} F_k' F_j' + \dots$$
#
# Every block doubles the number of paths. One of the paths, I, goes around all blocks, so the
# gradient arrives however small the F′ are. In the sigmoid network F′ is about 0.24² = 0.06, and
# the path I carries nearly all of the gradient, at any depth.
#
# The tanh networks show the other half of the story. Without skip connections their gradient does
# not vanish, and yet depth does not help: 40 layers learn hardly faster than 4. Each layer has to
# build everything that the next one needs from the beginning. With skip connections, a block has to
# learn only what to change, and deeper networks learn faster.

# %% [markdown]
# ## What must hold
#
# With skip connections, the gradient of the sigmoid network does not vanish at any depth, and a
# deeper tanh network reaches a much lower loss. Without them, it does not.

# %% tags=["checks"] jupyter={"source_hidden": true}
assert ratios["sigmoid", "plain"][-1] < 1e-20 and ratios["sigmoid", "residual"].min() > 0.01
assert min(ratios["tanh", "plain"]) > 0.1 and max(ratios["tanh", "residual"]) < 10
assert losses["plain"][-1] > 0.6 * losses["plain"][0]
assert losses["residual"][-1] < 0.5 * losses["residual"][0]

# %% [markdown]
# ## Exercises
#
# **1.** Build 40 ReLU layers with skip connections and He initialization. What is the loss before
# training? Then scale the weights in the n blocks so that all blocks together multiply the variance
# by no more than e.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Let the branch of a block be its two layers, without the skip connection. With He initialization,
# the output of a branch has the same variance as its input. The sum of the two has at least twice
# the variance, block after block, and twenty blocks multiply the variance by over a million. If
# each branch has 1/n of the variance, the total factor is (1 + 1/n)ⁿ < e. A branch has two layers,
# so each layer gets a factor of 1/√n: the scale is 2/√20 instead of He's 2.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
start = {}
for scale in (2.0, 2 / np.sqrt(20)):
    he = keras.initializers.VarianceScaling(scale)
    model = network(40, "relu", True, initializer=he)
    start[scale] = kgrad.measure_gradients(model, data.X, data.y).logs["loss"][0]
    print(f"scale {scale:.2f}: loss before training {start[scale]:.4g}")
trained = final_loss(40, "relu", True, initializer=he)
print(f"scale {scale:.2f}: loss after 8 epochs {trained:.3f}")
assert start[2.0] > 1000 * start[scale] and trained < 0.6

# %% [markdown]
# **2.** The gradient of twenty sigmoid layers no longer vanishes. Train them with skip connections
# and a learning rate of 0.01. Why is the loss higher than that of guessing (0.693), and what helps?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# The steps are too long. Sigmoids output positive numbers, so the sum over ten blocks is a large
# signal, and it makes the gradient of the last weights large. A third of the learning rate is small
# enough. If you change how gradients flow, choose the learning rate again.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
long, short = (final_loss(20, "sigmoid", True, rate=rate) for rate in (0.01, 0.003))
print(f"twenty sigmoid layers, residual: loss {long:.2f} at 0.01, {short:.2f} at 0.003")
assert short < 0.65 < long

# %% [markdown]
# ## Source
#
# K. He, X. Zhang, S. Ren, J. Sun, *Deep Residual Learning for Image Recognition*, 2015. A. Veit, M.
# Wilber, S. Belongie, *Residual Networks Behave Like Ensembles of Relatively Shallow Networks*,
# 2016, for the paths.

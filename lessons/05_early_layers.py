# %% [markdown]
# # 5. Effect on training: early layers that do not learn
#
# **Part:** What goes wrong · **Level:** basic · **After:** lesson 3
#
# **The idea.** On a long production line, only the last workers hear the customer's complaint
# clearly. To the first workers it is a whisper, so they go on almost as before. The last ones do
# what they can, but they cannot bring back what was lost at the start of the line. If gradients
# vanish, the early layers of a network are these first workers.
#
# ![A row of six layers with faces. The loss, on the right, sends back a wedge that becomes thinner
# from layer to layer. The last two layers are awake and smile. The first four layers are
# asleep.](../docs/lessons/figures/05_idea.svg)
#
# **Question.** A vanishing gradient is a very small number. What does the network lose because of
# it?
#
# **Predict first.** The task is to separate two interleaved half circles. A network with two
# sigmoid layers learns it up to a loss of 0.27. Now use six such layers and the same number of
# epochs. Write down the loss that you expect: lower because there are more layers, the same, or
# higher? (Guessing gives ln 2 = 0.693.)

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fewer epochs, same claims
EPOCHS = 45 if FAST else 60
moons = kgrad.make_dataset("moons", samples=512, seed=0)


def trained(depth, activation="sigmoid", frozen=0):
    """Return the network and its training history; the first `frozen` layers do not train."""
    initializer, rate = ("he", 0.1) if activation == "relu" else ("xavier", 0.5)
    model = kgrad.create_model(depth, activation, initializer, units=32, input_shape=(2,), seed=0)
    for layer in model.layers[1 : 1 + frozen]:
        layer.trainable = False
    sgd = keras.optimizers.SGD(rate)
    return model, kgrad.train_and_track_gradients(
        model, moons.X, moons.y, EPOCHS, optimizer=sgd, seed=0
    )


# %% [markdown]
# ## The experiment
#
# We train networks of two, four and six sigmoid layers with 32 units each, and a network of six
# ReLU layers. The task and the number of epochs are the same for all.

# %%
depths = [2, 4, 6]
models, histories = zip(*(trained(depth) for depth in depths), strict=True)
_, relu = trained(6, "relu")
losses = {f"sigmoid, {d} layers": h.logs["loss"] for d, h in zip(depths, histories, strict=True)}
losses["ReLU, 6 layers"] = relu.logs["loss"]

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, loss), style in zip(losses.items(), ["-", "--", "-.", ":"], strict=True):
    axes.plot(range(1, EPOCHS + 1), loss[1:], style, linewidth=2, label=name)
    print(f"{name:<17} loss {loss[10]:.3f} after 10 epochs, {loss[-1]:.3f} after {EPOCHS}")
axes.set(xlabel="epoch", ylabel="loss", title="Deeper networks learn later, or not at all")
name_lines(axes)
plt.show()

# %% [markdown]
# Each line is the loss of one network. How far did each layer move? To compare layers of any size,
# we divide the distance that the weights moved in one epoch by the norm of the weights, ‖ΔW‖/‖W‖:

# %%
sigmoid = histories[-1]
moved = {}
for name, history in (("sigmoid", sigmoid), ("ReLU", relu)):
    moved[name] = history["update_l2"][1, ::2] / history["weight_l2"][0, ::2]  # ::2 are kernels
    print(f"{name}: ‖ΔW‖/‖W‖ in layer 1 {moved[name][0]:.1e}, in the output {moved[name][6]:.1e}")

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, change), marker in zip(moved.items(), ("o-", "^-"), strict=True):
    axes.semilogy(range(1, 8), change, marker, label=f"{name}, 6 layers")
axes.set(xlabel="layer, input → output (7)", ylabel="relative change in epoch 1, ‖ΔW‖/‖W‖")
axes.set(title="Early sigmoid layers hardly move; ReLU layers do")
name_lines(axes)
plt.show()

# %% [markdown]
# At this rate the first sigmoid layer needs thousands of epochs to move by its own length. To prove
# that it does not learn, we freeze the first five layers, so that training cannot change them at
# all.

# %%
frozen = {name: trained(6, name, frozen=5)[1].logs["loss"] for name in ("sigmoid", "relu")}
apart = np.abs(frozen["sigmoid"] - sigmoid.logs["loss"]).max()
print(
    f"sigmoid: loss {sigmoid.logs['loss'][-1]:.4f}; five layers frozen {frozen['sigmoid'][-1]:.4f}"
)
print(f"         the two losses never differ by more than {apart:.4f}")
print(f"ReLU:    loss {relu.logs['loss'][-1]:.4f}; five layers frozen {frozen['relu'][-1]:.4f}")

# %% [markdown]
# What about the network with four layers? Its loss does not fall for more than twenty epochs, and
# then it does. Here are its gradients layer by layer, as lines (left) and as a heatmap (right):

# %%
kgrad.visualize_gradients(histories[1], "Four sigmoid layers: a plateau, then learning")

# %%
first = histories[1].by_layer("mean_abs")[:, 0]
print(
    f"four layers, layer 1: mean |gradient| {first[0]:.1e} at the start, {first.max():.1e} at most"
)
outputs = keras.Model(models[-1].input, [layer.output for layer in models[-1].layers[1:-1]])
spread = [np.std(a, axis=0).mean() for a in outputs(moons.X)]
print("six layers: standard deviation of a unit's output over the samples:")
print(f"            layer 1 {spread[0]:.3f}, layer 6 {spread[5]:.5f}")

# %% [markdown]
# ## What it shows, and why
#
# Each training step moves a weight by the learning rate η times its gradient. If ΔW is the change
# in one epoch, then a weight needs about n epochs to move by its own length:
#
# $$\Delta W^{l} = -\eta\, \frac{\partial L}{\partial W^{l}}, \qquad
# n \approx \frac{\lVert W^{l} \rVert}{\lVert \Delta W^{l} \rVert}.$$
#
# All layers share the same η. If the gradients of two layers differ by a factor of hundreds, so do
# their steps. An η that suits the last layer leaves the first layer almost at its initial values.
# An η that suits the first layer makes the steps of the last layer far too large (exercise 1). In
# effect, the six-layer network trains only its last two layers: freezing the others changes
# nothing. In the ReLU network, freezing them costs a lot.
#
# Why are the last layers alone not enough? Because the forward signal vanishes just as the gradient
# does. Each sigmoid layer reduces the differences between samples, and the output of the sixth
# layer is almost the same for all of them. The last layers have no information to work with, and
# the first layers do not learn to provide it.
#
# The four-layer network shows a way out. A little gradient reaches the first layers, so they change
# a little. Then more information about the input reaches the last layers, and the gradient grows.
# Within a few epochs all layers learn. This plateau is what vanishing gradients look like in a loss
# curve, if we wait long enough.

# %% [markdown]
# ## What must hold
#
# Two sigmoid layers learn the task, four learn it late, and six do not learn it. Six ReLU layers
# do. Freezing five layers matters only in the ReLU network.

# %% tags=["checks"] jupyter={"source_hidden": true}
final = {name: loss[-1] for name, loss in losses.items()}
assert final["sigmoid, 2 layers"] < 0.35 and final["sigmoid, 6 layers"] > 0.65
assert losses["sigmoid, 4 layers"][10] > 0.65 and final["sigmoid, 4 layers"] < 0.45
assert final["ReLU, 6 layers"] < 0.05
assert moved["sigmoid"][0] < moved["sigmoid"][6] / 50
assert moved["ReLU"][0] > moved["ReLU"][6] / 50
assert apart < 0.005 and frozen["relu"][-1] > final["ReLU, 6 layers"] + 0.05
assert first.max() > 10 * first[0] and spread[5] < spread[0] / 300

# %% [markdown]
# ## Exercises
#
# **1.** The gradient of the first layer is too small, so multiply the learning rate by 100. What
# happens?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The steps of the output layer had the right size before. Now they are far too large, and the loss
# is far higher than that of guessing.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
model = kgrad.create_model(6, "sigmoid", "xavier", units=32, input_shape=(2,), seed=0)
sgd = keras.optimizers.SGD(50.0)
hasty = kgrad.train_and_track_gradients(model, moons.X, moons.y, 10, optimizer=sgd, seed=0)
print(f"learning rate 50: loss after 10 epochs {hasty.logs['loss'][-1]:.2f}")
assert hasty.logs["loss"][-1] > 2

# %% [markdown]
# **2.** A float32 number has about seven significant digits. Take ten sigmoid layers with weights
# from N(0, 0.05²) (`"normal"`). How many epochs does it take until the first kernel has changed at
# all?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# It never changes, not even by a single bit. Each step is more than seven digits smaller than the
# weight that it is added to, so rounding removes it. More epochs do not help.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
model = kgrad.create_model(10, "sigmoid", "normal", units=32, input_shape=(2,), seed=0)
before = model.get_layer("hidden_1").kernel.numpy()
stuck = kgrad.train_and_track_gradients(model, moons.X, moons.y, 10, optimizer="sgd", seed=0)
changed = np.sum(before != model.get_layer("hidden_1").kernel.numpy())
print(f"gradient norm {stuck['l2_norm'][1, 0]:.0e}; entries changed in 160 steps: {changed} of 64")
assert changed == 0

# %% [markdown]
# ## Source
#
# Y. Bengio, P. Simard, P. Frasconi, *Learning long-term dependencies with gradient descent is
# difficult*, 1994. X. Glorot, Y. Bengio, *Understanding the difficulty of training deep feedforward
# neural networks*, 2010, on plateaus of deep sigmoid networks.

# %% [markdown]
# # 5. What it does to training: early layers that do not learn
#
# **Question.** A gradient that vanishes is a small number. What does the network lose by it?
#
# **Predict first.** Two interleaved half circles, which two sigmoid layers learn to tell apart up
# to a loss of 0.27. Write down the loss that you expect of six such layers after as many epochs:
# less, because there are more of them? the same? more? (Guessing gives ln 2 = 0.693.)

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

FAST = "KGRAD_FAST" in os.environ  # fewer epochs, the same claims
EPOCHS = 45 if FAST else 60
moons = kgrad.make_dataset("moons", samples=512, seed=0)


def trained(depth, activation="sigmoid", frozen=0):
    """The network, and the history of its training with the first layers frozen or none."""
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
# The same task and the same number of epochs for two, four and six sigmoid layers of 32 units, and
# for six ReLU layers.

# %%
depths = [2, 4, 6]
models, histories = zip(*(trained(depth) for depth in depths), strict=True)
_, relu = trained(6, "relu")
losses = {f"sigmoid, {d} layers": h.logs["loss"] for d, h in zip(depths, histories, strict=True)}
losses["ReLU, 6 layers"] = relu.logs["loss"]

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, loss), style in zip(losses.items(), ["-", "--", "-.", ":"], strict=True):
    axes.plot(range(1, EPOCHS + 1), loss[1:], style, linewidth=2, label=name)
    print(f"{name:<17} loss after 10 epochs {loss[10]:.3f}, after {EPOCHS} {loss[-1]:.3f}")
axes.set(xlabel="epoch", ylabel="loss", title="The deeper, the later; then not at all")
axes.legend(loc="center right", bbox_to_anchor=(1, 0.72))
plt.show()

# %% [markdown]
# Each line is a loss. How far did each layer move? A number that compares layers of any size is the
# way that a weight went in an epoch over its own length, ‖ΔW‖/‖W‖:

# %%
sigmoid = histories[-1]
moved = {}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, history, marker in (("sigmoid", sigmoid, "o-"), ("ReLU", relu, "^-")):
    moved[name] = history["update_l2"][1, ::2] / history["weight_l2"][0, ::2]  # of the kernels
    axes.semilogy(range(1, 8), moved[name], marker, label=f"{name}, 6 layers")
    print(f"{name}: ‖ΔW‖/‖W‖ of layer 1 {moved[name][0]:.1e}, of the output {moved[name][6]:.1e}")
axes.set(xlabel="layer, input → output (7)", ylabel="‖ΔW‖/‖W‖ in the first epoch")
axes.set(title="How far the layers move")
axes.legend()
plt.show()

# %% [markdown]
# At that pace the first sigmoid layer needs thousands of epochs to move by its own length. The
# proof that it does not learn: hold the first five layers fixed altogether.

# %%
frozen = {name: trained(6, name, frozen=5)[1].logs["loss"] for name in ("sigmoid", "relu")}
apart = np.abs(frozen["sigmoid"] - sigmoid.logs["loss"]).max()
print(
    f"sigmoid: loss {sigmoid.logs['loss'][-1]:.4f}; five layers frozen {frozen['sigmoid'][-1]:.4f}"
)
print(f"         the two losses are never more than {apart:.4f} apart")
print(f"ReLU:    loss {relu.logs['loss'][-1]:.4f}; five layers frozen {frozen['relu'][-1]:.4f}")

# %% [markdown]
# And the network of four layers, whose loss stands still for more than twenty epochs and then
# falls? Its gradients, layer by layer (left as lines, right as a heatmap):

# %%
kgrad.visualize_gradients(histories[1], "Four sigmoid layers: asleep, then awake")
plt.show()

# %%
first = histories[1].by_layer("mean_abs")[:, 0]
print(
    f"first of four layers: mean |gradient| {first[0]:.1e} at the start, {first.max():.1e} at most"
)
outputs = keras.Model(models[-1].input, [layer.output for layer in models[-1].layers[1:-1]])
spread = [np.std(a, axis=0).mean() for a in outputs(moons.X)]
print(f"six layers: how much a unit varies from sample to sample, layer 1 {spread[0]:.3f},")
print(f"            layer 6 {spread[5]:.5f}")

# %% [markdown]
# ## What it shows, and why
#
# Training moves a weight by the learning rate η times its gradient. If ΔW is what an epoch does,
# n epochs move it by its own length:
#
# $$\Delta W^{l} = -\eta\, \frac{\partial L}{\partial W^{l}}, \qquad
# n \approx \frac{\lVert W^{l} \rVert}{\lVert \Delta W^{l} \rVert}.$$
#
# All layers share η. Where gradients differ by a factor of hundreds, so do the steps: any η that
# suits the last layer leaves the first where it was drawn, and any that suits the first throws the
# last away (exercise 1). The six-layer network trains its last two layers, and behaves as if the
# others were not there to be trained: freezing them changes nothing. In the ReLU network freezing
# them costs a lot.
#
# Why are the last layers alone no help? Because the way up vanishes as the way down does. Each
# sigmoid layer squeezes what distinguishes one sample from another, and the sixth layer puts out
# almost the same for all. The last layers have nothing to work with, and the first do not learn to
# give it to them.
#
# Four layers show the way out of it. A little gradient comes through; the first layers move a
# little; more of the input comes through; the gradient grows, and within a few epochs everything
# wakes up. That plateau is what vanishing gradients look like in a loss curve, if one waits long
# enough.

# %% [markdown]
# ## What must hold

# %%
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
# **1.** The first layer's gradient is too small: multiply the learning rate by 100. What happens?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The output layer, whose steps were right, now overshoots, and the loss is far above that of
# guessing.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
model = kgrad.create_model(6, "sigmoid", "xavier", units=32, input_shape=(2,), seed=0)
sgd = keras.optimizers.SGD(50.0)
hasty = kgrad.train_and_track_gradients(model, moons.X, moons.y, 10, optimizer=sgd, seed=0)
print(f"learning rate 50: loss after 10 epochs {hasty.logs['loss'][-1]:.2f}")
assert hasty.logs["loss"][-1] > 2

# %% [markdown]
# **2.** float32 keeps about seven digits. Ten sigmoid layers, weights from N(0, 0.05²)
# (`"normal"`): how many epochs until the first kernel has changed at all?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# It does not change in a single bit. Each step is more than seven digits smaller than the weight
# that it is added to, and is lost in rounding. Patience does not help.
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
# neural networks*, 2010, for plateaus of deep sigmoid networks.

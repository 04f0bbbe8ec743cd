# %% [markdown]
# # 1. Activation functions: where they are flat
#
# **Question.** On its way back a gradient is multiplied by the slope of every activation function
# that it passes. How large is that slope, and where is there hardly any?
#
# **Predict first.** A unit's input is z = 5, which is nothing unusual. How much of the gradient
# that reaches the unit gets through to z: all, a tenth, a hundredth, less? Write down a number for
# sigmoid, one for tanh and one for ReLU.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad

NAMES = ["sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu"]


def value_and_slope(name, z):
    """φ(z) and φ′(z), as a backward pass sees them."""
    z = tf.constant(z, "float32")
    with tf.GradientTape() as tape:
        tape.watch(z)
        a = keras.activations.get(name)(z)
    return a.numpy(), tape.gradient(a, z).numpy()


# %% [markdown]
# ## The experiment
#
# Eight functions that Keras has, each with its derivative. A unit is called *saturated* where the
# slope is less than a hundredth of the function's largest one, from there on outwards: there the
# panels are grey. Look at the blue lines: how high, how wide, and on which side they are 0.

# %%
z = np.linspace(-10, 10, 2001)
curves = {name: value_and_slope(name, z) for name in NAMES}
ends = {}  # between these two the function is not saturated
for name, (_, slope) in curves.items():
    ends[name] = z[np.abs(slope) >= 0.01 * np.abs(slope).max()][[0, -1]]

# %%
figure, panels = plt.subplots(4, 2, figsize=(6, 8), sharex=True, sharey=True, layout="constrained")
for (name, (a, slope)), axes in zip(curves.items(), panels.flat, strict=True):
    axes.plot(z, a, color="0.45", linestyle="--", label="φ(z)")
    axes.plot(z, slope, color="tab:blue", linewidth=2, label="slope φ′(z)")
    axes.axvspan(-10, ends[name][0], color="0.88")
    axes.axvspan(ends[name][1], 10, color="0.88")
    axes.set(title=name, xlim=(-10, 10), ylim=(-1.9, 2.5))
panels[0, 0].legend(loc="lower right")
figure.supxlabel("input z of the unit")
plt.show()

# %%
print("           slope at z =                largest   not saturated")
print("                -5       0       5       slope     from     to")
for name, (_, slope) in curves.items():
    numbers = [*slope[np.searchsorted(z, [-5, 0, 5])], slope.max()]
    text = "".join(f"{one:9.4f}" for one in numbers)
    print(f"{name:<10}{text}    {ends[name][0]:+5.1f}  {ends[name][1]:+5.1f}")
print("(10 is where the axis ends.)")

# %% [markdown]
# Units do not all get the same z. In a wide layer z is spread like a normal distribution, and how
# widely depends on the weights. So let z be drawn from N(0, σ²), and ask what share of a signal's
# length comes through: the root mean square of the slope.

# %%
scales = np.geomspace(0.1, 30, 12)
SHOWN = {"sigmoid": "o", "tanh": "s", "gelu": "D", "relu": "^"}
draws = np.random.default_rng(0).standard_normal(100_000)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
passed = {}
for name, marker in SHOWN.items():
    slopes = [value_and_slope(name, scale * draws)[1] for scale in scales]
    passed[name] = np.sqrt(np.mean(np.square(slopes), axis=1))
    phi = kgrad.theory.activation(name)
    expected = [kgrad.theory.squared_slope(phi, scale**2) ** 0.5 for scale in scales]
    (line,) = axes.loglog(scales, expected)
    axes.loglog(scales, passed[name], marker, color=line.get_color(), label=name)
axes.set(xlabel="spread σ of the inputs z", ylabel="share of the signal passed")
axes.set(title="Points: measured. Lines: by integration")
axes.legend(loc="lower left")
plt.show()
for name, shares in passed.items():
    print(f"{name:<10} passes {shares[0]:.3f} at σ = 0.1 and {shares[-1]:.3f} at σ = 30")

# %% [markdown]
# ## What it shows, and why
#
# Let δ be the gradient of the loss by a unit's input z, and a = φ(z) its output. Then
#
# $$\delta = \frac{\partial L}{\partial z} = \varphi'(z)\, \frac{\partial L}{\partial a}.$$
#
# The slope φ′(z) is all that stands between the two. Three kinds of functions:
#
# - **Flat on both sides.** Sigmoid, σ′ = σ(1 − σ), passes 0.0066 at z = 5, and tanh 0.0002: tanh is
#   saturated beyond ±3.0, sigmoid only beyond ±6.0. But at 0 tanh passes everything, and sigmoid
#   never more than a quarter. With widely spread inputs most units are saturated, and what both
#   functions pass falls towards zero.
# - **Flat on one side.** ReLU passes all or nothing, whatever the scale: half of the units pass, so
#   that the share is √½ = 0.707 for every σ. The others in the lower half of the figure do nearly
#   the same with a softer left side. SELU (1.74), GELU (1.13) and SiLU (1.10) pass more than came.
# - **Flat nowhere.** Leaky ReLU passes a fifth where ReLU passes nothing (Keras's slope; other
#   libraries take 0.01).
#
# The larger z is, the more it matters which kind one has. The scale of z is the business of the
# weights: lesson 7.

# %% [markdown]
# ## What must hold
#
# Sigmoid never passes more than a quarter; tanh does, and saturates at half the distance. What both
# pass falls with the spread of z; what ReLU passes does not. Leaky ReLU is flat nowhere.

# %%
slope_at_5 = {name: curves[name][1][np.searchsorted(z, 5)] for name in NAMES}
assert slope_at_5["tanh"] < 0.001 < slope_at_5["sigmoid"] < 0.01 and slope_at_5["relu"] == 1
assert np.allclose([curves["sigmoid"][1].max(), curves["tanh"][1].max()], [0.25, 1])
assert abs(ends["sigmoid"][1] - 2 * ends["tanh"][1]) < 0.05
for name in ("sigmoid", "tanh"):
    assert passed[name][-1] < passed[name][0] / 3
assert abs(passed["relu"][-1] / passed["relu"][0] - 1) < 0.01
assert curves["leaky_relu"][1].min() > 0.1

# %% [markdown]
# ## Exercises
#
# **1.** Sigmoid and tanh are the same curve, stretched and shifted: tanh(z) = 2σ(2z) − 1. Derive
# the largest slope of tanh from that of sigmoid, and explain why tanh saturates at half the
# distance.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# By the chain rule tanh′(z) = 2 · 2 · σ′(2z) = 4 σ′(2z). At 0 that is 4 · ¼ = 1. And what happens
# to sigmoid at 2z happens to tanh at z: ±6.0 becomes ±3.0.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
difference = np.abs(curves["tanh"][1] - 4 * value_and_slope("sigmoid", 2 * z)[1]).max()
print(f"largest difference between tanh′(z) and 4σ′(2z): {difference:.1e}")
assert difference < 1e-5

# %% [markdown]
# **2.** A *dead* unit gives 0 for every sample. Give all units of a ReLU layer the bias −5, and
# measure which share of the gradient's entries is exactly 0. What changes with leaky ReLU?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# Most units are on the flat side for every sample, and 0.83 of the entries are exactly 0: no step
# of training moves these units, and none can ever bring them back. With leaky ReLU no entry is 0: a
# fifth of the gradient is left to move the bias.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
data = kgrad.make_dataset("classification", samples=256, features=20, seed=0)
zeros = {}
for name in ("relu", "leaky_relu"):
    model = kgrad.create_model(1, name, "he", input_shape=(20,), seed=0)
    model.get_layer("hidden_1").bias.assign(np.full(64, -5.0))
    history = kgrad.measure_gradients(model, data.X, data.y, statistics=["zero_fraction"])
    zeros[name] = history.by_layer("zero_fraction")[0, 0]
    print(f"{name:<10} share of zeros in the hidden layer's gradient: {zeros[name]:.2f}")
assert zeros["relu"] > 0.3 and zeros["leaky_relu"] == 0

# %% [markdown]
# ## Source
#
# X. Glorot, Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*,
# 2010, on saturation. V. Nair, G. Hinton, *Rectified linear units improve restricted Boltzmann
# machines*, 2010. D. Hendrycks, K. Gimpel, *Gaussian error linear units*, 2016, for GELU and SiLU.

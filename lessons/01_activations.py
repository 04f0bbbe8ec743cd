# %% [markdown]
# # 1. Activation functions: slope and saturation
#
# **Part:** Start here · **Level:** basic
#
# **The idea.** Walk along the curve of an activation function as along a hillside. On a slope, a
# small step changes your height; on flat ground it does not. A gradient asks just this of every
# unit: how much does your output change if your input changes a little? A unit on flat ground
# answers "hardly" or "not at all", and so it passes hardly any of the gradient, or nothing, on to
# the layers below.
#
# ![Two curves drawn as hillsides. The sigmoid is flat on the left and on the right, with a slope in
# between; a person stands on its flat left end. ReLU is flat on the left and a straight slope on
# the right, where another person stands.](../docs/lessons/figures/01_idea.svg)
#
# **Question.** In the backward pass, the gradient is multiplied by the slope of every activation
# function that it passes through. How large are these slopes, and for which inputs are they close
# to zero?
#
# **Predict first.** A unit has the input z = 5, which is not unusual. How much of the gradient that
# reaches the unit's output is passed on to z: all of it, a tenth, a hundredth, or less? Write down
# one number for sigmoid, one for tanh, and one for ReLU.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)

NAMES = ["sigmoid", "tanh", "relu", "leaky_relu", "elu", "selu", "gelu", "silu"]


def value_and_slope(name, z):
    """Return φ(z) and the slope φ′(z) that the backward pass uses."""
    z = tf.constant(z, "float32")
    with tf.GradientTape() as tape:
        tape.watch(z)
        a = keras.activations.get(name)(z)
    return a.numpy(), tape.gradient(a, z).numpy()


# %% [markdown]
# ## The experiment
#
# The figure shows eight activation functions of Keras (dashed, gray) and their slopes (solid,
# blue). A unit is called *saturated* if its input lies in one of the outer regions where the slope
# is less than a hundredth of the function's largest slope. These regions have a gray background.
# Look at each blue line: how high is it, how wide is it, and on which side does it drop to 0?

# %%
z = np.linspace(-10, 10, 2001)
curves = {name: value_and_slope(name, z) for name in NAMES}
ends = {}  # first and last z at which the function is not saturated
for name, (_, slope) in curves.items():
    ends[name] = z[np.abs(slope) >= 0.01 * np.abs(slope).max()][[0, -1]]

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, panels = plt.subplots(4, 2, figsize=(6, 8), sharex=True, sharey=True, layout="constrained")
for (name, (a, slope)), axes in zip(curves.items(), panels.flat, strict=True):
    axes.plot(z, a, color="0.45", linestyle="--", label="φ(z)")
    axes.plot(z, slope, color="C0", linewidth=2, label="slope φ′(z)")
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
print("(-10 and +10 are the ends of the axis.)")

# %% [markdown]
# The inputs z differ from unit to unit. In a wide layer they follow approximately a normal
# distribution, and the weights determine its width. So we draw z from N(0, σ²) and ask what share
# of a signal passes through the layer. This share is the root mean square (RMS) of the slope.

# %%
scales = np.geomspace(0.1, 30, 12)
SHOWN = {"sigmoid": "o", "tanh": "s", "gelu": "D", "relu": "^"}
draws = np.random.default_rng(0).standard_normal(100_000)

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
passed = {}
for name, marker in SHOWN.items():
    slopes = [value_and_slope(name, scale * draws)[1] for scale in scales]
    passed[name] = np.sqrt(np.mean(np.square(slopes), axis=1))
    phi = kgrad.theory.activation(name)
    expected = [kgrad.theory.squared_slope(phi, scale**2) ** 0.5 for scale in scales]
    (line,) = axes.loglog(scales, expected)
    (points,) = axes.loglog(scales, passed[name], marker, color=line.get_color(), label=name)
axes.set(xlabel="standard deviation σ of the inputs z", ylabel="share of the signal passed")
axes.set(title="Sigmoid and tanh pass less of wide inputs, ReLU does not")
axes.legend([points, line], ["measured", "computed by integration"], loc="lower left")
name_lines(axes)
plt.show()

# %%
for name, shares in passed.items():
    print(f"{name:<10} passes {shares[0]:.3f} at σ = 0.1 and {shares[-1]:.3f} at σ = 30")

# %% [markdown]
# ## What it shows, and why
#
# Let z be the input of a unit and a = φ(z) its output. Let δ be the gradient of the loss with
# respect to z. Then
#
# $$\delta = \frac{\partial L}{\partial z} = \varphi'(z)\, \frac{\partial L}{\partial a}.$$
#
# So the slope φ′(z) alone decides how much of the gradient the unit passes on. There are three
# groups of functions:
#
# - **Flat on both sides: sigmoid and tanh.** At z = 5 the sigmoid, with σ′ = σ(1 − σ), passes only
#   0.0066 of the gradient, and tanh only 0.0002. Tanh is saturated beyond ±3.0, the sigmoid only
#   beyond ±6.0. But at z = 0 tanh passes the whole gradient, while the sigmoid never passes more
#   than a quarter. If the inputs are widely spread, most units are saturated, and the share that
#   both functions pass falls towards zero.
# - **Flat on one side: ReLU and its smooth relatives.** ReLU passes either the whole gradient or
#   nothing. At every scale half of the inputs are positive, so the RMS of the slope is √½ = 0.707
#   for every σ. The four functions in the lower half of the figure behave similarly, but their left
#   side is softer. The slopes of SELU (up to 1.74), GELU (up to 1.13) and SiLU (up to 1.10) can be
#   larger than 1, so these functions can even amplify the gradient.
# - **Flat nowhere: leaky ReLU.** For negative inputs, where ReLU passes nothing, leaky ReLU passes
#   a fifth. (This is the default in Keras; other libraries use 0.01.)
#
# The larger the inputs z are, the more the choice of the function matters. The weights determine
# how large z is; that is the topic of lesson 7.

# %% [markdown]
# ## What must hold
#
# The sigmoid never passes more than a quarter of the gradient. Tanh can pass all of it, but it
# saturates at half the distance from 0. For wider inputs both pass less, while ReLU always passes
# the same share. Leaky ReLU is flat nowhere.

# %% tags=["checks"] jupyter={"source_hidden": true}
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
# the largest slope of tanh from the largest slope of the sigmoid. Then explain why tanh saturates
# at half the distance from 0.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# By the chain rule, tanh′(z) = 2 · 2 · σ′(2z) = 4 σ′(2z). At z = 0 this is 4 · ¼ = 1. Tanh behaves
# at z as the sigmoid behaves at 2z, so the sigmoid's limits of ±6.0 become ±3.0 for tanh.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
difference = np.abs(curves["tanh"][1] - 4 * value_and_slope("sigmoid", 2 * z)[1]).max()
print(f"largest difference between tanh′(z) and 4σ′(2z): {difference:.1e}")
assert difference < 1e-5

# %% [markdown]
# **2.** A *dead* unit outputs 0 for every sample. Set the biases of all units in a ReLU layer to
# −5, and measure which share of the gradient's entries is exactly 0. What changes with leaky ReLU?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# Most units are on the flat side for every sample, so 0.83 of the entries are exactly 0. Training
# steps do not change the weights of these units, so the units can never recover. With leaky ReLU no
# entry is 0: a fifth of the gradient remains, and it can move the biases back.
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
# machines*, 2010, for ReLU. D. Hendrycks, K. Gimpel, *Gaussian error linear units*, 2016, for GELU
# and SiLU.

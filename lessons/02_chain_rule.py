# %% [markdown]
# # 2. The chain rule: every number of a two-unit network
#
# **Question.** What does a backward pass compute? Can one do it by hand, as TensorFlow does?
#
# **Predict first.** A hidden sigmoid and an output sigmoid: two units, each with a weight and a
# bias, both weights of about the same size. Write down which weight gets the larger gradient, and
# by what factor.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad

x, target = 1.5, 1.0
start = {"w1": 0.8, "b1": -0.2, "w2": -1.2, "b2": 0.5}


def sigma(z):
    return 1 / (1 + np.exp(-z))


# %% [markdown]
# ## The experiment
#
# By hand first. Forward, each number is made from the one before it, x → z₁ → a₁ → z₂ → a₂ → L.
# Backward, each is made from the one behind it, times one local slope. A weight's gradient is read
# off on the way: that of its unit's z, times the number that came in through the weight.


# %%
def by_hand(w1, b1, w2, b2):
    """Every number of the network, forward and backward."""
    z1 = w1 * x + b1
    a1 = sigma(z1)
    z2 = w2 * a1 + b2
    a2 = sigma(z2)
    L = (a2 - target) ** 2

    d_a2 = 2 * (a2 - target)  #     the slope of the square
    d_z2 = d_a2 * a2 * (1 - a2)  #  the slope of the sigmoid, σ′ = σ(1 − σ)
    d_a1 = d_z2 * w2  #             through the weight
    d_z1 = d_a1 * a1 * (1 - a1)  #  the sigmoid again
    weights = {"w1": d_z1 * x, "b1": d_z1, "w2": d_z2 * a1, "b2": d_z2}
    return {"z₁": (z1, d_z1), "a₁": (a1, d_a1), "z₂": (z2, d_z2), "a₂": (a2, d_a2)}, L, weights


# %%
nodes, L, gradient = by_hand(**start)
for name, (value, slope) in nodes.items():
    print(f"{name} = {value:8.5f}     ∂L/∂{name} = {slope:8.5f}")
for name, slope in gradient.items():
    print(f"{name} = {start[name]:8.5f}     ∂L/∂{name} = {slope:8.5f}")

# %%
(a1, _), (a2, _) = nodes["a₁"], nodes["a₂"]
local = ["w₁", f"σ′ = {a1 * (1 - a1):.3f}", f"w₂ = {start['w2']}", f"σ′ = {a2 * (1 - a2):.3f}"]
local.append(f"2(a₂−y)\n= {nodes['a₂'][1]:.3f}")

figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for i, (name, pair) in enumerate({"x": (x, None), **nodes, "L": (L, 1.0)}.items()):
    axes.text(i, 0, name, fontsize=17, ha="center", va="center")
    axes.text(i, 0.45, f"{pair[0]:.3f}", fontsize=12, ha="center", color="tab:blue")
    if pair[1] is not None:
        axes.text(i, -0.6, f"{pair[1]:.3f}", fontsize=12, ha="center", color="tab:red")
for i, factor in enumerate(local):
    axes.annotate("", (i + 0.75, 0), (i + 0.25, 0), arrowprops={"arrowstyle": "->"})
    if i:
        red = {"arrowstyle": "->", "color": "tab:red"}
        axes.annotate("", (i + 0.2, -0.8), (i + 0.8, -0.8), arrowprops=red)
        axes.text(i + 0.5, -1.0, f"× {factor}", fontsize=10, ha="center", va="top", color="tab:red")
axes.text(-0.3, 0.85, "forward: the values", color="tab:blue", fontsize=12)
axes.text(-0.3, -1.6, "backward: ∂L by each of them", color="tab:red", fontsize=12)
axes.set(xlim=(-0.4, 5.4), ylim=(-1.75, 1.1))
axes.set_axis_off()
plt.show()

# %% [markdown]
# Blue is read from left to right, red from right to left: each red number is the one on its right
# times what stands under the arrow. The same network in Keras, measured by TensorFlow and by kgrad:

# %%
X, y = np.array([[x]]), np.array([[target]])
model = kgrad.create_model(1, "sigmoid", "xavier", units=1, input_shape=(1,))
for variable, value in zip(model.trainable_variables, start.values(), strict=True):
    variable.assign(np.full(variable.shape, value))
with tf.GradientTape() as tape:
    loss = keras.ops.mean((model(X) - y) ** 2)
tensorflow = [slope.numpy().item() for slope in tape.gradient(loss, model.trainable_variables)]
measured = kgrad.measure_gradients(model, X, y, "mean_squared_error")["mean_abs"][0]

print("        by hand    TensorFlow       |kgrad|")
for i, (name, slope) in enumerate(gradient.items()):
    print(f"{name}  {slope:10.7f}    {tensorflow[i]:10.7f}    {measured[i]:10.7f}")
print(f"the gradient of w2 is {abs(gradient['w2'] / gradient['w1']):.2f} times that of w1")

# %% [markdown]
# What does such a number mean? Move w₁ a little and look at the loss: the gradient is the slope.


# %%
def loss_at(name, value):
    return by_hand(**start | {name: value})[1]


path = np.linspace(-4, 6, 101)
losses = [loss_at("w1", w) for w in path]
near = start["w1"] + np.array([-2.5, 2.5])

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(path, losses, color="tab:blue", label="loss, w₁ varied")
axes.plot(near, L + gradient["w1"] * (near - start["w1"]), "k--", label="slope by the chain rule")
axes.set(xlabel="w₁", ylabel="loss L", title="The gradient is a slope")
axes.legend()
plt.show()

h = 1e-4
nudged = {k: (loss_at(k, v + h) - loss_at(k, v - h)) / (2 * h) for k, v in start.items()}
print("by nudging:", ", ".join(f"{name} {slope:.7f}" for name, slope in nudged.items()))

# %% [markdown]
# ## What it shows, and why
#
# The loss depends on w₁ only through z₁, on z₁ only through a₁, and so on. The chain rule
# multiplies the slopes along the way:
#
# $$\frac{\partial L}{\partial w_1} = \underbrace{2(a_2 - y)}_{\text{loss}} \cdot
# \underbrace{\sigma'(z_2)}_{\text{unit 2}} \cdot \underbrace{w_2}_{\text{weight}} \cdot
# \underbrace{\sigma'(z_1)}_{\text{unit 1}} \cdot \underbrace{x}_{\text{input}}$$
#
# A backward pass is this product, begun at the loss, with every partial product kept: that of w₂ is
# made on the way to that of w₁. So all gradients together cost about as much as a few forward
# passes, however many weights there are.
#
# Look at the red numbers once more. From z₂ to z₁ they were multiplied by w₂ and by one σ′: from
# −0.286 to 0.068, though |w₂| > 1. Every further layer multiplies by such a pair again: lesson 3.

# %% [markdown]
# ## What must hold
#
# Four ways to the same numbers: by hand, TensorFlow, kgrad, nudging. The first weight gets less.

# %%
numbers = np.array(list(gradient.values()))
assert np.allclose(numbers, tensorflow) and np.allclose(np.abs(numbers), measured)
assert np.allclose(numbers, list(nudged.values()), rtol=1e-6)
assert 1.5 < abs(gradient["w2"] / gradient["w1"]) < 2.5
assert abs(nodes["z₁"][1]) < abs(nodes["z₂"][1]) / 3

# %% [markdown]
# ## Exercises
#
# **1.** Set w₁ = 6, so that z₁ = 8.8. Compute ∂L/∂w₁ by hand. By what factor has it changed, and
# which of the five factors did it?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# σ′(8.8) = 0.00015 instead of 0.197: the hidden unit is saturated. The others hardly change.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
far_nodes, _, far = by_hand(**start | {"w1": 6.0})
far_a1 = far_nodes["a₁"][0]
print(f"σ′(z₁) = {far_a1 * (1 - far_a1):.5f} instead of {a1 * (1 - a1):.3f}")
print(f"∂L/∂w₁ = {far['w1']:.1e} instead of {gradient['w1']:.3f}")
assert far["w1"] / gradient["w1"] < 0.002

# %% [markdown]
# **2.** Let both units share one weight, w₁ = w₂ = w = 0.8. What is ∂L/∂w? (A recurrent network
# does this at every time step.)

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# The loss depends on w in two ways, and the slopes of the ways add up: ∂L/∂w is the sum of what w₁
# and w₂ would get if they were two weights of that value.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
_, _, ways = by_hand(**start | {"w2": start["w1"]})
w = tf.Variable(start["w1"])
with tf.GradientTape() as tape:
    hidden = tf.sigmoid(w * x + start["b1"])
    loss = (tf.sigmoid(w * hidden + start["b2"]) - target) ** 2
shared = float(tape.gradient(loss, w))
print(
    f"{ways['w1']:.6f} + {ways['w2']:.6f} = {ways['w1'] + ways['w2']:.6f}; TensorFlow: {shared:.6f}"
)
assert np.isclose(ways["w1"] + ways["w2"], shared, rtol=1e-5)

# %% [markdown]
# ## Source
#
# D. Rumelhart, G. Hinton, R. Williams, *Learning representations by back-propagating errors*, 1986.
# A. Griewank, A. Walther, *Evaluating Derivatives*, 2008, on what a backward pass costs.

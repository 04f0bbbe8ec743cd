# %% [markdown]
# # 2. The chain rule: a backward pass by hand
#
# **Part:** Start here · **Level:** basic · **After:** lesson 1
#
# **The idea.** When the first gear turns once, the second makes half a turn, and the third makes
# three times as many turns as the second. The last gear turns by the product of these factors. For
# small changes, the network of this lesson is such a chain from each weight to the loss, and the
# product is the gradient. The backward pass multiplies from the loss on, because all chains end
# with the same factors.
#
# ![Three gears in a row with 12, 24 and 8 teeth. While the first one, called weight, makes one
# turn, the second makes half a turn (times ½), and the third, called loss, one and a half (times
# 3). An arrow from right to left says: the backward pass multiplies 3 × ½ =
# 1½.](../docs/lessons/figures/02_idea.svg)
#
# **Question.** What does a backward pass compute? Can we compute the same numbers by hand as
# TensorFlow does?
#
# **Predict first.** A network has two sigmoid units in a row: a hidden unit and an output unit.
# Each has one weight and one bias, and both weights have about the same size. Write down which
# weight gets the larger gradient, and by what factor.

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
# First we compute everything by hand. In the forward pass, each number follows from the one before
# it: x → z₁ → a₁ → z₂ → a₂ → L. The backward pass starts at L and goes in the opposite direction.
# In each step it multiplies the gradient by one local slope. The gradient of a weight is the
# gradient of its unit's z times the number that the weight is multiplied by in the forward pass.


# %%
def by_hand(w1, b1, w2, b2):
    """Return each value with its gradient, the loss, and the gradients of the weights."""
    z1 = w1 * x + b1
    a1 = sigma(z1)
    z2 = w2 * a1 + b2
    a2 = sigma(z2)
    L = (a2 - target) ** 2

    d_a2 = 2 * (a2 - target)  #     slope of the squared error
    d_z2 = d_a2 * a2 * (1 - a2)  #  slope of the sigmoid, σ′ = σ(1 − σ)
    d_a1 = d_z2 * w2  #             weight
    d_z1 = d_a1 * a1 * (1 - a1)  #  slope of the sigmoid
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

# %% tags=["figure"] jupyter={"source_hidden": true}
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
axes.text(-0.3, -1.6, "backward: the gradients of the loss", color="tab:red", fontsize=12)
axes.set(xlim=(-0.4, 5.4), ylim=(-1.75, 1.1))
axes.set_axis_off()
plt.show()

# %% [markdown]
# Read the blue numbers from left to right and the red numbers from right to left. Each red number
# is its right neighbor times the factor under the arrow. Now we build the same network in Keras and
# compare our numbers with those of TensorFlow and kgrad. (kgrad records absolute values.)

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
print(f"w2's gradient is {abs(gradient['w2'] / gradient['w1']):.2f} times as large as w1's")

# %% [markdown]
# What does such a number mean? Change w₁ a little and look at the loss: the gradient is the slope
# of this curve.


# %%
def loss_at(name, value):
    return by_hand(**start | {name: value})[1]


path = np.linspace(-4, 6, 101)
losses = [loss_at("w1", w) for w in path]
near = start["w1"] + np.array([-2.5, 2.5])

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(path, losses, color="tab:blue", label="loss as w₁ varies")
axes.plot(near, L + gradient["w1"] * (near - start["w1"]), "k--", label="slope from the chain rule")
axes.set(xlabel="w₁", ylabel="loss L", title="The gradient is a slope")
axes.legend()
plt.show()

# %%
h = 1e-4
nudged = {k: (loss_at(k, v + h) - loss_at(k, v - h)) / (2 * h) for k, v in start.items()}
print("by finite differences:", ", ".join(f"{name} {slope:.7f}" for name, slope in nudged.items()))

# %% [markdown]
# ## What it shows, and why
#
# The loss depends on w₁ only through z₁, it depends on z₁ only through a₁, and so on. The chain
# rule multiplies the slopes along this path:
#
# $$\frac{\partial L}{\partial w_1} = \underbrace{2(a_2 - y)}_{\text{loss}} \cdot
# \underbrace{\sigma'(z_2)}_{\text{unit 2}} \cdot \underbrace{w_2}_{\text{weight}} \cdot
# \underbrace{\sigma'(z_1)}_{\text{unit 1}} \cdot \underbrace{x}_{\text{input}}$$
#
# A backward pass computes this product from left to right, starting at the loss. It keeps every
# intermediate product, because the other gradients need them: the first two factors are also part
# of the gradient of w₂. This is why all gradients together cost only about as much as a few forward
# passes, no matter how many weights there are.
#
# Look at the red numbers once more. From z₂ to z₁ the gradient is multiplied by w₂ and by one σ′.
# Its size falls from 0.286 to 0.068, although |w₂| > 1. Each additional layer multiplies the
# gradient by another such pair of factors. Lesson 3 shows what this leads to.

# %% [markdown]
# ## What must hold
#
# Four methods give the same numbers: by hand, TensorFlow, kgrad, and finite differences. The first
# weight gets the smaller gradient.

# %% tags=["checks"] jupyter={"source_hidden": true}
numbers = np.array(list(gradient.values()))
assert np.allclose(numbers, tensorflow) and np.allclose(np.abs(numbers), measured)
assert np.allclose(numbers, list(nudged.values()), rtol=1e-6)
assert 1.5 < abs(gradient["w2"] / gradient["w1"]) < 2.5
assert abs(nodes["z₁"][1]) < abs(nodes["z₂"][1]) / 3

# %% [markdown]
# ## Exercises
#
# **1.** Set w₁ = 6, so that z₁ = 8.8. Compute ∂L/∂w₁ by hand. By what factor has it changed, and
# which of the five factors in the formula is the cause?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The slope σ′(8.8) is 0.00015 instead of 0.197: the hidden unit is saturated. The other factors
# hardly change.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
far_nodes, _, far = by_hand(**start | {"w1": 6.0})
far_a1 = far_nodes["a₁"][0]
print(f"σ′(z₁) = {far_a1 * (1 - far_a1):.5f} instead of {a1 * (1 - a1):.3f}")
print(f"∂L/∂w₁ = {far['w1']:.1e} instead of {gradient['w1']:.3f}")
assert far["w1"] / gradient["w1"] < 0.002

# %% [markdown]
# **2.** Let both units share one weight: w₁ = w₂ = w = 0.8. What is ∂L/∂w? (A recurrent network
# shares its weights in this way at every time step.)

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# The loss depends on w along two paths, and the gradients of the two paths add up. So ∂L/∂w is the
# sum of the gradients that w₁ and w₂ would get if they were two separate weights of that value.
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
# A. Griewank, A. Walther, *Evaluating Derivatives*, 2008, on the cost of a backward pass.

# %% [markdown]
# # 19. A worked exercise: five layers, a thousand draws
#
# **Part:** Theory · **Level:** advanced · **After:** lessons 3 and 7
#
# **Question.** A course exercise prints the gradient norms of a small network. It then changes the
# activation and the initialization, and asks what you observe. Its answers come from one random
# draw of each network. What do a thousand draws show?
#
# **Predict first.** Take five layers of ten sigmoids with PyTorch's initialization. The exercise
# prints 1.9·10⁻⁵ for the first kernel and 0.34 for the last. How far apart do you expect two draws
# of the first number to be: a tenth, a factor of two, or a factor of ten?

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)

DRAWS, SAMPLES, LAYERS, UNITS = 1000, 100, 5, 10
SIZES = [(UNITS, UNITS)] * (LAYERS - 1) + [(UNITS, 1)]  # (inputs, outputs) of each layer


def leaky_relu(x):
    return keras.ops.leaky_relu(x, negative_slope=0.01)  # PyTorch's slope; Keras's is 0.2


# %% [markdown]
# ## The network, and what the exercise prints
#
# The data are a hundred samples of ten standard normal features, with a standard normal target. The
# loss is the mean squared error. The network has four layers of ten units and one layer of a single
# unit. *Each* layer has the activation after it, the last one, too. (So the sigmoid network cannot
# reach a negative target.) PyTorch draws weights and biases uniformly from ±1/√n, where n is the
# number of inputs. The norms are listed as weight, bias, weight, bias, from the first layer to the
# last.

# %%
printed = {
    "sigmoid": "1.86e-5 3.07e-5 5.14e-4 3.31e-4 3.81e-3 2.38e-3 0.0435 0.0262 0.343 0.203",
    "leaky ReLU": "0.0124 0.00709 0.0137 0.0108 0.03 0.0551 0.0681 0.17 0.135 0.439",
    "sigmoid, “He”": "5.47e-4 1.05e-3 7.1e-3 4.48e-3 0.0248 0.0146 0.0847 0.0564 0.382 0.249",
    "leaky ReLU, Xavier": "0.0137 4.15e-3 0.0208 8.71e-3 0.0223 0.0155 0.0397 0.0894 0.0402 0.132",
}
printed = {name: np.array(line.split(), float) for name, line in printed.items()}

# %%
networks = {  # activation, and variance of the kernels; None means PyTorch's default
    "sigmoid": (keras.ops.sigmoid, None),
    "leaky ReLU": (leaky_relu, None),
    "sigmoid, “He”": (keras.ops.sigmoid, lambda n_in, n_out: 1 / n_in),
    "leaky ReLU, Xavier": (leaky_relu, lambda n_in, n_out: 2 / (n_in + n_out)),
    "leaky ReLU, He": (leaky_relu, lambda n_in, n_out: 2 / n_in),
}


def draw_layer(random, n_in, n_out, variance):
    """Draw a layer's kernels (DRAWS, n_in, n_out) and biases (DRAWS, 1, n_out)."""
    sizes = (DRAWS, n_in, n_out), (DRAWS, 1, n_out)
    if variance is None:
        return [random.uniform(-1, 1, size) / np.sqrt(n_in) for size in sizes]
    return random.normal(0, np.sqrt(variance(n_in, n_out)), sizes[0]), np.zeros(sizes[1])


# %% [markdown]
# Two remarks before you read on. First, the network that the exercise calls “He” uses the gain that
# PyTorch recommends for a sigmoid, which is 1. So its variance is 1/n, half of what He derived for
# ReLU. Second, the exercise uses Xavier only with leaky ReLU, so its Xavier and its “He” cannot be
# compared. The fifth network is not in the exercise: leaky ReLU with He's own variance.
#
# ## The experiment
#
# We run all thousand networks at once: every weight gets one more axis, the draw. The data are also
# drawn anew for each network.


# %%
def drawn(variance):
    """Return the samples, targets and weights of all draws."""
    random = np.random.default_rng(0)
    X = random.standard_normal((DRAWS, SAMPLES, UNITS)).astype("float32")
    y = random.standard_normal((DRAWS, SAMPLES, 1)).astype("float32")
    weights = [w for sizes in SIZES for w in draw_layer(random, *sizes, variance)]
    return X, y, [tf.Variable(w, dtype="float32") for w in weights]


# %%
def gradients(phi, X, y, weights):
    """Return the gradient norm of each weight and bias, an array (DRAWS, 10)."""
    with tf.GradientTape() as tape:
        h = X
        for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
            h = phi(h @ kernel + bias)
        loss = tf.reduce_sum(tf.reduce_mean((h - y) ** 2, axis=(1, 2)))  # the sum keeps draws apart
    squares = [tf.reduce_sum(g**2, axis=(1, 2)) for g in tape.gradient(loss, weights)]
    return np.sqrt(np.transpose(squares))


norms = {name: gradients(phi, *drawn(variance)) for name, (phi, variance) in networks.items()}

# %% [markdown]
# Is this the same network? To check, we build two of the draws as Keras models and measure them
# with kgrad:

# %%
X, y, weights = drawn(None)
for draw in (0, DRAWS - 1):
    model = keras.Sequential([keras.Input((UNITS,))])
    for _, n_out in SIZES:
        model.add(keras.layers.Dense(n_out, activation="sigmoid"))
    for variable, values in zip(model.weights, weights, strict=True):
        variable.assign(np.reshape(values[draw], variable.shape))
    single = kgrad.measure_gradients(model, X[draw], y[draw], "mse")["l2_norm"][0]
    apart = np.max(np.abs(single / norms["sigmoid"][draw] - 1))
    print(f"draw {draw}: largest relative difference {apart:.0e}")
    assert apart < 1e-3

# %% [markdown]
# It is. Now we plot the numbers as the exercise does, with the thousand draws behind them.

# %%
low, middle, high = np.quantile(norms["sigmoid"], [0.025, 0.5, 0.975], axis=0)
places = np.arange(1, 2 * LAYERS + 1)

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.fill_between(places, low, high, alpha=0.3, label="95 % of 1,000 draws")
axes.semilogy(places, middle, label="median")
axes.semilogy(places, printed["sigmoid"], "ko", label="printed in the exercise")
axes.set(xticks=places, xticklabels=["W", "b"] * LAYERS, xlabel="weight and bias of each layer")
axes.set(ylabel="gradient norm", title="Sigmoid: the printed numbers are low, but ordinary")
axes.legend()
plt.show()

# %%
below = {name: np.mean(norms[name] < values, axis=0) for name, values in printed.items()}
print(f"first kernel, 95 % of draws: {low[0]:.1e} to {high[0]:.1e}, factor {high[0] / low[0]:.1f}")
print("percent of draws below the printed number:")
for name, shares in below.items():
    print(f"{name:>20}", *(f"{100 * share:5.1f}" for share in shares))
outside = sum(int(np.sum((shares < 0.025) | (shares > 0.975))) for shares in below.values())
print(f"outside the middle 95 %: {outside} of {4 * 2 * LAYERS}")

# %% [markdown]
# The printed numbers are ordinary draws. But the sigmoid network's numbers are low: in the first
# layer its gradient is lower than in 97 % of all draws. The numbers of the network called “He” are
# high. The next figure shows only the kernels, for all five networks:

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, panels = plt.subplots(2, 1, figsize=(6, 7), layout="constrained", sharex=True)
layers = np.arange(1, LAYERS + 1)
for name, values in norms.items():
    axes = panels[int(name.startswith("leaky"))]
    low, middle, high = np.quantile(values[:, ::2], [0.025, 0.5, 0.975], axis=0)
    (line,) = axes.semilogy(layers, middle, label=name)
    band = axes.fill_between(layers, low, high, color=line.get_color(), alpha=0.15)
    if name in printed:
        (points,) = axes.semilogy(layers, printed[name][::2], "o", color=line.get_color())
for axes in panels:
    axes.set(ylabel="gradient norm of the kernel", xticks=layers)
    name_lines(axes)
panels[0].legend([points, line, band], ["printed", "median", "95 % of draws"], loc="lower right")
panels[0].set_title("One draw says little about an activation or an initializer")
panels[1].set(xlabel="layer")
plt.show()

# %%
first_to_last = {name: values[:, 0] / values[:, -2] for name, values in norms.items()}
median = {name: np.median(ratios) for name, ratios in first_to_last.items()}
for name, ratios in first_to_last.items():
    one = f", printed {printed[name][0] / printed[name][-2]:.2g}" if name in printed else ""
    low, high = np.quantile(ratios, [0.025, 0.975])
    print(f"{name:>20}: first ÷ last {median[name]:.2g} ({low:.1g} to {high:.1g}){one}")
low, high = np.quantile(norms["leaky ReLU"][:, 0], [0.025, 0.975])
print(f"leaky ReLU, first kernel, 95 % of draws: {low:.1e} to {high:.1e}")

# %% [markdown]
# ## What it shows, and why: the three questions
#
# **What is the pattern, and why do sigmoids cause it?** The gradient of the biases is δ, and from
# layer to layer it is multiplied by 0.13. PyTorch's range gives σ_w² = n/(3n) = ⅓, and σ′ is at
# most ¼:
#
# $$\frac{|\delta^{l}|}{|\delta^{l+1}|} \approx \sigma_w \sqrt{\mathbb{E}[\sigma'(z)^2]} \le
# \frac{1}{\sqrt 3} \cdot \frac14 = 0.14 .$$
#
# **What do ReLU or leaky ReLU change?** The gradient falls a thousand times less. But the same
# weights are too small for them as well: only half of the inputs count, so the factor is √(⅓ · ½) =
# 0.41. The signal shrinks by this factor in the forward pass, and so does the error in the backward
# pass. The gradient is *level and small*, and one draw may be hundreds of times another.
#
# **What does the initialization change?** For the sigmoid, the variance 1/n instead of 1/(3n) helps
# by a factor of seven; the two draws of the exercise suggest twenty-six. For leaky ReLU, Xavier
# makes the first layer's gradient about sixteen times as large; the two draws of the exercise
# suggest that it hardly matters. He's variance makes it even larger.

# %%
sigmoid = kgrad.theory.activation("sigmoid")
q = kgrad.theory.fixed_point(sigmoid, 1 / 3, 1 / (3 * UNITS))
expected = np.sqrt(kgrad.theory.chi(sigmoid, q, 1 / 3))
biases = norms["sigmoid"][:, 1::2]
factor = np.median(biases[:, 0] / biases[:, -1]) ** (1 / (LAYERS - 1))
print(f"sigmoid, factor per layer: measured {factor:.3f}, theory {expected:.3f}, bound 0.144")

# %%
one = {name: values[0] / values[-2] for name, values in printed.items()}
first = {name: np.median(values[:, 0]) for name, values in norms.items()}
he = median["sigmoid, “He”"] / median["sigmoid"]
xavier = first["leaky ReLU, Xavier"] / first["leaky ReLU"]
he_printed = one["sigmoid, “He”"] / one["sigmoid"]
xavier_printed = printed["leaky ReLU, Xavier"][0] / printed["leaky ReLU"][0]
print(f"“He”: first ÷ last is {he:.1f} times as large; in the exercise {he_printed:.1f} times")
print(
    f"Xavier: first kernel {xavier:.1f} times as large; in the exercise {xavier_printed:.1f} times"
)
print(f"He: first kernel {first['leaky ReLU, He'] / first['leaky ReLU']:.1f} times as large")

# %% [markdown]
# ## What must hold

# %% tags=["checks"] jupyter={"source_hidden": true}
assert abs(factor / expected - 1) < 0.15
assert outside <= 6  # two are expected
assert median["sigmoid"] < 1e-3 < 0.05 < median["leaky ReLU"]
assert 4 < he < 12
assert xavier > 5
assert first["leaky ReLU, He"] > 2 * first["leaky ReLU, Xavier"]

# %% [markdown]
# ## Exercises
#
# **1.** Someone draws one leaky ReLU network with PyTorch's initialization and one with Xavier's,
# and compares the gradients of the first layers. How often is Xavier's the smaller one?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# In about one of ten cases. Ten units are few, so the factor of a layer is a matter of luck, and
# the product of four such factors even more so. It costs almost nothing to take several seeds and
# their median.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
shuffled = np.random.default_rng(1).permutation(norms["leaky ReLU"][:, 0])
wrong = np.mean(norms["leaky ReLU, Xavier"][:, 0] < shuffled)
print(f"wrong order in {100 * wrong:.0f} % of pairs")
assert 0.02 < wrong < 0.25

# %% [markdown]
# **2.** The plotted list zigzags. Take the sigmoid network beyond its first layer. By what factor
# is a kernel's gradient larger than its bias's, and why by this factor? (What is the output of a
# sigmoid near z = 0?)

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# ∂L/∂W = δ hᵀ and ∂L/∂b = δ. If h is about ½ in all ten units, then ‖δ hᵀ‖ = ‖δ‖ · √(10 · ¼) = 1.58
# ‖δ‖. In the exercise's own numbers the factor is 1.55 to 1.69. The zigzag says nothing about
# depth, so draw kernels and biases in separate figures.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
zigzag = np.median(norms["sigmoid"][:, 2::2] / norms["sigmoid"][:, 3::2], axis=0)
print(
    "kernel ÷ bias:",
    zigzag.round(2),
    "printed:",
    (printed["sigmoid"][2::2] / printed["sigmoid"][3::2]).round(2),
)
assert np.allclose(zigzag, np.sqrt(10 / 4), rtol=0.1)

# %% [markdown]
# ## Source
#
# An exercise on vanishing gradients (question 5) of a course on neural networks, written for
# PyTorch. X. Glorot, Y. Bengio, 2010, and K. He et al., 2015, for the two initializations.

# %% [markdown]
# # 16. The edge of chaos: how deep a network can be trained
#
# **Part:** Theory · **Level:** advanced · **After:** lesson 7
#
# **Question.** Two numbers describe how a wide network starts: the variance of its weights and the
# variance of its biases. For which values do gradients keep their size from layer to layer? And how
# deep can a network be with other values?
#
# **Predict first.** Take plain tanh networks with weights of variance σ_w²/n. If σ_w² is chosen
# well, forty layers train. How deep can a network be if its σ_w² is a quarter of the best value, or
# three times the best value?

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fast mode: a coarser grid, the same claims
phi = kgrad.theory.activation("tanh")
data = kgrad.make_dataset("digits", 1024)
BIAS = 0.05  # σ_b²


# %%
def network(depth, sigma_w2, sigma_b2=BIAS, model=None):
    """Draw new weights with σ_w² and σ_b², in `model` or in a new network of `depth` layers."""
    if model is None:
        output = {"output_units": 10, "output_activation": "softmax"}
        model = kgrad.create_model(depth, "tanh", "lecun", input_shape=(64,), seed=0, **output)
        loss = "sparse_categorical_crossentropy"
        model.compile(keras.optimizers.SGD(0.02), loss, metrics=["accuracy"], jit_compile=False)
    random = np.random.default_rng(0)
    for layer in model.layers[1:-1]:
        spread = np.sqrt(sigma_w2 / layer.kernel.shape[0])
        layer.kernel.assign(random.normal(0, spread, layer.kernel.shape))
        layer.bias.assign(random.normal(0, np.sqrt(sigma_b2), layer.bias.shape))
    return model


# %% [markdown]
# ## The experiment
#
# We start with a map. It is computed from theory, without running a network. Each point is one way
# to start.

# %%
kgrad.plot_phase_diagram("tanh")

# %%
best, _ = kgrad.theory.critical_point(phi, BIAS)
print(f"at σ_b² = {BIAS} the edge is at σ_w² = {best:.2f}")

# %% [markdown]
# In the blue region, the gradient shrinks from layer to layer on its way to the input. In the red
# region, it grows. The line between them is the edge of chaos.
#
# Is the map right? We check it along the row σ_b² = 0.05, in networks of forty layers. We measure
# the gradients of the biases, because the gradient of a layer's bias is the error signal δ itself.

# %%
scales = [0.5, best, 5.0] if FAST else [0.5, 1.0, 1.4, best, 2.2, 3.0, 5.0]
deep = network(40, best)


def decades_a_layer(sigma_w2, sigma_b2=BIAS):
    """Return the slope of log10 |δ| from output to input, in the middle of the network."""
    model = network(40, sigma_w2, sigma_b2, deep)
    history = kgrad.measure_gradients(model, data.X[:256], data.y[:256])
    biases = [weight.name == "bias" for weight in history.weights]
    delta = history["l2_norm"][0, biases][5:35]
    return -np.polyfit(np.arange(30), np.log10(delta), 1)[0]


measured = [decades_a_layer(scale) for scale in scales]
fine = np.linspace(0.3, 5.5, 60)
expected = [np.log10(kgrad.theory.chi_1(phi, scale, BIAS)) / 2 for scale in fine]

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(fine, expected, "k-", label="theory")
axes.plot(scales, measured, "o", label="forty layers, measured")
axes.axhline(0, color="gray", linewidth=0.8)
axes.set(
    xlabel="$σ_w^2$",
    ylabel="decades per layer, toward the input",
    title="Only on the edge, |δ| keeps its size",
)
axes.legend()
plt.show()

# %%
for scale, slope in zip(scales, measured, strict=True):
    theory = np.log10(kgrad.theory.chi_1(phi, scale, BIAS)) / 2
    print(f"σ_w² = {scale:.2f}: measured {slope:+.3f} decades per layer, theory {theory:+.3f}")

# %% [markdown]
# Now we train. Each square is a network, trained for four epochs on images of digits. Its color is
# the share of images that it classifies correctly. The curve is the greatest depth that can be
# trained according to the theory.

# %%
depths = [5, 20] if FAST else [5, 10, 20, 40]
accuracy = {}
for depth in depths:
    model = deep if depth == 40 else network(depth, best)
    for scale in scales:
        keras.utils.set_random_seed(0)
        network(depth, scale, model=model)
        record = model.fit(data.X, data.y, batch_size=64, epochs=4, verbose=0)
        accuracy[depth, scale] = record.history["accuracy"][-1]

limit = [row.trainable for row in kgrad.theory.trainable_depths(phi, [(s, BIAS) for s in fine])]

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
y, x = zip(*accuracy, strict=True)
squares = axes.scatter(x, y, c=list(accuracy.values()), s=330, marker="s", vmin=0, vmax=0.8)
axes.plot(fine, limit, "k-", label="6 × depth scale $ξ_c$")
axes.set(yscale="log", ylim=(3.5, 70), yticks=depths, yticklabels=depths, xlim=(0.1, 5.5))
axes.minorticks_off()
axes.set(xlabel="$σ_w^2$", ylabel="hidden layers", title="Deep networks train near the edge only")
figure.colorbar(squares, label="accuracy after 4 epochs")
axes.legend(loc="upper right")
plt.show()

# %%
for depth in depths:
    print(f"{depth:>3} layers:", *(f"{accuracy[depth, scale]:.2f}" for scale in scales))

# %% [markdown]
# Below the curve networks learn, above it they do not. At a quarter of the best σ_w², ten layers
# are too many. At three times the best, forty are too many.
#
# ## What it shows, and why
#
# In a wide layer, the variance q of the pre-activations settles at a fixed point q*. There
#
# $$q^* = \sigma_w^2\, \mathbb{E}[\varphi(\sqrt{q^*} z)^2] + \sigma_b^2, \qquad
# \chi_1 = \sigma_w^2\, \mathbb{E}[\varphi'(\sqrt{q^*} z)^2], \qquad
# \frac{|\delta^{l}|^2}{|\delta^{l+1}|^2} \to \chi_1 .$$
#
# χ₁ also has a second meaning. It describes what happens to a small difference between two inputs
# in the forward pass. If χ₁ < 1, the network is in the *ordered* phase: all inputs end at the same
# point, and gradients vanish. If χ₁ > 1, it is in the *chaotic* phase: inputs that were close
# together end far apart, and gradients explode. In both phases the correlation of two inputs
# forgets where it started, within a depth ξ_c:
#
# $$|c^l - c^*| \sim e^{-l/\xi_c}.$$
#
# The network cannot learn what its top layers cannot distinguish. So a network can be trained if it
# is not much deeper than ξ_c. Six ξ_c is a rule of thumb. On the edge ξ_c is infinite; in practice
# the width, the number of steps and the learning rate set the limit there.

# %%
rows = kgrad.theory.trainable_depths(phi, [(scale, BIAS) for scale in scales])
print(kgrad.theory.depth_table(rows))

# %% [markdown]
# ## What must hold
#
# The measured slope agrees with χ₁. Beyond six ξ_c nothing is learned. Within three ξ_c, and up to
# twenty layers, the networks learn.

# %% tags=["checks"] jupyter={"source_hidden": true}
theory = [np.log10(row.chi_1) / 2 for row in rows]
assert np.allclose(measured, theory, rtol=0.1, atol=0.03)
for row in rows:
    for depth in depths:
        if depth > row.trainable:
            assert accuracy[depth, row.sigma_w2] < 0.3
        if depth <= min(20, row.trainable / 2):
            assert accuracy[depth, row.sigma_w2] > 0.4

# %% [markdown]
# ## Exercises
#
# **1.** The edge has other points. Find the one at σ_b² = 1, and measure the slope there. What is
# the slope with the same weights and σ_b² = 0.05?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# `kgrad.theory.critical_point(phi, 1.0)` finds the point. There the gradient keeps its size. With
# the same weights and smaller biases, the units are less saturated, their slopes are larger, and
# the network is chaotic.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
other, _ = kgrad.theory.critical_point(phi, 1.0)
level, chaotic = decades_a_layer(other, 1.0), decades_a_layer(other, BIAS)
print(f"σ_w² = {other:.2f}: {level:+.3f} with σ_b² = 1, {chaotic:+.3f} with 0.05")
assert abs(level) < 0.02
assert chaotic > 0.035

# %% [markdown]
# **2.** Draw the diagram of ReLU. What do you find instead of a line, and which initialization is
# this?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# A point: σ_w² = 2, σ_b² = 0, which is He's initialization. For ReLU χ₁ = σ_w²/2, whatever q is. To
# the right of 2 the variance grows without limit. To the left it settles, and gradients vanish.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
relu = kgrad.theory.activation("relu")
kgrad.plot_phase_diagram(relu)

# %% tags=["checks"] jupyter={"source_hidden": true}
assert np.isclose(kgrad.theory.critical_point(relu)[0], 2)
assert np.allclose([kgrad.theory.chi_1(relu, scale) for scale in (0.5, 1, 2)], [0.25, 0.5, 1])

# %% [markdown]
# ## Source
#
# B. Poole et al., *Exponential expressivity in deep neural networks through transient chaos*, 2016.
# S. Schoenholz et al., *Deep Information Propagation*, 2017.

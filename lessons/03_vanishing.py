# %% [markdown]
# # 3. Vanishing: a quarter to the power of depth
#
# **Question.** All hidden layers of a sigmoid network are alike. How much smaller is the gradient
# of the first than that of the last, and what decides it?
#
# **Predict first.** Ten layers of 64 sigmoids, Glorot's (Xavier's) initialisation. Write down your
# guess for the gradient of the first layer divided by that of the tenth: a half? a hundredth? less?

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

FAST = "KGRAD_FAST" in os.environ  # fewer networks, the same claims
data = kgrad.make_dataset("classification", samples=256, features=20, seed=0)


def network(depth, seed, activation="sigmoid", initializer="xavier"):
    return kgrad.create_model(
        depth, activation, initializer, units=64, input_shape=(20,), seed=seed
    )


# %% [markdown]
# ## The experiment
#
# One backward pass through one network, and what theory expects of it before it is run.

# %%
model = network(depth=10, seed=0)
measured = kgrad.measure_gradients(model, data.X, data.y)
predicted = kgrad.predict_gradients(model, data.X, data.y)
kgrad.plot_prediction(measured, predicted, "Ten sigmoid layers, before any training")
plt.show()

gradient = measured.by_layer("mean_abs")[0]
ratio = gradient[0] / gradient[9]
print(f"mean |gradient|: first layer {gradient[0]:.1e}, tenth {gradient[9]:.1e}")
print(f"first ÷ tenth = {ratio:.1e}")

# %% [markdown]
# Nearly a straight line on a logarithmic axis: each layer towards the input gets the same
# *fraction* of what the next one gets. The same for many depths, with several networks each:

# %%
depths = [2, 5, 10] if FAST else [2, 5, 10, 15, 20, 30]
seeds = range(3 if FAST else 8)


def first_to_last(depth, seed, **ingredients):
    """Gradient norm of the first hidden layer over that of the last."""
    model = network(depth, seed, **ingredients)
    norms = kgrad.measure_gradients(model, data.X, data.y).by_layer("l2_norm")[0]
    return norms[0] / norms[depth - 1]


ratios = np.array([[first_to_last(depth, seed) for seed in seeds] for depth in depths])
steps = np.array(depths) - 1  # from the last hidden layer down to the first

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.semilogy(depths, ratios, "o", color="tab:blue", alpha=0.5)
axes.semilogy(depths, 0.25**steps, "k--", label="(1/4) per layer")
axes.set(xlabel="sigmoid layers", ylabel="gradient norm, first ÷ last", title="One slope for all")
axes.legend()
plt.show()

factor = np.exp(np.polyfit(steps, np.log(ratios).mean(axis=1), 1)[0])
print(f"factor per layer, fitted: {factor:.3f}")

# %% [markdown]
# ## What it shows, and why
#
# The signal δ = ∂L/∂z that reaches layer l is made from that of the layer above it by
#
# $$\delta^{l} = \sigma'(z^{l}) \odot W^{l+1\top} \delta^{l+1}, \qquad
# \frac{\partial L}{\partial W^{l}} = \delta^{l} a^{l-1\top}.$$
#
# The derivative of the sigmoid is σ′ = σ(1 − σ). It is largest at z = 0, where it is exactly ¼. If
# the weights neither stretch nor shrink a vector on average (Glorot sees to that here, where all
# widths are equal), each layer takes the factor
#
# $$\sqrt{\chi} = \sqrt{\sigma_w^2 \, \mathbb{E}[\sigma'(z)^2]} \le \sigma_w / 4.$$
#
# No layer does anything wrong. There are just many factors, and none can be above a quarter.

# %%
phi = kgrad.theory.activation("sigmoid")
expected = np.sqrt(kgrad.theory.chi_1(phi, sigma_w2=1.0))
print(f"factor per layer: measured {factor:.3f}, theory {expected:.3f}, bound 0.250")

# %% [markdown]
# ## What must hold
#
# Were it to stop being true, this page would not be made.

# %%
assert ratio < 1e-4
assert abs(factor / expected - 1) < 0.1
assert factor < 0.25

# %% [markdown]
# ## Exercises
#
# **1.** How large must σ_w be so that the gradient of a sigmoid network does not shrink? Choose the
# weights' standard deviation for 64 units, and measure. What is wrong with the remedy?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# At z = 0 it would take σ_w = 4, a standard deviation of 4/√64 = 0.5. But weights that large push z
# away from 0, where σ′ is smaller than ¼: the factor stays below 1. With much larger ones it is
# above 1 in a few units and 0 in all the others, which are saturated.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
wide = keras.initializers.RandomNormal(stddev=0.5)
large = np.mean([np.log(first_to_last(10, seed, initializer=wide)) for seed in seeds])
print(f"σ_w = 4: factor per layer {np.exp(large / 9):.2f}")
assert factor < np.exp(large / 9) < 1

# %% [markdown]
# **2.** Replace sigmoid by tanh, whose derivative is 1 at zero. Does the gradient still vanish?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# Far more slowly. tanh′(z) = 1 − tanh²(z) is 1 only at 0 and smaller elsewhere, so that each layer
# still takes a little: a factor of 0.97 where sigmoid takes 0.24. As the signal shrinks on its way
# up, z comes closer to 0, and the factor closer to 1.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
tanh = np.mean([np.log(first_to_last(10, seed, activation="tanh")) for seed in seeds])
print(f"tanh: factor per layer {np.exp(tanh / 9):.2f}")
assert 0.6 < np.exp(tanh / 9) < 1.1

# %% [markdown]
# ## Source
#
# X. Glorot, Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*,
# 2010. S. Schoenholz et al., *Deep Information Propagation*, 2017, for χ. The bound of a quarter is
# older: S. Hochreiter, diploma thesis, 1991.

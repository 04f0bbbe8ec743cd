# %% [markdown]
# # 3. Vanishing gradients: at most a quarter per layer
#
# **Part:** Start here · **Level:** basic · **After:** lesson 2
#
# **The idea.** A message goes down a line of people, and each of them repeats it at no more than a
# quarter of the volume. Nobody makes a mistake, but after a few people there is nothing to hear. In
# the network of this lesson, the message is the gradient. It starts at the last layer, and the
# first layer hears it last.
#
# ![Bars for six layers. The bar of the last layer, on the right, has height 1. To the left, each
# bar is a quarter of its neighbor: ¼, 1/16, 1/64, and then too low to be seen. An arrow points from
# the last layer to the first.](../docs/lessons/figures/03_idea.svg)
#
# **Question.** In a deep sigmoid network all hidden layers have the same form. How much smaller is
# the gradient of the first layer than that of the last, and what determines this ratio?
#
# **Predict first.** A network has ten layers of 64 sigmoid units and Glorot (Xavier)
# initialization. Divide the gradient of the first layer by that of the tenth: is the result a half,
# a hundredth, or less? Write down your guess.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fewer networks, same claims
data = kgrad.make_dataset("classification", samples=256, features=20, seed=0)


def network(depth, seed, activation="sigmoid", initializer="xavier"):
    return kgrad.create_model(
        depth, activation, initializer, units=64, input_shape=(20,), seed=seed
    )


# %% [markdown]
# ## The experiment
#
# We run one backward pass through one network. The figure compares the measured gradients with a
# prediction from theory, which is made without running the network.

# %%
model = network(depth=10, seed=0)
measured = kgrad.measure_gradients(model, data.X, data.y)
predicted = kgrad.predict_gradients(model, data.X, data.y)
kgrad.plot_prediction(
    measured, predicted, title="Ten sigmoid layers: the gradient shrinks toward the input"
)

# %%
gradient = measured.by_layer("mean_abs")[0]
ratio = gradient[0] / gradient[9]
print(f"mean |gradient|: first layer {gradient[0]:.1e}, tenth layer {gradient[9]:.1e}")
print(f"first ÷ tenth = {ratio:.1e}")

# %% [markdown]
# On the logarithmic axis, the gradients form almost a straight line. So from each layer to the
# layer below it, the gradient shrinks by the same *factor*. Is this true for other depths? We
# measure several networks for each depth:

# %%
depths = [2, 5, 10] if FAST else [2, 5, 10, 15, 20, 30]
seeds = range(3 if FAST else 8)


def first_to_last(depth, seed, **ingredients):
    """Return the first hidden layer's gradient norm divided by the last one's."""
    model = network(depth, seed, **ingredients)
    norms = kgrad.measure_gradients(model, data.X, data.y).by_layer("l2_norm")[0]
    return norms[0] / norms[depth - 1]


ratios = np.array([[first_to_last(depth, seed) for seed in seeds] for depth in depths])
steps = np.array(depths) - 1  # number of factors between the last hidden layer and the first

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.semilogy(depths, ratios, "o", color="C0", alpha=0.5)
axes.semilogy(depths, 0.25**steps, "k--", label="1/4 per layer")
axes.set(
    xlabel="sigmoid layers",
    ylabel="gradient norm, first ÷ last",
    title="Every sigmoid layer takes the same factor",
)
axes.legend()
plt.show()

# %%
factor = np.exp(np.polyfit(steps, np.log(ratios).mean(axis=1), 1)[0])
print(f"fitted factor per layer: {factor:.3f}")

# %% [markdown]
# ## What it shows, and why
#
# Let δ = ∂L/∂z be the gradient that reaches the inputs z of a layer's units. It is called the
# layer's *signal*. The signal of layer l follows from the signal of the layer above it:
#
# $$\delta^{l} = \sigma'(z^{l}) \odot W^{l+1\top} \delta^{l+1}, \qquad
# \frac{\partial L}{\partial W^{l}} = \delta^{l} a^{l-1\top}.$$
#
# The derivative of the sigmoid is σ′ = σ(1 − σ). Its largest value is exactly ¼, at z = 0. Let σ_w²
# be the variance of a weight times the number of inputs. If σ_w = 1, the weights neither stretch
# nor shrink a vector on average. Glorot initialization gives σ_w = 1 here, because all layers have
# the same width. Each layer then multiplies the size of the signal by the factor
#
# $$\sqrt{\chi} = \sqrt{\sigma_w^2 \, \mathbb{E}[\sigma'(z)^2]} \le \sigma_w / 4.$$
#
# No layer does anything wrong. There are just many factors, and none of them is larger than a
# quarter.

# %%
phi = kgrad.theory.activation("sigmoid")
expected = np.sqrt(kgrad.theory.chi_1(phi, sigma_w2=1.0))
print(f"factor per layer: measured {factor:.3f}, theory {expected:.3f}, bound 0.250")

# %% [markdown]
# ## What must hold
#
# The code below checks the claims of this lesson. If one of them stops holding, this page fails to
# build.

# %% tags=["checks"] jupyter={"source_hidden": true}
assert ratio < 1e-4
assert abs(factor / expected - 1) < 0.1
assert expected < 0.25

# %% [markdown]
# ## Exercises
#
# **1.** How large must σ_w be so that the gradient of a sigmoid network does not shrink? Choose the
# standard deviation of the weights for 64 units, and measure the factor per layer. What is wrong
# with this remedy?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# If all z were 0, we would need σ_w = 4, which is a standard deviation of 4/√64 = 0.5. But such
# large weights push z away from 0, where σ′ is smaller than ¼, so the factor stays below 1. With
# much larger weights, the factor is above 1 in a few units, and 0 in all the others, which are
# saturated.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
wide = keras.initializers.RandomNormal(stddev=0.5)
large = np.mean([np.log(first_to_last(10, seed, initializer=wide)) for seed in seeds])
print(f"σ_w = 4: factor per layer {np.exp(large / 9):.2f}")
assert factor < np.exp(large / 9) < 1

# %% [markdown]
# **2.** Replace the sigmoid by tanh, whose derivative at 0 is 1. Does the gradient still vanish?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# It does, but far more slowly. The derivative tanh′(z) = 1 − tanh²(z) is 1 only at 0 and smaller
# elsewhere, so each layer still shrinks the gradient a little: by a factor of 0.97, compared with
# 0.24 for the sigmoid. The values in the forward pass shrink from layer to layer, so in later
# layers z is closer to 0 and the factor is closer to 1.
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

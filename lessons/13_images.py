# %% [markdown]
# # 13. Images: twenty convolutions, plain and residual
#
# **Part:** Practice · **Level:** intermediate · **After:** lessons 9 and 10
#
# **Question.** A convolutional network with 21 layers and Keras's default initialization is trained
# on real images, and does not learn. What stops it, and what do skip connections change?
#
# **Predict first.** A convolution is a dense layer that looks at 3 × 3 pixels at a time, so the
# rules for dense layers should hold. Keras starts it with Glorot's variance, which here is half of
# He's, the variance that suits ReLU. How much smaller is the gradient after twenty such layers than
# with He's variance? Write down the factor.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fast mode: fewer epochs, the same claims
IMAGES = "digits"  # or "cifar10", for which Keras downloads 170 MB


# %%
def load():
    """Return standardized images (samples, height, width, channels) for training and testing."""
    if IMAGES == "cifar10":
        (X, y), (X_new, y_new) = keras.datasets.cifar10.load_data()
        X, X_new = ((images.astype("float32") - 121) / 64 for images in (X, X_new))
        return X[:10000], y[:10000, 0], X_new[:2000], y_new[:2000, 0]  # only a part, to save time
    data = kgrad.make_dataset("digits")  # 1,797 handwritten digits of 8 × 8 pixels
    X, y = data.X.reshape(-1, 8, 8, 1), data.y
    return X[:1400], y[:1400], X[1400:], y[1400:]


X, y, X_new, y_new = load()
print(f"{IMAGES}: {len(X)} training images of shape {X.shape[1:]}, {len(X_new)} test images")

# %% [markdown]
# ## The experiment
#
# The network has ten blocks, each with two convolutions of 16 filters. In the residual network,
# each block adds its input to its output.


# %%
def convolution(name, initializer, activation="relu"):
    look = {"padding": "same", "activation": activation, "kernel_initializer": initializer}
    return keras.layers.Conv2D(16, 3, name=name, **look)


def network(residual, initializer="glorot_uniform", zero=False):
    """Build the network. With `zero`, each block's last convolution is linear and starts at 0."""
    keras.utils.set_random_seed(0)
    last = ("zeros", None) if zero else (initializer,)
    inputs = keras.Input(X.shape[1:])
    x = keras.layers.MaxPooling2D()(convolution("stem", initializer)(inputs))
    for block in range(1, 11):
        branch = convolution(f"block{block}_1", initializer)(x)
        branch = convolution(f"block{block}_2", *last)(branch)
        x = keras.layers.add([x, branch]) if residual else branch
    outputs = keras.layers.Dense(10, activation="softmax", name="classes")
    return keras.Model(inputs, outputs(keras.layers.Flatten()(x)))


# %%
LOSS, EPOCHS = "sparse_categorical_crossentropy", 2 if FAST else 5


def train(*which):
    model, adam = network(*which), keras.optimizers.Adam(0.003)
    history = kgrad.train_and_track_gradients(
        model, X, y, EPOCHS, batch_size=64, optimizer=adam, loss=LOSS, seed=0
    )
    right = np.mean(np.argmax(model.predict(X_new, verbose=0), axis=1) == y_new)
    return history, right


runs = {"plain": train(False), "residual": train(True)}

# %%
kgrad.plot_gradients(
    {name: history for name, (history, _) in runs.items()},
    title="Twenty convolutions with Glorot: only the residual network learns",
)

# %%
for name, (history, right) in runs.items():
    print(f"{name}: loss {history.logs['loss'][-1]:.3f}, accuracy on new images {right:.0%}")

# %% [markdown]
# The upper panels show the gradient during training, with one line per layer, light near the input.
# The lower panels show the same as heatmaps. Look at epoch 0 of the plain network, on the left: all
# lines are very low. How low are they, compared with He's variance?


# %%
def norms(*which):
    """Return the gradient norms of the convolution kernels before training, and the loss."""
    history = kgrad.measure_gradients(network(*which), X[:256], y[:256], LOSS)
    kernels = [weight.name == "kernel" for weight in history.weights]
    return history["l2_norm"][0, kernels][:-1], history.logs["loss"][0]


glorot, he = norms(False)[0], norms(False, "he_normal")[0]

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, values in (("He", he), ("Glorot", glorot)):
    axes.semilogy(np.arange(1, 22), values, marker=".", label=f"plain, {name}")
axes.semilogy(np.arange(1, 22), norms(True)[0], marker=".", label="residual, Glorot")
axes.semilogy(np.arange(1, 22), he * 2.0**-10, "k--", label="He × (1/√2)²⁰")
axes.set(
    xlabel="convolution, input → output",
    ylabel="gradient norm",
    title="Before training, Glorot gives a thousandth of He's gradient",
)
axes.set(xticks=range(1, 22, 5))
name_lines(axes)
plt.show()

# %%
measured = np.exp(np.mean(np.log(glorot / he)))
print(f"Glorot ÷ He: measured {measured:.1e}, expected {2.0**-10:.1e}")
print(f"plain, Glorot: first ÷ last convolution {glorot[0] / glorot[-1]:.2f}")

# %% [markdown]
# ## What it shows, and why
#
# A filter with 3 × 3 × 16 inputs has a fan-in of 144, and its fan-out is the same. With ReLU and
# weights of variance v, each layer multiplies the squared signal in the forward pass, and the
# squared error in the backward pass, by
#
# $$\tfrac{1}{2} \cdot 144 \, v = \begin{cases} 1 & \text{He, } v = 2/144 \\
# \tfrac{1}{2} & \text{Glorot, } v = 2/288. \end{cases}$$
#
# The gradient of a kernel is the product of the signal that enters its layer and the error that
# comes back to it. So the gradient of every layer contains all twenty factors 1/√2, some from the
# forward pass and the others from the backward pass. It is smaller by 2⁻¹⁰ in *every* layer, and
# the ratio of first to last layer does not show this. (At the borders it shrinks a little more,
# because part of a filter sees only padding there.)
#
# The differences between the classes have become just as small in the forward pass. Adam scales
# small gradients up, so it moves all weights by full steps before it has found this weak signal. In
# this run, these steps switch the ReLUs off: from epoch 3 on, the gradient of the convolutions is
# exactly 0.
#
# With skip connections, the signal passes all blocks unchanged, forward and backward, and each
# block only adds to it.

# %% [markdown]
# ## What must hold
#
# The first line holds for any images. The other two were measured on the digits.

# %% tags=["checks"] jupyter={"source_hidden": true}
assert 2.0**-12 < measured < 2.0**-8 and 0.1 < glorot[0] / glorot[-1] < 10
assert runs["plain"][0].logs["loss"][-1] > 2 > 1 > runs["residual"][0].logs["loss"][-1]
assert runs["residual"][1] > 0.6 > 0.3 > runs["plain"][1]

# %% [markdown]
# ## Exercises
#
# **1.** Does the plain network learn with He's initialization?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Yes, but not as fast as the residual network with Keras's default. The wrong variance alone
# stopped the plain network from learning. The remaining difference comes from the depth.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
history, right = train(False, "he_normal")
print(f"plain, He: loss {history.logs['loss'][-1]:.3f}, accuracy on new images {right:.0%}")
assert history.logs["loss"][-1] < 1.6 and right > 0.5

# %% [markdown]
# **2.** Now use both, skip connections and He's initialization. What is the loss before training,
# and how could a block start so that it does no harm?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# The loss is far above guessing, ln 10 = 2.30. Each block at least doubles the variance, because it
# adds a branch that is as large as the block's input. If the last convolution of each block starts
# at zero, each block starts as the identity, and the loss is that of a network with only the stem.
# The zero kernel still gets a gradient, because the signal that enters its layer is not zero. The
# kernel before it gets none until the zeros have changed.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
for zero in (False, True):
    values, start = norms(True, "he_normal", zero)
    print(f"residual, He, zero={zero}: loss {start:.2f}, gradient of the stem {values[0]:.2f}")
    assert (start > 20) == (not zero)
assert values[2::2].min() > 0 == values[1::2].max()

# %% [markdown]
# ## Source
#
# K. He et al., *Deep Residual Learning for Image Recognition*, 2015, and *Delving Deep into
# Rectifiers*, 2015 (the variance of a convolution). H. Zhang, Y. Dauphin, T. Ma, *Fixup
# Initialization*, 2019 (branches that start at zero). The digits are scikit-learn's, by E. Alpaydin
# and C. Kaynak, 1998. CIFAR-10 is by A. Krizhevsky, 2009.

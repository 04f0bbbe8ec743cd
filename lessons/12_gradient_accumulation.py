# %% [markdown]
# # 12. Gradient accumulation: a large batch in small pieces
#
# **Question.** Four batches of 32 are run forward and backward, their gradients are averaged, and
# only then is a step made. What has that to do with one batch of 128, and does it help against
# vanishing?
#
# **Predict first.** Train a network both ways on the same samples in the same order, 8 steps each.
# Write down how far apart the weights will be, relative to their size: 10 %, 1 %, less?

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad

FAST = "KGRAD_FAST" in os.environ  # fewer draws, the same claims
data = kgrad.make_dataset("classification", seed=0)


# %%
def train(batch, pieces=None, depth=5, activation="relu", weights="he", normalization=None):
    """One epoch of 1,024 samples in their order; the history has a record every 128 samples."""
    model = kgrad.create_model(depth, activation, weights, normalization=normalization, seed=0)
    sgd = keras.optimizers.SGD(0.05, gradient_accumulation_steps=pieces)
    history = kgrad.train_and_track_gradients(
        model, data.X, data.y, 1, batch_size=batch, optimizer=sgd, every=128 // batch, shuffle=False
    )
    return history, np.concatenate([np.ravel(w) for w in model.trainable_variables])


# %% [markdown]
# ## The experiment
#
# Batches of 128; batches of 32, four of which make a step; and batches of 32 that each make a step.
# The figure has the gradient's norm in the first layer, at each update in the first two runs, and
# as the root mean square over four updates in the third. Look whether dots lie on circles.

# %%
runs = {
    "128": train(128),
    "4 × 32, accumulated": train(32, pieces=4),
    "32, a step each": train(32),
}

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, (history, _)), look in zip(runs.items(), ("o", ".", "x--"), strict=True):
    first = history.by_layer("l2_norm")[1:, 0]
    axes.plot(range(1, 9), first, look, label=name, markersize=12 if look == "o" else 6, mfc="none")
axes.set(
    xlabel="samples seen ÷ 128", ylabel="gradient norm, hidden_1", title="One epoch, three ways"
)
axes.legend()
plt.show()


def apart(name, other="128"):
    """Distance of the weights at the end, relative to their length."""
    a, b = runs[name][1], runs[other][1]
    return np.linalg.norm(a - b) / np.linalg.norm(b)


norms = [runs[name][0]["l2_norm"][1:] for name in runs]
gradients_apart = np.max(np.abs(norms[1] / norms[0] - 1))
for name in list(runs)[1:]:
    print(f"{name}: weights {apart(name):.1e} from those of batches of 128")
print(f"accumulated: gradient norms of all weights and steps within {gradients_apart:.0e}")

# %% [markdown]
# What does averaging do to the gradient? We draw k batches of 32, average their gradients, and
# measure how far the average is from the gradient of all samples.

# %%
model = kgrad.create_model(5, "relu", "he", seed=0)
draws = 64 if FAST else 256
random = np.random.default_rng(0)


@tf.function(autograph=False)
def gradient(X, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.binary_crossentropy(y, model(X)))
    parts = tape.gradient(loss, model.trainable_variables)
    return tf.concat([tf.reshape(part, [-1]) for part in parts], axis=0)


# %%
everything = gradient(data.X, data.y).numpy()
rows = [random.choice(len(data.X), 32) for _ in range(draws)]
small = np.array([gradient(data.X[i], data.y[i]) for i in rows])
pieces = np.array([1, 2, 4, 8, 16])
noise = []
for k in pieces:
    averages = small.reshape(-1, k, small.shape[1]).mean(axis=1)
    noise.append(np.sqrt(((averages - everything) ** 2).sum(axis=1).mean()))
noise = np.array(noise) / np.linalg.norm(everything)

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.loglog(pieces, noise, "o", color="tab:blue", label="measured")
axes.loglog(pieces, noise[0] / np.sqrt(pieces), "k--", label="1/√k")
axes.set(xlabel="batches of 32 averaged, k", ylabel="noise ÷ length of the gradient")
axes.set(title="Averaging takes noise away", xticks=pieces, xticklabels=pieces)
axes.set(yticks=[0.1, 0.2, 0.4, 0.6], yticklabels=[0.1, 0.2, 0.4, 0.6])
axes.minorticks_off()
axes.legend()
plt.show()

slope = np.polyfit(np.log(pieces), np.log(noise), 1)[0]
print("noise ÷ gradient:", np.round(noise, 2), f"slope {slope:.2f}")

# %% [markdown]
# And vanishing? Ten sigmoid layers, with and without accumulation:

# %%
vanishing = {}
for pieces_a_step in (None, 4):
    history, _ = train(32, pieces_a_step, 10, "sigmoid", "xavier")
    first = history.by_layer("l2_norm")[1:]
    vanishing[pieces_a_step] = np.median(first[:, 0] / first[:, 9])
    print(f"accumulation {pieces_a_step}: first ÷ last hidden layer {vanishing[pieces_a_step]:.1e}")

# %% [markdown]
# ## What it shows, and why
#
# The loss is a mean over samples, and so is its gradient. The mean of four means over 32 is the
# mean over 128, as long as the pieces are of equal size:
#
# $$\frac{1}{4} \sum_{k=1}^{4} \frac{1}{32} \sum_{i \in B_k} \nabla \ell_i
# = \frac{1}{128} \sum_{i \in B_1 \cup \dots \cup B_4} \nabla \ell_i .$$
#
# Only the order of the additions differs, hence the last digits. What accumulation buys is memory:
# the activations of 32 samples have to be held, not those of 128. Like any larger batch it takes
# noise from the gradient, by 1/√k for k batches, and it makes fewer steps of the same data.
#
# It does nothing for vanishing. The average of four gradients each of which is a few millionths of
# what the last layer gets is a few millionths, too. Nor is a gradient made larger, unless one
# forgets to divide: the sum of four gradients is four times the mean, as if the learning rate were
# four times as large.

# %% [markdown]
# ## What must hold

# %%
assert apart("4 × 32, accumulated") < 1e-5 and gradients_apart < 1e-3
assert apart("32, a step each") > 100 * apart("4 × 32, accumulated")
assert abs(slope + 0.5) < 0.12
assert max(vanishing.values()) < 1e-3

# %% [markdown]
# ## Exercises
#
# **1.** Put batch normalisation before each activation. Are four batches of 32 still one of 128?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# No. Each piece is normalised by the mean and variance of its own 32 samples, so that the loss of a
# sample depends on what it is together with. The gradients, and the weights, differ from the first
# step on.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
runs["batch norm, 128"] = train(128, normalization="batch")
runs["batch norm, 4 × 32"] = train(32, pieces=4, normalization="batch")
normalised = apart("batch norm, 4 × 32", "batch norm, 128")
print(f"with batch normalisation: weights {normalised:.1e} apart")
assert normalised > 1000 * apart("4 × 32, accumulated")

# %% [markdown]
# **2.** Somebody writes the loop by hand, over 1,000 samples, with i the index of the first sample
# of each batch: 0, 32, 64 and so on. A step is made, and the sum set to zero, whenever i + 1 can be
# divided by 128. How many steps does an epoch have?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# None: i is a multiple of 32, so that i + 1 never is one. Nothing is learnt, no error is raised,
# and the loss that is printed looks like that of a hard task. Right is to count the batches: 32 of
# them make 8 steps. (The last batch has 8 samples only and would count as much as a full one.) How
# far the weights moved (`update_l2`) would have shown the mistake at once.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
starts = range(0, 1000, 32)
never = sum((i + 1) % 128 == 0 for i in starts)
counted = sum((batch + 1) % 4 == 0 for batch in range(len(starts)))
print(f"{len(starts)} batches: {never} steps as written, {counted} if batches are counted")
assert (never, counted) == (0, 8)

# %% [markdown]
# ## Source
#
# The course of slides that these lessons follow names gradient accumulation among the remedies. For
# what batch size does to the noise: L. Bottou, F. Curtis, J. Nocedal, *Optimization Methods for
# Large-Scale Machine Learning*, 2018.

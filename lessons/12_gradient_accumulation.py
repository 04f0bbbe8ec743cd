# %% [markdown]
# # 12. Gradient accumulation: a large batch in small pieces
#
# **Part:** What helps · **Level:** basic · **After:** lesson 2
#
# **Question.** Four batches of 32 samples go forward and backward through a network. Their
# gradients are averaged, and only then are the weights updated. How does this differ from one batch
# of 128, and does it help against vanishing gradients?
#
# **Predict first.** Train a network in both ways, on the same samples in the same order, for 8
# steps each. How far apart will the weights be, relative to their size: 10 %, 1 %, or less? Write
# down your guess.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad

FAST = "KGRAD_FAST" in os.environ  # fast mode: fewer draws, the same claims
data = kgrad.make_dataset("classification", seed=0)


# %%
def train(batch, pieces=None, depth=5, activation="relu", weights="he", normalization=None):
    """Train one epoch on 1,024 samples in fixed order, with a record every 128 samples."""
    model = kgrad.create_model(depth, activation, weights, normalization=normalization, seed=0)
    sgd = keras.optimizers.SGD(0.05, gradient_accumulation_steps=pieces)
    history = kgrad.train_and_track_gradients(
        model, data.X, data.y, 1, batch_size=batch, optimizer=sgd, every=128 // batch, shuffle=False
    )
    return history, np.concatenate([np.ravel(w) for w in model.trainable_variables])


# %% [markdown]
# ## The experiment
#
# We compare three runs: batches of 128; batches of 32 with one step after every four batches; and
# batches of 32 with one step after each batch. The figure shows the gradient norm of the first
# layer. For the first two runs it is the norm at each step, for the third run the root mean square
# over four steps. Check whether the dots lie inside the circles.

# %%
runs = {
    "128": train(128),
    "4 × 32, accumulated": train(32, pieces=4),
    "32, one step each": train(32),
}

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, (history, _)), look in zip(runs.items(), ("o", ".", "x--"), strict=True):
    first = history.by_layer("l2_norm")[1:, 0]
    axes.plot(range(1, 9), first, look, label=name, markersize=12 if look == "o" else 6, mfc="none")
axes.set(
    xlabel="samples seen ÷ 128", ylabel="gradient norm, hidden_1", title="One epoch, three ways"
)
axes.legend()
plt.show()


# %%
def apart(name, other="128"):
    """Return the distance between two runs' final weights, relative to their length."""
    a, b = runs[name][1], runs[other][1]
    return np.linalg.norm(a - b) / np.linalg.norm(b)


norms = [runs[name][0]["l2_norm"][1:] for name in runs]
gradients_apart = np.max(np.abs(norms[1] / norms[0] - 1))
for name in list(runs)[1:]:
    print(f"{name}: weights differ by {apart(name):.1e} from those of batches of 128")
print(f"accumulated: all gradient norms agree to within {gradients_apart:.0e}")

# %% [markdown]
# What does averaging do to the gradient? We draw k batches of 32 samples and average their
# gradients. Then we measure how far this average is from the gradient of all samples.

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

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.loglog(pieces, noise, "o", color="tab:blue", label="measured")
axes.loglog(pieces, noise[0] / np.sqrt(pieces), "k--", label="1/√k")
axes.set(xlabel="number of averaged batches of 32, k", ylabel="noise ÷ gradient norm")
axes.set(title="Averaging reduces the noise", xticks=pieces, xticklabels=pieces)
axes.set(yticks=[0.1, 0.2, 0.4, 0.6], yticklabels=[0.1, 0.2, 0.4, 0.6])
axes.minorticks_off()
axes.legend()
plt.show()

# %%
slope = np.polyfit(np.log(pieces), np.log(noise), 1)[0]
print("noise ÷ gradient:", np.round(noise, 2), f"slope {slope:.2f}")

# %% [markdown]
# And does accumulation help against vanishing? We train ten sigmoid layers with and without it:

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
# The loss is a mean over samples, and so is its gradient. If the pieces have equal size, the mean
# of four means over 32 samples is the mean over all 128:
#
# $$\frac{1}{4} \sum_{k=1}^{4} \frac{1}{32} \sum_{i \in B_k} \nabla \ell_i
# = \frac{1}{128} \sum_{i \in B_1 \cup \dots \cup B_4} \nabla \ell_i .$$
#
# Only the order of the additions differs, so the results differ only in the last digits.
# Accumulation saves memory: at any time the activations of only 32 samples have to be stored, not
# those of 128. Like any larger batch, it reduces the noise in the gradient, by a factor of 1/√k for
# k batches. It also makes fewer steps with the same data.
#
# It does nothing against vanishing. If each of four gradients in the first layer is a few
# millionths of the last layer's, then so is their average. Accumulation does not make gradients
# larger either, unless you forget to divide: the sum of four gradients is four times their mean, as
# if the learning rate were four times as large.

# %% [markdown]
# ## What must hold

# %% tags=["checks"] jupyter={"source_hidden": true}
assert apart("4 × 32, accumulated") < 1e-5 and gradients_apart < 1e-3
assert apart("32, one step each") > 100 * apart("4 × 32, accumulated")
assert abs(slope + 0.5) < 0.12
assert max(vanishing.values()) < 1e-3

# %% [markdown]
# ## Exercises
#
# **1.** Add batch normalization before each activation. Are four batches of 32 still the same as
# one batch of 128?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# No. Each piece is normalized with the mean and the variance of its own 32 samples. So the loss of
# a sample depends on the other samples in its piece. The gradients, and with them the weights,
# differ from the first step on.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
runs["batch norm, 128"] = train(128, normalization="batch")
runs["batch norm, 4 × 32"] = train(32, pieces=4, normalization="batch")
normalized = apart("batch norm, 4 × 32", "batch norm, 128")
print(f"with batch normalization: weights differ by {normalized:.1e}")
assert normalized > 1000 * apart("4 × 32, accumulated")

# %% [markdown]
# **2.** Suppose that you write the training loop by hand, for 1,000 samples. Let i be the index of
# the first sample of each batch: 0, 32, 64 and so on. Your loop makes a step, and resets the sum of
# the gradients to zero, whenever i + 1 is divisible by 128. How many steps does one epoch have?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# None. The index i is a multiple of 32, so i + 1 is never divisible by 32, and never by 128.
# Nothing is learned, no error is raised, and the printed loss looks like that of a difficult task.
# The correct way is to count the batches: 32 batches make 8 steps. (The last batch has only 8
# samples and would count as much as a full one.) The distance that the weights move (`update_l2`)
# would have shown the mistake at once.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
starts = range(0, 1000, 32)
never = sum((i + 1) % 128 == 0 for i in starts)
counted = sum((batch + 1) % 4 == 0 for batch in range(len(starts)))
print(f"{len(starts)} batches: {never} steps as written, {counted} if you count batches")
assert (never, counted) == (0, 8)

# %% [markdown]
# ## Source
#
# The slides of the course that these lessons follow list gradient accumulation among the remedies.
# For the effect of the batch size on the noise: L. Bottou, F. Curtis, J. Nocedal, *Optimization
# Methods for Large-Scale Machine Learning*, 2018.

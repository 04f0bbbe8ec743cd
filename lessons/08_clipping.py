# %% [markdown]
# # 8. Gradient clipping: by norm and by value
#
# **Part:** What helps · **Level:** basic · **After:** lesson 4
#
# **The idea.** Your goal lies 90 steps east and 30 steps north, but you may not go that far. You
# can walk straight towards it and stop early: then the direction is right. Or you can limit east
# and north to 30 steps each: then you go 30 steps east and 30 north, in another direction. Clipping
# by norm does the first, and clipping by value the second.
#
# ![The same long step, clipped in two ways. By norm: the step ends at a circle, and keeps its
# direction. By value: the step ends in the corner of a square, and has turned. Both clipped steps
# have the same length.](../docs/lessons/figures/08_idea.svg)
#
# **Question.** A recurrent network applies the same matrix fifty times. What does a single step
# with an enormous gradient do to such a network, and what do the two kinds of clipping change?
#
# **Predict first.** The loss starts near 5, and the learning rate is 0.0005. Write down your guess
# for the norm of the first gradient, and for the number of steps that plain SGD can make before the
# loss is NaN.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fewer networks and steps, same claims
SEEDS, EPOCHS = (range(1), 8) if FAST else (range(2), 12)
RATE, LIMIT, T = 5e-4, 30.0, 50

random = np.random.default_rng(0)
X = random.normal(size=(512, T, 2)).astype("float32")
y = X[:, :, :1].sum(axis=1) / np.sqrt(T)  # sum of the first column; variance near 1


def network(seed):
    """Build a ReLU RNN whose recurrent matrix starts as the identity (Le et al. 2015)."""
    keras.utils.set_random_seed(seed)
    rnn = keras.layers.SimpleRNN(32, activation="relu", recurrent_initializer="identity")
    return keras.Sequential([keras.Input((T, 2)), rnn, keras.layers.Dense(1)])


# %% [markdown]
# ## The experiment
#
# The network reads a sequence of 50 time steps with two numbers each, and must output the scaled
# sum of the first numbers. We train it in three ways: without clipping, clipped by norm at 30, and
# clipped by value. For clipping by value, the bound for each entry is 30/√1153. The gradient has
# 1,153 entries, so its norm cannot exceed 30 in this case either.

# %%
bound = LIMIT / np.sqrt(network(0).count_params())


def train(seed, epochs=EPOCHS, rate=RATE, **clipping):
    sgd = keras.optimizers.SGD(rate, **clipping)
    return kgrad.train_and_track_gradients(
        network(seed), X, y, epochs, optimizer=sgd, loss="mse", every=1, seed=0, clipped=True
    )


runs = {"unclipped": [train(seed, epochs=1) for seed in SEEDS]}  # one is enough to fail
runs["by norm"] = [train(seed, global_clipnorm=LIMIT) for seed in SEEDS]
runs["by value"] = [train(seed, clipvalue=bound) for seed in SEEDS]


def norm(history, statistic="l2_norm"):
    """Return the norm of the whole gradient at each step."""
    return np.sqrt((history[statistic] ** 2).sum(axis=1))[1:]


# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, color in (("by value", "C4"), ("by norm", "C0")):
    loss = runs[name][0].logs["loss"][1:].reshape(-1, 16).mean(axis=1)
    axes.semilogy(np.arange(1, EPOCHS + 1), loss, color=color, marker=".", label=f"clipped {name}")
loss = runs["unclipped"][0].logs["loss"][1:4]
axes.semilogy(np.arange(1, 4) / 16, loss, "x-", color="C1")
axes.set(
    xlabel="epoch (16 steps)",
    ylabel="loss",
    ylim=(0.03, 1e4),
    title="Clipping by norm learns; without it the loss explodes",
)
axes.annotate(f"unclipped: ↑ {loss[1]:.0e} in step 2, soon NaN", (0.5, 3e3), color="C1")
name_lines(axes)
plt.show()

# %%
print("unclipped: loss in the first three steps:", *(f"{value:.1e}" for value in loss))
first = [norm(history)[0] for history in runs["unclipped"]]
finite = [int(np.isfinite(history.logs["loss"][1:]).sum()) for history in runs["unclipped"]]
print("norm of the first gradient:", np.round(first), "steps with a finite loss:", finite)
last = {name: [h.logs["loss"][-16:].mean() for h in runs[name]] for name in runs}
print("loss in the last epoch:", {name: np.round(last[name], 3).tolist() for name in last})

# %% [markdown]
# What did one step without clipping do to the recurrent matrix, and to the network's state after 50
# inputs?

# %%
model = network(0)
rnn, batch = model.layers[0], (X[:32], y[:32])
before = np.abs(rnn(batch[0])).max()
with tf.GradientTape() as tape:
    loss = tf.reduce_mean((model(batch[0]) - batch[1]) ** 2)
gradient = tape.gradient(loss, model.trainable_variables)
for weight, g in zip(model.trainable_variables, gradient, strict=True):
    weight.assign_sub(RATE * g)
after = np.abs(rnn(batch[0])).max()
sigma = np.linalg.norm(rnn.cell.recurrent_kernel, 2)
print(f"largest singular value: 1 before, {sigma:.2f} after; to the power 50: {sigma**T:.0e}")
print(f"largest entry of the state: {before:.0f} before, {after:.0e} after")

# %% [markdown]
# And how much of the gradient remained after clipping in each step?

# %% tags=["figure"] jupyter={"source_hidden": true}
clipped = runs["by norm"][0]
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.semilogy(norm(clipped), ".", color="0.6", label="gradient")
axes.semilogy(norm(clipped, "clipped_l2"), color="C0", label="after clipping by norm")
axes.set(xlabel="step", ylabel="norm", title="Clipping acts often at first, then rarely")
axes.legend()
plt.show()

# %%
acted = np.array([h["clipped_steps"].max(axis=1)[1:] for h in runs["by norm"]])
early, late = acted[:, :50].mean(), acted[:, -50:].mean()
print(f"steps clipped: {early:.0%} of the first 50, {late:.0%} of the last 50")

flat = np.concatenate([np.ravel(g) for g in gradient])
parts = np.concatenate([np.ravel(tf.clip_by_norm(g, LIMIT)) for g in gradient])
left = flat * min(1, LIMIT / np.linalg.norm(flat)), np.clip(flat, -bound, bound), parts
straight, bent, each = (flat @ g / np.linalg.norm(flat) / np.linalg.norm(g) for g in left)
print("cosine between the first gradient before and after clipping:")
print(f"by norm {straight:.2f}, by value {bent:.2f}, by the norm of each weight {each:.2f}")

# %% [markdown]
# ## What it shows, and why
#
# On its way back through T time steps, the gradient is multiplied by the same matrix T times. D is
# a diagonal matrix with the slopes, which are 0 or 1 for ReLU:
#
# $$\frac{\partial h_T}{\partial h_0} = \prod_{t=1}^{T} D_t W, \qquad
# \left\| \frac{\partial h_T}{\partial h_0} \right\| \le \sigma_{\max}(W)^T .$$
#
# With W = I nothing grows. The gradient is large nevertheless, because it is a sum over T steps
# that all demand the same change. One step in its direction makes σ_max so large that its 50th
# power is a million. The loss has a cliff there, and a few steps later it is NaN. Clipping does not
# remove the cliff. It limits how far a single step can jump:
#
# $$\text{by norm: } g \leftarrow g \cdot \min\!\left(1, \frac{c}{\|g\|}\right), \qquad
# \text{by value: } g_i \leftarrow \max(-b, \min(b, g_i)).$$
#
# Clipping by norm keeps the direction of the gradient. Clipping by value makes all entries that are
# too large equally large, which changes the direction: the steps are as long, but they reduce the
# loss less. In Keras, `global_clipnorm` limits the norm of the whole gradient. `clipnorm` limits
# the gradient of each weight separately, so it changes the direction of the whole gradient, too.

# %% [markdown]
# ## What must hold
#
# Without clipping the loss is soon NaN. Clipping by norm learns more than clipping by value, it
# keeps the direction of the gradient, and it acts far more often at the beginning than at the end.

# %% tags=["checks"] jupyter={"source_hidden": true}
assert max(finite) < 10 and min(first) > 3 * LIMIT
assert sigma**T > 1e4 and after > 1e3 * before
assert max(last["by norm"]) < 0.3 < 0.5 < min(last["by value"])
assert early > 0.8 > 0.7 > late
assert straight > 0.999 and max(bent, each) < 0.9

# %% [markdown]
# ## Exercises
#
# **1.** Would a smaller learning rate have worked as well? Find one that is safe, and compare the
# loss.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# With a fiftieth of the rate, 0.00001, training survives the first step, which is then as long as a
# clipped step. But all later steps are fifty times shorter as well, and the final loss is higher.
# Clipping shortens only the steps that need it.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
slow = train(0, rate=1e-5).logs["loss"][-16:].mean()
print(f"learning rate 0.00001, unclipped: loss in the last epoch {slow:.3f}")
assert slow > 1.3 * last["by norm"][0]

# %% [markdown]
# **2.** Train ten sigmoid layers with `global_clipnorm=1`. How often does clipping act?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# It may act once or twice in the first steps, because of the output layer. The first hidden layer
# moves no further than without clipping, because clipping can only make a step shorter. It is no
# remedy for vanishing gradients.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
data = kgrad.make_dataset("classification")
moved = {}
for limit in (None, 1.0):
    sigmoid = kgrad.create_model(10, "sigmoid", "xavier", seed=0)
    sgd = keras.optimizers.SGD(0.05, global_clipnorm=limit)
    run = kgrad.train_and_track_gradients(sigmoid, data.X, data.y, 2, optimizer=sgd, seed=0)
    moved[limit] = run.by_layer("update_l2")[1, 0] / run.by_layer("weight_l2")[1, 0]
    print(f"limit {limit}: the first layer moved by {moved[limit]:.1e} of its length")
print(f"clipped in {run['clipped_steps'][1:].max(axis=1).sum():.0f} of 64 steps")
assert moved[1.0] < 1.2 * moved[None] < 1e-6

# %% [markdown]
# ## Source
#
# R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training recurrent neural networks*,
# 2013. Q. Le, N. Jaitly, G. Hinton, *A Simple Way to Initialize Recurrent Networks of Rectified
# Linear Units*, 2015, for the network.

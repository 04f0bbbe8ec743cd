# %% [markdown]
# # 17. Transformers: where to put the normalization
#
# **Part:** Practice · **Level:** advanced · **After:** lessons 9 and 10
#
# **Question.** A block of a transformer adds branches to its input and normalizes. The first
# transformers normalized after the sum (post-norm). Most of today's normalize before the branch
# (pre-norm). How does this affect the gradients?
#
# **Predict first.** Go from two blocks to sixteen. By what factor does the gradient of the *last*
# block change, before training, in each of the two designs?

# %%
import itertools
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fast mode: fewer and smaller networks, the same claims
WORDS, LENGTH, WIDTH = 10, 8, 32
X = np.random.default_rng(0).integers(WORDS, size=(2048, LENGTH))
y = X[:, ::-1]  # the task: repeat the sequence backward
LOSS = "sparse_categorical_crossentropy"

# %% [markdown]
# ## The experiment
#
# A block has two branches: attention, and a pair of dense layers. Each branch adds to its input.
# The two designs differ in one line.


# %%
def block(kind, x, number):
    attention = layers.MultiHeadAttention(2, WIDTH // 2, name=f"attention_{number}")
    wide = layers.Dense(2 * WIDTH, activation="relu", name=f"wide_{number}")
    narrow = layers.Dense(WIDTH, name=f"narrow_{number}")
    for name, branch in {"a": lambda z: attention(z, z), "b": lambda z: narrow(wide(z))}.items():
        norm = layers.LayerNormalization(name=f"norm_{number}{name}")
        x = norm(x + branch(x)) if kind == "post-norm" else x + branch(norm(x))
    return x


# %%
def transformer(kind, blocks, seed):
    keras.utils.set_random_seed(seed)
    small = keras.initializers.RandomNormal(stddev=0.1)
    tokens = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(WORDS, WIDTH, small, name="words")(tokens)
    x = x + layers.Embedding(LENGTH, WIDTH, small, name="places")(keras.ops.arange(LENGTH))
    for number in range(1, blocks + 1):
        x = block(kind, x, number)
    if kind == "pre-norm":
        x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(tokens, layers.Dense(WORDS, activation="softmax", name="word")(x))


# %% [markdown]
# We measure the gradient of each block's last matrix, called `narrow`, in networks with more and
# more blocks.

# %%
depths = [2, 8] if FAST else [2, 4, 8, 16]
seeds = range(2 if FAST else 3)
colors = {"post-norm": "C4", "pre-norm": "C0"}


def gradient_by_block(kind, blocks, seed):
    history = kgrad.measure_gradients(transformer(kind, blocks, seed), X[:128], y[:128], LOSS)
    norms = history.by_layer("l2_norm")[0]
    return [norms[history.layers.index(f"narrow_{i}")] for i in range(1, blocks + 1)]


profiles = {}
for kind, blocks in itertools.product(colors, depths):
    found = [gradient_by_block(kind, blocks, seed) for seed in seeds]
    profiles[kind, blocks] = np.exp(np.log(found).mean(axis=0))

# %% tags=["figure"] jupyter={"source_hidden": true}
last = {kind: np.array([profiles[kind, blocks][-1] for blocks in depths]) for kind in colors}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for kind, color in colors.items():
    axes.loglog(depths, last[kind], "o-", color=color, label=kind)
axes.loglog(depths, last["pre-norm"][0] * np.sqrt(2 / np.array(depths)), "k:", label="1/√blocks")
axes.set(
    xlabel="blocks",
    ylabel="gradient norm, last block",
    title="With more blocks, only pre-norm gradients get smaller",
)
axes.set(xticks=depths, xticklabels=depths)
axes.set(yticks=[0.4, 0.6, 0.8, 1, 1.2], yticklabels=["0.4", "0.6", "0.8", "1", "1.2"])
axes.minorticks_off()
name_lines(axes)
plt.show()

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for kind, color in colors.items():
    axes.plot(range(1, depths[-1] + 1), profiles[kind, depths[-1]], "o-", color=color, label=kind)
axes.set(
    xlabel="block",
    ylabel="gradient norm",
    title=f"{depths[-1]} blocks: post-norm falls to the input, pre-norm rises",
    ylim=0,
)
name_lines(axes)
plt.show()

# %%
for kind in colors:
    by_block = profiles[kind, depths[-1]]
    print(
        f"{kind}: last block, {depths[-1]} blocks ÷ 2 blocks {last[kind][-1] / last[kind][0]:.2f}"
    )
    print(f"{kind}: {depths[-1]} blocks, first block ÷ last {by_block[0] / by_block[-1]:.2f}")

# %% [markdown]
# In the first figure the horizontal axis is the number of blocks in the network. In the second it
# is the position of the block in the largest network. No gradient vanishes, because both designs
# have skip connections. But look at the level: when blocks are added, the gradient of the last
# block becomes smaller with pre-norm, and does not with post-norm.
#
# Does this matter for learning? We train both with Adam and a learning rate that is large for a
# transformer.

# %%
blocks, epochs = (3, 3) if FAST else (4, 4)


def train(kind, learning_rate):
    model = transformer(kind, blocks, seed=0)
    model.compile(keras.optimizers.Adam(learning_rate), LOSS)
    return kgrad.train_and_track_gradients(
        model, X, y, epochs, batch_size=64, every=8, seed=0, jit_compile=False
    )


histories = {kind: train(kind, 0.01) for kind in colors}

# %%
kgrad.plot_gradients(histories, title="Without warm-up, only pre-norm learns", statistic="l2_norm")

# %%
loss = {kind: history.logs["loss"][-4:].mean() for kind, history in histories.items()}
print(f"loss in the last epoch (guessing: {np.log(WORDS):.2f}):")
print(", ".join(f"{kind} {value:.3f}" for kind, value in loss.items()))

# %% [markdown]
# ## What it shows, and why
#
# Let F be a branch. The two designs are
#
# $$\text{post:}\quad x_{l+1} = \mathrm{LN}(x_l + F(x_l)), \qquad
# \text{pre:}\quad x_{l+1} = x_l + F(\mathrm{LN}(x_l)).$$
#
# LN divides by the standard deviation s of its input, so its derivative is about 1/s.
#
# *Post-norm.* The output of the last block is normalized again, whatever the blocks below it do. So
# the gradient that enters this block does not depend on the number of blocks. Each normalization on
# the way down divides again, so the lower blocks get less.
#
# *Pre-norm.* Each branch adds a variance v to the sum, and no block divides it again. After L
# blocks the variance is about 2Lv, and the single normalization at the end divides by its square
# root:
#
# $$\Big|\frac{\partial \mathcal{L}}{\partial x_L}\Big| \sim \frac{1}{\sqrt{2 L v}}.$$
#
# From there the gradient passes down the skip connections to every block. So in deeper pre-norm
# networks each block has a smaller gradient.
#
# Post-norm starts with large gradients near the output. Adam's first steps, which all have full
# length, do damage. In the third figure, the gradients of post-norm have ordinary size at step 0,
# and within sixty steps they have fallen by decades. Training has *turned* this network into one
# with vanishing gradients. This is why post-norm transformers are trained with a *warm-up*, a
# learning rate that starts near 0.

# %%
slopes = {kind: np.polyfit(np.log(depths), np.log(last[kind]), 1)[0] for kind in colors}
for kind, slope in slopes.items():
    print(f"{kind}: last block's gradient ~ blocks to the power {slope:+.2f}")

# %% [markdown]
# ## What must hold

# %% tags=["checks"] jupyter={"source_hidden": true}
assert slopes["post-norm"] > -0.1
assert slopes["pre-norm"] < -0.2
assert profiles["pre-norm", depths[-1]][0] > 1.4 * profiles["pre-norm", depths[-1]][-1]
assert loss["pre-norm"] < 0.3 * np.log(WORDS)
assert loss["post-norm"] > 0.8 * np.log(WORDS)

# %% [markdown]
# ## Exercises
#
# **1.** Train the post-norm network with the same learning rate, 0.01, but let the learning rate
# reach this value only after 100 steps.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# Use `CosineDecay` with `warmup_target=0.01` and `warmup_steps=100`. The network that was stuck now
# learns. The usual explanation: while the steps are small, Adam's estimate of each gradient's size
# settles, and so do the upper layers.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
schedule = keras.optimizers.schedules.CosineDecay(
    1e-5, decay_steps=10**6, warmup_target=0.01, warmup_steps=100
)
warmed = train("post-norm", schedule).logs["loss"][-4:].mean()
print(f"post-norm with a warm-up: loss in the last epoch {warmed:.3f}")
assert warmed < 0.5 * loss["post-norm"]

# %% [markdown]
# **2.** The last normalization of a pre-norm network divides by a standard deviation. How much does
# this standard deviation grow between 2 and 8 blocks? Compare with √4.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# By about √4 = 2, because the variances of the branches add up. Residual networks without
# normalization grow in the same way.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
spread = []
for number in (2, 8):
    model = transformer("pre-norm", number, seed=0)
    spread.append(keras.Model(model.input, model.layers[-2].input)(X[:128]).numpy().std())
print(f"standard deviation: 2 blocks {spread[0]:.2f}, 8 blocks {spread[1]:.2f}")
assert 1.4 < spread[1] / spread[0] < 2.8

# %% [markdown]
# ## Source
#
# R. Xiong et al., *On Layer Normalization in the Transformer Architecture*, 2020. A. Vaswani et
# al., *Attention Is All You Need*, 2017 (post-norm, with a warm-up).

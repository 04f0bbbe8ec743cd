# %% [markdown]
# # 14. Text: the word in the middle
#
# **Part:** Practice · **Level:** intermediate · **After:** lesson 11
#
# **Question.** One word of a long sentence decides what the sentence means. An LSTM reads the
# sentence from both ends. Does the gradient reach this word, and what does attention change?
#
# **Predict first.** Take a hundred words and a bidirectional LSTM, before training. Divide the
# gradient that reaches the word in the middle by the gradient that reaches the last word. Write
# down your guess.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fast mode: fewer networks, fewer steps, the same claims
LENGTH, KEYS, WORDS = 100, 4, 20
LOSS = keras.losses.sparse_categorical_crossentropy

# Random words, with one of four keys near the middle. The label says which key it is.
random = np.random.default_rng(0)
X = random.integers(KEYS, WORDS, size=(2048, LENGTH))
y = random.integers(KEYS, size=2048)
X[np.arange(2048), LENGTH // 2 - 3 + random.integers(6, size=2048)] = y

# %% [markdown]
# ## The experiment
#
# We compare three readers. The first reads from left to right and answers from its last state. The
# second reads in both directions and answers from the last state of each. The third also reads in
# both directions, but answers from a weighted mean of all states: each state gets a score, and a
# softmax over the positions turns the scores into weights. This is attention in its simplest form.


# %%
def reader(kind, seed):
    keras.utils.set_random_seed(seed)
    words = keras.Input((LENGTH,), dtype="int32")
    vectors = layers.Embedding(WORDS, 8, name="words")(words)
    lstm = layers.LSTM(16, return_sequences=kind in ("attention", "maximum"), name="lstm")
    read = (lstm if kind == "one way" else layers.Bidirectional(lstm, name="bi"))(vectors)
    if kind == "maximum":  # for the second exercise
        read = layers.GlobalMaxPooling1D()(read)
    if kind == "attention":
        weights = layers.Softmax(axis=1, name="weights")(layers.Dense(1, name="score")(read))
        read = keras.ops.sum(weights * read, axis=1)
    model = keras.Model(words, layers.Dense(KEYS, activation="softmax", name="answer")(read))
    model.compile(keras.optimizers.Adam(0.03), LOSS, jit_compile=False)
    return model


# %%
def gradient_by_place(model):
    """Return the norm of the loss's gradient with respect to the word vector at each position."""
    embedding = model.get_layer("words")
    rest = keras.Model(embedding.output, model.output)
    vectors = tf.Variable(embedding(X[:128]))
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(LOSS(y[:128], rest(vectors)))
    return np.sqrt(np.sum(tape.gradient(loss, vectors).numpy() ** 2, axis=(0, 2)))


# %%
kinds = {"one way": "C5", "both ways": "C4", "attention": "C0"}
seeds = range(1 if FAST else 5)
profiles = {
    kind: np.exp(np.mean([np.log(gradient_by_place(reader(kind, s))) for s in seeds], axis=0))
    for kind in kinds
}

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for kind, color in kinds.items():
    axes.semilogy(range(1, LENGTH + 1), profiles[kind], color=color, label=kind)
axes.set(
    xlabel="position of the word",
    ylabel="norm of its gradient",
    title="Only attention reaches the middle",
)
name_lines(axes)
plt.show()

# %%
middle = {kind: profile[LENGTH // 2] / profile[-1] for kind, profile in profiles.items()}
for kind, ratio in middle.items():
    print(f"{kind:>9}: middle ÷ last word {ratio:.1e}")

# %% [markdown]
# The horizontal axis is the position in the sentence. The vertical axis shows how strongly the loss
# reacts to a change of the word at this position. Reading one way gives a straight line that falls
# from the last word to the first. Reading both ways gives a V: each direction serves its own end,
# and the middle is at the bottom. With attention the line is almost level.
#
# Does this matter for learning? We train the second and the third reader on sentences with the key
# in the middle, with the same optimizer and the same number of steps.

# %%
epochs = 2 if FAST else 3
models = {kind: reader(kind, seed=0) for kind in ("both ways", "attention")}
options = {"batch_size": 64, "every": 8, "seed": 0, "jit_compile": False}
histories = {
    kind: kgrad.train_and_track_gradients(model, X, y, epochs, **options)
    for kind, model in models.items()
}

# %%
kgrad.plot_gradients(
    histories, title="With the key in the middle, only attention learns", statistic="l2_norm"
)

# %%
loss = {kind: history.logs["loss"][-4:].mean() for kind, history in histories.items()}
for kind in histories:
    print(f"{kind}: loss in the last epoch {loss[kind]:.3f} (guessing: {np.log(KEYS):.3f})")

# %% [markdown]
# In the upper panels each line is one layer, from the words (light) to the answer (dark), over the
# steps of training. Look at the left side again. Every layer has a gradient of ordinary size, and
# still nothing is learned. An LSTM uses the same weights at all positions, so its gradient is a sum
# over positions, and here almost all of this sum comes from the words at the two ends. A figure
# with one line per layer cannot show what is lost along the sentence. `kgrad.diagnose` compares the
# layers with those of a healthy network, and does find the problem:

# %%
findings = {kind: kgrad.diagnose(histories[kind], models[kind], X, y).rules for kind in models}
print(findings)

# %% [markdown]
# ## What it shows, and why
#
# An LSTM passes its state on from word to word. The gradient comes back the same way, and each step
# multiplies it by a matrix:
#
# $$\frac{\partial h_T}{\partial h_t} = \prod_{k=t+1}^{T} \frac{\partial h_k}{\partial h_{k-1}}
# \quad\Rightarrow\quad \text{factor}^{\,T-t}.$$
#
# The forget gate starts near σ(1) = 0.73. The paths through the other gates add to this, and the
# measured factor is 0.83. Reading from both ends halves the distance, but half of a hundred is
# still fifty factors.
#
# The weighted mean reads every state directly, with weights αₜ that start near 1/T:
#
# $$r = \sum_t \alpha_t h_t, \qquad \frac{\partial r}{\partial h_t} = \alpha_t I + \dots$$
#
# So a path of one step leads to each position. The price is the factor 1/T: at the last word, the
# other two readers get a larger gradient. During training the weights move to the key, and its
# gradient grows.

# %%
steps = np.arange(LENGTH // 2, LENGTH)
factor = np.exp(np.polyfit(steps, np.log(profiles["one way"][steps]), 1)[0])
gate = 1 / (1 + np.exp(-1))
print(f"LSTM: the gradient is multiplied by {1 / factor:.2f} per step; forget gate {gate:.2f}")

# %% [markdown]
# ## What must hold
#
# When an LSTM reads from the ends only, the gradient of the middle word is lost. With attention it
# is not lost. This decides which of the two readers learns.

# %% tags=["checks"] jupyter={"source_hidden": true}
assert middle["both ways"] < 1e-2
assert 0.5 < middle["attention"] < 4
assert loss["both ways"] > 0.95 * np.log(KEYS)
assert loss["attention"] < 0.6 * np.log(KEYS)
assert findings == {"both ways": ("vanishing",), "attention": ()}

# %% [markdown]
# ## Exercises
#
# **1.** Put the key at the beginning of the sentence. Which of the first two readers gets its
# gradient now? What does this say about the tasks on which bidirectional networks do well?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The reader that reads both ways. Its backward direction ends at the first word, so the gradient
# there is about as large as at the last word. For the other reader, the first word is ninety-nine
# steps away. Two directions help a lot if the important words are near one of the ends, and a
# little in between.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
first = {kind: profiles[kind][0] / profiles[kind][-1] for kind in kinds}
print(", ".join(f"{kind}: first ÷ last {ratio:.1e}" for kind, ratio in first.items()))
assert 0.2 < first["both ways"] < 5
assert first["one way"] < 1e-5

# %% [markdown]
# **2.** What helps, the weighting or the short path? Replace attention by the largest value of each
# unit over all positions (`GlobalMaxPooling1D`), which has no weights to learn, and compare. Then
# find out where the trained attention looks.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# The short path helps. With the maximum, the middle gets as much gradient as the ends, to within a
# factor of a few, and after one epoch of training the loss is already well below guessing.
# Attention is only one of several ways to give each position a path of one step. Its special
# advantage is that we can see where it looks. After training, more than half of the weight is on
# the key; at the start it was one hundredth.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
maximum = reader("maximum", seed=0)
profile = gradient_by_place(maximum)
print(f"maximum: middle ÷ last word {profile[LENGTH // 2] / profile[-1]:.1e}")
record = maximum.fit(X, y, batch_size=64, epochs=1, verbose=0)
print(f"maximum: loss in the first epoch {record.history['loss'][0]:.2f}")
assert record.history["loss"][0] < 0.8 * np.log(KEYS)
look = keras.Model(models["attention"].input, models["attention"].get_layer("weights").output)
share = look.predict(X[:256], verbose=0)[X[:256] < KEYS].mean()
print(f"weight that attention puts on the key: {share:.2f}")
assert profile[LENGTH // 2] / profile[-1] > 0.1
assert share > 0.2

# %% [markdown]
# ## Source
#
# D. Bahdanau, K. Cho, Y. Bengio, *Neural Machine Translation by Jointly Learning to Align and
# Translate*, 2015. S. Hochreiter, J. Schmidhuber, *Long Short-Term Memory*, 1997. M. Schuster, K.
# Paliwal, *Bidirectional Recurrent Neural Networks*, 1997.

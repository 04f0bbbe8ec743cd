# %% [markdown]
# # 11. Recurrent networks: what is left after a hundred steps
#
# **Question.** How much does the last state of a recurrent network change if the state a hundred
# steps earlier is changed a little? That is the norm of ∂h_T/∂h_t, and the gradient that comes back
# to step t has to pass through it.
#
# **Predict first.** SimpleRNN, LSTM and GRU as Keras makes them, 32 units, before any training. Put
# them in order: which of them has most left after a hundred steps, and which has least?

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad

FAST = "KGRAD_FAST" in os.environ  # fewer runs, the same claims
T, UNITS, FEATURES = 100, 32, 8
inputs = np.random.default_rng(0).normal(size=(4, T, FEATURES)).astype("float32")


# %%
def layer(name, seed=0, **options):
    keras.utils.set_random_seed(seed)
    kind, _, gate = name.partition(", ")
    rnn = getattr(keras.layers, kind)(UNITS, **options)
    rnn.build((None, T, FEATURES))
    if gate:  # to σ(3) = 0.95. Keras's gates are i f c o in an LSTM, z r h in a GRU
        bias, place = rnn.cell.bias.numpy(), {"LSTM": 1, "GRU": 0}[kind]
        bias.reshape(-1)[place * UNITS : (place + 1) * UNITS] = 3.0
        rnn.cell.bias.assign(bias)
    return rnn


# %% [markdown]
# ## The experiment
#
# One step of the cell at a time, with the Jacobian of its new state by its old one. The state of an
# LSTM is h and c together.


# %%
def step_jacobians(rnn):
    """Of each step's state by the one before: T arrays (sequences, state, state)."""
    sizes = tf.nest.flatten(rnn.cell.state_size)

    @tf.function(autograph=False)
    def step(x, state):
        with tf.GradientTape() as tape:
            tape.watch(state)
            _, new = rnn.cell(x, tf.split(state, sizes, axis=1))
            new = tf.concat(tf.nest.flatten(new), axis=1)
        return new, tape.batch_jacobian(new, state)

    state, found = tf.zeros((len(inputs), sum(sizes))), []
    for t in range(T):
        state, jacobian = step(tf.constant(inputs[:, t]), state)
        found.append(jacobian.numpy().astype(np.float64))
    return found


# %% [markdown]
# By the chain rule the product of the last k of them is ∂h_T/∂h_t, with t = T - k. We take the norm
# (the largest singular value) of the part of it that is h by h.


# %%
def jacobian_norms(rnn):
    """‖∂h_T/∂h_t‖ for T - t = 0 … 100, each sequence in a row."""
    jacobians = step_jacobians(rnn)
    product = np.eye(jacobians[0].shape[-1])[:UNITS]
    norms = [np.ones(len(inputs))]
    for jacobian in reversed(jacobians):
        product = product @ jacobian
        norms.append(np.linalg.norm(product[:, :, :UNITS], 2, axis=(1, 2)))
    return np.transpose(norms)


# %%
names = ["SimpleRNN", "GRU", "LSTM", "GRU, update gate 0.95", "LSTM, forget gate 0.95"]
colors = {name: f"C{i}" for i, name in enumerate(names)}
seeds = range(1 if FAST else 3)
norms = {name: np.concatenate([jacobian_norms(layer(name, s)) for s in seeds]) for name in names}
left = {name: np.exp(np.log(some[:, T]).mean()) for name, some in norms.items()}

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, some in norms.items():
    axes.semilogy(np.exp(np.log(some).mean(axis=0)), color=colors[name], label=name)
axes.set(xlabel="steps back, T - t", ylabel="‖∂h_T / ∂h_t‖", ylim=(1e-25, 1e3))
axes.set(title="What is left of a change")
axes.legend(fontsize=9)
plt.show()

for name, value in left.items():
    print(f"{name}: {value:.0e} after 100 steps")

# %% [markdown]
# Does it matter? The task: was the very first of 100 inputs positive? All after it is noise.


# %%
def task(seed, samples):
    random = np.random.default_rng(seed)
    X = random.normal(size=(samples, T, FEATURES)).astype("float32")
    X[:, 0, 0] = 2 * random.choice([-1, 1], size=samples)
    return X, (X[:, 0, :1] > 0).astype("float32")


X, y = task(0, 1024)
X_new, y_new = task(1, 512)

# %%
EPOCHS = 4 if FAST else 6
losses, accuracy = {}, {}
for name in names[2::2] if FAST else ("SimpleRNN", "GRU", "LSTM", names[-1]):
    model = keras.Sequential([layer(name), keras.layers.Dense(1, activation="sigmoid")])
    model.build((None, T, FEATURES))
    how = {"optimizer": keras.optimizers.Adam(0.005, global_clipnorm=1.0), "batch_size": 64}
    history = kgrad.train_and_track_gradients(model, X, y, EPOCHS, seed=0, **how)
    losses[name] = history.logs["loss"]
    accuracy[name] = np.mean((model(X_new).numpy() > 0.5) == y_new)
    print(f"{name}: loss {losses[name][-1]:.3f}, new cases right {accuracy[name]:.0%}")

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, loss in losses.items():
    axes.plot(loss, marker=".", color=colors[name], label=name)
axes.axhline(np.log(2), color="0.5", linestyle=":", label="guessing")
axes.set(xlabel="epoch", ylabel="loss", title="Remember the first of 100 inputs", ylim=(0, None))
axes.legend(fontsize=9)
plt.show()

# %% [markdown]
# ## What it shows, and why
#
# A SimpleRNN multiplies by one matrix and by slopes of tanh that are at most 1, so that no more can
# be left than
#
# $$\left\| \frac{\partial h_T}{\partial h_t} \right\| = \left\| \prod_{k=t+1}^{T} D_k W
# \right\| \le \sigma_{\max}(W)^{T-t}, \quad D_k = \operatorname{diag}(1 - h_k^2) .$$
#
# Keras starts with an orthogonal W, whose singular values are all 1. What vanishes here is the
# slopes' doing. An LSTM carries its cell by a sum, and one step back multiplies by a gate:
#
# $$c_t = f_t \odot c_{t-1} + i_t \odot g_t, \qquad
# \frac{\partial c_t}{\partial c_{t-1}} = \operatorname{diag}(f_t) + \dots$$
#
# Keras biases the forget gate by 1, so that f is about σ(1) = 0.73. A GRU's state is carried by its
# update gate, which starts at σ(0) = ½, and it forgets faster than the SimpleRNN. Gates do not
# prevent vanishing. They make the factor something that can be chosen, and learnt: biased by 3, to
# 0.95, both keep their state. (The dots count, too: gates depend on the state, and more is left
# than powers of f alone would leave.)
#
# The networks in which nothing is left do not learn what the first input means; what their loss
# falls by is learnt by heart and of no use on new cases. The biased LSTM learns it, although it
# differs in 32 biases only.

# %% [markdown]
# ## What must hold

# %%
assert left["GRU"] < 1e-2 * left["SimpleRNN"] < 1e-4 * left["LSTM"]
assert left["LSTM"] < 1e-4 < 1e-3 < min(left[names[3]], left[names[4]])
assert (norms["SimpleRNN"] < 1.001).all()  # the bound, with σ_max = 1, at every distance
assert accuracy.pop(names[-1]) > 0.9 and all(value < 0.6 for value in accuracy.values())

# %% [markdown]
# ## Exercises
#
# **1.** Give the SimpleRNN an orthogonal matrix of gain 0.9, and one of gain 2. What does the bound
# say for 100 steps, and what is left?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# 0.9¹⁰⁰ = 3·10⁻⁵, and far less is left, because of the slopes. 2¹⁰⁰ = 10³⁰, and far less is left
# here, too, but it is above 1: it explodes. A bound below 1 proves that the gradient vanishes, one
# above 1 proves nothing.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
for gain in (0.9, 2.0):
    matrix = keras.initializers.Orthogonal(gain)
    some = jacobian_norms(layer("SimpleRNN", recurrent_initializer=matrix))
    print(f"gain {gain}: bound {gain**T:.0e}, left {np.exp(np.log(some[:, T]).mean()):.0e}")
    assert (some <= 1.001 * gain ** np.arange(T + 1)).all()
    assert (some[:, T] > 1).all() == (gain > 1)

# %% [markdown]
# **2.** How much would be left of the LSTM's cell if its forget gate alone counted? Compare σ(1)¹⁰⁰
# with what you measured.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# 0.73¹⁰⁰ = 2·10⁻¹⁴, far less than what is left. The other gates and the candidate depend on the
# state before, and add ways for a change to come through.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
alone = (1 / (1 + np.exp(-1))) ** T
print(f"forget gate alone: {alone:.0e}, measured {left['LSTM']:.0e}")
assert left["LSTM"] > 100 * alone

# %% [markdown]
# ## Source
#
# S. Hochreiter, J. Schmidhuber, *Long Short-Term Memory*, 1997. K. Cho et al., *Learning Phrase
# Representations using RNN Encoder–Decoder*, 2014, for the GRU. R. Pascanu, T. Mikolov, Y. Bengio,
# *On the difficulty of training recurrent neural networks*, 2013, for the bound. The bias of the
# forget gate: F. Gers, J. Schmidhuber, F. Cummins, *Learning to Forget*, 2000.

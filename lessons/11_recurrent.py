# %% [markdown]
# # 11. Recurrent networks: what is left after a hundred steps
#
# **Part:** What goes wrong · **Level:** intermediate · **After:** lesson 3
#
# **Question.** Change the state of a recurrent network a little. How much does this change the
# state a hundred steps later? The norm of ∂h_T/∂h_t measures it, and the gradient that comes back
# to step t has to pass through the same matrix.
#
# **Predict first.** Take SimpleRNN, LSTM and GRU with Keras's default settings and 32 units, before
# any training. Rank them: which one keeps most of a change after a hundred steps, and which one
# keeps least?

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fast mode: fewer runs, the same claims
T, UNITS, FEATURES = 100, 32, 8
inputs = np.random.default_rng(0).normal(size=(4, T, FEATURES)).astype("float32")


# %%
def layer(name, seed=0, **options):
    keras.utils.set_random_seed(seed)
    kind, _, gate = name.partition(", ")
    rnn = getattr(keras.layers, kind)(UNITS, **options)
    rnn.build((None, T, FEATURES))
    if gate:  # start at σ(3) = 0.95; Keras orders gates i, f, c, o (LSTM) and z, r, h (GRU)
        bias, place = rnn.cell.bias.numpy(), {"LSTM": 1, "GRU": 0}[kind]
        bias.reshape(-1)[place * UNITS : (place + 1) * UNITS] = 3.0
        rnn.cell.bias.assign(bias)
    return rnn


# %% [markdown]
# ## The experiment
#
# We run the cell one step at a time and compute the Jacobian of its new state with respect to its
# old state. For an LSTM, the state is h and c together.


# %%
def step_jacobians(rnn):
    """Return T Jacobians, new state by old state, of shape (sequences, state, state)."""
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
# By the chain rule, the product of the last k Jacobians is ∂h_T/∂h_t, with t = T - k. We use the
# part of it that leads from h to h, and compute its norm (the largest singular value).


# %%
def jacobian_norms(rnn):
    """Return ‖∂h_T/∂h_t‖ for T - t = 0 … 100, one row per sequence."""
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

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, some in norms.items():
    axes.semilogy(np.exp(np.log(some).mean(axis=0)), color=colors[name], label=name)
axes.set(
    xlabel="steps back, T - t",
    ylabel=r"share of a change left, $\|∂h_T / ∂h_t\|$",
    ylim=(1e-25, 1e3),
)
axes.set(title="Only open gates keep a change for 100 steps")
name_lines(axes)
plt.show()

# %%
for name, value in left.items():
    print(f"{name}: {value:.0e} left after 100 steps")

# %% [markdown]
# Does this matter for learning? Here is a task that needs memory: is the first number of the very
# first of 100 inputs positive? All other numbers are noise.


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
    print(f"{name}: loss {losses[name][-1]:.3f}, accuracy on new data {accuracy[name]:.0%}")

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, loss in losses.items():
    axes.plot(loss, marker=".", color=colors[name], label=name)
axes.axhline(np.log(2), color="0.5", linestyle=":", label="guessing")
axes.set(xlabel="epoch", ylabel="loss", ylim=(0, None))
axes.set(title="Only the open LSTM remembers the first of 100 inputs")
name_lines(axes)
plt.show()

# %% [markdown]
# ## What it shows, and why
#
# For each step back, a SimpleRNN multiplies by one matrix and by slopes of tanh, which are at
# most 1. So there is an upper bound for what is left:
#
# $$\left\| \frac{\partial h_T}{\partial h_t} \right\| = \left\| \prod_{k=t+1}^{T} D_k W
# \right\| \le \sigma_{\max}(W)^{T-t}, \quad D_k = \operatorname{diag}(1 - h_k^2) .$$
#
# Keras starts with an orthogonal matrix W, whose singular values are all 1. The matrix therefore
# shrinks nothing. Here it is the slopes of tanh that make the gradient vanish.
#
# An LSTM passes its cell state c on as a sum, and one step back multiplies by a gate:
#
# $$c_t = f_t \odot c_{t-1} + i_t \odot g_t, \qquad
# \frac{\partial c_t}{\partial c_{t-1}} = \operatorname{diag}(f_t) + \dots$$
#
# Keras sets the bias of the forget gate to 1, so f is about σ(1) = 0.73. A GRU passes its state on
# through its update gate. This gate starts at σ(0) = ½, so the GRU forgets faster than the
# SimpleRNN. Gates do not prevent vanishing. They turn the factor into something that we can choose
# and that the network can learn. With a bias of 3 the gate is 0.95, and both LSTM and GRU keep
# their state. (The dots matter, too: the gates depend on the state. Because of this, more is left
# than powers of f alone would leave.)
#
# The networks in which almost nothing is left do not learn what the first input means. Their
# training loss falls only because they memorize the training data, which is of no use on new data.
# The LSTM with the larger bias does learn the task, although it differs in only 32 biases.

# %% [markdown]
# ## What must hold

# %% tags=["checks"] jupyter={"source_hidden": true}
assert left["GRU"] < 1e-2 * left["SimpleRNN"] < 1e-4 * left["LSTM"]
assert left["LSTM"] < 1e-4 < 1e-3 < min(left[names[3]], left[names[4]])
assert (norms["SimpleRNN"] < 1.001).all()  # the bound, with σ_max = 1, at every distance
assert accuracy.pop(names[-1]) > 0.9 and all(value < 0.6 for value in accuracy.values())

# %% [markdown]
# ## Exercises
#
# **1.** Give the SimpleRNN an orthogonal matrix with gain 0.9, then one with gain 2. What is the
# bound for 100 steps, and how much is left?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# For gain 0.9 the bound is 0.9¹⁰⁰ = 3·10⁻⁵. Far less is left, because the slopes of tanh also
# shrink the change. For gain 2 the bound is 2¹⁰⁰ = 10³⁰. Far less is left here, too, but it is more
# than 1: the gradient explodes. A bound below 1 proves that the gradient vanishes. A bound above 1
# proves nothing.
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
# **2.** How much of the LSTM's cell state would be left if only the forget gate counted? Compare
# σ(1)¹⁰⁰ with what you measured.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# 0.73¹⁰⁰ = 2·10⁻¹⁴, far less than what is left. The other gates and the candidate also depend on
# the previous state, and give the change more ways to come through.
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
# Representations using RNN Encoder–Decoder*, 2014 (the GRU). R. Pascanu, T. Mikolov, Y. Bengio, *On
# the difficulty of training recurrent neural networks*, 2013 (the bound). F. Gers, J. Schmidhuber,
# F. Cummins, *Learning to Forget*, 2000 (the bias of the forget gate).

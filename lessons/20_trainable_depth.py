# %% [markdown]
# # 20. Trainable depth: two figures of two papers, measured again
#
# **Part:** Theory · **Level:** advanced · **After:** lessons 7 and 16
#
# **Question.** One paper says how deep a tanh network can be trained: up to about six ξ_c, a number
# that is computed without running a network. Another paper shows a network of thirty ReLU layers
# that learns with He's initial weights and does not learn with Xavier's. What is left of these two
# figures if we measure them again, in small networks?
#
# **Predict first.** Tanh networks of 4 to 88 layers start with biases of variance σ_b² = 0.05. For
# σ_w² = 0.5, 1.25 and 3, six ξ_c are 7, 41 and 54 layers. How will the measured depths follow: in
# the same order, within a factor of two, or to within a layer?

# %%
import os
import tempfile

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import spearmanr

import kgrad
from kgrad.experiments import Experiment, experiment_of, grid, replicates, run_sweep

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fast mode: a small part of the map, fewer seeds, same claims
UNITS, BIAS = 64, 0.05  # units of every layer, and σ_b²
phi = kgrad.theory.activation("tanh")


def trained(experiments):
    """Run a sweep in a folder that is removed afterward; return its table and its histories."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = run_sweep(experiments, folder, verbose=0)
        return sweep.to_frame(), list(sweep.histories().values())


# %% [markdown]
# ## The experiment
#
# The first figure is a map. Each cell is one network: its depth upward, its σ_w² to the right, and
# the color says how well it was trained. On the paper's map lies a curve, six ξ_c. These are the
# sizes, in the paper and here:
#
# | | paper | here |
# |---|---|---|
# | data | MNIST | 1,024 digits of 64 pixels |
# | layers, units | 10 to 300, 300 | 4 to 88, 64 |
# | activation, σ_b² | tanh, 0.05 | tanh, 0.05 |
# | training | SGD, 200 to 14,000 steps | SGD, 64 to 480 steps |
# | color | accuracy | share by which the loss fell |
#
# (The paper's sizes are quoted from memory.) With as many units as pixels, every layer has the same
# number of inputs, and so the same σ_w². The map has 77 networks; on two cores it takes two to five
# minutes.

# %%
scales = [0.5, 1, 3] if FAST else [0.5, 0.75, 1, 1.25, 1.5, 1.76, 2, 2.5, 3, 4, 6]  # σ_w²
depths = [4, 9, 19, 41] if FAST else [4, 7, 12, 20, 34, 58, 88]
initializers = {f"normal:{np.sqrt(scale / UNITS):.6f}": scale for scale in scales}
base = Experiment(
    activation="tanh", bias_initializer=f"normal:{np.sqrt(BIAS):.6f}", units=UNITS,
    dataset="digits", samples=1024, learning_rate=0.01, epochs=12 if FAST else 15,
)  # fmt: skip
networks = grid(base, num_layers=depths, weight_initializer=list(initializers))
table, histories = trained(networks)

# %%
kgrad.plot_trainability(table, title="Deep tanh networks train near the critical $σ_w^2$ only")

# %% [markdown]
# Yellow networks have learned, dark ones have not. The border between them rises to the critical
# σ_w² and falls behind it. To compare it with the curve, we need one number for each σ_w²: the
# depth up to which the loss falls below half of ln 10, where ln 10 = 2.303 is the loss of guessing.
# We interpolate between the depths of the map. (The color alone would mislead on the right.
# Networks with σ_w² = 6 start with a loss of 3 to 4, so a third of it is gone when they merely
# guess.)

# %%
losses = {}  # (σ_w², depth) → loss after each epoch
for history in histories:
    one = experiment_of(history)
    losses[initializers[one.weight_initializer], one.num_layers] = history.logs["loss"]


def trainable(scale, epoch, share=0.5):
    """Return the depth up to which the loss is below a share of guessing, or the map's end."""
    logs = np.log([losses[scale, depth][epoch] / np.log(10) / share for depth in depths])
    i = next((i for i, value in enumerate(logs) if not value < 0), len(depths))
    if i in (0, len(depths)):
        return depths[0 if i == 0 else -1]
    return depths[i - 1] * (depths[i] / depths[i - 1]) ** (logs[i - 1] / (logs[i - 1] - logs[i]))


# %%
rows = kgrad.theory.trainable_depths(phi, [(scale, BIAS) for scale in scales])
expected = [row.trainable for row in rows]
epochs = [6, 12] if FAST else [3, 6, 15]
measured = {epoch: [trainable(scale, epoch) for scale in scales] for epoch in epochs}
ranks = {epoch: spearmanr(values, expected).statistic for epoch, values in measured.items()}
for epoch, rank in ranks.items():
    print(f"{32 * epoch:>3} steps: rank correlation of measured depth and six ξ_c {rank:.2f}")

# %% tags=["figure"] jupyter={"source_hidden": true}
fine = np.geomspace(0.45, 6.5, 120)
limit = [row.trainable for row in kgrad.theory.trainable_depths(phi, [(s, BIAS) for s in fine])]
figure, axes = plt.subplots(figsize=(6, 4.6), layout="constrained")
axes.loglog(fine, limit, color="#222", label="six $ξ_c$, theory")
colors = kgrad.figures.looks.ramp(kgrad.figures.looks.TIME, len(epochs))
for (epoch, values), color, marker in zip(
    measured.items(), colors, "ov" if FAST else "sov", strict=True
):
    axes.plot(scales, values, marker + "-", color=color, label=f"after {32 * epoch} steps")
axes.axhline(depths[-1], color="0.6", linewidth=1, linestyle=":", label="the map ends")
axes.set(xlabel="$σ_w^2$", ylabel="layers that can be trained", ylim=(3.5, 200))
axes.set(xticks=[0.5, 1, 2, 4], xticklabels=["0.5", "1", "2", "4"])
axes.set(yticks=[5, 10, 20, 50, 100], yticklabels=["5", "10", "20", "50", "100"])
axes.minorticks_off()
axes.set(title="The measured depth follows six $ξ_c$ on both sides")
figure.legend(loc="outside lower center", ncols=2)
plt.show()

# %%
print(" σ_w²  six ξ_c  measured  measured ÷ ξ_c")
for scale, theory, value in zip(scales, expected, measured[epochs[-1]], strict=True):
    multiple = f"{6 * value / theory:.1f}" if theory < 1e3 else "on the edge"
    print(f"{scale:5.2f} {theory:8.0f} {value:9.0f} {multiple:>15}")

# %% [markdown]
# The other figure is figure 3 of *Delving Deep into Rectifiers*: thirty layers, once with He's
# weights and once with Xavier's.
#
# | | paper | here |
# |---|---|---|
# | layers | 27 convolutions, 3 dense layers | 30 dense layers of 64 units, and the output |
# | activation, biases | ReLU, 0 | ReLU, 0 |
# | variance of a weight | 2/n or 1/n | 2/n or 1/n |
# | data | ImageNet | 1,797 digits |
# | shown | error on other images | loss |
# | runs of each | 1 | 5 |

# %%
seeds = 2 if FAST else 5
rectified = Experiment(
    activation="relu", num_layers=30, units=UNITS, dataset="digits", learning_rate=0.02,
    epochs=4 if FAST else 8,
)  # fmt: skip
starts = grid(rectified, weight_initializer=["he", "xavier"])
_, rectifiers = trained([run for start in starts for run in replicates(start, seeds)])
runs = {"he": [], "xavier": []}
for history in rectifiers:
    runs[experiment_of(history).weight_initializer].append(history)

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for (name, histories_of), color, style in zip(runs.items(), ("C0", "C1"), ("-", "--"), strict=True):
    for i, history in enumerate(histories_of):
        label = f"{name}, {seeds} seeds" if i == 0 else None
        axes.plot(history.epochs[1:], history.logs["loss"][1:], style, color=color, label=label)
axes.axhline(np.log(10), color="0.85", linewidth=6, zorder=0, label="guessing")
axes.set(xlabel="epoch", ylabel="loss", ylim=(0, 2.6))
axes.set(title="Thirty ReLU layers: He learns, Xavier stalls")
axes.legend()
plt.show()

# %%
for name, histories_of in runs.items():
    last = [history.logs["loss"][-1] for history in histories_of]
    first = np.median([history["mean_abs"][0, 0] for history in histories_of])
    print(f"{name:<6} last loss {min(last):.3f} to {max(last):.3f}; ", end="")
    print(f"mean |gradient| of the first kernel at the start {first:.1e}")

# %% [markdown]
# With every seed He's network learns, and Xavier's stays at 2.303, which is guessing. Its gradients
# are tiny, which is what the paper reports, too.
#
# ## What it shows, and why
#
# Deep in a wide network, the correlation c of two samples approaches its limit c* by the same
# factor in each layer. What is left after L layers is
#
# $$|c^L - c^*| \sim e^{-L/\xi_c}, \qquad e^{-6} = 0.0025.$$
#
# So after six ξ_c, the network hardly distinguishes two samples. In the *ordered* phase, to the
# left of the edge, ξ_c is also the depth over which |δ|² shrinks e-fold. There the information in
# the forward pass and the gradient in the backward pass get lost together. In the *chaotic* phase,
# to the right, gradients grow, within a depth that is shorter than ξ_c. There the steps of the
# first layers get too large before the information is lost, and the measured border is below the
# curve. On the edge itself ξ_c is infinite, and other things set the limit: the number of steps,
# and the width. (At 58 layers of 64 units, single networks differ a lot from the average.)
#
# The number six is a rule of thumb, in the paper, too. Here the depths are 3.7 to 6.8 times ξ_c,
# except close to the edge. The border moves up while the networks are trained, fast in the chaotic
# phase and slowly in the ordered phase, where gradients are small. But once it has passed the
# smallest depths of the map, its *order* over σ_w² is that of ξ_c.
#
# He's network and Xavier's are the same experiment for ReLU. Its signal changes by σ_w²/2 per layer
# in mean square, which is 1 with He's weights and ½ with Xavier's. Over 29 layers, the root mean
# square falls by
#
# $$2^{-29/2} = 4.3 \cdot 10^{-5},$$
#
# and so do all gradients: in a ReLU network those of the kernels are level (lesson 4).

# %% [markdown]
# ## What must hold
#
# The measured depths are in the order of ξ_c: their rank correlation is at least 0.9. Away from the
# edge they are between two and nine ξ_c. With every seed He's network learns and Xavier's does not.

# %% tags=["checks"] jupyter={"source_hidden": true}
last, theory = np.array(measured[epochs[-1]]), np.array(expected)
assert ranks[epochs[-1]] >= 0.9
away = theory < 80  # from the edge, where the map's end and the number of steps count
assert np.all((last / theory)[away] > 2 / 6) and np.all((last / theory)[away] < 9 / 6)
for name, histories_of in runs.items():
    ends = np.array([history.logs["loss"][-1] for history in histories_of])
    assert np.all(abs(ends - np.log(10)) < 0.02) if name == "xavier" else np.all(ends < 2)

# %% [markdown]
# ## Exercises
#
# **1.** Half of guessing is an arbitrary border. Measure the depths with a fifth and with four
# fifths of guessing. What changes, the depths or their order?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The depths change. For σ_w² = 3, they are 36, 49 and 57 layers with a fifth, a half and four
# fifths. Their order hardly changes: the rank correlation is 0.96 to 0.99.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
for share in (0.2, 0.5, 0.8):
    values = [trainable(scale, epochs[-1], share) for scale in scales]
    rank = spearmanr(values, expected).statistic
    print(f"{share:.0%} of guessing: {np.round(values)}, rank correlation {rank:.2f}")
    assert rank > 0.8

# %% [markdown]
# **2.** What is six ξ_c for ReLU with Xavier's weights? Train such networks with five, ten and
# twenty layers.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# χ₁ = ½, so six ξ_c = 6/ln 2 = 8.7 layers. Five layers learn well, ten layers learn late, twenty do
# not learn within eight epochs. With thirty layers the paper's figure was well beyond this border.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
(row,) = kgrad.theory.trainable_depths(kgrad.theory.activation("relu"), [(1, 0)])
_, stacks = trained(grid(starts[1], num_layers=[5, 10, 20]))
ends = {experiment_of(one).num_layers: one.logs["loss"][-1] for one in stacks}
print(f"six ξ_c = {row.trainable:.1f};", *(f"{d} layers: loss {ends[d]:.2f};" for d in (5, 10, 20)))
assert np.isclose(row.trainable, 6 / np.log(2))
assert ends[5] < 1 < ends[20]

# %% [markdown]
# ## Source
#
# S. Schoenholz et al., *Deep Information Propagation*, 2017. K. He et al., *Delving Deep into
# Rectifiers: Surpassing Human-Level Performance on ImageNet Classification*, 2015.

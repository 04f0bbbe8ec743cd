# %% [markdown]
# # 6. Looking at gradient flow: five views, and what each hides
#
# **Question.** The same gradients can be drawn as lines, as a heatmap, against depth, as a
# distribution or as a graph. Which picture answers which question?
#
# **Predict first.** In a residual network of six layers the third is ill: three quarters of its
# units are dead, the others are well. Write down which of the five pictures you expect to show it,
# and which not.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

data = kgrad.make_dataset("classification", samples=512, features=20, seed=0)
RATE, STEPS = 0.05, 16  # learning rate; steps an epoch


def trained(dead, skip=True, **watch):
    """Six ReLU layers, `dead` of the third one's 20 units far below zero; ten epochs."""
    model = kgrad.create_model(6, "relu", "he", units=20, skip_connections=skip, seed=0)
    model.get_layer("hidden_3").bias.assign(np.where(np.arange(20) < dead, -8.0, 0.0))
    watch |= {"optimizer": keras.optimizers.SGD(RATE), "statistics": ["zero_fraction"], "seed": 0}
    return model, kgrad.train_and_track_gradients(model, data.X, data.y, 10, **watch)


# %% [markdown]
# ## The experiment
#
# The patient, and a twin whose third layer is well. All figures are of the patient.

# %%
batch = data.X[:128], data.y[:128]  # on which the graph's signals are measured
model, patient = trained(dead=15, distributions=True, probe=batch)
_, twin = trained(dead=0)
kgrad.visualize_gradients(patient, "One: lines. Two: a heatmap")
plt.show()

# %%
mean, of_twin = patient.by_layer("mean_abs")[0], twin.by_layer("mean_abs")[0]
for layer, one, other in zip(patient.layers, mean, of_twin, strict=True):
    print(f"{layer:<9} mean |g| before training {one:.4f}, that of the twin {other:.4f}")

# %% [markdown]
# **Lines** show *when*: all layers fall together, since the loss falls. **The heatmap** shows
# *where and when*, for any number of layers; but half a decade is hard to see in its colours. In
# both hidden_3 and hidden_4 are the lowest. That is a hint and no more: a layer may well have a
# small gradient.

# %%
kgrad.plot_gradient_by_depth(patient, [0, 10], "Three: against depth")
plt.show()

norm = patient.by_layer("l2_norm")[0]
print(f"output ÷ first layer: mean |g| {mean[6] / mean[0]:.1f}, norm {norm[6] / norm[0]:.1f}")

# %% [markdown]
# **The depth profile** compares *layers* at a moment; it is where a slope of vanishing or exploding
# is read off. It hides all that happens between the moments, and that its layers are of different
# sizes. The output stands out by its mean |g|, and far less by the norm of all its entries: it has
# 21 of them, a hidden layer 420. Ask of every such figure: mean or norm?

# %%
kgrad.plot_distributions(patient, "Four: distributions", epochs=[0, 10])
plt.show()

zeros, zeros_of_twin = patient.by_layer("zero_fraction")[0], twin.by_layer("zero_fraction")[0]
print(f"hidden_3, entries that are exactly 0: {zeros[2]:.2f}, twin {zeros_of_twin[2]:.2f}")
alive, alive_in_twin = mean[2] / (1 - zeros[2]), of_twin[2] / (1 - zeros_of_twin[2])
print(f"hidden_3, mean |g| of the other entries: {alive:.4f}, twin {alive_in_twin:.4f}")

# %% [markdown]
# **The distribution** shows the *entries*: each column is a layer, colour is how many entries have
# that magnitude, and the black bars below are exact zeros. Here is the illness. Three quarters of
# the gradient of hidden_3 are 0 and the rest is as large as in the twin: the mean was small because
# most entries are missing, not because all are small. And hidden_4, which is well, has as many
# zeros, because what comes in from a dead unit is 0.

# %%
kgrad.plot_flow_graph(kgrad.flow_graph(model, patient, epoch=0), "Five: a graph")
plt.show()

_, plain = trained(dead=15, skip=False)
for name, history in (("with skip connections", patient), ("without", plain)):
    loss, first = history.logs["loss"][-1], history.by_layer("l2_norm")[0, 0]
    print(f"{name}: loss after ten epochs {loss:.3f}; gradient norm of hidden_1 {first:.2f}")

# %% [markdown]
# **The graph** shows the *ways*. It explains why the layers below the ill one are well: the
# gradient goes around it. Without skip connections hidden_1 gets far less, and the loss falls far
# less. But the graph hides time and entries, and every edge out of a layer carries the same number,
# the sum of what comes back on all of them.
#
# One thing no picture of magnitudes shows: the *direction*. Gradients may be large and undo each
# other. The way that the weights went, over the length of all their steps:

# %%
# l2_norm of an epoch is the root mean square over its steps; ::2 are the kernels.
walked = RATE * STEPS * patient["l2_norm"][1:, ::2]
straight = (patient["update_l2"][1:, ::2] / walked).mean(axis=1)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(range(1, 11), straight, "o-", label="mean of the kernels")
axes.axhline(STEPS**-0.5, color="black", linestyle="--", label="steps in random directions")
axes.set(xlabel="epoch", ylabel="way gone ÷ length of all steps", ylim=(0, None))
axes.set(title="What magnitudes hide: steps undo each other")
axes.legend()
plt.show()
print(f"straightness: {straight[0]:.2f} in epoch 1, {straight[-1]:.2f} in epoch 10")

# %% [markdown]
# ## What it shows, and why
#
# Every picture is a summary of n gradient entries g in each layer and step. Two of the summaries,
# and how they hang together:
#
# $$\overline{|g|} = (1 - \text{share of zeros}) \cdot \overline{|g|}_{g \ne 0}, \qquad
# \lVert g \rVert_2 = \sqrt{n} \cdot \text{rms}(g).$$
#
# A mean cannot tell few large entries from many small ones, and a norm grows with the layer. And
# since lengths of steps add up only if the steps agree,
#
# $$\lVert \Delta W \rVert \le \eta \sum_{\text{steps}} \lVert g \rVert,$$
#
# and 16 steps in random directions come √16 = 4 steps far, a quarter of the sum. By epoch 10 the
# patient does not even come that far: its gradients look healthy, and mostly cancel.
#
# | to see | look at | it hides |
# |---|---|---|
# | when something happens | lines | entries; many layers |
# | where and when | heatmap | factors below three |
# | a slope over the layers | depth profile | time; how large layers are |
# | dead units, underflow | distribution | which way; which unit |
# | ways around | graph | time; entries |
# | whether steps agree | `update_l2` against `l2_norm` | |

# %% [markdown]
# ## What must hold
#
# The mean of the ill layer is low, and for another reason than it seems; mean and norm disagree
# about the output; the way around helps; and late steps undo each other.

# %%
assert mean[2] < 0.5 * of_twin[2] and zeros[2] > 0.6 > 2 * zeros_of_twin[2]
assert 0.5 < alive / alive_in_twin < 2
assert mean[6] / mean[0] > 3 * norm[6] / norm[0]
assert patient.logs["loss"][-1] < plain.logs["loss"][-1] - 0.08
assert straight[-1] < 0.75 * straight[0] and straight[-1] < 0.3

# %% [markdown]
# ## Exercises
#
# **1.** Let all twenty units of hidden_3 be dead. What do lines, distribution and graph show? Let
# `kgrad.diagnose` look, too.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The gradients of hidden_3 and hidden_4 are exactly 0. No logarithmic axis has a place for 0: every
# picture marks it apart. The graph shows that the others live by the skip connection. The
# diagnosis names both layers. It is silent about the patient above, three quarters of whose units
# are dead, since many a network trains well like that.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
worse, history = trained(dead=20)
print(history.by_layer("mean_abs")[0].round(4))
found = {layer for finding in kgrad.diagnose(history, worse, data.y) for layer in finding.layers}
print("diagnosed:", sorted(found))
assert found == {"hidden_3", "hidden_4"} and not list(kgrad.diagnose(patient, model, data.y))

# %% [markdown]
# **2.** A layer's kernel has 400 entries and its bias 20. In which view could a bias that explodes
# stay unseen, and how would you look for it?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# In all that take a layer as one: the mean is one over 420 entries, of which the bias has 20. Look
# at the weights one by one: `history["mean_abs"]` has a column for each, kernel and bias apart.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
kernel, bias = patient["mean_abs"][0, :2]
print(f"hidden_1: kernel {kernel:.4f}, bias {bias:.4f}, together {mean[0]:.4f}")
assert np.isclose((400 * kernel + 20 * bias) / 420, mean[0])

# %% [markdown]
# ## Source
#
# X. Glorot, Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*,
# 2010, for profiles and histograms by layer. F. Dangel et al., *Cockpit: a practical debugging tool
# for the training of deep neural networks*, 2021, on what single numbers hide.

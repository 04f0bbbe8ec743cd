# %% [markdown]
# # 6. Looking at gradient flow: five figures, and what each one hides
#
# **Part:** What goes wrong · **Level:** basic · **After:** lessons 3 and 4
#
# **The idea.** An architect draws a house as a floor plan, as a view from the street, and as a cut
# through the middle. None of these drawings is wrong, and none shows everything. It is the same
# with gradients: choose the drawing that can show what you are looking for, and know what it hides.
#
# ![The same small set of gradients, drawn in six ways: as numbers, as lines over time, as a
# heatmap, as a depth profile, as a distribution with a bar for the zeros, and as a graph of layers
# with a path around one of them. One of the four layers is marked; its gradients are the
# smallest.](../docs/lessons/figures/06_idea.svg)
#
# **Question.** The same gradients can be drawn as lines, as a heatmap, against depth, as a
# distribution, or as a graph. Which figure answers which question?
#
# **Predict first.** In a residual network of six layers, the third layer is damaged: three quarters
# of its units are dead. The other layers are healthy. Write down which of the five figures you
# expect to show the damage, and which not.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

plt.style.use(kgrad.figures.looks.STYLE)

data = kgrad.make_dataset("classification", samples=512, features=20, seed=0)
RATE, STEPS = 0.05, 16  # learning rate; steps per epoch


def trained(dead, skip=True, **watch):
    """Train six ReLU layers for ten epochs; `dead` of the third layer's 20 units start dead."""
    model = kgrad.create_model(6, "relu", "he", units=20, skip_connections=skip, seed=0)
    model.get_layer("hidden_3").bias.assign(np.where(np.arange(20) < dead, -8.0, 0.0))
    watch |= {"optimizer": keras.optimizers.SGD(RATE), "statistics": ["zero_fraction"], "seed": 0}
    return model, kgrad.train_and_track_gradients(model, data.X, data.y, 10, **watch)


# %% [markdown]
# ## The experiment
#
# We train the damaged network, the *patient*, and a *twin* whose third layer is healthy. All
# figures show the patient.

# %%
batch = data.X[:128], data.y[:128]  # used to measure the signals of the graph
model, patient = trained(dead=15, distributions=True, probe=batch)
_, twin = trained(dead=0)
kgrad.visualize_gradients(patient, "Lines and heatmap: two layers get the smallest gradients")

# %%
mean, of_twin = patient.by_layer("mean_abs")[0], twin.by_layer("mean_abs")[0]
for layer, one, other in zip(patient.layers, mean, of_twin, strict=True):
    print(f"{layer:<9} mean |g| before training: patient {one:.4f}, twin {other:.4f}")

# %% [markdown]
# **Lines** show *when* something happens. Here the gradients of all layers fall together, because
# the loss falls. **The heatmap** shows *where and when*, and works for any number of layers. But a
# factor of three is hard to see in its colors. In both figures hidden_3 and hidden_4 have the
# smallest gradients. This is only a hint, because a healthy layer can also have a small gradient.

# %%
kgrad.plot_gradient_by_depth(
    patient, epochs=[0, 10], title="Depth profile: a dip at hidden_3 and hidden_4"
)

# %%
norm = patient.by_layer("l2_norm")[0]
print(f"output ÷ hidden_1: mean |g| {mean[6] / mean[0]:.1f}, norm {norm[6] / norm[0]:.1f}")

# %% [markdown]
# **The depth profile** compares *layers* at one moment. It is the best figure for seeing whether
# gradients vanish or explode from layer to layer. It hides everything that happens between the
# chosen moments. It also hides that the layers have different sizes. The output layer has a much
# larger mean |g| than the others, but its norm differs far less: it has 21 entries, and a hidden
# layer has 420. For every such figure, ask whether it shows the mean or the norm.

# %%
kgrad.plot_distributions(patient, title="Distribution: the dip is zeros, in black", epochs=[0, 10])

# %%
zeros, zeros_of_twin = patient.by_layer("zero_fraction")[0], twin.by_layer("zero_fraction")[0]
print(f"hidden_3, share of exact zeros: patient {zeros[2]:.2f}, twin {zeros_of_twin[2]:.2f}")
alive, alive_in_twin = mean[2] / (1 - zeros[2]), of_twin[2] / (1 - zeros_of_twin[2])
print(f"hidden_3, mean |g| without zeros: patient {alive:.4f}, twin {alive_in_twin:.4f}")

# %% [markdown]
# **The distribution** shows the single *entries*. Each column is a layer, the color shows how many
# entries have a given magnitude, and the black bars at the bottom are exact zeros. This figure
# shows the damage. Three quarters of the gradient entries of hidden_3 are 0, and the others are as
# large as in the twin. So the mean was small because most entries are zero, and not because all
# entries are small. The healthy layer hidden_4 has as many zeros, because its inputs from the dead
# units are 0.

# %%
kgrad.plot_flow_graph(
    kgrad.flow_graph(model, patient, epoch=0),
    title="Graph: gradients flow around the dip",
)

# %%
_, plain = trained(dead=15, skip=False)
for name, history in (("with skip connections", patient), ("without", plain)):
    loss, first = history.logs["loss"][-1], history.by_layer("l2_norm")[0, 0]
    print(f"{name}: loss after ten epochs {loss:.3f}; gradient norm of hidden_1 {first:.2f}")

# %% [markdown]
# **The graph** shows the *paths* of the gradient. It explains why the layers below the damaged one
# are healthy: the gradient flows around it. Without skip connections, hidden_1 gets a far smaller
# gradient, and the loss falls far less. But the graph hides time and single entries. And all edges
# that leave a layer show the same number, which is the sum of what comes back along all of them.
#
# No figure of magnitudes shows the *direction* of the gradients. Large gradients may cancel each
# other from step to step. To find out, we divide the distance that the weights moved in an epoch by
# the total length of all steps:

# %%
# An epoch's l2_norm is the root mean square over its steps; ::2 selects the kernels.
walked = RATE * STEPS * patient["l2_norm"][1:, ::2]
straight = (patient["update_l2"][1:, ::2] / walked).mean(axis=1)

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(range(1, 11), straight, "o-", label="mean over the kernels")
axes.axhline(STEPS**-0.5, color="black", linestyle="--", label="steps in random directions")
axes.set(xlabel="epoch", ylabel="distance moved ÷ length of all steps", ylim=(0, None))
axes.set(title="Magnitudes hide that steps cancel each other")
axes.legend()
plt.show()

# %%
print(f"distance ÷ length: {straight[0]:.2f} in epoch 1, {straight[-1]:.2f} in epoch 10")

# %% [markdown]
# ## What it shows, and why
#
# Every figure summarizes the n gradient entries g of each layer and step. Two of these summaries
# are related to the entries in this way:
#
# $$\overline{|g|} = (1 - \text{share of zeros}) \cdot \overline{|g|}_{g \ne 0}, \qquad
# \lVert g \rVert_2 = \sqrt{n} \cdot \text{rms}(g).$$
#
# A mean cannot distinguish a few large entries from many small ones, and a norm grows with the size
# of the layer. The lengths of steps add up only if the steps have the same direction:
#
# $$\lVert \Delta W \rVert \le \eta \sum_{\text{steps}} \lVert g \rVert,$$
#
# and 16 steps in random directions move the weights only by the length of √16 = 4 steps, a quarter
# of the sum. In epoch 10 the patient moves even less: its gradients look healthy, but they mostly
# cancel each other.
#
# | to see | look at | it hides |
# |---|---|---|
# | when something happens | lines | single entries; many layers |
# | where and when | heatmap | factors below three |
# | a trend across the layers | depth profile | time; the sizes of the layers |
# | dead units, underflow | distribution | the paths; which unit |
# | paths around a layer | graph | time; single entries |
# | whether steps agree | `update_l2` compared with `l2_norm` | |

# %% [markdown]
# ## What must hold
#
# The damaged layer has a small mean, but its other entries are not small. Mean and norm disagree
# about the output layer. The skip connections help the layers below. Late steps cancel each other.

# %% tags=["checks"] jupyter={"source_hidden": true}
assert mean[2] < 0.5 * of_twin[2] and zeros[2] > 0.6 > 2 * zeros_of_twin[2]
assert 0.5 < alive / alive_in_twin < 2
assert mean[6] / mean[0] > 3 * norm[6] / norm[0]
assert patient.logs["loss"][-1] < plain.logs["loss"][-1] - 0.08
assert straight[-1] < 0.75 * straight[0] and straight[-1] < 0.3

# %% [markdown]
# ## Exercises
#
# **1.** Let all twenty units of hidden_3 be dead. What do the lines, the distribution and the graph
# show? What does `kgrad.diagnose` find?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# The gradients of hidden_3 and hidden_4 are exactly 0. A logarithmic axis has no place for 0, so
# every figure marks zeros separately. The graph shows that the other layers still get a gradient
# through the skip connection. The diagnosis names both layers. It finds nothing in the patient
# above, although three quarters of that layer's units are dead, because many networks train well in
# this state.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
worse, history = trained(dead=20)
print(history.by_layer("mean_abs")[0].round(4))
found = {layer for finding in kgrad.diagnose(history, worse, y=data.y) for layer in finding.layers}
print("diagnosed:", sorted(found))
assert found == {"hidden_3", "hidden_4"} and not list(kgrad.diagnose(patient, model, y=data.y))

# %% [markdown]
# **2.** A layer's kernel has 400 entries and its bias has 20. In which figures could an exploding
# bias remain unseen, and how would you look for it?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# In all figures that combine kernel and bias into one layer: the mean is taken over 420 entries,
# and only 20 of them belong to the bias. Look at each weight separately: `history["mean_abs"]` has
# one column for the kernel and one for the bias.
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

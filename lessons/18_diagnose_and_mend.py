# %% [markdown]
# # 18. Diagnose and repair: three broken networks
#
# **Part:** Practice · **Level:** intermediate · **After:** lessons 5 and 7
#
# **Question.** After training, three networks are no better than guessing. What is wrong with each
# of them, how do we know, and what repairs it?
#
# **Predict first.** Look only at the first figure. Write down what you would change in A, B and C.
# Then look at the gradients, and write down your answers again.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad
from kgrad.figures.static.panels import name_lines

plt.style.use(kgrad.figures.looks.STYLE)

EPOCHS = 6
data = kgrad.make_dataset("classification", 512)
X, y = data.X, data.y
SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def network(activation, initializer, optimizer):
    model = kgrad.create_model(8, activation, initializer, input_shape=(20,), seed=0)
    model.compile(optimizer, "binary_crossentropy")
    return model


def train(model):
    """Train and return the history. The probe, a fixed batch, records the layers' outputs."""
    probe = (X[:128], y[:128])
    return kgrad.train_and_track_gradients(
        model, X, y, EPOCHS, seed=0, probe=probe, jit_compile=False
    )


# %% [markdown]
# ## The experiment
#
# The next cell builds the three networks. It shows the answers, so run it without reading it.

# %%
broken = {
    "A": network("sigmoid", "normal", SGD(0.05)),
    "B": network("relu", "he", Adam(0.3)),
    "C": network("relu", "he", SGD(0.05, global_clipnorm=1e-4)),
}
histories = {name: train(model) for name, model in broken.items()}

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, history in histories.items():
    axes.semilogy(history.epochs, history.logs["loss"], "o-", label=name)
axes.axhline(np.log(2), color="gray", linestyle="--", linewidth=1, label="guessing")
axes.set(xlabel="epoch", ylabel="loss", title="None of the three learns")
name_lines(axes)
plt.show()

# %% [markdown]
# The dashed line is the loss of guessing between two classes, ln 2. A never leaves it. B jumps far
# above it in the first epoch and comes back. C stays a little above it and does not move at all.

# %%
kgrad.plot_gradients(
    histories, title="A: small near the input. B: huge, then 0. C: level", statistic="l2_norm"
)

# %% [markdown]
# In the upper panels each line is one layer, light near the input. In the lower panels each row is
# one layer, and yellow means large. The lines of A spread over several decades, with the first
# layer at the bottom. The lines of B jump up in all layers at once, and later some layers are 0.
# The lines of C are level: every layer gets a gradient of ordinary size. Its problem is not the
# gradient, but what is done with it.
#
# `diagnose` reports the same in numbers:

# %%
diagnoses = {name: kgrad.diagnose(histories[name], broken[name], y=y) for name in broken}
for name, diagnosis in diagnoses.items():
    for finding in diagnosis:
        print(f"{name}: {finding}")

# %% [markdown]
# Each finding also suggests remedies. To learn which of them helps *this* network, we have to try:
# with the same data, seed and number of epochs, and one change at a time. The runs are compared by
# their *skill*: 0 for the best constant answer, 1 for a perfect one.

# %%
trials = {
    "A": kgrad.try_remedies(broken["A"], X, y, EPOCHS, remedies=diagnoses["A"], seconds=600),
    "B": kgrad.try_remedies(
        broken["B"], X, y, EPOCHS, remedies=["clipping", "learning_rate"], seconds=600
    ),
}
for name, tried in trials.items():
    for trial in tried:
        print(f"{name}: {trial.name:<35} skill {trial.skill:5.2f}")

# %%
kgrad.plot_remedies(trials["A"])

# %% [markdown]
# ## What it shows, and why
#
# | | what the loss shows | what the gradients show | what repairs it |
# |---|---|---|---|
# | A | flat at ln 2 | a factor of ten less in each layer | ReLU, He's weights |
# | B | jumps up, then flat | all large at once, then dead units | learning rate ÷ 100 |
# | C | flat | level; only 2·10⁻⁵ is used | no clipping |
#
# A step changes a layer's weights by
#
# $$\frac{\|\Delta W\|}{\|W\|} = \frac{\eta\, c\, \|\partial L/\partial W\|}{\|W\|}$$
#
# where η is the learning rate and c is the share of the gradient that clipping leaves. A step can
# be too small because the gradient is small (A) or because c is small (C). It can be too large
# because η is large (B). The loss alone does not show which of these it is.
#
# Now we repair the networks, each with the one change that its findings suggest. The repair works
# if the loss falls and the diagnosis has no findings. (The repaired networks start from other
# random weights than the trials above, so their losses are different.)

# %%
mended = {
    "A": network("relu", "he", SGD(0.05)),  # this is also C without its clipping
    "B": network("relu", "he", Adam(0.003)),
}
after = {name: train(model) for name, model in mended.items()}
findings = {name: kgrad.diagnose(after[name], mended[name], y=y).rules for name in mended}
for name, history in after.items():
    before = histories[name].logs["loss"][-1]
    print(f"{name}: loss {before:.3f} → {history.logs['loss'][-1]:.3f}, findings {findings[name]}")

# %% [markdown]
# ## What must hold
#
# `diagnose` finds each problem by its name, and finds nothing in the repaired networks.

# %% tags=["checks"] jupyter={"source_hidden": true}
assert diagnoses["A"].rules == ("vanishing",)
assert {"dead_units", "moving_too_far"} <= set(diagnoses["B"].rules)
assert {"always_clipped", "not_moving"} == set(diagnoses["C"].rules)
for name in mended:
    assert histories[name].logs["loss"][-1] > 0.95 * np.log(2)
    assert after[name].logs["loss"][-1] < 0.7 * np.log(2)
    assert findings[name] == ()

# %% [markdown]
# ## Exercises
#
# **1.** For each of A, B and C, find one number in its history that reveals the problem, without
# `diagnose`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# A: divide the first layer's gradient by the last hidden layer's, before training. B: divide the
# change of a layer in one epoch by the layer's norm. If the result is near 1, hardly anything of
# the initial weights is left. C: divide the norm after clipping by the norm before.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
norms = {name: history.by_layer("l2_norm") for name, history in histories.items()}
ratio = norms["A"][0, 0] / norms["A"][0, 7]
moved, healthy = (
    (history.by_layer("update_l2") / history.by_layer("weight_l2"))[1, :8].min()
    for history in (histories["B"], after["B"])
)
kept = histories["C"].by_layer("clipped_l2")[1, 0] / norms["C"][1, 0]
print(f"A: first ÷ last {ratio:.0e}")
print(f"B: ‖ΔW‖/‖W‖ at least {moved:.2f} in each layer, after the repair {healthy:.2f}")
print(f"C: share left by clipping {kept:.0e}")
assert ratio < 1e-5 and moved > 2 * healthy and kept < 1e-3

# %% [markdown]
# **2.** B explodes. Why does clipping its gradients to a norm of 1 not repair it, and what does?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# B is trained with Adam, which divides each gradient by its own usual size. So a step has the
# length of the learning rate, no matter how large the gradient is. Shortening all gradients does
# not change this. The step is too long because the learning rate is too large.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
loss = {trial.name: trial.loss for trial in trials["B"]}
assert loss["clipping, norm 1"] > 0.9 * np.log(2)
assert loss["learning rate ×0.01"] < 0.3 * np.log(2)

# %% [markdown]
# ## Source
#
# `docs/diagnosis.md` and `docs/remedies.md` of kgrad describe the rules, how often they are wrong,
# and which remedies are tried. R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training
# recurrent neural networks*, 2013 (clipping). D. Kingma, J. Ba, *Adam*, 2015.

# %% [markdown]
# # 18. Diagnose and mend: three broken networks
#
# **Question.** Three networks end no better than guessing. What is wrong with each, how do we know,
# and what mends it?
#
# **Predict first.** Look at the first figure only. Write down for A, B and C what you would change.
# Then look at the gradients, and write it down again.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

EPOCHS = 6
data = kgrad.make_dataset("classification", 512)
X, y = data.X, data.y
SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam


def network(activation, initializer, optimizer):
    model = kgrad.create_model(8, activation, initializer, input_shape=(20,), seed=0)
    model.compile(optimizer, "binary_crossentropy")
    return model


def train(model):
    """The history of a run; a fixed batch of inputs tells what the layers put out."""
    probe = (X[:128], y[:128])
    return kgrad.train_and_track_gradients(
        model, X, y, EPOCHS, seed=0, probe=probe, jit_compile=False
    )


# %% [markdown]
# ## The experiment
#
# The next cell makes the three. To be fair to yourself, run it and do not read it.

# %%
broken = {
    "A": network("sigmoid", "normal", SGD(0.05)),
    "B": network("relu", "he", Adam(0.3)),
    "C": network("relu", "he", SGD(0.05, global_clipnorm=1e-4)),
}
histories = {name: train(model) for name, model in broken.items()}

# %%
figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, history in histories.items():
    axes.semilogy(history.epochs, history.logs["loss"], "o-", label=name)
axes.axhline(np.log(2), color="gray", linestyle="--", linewidth=1, label="guessing")
axes.set(xlabel="epoch", ylabel="loss", title="None of the three learns")
axes.legend()
plt.show()

# %% [markdown]
# The dashed line is the loss of guessing between two classes, ln 2. A never leaves it. B is thrown
# far off in the first epoch and comes back to it. C stands a little above it and does not move at
# all.

# %%
kgrad.compare_gradients(histories, "The same runs, seen by their gradients", "l2_norm")
plt.show()

# %% [markdown]
# Above, one line is one layer, light near the input; below, one row is one layer, and yellow is
# large. A fans out by decades, with the first layer at the bottom. B jumps up in all layers at
# once, and some are 0 from then on. C is level: every layer gets a gradient of ordinary size. Its
# disease is not in the gradient but in what is made of it.
#
# `diagnose` says the same in numbers:

# %%
diagnoses = {name: kgrad.diagnose(histories[name], broken[name], y) for name in broken}
for name, diagnosis in diagnoses.items():
    for finding in diagnosis:
        print(f"{name}: {finding}")

# %% [markdown]
# A finding also names remedies. Which of them helps *this* network is a matter of trying: the same
# data, seed and number of epochs, one change at a time.

# %%
trials = {
    "A": kgrad.try_remedies(broken["A"], X, y, EPOCHS, remedies=diagnoses["A"]),
    "B": kgrad.try_remedies(broken["B"], X, y, EPOCHS, remedies=["clipping", "learning_rate"]),
}
for name, tried in trials.items():
    for trial in tried:
        print(f"{name}: {trial.name:<33} loss {trial.loss:.3g}")

# %%
kgrad.plot_remedies(trials["A"])
plt.show()

# %% [markdown]
# ## What it shows, and why
#
# | | what the loss shows | what the gradients show | what mends it |
# |---|---|---|---|
# | A | flat at ln 2 | a factor of ten less in each layer | ReLU, He's weights |
# | B | thrown up, then flat | all large at once, then dead units | learning rate ÷ 100 |
# | C | flat | level; only 2·10⁻⁵ is used | no clipping |
#
# A step changes a layer's weights by
#
# $$\frac{\|\Delta W\|}{\|W\|} = \frac{\eta\, c\, \|\partial L/\partial W\|}{\|W\|}$$
#
# with the learning rate η and the share c that clipping leaves. It can be too small because the
# gradient is (A), or because of c (C); it can be too large because η is (B). The loss tells neither
# from the other.
#
# The mended networks, each with the one change that its findings point to, and the proof: a loss
# that falls, and a diagnosis without findings. (They draw other weights than above, hence other
# losses.)

# %%
mended = {
    "A": network("relu", "he", SGD(0.05)),  # and this is C without its clipping, too
    "B": network("relu", "he", Adam(0.003)),
}
after = {name: train(model) for name, model in mended.items()}
findings = {name: kgrad.diagnose(after[name], mended[name], y).rules for name in mended}
for name, history in after.items():
    before = histories[name].logs["loss"][-1]
    print(f"{name}: loss {before:.3f} → {history.logs['loss'][-1]:.3f}, findings {findings[name]}")

# %% [markdown]
# ## What must hold
#
# Each disease is found by its name, and the mended networks are well.

# %%
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
# **1.** Find for each of A, B and C one number in its history that gives it away, without
# `diagnose`.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# A: the first layer's gradient over the last hidden one's, before training. B: the change of a
# layer in an epoch over the layer's norm; near 1 hardly anything of the initial weights is left. C:
# the norm after clipping over the norm before.
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
print(f"B: ‖ΔW‖/‖W‖ {moved:.2f} or more in each layer, mended {healthy:.2f}")
print(f"C: share kept {kept:.0e}")
assert ratio < 1e-5 and moved > 2 * healthy and kept < 1e-3

# %% [markdown]
# **2.** B explodes. Why does clipping its gradients to a norm of 1 not mend it, and what does?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# B is trained with Adam, which divides each gradient by its own usual size: a step has the length
# of the learning rate however large the gradient is. To shorten all gradients changes nothing in
# that. The step is too long because the learning rate is.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
loss = {trial.name: trial.loss for trial in trials["B"]}
assert loss["clipping, norm 1"] > 0.9 * np.log(2)
assert loss["learning rate ×0.01"] < 0.3 * np.log(2)

# %% [markdown]
# ## Source
#
# `docs/diagnosis.md` and `docs/remedies.md` of kgrad have the rules, how often they err, and what
# is tried. R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training recurrent neural
# networks*, 2013, for clipping. D. Kingma, J. Ba, *Adam*, 2015.

# %% [markdown]
# # 21. Coordinate check: gradients, updates and outputs against width
#
# **Part:** Practice · **Level:** advanced · **After:** lesson 7
#
# **Question.** A network is made wider, from 64 to 2,048 units per layer, with the usual initial
# weights and the same learning rate. The initial weights take care of the width: before training,
# all these networks have outputs of the same size. And after five steps of Adam?
#
# **Predict first.** Adam's first step changes every weight by about the learning rate, whatever the
# gradient is. A unit of a hidden layer has as many weights as the layer below has units. The
# network becomes 32 times as wide. How many times as large is the change of a unit of the second
# hidden layer: as large as before, √32 = 5.7 times, or 32 times?

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

plt.style.use(kgrad.figures.looks.STYLE)
FAST = "KGRAD_FAST" in os.environ  # fast mode: up to 512 units and one seed, the same claims
WIDTHS = [64, 128, 256, 512] if FAST else [64, 128, 256, 512, 1024, 2048]
SEEDS, STEPS, RATE, BASE = 1 if FAST else 3, 5, 0.002, 64
data = kgrad.make_dataset("digits", 128)
crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# %% [markdown]
# ## The experiment
#
# People who scale models up draw a *coordinate check*: the size of one entry of every output,
# gradient and update, over the width, for the first few steps. In a network that can be made wider
# without tuning it anew, the outputs are horizontal lines.
#
# We compare two parametrizations of the same network of two hidden layers. *Standard* is the usual
# one: He's weights, and one learning rate η for all of them. *μP* (maximal update parametrization)
# differs from it in three powers of the width n, which are those of table 3 of *Tensor Programs V*:
#
# | | input kernel, biases | hidden kernel | output kernel |
# |---|---|---|---|
# | variance, standard | n⁰ | 1/n | 1/n |
# | variance, μP | n⁰ | 1/n | **1/n²** |
# | Adam's learning rate, standard | η | η | η |
# | Adam's learning rate, μP | η | **η/n** | **η/n** |
#
# The two are to be the same network at a width of 64, so n is counted in units of 64. The digits
# have 64 pixels. Then one rule holds for all kernels, the input kernel included: divide the
# learning rate by the number of inputs over 64.


# %%
class MuAdam(keras.optimizers.Adam):
    """Adam with the learning rate of each kernel divided by its number of inputs over 64."""

    def update_step(self, gradient, variable, learning_rate):
        inputs = variable.shape[0] if len(variable.shape) == 2 else BASE
        super().update_step(gradient, variable, learning_rate * BASE / inputs)


# %%
def network(width, kind, seed, optimizer=None, rate=RATE):
    model = kgrad.create_model(
        2, "relu", "he", units=width, input_shape=(64,),
        output_units=10, output_activation="linear", seed=seed,
    )  # fmt: skip
    if kind == "μP":
        kernel = model.get_layer("output").kernel
        kernel.assign(kernel * np.sqrt(BASE / width))
    default = MuAdam if kind == "μP" else keras.optimizers.Adam
    model.compile((optimizer or default)(rate), crossentropy, jit_compile=False)
    return model


# %% [markdown]
# Each step takes the same 128 digits. `GradientTracker` records the gradients and updates, and a
# callback of one line keeps the outputs of all layers.


# %%
def size(values):
    return np.sqrt(np.mean(np.square(values)))  # of one entry: the root mean square


def check(model):
    """Train; return sizes (step, layer) of outputs, and (layer,) of the first step's effects."""
    layers = keras.Model(model.input, [layer.output for layer in model.layers[1:]])
    seen = [layers(data.X)]
    keep = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(layers(data.X)))
    tracker = kgrad.GradientTracker()
    options = {"batch_size": 128, "epochs": STEPS, "verbose": 0, "callbacks": [tracker, keep]}
    model.fit(data.X, data.y, **options)
    return [[size(h) for h in outputs] for outputs in seen], first_step(tracker.history, seen)


# %%
def first_step(history, seen):
    kernels = [i for i, weight in enumerate(history.weights) if weight.name == "kernel"]
    entries = np.array([np.prod(history.weights[i].shape) for i in kernels])
    return {
        "gradient": history["l2_norm"][0, kernels] / np.sqrt(entries),
        "update": history["update_l2"][1, kernels] / np.sqrt(entries),
        "change of output": [size(after - before) for before, after in zip(*seen[:2], strict=True)],
    }


# %%
def average(results):
    return np.exp(np.mean(np.log(results), axis=0))  # the geometric mean over seeds


outputs, effects = {}, {}  # kind → (width, step, layer); (kind, effect) → (width, layer)
for kind in ("standard", "μP"):
    found = [[check(network(width, kind, s)) for s in range(SEEDS)] for width in WIDTHS]
    outputs[kind] = np.array([average([one for one, _ in own]) for own in found])
    for effect in ("gradient", "update", "change of output"):
        effects[kind, effect] = np.array([average([e[effect] for _, e in own]) for own in found])

# %% tags=["figure"] jupyter={"source_hidden": true}
LAYERS = ("hidden 1", "hidden 2", "output")
figure, grid = plt.subplots(3, 2, figsize=(6, 7), layout="constrained", sharex=True, sharey=True)
colors = kgrad.figures.looks.ramp(kgrad.figures.looks.TIME, STEPS + 1)
for column, (kind, sizes) in enumerate(outputs.items()):
    for row, axes in enumerate(grid[:, column]):
        for step, color in enumerate(colors):
            label = f"{step}" if row == column == 0 else None
            axes.loglog(WIDTHS, sizes[:, step, row], "o-", color=color, markersize=4, label=label)
        axes.set(xticks=WIDTHS[::2], xticklabels=WIDTHS[::2])
        axes.minorticks_off()
        axes.set_title(f"{kind}: {LAYERS[row]}", fontsize=11)
    axes.set_xlabel("units per layer")
for axes in grid[:, 0]:
    axes.set_ylabel("size of an entry")
figure.legend(loc="outside lower center", ncols=STEPS + 1, title="steps of Adam", handlelength=1)
figure.suptitle("With μP no output grows with the width", fontsize=12)
plt.show()

# %%
for kind, sizes in outputs.items():
    for layer, before, after in zip(LAYERS, sizes[:, 0].T, sizes[:, -1].T, strict=True):
        print(
            f"{kind:<8} {layer:<8} {WIDTHS[0]:>4} units {before[0]:.2f} → {after[0]:5.2f}, ", end=""
        )
        print(f"{WIDTHS[-1]:>4} units {before[-1]:.2f} → {after[-1]:5.2f}")

# %% [markdown]
# The hidden and the output layer of the standard network change more, the wider it is. With μP they
# change alike at all widths. (The output starts smaller there, by 1/√n. This is no harm: it grows
# in training.) Where does the growth come from? We look at the first step alone: the gradients, the
# updates that Adam makes of them, and the changes of the outputs that the updates make.

# %%
THEORY = {  # powers of n: of input, hidden and output kernel, or of hidden 1, hidden 2 and output
    ("standard", "gradient"): (-0.5, -0.5, 0),
    ("standard", "update"): (0, 0, 0),
    ("standard", "change of output"): (0, 1, 1.5),
    ("μP", "gradient"): (-1, -1, 0),
    ("μP", "update"): (0, -1, -1),
    ("μP", "change of output"): (0, 0, 0),
}
slopes = {
    key: np.polyfit(np.log(WIDTHS), np.log(sizes), 1)[0] for key, sizes in effects.items()
}  # of the lines in a figure with logarithmic axes

# %% tags=["figure"] jupyter={"source_hidden": true}
figure, grid = plt.subplots(3, 2, figsize=(6, 7.6), layout="constrained", sharex=True, sharey="row")
colors = kgrad.figures.looks.ramp(kgrad.figures.looks.DEPTH, 3)
middle = np.exp(np.mean(np.log(WIDTHS)))
for (key, sizes), axes in zip(effects.items(), grid.T.ravel(), strict=True):
    for i, (color, marker) in enumerate(zip(colors, "osv", strict=True)):
        label = f"{('input', 'hidden', 'output')[i]} kernel, {LAYERS[i]}"
        axes.loglog(
            WIDTHS, sizes[:, i], marker, color=color, label=label if axes is grid[0, 0] else None
        )
        anchor = np.exp(np.mean(np.log(sizes[:, i])))
        line = anchor * (np.array(WIDTHS) / middle) ** THEORY[key][i]
        axes.plot(WIDTHS, line, color=color, linewidth=0.9)
    axes.set(xticks=WIDTHS[::2], xticklabels=WIDTHS[::2])
    axes.minorticks_off()
    axes.set_title(": ".join(key), fontsize=11)
for axes in grid[:, 0]:
    axes.set_ylabel("size of an entry")
for axes in grid[-1]:
    axes.set_xlabel("units per layer")
figure.legend(loc="outside lower center", ncols=1)
figure.suptitle("The first step of Adam (lines: theory's slopes)", fontsize=12)
plt.show()

# %%
print("measured and (theory's)   input, hidden 1   hidden 2      output")
for (kind, effect), theory in THEORY.items():
    pairs = zip(slopes[kind, effect], theory, strict=True)
    print(f"{kind:<9}{effect:<16}", *(f"{a:+6.2f} ({b:+.1f})" for a, b in pairs))
narrow, *_, wide = effects["standard", "change of output"][:, 1]
times = f"{WIDTHS[-1] // WIDTHS[0]} times as wide"
print(f"standard, {times}: hidden 2 changes {wide / narrow:.0f} times as much")

# %% [markdown]
# ## What it shows, and why
#
# **Gradients.** The error at the output does not depend on n. One layer below, it is multiplied by
# the output kernel, whose entries are of size 1/√n (standard) or 1/n (μP). So are the gradients of
# the hidden and the input kernel.
#
# **Updates.** Adam divides a gradient by its own size. Whatever its power of n was, it is lost:
# each entry of the first update is ±η. With μP, η itself has the power −1 in two of the kernels.
#
# **Changes.** A hidden unit adds up n inputs h_j. For initial weights, which are random, the sum
# grows by √n, and the variance 1/n makes up for it. But an update is not random. Its signs are
# those of the gradient, a product of the error and the inputs themselves, so the terms add up:
#
# $$\Delta z_i = \sum_{j=1}^{n} \Delta W_{ij}\, h_j
# = -\eta \sum_{j=1}^{n} \operatorname{sign}(g_{ij})\, h_j \propto \eta\, n .$$
#
# This is why a hidden kernel needs η/n. The first layer has 64 inputs at any width, and needs no
# correction. The output is hit twice: by its own update, and by the change of the layer below,
# which is aligned with the output kernel. The change of the loss, η Σ|g|, shows the larger power:
# the hidden kernel has n² entries, each with a gradient of size 1/√n, which makes n^1.5.
#
# So theory's answer to the question at the beginning is 32 times. The measured change is 16 times
# as large, because theory names only the largest power of n. At 64 units, the changes that come
# from the layers below, which have smaller powers, are about as large. The wider the networks, the
# less they count.

# %% [markdown]
# ## What must hold
#
# The powers of gradients and updates agree with theory, and those of the changes do roughly. Only
# the standard network's changes grow.

# %% tags=["checks"] jupyter={"source_hidden": true}
for (kind, effect), theory in THEORY.items():
    tolerance = 0.4 if effect == "change of output" else 0.25
    assert np.allclose(slopes[kind, effect], theory, atol=tolerance), (kind, effect)
assert np.all(slopes["standard", "change of output"][1:] > 0.6)
assert np.all(abs(slopes["μP", "change of output"]) < 0.25)

# %% [markdown]
# ## Exercises
#
# **1.** What is it good for? Train networks of 64 and of 1,024 units on all digits for two epochs,
# with five learning rates from 0.0003 to 0.03. Which rate gives the smallest loss at each width?

# %% [markdown] tags=["solution"]
# <details><summary>Solution 1</summary>
#
# In the standard parametrization 0.01 is best for 64 units, and 0.001 for 1,024. With μP it is 0.01
# for both. So with μP the learning rate can be tuned in a small network and used in a large one,
# and the large network is then the better one at every rate.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
rates, best = [0.001, 0.03] if FAST else [0.0003, 0.001, 0.003, 0.01, 0.03], {}
everything = kgrad.make_dataset("digits")
for kind in ("standard", "μP"):
    for width in (64, 512 if FAST else 1024):
        ends = []
        for rate in rates:
            keras.utils.set_random_seed(0)  # of the order of the digits
            model = network(width, kind, 0, rate=rate)
            record = model.fit(everything.X, everything.y, batch_size=128, epochs=2, verbose=0)
            ends.append(record.history["loss"][-1])
        best[kind, width] = rates[int(np.nanargmin(ends))]
        losses = ", ".join(f"{rate:g}: {end:.3f}" for rate, end in zip(rates, ends, strict=True))
        print(f"{kind:<8} {width:>4} units, loss by rate: {losses}")
narrow, wide, *_ = best.values()
assert wide < narrow / 3
assert len({rate for (kind, _), rate in best.items() if kind == "μP"}) == 1

# %% [markdown]
# **2.** Use SGD with learning rate 0.01 in place of Adam, in the standard parametrization. Which
# powers of n do you expect for the updates and for the changes of the outputs? Measure them.

# %% [markdown] tags=["solution"]
# <details><summary>Solution 2</summary>
#
# An update is η times the gradient, so it has its powers, −½, −½ and 0. Hidden 1 has 64 inputs and
# changes by −½, too. The change of hidden 2 is a sum of n terms of size 1/√n, which makes +½. The
# change of the loss is η Σ g²: n² · 1/n for the hidden kernel and n · 1 for the output kernel, so
# the output changes by n. With SGD, too, a wide network needs a smaller rate.
#
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true, "outputs_hidden": true}
steps = [check(network(w, "standard", 0, keras.optimizers.SGD, 0.01))[1] for w in WIDTHS]
for effect, theory in {"update": (-0.5, -0.5, 0), "change of output": (-0.5, 0.5, 1)}.items():
    sizes = np.array([step[effect] for step in steps])
    measured = np.polyfit(np.log(WIDTHS), np.log(sizes), 1)[0]
    print(f"{effect:<17} measured {measured.round(2)}, theory {theory}")
    assert np.allclose(measured, theory, atol=0.35)

# %% [markdown]
# ## Source
#
# G. Yang et al., *Tensor Programs V: Tuning Large Neural Networks via Zero-Shot Hyperparameter
# Transfer*, 2022. G. Yang, E. Hu, *Feature Learning in Infinite-Width Neural Networks*, 2021.

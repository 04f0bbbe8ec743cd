# %% [markdown]
# # 18. Diagnose and mend: three broken networks
#
# **Question.** Three networks do not learn. Their loss curves look alike. What is wrong with each, how
# do we know, and what mends it?
#
# **Predict first.** Look at the first figure only. Write down for A, B and C what you would change. Then
# look at the gradients, and write it down again.

# %%
import os

import keras
import matplotlib.pyplot as plt
import numpy as np

import kgrad

FAST = "KGRAD_FAST" in os.environ  # fewer remedies tried, the same claims
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
# How the three were made is at the end of this cell. Do not look yet.

# %%
broken = {}
for name, ingredients in {"A": "sigmoid normal sgd", "B": "relu he adam", "C": "relu he clip"}.items():
    activation, initializer, optimizer = ingredients.split()
    optimizers = {"sgd": SGD(0.05), "adam": Adam(0.3), "clip": SGD(0.05, global_clipnorm=1e-4)}
    broken[name] = network(activation, initializer, optimizers[optimizer])
histories = {name: train(model) for name, model in broken.items()}

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
for name, history in histories.items():
    axes.plot(history.epochs, history.logs["loss"], "o-", label=name)
axes.axhline(np.log(2), color="gray", linestyle="--", linewidth=1)
axes.set(xlabel="epoch", ylabel="loss", ylim=(0, 1.5), title="None of the three learns")
axes.legend()
plt.show()

# %%
kgrad.compare_gradients(histories, "The same runs, seen by their gradients", "l2_norm")
plt.show()

# %%
diagnoses = {name: kgrad.diagnose(histories[name], broken[name], y) for name in broken}
for name, diagnosis in diagnoses.items():
    for finding in diagnosis:
        print(f"{name}: {finding}")

"""An LSTM learns to remember its first symbol for forty steps: watch when learning starts.

python examples/lstm_memory.py
"""

import keras
import numpy as np
from keras import layers

import kgrad

keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
symbols = random.integers(1, 9, size=(4096, 40))
symbols[:, 0] = random.integers(9, 13, size=4096)  # one of four keys, then noise
keys = symbols[:, 0] - 9

model = keras.Sequential(
    [
        keras.Input((40,), dtype="int32"),
        layers.Embedding(13, 8, name="symbols"),
        layers.LSTM(32, name="lstm"),
        layers.Dense(4, activation="softmax", name="key"),
    ]
)
optimizer = keras.optimizers.Adam(0.005, global_clipnorm=1.0)
model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])

tracker = kgrad.GradientTracker(every=16, distributions=True)
model.fit(symbols, keys, batch_size=64, epochs=8, verbose=2, callbacks=[tracker])
history = tracker.history
print("clipped steps:", int(history.by_layer("clipped_steps").max(axis=1).sum()))
figure = kgrad.plot_distributions(
    history, title="An LSTM learns to remember: gradients peak when it starts"
)
figure.savefig("lstm_memory.png")

"""A tiny transformer learns to reverse sequences: see the layers' outputs and their gradients.

python examples/tiny_transformer.py
"""

import keras
import numpy as np
from keras import layers

import kgrad

keras.utils.set_random_seed(0)
WORDS, LENGTH, WIDTH = 10, 8, 32
sequences = np.random.default_rng(0).integers(WORDS, size=(4096, LENGTH))
reversed_sequences = sequences[:, ::-1]

tokens = keras.Input((LENGTH,), dtype="int32")
places = keras.ops.arange(LENGTH)
x = layers.Embedding(WORDS, WIDTH, name="words")(tokens)
x = x + layers.Embedding(LENGTH, WIDTH, name="places")(places)
for block in (1, 2):
    normal = layers.LayerNormalization(name=f"norm{block}a")(x)
    x = x + layers.MultiHeadAttention(2, WIDTH // 2, name=f"attention{block}")(normal, normal)
    normal = layers.LayerNormalization(name=f"norm{block}b")(x)
    hidden = layers.Dense(4 * WIDTH, activation="gelu", name=f"wide{block}")(normal)
    x = x + layers.Dense(WIDTH, name=f"narrow{block}")(hidden)
outputs = layers.Dense(WORDS, activation="softmax", name="word")(x)
model = keras.Model(tokens, outputs)
model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])

probe = (sequences[:256], reversed_sequences[:256])
tracker = kgrad.GradientTracker(every=8, probe=probe)
model.fit(sequences, reversed_sequences, batch_size=64, epochs=3, verbose=2, callbacks=[tracker])
figure = kgrad.plot_activations(tracker.history, title="A transformer learns to reverse sequences")
figure.savefig("tiny_transformer.png")

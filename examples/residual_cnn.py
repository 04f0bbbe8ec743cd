"""A residual CNN on real handwritten digits: see which layers learn, and when.

python examples/residual_cnn.py
"""

import keras
from keras import layers

import kgrad

keras.utils.set_random_seed(0)
data = kgrad.make_dataset("digits")
images = data.X.reshape(-1, 8, 8, 1)


def residual_block(x, filters, name):
    """Add two convolutions with a shortcut around them."""
    shortcut = layers.Conv2D(filters, 1, name=f"{name}_shortcut")(x)
    for number in (1, 2):
        x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv{number}")(x)
        x = layers.BatchNormalization(name=f"{name}_norm{number}")(x)
        x = layers.Activation("relu")(x)
    return layers.add([x, shortcut])


inputs = keras.Input((8, 8, 1))
x = residual_block(inputs, 16, "block1")
x = residual_block(x, 32, "block2")
x = layers.GlobalAveragePooling2D()(x)
outputs = layers.Dense(10, activation="softmax", name="classes")(x)
model = keras.Model(inputs, outputs)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

tracker = kgrad.GradientTracker(weights="*kernel")
model.fit(images, data.y, epochs=12, verbose=2, callbacks=[tracker])
figure = kgrad.visualize_gradients(tracker.history, "Residual CNN on digits: mean |gradient|")
figure.savefig("residual_cnn.png")

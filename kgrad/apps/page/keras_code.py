"""A configuration as a script in plain Keras with one callback."""

from kgrad.apps.page.configuration import Configuration
from kgrad.measure.aliases import NORMALIZATIONS, initializer_class

_OPTIMIZERS = {
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "nadam": "Nadam",
    "rmsprop": "RMSprop",
    "adagrad": "Adagrad",
}
_HEAD = '''"""A network in plain Keras, and its gradients while it trains."""

import keras
import numpy as np

import kgrad

TITLE = "{described}"
SEED = {seed}
data = kgrad.make_dataset("{dataset}")


def initializer(layer):
    """Initial weights that depend on the seed and the layer's name."""
    seed = np.random.SeedSequence([SEED, *layer.encode()]).generate_state(1)[0]
    return keras.initializers.{initializer}({arguments}seed=int(seed))


def dense(units, name, **options):
    return keras.layers.Dense(units, name=name, kernel_initializer=initializer(name), **options)


x = inputs = keras.Input(data.X.shape[1:], name="input")
'''
_TAIL = """x = dense(data.output_units, "output", activation=data.output_activation)(x)
model = keras.Model(inputs, x)

keras.utils.set_random_seed(SEED)
optimizer = keras.optimizers.{optimizer}(learning_rate={learning_rate!r}{clipping})
model.compile(optimizer, data.loss)
tracker = kgrad.GradientTracker()
model.fit(data.X, data.y, {batch_size}, {epochs}, verbose=2, callbacks=[tracker])

tracker.history.save("history.jsonl")
print(kgrad.diagnose(tracker.history))
kgrad.visualize_gradients(tracker.history, TITLE).savefig("gradients.png")
"""


def keras_code(configuration: Configuration) -> str:
    """Return a script that builds and trains a configuration in plain Keras.

    The model has the same layers and the same initial weights as the app's. The order of the
    samples is Keras's own, so the training is not identical.
    """
    c = configuration
    name, _, stddev = c.initializer.partition(":")
    head = _HEAD.format(
        described=str(c),
        seed=c.seed,
        dataset=c.dataset,
        initializer=initializer_class(name),
        arguments=f"stddev={float(stddev or 0.05)!r}, " if name == "normal" else "",
    )
    clipping = f", global_clipnorm={c.clip_norm!r}" if c.clip_norm else ""
    tail = _TAIL.format(
        optimizer=_OPTIMIZERS[c.optimizer],
        learning_rate=c.learning_rate,
        clipping=clipping,
        epochs=c.epochs,
        batch_size=c.batch_size,
    )
    return head + _hidden_layers(c) + tail


def _hidden_layers(c: Configuration) -> str:
    """Return the loop over the hidden layers."""
    lines = [f"for k in range(1, {c.layers + 1}):"]
    if c.skip:
        lines += ["    if k % 2 == 1:", "        start = x"]
    if c.normalization == "none":
        lines.append(f'    x = dense({c.units}, f"hidden_{{k}}", activation="{c.activation}")(x)')
    else:
        layer = NORMALIZATIONS[c.normalization]
        lines += [
            f'    x = dense({c.units}, f"hidden_{{k}}")(x)',
            f'    x = keras.layers.{layer}(name=f"norm_{{k}}")(x)',
            f'    x = keras.layers.Activation("{c.activation}", name=f"activation_{{k}}")(x)',
        ]
    if c.skip:
        lines += [
            "    if k % 2 == 0:",
            "        if start.shape[-1] != x.shape[-1]:",
            f'            project = dense({c.units}, f"projection_{{k // 2}}", use_bias=False)',
            "            start = project(start)",
            '        x = keras.layers.Add(name=f"skip_{k // 2}")([start, x])',
        ]
    return "\n".join([*lines, ""])

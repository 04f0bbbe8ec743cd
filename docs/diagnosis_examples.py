"""Write docs/diagnosis_examples.md: one example per diagnosis rule, with findings and remedies.

python docs/diagnosis_examples.py
"""

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import numpy as np

matplotlib.use("Agg")

import kgrad
from kgrad.records.trials import skill_text

HERE = Path(__file__).parent
DATA = kgrad.make_dataset("classification", 1024)
EPOCHS = 5
RANDOM = np.random.default_rng(0)
HEADER = """# {count} training problems, diagnosed and fixed

Each network below is trained with a `GradientTracker` and diagnosed with its model and data. Then
it is trained again with each change that the findings recommend. *Skill* is 0 for the best constant
answer and 1 for a perfect one ([remedies](remedies.md)). `python docs/diagnosis_examples.py` writes
this page.
"""


def network(
    activation: str = "relu",
    initializer: object = "he",
    optimizer: keras.optimizers.Optimizer | None = None,
    layers: int = 6,
    **options: object,
) -> keras.Model:
    model = kgrad.create_model(
        layers, activation, initializer, units=64, input_shape=(20,), seed=0, **options
    )
    model.compile(optimizer or keras.optimizers.SGD(0.05), "binary_crossentropy")
    return model


def with_an_odd_layer() -> keras.Model:
    dense, xavier = keras.layers.Dense, keras.initializers.GlorotNormal
    model = keras.Sequential(
        [
            keras.Input((20,)),
            dense(64, "tanh", kernel_initializer=xavier(1), name="first"),
            dense(64, "tanh", kernel_initializer=normal(5.0), name="odd_one"),
            dense(64, "tanh", kernel_initializer=xavier(2), name="third"),
            dense(1, "sigmoid", kernel_initializer=xavier(3), name="output"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "binary_crossentropy")
    return model


def normal(stddev: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=stddev)


def stacked(*layers: keras.Layer, loss: str, shape: tuple[int, ...] = (20,)) -> keras.Model:
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile(keras.optimizers.Adam(0.003), loss)
    return model


def hidden(count: int, activation: str | None = "relu", **options: object) -> list[keras.Layer]:
    return [
        keras.layers.Dense(64, activation, name=f"hidden_{k}", **options)
        for k in range(1, count + 1)
    ]


def with_dropout() -> keras.Model:
    layers = hidden(2)
    layers = [layers[0], keras.layers.Dropout(0.95), layers[1], keras.layers.Dropout(0.95)]
    last = keras.layers.Dense(1, "sigmoid", name="output")
    return stacked(*layers, last, loss="binary_crossentropy")


def with_an_idle_layer() -> keras.Model:
    """The second layer's output is rounded, and rounding has no gradient."""
    inputs = keras.Input((20,))
    x = keras.layers.Dense(64, "relu", name="first")(inputs)
    x = keras.ops.round(keras.layers.Dense(64, "relu", name="second")(x))
    outputs = keras.layers.Dense(1, "sigmoid", name="output")(x)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "binary_crossentropy")
    return model


def slow_averages() -> keras.Model:
    norm = keras.layers.BatchNormalization(momentum=0.999, name="norm")
    return stacked(norm, *hidden(2), keras.layers.Dense(1, name="output"), loss="mse")


def embedding() -> keras.Model:
    layers = keras.layers
    return stacked(
        layers.Embedding(50, 8, name="table"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(1, "sigmoid", name="output"),
        loss="binary_crossentropy",
        shape=(16,),
    )


def wave() -> tuple[np.ndarray, np.ndarray]:
    X = RANDOM.uniform(-2, 2, (1024, 1)).astype("float32")
    return X, np.sin(2 * X)


def tokens() -> tuple[np.ndarray, np.ndarray]:
    """Words of the second half of the vocabulary stand for class 1, divided by 50 by mistake."""
    y = RANDOM.integers(2, size=(1024, 1))
    words = RANDOM.integers(25, size=(1024, 16)) + 25 * (RANDOM.random((1024, 16)) < 0.7 * y)
    return (words / 50).astype("float32"), y.astype("float32")


def rare() -> tuple[np.ndarray, np.ndarray]:
    y = (RANDOM.random((1024, 1)) < 0.04).astype("float32")
    return (RANDOM.normal(size=(1024, 20)) + 0.35 * y).astype("float32"), y


def far() -> tuple[np.ndarray, np.ndarray]:
    X = RANDOM.normal(50, 5, (1024, 20)).astype("float32")
    return X, np.tanh((X[:, :1] - 50) / 5)


SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
Arrays = tuple[np.ndarray, np.ndarray]
BINARY, PLAIN = "binary_crossentropy", (DATA.X, DATA.y)
WAVE, LINEAR = wave(), keras.layers.Dense
CASES: dict[str, tuple[str, Callable[[], keras.Model], Arrays]] = {
    "vanishing": (
        "Ten sigmoid layers, N(0, 0.05²)",
        lambda: network("sigmoid", "normal", layers=10),
        PLAIN,
    ),
    "exploding": (
        "Ten tanh layers, N(0, 1)",
        lambda: network("tanh", normal(1.0), SGD(0.01), layers=10),
        PLAIN,
    ),
    "nonfinite": ("Six ReLU layers, learning rate 5", lambda: network(optimizer=SGD(5.0)), PLAIN),
    "dead_units": (
        "Six ReLU layers, Adam with learning rate 0.3",
        lambda: network(optimizer=Adam(0.3)),
        PLAIN,
    ),
    "saturated": (
        "Three tanh layers, N(0, 4²)",
        lambda: network("tanh", normal(4.0), layers=3),
        PLAIN,
    ),
    "not_moving": (
        "Six ReLU layers, learning rate 1e-4",
        lambda: network(optimizer=SGD(1e-4)),
        PLAIN,
    ),
    "moving_too_far": (
        "Six tanh layers, Adam with learning rate 1",
        lambda: network("tanh", "xavier", Adam(1.0)),
        PLAIN,
    ),
    "always_clipped": (
        "Six ReLU layers, gradient norm clipped to 1e-4",
        lambda: network(optimizer=SGD(0.05, global_clipnorm=1e-4)),
        PLAIN,
    ),
    "layer_out_of_line": (
        "Three tanh layers, one of them drawn from N(0, 5²)",
        with_an_odd_layer,
        PLAIN,
    ),
    "badly_scaled_weights": (
        "Three ReLU layers, all weights 0.1",
        lambda: network(initializer=keras.initializers.Constant(0.1), layers=3),
        PLAIN,
    ),
    "output_loss_mismatch": (
        "Six ReLU layers, linear output with cross-entropy",
        lambda: network(output_activation="linear"),
        PLAIN,
    ),
    "inputs_out_of_scale": (
        "Six ReLU layers, inputs 1,000 times too large",
        lambda: network(optimizer=SGD(0.05)),
        (1000 * DATA.X, DATA.y),
    ),
    "targets_out_of_scale": (
        "Two ReLU layers, prices of 200,000 ± 35,000",
        lambda: stacked(*hidden(2), LINEAR(1, name="output"), loss="mse", shape=(1,)),
        (WAVE[0], 2e5 + 5e4 * WAVE[1]),
    ),
    "wrong_embedding_inputs": ("Word numbers divided by 50", embedding, tokens()),
    "no_nonlinearity": (
        "Three hidden layers without an activation, sin 2x",
        lambda: stacked(*hidden(3, None), LINEAR(1, name="output"), loss="mse", shape=(1,)),
        WAVE,
    ),
    "too_much_dropout": ("Two ReLU layers, dropout of 95 %", with_dropout, PLAIN),
    "too_strong_penalty": (
        "Two ReLU layers, L2 penalty of 0.5",
        lambda: stacked(
            *hidden(2, kernel_regularizer=keras.regularizers.L2(0.5)),
            LINEAR(1, "sigmoid", name="output"),
            loss=BINARY,
        ),
        PLAIN,
    ),
    "imbalanced_classes": (
        "4 % of the samples are of class 1",
        lambda: network(optimizer=SGD(0.01), layers=2),
        rare(),
    ),
    "unsettled_batchnorm": (
        "Batch normalization of inputs near 50, momentum 0.999",
        slow_averages,
        far(),
    ),
    "no_path_to_loss": ("A layer whose output is rounded", with_an_idle_layer, PLAIN),
    "unrelated_targets": (
        "Two ReLU layers, labels shuffled",
        lambda: network(layers=2),
        (DATA.X, RANDOM.permutation(DATA.y)),
    ),
}


def section(rule: str, title: str, make: Callable[[], keras.Model], data: Arrays) -> str:
    model, probe = make(), (data[0][:128], data[1][:128])
    tracker = kgrad.GradientTracker(probe=probe)
    keras.utils.set_random_seed(0)
    model.fit(*data, epochs=EPOCHS, verbose=0, callbacks=[tracker])
    diagnosis = kgrad.diagnose(tracker.history, model, *data)
    loss = tracker.history.logs["loss"]
    lines = [f"## {rule}", "", f"{title}: loss {loss[1]:.3g} → {loss[-1]:.3g}.", ""]
    for place, finding in enumerate(diagnosis):
        evidence = " ".join(map(str, finding.evidence))
        role = "May follow from it" if place else "The cause, most likely"
        lines.append(f"- {role}: **{finding.rule}** in {finding.where()}. {evidence}")
    if rule not in diagnosis.rules:
        raise ValueError(f"{rule} must be found, found {diagnosis.rules}")
    lines += ["", f"What to do: {diagnosis[0].remedies[0]}"]
    trials = kgrad.try_remedies(make(), *data, epochs=EPOCHS, remedies=diagnosis, verbose=0)
    if len(trials) > 1:
        lines += ["", "| change | skill | result |", "|---|---|---|"]
        lines += [f"| {t.name} | {skill_text(t.skill)} | {t.note} |" for t in list(trials)[:5]]
        figure = kgrad.plot_remedies(trials, title=title)
        name = f"fixed_{rule}.png"
        figure.savefig(HERE / "figures" / name, dpi=80)
        lines += ["", f"![Gradients and skills, unchanged and with remedies](figures/{name})"]
    else:
        lines += ["", "There is no change to try automatically."]
    return "\n".join(lines)


def main() -> None:
    words = {21: "Twenty-one"}
    parts = [HEADER.format(count=words.get(len(CASES), len(CASES)))]
    for rule, case in CASES.items():
        parts.append(section(rule, *case) + "\n")
        print(parts[-1], flush=True)
        keras.utils.clear_session()
    (HERE / "diagnosis_examples.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()

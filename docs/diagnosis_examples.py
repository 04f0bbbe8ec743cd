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

HERE = Path(__file__).parent
DATA = kgrad.make_dataset("classification", 1024)
HEADER = """# Eleven training problems, diagnosed and fixed

Each network below is trained for five epochs with a `GradientTracker` and diagnosed. Then it is
trained again with each change that its findings recommend. The tables show the loss of the
unchanged network and of the best changes. `python docs/diagnosis_examples.py` writes this page.
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


SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
CASES: dict[str, tuple[str, Callable[[], keras.Model]]] = {
    "vanishing": (
        "Ten sigmoid layers, N(0, 0.05²)",
        lambda: network("sigmoid", "normal", layers=10),
    ),
    "exploding": (
        "Ten tanh layers, N(0, 1)",
        lambda: network("tanh", normal(1.0), SGD(0.01), layers=10),
    ),
    "nonfinite": ("Six ReLU layers, learning rate 5", lambda: network(optimizer=SGD(5.0))),
    "dead_units": (
        "Six ReLU layers, Adam with learning rate 0.3",
        lambda: network(optimizer=Adam(0.3)),
    ),
    "saturated": ("Three tanh layers, N(0, 4²)", lambda: network("tanh", normal(4.0), layers=3)),
    "not_moving": ("Six ReLU layers, learning rate 1e-4", lambda: network(optimizer=SGD(1e-4))),
    "moving_too_far": (
        "Six tanh layers, Adam with learning rate 1",
        lambda: network("tanh", "xavier", Adam(1.0)),
    ),
    "always_clipped": (
        "Six ReLU layers, gradient norm clipped to 1e-4",
        lambda: network(optimizer=SGD(0.05, global_clipnorm=1e-4)),
    ),
    "layer_out_of_line": ("Three tanh layers, one of them drawn from N(0, 5²)", with_an_odd_layer),
    "badly_scaled_weights": (
        "Three ReLU layers, all weights 0.1",
        lambda: network(initializer=keras.initializers.Constant(0.1), layers=3),
    ),
    "output_loss_mismatch": (
        "Six ReLU layers, linear output with cross-entropy",
        lambda: network(output_activation="linear"),
    ),
}


def section(rule: str, title: str, make: Callable[[], keras.Model]) -> str:
    model, probe = make(), (DATA.X[:128], DATA.y[:128])
    tracker = kgrad.GradientTracker(probe=probe)
    keras.utils.set_random_seed(0)
    model.fit(DATA.X, DATA.y, epochs=5, verbose=0, callbacks=[tracker])
    diagnosis = kgrad.diagnose(tracker.history, model, DATA.X, DATA.y)
    loss = tracker.history.logs["loss"]
    lines = [f"## {rule}", "", f"{title}: loss {loss[1]:.3g} → {loss[-1]:.3g}.", ""]
    for finding in diagnosis:
        evidence = " ".join(map(str, finding.evidence))
        lines.append(f"- **{finding.rule}** in {finding.where()}: {evidence}")
    assert rule in diagnosis.rules, (rule, diagnosis.rules)
    trials = kgrad.try_remedies(make(), DATA.X, DATA.y, epochs=5, remedies=diagnosis)
    if len(trials) > 1:
        lines += ["", "| change | loss, last epoch |", "|---|---|"]
        lines += [f"| {trial.name} | {trial.loss:.3g} |" for trial in list(trials)[:5]]
        figure = kgrad.plot_remedies(trials, title=title)
        name = f"fixed_{rule}.png"
        figure.savefig(HERE / "figures" / name, dpi=80)
        lines += ["", f"![Gradients and losses, unchanged and with remedies](figures/{name})"]
    else:
        lines += [
            "",
            f"There is no change to try automatically. Remedy: {diagnosis[0].remedies[0]}",
        ]
    return "\n".join(lines)


def main() -> None:
    parts = [HEADER]
    for rule, (title, make) in CASES.items():
        parts.append(section(rule, title, make) + "\n")
        print(parts[-1], flush=True)
        keras.utils.clear_session()
    (HERE / "diagnosis_examples.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()

"""The ill runs: the fault that is built into a healthy base, and the family of the fault.

A row builds one fault into a pair of bases, one for each half of the gallery. `accepted` lists the
families that describe the same fault equally well. It follows from the construction of the fault,
not from the outcome of the training.
"""

from typing import NamedTuple

from benchmarks.diagnosis.bases import base_recipes
from benchmarks.diagnosis.healthy import TRACKINGS, Fields, data, net, opt
from benchmarks.diagnosis.recipes import Case, changed


def spike(rate: float, high: float, first: int, last: int) -> Fields:
    """Return the configuration of a learning rate with a spike."""
    return {
        "class_name": "PiecewiseConstantDecay",
        "config": {"boundaries": [first, last], "values": [rate, high, rate]},
    }


def falling(rate: float, steps: int) -> Fields:
    """Return the configuration of a learning rate that falls 1000-fold every `steps` steps."""
    return {
        "class_name": "ExponentialDecay",
        "config": {"initial_learning_rate": rate, "decay_steps": steps, "decay_rate": 0.001},
    }


def weights(kind: str, pattern: str, number: float) -> Fields:
    return {"changes": ((kind, pattern, number),)}


class Row(NamedTuple):
    """One fault: the fields that it changes in the first and in the second base of a pair."""

    kind: str
    base: str
    first: Fields
    second: Fields | None = None  # None: the same as in the first
    accepted: tuple[str, ...] = ()


SIGMOID = net(activation="sigmoid", init="xavier")
SCALED = ("badly_scaled_weights",)
INPUTS = ("inputs_out_of_scale",)
KILLS = ("exploding", "dead_units")  # effects of a learning rate that is too high on ReLU networks
FOLLOWS_INPUTS = (
    *("moving_too_far", "exploding", "dead_units", "nonfinite", "saturated", "vanishing"),
)  # effects of inputs that are too large
ROWS: dict[str, list[Row]] = {
    "vanishing": [
        Row("sigmoid", "relu-moons", SIGMOID),
        Row("sigmoid", "relu-digits", SIGMOID),
        Row("sigmoid", "relu-adam", SIGMOID),
        Row("sigmoid", "deep-adam", SIGMOID),
        Row("sigmoid", "momentum-moons", net(activation="sigmoid", init="xavier", depth=9)),
        Row("sigmoid", "rmsprop-circles", net(activation="sigmoid", init="xavier", depth=12)),
        Row("sigmoid-cnn", "cnn-sgd", net(activation="sigmoid", init="glorot_uniform")),
        Row("sigmoid-rnn", "early-signal", net(activation="sigmoid")),
        Row("sigmoid-rnn", "rnn", net(activation="sigmoid")),
        Row("small-weights", "relu-moons", weights("normal", "hidden*kernel", 0.02), None, SCALED),
        Row("smaller-weights", "relu-digits", weights("scale", "*kernel", 0.1), None, SCALED),
        Row("small-weights", "relu-adam", weights("normal", "hidden*kernel", 0.01), None, SCALED),
        Row("half-weights", "deep-adam", weights("scale", "hidden*kernel", 0.25), None, SCALED),
        Row("small-weights", "tanh-moons", weights("normal", "hidden*kernel", 0.02), None, SCALED),
        Row("third-weights", "tanh-moons", weights("scale", "hidden*kernel", 0.3), None, SCALED),
        Row("small-weights", "cnn-sgd", weights("scale", "*kernel", 0.1), None, SCALED),
    ],
    "exploding": [
        Row("large-weights", "relu-moons", weights("scale", "hidden*kernel", 4.0), None, SCALED),
        Row("large-weights", "relu-digits", weights("scale", "hidden*kernel", 4.0), None, SCALED),
        Row("double-weights", "relu-adam", weights("scale", "hidden*kernel", 3.0), None, SCALED),
        Row("double-weights", "deep-adam", weights("scale", "hidden*kernel", 2.0), None, SCALED),
        Row("normal-weights", "relu-adam", weights("normal", "*kernel", 0.7), None, SCALED),
        Row("large-weights", "regression", weights("scale", "hidden*kernel", 5.0), None, SCALED),
        Row("large-weights", "cnn-adam", weights("scale", "*kernel", 8.0), None, SCALED),
        Row("large-weights", "rmsprop-circles", weights("scale", "*kernel", 5.0), None, SCALED),
        Row("linear-rnn", "rnn",
             {**net(activation="linear"), **weights("scale", "*recurrent_kernel", 2.0)}, None,
             SCALED),
        Row("relu-rnn", "early-signal",
             {**net(kind="SimpleRNN", activation="relu"),
             **weights("scale", "*recurrent_kernel", 2.5)},
             None, SCALED),
        Row("unscaled-targets", "regression", data(target_scale=1000.0, target_shift=500.0), None,
             ("targets_out_of_scale",)),
    ],
    "nonfinite": [
        Row("rate", "regression", opt("sgd", 3.0), opt("sgd", 1.0),
             ("moving_too_far", "exploding")),
        Row("rate", "regression-tanh", opt("sgd", 10.0), opt("sgd", 5.0),
             ("moving_too_far", "exploding")),
        Row("log-of-zero", "relu-moons",
             {"loss": "unclipped_log", **weights("scale", "output/kernel", 200.0)},
             {"loss": "unclipped_log", **data(input_scale=100.0)}),
        Row("log-of-zero", "tanh-shallow", {"loss": "unclipped_log", **opt("adam", 1.0)}),
        Row("nan-inputs", "relu-digits", data(nan_inputs=1)),
        Row("nan-inputs", "lstm", data(nan_inputs=3)),
        Row("nan-inputs", "cnn-adam", data(nan_inputs=1)),
        Row("overflow", "regression", net(activation="exponential"),
             {**net(activation="exponential"), **data(input_scale=5.0)}, ("exploding",)),
        Row("overflow", "relu-adam", data(input_scale=1e+30), data(input_scale=1e+34),
             ("exploding", *INPUTS)),
    ],
    "dead_units": [
        Row("bias", "relu-moons", weights("bias", "hidden*bias", -10.0)),
        Row("bias", "relu-digits", weights("bias", "hidden*bias", -6.0)),
        Row("bias", "relu-adam", weights("bias", "hidden*bias", -4.0)),
        Row("bias-of-one", "relu-moons", weights("bias", "hidden_3/bias", -10.0)),
        Row("bias", "cnn-adam", weights("bias", "conv*bias", -20.0)),
        Row("spike", "relu-adam", opt("adam", spike(0.002, 1.0, 5, 15)), None, ("moving_too_far",)),
        Row("spike", "rmsprop-circles", opt("rmsprop", spike(0.003, 1.0, 5, 15)), None,
             ("moving_too_far",)),
        Row("rate", "cnn-sgd", opt("sgd", 30.0), opt("sgd", 100.0), ("moving_too_far",)),
        Row("rate", "relu-adam", opt("adam", 0.3), None, ("moving_too_far",)),
        Row("rate", "cnn-adam", opt("adam", 0.5), None, ("moving_too_far",)),
        Row("narrow", "deep-adam", net(units=3), net(units=2)),
    ],
    "saturated": [
        Row("large-weights", "tanh-digits", weights("scale", "hidden*kernel", 30.0), None, SCALED),
        Row("normal-weights", "tanh-shallow", weights("normal", "hidden*kernel", 100.0), None,
             SCALED),
        Row("bias", "tanh-moons", weights("bias", "hidden*bias", 8.0)),
        Row("bias", "tanh-digits", weights("bias", "hidden*bias", -6.0)),
        Row("bias", "tanh-shallow", weights("bias", "hidden*bias", 8.0)),
        Row("bias", "regression-tanh", weights("bias", "hidden*bias", 6.0)),
        Row("inputs", "tanh-digits", data(input_scale=1000.0, input_shift=5000.0), None, INPUTS),
        Row("inputs", "tanh-shallow", data(input_scale=1000.0, input_shift=3000.0), None, INPUTS),
        Row("inputs", "tanh-moons", data(input_scale=100.0, input_shift=500.0), None, INPUTS),
        Row("inputs", "regression-tanh", data(input_scale=1000.0), None, INPUTS),
        Row("sigmoid-weights", "tanh-shallow",
             {**net(activation="sigmoid"), **weights("scale", "hidden*kernel", 1000.0)}, None,
             SCALED),
    ],
    "not_moving": [
        Row("rate", "relu-moons", opt("sgd", 1e-06), opt("sgd", 0.0001)),
        Row("rate", "relu-digits", opt("sgd", 1e-05), opt("sgd", 0.0001)),
        Row("rate", "relu-adam", opt("adam", 1e-07), opt("adam", 3e-06)),
        Row("rate", "tanh-digits", opt("adam", 1e-06), opt("adam", 1e-05)),
        Row("rate", "rmsprop-circles", opt("rmsprop", 1e-06), opt("rmsprop", 1e-05)),
        Row("rate", "cnn-adam", opt("adam", 1e-05), opt("adam", 1e-06)),
        Row("rate", "lstm", opt("adam", 1e-06), opt("adam", 1e-05)),
        Row("rate", "regression", opt("sgd", 1e-06), opt("sgd", 1e-05)),
        Row("adagrad", "tanh-shallow", {"optimizer": "adagrad", **opt("adagrad", 0.0001)}),
        Row("rate", "transformer", opt("adam", 1e-06), opt("adam", 3e-06)),
        Row("decay", "relu-moons", opt("sgd", falling(0.1, 4)), opt("sgd", falling(0.1, 8))),
    ],
    "moving_too_far": [
        Row("rate", "tanh-moons", opt("sgd", 20.0), opt("sgd", 10.0), ("exploding",)),
        Row("rate", "tanh-digits", opt("adam", 1.0), opt("adam", 0.3), ("exploding",)),
        Row("rate", "relu-moons", opt("sgd", 5.0), opt("sgd", 3.0), KILLS),
        Row("rate", "momentum-moons", opt("sgd", 3.0), opt("sgd", 2.0), KILLS),
        Row("rate", "tanh-shallow", opt("adam", 10.0), opt("adam", 5.0), ("exploding",)),
        Row("rate", "cnn-adam", opt("adam", 0.1), opt("adam", 0.2), KILLS),
        Row("rate", "lstm", opt("adam", 20.0), opt("adam", 10.0), ("exploding",)),
        Row("rate", "regression-tanh", opt("adam", 3.0), opt("adam", 1.0), ("exploding",)),
        Row("rate", "transformer", opt("adam", 1.0), opt("adam", 0.3), ("exploding",)),
        Row("rate", "rnn", opt("sgd", 10.0), opt("sgd", 5.0), ("exploding",)),
    ],
    "always_clipped": [
        Row("clipnorm", "relu-moons", opt("sgd", 0.1, clipnorm=0.0001),
             opt("sgd", 0.1, clipnorm=0.001), ("not_moving",)),
        Row("clipnorm", "relu-digits", opt("sgd", 0.05, global_clipnorm=0.001),
             opt("sgd", 0.05, global_clipnorm=0.01), ("not_moving",)),
        Row("clipvalue", "tanh-moons", opt("sgd", 0.1, clipvalue=1e-05),
             opt("sgd", 0.1, clipvalue=0.0001), ("not_moving",)),
        Row("clipnorm", "cnn-sgd", opt("sgd", 0.1, clipnorm=0.001),
             opt("sgd", 0.1, clipnorm=0.01), ("not_moving",)),
        Row("clipnorm", "regression", opt("sgd", 0.02, global_clipnorm=0.01),
             opt("sgd", 0.02, global_clipnorm=0.05), ("not_moving",)),
        Row("clipnorm", "rnn", opt("sgd", 0.05, clipnorm=0.001),
             opt("sgd", 0.05, clipnorm=0.01), ("not_moving",)),
        Row("clipnorm", "momentum-moons", opt("sgd", 0.05, clipnorm=0.001),
             opt("sgd", 0.05, clipnorm=0.001), ("not_moving",)),
    ],
    "layer_out_of_line": [
        # A single small layer usually recovers within an epoch; with slow training it does harm.
        Row("small", "relu-moons", weights("scale", "hidden_3/kernel", 0.001), None, SCALED),
        Row("small", "slow-digits", weights("scale", "hidden_3/kernel", 1e-4), None, SCALED),
        Row("smaller", "slow-digits", weights("scale", "hidden_5/kernel", 1e-5), None, SCALED),
        Row("large", "cnn-sgd", weights("scale", "conv_2/kernel", 50.0), None, SCALED),
        Row("large", "rmsprop-circles", weights("scale", "hidden_3/kernel", 1000.0), None, SCALED),
        Row("large", "relu-digits", weights("scale", "hidden_2/kernel", 100.0),
             weights("scale", "hidden_3/kernel", 100.0), SCALED),
        Row("large", "relu-adam", weights("scale", "hidden_4/kernel", 1000.0),
             weights("scale", "hidden_6/kernel", 1000.0), SCALED),
        Row("large", "regression", weights("scale", "hidden_1/kernel", 30.0),
             weights("scale", "hidden_2/kernel", 30.0), SCALED),
        Row("saturated", "tanh-moons", weights("bias", "hidden_3/bias", 10.0), None,
             ("saturated",)),
        Row("saturated", "tanh-digits", weights("bias", "hidden_2/bias", 12.0), None,
             ("saturated",)),
    ],
    "badly_scaled_weights": [
        Row("zeros", "relu-moons", weights("constant", "*kernel", 0.0)),
        Row("zeros", "tanh-digits", weights("constant", "*kernel", 0.0)),
        Row("constant", "relu-digits", weights("constant", "*kernel", 0.05)),
        Row("constant", "cnn-adam", weights("constant", "*kernel", 0.1)),
        Row("ones", "tanh-shallow", weights("constant", "*kernel", 1.0), None, ("saturated",)),
        Row("ones", "momentum-moons", weights("constant", "*kernel", 1.0), None, ("exploding",)),
        Row("large", "cnn-sgd", weights("normal", "*kernel", 1.0), None, ("exploding",)),
        Row("positive", "relu-adam", weights("uniform", "*kernel", 1.0), None, ("exploding",)),
        Row("large", "rnn", weights("normal", "*kernel", 5.0), None, ("saturated",)),
    ],
    "output_loss_mismatch": [
        # Keras computes the loss from the logits, so it falls; the prediction is always 1.
        Row("softmax-of-one", "relu-moons", {"by": "accuracy", "output": (1, "softmax")}),
        Row("softmax-of-one", "tanh-shallow", {"by": "accuracy", "output": (1, "softmax")}),
        Row("softmax-of-one", "lstm", {"by": "accuracy", "output": (1, "softmax")}),
        Row("softmax-of-one", "regression", {"output": (1, "softmax")}),
        Row("linear-crossentropy", "relu-adam", {"output": (1, "linear")}),
        Row("linear-crossentropy", "relu-digits", {"output": (10, "linear")}),
        Row("linear-crossentropy", "cnn-adam", {"output": (10, "linear")}),
        Row("relu-crossentropy", "tanh-digits", {"output": (10, "relu")}),
        Row("sigmoid-targets", "regression", {"output": (1, "sigmoid")}),
        Row("relu-targets", "regression-tanh", {"output": (1, "relu")}),
        Row("labels-of-two", "momentum-moons", {"by": "accuracy", **data(target_shift=1.0)}),
        Row("labels-of-minus-one", "rmsprop-circles",
             {"by": "accuracy", **data(target_scale=2.0, target_shift=-1.0)}),
        Row("labels-beyond", "tanh-digits", {"jit": True, **data(target_shift=5.0)}),
    ],
    "inputs_out_of_scale": [
        Row("pixels", "relu-digits", data(input_scale=255.0), None, FOLLOWS_INPUTS),
        Row("pixels", "cnn-sgd", data(input_scale=255.0), None, FOLLOWS_INPUTS),
        Row("pixels", "slow-digits", data(input_scale=1000.0), None, FOLLOWS_INPUTS),
        Row("years", "relu-moons", data(input_scale=10.0, input_shift=2000.0), None,
             FOLLOWS_INPUTS),
        Row("years", "rmsprop-circles", data(input_scale=10.0, input_shift=2000.0), None,
             FOLLOWS_INPUTS),
        Row("incomes", "regression", data(input_scale=30000.0), None, FOLLOWS_INPUTS),
        Row("incomes", "momentum-moons", data(input_scale=30000.0), None, FOLLOWS_INPUTS),
        Row("scaled-twice", "slow-digits", data(input_scale=1 / 255), None, ("vanishing",)),
        Row("scaled-twice", "cnn-sgd", data(input_scale=1 / 255), None, ("vanishing",)),
        Row("nanometers", "relu-moons", data(input_scale=1e-4), None, ("vanishing",)),
    ],
    "targets_out_of_scale": [
        Row("prices", "regression-tanh", data(target_scale=5e4, target_shift=2e5)),
        Row("prices", "regression", data(target_scale=5e4, target_shift=2e5), None,
             ("exploding", "nonfinite", "moving_too_far")),
        Row("temperatures", "regression-tanh", data(target_scale=20.0, target_shift=300.0)),
        Row("years", "regression-tanh", data(target_scale=10.0, target_shift=2000.0)),
        Row("grams", "regression-tanh", data(target_scale=1e4)),
        Row("hundreds", "regression-tanh", data(target_scale=300.0, target_shift=100.0)),
        Row("millions", "regression-tanh", data(target_scale=1e6)),
    ],
    "no_nonlinearity": [
        Row("linear-as-deep", "relu-adam", net(activation="linear")),
        Row("linear-moderate", "rmsprop-circles", net(activation="linear")),
        Row("linear-three", "relu-adam", {**net(activation="linear", depth=3),
             **opt("adam", 0.01)}),
        Row("linear-narrow", "regression-tanh", net(activation="linear")),
        Row("linear-two", "rmsprop-circles", {**net(activation="linear", depth=2),
             **opt("rmsprop", 0.01)}),
        Row("linear-four", "regression-tanh", {**net(activation="linear", depth=4),
             **opt("adam", 0.003)}),
        Row("linear-sgd", "relu-adam", {**net(activation="linear", depth=5), **opt("sgd", 0.1)}),
    ],
    "too_much_dropout": [
        Row(f"rate-{rate}", base, {"network": "dropout_mlp", **net(rate=rate)})
        for base, rate in (
            ("relu-digits", 0.9), ("relu-moons", 0.9), ("relu-adam", 0.9), ("slow-digits", 0.8),
            ("momentum-moons", 0.95), ("rmsprop-circles", 0.9), ("relu-digits", 0.95),
            ("slow-digits", 0.9),
        )
    ],
    "too_strong_penalty": [
        Row(f"penalty-{penalty:g}", base,  # whose loss has the penalty, which is not to be judged
             {"network": "penalized_mlp", "by": "accuracy", **net(penalty=penalty)}, None,
             ("vanishing", "dead_units"))
        for base, penalty in (
            ("relu-moons", 0.3), ("relu-digits", 0.3), ("relu-adam", 0.1), ("deep-adam", 0.1),
            ("momentum-moons", 0.3), ("rmsprop-circles", 0.1), ("tanh-moons", 0.3),
            ("tanh-digits", 0.3),
        )
    ],
    "unrelated_targets": [
        Row("shuffled", base, data(shuffled=True))
        for base in (
            "relu-digits", "tanh-digits", "cnn-sgd", "relu-moons", "regression", "slow-digits",
            "lstm", "momentum-moons",
        )
    ],
    "wrong_embedding_inputs": [  # fractions, of which an Embedding keeps the integer part
        Row(f"divided-by-{divisor}", base, data(input_scale=1 / divisor))
        for base, divisor in (
            ("transformer", 50), ("sentences", 50), ("bag-of-words", 50), ("reviews", 80),
            ("next-words", 20), ("letters", 12), ("factorization", 20), ("factorization", 7),
        )
    ],
    "no_path_to_loss": [
        Row(cut, base, net(cut=cut))
        for base in ("narrow-digits", "narrow-images", "narrow-regression", "narrow-classes")
        for cut in ("stop_gradient", "round")
    ],
}  # fmt: skip


def ill_cases() -> list[Case]:
    """Return all ill cases."""
    bases = base_recipes()
    rows = [(family, row) for family, rows in ROWS.items() for row in rows]
    cases = []
    for place, (family, row) in enumerate(rows):
        for n, fault in enumerate((row.first, row.second or row.first)):
            tracking = TRACKINGS[(2 * place + 3 * n) % len(TRACKINGS)]
            # The loop rejects data that are not finite. TensorFlow without XLA rejects labels that
            # are out of range.
            refused = "by" in fault or "nan_inputs" in fault.get("task_options", {})
            if "jit" in fault or (refused and tracking == "loop"):
                tracking = "default"
            # The twin is judged by the same measure of success.
            twin = changed(bases[row.base][n], {"by": fault.get("by", "loss")})
            recipe = changed(twin, fault | {"tracking": tracking})
            name = f"{family}-{row.kind}-{row.base}-{twin.seed}"
            cases.append(Case(name, recipe, family, row.accepted, twin))
    return cases

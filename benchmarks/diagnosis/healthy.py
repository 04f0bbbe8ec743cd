"""The healthy runs: they train well, even if their numbers look unusual.

Each row is a pair of runs with different seeds and sizes, one for each half of the gallery. Each
run also has variants, with other seeds, learning rates, batches and numbers of samples.
"""

from dataclasses import replace
from typing import Any

from benchmarks.diagnosis.recipes import Case, Recipe, changed

Fields = dict[str, Any]
TRACKINGS = ("full", "default", "full", "full", "default", "full", "loop", "full", "default")


def decay(rate: float, steps: int) -> Fields:
    """Return the configuration of a learning rate that decays to 0 along a cosine."""
    return {
        "class_name": "CosineDecay",
        "config": {"initial_learning_rate": rate, "decay_steps": steps},
    }


def net(**options: Any) -> Fields:
    return {"network_options": options}


def opt(name: str, rate: Any, **options: Any) -> Fields:
    return {"optimizer": name, "optimizer_options": {"learning_rate": rate, **options}}


def data(**options: Any) -> Fields:
    return {"task_options": options}


# name, common fields of the pair, fields of the first run, fields of the second
PAIRS: list[tuple[str, Fields, Fields, Fields]] = [
    ("converged", {"task": "blobs", **opt("adam", 0.01), "epochs": 20},
     net(depth=2), net(depth=4, units=16)),
    ("converged-moons", {"task": "moons", **opt("adam", 0.01), "epochs": 20},
     net(depth=3, units=48), net(depth=2, units=64, activation="tanh", init="xavier")),
    ("converged-digits", {"task": "digits", **opt("adam", 0.003), "epochs": 20},
     net(depth=2, units=64), net(depth=3, units=48, activation="selu", init="lecun")),
    ("memorized",
     {"task": "classification", **opt("adam", 0.005), "epochs": 20, **data(samples=300)},
     net(depth=3, units=64), net(depth=2, units=128)),
    ("narrow", {"task": "moons", **opt("adam", 0.01), "epochs": 20},
     net(depth=2, units=4), net(depth=3, units=6)),
    ("narrow-tanh", {"task": "classification", **opt("sgd", 0.2), "epochs": 20},
     net(depth=2, units=8, activation="tanh", init="xavier"),
     net(depth=3, units=5, activation="tanh", init="xavier")),
    ("deep-he", {"task": "circles", "epochs": 12, **opt("adam", 0.001)},
     net(depth=20, units=48), net(depth=24, units=64)),
    ("deep-residual", {"task": "moons", "epochs": 8, **opt("adam", 0.001)},
     net(depth=30, skip=True, init="xavier", units=24),
     net(depth=40, skip=True, init="xavier", units=16, activation="tanh")),
    ("deep-residual-batchnorm", {"task": "digits", "epochs": 8, **opt("adam", 0.003)},
     net(depth=20, norm="batch", skip=True), net(depth=24, norm="batch", skip=True, units=48)),
    ("deep-residual-layernorm", {"task": "circles", "epochs": 6, **opt("adam", 0.001)},
     net(depth=50, norm="layer", skip=True, units=16),
     net(depth=36, norm="layer", skip=True, units=24, activation="gelu")),
    ("shallow", {"task": "circles", **opt("adam", 0.02)},
     net(depth=1, units=16), net(depth=1, units=64, activation="tanh", init="xavier")),
    ("tanh", {"task": "moons", **net(activation="tanh", init="xavier")},
     {**net(depth=4), **opt("adam", 0.005)}, {**net(depth=6), **opt("sgd", 0.1)}),
    ("selu", {"task": "classification", **net(activation="selu", init="lecun")},
     {**net(depth=8), **opt("adam", 0.001)}, {**net(depth=5), **opt("sgd", 0.05)}),
    ("gelu", {"task": "moons", **net(activation="gelu")},
     {**net(depth=4), **opt("adamw", 0.005)}, {**net(depth=3, units=64), **opt("adam", 0.005)}),
    ("elu", {"task": "circles", **net(activation="elu")},
     {**net(depth=4), **opt("adam", 0.005)}, {**net(depth=3), **opt("rmsprop", 0.003)}),
    ("sigmoid-shallow", {"task": "moons", **net(activation="sigmoid", init="xavier")},
     {**net(depth=1, units=32), **opt("adam", 0.03)},
     {**net(depth=2, units=32), **opt("adam", 0.03)}),
    ("softplus", {"task": "circles", **net(activation="softplus")},
     {**net(depth=2), **opt("adam", 0.01)}, {**net(depth=3), **opt("adam", 0.01)}),
    ("leaky-swish", {"task": "spirals", "epochs": 20, **opt("adam", 0.01)},
     net(depth=4, activation="lrelu", units=64), net(depth=4, activation="swish", units=64)),
    ("batchnorm", {"task": "digits", **net(norm="batch"), "epochs": 8},
     {**net(depth=4), **opt("sgd", 0.1)},
     {**net(depth=6, activation="tanh"), **opt("adam", 0.005)}),
    ("layernorm", {"task": "classification", **net(norm="layer"), "epochs": 8},
     {**net(depth=4), **opt("adam", 0.003)}, {**net(depth=6), **opt("sgd", 0.05)}),
    ("cnn", {"task": "images", "network": "cnn", "epochs": 8},
     {**net(filters=(8, 16)), **opt("adam", 0.003)},
     {**net(filters=(16, 16, 32)), **opt("sgd", 0.1)}),
    ("cnn-batchnorm", {"task": "images", "network": "cnn", **net(norm=True), "epochs": 6},
     {**net(filters=(8, 8)), **opt("adam", 0.005)},
     {**net(filters=(8, 16, 16)), **opt("nadam", 0.005)}),
    ("cnn-residual",
     {"task": "images", "network": "residual_cnn", "epochs": 8, **opt("adam", 0.01)},
     net(blocks=3), net(blocks=5, filters=12)),
    ("lstm", {"task": "sequences", "network": "recurrent", **opt("adam", 0.01), "epochs": 8},
     net(units=(16,)), net(units=(12, 12))),
    ("gru", {"task": "forecast", "network": "recurrent", **opt("adam", 0.01), "epochs": 10},
     net(kind="GRU", units=(16,)), net(kind="GRU", units=(8,), bidirectional=True)),
    ("simple-rnn", {"task": "sequences", "network": "recurrent", "epochs": 8},
     {**net(kind="SimpleRNN", units=(16,)), **opt("adam", 0.005)},
     {**net(kind="SimpleRNN", units=(12, 12)), **opt("rmsprop", 0.003)}),
    ("transformer",
     {"task": "tokens", "network": "transformer", "epochs": 6, **opt("adam", 0.003)},
     net(blocks=1), net(blocks=2, width=24)),
    ("embedding", {"task": "tokens", "network": "bag_of_words", "epochs": 10, **opt("adam", 0.01)},
     net(width=8), {**net(width=16, words=200), **data(samples=800)}),
    ("autoencoder", {"task": "reconstruction", "epochs": 15, **opt("adam", 0.003)},
     net(depth=3, units=[32, 12, 32]),
     net(depth=5, units=[48, 24, 10, 24, 48], activation="elu")),
    ("regression", {"task": "regression", "epochs": 12},
     {**net(depth=2), **opt("adam", 0.005)}, {**net(depth=1, units=64), **opt("sgd", 0.01)}),
    ("sine", {"task": "sine", "epochs": 15, **opt("adam", 0.01)},
     net(depth=2, activation="tanh", init="xavier"), net(depth=3, units=24)),
    ("large-targets",
     {"task": "regression", "network": "scaled_mlp", "epochs": 12, **opt("adam", 0.005)},
     {**net(scale=200.0, offset=500.0, depth=2), **data(target_scale=200.0, target_shift=500.0)},
     {**net(scale=300.0, offset=0.0, depth=3), **data(target_scale=300.0)}),
    ("unscaled-targets", {"task": "regression", "epochs": 20, **opt("adam", 0.02)},
     {**net(depth=2, units=64), **data(target_scale=8.0, target_shift=10.0)},
     {**net(depth=2, units=48), **data(target_scale=12.0)}),
    ("tiny-targets", {"task": "sine", "network": "scaled_mlp", "epochs": 15, **opt("adam", 0.01)},
     {**net(scale=0.001, offset=0.0, depth=2), **data(target_scale=0.001)},
     {**net(scale=0.01, offset=0.02, depth=3), **data(target_scale=0.01, target_shift=0.02)}),
    ("mean-absolute-error",
     {"task": "regression", "loss": "mean_absolute_error", "epochs": 12, **opt("adam", 0.01)},
     net(depth=2), net(depth=3, activation="elu")),
    ("imbalanced", {"task": "imbalanced", "epochs": 10},
     {**net(depth=2), **opt("adam", 0.005)},
     {**net(depth=2, activation="tanh", init="xavier"), **opt("sgd", 0.1)}),
    ("noisy-labels", {"task": "flipped", "epochs": 15, **opt("adam", 0.01)},
     net(depth=2), net(depth=3, activation="tanh", init="xavier")),
    ("tiny-batch", {"task": "moons", "batch_size": 2, "epochs": 5},
     {**opt("sgd", 0.02), **data(samples=300)}, {**opt("adam", 0.002), **data(samples=320)}),
    ("large-batch", {"task": "circles", "batch_size": 512, "epochs": 20},
     {**opt("adam", 0.03), **net(depth=2)},
     {**opt("adam", 0.02), **net(depth=3), "batch_size": 256}),
    ("sgd", {"task": "digits", "epochs": 10, **opt("sgd", 0.05)},
     net(depth=2), net(depth=4, units=48)),
    ("momentum", {"task": "spirals", "epochs": 20, **opt("sgd", 0.05, momentum=0.9)},
     net(depth=3, units=64), net(depth=4, units=64)),
    ("adamw", {"task": "digits", "epochs": 8, **opt("adamw", 0.003, weight_decay=0.05)},
     net(depth=3), net(depth=2, units=64, activation="gelu")),
    ("rmsprop-adagrad", {"task": "classification", "epochs": 10},
     {**opt("rmsprop", 0.003), **net(depth=3)}, {**opt("adagrad", 0.05), **net(depth=2)}),
    ("lion-nadam", {"task": "moons", "epochs": 10},
     {**opt("lion", 0.001), **net(depth=3)}, {**opt("nadam", 0.005), **net(depth=3, units=24)}),
    ("weight-decay", {"task": "moons", "epochs": 12},
     {**opt("sgd", 0.1, momentum=0.9, weight_decay=0.001), **net(depth=3)},
     {**opt("adam", 0.01, weight_decay=0.01), **net(depth=3, units=48)}),
    ("decayed", {"task": "circles", "epochs": 20, **net(depth=3)},
     opt("adam", decay(0.01, 300)), opt("sgd", decay(0.3, 310))),
    ("clipped-rarely", {"task": "sequences", "network": "recurrent", "epochs": 8},
     {**net(units=(16,)), **opt("adam", 0.01, global_clipnorm=2.0)},
     {**net(kind="GRU", units=(12,)), **opt("adam", 0.01, clipnorm=1.0)}),
    ("clipped-at-start", {"task": "regression", "epochs": 12, **net(depth=2)},
     opt("sgd", 0.02, global_clipnorm=5.0), {**opt("sgd", 0.02, clipnorm=2.0), **net(depth=3)}),
    ("dropout", {"task": "digits", "network": "dropout_mlp", "epochs": 12, **opt("adam", 0.003)},
     net(rate=0.3), net(rate=0.5, units=128)),
    ("dropout-moons",
     {"task": "moons", "network": "dropout_mlp", "epochs": 10, **opt("adam", 0.01)},
     net(rate=0.2, depth=3), net(rate=0.4, activation="elu")),
    ("frozen", {"task": "digits", "network": "frozen_mlp", "epochs": 10, **opt("adam", 0.005)},
     net(frozen=1, depth=3), net(frozen=2, depth=4, units=64)),
    ("fine-tuned", {"task": "digits", "network": "pretrained_mlp", "epochs": 6},
     {**net(frozen=0, depth=3, units=64), **opt("adam", 0.0003)},
     {**net(frozen=2, depth=3, units=64), **opt("adam", 0.001)}),
    ("mixed-widths", {"task": "digits", "epochs": 10, **opt("adam", 0.003)},
     net(depth=4, units=[128, 8, 64, 16]), net(depth=5, units=[16, 128, 16, 96, 12])),
    # Gradients grow toward the input, but the network trains:
    ("uneven-he-in-tanh", {"task": "moons", "epochs": 10, **net(activation="tanh", init="he")},
     {**net(depth=6), **opt("adam", 0.003)}, {**net(depth=8), **opt("adam", 0.002)}),
    # Gradients shrink by √2 per layer:
    ("uneven-xavier-in-relu",
     {"task": "circles", "epochs": 12, **net(init="xavier"), **opt("adam", 0.003)},
     net(depth=8, units=48), net(depth=10, units=64)),
    ("uneven-sigmoid", {"task": "moons", "epochs": 15, **opt("adam", 0.02)},
     net(depth=3, activation="sigmoid", init="xavier"),
     net(depth=3, activation="sigmoid", init="lecun", units=48)),
    # Common in fine-tuning and in residual networks:
    ("zero-last-layer", {"task": "classification", "epochs": 8, **opt("adam", 0.003)},
     {**net(depth=3), "changes": (("constant", "output/*", 0.0),)},
     {**net(depth=2, units=48), "changes": (("scale", "output/*", 0.01),)}),
    ("shifted-inputs", {"task": "moons", "epochs": 15, **opt("adam", 0.01)},
     {**net(depth=3), **data(input_scale=2.0, input_shift=1.0)},
     {**net(depth=3, units=48), **data(input_scale=0.3, input_shift=-0.5)}),
    # Kinds that rules which look at scales, zeros and constants may take for ill:
    ("one-feature", {"task": "sine", "epochs": 20, **opt("adam", 0.01)},
     net(depth=1, units=128, init="glorot_uniform"),
     net(depth=2, units=96, init="glorot_uniform", activation="tanh")),
    ("one-noisy-series",
     {"task": "noisy_series", "network": "recurrent", "epochs": 12, **opt("adam", 0.005),
      **data(samples=1200)},
     net(units=(32,)), net(kind="GRU", units=(24,))),
    ("low-rank", {"task": "digits", "network": "low_rank_mlp", "epochs": 15, **opt("adam", 0.01)},
     net(depth=2, units=64, rank=4), net(depth=3, units=48, rank=8)),
    ("zero-residual", {"task": "digits", "network": "zero_residual", "epochs": 8,
                       **opt("adam", 0.003)},
     net(blocks=4), net(blocks=8, units=24)),
    ("factorization", {"task": "ratings", "network": "factorization", "epochs": 20,
                       **opt("adam", 0.02), **data(samples=2000)},
     net(width=8), net(width=16)),
    ("large-inputs-normalized", {"task": "digits", "epochs": 8, **opt("adam", 0.003)},
     {**net(depth=3, norm="batch"), **data(input_scale=255.0)},
     {**net(depth=2, norm="layer"), **data(input_scale=1000.0)}),
    ("large-inputs-adam", {"task": "digits", "epochs": 15, **opt("adam", 0.001)},
     {**net(depth=2, units=64), **data(input_scale=16.0)},
     {**net(depth=3, units=64), **data(input_scale=30.0)}),
    ("penalized", {"task": "moons", "network": "penalized_mlp", "epochs": 12, **opt("adam", 0.01)},
     net(penalty=1e-3), net(penalty=3e-4, activation="tanh")),
    ("heavy-dropout", {"task": "digits", "network": "dropout_mlp", "epochs": 20,
                       **opt("adam", 0.003)},
     net(rate=0.65, units=256), net(rate=0.7, units=384)),
    ("shortly-trained", {"task": "circles", "epochs": 4, **opt("adam", 0.005)},
     net(depth=3, units=48), net(depth=2, units=64)),
    # Several heads, losses that are negative or never 0, targets other than one class or number:
    ("two-heads", {"task": "two_targets", "network": "several_heads", "epochs": 12,
                   **opt("adam", 0.005)},
     net(units=32), net(units=48)),
    ("four-heads", {"task": "two_targets", "network": "several_heads", "epochs": 12,
                    **opt("adam", 0.005), **data(heads=4)},
     net(units=48, heads=4), net(units=64, heads=4)),
    ("log-likelihood", {"task": "noisy_sine", "epochs": 20, **opt("adam", 0.01)},
     net(depth=2), net(depth=3, activation="tanh", init="xavier")),
    ("cosine", {"task": "directions", "epochs": 12, **opt("adam", 0.005)},
     net(depth=2), net(depth=3, activation="gelu")),
    ("counts", {"task": "counts", "epochs": 15, **opt("adam", 0.005)},
     net(depth=2), net(depth=2, activation="elu", units=48)),
    ("outliers", {"task": "outliers", "epochs": 12, **opt("adam", 0.01)},
     net(depth=2), net(depth=3, units=24)),
    ("tags", {"task": "tags", "epochs": 12, **opt("adam", 0.005)},
     net(depth=2), net(depth=3, units=48)),
    ("hinge", {"task": "margins", "epochs": 12, **opt("adam", 0.005)},
     net(depth=2), net(depth=3, activation="tanh", init="xavier")),
    ("focal", {"task": "moons", "loss": "binary_focal_crossentropy", "epochs": 12,
               **opt("adam", 0.005)},
     net(depth=2), net(depth=3, units=48)),
    ("smoothed-labels", {"task": "moons", "loss": "smoothed", "epochs": 12, **opt("adam", 0.005)},
     net(depth=3), net(depth=2, units=64)),
    ("weak-signal", {"task": "weak_signal", "epochs": 10, **opt("adam", 0.005)},
     net(depth=2), net(depth=1, units=48, activation="tanh", init="xavier")),
    ("one-hot-inputs", {"task": "one_hot_inputs", "epochs": 10, **opt("adam", 0.005)},
     net(depth=2), net(depth=2, units=64, activation="tanh", init="xavier")),
    ("long-training", {"task": "moons", "epochs": 100, **opt("adam", 0.01)},
     net(depth=3), net(depth=2, units=48, activation="tanh", init="xavier")),
    ("vae", {"task": "reconstruction", "network": "vae", "epochs": 15, **opt("adam", 0.005)},
     net(latent=6), net(latent=8, units=64)),
    ("gan", {"task": "ring", "network": "gan", "epochs": 40, **opt("adam", 0.002, beta_1=0.5)},
     net(units=32), net(units=48)),
    ("conv1d", {"task": "noisy_series", "network": "conv1d", "epochs": 8, **opt("adam", 0.005),
                **data(samples=1200)},
     net(filters=(16, 16)), net(filters=(24,))),
    ("separable", {"task": "images", "network": "separable_cnn", "epochs": 15,
                   **opt("adam", 0.01)},
     net(filters=(16, 32)), net(filters=(24, 24, 24))),
    ("unet", {"task": "masks", "network": "unet", "epochs": 6, **opt("adam", 0.005)},
     net(filters=8), net(filters=12)),
    ("next-words", {"task": "next_tokens", "network": "tagger", "epochs": 15,
                    **opt("adam", 0.01)},
     net(width=16), net(width=24)),
]  # fmt: skip

VARIANTS = 4
# Models with several outputs, or that train in a way of their own.
NOT_FOR_THE_LOOP = ("two_targets", "ring")

# The first epochs of runs that succeed later: a loss that has barely moved is not a fault.
BARELY: list[tuple[str, Fields, Fields, Fields]] = [
    ("started-moons", {"task": "moons", "epochs": 1, **opt("adam", 0.003)},
     net(depth=3), net(depth=4, activation="tanh", init="xavier")),
    ("started-digits", {"task": "digits", "epochs": 2, **opt("sgd", 0.02)},
     net(depth=2, units=64), net(depth=3)),
    ("started-cnn", {"task": "images", "network": "cnn", "epochs": 2},
     opt("adam", 0.001), opt("sgd", 0.05)),
    ("started-lstm", {"task": "sequences", "network": "recurrent", "epochs": 1},
     {**opt("adam", 0.003), **net(units=(16,))},
     {**opt("adam", 0.005), **net(kind="GRU", units=(16,))}),
    ("started-spirals", {"task": "spirals", "epochs": 2, **opt("adam", 0.01)},
     net(depth=4, units=64), net(depth=3, units=64, activation="elu")),
    ("started-transformer",
     {"task": "tokens", "network": "transformer", "epochs": 1, **opt("adam", 0.001)},
     net(blocks=1), net(blocks=2)),
]  # fmt: skip


NAMES = [name for name, *_ in PAIRS + BARELY]


def varied(recipe: Recipe, variant: int) -> Recipe:
    """Return a variant of a run: 0 is the run itself, others differ in the seed and one setting."""
    recipe = replace(recipe, seed=recipe.seed + 1000 * variant)
    if variant == 1:
        return replace(recipe, batch_size=max(1, recipe.batch_size // 2))
    if variant == 2:
        rate = recipe.optimizer_options.get("learning_rate")
        slower = {"learning_rate": rate / 2} if isinstance(rate, float) else {}
        return changed(recipe, {"optimizer_options": slower, "epochs": 2 * recipe.epochs})
    if variant == 3:
        samples = recipe.task_options.get("samples", 512)
        return changed(recipe, data(samples=samples * 3 // 2))
    return recipe


def healthy_cases() -> list[Case]:
    """Return all healthy cases: the first of a pair has even seeds, the second odd ones."""
    cases = []
    rows = [(row, 0) for row in BARELY] + [(row, v) for v in range(VARIANTS) for row in PAIRS]
    for place, ((name, common, *members), variant) in enumerate(rows):
        first = 1000 + 2 * NAMES.index(name)
        for n, own in enumerate(members):
            tracking = TRACKINGS[(2 * place + n) % len(TRACKINGS)]
            if tracking == "loop" and common["task"] in NOT_FOR_THE_LOOP:
                tracking = "default"
            recipe = changed(changed(Recipe(first + n, common["task"]), common), own)
            recipe = varied(replace(recipe, tracking=tracking), variant)
            carried_on = 25 if name.startswith("started") else 0
            cases.append(Case(f"{name}-{recipe.seed}", recipe, carried_on=carried_on))
    return cases

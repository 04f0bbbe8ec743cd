"""The healthy bases from which the ill runs are made, and the healthy twins of those runs."""

from benchmarks.diagnosis.healthy import Fields, data, net, opt
from benchmarks.diagnosis.recipes import Case, Recipe, changed

TANH = {"activation": "tanh", "init": "xavier"}
# name → common fields of the pair, fields of the first run, fields of the second
BASES: dict[str, tuple[Fields, Fields, Fields]] = {
    "relu-moons": ({"task": "moons", "epochs": 10, **opt("sgd", 0.1)},
     net(depth=5), net(depth=7, units=48)),
    "relu-digits": ({"task": "digits", "epochs": 5, **opt("sgd", 0.05)},
     net(depth=4, units=48), net(depth=5, units=64)),
    "relu-adam": ({"task": "circles", "epochs": 10, **opt("adam", 0.002)},
     net(depth=8, units=48), net(depth=10, units=64)),
    "deep-adam": ({"task": "moons", "epochs": 8, **opt("adam", 0.001)},
     net(depth=14, units=48), net(depth=17, units=64)),
    "tanh-moons": ({"task": "moons", "epochs": 12, **opt("sgd", 0.1)},
     net(depth=5, **TANH), net(depth=7, units=48, **TANH)),
    "tanh-digits": ({"task": "digits", "epochs": 5, **opt("adam", 0.003)},
     net(depth=3, units=48, **TANH), net(depth=4, units=64, **TANH)),
    "tanh-shallow": ({"task": "classification", "epochs": 10, **opt("adam", 0.005)},
     net(depth=2, **TANH), net(depth=1, units=64, **TANH)),
    "momentum-moons": ({"task": "moons", "epochs": 10, **opt("sgd", 0.05, momentum=0.9)},
     net(depth=4), net(depth=3, units=48, activation="elu")),
    "rmsprop-circles": ({"task": "circles", "epochs": 10, **opt("rmsprop", 0.003)},
     net(depth=4), net(depth=5, units=48)),
    "regression": ({"task": "regression", "epochs": 8, **opt("sgd", 0.02)},
     net(depth=2, units=48), net(depth=3)),
    "regression-tanh": ({"task": "sine", "epochs": 15, **opt("adam", 0.01)},
     net(depth=2, **TANH), net(depth=3, units=24, **TANH)),
    "cnn-adam": ({"task": "images", "network": "cnn", "epochs": 5, **opt("adam", 0.003)},
     net(filters=(8, 16)), net(filters=(8, 8, 16), dense=48)),
    "cnn-sgd": ({"task": "images", "network": "cnn", "epochs": 6, **opt("sgd", 0.1)},
     net(filters=(8, 16, 16)), net(filters=(12, 24))),
    "lstm": ({"task": "sequences", "network": "recurrent", "epochs": 5, **opt("adam", 0.01)},
     net(units=(16,)), net(kind="GRU", units=(12, 12))),
    "rnn": ({"task": "sequences", "network": "recurrent", "epochs": 6, **opt("sgd", 0.05)},
     net(kind="SimpleRNN", units=(16,)), net(kind="SimpleRNN", units=(12, 12))),
    "transformer": ({"task": "tokens", "network": "transformer", "epochs": 5, **opt("adam", 0.003)},
     net(blocks=1), net(blocks=2)),
    # The start of the series contains the answer:
    "early-signal": (
     {"task": "sequences", "network": "recurrent", "epochs": 10, **opt("adam", 0.01)},
     {**net(kind="SimpleRNN", units=(16, 16, 16)), **data(length=24, telling=8)},
     {**net(kind="LSTM", units=(16, 16)), **data(length=30, telling=10)}),
    "slow-digits": (
     {"task": "digits", "epochs": 6, "batch_size": 16, **opt("sgd", 0.01)},
     net(depth=6, units=48), net(depth=7, units=64)),
    "bag-of-words": (
     {"task": "tokens", "network": "bag_of_words", "epochs": 8, **opt("adam", 0.01)},
     net(width=8), net(width=12)),
    "next-words": (
     {"task": "next_tokens", "network": "tagger", "epochs": 10, **opt("adam", 0.01)},
     net(width=16), net(width=24)),
    "sentences": (
     {"task": "tokens", "network": "transformer", "epochs": 6, **data(length=24),
      **opt("adam", 0.003)},
     net(blocks=1), net(blocks=2, width=8)),
    "reviews": (
     {"task": "tokens", "network": "bag_of_words", "epochs": 10, **data(words=80),
      **opt("rmsprop", 0.01)},
     net(words=80, width=8), net(words=80, width=16)),
    "letters": (
     {"task": "next_tokens", "network": "tagger", "epochs": 10, **data(words=12),
      **opt("adam", 0.01)},
     net(words=12, width=12), net(words=12, width=16)),
    "factorization": (
     {"task": "ratings", "network": "factorization", "epochs": 30, **data(words=20),
      **opt("adam", 0.03)},
     net(width=8), net(width=6)),
    "narrow-digits": ({"task": "digits", "network": "narrow_mlp", "epochs": 12,
     **opt("adam", 0.005)}, net(narrow=4), net(narrow=5)),
    "narrow-images": ({"task": "digits", "network": "narrow_mlp", "epochs": 12,
     **opt("sgd", 0.1, momentum=0.9)}, net(narrow=3), net(narrow=3, units=48)),
    "narrow-regression": ({"task": "regression", "network": "narrow_mlp", "epochs": 15,
     **opt("adam", 0.01)}, net(narrow=3), net(narrow=2, units=24)),
    "narrow-classes": ({"task": "classification", "network": "narrow_mlp", "epochs": 12,
     **opt("adam", 0.005)}, net(narrow=2), net(narrow=1, units=48)),
}  # fmt: skip


def base_recipes() -> dict[str, list[Recipe]]:
    """Return both recipes of each base; the seeds of a pair are 2k and 2k + 1."""
    return {
        name: [
            changed(changed(Recipe(2 * place + n, common["task"], tracking="default"), common), own)
            for n, own in enumerate(members)
        ]
        for place, (name, (common, *members)) in enumerate(BASES.items())
    }


def twin_cases() -> list[Case]:
    """Return the bases as healthy runs: the twins of the ill runs."""
    return [
        Case(f"twin-{name}-{recipe.seed}", recipe)
        for name, pair in base_recipes().items()
        for recipe in pair
    ]

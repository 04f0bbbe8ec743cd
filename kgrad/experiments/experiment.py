"""`Experiment`: a network, its data and its training as one value; presets and grids of them.

An experiment is plain data, so a grid of experiments is a list. `engines` runs them. This module
imports neither NumPy nor Keras: the command line's --help and the app's links read it.
"""

import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from kgrad.records.deprecations import deprecated_attribute, old_arguments

if TYPE_CHECKING:
    from kgrad.records.history import GradientHistory

SHORT_NAMES = {
    "num_layers": "layers",
    "weight_initializer": "initializer",
    "skip_connections": "skip",
    "jit_compile": "jit",
}
"""Field of an `Experiment` → its option on the command line, which is also its parameter in a link,
the word in an experiment's name, and the field's name in kgrad 0.1. Other fields have one name."""

LONG_NAMES = {short: field for field, short in SHORT_NAMES.items()}
"""The inverse of `SHORT_NAMES`."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The description of one training run.

    Attributes:
        name: name in tables and figures.
        activation, weight_initializer, bias_initializer, num_layers, units, normalization,
            skip_connections: as in `create_model`.
        dataset, samples, features: name, samples and features of `make_dataset`, which always gets
            seed 0. Replicates have the same data; their weights and the order of samples differ.
        optimizer: name of a Keras optimizer.
        learning_rate: learning rate of the optimizer.
        clip_norm: bound on the norm of all gradients together; None for no clipping.
        epochs, batch_size, every, jit_compile, statistics, distributions: as in
            `train_and_track_gradients`.
        probe: whether to measure activations and signals at each record, on a mini-batch of the
            first samples, which is the same for all replicates.
        seed: seed of the weights and of the order of the samples.
    """

    name: str = "healthy"
    activation: str = "relu"
    weight_initializer: str = "he"
    bias_initializer: str = "zeros"
    num_layers: int = 10
    units: int | tuple[int, ...] = 64
    normalization: str | None = None
    skip_connections: bool = False
    dataset: str = "classification"
    samples: int | None = None
    features: int | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    clip_norm: float | None = None
    epochs: int = 30
    batch_size: int = 32
    every: int | Literal["epoch"] = "epoch"
    jit_compile: bool | Literal["auto"] = "auto"
    statistics: tuple[str, ...] = ()
    distributions: bool = False
    probe: bool = False
    seed: int = 0

    def __getattr__(self, name: str) -> Any:
        if name in LONG_NAMES:
            return deprecated_attribute(self, name, LONG_NAMES[name])
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


Experiment.__init__ = old_arguments(**LONG_NAMES)(Experiment.__init__)  # type: ignore[method-assign]


# In a ReLU network <W, dL/dW> is the same in every layer: weights that are too large cause enormous
# gradients in all layers, and soon NaN. In a tanh network, whose activations are bounded, they
# cause gradients that grow from the output towards the input. The preset shows both.
PRESETS: dict[str, tuple[Experiment, ...]] = {
    "vanishing": (Experiment(name="vanishing", activation="sigmoid", weight_initializer="normal"),),
    "healthy": (Experiment(name="healthy", activation="relu", weight_initializer="he"),),
    "exploding": (
        Experiment(name="exploding, ReLU", activation="relu", weight_initializer="normal:0.5"),
        Experiment(name="exploding, tanh", activation="tanh", weight_initializer="normal:1"),
    ),
}


def replicates(experiment: Experiment, seeds: int | Iterable[int]) -> list[Experiment]:
    """Return the experiment once for each seed.

    Args:
        experiment: the experiment.
        seeds: the seeds, or their number n for 0 … n - 1.
    """
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    return [replace(experiment, seed=seed) for seed in seeds]


@old_arguments(**LONG_NAMES)
def grid(experiment: Experiment, **axes: Sequence[Any]) -> list[Experiment]:
    """Return every combination of the given values; the names state the values that vary.

    Args:
        experiment: the values that all combinations share.
        **axes: field of `Experiment` → its values.

    Raises:
        ValueError: if an experiment has no such field.

    Example:
        >>> [e.name for e in grid(Experiment(name="mine"), num_layers=[3, 30], epochs=[5])]
        ['mine, layers 3', 'mine, layers 30']
    """
    known = [field.name for field in fields(Experiment)]
    for axis in axes:
        if axis not in known:
            from kgrad.records.checks import did_you_mean  # which imports NumPy

            raise ValueError(
                f"an axis of grid must be among {', '.join(known)}, received {axis!r}"
                f"{did_you_mean(axis, known)}"
            )
    varying = [axis for axis, values in axes.items() if len(values) > 1]
    combinations = []
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        suffix = [
            f"{SHORT_NAMES.get(axis, axis).replace('_', ' ')} {option_value(point[axis])}"
            for axis in varying
        ]
        name = ", ".join([experiment.name, *suffix])
        combinations.append(replace(experiment, **point, name=name))
    return combinations


def option_value(value: Any) -> str:
    """Return a field's value as the command line spells it: `"64,32"`, `"on"`, `"none"`.

    A value from a table may be of NumPy's types, and NaN for None.
    """
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None or value != value else str(value)


def experiment_of(history: "GradientHistory") -> Experiment:
    """Return the experiment that a history was recorded in.

    Raises:
        ValueError: if the history's metadata do not describe an experiment.
    """
    described = history.metadata.get("experiment")
    known = {field.name for field in fields(Experiment)}
    if isinstance(described, dict):
        described = {LONG_NAMES.get(name, name): value for name, value in described.items()}
    if not described or not isinstance(described, dict) or not set(described) <= known:
        raise ValueError("its history does not describe the experiment that it was recorded in")
    # A file has lists in place of an experiment's tuples.
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in described.items()
    }
    return Experiment(**values)


def load_histories(paths: "Iterable[str | os.PathLike[str]]") -> "list[GradientHistory]":
    """Load history files, and all .jsonl files of the folders among the paths.

    Files without a record in a folder are left out: their run was stopped before its first record.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file is malformed, or a path has no recorded run.
    """
    from kgrad.records.history import load_runs

    return list(load_runs(paths).values())

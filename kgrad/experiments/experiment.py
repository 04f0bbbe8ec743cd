"""Experiments: a network, its data and its training as one value, run into a `GradientHistory`.

An `Experiment` is plain data, so that a grid of them is a list, and a list can be run here, in
other processes or on other machines.
"""

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from kgrad.experiments.data import Dataset, make_dataset, require_recipe
from kgrad.experiments.models import create_model, undrawn
from kgrad.experiments.names import LONG_NAMES, SHORT_NAMES
from kgrad.experiments.prediction.predict import predict_gradients
from kgrad.measure.loop import Training
from kgrad.records.checks import require_integer
from kgrad.records.deprecations import deprecated_attribute, old_arguments
from kgrad.records.history import GradientHistory
from kgrad.records.prediction import Prediction
from kgrad.records.statistics import select


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run, described.

    Attributes:
        name: what it is called in tables and figures.
        activation, weight_initializer, num_layers, units, normalization, skip_connections: as in
            `create_model`; "normal:0.5" is a normal distribution with standard deviation 0.5.
        dataset, samples, features: as in `make_dataset`, always made from seed 0: replicates
            differ in their weights and the order of the samples, not in their data.
        optimizer: name of a Keras optimizer.
        learning_rate: of the optimizer.
        clip_norm: bound on the norm of all gradients together, None for no clipping.
        epochs, batch_size, every, jit_compile, statistics, distributions: as in
            `train_and_track_gradients`.
        probe: whether to measure activations and signals at each record, on a mini-batch of the
            first samples, the same for all replicates.
        seed: of the weights and of the order of the samples.
    """

    name: str = "healthy"
    activation: str = "relu"
    weight_initializer: str = "he"
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


# In a ReLU network <W, dL/dW> is the same in every layer: weights that are too large show as
# enormous gradients everywhere and soon as NaN. In a tanh network, whose activations stay bounded,
# they show as gradients that grow from the output towards the input. Exploding has both faces.
PRESETS: dict[str, tuple[Experiment, ...]] = {
    "vanishing": (Experiment(name="vanishing", activation="sigmoid", weight_initializer="normal"),),
    "healthy": (Experiment(name="healthy", activation="relu", weight_initializer="he"),),
    "exploding": (
        Experiment(name="exploding, ReLU", activation="relu", weight_initializer="normal:0.5"),
        Experiment(name="exploding, tanh", activation="tanh", weight_initializer="normal:1"),
    ),
}


class Prepared(NamedTuple):
    """An experiment's parts, made and found to fit each other."""

    experiment: Experiment
    dataset: Dataset
    model: keras.Model
    optimizer: keras.optimizers.Optimizer


def prepare(experiment: Experiment) -> Prepared:
    """Make the data, the model and the optimizer; every refusal comes here, before training.

    Raises:
        ValueError: if an attribute is not what it should be; says what was received and accepted.
    """
    for name in ("epochs", "batch_size"):
        require_integer(name, getattr(experiment, name), 1)
    if experiment.every != "epoch":
        require_integer("every", experiment.every, 1)
    select(experiment.statistics)
    dataset, model = _network(experiment)
    return Prepared(experiment, dataset, model, _optimizer(experiment))


def run_experiment(
    experiment: Experiment | Prepared,
    journal: str | os.PathLike[str] | None = None,
    verbose: int = 0,
) -> GradientHistory:
    """Train what an experiment describes and track its gradients.

    Args:
        experiment: the experiment, or what `prepare` made of it.
        journal: file that each record is appended to as it is made.
        verbose: 1 for a progress bar.

    Returns:
        The history, with the experiment in `metadata["experiment"]`.

    Raises:
        OSError: if the journal cannot be written.
        ValueError: if the experiment cannot be run; before training starts.
    """
    prepared = prepare(experiment) if isinstance(experiment, Experiment) else experiment
    (history,) = run_replicates([prepared], [journal], verbose)
    return history


def run_replicates(
    prepared: Sequence[Prepared],
    journals: Sequence[str | os.PathLike[str] | None],
    verbose: int = 0,
) -> Iterator[GradientHistory]:
    """Run experiments that differ in the seed alone, one after the other, compiled once.

    The histories are those of `run_experiment`. All are trained in the first one's model, from the
    weights of their own.

    Args:
        prepared: what `prepare` made of each.
        journals: a file, or None, for each.
        verbose: 1 for a progress bar.

    Raises:
        OSError: if a journal cannot be written.
        ValueError: if the experiments differ in more than the seed.
    """
    asked, dataset, model, optimizer = prepared[0]
    for other in prepared:
        if replace(other.experiment, seed=asked.seed) != asked:
            raise ValueError(
                f"replicates must differ in the seed alone, received {asked} and {other.experiment}"
            )
    batch = slice(asked.batch_size)
    training = Training(
        model,
        dataset.X,
        dataset.y,
        asked.epochs,
        batch_size=asked.batch_size,
        optimizer=optimizer,
        loss=dataset.loss,
        statistics=asked.statistics,
        distributions=asked.distributions,
        probe=(dataset.X[batch], dataset.y[batch]) if asked.probe else None,
        every=asked.every,
        jit_compile=asked.jit_compile,
    )
    for parts, journal in zip(prepared, journals, strict=True):
        for variable, start in zip(model.variables, parts.model.variables, strict=True):
            variable.assign(start)
        yield training.run(
            parts.experiment.seed,
            journal=journal,
            verbose=verbose,
            metadata={"experiment": asdict(parts.experiment)},
        )


def predict_experiment(experiment: Experiment | Prepared, *, rough: bool = False) -> Prediction:
    """Predict the gradients of a mini-batch of an experiment's data, before training.

    The samples are drawn from seed 0 and the networks as the initializers draw: one prediction
    serves all replicates.

    Args:
        experiment: the experiment, or what `prepare` made of it.
        rough: as in `predict_gradients`.

    Raises:
        ValueError: if the batch size is not positive, the network cannot be built, or theory does
            not cover it.
    """
    if isinstance(experiment, Prepared):
        asked, dataset, model, _ = experiment
    else:
        asked = experiment
        require_integer("batch_size", asked.batch_size, 1)
        with undrawn():
            dataset, model = _network(asked)
    batch = np.random.default_rng(0).permutation(len(dataset.X))[: asked.batch_size]
    return predict_gradients(model, dataset.X[batch], dataset.y[batch], dataset.loss, rough=rough)


def run_all(
    experiments: Iterable[Experiment], executor: Executor | None = None
) -> list[GradientHistory]:
    """Run experiments in order, or wherever an executor runs them.

    Args:
        experiments: what to run.
        executor: any `concurrent.futures.Executor`, such as a `ProcessPoolExecutor` whose context
            is "spawn"; None runs them here, one after the other.
    """
    run = map if executor is None else executor.map
    return list(run(run_experiment, experiments))


def replicates(experiment: Experiment, seeds: int | Iterable[int]) -> list[Experiment]:
    """The experiment once for each seed: for 0 … seeds - 1, or for the seeds given."""
    seeds = range(seeds) if isinstance(seeds, int) else seeds
    return [replace(experiment, seed=seed) for seed in seeds]


@old_arguments(**LONG_NAMES)
def grid(experiment: Experiment, **axes: Sequence[Any]) -> list[Experiment]:
    """Every combination of the values given, each named by what varies.

    Args:
        experiment: what the combinations have in common.
        **axes: for each attribute to vary, its values.

    Raises:
        ValueError: if an experiment has no such attribute.

    Example:
        >>> [e.name for e in grid(Experiment(name="mine"), num_layers=[3, 30], epochs=[5])]
        ['mine, layers 3', 'mine, layers 30']
    """
    known = [field.name for field in fields(Experiment)]
    for axis in axes:
        if axis not in known:
            raise ValueError(f"grid received {axis!r}; an Experiment has {', '.join(known)}")
    varying = [axis for axis, values in axes.items() if len(values) > 1]
    combinations = []
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        suffix = [
            f"{SHORT_NAMES.get(axis, axis).replace('_', ' ')} {_word(point[axis])}"
            for axis in varying
        ]
        name = ", ".join([experiment.name, *suffix])
        combinations.append(replace(experiment, **point, name=name))
    return combinations


def experiment_of(history: GradientHistory) -> Experiment:
    """The experiment that a history was recorded in.

    Raises:
        ValueError: if its metadata describe none.
    """
    described = history.metadata.get("experiment")
    known = {field.name for field in fields(Experiment)}
    if isinstance(described, dict):
        described = {LONG_NAMES.get(name, name): value for name, value in described.items()}
    if not described or not isinstance(described, dict) or not set(described) <= known:
        raise ValueError("its history does not say which experiment it is of")
    # A file has lists where an experiment has tuples.
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in described.items()
    }
    return Experiment(**values)


def load_histories(paths: Iterable[str | os.PathLike[str]]) -> list[GradientHistory]:
    """Load history files, and all those of the folders among the paths.

    A run that was killed before its first record has nothing to show and is left out.

    Raises:
        OSError: if a file cannot be read.
        ValueError: if a file is malformed, or there is none.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        files += sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
    if not files:
        raise ValueError(f"no .jsonl history in {', '.join(map(repr, map(str, paths)))}")
    return [history for file in files if len(history := GradientHistory.load(file))]


def _network(experiment: Experiment) -> tuple[Dataset, keras.Model]:
    require_recipe("dataset", experiment.dataset)  # whose error names make_dataset's argument
    dataset = make_dataset(experiment.dataset, experiment.samples, experiment.features)
    model = create_model(
        experiment.num_layers,
        experiment.activation,
        _initializer(experiment.weight_initializer),
        units=experiment.units,
        input_shape=dataset.X.shape[1:],
        output_units=dataset.output_units,
        output_activation=dataset.output_activation,
        normalization=experiment.normalization,
        skip_connections=experiment.skip_connections,
        seed=experiment.seed,
    )
    return dataset, model


def _word(value: Any) -> str:
    """A value as the command line has it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)


def _initializer(text: str) -> Any:
    """`"normal:0.5"` → the initializer with that standard deviation; others as they are."""
    name, colon, stddev = text.partition(":")
    if not colon:
        return text
    try:
        if name.strip() != "normal" or not 0 < float(stddev) < math.inf:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"weight_initializer received {text!r}; with a colon it is normal:STDDEV, such as "
            "normal:0.5"
        ) from None
    return keras.initializers.RandomNormal(stddev=float(stddev))


def _optimizer(experiment: Experiment) -> keras.optimizers.Optimizer:
    for name in ("learning_rate", "clip_norm"):
        value = getattr(experiment, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive, finite number, received {value!r}")
    try:
        optimizer = keras.optimizers.get(experiment.optimizer)
    except ValueError as error:
        raise ValueError(
            f"optimizer must name a Keras optimizer, such as sgd or adam, "
            f"received {experiment.optimizer!r}"
        ) from error
    config = optimizer.get_config() | {
        "learning_rate": experiment.learning_rate,
        "global_clipnorm": experiment.clip_norm,
    }
    return type(optimizer).from_config(config)

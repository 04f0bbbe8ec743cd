"""Experiments: a network, its data and its training as one value, run into a `GradientHistory`.

An `Experiment` is plain data, so that a grid of them is a list, and a list can be run here, in
other processes or on other machines.
"""

import itertools
import math
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from kgrad.data import Dataset, make_dataset
from kgrad.history import GradientHistory
from kgrad.inputs import require_positive
from kgrad.models import create_model
from kgrad.prediction.predict import Prediction, predict_gradients
from kgrad.statistics import select
from kgrad.training import train_and_track_gradients


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One training run, described.

    Attributes:
        name: what it is called in tables and figures.
        activation, initializer, layers, units, normalization, skip: as in `create_model`;
            "normal:0.5" is a normal distribution with standard deviation 0.5.
        dataset, samples, features: as in `make_dataset`, always made from seed 0: replicates
            differ in their weights and the order of the samples, not in their data.
        optimizer: name of a Keras optimizer.
        learning_rate: of the optimizer.
        clip_norm: bound on the norm of all gradients together, None for no clipping.
        epochs, batch_size, every, jit, statistics: as in `train_and_track_gradients`.
        seed: of the weights and of the order of the samples.
    """

    name: str = "healthy"
    activation: str = "relu"
    initializer: str = "he"
    layers: int = 10
    units: int | tuple[int, ...] = 64
    normalization: str | None = None
    skip: bool = False
    dataset: str = "classification"
    samples: int | None = None
    features: int | None = None
    optimizer: str = "sgd"
    learning_rate: float = 0.05
    clip_norm: float | None = None
    epochs: int = 30
    batch_size: int = 32
    every: int | Literal["epoch"] = "epoch"
    jit: bool | Literal["auto"] = "auto"
    statistics: tuple[str, ...] = ()
    seed: int = 0


# In a ReLU network <W, dL/dW> is the same in every layer: weights that are too large show as
# enormous gradients everywhere and soon as NaN. In a tanh network, whose activations stay bounded,
# they show as gradients that grow from the output towards the input. Exploding has both faces.
PRESETS: dict[str, tuple[Experiment, ...]] = {
    "vanishing": (Experiment(name="vanishing", activation="sigmoid", initializer="normal"),),
    "healthy": (Experiment(name="healthy", activation="relu", initializer="he"),),
    "exploding": (
        Experiment(name="exploding, ReLU", activation="relu", initializer="normal:0.5"),
        Experiment(name="exploding, tanh", activation="tanh", initializer="normal:1"),
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
        require_positive(name, getattr(experiment, name))
    if experiment.every != "epoch":
        require_positive("every", experiment.every)
    select(experiment.statistics)
    dataset = make_dataset(experiment.dataset, experiment.samples, experiment.features)
    model = create_model(
        experiment.layers,
        experiment.activation,
        _initializer(experiment.initializer),
        units=experiment.units,
        input_shape=dataset.X.shape[1:],
        output_units=dataset.output_units,
        output_activation=dataset.output_activation,
        normalization=experiment.normalization,
        skip_connections=experiment.skip,
        seed=experiment.seed,
    )
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
    if isinstance(experiment, Experiment):
        experiment = prepare(experiment)
    asked, dataset, model, optimizer = experiment
    return train_and_track_gradients(
        model,
        dataset.X,
        dataset.y,
        asked.epochs,
        batch_size=asked.batch_size,
        optimizer=optimizer,
        loss=dataset.loss,
        statistics=asked.statistics,
        every=asked.every,
        seed=asked.seed,
        jit_compile=asked.jit,
        journal=journal,
        verbose=verbose,
        metadata={"experiment": asdict(asked)},
    )


def predict_experiment(experiment: Experiment | Prepared) -> Prediction:
    """Predict the gradients of a mini-batch of an experiment's data, before training.

    The samples are drawn from seed 0 and the networks as the initializers draw: one prediction
    serves all replicates.

    Raises:
        ValueError: if the experiment cannot be run, or theory does not cover its network.
    """
    if isinstance(experiment, Experiment):
        experiment = prepare(experiment)
    asked, dataset, model, _ = experiment
    batch = np.random.default_rng(0).permutation(len(dataset.X))[: asked.batch_size]
    return predict_gradients(model, dataset.X[batch], dataset.y[batch], dataset.loss)


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


def grid(experiment: Experiment, **axes: Sequence[Any]) -> list[Experiment]:
    """Every combination of the values given, each named by what varies.

    Args:
        experiment: what the combinations have in common.
        **axes: for each attribute to vary, its values.

    Raises:
        ValueError: if an experiment has no such attribute.

    Example:
        >>> [e.name for e in grid(Experiment(name="mine"), layers=[3, 30], skip=[True])]
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
        suffix = [f"{axis.replace('_', ' ')} {_word(point[axis])}" for axis in varying]
        name = ", ".join([experiment.name, *suffix])
        combinations.append(replace(experiment, **point, name=name))
    return combinations


def summarize(history: GradientHistory) -> dict[str, float]:
    """A run in six numbers.

    Returns:
        loss_first, loss_last: the loss of the first and the last record.
        gradient_first, gradient_last: mean |gradient| of the first and the last hidden layer
            before training, at epoch 0.
        ratio: gradient_first / gradient_last.
        decades_per_layer: log10(ratio) over the number of layers between the two: by how many
            powers of ten the gradient changes from one layer to the next, towards the input.
    """
    gradient = history.by_layer("mean_abs")[0]
    first, last, ratio, layers = _ends(history.layers, gradient)
    with np.errstate(all="ignore"):  # zero and infinity are among the answers
        decades = np.log10(ratio) / (layers - 1) if layers > 1 else np.float64(0.0)
    loss = history.logs["loss"]
    return {
        "loss_first": float(loss[0]),
        "loss_last": float(loss[-1]),
        "gradient_first": first,
        "gradient_last": last,
        "ratio": ratio,
        "decades_per_layer": float(decades),
    }


def summarize_prediction(prediction: Prediction) -> dict[str, float]:
    """What theory expects of `summarize`.

    Returns:
        predicted_first, predicted_last: mean |gradient| of the first and the last hidden layer.
        predicted_ratio: the first divided by the last.
    """
    first, last, ratio, _ = _ends(prediction.layers, prediction.by_layer("mean_abs")[0])
    return {"predicted_first": first, "predicted_last": last, "predicted_ratio": ratio}


def _ends(layers: Sequence[str], gradient: np.ndarray) -> tuple[float, float, float, int]:
    """Of the hidden layers: the first's gradient, the last's, their ratio, and how many there are.

    A model that `create_model` did not make has none of these names: there all layers count.
    """
    hidden = [i for i, layer in enumerate(layers) if layer.startswith("hidden_")]
    hidden = hidden or list(range(len(layers)))
    first, last = gradient[hidden[0]], gradient[hidden[-1]]
    with np.errstate(all="ignore"):
        ratio = np.divide(first, last)
    return float(first), float(last), float(ratio), len(hidden)


def experiment_of(history: GradientHistory) -> Experiment:
    """The experiment that a history was recorded in.

    Raises:
        ValueError: if its metadata describe none.
    """
    described = history.metadata.get("experiment")
    known = {field.name for field in fields(Experiment)}
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
            f"initializer received {text!r}; with a colon it is normal:STDDEV, such as normal:0.5"
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

"""Runs experiments: alone, as replicates that are compiled once, or in an executor's processes."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import keras
import numpy as np

from kgrad.experiments.checks import require_valid, unknown_optimizer
from kgrad.experiments.data import Dataset, make_dataset, require_recipe
from kgrad.experiments.experiment import Experiment
from kgrad.experiments.models import create_model, without_initial_values
from kgrad.experiments.prediction.created import describe_created_network
from kgrad.experiments.prediction.predict import predict_gradients, predict_network
from kgrad.experiments.remedies.skill import read_task, skill
from kgrad.measure.inputs import aligned_targets
from kgrad.measure.loop import Pieces, Training, TrainingSettings
from kgrad.records.checks import require_integer
from kgrad.records.history import GradientHistory
from kgrad.records.journal import JournalMode
from kgrad.records.prediction import Prediction

_CHUNK = 4096  # samples of a forward pass


class Prepared(NamedTuple):
    """An experiment, checked, with the data set, the model and the optimizer it describes."""

    experiment: Experiment
    dataset: Dataset
    model: keras.Model
    optimizer: keras.optimizers.Optimizer


def prepare(experiment: Experiment) -> Prepared:
    """Make the data set, the model and the optimizer; checks every field before training.

    Raises:
        ValueError: if a field has a value that is not accepted.
    """
    require_valid(experiment)
    dataset = _dataset(experiment)
    model = create_model(**_arguments(experiment, dataset))
    return Prepared(experiment, dataset, model, _optimizer(experiment))


def run_experiment(
    experiment: Experiment | Prepared,
    journal: str | os.PathLike[str] | None = None,
    verbose: int = 0,
    *,
    journal_mode: JournalMode = "refuse",
) -> GradientHistory:
    """Train an experiment's model and track its gradients.

    Args:
        experiment: the experiment, or the result of `prepare`.
        journal: file to which each record is appended as soon as it is measured.
        verbose: 1 for a progress bar.
        journal_mode: as in `train_and_track_gradients`.

    Returns:
        The history, with the experiment in `metadata["experiment"]`.

    Raises:
        OSError: if the journal cannot be written.
        ValueError: before training, if a field has a value that is not accepted.
    """
    prepared = prepare(experiment) if isinstance(experiment, Experiment) else experiment
    (history,) = run_replicates([prepared], [journal], verbose, journal_mode=journal_mode)
    return history


def run_replicates(
    prepared: Sequence[Prepared],
    journals: Sequence[str | os.PathLike[str] | None],
    verbose: int = 0,
    *,
    journal_mode: JournalMode = "refuse",
) -> Iterator[GradientHistory]:
    """Run experiments that differ only in the seed, one after another, with one compilation.

    The histories are the same as those of `run_experiment`. Every replicate is trained in the first
    one's model, which starts from the replicate's own weights.

    Args:
        prepared: the result of `prepare` for each experiment.
        journals: for each experiment a file, or None.
        verbose: 1 for a progress bar.
        journal_mode: as in `train_and_track_gradients`.

    Raises:
        OSError: if a journal cannot be written.
        ValueError: if the experiments differ in another field than the seed, or a journal already
            has records that must not be overwritten.
    """
    first = prepared[0].experiment
    for other in prepared:
        differing = [
            field.name
            for field in fields(Experiment)
            if getattr(first, field.name) != getattr(other.experiment, field.name)
            and field.name != "seed"
        ]
        if differing:
            raise ValueError(
                "prepared must hold experiments that differ only in seed, received some that "
                f"differ in {', '.join(differing)}: run them one by one"
            )
    compiled = Compiled(prepared[0])
    for parts, journal in zip(prepared, journals, strict=True):
        yield compiled.run(parts, journal, verbose, journal_mode)


class Compiled:
    """The training of a network, compiled once for experiments that differ only in the seed.

    Args:
        first: one of them; all are trained in its model.
    """

    def __init__(self, first: Prepared) -> None:
        self._model = first.model
        self._training = _training(first)

    def run(
        self,
        prepared: Prepared,
        journal: str | os.PathLike[str] | None = None,
        verbose: int = 0,
        journal_mode: JournalMode = "refuse",
    ) -> GradientHistory:
        """Train from an experiment's own weights, see `run_replicates`."""
        for variable, start in zip(self._model.variables, prepared.model.variables, strict=True):
            variable.assign(start)
        return self._training.run(
            prepared.experiment.seed,
            journal=journal,
            journal_mode=journal_mode,
            verbose=verbose,
            metadata={"experiment": asdict(prepared.experiment)},
        )

    def skill(self, dataset: Dataset) -> float:
        """Return how well the trained model answers its own training data.

        It is 1 for perfect answers and 0 for the best constant one, see `kgrad.Trials`; NaN if an
        output is not finite.
        """
        outputs = [
            keras.ops.convert_to_numpy(self._model(dataset.X[first : first + _CHUNK]))
            for first in range(0, len(dataset.X), _CHUNK)
        ]
        task = read_task(dataset.y, dataset.loss, dataset.output_activation)
        return skill(task, dataset.y, np.concatenate(outputs))


def run_in_pieces(prepared: Prepared, journal: str | os.PathLike[str]) -> Pieces:
    """Train as `run_experiment` does, with pauses; see `Training.run_in_pieces`.

    Args:
        prepared: the result of `prepare`; its model is trained.
        journal: as in `run_experiment`.
    """
    return _training(prepared).run_in_pieces(
        prepared.experiment.seed,
        journal=journal,
        metadata={"experiment": asdict(prepared.experiment)},
    )


def _training(prepared: Prepared) -> Training:
    """Return the training of an experiment's model."""
    experiment, dataset, model, optimizer = prepared
    batch = slice(experiment.batch_size)
    settings = TrainingSettings(
        epochs=experiment.epochs,
        batch_size=experiment.batch_size,
        optimizer=optimizer,
        loss=dataset.loss,
        statistics=experiment.statistics,
        clipped=None,
        distributions=experiment.distributions,
        probe=(dataset.X[batch], dataset.y[batch]) if experiment.probe else None,
        every=experiment.every,
        shuffle=True,
        jit_compile=experiment.jit_compile,
    )
    return Training(model, dataset.X, dataset.y, settings)


def run_all(
    experiments: Iterable[Experiment], executor: Executor | None = None
) -> list[GradientHistory]:
    """Run experiments in an executor and return their histories in order.

    Args:
        experiments: the experiments.
        executor: any `concurrent.futures.Executor`, such as a `ProcessPoolExecutor` with the
            context "spawn"; None runs them in this process, one after another.
    """
    run = map if executor is None else executor.map
    return list(run(run_experiment, experiments))


def predict_experiment(experiment: Experiment | Prepared, *, rough: bool = False) -> Prediction:
    """Predict the gradients of a mini-batch of an experiment's data, before training.

    The mini-batch is drawn with seed 0 and the prediction is an average over initial weights, so
    one prediction applies to all replicates.

    Args:
        experiment: the experiment, or the result of `prepare`.
        rough: as in `predict_gradients`.

    Raises:
        ValueError: if the batch size is not positive, the network cannot be built, or the theory
            does not cover it.
    """
    if isinstance(experiment, Prepared):
        described, dataset, model, _ = experiment
        network = None
    else:
        described = experiment
        require_integer("batch_size", described.batch_size, 1)
        dataset = _dataset(described)
        network = describe_created_network(**_arguments(described, dataset))
        if network is None:
            with without_initial_values():
                model = create_model(**_arguments(described, dataset))
    batch = np.random.default_rng(0).permutation(len(dataset.X))[: described.batch_size]
    X, y = dataset.X[batch], dataset.y[batch]
    if network is None:
        return predict_gradients(model, X, y, dataset.loss, rough=rough)
    loss = keras.losses.get(dataset.loss)

    def loss_of(target: Any, output: Any) -> Any:
        return keras.ops.mean(loss(aligned_targets(target, output), output))

    return predict_network(network, X, y, loss_of, keras.config.floatx(), rough=rough)


def _dataset(experiment: Experiment) -> Dataset:
    require_recipe("dataset", experiment.dataset)  # make_dataset calls this argument `name`
    return make_dataset(experiment.dataset, experiment.samples, experiment.features)


def _arguments(experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    """Return the arguments of `create_model`."""
    return {
        "num_layers": experiment.num_layers,
        "activation": experiment.activation,
        "weight_initializer": experiment.weight_initializer,
        "bias_initializer": experiment.bias_initializer,
        "units": experiment.units,
        "input_shape": dataset.X.shape[1:],
        "output_units": dataset.output_units,
        "output_activation": dataset.output_activation,
        "normalization": experiment.normalization,
        "skip_connections": experiment.skip_connections,
        "seed": experiment.seed,
    }


def _optimizer(experiment: Experiment) -> keras.optimizers.Optimizer:
    try:
        optimizer = keras.optimizers.get(experiment.optimizer)
    except ValueError as error:
        raise unknown_optimizer(experiment.optimizer) from error
    config = optimizer.get_config() | {
        "learning_rate": float(experiment.learning_rate),  # Keras takes no integer
        "global_clipnorm": experiment.clip_norm,
    }
    return type(optimizer).from_config(config)

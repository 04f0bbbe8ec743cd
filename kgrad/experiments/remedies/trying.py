"""`try_remedies`: train with one change at a time, measure which changes help, and rank them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from kgrad.diagnosis import Diagnosis
from kgrad.diagnosis.diagnosing import DECLARED
from kgrad.experiments.engines import prepare, run_experiment
from kgrad.experiments.experiment import Experiment
from kgrad.experiments.remedies.changes import (
    changed_clipping,
    changed_clone,
    random_state_kept,
    seed_all,
)
from kgrad.experiments.remedies.plans import CHANGES, Change
from kgrad.measure.aliases import short_initializer
from kgrad.measure.inputs import require_built
from kgrad.measure.keras_models.graph import LayerGraph
from kgrad.measure.keras_models.layers import fitting_initializer, initializer_fits
from kgrad.measure.loop import train_and_track_gradients
from kgrad.measure.tracker import GradientTracker
from kgrad.records.checks import did_you_mean, require_integer, require_seed
from kgrad.records.history import GradientHistory
from kgrad.records.trials import Trials

REMEDIES = tuple(dict.fromkeys(change.remedy for change in CHANGES))

Run = Callable[[], GradientHistory]
# Maps a change, or None for the baseline, to its description and a function that trains.
Setup = Callable[[Change | None], tuple[str, Run]]


def try_remedies(
    model_or_experiment: keras.Model | Experiment,
    X: Any = None,
    y: Any = None,
    epochs: int = 3,
    *,
    seed: int | None = None,
    batch_size: int | None = None,
    remedies: Iterable[str] | Diagnosis | None = None,
) -> Trials:
    """Train an unchanged baseline, then once with each change that may help; rank the results.

    All runs have the same data, seed and order of samples. Layers that a change does not affect
    have the same initial weights. The given model is not changed or trained: every run starts with
    new weights, drawn by the model's initializers.

    A trial's loss is the mean over the steps of its last epoch, as training computes it, and not
    the loss of an evaluation afterwards. An evaluation uses batch normalization's moving averages,
    which move by 1 % per step: after three epochs of a hundred steps they are still a third of the
    way from their start, which would make the remedy look worse than it is. Dropout raises the
    losses of all runs.

    Args:
        model_or_experiment: a built Keras model, compiled or not, or an `Experiment`, which has its
            own data, batch size and seed. Models with one input and one output are trained by
            `train_and_track_gradients`, others by `fit`.
        X: inputs to train a model with; omit it for an experiment.
        y: targets; omit them for an experiment.
        epochs: number of epochs of each run, at least 1.
        seed: seed of initial weights and of the order of samples; default: 0, or the experiment's.
        batch_size: samples per step, 32 by default; omit it for an experiment.
        remedies: the remedies to try: "initializer", "activation", "normalization",
            "skip_connections", "clipping", "learning_rate"; a `Diagnosis` for those that its
            findings recommend; None for all.

    Returns:
        The trials, the baseline first and then the best. Changes that cannot be made to this model
        are in `not_possible`, each with the reason. After Ctrl-C, the finished trials.

    Raises:
        TypeError: if the model or the data have an unsupported type.
        ValueError: if an argument is not accepted, or the model cannot be rebuilt from its config.

    Example:
        >>> from kgrad.experiments import Experiment
        >>> deep = Experiment(activation="sigmoid", weight_initializer="normal", samples=256)
        >>> trials = try_remedies(deep, epochs=2, remedies=["normalization"])
        >>> [trial.name for trial in trials]
        ['unchanged', 'normalization batch', 'normalization layer']
    """
    require_integer("epochs", epochs, 1)
    require_seed(seed)
    if isinstance(model_or_experiment, Experiment):
        for name, value in (("X", X), ("y", y), ("batch_size", batch_size)):
            if value is not None:
                raise ValueError(f"{name} must be left out with an Experiment, which has its own")
        seed = model_or_experiment.seed if seed is None else seed
        baseline = replace(model_or_experiment, epochs=int(epochs), every="epoch", seed=int(seed))
        setup = _setup_of_experiment(baseline)
    else:
        require_built(model_or_experiment)
        batch_size = 32 if batch_size is None else batch_size
        require_integer("batch_size", batch_size, 1)
        if X is None or y is None:
            raise ValueError("X and y must be given with a model, received None: pass both")
        sizes = int(epochs), int(batch_size), int(seed or 0)
        setup = _setup_of_model(model_or_experiment, X, y, *sizes)
    with random_state_kept():
        return _tried(setup, _chosen(remedies))


def _tried(setup: Setup, changes: Sequence[Change]) -> Trials:
    _, run = setup(None)
    unchanged = _uninterrupted(run)
    finished: list[tuple[str, str, GradientHistory]] = []
    not_possible: list[tuple[str, str]] = []
    try:
        for change in changes:
            try:
                words, run = setup(change)
            except ValueError as error:
                not_possible.append((change.name, _one_line(error)))
                continue
            except Exception as error:  # of a class whose config cannot be changed so
                not_possible.append((change.name, f"{type(error).__name__}: {_one_line(error)}"))
                continue
            try:
                finished.append((change.name, words, _uninterrupted(run)))
            except Exception as error:  # the change broke the training, which is a result, too
                reason = f"training raised {type(error).__name__}: {_one_line(error)}"
                not_possible.append((change.name, reason))
    except KeyboardInterrupt:
        known = {name for name, *_ in finished} | {name for name, _ in not_possible}
        rest = [change.name for change in changes if change.name not in known]
        not_possible += [(name, "not finished: interrupted by Ctrl-C") for name in rest]
    return Trials.ranked(unchanged, finished, not_possible)


def _uninterrupted(run: Run) -> GradientHistory:
    """Return the run's history; raises KeyboardInterrupt if the run was interrupted."""
    history = run()
    if history.metadata.get("interrupted"):
        raise KeyboardInterrupt
    return history


def _chosen(remedies: Iterable[str] | Diagnosis | None) -> list[Change]:
    """Return the changes of the remedies, in the order in which the remedies are named."""
    if remedies is None:
        return list(CHANGES)
    if isinstance(remedies, Diagnosis):
        rules = [DECLARED[name] for name in remedies.rules if name in DECLARED]
        remedies = [kind for rule in rules for kind in rule.tries]
    elif isinstance(remedies, str):
        remedies = [remedies]
    names = list(dict.fromkeys(remedies))
    for name in names:
        if name not in REMEDIES:
            raise ValueError(
                f"remedies must be among {', '.join(REMEDIES)}, received {name!r}"
                f"{did_you_mean(name, REMEDIES, cutoff=0)}"
            )
    return [change for name in names for change in CHANGES if change.remedy == name]


def _setup_of_model(
    model: keras.Model, X: Any, y: Any, epochs: int, batch_size: int, seed: int
) -> Setup:
    several = isinstance(X, Mapping | list | tuple) or any(
        len(getattr(model, ends, None) or [None]) > 1 for ends in ("inputs", "outputs")
    )
    if several and not (model.compiled and model.loss is not None):
        raise ValueError(
            f"model {model.name!r} has several inputs or outputs and must be compiled: call "
            "compile with an optimizer and a loss"
        )

    def setup(change: Change | None) -> tuple[str, Run]:
        clone, words = changed_clone(model, X, change, seed)

        def run() -> GradientHistory:
            seed_all(seed)
            if several:
                return _fitted(clone, _Shuffled(X, y, batch_size, seed), epochs)
            return train_and_track_gradients(clone, X, y, epochs, batch_size=batch_size, seed=seed)

        return words, run

    return setup


class _Shuffled(keras.utils.PyDataset):
    """Batches of nested data; the order of each epoch depends on the seed only."""

    def __init__(self, X: Any, y: Any, batch_size: int, seed: int) -> None:
        super().__init__()
        self._data = keras.tree.lists_to_tuples(keras.tree.map_structure(np.asarray, (X, y)))
        self._samples = len(keras.tree.flatten(self._data)[0])
        self._batch_size = batch_size
        self._random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-self._samples // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        rows = self._order[index * self._batch_size :][: self._batch_size]
        return keras.tree.map_structure(lambda array: array[rows], self._data)

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(self._samples)


def _fitted(model: keras.Model, data: _Shuffled, epochs: int) -> GradientHistory:
    with GradientTracker(log=False) as tracker:
        model.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=[tracker])
    return tracker.history


def _setup_of_experiment(experiment: Experiment) -> Setup:
    def setup(change: Change | None) -> tuple[str, Run]:
        changed, words = experiment, ""
        if change is not None:
            settings = _settings(experiment, change.settings)
            changed = replace(experiment, **settings, name=f"{experiment.name}, {change.name}")
            words = ", ".join(
                f"{key} {getattr(experiment, key)} → {value}" for key, value in settings.items()
            )
        prepared = prepare(changed)
        return words, lambda: run_experiment(prepared)

    return setup


def _settings(experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the experiment's fields that a change sets.

    Raises:
        ValueError: if the change would change nothing.
    """
    model = prepare(experiment).model
    first = model.get_layer("hidden_1")
    now = LayerGraph(model).activation_after(first)
    found: dict[str, Any] = {}
    if "activation" in settings:
        if now == settings["activation"]:
            raise ValueError(f"the activation is already {now}")
        found["activation"] = now = settings["activation"]
    if "initializer" in settings:
        if initializer_fits(first.kernel_initializer, now):
            raise ValueError(f"the initializer {experiment.weight_initializer} already fits {now}")
        found["weight_initializer"] = short_initializer(fitting_initializer(now))
    if "normalization" in settings:
        if experiment.normalization is not None:
            raise ValueError(f"the layers already have {experiment.normalization} normalization")
        found["normalization"] = settings["normalization"]
    if "skip_connections" in settings:
        if experiment.skip_connections:
            raise ValueError("the layers already have skip connections")
        if experiment.num_layers < 2:
            raise ValueError("a skip connection spans two hidden layers, but there is only one")
        found["skip_connections"] = True
    if "global_clipnorm" in settings:
        changed_clipping(settings["global_clipnorm"], "clip_norm", experiment.clip_norm)
        found["clip_norm"] = settings["global_clipnorm"]
    if "learning_rate" in settings:
        rate = experiment.learning_rate * settings["learning_rate"]
        # Rounded, so that 0.05 × 0.1 is 0.005.
        found["learning_rate"] = float(f"{rate:.12g}")
    return found


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

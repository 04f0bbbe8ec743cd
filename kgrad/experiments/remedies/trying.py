"""`try_remedies`: what would help a model, tried: one change at a time, measured and ranked."""

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
# A change, or None for none → what was changed, in words, and the training run to make.
Bench = Callable[[Change | None], tuple[str, Run]]


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
    """Train as it is, then anew with each change that may help, one at a time; rank the results.

    All runs have the same data, seed and order of samples, and the same initial weights where the
    change leaves layers as they are. The model is left as it is, trained weights included: every
    run begins with new weights, drawn as its initializers say.

    A trial's loss is the mean over the steps of its last epoch, as training computes it. It is not
    that of an evaluation afterwards: three epochs of a hundred steps leave batch normalisation's
    moving averages, which move by 1 % a step, at a third of the way from where they began, and an
    evaluation would punish the remedy for that. Dropout raises the losses of all runs alike.

    Args:
        model_or_experiment: a built Keras model, compiled or not, or an `Experiment`, which brings
            its data, batch size and seed. A model that `train_and_track_gradients` takes is trained
            by it, and one of several inputs or outputs by `fit`.
        X: inputs to train a model with; left out with an experiment.
        y: targets; left out with an experiment.
        epochs: of each run, at least 1.
        seed: of initial weights and the order of samples; by default 0, or the experiment's.
        batch_size: samples a step, by default 32; left out with an experiment.
        remedies: which to try: "initializer", "activation", "normalization", "skip_connections",
            "clipping", "learning_rate"; a `Diagnosis` for those that its findings name; None
            for all.

    Returns:
        The trials, the unchanged run first and then the best. Changes that this model cannot have
        are in `not_possible`, each with the reason. Ctrl-C ends it with the trials that are done.

    Raises:
        TypeError: if model or data are of another kind.
        ValueError: if an argument is not as said here, or the model cannot be made anew.

    Example:
        >>> from kgrad.experiments import Experiment
        >>> ill = Experiment(activation="sigmoid", weight_initializer="normal", samples=256)
        >>> trials = try_remedies(ill, epochs=2, remedies=["normalization"])
        >>> [trial.name for trial in trials]
        ['unchanged', 'normalization batch', 'normalization layer']
    """
    require_integer("epochs", epochs, 1)
    require_seed(seed)
    if isinstance(model_or_experiment, Experiment):
        for name, value in (("X", X), ("y", y), ("batch_size", batch_size)):
            if value is not None:
                raise ValueError(f"{name} comes with an Experiment, received another: leave it out")
        seed = model_or_experiment.seed if seed is None else seed
        asked = replace(model_or_experiment, epochs=int(epochs), every="epoch", seed=int(seed))
        bench = _bench_of_experiment(asked)
    else:
        require_built(model_or_experiment)
        batch_size = 32 if batch_size is None else batch_size
        require_integer("batch_size", batch_size, 1)
        if X is None or y is None:
            raise ValueError("X and y must be given with a model, received none")
        sizes = int(epochs), int(batch_size), int(seed or 0)
        bench = _bench_of_model(model_or_experiment, X, y, *sizes)
    with random_state_kept():
        return _tried(bench, _chosen(remedies))


def _tried(bench: Bench, changes: Sequence[Change]) -> Trials:
    _, run = bench(None)
    unchanged = _uninterrupted(run)
    finished: list[tuple[str, str, GradientHistory]] = []
    not_possible: list[tuple[str, str]] = []
    try:
        for change in changes:
            try:
                words, run = bench(change)
            except ValueError as error:
                not_possible.append((change.name, _first_line(error)))
                continue
            try:
                finished.append((change.name, words, _uninterrupted(run)))
            except Exception as error:  # what a change breaks is an answer, with its reason
                reason = f"training raised {type(error).__name__}: {_first_line(error)}"
                not_possible.append((change.name, reason))
    except KeyboardInterrupt:
        known = {name for name, *_ in finished} | {name for name, _ in not_possible}
        rest = [change.name for change in changes if change.name not in known]
        not_possible += [(name, "it was not finished: interrupted by Ctrl-C") for name in rest]
    return Trials.ranked(unchanged, finished, not_possible)


def _uninterrupted(run: Run) -> GradientHistory:
    """The run's history; KeyboardInterrupt if it ended before its time."""
    history = run()
    if history.metadata.get("interrupted"):
        raise KeyboardInterrupt
    return history


def _chosen(remedies: Iterable[str] | Diagnosis | None) -> list[Change]:
    """The changes of the remedies, in the order that these are named."""
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


def _bench_of_model(
    model: keras.Model, X: Any, y: Any, epochs: int, batch_size: int, seed: int
) -> Bench:
    several = isinstance(X, Mapping | list | tuple) or any(
        len(getattr(model, ends, None) or [None]) > 1 for ends in ("inputs", "outputs")
    )
    if several and not (model.compiled and model.loss is not None):
        raise ValueError(
            f"model {model.name!r} must be compiled, for fit trains a model of several inputs or "
            "outputs, received one that is not: call compile with an optimizer and a loss"
        )

    def bench(change: Change | None) -> tuple[str, Run]:
        clone, words = changed_clone(model, X, change, seed)

        def run() -> GradientHistory:
            seed_all(seed)
            if several:
                return _fitted(clone, _Shuffled(X, y, batch_size, seed), epochs)
            return train_and_track_gradients(clone, X, y, epochs, batch_size=batch_size, seed=seed)

        return words, run

    return bench


class _Shuffled(keras.utils.PyDataset):
    """Batches of nested data, in an order for each epoch that depends on the seed alone."""

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


def _bench_of_experiment(experiment: Experiment) -> Bench:
    def bench(change: Change | None) -> tuple[str, Run]:
        changed, words = experiment, ""
        if change is not None:
            settings = _settings(experiment, change.settings)
            changed = replace(experiment, **settings, name=f"{experiment.name}, {change.name}")
            words = ", ".join(
                f"{key} {getattr(experiment, key)} → {value}" for key, value in settings.items()
            )
        prepared = prepare(changed)
        return words, lambda: run_experiment(prepared)

    return bench


def _settings(experiment: Experiment, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of an experiment that a change sets; says so if it would change nothing."""
    model = prepare(experiment).model
    first = model.get_layer("hidden_1")
    now = LayerGraph(model).activation_after(first)
    found: dict[str, Any] = {}
    if "activation" in settings:
        if now == settings["activation"]:
            raise ValueError(f"{now} is the activation already")
        found["activation"] = now = settings["activation"]
    if "initializer" in settings:
        if initializer_fits(first.kernel_initializer, now):
            raise ValueError(f"the initializer {experiment.weight_initializer} fits {now} already")
        found["weight_initializer"] = short_initializer(fitting_initializer(now))
    if "normalization" in settings:
        if experiment.normalization is not None:
            raise ValueError(f"the layers have {experiment.normalization} normalization already")
        found["normalization"] = settings["normalization"]
    if "skip_connections" in settings:
        if experiment.skip_connections or experiment.num_layers < 2:
            have = "the layers have skip connections already"
            raise ValueError(
                have if experiment.skip_connections else "a skip connection spans two hidden layers"
            )
        found["skip_connections"] = True
    if "global_clipnorm" in settings:
        changed_clipping(settings["global_clipnorm"], "clip_norm", experiment.clip_norm)
        found["clip_norm"] = settings["global_clipnorm"]
    if "learning_rate" in settings:
        rate = experiment.learning_rate * settings["learning_rate"]
        found["learning_rate"] = float(f"{rate:.12g}")  # 0.05 × 0.1 as people write it
    return found


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

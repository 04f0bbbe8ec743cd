"""`try_remedies`: train with one change at a time, measure which changes help, and rank them."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from kgrad.diagnosis import Diagnosis
from kgrad.diagnosis.diagnosing import diagnose_before_training
from kgrad.diagnosis.evidence import Evidence
from kgrad.experiments.engines import prepare
from kgrad.experiments.experiment import Experiment
from kgrad.experiments.remedies.changes import changed_clone, random_state_kept, seed_all
from kgrad.experiments.remedies.plans import CHANGES, Change, plan_change
from kgrad.experiments.remedies.samples import Samples, changed_samples, read_samples
from kgrad.experiments.remedies.skill import metric_name, predicted, skill
from kgrad.measure.inputs import choose_loss, require_built
from kgrad.measure.keras_models.data import read_data
from kgrad.measure.keras_models.facts import read_facts
from kgrad.measure.keras_models.graph import LayerGraph
from kgrad.measure.model_diagnosis import diagnose
from kgrad.measure.progress import progress_bar
from kgrad.measure.tracker import GradientTracker
from kgrad.records.checks import did_you_mean, require_integer, require_seed
from kgrad.records.history import GradientHistory
from kgrad.records.trials import SKILL, Trials

REMEDIES = tuple(dict.fromkeys(change.remedy for change in CHANGES))
# Steps after which a smaller learning rate shows, and the fewest epochs.
_STEPS, _LEAST_EPOCHS = 500, 3
# The time is divided among the unchanged run and this many changes; more are tried if it is left.
_TRIALS = 8
# Change of a kernel per update and norm: Karpathy calls 0.1 % healthy; to train well within a few
# hundred steps takes a little more.
_UPDATE = 3e-3


class Trainable(NamedTuple):
    """A clone with its change, ready to be trained.

    Attributes:
        model: the compiled clone.
        samples: its data.
        words: description of the change.
    """

    model: keras.Model
    samples: Samples
    words: str


def try_remedies(
    model_or_experiment: keras.Model | Experiment,
    X: Any = None,
    y: Any = None,
    epochs: int | None = None,
    *,
    seed: int | None = None,
    batch_size: int | None = None,
    remedies: Iterable[str] | Diagnosis | None = None,
    seconds: float = 60.0,
    verbose: int = 1,
) -> Trials:
    """Train an unchanged baseline, then once with each change that may help; rank the results.

    All runs have the same data, seed, order of samples and number of epochs. Layers that a change
    does not affect have the same initial weights. The given model is not changed or trained: every
    run starts with new weights, drawn by the model's initializers.

    The unchanged run is diagnosed, and the remedies of its most likely cause are tried first.

    Trials are ranked by their skill at the end of the last epoch: 1 for perfect answers, 0 for no
    better than always giving the best constant answer, below 0 for worse than that. It is R² for
    numbers, and the mean recall of the classes, rescaled, for classes. Unlike a loss it can be
    compared if a change replaces the loss or rescales the data. It is computed from the predictions
    for up to 1,024 rows of the training data. If outputs and targets cannot be compared, as for a
    loss of your own that takes a mean and a variance, trials are ranked by the loss, and changes of
    the loss are not tried.

    Args:
        model_or_experiment: a built Keras model, compiled or not, or an `Experiment`, which has its
            own data, batch size and seed.
        X: inputs to train a model with, arrays of any structure that the model takes; omit it for
            an experiment.
        y: targets; omit them for an experiment.
        epochs: number of epochs of each run, at least 1; by default as many as take 500 steps, at
            least 3, or fewer if the time is too short.
        seed: seed of initial weights and of the order of samples; default: 0, or the experiment's.
        batch_size: samples per step, 32 by default; omit it for an experiment.
        remedies: the remedies to try, in this order: "output", "samples", "inputs", "targets",
            "data" (several of output, inputs and targets), "initializer", "activation",
            "normalization", "skip_connections", "clipping", "learning_rate", "optimizer",
            "dropout", "penalties", "class_weights", or the name of a single change, such as
            "learning rate ×0.1"; a `Diagnosis` for those of its findings; None for all, those of
            the unchanged run's findings first.
        seconds: time after which no further run is started. The unchanged run and one change are
            always finished.
        verbose: 0 for silence, 1 for a progress bar in a terminal or a notebook.

    Returns:
        The trials, the baseline first and then the best. Changes that cannot be made to this model,
        or were not reached in time, are in its `not_possible`, each with the reason. After Ctrl-C,
        the finished trials.

    Raises:
        TypeError: if the model or the data have an unsupported type.
        ValueError: if an argument is not accepted, the model cannot be rebuilt from its config, or
            the unchanged model cannot be trained on the data.

    Example:
        >>> from kgrad.experiments import Experiment
        >>> deep = Experiment(activation="sigmoid", weight_initializer="normal", samples=256)
        >>> trials = try_remedies(deep, epochs=2, remedies=["normalization"])
        >>> [trial.name for trial in trials]
        ['unchanged', 'normalization batch', 'normalization layer']
    """
    if epochs is not None:
        require_integer("epochs", epochs, 1)
    require_seed(seed)
    if not isinstance(seconds, int | float) or not seconds > 0:
        raise ValueError(f"seconds must be a number above 0, received {seconds!r}")
    chosen = None if remedies is None else _chosen(remedies)
    if isinstance(model_or_experiment, Experiment):
        for name, value in (("X", X), ("y", y), ("batch_size", batch_size)):
            if value is not None:
                raise ValueError(f"{name} must be left out with an Experiment, which has its own")
        seed = model_or_experiment.seed if seed is None else seed
        _, dataset, model, optimizer = prepare(model_or_experiment)
        model.compile(optimizer, dataset.loss)
        X, y, batch_size = dataset.X, dataset.y, model_or_experiment.batch_size
    else:
        model = model_or_experiment
        require_built(model)
        batch_size = 32 if batch_size is None else batch_size
        require_integer("batch_size", batch_size, 1)
        if X is None or y is None:
            raise ValueError("X and y must be given with a model, received None: pass both")
    with random_state_kept():
        return _Trying(model, X, y, batch_size, seed or 0, seconds, verbose).run(epochs, chosen)


class _Trying:
    """The runs of one call of `try_remedies`."""

    def __init__(
        self,
        model: keras.Model,
        X: Any,
        y: Any,
        batch_size: int,
        seed: int,
        seconds: float,
        verbose: int,
    ) -> None:
        self._model, self._samples = model, read_samples(model, X, y)
        self._loss = self._chosen_loss()
        self._batch_size, self._seed = int(batch_size), int(seed)
        self._baseline_run: GradientHistory | None = None
        self._seconds, self._started = float(seconds), time.monotonic()
        console = Console()
        self._shows = bool(verbose) and (console.is_jupyter or console.is_terminal)

    def run(self, epochs: int | None, chosen: Sequence[Change] | None) -> Trials:
        finished: list[tuple[str, str, GradientHistory]] = []
        not_possible: list[tuple[str, str]] = []
        total = 1 + len(CHANGES if chosen is None else chosen)
        columns = MofNCompleteColumn(), TimeElapsedColumn()
        with progress_bar(total, self._shows, *columns) as show:
            show(0, lambda: "unchanged")
            unchanged = self._trainable(None)
            try:
                baseline, epochs = self._baseline(unchanged, epochs)
            except Exception as error:  # such as TensorFlow's of a label without an output unit
                raise ValueError(
                    f"the unchanged model must train, but raised {type(error).__name__}: "
                    f"{_one_line(error)}{self._why_not(unchanged.model)}"
                ) from error
            self._baseline_run = baseline
            changes = self._ordered(baseline, unchanged.model) if chosen is None else chosen
            try:
                for done, change in enumerate(changes, start=1):
                    show(done, partial(str, change.name))
                    result = self._tried(change, epochs, is_first=not finished)
                    if isinstance(result, str):
                        not_possible.append((change.name, result))
                    else:
                        finished.append((change.name, *result))
                show(total, lambda: "done")
            except KeyboardInterrupt:
                known = {name for name, *_ in finished} | {name for name, _ in not_possible}
                rest = [change.name for change in changes if change.name not in known]
                not_possible += [(name, "not finished: interrupted by Ctrl-C") for name in rest]
        return Trials.ranked(baseline, finished, not_possible, metric_name(self._samples.tasks))

    def _tried(
        self, change: Change, epochs: int, *, is_first: bool
    ) -> tuple[str, GradientHistory] | str:
        """Return the change in words and its history, or why there is none."""
        if not is_first and time.monotonic() - self._started > self._seconds:
            return f"the {self._seconds:g} seconds were over: pass more, or remedies=[…]"
        try:
            trainable = self._trainable(change)
        except ValueError as error:
            return _one_line(error)
        except Exception as error:  # of a class whose config cannot be changed so
            return f"{type(error).__name__}: {_one_line(error)}"
        try:
            return trainable.words, self._trained(trainable, epochs)
        except Exception as error:  # the change broke the training, which is a result, too
            return f"training raised {type(error).__name__}: {_one_line(error)}"

    def _trainable(self, change: Change | None) -> Trainable:
        change = None if change is None else self._made_concrete(change)
        settings = {} if change is None else change.settings
        samples, of_data = changed_samples(self._model, self._samples, settings)
        clone, of_model = changed_clone(
            self._model, samples.X, change, self._seed, loss=self._loss, tasks=samples.tasks
        )
        words = "; ".join(part for part in (of_data, of_model) if part)
        return Trainable(clone, samples, words)

    def _made_concrete(self, change: Change) -> Change:
        """Return a change with the factor of its learning rate, and without parts that are idle.

        Raises:
            ValueError: if the factor is unknown, or fewer than two parts are left of several.
        """
        if change.settings.get("learning_rate") == "fitting":
            return change._replace(settings={"learning_rate": _fitting_factor(self._baseline_run)})
        if len(change.settings) < 2 or change.remedy != "data":
            return change
        settings, reason = {}, ""
        for name, value in change.settings.items():
            try:
                changed_samples(self._model, self._samples, {name: value})
                if name == "output":
                    plan_change(
                        LayerGraph(self._model), {name: value}, self._loss, self._samples.tasks
                    )
                settings[name] = value
            except ValueError as error:
                reason = str(error)
        if len(settings) < 2:
            raise ValueError(reason)
        return change._replace(settings=settings)

    def _chosen_loss(self) -> Any:
        """Return the loss to compile the clones with, which an uncompiled model must imply."""
        model = self._model
        if model.compiled and model.loss is not None:
            return model.loss
        outputs = len(getattr(model, "outputs", None) or [None])
        if outputs > 1 or len(self._samples.targets) > 1:
            raise ValueError(
                f"model {model.name!r} has several outputs and must be compiled: call compile with "
                "an optimizer and a loss"
            )
        return choose_loss(model, self._samples.targets[0], None)

    def _baseline(self, trainable: Trainable, epochs: int | None) -> tuple[GradientHistory, int]:
        """Train the unchanged run; return its history and the number of epochs of all runs."""
        if epochs is not None:
            return self._trained(trainable, int(epochs)), int(epochs)
        steps = -(-self._samples.count // self._batch_size)
        planned = max(_LEAST_EPOCHS, math.ceil(_STEPS / steps))
        limit = _TimeLimit(self._seconds / (_TRIALS + 1))
        history = self._trained(trainable, planned, limit)
        return history, min(planned, limit.epochs_in_time)

    def _trained(
        self, trainable: Trainable, epochs: int, *callbacks: keras.callbacks.Callback
    ) -> GradientHistory:
        model, samples, _ = trainable
        seed_all(self._seed)
        with GradientTracker(log=False) as tracker:
            model.fit(
                _Batches(samples, self._batch_size, self._seed),
                epochs=epochs,
                shuffle=False,
                verbose=0,
                callbacks=[_Skill(samples), *callbacks, tracker],
            )
        if tracker.history.metadata.get("interrupted"):
            raise KeyboardInterrupt
        return tracker.history

    def _why_not(self, model: keras.Model) -> str:
        """Return the end of the error of a model that cannot train: the cause, if it is seen."""
        data = read_data(model, self._samples.X, self._samples.y)
        found = diagnose_before_training(read_facts(model), data)
        return "" if not found else f"; {found[0].evidence[0]} {found[0].remedies[0]}"

    def _ordered(self, baseline: GradientHistory, model: keras.Model) -> list[Change]:
        """Return all changes, those of the unchanged run's findings first."""
        first = _chosen(diagnose(baseline, model, self._samples.X, self._samples.y))
        return [*first, *(change for change in CHANGES if change not in first)]


class _Batches(keras.utils.PyDataset):
    """Batches of the samples; the order of each epoch depends on the seed only."""

    def __init__(self, samples: Samples, batch_size: int, seed: int) -> None:
        super().__init__()
        weights = () if samples.weights is None else (samples.weights,)
        self._data = keras.tree.lists_to_tuples((samples.X, samples.y, *weights))
        self._count, self._batch_size = samples.count, batch_size
        self._random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return -(-self._count // self._batch_size)

    def __getitem__(self, index: int) -> Any:
        rows = self._order[index * self._batch_size :][: self._batch_size]
        return keras.tree.map_structure(lambda array: array[rows], self._data)

    def on_epoch_end(self) -> None:
        self._order = self._random.permutation(self._count)


class _Skill(keras.callbacks.Callback):
    """Adds the skill of the predictions to the logs of each epoch; ends a run that broke down."""

    def __init__(self, samples: Samples) -> None:
        super().__init__()
        self._samples = samples

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = {} if logs is None else logs
        samples = self._samples
        outputs = predicted(self.model, samples.X)
        logs[SKILL] = math.nan
        if len(outputs) == len(samples.targets):
            of_each = [
                skill(task, y[: len(one)], samples.restore(one), from_logits=samples.from_logits)
                for task, y, one in zip(samples.tasks, samples.original, outputs, strict=True)
            ]
            logs[SKILL] = float(np.mean(of_each))
        if not math.isfinite(logs.get("loss", 0.0)):
            self.model.stop_training = True


class _TimeLimit(keras.callbacks.Callback):
    """Ends a run after some time.

    Attributes:
        epochs_in_time: how many epochs fit into the time, at least 1.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds, self._ends = seconds, [time.monotonic()]
        self.epochs_in_time = 1

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        self._ends.append(time.monotonic())
        spent = np.diff(self._ends)
        # The first epoch includes the compilation.
        self.epochs_in_time = 1 + max(
            0, int((self._seconds - spent[0]) / spent[1:].min(initial=spent[0]))
        )
        if self._ends[-1] - self._ends[0] > self._seconds:
            self.model.stop_training = True


def _fitting_factor(history: GradientHistory | None) -> float:
    """Return the factor of the learning rate with which an update changes the weights by 0.3 %.

    It is a power of ten, from the largest change of a kernel per update in the first epoch.

    Raises:
        ValueError: if the changes are unknown or about as large already.
    """
    e = None if history is None else Evidence(history)
    steps = np.zeros(0) if e is None or len(e.epochs) < 2 else e.movement[1] / e.updates[1]
    largest = float(np.fmax.reduce(steps, initial=0))
    if not 0 < largest < np.inf:
        raise ValueError("the weights of the unchanged run do not move, or become NaN")
    factor = 10.0 ** round(math.log10(_UPDATE / largest))
    if 0.1 < factor < 10:
        raise ValueError(f"the updates of the unchanged run are {100 * largest:.2g} % already")
    return factor


def _chosen(remedies: Iterable[str] | Diagnosis) -> list[Change]:
    """Return the changes of the remedies, in the order in which the remedies are named."""
    if isinstance(remedies, Diagnosis):
        remedies = [name for finding in remedies for name in finding.tries]
    elif isinstance(remedies, str):
        remedies = [remedies]
    elif not isinstance(remedies, Iterable):
        raise TypeError(f"remedies must be names of remedies or a Diagnosis, received {remedies!r}")
    single = {change.name: [change] for change in CHANGES}
    known = single | {
        kind: [change for change in CHANGES if change.remedy == kind] for kind in REMEDIES
    }
    chosen: dict[str, Change] = {}
    for name in remedies:
        if name not in known:
            raise ValueError(
                f"remedies must be among {', '.join(REMEDIES)}, received {name!r}"
                f"{did_you_mean(name, list(known), cutoff=0)}"
            )
        chosen |= {change.name: change for change in known[name]}
    return list(chosen.values())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

"""The data of a trial: as given, or standardized, recoded or weighted."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from kgrad.experiments.remedies.skill import Task, read_task
from kgrad.measure.keras_models.data import as_numbers
from kgrad.measure.keras_models.facts import losses_of, read_facts

# Standardizing changes little if every column is already this near to mean 0 and deviation 1.
_NEAR = 0.25


@dataclass(frozen=True)
class Samples:
    """The data of a trial.

    Attributes:
        X, y: inputs and targets to train with, nested as given.
        original: the targets as they were given, one array per output.
        tasks: what each output is asked for.
        from_logits: whether the outputs are values before sigmoid or softmax.
        weights: weight of each sample; None for equal ones.
        restore: function that turns outputs into the units of `original`.
    """

    X: Any
    y: Any
    original: Sequence[np.ndarray]
    tasks: Sequence[Task]
    from_logits: bool = False
    weights: np.ndarray | None = None
    restore: Callable[[np.ndarray], np.ndarray] = np.asarray

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(self.original[0])

    @property
    def targets(self) -> list[np.ndarray]:
        """The targets to train with, one array per output."""
        return keras.tree.flatten(self.y)


def read_samples(model: keras.Model, X: Any, y: Any) -> Samples:
    """Check the data, and read what each output is asked for.

    Raises:
        TypeError: if X or y are not arrays of numbers.
        ValueError: if their lengths differ, or they have no samples.
    """
    X, y = _arrays("X", X), _arrays("y", y)
    targets = keras.tree.flatten(y)
    lengths = [len(array) for array in (*keras.tree.flatten(X), *targets)]
    if len(set(lengths)) > 1 or not lengths[0]:
        raise ValueError(
            "X and y must have the same number of samples, at least 1, received "
            f"{', '.join(map(str, lengths))}"
        )
    head = read_facts(model).head
    losses = losses_of(model, len(targets))
    tasks = [read_task(*pair, head.activation) for pair in zip(targets, losses, strict=True)]
    return Samples(X, y, targets, tasks, head.from_logits)


def _arrays(name: str, value: Any) -> Any:
    if isinstance(value, Mapping) or (
        isinstance(value, list | tuple) and value and hasattr(value[0], "shape")
    ):
        return keras.tree.map_structure(lambda part: _array(name, part), value)
    return _array(name, value)


def _array(name: str, value: Any) -> np.ndarray:
    array = as_numbers(name, value)
    if not array.ndim:
        raise TypeError(
            f"{name} must be an array of a few thousand samples, received {type(value).__name__}"
        )
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array


def changed_samples(
    model: keras.Model, samples: Samples, settings: Mapping[str, Any]
) -> tuple[Samples, str]:
    """Return the data of a trial with the settings of its change, and what was changed.

    Raises:
        ValueError: if a change of the data would change nothing, or cannot be made. The message is
            one sentence.
    """
    words = []
    if "output" in settings:
        samples = _recoded(samples)
    for name, change in _CHANGES.items():
        if name in settings:
            samples, part = change(model, samples)
            words.append(part)
    return samples, "; ".join(words)


def _standardized_inputs(model: keras.Model, samples: Samples) -> tuple[Samples, str]:
    X = samples.X
    if any(isinstance(one, keras.layers.Embedding) for one in model._flatten_layers()):
        raise ValueError("an Embedding looks up the inputs as integers")
    flat = keras.tree.flatten(X)
    moments = [_moments(array) for array in flat]
    if all(np.all(np.abs(m) < _NEAR) and np.all(np.abs(s - 1) < _NEAR) for m, s in moments):
        raise ValueError("every column of the inputs has mean 0 and standard deviation 1 already")
    made = [_rescaled(array, *pair) for array, pair in zip(flat, moments, strict=True)]
    words = "inputs with mean 0 and standard deviation 1"
    return replace(samples, X=keras.tree.pack_sequence_as(X, made)), words


def _moments(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the last axis's entries; 1 for constant ones."""
    columns = array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1).astype(float)
    mean, deviation = columns.mean(axis=0), columns.std(axis=0)
    constant = deviation <= 1e-6 * np.abs(mean)
    return mean, np.where(constant, 1.0, deviation)


def _rescaled(array: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return ((array.astype(float) - mean) / deviation).astype(keras.config.floatx())


def _standardized_targets(model: keras.Model, samples: Samples) -> tuple[Samples, str]:
    if len(samples.targets) > 1 or samples.tasks[0].kind != "numbers":
        raise ValueError("the targets are not the numbers of a single output")
    y = samples.targets[0]
    mean, deviation = _moments(y)
    if np.all(np.abs(mean) < _NEAR) and np.all(np.abs(deviation - 1) < _NEAR):
        raise ValueError("the targets have mean 0 and standard deviation 1 already")

    def restore(outputs: np.ndarray) -> np.ndarray:
        return outputs * deviation + mean

    made = keras.tree.pack_sequence_as(samples.y, [_rescaled(y, mean, deviation)])
    words = "targets with mean 0 and standard deviation 1"
    return replace(samples, y=made, restore=restore), words


def _recoded(samples: Samples) -> Samples:
    """Return targets as the output that fits them takes them: classes as 0 to their number − 1."""
    if len(samples.targets) > 1:
        raise ValueError("the model has several outputs")
    (y,), (task,) = samples.targets, samples.tasks
    if task.kind == "numbers" and y.ndim == 1:
        y = y[:, None]
    if task.kind == "class" and not task.one_hot:
        y = np.searchsorted(np.array(task.classes), y.astype(float))
        if len(task.classes) == 2:
            y = y.reshape(len(y), -1).astype(keras.config.floatx()) if y.ndim <= 2 else y

    def restore(outputs: np.ndarray) -> np.ndarray:
        classes = np.array(task.classes)
        if task.kind != "class" or task.one_hot:
            return outputs
        if len(classes) == 2:
            return classes[0] + outputs * (classes[1] - classes[0])
        return classes[outputs.argmax(axis=-1)]

    made = keras.tree.pack_sequence_as(samples.y, [y])
    return replace(samples, y=made, from_logits=False, restore=restore)


def _weighted(model: keras.Model, samples: Samples) -> tuple[Samples, str]:
    y, task = samples.targets[0], samples.tasks[0]
    labels = y.argmax(axis=-1) if task.one_hot else y
    if len(samples.tasks) > 1 or task.kind != "class" or labels.size != samples.count:
        raise ValueError("the targets are not one class per sample of a single output")
    classes, places, counts = np.unique(labels.ravel(), return_inverse=True, return_counts=True)
    if counts.max() < 1.5 * counts.min():
        raise ValueError("the classes have about the same number of samples")
    weights = (len(labels) / len(classes) / counts)[places.ravel()]
    words = f"weights of {weights.min():.2g} to {weights.max():.2g}, so that classes count alike"
    return replace(samples, weights=weights.astype(keras.config.floatx())), words


def _finite(model: keras.Model, samples: Samples) -> tuple[Samples, str]:
    arrays = [*keras.tree.flatten(samples.X), *samples.targets]
    rows = [np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in arrays]
    keep = np.logical_and.reduce(rows)
    if keep.all():
        raise ValueError("no sample has a NaN or an infinity")
    if not keep.any():
        raise ValueError("every sample has a NaN or an infinity")
    X, y = (keras.tree.map_structure(lambda a: a[keep], one) for one in (samples.X, samples.y))
    words = f"without {len(keep) - keep.sum()} of {len(keep)} samples"
    original = [array[keep] for array in samples.original]
    return replace(samples, X=X, y=y, original=original), words


_CHANGES: dict[str, Callable[[keras.Model, Samples], tuple[Samples, str]]] = {
    "samples": _finite,
    "inputs": _standardized_inputs,
    "targets": _standardized_targets,
    "class_weights": _weighted,
}

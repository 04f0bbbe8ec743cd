"""Skill: how well a model's outputs answer what they are asked for, in the units of the targets.

A loss cannot rank runs of which one has another loss. Skill can: it is 0 for the best constant
answer and 1 for a perfect one, whatever the loss, the activation or the scale of the targets.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from kgrad.diagnosis.model_rules import is_one_hot
from kgrad.measure.keras_models.layers import loss_name

Kind = Literal["class", "labels", "numbers"]
METRICS: dict[Kind, str] = {
    "class": "accuracy per class",
    "labels": "accuracy per label",
    "numbers": "R²",
}
# Integers of more different values than this are numbers, unless the loss takes classes.
_MOST_CLASSES = 100
# Rows that a skill is computed from, and rows of a prediction.
_ROWS, _CHUNK = 1024, 256


class Task(NamedTuple):
    """The question that one output answers.

    Attributes:
        kind: "class" for one class per sample, "labels" for several yes-or-no labels, "numbers".
        classes: the values of the labels of the classes, in ascending order; the columns' numbers
            if the targets are one-hot rows; empty for other kinds.
        one_hot: whether the targets name classes by one-hot rows.
    """

    kind: Kind
    classes: tuple[float, ...] = ()
    one_hot: bool = False


def read_task(y: np.ndarray, loss: Any, activation: str = "") -> Task:
    """Return what an output is asked for, read off its targets, its loss and its activation."""
    name = loss_name(loss)
    takes_classes = name.endswith(("crossentropy", "hinge"))
    if is_one_hot(y):
        return Task("class", tuple(map(float, range(y.shape[-1]))), one_hot=True)
    binary = bool(np.isin(y, (0, 1)).all())
    if binary and y.ndim == 2 and y.shape[1] > 1:
        return Task("labels")
    values = np.unique(y)
    if not np.isfinite(values).all() or len(values) < 2:
        return Task("numbers")
    if name.startswith("sparse_categorical"):
        return Task("class", tuple(map(float, values)))
    one_column = y.ndim == 1 or y.shape[-1] == 1
    whole = bool((values == np.floor(values)).all()) and values.min() >= -1
    guesses_classes = takes_classes or (activation in ("softmax", "sigmoid") and whole)
    few = len(values) <= _MOST_CLASSES and len(values) < len(y) / 4
    if one_column and few and guesses_classes and (whole or len(values) <= 20):
        return Task("class", tuple(map(float, values)))
    return Task("numbers")


def skill(task: Task, y: np.ndarray, outputs: np.ndarray, *, from_logits: bool = False) -> float:
    """Return how well outputs answer: 1 for perfect answers, 0 for the best constant one.

    For numbers it is R², 1 − Σ(y − ŷ)² / Σ(y − ȳ)². For classes and labels it is the mean of the
    recalls of the classes, rescaled from [1/classes, 1] to [0, 1]: a constant answer then has a
    skill of 0 whatever the share of the largest class (the "informedness" of Powers, Evaluation:
    from precision, recall and F-measure to ROC, 2011).

    Args:
        task: what the output is asked for.
        y: the targets, (samples, ...).
        outputs: the outputs in the units of the targets, (samples, ...).
        from_logits: whether the outputs are values before sigmoid or softmax.

    Returns:
        The skill; NaN if outputs and targets cannot be compared, or outputs are not finite.
    """
    if not np.isfinite(outputs).all():
        return float("nan")
    if task.kind == "numbers":
        return _r2(y, outputs)
    if task.kind == "labels":
        if outputs.shape != y.shape:
            return float("nan")
        chosen = outputs > (0.0 if from_logits else 0.5)
        columns = zip(y.T, chosen.T, strict=True)
        return float(np.nanmean([_informedness(truth, guess) for truth, guess in columns]))
    truth = y.argmax(axis=-1) if task.one_hot else y.reshape(_without_last_1(y.shape))
    return _informedness(truth, _chosen(task, outputs, truth.shape, from_logits))


def _r2(y: np.ndarray, outputs: np.ndarray) -> float:
    y, outputs = (array.reshape(len(y), -1).astype(float) for array in (y, outputs))
    if y.shape[1] != outputs.shape[1] and 1 not in (y.shape[1], outputs.shape[1]):
        return float("nan")
    spread = ((y - y.mean(axis=0)) ** 2).mean()
    with np.errstate(all="ignore"):
        return float(1 - ((y - outputs) ** 2).mean() / spread) if spread > 0 else float("nan")


def _chosen(
    task: Task, outputs: np.ndarray, shape: tuple[int, ...], from_logits: bool
) -> np.ndarray:
    """Return the label of the class that the model predicts for each sample."""
    if outputs.shape[:-1] == shape and outputs.shape[-1] > 1:
        return outputs.argmax(axis=-1)
    outputs = outputs.reshape(_without_last_1(outputs.shape))
    classes = np.array(task.classes)
    if outputs.shape != shape:
        return np.full(shape, np.nan)
    if len(classes) == 2:
        limit = 0.0 if from_logits else classes.mean()
        return np.where(outputs > limit, classes[1], classes[0])
    return classes[np.abs(outputs[..., None] - classes).argmin(axis=-1)]


def _informedness(truth: np.ndarray, guess: np.ndarray) -> float:
    classes = np.unique(truth)
    if len(classes) < 2:
        return float("nan")
    recall = np.mean([np.mean(guess[truth == one] == one) for one in classes])
    return float((recall - 1 / len(classes)) / (1 - 1 / len(classes)))


def _without_last_1(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape


def predicted(model: keras.Model, X: Any) -> list[np.ndarray]:
    """Return the outputs for the first rows of X, as many as a skill needs."""
    samples = len(keras.tree.flatten(X)[0])
    chunk = min(_CHUNK, samples)  # all of one size, so that the model is compiled once
    parts: list[list[Any]] = []
    for start in range(0, min(_ROWS, samples) // chunk * chunk, chunk):
        rows = slice(start, start + chunk)
        part = keras.tree.map_structure(lambda array, rows=rows: array[rows], X)
        parts.append(keras.tree.flatten(model.predict_on_batch(part)))
    by_output = list(zip(*parts, strict=True))
    return [np.concatenate([np.asarray(part, float) for part in one]) for one in by_output]


def metric_name(tasks: Sequence[Task]) -> str:
    """Return the name of the skill of several outputs."""
    kinds = {task.kind for task in tasks}
    return METRICS[tasks[0].kind] if len(kinds) == 1 else "mean of accuracy and R²"

"""`diagnose`: find the problems of a training run, given its history and optionally its model."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from kgrad import diagnosis
from kgrad.diagnosis import Diagnosis, Thresholds
from kgrad.records.deprecations import old_third_argument
from kgrad.records.history import GradientHistory


@old_third_argument("y")
def diagnose(
    history: GradientHistory,
    model: Any = None,
    X: Any = None,
    y: Any = None,
    *,
    rules: Iterable[str] | None = None,
    thresholds: Thresholds | None = None,
) -> Diagnosis:
    """Find the problems of a training run.

    A healthy run has no findings. A small gradient alone is no finding, because a converged network
    has one too. docs/diagnosis.md describes what the rules compare, their thresholds, and how often
    they err.

    Args:
        history: the run. More recorded data allow more precise findings: the activations of a probe
            show dead and saturated units; without a probe, `zero_fraction` replaces them.
        model: the Keras model that was trained, for the rules about its layers and its loss.
        X: the inputs it was trained with, as `fit` takes them, for the rules about their scale and
            encoding; up to 2,000 rows are looked at. Also a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or a list of batches (X, y), which have the targets.
        y: the targets, for the rules that compare them with the loss and the outputs, and to judge
            the loss by that of the best constant prediction.
        rules: names of the rules to apply; None for all.
        thresholds: the thresholds to use, such as `Thresholds(falls_well=0.3)`.

    Returns:
        The findings, the most severe first.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the history has no record or lacks a statistic that is always recorded, if a
            rule is unknown or its data are missing, if X or y are given without a model, or if
            their numbers of rows differ.

    Example:
        >>> from kgrad.experiments import Experiment, run_experiment
        >>> deep = {"num_layers": 10, "activation": "sigmoid", "weight_initializer": "normal"}
        >>> history = run_experiment(Experiment(**deep, samples=256, epochs=3))
        >>> diagnose(history).rules
        ('vanishing',)
    """
    facts = data = None
    if model is not None:
        # A recorded history is diagnosed without Keras, which takes seconds to import.
        from kgrad.measure.keras_models.data import read_data
        from kgrad.measure.keras_models.facts import read_facts

        facts = read_facts(model)
        if X is not None or y is not None:
            data = read_data(model, X, y)
            if not _has_weights_of(model, history):
                data = data._replace(predict=None, inference_loss=None)
    elif X is not None or y is not None:
        raise ValueError(
            "X and y are compared with the model, received them without a model: call "
            "diagnose(history, model, X, y)"
        )
    return diagnosis.diagnose(history, facts, data, rules=rules, thresholds=thresholds)


def _has_weights_of(model: Any, history: GradientHistory) -> bool:
    """Return whether a model's weights have the norms of a history's last record."""
    paths, last = (weight.path for weight in history.weights), history["weight_l2"][-1]
    norms = dict(zip(paths, last, strict=True))
    known = [one for one in model.trainable_weights if one.path in norms]
    now = [float(np.linalg.norm(np.asarray(one, np.float64))) for one in known]
    return bool(known) and np.allclose(now, [norms[one.path] for one in known], rtol=1e-3)

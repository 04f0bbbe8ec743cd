"""`diagnose`: find the problems of a training run, given its history and optionally its model."""

from collections.abc import Iterable
from typing import Any

from kgrad import diagnosis
from kgrad.diagnosis import Diagnosis, Thresholds
from kgrad.records.history import GradientHistory


def diagnose(
    history: GradientHistory,
    model: Any = None,
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
        model: the Keras model, for the rules about its weights, its last layer and its loss.
        y: the targets, to compare with the values that the last layer can produce.
        rules: names of the rules to apply; None for all.
        thresholds: the thresholds to use, such as `Thresholds(falls_well=0.3)`.

    Returns:
        The findings, the most severe first.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if the history has no record or lacks a statistic that is always recorded, if a
            rule is unknown or its data are missing, or if targets are given without a model.

    Example:
        >>> from kgrad.experiments import Experiment, run_experiment
        >>> deep = {"num_layers": 10, "activation": "sigmoid", "weight_initializer": "normal"}
        >>> history = run_experiment(Experiment(**deep, samples=256, epochs=3))
        >>> diagnose(history).rules
        ('vanishing',)
    """
    facts = None
    if model is not None:
        # A recorded history is diagnosed without Keras, which takes seconds to import.
        from kgrad.measure.keras_models.facts import read_facts

        facts = read_facts(model)
    return diagnosis.diagnose(history, facts, y, rules=rules, thresholds=thresholds)

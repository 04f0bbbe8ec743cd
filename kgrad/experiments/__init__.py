"""Experiments: data, models, runs described as values, predictions and remedies."""

from kgrad.experiments.experiment import (
    PRESETS,
    Experiment,
    Prepared,
    experiment_of,
    grid,
    load_histories,
    predict_experiment,
    prepare,
    replicates,
    run_all,
    run_experiment,
    run_replicates,
)

__all__ = [
    "PRESETS",
    "Experiment",
    "Prepared",
    "experiment_of",
    "grid",
    "load_histories",
    "predict_experiment",
    "prepare",
    "replicates",
    "run_all",
    "run_experiment",
    "run_replicates",
]

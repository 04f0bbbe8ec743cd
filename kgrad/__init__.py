"""See, explain and predict the gradients of a Keras model while it trains."""

from kgrad._version import __version__
from kgrad.callback import GradientTracker
from kgrad.data import Dataset, make_dataset
from kgrad.diagnosis import Diagnosis, Finding, Thresholds, diagnose
from kgrad.history import GradientHistory, Weight
from kgrad.models import create_model
from kgrad.plots import (
    compare_gradients,
    plot_activations,
    plot_distributions,
    plot_gradient_by_depth,
    plot_phase_diagram,
    plot_prediction,
    plot_remedies,
    plot_seed_spread,
    visualize_gradients,
)
from kgrad.prediction import (
    Prediction,
    Recommendation,
    predict_gradients,
    recommend_initializer,
)
from kgrad.remedies import Trial, Trials, try_remedies
from kgrad.training import measure_gradients, train_and_track_gradients

__all__ = [
    "Dataset",
    "Diagnosis",
    "Finding",
    "GradientHistory",
    "GradientTracker",
    "Prediction",
    "Recommendation",
    "Thresholds",
    "Trial",
    "Trials",
    "Weight",
    "__version__",
    "compare_gradients",
    "create_model",
    "diagnose",
    "make_dataset",
    "measure_gradients",
    "plot_activations",
    "plot_distributions",
    "plot_gradient_by_depth",
    "plot_phase_diagram",
    "plot_prediction",
    "plot_remedies",
    "plot_seed_spread",
    "predict_gradients",
    "recommend_initializer",
    "train_and_track_gradients",
    "try_remedies",
    "visualize_gradients",
]

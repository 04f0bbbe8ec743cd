"""See, explain and predict the gradients of a Keras model while it trains."""

from kgrad._version import __version__
from kgrad.activation_plots import plot_activations
from kgrad.callback import GradientTracker
from kgrad.data import Dataset, make_dataset
from kgrad.distribution_plots import plot_distributions
from kgrad.history import GradientHistory, Weight
from kgrad.models import create_model
from kgrad.plots import (
    compare_gradients,
    plot_gradient_by_depth,
    plot_seed_spread,
    visualize_gradients,
)
from kgrad.training import measure_gradients, train_and_track_gradients

__all__ = [
    "Dataset",
    "GradientHistory",
    "GradientTracker",
    "Weight",
    "__version__",
    "compare_gradients",
    "create_model",
    "make_dataset",
    "measure_gradients",
    "plot_activations",
    "plot_distributions",
    "plot_gradient_by_depth",
    "plot_seed_spread",
    "train_and_track_gradients",
    "visualize_gradients",
]

"""See, explain and predict the gradients of a Keras model while it trains."""

from kgrad._version import VERSION as __version__
from kgrad.data import Dataset, make_dataset
from kgrad.history import GradientHistory, Weight
from kgrad.models import create_model
from kgrad.training import measure_gradients, train_and_track_gradients

__all__ = [
    "Dataset",
    "GradientHistory",
    "Weight",
    "__version__",
    "create_model",
    "make_dataset",
    "measure_gradients",
    "train_and_track_gradients",
]

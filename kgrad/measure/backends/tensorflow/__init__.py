"""Measuring on TensorFlow: in the graphs of the compiled steps."""

from kgrad.measure.backends.tensorflow.accumulators import Way, cheapest_way
from kgrad.measure.backends.tensorflow.event_files import TensorBoardWriter
from kgrad.measure.backends.tensorflow.folds import Folds
from kgrad.measure.backends.tensorflow.gradients import readable_gradients
from kgrad.measure.backends.tensorflow.probe import compiled_probe
from kgrad.measure.backends.tensorflow.runtime import (
    END_OF_DATA,
    describe_device,
    have_values,
    outside_trace,
    require_fit_strategy,
    under_strategy,
    variable_scope,
    version,
    weight_values,
)
from kgrad.measure.backends.tensorflow.steps import (
    TrainingLoop,
    backward,
    gradient,
    loss_value,
)

__all__ = [
    "END_OF_DATA",
    "Folds",
    "TensorBoardWriter",
    "TrainingLoop",
    "Way",
    "backward",
    "cheapest_way",
    "compiled_probe",
    "describe_device",
    "gradient",
    "have_values",
    "loss_value",
    "outside_trace",
    "readable_gradients",
    "require_fit_strategy",
    "under_strategy",
    "variable_scope",
    "version",
    "weight_values",
]

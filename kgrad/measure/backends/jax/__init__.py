"""Measuring on JAX: in functions without side effects, which return what they have measured."""

from kgrad.measure.backends.jax.gradients import (
    count_places,
    exponents,
    readable_gradients,
    sum_of_squares,
    update_made,
)
from kgrad.measure.backends.jax.runtime import (
    END_OF_DATA,
    describe_device,
    have_values,
    make_fit_step,
    outside_trace,
    require_fit_strategy,
    step_logs,
    under_strategy,
    variable_scope,
    version,
    weight_values,
    xla_on_cpu,
)
from kgrad.measure.backends.jax.steps import TrainingLoop, backward, gradient, loss_value
from kgrad.measure.backends.jax.totals import Totals

__all__ = [
    "END_OF_DATA",
    "Totals",
    "TrainingLoop",
    "backward",
    "count_places",
    "describe_device",
    "exponents",
    "gradient",
    "have_values",
    "loss_value",
    "make_fit_step",
    "outside_trace",
    "readable_gradients",
    "require_fit_strategy",
    "step_logs",
    "sum_of_squares",
    "under_strategy",
    "update_made",
    "variable_scope",
    "version",
    "weight_values",
    "xla_on_cpu",
]

"""Measuring on torch: in the steps themselves, which run operation by operation."""

from kgrad.measure.backends.torch.gradients import (
    count_places,
    exponents,
    readable_gradients,
    sum_of_squares,
    update_made,
)
from kgrad.measure.backends.torch.runtime import (
    END_OF_DATA,
    describe_device,
    have_values,
    make_fit_step,
    outside_trace,
    require_fit_strategy,
    step_logs,
    uncompiled,
    under_strategy,
    variable_scope,
    version,
    weight_values,
    xla_on_cpu,
)
from kgrad.measure.backends.torch.steps import TrainingLoop, backward
from kgrad.measure.backends.torch.totals import Totals

__all__ = [
    "END_OF_DATA",
    "Totals",
    "TrainingLoop",
    "backward",
    "count_places",
    "describe_device",
    "exponents",
    "have_values",
    "make_fit_step",
    "outside_trace",
    "readable_gradients",
    "require_fit_strategy",
    "step_logs",
    "sum_of_squares",
    "uncompiled",
    "under_strategy",
    "update_made",
    "variable_scope",
    "version",
    "weight_values",
    "xla_on_cpu",
]

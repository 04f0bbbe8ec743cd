"""Measuring on JAX: in functions without side effects, which return what they have measured."""

from kgrad.measure.backends.jax.differentiate import (
    compile_dry_run,
    floats_of_this_trace,
    intermediate_gradients,
)
from kgrad.measure.backends.jax.gradients import (
    count_places,
    exponents,
    readable_gradients,
    sum_of_squares,
    update_made,
)
from kgrad.measure.backends.jax.runtime import (
    END_OF_DATA,
    as_array,
    describe_device,
    forget_traces,
    have_values,
    make_fit_step,
    notice_assignment,
    outside_trace,
    require_fit_strategy,
    require_loop_strategy,
    step_logs,
    trained_variables,
    under_strategy,
    variable_scope,
    version,
    weight_values,
    workers,
    xla_on_cpu,
)
from kgrad.measure.backends.jax.steps import TrainingLoop, backward
from kgrad.measure.backends.jax.totals import Totals

__all__ = [
    "END_OF_DATA",
    "Totals",
    "TrainingLoop",
    "as_array",
    "backward",
    "compile_dry_run",
    "count_places",
    "describe_device",
    "exponents",
    "floats_of_this_trace",
    "forget_traces",
    "have_values",
    "intermediate_gradients",
    "make_fit_step",
    "notice_assignment",
    "outside_trace",
    "readable_gradients",
    "require_fit_strategy",
    "require_loop_strategy",
    "step_logs",
    "sum_of_squares",
    "trained_variables",
    "under_strategy",
    "update_made",
    "variable_scope",
    "version",
    "weight_values",
    "workers",
    "xla_on_cpu",
]

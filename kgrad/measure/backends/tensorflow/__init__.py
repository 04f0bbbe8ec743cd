"""Measuring on TensorFlow: in the graphs of the compiled steps."""

from kgrad.measure.backends.tensorflow.differentiate import (
    compile_dry_run,
    floats_of_this_trace,
    intermediate_gradients,
)
from kgrad.measure.backends.tensorflow.distribution import require_loop_strategy, workers
from kgrad.measure.backends.tensorflow.gradients import readable_gradients
from kgrad.measure.backends.tensorflow.runtime import (
    END_OF_DATA,
    STEPS_THAT_REPAY_COMPILING,
    as_array,
    count_places,
    describe_device,
    exponents,
    have_values,
    make_fit_step,
    notice_assignment,
    outside_trace,
    require_fit_strategy,
    step_logs,
    sum_of_squares,
    uncompiled,
    under_strategy,
    update_made,
    variable_scope,
    version,
    weight_values,
    xla_on_cpu,
)
from kgrad.measure.backends.tensorflow.steps import TrainingLoop, backward
from kgrad.measure.backends.tensorflow.totals import Totals
from kgrad.measure.backends.tensorflow.traces import forget_traces, trained_variables

__all__ = [
    "END_OF_DATA",
    "STEPS_THAT_REPAY_COMPILING",
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
    "uncompiled",
    "under_strategy",
    "update_made",
    "variable_scope",
    "version",
    "weight_values",
    "workers",
    "xla_on_cpu",
]

"""Measuring on torch."""

from kgrad.measure.backends.torch.differentiate import (
    compile_dry_run,
    floats_of_this_trace,
    intermediate_gradients,
)

__all__ = ["compile_dry_run", "floats_of_this_trace", "intermediate_gradients"]
